//! Migrating the slices up: one by one, all in one call, twice, concurrently, out of order, with rows, and with
//! existing objects.

use super::{ListingFixture, SAMPLE_LISTINGS, VISIBLE_LISTINGS};
use vinops::db::migrations::LISTING_SET;
use vinops::db::{listing, migrate};
use vinops::testing::migrated_database;

#[tokio::test]
async fn tables_are_counted_as_the_runbook_counts_them() {
    let fixture = ListingFixture::new().await;
    for line in include_str!("runbook/counts.txt").lines() {
        let (slice, tables) = line.split_once(' ').unwrap();
        let said = fixture.migrate(&["up", "--to", slice]).await;
        assert!(said.starts_with(&format!("applied {slice}_")), "{said}");
        assert_eq!(fixture.count_tables().await.to_string(), tables, "after {slice}");
    }
    fixture.migrate(&["up"]).await;
    assert_eq!(fixture.count_tables().await, 25, "005 has one table of its own");
}

#[tokio::test]
async fn one_by_one_or_all_at_once_gives_the_same() {
    let (one, other) = tokio::join!(ListingFixture::new(), ListingFixture::migrated());
    for slice in ["000", "001", "002", "003", "004", "005"] {
        one.migrate(&["up", "--to", slice]).await;
    }
    let shape = one.describe_schema().await;
    assert!(shape.lines().count() > 400, "{shape}");
    assert_eq!(shape, other.describe_schema().await);
}

#[tokio::test]
async fn a_second_up_has_nothing_to_do_and_the_files_can_be_run_again() {
    let fixture = ListingFixture::migrated().await;
    let before = fixture.describe_schema().await;
    assert_eq!(fixture.migrate(&["up"]).await, "nothing to apply\n");
    for migration in LISTING_SET.migrations {
        fixture.run_statements(migration.up).await;
    }
    assert_eq!(fixture.describe_schema().await, before);
    assert_eq!(fixture.query_number("select count(*) from marketplaces").await, 1);
}

#[tokio::test]
async fn two_at_once_do_what_one_would() {
    let fixture = ListingFixture::new().await;
    let (one, other) = tokio::join!(fixture.migrate(&["up"]), fixture.migrate(&["up"]));
    let mut lines: Vec<_> = [one, other].concat().lines().map(|line| line[..11].to_owned()).collect();
    lines.retain(|line| line.starts_with("applied"));
    lines.sort();
    let all = ["000", "001", "002", "003", "004", "005"].map(|id| format!("applied {id}"));
    assert_eq!(lines, all);
    assert_eq!(fixture.verify().await["ok"], true);
}

#[tokio::test]
async fn a_slice_without_its_ground_names_what_is_missing_and_leaves_nothing() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements("drop table settings").await;
    let said = fixture.assert_migrate_fails(&["up"], 1).await;
    let wanted = "error: could not apply migration 001_slice_a_schema: schema listing lacks table settings, column settings.key, column settings.value\n\
        detail: nothing was changed\n";
    assert_eq!(said, wanted);
    assert_eq!(fixture.count_tables().await, 6);
    assert!(fixture.migrate(&["status"]).await.contains("pending     001_slice_a_schema"));
}

#[tokio::test]
async fn each_slice_out_of_order_is_refused_and_leaves_nothing() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    let place = listing::ListingSchema::from_name("listing").unwrap();
    for (id, lacks) in [
        ("002", "table boms, table marketplaces"),
        ("003", "table marketplaces, table boms, table jobs"),
        ("004", "table jobs, table feature_store, type feature_entity_type"),
    ] {
        let migration = LISTING_SET.migrations.iter().find(|migration| migration.id == id).unwrap();
        let mut tx = fixture.pool().begin().await.unwrap();
        let refused = listing::apply_slice(&mut tx, &place, migration).await.unwrap_err().to_string();
        assert_eq!(refused, format!("schema listing lacks {lacks}\ndetail: nothing was changed"), "{id}");
        tx.commit().await.unwrap();
        assert_eq!(fixture.count_tables().await, 7, "{id}");
    }
}

#[tokio::test]
async fn a_slice_that_fails_halfway_leaves_nothing() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "002"]).await;
    // 003 fails at its references, after its tables were created
    fixture.run_statements("insert into jobs (job_type, asin_entity_id) values ('SYNC_KEEPA_ASIN', 99999)").await;
    let said = fixture.assert_migrate_fails(&["up"], 1).await;
    assert!(said.contains("could not apply migration 003_slice_c_schema\n"), "{said}");
    assert!(said.contains("rows refer to ASINs that do not exist: jobs 1"), "{said}");
    assert_eq!(fixture.count_tables().await, 17);
    fixture.run_statements("update jobs set asin_entity_id = null").await;
    fixture.migrate(&["up"]).await;
    assert_eq!(fixture.verify().await["ok"], true);
}

