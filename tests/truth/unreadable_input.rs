//! Input that cannot be read: records, lot numbers, values, and a feed that has become smaller. None of it may close a
//! lot, remain unreported or be stored again and again.

use crate::pipeline::{CompletedChain, Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use serde_json::json;

const HEADER: &str = "Id,Lot number,VIN,Odometer,Last Updated Time,Create Date/Time\n";

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

/// Returns a row of a lot of five digits. `change` makes another version of it.
fn row_text(lot: u32, change: u32) -> String {
    format!("{lot},{lot},1HGCM82633A0{lot},{change},2026-11-20T10:00:00Z,now")
}

/// Returns the row with two fields too many.
fn unreadable_row(lot: u32) -> String {
    format!("{lot},{lot},1HGCM82633A0{lot},1,2026-11-20T10:00:00Z,now,x,y")
}

/// Returns a row without a lot number.
fn row_without_number(vin: u32) -> String {
    format!("1,,1HGCM82633A0{vin},5,2026-11-20T10:00:00Z,now")
}

fn file_bytes(rows: impl IntoIterator<Item = String>) -> Vec<u8> {
    let rows: Vec<String> = rows.into_iter().collect();
    format!("{HEADER}{}\n", rows.join("\n")).into_bytes()
}

/// Returns rows of these lots, with `change` in each.
fn lot_rows(lots: std::ops::Range<u32>, change: u32) -> impl Iterator<Item = String> {
    lots.map(move |lot| row_text(lot, change))
}

async fn lot_status(pipeline: &Pipeline, lot: u32) -> String {
    let status = "select status from lots where lot_external_id = $1";
    sqlx::query_scalar(status).bind(lot.to_string()).fetch_one(pipeline.pool()).await.unwrap()
}

#[tokio::test]
async fn a_lot_whose_record_cannot_be_read_stays_in_the_feed() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    for n in 1..=4 {
        let rows = lot_rows(10_001..10_100, n).chain([unreadable_row(10_000)]);
        let chain = pipeline.run_chain(&file_bytes(rows), nth_window(n.into())).await;
        assert_eq!((chain.final_state(), chain.report_number("ingest", "/parse_errors")), ("applied", 1));
        assert_eq!(chain.report_number("ingest", "/gone"), 0, "window {n}");
        assert_eq!(chain.report_number("ingest", "/recognised_lots"), 100);
    }
    assert_eq!(lot_status(&pipeline, 10_000).await, "active");
    let head = "select count(*) from raw.heads where lot = 10000 and last_seen is null and absent_since is null";
    assert_eq!(pipeline.query_number(head).await, 1);
    let kept = "select count(*) from audit.parse_errors where convert_from(raw, 'UTF8') like '%,10000,%'";
    assert_eq!(pipeline.query_number(kept).await, 4);
    // once its record is missing, it is absent
    let chain = pipeline.run_chain(&file_bytes(lot_rows(10_001..10_100, 5)), nth_window(5)).await;
    assert_eq!(chain.report_number("ingest", "/gone"), 1);
}

#[tokio::test]
async fn an_absent_lot_is_back_in_the_feed_by_a_record_that_cannot_be_read() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    // twice without it, once with its unreadable record, twice without it: never three files in a row
    for (n, with) in [(1, false), (2, false), (3, true), (4, false), (5, false)] {
        let rows = lot_rows(10_001..10_100, n).chain(with.then(|| unreadable_row(10_000)));
        pipeline.run_chain(&file_bytes(rows), nth_window(n.into())).await;
        assert_eq!(lot_status(&pipeline, 10_000).await, "active", "window {n}");
    }
    pipeline.run_chain(&file_bytes(lot_rows(10_001..10_100, 6)), nth_window(6)).await;
    assert_eq!(lot_status(&pipeline, 10_000).await, "removed");
}

