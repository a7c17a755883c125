//! State of a source that the whole fleet shares: switch, circuit breaker, fetch slots and session.
//!
//! The database enforces the rules, in `migrations/0019_fleet_sources.sql`, for every worker, every scheduler and every
//! operator. This module is the Rust interface to those rules. They cover three objects:
//!
//! * **The slot.** A source has one attempt per quarter-hour, a row that belongs to one job ([`begin_fetch`],
//!   [`end_fetch`]). A rescued job continues with its attempt. No other job gets an attempt in the slot, including a
//!   manual one.
//! * **The breaker.** `closed` → `open` after five failed slots in a row → `half_open` an hour later, for the one job
//!   that is the probe → `closed` or `open` again, depending on the probe. A trigger counts finished jobs, so every way
//!   to fail counts. A fetch that never began, and a fetch that failed on our side, do not count.
//! * **The session** ([`session`]): the cookies of a login, encrypted ([`cookie_cipher`]), refreshed by one worker at a
//!   time.
//!
//! Every change of the switch or the breaker is a row of `fleet.source_transitions` with an actor and a reason. The
//! process that caused the change logs a warning.
//!
//! Known imprecision: the probe is due by slot and not by second. A breaker that opened at 15:00:45, in the slot of
//! 15:00, is probed by the fetch of 16:00.

use crate::db::catalogue::{ActionAuthor, CatalogueAction, record_action};
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

pub mod cookie_cipher;
mod registry;
pub mod session;

pub use registry::{
    KnownSource, SourceRemoval, UnknownSource, add_source, can_fetch_again, expect_known, is_source_name, list_sources,
    lock_known, remove_source,
};

/// Returns the key of the job that fetches a window, such as `copart/2026-11-20T14:30Z`.
///
/// `src/scheduler.expire.sql` builds the same key in SQL to join windows with their jobs.
pub fn fetch_key(source: &str, window: DateTime<Utc>) -> String {
    format!("{source}/{}", window.format("%Y-%m-%dT%H:%MZ"))
}

/// Number of failed slots in a row from which `source status` warns. The breaker opens at five.
pub const WARN_FAILED_SLOTS: i32 = 3;

/// Permission to fetch, or the reason why a job may not fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchPermission {
    /// This run has the slot's attempt.
    Granted,
    /// The window already has a result.
    AlreadyFetched,
    /// The window's quarter-hour is over.
    Missed,
    /// The source is disabled.
    Disabled,
    /// The breaker is not closed, and this job is not its probe.
    Open,
    /// The attempt of another job is running in this slot.
    UnderWay,
    /// The slot's one attempt is used.
    AttemptUsed,
    /// No source with this name exists.
    Unknown,
}

/// Requests the slot's one attempt for a job's run. `simulated` takes the slot from the window instead of the clock.
pub async fn begin_fetch(
    pool: &PgPool,
    source: &str,
    window: DateTime<Utc>,
    job: i64,
    run: i64,
    simulated: bool,
) -> anyhow::Result<FetchPermission> {
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
    .with_context(|| format!("could not request the fetch slot of window {source} {window}"))?;
    Ok(match word.as_str() {
        "go" => FetchPermission::Granted,
        "already_fetched" => FetchPermission::AlreadyFetched,
        "missed" => FetchPermission::Missed,
        "disabled" => FetchPermission::Disabled,
        "open" => FetchPermission::Open,
        "under_way" => FetchPermission::UnderWay,
        "spent" => FetchPermission::AttemptUsed,
        "unknown" => FetchPermission::Unknown,
        other => bail!(
            "unknown result {other:?} of the function fleet.begin_fetch\n\
             hint: the schema has another version: `vinops migrate status`"
        ),
    })
}

/// Result of a successful attempt. A trigger derives the other results from the end of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotResult {
    /// The source sent a file.
    Fetched,
    /// The source answered that nothing changed.
    Unchanged,
}

