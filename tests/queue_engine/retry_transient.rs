//! Transient database errors during a step are retried at once, and no attempt is spent.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use crate::harness::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Barrier, Notify, broadcast};
use tokio_util::sync::CancellationToken;
use vinops::queue::{Extensions, Job, JobDefinition, JobPolicy, JobResult, JobRun, RunOutcome, Worker, WorkerEvent};

const RETRY_JOBS: &[JobDefinition] = &[
    JobDefinition::for_job::<DeadlockJob>(),
    JobDefinition::for_job::<RaisingJob>(),
    JobDefinition::for_job::<SteplessJob>(),
];

/// Adds one to two counters, in its own order. In the first run both jobs lock their first counter before they need the
/// other's.
#[derive(Serialize, Deserialize)]
struct DeadlockJob {
    order: [i64; 2],
}

struct DeadlockState {
    barrier: Barrier,
    tries: AtomicUsize,
    again: Notify,
}

impl Job for DeadlockJob {
    const KIND: &'static str = "cross";
    const POLICY: JobPolicy = JobPolicy::DEFAULT.with_attempts(1);
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        let crossing = run.extension::<DeadlockState>()?;
        let first_time = crossing.tries.fetch_add(1, Ordering::SeqCst) < 2;
        let mut step = run.begin_step().await?;
        for (nth, effect) in self.order.into_iter().enumerate() {
            if nth == 1 && first_time {
                crossing.barrier.wait().await;
            }
            sqlx::query("update counters set n = n + 1 where id = $1").bind(effect).execute(&mut *step).await?;
        }
        step.done(json!({})).await
    }
}

/// Raises the SQLSTATE of its payload, in each of its runs.
#[derive(Serialize, Deserialize)]
struct RaisingJob {
    sqlstate: String,
}

impl Job for RaisingJob {
    const KIND: &'static str = "refused";
    const POLICY: JobPolicy = JobPolicy::DEFAULT.with_attempts(1);
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        let crossing = run.extension::<DeadlockState>()?;
        if crossing.tries.fetch_add(1, Ordering::SeqCst) == 1 {
            crossing.again.notify_one();
        }
        let mut step = run.begin_step().await?;
        let raise = format!("do $$ begin raise sqlstate '{}'; end $$", self.sqlstate);
        sqlx::raw_sql(sqlx::AssertSqlSafe(raise)).execute(&mut *step).await?;
        step.done(json!({})).await
    }
}

/// Has a conflict in its first run, outside any step.
#[derive(Serialize, Deserialize)]
struct SteplessJob {}

impl Job for SteplessJob {
    const KIND: &'static str = "stepless";
    const POLICY: JobPolicy = JobPolicy::DEFAULT.with_attempts(1);
    type Report = Value;

    async fn run(self, run: JobRun) -> JobResult<Value> {
        if run.extension::<DeadlockState>()?.tries.fetch_add(1, Ordering::SeqCst) == 0 {
            sqlx::raw_sql("do $$ begin raise sqlstate '40001'; end $$").execute(run.pool()).await?;
        }
        run.done(json!({ "tidy": true })).await
    }
}

/// Starts a worker for these kinds, and returns its events.
fn start_retry_worker(
    test: &vinops::testing::TestDb,
) -> (Arc<DeadlockState>, broadcast::Receiver<WorkerEvent>, CancellationToken) {
    let (watchers, events) = broadcast::channel(100);
    let (leave, crossing) = (
        CancellationToken::new(),
        Arc::new(DeadlockState { barrier: Barrier::new(2), tries: AtomicUsize::new(0), again: Notify::new() }),
    );
    let worker = Worker::new(&test.db, RETRY_JOBS)
        .with_concurrency(2)
        .with_lease(ENDLESS_LEASE)
        .with_event_sender(watchers)
        .with_extensions(Extensions::new().with_arc(crossing.clone()));
    tokio::spawn(worker.run(leave.clone()));
    (crossing, events, leave)
}

async fn next_outcome(events: &mut broadcast::Receiver<WorkerEvent>) -> (RunOutcome, bool) {
    with_timeout(async {
        loop {
            if let WorkerEvent::Ended { outcome, discarded, .. } = events.recv().await.unwrap() {
                return (outcome, discarded);
            }
        }
    })
    .await
}

