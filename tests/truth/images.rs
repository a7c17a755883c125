//! Picture links follow the greatest row. They are looked up only if that row has other links than the one before.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};

/// Returns a file of one line per lot: its number, VIN, thumbnail, listing and cost of repair.
fn file_bytes(rows: &[(u32, &str, &str, &str, u32)]) -> Vec<u8> {
    let mut text =
        String::from("Id,Lot number,VIN,Image Thumbnail,Image URL,Repair cost,Last Updated Time,Create Date/Time\n");
    for (n, (lot, vin, thumbnail, listing, cost)) in rows.iter().enumerate() {
        text += &format!("{},{lot},{vin},{thumbnail},{listing},{cost},2026-11-20T10:00:00Z,now\n", n + 1);
    }
    text.into_bytes()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

#[tokio::test]
async fn a_first_fill_leaves_statistics_for_the_planner() {
    let mut pipeline = Pipeline::new().await;
    let rows =
        [(10_001, FIRST_VIN, "https://a/1", "https://b/1", 1), (10_002, THIRD_VIN, "https://a/3", "https://b/3", 1)];
    pipeline.run_chain(&file_bytes(&rows), nth_window(0)).await;
    let tables = pipeline
        .query_text(
            "select string_agg(distinct tablename, ' ' order by tablename) from pg_stats
            where schemaname = 'public' and tablename in ('images', 'lots', 'vehicles')",
        )
        .await;
    assert_eq!(tables, "images lots vehicles");
}

const FIRST_VIN: &str = "1HGCM82633A004351";
const SECOND_VIN: &str = "1HGCM82633A004352";
const THIRD_VIN: &str = "1HGCM82633A004353";

/// Returns lot, the VIN's last digit and the link without its scheme of each open link, and how many links are closed.
async fn open_images(pipeline: &Pipeline) -> (String, i64) {
    let output = pipeline
        .query_text(
            "select string_agg(
              concat_ws(' ', l.lot_external_id, right(i.vin, 1), i.variant, substr(i.source_url, 9)), ', '
              order by l.lot_external_id, i.vin, i.variant)
            from images i join lots l on l.id = i.lot_id
            where i.valid_until is null",
        )
        .await;
    (output, pipeline.query_number("select count(*) from images where valid_until is not null").await)
}

#[tokio::test]
async fn a_lots_pictures_are_those_of_the_row_that_stands() {
    let mut pipeline = Pipeline::new().await;
    let first =
        [(10_001, FIRST_VIN, "t1", "l1", 10), (10_002, SECOND_VIN, "t2", "l2", 10), (10_003, THIRD_VIN, "", "", 10)];
    pipeline.run_chain(&file_bytes(&first), nth_window(0)).await;
    let begun = "10001 1 listing l1, 10001 1 thumbnail t1, 10002 2 listing l2, 10002 2 thumbnail t2";
    assert_eq!(open_images(&pipeline).await, (begun.to_owned(), 0));

    // another cost, another thumbnail, the first links, a new lot
    let next = [
        (10_001, FIRST_VIN, "t1", "l1", 20),
        (10_002, SECOND_VIN, "t9", "l2", 10),
        (10_003, THIRD_VIN, "t3", "", 10),
        (10_004, FIRST_VIN, "t4", "l4", 10),
    ];
    pipeline.run_chain(&file_bytes(&next), nth_window(1)).await;
    let now = "10001 1 listing l1, 10001 1 thumbnail t1, 10002 2 listing l2, 10002 2 thumbnail t9, \
        10003 3 thumbnail t3, 10004 1 listing l4, 10004 1 thumbnail t4";
    assert_eq!(open_images(&pipeline).await, (now.to_owned(), 1));

    // the same links of another vehicle, and a missing link: the former links are closed
    let last = [(10_001, SECOND_VIN, "t1", "l1", 20), (10_002, SECOND_VIN, "", "l2", 10)];
    pipeline.run_chain(&file_bytes(&last), nth_window(2)).await;
    let now = "10001 2 listing l1, 10001 2 thumbnail t1, 10002 2 listing l2, 10003 3 thumbnail t3, \
        10004 1 listing l4, 10004 1 thumbnail t4";
    assert_eq!(open_images(&pipeline).await, (now.to_owned(), 4));
}