#[tokio::test]
async fn rows_that_the_last_slice_would_refuse_are_named_and_kept() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "004"]).await;
    for (statement, says, repair) in [
        (
            "insert into boms (version) values (1)",
            "boms without exactly the owner of their scope: 1",
            "delete from boms",
        ),
        (
            "insert into jobs (job_type) values ('SYNC_AMAZON_OFFER'), ('SYNC_AMAZON_OFFER')",
            "duplicate pending jobs: 1, 2",
            "delete from jobs",
        ),
        (
            "insert into jobs (job_type, attempts) values ('SYNC_AMAZON_OFFER', 6)",
            "jobs with more attempts than max_attempts: 3",
            "delete from jobs",
        ),
        (
            r#"insert into feature_store (entity_type, entity_id, features_json) values ('LISTING', 1, '{"bom_cost_ex_vat": -1}')"#,
            "rows of feature_store with a negative or non-numeric bom_cost_ex_vat: 1",
            "delete from feature_store",
        ),
    ] {
        fixture.run_statements(statement).await;
        let said = fixture.assert_migrate_fails(&["up"], 1).await;
        assert!(said.contains("could not apply migration 005_worker\n") && said.contains(says), "{said}");
        assert_eq!(fixture.count_tables().await, 24);
        fixture.run_statements(repair).await;
    }
    fixture.migrate(&["up"]).await;
}

#[tokio::test]
async fn rows_that_are_there_get_their_marketplace_and_keep_their_values() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements(SAMPLE_LISTINGS).await;
    let before = fixture.query_text(VISIBLE_LISTINGS).await;
    fixture.migrate(&["up"]).await;
    assert_eq!(fixture.query_text(VISIBLE_LISTINGS).await, before);
    let market = "select string_agg(country_code, ' ') from listings join marketplaces m on m.id = marketplace_id";
    assert_eq!(fixture.query_text(market).await, "GB GB");
    assert_eq!(fixture.verify().await["ok"], true);
}

#[tokio::test]
async fn a_table_of_listings_that_is_none_is_refused() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements("alter table listings rename price to cost").await;
    let said = fixture.assert_migrate_fails(&["up"], 1).await;
    assert!(said.contains("table listings has neither column price nor column price_inc_vat"), "{said}");
    assert_eq!(fixture.count_tables().await, 7);
}

#[tokio::test]
async fn it_lives_beside_the_auction_and_neither_minds() {
    let shared = migrated_database().await;
    let mut session = shared.db.connect_session().await.unwrap();
    let place = listing::ListingSchema::from_name(listing::DEFAULT_SCHEMA).unwrap();
    assert_eq!(listing::apply_pending(&mut session, &place, None, |_| {}).await.unwrap(), 6);
    listing::backup::record_backup(&mut session, "000", 0, None, None).await.unwrap();
    let report = listing::verify::verify_listing(&mut session, &place).await.unwrap();
    let wrong: Vec<_> = report.checks.iter().filter(|check| !check.passed).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    vinops::db::expect_schema(&shared.db).await.unwrap();
    let objects = vinops::db::verify::verify_schema(&shared.db.pool).await.unwrap();
    assert!(objects.iter().all(|check| check.passed));
    let rights = "select has_table_privilege('etl_rw', 'listing.jobs', 'update')
        and has_table_privilege('app_ro', 'listing.listings', 'select')
        and not has_table_privilege('app_ro', 'listing.listings', 'update')";
    assert!(sqlx::query_scalar::<_, bool>(rights).fetch_one(&shared.db.pool).await.unwrap());
    listing::rollback_to(&mut session, &place, Some("000"), false, |_| {}).await.unwrap();
    migrate::apply_pending(&mut session, &vinops::db::migrations::AUCTION_SET, |_| {}).await.unwrap();
    vinops::db::expect_schema(&shared.db).await.unwrap();
}

#[tokio::test]
async fn the_schema_is_the_operators_choice_and_kept_in_mind() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["--schema", "public", "up"]).await;
    // the runbook's own query
    let count =
        "select count(*) from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'";
    assert_eq!(fixture.query_number(count).await, 25);
    let report = fixture.verify().await;
    assert_eq!((&report["ok"], &report["schema"]), (&true.into(), &"public".into()), "{report}");
    let said = fixture.assert_migrate_fails(&["--schema", "listing", "status"], 2).await;
    assert!(said.contains("is in schema public, not in schema listing"), "{said}");
    for name in ["fleet", "pg_temp", "Listing", "a b", ""] {
        fixture.assert_migrate_fails(&["--schema", name, "status"], 2).await;
    }
}

#[tokio::test]
async fn what_belongs_to_the_listing_helper_is_refused_for_the_auction() {
    let fixture = ListingFixture::new().await;
    for arguments in [
        &["up", "--to", "0003"][..],
        &["up", "--no-backup"],
        &["--schema", "x", "up"],
        &["down", "--to", "0001", "--verbatim-runbook"],
    ] {
        let said = fixture.run_vinops(&[&["migrate"], arguments].concat()).await;
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("require --set listing"), "{}", said.err);
    }
    let said = fixture.run_vinops(&["migrate", "down"]).await;
    assert!(said.code == Some(2) && said.err.contains("--to is missing"), "{}", said.err);
}
