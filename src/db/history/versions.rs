//! Row versions of a lot: which versions exist, and which of them a file at or before a window contains.
//!
//! A version is stored with the file in which it is new. The manifest of each later file with the same row refers to
//! it. If files are read in order, each version is stored with the first window that contains it. A late file is an
//! exception. Rows that equal lot heads are not stored again, so its manifest refers to versions of newer windows. And
//! a version that a late file stores may not be new for files read before. So two questions can only be answered from
//! manifests. The queries on manifests run only if their result can make a difference.

use super::windows::{ManifestFile, files_before, just_after};
use crate::auction::hash::RowHasher;
use crate::auction::payload::StoredRow;
use crate::auction::row::{ParseWarnings, ParsedRow};
use crate::auction::version::version_time;
use crate::auction::{ColumnSet, mapping};
use crate::taxonomy::AliasIndex;
use anyhow::Context;
use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Reference to a row version.
#[derive(Clone, Debug)]
pub struct VersionRef {
    /// The id in `raw.rows`.
    pub row_id: i64,
    /// A window that contains the version: that of the file that stored it, or of a late file.
    pub window: DateTime<Utc>,
    /// True if the file of that window came late.
    pub late: bool,
}

/// A parsed row version.
pub struct RowVersion {
    /// The reference of the version.
    pub place: VersionRef,
    /// The file that stored the version.
    pub file_id: Uuid,
    /// The stored record.
    pub kept: StoredRow,
    /// The row hash.
    pub hash: u128,
    /// The update time. None if the record has no readable one.
    pub updated: Option<DateTime<Utc>>,
    /// The order key: the update time, or the start of the window if the update time cannot be right.
    pub version_at: DateTime<Utc>,
    /// The unreadable columns.
    pub unreadable: ColumnSet,
    /// True if the record has a VIN and a lot number.
    pub makes_a_lot: bool,
}

/// Parses the canonical number of a lot.
fn parse_lot_number(lot: &str) -> anyhow::Result<i64> {
    lot.parse().with_context(|| format!("lot number {lot:?} is not a number of at most 18 digits"))
}

/// Returns all versions of a lot, by window.
pub async fn find_versions(connection: &mut PgConnection, source: &str, lot: &str) -> anyhow::Result<Vec<VersionRef>> {
    sqlx::query_as!(
        VersionRef,
        r#"-- history: where a lot's versions are
        select row_id as "row_id!", window_start_utc as "window!", late as "late!"
        from raw.lot_versions
        where lot = $1 and source = $2
        order by window_start_utc, row_id"#,
        parse_lot_number(lot)?,
        source
    )
    .fetch_all(connection)
    .await
    .context("could not read the row versions of the lot")
}

/// Returns the oldest window that contains one of these versions, or `None` if there are none.
pub async fn first_seen_window(
    connection: &mut PgConnection,
    source: &str,
    places: &[VersionRef],
) -> anyhow::Result<Option<DateTime<Utc>>> {
    let Some(first) = places.first() else { return Ok(None) };
    let before = versions_from_late_files(connection, source, places, first.window, true).await?;
    Ok(before.values().min().copied().or(Some(first.window)))
}

/// Returns the newest window that contains one of these versions. `known` is a window that does.
///
/// Files read in order update `known`. Newer windows can only come from late files and from repeated files.
pub async fn last_seen_window(
    connection: &mut PgConnection,
    source: &str,
    places: &[VersionRef],
    known: DateTime<Utc>,
) -> anyhow::Result<DateTime<Utc>> {
    let ids: Vec<i64> = places.iter().map(|place| place.row_id).collect();
    let later = sqlx::query_scalar!(
        r#"-- history: the newest window that holds a lot
        select max(c.at) as at
        from (
          select m.window_start_utc as at, m.file_id
          from raw.file_manifests m
          where m.source = $1 and m.late and m.window_start_utc > $2
          union
          select x.window_start_utc, x.file_id
          from raw.file_sightings x
          join raw.file_manifests m on m.file_id = x.file_id
          where x.source = $1 and x.window_start_utc > $2 and (m.late or x.file_window_utc <= $2)
        ) c
        join raw.file_manifests m on m.file_id = c.file_id
        where exists (select from unnest($3::bigint[]) as u (row_id) where u.row_id = any(m.row_ids))"#,
        source,
        known,
        &ids
    )
    .fetch_one(connection)
    .await
    .context("could not read the newest window of the lot")?;
    Ok(later.unwrap_or(known))
}

/// Returns the ids that a file contains. Each id is searched separately, which takes milliseconds in a file of 154,000
/// rows.
pub async fn held_by_file(connection: &mut PgConnection, file_id: Uuid, ids: &[i64]) -> anyhow::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"-- history: which of these does the file hold
        select u.row_id as "row_id!"
        from raw.file_manifests m
        cross join unnest($2::bigint[]) as u (row_id)
        where m.file_id = $1 and u.row_id = any(m.row_ids)"#,
        file_id,
        ids
    )
    .fetch_all(connection)
    .await
    .context("could not search the manifest of a file")
}

