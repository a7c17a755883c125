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
//! A failure prints its seed and the shortest list of operations that reproduces it. `QUEUE_SEED=…` runs that seed
//! again.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vinops::queue::hand::Hand;
use vinops::queue::steer::{self, By};
use vinops::queue::{Claimed, Keep, Outcome};

/// Seconds of the database's clock in one unit of the model. Four units are more than the day for which every finished
/// job stays.
const UNIT: i64 = 25_000;
/// Length of a lease, in units.
const LEASE: i64 = 2;
/// Maximum number of attempts. [`KEEP`] is the retention of completed and failed jobs, in units.
const ATTEMPTS: i32 = 3;
const KEEP: (i64, i64) = (4, 8);
/// Kinds. Keys of the first are unique as by default, keys of the second while unfinished.
const KINDS: [&str; 2] = ["usual", "chosen"];

#[derive(Clone, Debug)]
enum Op {
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
        how: How,
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
enum How {
    Done,
    Step,
    Retry(i64),
    Abort,
    Snooze(i64),
    Returned,
    Cancelled,
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        3 => Just(How::Done),
        3 => Just(How::Step),
        4 => (0..3i64).prop_map(How::Retry),
        1 => Just(How::Abort),
        2 => (0..3i64).prop_map(How::Snooze),
        1 => Just(How::Returned),
        1 => Just(How::Cancelled),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let job = 0..12usize;
    prop_oneof![
        8 => (0..2usize, prop::option::weighted(0.7, 0..3u8), prop_oneof![3 => Just(0), 1 => 1..4i64], -1..2i32)
            .prop_map(|(kind, key, delay, priority)| Op::Enqueue { kind, key, delay, priority }),
        8 => (0..2usize, 1..4usize).prop_map(|(worker, jobs)| Op::Claim { worker, jobs }),
        8 => (any::<usize>(), how()).prop_map(|(belief, how)| Op::End { belief, how }),
        2 => (0..2usize).prop_map(|worker| Op::Renew { worker }),
        3 => Just(Op::Rescue),
        4 => (1..4i64).prop_map(|units| Op::Pass { units }),
        3 => job.clone().prop_map(|job| Op::Requeue { job }),
        3 => job.clone().prop_map(|job| Op::Cancel { job }),
        2 => job.prop_map(|job| Op::RunNow { job }),
        1 => (0..2usize).prop_map(|kind| Op::Pause { kind }),
        2 => (0..2usize).prop_map(|kind| Op::Resume { kind }),
        1 => (0..2usize, prop::option::weighted(0.6, 1..3i32)).prop_map(|(kind, most)| Op::Limit { kind, most }),
        1 => Just(Op::Prune),
    ]
}

/// A job as the model and the database must both have it. Instants are in units, and `None` if they have no meaning any
/// more.
#[derive(Clone, Debug, PartialEq)]
struct Row {
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

impl Row {
    fn waits(&self) -> bool {
        matches!(&*self.state, "available" | "scheduled" | "retryable")
    }

    /// Returns true if the job's key is taken for other jobs.
    fn keeps_key(&self) -> bool {
        self.waits() || self.state == "running" || self.state == "completed" && self.kind == 0
    }

    /// Ends the run with this outcome, and sets the job's new state.
    fn become_(&mut self, state: &str, outcome: &str, now: i64) {
        self.state = state.to_owned();
        self.outcomes.push(outcome.to_owned());
        (self.lease_until, self.holder, self.cancelling) = (None, None, false);
        self.finished_at = matches!(state, "completed" | "cancelled" | "discarded").then_some(now);
    }
}

#[derive(Default)]
struct Model {
    now: i64,
    jobs: BTreeMap<i64, Row>,
    paused: [bool; 2],
    limits: [Option<i32>; 2],
    /// The runs that the workers believe to be their own: worker and claim.
    beliefs: Vec<(usize, Claimed)>,
    acts: i64,
}

impl Model {
    fn taken(&self, kind: usize, key: Option<u8>, but: i64) -> bool {
        let same = |row: &Row| row.kind == kind && row.key == key && row.keeps_key();
        key.is_some() && self.jobs.iter().any(|(id, row)| *id != but && same(row))
    }

    fn due(&self, kind: usize) -> Vec<i64> {
        let due = |row: &Row| row.kind == kind && row.waits() && row.run_at <= Some(self.now);
        self.jobs.iter().filter(|(_, row)| due(row)).map(|(id, _)| *id).collect()
    }

