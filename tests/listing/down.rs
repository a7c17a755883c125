//! Rollback of the slices: in order only, only what was added, and nothing of the operator's.

use super::{GOODS, SEEN, Stage};
use vinops::db::migrations::LISTING;

#[tokio::test]
async fn down_and_up_again_ends_where_it_began() {
    let stage = Stage::whole().await;
    let before = stage.shape().await;
    for (step, tables) in [("004", 24), ("003", 22), ("002", 17), ("001", 13), ("000", 7)] {
        let said = stage.migrate(&["down", "--to", step]).await;
        assert!(said.starts_with("rolled back "), "{said}");
        assert_eq!(stage.tables().await, tables, "after {step}");
    }
    assert_eq!(stage.number("select count(*) from settings").await, 0);
    assert_eq!(stage.number("select count(*) from pg_type where typtype = 'e'").await, 0);
    stage.migrate(&["up"]).await;
    assert_eq!(stage.shape().await, before);
    assert_eq!(stage.verify().await["ok"], true);
}

#[tokio::test]
async fn down_without_a_goal_is_one_step_and_the_base_stays() {
    let stage = Stage::whole().await;
    assert_eq!(stage.migrate(&["down"]).await, "rolled back 005_worker\n");
    assert_eq!(stage.migrate(&["down", "--to", "005"]).await, "nothing to roll back\n");
    stage.migrate(&["down", "--to", "000"]).await;
    let said = stage.refused(&["down"], 1).await;
    assert!(said.contains("migration 000 cannot be rolled back"), "{said}");
    let said = stage.refused(&["down", "--to", "0000"], 1).await;
    assert!(said.contains("unknown migration \"0000\""), "{said}");
    assert_eq!(stage.tables().await, 7);
}

#[tokio::test]
async fn listings_prices_and_edited_settings_outlive_the_way_down_and_up() {
    let stage = Stage::new().await;
    stage.migrate(&["up", "--to", "000"]).await;
    stage.deed(GOODS).await;
    stage.deed("insert into settings (key, value) values ('mine', '\"kept\"')").await;
    let before = stage.text(SEEN).await;
    let base = stage.shape().await;
    stage.migrate(&["up", "--no-backup"]).await;
    stage.deed("update settings set value = '0.25' where key in ('guardrails.min_margin', 'guardrails.allow_price_below_break_even')").await;
    stage.migrate(&["down", "--to", "000", "--no-backup", "--destructive"]).await;
    assert_eq!(stage.text(SEEN).await, before, "values and widths are as they were");
    let kept = "select string_agg(key || ' ' || value, ', ' order by key) from settings";
    let edited = "guardrails.allow_price_below_break_even 0.25, guardrails.min_margin 0.25, mine \"kept\"";
    assert_eq!(stage.text(kept).await, edited);

    stage.migrate(&["up", "--no-backup"]).await;
    assert_eq!(stage.text(SEEN).await, before);
    assert!(stage.text(kept).await.contains("guardrails.min_margin 0.25"), "an edited value stands");
    assert_eq!(stage.number("select count(*) from settings").await, 7);

    // with the old names the base is as before
    stage.deed("delete from settings where key <> 'mine'").await;
    let said =
        stage.migrate(&["down", "--to", "000", "--restore-names", "--no-backup", "--destructive"]).await;
    assert!(said.contains("renamed column listings.price_inc_vat to price"), "{said}");
    assert_eq!(stage.shape().await, base);
    assert_eq!(stage.text(SEEN).await, before);
}

#[tokio::test]
async fn going_back_one_slice_leaves_the_settings_of_the_one_before() {
    let stage = Stage::whole().await;
    stage.migrate(&["down", "--to", "001"]).await;
    let left = "select string_agg(key, ' ' order by key) from settings";
    assert_eq!(
        stage.text(left).await,
        "default_vat_rate guardrails.max_price_change_pct_per_day guardrails.min_days_of_cover_before_price_change \
         guardrails.min_margin guardrails.min_stock_threshold"
    );
}

