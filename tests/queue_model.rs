//! The queue against a model: random operations, and after each the same jobs in the same states.
//!
//! The model implements the documentation of `src/queue/mod.rs` in a hundred lines and without a database: jobs in a
//! map, and a clock that the test advances. The queue's side are the statements that workers, scheduler and operators
//! run, one at a time, so a difference is a wrong statement and not a race (`queue_engine` tests races). Time passes by
//! moving every instant in the database back. A unit is 25,000 seconds, so the real seconds of a case decide nothing.
//!
//! Two workers keep jobs that they believe to be theirs, long after another one claimed them, so the fence is tested
//! all the time.
//!
//! Long because the model and the statements are compared operation by operation.
//!
//! A failure prints its seed and the shortest list of operations that reproduces it. `QUEUE_SEED=…` repeats it.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vinops::queue::admin::{self, Actor};
use vinops::queue::manual::ManualWorker;
use vinops::queue::{ClaimedJob, Retention, RunOutcome};

/// Seconds of the database's clock in one unit of the model. Four units are more than the day for which every finished
/// job stays.
const UNIT_SECONDS: i64 = 25_000;
/// Length of a lease, in units.
const LEASE_UNITS: i64 = 2;
/// Maximum number of attempts. [`KEEP`] is the retention of completed and failed jobs, in units.
const MAX_ATTEMPTS: i32 = 3;
const RETENTION_UNITS: (i64, i64) = (4, 8);
/// Kinds. Keys of the first are unique as by default, keys of the second while unfinished.
const KINDS: [&str; 2] = ["usual", "chosen"];

#[derive(Clone, Debug)]
enum QueueOperation {
    Enqueue {
        kind: usize,
        key: Option<u8>,
        delay: i64,
        priority: i32,
    },
    Claim {
        worker: usize,
        jobs: usize,
    },
    /// Ends a run that a worker believes to be its own.
    End {
        belief: usize,
        how: RunEnding,
    },
    Renew {
        worker: usize,
    },
    Rescue,
    Pass {
        units: i64,
    },
    Requeue {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    RunNow {
        job: usize,
    },
    Pause {
        kind: usize,
    },
    Resume {
        kind: usize,
    },
    Limit {
        kind: usize,
        most: Option<i32>,
    },
    Prune,
}

#[derive(Clone, Copy, Debug)]
enum RunEnding {
    Done,
    Step,
    Retry(i64),
    Abort,
    Snooze(i64),
    Released,
    Cancelled,
}

fn run_ending() -> impl Strategy<Value = RunEnding> {
    prop_oneof![
        3 => Just(RunEnding::Done),
        3 => Just(RunEnding::Step),
        4 => (0..3i64).prop_map(RunEnding::Retry),
        1 => Just(RunEnding::Abort),
        2 => (0..3i64).prop_map(RunEnding::Snooze),
        1 => Just(RunEnding::Released),
        1 => Just(RunEnding::Cancelled),
    ]
}

fn queue_operation() -> impl Strategy<Value = QueueOperation> {
    let job = 0..12usize;
    prop_oneof![
        8 => (0..2usize, prop::option::weighted(0.7, 0..3u8), prop_oneof![3 => Just(0), 1 => 1..4i64], -1..2i32)
            .prop_map(|(kind, key, delay, priority)| QueueOperation::Enqueue { kind, key, delay, priority }),
        8 => (0..2usize, 1..4usize).prop_map(|(worker, jobs)| QueueOperation::Claim { worker, jobs }),
        8 => (any::<usize>(), run_ending()).prop_map(|(belief, how)| QueueOperation::End { belief, how }),
        2 => (0..2usize).prop_map(|worker| QueueOperation::Renew { worker }),
        3 => Just(QueueOperation::Rescue),
        4 => (1..4i64).prop_map(|units| QueueOperation::Pass { units }),
        3 => job.clone().prop_map(|job| QueueOperation::Requeue { job }),
        3 => job.clone().prop_map(|job| QueueOperation::Cancel { job }),
        2 => job.prop_map(|job| QueueOperation::RunNow { job }),
        1 => (0..2usize).prop_map(|kind| QueueOperation::Pause { kind }),
        2 => (0..2usize).prop_map(|kind| QueueOperation::Resume { kind }),
        1 => (0..2usize, prop::option::weighted(0.6, 1..3i32)).prop_map(|(kind, most)| QueueOperation::Limit { kind, most }),
        1 => Just(QueueOperation::Prune),
    ]
}

/// A job as the model and the database must both have it. Instants are in units, and `None` if they have no meaning any
/// more.
#[derive(Clone, Debug, PartialEq)]
struct ModelJob {
    kind: usize,
    key: Option<u8>,
    state: String,
    priority: i32,
    run_at: Option<i64>,
    attempt: i32,
    run: i64,
    rescues: i32,
    lease_until: Option<i64>,
    holder: Option<usize>,
    cancelling: bool,
    finished_at: Option<i64>,
    outcomes: Vec<String>,
}

impl ModelJob {
    fn is_waiting(&self) -> bool {
        matches!(&*self.state, "available" | "scheduled" | "retryable")
    }

