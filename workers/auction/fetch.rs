//! Fetch: brings in the file of one window, once.
//!
//! - *What*: downloads the feed, checks that it is one, keeps it, and writes down that it has come.
//! - *Reads*: the feed; `fleet.windows`, `raw.csv_files` (the last good file's validators).
//! - *Writes*: the store, `raw.csv_files`, `fleet.windows`.
//! - *Safe to repeat because* a window that has its file is left alone, and known bytes are recognised by their sha256.
//! - *Followed by* ingest, enqueued in the same transaction; by nothing when nothing is new.
//!
//! A slot has one attempt of up to four tries, so the policy has one attempt; a lost lease does not spend it. When it
//! fails the queue discards the job, and a trigger on `fleet.jobs` marks the window failed whoever gave the job up;
//! a job put back by an operator works as long as its quarter-hour lasts.
//!
//! The feed serves only what is current, so a window whose quarter-hour has gone by on the database's clock is marked
//! missed, never fetched late: its name must not be given to another quarter-hour's file. Accepted: a download that
//! starts in the last seconds of a slot may get the next slot's file; the next fetch then finds nothing new.

use super::download::{Feed, Since};
use super::receive::{Arrival, Fate, keep, record, settle};
use crate::queue::{Job, Policy, Run, Verdict};
use crate::store::Store;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use uuid::Uuid;

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
}

impl Fetch {
    /// What the job is about: `copart/2026-11-20T14:30Z`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.source, self.window_start_utc.format("%Y-%m-%dT%H:%MZ"))
    }

    /// Whether anything may be asked of the server; if not, how the fetch ends.
    async fn gate(&self, pool: &PgPool) -> anyhow::Result<Option<Outcome>> {
        // The insert serves a job that nobody's schedule made: `fetch --now`, or one put in from psql.
        let window = sqlx::query!(
            r#"-- fetch: open the window
            with opened as (
              insert into fleet.windows (source, window_start_utc)
              values ($1, $2)
              on conflict do nothing
            )
            select
              coalesce((select state from fleet.windows where (source, window_start_utc) = ($1, $2)), 'due') as "state!",
              now() >= $2 + interval '15 minutes' as "over!""#,
            self.source,
            self.window_start_utc,
        )
        .fetch_one(pool)
        .await
        .with_context(|| format!("open window {}", self.key()))?;
        Ok(match window.state.as_str() {
            "due" | "failed" | "missed" if self.late_ok || !window.over => None,
            "due" | "failed" | "missed" => Some(Outcome::Missed),
            _ => Some(Outcome::AlreadyFetched),
        })
    }

    /// The source's last file whose answer can make a request conditional.
    async fn last_good(&self, pool: &PgPool) -> anyhow::Result<(Option<Uuid>, Since)> {
        let last = sqlx::query!(
            "-- fetch: last good file
            select file_id, etag, last_modified
            from raw.csv_files
            where source = $1
              and (etag is not null or last_modified is not null)
            order by window_start_utc desc, received_at desc
            limit 1",
            self.source
        );
        let last = last.fetch_optional(pool).await.context("look up the last good file")?;
        Ok(last.map_or_else(Default::default, |last| {
            (Some(last.file_id), Since { etag: last.etag, last_modified: last.last_modified })
        }))
    }
}

impl Job for Fetch {
    const KIND: &'static str = "fetch";
    const POLICY: Policy = Policy::DEFAULT.attempts(1).within(Duration::from_secs(660));
    const VERB: &'static str = "downloads the file of a window";
    const WHEN: &'static str = "every quarter-hour";
    const READS: &'static str = "the feed, fleet.windows, raw.csv_files";
    const WRITES: &'static str = "the store, raw.csv_files, fleet.windows";
    const SAFE: &'static str =
        "a window that has its file is left alone; known bytes are recognised by their sha256";
    const NEXT: &'static str = "ingest";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
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
        if let Some(outcome) = self.gate(run.pool()).await? {
            report.outcome = outcome;
            let mut step = run.begin().await?;
            if outcome == Outcome::Missed {
                settle(&mut step, &self.source, self.window_start_utc, Fate::Missed, None).await?;
            }
            return step.done(report).await;
        }

        let (store, feed) = (run.tool::<Store>()?, run.tool::<Feed>()?);
        let (last, since) = self.last_good(run.pool()).await?;
        let download = feed.download(&store, &since, &|done, total| run.progress(done, total)).await;
        match &download {
            Ok(_) => {
                metrics::counter!("copart_fetch_success_total").increment(1);
                metrics::histogram!("copart_fetch_duration_seconds").record(began.elapsed().as_secs_f64());
            }
            Err(_) => metrics::counter!("copart_fetch_failures_total").increment(1),
        }
        let download = download.with_context(|| format!("download window {}", self.key()))?;
        report.tries = download.tries;

        let Some(file) = download.file else {
            let mut step = run.begin().await?;
            settle(&mut step, &self.source, self.window_start_utc, Fate::Unchanged, last).await?;
            (report.outcome, report.file_id) = (Outcome::NotModified, last);
            report.seconds = began.elapsed().as_secs_f64();
            return step.done(report).await;
        };

        let Fetch { source, window_start_utc: window, .. } = self;
        let kept = keep(run.pool(), &store, Arrival { source, window, since: file.since, spool: file.spool })
            .await?;
        let mut step = run.begin().await?;
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

#[cfg(test)]
mod tests;
