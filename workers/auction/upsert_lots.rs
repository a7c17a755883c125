//! Upsert-lots: updates the lots of a file.
//!
//! - *What*: applies the file's staged rows to `lots` and their image links. The greatest row of each lot wins.
//! - *Reads*: `staging.copart_raw`, `vehicles`, `raw.heads`, and `raw.rows` for lots with irregular versions, which are
//!   folded (`fold.rs`).
//! - *Writes*: `lots`, `images`, `audit.lot_conflicts` (the lots' history).
//! - *Safe to repeat because* a row only replaces a lesser one, and an equal one changes nothing.
//! - *Followed by* detect-completion, enqueued in the same transaction.

use super::restage::restage_file;
use super::{LockedWindow, Sighting, detect_completion::DetectCompletion, fold, peak_rss_mb, record_step};
use crate::queue::{Job, JobResult, JobRun};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Payload of the job: the file whose lots are updated.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpsertLots {
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

/// Report of the job. Counts are lots.
#[derive(Debug, Serialize)]
pub struct LotUpsertReport {
    /// New lots.
    pub inserted: i64,
    /// Lots with at least one changed field.
    pub updated: i64,
    /// Lots without a changed field.
    pub unchanged: i64,
    /// Duration from start to commit, in seconds.
    pub seconds: f64,
    /// Peak resident memory of the worker process, in MB.
    pub peak_rss_mb: f64,
}

impl Job for UpsertLots {
    const KIND: &'static str = "upsert-lots";
    const VERB: &'static str = "updates the lots of a file";
    const WHEN: &'static str = "after upsert-vehicles";
    const READS: &'static str = "staging.copart_raw, vehicles, raw.heads, raw.rows";
    const WRITES: &'static str = "lots, images, raw.former_vins, audit.lot_conflicts";
    const SAFE: &'static str = "the greatest row wins, and an equal one changes nothing";
    const NEXT: &'static str = "detect-completion";
    type Report = LotUpsertReport;

    async fn run(self, run: JobRun) -> JobResult<LotUpsertReport> {
        let began = Instant::now();
        let mut step = run.begin_step().await?;
        let window = LockedWindow::lock(&mut step, self.sighting).await?;
        if self.restage {
            restage_file(&run, &mut step, self.sighting.file_id, &window).await?;
        }
        let counts = sqlx::query!(
            r#"-- upsert-lots
            select inserted as "inserted!", updated as "updated!", unchanged as "unchanged!", to_fold
            from public.upsert_lots_batch($1, $2)"#,
            self.sighting.file_id,
            window.start
        )
        .fetch_one(&mut *step)
        .await
        .context("could not upsert the file's lots")?;
        let staged = counts.to_fold.unwrap_or_default();
        let folded = fold::fold_lots(&mut step, self.sighting.file_id, &window, &staged).await?;
        let repaired = if self.repair {
            fold::repair::repair_lots(&run, &mut step, self.sighting.file_id, &window).await?
        } else {
            0
        };
        // A lot that is new and folded counts as inserted.
        let folded = (folded + repaired).min(counts.unchanged);
        let report = LotUpsertReport {
            inserted: counts.inserted,
            updated: counts.updated + folded,
            unchanged: counts.unchanged - folded,
            seconds: began.elapsed().as_secs_f64(),
            peak_rss_mb: peak_rss_mb(),
        };
        record_step(&mut step, (self.sighting.file_id, window.start), "upsert_lots", &report).await?;
        step.enqueue_next(&DetectCompletion { sighting: self.sighting }, &self.sighting.job_key()).await?;
        step.done(report).await
    }
}