/// Ends the attempt of a job's run, which closes the breaker. Returns false if the attempt no longer belongs to the
/// run.
pub async fn end_fetch(conn: &mut PgConnection, job: i64, run: i64, ended: SlotResult) -> anyhow::Result<bool> {
    let word = match ended {
        SlotResult::Fetched => "fetched",
        SlotResult::Unchanged => "unchanged",
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
    .with_context(|| format!("could not end the fetch attempt of job {job}"))
}

/// Records that the file arrived and this run failed to store it.
///
/// If the job is discarded after this, the slot does not count as failed. The attempt stays open until then, so a
/// worker that is killed in between does not use the attempt.
pub async fn record_store_failure(pool: &PgPool, job: i64, run: i64) -> anyhow::Result<()> {
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
    .with_context(|| format!("could not record the storage failure of job {job}"))?;
    Ok(())
}

/// State of a source by which the scheduler decides whether to enqueue a fetch.
#[derive(Clone, Debug)]
pub struct SourceState {
    enabled: bool,
    auto: bool,
    breaker: String,
    failures: i32,
    opened_at: Option<DateTime<Utc>>,
    probe_at: Option<DateTime<Utc>>,
    probe_job: Option<i64>,
}

impl SourceState {
    /// Reads the state and locks the source's row until the caller's transaction ends.
    ///
    /// # Errors
    /// Returns an error if the source is unknown.
    pub async fn lock(conn: &mut PgConnection, source: &str) -> anyhow::Result<SourceState> {
        sqlx::query_as!(
            SourceState,
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
        .with_context(|| format!("could not lock source {source}"))?
        .with_context(|| format!("unknown source {source:?}\nhint: `vinops source list` shows the known sources"))
    }

    /// Returns the reason why the window that starts at `window` is not fetched, or `None` if a fetch may be enqueued.
    ///
    /// `config.auto_fetch_enabled` applies to scheduled fetches only. `by_hand` marks a manual fetch.
    pub fn hold_reason(&self, source: &str, window: DateTime<Utc>, by_hand: bool) -> Option<String> {
        let minute = |at: Option<DateTime<Utc>>| {
            at.map_or_else(|| "?".to_owned(), |at| at.format("%Y-%m-%dT%H:%MZ").to_string())
        };
        if !self.enabled {
            return Some(format!("the source is disabled: vinops source enable {source}"));
        }
        if !self.auto && !by_hand {
            return Some("automatic fetching is disabled: config.auto_fetch_enabled".to_owned());
        }
        match self.breaker.as_str() {
            "open" if !self.is_probe(window) => Some(format!(
                "the breaker is open since {} after {} failed slots; probe at {}",
                minute(self.opened_at),
                self.failures,
                minute(self.probe_at)
            )),
            "half_open" => {
                Some(format!("the breaker is half open; its probe is job {}", self.probe_job.unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// Returns true if the fetch of this window would be the breaker's probe.
    pub fn is_probe(&self, window: DateTime<Utc>) -> bool {
        self.breaker == "open" && self.probe_at.is_some_and(|at| at <= window)
    }
}

/// Makes a job the breaker's probe and the breaker half open. Runs in the transaction that locked the source and
/// enqueued the job.
pub async fn start_probe(conn: &mut PgConnection, source: &str, job: i64) -> anyhow::Result<()> {
    sqlx::query!(
        "-- source: half open
        select fleet.move_breaker($1, 'half_open', 'scheduler', 'an hour has passed: job ' || $2::bigint || ' is the probe', null, $2)",
        source,
        job,
    )
    .execute(conn)
    .await
    .with_context(|| format!("could not make job {job} the probe of source {source}"))?;
    Ok(())
}

/// Status of a source, as shown to operators.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// Name of the source.
    pub source: String,
    /// True if the source's own switch is on.
    pub enabled: bool,
    /// True if `config.auto_fetch_enabled`, the switch of all sources, is on.
    pub auto_fetch_enabled: bool,
    /// State of the breaker: `closed`, `open` or `half_open`.
    pub breaker: String,
    /// Number of failed slots in a row.
    pub consecutive_failures: i32,
    /// Time at which the breaker opened. Null while it is closed.
    pub opened_at: Option<DateTime<Utc>>,
    /// Slot of the next probe. Null while the breaker is closed.
    pub probe_at: Option<DateTime<Utc>>,
    /// Id of the job that is the probe. Null unless the breaker is half open.
    pub probe_job: Option<i64>,
    /// Time of the last successful download.
    pub last_success_at: Option<DateTime<Utc>>,
    /// Time of the last failed slot.
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Error of the last failed slot.
    pub last_error: Option<String>,
    /// Start of the newest applied window.
    pub last_applied_window: Option<DateTime<Utc>>,
    /// Time at which the session expires. Null without a session.
    pub session_expires_at: Option<DateTime<Utc>>,
    /// Error of the last login. Null if the login succeeded.
    pub session_error: Option<String>,
    /// Last ten changes of switch and breaker, newest first.
    #[serde(default)]
    pub transitions: Vec<SourceTransition>,
}

/// Change of a source's switch or breaker.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct SourceTransition {
    /// Time of the change.
    pub at: DateTime<Utc>,
    /// State before the change.
    pub from: String,
    /// State after the change.
    pub to: String,
    /// Operator, scheduler or job that caused the change.
    pub who: String,
    /// Reason for the change.
    pub why: String,
}

/// Returns the status of all sources, or of the source with this name, each with its last ten transitions.
pub async fn read_status(pool: &PgPool, source: Option<&str>) -> anyhow::Result<Vec<SourceStatus>> {
    let rows = sqlx::query_file!("src/source/status.sql", source)
        .fetch_all(pool)
        .await
        .context("could not read the status of the sources")?;
    Ok(rows
        .into_iter()
        .map(|row| SourceStatus {
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

/// Enables or disables a source. Returns false if the switch was already in that position.
pub async fn switch_source(pool: &PgPool, source: &str, on: bool, who: &str, why: &str) -> anyhow::Result<bool> {
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
    .with_context(|| format!("could not {} source {source}", if on { "enable" } else { "disable" }))
}

/// Result of accepting the size of a source's newest file.
#[derive(Debug)]
pub struct SizeAcceptance {
    /// Outcome: `accepted`, `unknown`, `complete` or `lots`, as the function `fleet.accept_size` defines them.
    pub outcome: String,
    /// Start of the window of the source's newest checked file.
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Number of rows of that file.
    pub row_count: Option<i32>,
}

/// Accepts the size of the source's newest file as normal.
///
/// Later files are compared with this file and the complete files after it, instead of the larger files before it.
pub async fn accept_size(
    conn: &mut PgConnection,
    source: &str,
    who: &str,
    why: &str,
) -> anyhow::Result<SizeAcceptance> {
    let mut tx = conn.begin().await.context("could not begin a transaction")?;
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
    .with_context(|| format!("could not accept the file size of source {source}"))?;
    if accepted.outcome == "accepted" {
        let author = ActionAuthor { operator: who.to_owned(), reason: why.to_owned() };
        record_action(&mut tx, &CatalogueAction::AcceptSize { source: source.to_owned(), author }).await?;
    }
    tx.commit().await.with_context(|| format!("could not accept the file size of source {source}"))?;
    Ok(accepted)
}

/// Closes the breaker and resets its failure count. Returns false if there was nothing to reset.
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
    .with_context(|| format!("could not reset the breaker of source {source}"))
}

#[cfg(test)]
mod tests;
