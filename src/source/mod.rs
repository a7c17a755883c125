//! What the whole fleet knows of a source: its switch, its breaker, its slots, its session.
//!
//! The rules are held by the database, in `migrations/0019_fleet_sources.sql`, so that they hold for every worker,
//! scheduler and hand at once; this room is their face. Three things end with it:
//!
//! * **The slot.** A source and quarter-hour have one attempt, a row that belongs to one job ([`begin`], [`end`]). A
//!   rescued job goes on with its attempt; nobody else gets another, an operator neither.
//! * **The breaker.** `closed` → `open` after five failed slots in a row → `half_open`, an hour later, for the one job
//!   that is its probe → `closed` or `open` again, as the probe ends. A trigger counts the ends of jobs, so it does not
//!   matter who gave one up. What never began, and what failed for our own fault, says nothing of the source.
//! * **The session** ([`session`]): the cookies of a login, sealed ([`seal`]), refreshed by one at a time.
//!
//! Every move of switch and breaker is a row of `fleet.source_transitions`, with who and why, and a warning in the log
//! of the process that brought it about.
//!
//! Accepted: the probe is due by its slot and not by the second. A breaker that opened at 15:00:45, in the slot of
//! 15:00, is probed by the fetch of 16:00.

use crate::db::catalogue::{ActAuthor, CatalogueAct, note_act};
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

mod registry;
pub mod seal;
pub mod session;

pub use registry::{
    KnownSource, Removal, UnknownSource, add, can_fetch_again, expect_known, hold_known, is_source_name,
    list, remove,
};

/// Returns the key of the job that fetches a window, such as `copart/2026-11-20T14:30Z`. `src/scheduler.expire.sql` spells
/// the same key in SQL, where it joins windows with their jobs.
pub fn fetch_key(source: &str, window: DateTime<Utc>) -> String {
    format!("{source}/{}", window.format("%Y-%m-%dT%H:%MZ"))
}

/// Failed slots in a row from which `status` warns; the breaker opens at five.
pub const WARN: i32 = 3;

/// What a job that wants to fetch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The slot's attempt is this run's.
    Go,
    /// The window has come to something before.
    AlreadyFetched,
    /// Its quarter-hour is over.
    Missed,
    /// The source is switched off.
    Disabled,
    /// The breaker lets only its probe through.
    Open,
    /// Another job's attempt is under way in this slot.
    UnderWay,
    /// The slot's one attempt has ended.
    Spent,
    /// There is no such source.
    Unknown,
}

/// Asks for the slot's one attempt on behalf of a job's run.
pub async fn begin(
    pool: &PgPool,
    source: &str,
    window: DateTime<Utc>,
    job: i64,
    run: i64,
    simulated: bool,
) -> anyhow::Result<Answer> {
    let word = sqlx::query_scalar!(
        r#"-- source: begin a fetch
        select fleet.begin_fetch($1, $2, $3, $4, $5) as "word!""#,
        source,
        window,
        job,
        run,
        simulated,
    )
    .fetch_one(pool)
    .await
    .with_context(|| format!("ask for the slot of window {source} {window}"))?;
    Ok(match word.as_str() {
        "go" => Answer::Go,
        "already_fetched" => Answer::AlreadyFetched,
        "missed" => Answer::Missed,
        "disabled" => Answer::Disabled,
        "open" => Answer::Open,
        "under_way" => Answer::UnderWay,
        "spent" => Answer::Spent,
        "unknown" => Answer::Unknown,
        other => bail!("fleet.begin_fetch answers {other}: the schema is of another version"),
    })
}

/// How an attempt ended well; how else, the job's own end tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a file: the source is well.
    Fetched,
    /// With the word that nothing is new: the source is well.
    Unchanged,
}

/// Ends the attempt of a job's run; false when it is that run's no more.
pub async fn end(conn: &mut PgConnection, job: i64, run: i64, ended: Ended) -> anyhow::Result<bool> {
    let word = match ended {
        Ended::Fetched => "fetched",
        Ended::Unchanged => "unchanged",
    };
    sqlx::query_scalar!(
        r#"-- source: end a fetch
        select fleet.end_fetch($1, $2, $3) as "ours!""#,
        job,
        run,
        word,
    )
    .fetch_one(conn)
    .await
    .with_context(|| format!("end the slot's attempt of job {job}"))
}

