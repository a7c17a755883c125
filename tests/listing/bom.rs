//! The rules of BOMs and of a listing's revenue: the acceptance vectors, agreement with PostgreSQL's own arithmetic,
//! versions, and races for the active version.

use super::ListingFixture;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use sqlx::{AssertSqlSafe, PgConnection};
use vinops::listing::bom::{self, BomError, BomLine, BomOwner, CostedBomLine};
use vinops::listing::economics::{self, ListingCosts, round_to_cents};

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn prices_and_fees_are_those_of_the_vectors() {
    let mut lines = csv::Reader::from_path("tests/listing/economics.csv").unwrap();
    let mut seen = 0;
    for line in lines.records() {
        let line = line.unwrap();
        let price = economics::price_ex_vat(decimal(&line[1]), decimal(&line[2])).unwrap();
        let category = Some(&line[4]).filter(|category| !category.is_empty());
        let got = match &line[0] {
            "fees" => economics::estimated_fees_ex_vat(price, &line[3] == "FBA", category).unwrap(),
            _ => price,
        };
        assert_eq!(format!("{:.2}", round_to_cents(got)), line[5], "{line:?}");
        seen += 1;
    }
    assert_eq!(seen, 14);
}

#[test]
fn a_whole_listing_is_that_of_the_vectors() {
    let costs = ListingCosts {
        bom: decimal("6.00"),
        shipping: decimal("2.00"),
        packaging: decimal("0.50"),
        amazon_fees: decimal("3.00"),
        ..ListingCosts::default()
    };
    let output = economics::compute_economics(decimal("24.00"), decimal("0.20"), &costs).unwrap();
    assert_eq!(output.total_cost_ex_vat, decimal("11.50"));
    assert_eq!(output.net_revenue_ex_vat, decimal("20.00"));
    assert_eq!(output.profit_ex_vat, decimal("8.50"));
    assert_eq!(output.margin, decimal("0.425"));
    assert_eq!(round_to_cents(output.break_even_price_inc_vat), decimal("13.80"));
    // if the referral fee depends on the price
    let without = decimal("8.50");
    let aware = economics::break_even_with_referral_inc_vat(without, decimal("0.15"), decimal("0.20")).unwrap();
    assert_eq!(round_to_cents(aware), decimal("12.00"));
    // a loss is negative, and no sale earns nothing
    let loss = economics::compute_economics(
        decimal("6.00"),
        decimal("0.20"),
        &ListingCosts { bom: decimal("15"), ..ListingCosts::default() },
    )
    .unwrap();
    assert_eq!(loss.margin, decimal("-2"));
    assert_eq!(economics::compute_economics(decimal("0"), decimal("0.20"), &costs).unwrap().margin, decimal("0"));
    assert_eq!(economics::price_ex_vat(decimal("1"), decimal("-1")), None);
}

#[test]
fn halves_are_rounded_away_from_zero() {
    for (amount, rounded) in
        [("2.445", "2.45"), ("-10.125", "-10.13"), ("1.005", "1.01"), ("2.4449", "2.44"), ("-0.004", "0")]
    {
        assert_eq!(round_to_cents(decimal(amount)).to_string().trim_end_matches(".00"), rounded, "{amount}");
    }
}

#[test]
fn wastage_is_a_mark_up_and_the_cent_is_rounded_once() {
    let line = |quantity: &str, wastage: &str, cost: &str| CostedBomLine {
        quantity: decimal(quantity),
        wastage_rate: decimal(wastage),
        unit_cost_ex_vat: decimal(cost),
    };
    assert_eq!(bom::cost_ex_vat(&[line("2", "0.05", "2.50")]), Some(decimal("5.25")));
    // each alone would be rounded up
    assert_eq!(bom::cost_ex_vat(&[line("0.5", "0", "0.01"), line("0.5", "0", "0.01")]), Some(decimal("0.01")));
    assert_eq!(bom::cost_ex_vat(&[]), Some(decimal("0")));
}

