//! Every outcome of a run, and what is stored of it.

use crate::harness::*;
use vinops::queue::{EnqueueOptions, RunOutcome};

#[tokio::test]
async fn a_done_job_keeps_its_report() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let end = worker.next_end().await;
    assert_eq!(end, ObservedEnd { job, outcome: RunOutcome::Done, discarded: false, error: None });
    let report = "select (result ->> 'attempt')::int from fleet.jobs where state = 'completed'";
    assert_eq!(sqlx::query_scalar::<_, i32>(report).fetch_one(&test.db.pool).await.unwrap(), 1);
    assert_eq!(run_outcomes(&test.db.pool, job).await, [Some("done".to_owned())]);
}

#[tokio::test]
async fn a_failing_job_waits_longer_each_time_and_is_discarded_with_every_error_kept() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Fail)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let ends = [worker.next_end().await, worker.next_end().await, worker.next_end().await];
    assert_eq!(
        ends.map(|end| (end.outcome, end.discarded)),
        [(RunOutcome::Retry, false), (RunOutcome::Retry, false), (RunOutcome::Retry, true)]
    );
    assert_eq!(job_state(pool, job).await, "discarded");

    let errors = "select array_agg(error order by run) from fleet.job_attempts";
    let errors: Vec<String> = sqlx::query_scalar(errors).fetch_one(pool).await.unwrap();
    assert_eq!(errors, [1, 2, 3].map(|attempt| format!("attempt {attempt}: the yard is closed")));
    let waits = "select array_agg(wait order by run) from (
        select run, extract(epoch from started_at - lag(finished_at) over (order by run))::float8 as wait
        from fleet.job_attempts) as run where wait is not null";
    let waits: Vec<f64> = sqlx::query_scalar(waits).fetch_one(pool).await.unwrap();
    // 40 ms and 80 ms, a quarter less by jitter.
    assert!(waits[0] >= 0.030 && waits[1] >= 0.060, "{waits:?}");
}

#[tokio::test]
async fn a_retrys_wait_outlives_the_worker_that_failed() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, SlowRetryJob { act: TestAction::Fail }).await;
    let mut first = start_worker(&test.db, |worker| worker);
    assert_eq!(first.next_end().await.outcome, RunOutcome::Retry);
    first.shut_down().await;

    let mut second = start_worker(&test.db, |worker| worker);
    let other = add_job(pool, probe_job(TestAction::Done)).await;
    assert_eq!(second.next_end().await.job, other);
    assert_eq!(job_state(pool, job).await, "retryable");
    let wait = "select extract(epoch from run_at - now())::float8 from fleet.jobs where id = $1";
    let wait: f64 = sqlx::query_scalar(wait).bind(job).fetch_one(pool).await.unwrap();
    assert!((2600.0..4600.0).contains(&wait), "{wait} s");

    let due = "with due as (update fleet.jobs set run_at = now() where id = $1) select pg_notify('fleet', 'patient')";
    sqlx::query(due).bind(job).execute(pool).await.unwrap();
    let end = second.next_end().await;
    assert_eq!((end.job, end.error.as_deref()), (job, Some("attempt 2: the yard is closed")));
}

#[tokio::test]
async fn an_aborted_job_is_discarded_at_once() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, probe_job(TestAction::Abort)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let error = Some("no such yard".to_owned());
    assert_eq!(worker.next_end().await, ObservedEnd { job, outcome: RunOutcome::Abort, discarded: true, error });
    assert_eq!(run_outcomes(&test.db.pool, job).await.len(), 1);
}

#[tokio::test]
async fn a_job_is_discarded_though_its_payload_names_no_window_that_can_be_read() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    for window in ["soon", "2026-02-31T00:00:00Z", ""] {
        let job = add_job(pool, probe_job(TestAction::Abort)).await;
        let name = "update fleet.jobs set payload = payload || jsonb_build_object('source', 'copart', 'window_start_utc', $2::text) where id = $1";
        sqlx::query(name).bind(job).bind(window).execute(pool).await.unwrap();
        let mut worker = start_worker(&test.db, |worker| worker);
        let end = with_timeout(worker.next_end()).await;
        assert_eq!((end.job, end.discarded), (job, true), "{window}");
        assert_eq!(job_state(pool, job).await, "discarded", "{window}");
        worker.shut_down().await;
    }
}

#[tokio::test]
async fn a_snoozed_job_comes_back_after_its_time_with_all_its_attempts() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, probe_job(TestAction::Snooze(0.05))).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let ends = [worker.next_end().await, worker.next_end().await, worker.next_end().await];
    assert_eq!(ends.map(|end| end.outcome), [RunOutcome::Snooze, RunOutcome::Snooze, RunOutcome::Done]);
    let spent = "select attempt, run, (select bool_and(wait >= interval '50 ms') from (
        select started_at - lag(finished_at) over (order by run) as wait from fleet.job_attempts) as w)
        from fleet.jobs where id = $1";
    let spent: (i32, i64, bool) = sqlx::query_as(spent).bind(job).fetch_one(&test.db.pool).await.unwrap();
    assert_eq!(spent, (1, 3, true));
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_and_the_worker_lives_on() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, probe_job(TestAction::Panic)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let error = Some("panicked: kaboom".to_owned());
    assert_eq!(worker.next_end().await, ObservedEnd { job, outcome: RunOutcome::Panic, discarded: false, error });
    worker.next_end().await;
    assert!(worker.next_end().await.discarded);
    let next = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    assert_eq!(worker.next_end().await.job, next);
}

