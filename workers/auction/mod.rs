//! The jobs of the auction domain: a window of the feed, from download to status.
//!
//! Four of the five jobs carry a file id and run under the lock of the file's source ([`LockedWindow::lock`]). The
//! windows of one source are therefore applied one after the other, while different sources run in parallel.

use crate::db::catalogue;
use crate::queue::{JobError, abort};
use crate::store::Store;
use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub mod compare;
pub mod detect_completion;
pub mod download;
pub mod fetch;
pub mod fold;
pub mod ingest;
pub mod job_metrics;
pub mod receive;
mod restage;
pub mod session;
pub mod sightings;
pub mod upsert_lots;
pub mod upsert_vehicles;
pub mod withdraw;

/// A file in a window. The payloads of a chain's jobs contain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The id of the file.
    pub file_id: Uuid,
    /// The start of the window, if the file was received again; absent for the file's first window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start_utc: Option<DateTime<Utc>>,
}

impl Sighting {
    /// Returns the sighting of a file in its first window.
    pub fn first_of_file(file_id: Uuid) -> Sighting {
        Sighting { file_id, window_start_utc: None }
    }

    /// Returns the key of the chain's jobs: the file id, followed by `@` and the window if the file was received again.
    pub fn job_key(&self) -> String {
        match self.window_start_utc {
            None => self.file_id.to_string(),
            Some(at) => format!("{}@{}", self.file_id, at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        }
    }
}

/// The file that a job processes. The source of the file is locked until the step's transaction ends.
#[derive(Debug, Clone)]
pub struct LockedWindow {
    /// The name of the source, such as `copart`.
    pub source: String,
    /// The start of the quarter-hour.
    pub start: DateTime<Utc>,
    /// The start of the file's first window.
    pub first_window: DateTime<Utc>,
    /// The short number that the ids of the rows stored for this window begin with.
    pub file_no: i64,
    /// The key of the file in the store.
    pub path: String,
    /// The sha256 of the file, in hex.
    pub sha256: String,
    /// The sha256 of the compressed object in the store; `None` if another program registered the file.
    pub packed_sha256: Option<String>,
    /// The size of the file in bytes.
    pub bytes: i64,
    /// The state of this window's chain: `received`, `ingested`, …
    pub state: String,
    /// True if no newer window of the source has been ingested; false for a late window.
    pub in_order: bool,
    /// True if an operator has accepted the file although it was quarantined.
    pub accepted: bool,
    /// True if the file seems to contain the whole feed; `None` before the ingest.
    pub complete: Option<bool>,
    /// The window that the source's lot heads describe.
    pub head_window: Option<DateTime<Utc>>,
    /// The newest window whose completion has been decided.
    pub completed_window: Option<DateTime<Utc>>,
}

impl LockedWindow {
    /// Reads the file and locks its source. The lock orders the windows of one source.
    ///
    /// # Errors
    ///
    /// Aborts the job if the file has no sighting in that window, or is withdrawn: no retry would bring the row back.
    pub async fn lock(connection: &mut PgConnection, sighting: Sighting) -> Result<LockedWindow, JobError> {
        let Sighting { file_id, window_start_utc } = sighting;
        sqlx::query!(
            "-- auction: name the source
            insert into raw.sources (source)
            select source from raw.csv_files where file_id = $1
            on conflict do nothing",
            file_id
        )
        .execute(&mut *connection)
        .await
        .context("could not register the source of the file")?;
        let mut window = sqlx::query_as!(
            LockedWindow,
            r#"-- auction: lock the source
            select
              g.source, g.window_start_utc as start, f.window_start_utc as first_window, g.file_no, f.path, f.sha256,
              f.packed_sha256, f.bytes, g.state, g.accepted, g.complete, s.head_window, s.completed_window,
              s.head_window is null or g.window_start_utc >= s.head_window as "in_order!"
            from raw.csv_files f
            join raw.sightings g
              on g.file_id = f.file_id
              and g.window_start_utc = coalesce($2, f.window_start_utc)
            join raw.sources s on s.source = g.source
            where f.file_id = $1
            for update of s"#,
            file_id,
            window_start_utc
        )
        .fetch_optional(&mut *connection)
        .await
        .context("could not lock the source of the file")?
        .ok_or_else(|| abort(anyhow!("file {} is not in raw.sightings", sighting.job_key())))?;
        if window.state == "withdrawn" {
            return Err(abort(anyhow!("file {} is withdrawn", sighting.job_key())));
        }
        window.advance_head(connection).await?;
        // The payload contains only the file, so the job's log span gets the source and the window here.
        let span = tracing::Span::current();
        span.record("source", &window.source);
        span.record("window", window.start.to_rfc3339_opts(SecondsFormat::Secs, true));
        Ok(window)
    }

