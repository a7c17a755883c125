//! The scheduler: determines the due window of each source and enqueues exactly one fetch for the window.
//!
//! A window is a source and a quarter-hour of the *database's* clock. The primary key of `fleet.windows` is the only
//! guard: the scheduler that inserts the row of a window also enqueues the fetch, in the same transaction. All other
//! schedulers find the row and do nothing. Hence there is no leader: any number of schedulers may run, and one that
//! dies between two statements leaves nothing behind.
//!
//! The feed serves only the current state, so a window that passed while no scheduler ran cannot be fetched any more.
//! The window gets a row with state `missed`. A window whose fetch was still unclaimed at the end of the quarter-hour
//! also becomes `missed`, and the fetch is cancelled. A running fetch is left alone. A window without a fetch, because
//! the source is disabled or the breaker is open, is `missed` too, with the reason in the note. The first window an
//! hour after the breaker opened gets a fetch as the breaker's probe.
//!
//! The loop wakes 10 s into each quarter-hour (`VINOPS_FETCH_DELAY`), since the server regenerates the file in the
//! first seconds. A random delay of up to 20 s (`VINOPS_FETCH_JITTER`) is added, so that many schedulers do not request
//! the feed at the same time. The clock of the host decides only when to wake, and its measured skew is subtracted. The
//! database decides which window is due. A clock that is more than two seconds wrong is logged as an error ([`clock`]).

use crate::auction::window::WINDOW_INTERVAL;
use crate::config;
use crate::db::transient::{TransientError, transient_error};
use crate::queue::JobDefinition;
use crate::source::{self, SourceState};
use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub mod clock;
use clock::SkewMonitor;

/// Longest duration of one scheduling pass. The next pass gets another connection.
const PASS_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a running pass to finish after the shutdown begins.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Default delay of a fetch after the start of the window, and the default upper bound of the added jitter.
pub const DEFAULT_WAKEUP: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

/// Schedules the fetches of a set of sources.
#[derive(Clone, Debug)]
pub struct Scheduler {
    fetch: JobDefinition,
    sources: Vec<String>,
    window: Duration,
    start: Duration,
    jitter: Duration,
    simulated: bool,
    manual: bool,
}

/// The due window of one source, with the effects of one scheduling pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DueWindow {
    /// Name of the source.
    pub source: String,
    /// Start of the due window.
    pub window_start_utc: DateTime<Utc>,
    /// The fetch that this call enqueued, null if the window already had one or gets none.
    pub job: Option<i64>,
    /// Number of windows that this call marked missed.
    pub missed: i64,
    /// Reason why the window gets no fetch, if this call decided that.
    pub held: Option<String>,
}

impl Scheduler {
    /// Returns a scheduler that enqueues `fetch` for each source, 10 to 30 s into every quarter-hour.
    pub fn new(fetch: &JobDefinition, sources: &[impl AsRef<str>]) -> Scheduler {
        Scheduler {
            fetch: *fetch,
            sources: sources.iter().map(|source| source.as_ref().to_owned()).collect(),
            window: WINDOW_INTERVAL,
            start: DEFAULT_WAKEUP[0],
            jitter: DEFAULT_WAKEUP[1],
            simulated: false,
            manual: false,
        }
    }

    /// Sets the wake-up: `start` after the start of each window, plus a random delay of up to `jitter`.
    pub fn with_wakeup(self, start: Duration, jitter: Duration) -> Scheduler {
        Scheduler { start, jitter, ..self }
    }

    /// Schedules a simulated feed with a clock of its own: no window is too late to be fetched.
    pub fn simulated(self) -> Scheduler {
        Scheduler { simulated: true, ..self }
    }

    /// Schedules on an operator's request.
    ///
    /// The configuration's switch for automatic fetches is ignored, and a missed window may still be fetched within its
    /// quarter-hour.
    pub fn manual(self) -> Scheduler {
        Scheduler { manual: true, ..self }
    }