#[tokio::test]
async fn a_job_over_its_time_is_cut_off_and_tried_again() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, BriefJob { act: TestAction::Hang }).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    let end = worker.next_end().await;
    assert_eq!((end.outcome, end.discarded), (RunOutcome::Timeout, false));
    assert_eq!(end.error.as_deref(), Some("run cut off after 50ms, the timeout of its kind"));
    worker.next_end().await;
    assert!(worker.next_end().await.discarded);
    assert_eq!(job_state(&test.db.pool, job).await, "discarded");
}

#[tokio::test]
async fn a_job_cut_off_inside_its_step_leaves_nothing_behind() {
    let test = database_with_effects().await;
    let job = add_job(&test.db.pool, BriefJob { act: TestAction::Step }).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Timeout);
    worker.shut_down().await;
    assert!(list_effects(&test.db.pool).await.is_empty());
    assert_eq!(job_state(&test.db.pool, job).await, "retryable");
}

#[tokio::test]
async fn an_unreadable_payload_is_discarded_with_the_reason() {
    let test = database_with_effects().await;
    let unknown = "select fleet.enqueue('probe', '{\"act\":\"Dance\"}')";
    let job: i64 = sqlx::query_scalar(unknown).fetch_one(&test.db.pool).await.unwrap();
    let mut worker = start_worker(&test.db, |worker| worker);
    let end = worker.next_end().await;
    assert_eq!((end.job, end.outcome, end.discarded), (job, RunOutcome::Unreadable, true));
    let error = end.error.unwrap();
    assert!(error.starts_with("could not decode the payload: unknown variant `Dance`"), "{error}");
}

#[tokio::test]
async fn a_value_that_postgresql_refuses_each_time_is_not_tried_again() {
    let test = database_with_effects().await;
    for (unfit, code) in [(RejectedValue::Data, "invalid input syntax"), (RejectedValue::Length, "index row")] {
        let job = add_job(&test.db.pool, probe_job(TestAction::Unfit(unfit))).await;
        let mut worker = start_worker(&test.db, |worker| worker);
        let end = worker.next_end().await;
        assert_eq!((end.job, end.outcome, end.discarded), (job, RunOutcome::Abort, true));
        assert!(end.error.as_deref().is_some_and(|error| error.contains(code)), "{:?}", end.error);
        assert_eq!(run_outcomes(&test.db.pool, job).await, [Some("abort".to_owned())]);
        worker.shut_down().await;
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_stored_fails_alone_and_says_so() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut worker = start_worker(&test.db, |worker| worker.with_concurrency(3));
    let nul = add_job(pool, probe_job(TestAction::Nul)).await;
    let good = [add_job(pool, probe_job(TestAction::Done)).await, add_job(pool, probe_job(TestAction::Done)).await];
    let mut failed = 0;
    for _ in 0..5 {
        let end = worker.next_end().await;
        failed += usize::from(end.outcome == RunOutcome::Retry);
    }
    assert_eq!(failed, 3);
    assert_eq!(job_state(pool, good[0]).await + &job_state(pool, good[1]).await, "completedcompleted");
    let error: String =
        sqlx::query_scalar("select error from fleet.jobs where id = $1").bind(nul).fetch_one(pool).await.unwrap();
    assert!(error.starts_with("could not store the result of a run with outcome done: "), "{error}");
}

#[tokio::test]
async fn a_step_completes_its_job_and_enqueues_the_next_in_one_transaction() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job_with(pool, probe_job(TestAction::Step), EnqueueOptions::with_key("first")).await.unwrap();
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    assert!(list_effects(pool).await.is_empty());
    assert_eq!(job_state(pool, job).await, "running");
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert_eq!(list_effects(pool).await, [job]);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert_eq!(worker.shut_down().await.stale, 0);
}

#[tokio::test]
async fn steps_one_after_the_other_have_the_same_server_process() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    // if the steps used connections of this pool, they would wait for each other
    drop(futures::future::join_all((0..3).map(|_| pool.acquire())).await);
    for _ in 0..5 {
        add_job(pool, probe_job(TestAction::Write)).await;
    }
    let mut worker = start_worker(&test.db, |worker| worker);
    for _ in 0..5 {
        assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    }
    let backends = "select count(distinct result ->> 'backend') from fleet.jobs";
    assert_eq!(sqlx::query_scalar::<_, i64>(backends).fetch_one(pool).await.unwrap(), 1);
}
