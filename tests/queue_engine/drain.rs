//! Graceful shutdown of a worker.

use crate::harness::*;
use std::time::Duration;
use vinops::queue::RunOutcome;

#[tokio::test]
async fn a_draining_worker_ends_what_runs_and_gives_back_the_rest_unspent() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    for _ in 0..5 {
        add_job(pool, probe_job(TestAction::Wait)).await;
    }
    let mut worker = start_worker(&test.db, |worker| worker.with_concurrency(2).with_prefetch(2));
    worker.gate.next_arrival().await;
    worker.gate.next_arrival().await;
    wait_until(pool, "select count(*) = 4 from fleet.jobs where state = 'running' and $1 = 0", 0).await;
    worker.begin_shutdown();
    // The two that never started are available again while the two running ones continue.
    let back = [worker.next_end().await, worker.next_end().await];
    assert_eq!(back.map(|end| end.outcome), [RunOutcome::Released, RunOutcome::Released]);
    worker.gate.open(2);
    let summary = worker.shut_down().await;
    assert_eq!((summary.done, summary.returned, summary.interrupted), (2, 2, 0));

    let states = "select array_agg(state || attempt order by state, attempt) from fleet.jobs";
    let states: Vec<String> = sqlx::query_scalar(states).fetch_one(pool).await.unwrap();
    assert_eq!(states, ["available0", "available0", "available0", "completed1", "completed1"]);
}

#[tokio::test]
async fn after_the_deadline_running_jobs_are_cut_off_and_given_back_unspent() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Step)).await;
    let worker = start_worker(&test.db, |worker| worker.with_drain_timeout(Duration::from_millis(50)));
    worker.gate.next_arrival().await;
    let summary = worker.shut_down().await;
    assert_eq!(summary.interrupted, 1);
    assert_eq!(run_outcomes(pool, job).await, [Some("interrupted".to_owned())]);
    assert!(list_effects(pool).await.is_empty());
    let row: (String, i32, Option<String>) =
        sqlx::query_as("select state, attempt, locked_by from fleet.jobs where id = $1")
            .bind(job)
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(row, ("available".to_owned(), 0, None));
}

#[tokio::test]
async fn an_idle_worker_leaves_at_once() {
    let test = database_with_effects().await;
    let worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.shut_down().await.claimed, 0);
}

#[tokio::test]
async fn a_worker_of_an_unknown_kind_does_not_start() {
    let test = database_with_effects().await;
    let worker = vinops::queue::Worker::new(&test.db, TEST_JOBS).with_kinds(&["prob"]);
    let error = worker.run(tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown job kind \"prob\"; expected one of probe, brief, patient");
}