    /// Enqueues the fetch of each source's window that is due at `at`. Without `at`, the database's clock decides.
    ///
    /// Returns one entry per source.
    pub async fn enqueue_due_windows(
        &self,
        pool: &PgPool,
        at: Option<DateTime<Utc>>,
    ) -> anyhow::Result<Vec<DueWindow>> {
        let mut due = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            due.push(
                self.enqueue_due_window(pool, source, at)
                    .await
                    .with_context(|| format!("could not schedule source {source}"))?,
            );
        }
        Ok(due)
    }

    async fn enqueue_due_window(
        &self,
        pool: &PgPool,
        source: &str,
        at: Option<DateTime<Utc>>,
    ) -> anyhow::Result<DueWindow> {
        let mut tx = pool.begin().await?;
        let standing = SourceState::lock(&mut tx, source).await?;
        let start = sqlx::query_scalar!(
            r#"-- scheduler: which window is due
            select date_bin(make_interval(secs => $1), coalesce($2, clock_timestamp()), 'epoch'::timestamptz) as "start!""#,
            self.window.as_secs_f64(),
            at,
        )
        .fetch_one(&mut *tx)
        .await
        .context("could not determine the due window")?;
        let mut held = standing.hold_reason(source, start, self.manual);
        let window = sqlx::query_file!("src/scheduler.open.sql", source, self.window.as_secs_f64(), start, held,)
            .fetch_one(&mut *tx)
            .await
            .context("could not open the window")?;
        let opened = window.opened || (held.is_none() && self.manual && reopen_window(&mut tx, source, start).await?);
        let mut job = None;
        if opened && held.is_none() {
            job = self.enqueue_fetch(&mut tx, source, start).await?;
            if let Some(job) = job.filter(|_| standing.is_probe(start)) {
                source::start_probe(&mut tx, source, job).await?;
            }
        }
        tx.commit().await?;
        held = held.filter(|_| opened || self.manual);
        if let Some(job) = job {
            tracing::info!(job, source, window = %start, missed = window.missed, "window fetch enqueued");
        } else if let Some(reason) = &held {
            tracing::warn!(source, window = %start, missed = window.missed, reason, "window not fetched");
        }
        Ok(DueWindow { source: source.to_owned(), window_start_utc: start, job, missed: window.missed, held })
    }

    async fn enqueue_fetch(
        &self,
        tx: &mut PgConnection,
        source: &str,
        start: DateTime<Utc>,
    ) -> anyhow::Result<Option<i64>> {
        let key = source::fetch_key(source, start);
        sqlx::query_scalar!(
            "-- scheduler: enqueue
            select fleet.enqueue(
              $1,
              jsonb_build_object('source', $2::text, 'window_start_utc', $3::text)
                || case when $6 then '{\"late_ok\": true}'::jsonb else '{}'::jsonb end,
              $4, max_attempts => $5)",
            self.fetch.kind,
            source,
            start.to_rfc3339_opts(SecondsFormat::Secs, true),
            key,
            self.fetch.policy.max_attempts,
            self.simulated,
        )
        .fetch_one(tx)
        .await
        .with_context(|| format!("could not enqueue job {} {key}", self.fetch.kind))
    }

    /// Marks windows missed that have passed by the database's clock before their fetch was claimed, and cancels those
    /// fetches. Returns the number of windows.
    pub async fn expire_windows(&self, pool: &PgPool) -> anyhow::Result<u64> {
        let mut tx = pool.begin().await?;
        let expired = sqlx::query_file_scalar!(
            "src/scheduler.expire.sql",
            self.fetch.kind,
            &self.sources,
            self.window.as_secs_f64(),
        )
        .fetch_all(&mut *tx)
        .await
        .context("could not mark passed windows missed")?;
        sqlx::query!(
            "-- scheduler: cancel expired
            update fleet.jobs
            set state = 'cancelled', finished_at = now(), error = 'its window passed before a worker took it'
            where id = any($1)",
            &expired,
        )
        .execute(&mut *tx)
        .await
        .context("could not cancel the fetches of passed windows")?;
        tx.commit().await?;
        if !expired.is_empty() {
            tracing::warn!(windows = expired.len(), "windows missed: no worker claimed their fetches in time");
        }
        Ok(expired.len() as u64)
    }

    /// Schedules until `leave` is cancelled. Survives outages of the database and logs only their start and end.
    pub async fn run(&self, pool: &PgPool, leave: CancellationToken) {
        let (mut away, mut skew) = (false, SkewMonitor::default());
        let mut wait = self.first_delay(config::now(), rand::random());
        while !leave.is_cancelled() {
            tokio::select! {
                () = leave.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            let looked = async {
                skew.check_clock(pool).await?;
                self.expire_windows(pool).await?;
                self.enqueue_due_windows(pool, None).await
            };
            let looked = async {
                let looked = tokio::time::timeout(PASS_TIMEOUT, looked).await;
                looked.unwrap_or_else(|_| {
                    Err(anyhow!("the database did not respond within {} s", PASS_TIMEOUT.as_secs()))
                })
            };
            let overdue = async {
                leave.cancelled().await;
                tokio::time::sleep(SHUTDOWN_GRACE).await;
            };
            let looked = tokio::select! {
                looked = looked => looked,
                () = overdue => return,
            };
            wait = match looked {
                Ok(_) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("scheduling resumed");
                    }
                    self.next_delay(config::now() + skew.host_lag(), rand::random())
                }
                // A conflict with other transactions is not an outage.
                Err(error) if transient_error(&error) == Some(TransientError::Conflict) => {
                    tracing::info!(error = format!("{error:#}"), "transaction conflict, retrying");
                    Duration::from_secs(1).mul_f64(0.5 + rand::random::<f64>())
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = format!("{error:#}"), "scheduling failed, retrying every few seconds");
                    }
                    Duration::from_secs(1) + Duration::from_secs(4).mul_f64(rand::random())
                }
            };
        }
    }

    /// Returns the delay from the start of the process at `now` to the first pass.
    ///
    /// The delay is zero unless the window is so young that its file may not be ready. `jitter` is from 0 to 1.
    fn first_delay(&self, now: DateTime<Utc>, jitter: f64) -> Duration {
        (self.start + self.jitter.mul_f64(jitter)).saturating_sub(self.since_start(now))
    }

    /// Returns the delay from `now` to the next pass. `jitter` from 0 to 1 selects a point within the random delay.
    fn next_delay(&self, now: DateTime<Utc>, jitter: f64) -> Duration {
        self.window - self.since_start(now) + self.start + self.jitter.mul_f64(jitter)
    }

    fn since_start(&self, now: DateTime<Utc>) -> Duration {
        let now = Duration::from_millis(now.timestamp_millis().unsigned_abs());
        Duration::from_nanos((now.as_nanos() % self.window.as_nanos()) as u64)
    }
}

/// Reopens a missed window unless its slot's attempt is used. Returns true if the window was reopened.
async fn reopen_window(tx: &mut PgConnection, source: &str, start: DateTime<Utc>) -> anyhow::Result<bool> {
    let reopened = sqlx::query!(
        "-- scheduler: reopen
        update fleet.windows w
        set state = 'due', note = null, updated_at = now()
        where w.source = $1
          and w.window_start_utc = $2
          and w.state = 'missed'
          and not exists (select from fleet.fetch_slots f where f.source = $1 and f.slot = $2)",
        source,
        start,
    )
    .execute(tx)
    .await
    .context("could not reopen the window")?;
    Ok(reopened.rows_affected() == 1)
}

#[cfg(test)]
mod tests;
