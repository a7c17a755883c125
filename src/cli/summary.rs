//! What became of a file: the object that `vinops ingest --json` prints, drawn from the database.

use crate::db::Db;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// One file and its chain. Counts are rows unless said otherwise; a step that has not run counts as zeros.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The file.
    pub file_id: Uuid,
    /// Its source.
    pub source: String,
    /// The start of its quarter-hour.
    pub window_start_utc: DateTime<Utc>,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Whether the bytes were known before.
    pub duplicate: bool,
    /// Its size.
    pub bytes: i64,
    /// received, ingested, applied, late, incomplete or quarantined.
    pub state: String,
    /// Readable records: new + changed + unchanged.
    pub rows: i64,
    /// Rows of lots without a head: lots not seen before, and closed ones that are back. A row without a lot number is new
    /// in the first file that holds it.
    pub new: i64,
    /// That differ from the lot's newest version.
    pub changed: i64,
    /// That do not, or have no lot number and came before.
    pub unchanged: i64,
    /// Lots of the file before that are not in this one.
    pub gone: i64,
    /// Records that could not be read.
    pub parse_errors: i64,
    /// Records that took the tolerant rules to read.
    pub repaired: i64,
    /// Rows that make no vehicle and no lot.
    pub skipped: Skipped,
    /// Distinct spellings the taxonomies do not know.
    pub unknown_values: i64,
    /// Values of new and changed rows that are there and cannot be read, by the feed's column.
    pub unreadable: BTreeMap<String, Unreadable>,
    /// VINs.
    pub vehicles: Upserted,
    /// Lots.
    pub lots: Upserted,
    /// Entries in the conflict logs.
    pub conflicts: Conflicts,
    /// Lots moved to PENDING_RESULT.
    pub pending_result: i64,
    /// Lots moved to removed.
    pub removed: i64,
    /// Closed lots that are back.
    pub returned: i64,
    /// Of each step, and from the ingest's start to the chain's end.
    pub seconds: Seconds,
    /// The most memory a worker held, in 10^6 bytes.
    pub peak_rss_mb: f64,
    /// Size in the store.
    pub stored_bytes: i64,
}

/// Rows skipped, by reason.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Skipped {
    /// No VIN.
    pub vin_empty: i64,
    /// Not a VIN.
    pub vin_format: i64,
    /// No lot number.
    pub lot_missing: i64,
}

/// The values of a column that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// How many.
    pub count: i64,
    /// The first of them, at most 80 characters.
    pub first: String,
}

/// What an upsert did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Upserted {
    /// Not there before.
    pub inserted: i64,
    /// With at least one field changed.
    pub updated: i64,
    /// As before.
    pub unchanged: i64,
}

/// Entries in the logs of conflicts and changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Conflicts {
    /// `audit.vin_conflicts`.
    pub vin: i64,
    /// `audit.vehicle_conflicts`.
    pub vehicle: i64,
    /// `audit.lot_conflicts`.
    pub lot: i64,
}

/// Durations.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seconds {
    /// Of ingest.
    pub ingest: f64,
    /// Of upsert-vehicles.
    pub upsert_vehicles: f64,
    /// Of upsert-lots.
    pub upsert_lots: f64,
    /// Of detect-completion.
    pub detect_completion: f64,
    /// From the start of ingest to the end of the chain, waits between the steps included.
    pub total: f64,
}

/// The steps' reports as they lie in `audit.etl_runs.report`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reports {
    ingest: Ingest,
    upsert_vehicles: Step,
    upsert_lots: Step,
    detect_completion: Completion,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingest {
    rows: i64,
    new: i64,
    changed: i64,
    unchanged: i64,
    gone: i64,
    parse_errors: i64,
    repaired: i64,
    skipped: Skipped,
    unknown_values: i64,
    unreadable: BTreeMap<String, Unreadable>,
    seconds: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    #[serde(flatten)]
    counts: Upserted,
    vin_conflicts: i64,
    seconds: f64,
    peak_rss_mb: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Completion {
    pending_result: i64,
    removed: i64,
    returned: i64,
    seconds: f64,
    peak_rss_mb: f64,
}

impl Reports {
    /// Returns the greatest peak of memory of all steps, in MB.
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

/// What became of the file; `duplicate` is the caller's knowledge.
pub async fn summary(db: &Db, file_id: Uuid, duplicate: bool) -> anyhow::Result<Summary> {
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
    .with_context(|| format!("read what became of file {file_id}"))?;
    let reports: Reports = match file.report {
        Some(report) => serde_json::from_value(report).context("read the run's report")?,
        None => Reports::default(),
    };
    let peak_rss_mb = reports.peak_rss_mb();
    let Reports { ingest, upsert_vehicles, upsert_lots, detect_completion } = reports;
    let steps = [ingest.seconds, upsert_vehicles.seconds, upsert_lots.seconds, detect_completion.seconds];
    Ok(Summary {
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
        conflicts: Conflicts {
            vin: upsert_vehicles.vin_conflicts,
            vehicle: upsert_vehicles.counts.updated,
            lot: upsert_lots.counts.updated,
        },
        vehicles: upsert_vehicles.counts,
        lots: upsert_lots.counts,
        pending_result: detect_completion.pending_result,
        removed: detect_completion.removed,
        returned: detect_completion.returned,
        seconds: Seconds {
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
