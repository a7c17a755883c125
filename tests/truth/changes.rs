//! Sources with their own mapping: one that sends changes only, and one that quarantines a file whose column drifts.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use std::collections::BTreeMap;
use std::sync::Once;
use vinops::auction::mapping::{self, SourceMapping};
use vinops::db::history::{self, FeedPresence};
use vinops::taxonomy::AliasIndex;

/// A source that sends changes only.
const CHANGES_SOURCE: &str = "changes";
/// A source whose file is quarantined if the format of its odometers changes.
const STRICT_SOURCE: &str = "strict";

/// Installs the mappings of these sources, which are Copart's except for one field. A process installs them once.
fn install_mappings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let copart = include_str!("../../src/auction/mappings/copart.json");
        let changed = |from: &str, to: &str| {
            assert!(copart.contains(from), "{from}");
            SourceMapping::parse(&copart.replacen(from, to, 1)).unwrap()
        };
        let refuse = "\"default_currency\": null, \"drift\": { \"odometer\": \"refuse\" }";
        let mappings = BTreeMap::from([
            (CHANGES_SOURCE.to_owned(), changed("\"snapshot\"", "\"changes\"")),
            (STRICT_SOURCE.to_owned(), changed("\"default_currency\": null", refuse)),
        ]);
        assert!(mapping::install_mappings(mappings));
    });
}

async fn pipeline_of(source: &'static str) -> Pipeline {
    install_mappings();
    let mut pipeline = Pipeline::new().await;
    sqlx::query("insert into fleet.sources (source) values ($1)").bind(source).execute(pipeline.pool()).await.unwrap();
    pipeline.source = source;
    pipeline
}

fn hour_time(n: i64) -> DateTime<Utc> {
    parse_time("2026-11-20T14:00:00Z") + Duration::hours(n)
}

/// Returns a row of a lot of five digits, sold at this time of November 20 in New York.
fn row_text(lot: u32, miles: &str, sale: u32) -> String {
    format!("{lot},{lot},1HGCM82633A0{lot},{miles},20261120,{sale},EST,2026-11-20T10:00:00Z")
}

fn file_bytes(clock: u32, rows: impl IntoIterator<Item = String>) -> Vec<u8> {
    let rows: Vec<String> = rows.into_iter().map(|row| format!("{row},{clock}\n")).collect();
    let header =
        "Id,Lot number,VIN,Odometer,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Last Updated Time,Create Date/Time";
    format!("{header}\n{}", rows.concat()).into_bytes()
}

async fn read_statuses(pipeline: &Pipeline) -> String {
    pipeline
        .query_text(
            "select string_agg(status || ' ' || lots, ', ' order by status)
            from (select status, count(*) as lots from lots group by status) s",
        )
        .await
}

#[tokio::test]
async fn of_a_source_that_sends_changes_no_lot_is_ever_absent() {
    let mut pipeline = pipeline_of(CHANGES_SOURCE).await;
    // the sales of the first hundred were an hour before the first window, those of the others are after the second
    let first =
        (10_000..10_100).map(|lot| row_text(lot, "1", 800)).chain((10_100..10_200).map(|lot| row_text(lot, "1", 1030)));
    assert_eq!(pipeline.run_chain(&file_bytes(0, first), hour_time(0)).await.final_state(), "applied");
    assert_eq!(read_statuses(&pipeline).await, "active 100, scheduled 100");
    for n in 1..=5 {
        // one lot changes, and none of the others is in the file
        let chain =
            pipeline.run_chain(&file_bytes(n, [row_text(10_000, &format!("{n}0"), 800)]), hour_time(n.into())).await;
        assert_eq!(chain.final_state(), "applied", "window {n}");
        assert_eq!(
            (chain.report_number("ingest", "/gone"), chain.report_number("ingest", "/changed")),
            (0, 1),
            "window {n}"
        );
        for kind in ["pending_result", "removed"] {
            assert_eq!(chain.report_number("detect-completion", &format!("/{kind}")), 0, "window {n}");
        }
    }
    // the newest file again, two hours later
    assert_eq!(
        pipeline.run_chain(&file_bytes(5, [row_text(10_000, "50", 800)]), hour_time(7)).await.final_state(),
        "unchanged"
    );
    // a late one, with a lot that no other file has
    assert_eq!(
        pipeline
            .run_chain(&file_bytes(9, [row_text(10_999, "1", 800)]), hour_time(0) + Duration::minutes(15))
            .await
            .final_state(),
        "late"
    );
    assert_eq!(
        pipeline.run_chain(&file_bytes(8, [row_text(10_001, "8", 800)]), hour_time(8)).await.final_state(),
        "applied"
    );
    assert_eq!(read_statuses(&pipeline).await, "active 201");
    let reasons = "select string_agg(distinct reason, ' ') from audit.status_transitions";
    assert_eq!(pipeline.query_text(reasons).await, "sale_time_come");
    assert_eq!(pipeline.query_number("select count(*) from raw.heads where absent_since is not null").await, 0);
    assert_eq!(pipeline.query_number("select count(*) from audit.v_open_lots_absent").await, 0);
    assert_eq!(pipeline.query_number("select count(*) from raw.lot_sightings where in_feed").await, 201);
    let mut connection = pipeline.pool().acquire().await.unwrap();
    for (lot, odometer) in [("10000", "50.0"), ("10001", "8.0"), ("10002", "1.0"), ("10999", "1.0")] {
        let stood = history::lot_at(&mut connection, Some(CHANGES_SOURCE), lot, hour_time(8), AliasIndex::built_in())
            .await
            .unwrap();
        let stood = stood.unwrap();
        let miles = stood.standing.and_then(|standing| standing.odometer);
        assert_eq!((stood.presence, miles.as_deref()), (FeedPresence::InFeed, Some(odometer)), "lot {lot}");
    }
}