    /// Returns true if the job's key is taken for other jobs.
    fn keeps_key(&self) -> bool {
        self.is_waiting() || self.state == "running" || self.state == "completed" && self.kind == 0
    }

    /// Ends the run with this outcome, and sets the job's new state.
    fn end_run(&mut self, state: &str, outcome: &str, now: i64) {
        self.state = state.to_owned();
        self.outcomes.push(outcome.to_owned());
        (self.lease_until, self.holder, self.cancelling) = (None, None, false);
        self.finished_at = matches!(state, "completed" | "cancelled" | "discarded").then_some(now);
    }
}

#[derive(Default)]
struct QueueModel {
    now: i64,
    jobs: BTreeMap<i64, ModelJob>,
    paused: [bool; 2],
    limits: [Option<i32>; 2],
    /// The runs that the workers believe to be their own: worker and claim.
    beliefs: Vec<(usize, ClaimedJob)>,
    acts: i64,
}

impl QueueModel {
    fn is_key_taken(&self, kind: usize, key: Option<u8>, but: i64) -> bool {
        let same = |row: &ModelJob| row.kind == kind && row.key == key && row.keeps_key();
        key.is_some() && self.jobs.iter().any(|(id, row)| *id != but && same(row))
    }

    fn due_jobs(&self, kind: usize) -> Vec<i64> {
        let due = |row: &ModelJob| row.kind == kind && row.is_waiting() && row.run_at <= Some(self.now);
        self.jobs.iter().filter(|(_, row)| due(row)).map(|(id, _)| *id).collect()
    }

    /// Returns how many jobs of a kind may be claimed now.
    fn free_capacity(&self, kind: usize) -> usize {
        if self.paused[kind] {
            return 0;
        }
        let running = self.jobs.values().filter(|row| row.kind == kind && row.state == "running").count();
        self.limits[kind].map_or(usize::MAX, |most| (most as usize).saturating_sub(running))
    }
}

/// The database side, which runs one statement at a time.
struct QueueUnderTest {
    pool: PgPool,
    hands: [ManualWorker; 2],
}

macro_rules! assert_agree {
    ($left:expr, $right:expr, $what:expr) => {{
        let (left, right) = ($left, $right);
        if left != right {
            return Err(TestCaseError::fail(format!("{}\n  queue {left:?}\n  model {right:?}", $what)));
        }
    }};
}

impl QueueUnderTest {
    async fn check_operations(&self, ops: &[QueueOperation]) -> Result<(), TestCaseError> {
        let empty =
            "truncate fleet.jobs, fleet.job_runs, fleet.job_kind_settings, audit.operator_actions restart identity";
        sqlx::query(empty).execute(&self.pool).await.unwrap();
        let mut model = QueueModel::default();
        for (at, op) in ops.iter().enumerate() {
            let output = format!("operation {at}, {op:?}");
            self.apply_operation(&mut model, op, &output).await?;
            assert_agree!(self.read_jobs(model.now).await, model.jobs.clone(), output);
            self.check_invariants(&model, &output).await?;
        }
        Ok(())
    }

