//! Which window is due, and exactly one fetch for it.
//!
//! A window is a source and a quarter-hour of the *database's* clock. The primary key of `fleet.windows` is the one
//! guard: whoever inserts the window's row enqueues its fetch, in the same transaction; everybody else finds the row
//! there and does nothing. Hence no leader: any number of schedulers may run, and one that dies between two
//! statements leaves nothing behind.
//!
//! The feed knows only "now". A window that passed while no scheduler ran can therefore not be fetched any more: it
//! gets a row that says `missed`, and so does one whose fetch still waited, unclaimed, when its quarter-hour ended;
//! that fetch is cancelled. One that is running is left alone. A window that gets no fetch because its source is
//! switched off, or its breaker is open, is missed too, and its note says why; the first one an hour after the breaker
//! opened gets the fetch that is its probe.
//!
//! The loop wakes 10 s into each quarter-hour (`VINOPS_FETCH_DELAY`), since the server regenerates its file in the
//! first seconds, plus up to 20 s of chance (`VINOPS_FETCH_JITTER`), so that a fleet of schedulers does not knock at
//! once. A host's clock only decides when to wake, and its error is taken off; which window is due, the database says.
//! A host whose clock is more than two seconds wrong is told so ([`clock`]).

use crate::auction::window::WINDOW_LENGTH;
use crate::config;
use crate::db::passing::{Passing, passing};
use crate::queue::Entry;
use crate::source::{self, Standing};
use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub mod clock;
use clock::Skew;

/// How long one look may take; the next one gets another connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a look that is under way may take when told to leave.
const GRACE: Duration = Duration::from_secs(3);

/// The start of a window's fetch after the window's own, and the most that chance adds.
pub const WAKING: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(20)];

/// The sources to schedule, and how.
#[derive(Clone, Debug)]
pub struct Scheduler {
    fetch: Entry,
    sources: Vec<String>,
    window: Duration,
    start: Duration,
    jitter: Duration,
    simulated: bool,
    by_hand: bool,
}

/// What one look at the clock did for one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Due {
    /// The source.
    pub source: String,
    /// The window that is due.
    pub window_start_utc: DateTime<Utc>,
    /// The fetch that this call enqueued; none if somebody had already.
    pub job: Option<i64>,
    /// Windows that this call named as missed.
    pub missed: i64,
    /// Why the window gets no fetch, where this call decided that.
    pub held: Option<String>,
}

impl Scheduler {
    /// Schedules `fetch` for each source, every quarter-hour, 10 to 30 s into it.
    pub fn new(fetch: &Entry, sources: &[impl AsRef<str>]) -> Scheduler {
        Scheduler {
            fetch: *fetch,
            sources: sources.iter().map(|source| source.as_ref().to_owned()).collect(),
            window: WINDOW_LENGTH,
            start: WAKING[0],
            jitter: WAKING[1],
            simulated: false,
            by_hand: false,
        }
    }

    /// The same, waking `start` into each window plus up to `jitter`.
    pub fn waking(self, start: Duration, jitter: Duration) -> Scheduler {
        Scheduler { start, jitter, ..self }
    }

    /// The same for a feed that runs on a clock of its own: no window is too late to be fetched.
    pub fn simulated(self) -> Scheduler {
        Scheduler { simulated: true, ..self }
    }

    /// The same for a person who asks: the switch of config does not count, and a window that was let go by may still be
    /// fetched while its quarter-hour lasts.
    pub fn by_hand(self) -> Scheduler {
        Scheduler { by_hand: true, ..self }
    }

