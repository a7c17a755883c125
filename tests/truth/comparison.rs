//! Stored lots and vehicles against the fold of the stored versions: equal after any story, and each damaged row is
//! named.

use crate::pipeline::{Pipeline, parse_time};
use chrono::Duration;

/// Lot, VIN, make, bid, thumbnail, update time.
type ComparedRow = (u32, &'static str, &'static str, &'static str, &'static str, &'static str);

const SHARED_VIN: &str = "1HGCM82633A004352";

fn file_bytes(clock: u32, rows: &[ComparedRow]) -> Vec<u8> {
    let mut text = String::from(
        "Id,Lot number,VIN,Make,\"High Bid =non-vix,Sealed=Vix\",Currency Code,Image Thumbnail,Last Updated Time,Create Date/Time\n",
    );
    for (n, (lot, vin, make, bid, picture, updated)) in rows.iter().enumerate() {
        text += &format!("{},{lot},{vin},{make},{bid},USD,{picture},{updated},{clock}\n", n + 1);
    }
    text.into_bytes()
}

/// Applies three windows, the last of them late: a shared vehicle under two notations, a bid that cannot be read, an
/// update time that cannot be right, a lot whose VIN changes.
async fn comparison_pipeline() -> Pipeline {
    let (one, two, three) = ("2026-11-20T01:00:00Z", "2026-11-20T02:00:00Z", "2062-11-20T03:00:00Z");
    let mut pipeline = Pipeline::new().await;
    for (n, rows) in [
        (
            0,
            &[
                (70_000_001, SHARED_VIN, "HOND", "900.0", "a.jpg", one),
                (70_000_002, "1hgcm82633a0o04352", "TOYT", "1.0", "b.jpg", one),
                (70_000_003, "5YJ3E1EA7KF317003", "TESL", "3.0", "c.jpg", one),
            ][..],
        ),
        (
            2,
            &[
                (70_000_001, SHARED_VIN, "HOND", "nine", "a2.jpg", two),
                (70_000_003, "5YJ3E1EA7KF317004", "TESL", "4.0", "c.jpg", three),
            ][..],
        ),
        (1, &[(70_000_001, SHARED_VIN, "HOND", "950.0", "a1.jpg", "2026-11-20T01:30:00Z")][..]),
    ] {
        pipeline
            .run_chain(&file_bytes(n, rows), parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * i64::from(n)))
            .await;
    }
    pipeline
}

#[tokio::test]
async fn rows_that_nobody_touched_are_what_the_versions_say() {
    let pipeline = comparison_pipeline().await;
    let (counts, found) = pipeline.compare_lots().await;
    assert_eq!((counts.lots, found), (3, Vec::<String>::new()));
    assert!(counts.vehicles >= 3, "the one of the former VIN too: {counts:?}");
}

#[tokio::test]
async fn each_row_that_was_spoiled_is_named_and_no_other() {
    for (statement, expected) in [
        (
            "update lots set current_bid_usd = 1 where lot_external_id = '70000001'",
            "value lots copart/70000001 current_bid_usd 1.0 950.0 14:30",
        ),
        (
            "update lots set carried_columns = null where lot_external_id = '70000001'",
            "value lots copart/70000001 carried_columns null [\"current_bid_usd\"] 14:30",
        ),
        (
            "update vehicles set make = 'MADE UP' where vin = '1HGCM82633A004352'",
            "value vehicles 1HGCM82633A004352 make \"MADE UP\" \"HOND\" 14:30",
        ),
        (
            "update vehicles set year = 1999 where vin = '5YJ3E1EA7KF317003'",
            "value vehicles 5YJ3E1EA7KF317003 year 1999 null 14:00",
        ),
        (
            "update images set source_url = 'https://x.jpg' where valid_until is null and lot_id =
               (select id from lots where lot_external_id = '70000001')",
            "value images copart/70000001 thumbnail \"https://x.jpg\" \"https://a2.jpg\" 14:30",
        ),
        (
            "delete from images where lot_id = (select id from lots where lot_external_id = '70000002')",
            "missing images copart/70000002 thumbnail null \"https://b.jpg\" 14:00",
        ),
        (
            "delete from images where lot_id = (select id from lots where lot_external_id = '70000002');
             delete from lots where lot_external_id = '70000002'",
            "missing lots copart/70000002  null null 14:00",
        ),
        (
            "delete from images where vin = '5YJ3E1EA7KF317003'; delete from vehicles where vin = '5YJ3E1EA7KF317003'",
            "missing vehicles 5YJ3E1EA7KF317003  null null 14:00",
        ),
        (
            "insert into lots (source, lot_external_id, vin, row_hash)
               values ('copart', '70000009', '1HGCM82633A004352', gen_random_uuid())",
            "unfounded lots copart/70000009  null null ",
        ),
        (
            "insert into vehicles (vin, row_hash) values ('1HGCM82633A004399', gen_random_uuid())",
            "unfounded vehicles 1HGCM82633A004399  null null ",
        ),
    ] {
        let pipeline = comparison_pipeline().await;
        pipeline.run_sql(statement).await;
        let (counts, found) = pipeline.compare_lots().await;
        assert_eq!(found, [expected], "{statement}");
        assert_eq!(counts.differences, 1);
    }
}

#[tokio::test]
async fn what_the_feed_did_not_make_and_what_is_under_way_is_left_out() {
    let pipeline = comparison_pipeline().await;
    pipeline.run_sql("insert into vehicles (vin, make) values ('1HGCM82633A004399', 'BY HAND')").await;
    pipeline
        .run_sql("insert into lots (source, lot_external_id, vin) values ('copart', 'B-7', '1HGCM82633A004399')")
        .await;
    pipeline.run_sql("update lots set is_removed = true, status = 'removed'").await;
    assert_eq!(pipeline.compare_lots().await.1, Vec::<String>::new());
    // between ingest and detect-completion, a window's rows are stored and not applied
    pipeline.run_sql("update lots set current_bid_usd = 1 where lot_external_id = '70000003'").await;
    pipeline
        .run_sql("update raw.sightings set state = 'ingested' where window_start_utc = '2026-11-20T14:30:00Z'")
        .await;
    let (counts, found) = pipeline.compare_lots().await;
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(counts.lots, 1, "the second lot alone is not of that window");
    assert!(counts.under_way >= 2, "{counts:?}");
}
