//! The summary of a file and its chain, read from the database. `vinops ingest --json` prints this object.

use crate::db::Database;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The summary of a file and its chain. Counts are numbers of rows unless stated otherwise. The counts of a step that
/// has not run are zero.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WindowSummary {
    /// The id of the file.
    pub file_id: Uuid,
    /// The source of the file.
    pub source: String,
    /// The start of the file's quarter-hour.
    pub window_start_utc: DateTime<Utc>,
    /// The sha256 of the bytes, in hex.
    pub sha256: String,
    /// True if the bytes were known before.
    pub duplicate: bool,
    /// Size of the file in bytes.
    pub bytes: i64,
    /// The state: received, ingested, applied, late, incomplete, quarantined, withdrawn or failed.
    pub state: String,
    /// Readable records. The sum of `new`, `changed` and `unchanged`.
    pub rows: i64,
    /// Rows of lots without a lot head: lots that were not seen before, and closed lots that reappeared. A row
    /// without a lot number is new in the first file that contains it.
    pub new: i64,
    /// Rows that differ from the lot's newest version.
    pub changed: i64,
    /// Rows that equal the lot's newest version, or that have no lot number and came before.
    pub unchanged: i64,
    /// Lots of the previous file that are not in this one.
    pub gone: i64,
    /// Records that could not be parsed.
    pub parse_errors: i64,
    /// Records that only the tolerant rules could parse.
    pub repaired: i64,
    /// Rows that give neither a vehicle nor a lot.
    pub skipped: SkippedRows,
    /// Number of distinct raw values without a code in the taxonomies.
    pub unknown_values: i64,
    /// Unreadable values of new and changed rows, by the feed's column.
    pub unreadable: BTreeMap<String, UnreadableValues>,
    /// Counts of the vehicle upserts.
    pub vehicles: UpsertCounts,
    /// Counts of the lot upserts.
    pub lots: UpsertCounts,
    /// New entries in the conflict logs.
    pub conflicts: ConflictCounts,
    /// Number of lots whose status changed to PENDING_RESULT.
    pub pending_result: i64,
    /// Number of lots whose status changed to removed.
    pub removed: i64,
    /// Number of closed lots that reappeared.
    pub returned: i64,
    /// Durations of the steps and of the whole chain.
    pub seconds: StepSeconds,
    /// The greatest memory use of a worker, in 10^6 bytes.
    pub peak_rss_mb: f64,
    /// Size of the stored object in bytes.
    pub stored_bytes: i64,
}

/// Counts of skipped rows, by reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SkippedRows {
    /// Rows without a VIN.
    pub vin_empty: i64,
    /// Rows with an invalid VIN.
    pub vin_format: i64,
    /// Rows without a lot number.
    pub lot_missing: i64,
}

/// The unreadable values of a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableValues {
    /// Number of values.
    pub count: i64,
    /// The first value, at most 80 characters.
    pub first: String,
}

/// The counts of an upsert.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpsertCounts {
    /// Number of inserted rows.
    pub inserted: i64,
    /// Number of rows with at least one changed field.
    pub updated: i64,
    /// Number of unchanged rows.
    pub unchanged: i64,
}

/// Counts of new entries in the logs of conflicts and changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConflictCounts {
    /// New rows of `audit.vin_conflicts`.
    pub vin: i64,
    /// New rows of `audit.vehicle_conflicts`.
    pub vehicle: i64,
    /// New rows of `audit.lot_conflicts`.
    pub lot: i64,
}

/// Durations in seconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StepSeconds {
    /// Duration of ingest.
    pub ingest: f64,
    /// Duration of upsert-vehicles.
    pub upsert_vehicles: f64,
    /// Duration of upsert-lots.
    pub upsert_lots: f64,
    /// Duration of detect-completion.
    pub detect_completion: f64,
    /// Duration from the start of ingest to the end of the chain, including waits between the steps.
    pub total: f64,
}

