//! Enqueueing jobs: transactions, keys, times, priorities, and how fast an idle worker wakes.

use crate::harness::*;
use sqlx::Acquire;
use std::time::Duration;
use vinops::queue::{EnqueueOptions, RunOutcome, enqueue_job, enqueue_jobs};

#[tokio::test]
async fn a_job_exists_if_and_only_if_its_transaction_commits() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut worker = start_worker(&test.db, |worker| worker);

    let mut tx = pool.begin().await.unwrap();
    enqueue_job(&mut tx, &probe_job(TestAction::Done), EnqueueOptions::with_key("a")).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let job = enqueue_job(&mut tx, &probe_job(TestAction::Done), EnqueueOptions::with_key("a")).await.unwrap().unwrap();
    tx.commit().await.unwrap();

    assert_eq!(worker.next_end().await.job, job);
    assert_eq!(worker.shut_down().await.claimed, 1);
}

#[tokio::test]
async fn a_taken_key_is_skipped_silently_even_inside_a_batch() {
    let test = database_with_effects().await;
    let mut connection = test.db.pool.acquire().await.unwrap();
    let job = |key: &str| (probe_job(TestAction::Done), key.to_owned());
    let batch = [job("a"), job("b"), job("a")];
    assert_eq!(enqueue_jobs(&mut connection, &batch).await.unwrap(), 2);
    assert_eq!(enqueue_jobs(&mut connection, &[job("b"), job("c")]).await.unwrap(), 1);

    // The transaction continues after a key that is in use.
    let mut tx = connection.begin().await.unwrap();
    assert_eq!(enqueue_job(&mut tx, &probe_job(TestAction::Done), EnqueueOptions::with_key("a")).await.unwrap(), None);
    assert!(enqueue_job(&mut tx, &probe_job(TestAction::Done), EnqueueOptions::with_key("d")).await.unwrap().is_some());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn many_jobs_go_in_sorted_by_key_so_that_two_who_enqueue_the_same_never_deadlock() {
    let test = database_with_effects().await;
    let mut connection = test.db.pool.acquire().await.unwrap();
    let batch = ["b", "a", "C", "a", "d"].map(|key| (probe_job(TestAction::Done), key.to_owned()));
    assert_eq!(enqueue_jobs(&mut connection, &batch).await.unwrap(), 4);
    let keys: Vec<String> =
        sqlx::query_scalar("select key::text from fleet.jobs order by id").fetch_all(&mut *connection).await.unwrap();
    assert_eq!(keys, ["C", "a", "b", "d"]);
}

#[tokio::test]
async fn a_time_that_programs_cannot_hold_is_refused_by_name() {
    let test = database_with_effects().await;
    let mut connection = test.db.pool.acquire().await.unwrap();
    for time in ["infinity", "-infinity", "10000-01-01T00:00Z", "294276-12-31T23:59Z", "0001-12-31T00:00Z BC"] {
        for statement in [
            "select fleet.enqueue('probe', '{}', run_at => $1::text::timestamptz)",
            "insert into fleet.jobs (kind, run_at) values ('probe', $1::text::timestamptz)",
        ] {
            let refused = sqlx::query(statement).bind(time).execute(&mut *connection).await.unwrap_err();
            let refused = refused.into_database_error().unwrap();
            assert_eq!(refused.constraint(), Some("jobs_run_at_is_an_instant"), "{time}: {refused}");
        }
        let window = "insert into fleet.windows (source, window_start_utc) values ('copart', $1::text::timestamptz)";
        let refused = sqlx::query(window).bind(time).execute(&mut *connection).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code()).unwrap_or_default().to_string();
        // infinity is not a number of quarter-hours either
        assert!(["23514", "22003", "22008", "0A000"].contains(&code.as_str()), "{time}: {code} {refused}");
    }
    for time in ["0001-01-01T00:00Z", "9999-12-31T23:45Z"] {
        let enqueued = "select fleet.enqueue('probe', '{}', run_at => $1::text::timestamptz)";
        sqlx::query(enqueued).bind(time).execute(&mut *connection).await.unwrap();
    }
    let listed: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select run_at from fleet.jobs order by run_at").fetch_all(&mut *connection).await.unwrap();
    assert_eq!(listed.len(), 2);
}

