//! Values that cannot be read, and update times that cannot be right, in any order of files.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use vinops::db::digest::DataDigest;
use vinops::db::history;
use vinops::taxonomy::AliasIndex;

/// Returns a file of one lot beside a constant one. Empty cells are empty.
fn file_bytes(clock: u32, row: &str) -> Vec<u8> {
    format!(
        "Id,Lot number,VIN,Year,Odometer,Odometer Brand,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Yard name,\
         \"High Bid =non-vix,Sealed=Vix\",Currency Code,Image Thumbnail,Last Updated Time,Create Date/Time\n\
         1,70000001,1HGCM82633A000001,2015,10.0,A,0,0,EST,NJ - TRENTON,1.0,USD,a.jpg,2026-11-20T01:00:00Z,{clock}\n\
         2,70000002,1HGCM82633A000002,{row},{clock}\n"
    )
    .into_bytes()
}

fn nth_window(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n)
}

/// Year, odometer, sale, bid, update time.
const ROWS: [&str; 5] = [
    "2016,60019.0,A,20261211,1000,EST,NJ - TRENTON,900.0,USD,t0.jpg,2026-11-20T10:00:00Z",
    // nothing but the picture can be read
    "2O16,6oo19,N,soon,1000,EST,CA - VALLEJO,nine,USD,t1.jpg,2026-11-20T11:00:00Z",
    // an update time of another year
    "2016,60020.0,A,20261212,1000,EST,NJ - TRENTON,950.0,USD,t2.jpg,2062-11-20T12:00:00Z",
    // older than the second, with a value that the second lacks
    "2017,60021.0,E,20261213,1000,EST,NJ - TRENTON,975.0,USD,t3.jpg,2026-11-20T10:30:00Z",
    // an update time that cannot be read
    "2018,60022.0,A,20261214,1000,EST,NJ - TRENTON,,USD,t4.jpg,yesterday",
];

async fn read_lot(pipeline: &Pipeline) -> String {
    pipeline
        .query_text(
            "select concat_ws(' ', v.year, v.odometer_value, l.odometer, l.odometer_brand, l.sale_date_raw, l.yard_name,
              l.current_bid_usd, to_char(l.version_at at time zone 'UTC', 'HH24:MI'), l.carried_columns is not null)
            from lots l join vehicles v using (vin) where l.lot_external_id = '70000002'",
        )
        .await
}

async fn run_in_order(order: &[usize]) -> (DataDigest, String) {
    let mut pipeline = Pipeline::new().await;
    for n in order {
        pipeline.run_chain(&file_bytes(*n as u32, ROWS[*n]), nth_window(*n as i64)).await;
    }
    (pipeline.digest().await, read_lot(&pipeline).await)
}

#[tokio::test]
async fn a_value_that_cannot_be_read_replaces_none_that_is_known() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(0, ROWS[0]), nth_window(0)).await;
    pipeline.run_chain(&file_bytes(1, ROWS[1]), nth_window(1)).await;
    assert_eq!(
        read_lot(&pipeline).await,
        "2016 60019 60019.0 A 20261211 NJ - TRENTON 900.00 11:00 t",
        "the odometer with its brand, the date with its yard"
    );
    let picture = "select source_url from images i join lots l on l.id = i.lot_id
        where l.lot_external_id = '70000002' and i.valid_until is null";
    assert_eq!(pipeline.query_text(picture).await, "https://t1.jpg", "what can be read is the newest");
    // a late version with a readable value
    pipeline.run_chain(&file_bytes(3, ROWS[3]), nth_window(-1)).await;
    assert_eq!(read_lot(&pipeline).await, "2017 60021 60021.0 E 20261213 NJ - TRENTON 975.00 11:00 t");
    let logged = pipeline.query_text(
        "select changes #>> '{odometer}' from audit.lot_conflicts where lot_external_id = '70000002' order by id desc limit 1");
    assert_eq!(logged.await, "[60019.0, 60021.0]");
}

