//! The auction domain's jobs: a window of the feed, from download to status.
//!
//! Four of the five carry a file id and work under the lock of the file's source ([`Window::lock`]), so that the windows
//! of one source are applied one after the other while sources run side by side.

use crate::db::catalogue;
use crate::queue::{Stop, abort};
use crate::store::Store;
use anyhow::{Context, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub mod compare;
pub mod counted;
pub mod detect_completion;
pub mod download;
pub mod fetch;
pub mod fold;
pub mod ingest;
pub mod receive;
mod restage;
pub mod session;
pub mod sightings;
pub mod upsert_lots;
pub mod upsert_vehicles;
pub mod withdraw;

/// A file of a window, as the payloads of a chain name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// The file.
    pub file_id: Uuid,
    /// The window, where the file came again; absent for the window that it came for first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start_utc: Option<DateTime<Utc>>,
}

impl Sighting {
    /// Returns the first sighting of a file.
    pub fn first(file_id: Uuid) -> Sighting {
        Sighting { file_id, window_start_utc: None }
    }

    /// Returns the key of the chain's jobs: the file, and the window where the file came again.
    pub fn key(&self) -> String {
        match self.window_start_utc {
            None => self.file_id.to_string(),
            Some(at) => format!("{}@{}", self.file_id, at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        }
    }
}

/// The file a job works on, its source locked until the step's transaction ends.
#[derive(Debug, Clone)]
pub struct Window {
    /// Its source: `copart`.
    pub source: String,
    /// The start of its quarter-hour.
    pub start: DateTime<Utc>,
    /// The start of the quarter-hour that the file came for first.
    pub first_window: DateTime<Utc>,
    /// The short number from which the ids of the rows stored for this window are made.
    pub file_no: i64,
    /// Where the store keeps it.
    pub path: String,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Of its bytes as the store has them.
    pub packed_sha256: Option<String>,
    /// Its size.
    pub bytes: i64,
    /// How far the chain of this window has come: `received`, `ingested`, …
    pub state: String,
    /// Whether it is newer than, or as new as, everything its source has had ingested; false for a late one.
    pub in_order: bool,
    /// Whether an operator accepts the file although it was quarantined.
    pub accepted: bool,
    /// Whether all of the feed seems to be in it; null before it is ingested.
    pub complete: Option<bool>,
    /// The window the source's heads stand at.
    pub head_window: Option<DateTime<Utc>>,
    /// The newest window whose completion has been decided.
    pub completed_window: Option<DateTime<Utc>>,
}

impl Window {
    /// Reads the file and takes its source's lock, which orders the windows of one source.
    ///
    /// # Errors
    ///
    /// A file that has no sighting for that window aborts the job: no retry brings the row back.
    pub async fn lock(connection: &mut PgConnection, sighting: Sighting) -> Result<Window, Stop> {
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
        .context("name the source of the file")?;
        let mut window = sqlx::query_as!(
            Window,
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
        .context("lock the source of the file")?
        .ok_or_else(|| abort(anyhow!("file {} is not in raw.sightings", sighting.key())))?;
        if window.state == "withdrawn" {
            return Err(abort(anyhow!("file {} is withdrawn: it no longer counts", sighting.key())));
        }
        window.advance_head(connection).await?;
        // the log lines of a job say whose it is, though its payload names but the file
        let span = tracing::Span::current();
        span.record("source", &window.source);
        span.record("window", window.start.to_rfc3339_opts(SecondsFormat::Secs, true));
        Ok(window)
    }

    /// Moves the heads to the newest window that brought their file again, up to this one: what stands in that file was seen
    /// until then.
    async fn advance_head(&mut self, connection: &mut PgConnection) -> anyhow::Result<()> {
        let Some(head_window) = self.head_window else { return Ok(()) };
        let advanced = sqlx::query_scalar!(
            r#"-- auction: advance the head window
            with repeated as (
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
            from repeated r
            where s.source = $1
              and r.at is not null
            returning s.head_window as "head_window!""#,
            self.source,
            head_window,
            self.start
        )
        .fetch_optional(connection)
        .await
        .context("advance the head window")?;
        if let Some(advanced) = advanced {
            self.head_window = Some(advanced);
            self.in_order = self.start >= advanced;
        }
        Ok(())
    }
}

/// Puts the catalogue's objects that the store lacks, before a step changes anything.
///
/// # Errors
/// Returns an error if the store or the database is away; the step is tried again.
pub(super) async fn write_catalogue(pool: &PgPool, store: &Store) -> anyhow::Result<()> {
    catalogue::write_unwritten(pool, |key, body| store.create_object(key, body))
        .await
        .context("write the store's catalogue")?;
    Ok(())
}

/// Creates the partitions of the window's month, in a transaction of its own.
pub(super) async fn ensure_partitions(pool: &PgPool, window: DateTime<Utc>) -> anyhow::Result<()> {
    sqlx::query!("-- window: partitions\n select audit.ensure_partitions($1)", window)
        .fetch_one(pool)
        .await
        .context("make the window's partitions")?;
    Ok(())
}

/// The most memory this process has ever held, in MB (10^6 bytes); 0 where the system does not tell. Not what `getrusage`
/// says: that survives `exec`, and would be the parent's.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    peak.map_or(0.0, |kib| kib * 1024.0 / 1e6)
}

/// Adds a step's report to the run of its file, under the step's name. A repeated step finds nothing to do, and what the
/// first one did stays written.
pub async fn note_step(
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
    .context("note the step's report")?;
    Ok(())
}