#[tokio::test]
async fn a_completed_job_keeps_its_key_and_a_discarded_one_frees_it() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut worker = start_worker(&test.db, |worker| worker);
    add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("done")).await.unwrap();
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    add_job_with(pool, probe_job(TestAction::Abort), EnqueueOptions::with_key("given up")).await.unwrap();
    assert!(worker.next_end().await.discarded);

    assert_eq!(add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("done")).await, None);
    assert!(add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("given up")).await.is_some());
}

#[tokio::test]
async fn sql_alone_can_enqueue_and_the_depth_counts_what_is_due() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let later = "select fleet.enqueue('probe', '{\"act\":\"Done\"}', 'later', now() + interval '1 hour')";
    sqlx::query(later).execute(pool).await.unwrap();
    sqlx::query("select fleet.enqueue('probe', '{\"act\":\"Done\"}')").execute(pool).await.unwrap();
    let depth = "select array[fleet.ready_depth(), fleet.ready_depth('{probe}'), fleet.ready_depth('{brief}')]";
    assert_eq!(sqlx::query_scalar::<_, Vec<i64>>(depth).fetch_one(pool).await.unwrap(), [1, 1, 0]);

    let mut worker = start_worker(&test.db, |worker| worker);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    let states = "select array_agg(state order by id) from fleet.jobs";
    let states: Vec<String> = sqlx::query_scalar(states).fetch_one(pool).await.unwrap();
    assert_eq!(states, ["scheduled", "completed"]);
}

#[tokio::test]
async fn due_jobs_run_by_priority_then_by_time() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut jobs = Vec::new();
    for priority in [0, 5, -5, 0] {
        jobs.push(
            add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::default().with_priority(priority))
                .await
                .unwrap(),
        );
    }
    let mut worker = start_worker(&test.db, |worker| worker);
    for _ in &jobs {
        worker.next_end().await;
    }
    // not in the order of the ends: two runs may be stored together
    let begun = sqlx::query_scalar::<_, i64>("select id from fleet.jobs order by started_at");
    assert_eq!(begun.fetch_all(pool).await.unwrap(), [jobs[2], jobs[0], jobs[3], jobs[1]]);
}

#[tokio::test]
async fn a_notification_wakes_a_worker_that_would_never_poll() {
    let test = database_with_effects().await;
    let mut worker = start_worker(&test.db, |worker| worker);
    add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    worker.next_end().await;
    let job = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    assert_eq!(worker.next_end().await.job, job);
}

#[tokio::test]
async fn a_worker_sleeps_until_its_next_scheduled_job_and_no_longer() {
    let test = database_with_effects().await;
    let soon = "select now() + interval '300 milliseconds'";
    let soon = sqlx::query_scalar(soon).fetch_one(&test.db.pool).await.unwrap();
    let job = add_job_with(&test.db.pool, probe_job(TestAction::Done), EnqueueOptions::default().with_run_at(soon))
        .await
        .unwrap();
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.next_end().await;
    let late = "select extract(epoch from started_at - run_at)::float8 from fleet.jobs where id = $1";
    let late: f64 = sqlx::query_scalar(late).bind(job).fetch_one(&test.db.pool).await.unwrap();
    assert!((0.0..5.0).contains(&late), "{late} s late");
}

#[tokio::test]
async fn polling_finds_what_no_notification_told() {
    let test = database_with_effects().await;
    let mut worker = start_worker(&test.db, |worker| worker.with_poll_interval(Duration::from_millis(50)));
    let silent = "insert into fleet.jobs (kind, payload) values ('probe', '{\"act\":\"Done\"}')";
    sqlx::query(silent).execute(&test.db.pool).await.unwrap();
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
}

#[tokio::test]
async fn a_worker_takes_only_its_kinds_and_old_names_of_them() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let other = add_job(pool, BriefJob { act: TestAction::Done }).await;
    sqlx::query("select fleet.enqueue('probe-as-it-was', '{\"act\":\"Done\"}')").execute(pool).await.unwrap();
    let mut worker = start_worker(&test.db, |worker| worker.with_kinds(&["probe"]));
    worker.next_end().await;
    assert_eq!(worker.shut_down().await.claimed, 1);
    assert_eq!(job_state(pool, other).await, "available");
}
