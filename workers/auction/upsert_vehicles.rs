//! Upsert-vehicles: updates the vehicles of a file.
//!
//! - *What*: applies the file's staged rows to `vehicles`. The greatest row of each VIN wins.
//! - *Reads*: `staging.copart_raw`, `raw.heads`, and `raw.rows` for vehicles with irregular versions, which are folded
//!   (`fold.rs`).
//! - *Writes*: `vehicles`, `audit.vehicle_conflicts`, `audit.vin_conflicts`.
//! - *Safe to repeat because* a row only replaces a lesser one, and an equal one changes nothing.
//! - *Followed by* upsert-lots, enqueued in the same transaction.

use super::restage::restage_file;
use super::{LockedWindow, Sighting, fold, peak_rss_mb, record_step, upsert_lots::UpsertLots};
use crate::queue::{Job, JobResult, JobRun};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Payload of the job: the file whose vehicles are updated.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpsertVehicles {
    /// The file and its window.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// True for a replay, which repairs the table rows from the stored versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
    /// True if a replay begins with this job, which then first stages the file's rows again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restage: bool,
}

/// Report of the job. Counts are VINs, except for `vin_conflicts`, which counts rows.
#[derive(Debug, Serialize)]
pub struct VehicleUpsertReport {
    /// New VINs.
    pub inserted: i64,
    /// VINs with at least one changed field.
    pub updated: i64,
    /// VINs without a changed field.
    pub unchanged: i64,
    /// Rows whose raw VIN lost characters or is not the vehicle's own.
    pub vin_conflicts: i64,
    /// Duration from start to commit, in seconds.
    pub seconds: f64,
    /// Peak resident memory of the worker process, in MB.
    pub peak_rss_mb: f64,
}

impl Job for UpsertVehicles {
    const KIND: &'static str = "upsert-vehicles";
    const VERB: &'static str = "updates the vehicles of a file";
    const WHEN: &'static str = "after ingest";
    const READS: &'static str = "staging.copart_raw, raw.heads, raw.rows";
    const WRITES: &'static str = "vehicles, audit.vehicle_conflicts, audit.vin_conflicts";
    const SAFE: &'static str = "the greatest row wins, and an equal one changes nothing";
    const NEXT: &'static str = "upsert-lots";
    type Report = VehicleUpsertReport;

    async fn run(self, run: JobRun) -> JobResult<VehicleUpsertReport> {
        let began = Instant::now();
        let mut step = run.begin_step().await?;
        let window = LockedWindow::lock(&mut step, self.sighting).await?;
        if self.restage {
            restage_file(&run, &mut step, self.sighting.file_id, &window).await?;
        }
        let counts = sqlx::query!(
            r#"-- upsert-vehicles
            select inserted as "inserted!", updated as "updated!", unchanged as "unchanged!", to_fold, vin_conflicts as "vin_conflicts!"
            from public.upsert_vehicles_batch($1, $2)"#,
            self.sighting.file_id,
            window.start
        )
        .fetch_one(&mut *step)
        .await
        .context("could not upsert the file's vehicles")?;
        let staged = counts.to_fold.unwrap_or_default();
        let folded = fold::fold_vehicles(&mut step, self.sighting.file_id, &window, &staged).await?;
        let repaired = if self.repair {
            fold::repair::repair_vehicles(&run, &mut step, self.sighting.file_id, &window).await?
        } else {
            0
        };
        // A vehicle that is new and folded counts as inserted.
        let folded = (folded + repaired).min(counts.unchanged);
        let report = VehicleUpsertReport {
            inserted: counts.inserted,
            updated: counts.updated + folded,
            unchanged: counts.unchanged - folded,
            vin_conflicts: counts.vin_conflicts,
            seconds: began.elapsed().as_secs_f64(),
            peak_rss_mb: peak_rss_mb(),
        };
        record_step(&mut step, (self.sighting.file_id, window.start), "upsert_vehicles", &report).await?;
        let next = UpsertLots { sighting: self.sighting, repair: self.repair, restage: false };
        step.enqueue_next(&next, &self.sighting.job_key()).await?;
        step.done(report).await
    }
}