#[tokio::test]
async fn costs_are_what_postgresql_makes_of_them() {
    let fixture = ListingFixture::new().await;
    let mut runner = TestRunner::deterministic();
    // as far as the columns reach: numeric(10,4), numeric(5,4), numeric(12,2)
    let line = (1_i64..10_000_000_000, 0_i64..10_000, -1_000_000_000_000_i64..1_000_000_000_000);
    let lines = proptest::collection::vec(line, 1..40);
    for _ in 0..256 {
        let lines = lines.new_tree(&mut runner).unwrap().current();
        let costed = lines.iter().map(|(quantity, wastage, cost)| CostedBomLine {
            quantity: Decimal::new(*quantity, 4),
            wastage_rate: Decimal::new(*wastage, 4),
            unit_cost_ex_vat: Decimal::new(*cost, 2),
        });
        let costed: Vec<_> = costed.collect();
        let texts = |of: fn(&CostedBomLine) -> Decimal| costed.iter().map(|it| of(it).to_string()).collect::<Vec<_>>();
        let theirs: String = sqlx::query_scalar(
            "select round(sum(q::numeric * (1 + w::numeric) * c::numeric), 2)::text from unnest($1::text[], $2::text[], $3::text[]) as l (q, w, c)",
        )
        .bind(texts(|it| it.quantity))
        .bind(texts(|it| it.wastage_rate))
        .bind(texts(|it| it.unit_cost_ex_vat))
        .fetch_one(fixture.pool())
        .await
        .unwrap();
        assert_eq!(bom::cost_ex_vat(&costed), Some(decimal(&theirs)), "{costed:?}");
    }
}

proptest! {
    #[test]
    fn rounding_moves_an_amount_by_half_a_cent_at_most(unscaled in any::<i64>(), scale in 0_u32..10) {
        let amount = Decimal::new(unscaled, scale);
        prop_assert!((round_to_cents(amount) - amount).abs() <= decimal("0.005"));
    }
}

/// Returns a fixture with a listing of two components, and a session whose search path contains their tables.
async fn bom_fixture() -> (ListingFixture, PgConnection) {
    let fixture = ListingFixture::migrated().await;
    fixture
        .run_statements(
            "insert into listings (seller_sku) values ('S');
             insert into asin_entities (asin, marketplace_id) select 'B000000001', id from marketplaces;
             insert into components (component_sku, name, unit_cost_ex_vat) values ('c1', 'wood', 2.50), ('c2', 'glue', 0.33)",
        )
        .await;
    let session = open_session(&fixture).await;
    (fixture, session)
}

async fn open_session(fixture: &ListingFixture) -> PgConnection {
    let mut session = fixture.db.db.connect_session().await.unwrap();
    sqlx::raw_sql("set search_path = listing").execute(&mut session).await.unwrap();
    session
}

fn bom_line(component_id: i32, quantity: &str, wastage: &str) -> BomLine {
    BomLine { component_id, quantity: decimal(quantity), wastage_rate: decimal(wastage) }
}

const ACTIVE_BOMS: &str =
    "select string_agg(concat_ws(' ', version, effective_to is null), ', ' order by version) from boms where is_active";

#[tokio::test]
async fn a_version_is_drafted_activated_replaced_and_costed() {
    let (fixture, mut session) = bom_fixture().await;
    let owner = BomOwner::Listing(1);
    let first =
        bom::draft_version(&mut session, owner, &[bom_line(1, "2", "0.05"), bom_line(2, "0.5", "0")]).await.unwrap();
    assert_eq!(first.version, 1);
    assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "", "a draft is not active");
    assert_eq!(bom::version_cost(&mut session, first.id).await.unwrap(), decimal("5.42"));
    let done = bom::activate_version(&mut session, first.id).await.unwrap();
    assert_eq!((done.now, done.before), (first, None));

    let second = bom::draft_version(&mut session, owner, &[bom_line(1, "1", "0")]).await.unwrap();
    assert_eq!(second.version, 2);
    let done = bom::activate_version(&mut session, second.id).await.unwrap();
    assert_eq!((done.now, done.before), (second, Some(first)));
    assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "2 t");
    assert_eq!(fixture.query_number("select count(*) from boms where effective_to is not null").await, 1);
    // activating an active version changes nothing, and an old version may become active again
    assert_eq!(bom::activate_version(&mut session, second.id).await.unwrap().before, None);
    bom::activate_version(&mut session, first.id).await.unwrap();
    assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "1 t");

    // each scenario is computed alone, and a new price of a component changes an old version's cost
    let scenario = bom::draft_version(&mut session, BomOwner::Asin(1), &[bom_line(2, "3", "0")]).await.unwrap();
    assert_eq!(scenario.version, 1);
    bom::activate_version(&mut session, scenario.id).await.unwrap();
    assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "1 t, 1 t");
    fixture.run_statements("update components set unit_cost_ex_vat = 3.00 where id = 1").await;
    assert_eq!(bom::version_cost(&mut session, first.id).await.unwrap(), decimal("6.47"));
}