/// The reports of the steps, as stored in `audit.etl_runs.report`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChainReports {
    ingest: IngestSummary,
    upsert_vehicles: StepSummary,
    upsert_lots: StepSummary,
    detect_completion: CompletionSummary,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IngestSummary {
    rows: i64,
    new: i64,
    changed: i64,
    unchanged: i64,
    gone: i64,
    parse_errors: i64,
    repaired: i64,
    skipped: SkippedRows,
    unknown_values: i64,
    unreadable: BTreeMap<String, UnreadableValues>,
    seconds: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StepSummary {
    #[serde(flatten)]
    counts: UpsertCounts,
    vin_conflicts: i64,
    seconds: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionSummary {
    pending_result: i64,
    removed: i64,
    returned: i64,
    seconds: f64,
    peak_rss_mb: f64,
}

impl ChainReports {
    /// Returns the greatest memory use of all steps, in 10^6 bytes.
    fn peak_rss_mb(&self) -> f64 {
        let peaks = [
            self.ingest.peak_rss_mb,
            self.upsert_vehicles.peak_rss_mb,
            self.upsert_lots.peak_rss_mb,
            self.detect_completion.peak_rss_mb,
        ];
        peaks.into_iter().fold(0.0, f64::max)
    }
}

/// Reads the summary of a file. The caller passes `duplicate`, which the database does not record.
pub async fn read_summary(db: &Database, file_id: Uuid, duplicate: bool) -> anyhow::Result<WindowSummary> {
    let file = sqlx::query!(
        r#"-- summary
        select
          f.source, coalesce(r.window_start_utc, f.window_start_utc) as "window_start_utc!", f.sha256, f.bytes, f.state, coalesce(f.stored_bytes, 0) as "stored_bytes!",
          r.report as "report?", r.duration_seconds
        from raw.csv_files f
        left join lateral (
          select x.window_start_utc, x.report, x.duration_seconds
          from audit.etl_runs x
          where x.file_id = f.file_id
          order by x.started_at desc
          limit 1
        ) r on true
        where f.file_id = $1"#,
        file_id
    )
    .fetch_one(&db.pool)
    .await
    .with_context(|| format!("could not read the summary of file {file_id}"))?;
    let reports: ChainReports = match file.report {
        Some(report) => serde_json::from_value(report).context("could not parse the report of the run")?,
        None => ChainReports::default(),
    };
    let peak_rss_mb = reports.peak_rss_mb();
    let ChainReports { ingest, upsert_vehicles, upsert_lots, detect_completion } = reports;
    let steps = [ingest.seconds, upsert_vehicles.seconds, upsert_lots.seconds, detect_completion.seconds];
    Ok(WindowSummary {
        file_id,
        source: file.source,
        window_start_utc: file.window_start_utc,
        sha256: file.sha256,
        duplicate,
        bytes: file.bytes,
        state: file.state,
        rows: ingest.rows,
        new: ingest.new,
        changed: ingest.changed,
        unchanged: ingest.unchanged,
        gone: ingest.gone,
        parse_errors: ingest.parse_errors,
        repaired: ingest.repaired,
        skipped: ingest.skipped,
        unknown_values: ingest.unknown_values,
        unreadable: ingest.unreadable,
        conflicts: ConflictCounts {
            vin: upsert_vehicles.vin_conflicts,
            vehicle: upsert_vehicles.counts.updated,
            lot: upsert_lots.counts.updated,
        },
        vehicles: upsert_vehicles.counts,
        lots: upsert_lots.counts,
        pending_result: detect_completion.pending_result,
        removed: detect_completion.removed,
        returned: detect_completion.returned,
        seconds: StepSeconds {
            ingest: steps[0],
            upsert_vehicles: steps[1],
            upsert_lots: steps[2],
            detect_completion: steps[3],
            total: file.duration_seconds.unwrap_or_else(|| steps.iter().sum()),
        },
        peak_rss_mb,
        stored_bytes: file.stored_bytes,
    })
}
