//! Privileges with real logins: each forbidden statement is rejected, and each allowed one works.

use crate::{A_CAR, a_file, run, text};
use sqlx::{AssertSqlSafe, PgPool};
use vinops::testing::{TestDb, database};

/// Creates a login that is a member of this role only, and returns its URL. The login stays on a server that outlives
/// the test.
pub async fn login(t: &TestDb, role: &str) -> String {
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
    run(&t.db.pool, &make).await.unwrap();
    let mut url = url::Url::parse(&t.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("deed")).unwrap();
    url.into()
}

/// Runs the statement in a transaction that is rolled back. Returns the SQLSTATE of its error.
async fn refusal(pool: &PgPool, deed: &str) -> Option<String> {
    let mut tx = pool.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(deed.to_owned())).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    done.err().map(|error| match error.as_database_error().and_then(|it| it.code()) {
        Some(code) => code.into_owned(),
        None => panic!("{deed}: {error}"),
    })
}

async fn try_all(t: &TestDb, role: &str, deeds: &[(&str, &str)]) {
    let pool = PgPool::connect(&login(t, role).await).await.unwrap();
    let mut wrong = Vec::new();
    for (deed, wanted) in deeds {
        let got = refusal(&pool, deed).await.unwrap_or_default();
        if got != *wanted {
            wrong.push(format!("{deed}: {got:?}, wanted {wanted:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{role}");
}

/// insufficient_privilege
const NO: &str = "42501";
/// wrong_object_type
const STRANGE: &str = "42809";
/// datetime_field_overflow
const FAR: &str = "22008";
/// object_not_in_prerequisite_state
const NOT_NOW: &str = "55000";
const YES: &str = "";

#[tokio::test]
async fn a_worker_does_a_workers_deeds_and_no_other() {
    let t = database().await;
    a_file(&t).await;
    run(&t.db.pool, A_CAR).await.unwrap();
    let deeds = [
        // statements that would run as the owner
        ("insert into raw.suspended values ('public.lots', 1, 'delete from public.lots')", NO),
        ("update raw.suspended set ddl = 'delete from public.lots'", NO),
        ("select * from raw.suspended", NO),
        ("delete from raw.suspended", NO),
        ("truncate raw.suspended", NO),
        ("create or replace function raw.resume(target regclass) returns void language sql as 'select'", NO),
        ("alter function raw.resume(regclass) reset search_path", NO),
        ("select raw.suspend('raw.rows')", STRANGE),
        ("select raw.suspend('pg_catalog.pg_class')", STRANGE),
        ("select raw.suspend(null)", STRANGE),
        ("select raw.suspend('public.lots')", NOT_NOW),
        ("select raw.resume('public.lots')", YES),
        // a table of the same name, first in the path
        (
            "create temp table suspended (relation regclass, place int, ddl text); insert into suspended values ('public.lots', 1, 'delete from public.lots'); set local search_path = pg_temp, raw, public; select raw.resume('public.lots')",
            YES,
        ),
        ("create temp table pg_inherits (); select raw.ensure_partition('raw.rows', '2026-12-01')", YES),
        // partitions
        ("select raw.ensure_partition('audit.parse_errors', '2026-12-15')", YES),
        ("select audit.ensure_partitions('2026-12-15')", YES),
        ("select raw.ensure_partition('public.lots', '2026-12-15')", STRANGE),
        ("select raw.ensure_partition('staging.copart_raw', '2026-12-15')", STRANGE),
        ("select raw.ensure_partition('raw.rows_2026_11', '2026-12-15')", STRANGE),
        (
            "create temp table mine (window_start_utc timestamptz) partition by range (window_start_utc); select raw.ensure_partition('pg_temp.mine', '2026-12-15')",
            STRANGE,
        ),
        ("select raw.ensure_partition('raw.rows', 'infinity')", FAR),
        ("select raw.ensure_partition('raw.rows', '1999-12-31')", FAR),
        ("select audit.ensure_partitions('2500-01-01')", FAR),
        ("select raw.open_month('-infinity')", FAR),
        ("select staging.open_day('9999-01-01')", FAR),
        (
            "select raw.open_month('2026-12-15'), raw.index_month('2026-12-15'), raw.attach_month('2026-12-15')",
            YES,
        ),
        ("select raw.open_partition('raw.rows', '2026-12-01', '2027-01-01', 'mine')", NO),
        ("select raw.attach_partition('raw.rows', '2026-12-01', '2027-01-01', 'mine')", NO),
        ("drop table raw.rows_2026_11", NO),
        ("alter table raw.rows detach partition raw.rows_2026_11", NO),
        ("update raw.rows_2026_11 set row_no = 9", NO),
        ("insert into raw.rows_2026_11 select * from raw.rows_2026_11", NO),
        // written rows stay
        ("update raw.rows set payload_jsonb = '{}'", NO),
        ("delete from raw.rows", NO),
        ("delete from raw.manifests", NO),
        ("delete from raw.csv_files", NO),
        ("update raw.csv_files set path = 'copart/2026/12/01/0000.csv'", NO),
        ("update raw.csv_files set sha256 = repeat('0', 64)", NO),
        ("update raw.csv_files set source = 'other'", NO),
        ("update raw.csv_files set window_start_utc = window_start_utc", NO),
        ("update raw.csv_files set state = 'applied', complete = true", YES),
        ("delete from public.lots", NO),
        ("delete from public.vehicles", NO),
        ("truncate public.lots cascade", NO),
        ("delete from audit.lot_conflicts", NO),
        ("update audit.status_transitions set reason = ''", NO),
        ("update audit.operator_actions set who = 'another'", NO),
        ("delete from audit.operator_actions", NO),
        ("truncate audit.operator_actions", NO),
        ("alter table audit.operator_actions disable trigger all", NO),
        ("set session_replication_role = 'replica'", NO),
        ("update fleet.job_runs set worker = 'another'", NO),
        ("delete from fleet.job_runs", NO),
        ("update fleet.source_transitions set who = 'another'", NO),
        ("delete from fleet.source_transitions", NO),
        ("delete from fleet.jobs", NO),
        ("delete from fleet.windows", NO),
        ("delete from vinops.migrations", NO),
        ("update vinops.migrations set sha256 = ''", NO),
        // an operator's
        ("update public.config set completion_detector_enabled = false", NO),
        ("insert into public.config (single) values (true)", NO),
        ("update fleet.job_kind_settings set paused_at = null", NO),
        ("insert into taxonomies.aliases (domain, raw, code) values ('colors', 'x', 'color_white')", NO),
        ("delete from audit.unknown_taxonomy_values", NO),
        ("select fleet.switch_source('copart', false, 'me', 'why')", NO),
        ("select fleet.reset_breaker('copart', 'me', 'why')", NO),
        ("insert into public.sale_events (vin) select vin from vehicles", NO),
        // the schema's, and other roles'
        ("create table public.mine ()", NO),
        ("create table raw.mine ()", NO),
        ("create function fleet.mine() returns void language sql as 'select'", NO),
        ("create schema mine", NO),
        ("alter table public.lots add column mine text", NO),
        (
            "create trigger mine before insert on public.lots for each row execute function fleet.stamp_db_user()",
            NO,
        ),
        ("create rule mine as on update to public.lots do instead nothing", NO),
        ("alter view fleet.metrics owner to current_user", NO),
        ("grant insert on raw.suspended to current_user", NO),
        ("set role vinops_admin", NO),
        ("set role vinops_ops", NO),
        ("set session authorization vinops_admin", NO),
        ("alter role vinops_test_etl_rw createrole", NO),
        ("copy (select 1) to program 'true'", NO),
        // sequences
        ("select setval('public.lots_id_seq', 9000000000000000000)", NO),
        ("select raw.reserve_lot_ids(file_id) from raw.csv_files", NOT_NOW),
        // a worker's
        ("insert into vehicles (vin) values ('JH4KA7561PC008269'); update lots set status = 'active'", YES),
        ("select upsert_vehicles_batch(file_id), upsert_lots_batch(file_id) from raw.csv_files", YES),
        ("select fleet.enqueue('fetch', '{}', 'k'), fleet.free_slots('fetch'), fleet.ready_depth()", YES),
        ("select fleet.prune_jobs(0, 100, '0', '0')", YES),
        (
            "insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')",
            YES,
        ),
        ("delete from raw.heads; delete from fleet.workers", YES),
    ];
    try_all(&t, "etl_rw", &deeds).await;
    assert_eq!(
        text(&t.db.pool, "select concat((select count(*) from lots), (select count(*) from raw.rows))").await,
        "12"
    );
}

#[tokio::test]
async fn a_reader_and_an_operator_do_theirs_and_no_other() {
    let t = database().await;
    a_file(&t).await;
    run(&t.db.pool, A_CAR).await.unwrap();
    try_all(
        &t,
        "app_ro",
        &[
            ("select count(*) from lots, taxonomies.labels, audit.v_ingest_count, raw.file_rows, fleet.windows", YES),
            ("select count(*) from fleet.jobs_view, fleet.metrics, fleet.sources_view, audit.lot_changes", YES),
            ("update lots set status = 'sold'", NO),
            ("insert into public.config (single) values (true)", NO),
            ("select * from raw.suspended", NO),
            ("select * from raw.csv_files", NO),
            ("select * from fleet.jobs", NO),
            ("select * from fleet.source_sessions", NO),
            ("insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')", NO),
            ("update fleet.windows set state = 'applied'", NO),
            ("select raw.resume('public.lots')", NO),
            ("select raw.open_month(now())", NO),
            ("select fleet.enqueue('fetch')", NO),
            ("select fleet.free_slots('fetch')", NO),
            ("select fleet.prune_jobs(0, 1, '0', '0')", NO),
            ("select upsert_lots_batch(file_id) from raw.csv_files", NO),
            ("select nextval('public.lots_id_seq')", NO),
            ("create table public.mine ()", NO),
            ("set role etl_rw", NO),
        ],
    )
    .await;
    try_all(
        &t,
        "vinops_ops",
        &[
            ("update fleet.jobs set run_at = now(); update config set auto_fetch_enabled = false", YES),
            ("insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')", YES),
            ("insert into fleet.job_kind_settings (kind, paused_at, paused_by, paused_because) values ('fetch', now(), 'me', 'why')", YES),
            ("select fleet.switch_source('copart', false, 'me', 'why'), fleet.reset_breaker('copart', 'me', 'why')", YES),
            ("insert into taxonomies.aliases (domain, raw, code) values ('colors', 'x', 'color_white'); delete from audit.unknown_taxonomy_values", YES),
            ("select * from raw.csv_files", YES),
            ("update audit.operator_actions set reason = ''", NO),
            ("delete from audit.operator_actions", NO),
            ("update fleet.source_transitions set why = ''", NO),
            ("delete from fleet.job_runs", NO),
            ("update fleet.job_runs set error = ''", NO),
            ("delete from fleet.jobs", NO),
            ("select fleet.prune_jobs(0, 1, '0', '0')", NO),
            ("update lots set status = 'sold'", NO),
            ("delete from lots", NO),
            ("insert into raw.suspended values ('public.lots', 1, 'x')", NO),
            ("select * from raw.suspended", NO),
            ("select raw.suspend('public.lots')", NO),
            ("select raw.resume('public.lots')", NO),
            ("select raw.ensure_partition('raw.rows', now())", NO),
            ("delete from taxonomies.aliases", NO),
            ("update taxonomies.seeds set en = ''", NO),
            ("create table fleet.mine ()", NO),
            ("set role vinops_admin", NO),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_login_stands_beside_the_name_that_was_given() {
    let t = database().await;
    let ops = PgPool::connect(&login(&t, "vinops_ops").await).await.unwrap();
    run(
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
    assert_eq!(text(&t.db.pool, written).await, [each; 3].join(", "));
}

#[tokio::test]
async fn indexes_that_were_taken_off_are_put_back_before_the_commit() {
    let t = database().await;
    let worker = PgPool::connect(&login(&t, "etl_rw").await).await.unwrap();
    let indexes = "select count(*)::text from pg_indexes where tablename = 'lots'";
    let before = text(&t.db.pool, indexes).await;
    let error = run(&worker, "select raw.suspend('public.lots')").await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some(NOT_NOW), "{error}");
    assert_eq!(text(&t.db.pool, indexes).await, before);
    run(&worker, "select raw.suspend('public.lots'), raw.resume('public.lots')").await.unwrap();
    assert_eq!(text(&t.db.pool, indexes).await, before);
}

#[tokio::test]
async fn numbers_of_lots_are_reserved_for_staged_rows_only() {
    let t = database().await;
    a_file(&t).await;
    let worker = PgPool::connect(&login(&t, "etl_rw").await).await.unwrap();
    let reserve = "select raw.reserve_lot_ids('00000000-0000-0000-0000-000000000001')::text";
    assert_eq!(text(&worker, reserve).await, "1");
    assert_eq!(text(&worker, reserve).await, "2", "one staged row, one number");
    let nothing = "select (raw.reserve_lot_ids('00000000-0000-0000-0000-000000000002') is null)::text";
    assert_eq!(text(&worker, nothing).await, "true");
    let planted = "insert into staging.copart_raw (id, window_start_utc, file_id, lot_external_id)
        select 9000000000000000000, window_start_utc, file_id, '2' from raw.csv_files";
    run(&worker, planted).await.unwrap();
    assert_eq!(refusal(&worker, reserve).await.as_deref(), Some("54000"));
    assert_eq!(text(&t.db.pool, "select last_value::text from lots_id_seq").await, "2");
}

#[tokio::test]
async fn only_jobs_that_ended_long_ago_are_pruned_whatever_is_asked() {
    let t = database().await;
    let fill = "insert into fleet.jobs (kind, state, error, created_at, finished_at)
        select 'fetch', state, 'x', now() - age, case when state <> 'available' then now() - age end
        from (values ('completed', interval '23 hours'), ('discarded', '23 hours'), ('available', '90 days'), ('completed', '25 hours'))
          as j (state, age)";
    run(&t.db.pool, fill).await.unwrap();
    let worker = PgPool::connect(&login(&t, "etl_rw").await).await.unwrap();
    let prune = "select concat_ws(' ', pruned, more) from fleet.prune_jobs(0, 2000000000, '-1 year', '0')";
    assert_eq!(text(&worker, prune).await, "1 f");
    let left = "select string_agg(state, ' ' order by id) from fleet.jobs";
    assert_eq!(text(&t.db.pool, left).await, "completed discarded available");
}