#[tokio::test]
async fn a_file_with_less_than_95_percent_of_its_lots_recognised_judges_no_absence() {
    for (nameless_rows, state) in [(5, "applied"), (6, "incomplete")] {
        let mut pipeline = Pipeline::new().await;
        pipeline.run_chain(&file_bytes(lot_rows(10_000..10_101, 0)), nth_window(0)).await;
        let rows = lot_rows(10_001..10_001 + 100 - nameless_rows, 1)
            .chain((0..nameless_rows).map(|n| row_without_number(20_000 + n)));
        let chain = pipeline.run_chain(&file_bytes(rows), nth_window(1)).await;
        assert_eq!(chain.final_state(), state, "{nameless_rows}");
        assert_eq!(chain.reports["ingest"]["complete"], json!(state == "applied"));
        assert_eq!(chain.reports["ingest"]["reason"].is_string(), state == "incomplete");
        assert_eq!(
            chain.report_number("upsert-lots", "/updated"),
            u64::from(100 - nameless_rows),
            "its rows are facts"
        );
        let absent = pipeline.query_number("select count(*) from raw.heads where absent_since is not null").await;
        assert_eq!(absent, if state == "applied" { 6 } else { 0 });
        let share = "select record_count || ' ' || recognised_lots || ' ' || coalesce(incomplete_reason, '-')
            from raw.csv_files order by file_no desc limit 1";
        let reason = if state == "applied" { "-" } else { "lots" };
        assert_eq!(pipeline.query_text(share).await, format!("100 {} {reason}", 100 - nameless_rows));
    }
}

#[tokio::test]
async fn a_file_with_less_than_half_of_its_lots_recognised_is_quarantined() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    let half = |named| lot_rows(10_000..10_000 + named, 1).chain((named..100).map(|n| row_without_number(20_000 + n)));
    let chain = pipeline.run_chain(&file_bytes(half(50)), nth_window(1)).await;
    assert_eq!(chain.final_state(), "incomplete");
    let before = pipeline.digest().await;
    let chain = pipeline.run_chain(&file_bytes(half(49)), nth_window(2)).await;
    assert_eq!(chain.final_state(), "quarantined");
    let why = "49 of 100 records have a recognised lot number, less than 50 %";
    assert_eq!(chain.reports["ingest"]["reason"], why);
    assert_eq!(pipeline.digest().await, before);
}

#[tokio::test]
async fn small_files_are_no_measure_for_each_other() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    for n in 1..=5 {
        let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_050, n)), nth_window(n.into())).await;
        assert_eq!(chain.final_state(), "incomplete", "window {n}");
    }
    let reasons = "select string_agg(coalesce(incomplete_reason, '-'), ' ' order by file_no) from raw.csv_files";
    assert_eq!(pipeline.query_text(reasons).await, "- size size size size size");
    assert_eq!(pipeline.query_number("select count(*) from lots where status = 'removed'").await, 0);
}

#[tokio::test]
async fn a_size_that_an_operator_accepts_is_what_the_files_after_it_are_compared_with() {
    let mut pipeline = Pipeline::new().await;
    let accept =
        "select outcome || ' ' || coalesce(row_count, 0) from fleet.accept_size('copart', 'nana', 'fewer yards')";
    assert_eq!(pipeline.query_text(accept).await, "unknown 0");
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    assert_eq!(pipeline.query_text(accept).await, "complete 100");
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_050, 1)), nth_window(1)).await;
    assert_eq!(pipeline.query_text(accept).await, "accepted 50");
    let noted = "select count(*) from audit.operator_actions where action = 'accept-size' and who = 'nana'
        and subject = 'copart' and reason = 'fewer yards' and details ->> 'rows' = '50'";
    assert_eq!(pipeline.query_number(noted).await, 1);
    // half of what was accepted is still too small
    let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_025, 2)), nth_window(2)).await;
    assert_eq!(chain.final_state(), "incomplete");
    for n in 3..=5 {
        let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_050, n)), nth_window(n.into())).await;
        assert_eq!(chain.final_state(), "applied", "window {n}");
    }
    assert_eq!(pipeline.query_number("select count(*) from lots where status = 'removed'").await, 50);
}

#[tokio::test]
async fn a_size_that_stays_for_24_hours_of_windows_is_accepted_by_itself() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    // a file that is incomplete for its lots begins the time anew
    let unnamed = lot_rows(10_000..10_040, 1).chain((0..10).map(|n| row_without_number(20_000 + n)));
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_050, 1)), nth_window(1)).await;
    pipeline.run_chain(&file_bytes(unnamed), nth_window(2)).await;
    for (n, state) in [(3, "incomplete"), (50, "incomplete"), (98, "incomplete"), (99, "applied"), (100, "applied")] {
        let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_050, n)), nth_window(n.into())).await;
        assert_eq!(chain.final_state(), state, "window {n}");
    }
    let accepted =
        "select size_accepted_rows || ' ' || (size_accepted_window at time zone 'UTC')::text from raw.sources";
    assert_eq!(pipeline.query_text(accepted).await, "50 2026-11-21 14:45:00");
    // a whole file again is complete, and of the next the median decides
    let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 101)), nth_window(101)).await;
    assert_eq!(chain.final_state(), "applied");
}