#[tokio::test]
async fn lines_that_no_version_may_have_are_refused_and_nothing_is_written() {
    let (fixture, mut session) = bom_fixture().await;
    for (lines, says) in [
        (vec![], "the BOM has no lines"),
        (vec![bom_line(1, "0", "0")], "invalid BOM line of component 1: the quantity must be greater than 0"),
        (vec![bom_line(1, "1", "1")], "invalid BOM line of component 1: the wastage rate must be from 0 to under 1"),
        (
            vec![bom_line(1, "1.00005", "0")],
            "invalid BOM line of component 1: a value has more than four decimal places",
        ),
        (
            vec![bom_line(1, "1", "0"), bom_line(1, "2", "0")],
            "invalid BOM line of component 1: the component has two lines",
        ),
    ] {
        let refused = bom::draft_version(&mut session, BomOwner::Listing(1), &lines).await.unwrap_err();
        assert_eq!(refused.to_string(), says);
    }
    // the database rejects an unknown component, together with the new version
    let refused =
        bom::draft_version(&mut session, BomOwner::Listing(1), &[bom_line(1, "1", "0"), bom_line(9, "1", "0")]).await;
    assert!(matches!(refused, Err(BomError::Database(_))), "{refused:?}");
    assert_eq!(fixture.query_number("select count(*) from boms").await, 0);
    assert!(matches!(bom::activate_version(&mut session, 7).await, Err(BomError::Unknown(7))));
}

/// Waits until a session waits for another session's lock.
async fn wait_for_blocked_session(fixture: &ListingFixture) {
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    while !sqlx::query_scalar::<_, bool>(waits).fetch_one(fixture.pool()).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn of_two_activations_at_once_one_wins_and_the_loser_is_told_why() {
    for with_predecessor in [false, true] {
        let (fixture, mut one) = bom_fixture().await;
        let mut versions = Vec::new();
        for _ in 0..3 {
            versions.push(bom::draft_version(&mut one, BomOwner::Listing(1), &[bom_line(1, "1", "0")]).await.unwrap());
        }
        if with_predecessor {
            bom::activate_version(&mut one, versions[0].id).await.unwrap();
        }
        // the first has done everything except its commit
        let mut tx = sqlx::Connection::begin(&mut one).await.unwrap();
        bom::activate_version(&mut tx, versions[1].id).await.unwrap();
        let mut other = open_session(&fixture).await;
        let third = versions[2].id;
        let second = tokio::spawn(async move { bom::activate_version(&mut other, third).await });
        wait_for_blocked_session(&fixture).await;
        tx.commit().await.unwrap();
        let output = second.await.unwrap().unwrap_err();
        assert_eq!(
            output.to_string(),
            "activation of version 3 failed: version 2 came first\nhint: check the current versions, and repeat the call if \
             the change is still wanted"
        );
        assert!(matches!(output, BomError::Outrun { winner: Some(2), .. }));
        assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "2 t", "with a predecessor: {with_predecessor}");
        // then the second may commit
        bom::activate_version(&mut one, third).await.unwrap();
        assert_eq!(fixture.query_text(ACTIVE_BOMS).await, "3 t");
    }
}

