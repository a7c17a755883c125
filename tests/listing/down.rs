//! Rollback of the slices: in order only, only what was added, and nothing of the operator's.

use super::{ListingFixture, SAMPLE_LISTINGS, VISIBLE_LISTINGS};
use vinops::db::migrations::LISTING_SET;

#[tokio::test]
async fn down_and_up_again_ends_where_it_began() {
    let fixture = ListingFixture::migrated().await;
    let before = fixture.describe_schema().await;
    for (step, tables) in [("004", 24), ("003", 22), ("002", 17), ("001", 13), ("000", 7)] {
        let said = fixture.migrate(&["down", "--to", step]).await;
        assert!(said.starts_with("rolled back "), "{said}");
        assert_eq!(fixture.count_tables().await, tables, "after {step}");
    }
    assert_eq!(fixture.query_number("select count(*) from settings").await, 0);
    assert_eq!(fixture.query_number("select count(*) from pg_type where typtype = 'e'").await, 0);
    fixture.migrate(&["up"]).await;
    assert_eq!(fixture.describe_schema().await, before);
    assert_eq!(fixture.verify().await["ok"], true);
}

#[tokio::test]
async fn down_without_a_goal_is_one_step_and_the_base_stays() {
    let fixture = ListingFixture::migrated().await;
    assert_eq!(fixture.migrate(&["down"]).await, "rolled back 005_worker\n");
    assert_eq!(fixture.migrate(&["down", "--to", "005"]).await, "nothing to roll back\n");
    fixture.migrate(&["down", "--to", "000"]).await;
    let said = fixture.assert_migrate_fails(&["down"], 1).await;
    assert!(said.contains("migration 000 cannot be rolled back"), "{said}");
    let said = fixture.assert_migrate_fails(&["down", "--to", "0000"], 1).await;
    assert!(said.contains("unknown migration \"0000\""), "{said}");
    assert_eq!(fixture.count_tables().await, 7);
}

#[tokio::test]
async fn listings_prices_and_edited_settings_outlive_the_way_down_and_up() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements(SAMPLE_LISTINGS).await;
    fixture.run_statements("insert into settings (key, value) values ('mine', '\"kept\"')").await;
    let before = fixture.query_text(VISIBLE_LISTINGS).await;
    let base = fixture.describe_schema().await;
    fixture.migrate(&["up", "--no-backup"]).await;
    fixture.run_statements("update settings set value = '0.25' where key in ('guardrails.min_margin', 'guardrails.allow_price_below_break_even')").await;
    fixture.migrate(&["down", "--to", "000", "--no-backup", "--destructive"]).await;
    assert_eq!(fixture.query_text(VISIBLE_LISTINGS).await, before, "values and widths are as they were");
    let kept = "select string_agg(key || ' ' || value, ', ' order by key) from settings";
    let edited = "guardrails.allow_price_below_break_even 0.25, guardrails.min_margin 0.25, mine \"kept\"";
    assert_eq!(fixture.query_text(kept).await, edited);

    fixture.migrate(&["up", "--no-backup"]).await;
    assert_eq!(fixture.query_text(VISIBLE_LISTINGS).await, before);
    assert!(fixture.query_text(kept).await.contains("guardrails.min_margin 0.25"), "an edited value stands");
    assert_eq!(fixture.query_number("select count(*) from settings").await, 7);

    // with the old names the base is as before
    fixture.run_statements("delete from settings where key <> 'mine'").await;
    let said = fixture.migrate(&["down", "--to", "000", "--restore-names", "--no-backup", "--destructive"]).await;
    assert!(said.contains("renamed column listings.price_inc_vat to price"), "{said}");
    assert_eq!(fixture.describe_schema().await, base);
    assert_eq!(fixture.query_text(VISIBLE_LISTINGS).await, before);
}

#[tokio::test]
async fn going_back_one_slice_leaves_the_settings_of_the_one_before() {
    let fixture = ListingFixture::migrated().await;
    fixture.migrate(&["down", "--to", "001"]).await;
    let left = "select string_agg(key, ' ' order by key) from settings";
    assert_eq!(
        fixture.query_text(left).await,
        "default_vat_rate guardrails.max_price_change_pct_per_day guardrails.min_days_of_cover_before_price_change \
         guardrails.min_margin guardrails.min_stock_threshold"
    );
}

