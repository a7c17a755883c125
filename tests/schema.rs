//! The schema for its users: it migrates up over data, down and up again; the documents' queries run as written;
//! references act as promised; each role may do its work and nothing else; and `verify` reports every change.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use sqlx::{AssertSqlSafe, PgPool, Row};
use std::path::PathBuf;
use vinops::db::verify::verify_schema;
use vinops::testing::{TestDb, migrated_database};

#[path = "schema/drift.rs"]
mod drift;
#[path = "schema/dumps.rs"]
mod dumps;
#[path = "schema/month_partitions.rs"]
mod month_partitions;
#[path = "schema/privileges.rs"]
mod privileges;
#[path = "schema/rights.rs"]
mod rights;
#[path = "schema/roles.rs"]
mod roles;

/// Returns the applied migrations as `(number, file)`, in order. 0005 is superseded and never applied.
fn list_migrations() -> Vec<(u32, PathBuf)> {
    let mut files: Vec<_> = std::fs::read_dir("migrations")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap()[..4].parse().unwrap(), path))
        .filter(|(number, _)| *number != 5)
        .collect();
    files.sort();
    files
}

async fn run_sql(pool: &PgPool, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.map(drop)
}

async fn migrate_up(pool: &PgPool, number: u32, file: &PathBuf) {
    run_sql(pool, &std::fs::read_to_string(file).unwrap()).await.unwrap_or_else(|e| panic!("up {number:04}: {e}"));
}

async fn migrate_down(pool: &PgPool, number: u32) {
    let file = format!("migrations/rollback/{number:04}_rollback.sql");
    run_sql(pool, &std::fs::read_to_string(file).unwrap()).await.unwrap_or_else(|e| panic!("down {number:04}: {e}"));
}

async fn down_to_nothing(pool: &PgPool) {
    for (number, _) in list_migrations().iter().rev() {
        migrate_down(pool, *number).await;
    }
}

async fn query_text(pool: &PgPool, sql: &str) -> String {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await.unwrap().get(0)
}

/// Inserts a sold car with its lot, sale and picture, in the columns of 0001.
const INSERT_CAR: &str = "
    insert into vehicles (vin, vin_raw, year, make) values ('1HGCM82633A004352', '1hgcm82633a004352', 2003, 'HONDA');
    insert into lots (vin, source, status, retail_value_usd) values ('1HGCM82633A004352', 'copart', 'sold', 8000);
    insert into sale_events (vin, lot_id, status, final_bid_usd, currency)
      select vin, id, 'sold', 1200, 'USD' from lots;
    insert into images (vin, lot_id, seq, source_url) select vin, id, 1, 'cs.copart.com/x.jpg' from lots;";

const SELECT_CAR: &str = "
    select concat_ws(' ', v.vin, v.year, v.make, l.status, l.retail_value_usd, e.final_bid_usd, i.source_url)
    from vehicles v join lots l using (vin) join sale_events e on e.lot_id = l.id join images i on i.lot_id = l.id";

async fn failed_checks(pool: &PgPool) -> Vec<(String, String)> {
    let checks = verify_schema(pool).await.unwrap();
    assert!(checks.len() > 400, "only {} checks", checks.len());
    checks.into_iter().filter(|c| !c.passed).map(|c| (c.object, c.evidence)).collect()
}

#[tokio::test]
async fn a_migrated_database_passes_every_check() {
    let t = migrated_database().await;
    assert_eq!(failed_checks(&t.db.pool).await, []);
}

#[tokio::test]
async fn migrations_walk_up_over_data_down_and_up_again() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    down_to_nothing(pool).await;
    let left = "select coalesce(string_agg(nspname || '.' || relname, ' '), 'nothing')
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where nspname in ('raw', 'staging', 'audit', 'taxonomies', 'fleet')
           or nspname = 'public' and relname in ('vehicles', 'lots', 'sale_events', 'images', 'config')";
    assert_eq!(query_text(pool, left).await, "nothing");

    for (number, file) in list_migrations() {
        migrate_up(pool, number, &file).await;
        if number == 1 {
            run_sql(pool, INSERT_CAR).await.unwrap();
        }
        assert_eq!(
            query_text(pool, SELECT_CAR).await,
            "1HGCM82633A004352 2003 HONDA sold 8000.00 1200.00 cs.copart.com/x.jpg",
            "after {number:04}"
        );
    }
    assert_eq!(failed_checks(pool).await, []);

    // the baseline's rows survive the rollback to it, and the migration up again
    for (number, _) in list_migrations().iter().rev().take_while(|(n, _)| *n > 1) {
        migrate_down(pool, *number).await;
    }
    assert!(query_text(pool, SELECT_CAR).await.starts_with("1HGCM82633A004352 2003 HONDA sold"));
    for (number, file) in list_migrations().into_iter().skip(1) {
        migrate_up(pool, number, &file).await;
    }
    assert_eq!(failed_checks(pool).await, []);
}

