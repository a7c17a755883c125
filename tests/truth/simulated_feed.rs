//! The simulator's feed through the chain, compared window by window with the simulator's expected state.
//!
//! The expected state has the value of each lot, vehicle and counter, and was never parsed from text. The contents of a
//! file are read here, cell by cell, with the plain `csv` crate (the feed is generated without inch quotes for that),
//! so `raw.file_rows` is compared with the file alone.
//!
//! The expected state does not contain which absent lots ingest has closed: a lot that returns after it was closed is
//! new to ingest and to the expected state, and one that returns while open is changed or unchanged. The comparison
//! below separates the two by the state of each lot before the window.

use crate::pipeline::{CompletedChain, Pipeline, parse_time};
use chrono::{DateTime, Utc};
use sqlx::Row;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;
use vinops::simulator::{
    ExpectedLot, ExpectedSkip, ExpectedState, FileCounters, LifecycleStatus, Simulator, SimulatorOptions,
};

/// Totals over all windows, to prove that the story contains every case.
#[derive(Default, Debug)]
struct StoryTotals {
    pending: u64,
    removed: u64,
    returned: u64,
    changed: u64,
    gone: u64,
    skipped: u64,
    keyframes: usize,
}

#[tokio::test]
async fn after_each_window_the_database_says_what_the_simulator_knows() {
    let options = SimulatorOptions {
        inch_quotes: false,
        gone: 0.02,
        wholesale_from: 4,
        ..SimulatorOptions::new(21, 900, parse_time("2026-10-31T21:30:00Z"))
    };
    // over a month's end at window 10, and on over three days
    let story = run_story(options, &[0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 30, 31, 120, 210], true).await;
    println!("{story:?}");
    assert!(story.pending > 20 && story.removed > 5 && story.returned > 3, "{story:?}");
    assert!(story.changed > 100 && story.gone > 50 && story.skipped > 3, "{story:?}");
    assert_eq!(story.keyframes, 2, "October's and November's first window");
}

#[tokio::test]
async fn a_feed_with_inch_quotes_broken_rows_and_a_clock_in_each_row_is_read_as_it_was_meant() {
    let options = SimulatorOptions {
        clock_per_row: true,
        broken: 7,
        ..SimulatorOptions::new(5, 2500, parse_time("2026-11-05T12:00:00Z"))
    };
    let story = run_story(options, &[0, 1, 8, 9, 10], false).await;
    println!("{story:?}");
    assert!(story.changed > 0 && story.gone > 0, "{story:?}");
}

/// Processes these windows and checks everything after each. Text is compared if `csv` can read it.
async fn run_story(options: SimulatorOptions, windows: &[u32], strict: bool) -> StoryTotals {
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    let (mut story, mut before) = (StoryTotals::default(), HashMap::new());
    let mut files = Vec::new();
    for &k in windows {
        let mut bytes = Vec::new();
        let counters = simulator.write_window(k, &mut bytes).unwrap();
        let window = options.window_start(k);
        let chain = pipeline.run_chain(&bytes, window).await;
        let truth = simulator.expected_state();
        compare_counters(&chain, &counters, &before, &truth, k);
        compare_lots(&pipeline, &truth, k).await;
        compare_vehicles(&pipeline, &truth, k).await;
        story.pending += counters.pending_result;
        story.removed += counters.removed;
        story.returned += counters.revived;
        story.changed += counters.changed;
        story.gone += counters.gone;
        story.skipped += counters.skipped_touched;
        before = truth.lots().map(|lot| (lot.lot, lot)).collect();
        files.push((chain.receipt.file_id, window, bytes));
    }
    for (file_id, window, bytes) in &files {
        compare_file(&pipeline, *file_id, *window, bytes, strict).await;
    }
    let orphans = "select count(*) from lots l left join vehicles v on v.vin = l.vin where v.vin is null";
    assert_eq!(pipeline.query_number(orphans).await, 0);
    let keyframes = "select count(*) from raw.csv_files f where f.row_count = (select count(*) from raw.rows r where r.file_id = f.file_id)";
    story.keyframes = pipeline.query_number(keyframes).await as usize;
    story
}

