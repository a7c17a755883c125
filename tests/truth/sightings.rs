//! Files that are received again, for another window.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use std::fmt::Write as _;

/// Returns a file of one line per lot: number, sale date, update time. `clock` makes files of equal rows different
/// bytes.
fn file_bytes(clock: &str, rows: &[(u32, &str, &str)]) -> Vec<u8> {
    let mut text = String::from(
        "Id,Lot number,VIN,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Last Updated Time,Create Date/Time\n",
    );
    for (n, (lot, sale, updated)) in rows.iter().enumerate() {
        let _ = writeln!(text, "{},{lot},1HGCM82633A0{lot},{sale},1000,EST,{updated},{clock}", n + 1);
    }
    // without a VIN, so that they make no lot: a file that lacks one lot of ten is complete
    for n in 0..10 {
        let _ = writeln!(text, "{},{},,0,0,EST,{EARLY_TIME},{clock}", rows.len() + n + 1, 90_000 + n);
    }
    text.into_bytes()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

const EARLY_TIME: &str = "2026-11-20T09:00:00Z";

async fn window_states(pipeline: &Pipeline) -> String {
    pipeline
        .query_text(
            "select string_agg(state, ' ' order by window_start_utc) from fleet.windows where source = 'copart'",
        )
        .await
}

async fn lot_statuses(pipeline: &Pipeline) -> String {
    pipeline
        .query_text("select string_agg(lot_external_id || ' ' || status, ', ' order by lot_external_id) from lots")
        .await
}

#[tokio::test]
async fn a_feed_that_goes_back_to_an_older_file_brings_its_lots_back() {
    let mut pipeline = Pipeline::new().await;
    let a = file_bytes("a", &[(10_001, "0", EARLY_TIME), (10_002, "0", EARLY_TIME), (10_003, "0", EARLY_TIME)]);
    let b = file_bytes("b", &[(10_001, "0", EARLY_TIME), (10_003, "0", EARLY_TIME), (10_004, "0", EARLY_TIME)]);
    pipeline.run_chain(&a, nth_window(0)).await;
    pipeline.run_chain(&b, nth_window(1)).await;
    let again = pipeline.run_chain(&a, nth_window(2)).await;
    assert!(again.receipt.duplicate);
    assert_eq!(again.final_state(), "applied");
    assert_eq!(window_states(&pipeline).await, "applied applied applied");
    assert_eq!(pipeline.query_number("select count(*) from raw.csv_files").await, 2);
    assert_eq!(pipeline.query_number("select count(*) from raw.sightings").await, 3);
    // 10002 is in the feed again, 10004 is absent, and no row is stored twice
    let away = "select string_agg(lot::text, ' ') from raw.heads where last_seen is not null";
    assert_eq!(pipeline.query_text(away).await, "10004");
    assert_eq!(pipeline.query_number("select count(*) from raw.rows").await, 14);
    assert_eq!(pipeline.query_number("select count(*) from raw.file_rows").await, 26);
    assert_eq!(pipeline.query_number("select count(*) from audit.etl_runs").await, 3);
}

#[tokio::test]
async fn a_repeat_is_no_further_file_without_a_lot() {
    let mut pipeline = Pipeline::new().await;
    let a = file_bytes("a", &[(10_001, "0", EARLY_TIME), (10_002, "0", EARLY_TIME)]);
    let b = file_bytes("b", &[(10_001, "0", EARLY_TIME)]);
    let c = file_bytes("c", &[(10_001, "0", EARLY_TIME)]);
    pipeline.run_chain(&a, nth_window(0)).await;
    pipeline.run_chain(&b, nth_window(1)).await;
    pipeline.run_chain(&b, nth_window(2)).await;
    pipeline.run_chain(&c, nth_window(3)).await;
    pipeline.run_chain(&b, nth_window(4)).await;
    pipeline.run_chain(&c, nth_window(5)).await;
    assert_eq!(window_states(&pipeline).await, "applied applied unchanged applied applied applied");
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 active", "two files came without it");
    pipeline.run_chain(&file_bytes("d", &[(10_001, "0", EARLY_TIME)]), nth_window(6)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 removed");
}

#[tokio::test]
async fn statuses_move_by_the_clock_while_the_feed_stands_still() {
    let mut pipeline = Pipeline::new().await;
    // sold at 15:00 UTC, an hour after the first window
    let both = file_bytes(
        "a",
        &[(10_001, "20261120", EARLY_TIME), (10_002, "20261120", EARLY_TIME), (10_003, "0", EARLY_TIME)],
    );
    pipeline.run_chain(&both, nth_window(0)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 scheduled, 10002 scheduled, 10003 active");
    let one = file_bytes("b", &[(10_001, "20261120", EARLY_TIME), (10_003, "0", EARLY_TIME)]);
    pipeline.run_chain(&one, nth_window(1)).await;
    pipeline.run_chain(&one, nth_window(4)).await;
    assert_eq!(window_states(&pipeline).await, "applied applied unchanged");
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 active, 10003 active");
    pipeline.run_chain(&one, nth_window(12)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 PENDING_RESULT, 10003 active");
    let window = "select to_char(head_window at time zone 'UTC', 'HH24:MI') from raw.sources";
    assert_eq!(pipeline.query_text(window).await, "17:00", "what stands in the file was seen until then");
}

#[tokio::test]
async fn statuses_move_while_the_feed_stands_still_over_the_end_of_a_month() {
    let mut pipeline = Pipeline::new().await;
    // sold at 15:00 UTC on the first day of December
    let one = file_bytes("a", &[(10_001, "20261201", EARLY_TIME)]);
    pipeline.run_chain(&one, nth_window(0)).await;
    pipeline.run_chain(&one, parse_time("2026-12-01T15:00:00Z")).await;
    assert_eq!(window_states(&pipeline).await, "applied unchanged");
    assert_eq!(lot_statuses(&pipeline).await, "10001 active");
    // a late file of November is judged by that window
    pipeline.run_chain(&file_bytes("b", &[(10_001, "0", "2026-11-20T14:10:00Z")]), nth_window(1)).await;
    pipeline.run_chain(&file_bytes("c", &[(10_001, "20261202", "2026-11-20T14:20:00Z")]), nth_window(2)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 scheduled");
    let months = "select string_agg(tableoid::regclass::text, ' ' order by id) from audit.status_transitions";
    assert_eq!(pipeline.query_text(months).await, "audit.status_transitions_2026_12 audit.status_transitions_2026_12");
}

#[tokio::test]
async fn a_lot_is_not_removed_by_windows_that_bring_nothing_new() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes("a", &[(10_001, "0", EARLY_TIME), (10_002, "0", EARLY_TIME)]), nth_window(0)).await;
    let one = file_bytes("b", &[(10_001, "0", EARLY_TIME)]);
    for n in 1..8 {
        pipeline.run_chain(&one, nth_window(n)).await;
    }
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 active");
}

#[tokio::test]
async fn a_lot_with_a_sale_date_but_no_instant_is_not_removed_before_two_days_after_it() {
    let mut pipeline = Pipeline::new().await;
    let dated = |clock, zone: &str, sale| {
        let text =
            String::from_utf8(file_bytes(clock, &[(10_001, "0", EARLY_TIME), (10_002, sale, EARLY_TIME)])).unwrap();
        text.replace(",EST,", &format!(",{zone},")).into_bytes()
    };
    pipeline.run_chain(&dated("a", "XST", "20261121"), nth_window(0)).await;
    assert_eq!(pipeline.query_number("select count(auction_datetime_utc) from lots").await, 0);
    for (n, clock) in [(1, "b"), (2, "c"), (3, "d"), (4 * 57 - 1, "e")] {
        pipeline.run_chain(&file_bytes(clock, &[(10_001, "0", EARLY_TIME)]), nth_window(n)).await;
        assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 active", "{n}");
    }
    // 2026-11-23T00:00Z
    pipeline.run_chain(&file_bytes("f", &[(10_001, "0", EARLY_TIME)]), nth_window(4 * 58)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 active, 10002 removed");
}

#[tokio::test]
async fn a_late_file_that_brings_a_sale_date_moves_the_status_by_the_newest_window() {
    let mut pipeline = Pipeline::new().await;
    let row = |sale, updated| (10_001, sale, updated);
    pipeline.run_chain(&file_bytes("a", &[row("0", EARLY_TIME)]), nth_window(0)).await;
    pipeline.run_chain(&file_bytes("c", &[row("0", EARLY_TIME)]), nth_window(8)).await;
    assert_eq!(lot_statuses(&pipeline).await, "10001 active");
    let late = pipeline.run_chain(&file_bytes("b", &[row("20261130", "2026-11-20T14:20:00Z")]), nth_window(2)).await;
    assert_eq!(late.final_state(), "late");
    assert_eq!(lot_statuses(&pipeline).await, "10001 scheduled");
    let later = pipeline.run_chain(&file_bytes("b2", &[row("0", "2026-11-20T14:40:00Z")]), nth_window(3)).await;
    assert_eq!(later.final_state(), "late");
    assert_eq!(lot_statuses(&pipeline).await, "10001 active");
}

#[tokio::test]
async fn the_repeat_of_a_quarantined_file_is_quarantined() {
    let mut pipeline = Pipeline::new().await;
    let garbage = b"Id,Lot number,VIN,Last Updated Time\n".to_vec();
    assert_eq!(pipeline.run_chain(&garbage, nth_window(0)).await.final_state(), "quarantined");
    let again = pipeline.run_chain(&garbage, nth_window(1)).await;
    assert!(again.receipt.duplicate);
    assert_eq!(window_states(&pipeline).await, "quarantined quarantined");
}

#[tokio::test]
async fn a_repeat_that_comes_late_says_until_when_its_versions_were_seen() {
    let color = |clock, color: &str| {
        let text = String::from_utf8(file_bytes(clock, &[(10_001, "0", EARLY_TIME)])).unwrap();
        text.replace("Time Zone", "Time Zone,Color").replace(",EST,", &format!(",EST,{color},")).into_bytes()
    };
    let (a, b) = (color("a", "RED"), color("b", "BLUE"));
    let newest = file_bytes("d", &[(10_002, "0", EARLY_TIME)]);
    let files = [(&a, 0), (&b, 1), (&a, 2), (&newest, 9)];
    // of two versions with one update time, that of the newest window wins
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [3, 0, 2, 1]] {
        let mut pipeline = Pipeline::new().await;
        for n in order {
            let (bytes, window) = files[n];
            pipeline.run_chain(bytes, nth_window(window)).await;
        }
        assert_eq!(pipeline.query_text("select color from vehicles where vin like '%10001'").await, "RED", "{order:?}");
    }
}