/// Notes that the file came and this run could not keep it, which is not the source's fault: should the job be given up
/// now, the slot does not count as failed. The attempt goes on until then, so that a worker killed in between costs none.
pub async fn unkept(pool: &PgPool, job: i64, run: i64) -> anyhow::Result<()> {
    sqlx::query!(
        "-- source: not kept
        update fleet.fetch_slots
        set unkept_by = run
        where job_id = $1 and run = $2 and outcome is null",
        job,
        run,
    )
    .execute(pool)
    .await
    .with_context(|| format!("note what job {job} could not keep"))?;
    Ok(())
}

/// Whether a fetch may be enqueued, as the scheduler must know it.
#[derive(Clone, Debug)]
pub struct Standing {
    enabled: bool,
    auto: bool,
    breaker: String,
    failures: i32,
    opened_at: Option<DateTime<Utc>>,
    probe_at: Option<DateTime<Utc>>,
    probe_job: Option<i64>,
}

impl Standing {
    /// Reads it and keeps it as it is until the caller's transaction ends.
    ///
    /// # Errors
    /// Returns an error if the source is unknown.
    pub async fn lock(conn: &mut PgConnection, source: &str) -> anyhow::Result<Standing> {
        sqlx::query_as!(
            Standing,
            r#"-- source: lock
            select
              s.enabled, s.breaker, s.consecutive_failures as failures, s.opened_at, s.probe_at, s.probe_job,
              coalesce((select c.auto_fetch_enabled from public.config c), true) as "auto!"
            from fleet.sources s
            where s.source = $1
            for update"#,
            source,
        )
        .fetch_optional(conn)
        .await
        .context("lock the source")?
        .with_context(|| format!("unknown source {source:?}; `vinops source list` shows the known ones"))
    }

