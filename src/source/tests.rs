//! Tests of the rules that the database enforces, and of the roles that may trigger them.

use super::*;
use crate::testing::migrated_database;
use sqlx::AssertSqlSafe;

/// Inserts a running fetch job of the slot that starts `quarter` quarter-hours after midnight, and begins its attempt.
/// Returns the job's id and the result of `fleet.begin_fetch`.
async fn begin_slot(conn: &mut PgConnection, quarter: i32) -> (i64, String) {
    let window = format!("2026-03-06T{:02}:{:02}:00Z", quarter / 4, quarter % 4 * 15);
    let put = format!(
        "insert into fleet.jobs (kind, payload, state, attempt, max_attempts, run, lease_until, locked_by)
        values ('fetch', '{{\"source\": \"copart\", \"window_start_utc\": \"{window}\"}}', 'running', 1, 1, 1, now(), 'w')
        returning id"
    );
    let job: i64 = sqlx::query_scalar(AssertSqlSafe(put)).fetch_one(&mut *conn).await.unwrap();
    let word: String = sqlx::query_scalar("select fleet.begin_fetch('copart', $1::text::timestamptz, $2, 1, true)")
        .bind(window)
        .bind(job)
        .fetch_one(conn)
        .await
        .unwrap();
    (job, word)
}

async fn discard_job(conn: &mut PgConnection, job: i64) {
    let ended =
        "update fleet.jobs set state = 'discarded', error = 'no entry', finished_at = now(), lease_until = null,
        locked_by = null where id = $1";
    sqlx::query(ended).bind(job).execute(conn).await.unwrap();
}

#[tokio::test]
async fn a_worker_needs_no_more_than_its_role_to_open_and_close_a_breaker() {
    let test = migrated_database().await;
    let mut conn = test.db.pool.acquire().await.unwrap();
    sqlx::raw_sql("set role etl_rw").execute(&mut *conn).await.unwrap();
    for quarter in 0..5 {
        let (job, word) = begin_slot(&mut conn, quarter).await;
        assert_eq!(word, "go");
        discard_job(&mut conn, job).await;
    }
    assert_eq!(begin_slot(&mut conn, 5).await.1, "open");
    let (job, _) = begin_slot(&mut conn, 8).await;
    let mut tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
    let standing = SourceState::lock(&mut tx, "copart").await.unwrap();
    assert!(standing.is_probe("2026-03-06T02:00:00Z".parse().unwrap()));
    assert!(!standing.is_probe("2026-03-06T01:45:00Z".parse().unwrap()));
    start_probe(&mut tx, "copart", job).await.unwrap();
    tx.commit().await.unwrap();
    let word: String = sqlx::query_scalar("select fleet.begin_fetch('copart', '2026-03-06T02:00Z', $1, 1, true)")
        .bind(job)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
    assert_eq!(word, "go");
    assert!(end_fetch(&mut conn, job, 1, SlotResult::Unchanged).await.unwrap());
    sqlx::raw_sql("reset role").execute(&mut *conn).await.unwrap();
    let status = read_status(&test.db.pool, Some("copart")).await.unwrap().remove(0);
    assert_eq!((status.breaker.as_str(), status.transitions.len()), ("closed", 3));
    for forbidden in ["fleet.reset_breaker('copart', 'a', 'b')", "fleet.switch_source('copart', false, 'a', 'b')"] {
        sqlx::raw_sql("set role etl_rw").execute(&mut *conn).await.unwrap();
        let call = sqlx::raw_sql(AssertSqlSafe(format!("select {forbidden}"))).execute(&mut *conn).await;
        assert!(call.unwrap_err().to_string().contains("permission denied"), "{forbidden}");
    }
}

#[tokio::test]
async fn the_tables_themselves_refuse_what_must_not_be() {
    let test = migrated_database().await;
    let mut conn = test.db.pool.acquire().await.unwrap();
    let (job, _) = begin_slot(&mut conn, 0).await;
    assert!(end_fetch(&mut conn, job, 1, SlotResult::Fetched).await.unwrap());
    for (statement, constraint) in [
        (
            "insert into fleet.fetch_slots (source, slot, job_id, run, finished_at, outcome)
            values ('copart', '2026-03-06T00:00Z', 99, 1, now(), 'fetched')",
            "fetch_slots_pkey",
        ),
        (
            "insert into fleet.fetch_slots (source, slot, job_id, run) values ('copart', '2026-03-06T00:07Z', 99, 1)",
            "fetch_slots_quarter_hour_ck",
        ),
        (
            "insert into fleet.fetch_slots (source, slot, job_id, run) values
              ('copart', '2026-03-06T00:15Z', 99, 1), ('copart', '2026-03-06T00:30Z', 99, 1)",
            "fetch_slots_one_attempt_of_a_job",
        ),
        ("update fleet.fetch_slots set outcome = null", "fetch_slots_outcome_means_over"),
        ("update fleet.sources set breaker = 'open'", "sources_open_knows"),
        (
            "update fleet.sources set breaker = 'half_open', opened_at = now(), probe_at = now()",
            "sources_half_open_has_one_probe",
        ),
        ("insert into fleet.sources (source) values ('Copart!')", "sources_source_is_a_word"),
        (
            "insert into fleet.source_transitions (source, from_state, to_state, who, why)
            values ('copart', 'open', 'closed', 'anna', '')",
            "source_transitions_say_who_and_why",
        ),
    ] {
        let error = sqlx::raw_sql(statement).execute(&mut *conn).await.unwrap_err().to_string();
        assert!(error.contains(constraint), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_slot_counts_as_failed_once_however_its_job_is_moved_afterwards() {
    let test = migrated_database().await;
    let mut conn = test.db.pool.acquire().await.unwrap();
    let (job, _) = begin_slot(&mut conn, 0).await;
    for _ in 0..3 {
        discard_job(&mut conn, job).await;
        let back = "update fleet.jobs set state = 'available', attempt = 0, finished_at = null where id = $1";
        sqlx::query(back).bind(job).execute(&mut *conn).await.unwrap();
    }
    assert_eq!(read_status(&test.db.pool, None).await.unwrap()[0].consecutive_failures, 1);
}
