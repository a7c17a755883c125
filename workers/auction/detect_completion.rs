//! Detect-completion: moves the statuses of lots, and closes the window.
//!
//! - *What*: a lot in the feed is active, or scheduled while its sale is ahead; one that is absent is PENDING_RESULT once
//!   its auction is two hours past, or removed after three complete files without it and no auction near.
//! - *Reads*: `raw.heads`, `staging.copart_raw`, `lots`, `config`.
//! - *Writes*: `lots.status`, `audit.status_transitions`, `raw.heads` (lots closed leave it), the window's last state.
//! - *Safe to repeat because* a lot that has its status is not moved again, and a window older than one already judged
//!   moves only its own open lots, by the newest window.
//! - *Followed by* nothing: this is the chain's end.
//!
//! Every open lot absent from the newest file is looked at each time, not the difference of two files: lots vanish hours
//! before they can be judged. Hours are counted from the window, not from now, so a replay decides as the day did.
//!
//! Three cases. A window *in order* applies every rule. A *late* one moves the open lots of its own file, since it may have
//! brought or taken a sale date; the newest judged window decides. An *unchanged* one, which brought the newest file again,
//! moves lots by the clock: a sale begins, or two hours have passed since the auction of a lot that is known to be absent.
//! No lot is removed without a new file. Of a source that sends changes only, absence is never judged: what moves is what the
//! clock decides, and what the file holds.

use super::{Sighting, Window, ensure_partitions, note_step, peak_rss_mb, write_catalogue};
use crate::auction::mapping;
use crate::queue::{Job, Run, Step, Verdict, snooze};
use crate::store::Store;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long an unchanged window waits before it asks again whether older windows have ended.
const WAIT_FOR_OLDER: Duration = Duration::from_millis(250);

/// Move the statuses this file decides.
#[derive(Debug, Serialize, Deserialize)]
pub struct DetectCompletion {
    /// The file and its window.
    #[serde(flatten)]
    pub sighting: Sighting,
}

/// Which lots moved.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The window's last state: applied, late, incomplete or unchanged.
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
        write_catalogue(run.pool(), &*run.tool::<Store>()?).await?;
        let mut step = run.begin().await?;
        let window = Window::lock(&mut step, self.sighting).await?;
        let enabled = sqlx::query_scalar!(
            "-- detect-completion: switch\n select completion_detector_enabled from public.config"
        )
        .fetch_one(&mut *step)
        .await
        .context("read public.config")?;
        let absence = mapping::for_source(&window.source).absence_is_judged();
        if window.state == "unchanged" {
            if older_under_way(&mut step, &window).await? {
                return Err(snooze(WAIT_FOR_OLDER));
            }
            // no ingest has opened the month where the feed stands still over the end of one
            ensure_partitions(run.pool(), window.start).await?;
            let mut report = self.judge_unchanged(&mut step, &window, enabled && absence).await?;
            (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
            return step.done(report).await;
        }
        let complete = window.complete.unwrap_or(false);
        let late = !window.in_order || window.completed_window.is_some_and(|judged| judged > window.start);
        let mut report = Report {
            state: last_state(&window, late, complete),
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
            ..Report::default()
        };
        let judgement = if late {
            Judgement::of_late(&window, enabled && absence)
        } else {
            Judgement::in_order(&window, complete && enabled && absence)
        };
        self.move_statuses(&mut step, &window, judgement, &mut report).await?;
        (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
        note_step(&mut step, (self.sighting.file_id, window.start), "detect_completion", &report).await?;
        self.close_run(&mut step, &window, &report).await?;
        step.done(report).await
    }
}

/// How the lots of a source are judged.
struct Judgement {
    /// The window that hours are counted from; none where no window has been judged yet.
    by: Option<DateTime<Utc>>,
    /// Whether absent lots are judged.
    absent: bool,
    /// Whether absent lots may be removed.
    removal: bool,
    /// The window under which the file's rows are staged.
    staged: DateTime<Utc>,
    /// Whether only open lots of the file itself are judged.
    own_lots: bool,
}

impl Judgement {
    /// Returns how a file that is newer than all others is judged; `absent` is whether absence is.
    fn in_order(window: &Window, absent: bool) -> Judgement {
        Judgement { by: Some(window.start), absent, removal: absent, staged: window.start, own_lots: false }
    }

    /// Returns how a late file is judged; `absent` is whether absence is.
    fn of_late(window: &Window, absent: bool) -> Judgement {
        Judgement {
            by: window.completed_window,
            absent,
            removal: false,
            staged: window.start,
            own_lots: true,
        }
    }
}

/// Returns the state in which the window ends. A window that is worked again after newer ones keeps its state.
fn last_state(window: &Window, late: bool, complete: bool) -> &'static str {
    match window.state.as_str() {
        "applied" if late => "applied",
        "incomplete" if late => "incomplete",
        _ if late => "late",
        _ if complete => "applied",
        _ => "incomplete",
    }
}

/// Returns whether an older window of the source is between its fetch and its end.
async fn older_under_way(step: &mut Step, window: &Window) -> anyhow::Result<bool> {
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
    .context("look for older windows under way")
}

impl DetectCompletion {
    /// Moves what the clock decides at a window that brought nothing new.
    async fn judge_unchanged(
        &self,
        step: &mut Step,
        window: &Window,
        absent: bool,
    ) -> anyhow::Result<Report> {
        let newest = window.in_order && window.completed_window.is_none_or(|judged| judged <= window.start);
        let mut report = Report {
            state: "unchanged",
            skipped: (!newest).then_some("a newer window has been ingested"),
            ..Report::default()
        };
        if newest {
            let judgement = Judgement {
                by: Some(window.start),
                absent,
                removal: false,
                // nothing is staged for it
                staged: window.start,
                own_lots: false,
            };
            self.move_statuses(step, window, judgement, &mut report).await?;
        }
        Ok(report)
    }

    /// Moves the statuses, and lets go of the heads of lots that are no longer open.
    async fn move_statuses(
        &self,
        step: &mut Step,
        window: &Window,
        judgement: Judgement,
        report: &mut Report,
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
        .context("move the statuses")?;
        (report.pending_result, report.removed) = (moved.pending_result, moved.removed);
        (report.returned, report.moved) = (moved.returned, moved.moved);
        report.moves = moved.moves;
        sqlx::query_file!("workers/auction/detect_completion.close.sql", window.source)
            .fetch_one(&mut **step)
            .await
            .context("let go of closed lots")?;
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
        .context("note the judged window")?;
        Ok(())
    }

    /// Writes the last state of the file, of its window and of the run.
    async fn close_run(&self, step: &mut Step, window: &Window, report: &Report) -> anyhow::Result<()> {
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
        .context("close the run")?;
        Ok(())
    }
}