    /// Returns how many jobs of a kind may be claimed now.
    fn room(&self, kind: usize) -> usize {
        if self.paused[kind] {
            return 0;
        }
        let running = self.jobs.values().filter(|row| row.kind == kind && row.state == "running").count();
        self.limits[kind].map_or(usize::MAX, |most| (most as usize).saturating_sub(running))
    }
}

/// The database side, which runs one statement at a time.
struct Queue {
    pool: PgPool,
    hands: [Hand; 2],
}

macro_rules! agree {
    ($left:expr, $right:expr, $what:expr) => {{
        let (left, right) = ($left, $right);
        if left != right {
            return Err(TestCaseError::fail(format!("{}\n  queue {left:?}\n  model {right:?}", $what)));
        }
    }};
}

impl Queue {
    async fn play(&self, ops: &[Op]) -> Result<(), TestCaseError> {
        let empty =
            "truncate fleet.jobs, fleet.job_runs, fleet.job_kind_settings, audit.operator_actions restart identity";
        sqlx::query(empty).execute(&self.pool).await.unwrap();
        let mut model = Model::default();
        for (at, op) in ops.iter().enumerate() {
            let told = format!("operation {at}, {op:?}");
            self.apply(&mut model, op, &told).await?;
            agree!(self.rows(model.now).await, model.jobs.clone(), told);
            self.invariants(&model, &told).await?;
        }
        Ok(())
    }

