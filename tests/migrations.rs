//! The migrations through the command line: up, down, concurrently, adopted and interrupted, and the documentation that
//! is generated from the files. `tests/schema.rs` tests what the SQL itself creates.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use std::collections::BTreeSet;
use vinops::db::migrations::{ALL_SETS, AUCTION_SET, LISTING_SET, Migration, MigrationSet};
use vinops::db::{self, SchemaError, expect_schema, migrate, migration_index};
use vinops::testing::{TestDb, empty_database, migrated_database};

fn list_files(folder: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".sql")).collect()
}

async fn migrate_up(test: &TestDb) -> Vec<String> {
    let mut session = test.db.connect_session().await.unwrap();
    let done = migrate::apply_pending(&mut session, &AUCTION_SET, |_| {}).await.unwrap();
    done.into_iter().map(|line| line.id).collect()
}

async fn migrate_down(test: &TestDb, to: &str, destructive: bool) -> anyhow::Result<()> {
    let mut session = test.db.connect_session().await.unwrap();
    migrate::rollback_to(&mut session, &AUCTION_SET, to, destructive, |_| {}).await
}

fn active_ids() -> Vec<String> {
    AUCTION_SET.active().map(|migration| migration.id.to_owned()).collect()
}

#[test]
fn the_binary_carries_every_file_of_the_folder() {
    let carried = AUCTION_SET.migrations.iter().map(|migration| format!("{}.sql", migration.stem())).collect();
    assert_eq!(list_files("migrations"), carried);
    let back = AUCTION_SET.active().map(|migration| format!("{}_rollback.sql", migration.id)).collect();
    assert_eq!(list_files("migrations/rollback"), back);
    assert!(AUCTION_SET.migrations.is_sorted_by_key(|migration| migration.id));
}

#[test]
fn the_binary_carries_every_file_of_the_listing_helper_too() {
    let carried = LISTING_SET.migrations.iter().map(|migration| format!("{}.sql", migration.stem())).collect();
    assert_eq!(list_files("migrations/listing"), carried);
    let mut back: BTreeSet<_> =
        LISTING_SET.active().map(|migration| format!("{}_rollback.sql", migration.id)).collect();
    back.extend(db::listing::VERBATIM_ROLLBACKS.iter().map(|(id, _)| format!("{id}_literal.sql")));
    assert_eq!(list_files("migrations/listing/rollback"), back);
    assert!(LISTING_SET.migrations.is_sorted_by_key(|migration| migration.id));
}

#[test]
fn every_head_is_complete_and_depends_on_an_earlier_one() {
    for (set, migration) in ALL_SETS.iter().flat_map(|set| set.migrations.iter().map(move |it| (set, it))) {
        let head = migration.parse_head().unwrap();
        if let Some(needed) = head.depends {
            let earlier = set.active().any(|other| other.id == needed && other.id < migration.id);
            assert!(earlier, "{} depends on {needed}", migration.stem());
        }
    }
}

#[test]
fn the_registry_and_the_index_say_what_the_files_say() {
    for set in ALL_SETS {
        for (name, text) in migration_index::index_files(set).unwrap() {
            let written = std::fs::read_to_string(format!("{}/{name}", migration_index::set_folder(set)));
            let how = format!("cargo run -- migrate --set {} registry --write", set.name);
            assert!(written.unwrap_or_default() == text, "{name} is stale: run `{how}`");
        }
    }
}

#[tokio::test]
async fn up_applies_everything_once_and_the_superseded_never() {
    let test = empty_database().await;
    assert_eq!(migrate_up(&test).await, active_ids());
    assert_eq!(migrate_up(&test).await, Vec::<String>::new());
    assert!(!active_ids().contains(&"0005".to_owned()));
    expect_schema(&test.db).await.unwrap();
}

#[tokio::test]
async fn two_at_once_do_what_one_would() {
    let test = empty_database().await;
    let (one, other) = tokio::join!(migrate_up(&test), migrate_up(&test));
    let mut both = [one, other].concat();
    both.sort();
    assert_eq!(both, active_ids());
}

#[tokio::test]
async fn down_refuses_to_lose_rows_and_does_nothing_then() {
    let test = migrated_database().await;
    let refused = migrate_down(&test, "0006", false).await.unwrap_err().to_string();
    assert!(refused.contains("--destructive"), "{refused}");
    expect_schema(&test.db).await.unwrap();
}