#[tokio::test]
async fn of_many_activations_at_once_one_version_is_active_in_the_end() {
    let (fixture, mut session_of_one) = bom_fixture().await;
    let mut versions = Vec::new();
    for _ in 0..8 {
        versions.push(
            bom::draft_version(&mut session_of_one, BomOwner::Listing(1), &[bom_line(1, "1", "0")]).await.unwrap(),
        );
    }
    let mut race = tokio::task::JoinSet::new();
    for version in versions {
        let mut own = open_session(&fixture).await;
        race.spawn(async move { (version, bom::activate_version(&mut own, version.id).await) });
    }
    let (mut won, mut lost) = (0, 0);
    for (version, outcome) in race.join_all().await {
        match outcome {
            Ok(done) => {
                assert_eq!(done.now, version);
                won += 1;
            }
            Err(BomError::Outrun { .. }) => lost += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(won >= 1 && won + lost == 8, "{won} {lost}");
    assert_eq!(fixture.query_number("select count(*) from boms where is_active").await, 1);
}

#[tokio::test]
async fn of_two_drafts_at_once_the_slower_is_told_too() {
    let (fixture, mut one) = bom_fixture().await;
    let mut tx = sqlx::Connection::begin(&mut one).await.unwrap();
    bom::draft_version(&mut tx, BomOwner::Listing(1), &[bom_line(1, "1", "0")]).await.unwrap();
    let mut other = open_session(&fixture).await;
    let second =
        tokio::spawn(
            async move { bom::draft_version(&mut other, BomOwner::Listing(1), &[bom_line(1, "2", "0")]).await },
        );
    wait_for_blocked_session(&fixture).await;
    tx.commit().await.unwrap();
    let output = second.await.unwrap().unwrap_err();
    assert!(matches!(output, BomError::Outrun { winner: Some(1), .. }), "{output}");
    assert_eq!(fixture.query_number("select count(*) from bom_lines").await, 1);
}

#[tokio::test]
async fn the_checks_of_the_last_slice_refuse_by_name_and_a_loss_is_kept() {
    let (fixture, mut session) = bom_fixture().await;
    for (statement, constraint) in [
        ("insert into jobs (job_type, attempts) values ('SYNC_AMAZON_OFFER', 6)", "jobs_attempts_ck"),
        (
            r#"insert into feature_store (entity_type, entity_id, features_json) values ('LISTING', 1, '{"bom_cost_ex_vat": -0.01}')"#,
            "feature_store_bom_cost_ck",
        ),
        (
            r#"insert into feature_store (entity_type, entity_id, features_json) values ('LISTING', 1, '{"bom_cost_ex_vat": "six"}')"#,
            "feature_store_bom_cost_ck",
        ),
        ("insert into boms (listing_id, asin_entity_id) values (1, 1)", "boms_owner_ck"),
        ("insert into boms (listing_id, scope_type) values (1, 'ASIN_SCENARIO')", "boms_owner_ck"),
        (
            "insert into boms (asin_entity_id, scope_type) values (1, 'ASIN_SCENARIO'), (1, 'ASIN_SCENARIO')",
            "boms_asin_version_unique",
        ),
        (
            "insert into jobs (job_type, listing_id) values ('SYNC_AMAZON_OFFER', 1), ('SYNC_AMAZON_OFFER', 1)",
            "jobs_pending_unique",
        ),
    ] {
        let refused = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().constraint(), Some(constraint), "{statement}: {refused}");
    }
    fixture
        .run_statements(
            r#"insert into feature_store (entity_type, entity_id, features_json) values
               ('LISTING', 1, '{"margin": -2.0, "bom_cost_ex_vat": 0}'), ('LISTING', 1, '{"margin": 0.4}'),
               ('ASIN', 1, '{"margin": null}'), ('ASIN', 1, '{"bom_cost_ex_vat": null}')"#,
        )
        .await;
    assert_eq!(fixture.query_text("select string_agg(margin::text, ' ') from flagged_margins").await, "-2.0");
    let report = fixture.verify().await;
    assert!(report["checks"][24]["evidence"].as_str().unwrap().ends_with("1 flagged rows"), "{report:#}");
    assert_eq!((&report["ok"], &report["flagged_margins"]), (&true.into(), &1.into()));
    let said = fixture.run_vinops(&["verify", "listing"]).await;
    assert!(said.out.ends_with("not rejected, because a loss is valid data: 1\n"), "{}", said.out);
}
