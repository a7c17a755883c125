//! Notations of exporters and spreadsheets: each form is read as the value that it stands for.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};

const FIRST_WINDOW: &str = "2026-11-20T14:00:00Z";

const HEADER: &str = "\"Id\",\"Lot number\",\"VIN\",\"Sale Date M/D/CY\",\"Sale time (HHMM)\",\"Time Zone\",\
    \"High Bid =non-vix,Sealed=Vix\",\"Special Note\",\"Has Keys-Yes or No\",\"Last Updated Time\",\"Create Date/Time\"\n";

fn file_bytes(rows: &[[&str; 8]]) -> Vec<u8> {
    let mut text = HEADER.to_owned();
    for (n, [lot, vin, date, time, bid, note, keys, updated]) in rows.iter().enumerate() {
        text += &format!(
            "{},\"{lot}\",\"{vin}\",\"{date}\",\"{time}\",\"EST\",\"{bid}\",\"{note}\",\"{keys}\",\"{updated}\",\"now\"\n",
            n + 1
        );
    }
    text.into_bytes()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time(FIRST_WINDOW) + Duration::minutes(15 * n)
}

#[tokio::test]
async fn each_form_of_a_lot_number_a_date_an_amount_and_an_update_time_is_the_value_it_stands_for() {
    let mut pipeline = Pipeline::new().await;
    let plain = |lot, vin| [lot, vin, "20261204", "1000", "275.0", "", "YES", "2026-11-20T07:01:00Z"];
    let vins = ["1HGCM82633A040001", "1HGCM82633A040002", "1HGCM82633A040003"];
    let first = [plain("70000001", vins[0]), plain("70000002", vins[1]), plain("70000003", vins[2])];
    pipeline.run_chain(&file_bytes(&first), nth_window(0)).await;
    let second = [
        ["70,000,001", vins[0], "12/10/2026", "11:00", "$1,900.00", "", "Yes", "2026-11-20T14:05:00.000+0000"],
        ["70000002.0", vins[1], "2026-12-10", "1100.0", "1,900", "", "no", "2026-11-20 14:05:00"],
        [
            "\u{a0}70\u{202f}000\u{202f}003\u{200b}",
            vins[2],
            "20261210",
            "1100",
            "$1900",
            "",
            "y",
            "2026-11-20T09:05:00-05",
        ],
    ];
    let chain = pipeline.run_chain(&file_bytes(&second), nth_window(1)).await;
    assert_eq!(
        (chain.final_state(), chain.report_number("ingest", "/changed"), chain.report_number("ingest", "/new")),
        ("applied", 3, 0)
    );
    let lots = pipeline
        .query_text("select string_agg(concat_ws(' ', lot_external_id, sale_date_raw, sale_time_hhmm, current_bid_usd, has_keys, has_keys_code, to_char(source_updated_at at time zone 'UTC', 'HH24:MI')), ', ' order by lot_external_id) from lots")
        .await;
    assert_eq!(
        lots,
        "70000001 20261210 1100 1900.00 t keys_yes 14:05, 70000002 20261210 1100 1900.00 f keys_no 14:05, \
        70000003 20261210 1100 1900.00 t keys_yes 14:05"
    );
    assert_eq!(chain.report_number("ingest", "/unreadable_values"), 0);
}

#[tokio::test]
async fn a_vin_between_blanks_of_any_kind_makes_its_lot_and_one_that_is_far_too_long_is_skipped() {
    let mut pipeline = Pipeline::new().await;
    let long = "A1".repeat(1500);
    let row = |lot, vin| [lot, vin, "0", "", "0", "", "YES", "2026-11-20T07:01:00Z"];
    let rows = [
        row("70000001", "\u{a0}1HGCM82633A040001"),
        row("70000002", "1HGCM82633A040002\u{200b}"),
        row("70000003", "\u{feff}1hgcm82633a040003 "),
        row("70000004", "1HGCM82633A040004"),
        row("70000005", &long),
    ];
    let chain = pipeline.run_chain(&file_bytes(&rows), nth_window(0)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/skipped/vin_format")), ("applied", 1));
    assert_eq!(pipeline.query_number("select count(*) from lots").await, 4);
    // the raw VIN is the feed's own text, by which a skipped row and a vehicle are found in raw again
    let joined = "select count(*) from raw.rows r join vehicles v on v.vin_raw = r.payload_jsonb ->> 'VIN'";
    assert_eq!(pipeline.query_number(joined).await, 4);
    let joined = "select count(*) from raw.rows r join audit.skipped_lots s on s.vin_raw = r.payload_jsonb ->> 'VIN'";
    assert_eq!(pipeline.query_number(joined).await, 1);
    assert_eq!(
        pipeline.query_number("select count(*) from audit.vin_conflicts").await,
        0,
        "blanks and case are no conflict"
    );
}

#[tokio::test]
async fn a_note_with_an_inch_quote_before_a_comma_and_a_blank_is_one_value() {
    let mut pipeline = Pipeline::new().await;
    let row = |lot, vin, note| [lot, vin, "0", "", "0", note, "YES", "2026-11-20T07:01:00Z"];
    let rows = [
        row("70000001", "1HGCM82633A040001", "LIFT 6\", 35\" TIRES"),
        row("70000002", "1HGCM82633A040002", "TRAILER 53\", REEFER"),
        row("70000003", "1HGCM82633A040003", "113\" CAB"),
    ];
    let chain = pipeline.run_chain(&file_bytes(&rows), nth_window(0)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/parse_errors")), ("applied", 0));
    let notes = "select string_agg(special_note, '|' order by lot_external_id) from lots";
    assert_eq!(pipeline.query_text(notes).await, "LIFT 6\", 35\" TIRES|TRAILER 53\", REEFER|113\" CAB");
}

#[tokio::test]
async fn a_word_longer_than_any_spelling_is_reported_and_is_no_unknown_spelling() {
    let mut pipeline = Pipeline::new().await;
    let long = "MAYBE ".repeat(500);
    let row = |lot, vin, keys| [lot, vin, "0", "", "0", "", keys, "2026-11-20T07:01:00Z"];
    let rows = [row("70000001", "1HGCM82633A040001", long.trim()), row("70000002", "1HGCM82633A040002", "MAYBE")];
    let chain = pipeline.run_chain(&file_bytes(&rows), nth_window(0)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/unreadable_values")), ("applied", 1));
    assert_eq!(
        pipeline.query_text("select string_agg(raw_value, '|') from audit.unknown_taxonomy_values").await,
        "MAYBE"
    );
    assert_eq!(
        pipeline.query_number("select count(*) from lots where has_keys_code is null and has_keys is null").await,
        2
    );
}
