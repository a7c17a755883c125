//! Detect-completion: moves the statuses of lots, and closes the window.
//!
//! - *What*: a lot in the feed is active, or scheduled while its sale is ahead; one that is absent is PENDING_RESULT once
//!   its auction is two hours past, or removed after three complete files without it and no auction near.
//! - *Reads*: `raw.heads`, `staging.copart_raw`, `lots`, `config`.
//! - *Writes*: `lots.status`, `audit.status_transitions`, `raw.heads` (lots closed leave it), the window's last state.
//! - *Safe to repeat because* a lot that has its status is not moved again, and a window older than one already judged
//!   moves nothing.
//! - *Followed by* nothing: this is the chain's end.
//!
//! Every open lot absent from the newest file is looked at each time, not the difference of two files: lots vanish hours
//! before they can be judged. Hours are counted from the file's window, not from now, so a replay decides as the day did.

use super::{Window, note_step, peak_rss_mb};
use crate::queue::{Job, Run, Verdict};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Instant;
use uuid::Uuid;

/// Move the statuses this file decides.
#[derive(Debug, Serialize, Deserialize)]
pub struct DetectCompletion {
    /// The file.
    pub file_id: Uuid,
}

/// Which lots moved.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The window's last state: applied, late or incomplete.
    pub state: &'static str,
    /// Absent lots whose auction is over.
    pub pending_result: i64,
    /// Absent lots without an auction near.
    pub removed: i64,
    /// Closed lots that stand in the feed again.
    pub returned: i64,
    /// All moves, these included.
    pub moved: i64,
    /// The same by kind, such as `active > PENDING_RESULT`.
    pub moves: Value,
    /// Why absent lots were not judged, if they were not.
    pub skipped: Option<&'static str>,
    /// From start to commit.
    pub seconds: f64,
    /// Of this process.
    pub peak_rss_mb: f64,
}

impl Job for DetectCompletion {
    const KIND: &'static str = "detect-completion";
    const VERB: &'static str = "moves the statuses of lots and closes the window";
    const WHEN: &'static str = "after upsert-lots";
    const READS: &'static str = "raw.heads, staging.copart_raw, lots, config";
    const WRITES: &'static str = "lots.status, audit.status_transitions, raw.heads, fleet.windows";
    const SAFE: &'static str = "a lot that has its status is not moved again";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
        let began = Instant::now();
        let mut step = run.begin().await?;
        let window = Window::lock(&mut step, self.file_id).await?;
        let enabled = sqlx::query_scalar!(
            "-- detect-completion: switch\n select completion_detector_enabled from public.config"
        )
        .fetch_one(&mut *step)
        .await
        .context("read public.config")?;
        let complete = window.complete.unwrap_or(false);
        let late = !window.in_order || window.completed_window.is_some_and(|judged| judged > window.start);
        let mut report = Report {
            state: if late {
                "late"
            } else if complete {
                "applied"
            } else {
                "incomplete"
            },
            skipped: if late {
                Some("a newer window has been ingested")
            } else if !complete {
                Some("the file is not complete")
            } else if !enabled {
                Some("switched off in public.config")
            } else {
                None
            },
            ..Report::default()
        };
        if late && matches!(window.state.as_str(), "applied" | "late" | "incomplete") {
            // repeated after newer windows: it stays what it was
            let state = match window.state.as_str() {
                "applied" => "applied",
                "incomplete" => "incomplete",
                _ => "late",
            };
            return step.done(Report { state, ..report }).await;
        }
        if !late {
            let moved = sqlx::query_file!(
                "workers/auction/detect_completion.sql",
                self.file_id,
                window.source,
                window.start,
                complete && enabled
            )
            .fetch_one(&mut *step)
            .await
            .context("move the statuses")?;
            (report.pending_result, report.removed) = (moved.pending_result, moved.removed);
            (report.returned, report.moved) = (moved.returned, moved.moved);
            report.moves = moved.moves;
            sqlx::query_file!("workers/auction/detect_completion.close.sql", window.source)
                .fetch_one(&mut *step)
                .await
                .context("let go of closed lots")?;
            sqlx::query!(
                "-- detect-completion: judged\n update raw.sources set completed_window = $2 where source = $1",
                window.source,
                window.start
            )
            .execute(&mut *step)
            .await?;
        }
        (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
        note_step(&mut step, self.file_id, "detect_completion", &report).await?;
        sqlx::query!(
            r#"-- detect-completion: close the run
            with file as (
              update raw.csv_files set state = $2 where file_id = $1 returning source, window_start_utc
            ),
            run as (
              update audit.etl_runs
              set
                status = 'completed',
                completed_at = clock_timestamp(),
                rows_inserted = coalesce((report #>> '{upsert_lots,inserted}')::int, 0),
                rows_updated = coalesce((report #>> '{upsert_lots,updated}')::int, 0)
              where file_id = $1
            )
            update fleet.windows w
            set state = $2, file_id = $1, note = $3, updated_at = now()
            from file
            where w.source = file.source and w.window_start_utc = file.window_start_utc"#,
            self.file_id,
            report.state,
            report.skipped
        )
        .execute(&mut *step)
        .await
        .context("close the run")?;
        step.done(report).await
    }
}