#[tokio::test]
async fn an_update_time_that_cannot_be_right_is_that_of_the_first_window() {
    let mut pipeline = Pipeline::new().await;
    pipeline.run_chain(&file_bytes(2, ROWS[2]), nth_window(2)).await;
    assert_eq!(read_lot(&pipeline).await, "2016 60020 60020.0 A 20261212 NJ - TRENTON 950.00 14:30 f");
    // an earlier window contained it too, which decides its place
    pipeline.run_chain(&file_bytes(20, ROWS[2]), nth_window(0)).await;
    assert!(read_lot(&pipeline).await.ends_with("14:00 f"), "{}", read_lot(&pipeline).await);
    // and a window of today is newer
    let today = "2019,70000.0,A,0,0,EST,NJ - TRENTON,1000.0,USD,t.jpg,2026-11-20T14:40:00Z";
    pipeline.run_chain(&file_bytes(3, today), nth_window(3)).await;
    assert_eq!(read_lot(&pipeline).await, "2019 70000 70000.0 A NJ - TRENTON 1000.00 14:40 f");
}

#[tokio::test]
async fn a_version_that_comes_back_once_its_update_time_has_passed_keeps_its_place() {
    let ahead = "2016,60019.0,A,0,0,EST,NJ - TRENTON,900.0,USD,t0.jpg,2026-11-22T00:00:00Z";
    let usual = "2017,60020.0,A,0,0,EST,NJ - TRENTON,950.0,USD,t1.jpg,2026-11-20T14:10:00Z";
    let files = [(ahead, 0), (usual, 1), (ahead, 4 * 72)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut pipeline = Pipeline::new().await;
        for n in order {
            let (row, window) = files[n];
            pipeline.run_chain(&file_bytes(n as u32, row), nth_window(window)).await;
        }
        // its first window began before the other version was written
        let stands = read_lot(&pipeline).await;
        assert!(stands.starts_with("2017 60020 60020.0 A NJ - TRENTON 950.00 14:10"), "{order:?}: {stands}");
    }
}

#[tokio::test]
async fn any_order_of_files_with_such_values_gives_the_same_lots_vehicles_and_pictures() {
    let (digest, output) = run_in_order(&[0, 1, 2, 3, 4]).await;
    for order in [[4, 3, 2, 1, 0], [1, 0, 4, 2, 3], [2, 4, 0, 3, 1], [3, 1, 4, 0, 2], [0, 2, 1, 4, 3]] {
        assert_eq!(run_in_order(&order).await, (digest.clone(), output.clone()), "{order:?}");
    }
}

#[tokio::test]
async fn a_vehicle_knows_what_a_lot_said_of_it_that_has_another_vin_now() {
    for column in ["VIN", "Vin"] {
        // lot, last digit of the VIN, year, update time
        let file = |clock: u32, rows: &[(u32, u8, &str, &str)]| {
            let mut text = format!("Id,Lot number,{column},Year,Last Updated Time,Create Date/Time\n");
            for (n, (lot, vin, year, updated)) in rows.iter().enumerate() {
                text += &format!("{},{lot},1HGCM82633A00000{vin},{year},2026-11-20T{updated}:00Z,{clock}\n", n + 1);
            }
            text.into_bytes()
        };
        let others = (70_000_002, 2, "2018", "10:20");
        let files = [
            file(0, &[(70_000_001, 1, "2016", "10:00"), (70_000_002, 1, "2017", "10:10")]),
            file(1, &[(70_000_001, 1, "2016", "10:00"), others]),
            file(2, &[(70_000_001, 1, "2O16", "10:30"), others]),
            file(3, &[(70_000_001, 1, "2o16", "10:40"), others]),
            // a lot that the file holds twice, the lesser row with the VIN
            file(
                4,
                &[
                    (70_000_001, 1, "2o16", "10:40"),
                    others,
                    (70_000_003, 3, "2020", "10:20"),
                    (70_000_003, 1, "2019", "10:15"),
                ],
            ),
            file(5, &[(70_000_001, 1, "2o17", "10:50"), others, (70_000_003, 3, "2020", "10:20")]),
        ];
        for (order, expected) in [
            (vec![0, 1, 2, 3], "2017 2018"),
            (vec![1, 2, 0, 3], "2017 2018"),
            (vec![3, 2, 1, 0], "2017 2018"),
            (vec![0, 1, 2, 3, 4, 5], "2019 2018 2020"),
            (vec![5, 4, 3, 2, 1, 0], "2019 2018 2020"),
        ] {
            let mut pipeline = Pipeline::new().await;
            for n in &order {
                pipeline.run_chain(&files[*n], nth_window(*n as i64)).await;
            }
            let years = "select string_agg(year::text, ' ' order by vin) from vehicles";
            assert_eq!(pipeline.query_text(years).await, expected, "{column} {order:?}");
        }
    }
}

