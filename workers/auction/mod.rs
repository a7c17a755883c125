//! The auction domain's jobs: a window of the feed, from download to status.
//!
//! Four of the five carry a file id and work under the lock of the file's source ([`Window::lock`]), so that the windows
//! of one source are applied one after the other while sources run side by side.

use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

pub mod counted;
pub mod detect_completion;
pub mod download;
pub mod fetch;
pub mod ingest;
pub mod receive;
pub mod session;
pub mod upsert_lots;
pub mod upsert_vehicles;

/// The file a job works on, its source locked until the step's transaction ends.
#[derive(Debug, Clone)]
pub struct Window {
    /// Its source: `copart`.
    pub source: String,
    /// The start of its quarter-hour.
    pub start: DateTime<Utc>,
    /// Its short number.
    pub file_no: i64,
    /// Where the store keeps it.
    pub path: String,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Of its bytes as the store has them.
    pub packed_sha256: Option<String>,
    /// Its size.
    pub bytes: i64,
    /// How far it has come: `received`, `ingested`, …
    pub state: String,
    /// Whether it is newer than, or as new as, everything its source has had ingested; false for a late one.
    pub in_order: bool,
    /// Whether all of the feed seems to be in it; null before it is ingested.
    pub complete: Option<bool>,
    /// The window the source's heads stand at.
    pub head_window: Option<DateTime<Utc>>,
    /// The newest window whose completion has been decided.
    pub completed_window: Option<DateTime<Utc>>,
}

impl Window {
    /// Reads the file and takes its source's lock, which orders the windows of one source.
    pub async fn lock(connection: &mut PgConnection, file_id: Uuid) -> anyhow::Result<Window> {
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
        let window = sqlx::query_as!(
            Window,
            r#"-- auction: lock the source
            select
              f.source, f.window_start_utc as start, f.file_no, f.path, f.sha256, f.packed_sha256, f.bytes, f.state, f.complete,
              s.head_window, s.completed_window,
              s.head_window is null or f.window_start_utc >= s.head_window as "in_order!"
            from raw.csv_files f
            join raw.sources s on s.source = f.source
            where f.file_id = $1
            for update of s"#,
            file_id
        )
        .fetch_optional(connection)
        .await?
        .with_context(|| format!("file {file_id} is not in raw.csv_files"))?;
        // the log lines of a job say whose it is, though its payload names but the file
        let span = tracing::Span::current();
        span.record("source", &window.source);
        span.record("window", window.start.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        Ok(window)
    }
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
    file_id: Uuid,
    step: &str,
    report: &impl serde::Serialize,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- auction: note a step\n update audit.etl_runs set report = jsonb_build_object($2::text, $3::jsonb) || report where file_id = $1",
        file_id,
        step,
        serde_json::to_value(report)?
    )
    .execute(connection)
    .await
    .context("note the step's report")?;
    Ok(())
}