/// Returns true if a file contains any of these ids.
///
/// The first id is the most likely one and is searched first. The other ids are searched together.
async fn file_holds_any(connection: &mut PgConnection, file_id: Uuid, ids: &[i64]) -> anyhow::Result<bool> {
    if ids.is_empty() {
        return Ok(false);
    }
    let held = sqlx::query_scalar!(
        r#"-- history: does the file hold one of these
        select ($2::bigint[])[1] = any(m.row_ids) or m.row_ids && ($2::bigint[])[2:] as "held!"
        from raw.file_manifests m
        where m.file_id = $1"#,
        file_id,
        ids
    )
    .fetch_one(connection)
    .await;
    held.context("could not search the manifest of a file")
}

/// Returns true if the newest file up to `window` that decides contains one of these versions.
///
/// A file decides if it contains one of the versions, or if it is complete and contains none.
pub async fn was_listed(
    connection: &mut PgConnection,
    source: &str,
    places: &[VersionRef],
    window: DateTime<Utc>,
) -> anyhow::Result<bool> {
    let mut until = just_after(window);
    loop {
        let files = files_before(connection, source, until).await?;
        let Some(ManifestFile { window, .. }) = files.first() else { return Ok(false) };
        until = *window;
        for file in &files {
            // newest first; only a late file can refer to versions of newer windows
            let here = places.iter().rev().filter(|place| month_of(place.window) == month_of(file.own_window));
            let (stored, newer): (Vec<&VersionRef>, Vec<&VersionRef>) =
                here.partition(|place| place.window <= file.own_window);
            let newer = newer.iter().filter(|_| file.complete.is_none());
            let ids: Vec<i64> = stored.iter().chain(newer).map(|place| place.row_id).collect();
            if file_holds_any(connection, file.file_id, &ids).await? {
                return Ok(true);
            }
        }
        if files.iter().any(|file| file.complete == Some(true)) {
            return Ok(false);
        }
    }
}

/// Returns the month of a time. A manifest refers to versions of its own month only.
fn month_of(at: DateTime<Utc>) -> (i32, u32) {
    (at.year(), at.month())
}

/// Returns versions of newer windows that files at or before `until` contain, each with the newest such window.
///
/// With `before`, only files strictly before `until` count, and the window returned is the oldest. Such a file came
/// late, or was repeated in a window older than its own.
pub async fn versions_from_late_files(
    connection: &mut PgConnection,
    source: &str,
    places: &[VersionRef],
    until: DateTime<Utc>,
    before: bool,
) -> anyhow::Result<HashMap<i64, DateTime<Utc>>> {
    let newer = |place: &&VersionRef| {
        month_of(place.window) == month_of(until) && if before { place.window >= until } else { place.window > until }
    };
    let ids: Vec<i64> = places.iter().filter(newer).map(|place| place.row_id).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let held = sqlx::query!(
        r#"-- history: newer versions that older windows hold
        select c.at as "window!", u.row_id as "row_id!"
        from (
          select m.window_start_utc as at, m.file_id
          from raw.file_manifests m
          where m.source = $1 and m.late
          union
          select x.window_start_utc, x.file_id
          from raw.file_sightings x
          where x.source = $1 and x.window_start_utc < x.file_window_utc
        ) c
        join raw.file_manifests m on m.file_id = c.file_id
        cross join unnest($4::bigint[]) as u (row_id)
        where c.at >= date_trunc('month', $2::timestamptz, 'UTC')
          and (c.at < $2 or c.at = $2 and not $3)
          and u.row_id = any(m.row_ids)
        order by c.at"#,
        source,
        until,
        before,
        &ids
    )
    .fetch_all(connection)
    .await
    .context("could not read newer versions in older windows")?;
    let mut windows = HashMap::new();
    for row in held {
        if before {
            windows.entry(row.row_id).or_insert(row.window);
        } else {
            windows.insert(row.row_id, row.window);
        }
    }
    Ok(windows)
}

/// Reads and parses these versions of a lot.
pub async fn read_versions(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    places: Vec<VersionRef>,
    aliases: &AliasIndex,
) -> anyhow::Result<Vec<RowVersion>> {
    let ids: Vec<i64> = places.iter().map(|place| place.row_id).collect();
    let rows = sqlx::query!(
        r#"-- history: a lot's versions
        select row_id as "row_id!", file_id as "file_id!", header as "header!", payload as "payload!"
        from raw.lot_versions
        where lot = $1 and source = $2 and row_id = any($3)"#,
        parse_lot_number(lot)?,
        source,
        &ids
    )
    .fetch_all(connection)
    .await
    .context("could not read the row versions of the lot")?;
    let mapping = mapping::mapping_for_source(source);
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(place) = places.iter().find(|place| place.row_id == row.row_id) else { continue };
        let Value::Object(payload) = row.payload else { continue };
        let header = serde_json::from_value(row.header).context("could not parse the header of a file")?;
        let kept = StoredRow::from_payload(header, &payload, mapping)
            .with_context(|| format!("could not parse row version {}", row.row_id))?;
        let record = kept.as_record();
        let hash = RowHasher::new(record.header()).hash_row(&record);
        let typed = ParsedRow::from_record(&record, aliases, &mut ParseWarnings::default());
        let (updated, makes_a_lot) = (typed.source_updated_at, typed.skip_reason.is_none());
        let unreadable = typed.unreadable;
        versions.push(RowVersion {
            place: place.clone(),
            file_id: row.file_id,
            kept,
            hash,
            updated,
            version_at: version_time(updated, place.window).0,
            unreadable,
            makes_a_lot,
        });
    }
    Ok(versions)
}
