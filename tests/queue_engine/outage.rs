//! The database is unavailable for a while, and the worker's process survives.

use crate::harness::*;
use vinops::queue::RunOutcome;
use vinops::testing::TestLog;

/// Terminates every other session of this database.
const TERMINATE_SESSIONS: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()";

#[tokio::test]
async fn cut_connections_are_replaced_and_no_job_is_lost() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let mut worker = start_worker(&test.db, |worker| worker.with_lease(std::time::Duration::from_secs(3)));
    for _ in 0..3 {
        let held = add_job(pool, probe_job(TestAction::Wait)).await;
        assert_eq!(worker.gate.next_arrival().await, held);
        sqlx::query(TERMINATE_SESSIONS).execute(pool).await.unwrap();
        worker.gate.open(1);
        let end = worker.next_end().await;
        assert_eq!((end.job, end.outcome), (held, RunOutcome::Done));
        // The listener is connected again, or it checked when it reconnected: no worker polls here.
        let next = add_job(pool, probe_job(TestAction::Done)).await;
        assert_eq!(worker.next_end().await.job, next);
    }
    assert_eq!(worker.shut_down().await.claimed, 6);
}

#[tokio::test]
async fn a_step_whose_connection_is_cut_is_tried_again_on_the_spot_and_writes_once() {
    let test = database_with_effects().await;
    let pool = &test.db.pool;
    let job = add_job(pool, probe_job(TestAction::Step)).await;
    let mut worker = start_worker(&test.db, |worker| worker);
    worker.gate.next_arrival().await;
    sqlx::query(TERMINATE_SESSIONS).execute(pool).await.unwrap();
    worker.gate.open(1);
    // the same run reaches the gate again
    assert_eq!(worker.gate.next_arrival().await, job);
    worker.gate.open(1);
    assert_eq!(worker.next_end().await.outcome, RunOutcome::Done);
    assert_eq!(list_effects(pool).await, [job]);
    assert_eq!(run_outcomes(pool, job).await, [Some("done".to_owned())]);
}

#[tokio::test]
async fn a_worker_waits_for_a_database_that_refuses_it() {
    let test = database_with_effects().await;
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&test.db.pool).await.unwrap();
    let elsewhere = test.url.replacen(&format!("/{name}"), "/postgres", 1);
    let mut admin = <sqlx::PgConnection as sqlx::Connection>::connect(&elsewhere).await.unwrap();
    let allow = async |admin: &mut sqlx::PgConnection, yes: bool| {
        let alter = format!("alter database {name} with allow_connections {yes}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(admin).await.unwrap();
    };
    let job = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
    allow(&mut admin, false).await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
    sqlx::query(cut).bind(&name).execute(&mut admin).await.unwrap();

    let mut worker = start_worker(&test.db, |worker| worker);
    // The server reports that it rejected a connection. Then connections are allowed again.
    assert!(test.db.connect_listener().await.is_err());
    allow(&mut admin, true).await;
    assert_eq!(worker.next_end().await.job, job);
}

#[tokio::test]
async fn a_conflict_with_other_transactions_is_not_logged_as_an_outage() {
    for code in ["40001", "40P01"] {
        let test = database_with_effects().await;
        // the worker's row is rejected three times, as in a conflict
        let trigger = format!(
            "create sequence refusals;
            create function refuse() returns trigger language plpgsql as $$
            begin
              if nextval('public.refusals') <= 3 then
                raise exception 'could not serialize access' using errcode = '{code}';
              end if;
              return new;
            end $$;
            create trigger refuse before insert or update on fleet.workers for each row execute function refuse()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&test.db.pool).await.unwrap();
        let log = TestLog::start();
        let job = add_job(&test.db.pool, probe_job(TestAction::Done)).await;
        let mut worker = start_worker(&test.db, |worker| worker);
        assert_eq!(worker.next_end().await.job, job);
        let refused = || log.captured_text().matches("transaction conflict, retrying").count();
        tokio::time::timeout(std::time::Duration::from_secs(30), async {
            while refused() < 3 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        worker.shut_down().await;
        let text = log.captured_text();
        assert!(text.contains("doing=\"renew leases\""), "{text}");
        assert!(!text.contains("database unavailable"), "{text}");
    }
}