    async fn apply(&self, model: &mut Model, op: &Op, told: &str) -> Result<(), TestCaseError> {
        let by = By::new("ada", "to see");
        let id = |job: usize| job as i64 + 1;
        match *op {
            Op::Enqueue { kind, key, delay, priority } => {
                let enqueue = "select fleet.enqueue($1, '{}', $2, now() + make_interval(secs => $3), $4, $5,
                    case when $2 is not null and $1 = 'chosen' then '{available,scheduled,running,retryable}'::text[] end)";
                let put: Option<i64> = sqlx::query_scalar(enqueue)
                    .bind(KINDS[kind])
                    .bind(key.map(|key| key.to_string()))
                    .bind((delay * UNIT) as f64)
                    .bind(priority)
                    .bind(ATTEMPTS)
                    .fetch_one(&self.pool)
                    .await
                    .unwrap();
                agree!(put.is_none(), model.taken(kind, key, 0), told);
                if let Some(put) = put {
                    let state = if delay > 0 { "scheduled" } else { "available" };
                    model.jobs.insert(
                        put,
                        Row {
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
            Op::Claim { worker, jobs } => {
                let claimed = self.hands[worker].claim(jobs).await.unwrap();
                let (due, room) = ([0, 1].map(|kind| model.due(kind)), [0, 1].map(|kind| model.room(kind)));
                let most: usize = (0..2).map(|kind| due[kind].len().min(room[kind])).sum();
                agree!(claimed.len(), most.min(jobs), told);
                for job in &claimed {
                    let row = &model.jobs[&job.id];
                    agree!(due[row.kind].contains(&job.id), true, told);
                    // No waiting job should have been claimed before it.
                    let left = due[row.kind].iter().filter(|id| !claimed.iter().any(|job| job.id == **id));
                    let first = left.map(|id| (model.jobs[id].priority, model.jobs[id].run_at)).min();
                    agree!(first.is_some_and(|first| first < (row.priority, row.run_at)), false, told);
                }
                for kind in 0..2 {
                    let of_kind = claimed.iter().filter(|job| *job.kind == *KINDS[kind]).count();
                    agree!(of_kind <= room[kind], true, told);
                }
                for job in claimed {
                    let now = model.now;
                    let row = model.jobs.get_mut(&job.id).unwrap();
                    row.state = "running".to_owned();
                    (row.attempt, row.run) = (row.attempt + 1, row.run + 1);
                    (row.lease_until, row.holder) = (Some(now + LEASE), Some(worker));
                    agree!((job.attempt, job.run), (row.attempt, row.run), told);
                    model.beliefs.push((worker, job));
                }
            }
            Op::End { belief, how } => {
                if model.beliefs.is_empty() {
                    return Ok(());
                }
                let (worker, job) = model.beliefs.remove(belief % model.beliefs.len());
                self.end(model, worker, &job, how, told).await?;
            }
            Op::Renew { worker } => {
                let believed = model.beliefs.iter().filter(|(who, _)| *who == worker);
                let believed: Vec<(i64, i64)> = believed.map(|(_, job)| (job.id, job.run)).collect();
                let ours = self.hands[worker].renew(&believed).await.unwrap();
                let mut expected = std::collections::HashMap::new();
                for (id, run) in believed {
                    if let Some(row) = model.jobs.get_mut(&id)
                        && row.holder == Some(worker)
                        && row.run == run
                    {
                        expected.insert(id, row.cancelling);
                        row.lease_until = Some(model.now + LEASE);
                    }
                }
                agree!(ours, expected, told);
            }
            Op::Rescue => {
                let rescued = self.hands[0].rescue().await.unwrap();
                let now = model.now;
                let lost: Vec<i64> = model
                    .jobs
                    .iter()
                    .filter(|(_, row)| row.lease_until.is_some_and(|until| until <= now))
                    .map(|(id, _)| *id)
                    .collect();
                agree!(&rescued, &lost, told);
                for id in lost {
                    let row = model.jobs.get_mut(&id).unwrap();
                    let state = match (row.cancelling, row.rescues >= 20) {
                        (true, _) => "cancelled",
                        (_, true) => "discarded",
                        _ => "available",
                    };
                    (row.attempt, row.rescues) = (row.attempt - 1, row.rescues + 1);
                    row.run_at = Some(now);
                    row.become_(state, "lost", now);
                }
            }
            Op::Pass { units } => {
                let pass = "update fleet.jobs set run_at = run_at - d, lease_until = lease_until - d, created_at = created_at - d,
                    finished_at = finished_at - d from make_interval(secs => $1) as d";
                sqlx::query(pass).bind((units * UNIT) as f64).execute(&self.pool).await.unwrap();
                model.now += units;
            }
            Op::Requeue { job } => {
                let done = steer::requeue_all(&self.pool, &[id(job)], &by).await.unwrap();
                let possible = model
                    .jobs
                    .get(&id(job))
                    .is_some_and(|row| row.state != "running" && !model.taken(row.kind, row.key, id(job)));
                agree!(done.len(), usize::from(possible), told);
                if possible {
                    let row = model.jobs.get_mut(&id(job)).unwrap();
                    row.become_("available", "requeued", model.now);
                    (row.attempt, row.rescues, row.run) = (0, 0, row.run + 1);
                    row.run_at = Some(model.now);
                    model.acts += 1;
                }
            }
            Op::Cancel { job } => {
                let done = steer::cancel(&self.pool, &[id(job)], &by).await.unwrap();
                let now = model.now;
                let row = model.jobs.get_mut(&id(job));
                let expected = match row {
                    Some(row) if row.waits() => {
                        row.run += 1;
                        row.become_("cancelled", "cancelled", now);
                        Some(false)
                    }
                    Some(row) if row.state == "running" && !row.cancelling => {
                        row.cancelling = true;
                        Some(true)
                    }
                    _ => None,
                };
                agree!(done.first().map(|done| done.running), expected, told);
                model.acts += i64::from(expected.is_some());
            }
            Op::RunNow { job } => {
                let done = steer::run_now(&self.pool, &[id(job)], &by).await.unwrap();
                let now = model.now;
                let row = model.jobs.get_mut(&id(job));
                let row = row.filter(|row| matches!(&*row.state, "scheduled" | "retryable"));
                agree!(done.len(), usize::from(row.is_some()), told);
                if let Some(row) = row {
                    (row.state, row.run_at) = ("available".to_owned(), Some(now));
                    model.acts += 1;
                }
            }
            Op::Pause { kind } => {
                let done = steer::pause(&self.pool, &[KINDS[kind].to_owned()], &by).await.unwrap();
                agree!(done.is_empty(), model.paused[kind], told);
                model.acts += i64::from(!model.paused[kind]);
                model.paused[kind] = true;
            }
            Op::Resume { kind } => {
                let done = steer::resume(&self.pool, &[KINDS[kind].to_owned()], &by).await.unwrap();
                agree!(done.is_empty(), !model.paused[kind], told);
                model.acts += i64::from(model.paused[kind]);
                model.paused[kind] = false;
            }
            Op::Limit { kind, most } => {
                steer::limit(&self.pool, KINDS[kind], most, &by).await.unwrap();
                model.limits[kind] = most;
                model.acts += 1;
            }
            Op::Prune => {
                let keep = |units: i64| Duration::from_secs((units * UNIT) as u64);
                let pruned = self.hands[0]
                    .prune(Keep { completed: keep(KEEP.0), failed: keep(KEEP.1) })
                    .await
                    .unwrap();
                let (now, before) = (model.now, model.jobs.len());
                model.jobs.retain(|_, row| {
                    let kept = if row.state == "completed" { KEEP.0 } else { KEEP.1 };
                    row.finished_at.is_none_or(|ended| now - ended < kept)
                });
                agree!(pruned as usize, before - model.jobs.len(), told);
            }
        }
        Ok(())
    }

    async fn end(
        &self,
        model: &mut Model,
        worker: usize,
        job: &Claimed,
        how: How,
        told: &str,
    ) -> Result<(), TestCaseError> {
        let now = model.now;
        let row = model.jobs.get_mut(&job.id).filter(|row| row.holder == Some(worker) && row.run == job.run);
        let hand = &self.hands[worker];
        if let How::Step = how {
            let row = row.filter(|row| !row.cancelling);
            agree!(hand.step(job).await.unwrap(), row.is_some(), told);
            if let Some(row) = row {
                row.become_("completed", "done", now);
            }
            return Ok(());
        }
        let (outcome, delay) = match how {
            How::Done | How::Step => (Outcome::Done, 0),
            How::Retry(delay) => (Outcome::Retry, delay),
            How::Abort => (Outcome::Abort, 0),
            How::Snooze(delay) => (Outcome::Snooze, delay),
            How::Returned => (Outcome::Returned, 0),
            How::Cancelled => (Outcome::Cancelled, 0),
        };
        let ended = hand.end(job, outcome, Duration::from_secs((delay * UNIT) as u64)).await.unwrap();
        let Some(row) = row else {
            agree!(ended, None, told);
            return Ok(());
        };
        let state = match how {
            How::Done | How::Step => "completed",
            _ if row.cancelling => "cancelled",
            How::Cancelled => "cancelled",
            How::Abort => "discarded",
            How::Snooze(_) => "scheduled",
            How::Returned => "available",
            How::Retry(_) if row.attempt >= ATTEMPTS => "discarded",
            How::Retry(_) => "retryable",
        };
        agree!(ended.as_deref(), Some(state), told);
        if matches!(how, How::Snooze(_) | How::Returned | How::Cancelled) {
            row.attempt -= 1;
        }
        if matches!(how, How::Snooze(_) | How::Retry(_)) {
            row.run_at = Some(now + delay);
        }
        let outcome = if state == "cancelled" { "cancelled" } else { outcome.word() };
        row.become_(state, outcome, now);
        Ok(())
    }

    /// Reads the jobs from the database in the form of the model.
    async fn rows(&self, now: i64) -> BTreeMap<i64, Row> {
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
        let unit = |seconds: f64| now + (seconds / UNIT as f64).ceil() as i64;
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
            let row = Row {
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
    async fn invariants(&self, model: &Model, told: &str) -> Result<(), TestCaseError> {
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
        let answers: (i64, i64, i64, i64, i64, i64) =
            sqlx::query_as(questions).fetch_one(&self.pool).await.unwrap();
        agree!(answers, (0, 0, 0, 0, 0, model.acts), told);
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
    let config =
        Config { cases: 48, max_shrink_time: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let test = runtime.block_on(vinops::testing::database());
    let pool = test.db.pool.clone();
    let hand = |name: &str| Hand {
        pool: pool.clone(),
        name: name.to_owned(),
        kinds: KINDS.map(str::to_owned).to_vec(),
        lease: Duration::from_secs((LEASE * UNIT) as u64),
    };
    let queue = Queue { pool: pool.clone(), hands: [hand("one"), hand("other")] };
    let began = Instant::now();
    let played = runner.run(&prop::collection::vec(op(), 1..80), |ops| {
        // A slow machine runs fewer cases, not longer.
        if began.elapsed() > Duration::from_secs(15) {
            return Ok(());
        }
        runtime.block_on(queue.play(&ops))
    });
    if let Err(error) = played {
        panic!("QUEUE_SEED={seed}\n{error}");
    }
}
