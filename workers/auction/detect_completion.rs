//! Detect-completion: updates the statuses of lots and closes the window.
//!
//! - *What*: a lot in the feed is active, or scheduled while its sale is in the future. An absent lot becomes
//!   PENDING_RESULT two hours after its auction, or removed after three complete files without it and with no auction
//!   near.
//! - *Reads*: `raw.heads`, `staging.copart_raw`, `lots`, `config`.
//! - *Writes*: `lots.status`, `audit.status_transitions`, `raw.heads` (heads of closed lots are deleted), the final
//!   state of the window.
//! - *Safe to repeat because* a lot that already has its status is not moved again, and a window older than a judged
//!   one moves only the open lots of its own file, by the newest judged window.
//! - *Followed by* nothing: this is the end of the chain.
//!
//! Each run inspects every open lot that is absent from the newest file, rather than the difference between two files:
//! lots disappear hours before they can be judged. Hours are counted from the window, not from the current time, so a
//! replay decides as the original run did.
//!
//! There are three cases. A window *in order* applies every rule. A *late* window moves the open lots of its own file,
//! since the file may add or remove a sale date. The newest judged window decides in that case. An *unchanged* window,
//! which received the newest file again, moves lots by the clock: a sale begins, or two hours have passed since the
//! auction of a lot that is known to be absent. No lot is removed without a new file. For a source that sends only
//! changes, absence is never judged: lots move only by the clock and by the rows of the file.

use super::{LockedWindow, Sighting, ensure_partitions, peak_rss_mb, record_step, write_catalogue};
use crate::auction::mapping;
use crate::queue::{Job, JobResult, JobRun, JobTransaction, snooze};
use crate::store::Store;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The delay before an unchanged window checks again whether older windows have finished.
const OLDER_WINDOW_DELAY: Duration = Duration::from_millis(250);

/// Payload of the job: the file whose statuses are updated.
#[derive(Debug, Serialize, Deserialize)]
pub struct DetectCompletion {
    /// The file and its window.
    #[serde(flatten)]
    pub sighting: Sighting,
}

/// Report of the job: the numbers of lots that changed their status.
#[derive(Debug, Default, Serialize)]
pub struct CompletionReport {
    /// The final state of the window: applied, late, incomplete or unchanged.
    pub state: &'static str,
    /// Absent lots whose auction is over.
    pub pending_result: i64,
    /// Absent lots that were removed because no auction is near.
    pub removed: i64,
    /// Closed lots that are in the feed again.
    pub returned: i64,
    /// All status changes, including the three above.
    pub moved: i64,
    /// The status changes by kind, such as `active > PENDING_RESULT`.
    pub moves: Value,
    /// The reason why absent lots were not judged; null if they were.
    pub skipped: Option<&'static str>,
    /// Duration from start to commit, in seconds.
    pub seconds: f64,
    /// Peak resident memory of the worker process, in MB.
    pub peak_rss_mb: f64,
}

impl Job for DetectCompletion {
    const KIND: &'static str = "detect-completion";
    const VERB: &'static str = "updates the statuses of lots and closes the window";
    const WHEN: &'static str = "after upsert-lots";
    const READS: &'static str = "raw.heads, staging.copart_raw, lots, config";
    const WRITES: &'static str = "lots.status, audit.status_transitions, raw.heads, fleet.windows";
    const SAFE: &'static str = "a lot that has its status is not moved again";
    type Report = CompletionReport;

