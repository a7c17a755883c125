//! Peculiarities of the real feed, and the rules for them: one test each, in files of a few rows.
//!
//! Long because the tests share their files of a few rows.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use std::collections::BTreeMap;
use vinops::db::taxonomy;
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::taxonomy::TaxonomyDomain;

const FIRST_WINDOW: &str = "2026-11-20T14:00:00Z";

/// Returns a file of the relevant columns, one line per row: lot, VIN, sale date, sale time and others.
fn file_bytes(rows: &[FeedRow]) -> Vec<u8> {
    let mut text = String::from(
        "Id,Lot number,VIN,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Damage Description,Last Updated Time,Create Date/Time\n",
    );
    for (n, row) in rows.iter().enumerate() {
        let FeedRow { lot, sale, damage, updated } = row;
        text += &format!("{},{lot},1HGCM82633A0{lot},{sale},EST,{damage},2026-11-20T{updated}:00Z,now\n", n + 1);
    }
    text.into_bytes()
}

#[derive(Clone, Copy)]
struct FeedRow {
    /// Five digits.
    lot: u32,
    sale: &'static str,
    damage: &'static str,
    /// `HH:MM` of the day.
    updated: &'static str,
}

/// Returns a row of a lot without a sale date.
fn default_row(lot: u32) -> FeedRow {
    FeedRow { lot, sale: "0,0", damage: "FRONT END", updated: "10:00" }
}

fn default_rows(lots: std::ops::Range<u32>) -> Vec<FeedRow> {
    lots.map(default_row).collect()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time(FIRST_WINDOW) + Duration::minutes(15 * n)
}

async fn lot_status(pipeline: &Pipeline, lot: u32) -> String {
    let status = sqlx::query_scalar("select status from lots where lot_external_id = $1").bind(lot.to_string());
    status.fetch_one(pipeline.pool()).await.unwrap()
}