/// The row of each window's file. Some rows return.
const ROW_ORDER: [usize; 8] = [0, 1, 2, 1, 3, 4, 2, 1];

/// Returns the lot and its vehicle as stored.
async fn read_stored(pipeline: &Pipeline) -> String {
    pipeline
        .query_text(
            r#"select concat_ws(' ', v.year, l.odometer, l.odometer_unit, l.odometer_brand, l.auction_datetime_utc at time zone 'UTC',
              l.yard_name, l.current_bid_usd, l.currency_code, i.source_url)
            from lots l join vehicles v using (vin)
            join images i on i.lot_id = l.id and i.valid_until is null and i.variant = 'thumbnail'
            where l.lot_external_id = '70000002'"#,
        )
        .await
}

/// Returns the lot and its vehicle at a time as the history computes them, and the carried columns.
async fn read_lot_at(pipeline: &Pipeline, time: DateTime<Utc>) -> (String, Vec<&'static str>) {
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let stood = history::lot_at(&mut connection, None, "70000002", time, AliasIndex::built_in()).await.unwrap();
    let s = stood.unwrap().standing.unwrap();
    let values = [
        s.year.map(|year| year.to_string()),
        s.odometer,
        s.odometer_unit,
        s.odometer_brand.and_then(|brand| brand.raw),
        s.auction_datetime_utc.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()),
        s.yard_name,
        s.current_bid.map(|bid| bid.amount),
        s.currency_code,
        s.thumbnail_url,
    ];
    (values.into_iter().flatten().collect::<Vec<_>>().join(" "), s.carried)
}

/// Returns the names of the columns that are stored as carried.
async fn carried_columns(pipeline: &Pipeline) -> Vec<&'static str> {
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let output =
        history::lot_history(&mut connection, None, "70000002", AliasIndex::built_in()).await.unwrap().unwrap();
    output.carried
}

fn sorted(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_lot_is_said_to_have_stood_as_it_did_had_its_files_come_in_order() {
    let story = |n: usize| file_bytes(n as u32, ROWS[ROW_ORDER[n]]);
    let mut pipeline = Pipeline::new().await;
    let mut then = Vec::new();
    for n in 0..ROW_ORDER.len() {
        pipeline.run_chain(&story(n), nth_window(n as i64)).await;
        then.push((read_stored(&pipeline).await, sorted(carried_columns(&pipeline).await)));
    }
    assert_eq!(then[1].0, "2016 60019.0 mi A 2026-12-11 15:00:00 NJ - TRENTON 900.00 USD https://t1.jpg");
    assert!(then[1].1.contains(&"odometer") && then[1].1.contains(&"year") && then[0].1.is_empty(), "{then:?}");
    assert!(then.iter().any(|(lot, _)| *lot != then[1].0));
    for order in
        [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [4, 0, 7, 2, 6, 1, 5, 3], [6, 3, 1, 0, 5, 7, 2, 4]]
    {
        let mut pipeline = Pipeline::new().await;
        for n in order {
            pipeline.run_chain(&story(n), nth_window(n as i64)).await;
        }
        for (n, (lot, values)) in then.iter().enumerate() {
            let (output, said) = read_lot_at(&pipeline, nth_window(n as i64)).await;
            assert_eq!((&output, &sorted(said)), (lot, values), "window {n} of {order:?}");
        }
        let (now, said) = read_lot_at(&pipeline, nth_window(100)).await;
        assert_eq!(
            (now, sorted(said)),
            (read_stored(&pipeline).await, sorted(carried_columns(&pipeline).await)),
            "now, of {order:?}"
        );
    }
}