    async fn apply_operation(
        &self,
        model: &mut QueueModel,
        op: &QueueOperation,
        output: &str,
    ) -> Result<(), TestCaseError> {
        let by = Actor::new("ada", "to see");
        let id = |job: usize| job as i64 + 1;
        match *op {
            QueueOperation::Enqueue { kind, key, delay, priority } => {
                let enqueue = "select fleet.enqueue($1, '{}', $2, now() + make_interval(secs => $3), $4, $5,
                    case when $2 is not null and $1 = 'chosen' then '{available,scheduled,running,retryable}'::text[] end)";
                let put: Option<i64> = sqlx::query_scalar(enqueue)
                    .bind(KINDS[kind])
                    .bind(key.map(|key| key.to_string()))
                    .bind((delay * UNIT_SECONDS) as f64)
                    .bind(priority)
                    .bind(MAX_ATTEMPTS)
                    .fetch_one(&self.pool)
                    .await
                    .unwrap();
                assert_agree!(put.is_none(), model.is_key_taken(kind, key, 0), output);
                if let Some(put) = put {
                    let state = if delay > 0 { "scheduled" } else { "available" };
                    model.jobs.insert(
                        put,
                        ModelJob {
                            kind,
                            key,
                            state: state.to_owned(),
                            priority,
                            run_at: Some(model.now + delay),
                            attempt: 0,
                            run: 0,
                            rescues: 0,
                            lease_until: None,
                            holder: None,
                            cancelling: false,
                            finished_at: None,
                            outcomes: Vec::new(),
                        },
                    );
                }
            }
            QueueOperation::Claim { worker, jobs } => {
                let claimed = self.hands[worker].claim_jobs(jobs).await.unwrap();
                let (due, room) =
                    ([0, 1].map(|kind| model.due_jobs(kind)), [0, 1].map(|kind| model.free_capacity(kind)));
                let most: usize = (0..2).map(|kind| due[kind].len().min(room[kind])).sum();
                assert_agree!(claimed.len(), most.min(jobs), output);
                for job in &claimed {
                    let row = &model.jobs[&job.id];
                    assert_agree!(due[row.kind].contains(&job.id), true, output);
                    // No waiting job should have been claimed before it.
                    let left = due[row.kind].iter().filter(|id| !claimed.iter().any(|job| job.id == **id));
                    let first = left.map(|id| (model.jobs[id].priority, model.jobs[id].run_at)).min();
                    assert_agree!(first.is_some_and(|first| first < (row.priority, row.run_at)), false, output);
                }
                for kind in 0..2 {
                    let of_kind = claimed.iter().filter(|job| *job.kind == *KINDS[kind]).count();
                    assert_agree!(of_kind <= room[kind], true, output);
                }
                for job in claimed {
                    let now = model.now;
                    let row = model.jobs.get_mut(&job.id).unwrap();
                    row.state = "running".to_owned();
                    (row.attempt, row.run) = (row.attempt + 1, row.run + 1);
                    (row.lease_until, row.holder) = (Some(now + LEASE_UNITS), Some(worker));
                    assert_agree!((job.attempt, job.run), (row.attempt, row.run), output);
                    model.beliefs.push((worker, job));
                }
            }
            QueueOperation::End { belief, how } => {
                if model.beliefs.is_empty() {
                    return Ok(());
                }
                let (worker, job) = model.beliefs.remove(belief % model.beliefs.len());
                self.end_run(model, worker, &job, how, output).await?;
            }
            QueueOperation::Renew { worker } => {
                let believed = model.beliefs.iter().filter(|(who, _)| *who == worker);
                let believed: Vec<(i64, i64)> = believed.map(|(_, job)| (job.id, job.run)).collect();
                let ours = self.hands[worker].renew_leases(&believed).await.unwrap();
                let mut expected = std::collections::HashMap::new();
                for (id, run) in believed {
                    if let Some(row) = model.jobs.get_mut(&id)
                        && row.holder == Some(worker)
                        && row.run == run
                    {
                        expected.insert(id, row.cancelling);
                        row.lease_until = Some(model.now + LEASE_UNITS);
                    }
                }
                assert_agree!(ours, expected, output);
            }
            QueueOperation::Rescue => {
                let rescued = self.hands[0].rescue_jobs().await.unwrap();
                let now = model.now;
                let lost: Vec<i64> = model
                    .jobs
                    .iter()
                    .filter(|(_, row)| row.lease_until.is_some_and(|until| until <= now))
                    .map(|(id, _)| *id)
                    .collect();
                assert_agree!(&rescued, &lost, output);
                for id in lost {
                    let row = model.jobs.get_mut(&id).unwrap();
                    let state = match (row.cancelling, row.rescues >= 20) {
                        (true, _) => "cancelled",
                        (_, true) => "discarded",
                        _ => "available",
                    };
                    (row.attempt, row.rescues) = (row.attempt - 1, row.rescues + 1);
                    row.run_at = Some(now);
                    row.end_run(state, "lost", now);
                }
            }
            QueueOperation::Pass { units } => {
                let pass = "update fleet.jobs set run_at = run_at - d, lease_until = lease_until - d, created_at = created_at - d,
                    finished_at = finished_at - d from make_interval(secs => $1) as d";
                sqlx::query(pass).bind((units * UNIT_SECONDS) as f64).execute(&self.pool).await.unwrap();
                model.now += units;
            }
            QueueOperation::Requeue { job } => {
                let done = admin::requeue_jobs(&self.pool, &[id(job)], &by).await.unwrap();
                let possible = model
                    .jobs
                    .get(&id(job))
                    .is_some_and(|row| row.state != "running" && !model.is_key_taken(row.kind, row.key, id(job)));
                assert_agree!(done.len(), usize::from(possible), output);
                if possible {
                    let row = model.jobs.get_mut(&id(job)).unwrap();
                    row.end_run("available", "requeued", model.now);
                    (row.attempt, row.rescues, row.run) = (0, 0, row.run + 1);
                    row.run_at = Some(model.now);
                    model.acts += 1;
                }
            }
            QueueOperation::Cancel { job } => {
                let done = admin::cancel_jobs(&self.pool, &[id(job)], &by).await.unwrap();
                let now = model.now;
                let row = model.jobs.get_mut(&id(job));
                let expected = match row {
                    Some(row) if row.is_waiting() => {
                        row.run += 1;
                        row.end_run("cancelled", "cancelled", now);
                        Some(false)
                    }
                    Some(row) if row.state == "running" && !row.cancelling => {
                        row.cancelling = true;
                        Some(true)
                    }
                    _ => None,
                };
                assert_agree!(done.first().map(|done| done.running), expected, output);
                model.acts += i64::from(expected.is_some());
            }
            QueueOperation::RunNow { job } => {
                let done = admin::run_jobs_now(&self.pool, &[id(job)], &by).await.unwrap();
                let now = model.now;
                let row = model.jobs.get_mut(&id(job));
                let row = row.filter(|row| matches!(&*row.state, "scheduled" | "retryable"));
                assert_agree!(done.len(), usize::from(row.is_some()), output);
                if let Some(row) = row {
                    (row.state, row.run_at) = ("available".to_owned(), Some(now));
                    model.acts += 1;
                }
            }
            QueueOperation::Pause { kind } => {
                let done = admin::pause_kinds(&self.pool, &[KINDS[kind].to_owned()], &by).await.unwrap();
                assert_agree!(done.is_empty(), model.paused[kind], output);
                model.acts += i64::from(!model.paused[kind]);
                model.paused[kind] = true;
            }
            QueueOperation::Resume { kind } => {
                let done = admin::resume_kinds(&self.pool, &[KINDS[kind].to_owned()], &by).await.unwrap();
                assert_agree!(done.is_empty(), !model.paused[kind], output);
                model.acts += i64::from(model.paused[kind]);
                model.paused[kind] = false;
            }
            QueueOperation::Limit { kind, most } => {
                admin::limit_kind(&self.pool, KINDS[kind], most, &by).await.unwrap();
                model.limits[kind] = most;
                model.acts += 1;
            }
            QueueOperation::Prune => {
                let keep = |units: i64| Duration::from_secs((units * UNIT_SECONDS) as u64);
                let pruned = self.hands[0]
                    .prune_jobs(Retention { completed: keep(RETENTION_UNITS.0), failed: keep(RETENTION_UNITS.1) })
                    .await
                    .unwrap();
                let (now, before) = (model.now, model.jobs.len());
                model.jobs.retain(|_, row| {
                    let kept = if row.state == "completed" { RETENTION_UNITS.0 } else { RETENTION_UNITS.1 };
                    row.finished_at.is_none_or(|ended| now - ended < kept)
                });
                assert_agree!(pruned as usize, before - model.jobs.len(), output);
            }
        }
        Ok(())
    }