    /// Enqueues the window of each source that is due at `at`, or by the database's clock.
    pub async fn due(&self, pool: &PgPool, at: Option<DateTime<Utc>>) -> anyhow::Result<Vec<Due>> {
        let mut due = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            due.push(
                self.due_of(pool, source, at).await.with_context(|| format!("schedule source {source}"))?,
            );
        }
        Ok(due)
    }

    async fn due_of(&self, pool: &PgPool, source: &str, at: Option<DateTime<Utc>>) -> anyhow::Result<Due> {
        let mut tx = pool.begin().await?;
        let standing = Standing::lock(&mut tx, source).await?;
        let start = sqlx::query_scalar!(
            r#"-- scheduler: which window is due
            select date_bin(make_interval(secs => $1), coalesce($2, clock_timestamp()), 'epoch'::timestamptz) as "start!""#,
            self.window.as_secs_f64(),
            at,
        )
        .fetch_one(&mut *tx)
        .await
        .context("ask which window is due")?;
        let mut held = standing.hold(source, start, self.by_hand);
        let window =
            sqlx::query_file!("src/scheduler.open.sql", source, self.window.as_secs_f64(), start, held,)
                .fetch_one(&mut *tx)
                .await
                .context("open the window")?;
        let opened =
            window.opened || (held.is_none() && self.by_hand && reopen(&mut tx, source, start).await?);
        let mut job = None;
        if opened && held.is_none() {
            job = self.enqueue(&mut tx, source, start).await?;
            if let Some(job) = job.filter(|_| standing.is_probe(start)) {
                source::probe(&mut tx, source, job).await?;
            }
        }
        tx.commit().await?;
        held = held.filter(|_| opened || self.by_hand);
        if let Some(job) = job {
            tracing::info!(job, source, window = %start, missed = window.missed, "window is due");
        } else if let Some(why) = &held {
            tracing::warn!(source, window = %start, missed = window.missed, "window is not fetched: {why}");
        }
        Ok(Due { source: source.to_owned(), window_start_utc: start, job, missed: window.missed, held })
    }

    async fn enqueue(
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
        .with_context(|| format!("enqueue {} {key}", self.fetch.kind))
    }

    /// Names as missed what still waits for its fetch although its window has passed by the database's clock, and
    /// cancels those fetches; tells how many.
    pub async fn expire(&self, pool: &PgPool) -> anyhow::Result<u64> {
        let mut tx = pool.begin().await?;
        let expired = sqlx::query_file_scalar!(
            "src/scheduler.expire.sql",
            self.fetch.kind,
            &self.sources,
            self.window.as_secs_f64(),
        )
        .fetch_all(&mut *tx)
        .await
        .context("name passed windows as missed")?;
        sqlx::query!(
            "-- scheduler: cancel expired
            update fleet.jobs
            set state = 'cancelled', finished_at = now(), error = 'its window passed before a worker took it'
            where id = any($1)",
            &expired,
        )
        .execute(&mut *tx)
        .await
        .context("cancel fetches of passed windows")?;
        tx.commit().await?;
        if !expired.is_empty() {
            tracing::warn!(windows = expired.len(), "windows passed before a worker took them");
        }
        Ok(expired.len() as u64)
    }

    /// Schedules until told to leave. The database may go away and come back; only changes are logged.
    pub async fn run(&self, pool: &PgPool, leave: CancellationToken) {
        let (mut away, mut skew) = (false, Skew::default());
        let mut wait = self.until_first(config::now(), rand::random());
        while !leave.is_cancelled() {
            tokio::select! {
                () = leave.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            let looked = async {
                skew.look(pool).await?;
                self.expire(pool).await?;
                self.due(pool, None).await
            };
            let looked = async {
                let looked = tokio::time::timeout(PATIENCE, looked).await;
                looked.unwrap_or_else(|_| Err(anyhow!("no answer within {} s", PATIENCE.as_secs())))
            };
            let overdue = async {
                leave.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let looked = tokio::select! {
                looked = looked => looked,
                () = overdue => return,
            };
            wait = match looked {
                Ok(_) => {
                    if std::mem::take(&mut away) {
                        tracing::info!("scheduling again");
                    }
                    self.until_next(config::now() + skew.behind(), rand::random())
                }
                // other transactions were in the way: the database is there
                Err(error) if passing(&error) == Some(Passing::Conflict) => {
                    tracing::info!(
                        error = format!("{error:#}"),
                        "conflict with another transaction; trying again"
                    );
                    Duration::from_secs(1).mul_f64(0.5 + rand::random::<f64>())
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "cannot schedule; trying every few seconds"
                        );
                    }
                    Duration::from_secs(1) + Duration::from_secs(4).mul_f64(rand::random())
                }
            };
        }
    }

    /// From a start at `now` to the first waking: none, unless the window is so young that its file may not be there.
    fn until_first(&self, now: DateTime<Utc>, luck: f64) -> Duration {
        (self.start + self.jitter.mul_f64(luck)).saturating_sub(self.since_start(now))
    }

    /// From `now` to the next waking; `luck` from 0 to 1 places it within the jitter.
    fn until_next(&self, now: DateTime<Utc>, luck: f64) -> Duration {
        self.window - self.since_start(now) + self.start + self.jitter.mul_f64(luck)
    }

    fn since_start(&self, now: DateTime<Utc>) -> Duration {
        let now = Duration::from_millis(now.timestamp_millis().unsigned_abs());
        Duration::from_nanos((now.as_nanos() % self.window.as_nanos()) as u64)
    }
}

/// Gives a window that was let go by another chance, unless its slot has had its attempt.
async fn reopen(tx: &mut PgConnection, source: &str, start: DateTime<Utc>) -> anyhow::Result<bool> {
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
    .context("open the window again")?;
    Ok(reopened.rows_affected() == 1)
}

#[cfg(test)]
mod tests;
