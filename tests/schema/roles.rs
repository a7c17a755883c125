//! What each role may do and may not do: one transaction per statement, rolled back.
use crate::{INSERT_CAR, insert_file, run_sql};
use sqlx::AssertSqlSafe;
use vinops::testing::migrated_database;

#[tokio::test]
async fn each_role_may_do_its_work_and_nothing_else() {
    let t = migrated_database().await;
    insert_file(&t).await;
    run_sql(&t.db.pool, INSERT_CAR).await.unwrap();
    for (role, statement, allowed) in [
        (
            "etl_rw",
            "select raw.open_month('2026-12-01T00:00Z'); select audit.ensure_partitions('2026-12-01T00:00Z')",
            true,
        ),
        ("etl_rw", "insert into vehicles (vin) values ('JH4KA7561PC008269'); update lots set status = 'active'", true),
        ("etl_rw", "select upsert_vehicles_batch(file_id), upsert_lots_batch(file_id) from raw.csv_files", true),
        ("etl_rw", "select fleet.enqueue('fetch', '{}', 'k')", true),
        ("etl_rw", "create table raw.mine ()", false),
        ("etl_rw", "create table public.mine ()", false),
        ("etl_rw", "drop table raw.manifests", false),
        ("etl_rw", "update raw.rows set row_no = 9", false),
        ("etl_rw", "delete from raw.manifests", false),
        ("etl_rw", "update audit.parse_errors set reason = ''", false),
        ("etl_rw", "delete from lots", false),
        ("etl_rw", "update config set completion_detector_enabled = false", false),
        (
            "app_ro",
            "select count(*) from lots, taxonomies.labels, audit.v_ingest_count, raw.file_rows, fleet.windows",
            true,
        ),
        ("app_ro", "update lots set status = 'sold'", false),
        ("app_ro", "select * from raw.csv_files", false),
        ("app_ro", "select * from fleet.jobs", false),
        ("app_ro", "select upsert_lots_batch(file_id) from raw.csv_files", false),
        ("app_ro", "select raw.open_month(now())", false),
        ("vinops_ops", "update fleet.jobs set run_at = now(); update config set auto_fetch_enabled = false", true),
        ("vinops_ops", "select * from raw.csv_files", true),
        ("vinops_ops", "delete from fleet.jobs", false),
        ("vinops_ops", "update lots set status = 'sold'", false),
        ("vinops_ops", "create table fleet.mine ()", false),
        ("vinops_admin", "alter table lots add column mine text; drop table raw.rows_2026_11", true),
    ] {
        let mut tx = t.db.pool.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("set local role {role}"))).execute(&mut *tx).await.unwrap();
        let outcome = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *tx).await;
        let code = outcome.as_ref().err().and_then(|e| e.as_database_error()?.code().map(|c| c.into_owned()));
        assert_eq!(code.as_deref(), if allowed { None } else { Some("42501") }, "{role}: {statement}: {outcome:?}");
        tx.rollback().await.unwrap();
    }
}
