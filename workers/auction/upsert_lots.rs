//! Upsert-lots: brings the lots of a file up to date.
//!
//! - *What*: applies the file's staged rows to `lots` and their image links, the greatest row of each lot winning.
//! - *Reads*: `staging.copart_raw`, `vehicles`, `raw.heads`.
//! - *Writes*: `lots`, `images`, `audit.lot_conflicts` (the lots' history).
//! - *Safe to repeat because* a row only wins over a lesser one, and an equal one changes nothing.
//! - *Followed by* detect-completion, enqueued in the same transaction.

use super::{Window, detect_completion::DetectCompletion, note_step, peak_rss_mb};
use crate::queue::{Job, Run, Verdict};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use uuid::Uuid;

/// Bring the lots of this file up to date.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpsertLots {
    /// The file.
    pub file_id: Uuid,
}

/// What became of the file's lots.
#[derive(Debug, Serialize)]
pub struct Report {
    /// New lots.
    pub inserted: i64,
    /// Lots with at least one field changed.
    pub updated: i64,
    /// Lots whose fields stand as they were.
    pub unchanged: i64,
    /// From start to commit.
    pub seconds: f64,
    /// Of this process.
    pub peak_rss_mb: f64,
}

impl Job for UpsertLots {
    const KIND: &'static str = "upsert-lots";
    const VERB: &'static str = "brings the lots of a file up to date";
    const WHEN: &'static str = "after upsert-vehicles";
    const READS: &'static str = "staging.copart_raw, vehicles, raw.heads";
    const WRITES: &'static str = "lots, images, audit.lot_conflicts";
    const SAFE: &'static str = "the greatest row stands, and an equal one changes nothing";
    const NEXT: &'static str = "detect-completion";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
        let began = Instant::now();
        let mut step = run.begin().await?;
        Window::lock(&mut step, self.file_id).await?;
        let counts = sqlx::query!(
            r#"-- upsert-lots
            select inserted as "inserted!", updated as "updated!", unchanged as "unchanged!"
            from public.upsert_lots_batch($1)"#,
            self.file_id
        )
        .fetch_one(&mut *step)
        .await
        .context("upsert the file's lots")?;
        let report = Report {
            inserted: counts.inserted,
            updated: counts.updated,
            unchanged: counts.unchanged,
            seconds: began.elapsed().as_secs_f64(),
            peak_rss_mb: peak_rss_mb(),
        };
        note_step(&mut step, self.file_id, "upsert_lots", &report).await?;
        step.enqueue(&DetectCompletion { file_id: self.file_id }, &self.file_id.to_string()).await?;
        step.done(report).await
    }
}