#[tokio::test]
async fn a_row_without_a_lot_number_is_stored_and_listed_once_and_new_once() {
    let mut pipeline = Pipeline::new().await;
    let with = |n: u32, nameless_rows: Vec<String>| file_bytes(lot_rows(10_000..10_100, n).chain(nameless_rows));
    let counts =
        |chain: &CompletedChain| ["/new", "/changed", "/unchanged"].map(|path| chain.report_number("ingest", path));
    let first = pipeline
        .run_chain(&with(0, vec![row_without_number(1), row_without_number(1), row_without_number(2)]), nth_window(0))
        .await;
    assert_eq!(counts(&first), [102, 0, 1], "the same row twice in one file is one");
    let again = pipeline.run_chain(&with(1, vec![row_without_number(2), row_without_number(1)]), nth_window(1)).await;
    assert_eq!(counts(&again), [0, 100, 2]);
    let away = pipeline.run_chain(&with(2, vec![row_without_number(3)]), nth_window(2)).await;
    assert_eq!(counts(&away), [1, 100, 0]);
    let back = pipeline.run_chain(&with(3, vec![row_without_number(1), row_without_number(3)]), nth_window(3)).await;
    assert_eq!(counts(&back), [0, 100, 2]);
    let versions = "select count(*) from raw.rows where payload_jsonb ->> 'Lot number' = ''";
    assert_eq!(pipeline.query_number(versions).await, 3);
    assert_eq!(pipeline.query_number("select count(*) from audit.skipped_lots").await, 3);
    // a late file with a row of its own and one that is known
    let late = pipeline.run_chain(&with(9, vec![row_without_number(1), row_without_number(4)]), nth_window(-1)).await;
    assert_eq!(
        (late.final_state(), late.report_number("ingest", "/new"), pipeline.query_number(versions).await),
        ("late", 1, 4)
    );
    // each file has all its rows, whichever file brought them
    let rows = "select string_agg(n::text, ' ' order by file_no) from (
        select f.file_no, count(*) as n from raw.file_rows r join raw.csv_files f using (file_id) group by 1) as t";
    assert_eq!(pipeline.query_text(rows).await, "103 102 101 102 102");

    // each month is complete: stored again, but neither new nor listed again
    let december = parse_time("2026-12-01T00:00:00Z");
    let month = pipeline.run_chain(&with(4, vec![row_without_number(1), row_without_number(2)]), december).await;
    assert_eq!(counts(&month), [0, 100, 2]);
    let month = pipeline
        .run_chain(&with(5, vec![row_without_number(1), row_without_number(2)]), december + Duration::minutes(15))
        .await;
    assert_eq!(counts(&month), [0, 100, 2]);
    assert_eq!(pipeline.query_number(versions).await, 6);
    assert_eq!(pipeline.query_number("select count(*) from audit.skipped_lots").await, 4);
    let of_month = "select count(*) from raw.file_rows r join raw.csv_files f using (file_id)
        where f.window_start_utc >= '2026-12-01' and payload_jsonb ->> 'Lot number' = ''";
    assert_eq!(pipeline.query_number(of_month).await, 4);
    // what was not seen for a month is forgotten
    assert_eq!(pipeline.query_number("select count(*) from raw.lotless_rows").await, 4);
    pipeline.run_chain(&with(6, vec![]), parse_time("2027-01-01T00:00:00Z")).await;
    assert_eq!(pipeline.query_number("select count(*) from raw.lotless_rows").await, 2);
}