#[tokio::test]
async fn a_file_of_changes_whose_lot_numbers_are_not_recognised_is_incomplete() {
    let mut pipeline = pipeline_of(CHANGES_SOURCE).await;
    pipeline.run_chain(&file_bytes(0, (10_000..10_100).map(|lot| row_text(lot, "1", 800))), hour_time(0)).await;
    let nameless = ",,1HGCM82633A099999,1,20261120,800,EST,2026-11-20T10:00:00Z".to_owned();
    let some = (10_000..10_009).map(|lot| row_text(lot, "2", 800)).chain([nameless]);
    assert_eq!(pipeline.run_chain(&file_bytes(1, some), hour_time(1)).await.final_state(), "incomplete");
}

#[tokio::test]
async fn any_order_of_files_of_changes_gives_the_same_lots() {
    let files = [
        file_bytes(0, [row_text(10_000, "1", 800), row_text(10_001, "1", 800), row_text(10_002, "1", 800)]),
        file_bytes(1, [row_text(10_000, "2", 800)]),
        file_bytes(2, [row_text(10_000, "1", 800), row_text(10_001, "2", 800)]),
        file_bytes(3, [row_text(10_002, "3", 800)]),
    ];
    let mut digests = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let mut pipeline = pipeline_of(CHANGES_SOURCE).await;
        for n in order {
            pipeline.run_chain(&files[n], hour_time(n as i64)).await;
        }
        let miles = "select string_agg(odometer::text, ' ' order by lot_external_id) from lots";
        assert_eq!(pipeline.query_text(miles).await, "1.0 2.0 3.0", "{order:?}");
        digests.push(pipeline.digest().await);
    }
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[tokio::test]
async fn a_file_with_a_column_that_drifts_is_quarantined_where_the_mapping_says_refuse() {
    for (source, state) in [(STRICT_SOURCE, "quarantined"), ("copart", "applied")] {
        let mut pipeline =
            if source == STRICT_SOURCE { pipeline_of(STRICT_SOURCE).await } else { Pipeline::new().await };
        let lots = 10_000..10_300;
        pipeline.run_chain(&file_bytes(0, lots.clone().map(|lot| row_text(lot, "1", 800))), hour_time(0)).await;
        let chain = pipeline
            .run_chain(&file_bytes(1, lots.map(|lot| row_text(lot, "many", 800))), hour_time(0) + Duration::minutes(15))
            .await;
        assert_eq!(chain.final_state(), state);
        let drift = &chain.reports["ingest"]["column_drift"][0];
        let policy = if source == STRICT_SOURCE { "refuse" } else { "warn" };
        assert_eq!((&drift["column"], &drift["policy"]), (&"Odometer".into(), &policy.into()));
        assert_eq!(pipeline.query_number("select count(*) from lots where odometer = 1").await, 300, "{source}");
    }
}
