//! Every outcome of a run, and what is stored of it.

use crate::harness::*;
use vinops::queue::{Enqueue, Outcome};

#[tokio::test]
async fn a_done_job_keeps_its_report() {
    let test = database().await;
    let job = put(&test.db.pool, probe(Act::Done)).await;
    let mut worker = start(&test.db, |worker| worker);
    let end = worker.ended().await;
    assert_eq!(end, End { job, outcome: Outcome::Done, discarded: false, error: None });
    let report = "select (result ->> 'attempt')::int from fleet.jobs where state = 'completed'";
    assert_eq!(sqlx::query_scalar::<_, i32>(report).fetch_one(&test.db.pool).await.unwrap(), 1);
    assert_eq!(outcomes(&test.db.pool, job).await, [Some("done".to_owned())]);
}

#[tokio::test]
async fn a_failing_job_waits_longer_each_time_and_is_discarded_with_every_error_kept() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, probe(Act::Fail)).await;
    let mut worker = start(&test.db, |worker| worker);
    let ends = [worker.ended().await, worker.ended().await, worker.ended().await];
    assert_eq!(
        ends.map(|end| (end.outcome, end.discarded)),
        [(Outcome::Retry, false), (Outcome::Retry, false), (Outcome::Retry, true)]
    );
    assert_eq!(state(pool, job).await, "discarded");

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
    let test = database().await;
    let pool = &test.db.pool;
    let job = put(pool, Patient { act: Act::Fail }).await;
    let mut first = start(&test.db, |worker| worker);
    assert_eq!(first.ended().await.outcome, Outcome::Retry);
    first.left().await;

    let mut second = start(&test.db, |worker| worker);
    let other = put(pool, probe(Act::Done)).await;
    assert_eq!(second.ended().await.job, other);
    assert_eq!(state(pool, job).await, "retryable");
    let wait = "select extract(epoch from run_at - now())::float8 from fleet.jobs where id = $1";
    let wait: f64 = sqlx::query_scalar(wait).bind(job).fetch_one(pool).await.unwrap();
    assert!((2600.0..4600.0).contains(&wait), "{wait} s");

    let due = "with due as (update fleet.jobs set run_at = now() where id = $1) select pg_notify('fleet', 'patient')";
    sqlx::query(due).bind(job).execute(pool).await.unwrap();
    let end = second.ended().await;
    assert_eq!((end.job, end.error.as_deref()), (job, Some("attempt 2: the yard is closed")));
}

#[tokio::test]
async fn an_aborted_job_is_discarded_at_once() {
    let test = database().await;
    let job = put(&test.db.pool, probe(Act::Abort)).await;
    let mut worker = start(&test.db, |worker| worker);
    let error = Some("no such yard".to_owned());
    assert_eq!(worker.ended().await, End { job, outcome: Outcome::Abort, discarded: true, error });
    assert_eq!(outcomes(&test.db.pool, job).await.len(), 1);
}

#[tokio::test]
async fn a_job_is_discarded_though_its_payload_names_no_window_that_can_be_read() {
    let test = database().await;
    let pool = &test.db.pool;
    for window in ["soon", "2026-02-31T00:00:00Z", ""] {
        let job = put(pool, probe(Act::Abort)).await;
        let name = "update fleet.jobs set payload = payload || jsonb_build_object('source', 'copart', 'window_start_utc', $2::text) where id = $1";
        sqlx::query(name).bind(job).bind(window).execute(pool).await.unwrap();
        let mut worker = start(&test.db, |worker| worker);
        let end = within(worker.ended()).await;
        assert_eq!((end.job, end.discarded), (job, true), "{window}");
        assert_eq!(state(pool, job).await, "discarded", "{window}");
        worker.left().await;
    }
}

#[tokio::test]
async fn a_snoozed_job_comes_back_after_its_time_with_all_its_attempts() {
    let test = database().await;
    let job = put(&test.db.pool, probe(Act::Snooze(0.05))).await;
    let mut worker = start(&test.db, |worker| worker);
    let ends = [worker.ended().await, worker.ended().await, worker.ended().await];
    assert_eq!(ends.map(|end| end.outcome), [Outcome::Snooze, Outcome::Snooze, Outcome::Done]);
    let spent = "select attempt, run, (select bool_and(wait >= interval '50 ms') from (
        select started_at - lag(finished_at) over (order by run) as wait from fleet.job_attempts) as w)
        from fleet.jobs where id = $1";
    let spent: (i32, i64, bool) = sqlx::query_as(spent).bind(job).fetch_one(&test.db.pool).await.unwrap();
    assert_eq!(spent, (1, 3, true));
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_and_the_worker_lives_on() {
    let test = database().await;
    let job = put(&test.db.pool, probe(Act::Panic)).await;
    let mut worker = start(&test.db, |worker| worker);
    let error = Some("panicked: kaboom".to_owned());
    assert_eq!(worker.ended().await, End { job, outcome: Outcome::Panic, discarded: false, error });
    worker.ended().await;
    assert!(worker.ended().await.discarded);
    let next = put(&test.db.pool, probe(Act::Done)).await;
    assert_eq!(worker.ended().await.job, next);
}