#[tokio::test]
async fn values_that_cannot_be_read_are_counted_by_column_with_the_first_of_them() {
    let mut pipeline = Pipeline::new().await;
    let odd = |lot: u32, odometer: &str, updated: &str| format!("1,{lot},1HGCM82633A0{lot},{odometer},{updated},now");
    let long = "x".repeat(100);
    let rows = [odd(20_000, "N/A", "2026-11-20T10:00:00Z"), odd(20_001, &long, "never"), odd(20_002, "", "")];
    let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_020, 0).chain(rows)), nth_window(0)).await;
    let wanted = json!({
        "Odometer": { "count": 2, "first": "N/A" }, "Last Updated Time": { "count": 1, "first": "never" },
    });
    assert_eq!(chain.reports["ingest"]["unreadable"], wanted);
    assert_eq!(
        (chain.report_number("ingest", "/unreadable_values"), chain.report_number("ingest", "/staged")),
        (3, 23)
    );
    assert_eq!(chain.reports["ingest"]["column_drift"], json!([]));
    // an unchanged row was counted in its first file
    let chain = pipeline
        .run_chain(&file_bytes(lot_rows(10_000..10_020, 0).chain([odd(20_001, &long, "never")])), nth_window(1))
        .await;
    assert_eq!(
        (chain.report_number("ingest", "/unreadable_values"), chain.report_number("ingest", "/unchanged")),
        (0, 21)
    );
    let chain = pipeline
        .run_chain(&file_bytes(lot_rows(10_000..10_020, 0).chain([odd(20_003, &long, "")])), nth_window(2))
        .await;
    assert_eq!(chain.reports["ingest"]["unreadable"], json!({ "Odometer": { "count": 1, "first": "x".repeat(80) } }));
    let few = "select count(*) from fleet.metrics where metric = 'etl_unreadable_values_ratio'";
    assert_eq!(pipeline.query_number(few).await, 0, "fewer than 200 rows are only reported");
}

#[tokio::test]
async fn a_column_that_most_values_are_no_longer_read_of_has_drifted() {
    let mut pipeline = Pipeline::new().await;
    let odd = |lots: std::ops::Range<u32>, n: u32| {
        lots.map(move |lot| format!("1,{lot},1HGCM82633A0{lot},{n} miles,2026-11-20T10:00:00Z,now"))
    };
    let first = pipeline.run_chain(&file_bytes(odd(10_000..10_300, 0)), nth_window(0)).await;
    assert_eq!(first.reports["ingest"]["column_drift"], json!([]), "there is no file before");
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_300, 1)), nth_window(1)).await;
    let chain =
        pipeline.run_chain(&file_bytes(odd(10_000..10_201, 2).chain(lot_rows(10_201..10_300, 2))), nth_window(2)).await;
    assert_eq!(chain.final_state(), "applied", "its contract is to warn");
    let wanted = json!([{
        "column": "Odometer", "unreadable": 201, "rows": 300, "first": "2 miles", "policy": "warn",
    }]);
    assert_eq!(chain.reports["ingest"]["column_drift"], wanted);
    let figures = "select string_agg(metric || ' ' || (labels ->> 'column') || ' ' || value, ', ' order by metric)
        from fleet.metrics where metric in ('etl_column_drift', 'etl_unreadable_values_ratio')";
    assert_eq!(
        pipeline.query_text(figures).await,
        "etl_column_drift Odometer 1, etl_unreadable_values_ratio Odometer 0.67"
    );
    // it was unreadable in the last complete file: still unreadable, but not reported
    let chain = pipeline.run_chain(&file_bytes(odd(10_000..10_300, 3)), nth_window(3)).await;
    assert_eq!(chain.reports["ingest"]["column_drift"], json!([]));
    assert_eq!(chain.report_number("ingest", "/unreadable/Odometer/count"), 300);
}