fn compare_counters(
    chain: &CompletedChain,
    counters: &FileCounters,
    before: &HashMap<u32, ExpectedLot>,
    truth: &ExpectedState<'_>,
    k: u32,
) {
    let ingest = |path: &str| chain.report_number("ingest", path);
    let now: Vec<ExpectedLot> = truth.lots().filter(|lot| lot.last_seen == counters.window).collect();
    let was = |lot: &ExpectedLot| before.get(&lot.lot);
    // an absent lot loses its head once it is closed, or at once if its rows never made a lot
    let forgotten = |lot: &&ExpectedLot| {
        was(lot).is_some_and(|old| !old.in_feed && old.status.is_none_or(|status| status.is_closed()))
    };
    let returned = counters.returned_changed + counters.returned_same;
    let forgotten = now.iter().filter(forgotten).count() as u64;
    assert_eq!(ingest("/rows"), counters.rows, "rows of window {k}");
    assert_eq!(ingest("/new"), counters.first_seen + forgotten, "new lots of window {k}");
    let remembered = returned - forgotten;
    let (changed, unchanged) = (ingest("/changed"), ingest("/unchanged"));
    assert_eq!(changed + unchanged, counters.changed + counters.unchanged + remembered, "window {k}");
    let most = counters.changed + counters.returned_changed.min(remembered);
    assert!((counters.changed..=most).contains(&changed), "window {k}: {changed} changed");
    if remembered == 0 {
        assert_eq!(changed, counters.changed, "changed rows of window {k}");
    }
    assert_eq!(ingest("/gone"), counters.gone, "gone in window {k}");
    assert_eq!(ingest("/parse_errors"), counters.parse_errors, "parse errors of window {k}");
    assert_eq!(ingest("/repaired"), counters.repaired, "repaired rows of window {k}");
    assert_eq!(ingest("/skipped/vin_empty"), counters.vin_empty, "window {k}");
    assert_eq!(ingest("/skipped/vin_format"), counters.vin_format, "window {k}");
    assert_eq!(ingest("/skipped/lot_missing"), 0);
    assert_eq!(ingest("/unreadable_values"), 0, "window {k}");
    let moved = |path: &str| chain.report_number("detect-completion", path);
    assert_eq!(moved("/pending_result"), counters.pending_result, "pending in window {k}");
    assert_eq!(moved("/removed"), counters.removed, "removed in window {k}");
    assert_eq!(moved("/returned"), counters.revived, "returned in window {k}");
    assert_eq!(chain.final_state(), "applied", "window {k}");
    let kept_new = now.iter().filter(|lot| was(lot).is_none() && lot.skip.is_none()).count() as u64;
    assert_eq!(chain.report_number("upsert-lots", "/inserted"), kept_new, "lots inserted in window {k}");
}

async fn compare_lots(pipeline: &Pipeline, truth: &ExpectedState<'_>, k: u32) {
    let rows = sqlx::query(
        "select lot_external_id, vin, auction_datetime_utc, currency_code::text as currency, current_bid_usd::float8 as bid,
          odometer::float8 as odometer, has_keys, damage_description, damage_code, sale_type, special_note, source_updated_at,
          site_code, yard_name, status
        from lots",
    );
    let rows = rows.fetch_all(pipeline.pool()).await.unwrap();
    let mut stored: HashMap<String, _> = rows.into_iter().map(|row| (row.get::<String, _>(0), row)).collect();
    for lot in truth.lots() {
        let row = stored.remove(&lot.lot.to_string());
        let Some(status) = lot.status else {
            assert!(row.is_none(), "window {k}: lot {} has no vehicle ({:?})", lot.lot, lot.skip);
            continue;
        };
        let row = row.unwrap_or_else(|| panic!("window {k}: lot {} is missing", lot.lot));
        let text = |name: &str| row.get::<Option<String>, _>(name);
        let instant = |name: &str| row.get::<Option<DateTime<Utc>>, _>(name);
        let number = |name: &str| row.get::<Option<f64>, _>(name).map(|n| n as u32);
        let name = format!("lot {} at window {k}", lot.lot);
        assert_eq!(text("vin"), lot.vin, "{name}");
        assert_eq!(instant("auction_datetime_utc"), lot.auction, "{name}");
        assert_eq!(text("currency").as_deref(), Some(lot.currency), "{name}");
        assert_eq!(number("bid"), lot.bid, "bid of {name}");
        assert_eq!(number("odometer"), lot.odometer, "odometer of {name}");
        assert_eq!(row.get::<Option<bool>, _>("has_keys"), lot.has_keys, "keys of {name}");
        assert_eq!(text("damage_description").as_deref(), Some(lot.damage), "{name}");
        assert_eq!(text("damage_code").as_deref(), Some(lot.damage_code), "{name}");
        assert_eq!(text("sale_type").as_deref(), Some(lot.sale_type), "{name}");
        assert_eq!(text("special_note").as_deref(), lot.special_note.map(str::trim), "{name}");
        assert_eq!(instant("source_updated_at"), Some(lot.source_updated_at), "{name}");
        assert_eq!(text("site_code"), Some(lot.yard.to_string()), "{name}");
        assert_eq!(text("yard_name").as_deref(), Some(lot.yard_name), "{name}");
        assert_eq!(text("status").as_deref(), Some(status.as_str()), "status of {name}");
    }
    assert!(stored.is_empty(), "window {k}: lots that never were: {:?}", stored.keys());
    let mut counts: HashMap<LifecycleStatus, u64> = truth.status_counts();
    let output: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from lots group by 1").fetch_all(pipeline.pool()).await.unwrap();
    counts.retain(|_, n| *n > 0);
    assert_eq!(counts.len(), output.len(), "window {k}");
}

