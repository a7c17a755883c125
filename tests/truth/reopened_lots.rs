//! Closed lots that return in records of which only the lot number can be read.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};

const HEADER: &str =
    "Id,Lot number,VIN,Odometer,Last Updated Time,Create Date/Time,Sale Date M/D/CY,Sale time (HHMM),Time Zone";
/// A record that ends after the VIN.
const TORN_RECORD: &str = "10000,10000,1HGCM82633A010000";

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

/// Returns a row of a lot of five digits. `change` makes another version of it.
fn row_text(lot: u32, change: i64, sale: &str) -> String {
    format!("{lot},{lot},1HGCM82633A0{lot},{change},2026-11-20T10:00:00Z,now,{sale}")
}

/// Returns a file of 99 lots with a sale at 14:30, and this record before them.
fn file_bytes(change: i64, first: Option<&str>) -> Vec<u8> {
    let rows = (10_001..10_100).map(|lot| row_text(lot, change, SALE_CELLS));
    let rows: Vec<String> = first.map(str::to_owned).into_iter().chain(rows).collect();
    format!("{HEADER}\n{}\n", rows.join("\n")).into_bytes()
}

const SALE_CELLS: &str = "20261120,0930,EST";

async fn lot_status(pipeline: &Pipeline) -> String {
    pipeline.query_text("select status from lots where lot_external_id = '10000'").await
}

#[tokio::test]
async fn a_closed_lot_is_open_again_by_a_record_that_cannot_be_read() {
    let mut pipeline = Pipeline::new().await;
    let readable = row_text(10_000, 0, SALE_CELLS);
    let moves = "select string_agg(concat_ws(' ', old_status, new_status, reason), ', ' order by id)
        from audit.status_transitions where lot_external_id = '10000'";
    let pending = "active PENDING_RESULT absent_after_auction";
    pipeline.run_chain(&file_bytes(2, Some(&readable)), nth_window(2)).await;
    pipeline.run_chain(&file_bytes(10, None), nth_window(10)).await;
    assert_eq!(pipeline.query_text(moves).await, pending);
    let chain = pipeline.run_chain(&file_bytes(11, Some(TORN_RECORD)), nth_window(11)).await;
    assert_eq!((chain.final_state(), chain.report_number("detect-completion", "/returned")), ("applied", 1));
    assert_eq!(lot_status(&pipeline).await, "active");
    // it is in the feed: it stays unchanged, and is absent once its record is missing
    pipeline.run_chain(&file_bytes(12, Some(TORN_RECORD)), nth_window(12)).await;
    assert_eq!(lot_status(&pipeline).await, "active");
    pipeline.run_chain(&file_bytes(13, None), nth_window(13)).await;
    assert_eq!(pipeline.query_text(moves).await, format!("{pending}, PENDING_RESULT active seen_again, {pending}"));
    // a late file does not decide
    pipeline.run_chain(&file_bytes(9, Some(TORN_RECORD)), nth_window(9)).await;
    assert_eq!(lot_status(&pipeline).await, "PENDING_RESULT");
    // the row that it had before is not a change
    pipeline.run_chain(&file_bytes(14, Some(TORN_RECORD)), nth_window(14)).await;
    pipeline.run_chain(&file_bytes(15, Some(&readable)), nth_window(15)).await;
    assert_eq!(lot_status(&pipeline).await, "active");
    let changes = "select count(*) from audit.lot_conflicts where lot_external_id = '10000'";
    assert_eq!(pipeline.query_number(changes).await, 0);
}

#[tokio::test]
async fn a_removed_lot_is_scheduled_again_by_a_record_that_cannot_be_read() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(0, Some(&row_text(10_000, 0, "20261125,0930,EST"))), nth_window(0)).await;
    for n in 1..=3 {
        pipeline.run_chain(&file_bytes(n, None), nth_window(n)).await;
    }
    assert_eq!(lot_status(&pipeline).await, "removed");
    pipeline.run_chain(&file_bytes(4, Some(TORN_RECORD)), nth_window(4)).await;
    assert_eq!(lot_status(&pipeline).await, "scheduled");
}