#[tokio::test]
async fn a_key_column_that_most_rows_are_unreadable_in_quarantines_the_file() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0)), nth_window(0)).await;
    let before = pipeline.digest().await;
    let timed = |odd: u32, time: &str, change: u32| {
        let time = time.to_owned();
        file_bytes((10_000..10_100).map(move |lot| {
            let time = if lot < 10_000 + odd { time.as_str() } else { "2026-11-20T10:00:00Z" };
            format!("{lot},{lot},1HGCM82633A0{lot},{change},{time},now")
        }))
    };
    let chain = pipeline.run_chain(&timed(51, "20.11.2026 10 Uhr", 1), nth_window(1)).await;
    assert_eq!((chain.final_state(), pipeline.digest().await), ("quarantined", before));
    let why = "column \"Last Updated Time\" is unreadable in 51 of 100 rows, more than half";
    assert_eq!(chain.reports["ingest"]["reason"], why);
    assert_eq!(pipeline.query_text("select note from fleet.windows order by window_start_utc desc limit 1").await, why);
    let chain = pipeline.run_chain(&timed(50, "20.11.2026 10 Uhr", 2), nth_window(2)).await;
    assert_eq!(chain.final_state(), "applied", "half is not more than half");
    let chain = pipeline.run_chain(&timed(100, "", 3), nth_window(3)).await;
    assert_eq!(chain.final_state(), "applied", "an empty value can be read");
    // unreadable in the unchanged rows too: 60 of 100 rows, of which none is staged
    pipeline.run_chain(&timed(50, "20.11.2026 10 Uhr", 4), nth_window(4)).await;
    let grown =
        String::from_utf8(timed(50, "20.11.2026 10 Uhr", 4)).unwrap().lines().take(91).collect::<Vec<_>>().join("\n");
    let chain = pipeline.run_chain(grown.as_bytes(), nth_window(5)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/staged")), ("quarantined", 0));
    // VINs of no known form are read
    let trailers =
        file_bytes((10_000..10_100).map(|lot| format!("{lot},{lot},TRAILER {lot},1,2026-11-20T11:00:00Z,now")));
    let chain = pipeline.run_chain(&trailers, nth_window(6)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/skipped/vin_format")), ("applied", 100));
}

#[tokio::test]
async fn a_quarantined_file_keeps_the_first_5000_rejected_records_and_says_so() {
    let mut pipeline = Pipeline::new().await;
    let rows = lot_rows(10_000..10_010, 0).chain((0..5_003).map(|n| format!("{n},too,few")));
    let chain = pipeline.run_chain(&file_bytes(rows), nth_window(0)).await;
    assert_eq!((chain.final_state(), chain.report_number("ingest", "/parse_errors")), ("quarantined", 5_003));
    let reason = chain.reports["ingest"]["reason"].as_str().unwrap();
    assert!(reason.ends_with("; the first 5000 unreadable records are stored, 3 are not"), "{reason}");
    assert_eq!(pipeline.query_number("select count(*) from audit.parse_errors").await, 5_000);
    assert_eq!(pipeline.query_number("select max(row_no)::bigint from audit.parse_errors").await, 5_010);
}

#[tokio::test]
async fn each_missing_key_is_counted_by_itself() {
    let mut pipeline = Pipeline::new().await;
    let rows = [
        ",,".to_owned(),
        ",1HGCM82633A000001,".to_owned(),
        "20000,,".to_owned(),
        "20001,BOAT,".to_owned(),
        "LOT,,".to_owned(),
    ];
    let rows = lot_rows(10_000..10_095, 0).chain(rows.map(|row| format!("1,{row},2026-11-20T10:00:00Z,now")));
    let chain = pipeline.run_chain(&file_bytes(rows), nth_window(0)).await;
    assert_eq!(chain.reports["ingest"]["missing"], json!({ "vin": 3, "lot": 3 }));
    assert_eq!(
        chain.reports["ingest"]["skipped"],
        json!({ "vin_empty": 1, "vin_format": 1, "lot_missing": 3 }),
        "a row is skipped for one reason"
    );
    let rate = "select total_rows || ' ' || vin_null_count || ' ' || lot_null_count from audit.v_unknown_rate";
    assert_eq!(pipeline.query_text(rate).await, "100 3 3");
}

#[tokio::test]
async fn a_text_of_any_length_costs_its_row_and_not_the_window() {
    let mut pipeline = Pipeline::new().await;
    // random enough not to be compressed into an index entry
    let long: String =
        (0u32..40_000).map(|n| char::from(b'A' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
    let odd = |lot: &str, vin: &str, n: u32| format!("{n},{lot},{vin},1,2026-11-20T10:00:00Z,now");
    let rows = [odd(&long, "1HGCM82633A000001", 1), odd("20000", "", 2), odd("x", &long, 3)];
    let chain = pipeline.run_chain(&file_bytes(lot_rows(10_000..10_100, 0).chain(rows)), nth_window(0)).await;
    assert_eq!(chain.final_state(), "applied");
    assert_eq!(pipeline.query_number("select count(*) from lots").await, 100);
    assert_eq!(pipeline.query_number("select count(*) from audit.skipped_lots").await, 3);
    assert_eq!(pipeline.query_number("select max(length(vin_raw))::bigint from audit.skipped_lots").await, 40_000);
}
