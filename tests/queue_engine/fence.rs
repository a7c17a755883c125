//! A worker whose job was taken over cannot overwrite anything, however late it is.

use crate::harness::*;
use vinops::queue::RunOutcome;

/// The effect of a rescue and of a claim by another worker: another run has begun.
const TAKE_OVER: &str = "update fleet.jobs set run = run + 1, locked_by = 'successor' where id = $1";

#[tokio::test]
async fn a_late_step_cannot_commit_and_its_writes_roll_back() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Step)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    sqlx::query(TAKE_OVER).bind(job).execute(pool).await.unwrap();
    worker.gate.open(1);

    let end = worker.next_end().await;
    assert_eq!((end.outcome, end.discarded), (RunOutcome::Lost, false));
    assert!(end.error.unwrap().contains("no longer held"));
    assert!(list_effects(pool).await.is_empty());
    assert_eq!(job_state(pool, job).await, "running");
    let jobs: i64 = sqlx::query_scalar("select count(*) from fleet.jobs").fetch_one(pool).await.unwrap();
    assert_eq!(jobs, 1, "what the late step enqueued is gone too");
}

#[tokio::test]
async fn a_late_end_is_dropped_and_counted() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Wait)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    sqlx::query(TAKE_OVER).bind(job).execute(pool).await.unwrap();
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Lost);
    let left = worker.shut_down().await;
    // the worker may have learned from its first renewal, before its end was rejected
    assert_eq!(left.stale + left.lost, 1);
    assert_eq!(job_state(pool, job).await, "running");
}

#[tokio::test]
async fn a_step_that_had_committed_is_done_even_if_its_run_believes_otherwise() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Wait)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    let committed = "update fleet.jobs
        set state = 'completed', finished_at = now(), locked_by = null, lease_until = null where id = $1";
    sqlx::query(committed).bind(job).execute(pool).await.unwrap();
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert_eq!(worker.shut_down().await.stale, 0);
}

#[tokio::test]
async fn two_workers_under_load_run_every_job_once() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let fill = "select count(fleet.enqueue('probe', '{\"act\":\"Write\"}', n::text)) from generate_series(1, 300) as n";
    sqlx::query(fill).execute(pool).await.unwrap();
    let mut workers = [0, 8].map(|prefetch| start_worker(&test.db, |w| w.with_concurrency(4).with_prefetch(prefetch)));
    let ended = "select count(*) filter (where state = 'completed') = 300 from fleet.jobs where $1 = 0";
    wait_until(pool, ended, 0).await;
    assert_eq!(workers[0].next_end().await.outcome, RunOutcome::Done);

    let [first, second] = workers;
    let (first, second) = (first.shut_down().await, second.shut_down().await);
    assert_eq!(first.done + second.done, 300);
    assert_eq!(first.stale + second.stale, 0);
    let runs = "select count(*), count(distinct job) from effects";
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(runs).fetch_one(pool).await.unwrap(), (300, 300));
}