#[tokio::test]
async fn each_step_down_is_repaired_by_its_step_up() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    let all = list_migrations();
    for first in 1..all.len() {
        for (number, _) in all[first..].iter().rev() {
            migrate_down(pool, *number).await;
        }
        for (number, file) in &all[first..] {
            migrate_up(pool, *number, file).await;
        }
        assert_eq!(failed_checks(pool).await, [], "down to and up from {:04}", all[first].0);
    }
}

#[tokio::test]
async fn running_our_migrations_twice_changes_nothing() {
    let t = migrated_database().await;
    run_sql(&t.db.pool, INSERT_CAR).await.unwrap();
    // the queue's file does not support a second run, which the ledger prevents
    for (number, file) in list_migrations().into_iter().filter(|(n, _)| *n != 15) {
        migrate_up(&t.db.pool, number, &file).await;
    }
    assert_eq!(failed_checks(&t.db.pool).await, []);
}

#[tokio::test]
async fn a_vehicle_is_not_deleted_under_its_lots_and_a_corrected_vin_takes_them_along() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    run_sql(pool, INSERT_CAR).await.unwrap();

    let refused = run_sql(pool, "delete from vehicles").await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("lots_vin_fkey"), "{refused}");

    run_sql(pool, "update vehicles set vin = 'JH4KA7561PC008269'").await.unwrap();
    assert!(query_text(pool, SELECT_CAR).await.starts_with("JH4KA7561PC008269"));

    run_sql(pool, "delete from lots").await.unwrap();
    let outlived = "select concat((select count(*) from sale_events where lot_id is null), ' sale ',
        (select count(*) from images where lot_id is null), ' picture')";
    assert_eq!(query_text(pool, outlived).await, "1 sale 1 picture");
}

#[tokio::test]
async fn rows_that_contradict_the_rules_are_refused_by_name() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    run_sql(pool, INSERT_CAR).await.unwrap();
    for (statement, constraint) in [
        ("insert into vehicles (vin) values ('SHORT')", "vehicles_vin_format_ck"),
        ("insert into vehicles (vin) values ('1HGCM82633AO04352')", "vehicles_vin_format_ck"),
        ("update vehicles set year = 1899", "vehicles_year_ck"),
        ("insert into lots (vin) values ('JH4KA7561PC008269')", "lots_vin_fkey"),
        ("update lots set status = 'Pure Sale'", "lots_status_ck"),
        ("update lots set retail_value_usd = -1", "lots_retail_value_usd_ck"),
        ("update sale_events set currency = 'usd'", "sale_events_currency_ck"),
        ("insert into images (vin, lot_id, seq) select vin, id, 1 from lots", "images_vin_lot_seq_variant_uidx"),
        (
            "update lots set lot_external_id = '1'; insert into lots (vin, lot_external_id) select vin, '1' from vehicles",
            "idx_lots_external_id",
        ),
        ("insert into taxonomies.statuses (code, en) values ('PENDING_RESULT', 'x')", "code_format_ck"),
        (
            "insert into raw.csv_files (path, sha256, bytes, window_start_utc) values ('x.csv', repeat('0', 64), 1, now())",
            "csv_files_path_format_ck",
        ),
    ] {
        let refused = run_sql(pool, statement).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some(constraint), "{statement}: {refused}");
    }
}