    async fn run(self, run: JobRun) -> JobResult<CompletionReport> {
        let began = Instant::now();
        write_catalogue(run.pool(), &*run.extension::<Store>()?).await?;
        let mut step = run.begin_step().await?;
        let window = LockedWindow::lock(&mut step, self.sighting).await?;
        let enabled =
            sqlx::query_scalar!("-- detect-completion: switch\n select completion_detector_enabled from public.config")
                .fetch_one(&mut *step)
                .await
                .context("could not read public.config")?;
        let absence = mapping::mapping_for_source(&window.source).is_absence_judged();
        if window.state == "unchanged" {
            if has_older_unfinished_window(&mut step, &window).await? {
                return Err(snooze(OLDER_WINDOW_DELAY));
            }
            // If the feed has not changed since the end of a month, no ingest has created the month's partitions.
            ensure_partitions(run.pool(), window.start).await?;
            let mut report = self.judge_unchanged(&mut step, &window, enabled && absence).await?;
            (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
            return step.done(report).await;
        }
        let complete = window.complete.unwrap_or(false);
        let late = !window.in_order || window.completed_window.is_some_and(|judged| judged > window.start);
        let mut report = CompletionReport {
            state: final_state(&window, late, complete),
            skipped: if late {
                Some("a newer window has been ingested")
            } else if !complete {
                Some("the file is not complete")
            } else if !enabled {
                Some("switched off in public.config")
            } else if !absence {
                Some("the source sends changes only")
            } else {
                None
            },
            ..CompletionReport::default()
        };
        let judgement = if late {
            CompletionRules::for_late_window(&window, enabled && absence)
        } else {
            CompletionRules::for_newest_window(&window, complete && enabled && absence)
        };
        self.move_statuses(&mut step, &window, judgement, &mut report).await?;
        (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
        record_step(&mut step, (self.sighting.file_id, window.start), "detect_completion", &report).await?;
        self.close_run(&mut step, &window, &report).await?;
        step.done(report).await
    }
}

/// Rules by which the lots of a source are judged.
struct CompletionRules {
    /// The window that hours are counted from; `None` if no window has been judged yet.
    by: Option<DateTime<Utc>>,
    /// True if absent lots are judged.
    absent: bool,
    /// True if absent lots may be removed.
    removal: bool,
    /// The window under which the file's rows are staged.
    staged: DateTime<Utc>,
    /// True if only the open lots of the file itself are judged.
    own_lots: bool,
}

impl CompletionRules {
    /// Returns the rules for a file that is newer than all others. `absent` enables the judgement of absent lots.
    fn for_newest_window(window: &LockedWindow, absent: bool) -> CompletionRules {
        CompletionRules { by: Some(window.start), absent, removal: absent, staged: window.start, own_lots: false }
    }

    /// Returns the rules for a late file. `absent` enables the judgement of absent lots.
    fn for_late_window(window: &LockedWindow, absent: bool) -> CompletionRules {
        CompletionRules { by: window.completed_window, absent, removal: false, staged: window.start, own_lots: true }
    }
}

/// Returns the final state of the window. A window that is processed again after newer ones keeps the state it has.
fn final_state(window: &LockedWindow, late: bool, complete: bool) -> &'static str {
    match window.state.as_str() {
        "applied" if late => "applied",
        "incomplete" if late => "incomplete",
        _ if late => "late",
        _ if complete => "applied",
        _ => "incomplete",
    }
}

/// Returns true if an older window of the source is unfinished: fetched, or ingested and not closed.
async fn has_older_unfinished_window(step: &mut JobTransaction, window: &LockedWindow) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- detect-completion: older windows under way
        select exists (
          select from fleet.windows
          where source = $1
            and window_start_utc < $2
            and state in ('fetched', 'ingested')
        ) as "under_way!""#,
        window.source,
        window.start
    )
    .fetch_one(&mut **step)
    .await
    .context("could not read the older unfinished windows")
}

impl DetectCompletion {
    /// Moves lots by the clock, for a window that received no new file.
    async fn judge_unchanged(
        &self,
        step: &mut JobTransaction,
        window: &LockedWindow,
        absent: bool,
    ) -> anyhow::Result<CompletionReport> {
        let newest = window.in_order && window.completed_window.is_none_or(|judged| judged <= window.start);
        let mut report = CompletionReport {
            state: "unchanged",
            skipped: (!newest).then_some("a newer window has been ingested"),
            ..CompletionReport::default()
        };
        if newest {
            let judgement = CompletionRules {
                by: Some(window.start),
                absent,
                removal: false,
                // No rows are staged for this window.
                staged: window.start,
                own_lots: false,
            };
            self.move_statuses(step, window, judgement, &mut report).await?;
        }
        Ok(report)
    }

    /// Updates the statuses and deletes the heads of lots that are no longer open.
    async fn move_statuses(
        &self,
        step: &mut JobTransaction,
        window: &LockedWindow,
        judgement: CompletionRules,
        report: &mut CompletionReport,
    ) -> anyhow::Result<()> {
        let Some(by) = judgement.by else { return Ok(()) };
        let moved = sqlx::query_file!(
            "workers/auction/detect_completion.sql",
            self.sighting.file_id,
            window.source,
            by,
            judgement.absent,
            judgement.removal,
            judgement.staged,
            judgement.own_lots
        )
        .fetch_one(&mut **step)
        .await
        .context("could not update the statuses")?;
        (report.pending_result, report.removed) = (moved.pending_result, moved.removed);
        (report.returned, report.moved) = (moved.returned, moved.moved);
        report.moves = moved.moves;
        sqlx::query_file!("workers/auction/detect_completion.close.sql", window.source)
            .fetch_one(&mut **step)
            .await
            .context("could not delete the heads of closed lots")?;
        sqlx::query!(
            "-- detect-completion: judged
            update raw.sources
            set completed_window = greatest(completed_window, $2)
            where source = $1",
            window.source,
            by
        )
        .execute(&mut **step)
        .await
        .context("could not record the judged window")?;
        Ok(())
    }

    /// Writes the final state of the file, the window and the run.
    async fn close_run(
        &self,
        step: &mut JobTransaction,
        window: &LockedWindow,
        report: &CompletionReport,
    ) -> anyhow::Result<()> {
        sqlx::query_file!(
            "workers/auction/detect_completion.run.sql",
            self.sighting.file_id,
            window.start,
            window.source,
            report.state,
            report.skipped
        )
        .execute(&mut **step)
        .await
        .context("could not close the run")?;
        Ok(())
    }
}