#[tokio::test]
async fn the_runbooks_letter_destroys_and_so_needs_two_words() {
    let stage = Stage::new().await;
    stage.migrate(&["up", "--to", "000"]).await;
    stage.deed(GOODS).await;
    stage.migrate(&["up", "--no-backup"]).await;
    let said = stage.refused(&["down", "--to", "001", "--verbatim-runbook"], 2).await;
    assert!(said.contains("requires --destructive"), "{said}");
    assert_eq!(stage.tables().await, 25);

    stage.migrate(&["down", "--to", "001", "--verbatim-runbook", "--destructive", "--no-backup"]).await;
    let gone = "select string_agg(attname::text, ' ' order by attname) from pg_attribute
        where attrelid = 'listings'::regclass and attname in ('asin', 'status', 'category', 'fulfillment_channel')";
    assert_eq!(stage.text(gone).await, "", "columns that were there before 002 and 003 went too");
    assert_eq!(stage.number("select count(*) from settings where key like 'guardrails.%'").await, 0);
    assert_eq!(stage.number("select count(*) from listings").await, 2);
    stage.migrate(&["up", "--no-backup"]).await;
    assert_eq!(stage.tables().await, 25);
}

#[tokio::test]
async fn a_database_that_had_it_all_by_hand_is_adopted_and_loses_nothing_on_the_way_back() {
    let stage = Stage::new().await;
    stage.deed("create schema listing").await;
    // manually: the files as psql would run them, without 005 and the reference of jobs
    for migration in LISTING.migrations.iter().take(5) {
        stage.deed(migration.up).await;
    }
    stage.deed("alter table jobs drop constraint jobs_asin_entity_fk; insert into listings (seller_sku) values ('S')").await;
    stage.deed("create table of_theirs (id int)").await;
    stage.migrate(&["up", "--no-backup"]).await;
    assert_eq!(stage.number("select count(*) from listings where marketplace_id is null").await, 0);
    let report = stage.verify().await;
    assert_eq!(report["ok"], true, "{report:#}");
    let ours =
        "select string_agg(thing, ', ' order by id, thing) from vinops.added where thing not like 'found %'";
    let of_005 = "constraint boms.boms_owner_ck, constraint feature_store.feature_store_bom_cost_ck, \
        constraint jobs.jobs_attempts_ck, index boms_asin_version_unique, index jobs_pending_unique, table job_leases, \
        view flagged_margins";
    assert_eq!(stage.text(ours).await, format!("constraint jobs.jobs_asin_entity_fk, {of_005}"));
    stage.migrate(&["down", "--to", "000", "--no-backup"]).await;
    assert_eq!(stage.tables().await, 25, "24 by hand and one of theirs");
    assert_eq!(stage.number("select count(*) from settings").await, 6);
}

#[tokio::test]
async fn what_somebody_hung_on_a_table_stops_the_way_back_and_nothing_is_lost() {
    let stage = Stage::whole().await;
    stage.deed("create view mine as select * from recommendations").await;
    let said = stage.refused(&["down", "--to", "003"], 1).await;
    assert_eq!(
        said,
        "error: could not roll back migration 004_slice_d_schema\n\
         detail: cannot drop table recommendations because other objects depend on it\n\
         detail: view mine depends on table recommendations\n"
    );
    // each slice is its own transaction: 005 is back, 004 whole
    assert!(stage.migrate(&["status"]).await.contains("applied     004_slice_d_schema"));
    assert_eq!(stage.tables().await, 24);
}

#[tokio::test]
async fn a_registry_with_a_gap_has_no_order_to_go_back_in() {
    let stage = Stage::whole().await;
    stage.deed("delete from vinops.migrations where id = '004'").await;
    let said = stage.refused(&["down", "--to", "002"], 1).await;
    assert!(said.contains("the registry of migrations has a gap"), "{said}");
    stage.deed("delete from vinops.migrations where id = '005'").await;
    let said = stage.refused(&["down", "--to", "002"], 1).await;
    assert!(said.contains("the ledger still has 004 table recommendation_events"), "{said}");
    assert_eq!(stage.tables().await, 25);
}