    async fn end_run(
        &self,
        model: &mut QueueModel,
        worker: usize,
        job: &ClaimedJob,
        how: RunEnding,
        output: &str,
    ) -> Result<(), TestCaseError> {
        let now = model.now;
        let row = model.jobs.get_mut(&job.id).filter(|row| row.holder == Some(worker) && row.run == job.run);
        let hand = &self.hands[worker];
        if let RunEnding::Step = how {
            let row = row.filter(|row| !row.cancelling);
            assert_agree!(hand.complete_step(job).await.unwrap(), row.is_some(), output);
            if let Some(row) = row {
                row.end_run("completed", "done", now);
            }
            return Ok(());
        }
        let (outcome, delay) = match how {
            RunEnding::Done | RunEnding::Step => (RunOutcome::Done, 0),
            RunEnding::Retry(delay) => (RunOutcome::Retry, delay),
            RunEnding::Abort => (RunOutcome::Abort, 0),
            RunEnding::Snooze(delay) => (RunOutcome::Snooze, delay),
            RunEnding::Released => (RunOutcome::Released, 0),
            RunEnding::Cancelled => (RunOutcome::Cancelled, 0),
        };
        let ended = hand.end_run(job, outcome, Duration::from_secs((delay * UNIT_SECONDS) as u64)).await.unwrap();
        let Some(row) = row else {
            assert_agree!(ended, None, output);
            return Ok(());
        };
        let state = match how {
            RunEnding::Done | RunEnding::Step => "completed",
            _ if row.cancelling => "cancelled",
            RunEnding::Cancelled => "cancelled",
            RunEnding::Abort => "discarded",
            RunEnding::Snooze(_) => "scheduled",
            RunEnding::Released => "available",
            RunEnding::Retry(_) if row.attempt >= MAX_ATTEMPTS => "discarded",
            RunEnding::Retry(_) => "retryable",
        };
        assert_agree!(ended.as_deref(), Some(state), output);
        if matches!(how, RunEnding::Snooze(_) | RunEnding::Released | RunEnding::Cancelled) {
            row.attempt -= 1;
        }
        if matches!(how, RunEnding::Snooze(_) | RunEnding::Retry(_)) {
            row.run_at = Some(now + delay);
        }
        let outcome = if state == "cancelled" { "cancelled" } else { outcome.as_str() };
        row.end_run(state, outcome, now);
        Ok(())
    }