#[tokio::test]
async fn two_steps_in_a_deadlock_both_end_well_at_their_first_attempt() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    sqlx::raw_sql("create table counters (id bigint primary key, n int); insert into counters values (1, 0), (2, 0)")
        .execute(pool)
        .await
        .unwrap();
    add_job(pool, DeadlockJob { order: [1, 2] }).await;
    add_job(pool, DeadlockJob { order: [2, 1] }).await;
    let (crossing, mut events, leave) = start_retry_worker(&test);
    assert_eq!(next_outcome(&mut events).await, (RunOutcome::Done, false));
    assert_eq!(next_outcome(&mut events).await, (RunOutcome::Done, false));
    leave.cancel();
    assert_eq!(crossing.tries.load(Ordering::SeqCst), 3);

    let counted: Vec<i32> = sqlx::query_scalar("select n from counters order by id").fetch_all(pool).await.unwrap();
    assert_eq!(counted, [2, 2]);
    // the attempt with a deadlock has a note
    let output: Vec<(String, i32, Option<String>)> =
        sqlx::query_as("select outcome, attempt, error from fleet.job_attempts order by error nulls first")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(output[0], ("done".to_owned(), 1, None));
    assert_eq!((output[1].0.as_str(), output[1].1), ("done", 1));
    assert!(output[1].2.as_ref().unwrap().starts_with("retried immediately: "), "{output:?}");
    assert!(output[1].2.as_ref().unwrap().contains("deadlock detected"), "{output:?}");
}

#[tokio::test]
async fn a_run_without_a_step_notes_it_too_and_its_job_is_told_once() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, SteplessJob {}).await;
    let (_, mut events, leave) = start_retry_worker(&test);
    assert_eq!(next_outcome(&mut events).await, (RunOutcome::Done, false));
    leave.cancel();
    let output: Vec<(String, i32, Option<String>)> =
        sqlx::query_as("select outcome, attempt, error from fleet.job_attempts where job_id = $1")
            .bind(job)
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(output.len(), 1, "{output:?}");
    assert_eq!((output[0].0.as_str(), output[0].1), ("done", 1));
    assert!(output[0].2.as_ref().unwrap().starts_with("retried immediately: "), "{output:?}");
    let row: (String, Option<Value>, Option<String>) =
        sqlx::query_as("select state, result, error from fleet.jobs where id = $1")
            .bind(job)
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(row, ("completed".to_owned(), Some(json!({ "tidy": true })), None));
}

#[tokio::test]
async fn a_fault_that_stays_is_the_jobs_own_in_the_end_and_others_at_once() {
    let test = database_with_effects().await;
    for (sqlstate, tries, outcome) in
        [("40001", 5, RunOutcome::Retry), ("23505", 1, RunOutcome::Retry), ("22012", 1, RunOutcome::Abort)]
    {
        add_job(&test.db.pool, RaisingJob { sqlstate: sqlstate.to_owned() }).await;
        let (crossing, mut events, leave) = start_retry_worker(&test);
        assert_eq!(next_outcome(&mut events).await, (outcome, true), "{sqlstate}");
        leave.cancel();
        assert_eq!(crossing.tries.load(Ordering::SeqCst), tries, "{sqlstate}");
    }
}

#[tokio::test]
async fn a_drain_ends_the_tries() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, RaisingJob { sqlstate: "40P01".to_owned() }).await;
    let (leave, crossing) = (
        CancellationToken::new(),
        Arc::new(DeadlockState { barrier: Barrier::new(1), tries: AtomicUsize::new(0), again: Notify::new() }),
    );
    let worker = Worker::new(&test.db, RETRY_JOBS)
        .with_drain_timeout(Duration::ZERO)
        .with_extensions(Extensions::new().with_arc(crossing.clone()));
    let worker = tokio::spawn(worker.run(leave.clone()));
    with_timeout(crossing.again.notified()).await;
    leave.cancel();
    with_timeout(worker).await.unwrap().unwrap();
    assert_eq!(run_outcomes(&test.db.pool, job).await, [Some("interrupted".to_owned())]);
    assert_eq!(job_state(&test.db.pool, job).await, "available");
}
