//! A month or day is loaded into a separate table and attached under its name. A table beside its parent is left alone.

use crate::{insert_file, query_text, run_sql};
use sqlx::PgPool;
use vinops::testing::migrated_database;

#[tokio::test]
async fn a_detached_month_is_refused_by_name_and_keeps_its_rows() {
    let t = migrated_database().await;
    insert_file(&t).await;
    let pool = &t.db.pool;
    run_sql(pool, "alter table raw.rows detach partition raw.rows_2026_11").await.unwrap();
    run_sql(pool, "alter table audit.parse_errors detach partition audit.parse_errors_2026_11").await.unwrap();
    run_sql(pool, "alter table staging.copart_raw detach partition staging.copart_raw_2026_11_20").await.unwrap();
    for (statement, named) in [
        ("select raw.open_month('2026-11-20T14:30Z')", "table raw.rows_2026_11 exists"),
        ("select raw.ensure_partition('raw.rows', '2026-11-20T14:30Z')", "table raw.rows_2026_11 exists"),
        ("select audit.ensure_partitions('2026-11-20T14:30Z')", "table audit.parse_errors_2026_11 exists"),
        ("select staging.open_day('2026-11-20T14:30Z')", "table staging.copart_raw_2026_11_20 exists"),
    ] {
        let refused = run_sql(pool, statement).await.unwrap_err();
        let refused = refused.as_database_error().unwrap();
        assert_eq!(refused.code().as_deref(), Some("55000"), "{statement}: {refused}");
        assert!(refused.message().contains(named), "{statement}: {refused}");
    }
    let kept = "select concat_ws(' ', (select count(*) from raw.rows_2026_11), (select count(*) from audit.parse_errors_2026_11),
        (select count(*) from staging.copart_raw_2026_11_20))";
    assert_eq!(query_text(pool, kept).await, "2 2 1");
}

#[tokio::test]
async fn a_partition_that_has_the_name_of_a_load_is_not_dropped() {
    let t = migrated_database().await;
    insert_file(&t).await;
    let pool = &t.db.pool;
    run_sql(pool, "alter table raw.rows_2026_11 rename to rows_2026_11_loading").await.unwrap();
    let refused = run_sql(pool, "select raw.open_month('2026-11-20T14:30Z')").await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("55000"), "{refused}");
    assert_eq!(query_text(pool, "select count(*)::text from raw.rows").await, "2");
}

#[tokio::test]
async fn what_a_killed_load_left_is_dropped_and_the_attached_month_has_its_own_names_and_rights() {
    let t = migrated_database().await;
    insert_file(&t).await;
    let pool = &t.db.pool;
    let worker = PgPool::connect(&crate::privileges::create_login(&t, "etl_rw").await).await.unwrap();
    // killed twice: before and after its indexes were built
    let opened = "select raw.open_month('2026-12-02T00:00Z')";
    assert_eq!(query_text(&worker, opened).await, "raw.rows_2026_12_loading");
    run_sql(&worker, "select raw.index_month('2026-12-02T00:00Z')").await.unwrap();
    assert_eq!(query_text(&worker, opened).await, "raw.rows_2026_12_loading");
    run_sql(
        &worker,
        "insert into raw.rows_2026_12_loading (id, file_id, row_no, window_start_utc, payload_jsonb)
          select 9, file_id, 9, '2026-12-02T00:00Z', '{}' from raw.csv_files;
        select raw.index_month('2026-12-02T00:00Z');
        select raw.attach_month('2026-12-02T00:00Z');
        select staging.open_day('2026-12-02T00:00Z');
        select staging.index_day('2026-12-02T00:00Z');
        select staging.attach_day('2026-12-02T00:00Z')",
    )
    .await
    .unwrap();
    assert_eq!(query_text(pool, "select count(*)::text from raw.rows where id = 9").await, "1");
    let names = "select string_agg(indexname, ' ' order by indexname) from pg_indexes
        where tablename in ('rows_2026_12', 'copart_raw_2026_12_02')";
    assert_eq!(
        query_text(pool, names).await,
        "copart_raw_2026_12_02_file_id_idx copart_raw_2026_12_02_lot_external_id_idx copart_raw_2026_12_02_pkey \
         copart_raw_2026_12_02_vin_raw_idx rows_2026_12_expr_idx rows_2026_12_expr_idx1 rows_2026_12_file_row_key \
         rows_2026_12_lot_idx rows_2026_12_pkey"
    );
    // the month's indexes are attached to the parent's, and none was built twice
    let parts = "select count(*)::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where c.relkind = 'i' and c.relname like any (array['rows_2026_12%', 'copart_raw_2026_12_02%'])";
    assert_eq!(query_text(pool, parts).await, "9");
    let left = "select concat(has_table_privilege('etl_rw', 'raw.rows_2026_12', 'insert'),
        has_table_privilege('etl_rw', 'raw.rows_2026_12', 'update'), to_regclass('raw.rows_2026_12_loading'))";
    assert_eq!(query_text(pool, left).await, "ff");
}
