//! Each job of a completed chain is requeued and run again, one by one and in any order: nothing changes, and no change
//! is logged twice. The same with a file of which half is damaged.

use crate::pipeline::{Pipeline, parse_time};
use serde_json::Value;
use vinops::simulator::fault::{FeedFault, corrupt_file};
use vinops::simulator::{Simulator, SimulatorOptions};

/// Returns everything that the chain writes except timestamps of runs: row counts of each table, and hashes of data
/// that may not change.
async fn count_tables(pipeline: &Pipeline) -> Vec<(String, i64, Option<String>)> {
    let mut output = Vec::new();
    for query in [
        "select 'raw.rows', count(*), md5(string_agg(t::text, '' order by t.id, t.window_start_utc)) from raw.rows t",
        "select 'raw.manifests', count(*), md5(string_agg(t::text, '' order by t.file_id)) from raw.manifests t",
        "select 'raw.heads', count(*), md5(string_agg(t::text, '' order by t.lot)) from raw.heads t",
        "select 'staging', count(*), md5(string_agg(t::text, '' order by t.id)) from staging.copart_raw t",
        "select 'vehicles', count(*), md5(string_agg(t::text, '' order by t.vin)) from vehicles t",
        "select 'lots', count(*), md5(string_agg(t::text, '' order by t.lot_external_id)) from lots t",
        "select 'images', count(*), md5(string_agg(t::text, '' order by t.id)) from images t",
        "select 'vin_conflicts', count(*), md5(string_agg(t::text, '' order by t.id)) from audit.vin_conflicts t",
        "select 'vehicle_conflicts', count(*), null from audit.vehicle_conflicts",
        "select 'lot_conflicts', count(*), null from audit.lot_conflicts",
        "select 'transitions', count(*), null from audit.status_transitions",
        "select 'parse_errors', count(*), null from audit.parse_errors",
        "select 'skipped_lots', count(*), null from audit.skipped_lots",
        "select 'unknown', count(*), sum(occurrences)::text from audit.unknown_taxonomy_values",
        "select 'runs', count(*), string_agg(status, ' ' order by started_at) from audit.etl_runs",
        "select 'windows', count(*), string_agg(state, ' ' order by window_start_utc) from fleet.windows",
        "select 'files', count(*), string_agg(state, ' ' order by file_no) from raw.csv_files",
        "select 'jobs', count(*), null from fleet.jobs",
    ] {
        output.push(sqlx::query_as(query).fetch_one(pipeline.pool()).await.unwrap());
    }
    output
}

async fn repeat_every_job(pipeline: &mut Pipeline) {
    let before = (pipeline.digest().await, count_tables(pipeline).await);
    let jobs: Vec<(i64, String)> = sqlx::query_as("select id, kind from fleet.jobs order by kind desc, id")
        .fetch_all(pipeline.pool())
        .await
        .unwrap();
    for (job, kind) in jobs {
        let report: Value = pipeline.rerun_job(job).await;
        let after = (pipeline.digest().await, count_tables(pipeline).await);
        assert_eq!(after, before, "after {kind} again, which said {report}");
    }
}

#[tokio::test]
async fn a_job_put_back_after_its_chain_is_done_changes_nothing() {
    let options = SimulatorOptions { gone: 0.02, ..SimulatorOptions::new(8, 700, parse_time("2026-11-20T14:00:00Z")) };
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    for k in [0, 1, 8, 9, 16] {
        let mut bytes = Vec::new();
        simulator.write_window(k, &mut bytes).unwrap();
        pipeline.run_chain(&bytes, options.window_start(k)).await;
    }
    assert!(pipeline.query_number("select count(*) from audit.status_transitions").await > 0);
    assert!(pipeline.query_number("select count(*) from audit.vin_conflicts").await > 0);
    repeat_every_job(&mut pipeline).await;
}

#[tokio::test]
async fn a_file_with_broken_rows_nuls_and_missing_lot_numbers_gives_its_good_rows_and_is_repeated_in_vain() {
    let options = SimulatorOptions { broken: 3, ..SimulatorOptions::new(9, 600, parse_time("2026-11-20T14:00:00Z")) };
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    let mut clean = Vec::new();
    let counters = simulator.write_window(0, &mut clean).unwrap();
    let (mut nuls, mut dirty) = (Vec::new(), Vec::new());
    let holed = corrupt_file(&clean[..], &mut nuls, FeedFault::Nuls { every: 50 }).unwrap();
    let nameless = corrupt_file(&nuls[..], &mut dirty, FeedFault::NoLotNumber { every: 70 }).unwrap();
    let chain = pipeline.run_chain(&dirty, options.window_start(0)).await;
    assert_eq!(chain.final_state(), "applied");
    assert_eq!(chain.report_number("ingest", "/rows"), counters.rows);
    assert_eq!(chain.report_number("ingest", "/parse_errors"), 3);
    let missing = chain.report_number("ingest", "/skipped/lot_missing");
    assert!(missing > 0 && missing <= nameless, "{missing} of {nameless}");
    let repaired =
        pipeline.query_number("select count(*) from audit.parse_errors where kind = 'repaired'").await as u64;
    assert!(repaired > 0 && repaired <= holed, "{repaired} of {holed}");
    let skipped = pipeline.query_number("select count(*) from audit.skipped_lots").await as u64;
    assert_eq!(
        skipped,
        missing
            + chain.report_number("ingest", "/skipped/vin_empty")
            + chain.report_number("ingest", "/skipped/vin_format")
    );
    repeat_every_job(&mut pipeline).await;
}

#[tokio::test]
async fn a_file_of_which_one_row_in_ten_is_broken_is_quarantined_and_repeated_in_vain() {
    let options = SimulatorOptions::new(10, 400, parse_time("2026-11-20T14:00:00Z"));
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    let (mut clean, mut next, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    simulator.write_window(0, &mut clean).unwrap();
    simulator.write_window(1, &mut next).unwrap();
    corrupt_file(&next[..], &mut broken, FeedFault::BrokenRows { per_mille: 100 }).unwrap();
    pipeline.run_chain(&clean, options.window_start(0)).await;
    let before = pipeline.digest().await;
    let chain = pipeline.run_chain(&broken, options.window_start(1)).await;
    assert_eq!((chain.final_state(), pipeline.digest().await), ("quarantined", before));
    assert_eq!(pipeline.query_number("select count(*) from raw.manifests").await, 1, "nothing of it is applied");
    repeat_every_job(&mut pipeline).await;
}
