//! Files of each window, including files that were seen again.

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A file in a window that contained the file.
pub struct ManifestFile {
    /// The id of the file.
    pub file_id: Uuid,
    /// The window.
    pub window: DateTime<Utc>,
    /// The file's first window. The file's versions are stored in the month of this window.
    pub own_window: DateTime<Utc>,
    /// True if the file seems to contain the whole feed. None for a file that came late.
    pub complete: Option<bool>,
}

/// Returns the newest window before `until` that has a file, new or seen again.
pub async fn newest_window(
    connection: &mut PgConnection,
    source: &str,
    until: DateTime<Utc>,
) -> anyhow::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"-- history: the newest window
        select max(n.at) as at
        from (
          (
            select m.window_start_utc as at
            from raw.file_manifests m
            where m.source = $1 and m.window_start_utc < $2
            order by m.window_start_utc desc
            limit 1
          )
          union all
          select max(x.window_start_utc)
          from raw.file_sightings x
          where x.source = $1 and x.window_start_utc < $2
        ) n"#,
        source,
        until
    )
    .fetch_one(connection)
    .await
    .context("could not read the newest window")
}

/// Returns the files of the newest window before `until`, new or seen again.
pub async fn files_before(
    connection: &mut PgConnection,
    source: &str,
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<ManifestFile>> {
    let Some(window) = newest_window(connection, source, until).await? else { return Ok(Vec::new()) };
    sqlx::query_as!(
        ManifestFile,
        r#"-- history: the files of a window
        select f.file_id as "file_id!", $2::timestamptz as "window!", f.window_start_utc as "own_window!", f.complete
        from raw.file_manifests f
        where f.source = $1 and f.window_start_utc = $2
        union
        select f.file_id, $2, f.window_start_utc, f.complete
        from raw.file_sightings x
        join raw.file_manifests f on f.file_id = x.file_id
        where x.source = $1 and x.window_start_utc = $2"#,
        source,
        window
    )
    .fetch_all(connection)
    .await
    .context("could not read the files of a window")
}

/// Returns true if a window after `since`, up to `until`, repeats a file that is older than `since`.
pub async fn repeated_since(
    connection: &mut PgConnection,
    source: &str,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- history: was an older file seen again
        select exists (
          select
          from raw.file_sightings x
          where x.source = $1 and x.window_start_utc > $2 and x.window_start_utc <= $3 and x.file_window_utc < $2
        ) as "repeated!""#,
        source,
        since,
        until
    )
    .fetch_one(connection)
    .await
    .context("could not read the repeated files")
}

/// Returns the time right after `window`, by PostgreSQL's resolution of one microsecond.
pub fn just_after(window: DateTime<Utc>) -> DateTime<Utc> {
    window + TimeDelta::microseconds(1)
}
