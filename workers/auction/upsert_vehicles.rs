//! Upsert-vehicles: brings the vehicles of a file up to date.
//!
//! - *What*: applies the file's staged rows to `vehicles`, the greatest row of each VIN winning.
//! - *Reads*: `staging.copart_raw`, `raw.heads`.
//! - *Writes*: `vehicles`, `audit.vehicle_conflicts`, `audit.vin_conflicts`.
//! - *Safe to repeat because* a row only wins over a lesser one, and an equal one changes nothing.
//! - *Followed by* upsert-lots, enqueued in the same transaction.

use super::{Window, note_step, peak_rss_mb, upsert_lots::UpsertLots};
use crate::queue::{Job, Run, Verdict};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use uuid::Uuid;

/// Bring the vehicles of this file up to date.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpsertVehicles {
    /// The file.
    pub file_id: Uuid,
}

/// What became of the file's vehicles; counts are VINs, but for `vin_conflicts`, which are rows.
#[derive(Debug, Serialize)]
pub struct Report {
    /// New VINs.
    pub inserted: i64,
    /// VINs with at least one field changed.
    pub updated: i64,
    /// VINs whose fields stand as they were.
    pub unchanged: i64,
    /// Rows whose raw VIN lost characters or is not the vehicle's own.
    pub vin_conflicts: i64,
    /// From start to commit.
    pub seconds: f64,
    /// Of this process.
    pub peak_rss_mb: f64,
}

impl Job for UpsertVehicles {
    const KIND: &'static str = "upsert-vehicles";
    const VERB: &'static str = "brings the vehicles of a file up to date";
    const WHEN: &'static str = "after ingest";
    const READS: &'static str = "staging.copart_raw, raw.heads";
    const WRITES: &'static str = "vehicles, audit.vehicle_conflicts, audit.vin_conflicts";
    const SAFE: &'static str = "the greatest row stands, and an equal one changes nothing";
    const NEXT: &'static str = "upsert-lots";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
        let began = Instant::now();
        let mut step = run.begin().await?;
        Window::lock(&mut step, self.file_id).await?;
        let counts = sqlx::query!(
            r#"-- upsert-vehicles
            select inserted as "inserted!", updated as "updated!", unchanged as "unchanged!", vin_conflicts as "vin_conflicts!"
            from public.upsert_vehicles_batch($1)"#,
            self.file_id
        )
        .fetch_one(&mut *step)
        .await
        .context("upsert the file's vehicles")?;
        let report = Report {
            inserted: counts.inserted,
            updated: counts.updated,
            unchanged: counts.unchanged,
            vin_conflicts: counts.vin_conflicts,
            seconds: began.elapsed().as_secs_f64(),
            peak_rss_mb: peak_rss_mb(),
        };
        note_step(&mut step, self.file_id, "upsert_vehicles", &report).await?;
        step.enqueue(&UpsertLots { file_id: self.file_id }, &self.file_id.to_string()).await?;
        step.done(report).await
    }
}
