//! Fetch: downloads the file of one window, once.
//!
//! - *What*: downloads and checks the feed, stores and registers the file.
//! - *Reads*: the feed, `fleet.windows`, `raw.csv_files` (the last good file's validators, never those of a quarantined
//!   file).
//! - *Writes*: the store, `raw.csv_files`, `fleet.windows`.
//! - *Safe to repeat because* a window that has its file is left alone, and known bytes are recognised by their sha256.
//! - *Followed by* ingest, enqueued in the same transaction, or by nothing if the feed has not changed.
//!
//! A slot has one attempt of up to four requests, enforced by the database. The job asks for the slot
//! ([`source::begin_fetch`]) before it sends a request. A second job, a repeated job, a disabled source and a source
//! with an open breaker do not get the slot. A lost lease does not use up the attempt: the rescued job continues it.
//! When the attempt fails, the queue discards the job. Triggers on `fleet.jobs` then mark the window failed and count
//! the slot for the breaker, whichever part ended the job. A job that fails before it asks for the slot (a worker
//! without the feed's address) can be requeued until the quarter-hour ends. After a transient database error the job is
//! snoozed and continues its attempt, which costs a second download.
//!
//! The feed serves only the current state. A window whose quarter-hour is over by the database's clock is marked missed
//! and never fetched late, since the file would belong to another quarter-hour. One inaccuracy is accepted: a download
//! that starts in the last seconds of a slot may get the next slot's file. The next fetch then finds nothing new.

use super::download::{DownloadError, FeedClient, Validators};
use super::receive::{IncomingFile, WindowOutcome, register_file, set_window_state, store_bytes};
use super::session::LoginClient;
use super::sightings::record_repeat;
use crate::auction::window::WINDOW_INTERVAL;
use crate::config::now;
use crate::db::transient::{TransientError, transient_error};
use crate::queue::{Job, JobError, JobPolicy, JobResult, JobRun, JobTransaction, abort, snooze};
use crate::source::{self, FetchPermission, SlotResult};
use crate::store::Store;
use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The delay before a fetch continues after a transient database error.
const DATABASE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Payload of the job: the window to fetch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// The source, such as `copart`.
    pub source: String,
    /// The start of the quarter-hour.
    pub window_start_utc: DateTime<Utc>,
    /// True if the source runs on another clock than the database's (a simulated one), so no window is too late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late_ok: bool,
}

/// Report of the job. Sizes are 0 if nothing was downloaded.
#[derive(Debug, Serialize)]
pub struct FetchReport {
    /// The outcome of the fetch.
    pub outcome: FetchOutcome,
    /// The window's file, which is new or already known.
    pub file_id: Option<Uuid>,
    /// The sha256 of the downloaded bytes, in hex.
    pub sha256: Option<String>,
    /// Bytes downloaded.
    pub bytes: u64,
    /// Bytes added to the store.
    pub stored_bytes: u64,
    /// The number of requests.
    pub tries: u32,
    /// Duration from start to commit, in seconds.
    pub seconds: f64,
}

/// Outcome of a successful fetch job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchOutcome {
    /// The file is new, and an ingest job is enqueued.
    Fetched,
    /// The server reported no change since the last good file (304).
    NotModified,
    /// The bytes are those of a known file.
    Duplicate,
    /// The window already had its file, and no request was sent.
    AlreadyFetched,
    /// The quarter-hour is over, and no request was sent.
    Missed,
    /// The source is disabled, and no request was sent.
    Disabled,
    /// The breaker is open, and no request was sent.
    BreakerOpen,
    /// Another job's attempt is running in this slot, and no request was sent.
    UnderWay,
}

impl Fetch {
    /// Returns the key of the job, such as `copart/2026-11-20T14:30Z`.
    pub fn job_key(&self) -> String {
        source::fetch_key(&self.source, self.window_start_utc)
    }

    /// Marks the window missed, with the reason as a note.
    async fn mark_missed(&self, step: &mut JobTransaction, why: Option<&str>) -> anyhow::Result<()> {
        set_window_state(step, &self.source, self.window_start_utc, WindowOutcome::Missed, None).await?;
        sqlx::query!(
            "-- fetch: why the window is missed
            update fleet.windows
            set note = $3
            where (source, window_start_utc) = ($1, $2)
              and state = 'missed'
              and $3::text is not null",
            self.source,
            self.window_start_utc,
            why,
        )
        .execute(&mut **step)
        .await
        .context("could not record why the window is missed")?;
        Ok(())
    }