    /// Why the window that starts at `window` gets no fetch; none where it may. The switch of config is for what
    /// happens by itself, not for what is done by hand.
    pub fn hold(&self, source: &str, window: DateTime<Utc>, by_hand: bool) -> Option<String> {
        let minute = |at: Option<DateTime<Utc>>| {
            at.map_or_else(|| "?".to_owned(), |at| at.format("%Y-%m-%dT%H:%MZ").to_string())
        };
        if !self.enabled {
            return Some(format!("the source is disabled: vinops source enable {source}"));
        }
        if !self.auto && !by_hand {
            return Some("auto-fetch is switched off: config.auto_fetch_enabled".to_owned());
        }
        match self.breaker.as_str() {
            "open" if !self.is_probe(window) => Some(format!(
                "the breaker is open since {} after {} failed slots; probe at {}",
                minute(self.opened_at),
                self.failures,
                minute(self.probe_at)
            )),
            "half_open" => {
                Some(format!("the breaker waits for its probe, job {}", self.probe_job.unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// Whether the fetch of this window would be the breaker's probe.
    pub fn is_probe(&self, window: DateTime<Utc>) -> bool {
        self.breaker == "open" && self.probe_at.is_some_and(|at| at <= window)
    }
}

/// Makes a job the breaker's probe, in the transaction that enqueues it and holds the source.
pub async fn probe(conn: &mut PgConnection, source: &str, job: i64) -> anyhow::Result<()> {
    sqlx::query!(
        "-- source: half open
        select fleet.move_breaker($1, 'half_open', 'scheduler', 'an hour has passed: job ' || $2::bigint || ' is the probe', null, $2)",
        source,
        job,
    )
    .execute(conn)
    .await
    .with_context(|| format!("make job {job} the probe of {source}"))?;
    Ok(())
}

/// A source as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub source: String,
    /// Its own switch.
    pub enabled: bool,
    /// The switch of config, for all sources.
    pub auto_fetch_enabled: bool,
    /// closed, open or half_open.
    pub breaker: String,
    /// Failed slots in a row.
    pub consecutive_failures: i32,
    /// Since when the breaker has not been closed.
    pub opened_at: Option<DateTime<Utc>>,
    /// The slot of the next probe.
    pub probe_at: Option<DateTime<Utc>>,
    /// The job that is the probe, while half open.
    pub probe_job: Option<i64>,
    /// The latest download that ended well.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The latest slot that failed.
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub last_error: Option<String>,
    /// The newest window that was applied.
    pub last_applied_window: Option<DateTime<Utc>>,
    /// When the session ends; none without one.
    pub session_expires_at: Option<DateTime<Utc>>,
    /// Why the latest login was refused, if it was.
    pub session_error: Option<String>,
    /// The latest moves of switch and breaker, the newest first.
    #[serde(default)]
    pub transitions: Vec<Transition>,
}

/// One move of a switch or a breaker.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Transition {
    /// When.
    pub at: DateTime<Utc>,
    /// What it was.
    pub from: String,
    /// What it became.
    pub to: String,
    /// An operator, or the job that brought it about.
    pub who: String,
    /// Why.
    pub why: String,
}

/// All sources, or the one of this name, with the latest ten moves of each.
pub async fn status(pool: &PgPool, source: Option<&str>) -> anyhow::Result<Vec<Status>> {
    let rows = sqlx::query_file!("src/source/status.sql", source)
        .fetch_all(pool)
        .await
        .context("read fleet.sources")?;
    Ok(rows
        .into_iter()
        .map(|row| Status {
            source: row.source,
            enabled: row.enabled,
            auto_fetch_enabled: row.auto_fetch_enabled,
            breaker: row.breaker,
            consecutive_failures: row.consecutive_failures,
            opened_at: row.opened_at,
            probe_at: row.probe_at,
            probe_job: row.probe_job,
            last_success_at: row.last_success_at,
            last_failure_at: row.last_failure_at,
            last_error: row.last_error,
            last_applied_window: row.last_applied_window,
            session_expires_at: row.session_expires_at,
            session_error: row.session_error,
            transitions: row.transitions.0,
        })
        .collect())
}

/// Switches a source on or off; false when it was so already.
pub async fn switch(pool: &PgPool, source: &str, on: bool, who: &str, why: &str) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- source: switch
        select fleet.switch_source($1, $2, $3, $4) as "changed!""#,
        source,
        on,
        who,
        why,
    )
    .fetch_one(pool)
    .await
    .with_context(|| format!("switch source {source}"))
}

/// What came of accepting a file's size.
#[derive(Debug)]
pub struct SizeAcceptance {
    /// `accepted`, `unknown`, `complete` or `lots`: see the function `fleet.accept_size`.
    pub outcome: String,
    /// The window of the source's newest judged file.
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Its rows.
    pub row_count: Option<i32>,
}

/// Accepts the size of the source's newest file as normal: later files are compared with it, and with the complete files
/// since, instead of the larger files before.
pub async fn accept_size(
    conn: &mut PgConnection,
    source: &str,
    who: &str,
    why: &str,
) -> anyhow::Result<SizeAcceptance> {
    let mut tx = conn.begin().await.context("begin to accept a size")?;
    let accepted = sqlx::query_as!(
        SizeAcceptance,
        r#"-- source: accept the size
        select outcome as "outcome!", window_start_utc, row_count
        from fleet.accept_size($1, $2, $3)"#,
        source,
        who,
        why,
    )
    .fetch_one(&mut *tx)
    .await
    .with_context(|| format!("accept the size of source {source}"))?;
    if accepted.outcome == "accepted" {
        let author = ActAuthor { operator: who.to_owned(), reason: why.to_owned() };
        note_act(&mut tx, &CatalogueAct::AcceptSize { source: source.to_owned(), author }).await?;
    }
    tx.commit().await.with_context(|| format!("accept the size of source {source}"))?;
    Ok(accepted)
}

/// Closes the breaker and forgets its failures; false when there was nothing to reset.
pub async fn reset_breaker(pool: &PgPool, source: &str, who: &str, why: &str) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- source: reset the breaker
        select fleet.reset_breaker($1, $2, $3) as "changed!""#,
        source,
        who,
        why,
    )
    .fetch_one(pool)
    .await
    .with_context(|| format!("reset the breaker of source {source}"))
}

#[cfg(test)]
mod tests;
