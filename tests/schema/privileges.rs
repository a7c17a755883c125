//! Privileges with real logins: each forbidden statement is rejected, and each allowed one works.

use crate::{INSERT_CAR, insert_file, query_text, run_sql};
use sqlx::{AssertSqlSafe, PgPool};
use vinops::testing::{TestDb, migrated_database};

/// Creates a login that is a member of this role only, and returns its URL. The login stays on a server that outlives
/// the test.
pub async fn create_login(t: &TestDb, role: &str) -> String {
    let name = format!("vinops_test_{role}");
    let make = format!(
        "do $$
        begin
          if not exists (select from pg_roles where rolname = '{name}') then
            create role {name} login password 'deed' in role {role};
          end if;
        exception
          when duplicate_object or unique_violation then null;
        end
        $$"
    );
    run_sql(&t.db.pool, &make).await.unwrap();
    let mut url = url::Url::parse(&t.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("deed")).unwrap();
    url.into()
}

/// Runs the statement in a transaction that is rolled back. Returns the SQLSTATE of its error.
async fn rejection_code(pool: &PgPool, statement: &str) -> Option<String> {
    let mut tx = pool.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    done.err().map(|error| match error.as_database_error().and_then(|it| it.code()) {
        Some(code) => code.into_owned(),
        None => panic!("{statement}: {error}"),
    })
}

