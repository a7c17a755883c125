//! Which files each window saw, be it for the first time or again.

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// A file in a window that saw it.
pub struct File {
    /// Its id.
    pub file_id: Uuid,
    /// The window.
    pub window: DateTime<Utc>,
    /// The file's own window, in whose month its versions are.
    pub own_window: DateTime<Utc>,
    /// Whether all of the feed seems to be in it; none of a file that came late.
    pub complete: Option<bool>,
}

/// Returns the newest window before `until` that saw a file, be it for the first time or again.
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
    .context("look for the newest window")
}

/// Returns the files that the newest window before `until` saw.
pub async fn files_before(
    connection: &mut PgConnection,
    source: &str,
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<File>> {
    let Some(window) = newest_window(connection, source, until).await? else { return Ok(Vec::new()) };
    sqlx::query_as!(
        File,
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
    .context("look for the newest files")
}

/// Returns whether a window after `since`, up to `until`, saw a file again that is older than `since`.
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
    .context("look for repeated files")
}

/// An instant after `window` and before any other.
pub fn after(window: DateTime<Utc>) -> DateTime<Utc> {
    window + TimeDelta::microseconds(1)
}
