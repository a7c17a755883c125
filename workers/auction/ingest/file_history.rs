//! Reads the history that a file is judged by: the sizes of earlier files, and the unreadable values of the last
//! complete one.

use super::LockedWindow;
use crate::auction::Column;
use crate::auction::completeness::{EarlierFiles, MAX_COMPARED_FILES};
use crate::auction::drift::UnreadableShare;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The files of a source up to a window.
#[derive(Clone, Debug, Default)]
pub struct FileHistory {
    /// The earlier files that decide a file's completeness.
    pub files: EarlierFiles,
    /// The staged rows of the last complete file; `None` if there is no such file.
    last_complete: Option<StagedCounts>,
}

/// The number of staged rows of a file, and of their unreadable values.
#[derive(Clone, Debug, Default)]
struct StagedCounts {
    rows: u64,
    /// The number of unreadable values by column.
    unreadable: BTreeMap<String, u64>,
}

impl FileHistory {
    /// Reads the history of this window's file.
    ///
    /// Files of later windows and the file itself are excluded, so the result does not depend on when the file is
    /// ingested.
    pub async fn load(
        connection: &mut PgConnection,
        window: &LockedWindow,
        file_id: Uuid,
    ) -> anyhow::Result<FileHistory> {
        let files = earlier_files(connection, &window.source, window.start, file_id).await?;
        let last = sqlx::query!(
            r#"-- ingest: unreadable values of the last complete file
            select
              (
                select jsonb_object_agg(u.key, u.value -> 'count')
                from jsonb_each(r.report #> '{ingest,unreadable}') as u
              ) as unreadable,
              (r.report #>> '{ingest,staged}')::bigint as staged
            from raw.csv_files f
            join audit.etl_runs r on r.file_id = f.file_id and r.window_start_utc = f.window_start_utc
            where f.source = $1 and f.complete and f.window_start_utc <= $2 and f.file_id <> $3
            order by f.window_start_utc desc, f.file_no desc
            limit 1"#,
            window.source,
            window.start,
            file_id
        )
        .fetch_optional(connection)
        .await
        .context("could not read the unreadable values of the last complete file")?;
        let Some(last) = last else { return Ok(FileHistory { files, last_complete: None }) };
        let unreadable = match last.unreadable {
            Some(counts) => {
                serde_json::from_value(counts).context("could not parse the report of the last complete file")?
            }
            None => BTreeMap::new(),
        };
        let rows = last.staged.unwrap_or(0).unsigned_abs();
        Ok(FileHistory { files, last_complete: Some(StagedCounts { rows, unreadable }) })
    }

    /// Returns the share of the column's unreadable values in the last complete file, or `None` if there is no such
    /// file.
    pub fn unreadable_share(&self, column: Column) -> Option<UnreadableShare> {
        let last = self.last_complete.as_ref()?;
        let unreadable = last.unreadable.get(column.name()).copied().unwrap_or(0);
        Some(UnreadableShare { unreadable, rows: last.rows })
    }
}

/// Reads the earlier files that decide a file's completeness.
pub async fn earlier_files(
    connection: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
) -> anyhow::Result<EarlierFiles> {
    let complete_sizes = complete_sizes(connection, source, window, file_id).await?;
    let small = small_files(connection, source, window, file_id).await?;
    let small_since = small.last().map(|(at, _)| *at);
    let small_sizes = small.iter().take(MAX_COMPARED_FILES).map(|(_, rows)| *rows).collect();
    Ok(EarlierFiles { complete_sizes, small_since, small_sizes })
}

/// Returns the row counts of the last complete files, newest first. An accepted size counts as the oldest of them.
async fn complete_sizes(
    connection: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
) -> anyhow::Result<Vec<i32>> {
    sqlx::query_scalar!(
        r#"-- ingest: sizes of the last complete files
        with accepted_size as (
          select s.size_accepted_window as at, s.size_accepted_rows as rows
          from raw.sources s
          where s.source = $1 and s.size_accepted_window <= $2
        ),
        sizes as (
          select f.row_count as rows, f.window_start_utc as at, f.file_no
          from raw.csv_files f
          where f.source = $1
            and f.complete
            and f.window_start_utc <= $2
            and f.file_id <> $3
            and f.window_start_utc > coalesce((select a.at from accepted_size a), '-infinity')
          union all
          select a.rows, a.at, 0
          from accepted_size a
        )
        select rows as "rows!"
        from sizes
        order by at desc, file_no desc
        limit $4"#,
        source,
        window,
        file_id,
        MAX_COMPARED_FILES as i64
    )
    .fetch_all(connection)
    .await
    .context("could not read the sizes of the last complete files")
}

/// Returns the windows and row counts of the files that were only too small, newest first, since the last file that was
/// not.
async fn small_files(
    connection: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
) -> anyhow::Result<Vec<(DateTime<Utc>, i32)>> {
    let files = sqlx::query!(
        r#"-- ingest: files that were too small
        with reference_windows as (
          -- the last file that was judged differently, and the window with an accepted size
          (
            select f.window_start_utc as at
            from raw.csv_files f
            where f.source = $1
              and f.complete is not null
              and f.incomplete_reason is distinct from 'size'
              and f.window_start_utc <= $2
              and f.file_id <> $3
            order by f.window_start_utc desc
            limit 1
          )
          union all
          select s.size_accepted_window
          from raw.sources s
          where s.source = $1 and s.size_accepted_window <= $2
        )
        select f.window_start_utc as at, f.row_count as "rows!"
        from raw.csv_files f
        where f.source = $1
          and f.incomplete_reason = 'size'
          and f.window_start_utc <= $2
          and f.file_id <> $3
          and f.window_start_utc > coalesce((select max(r.at) from reference_windows r), '-infinity')
        order by f.window_start_utc desc, f.file_no desc"#,
        source,
        window,
        file_id
    )
    .fetch_all(connection)
    .await
    .context("could not read the files that were too small")?;
    Ok(files.into_iter().map(|file| (file.at, file.rows)).collect())
}