    /// Moves the head window forward to the newest window, up to this one, that received the head file again. The
    /// versions in that file were seen until then.
    async fn advance_head(&mut self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let Some(head_window) = self.head_window else { return Ok(()) };
        let advanced = sqlx::query_scalar!(
            r#"-- auction: advance the head window
            with last_repeat as (
              select max(g.window_start_utc) as at
              from raw.sources s
              join raw.sightings g on g.source = s.source and g.file_id = s.head_file_id
              where s.source = $1
                and g.state = 'unchanged'
                and g.window_start_utc > $2
                and g.window_start_utc <= $3
                and not exists (
                  select
                  from raw.sightings o
                  where o.source = s.source
                    and o.window_start_utc > $2
                    and o.window_start_utc <= g.window_start_utc
                    and o.state in ('ingested', 'applied', 'late', 'incomplete')
                )
            )
            update raw.sources s
            set head_window = r.at
            from last_repeat r
            where s.source = $1
              and r.at is not null
            returning s.head_window as "head_window!""#,
            self.source,
            head_window,
            self.start
        )
        .fetch_optional(connection)
        .await
        .context("could not advance the head window")?;
        if let Some(advanced) = advanced {
            self.head_window = Some(advanced);
            self.in_order = self.start >= advanced;
        }
        Ok(())
    }
}

/// Writes the catalogue objects that are missing from the store, before a step changes anything.
///
/// # Errors
/// Returns an error if the store or the database is unavailable; the job is then retried.
pub(super) async fn write_catalogue(pool: &PgPool, store: &Store) -> anyhow::Result<()> {
    catalogue::write_pending_entries(pool, |key, body| store.create_object(key, body))
        .await
        .context("could not write the store's catalogue")?;
    Ok(())
}

/// Creates the partitions of the window's month, in a separate transaction.
pub(super) async fn ensure_partitions(pool: &PgPool, window: DateTime<Utc>) -> anyhow::Result<()> {
    sqlx::query!("-- window: partitions\n select audit.ensure_partitions($1)", window)
        .fetch_one(pool)
        .await
        .context("could not create the partitions of the window")?;
    Ok(())
}

/// Returns the peak resident memory of this process in MB (10^6 bytes), or 0 if the system does not report this value.
///
/// `getrusage` is not used, since that value survives `exec` and would include the parent's.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    peak.map_or(0.0, |kib| kib * 1024.0 / 1e6)
}

/// Adds a step's report to the run of the file, under the step's name.
///
/// A repeated step has nothing left to do, so the report of the first one is not overwritten.
pub async fn record_step(
    connection: &mut PgConnection,
    (file_id, window): (Uuid, DateTime<Utc>),
    step: &str,
    report: &impl Serialize,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- auction: note a step
        update audit.etl_runs
        set report = jsonb_build_object($3::text, $4::jsonb) || report
        where file_id = $1
          and window_start_utc = $2",
        file_id,
        window,
        step,
        serde_json::to_value(report)?
    )
    .execute(connection)
    .await
    .context("could not record the report of the step")?;
    Ok(())
}