#[tokio::test]
async fn the_runbooks_letter_destroys_and_so_needs_two_words() {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements(SAMPLE_LISTINGS).await;
    fixture.migrate(&["up", "--no-backup"]).await;
    let said = fixture.assert_migrate_fails(&["down", "--to", "001", "--verbatim-runbook"], 2).await;
    assert!(said.contains("requires --destructive"), "{said}");
    assert_eq!(fixture.count_tables().await, 25);

    fixture.migrate(&["down", "--to", "001", "--verbatim-runbook", "--destructive", "--no-backup"]).await;
    let gone = "select string_agg(attname::text, ' ' order by attname) from pg_attribute
        where attrelid = 'listings'::regclass and attname in ('asin', 'status', 'category', 'fulfillment_channel')";
    assert_eq!(fixture.query_text(gone).await, "", "columns that were there before 002 and 003 went too");
    assert_eq!(fixture.query_number("select count(*) from settings where key like 'guardrails.%'").await, 0);
    assert_eq!(fixture.query_number("select count(*) from listings").await, 2);
    fixture.migrate(&["up", "--no-backup"]).await;
    assert_eq!(fixture.count_tables().await, 25);
}

#[tokio::test]
async fn a_database_that_had_it_all_by_hand_is_adopted_and_loses_nothing_on_the_way_back() {
    let fixture = ListingFixture::new().await;
    fixture.run_statements("create schema listing").await;
    // manually: the files as psql would run them, without 005 and the reference of jobs
    for migration in LISTING_SET.migrations.iter().take(5) {
        fixture.run_statements(migration.up).await;
    }
    fixture
        .run_statements(
            "alter table jobs drop constraint jobs_asin_entity_fk; insert into listings (seller_sku) values ('S')",
        )
        .await;
    fixture.run_statements("create table of_theirs (id int)").await;
    fixture.migrate(&["up", "--no-backup"]).await;
    assert_eq!(fixture.query_number("select count(*) from listings where marketplace_id is null").await, 0);
    let report = fixture.verify().await;
    assert_eq!(report["ok"], true, "{report:#}");
    let ours = "select string_agg(thing, ', ' order by id, thing) from vinops.added where thing not like 'found %'";
    let of_005 = "constraint boms.boms_owner_ck, constraint feature_store.feature_store_bom_cost_ck, \
        constraint jobs.jobs_attempts_ck, index boms_asin_version_unique, index jobs_pending_unique, table job_leases, \
        view flagged_margins";
    assert_eq!(fixture.query_text(ours).await, format!("constraint jobs.jobs_asin_entity_fk, {of_005}"));
    fixture.migrate(&["down", "--to", "000", "--no-backup"]).await;
    assert_eq!(fixture.count_tables().await, 25, "24 by hand and one of theirs");
    assert_eq!(fixture.query_number("select count(*) from settings").await, 6);
}

#[tokio::test]
async fn what_somebody_hung_on_a_table_stops_the_way_back_and_nothing_is_lost() {
    let fixture = ListingFixture::migrated().await;
    fixture.run_statements("create view mine as select * from recommendations").await;
    let said = fixture.assert_migrate_fails(&["down", "--to", "003"], 1).await;
    assert_eq!(
        said,
        "error: could not roll back migration 004_slice_d_schema\n\
         detail: cannot drop table recommendations because other objects depend on it\n\
         detail: view mine depends on table recommendations\n"
    );
    // each slice is its own transaction: 005 is back, 004 whole
    assert!(fixture.migrate(&["status"]).await.contains("applied     004_slice_d_schema"));
    assert_eq!(fixture.count_tables().await, 24);
}

#[tokio::test]
async fn a_registry_with_a_gap_has_no_order_to_go_back_in() {
    let fixture = ListingFixture::migrated().await;
    fixture.run_statements("delete from vinops.migrations where id = '004'").await;
    let said = fixture.assert_migrate_fails(&["down", "--to", "002"], 1).await;
    assert!(said.contains("the registry of migrations has a gap"), "{said}");
    fixture.run_statements("delete from vinops.migrations where id = '005'").await;
    let said = fixture.assert_migrate_fails(&["down", "--to", "002"], 1).await;
    assert!(said.contains("the ledger still has 004 table recommendation_events"), "{said}");
    assert_eq!(fixture.count_tables().await, 25);
}
