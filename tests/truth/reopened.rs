//! Closed lots that return in records of which only the lot number can be read.

use crate::chain::{House, at};
use chrono::{DateTime, Duration, Utc};

const HEADER: &str = "Id,Lot number,VIN,Odometer,Last Updated Time,Create Date/Time,Sale Date M/D/CY,Sale time (HHMM),Time Zone";
/// A record that ends after the VIN.
const TORN: &str = "10000,10000,1HGCM82633A010000";

fn quarter(n: i64) -> DateTime<Utc> {
    at("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

/// Returns a row of a lot of five digits. `change` makes another version of it.
fn row(lot: u32, change: i64, sale: &str) -> String {
    format!("{lot},{lot},1HGCM82633A0{lot},{change},2026-11-20T10:00:00Z,now,{sale}")
}

/// Returns a file of 99 lots with a sale at 14:30, and this record before them.
fn file(change: i64, first: Option<&str>) -> Vec<u8> {
    let rows = (10_001..10_100).map(|lot| row(lot, change, SALE));
    let rows: Vec<String> = first.map(str::to_owned).into_iter().chain(rows).collect();
    format!("{HEADER}\n{}\n", rows.join("\n")).into_bytes()
}

const SALE: &str = "20261120,0930,EST";

async fn status(house: &House) -> String {
    house.text("select status from lots where lot_external_id = '10000'").await
}

#[tokio::test]
async fn a_closed_lot_is_open_again_by_a_record_that_cannot_be_read() {
    let mut house = House::new().await;
    let readable = row(10_000, 0, SALE);
    let moves = "select string_agg(concat_ws(' ', old_status, new_status, reason), ', ' order by id)
        from audit.status_transitions where lot_external_id = '10000'";
    let pending = "active PENDING_RESULT absent_after_auction";
    house.chain(&file(2, Some(&readable)), quarter(2)).await;
    house.chain(&file(10, None), quarter(10)).await;
    assert_eq!(house.text(moves).await, pending);
    let chain = house.chain(&file(11, Some(TORN)), quarter(11)).await;
    assert_eq!((chain.state(), chain.count("detect-completion", "/returned")), ("applied", 1));
    assert_eq!(status(&house).await, "active");
    // it is in the feed: it stays unchanged, and is absent once its record is missing
    house.chain(&file(12, Some(TORN)), quarter(12)).await;
    assert_eq!(status(&house).await, "active");
    house.chain(&file(13, None), quarter(13)).await;
    assert_eq!(house.text(moves).await, format!("{pending}, PENDING_RESULT active seen_again, {pending}"));
    // a late file does not decide
    house.chain(&file(9, Some(TORN)), quarter(9)).await;
    assert_eq!(status(&house).await, "PENDING_RESULT");
    // the row that it had before is not a change
    house.chain(&file(14, Some(TORN)), quarter(14)).await;
    house.chain(&file(15, Some(&readable)), quarter(15)).await;
    assert_eq!(status(&house).await, "active");
    let changes = "select count(*) from audit.lot_conflicts where lot_external_id = '10000'";
    assert_eq!(house.number(changes).await, 0);
}

#[tokio::test]
async fn a_removed_lot_is_scheduled_again_by_a_record_that_cannot_be_read() {
    let mut house = House::new().await;
    house.chain(&file(0, Some(&row(10_000, 0, "20261125,0930,EST"))), quarter(0)).await;
    for n in 1..=3 {
        house.chain(&file(n, None), quarter(n)).await;
    }
    assert_eq!(status(&house).await, "removed");
    house.chain(&file(4, Some(TORN)), quarter(4)).await;
    assert_eq!(status(&house).await, "scheduled");
}
