//! Schema drift: each line of `verify` can fail. Each case drops or alters the object of a line, and exactly that line
//! reports FAIL.
//!
//! Change and check share a transaction that is rolled back, so one database serves all cases. Some changes are
//! indirect, since a direct one (dropping a table) is rightly reported by several lines.

use super::ListingFixture;
use sqlx::Connection;
use vinops::db::listing::ListingSchema;
use vinops::db::listing::verify::verify_listing;

/// The line, the change, and a part of the expected evidence.
const DRIFT_CASES: &[(u8, &str, &str)] = &[
    (1, "update vinops.migrations set applied_at = '2000-01-01' where set_name = 'listing' and id = '003'", "002 was applied after 003"),
    (2, r#"alter table settings drop column "updatedAt""#, "settings lacks updatedAt"),
    (3, "update vinops.backups set row_count = 7", "7 rows existed before 000 without a backup"),
    (4, "alter table components drop column weight_grams", "components lacks weight_grams numeric(10,2)"),
    (5, "alter table listings alter price_inc_vat type numeric(14,2)", "listings lacks price_inc_vat numeric(10,2)"),
    (6, "alter table fee_snapshots alter total_fee_ex_vat type numeric(10,2)", "fee_snapshots lacks total_fee_ex_vat numeric(12,2)"),
    (7, "alter table listings rename category to kind", "listings lacks category"),
    (8, "alter table keepa_snapshots drop column parsed_json", "keepa_snapshots lacks parsed_json jsonb"),
    (
        9,
        "alter table boms drop constraint boms_asin_entity_fk; alter table boms add constraint boms_asin_entity_fk
         foreign key (asin_entity_id) references asin_entities (id)",
        "expected: FOREIGN KEY (asin_entity_id) REFERENCES asin_entities(id) ON DELETE CASCADE",
    ),
    (10, "alter table recommendations drop column impact_json", "recommendations lacks impact_json jsonb"),
    (11, "update vinops.migrations set sha256 = 'other' where set_name = 'listing' and id = '003'", "003 was applied from another file"),
    (12, "alter table marketplaces drop constraint marketplaces_amazon_marketplace_id_key", "migration 001 a second time: "),
    (
        13,
        "drop index boms_listing_active_unique; create unique index boms_listing_active_unique
         on boms (listing_id, scope_type) where is_active = true and scope_type = 'LISTING'",
        "unique boms (listing_id, scope_type)",
    ),
    (
        14,
        "create function off() returns trigger language plpgsql as $$ begin new.is_active := new.version = 1; return new; end $$;
         create trigger off before insert on boms for each row when (new.scope_type = 'LISTING') execute function off()",
        "a second active BOM was accepted",
    ),
    (
        15,
        "alter table boms drop constraint boms_version_unique;
         alter table boms add constraint boms_version_unique unique (listing_id, version, scope_type)",
        "expected: UNIQUE (listing_id, version)",
    ),
    (
        16,
        "drop index boms_asin_active_unique; create index boms_asin_active_unique on boms (asin_entity_id)
         where is_active = true and scope_type = 'ASIN_SCENARIO' and asin_entity_id is not null",
        "a second active scenario was accepted",
    ),
    (17, "alter table jobs add column lease_until timestamp", "lease_until timestamp without time zone; expected: id integer"),
    (18, "alter type job_type add value 'SYNC_EBAY'", "PUBLISH_STOCK_CHANGE,SYNC_EBAY}; expected: "),
    (19, "alter type job_status rename value 'SUCCEEDED' to 'DONE'", "RUNNING,DONE,FAILED"),
    (20, "alter type listing_event_type add value 'LISTING_LOST' before 'LISTING_ARCHIVED'", "LISTING_LOST,LISTING_ARCHIVED}; expected: "),
    (21, "alter type recommendation_event_type rename value 'VIEWED' to 'SEEN'", "GENERATED,SEEN,ACCEPTED"),
    (22, "alter table feature_store alter feature_version type bigint", "feature_version bigint"),
    (23, "drop index idx_feature_store_computed", "the plan uses idx_feature_store_entity"),
    (
        24,
        "alter table jobs drop constraint jobs_asin_entity_fk; alter table jobs add constraint jobs_asin_entity_fk
         foreign key (asin_entity_id) references asin_entities (id) on delete cascade",
        "ON DELETE CASCADE; expected: ",
    ),
    (25, "alter table jobs drop constraint jobs_attempts_ck", "a sixth attempt of five was accepted"),
    (25, "alter table feature_store drop constraint feature_store_bom_cost_ck", "a negative bom_cost_ex_vat was accepted"),
    (
        25,
        "create or replace view flagged_margins as select id, entity_type, entity_id, 0.0 as margin, computed_at from feature_store where false",
        "a margin of -2.0 is not flagged",
    ),
    (26, "alter table boms drop constraint boms_owner_ck", "a BOM without an owner was accepted"),
    (
        27,
        "insert into feature_store (entity_type, entity_id, features_json, computed_at)
         values ('ASIN', 1, '{}', now() - interval '25 hours'), ('LISTING', 1, '{}', now())",
        "of 2 entities 1 have features older than 24 h",
    ),
    (28, "update pg_index set indisvalid = false where indexrelid = 'idx_jobs_type'::regclass", "not valid: idx_jobs_type"),
    (29, "delete from vinops.added where thing = 'type confidence_band'", "type confidence_band is left"),
    (30, "delete from vinops.added where thing = 'index boms_asin_active_unique'", "index boms_asin_active_unique is left"),
    (31, "delete from vinops.added where thing = 'type job_scope_type'", "type job_scope_type is left"),
    (32, "delete from vinops.added where thing = 'column listings.marketplace_id'", "column listings.marketplace_id is left"),
    (33, "delete from vinops.migrations where set_name = 'listing' and id = '004'", "has a gap"),
    (34, "create index mine on boms (notes)", "index mine is missing afterwards"),
    (35, "create table stray ()", "26 base tables; expected: "),
    (36, "create type stray as enum ('a')", "stray is not one of the 11"),
    (
        37,
        "insert into listings (seller_sku) values ('twice');
         insert into boms (listing_id, version, is_active) select id, 1, true from listings;
         update pg_index set indisready = false where indexrelid = 'boms_listing_active_unique'::regclass;
         insert into boms (listing_id, version, is_active) select id, 2, true from listings;
         update pg_index set indisready = true where indexrelid = 'boms_listing_active_unique'::regclass",
        " has 2",
    ),
    (38, "alter table boms drop constraint boms_listing_id_fkey", "missing: boms_listing_id_fkey: boms to listings"),
    (39, "delete from settings where key = 'guardrails.min_margin'", "guardrails.min_margin is missing"),
    (39, "update settings set value = '\"a lot\"' where key = 'guardrails.min_margin'", "guardrails.min_margin is \"a lot\""),
];

/// Applies every third change, each in a transaction that is rolled back, and checks the result of `verify`.
async fn check_every_third(first: usize) {
    let fixture = ListingFixture::migrated().await;
    let mut session = fixture.db.db.connect_session().await.unwrap();
    let place = ListingSchema::from_name("listing").unwrap();
    let mut wrong = Vec::new();
    for (line, statement, says) in DRIFT_CASES.iter().skip(first).step_by(3) {
        let mut tx = session.begin().await.unwrap();
        sqlx::raw_sql("set local search_path = listing").execute(&mut *tx).await.unwrap();
        let done = sqlx::raw_sql(*statement).execute(&mut *tx).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let report = verify_listing(&mut tx, &place).await.unwrap();
        tx.rollback().await.unwrap();
        let failed: Vec<_> = report.checks.iter().filter(|check| !check.passed).collect();
        // line 40 is the overall result: only the case's line and the last one fail
        let rows = report.verdict.iter().filter(|row| row.status == "FAIL").map(|row| row.check);
        let exact = match failed.as_slice() {
            [only] => {
                only.line == *line && only.evidence.contains(says) && rows.eq([only.verdict, "Overall"]) && !report.ok
            }
            _ => false,
        };
        if !exact {
            let failed: Vec<_> = failed.iter().map(|check| (check.line, &check.evidence)).collect();
            wrong.push(format!("{line} {statement}\n  {failed:?}"));
        }
    }
    assert!(wrong.is_empty(), "not exactly the line:\n{}", wrong.join("\n"));
    assert!(verify_listing(&mut session, &place).await.unwrap().ok);
}

#[test]
fn every_line_has_its_deed() {
    let mut lines: Vec<u8> = DRIFT_CASES.iter().map(|statement| statement.0).collect();
    lines.dedup();
    assert_eq!(lines, (1..=39).collect::<Vec<u8>>());
}

#[tokio::test]
async fn each_line_fails_when_its_thing_is_broken_and_no_other_does() {
    check_every_third(0).await;
}

#[tokio::test]
async fn each_line_fails_when_its_thing_is_broken_and_no_other_does_the_second_third() {
    check_every_third(1).await;
}

#[tokio::test]
async fn each_line_fails_when_its_thing_is_broken_and_no_other_does_the_last_third() {
    check_every_third(2).await;
}