#[tokio::test]
async fn a_job_over_its_time_is_cut_off_and_tried_again() {
    let test = database().await;
    let job = put(&test.db.pool, Brief { act: Act::Hang }).await;
    let mut worker = start(&test.db, |worker| worker);
    let end = worker.ended().await;
    assert_eq!((end.outcome, end.discarded), (Outcome::Timeout, false));
    assert_eq!(end.error.as_deref(), Some("run cut off after 50ms, the timeout of its kind"));
    worker.ended().await;
    assert!(worker.ended().await.discarded);
    assert_eq!(state(&test.db.pool, job).await, "discarded");
}

#[tokio::test]
async fn a_job_cut_off_inside_its_step_leaves_nothing_behind() {
    let test = database().await;
    let job = put(&test.db.pool, Brief { act: Act::Step }).await;
    let mut worker = start(&test.db, |worker| worker);
    assert_eq!(worker.ended().await.outcome, Outcome::Timeout);
    worker.left().await;
    assert!(effects(&test.db.pool).await.is_empty());
    assert_eq!(state(&test.db.pool, job).await, "retryable");
}

#[tokio::test]
async fn an_unreadable_payload_is_discarded_with_the_reason() {
    let test = database().await;
    let unknown = "select fleet.enqueue('probe', '{\"act\":\"Dance\"}')";
    let job: i64 = sqlx::query_scalar(unknown).fetch_one(&test.db.pool).await.unwrap();
    let mut worker = start(&test.db, |worker| worker);
    let end = worker.ended().await;
    assert_eq!((end.job, end.outcome, end.discarded), (job, Outcome::Unreadable, true));
    let error = end.error.unwrap();
    assert!(error.starts_with("could not decode the payload: unknown variant `Dance`"), "{error}");
}

#[tokio::test]
async fn a_value_that_postgresql_refuses_each_time_is_not_tried_again() {
    let test = database().await;
    for (unfit, code) in [(Unfit::Data, "invalid input syntax"), (Unfit::Length, "index row")] {
        let job = put(&test.db.pool, probe(Act::Unfit(unfit))).await;
        let mut worker = start(&test.db, |worker| worker);
        let end = worker.ended().await;
        assert_eq!((end.job, end.outcome, end.discarded), (job, Outcome::Abort, true));
        assert!(end.error.as_deref().is_some_and(|error| error.contains(code)), "{:?}", end.error);
        assert_eq!(outcomes(&test.db.pool, job).await, [Some("abort".to_owned())]);
        worker.left().await;
    }
}

#[tokio::test]
async fn an_end_that_cannot_be_stored_fails_alone_and_says_so() {
    let test = database().await;
    let pool = &test.db.pool;
    let mut worker = start(&test.db, |worker| worker.concurrency(3));
    let nul = put(pool, probe(Act::Nul)).await;
    let good = [put(pool, probe(Act::Done)).await, put(pool, probe(Act::Done)).await];
    let mut failed = 0;
    for _ in 0..5 {
        let end = worker.ended().await;
        failed += usize::from(end.outcome == Outcome::Retry);
    }
    assert_eq!(failed, 3);
    assert_eq!(state(pool, good[0]).await + &state(pool, good[1]).await, "completedcompleted");
    let error: String = sqlx::query_scalar("select error from fleet.jobs where id = $1")
        .bind(nul)
        .fetch_one(pool)
        .await
        .unwrap();
    assert!(error.starts_with("could not store the result of a run with outcome done: "), "{error}");
}

#[tokio::test]
async fn a_step_completes_its_job_and_enqueues_the_next_in_one_transaction() {
    let test = database().await;
    let pool = &test.db.pool;
    let job = put_as(pool, probe(Act::Step), Enqueue::once("first")).await.unwrap();
    let mut worker = start(&test.db, |worker| worker);
    worker.gate.arrival().await;
    assert!(effects(pool).await.is_empty());
    assert_eq!(state(pool, job).await, "running");
    worker.gate.open(1);
    assert_eq!(worker.ended().await.outcome, Outcome::Done);
    assert_eq!(effects(pool).await, [job]);
    assert_eq!(worker.ended().await.outcome, Outcome::Done);
    assert_eq!(worker.left().await.stale, 0);
}

#[tokio::test]
async fn steps_one_after_the_other_have_the_same_server_process() {
    let test = database().await;
    let pool = &test.db.pool;
    // if the steps used connections of this pool, they would wait for each other
    drop(futures::future::join_all((0..3).map(|_| pool.acquire())).await);
    for _ in 0..5 {
        put(pool, probe(Act::Write)).await;
    }
    let mut worker = start(&test.db, |worker| worker);
    for _ in 0..5 {
        assert_eq!(worker.ended().await.outcome, Outcome::Done);
    }
    let backends = "select count(distinct result ->> 'backend') from fleet.jobs";
    assert_eq!(sqlx::query_scalar::<_, i64>(backends).fetch_one(pool).await.unwrap(), 1);
}