#[tokio::test]
async fn the_way_down_and_up_again_ends_where_it_began() {
    let test = migrated_database().await;
    migrate_down(&test, "0000", true).await.unwrap();
    assert!(matches!(expect_schema(&test.db).await, Err(SchemaError::Missing)));
    assert_eq!(migrate_up(&test).await, active_ids());
    let wrong: Vec<_> = db::verify::verify_schema(&test.db.pool).await.unwrap();
    let wrong: Vec<_> = wrong.iter().filter(|check| !check.passed).map(|check| &check.object).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn an_older_database_is_told_apart_from_a_newer_one() {
    let test = migrated_database().await;
    let last = active_ids().pop().unwrap();
    migrate_down(&test, "0016", true).await.unwrap();
    match expect_schema(&test.db).await {
        Err(SchemaError::Behind(lacking)) => assert_eq!(lacking.last(), Some(&last)),
        other => panic!("{other:?}"),
    }
    migrate_up(&test).await;
    run_interfering_statement(
        &test,
        "insert into vinops.migrations values ('auction', '9999', 'tomorrow', '', now(), 0)",
    )
    .await;
    assert!(matches!(expect_schema(&test.db).await, Err(SchemaError::Ahead(_))));
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_was_applied_is_refused() {
    let test = migrated_database().await;
    run_interfering_statement(&test, "update vinops.migrations set sha256 = 'other' where id = '0003'").await;
    assert!(matches!(expect_schema(&test.db).await, Err(SchemaError::Changed(_))));
    let mut session = test.db.connect_session().await.unwrap();
    let refused = migrate::apply_pending(&mut session, &AUCTION_SET, |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("0003_indexes"), "{refused}");
}

#[tokio::test]
async fn a_failing_migration_leaves_the_schema_of_the_one_before() {
    const BROKEN: MigrationSet = MigrationSet {
        name: "broken",
        migrations: &[
            Migration {
                id: "0001",
                name: "good",
                up: "-- 0001_good\n-- purpose: a table\n\ncreate table good (id int);",
                down: Some("drop table good"),
            },
            Migration {
                id: "0002",
                name: "bad",
                up: "-- 0002_bad\n-- purpose: half a change\n-- depends: 0001\n\ncreate table half (id int); select 1/0;",
                down: Some("drop table half"),
            },
        ],
    };
    let test = empty_database().await;
    let mut session = test.db.connect_session().await.unwrap();
    let failed = migrate::apply_pending(&mut session, &BROKEN, |_| {}).await.unwrap_err();
    assert!(format!("{failed:#}").starts_with("could not apply migration 0002_bad: "), "{failed:#}");
    let standings = migrate::migration_status(&mut session, &BROKEN).await.unwrap();
    let states: Vec<_> = standings.iter().map(|line| line.state).collect();
    assert_eq!(states, [migrate::MigrationState::Applied, migrate::MigrationState::Pending]);
    let half: bool =
        sqlx::query_scalar("select to_regclass('half') is not null").fetch_one(&mut session).await.unwrap();
    assert!(!half);
}

#[tokio::test]
async fn a_database_made_by_hand_is_adopted_and_goes_on_from_there() {
    let test = empty_database().await;
    let mut session = test.db.connect_session().await.unwrap();
    let refused = migrate::adopt_baseline(&mut session, &AUCTION_SET, "0007").await.unwrap_err().to_string();
    assert!(refused.contains("migrate up"), "{refused}");
    for migration in AUCTION_SET.active().filter(|migration| migration.id <= "0007") {
        run_interfering_statement(&test, migration.up).await;
    }
    let adopted = migrate::adopt_baseline(&mut session, &AUCTION_SET, "0007").await.unwrap();
    assert!(adopted.iter().all(|line| line.baseline));
    assert_eq!(adopted.last().unwrap().id, "0007");
    assert_eq!(migrate_up(&test).await.first().map(String::as_str), Some("0008"));
    expect_schema(&test.db).await.unwrap();
}

async fn run_interfering_statement(test: &TestDb, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&test.db.pool).await.unwrap();
}