    /// Records that storing failed on this side, so that the source's breaker does not count the slot. The job returns
    /// the error itself.
    async fn record_store_failure(&self, run: &JobRun) {
        if let Err(error) = source::record_store_failure(run.pool(), run.job().id, run.job().run).await {
            tracing::warn!(error = %format_args!("{error:#}"), "store failure not recorded, slot counts as failed");
        }
    }

    /// Returns the file of the source's newest window that has a usable one, and the validators.
    ///
    /// A quarantined file is not usable, nor is one whose chain failed. A conditional request with its validators would
    /// be answered with 304 as long as the server has it, and the window would succeed with nothing applied. If the
    /// newest file has no validators (one ingested manually), the request is not conditional, since a 304 would refer
    /// to an older file.
    async fn last_good_file(&self, pool: &PgPool) -> anyhow::Result<(Option<Uuid>, Validators)> {
        let last = sqlx::query!(
            "-- fetch: last good file
            select f.file_id, f.etag, f.last_modified
            from fleet.windows w
            join raw.csv_files f on f.file_id = w.file_id
            where w.source = $1
              and w.state in ('fetched', 'unchanged', 'ingested', 'applied', 'late', 'incomplete')
              and f.state <> 'quarantined'
            order by w.window_start_utc desc
            limit 1",
            self.source
        );
        let last = last.fetch_optional(pool).await.context("could not read the last good file")?;
        Ok(last.map_or_else(Default::default, |last| {
            (Some(last.file_id), Validators { etag: last.etag, last_modified: last.last_modified })
        }))
    }

    /// Returns the client with the rest of the slot as the limit of a server's `Retry-After`.
    ///
    /// The slot of a simulated source does not follow this clock, so the client is returned unchanged.
    fn limit_to_slot(&self, feed: Arc<FeedClient>) -> Arc<FeedClient> {
        if self.late_ok {
            return feed;
        }
        let end = self.window_start_utc + WINDOW_INTERVAL;
        Arc::new(feed.with_retry_within((end - now()).to_std().unwrap_or_default()))
    }
}

impl Job for Fetch {
    const KIND: &'static str = "fetch";
    const POLICY: JobPolicy = JobPolicy::DEFAULT.with_attempts(1).with_timeout(Duration::from_secs(660));
    const VERB: &'static str = "downloads the file of a window";
    const WHEN: &'static str = "every quarter-hour";
    const READS: &'static str = "the feed, fleet.sources, fleet.windows, raw.csv_files";
    const WRITES: &'static str = "the store, raw.csv_files, fleet.windows, fleet.fetch_slots";
    const SAFE: &'static str = "a slot has one attempt, a window one file; known bytes are recognised by their sha256";
    const NEXT: &'static str = "ingest";
    type Report = FetchReport;

    async fn run(self, run: JobRun) -> JobResult<FetchReport> {
        match self.attempt_fetch(&run).await {
            // The source is not at fault and the window is not lost: the same attempt continues.
            Err(JobError::Retry(error)) => match transient_error(&error) {
                Some(TransientError::Connection) => {
                    let error = format!("{error:#}");
                    tracing::warn!(window = self.job_key(), error, "database unavailable, fetch snoozed");
                    Err(snooze(DATABASE_RETRY_DELAY))
                }
                Some(TransientError::Conflict) => {
                    let error = format!("{error:#}");
                    tracing::info!(window = self.job_key(), error, "transaction conflict, fetch snoozed");
                    Err(snooze(DATABASE_RETRY_DELAY))
                }
                None => Err(JobError::Retry(error)),
            },
            ended => ended,
        }
    }
}