/// Inserts one file of three records, one rejected, the first two stored as versions, with the counters of its run.
async fn insert_file(t: &TestDb) {
    run_sql(
        &t.db.pool,
        r#"select audit.ensure_partitions('2026-11-20T14:30Z');
        select raw.open_month('2026-11-20T14:30Z');
        select staging.open_day('2026-11-20T14:30Z');
        select staging.attach_day('2026-11-20T14:30Z');
        insert into raw.csv_files (file_id, path, sha256, bytes, row_count, window_start_utc, ingested_at)
          values ('00000000-0000-0000-0000-000000000001', 'raw/copart/2026/11/20/1430.csv.zst', repeat('a', 64), 95972917, 2,
            '2026-11-20T14:30Z', now());
        insert into raw.rows_2026_11_loading (id, file_id, row_no, window_start_utc, payload_jsonb)
          select 16777216 + n, file_id, n, window_start_utc, '{"Lot number": "1", "VIN": ""}'
          from raw.csv_files, (values (1), (3)) as r (n);
        select raw.index_month('2026-11-20T14:30Z');
        select raw.attach_month('2026-11-20T14:30Z');
        insert into raw.manifests (file_id, window_start_utc, row_ids)
          select file_id, window_start_utc, '{16777217,0,16777219}' from raw.csv_files;
        insert into audit.parse_errors (window_start_utc, file_id, row_no, byte_offset, kind, reason, raw)
          select window_start_utc, file_id, row_no, row_no * 100, kind, reason, 'x'
          from raw.csv_files, (values (2, 'rejected', '61 fields'), (3, 'repaired', 'inch quote')) as e (row_no, kind, reason);
        insert into staging.copart_raw (window_start_utc, file_id, row_no, row_id, row_hash, lot_external_id, vin_raw, vin,
            make, currency_code, odometer, image_url)
          select window_start_utc, file_id, 1, 16777217, gen_random_uuid(), '45148624', '1hgcm82633a004352', '1HGCM82633A004352',
            'ACURA', 'USD', 60019, 'http://inventoryv2.copart.io/v1/lotImages/45148624'
          from raw.csv_files;
        insert into audit.etl_runs (file_id, window_start_utc, rows_processed, rows_missing_vin)
          select file_id, window_start_utc, 2, 1 from raw.csv_files;"#,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn the_documents_monitoring_queries_run_as_written() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    insert_file(&t).await;

    let health = sqlx::query(
        "SELECT
          file_id,
          path,
          declared_rows,
          actual_rows,
          ingested_at
        FROM audit.v_ingest_count
        ORDER BY ingested_at DESC
        LIMIT 10;",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(
        (health.len(), health[0].get::<i32, _>("declared_rows"), health[0].get::<i32, _>("actual_rows")),
        (1, 2, 2)
    );

    let quality = "SELECT concat_ws(' ', vin_null_pct, lot_null_pct, total_rows) FROM (SELECT
          file_id,
          ROUND(vin_null_pct::numeric, 2) as vin_null_pct,
          ROUND(lot_null_pct::numeric, 2) as lot_null_pct,
          total_rows
        FROM audit.v_unknown_rate
        WHERE vin_null_pct > 1.0 OR lot_null_pct > 1.0) q";
    assert_eq!(query_text(pool, quality).await, "50.00 0.00 2");

    let errors =
        sqlx::query("SELECT * FROM audit.v_parse_errors WHERE error_count > 0;").fetch_one(pool).await.unwrap();
    assert_eq!(errors.get::<i64, _>("error_count"), 1);
    assert_eq!(errors.get::<Vec<String>, _>("examples"), ["row 2 at byte 200: 61 fields"]);

    let recent = sqlx::query(
        "SELECT
          file_id,
          path,
          row_count,
          ROUND(bytes / 1024.0 / 1024.0, 2) as mb,
          ingested_at
        FROM raw.csv_files
        ORDER BY ingested_at DESC
        LIMIT 20;",
    );
    assert_eq!(recent.fetch_all(pool).await.unwrap().len(), 1);

    let union =
        "select concat_ws(' ', row_count, declared_rows, actual_rows, last_row_id, file_ingested_at = ingested_at)
        from audit.v_ingest_count";
    assert_eq!(query_text(pool, union).await, "2 2 2 16777219 t");
    assert_eq!(
        query_text(pool, "SELECT (normalize_vin('TEST1234567890VIN') IS NOT NULL)::text AS function_exists").await,
        "true"
    );
    run_sql(pool, "UPDATE config SET completion_detector_enabled = FALSE;").await.unwrap();
    run_sql(
        pool,
        "UPDATE lots
         SET status = 'active', updated_at = now()
         WHERE status = 'PENDING_RESULT'
           AND updated_at > '2025-10-16 12:00:00 UTC';",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_label_falls_back_to_english_and_then_to_its_code() {
    let t = migrated_database().await;
    let pool = &t.db.pool;
    run_sql(
        pool,
        "insert into taxonomies.damage_types (code, en, ru) values ('test_flood', 'Flood', 'Вода'), ('test_side', 'Side', null)",
    )
    .await
    .unwrap();
    for (code, lang, label) in [
        ("test_flood", "ru", "Вода"),
        ("test_flood", "en", "Flood"),
        ("test_side", "ru", "Side"),
        ("nobody", "ru", "nobody"),
    ] {
        let sql = format!("select taxonomies.label('damage_types', '{code}', '{lang}')");
        assert_eq!(query_text(pool, &sql).await, label);
    }
}

#[tokio::test]
async fn a_text_of_any_length_is_kept_in_a_row_and_found_by_the_documents_indexes() {
    let t = migrated_database().await;
    insert_file(&t).await;
    run_sql(
        &t.db.pool,
        "insert into raw.rows (id, file_id, row_no, window_start_utc, payload_jsonb)
        select 3, file_id, 4, window_start_utc, jsonb_build_object('Lot number', long, 'VIN', long)
        from raw.csv_files, (select string_agg(md5(n::text), '') as long from generate_series(1, 500) as n) as s",
    )
    .await
    .unwrap();
    let found = "select count(*) from raw.rows where payload_jsonb ->> 'VIN' = (select string_agg(md5(n::text), '') from generate_series(1, 500) as n)";
    let found: i64 = sqlx::query_scalar(found).fetch_one(&t.db.pool).await.unwrap();
    assert_eq!(found, 1);
}