    /// Reads the jobs from the database in the form of the model.
    async fn read_jobs(&self, now: i64) -> BTreeMap<i64, ModelJob> {
        type Read = (
            i64,
            String,
            Option<String>,
            String,
            i16,
            f64,
            i32,
            i64,
            i32,
            Option<f64>,
            Option<String>,
            bool,
            Option<f64>,
            Vec<String>,
        );
        let read: Vec<Read> = sqlx::query_as(
            "select id, kind, key, state, priority, extract(epoch from run_at - now())::float8, attempt, run, rescues,
              extract(epoch from lease_until - now())::float8, locked_by, cancelling is not null,
              extract(epoch from finished_at - now())::float8,
              array(select outcome from fleet.job_attempts where job_id = id order by run)
            from fleet.jobs",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        // An instant is up to a case's duration before its unit.
        let unit = |seconds: f64| now + (seconds / UNIT_SECONDS as f64).ceil() as i64;
        let row = |read: Read| {
            let (
                id,
                kind,
                key,
                state,
                priority,
                run_at,
                attempt,
                run,
                rescues,
                lease,
                holder,
                cancelling,
                finished,
                outcomes,
            ) = read;
            let row = ModelJob {
                kind: KINDS.iter().position(|name| *name == kind).unwrap(),
                key: key.map(|key| key.parse().unwrap()),
                state,
                priority: priority.into(),
                run_at: Some(unit(run_at)),
                attempt,
                run,
                rescues,
                lease_until: lease.map(unit),
                holder: holder.map(|name| self.hands.iter().position(|hand| hand.name == name).unwrap()),
                cancelling,
                finished_at: finished.map(unit),
                outcomes,
            };
            (id, row)
        };
        read.into_iter().map(row).collect()
    }

    /// Checks the invariants, which do not depend on the operations.
    async fn check_invariants(&self, model: &QueueModel, output: &str) -> Result<(), TestCaseError> {
        let questions = "select
            (select count(*) from fleet.jobs where (state = 'running') <> (lease_until is not null and locked_by is not null)),
            (select count(*) from (select from fleet.jobs where key is not null and kind = 'usual'
                and state not in ('cancelled', 'discarded') group by key having count(*) > 1) as twice),
            (select count(*) from (select from fleet.jobs where key is not null and kind = 'chosen'
                and state in ('available', 'scheduled', 'running', 'retryable') group by key having count(*) > 1) as twice),
            (select count(*) from fleet.job_attempts where outcome is null),
            (select count(*) from fleet.job_attempts as a where outcome = 'done'
                and exists (select from fleet.job_attempts as b where b.job_id = a.job_id and b.run < a.run and b.outcome = 'done'
                    and not exists (select from fleet.job_attempts as r where r.job_id = a.job_id and r.run between b.run and a.run
                        and r.outcome = 'requeued'))),
            (select count(*) from audit.operator_actions)";
        let answers: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(questions).fetch_one(&self.pool).await.unwrap();
        assert_agree!(answers, (0, 0, 0, 0, 0, model.acts), output);
        Ok(())
    }
}

#[test]
fn random_operations_leave_the_queue_as_the_model_says() {
    #[expect(clippy::disallowed_methods, reason = "the seed that a failure has printed")]
    let asked = std::env::var("QUEUE_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed: u64 = asked.unwrap_or_else(rand::random);
    println!("QUEUE_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 48, max_shrink_time: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let test = runtime.block_on(vinops::testing::migrated_database());
    let pool = test.db.pool.clone();
    let hand = |name: &str| ManualWorker {
        pool: pool.clone(),
        name: name.to_owned(),
        kinds: KINDS.map(str::to_owned).to_vec(),
        lease: Duration::from_secs((LEASE_UNITS * UNIT_SECONDS) as u64),
    };
    let queue = QueueUnderTest { pool: pool.clone(), hands: [hand("one"), hand("other")] };
    let began = Instant::now();
    let played = runner.run(&prop::collection::vec(queue_operation(), 1..80), |ops| {
        // A slow machine runs fewer cases, not longer.
        if began.elapsed() > Duration::from_secs(15) {
            return Ok(());
        }
        runtime.block_on(queue.check_operations(&ops))
    });
    if let Err(error) = played {
        panic!("QUEUE_SEED={seed}\n{error}");
    }
}