impl Fetch {
    async fn attempt_fetch(&self, run: &JobRun) -> JobResult<FetchReport> {
        let began = Instant::now();
        let mut report = FetchReport {
            outcome: FetchOutcome::Fetched,
            file_id: None,
            sha256: None,
            bytes: 0,
            stored_bytes: 0,
            tries: 0,
            seconds: 0.0,
        };
        let store = run.extension::<Store>()?;
        let feed = run.extension::<FeedClient>().context(
            "COPART_FEED_URL is not set on this worker\nhint: set it, or exclude the kind fetch with --kind",
        )?;
        let (job, its_run) = (run.job().id, run.job().run);
        let answer =
            source::begin_fetch(run.pool(), &self.source, self.window_start_utc, job, its_run, self.late_ok).await?;
        let (outcome, why) = match answer {
            FetchPermission::Granted => (FetchOutcome::Fetched, None),
            FetchPermission::AlreadyFetched => (FetchOutcome::AlreadyFetched, None),
            FetchPermission::Missed => (FetchOutcome::Missed, None),
            FetchPermission::Disabled => (FetchOutcome::Disabled, Some("the source is disabled")),
            FetchPermission::Open => (FetchOutcome::BreakerOpen, Some("the breaker is open")),
            FetchPermission::UnderWay => (FetchOutcome::UnderWay, None),
            FetchPermission::Unknown => {
                return Err(abort(anyhow!(
                    "unknown source {:?}\nhint: list the sources with `vinops source list`",
                    self.source
                )));
            }
            FetchPermission::AttemptUsed => {
                return Err(abort(anyhow!(
                    "window {} has no attempt left\ndetail: a source gets one attempt per quarter-hour, and the next \
                     quarter-hour has its own fetch",
                    self.job_key()
                )));
            }
        };
        if answer != FetchPermission::Granted {
            report.outcome = outcome;
            let mut step = run.begin_step().await?;
            if matches!(answer, FetchPermission::Missed | FetchPermission::Disabled | FetchPermission::Open) {
                self.mark_missed(&mut step, why).await?;
            }
            return step.done(report).await;
        }

        let feed = match run.extension::<LoginClient>() {
            Ok(login) => {
                let who = format!("job {job}, run {its_run}");
                login.with_session(run.pool(), &self.source, &who, feed).await?
            }
            Err(_) => feed,
        };
        let feed = self.limit_to_slot(feed);
        let (last, since) = self.last_good_file(run.pool()).await?;
        let download = feed.download(&store, &since, &|done, total| run.report_progress(done, total)).await;
        match &download {
            Ok(_) => {
                metrics::counter!("copart_fetch_success_total").increment(1);
                metrics::histogram!("copart_fetch_duration_seconds").record(began.elapsed().as_secs_f64());
            }
            Err(_) => metrics::counter!("copart_fetch_failures_total").increment(1),
        }
        match &download {
            Err(DownloadError::Store(_)) => self.record_store_failure(run).await,
            Err(error) if error.is_access_denied() => {
                source::session::invalidate_session(run.pool(), &self.source).await?
            }
            _ => {}
        }
        let download = download.with_context(|| format!("could not download window {}", self.job_key()))?;
        report.tries = download.tries;

        let Some(file) = download.file else {
            let mut step = run.begin_step().await?;
            end_attempt(&mut step, run, SlotResult::Unchanged).await?;
            match last {
                Some(file_id) => {
                    record_repeat(&mut step, &self.source, self.window_start_utc, file_id).await?;
                }
                None => {
                    let outcome = WindowOutcome::Unchanged;
                    set_window_state(&mut step, &self.source, self.window_start_utc, outcome, None).await?;
                }
            }
            (report.outcome, report.file_id) = (FetchOutcome::NotModified, last);
            report.seconds = began.elapsed().as_secs_f64();
            return step.done(report).await;
        };

        let (source, window) = (self.source.clone(), self.window_start_utc);
        let arrival = IncomingFile { source, window, since: file.since, spool: file.spool };
        let kept = match store_bytes(run.pool(), &store, arrival).await {
            Ok(kept) => kept,
            Err(error) => {
                if transient_error(&error).is_none() {
                    self.record_store_failure(run).await;
                }
                return Err(error.into());
            }
        };
        let mut step = run.begin_step().await?;
        end_attempt(&mut step, run, SlotResult::Fetched).await?;
        let receipt = register_file(&mut step, &kept).await?;
        if receipt.duplicate {
            report.outcome = FetchOutcome::Duplicate;
        }
        let report = FetchReport {
            file_id: Some(receipt.file_id),
            sha256: Some(receipt.sha256),
            bytes: receipt.bytes,
            stored_bytes: receipt.stored_bytes,
            seconds: began.elapsed().as_secs_f64(),
            ..report
        };
        step.done(report).await
    }
}

/// Ends the slot's attempt as a success, in the step's transaction. The attempt must still belong to this run.
async fn end_attempt(step: &mut JobTransaction, run: &JobRun, ended: SlotResult) -> anyhow::Result<()> {
    let ours = source::end_fetch(step, run.job().id, run.job().run, ended).await?;
    ensure!(ours, "job {}, run {} no longer owns the attempt of the slot", run.job().id, run.job().run);
    Ok(())
}

#[cfg(test)]
mod tests;