async fn compare_vehicles(pipeline: &Pipeline, truth: &ExpectedState<'_>, k: u32) {
    let rows = sqlx::query(
        "select vin, upper(trim(vin_raw)) as owner, year, make, model, odometer_value, source_lot from vehicles",
    );
    let rows = rows.fetch_all(pipeline.pool()).await.unwrap();
    let mut stored: HashMap<String, _> = rows.into_iter().map(|row| (row.get::<String, _>(0), row)).collect();
    for vehicle in truth.vehicles() {
        let name = format!("vehicle {} at window {k}", vehicle.vin);
        let row = stored.remove(&vehicle.vin).unwrap_or_else(|| panic!("{name} is missing"));
        let winner = &vehicle.winner;
        assert_eq!(row.get::<i64, _>("source_lot"), i64::from(winner.lot), "winner of {name}");
        assert_eq!(row.get::<String, _>("owner"), vehicle.owner, "{name}");
        assert_eq!(row.get::<Option<i32>, _>("year"), winner.year.map(i32::from), "{name}");
        assert_eq!(row.get::<Option<String>, _>("make").as_deref(), Some(winner.make), "{name}");
        assert_eq!(row.get::<Option<String>, _>("model").as_deref(), Some(winner.model.trim()), "{name}");
        let odometer = row.get::<Option<i32>, _>("odometer_value");
        assert_eq!(odometer, winner.odometer.map(|miles| miles as i32), "{name}");
    }
    assert!(stored.is_empty(), "window {k}: vehicles that never were: {:?}", stored.keys());
}

/// Checks that the store returns the bytes, and `raw.file_rows` every row.
async fn compare_file(pipeline: &Pipeline, file_id: Uuid, window: DateTime<Utc>, bytes: &[u8], strict: bool) {
    let (path, sha256, rows): (String, String, i32) =
        sqlx::query_as("select path, sha256, row_count from raw.csv_files where file_id = $1")
            .bind(file_id)
            .fetch_one(pipeline.pool())
            .await
            .unwrap();
    let exported = tempfile::NamedTempFile::new().unwrap();
    pipeline.store.export_file(&path, &sha256, exported.reopen().unwrap()).await.unwrap();
    assert!(std::fs::read(exported.path()).unwrap() == bytes, "{path} is not what came in");

    let output: Vec<(i32, serde_json::Value)> =
        sqlx::query_as("select row_no, payload_jsonb from raw.file_rows where file_id = $1 order by row_no")
            .bind(file_id)
            .fetch_all(pipeline.pool())
            .await
            .unwrap();
    assert_eq!(output.len(), rows as usize, "rows of window {window}");
    let other_months = "select count(*) from raw.manifests m cross join unnest(m.row_ids) u (id)
        where m.file_id = $1 and u.id <> 0 and not exists (select from raw.rows r where r.id = u.id
          and date_trunc('month', r.window_start_utc, 'UTC') = date_trunc('month', m.window_start_utc, 'UTC'))";
    let strays: i64 = sqlx::query_scalar(other_months).bind(file_id).fetch_one(pipeline.pool()).await.unwrap();
    assert_eq!(strays, 0, "the manifest of {window} refers to another month");
    if !strict {
        return;
    }
    let mut reader = csv::Reader::from_reader(bytes);
    // a renamed column keeps its name of the version's first file
    let canonical = |name: &str| if name == "Copart Select" { "Wholesale" } else { name }.to_owned();
    let names: Vec<String> = reader.headers().unwrap().iter().map(canonical).collect();
    for ((row_no, payload), record) in output.iter().zip(reader.records()) {
        let record = record.unwrap();
        let row: BTreeMap<String, String> = names.iter().cloned().zip(record.iter().map(str::to_owned)).collect();
        let restored: BTreeMap<String, String> = payload
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (canonical(name), value.as_str().unwrap_or("<null>").to_owned()))
            .collect();
        assert_eq!(restored, row, "row {row_no} of window {window}");
    }
}

#[test]
fn a_skip_is_told_by_its_reason() {
    let mut simulator = Simulator::new(SimulatorOptions::new(1, 600, parse_time("2026-11-01T00:00:00Z")));
    simulator.write_window(0, &mut std::io::sink()).unwrap();
    let skips: Vec<ExpectedSkip> = simulator.expected_state().lots().filter_map(|lot| lot.skip).collect();
    assert!(skips.contains(&ExpectedSkip::VinEmpty) && skips.contains(&ExpectedSkip::VinFormat), "{skips:?}");
}