async fn try_statements(t: &TestDb, role: &str, statements: &[(&str, &str)]) {
    let pool = PgPool::connect(&create_login(t, role).await).await.unwrap();
    let mut wrong = Vec::new();
    for (statement, wanted) in statements {
        let got = rejection_code(&pool, statement).await.unwrap_or_default();
        if got != *wanted {
            wrong.push(format!("{statement}: {got:?}, wanted {wanted:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{role}");
}

/// insufficient_privilege
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// wrong_object_type
const WRONG_OBJECT_TYPE: &str = "42809";
/// datetime_field_overflow
const DATETIME_OVERFLOW: &str = "22008";
/// object_not_in_prerequisite_state
const NOT_IN_PREREQUISITE_STATE: &str = "55000";
const ALLOWED: &str = "";

#[tokio::test]
async fn a_worker_does_a_workers_deeds_and_no_other() {
    let t = migrated_database().await;
    insert_file(&t).await;
    run_sql(&t.db.pool, INSERT_CAR).await.unwrap();
    let statements = [
        // statements that would run as the owner
        ("insert into raw.suspended values ('public.lots', 1, 'delete from public.lots')", INSUFFICIENT_PRIVILEGE),
        ("update raw.suspended set ddl = 'delete from public.lots'", INSUFFICIENT_PRIVILEGE),
        ("select * from raw.suspended", INSUFFICIENT_PRIVILEGE),
        ("delete from raw.suspended", INSUFFICIENT_PRIVILEGE),
        ("truncate raw.suspended", INSUFFICIENT_PRIVILEGE),
        (
            "create or replace function raw.resume(target regclass) returns void language sql as 'select'",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("alter function raw.resume(regclass) reset search_path", INSUFFICIENT_PRIVILEGE),
        ("select raw.suspend('raw.rows')", WRONG_OBJECT_TYPE),
        ("select raw.suspend('pg_catalog.pg_class')", WRONG_OBJECT_TYPE),
        ("select raw.suspend(null)", WRONG_OBJECT_TYPE),
        ("select raw.suspend('public.lots')", NOT_IN_PREREQUISITE_STATE),
        ("select raw.resume('public.lots')", ALLOWED),
        // a table of the same name, first in the path
        (
            "create temp table suspended (relation regclass, place int, ddl text); insert into suspended values ('public.lots', 1, 'delete from public.lots'); set local search_path = pg_temp, raw, public; select raw.resume('public.lots')",
            ALLOWED,
        ),
        ("create temp table pg_inherits (); select raw.ensure_partition('raw.rows', '2026-12-01')", ALLOWED),
        // partitions
        ("select raw.ensure_partition('audit.parse_errors', '2026-12-15')", ALLOWED),
        ("select audit.ensure_partitions('2026-12-15')", ALLOWED),
        ("select raw.ensure_partition('public.lots', '2026-12-15')", WRONG_OBJECT_TYPE),
        ("select raw.ensure_partition('staging.copart_raw', '2026-12-15')", WRONG_OBJECT_TYPE),
        ("select raw.ensure_partition('raw.rows_2026_11', '2026-12-15')", WRONG_OBJECT_TYPE),
        (
            "create temp table mine (window_start_utc timestamptz) partition by range (window_start_utc); select raw.ensure_partition('pg_temp.mine', '2026-12-15')",
            WRONG_OBJECT_TYPE,
        ),
        ("select raw.ensure_partition('raw.rows', 'infinity')", DATETIME_OVERFLOW),
        ("select raw.ensure_partition('raw.rows', '1999-12-31')", DATETIME_OVERFLOW),
        ("select audit.ensure_partitions('2500-01-01')", DATETIME_OVERFLOW),
        ("select raw.open_month('-infinity')", DATETIME_OVERFLOW),
        ("select staging.open_day('9999-01-01')", DATETIME_OVERFLOW),
        ("select raw.open_month('2026-12-15'), raw.index_month('2026-12-15'), raw.attach_month('2026-12-15')", ALLOWED),
        ("select raw.open_partition('raw.rows', '2026-12-01', '2027-01-01', 'mine')", INSUFFICIENT_PRIVILEGE),
        ("select raw.attach_partition('raw.rows', '2026-12-01', '2027-01-01', 'mine')", INSUFFICIENT_PRIVILEGE),
        ("drop table raw.rows_2026_11", INSUFFICIENT_PRIVILEGE),
        ("alter table raw.rows detach partition raw.rows_2026_11", INSUFFICIENT_PRIVILEGE),
        ("update raw.rows_2026_11 set row_no = 9", INSUFFICIENT_PRIVILEGE),
        ("insert into raw.rows_2026_11 select * from raw.rows_2026_11", INSUFFICIENT_PRIVILEGE),
        // written rows stay
        ("update raw.rows set payload_jsonb = '{}'", INSUFFICIENT_PRIVILEGE),
        ("delete from raw.rows", INSUFFICIENT_PRIVILEGE),
        ("delete from raw.manifests", INSUFFICIENT_PRIVILEGE),
        ("delete from raw.csv_files", INSUFFICIENT_PRIVILEGE),
        ("update raw.csv_files set path = 'copart/2026/12/01/0000.csv'", INSUFFICIENT_PRIVILEGE),
        ("update raw.csv_files set sha256 = repeat('0', 64)", INSUFFICIENT_PRIVILEGE),
        ("update raw.csv_files set source = 'other'", INSUFFICIENT_PRIVILEGE),
        ("update raw.csv_files set window_start_utc = window_start_utc", INSUFFICIENT_PRIVILEGE),
        ("update raw.csv_files set state = 'applied', complete = true", ALLOWED),
        ("delete from public.lots", INSUFFICIENT_PRIVILEGE),
        ("delete from public.vehicles", INSUFFICIENT_PRIVILEGE),
        ("truncate public.lots cascade", INSUFFICIENT_PRIVILEGE),
        ("delete from audit.lot_conflicts", INSUFFICIENT_PRIVILEGE),
        ("update audit.status_transitions set reason = ''", INSUFFICIENT_PRIVILEGE),
        ("update audit.operator_actions set who = 'another'", INSUFFICIENT_PRIVILEGE),
        ("delete from audit.operator_actions", INSUFFICIENT_PRIVILEGE),
        ("truncate audit.operator_actions", INSUFFICIENT_PRIVILEGE),
        ("alter table audit.operator_actions disable trigger all", INSUFFICIENT_PRIVILEGE),
        ("set session_replication_role = 'replica'", INSUFFICIENT_PRIVILEGE),
        ("update fleet.job_runs set worker = 'another'", INSUFFICIENT_PRIVILEGE),
        ("delete from fleet.job_runs", INSUFFICIENT_PRIVILEGE),
        ("update fleet.source_transitions set who = 'another'", INSUFFICIENT_PRIVILEGE),
        ("delete from fleet.source_transitions", INSUFFICIENT_PRIVILEGE),
        ("delete from fleet.jobs", INSUFFICIENT_PRIVILEGE),
        ("delete from fleet.windows", INSUFFICIENT_PRIVILEGE),
        ("delete from vinops.migrations", INSUFFICIENT_PRIVILEGE),
        ("update vinops.migrations set sha256 = ''", INSUFFICIENT_PRIVILEGE),
        // an operator's
        ("update public.config set completion_detector_enabled = false", INSUFFICIENT_PRIVILEGE),
        ("insert into public.config (single) values (true)", INSUFFICIENT_PRIVILEGE),
        ("update fleet.job_kind_settings set paused_at = null", INSUFFICIENT_PRIVILEGE),
        (
            "insert into taxonomies.aliases (domain, raw, code) values ('colors', 'x', 'color_white')",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("delete from audit.unknown_taxonomy_values", INSUFFICIENT_PRIVILEGE),
        ("select fleet.switch_source('copart', false, 'me', 'why')", INSUFFICIENT_PRIVILEGE),
        ("select fleet.reset_breaker('copart', 'me', 'why')", INSUFFICIENT_PRIVILEGE),
        ("insert into public.sale_events (vin) select vin from vehicles", INSUFFICIENT_PRIVILEGE),
        // the schema's, and other roles'
        ("create table public.mine ()", INSUFFICIENT_PRIVILEGE),
        ("create table raw.mine ()", INSUFFICIENT_PRIVILEGE),
        ("create function fleet.mine() returns void language sql as 'select'", INSUFFICIENT_PRIVILEGE),
        ("create schema mine", INSUFFICIENT_PRIVILEGE),
        ("alter table public.lots add column mine text", INSUFFICIENT_PRIVILEGE),
        (
            "create trigger mine before insert on public.lots for each row execute function fleet.stamp_db_user()",
            INSUFFICIENT_PRIVILEGE,
        ),
        ("create rule mine as on update to public.lots do instead nothing", INSUFFICIENT_PRIVILEGE),
        ("alter view fleet.metrics owner to current_user", INSUFFICIENT_PRIVILEGE),
        ("grant insert on raw.suspended to current_user", INSUFFICIENT_PRIVILEGE),
        ("set role vinops_admin", INSUFFICIENT_PRIVILEGE),
        ("set role vinops_ops", INSUFFICIENT_PRIVILEGE),
        ("set session authorization vinops_admin", INSUFFICIENT_PRIVILEGE),
        ("alter role vinops_test_etl_rw createrole", INSUFFICIENT_PRIVILEGE),
        ("copy (select 1) to program 'true'", INSUFFICIENT_PRIVILEGE),
        // sequences
        ("select setval('public.lots_id_seq', 9000000000000000000)", INSUFFICIENT_PRIVILEGE),
        ("select raw.reserve_lot_ids(file_id) from raw.csv_files", NOT_IN_PREREQUISITE_STATE),
        // a worker's
        ("insert into vehicles (vin) values ('JH4KA7561PC008269'); update lots set status = 'active'", ALLOWED),
        ("select upsert_vehicles_batch(file_id), upsert_lots_batch(file_id) from raw.csv_files", ALLOWED),
        ("select fleet.enqueue('fetch', '{}', 'k'), fleet.free_slots('fetch'), fleet.ready_depth()", ALLOWED),
        ("select fleet.prune_jobs(0, 100, '0', '0')", ALLOWED),
        ("insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')", ALLOWED),
        ("delete from raw.heads; delete from fleet.workers", ALLOWED),
    ];
    try_statements(&t, "etl_rw", &statements).await;
    assert_eq!(
        query_text(&t.db.pool, "select concat((select count(*) from lots), (select count(*) from raw.rows))").await,
        "12"
    );
}

#[tokio::test]
async fn a_reader_and_an_operator_do_theirs_and_no_other() {
    let t = migrated_database().await;
    insert_file(&t).await;
    run_sql(&t.db.pool, INSERT_CAR).await.unwrap();
    try_statements(
        &t,
        "app_ro",
        &[
            (
                "select count(*) from lots, taxonomies.labels, audit.v_ingest_count, raw.file_rows, fleet.windows",
                ALLOWED,
            ),
            ("select count(*) from fleet.jobs_view, fleet.metrics, fleet.sources_view, audit.lot_changes", ALLOWED),
            ("update lots set status = 'sold'", INSUFFICIENT_PRIVILEGE),
            ("insert into public.config (single) values (true)", INSUFFICIENT_PRIVILEGE),
            ("select * from raw.suspended", INSUFFICIENT_PRIVILEGE),
            ("select * from raw.csv_files", INSUFFICIENT_PRIVILEGE),
            ("select * from fleet.jobs", INSUFFICIENT_PRIVILEGE),
            ("select * from fleet.source_sessions", INSUFFICIENT_PRIVILEGE),
            (
                "insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')",
                INSUFFICIENT_PRIVILEGE,
            ),
            ("update fleet.windows set state = 'applied'", INSUFFICIENT_PRIVILEGE),
            ("select raw.resume('public.lots')", INSUFFICIENT_PRIVILEGE),
            ("select raw.open_month(now())", INSUFFICIENT_PRIVILEGE),
            ("select fleet.enqueue('fetch')", INSUFFICIENT_PRIVILEGE),
            ("select fleet.free_slots('fetch')", INSUFFICIENT_PRIVILEGE),
            ("select fleet.prune_jobs(0, 1, '0', '0')", INSUFFICIENT_PRIVILEGE),
            ("select upsert_lots_batch(file_id) from raw.csv_files", INSUFFICIENT_PRIVILEGE),
            ("select nextval('public.lots_id_seq')", INSUFFICIENT_PRIVILEGE),
            ("create table public.mine ()", INSUFFICIENT_PRIVILEGE),
            ("set role etl_rw", INSUFFICIENT_PRIVILEGE),
        ],
    )
    .await;
    try_statements(
        &t,
        "vinops_ops",
        &[
            ("update fleet.jobs set run_at = now(); update config set auto_fetch_enabled = false", ALLOWED),
            ("insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')", ALLOWED),
            ("insert into fleet.job_kind_settings (kind, paused_at, paused_by, paused_because) values ('fetch', now(), 'me', 'why')", ALLOWED),
            ("select fleet.switch_source('copart', false, 'me', 'why'), fleet.reset_breaker('copart', 'me', 'why')", ALLOWED),
            ("insert into taxonomies.aliases (domain, raw, code) values ('colors', 'x', 'color_white'); delete from audit.unknown_taxonomy_values", ALLOWED),
            ("select * from raw.csv_files", ALLOWED),
            ("update audit.operator_actions set reason = ''", INSUFFICIENT_PRIVILEGE),
            ("delete from audit.operator_actions", INSUFFICIENT_PRIVILEGE),
            ("update fleet.source_transitions set why = ''", INSUFFICIENT_PRIVILEGE),
            ("delete from fleet.job_runs", INSUFFICIENT_PRIVILEGE),
            ("update fleet.job_runs set error = ''", INSUFFICIENT_PRIVILEGE),
            ("delete from fleet.jobs", INSUFFICIENT_PRIVILEGE),
            ("select fleet.prune_jobs(0, 1, '0', '0')", INSUFFICIENT_PRIVILEGE),
            ("update lots set status = 'sold'", INSUFFICIENT_PRIVILEGE),
            ("delete from lots", INSUFFICIENT_PRIVILEGE),
            ("insert into raw.suspended values ('public.lots', 1, 'x')", INSUFFICIENT_PRIVILEGE),
            ("select * from raw.suspended", INSUFFICIENT_PRIVILEGE),
            ("select raw.suspend('public.lots')", INSUFFICIENT_PRIVILEGE),
            ("select raw.resume('public.lots')", INSUFFICIENT_PRIVILEGE),
            ("select raw.ensure_partition('raw.rows', now())", INSUFFICIENT_PRIVILEGE),
            ("delete from taxonomies.aliases", INSUFFICIENT_PRIVILEGE),
            ("update taxonomies.seeds set en = ''", INSUFFICIENT_PRIVILEGE),
            ("create table fleet.mine ()", INSUFFICIENT_PRIVILEGE),
            ("set role vinops_admin", INSUFFICIENT_PRIVILEGE),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_login_stands_beside_the_name_that_was_given() {
    let t = migrated_database().await;
    let ops = PgPool::connect(&create_login(&t, "vinops_ops").await).await.unwrap();
    run_sql(
        &ops,
        "select fleet.enqueue('fetch');
        insert into audit.operator_actions (who, action, subject, reason, db_user) values ('nana', 'a', 'b', 'c', 'postgres');
        insert into fleet.source_transitions (source, from_state, to_state, who, why, db_user)
          values ('copart', 'enabled', 'disabled', 'nana', 'why', 'postgres');
        insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, db_user)
          select id, 1, 0, kind, 'nana', now(), 'requeued', 'postgres' from fleet.jobs",
    )
    .await
    .unwrap();
    let written = "select string_agg(concat_ws(' ', name, db_user), ', ') from (
        select who as name, db_user from audit.operator_actions
        union all select who, db_user from fleet.source_transitions
        union all select worker, db_user from fleet.job_runs) as w";
    let each = "nana vinops_test_vinops_ops";
    assert_eq!(query_text(&t.db.pool, written).await, [each; 3].join(", "));
}

#[tokio::test]
async fn indexes_that_were_taken_off_are_put_back_before_the_commit() {
    let t = migrated_database().await;
    let worker = PgPool::connect(&create_login(&t, "etl_rw").await).await.unwrap();
    let indexes = "select count(*)::text from pg_indexes where tablename = 'lots'";
    let before = query_text(&t.db.pool, indexes).await;
    let error = run_sql(&worker, "select raw.suspend('public.lots')").await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some(NOT_IN_PREREQUISITE_STATE), "{error}");
    assert_eq!(query_text(&t.db.pool, indexes).await, before);
    run_sql(&worker, "select raw.suspend('public.lots'), raw.resume('public.lots')").await.unwrap();
    assert_eq!(query_text(&t.db.pool, indexes).await, before);
}

#[tokio::test]
async fn numbers_of_lots_are_reserved_for_staged_rows_only() {
    let t = migrated_database().await;
    insert_file(&t).await;
    let worker = PgPool::connect(&create_login(&t, "etl_rw").await).await.unwrap();
    let reserve = "select raw.reserve_lot_ids('00000000-0000-0000-0000-000000000001')::text";
    assert_eq!(query_text(&worker, reserve).await, "1");
    assert_eq!(query_text(&worker, reserve).await, "2", "one staged row, one number");
    let nothing = "select (raw.reserve_lot_ids('00000000-0000-0000-0000-000000000002') is null)::text";
    assert_eq!(query_text(&worker, nothing).await, "true");
    let planted = "insert into staging.copart_raw (id, window_start_utc, file_id, lot_external_id)
        select 9000000000000000000, window_start_utc, file_id, '2' from raw.csv_files";
    run_sql(&worker, planted).await.unwrap();
    assert_eq!(rejection_code(&worker, reserve).await.as_deref(), Some("54000"));
    assert_eq!(query_text(&t.db.pool, "select last_value::text from lots_id_seq").await, "2");
}

#[tokio::test]
async fn only_jobs_that_ended_long_ago_are_pruned_whatever_is_asked() {
    let t = migrated_database().await;
    let fill = "insert into fleet.jobs (kind, state, error, created_at, finished_at)
        select 'fetch', state, 'x', now() - age, case when state <> 'available' then now() - age end
        from (values ('completed', interval '23 hours'), ('discarded', '23 hours'), ('available', '90 days'), ('completed', '25 hours'))
          as j (state, age)";
    run_sql(&t.db.pool, fill).await.unwrap();
    let worker = PgPool::connect(&create_login(&t, "etl_rw").await).await.unwrap();
    let prune = "select concat_ws(' ', pruned, more) from fleet.prune_jobs(0, 2000000000, '-1 year', '0')";
    assert_eq!(query_text(&worker, prune).await, "1 f");
    let left = "select string_agg(state, ' ' order by id) from fleet.jobs";
    assert_eq!(query_text(&t.db.pool, left).await, "completed discarded available");
}
