//! Fetch: brings in the file of one window, once.
//!
//! - *What*: downloads the feed, checks that it is one, keeps it, and writes down that it has come.
//! - *Reads*: the feed; `fleet.windows`, `raw.csv_files` (the last good file's validators; never a quarantined one's).
//! - *Writes*: the store, `raw.csv_files`, `fleet.windows`.
//! - *Safe to repeat because* a window that has its file is left alone, and known bytes are recognised by their sha256.
//! - *Followed by* ingest, enqueued in the same transaction; by nothing when nothing is new.
//!
//! A slot has one attempt of up to four tries, and the database holds it: before anything is asked of the server, the
//! job asks for the slot ([`source::begin`]), which a second job, a repeated one, a source that is switched off and one
//! whose breaker is open do not get. A lost lease does not spend the attempt: the rescued job goes on with it. When it
//! fails the queue discards the job, and triggers on `fleet.jobs` mark the window failed and count the slot for the
//! breaker, whoever gave the job up. What fails before the slot is asked for (a worker without the feed's address) can be
//! put back as long as the quarter-hour lasts. Where the database is away for a moment the job stands aside and goes on
//! with its attempt, at the price of a second download.
//!
//! The feed serves only what is current, so a window whose quarter-hour has gone by on the database's clock is marked
//! missed, never fetched late: its name must not be given to another quarter-hour's file. Accepted: a download that
//! starts in the last seconds of a slot may get the next slot's file; the next fetch then finds nothing new.

use super::download::{DownloadError, Feed, Since};
use super::receive::{Arrival, WindowOutcome, keep, record, settle};
use super::session::Login;
use super::sightings::record_repetition;
use crate::auction::window::WINDOW_LENGTH;
use crate::config::now;
use crate::db::passing::{Passing, passing};
use crate::queue::{Job, Policy, Run, Step, Stop, Verdict, abort, snooze};
use crate::source::{self, Answer, Ended};
use crate::store::Store;
use anyhow::{Context, anyhow, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a fetch stands aside when the database is away for a moment.
const PAUSE: Duration = Duration::from_secs(1);

/// Bring in the file of this window.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// The source: `copart`.
    pub source: String,
    /// The start of the quarter-hour.
    pub window_start_utc: DateTime<Utc>,
    /// The source runs on another clock than the database's (a simulated one): no window is ever too late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late_ok: bool,
}

/// What came of a fetch; sizes are 0 where nothing was downloaded.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// The window's file: new, or known already.
    pub file_id: Option<Uuid>,
    /// Of the bytes downloaded.
    pub sha256: Option<String>,
    /// Downloaded.
    pub bytes: u64,
    /// Added to the store.
    pub stored_bytes: u64,
    /// Requests made.
    pub tries: u32,
    /// From start to commit.
    pub seconds: f64,
}

/// How a fetch ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A new file; its ingest is enqueued.
    Fetched,
    /// The server says nothing changed since the last good file (304).
    NotModified,
    /// The bytes are a known file's.
    Duplicate,
    /// The window had its file before; nothing was asked of the server.
    AlreadyFetched,
    /// The quarter-hour has gone by; nothing was asked of the server.
    Missed,
    /// The source is switched off; nothing was asked of the server.
    Disabled,
    /// The breaker is open; nothing was asked of the server.
    BreakerOpen,
    /// Another job's attempt is under way in this slot; nothing was asked of the server.
    UnderWay,
}

impl Fetch {
    /// What the job is about: `copart/2026-11-20T14:30Z`.
    pub fn key(&self) -> String {
        source::fetch_key(&self.source, self.window_start_utc)
    }

    /// Writes down that the window gets no file, and why.
    async fn give_up(&self, step: &mut Step, why: Option<&str>) -> anyhow::Result<()> {
        settle(step, &self.source, self.window_start_utc, WindowOutcome::Missed, None).await?;
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
        .context("note why the window is missed")?;
        Ok(())
    }

    /// Says that the fault is ours; the job's own error is what is told.
    async fn unkept(&self, run: &Run) {
        if let Err(error) = source::unkept(run.pool(), run.job().id, run.job().run).await {
            tracing::warn!("the slot will count as failed: {error:#}");
        }
    }

    /// Returns the file of the source's newest window that has a usable one, and its validators.
    ///
    /// A quarantined file is none, nor is one whose chain failed: a conditional request that names it would be answered
    /// with 304 for as long as the server has it, and the window would end well with nothing applied. Where the newest
    /// file has no validators (one ingested by hand) the request is not conditional, since a 304 would then be about an
    /// older one.
    async fn last_good(&self, pool: &PgPool) -> anyhow::Result<(Option<Uuid>, Since)> {
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
        let last = last.fetch_optional(pool).await.context("look up the last good file")?;
        Ok(last.map_or_else(Default::default, |last| {
            (Some(last.file_id), Since { etag: last.etag, last_modified: last.last_modified })
        }))
    }

    /// Returns the feed, with what is left of the slot as the limit of a server's `Retry-After`. A simulated source's
    /// slot is not this clock's.
    fn within_the_slot(&self, feed: Arc<Feed>) -> Arc<Feed> {
        if self.late_ok {
            return feed;
        }
        let end = self.window_start_utc + WINDOW_LENGTH;
        Arc::new(feed.with_retry_within((end - now()).to_std().unwrap_or_default()))
    }
}

