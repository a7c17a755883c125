//! Two sources with the same lot numbers, and a common vehicle.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use std::fmt::Write as _;

const LOT_COUNT: u32 = 1_000;

/// Returns a file of a thousand lots. The VINs are the source's own, except for the first, which both sources have.
fn file_bytes(letter: char, color: &str, lots: u32) -> Vec<u8> {
    let mut text =
        String::from("Id,Lot number,VIN,Color,Sale Date M/D/CY,Time Zone,Last Updated Time,Create Date/Time\n");
    for n in 0..lots {
        let letter = if n == 0 { 'Z' } else { letter };
        let color = if n == 1 { color } else { "RED" };
        let _ = writeln!(
            text,
            "{},{},1HGCM8263{letter}A{:06},{color},0,EST,2026-11-20T09:00:00Z,{letter}",
            n + 1,
            70_000_000 + n,
            n
        );
    }
    text.into_bytes()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

#[tokio::test]
async fn two_sources_with_the_same_lot_numbers_share_nothing_but_a_vehicle() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_sql("insert into fleet.sources (source) values ('other') on conflict do nothing").await;
    pipeline.run_chain(&file_bytes('A', "WHITE", LOT_COUNT), nth_window(0)).await;
    pipeline.source = "other";
    pipeline.run_chain(&file_bytes('B', "BLUE", LOT_COUNT), nth_window(0)).await;
    assert_eq!(pipeline.query_number("select count(*) from lots").await, 2_000);
    assert_eq!(pipeline.query_number("select count(*) from vehicles").await, 1_999);
    assert_eq!(pipeline.query_number("select count(*) from raw.heads").await, 2_000);
    let common = pipeline.query_text("select source || ' ' || source_lot from vehicles where vin like '%Z%'").await;
    assert_eq!(common, "other 70000000", "of equal update times the greater source stands");

    // a change in one source is not a change in the other
    pipeline.run_chain(&file_bytes('B', "BLACK", LOT_COUNT), nth_window(1)).await;
    let colors = pipeline
        .query_text(
            "select string_agg(l.source || ' ' || v.color, ', ' order by l.source)
            from lots l join vehicles v using (vin) where l.lot_external_id = '70000001'",
        )
        .await;
    assert_eq!(colors, "copart WHITE, other BLACK");
    let changes = pipeline.query_text(
        "select string_agg(distinct source, ' ') from audit.vehicle_changes where lot_external_id = '70000001'",
    );
    assert_eq!(changes.await, "other");

    // absence is judged for each source separately
    for n in 2..5 {
        let mut small = file_bytes('B', "BLACK", LOT_COUNT - 10);
        small.extend_from_slice(
            format!("{LOT_COUNT},{},1HGCM82633A999999,RED,0,EST,2026-11-20T09:00:00Z,{n}\n", 80_000_000 + n).as_bytes(),
        );
        pipeline.run_chain(&small, nth_window(n)).await;
    }
    let gone = pipeline
        .query_text("select string_agg(distinct source || ' ' || status, ', ') from lots where lot_external_id between '70000990' and '70000999'");
    assert_eq!(gone.await, "copart active, other removed");
    assert_eq!(pipeline.query_number("select count(*) from audit.status_transitions where source = 'copart'").await, 0);
}

#[tokio::test]
async fn what_makes_no_lot_and_what_cannot_be_read_is_noted_under_its_source() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_sql("insert into fleet.sources (source) values ('other') on conflict do nothing").await;
    for source in ["copart", "other"] {
        pipeline.source = source;
        let mut bytes = file_bytes('A', "RED", 100);
        bytes.extend_from_slice(format!("101,70000101,,RED,0,EST,2026-11-20T09:00:00Z,{source}\n").as_bytes());
        bytes.extend_from_slice(b"102,70000102,1HGCM82633A999999,RED,0,EST,2026-11-20T09:00:00Z,A,too,many\n");
        pipeline.run_chain(&bytes, nth_window(0)).await;
    }
    let skipped = "select string_agg(concat_ws(' ', source, lot_external_id, reason), ', ' order by source) from audit.skipped_lots";
    assert_eq!(pipeline.query_text(skipped).await, "copart 70000101 vin_empty, other 70000101 vin_empty");
    let rejected = "select string_agg(concat_ws(' ', source, row_no), ', ' order by source) from audit.parse_errors";
    assert_eq!(pipeline.query_text(rejected).await, "copart 102, other 102");
}