async fn lot_transitions(pipeline: &Pipeline, lot: u32) -> Vec<(Option<String>, String, String)> {
    sqlx::query_as(
        "select old_status, new_status, reason from audit.status_transitions where lot_external_id = $1 order by id",
    )
    .bind(lot.to_string())
    .fetch_all(pipeline.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_lot_that_vanishes_after_its_auction_becomes_pending_two_hours_after_it() {
    let mut pipeline = Pipeline::new().await;
    // ten in New York in November is 15:00 UTC
    let sold = FeedRow { sale: "20261120,1000", ..default_row(40_000) };
    let others = default_rows(10_001..10_009);
    pipeline.run_chain(&file_bytes(&[&[sold], &others[..]].concat()), nth_window(0)).await;
    assert_eq!(lot_status(&pipeline, 40_000).await, "scheduled");
    // the lot disappears with its auction. An hour and three quarters later, it still waits.
    for (n, expected) in [(4, "active"), (11, "active"), (12, "PENDING_RESULT")] {
        let others: Vec<FeedRow> =
            others.iter().map(|row| FeedRow { updated: ["11:00", "12:00"][n as usize % 2], ..*row }).collect();
        let chain = pipeline
            .run_chain(&file_bytes(&[&others[..], &default_rows(20_000..20_000 + n as u32)].concat()), nth_window(n))
            .await;
        assert_eq!(chain.final_state(), "applied");
        assert_eq!(lot_status(&pipeline, 40_000).await, expected, "window {n}");
    }
    let moves = lot_transitions(&pipeline, 40_000).await;
    let reasons: Vec<&str> = moves.iter().map(|(_, _, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["sale_time_come", "absent_after_auction"]);
    assert_eq!(pipeline.query_number("select count(*) from audit.v_pending_result").await, 1);
    // offered again in another auction
    let again = FeedRow { sale: "20261127,1000", updated: "14:30", ..sold };
    let chain = pipeline.run_chain(&file_bytes(&[&[again], &others[..]].concat()), nth_window(13)).await;
    assert_eq!(
        (lot_status(&pipeline, 40_000).await.as_str(), chain.report_number("detect-completion", "/returned")),
        ("scheduled", 1)
    );
    assert_eq!(pipeline.query_number("select count(*) from audit.v_pending_result").await, 0);
}

#[tokio::test]
async fn a_lot_without_a_date_is_removed_at_its_third_complete_file_without_it() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(&default_rows(10_000..10_010)), nth_window(0)).await;
    for (n, expected) in [(1, "active"), (2, "active"), (3, "removed")] {
        let chain = pipeline.run_chain(&file_bytes(&default_rows(10_001..10_010 + n)), nth_window(n.into())).await;
        assert_eq!(chain.report_number("detect-completion", "/removed"), u64::from(n == 3));
        assert_eq!(lot_status(&pipeline, 10_000).await, expected, "window {n}");
    }
}

#[tokio::test]
async fn a_half_size_file_is_applied_and_decides_nothing_about_those_it_lacks() {
    let mut pipeline = Pipeline::new().await;
    let sold = FeedRow { sale: "20261120,0500", ..default_row(40_000) };
    pipeline.run_chain(&file_bytes(&[&[sold], &default_rows(10_000..10_011)[..]].concat()), nth_window(0)).await;
    let newer = FeedRow { damage: "HAIL", updated: "13:00", ..default_row(10_000) };
    let half =
        pipeline.run_chain(&file_bytes(&[&[newer], &default_rows(10_001..10_005)[..]].concat()), nth_window(1)).await;
    assert_eq!(half.final_state(), "incomplete");
    assert_eq!(half.report_number("upsert-lots", "/updated"), 1, "its rows are facts");
    assert_eq!(half.reports["detect-completion"]["skipped"], "the file is not complete");
    assert_eq!(lot_status(&pipeline, 40_000).await, "active");
    assert_eq!(pipeline.query_number("select count(*) from audit.status_transitions").await, 0);
    let states =
        pipeline.query_text("select string_agg(state, ' ' order by window_start_utc) from fleet.windows").await;
    assert_eq!(states, "applied incomplete");
    // the next complete file decides
    let whole = pipeline.run_chain(&file_bytes(&default_rows(10_000..10_012)), nth_window(2)).await;
    assert_eq!((whole.final_state(), whole.report_number("detect-completion", "/pending_result")), ("applied", 1));
    assert_eq!(lot_status(&pipeline, 40_000).await, "PENDING_RESULT");
}

#[tokio::test]
async fn switched_off_the_detector_leaves_absent_lots_alone_and_on_again_it_finds_them() {
    let mut pipeline = Pipeline::new().await;
    let sold = FeedRow { sale: "20261120,0500", ..default_row(40_000) };
    pipeline.run_chain(&file_bytes(&[&[sold], &default_rows(10_000..10_011)[..]].concat()), nth_window(0)).await;
    pipeline.run_sql("update config set completion_detector_enabled = false").await;
    let off = pipeline.run_chain(&file_bytes(&default_rows(10_000..10_012)), nth_window(1)).await;
    assert_eq!(off.reports["detect-completion"]["skipped"], "switched off in public.config");
    assert_eq!((off.final_state(), lot_status(&pipeline, 40_000).await.as_str()), ("applied", "active"));
    pipeline.run_sql("update config set completion_detector_enabled = true").await;
    let on = pipeline.run_chain(&file_bytes(&default_rows(10_000..10_013)), nth_window(2)).await;
    assert_eq!(
        (on.report_number("detect-completion", "/pending_result"), lot_status(&pipeline, 40_000).await.as_str()),
        (1, "PENDING_RESULT")
    );
}

#[tokio::test]
async fn a_closed_lot_that_is_opened_by_hand_is_absent_and_judged_again() {
    let mut pipeline = Pipeline::new().await;
    let sold = FeedRow { sale: "20261120,0500", ..default_row(40_000) };
    let dateless = default_row(41_000);
    pipeline
        .run_chain(&file_bytes(&[&[sold, dateless], &default_rows(10_000..10_011)[..]].concat()), nth_window(0))
        .await;
    for n in 1..4 {
        pipeline.run_chain(&file_bytes(&default_rows(10_000..10_011 + n)), nth_window(n.into())).await;
    }
    assert_eq!(
        (lot_status(&pipeline, 40_000).await.as_str(), lot_status(&pipeline, 41_000).await.as_str()),
        ("PENDING_RESULT", "removed")
    );
    // the partial rollback of a completion, as the runbook writes it
    pipeline.run_sql("update lots set status = 'active' where status in ('PENDING_RESULT', 'removed')").await;
    assert_eq!(
        pipeline.query_text("select string_agg(lot_external_id, ' ' order by 1) from audit.v_open_lots_absent").await,
        "40000 41000"
    );
    let chain = pipeline.run_chain(&file_bytes(&default_rows(10_000..10_016)), nth_window(4)).await;
    assert_eq!(
        (
            chain.report_number("detect-completion", "/pending_result"),
            chain.report_number("detect-completion", "/removed")
        ),
        (1, 1)
    );
    // a lot without a number has no head to restore
    pipeline.run_sql("update lots set lot_external_id = null, status = 'PENDING_RESULT' where lot_external_id = '10000'; update lots set status = 'active' where lot_external_id is null; update lots set lot_external_id = '10000' where lot_external_id is null").await;
    // a lot whose auction is over is judged even without a head
    pipeline.run_sql("update lots set status = 'active' where lot_external_id = '40000'; delete from raw.heads where lot = 40000").await;
    assert_eq!(
        pipeline.query_text("select string_agg(lot_external_id, ' ') from audit.v_open_lots_absent").await,
        "40000"
    );
    let chain = pipeline.run_chain(&file_bytes(&default_rows(10_000..10_017)), nth_window(5)).await;
    assert_eq!(chain.report_number("detect-completion", "/pending_result"), 1);
    assert_eq!(pipeline.query_number("select count(*) from audit.v_open_lots_absent").await, 0);
}

#[tokio::test]
async fn a_late_window_is_applied_under_the_guard_and_never_drives_completion() {
    let mut pipeline = Pipeline::new().await;
    let sold = FeedRow { sale: "20261120,0500", ..default_row(40_000) };
    let stays = FeedRow { damage: "HAIL", updated: "12:00", ..default_row(10_000) };
    pipeline.run_chain(&file_bytes(&[&[sold, stays], &default_rows(10_001..10_011)[..]].concat()), nth_window(2)).await;
    let moved = pipeline.query_number("select count(*) from audit.status_transitions").await;
    // older in window and in update; it lacks the sold lot and has one that no other file has
    let late = pipeline
        .run_chain(&file_bytes(&[&default_rows(10_000..10_011)[..], &[default_row(50_000)]].concat()), nth_window(1))
        .await;
    assert_eq!((late.final_state(), late.report_number("detect-completion", "/moved")), ("late", 0));
    assert_eq!(late.report_number("upsert-lots", "/inserted"), 1);
    assert_eq!(late.report_number("upsert-lots", "/updated"), 0, "the newer row stands");
    let damage = "select damage_description from lots where lot_external_id = '10000'";
    assert_eq!(pipeline.query_text(damage).await, "HAIL");
    assert_eq!(lot_status(&pipeline, 40_000).await, "active");
    assert_eq!(pipeline.query_number("select count(*) from audit.status_transitions").await, moved);
}

#[tokio::test]
async fn the_same_bytes_again_end_their_window_as_unchanged() {
    let mut pipeline = Pipeline::new().await;
    let bytes = file_bytes(&default_rows(10_000..10_010));
    pipeline.run_chain(&bytes, nth_window(0)).await;
    let before = pipeline.digest().await;
    let again = pipeline.run_chain(&bytes, nth_window(1)).await;
    assert!(again.receipt.duplicate);
    let states =
        pipeline.query_text("select string_agg(state, ' ' order by window_start_utc) from fleet.windows").await;
    assert_eq!((states.as_str(), pipeline.digest().await), ("applied unchanged", before));
    let jobs = "select count(*) from fleet.jobs where kind <> 'detect-completion'";
    assert_eq!(pipeline.query_number(jobs).await, 3, "only the clock moves statuses after the newest file came again");
}

#[tokio::test]
async fn of_two_files_of_one_window_both_are_kept_and_the_greater_rows_stand() {
    let mut pipeline = Pipeline::new().await;
    let (first, second) = (default_rows(10_000..10_010), default_rows(10_000..10_012));
    let newer = FeedRow { damage: "HAIL", updated: "13:00", ..default_row(10_003) };
    let with_newer: Vec<FeedRow> = first.iter().map(|row| if row.lot == newer.lot { newer } else { *row }).collect();
    pipeline.run_chain(&file_bytes(&with_newer), nth_window(0)).await;
    let other = pipeline.run_chain(&file_bytes(&second), nth_window(0)).await;
    assert_eq!((other.final_state(), other.report_number("ingest", "/new")), ("applied", 2));
    assert_eq!(
        pipeline.query_text("select damage_description from lots where lot_external_id = '10003'").await,
        "HAIL"
    );
    assert_eq!(pipeline.query_number("select count(*) from lots").await, 12);
    let paths = pipeline.query_text("select string_agg(path, ' ' order by file_no) from raw.csv_files").await;
    let sha8 = &other.receipt.sha256[..8];
    assert_eq!(paths, format!("raw/copart/2026/11/20/1400.csv.zst raw/copart/2026/11/20/1400-{sha8}.csv.zst"));
    assert_eq!(pipeline.query_number("select count(*) from fleet.windows").await, 1);
    assert_eq!(pipeline.query_number("select count(*) from raw.file_rows").await, 22);
}

#[tokio::test]
async fn an_unknown_spelling_counts_once_a_file_however_many_rows_use_it() {
    let mut pipeline = Pipeline::new().await;
    let goat = |lot, updated| FeedRow { damage: "EATEN BY GOAT", updated, ..default_row(lot) };
    let count = "select coalesce(max(occurrences), 0) from audit.unknown_taxonomy_values
        where domain = 'damage_types' and raw_value = 'EATEN BY GOAT'";
    let first = pipeline
        .run_chain(&file_bytes(&[goat(40_000, "10:00"), goat(40_001, "10:00"), default_row(10_000)]), nth_window(0))
        .await;
    assert_eq!((first.report_number("ingest", "/unknown_values"), pipeline.query_number(count).await), (1, 1));
    pipeline
        .run_chain(&file_bytes(&[goat(40_000, "11:00"), goat(40_001, "12:00"), default_row(10_000)]), nth_window(1))
        .await;
    assert_eq!(pipeline.query_number(count).await, 2);
    let stored = "select count(*) from lots where damage_description = 'EATEN BY GOAT' and damage_code is null";
    assert_eq!(pipeline.query_number(stored).await, 2, "the text is kept, and has no code");
}

/// Returns the share of raw values without a code by domain, in hundredths.
async fn unreadable_shares(pipeline: &Pipeline) -> BTreeMap<String, f64> {
    let shares = "select labels ->> 'domain', value from fleet.metrics where metric = 'etl_unknown_words_percent'";
    let shares: Vec<(String, f64)> = sqlx::query_as(shares).fetch_all(pipeline.pool()).await.unwrap();
    shares.into_iter().collect()
}

#[tokio::test]
async fn the_share_of_unknown_words_is_that_of_the_rows_that_are_new_or_changed() {
    let mut pipeline = Pipeline::new().await;
    let goat = |lot, updated| FeedRow { damage: "EATEN BY GOAT", updated, ..default_row(lot) };
    pipeline
        .run_chain(&file_bytes(&[&[goat(40_000, "10:00")], &default_rows(10_000..10_004)[..]].concat()), nth_window(0))
        .await;
    assert_eq!(
        unreadable_shares(&pipeline).await,
        BTreeMap::from([("damage_types".to_owned(), 20.0)]),
        "no other words are there"
    );
    let blank = FeedRow { damage: "", ..default_row(10_005) };
    let next = [&[goat(40_000, "11:00"), goat(40_001, "11:00"), blank], &default_rows(10_000..10_005)[..]].concat();
    pipeline.run_chain(&file_bytes(&next), nth_window(1)).await;
    let share = unreadable_shares(&pipeline).await["damage_types"];
    assert!((share - 200.0 / 3.0).abs() < 1e-9, "{share}: one changed and two new rows have a word");
    // no status moves: the time is unknown
    pipeline.run_chain(&file_bytes(&next[1..]), nth_window(2)).await;
    assert_eq!(unreadable_shares(&pipeline).await, BTreeMap::new());
}

#[tokio::test]
async fn a_spelling_that_was_mapped_is_known_to_the_rows_that_stand_and_to_those_that_come() {
    let mut pipeline = Pipeline::new().await;
    let goat = |lot, updated| FeedRow { damage: "EATEN BY GOAT", updated, ..default_row(lot) };
    pipeline
        .run_chain(&file_bytes(&[goat(40_000, "10:00"), goat(40_001, "10:00"), default_row(10_000)]), nth_window(0))
        .await;
    let by = taxonomy::Actor { who: "nana".to_owned(), why: "a new word".to_owned() };
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let (domain, code) = (TaxonomyDomain::DamageTypes, "damage_vandalism");
    let mapped = taxonomy::map_alias(&mut connection, domain, "Eaten by goat", code, &by).await.unwrap();
    assert_eq!((mapped.lots, mapped.known_now), (2, vec!["EATEN BY GOAT".to_owned()]));
    let coded = "select count(*) from lots where damage_code = 'damage_vandalism'";
    assert_eq!(pipeline.query_number(coded).await, 2);
    // one stands, one changes and one is new
    let rows = [goat(40_000, "10:00"), goat(40_001, "11:00"), goat(40_002, "11:00"), default_row(10_000)];
    let next = pipeline.run_chain(&file_bytes(&rows), nth_window(1)).await;
    assert_eq!((next.report_number("ingest", "/changed"), next.report_number("ingest", "/new")), (1, 1));
    assert_eq!((next.report_number("ingest", "/unknown_values"), pipeline.query_number(coded).await), (0, 3));
    assert_eq!(pipeline.query_number("select count(*) from audit.unknown_taxonomy_values").await, 0);
}

#[tokio::test]
async fn a_mapped_word_of_keys_or_conditions_codes_the_lots_that_stand_by_their_versions() {
    for heads_stand in [true, false] {
        check_mapped_by_versions(heads_stand).await;
    }
}

/// Maps raw values of versions that are lot heads, or of versions that are not: newer rows have replaced them, and a
/// lot is closed.
async fn check_mapped_by_versions(heads_stand: bool) {
    let mut pipeline = Pipeline::new().await;
    let rows = |keys: [&str; 3], updated: &str| {
        let mut text =
            "Id,Lot number,VIN,Has Keys-Yes or No,Lot Cond. Code,Last Updated Time,Create Date/Time\n".to_owned();
        for (n, keys) in keys.iter().enumerate() {
            text += &format!("{n},4000{n},1HGCM82633A04000{n},{keys},Q,2026-11-20T{updated}:00Z,now\n");
        }
        text.into_bytes()
    };
    pipeline.run_chain(&rows(["YES", "Maybe so", " MAYBE-SO"], "10:00"), nth_window(0)).await;
    if !heads_stand {
        pipeline.run_chain(&rows(["YES", "NO", "NO"], "09:00"), nth_window(1)).await;
        sqlx::query("delete from raw.heads where lot = 40002").execute(pipeline.pool()).await.unwrap();
    }
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let by = taxonomy::Actor { who: "nana".to_owned(), why: "a new word".to_owned() };
    sqlx::query("set role vinops_ops").execute(&mut *connection).await.unwrap();
    let keys = "select string_agg(coalesce(has_keys::text, '-'), ' ' order by lot_external_id) from lots";
    let codes = "select string_agg(coalesce(has_keys_code, '-') || ' ' || coalesce(lot_condition_code, '-'), ', ' order by lot_external_id) from lots";
    assert_eq!(pipeline.query_text(codes).await, "keys_yes -, - -, - -");
    let mapped =
        taxonomy::map_alias(&mut connection, TaxonomyDomain::HasKeys, "MAYBE SO", "keys_no", &by).await.unwrap();
    assert_eq!((mapped.lots, mapped.known_now.len()), (2, 2));
    assert_eq!(pipeline.query_text(codes).await, "keys_yes -, keys_no -, keys_no -");
    assert_eq!(pipeline.query_text(keys).await, "true false false");
    // again, to another code: only the rows with the raw value change
    let mapped =
        taxonomy::map_alias(&mut connection, TaxonomyDomain::HasKeys, "maybe so", "keys_yes", &by).await.unwrap();
    assert_eq!((mapped.lots, pipeline.query_text(codes).await.as_str()), (2, "keys_yes -, keys_yes -, keys_yes -"));
    assert_eq!(pipeline.query_text(keys).await, "true true true");
    let mapped =
        taxonomy::map_alias(&mut connection, TaxonomyDomain::HasKeys, "maybe so", "keys_exempt", &by).await.unwrap();
    assert_eq!(
        (mapped.lots, pipeline.query_text(codes).await.as_str()),
        (2, "keys_yes -, keys_exempt -, keys_exempt -")
    );
    assert_eq!(pipeline.query_text(keys).await, "true - -");
    let mapped = taxonomy::map_alias(&mut connection, TaxonomyDomain::LotConditions, "q", "cond_n", &by).await.unwrap();
    assert_eq!(
        (mapped.lots, pipeline.query_text(codes).await.as_str()),
        (3, "keys_yes cond_n, keys_exempt cond_n, keys_exempt cond_n")
    );
    sqlx::query("reset role").execute(&mut *connection).await.unwrap();
}

#[tokio::test]
async fn every_word_of_a_pretend_feed_is_known_and_every_code_has_its_label_in_both_tongues() {
    let options = SimulatorOptions::new(1, 3000, parse_time(FIRST_WINDOW));
    let mut pipeline = Pipeline::new().await;
    let mut bytes = Vec::new();
    Simulator::new(options.clone()).write_window(0, &mut bytes).unwrap();
    let chain = pipeline.run_chain(&bytes, options.window_start(0)).await;
    assert_eq!(chain.report_number("ingest", "/unknown_values"), 0);
    for domain in ["damage_types", "sale_types", "title_types"] {
        assert!(chain.report_number("ingest", &format!("/words/{domain}/values")) >= 3000, "{domain}");
    }
    assert_eq!(unreadable_shares(&pipeline).await.values().sum::<f64>(), 0.0);
    let lots = pipeline.query_number("select count(*) from lots").await;
    assert!(lots > 2900);
    let labelled = "select count(*) from lots l
        join taxonomies.damage_types d on d.code = l.damage_code and d.ru <> ''
        join taxonomies.sale_types s on s.code = l.sale_type_code and s.ru <> ''
        join taxonomies.has_keys k on k.code = l.has_keys_code and k.ru <> ''
        left join taxonomies.lot_conditions c on c.code = l.lot_condition_code
        where c.ru <> '' or l.lot_condition_code is null and l.runs_drives is null";
    assert_eq!(pipeline.query_number(labelled).await, lots);
}

#[tokio::test]
async fn a_header_that_drifts_from_copart_select_to_wholesale_changes_no_row() {
    let options = SimulatorOptions {
        churn: 0.0,
        gone: 0.0,
        wholesale_from: 1,
        ..SimulatorOptions::new(3, 300, parse_time(FIRST_WINDOW))
    };
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    for k in 0..2 {
        let mut bytes = Vec::new();
        let counters = simulator.write_window(k, &mut bytes).unwrap();
        let column: &[u8] = if k == 0 { b"\"Copart Select\"" } else { b"\"Wholesale\"" };
        assert!(bytes.windows(column.len()).any(|window| window == column));
        let chain = pipeline.run_chain(&bytes, options.window_start(k)).await;
        assert_eq!(chain.report_number("ingest", "/changed"), counters.changed);
        assert_eq!(chain.reports["ingest"]["header_drift"], serde_json::json!([]));
    }
    assert!(simulator.expected_state().counters().unchanged > 250);
    assert_eq!(
        pipeline.query_number("select count(*) from audit.lot_conflicts").await,
        simulator.expected_state().counters().changed as i64
    );
}

#[tokio::test]
async fn a_change_that_leaves_the_update_time_alone_is_applied_and_told() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(&default_rows(10_000..10_010)), nth_window(0)).await;
    let mut changed = default_rows(10_000..10_010);
    changed[4].damage = "HAIL";
    let chain = pipeline.run_chain(&file_bytes(&changed), nth_window(1)).await;
    assert_eq!((chain.report_number("ingest", "/changed"), chain.report_number("upsert-lots", "/updated")), (1, 1));
    let output =
        pipeline.query_text("select string_agg(lot_external_id || changes::text, ' ') from audit.lot_conflicts").await;
    assert!(
        output.starts_with("10004{") && output.contains(r#""damage_description": ["FRONT END", "HAIL"]"#),
        "{output}"
    );
}

#[tokio::test]
async fn of_two_rows_of_a_lot_in_one_file_the_greater_stands_whichever_comes_first() {
    let mut stands = Vec::new();
    for turned in [false, true] {
        let mut pipeline = Pipeline::new().await;
        for n in 0..3 {
            let mut twice = [default_row(40_000), FeedRow { damage: "HAIL", ..default_row(40_000) }];
            if turned ^ (n == 1) {
                twice.reverse();
            }
            pipeline
                .run_chain(&file_bytes(&[&twice[..], &default_rows(10_000..10_004 + n)].concat()), nth_window(n.into()))
                .await;
            stands
                .push(pipeline.query_text("select damage_description from lots where lot_external_id = '40000'").await);
        }
        assert_eq!(pipeline.query_number("select count(*) from audit.lot_conflicts").await, 0, "nothing changed");
    }
    stands.dedup();
    assert_eq!(stands.len(), 1, "{stands:?}");
}