impl Job for Fetch {
    const KIND: &'static str = "fetch";
    const POLICY: Policy = Policy::DEFAULT.attempts(1).within(Duration::from_secs(660));
    const VERB: &'static str = "downloads the file of a window";
    const WHEN: &'static str = "every quarter-hour";
    const READS: &'static str = "the feed, fleet.sources, fleet.windows, raw.csv_files";
    const WRITES: &'static str = "the store, raw.csv_files, fleet.windows, fleet.fetch_slots";
    const SAFE: &'static str =
        "a slot has one attempt, a window one file; known bytes are recognised by their sha256";
    const NEXT: &'static str = "ingest";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
        match self.attempt(&run).await {
            // not the source's fault and no reason to let the window go: the same attempt goes on
            Err(Stop::Retry(error)) => match passing(&error) {
                Some(Passing::Connection) => {
                    tracing::warn!(window = self.key(), "the database is away for a moment: {error:#}");
                    Err(snooze(PAUSE))
                }
                Some(Passing::Conflict) => {
                    tracing::info!(window = self.key(), "conflict with another transaction: {error:#}");
                    Err(snooze(PAUSE))
                }
                None => Err(Stop::Retry(error)),
            },
            ended => ended,
        }
    }
}

impl Fetch {
    async fn attempt(&self, run: &Run) -> Verdict<Report> {
        let began = Instant::now();
        let mut report = Report {
            outcome: Outcome::Fetched,
            file_id: None,
            sha256: None,
            bytes: 0,
            stored_bytes: 0,
            tries: 0,
            seconds: 0.0,
        };
        let store = run.tool::<Store>()?;
        let feed = run.tool::<Feed>().context(
            "COPART_FEED_URL is not set on this worker: set it, or leave the kind fetch to another (--kind)",
        )?;
        let (job, its_run) = (run.job().id, run.job().run);
        let answer =
            source::begin(run.pool(), &self.source, self.window_start_utc, job, its_run, self.late_ok)
                .await?;
        let (outcome, why) = match answer {
            Answer::Go => (Outcome::Fetched, None),
            Answer::AlreadyFetched => (Outcome::AlreadyFetched, None),
            Answer::Missed => (Outcome::Missed, None),
            Answer::Disabled => (Outcome::Disabled, Some("the source is disabled")),
            Answer::Open => (Outcome::BreakerOpen, Some("the breaker is open")),
            Answer::UnderWay => (Outcome::UnderWay, None),
            Answer::Unknown => {
                return Err(abort(anyhow!(
                    "unknown source {:?}; `vinops source list` shows the known ones",
                    self.source
                )));
            }
            Answer::Spent => {
                return Err(abort(anyhow!(
                    "the one attempt that window {} has is spent: a source is asked once in a quarter-hour, \
                     and the next one has its own fetch",
                    self.key()
                )));
            }
        };
        if answer != Answer::Go {
            report.outcome = outcome;
            let mut step = run.begin().await?;
            if matches!(answer, Answer::Missed | Answer::Disabled | Answer::Open) {
                self.give_up(&mut step, why).await?;
            }
            return step.done(report).await;
        }

        let feed = match run.tool::<Login>() {
            Ok(login) => {
                let who = format!("job {job}, run {its_run}");
                login.dress(run.pool(), &self.source, &who, feed).await?
            }
            Err(_) => feed,
        };
        let feed = self.within_the_slot(feed);
        let (last, since) = self.last_good(run.pool()).await?;
        let download = feed.download(&store, &since, &|done, total| run.progress(done, total)).await;
        match &download {
            Ok(_) => {
                metrics::counter!("copart_fetch_success_total").increment(1);
                metrics::histogram!("copart_fetch_duration_seconds").record(began.elapsed().as_secs_f64());
            }
            Err(_) => metrics::counter!("copart_fetch_failures_total").increment(1),
        }
        match &download {
            Err(DownloadError::Store(_)) => self.unkept(run).await,
            Err(error) if error.is_no_entry() => source::session::doubt(run.pool(), &self.source).await?,
            _ => {}
        }
        let download = download.with_context(|| format!("download window {}", self.key()))?;
        report.tries = download.tries;

        let Some(file) = download.file else {
            let mut step = run.begin().await?;
            end(&mut step, run, Ended::Unchanged).await?;
            match last {
                Some(file_id) => {
                    record_repetition(&mut step, &self.source, self.window_start_utc, file_id).await?;
                }
                None => {
                    let outcome = WindowOutcome::Unchanged;
                    settle(&mut step, &self.source, self.window_start_utc, outcome, None).await?;
                }
            }
            (report.outcome, report.file_id) = (Outcome::NotModified, last);
            report.seconds = began.elapsed().as_secs_f64();
            return step.done(report).await;
        };

        let (source, window) = (self.source.clone(), self.window_start_utc);
        let arrival = Arrival { source, window, since: file.since, spool: file.spool };
        let kept = match keep(run.pool(), &store, arrival).await {
            Ok(kept) => kept,
            Err(error) => {
                if passing(&error).is_none() {
                    self.unkept(run).await;
                }
                return Err(error.into());
            }
        };
        let mut step = run.begin().await?;
        end(&mut step, run, Ended::Fetched).await?;
        let receipt = record(&mut step, &kept).await?;
        if receipt.duplicate {
            report.outcome = Outcome::Duplicate;
        }
        let report = Report {
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

/// Ends the slot's attempt as a success, in the step's transaction; the attempt must still be this run's.
async fn end(step: &mut Step, run: &Run, ended: Ended) -> anyhow::Result<()> {
    let ours = source::end(step, run.job().id, run.job().run, ended).await?;
    ensure!(ours, "the slot's attempt is no longer that of job {}, run {}", run.job().id, run.job().run);
    Ok(())
}

#[cfg(test)]
mod tests;
