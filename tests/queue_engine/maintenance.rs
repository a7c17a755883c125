//! Keys that are unique over chosen states, the registry of workers, retention, and the view for dashboards.

use crate::harness::*;
use serde_json::Value;
use std::time::Duration;
use vinops::queue::manual::ManualWorker;
use vinops::queue::queries::list_workers;
use vinops::queue::{EnqueueOptions, Retention, RunOutcome, UNFINISHED_STATES};

#[tokio::test]
async fn a_key_that_is_unique_while_unfinished_is_free_when_its_job_is_done() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let once = || EnqueueOptions::with_key("a").unique_over(UNFINISHED_STATES);
    assert!(add_job_with(pool, probe_job(TestAction::Wait), once()).await.is_some());
    assert!(add_job_with(pool, probe_job(TestAction::Done), once()).await.is_none());
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    assert!(add_job_with(pool, probe_job(TestAction::Done), once()).await.is_none(), "it runs");
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert!(add_job_with(pool, probe_job(TestAction::Done), once()).await.is_some());
    worker.next_end().await;

    // Never twice, even if it was discarded.
    let by_sql = "select fleet.enqueue('probe', '{\"act\":\"Abort\"}', 'never twice',
        unique_over => '{available,scheduled,running,retryable,completed,cancelled,discarded}')";
    assert!(sqlx::query_scalar::<_, Option<i64>>(by_sql).fetch_one(pool).await.unwrap().is_some());
    assert!(worker.next_end().await.discarded);
    assert!(sqlx::query_scalar::<_, Option<i64>>(by_sql).fetch_one(pool).await.unwrap().is_none());
    let wrong = "select fleet.enqueue('probe', key => 'b', unique_over => '{completed}')";
    assert!(sqlx::query(wrong).execute(pool).await.unwrap_err().to_string().contains("jobs_unique_over_states"));
}

#[tokio::test]
async fn workers_are_registered_while_they_work_and_shown_as_lost_when_they_vanish() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let worker =
        start_worker(&test.db, |worker| worker.with_concurrency(3).with_kinds(&["probe"]).with_lease(RENEWED_LEASE));
    add_job(pool, probe_job(TestAction::Wait)).await;
    worker.gate.next_arrival().await;
    wait_until(pool, "select running = 1 from fleet.workers where $1 = 0", 0).await;
    let seen = list_workers(pool).await.unwrap();
    let row = (&*seen[0].state, seen[0].concurrency, seen[0].kinds.join(" "));
    assert_eq!(row, ("working", 3, "probe probe-as-it-was".to_owned()));
    worker.gate.open(1);
    worker.shut_down().await;
    assert!(list_workers(pool).await.unwrap().is_empty(), "it left in order");

    let lost = "insert into fleet.workers (name, kinds, concurrency, lease, seen_at)
        values ('gone', '{probe}', 1, interval '30 s', now() - interval '31 s')";
    sqlx::query(lost).execute(pool).await.unwrap();
    assert_eq!(list_workers(pool).await.unwrap()[0].state, "lost");
}

#[tokio::test]
async fn finished_jobs_are_pruned_by_age_and_the_rest_stays() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let fill = "insert into fleet.jobs (kind, state, error, created_at, finished_at)
        select 'probe', state, 'x', now() - age * interval '1 day', case when state <> 'available' then now() - age * interval '1 day' end
        from generate_series(1, 700) n,
          (values ('completed', 40), ('discarded', 40), ('available', 40), ('discarded', 100), ('cancelled', 100), ('completed', 1)) as v (state, age)";
    sqlx::query(fill).execute(pool).await.unwrap();
    let history = "insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome)
        select id, 1, 1, kind, 'x', now(), 'done' from fleet.jobs";
    sqlx::query(history).execute(pool).await.unwrap();
    let lost = "insert into fleet.workers (name, kinds, concurrency, lease, seen_at)
        values ('old', '{probe}', 1, interval '30 s', now() - interval '2 days'), ('young', '{probe}', 1, interval '30 s', now())";
    sqlx::query(lost).execute(pool).await.unwrap();
    let hand = ManualWorker { pool: pool.clone(), name: "x".into(), kinds: Vec::new(), lease: ENDLESS_LEASE };

    // Another worker prunes: nothing happens.
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('fleet: prune', 0))")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(hand.prune_jobs(Retention::DEFAULT).await.unwrap(), 0);
    other.rollback().await.unwrap();

    assert_eq!(hand.prune_jobs(Retention::DEFAULT).await.unwrap(), 3 * 700);
    let left = "select jsonb_object_agg(state, jobs) from (select state, count(*) as jobs from fleet.jobs group by state) as s";
    let left: Value = sqlx::query_scalar(left).fetch_one(pool).await.unwrap();
    assert_eq!(left, serde_json::json!({ "available": 700, "completed": 700, "discarded": 700 }));
    let history = "select count(*) from fleet.job_attempts";
    assert_eq!(sqlx::query_scalar::<_, i64>(history).fetch_one(pool).await.unwrap(), 3 * 700);
    let names: Vec<String> = sqlx::query_scalar("select name from fleet.workers").fetch_all(pool).await.unwrap();
    assert_eq!(names, ["young"]);
    assert_eq!(hand.prune_jobs(Retention { completed: Duration::ZERO, ..Retention::DEFAULT }).await.unwrap(), 700);
}

#[tokio::test]
async fn dashboards_read_the_view_and_not_the_payloads() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    add_job_with(pool, probe_job(TestAction::Done), EnqueueOptions::with_key("copart/1")).await.unwrap();
    let mut reader = pool.acquire().await.unwrap();
    sqlx::query("set role app_ro").execute(&mut *reader).await.unwrap();
    let row: Value =
        sqlx::query_scalar("select to_jsonb(v) from fleet.jobs_view as v").fetch_one(&mut *reader).await.unwrap();
    assert_eq!((&row["source"], &row["state"], &row["ready"]), (&"copart".into(), &"available".into(), &true.into()));
    assert!(row.get("payload").is_none());
    assert!(sqlx::query("select payload from fleet.jobs").execute(&mut *reader).await.is_err());
    let uncommented = "select count(*) from pg_attribute where attrelid = 'fleet.jobs_view'::regclass and attname in
        ('key', 'source', 'state', 'worker', 'ready', 'error', 'seconds') and col_description(attrelid, attnum) is null";
    assert_eq!(sqlx::query_scalar::<_, i64>(uncommented).fetch_one(pool).await.unwrap(), 0);
    sqlx::query("reset role").execute(&mut *reader).await.unwrap();
}
