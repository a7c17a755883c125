//! A lot's row versions: which there are, and which a file at or before a window held.
//!
//! A version is stored where it was new, and from then on held by the manifest of each file that repeats it. Read in
//! their order, files store a version in the first window that holds it. A late file breaks that: what it has in common
//! with the heads it does not store again, so its manifest refers to versions of newer windows, and what it stores is no
//! news for the files that were read before it. Hence the two questions below that only manifests answer; each is asked
//! only where there is reason to.

use super::windows::{File, after, files_before};
use crate::auction::hash::RowHasher;
use crate::auction::payload::Kept;
use crate::auction::row::{Typed, Warnings};
use crate::auction::version::version_time;
use crate::auction::{ColumnSet, mapping};
use crate::taxonomy::Spellings;
use anyhow::Context;
use chrono::{DateTime, Datelike, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Where a version is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id in `raw.rows`.
    pub row_id: i64,
    /// A window that holds it: that of the file that stored it, or of a late one.
    pub window: DateTime<Utc>,
    /// Whether that file came late.
    pub late: bool,
}

/// A version as it was read.
pub struct Version {
    /// Where it is.
    pub place: Place,
    /// Its file.
    pub file_id: Uuid,
    /// The record.
    pub kept: Kept,
    /// The row hash.
    pub hash: u128,
    /// The update time.
    pub updated: Option<DateTime<Utc>>,
    /// The order key: the update time, or the start of the window that holds it.
    pub version_at: DateTime<Utc>,
    /// Its columns that cannot be read.
    pub unreadable: ColumnSet,
    /// Whether it has a VIN and a lot number.
    pub makes_a_lot: bool,
}

/// The canonical number of a lot as a key.
fn key(lot: &str) -> anyhow::Result<i64> {
    lot.parse().with_context(|| format!("lot number {lot:?} is not a number of at most 18 digits"))
}

/// Every version of a lot, by window.
pub async fn places(connection: &mut PgConnection, source: &str, lot: &str) -> anyhow::Result<Vec<Place>> {
    sqlx::query_as!(
        Place,
        r#"-- history: where a lot's versions are
        select row_id as "row_id!", window_start_utc as "window!", late as "late!"
        from raw.lot_versions
        where lot = $1 and source = $2
        order by window_start_utc, row_id"#,
        key(lot)?,
        source
    )
    .fetch_all(connection)
    .await
    .context("look for the lot's row versions")
}

/// Returns the oldest window that holds one of these versions.
pub async fn oldest(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
) -> anyhow::Result<Option<DateTime<Utc>>> {
    let Some(first) = places.first() else { return Ok(None) };
    let before = borrowed(connection, source, places, first.window, true).await?;
    Ok(before.values().min().copied().or(Some(first.window)))
}

/// Returns the newest window that holds one of these versions, `known` being one that does.
///
/// Files read in their order count when they are read. What may come later is a file that came late, and a window that
/// repeated a file.
pub async fn newest(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
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
    .context("look for the newest window that holds the lot")?;
    Ok(later.unwrap_or(known))
}

/// Of these ids, those that a file holds. Each is sought by itself: milliseconds in a file of 154,000 rows.
pub async fn held_by(connection: &mut PgConnection, file_id: Uuid, ids: &[i64]) -> anyhow::Result<Vec<i64>> {
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
    .context("ask a file for the lot")
}

/// Whether a file holds any of these ids. The first is the likely one and sought first; the others are sought together.
async fn holds(connection: &mut PgConnection, file_id: Uuid, ids: &[i64]) -> anyhow::Result<bool> {
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
    held.context("ask a file for the lot")
}

/// Whether the newest file up to `window` that can tell holds one of these: one that does, or a complete one that does not.
pub async fn is_held(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
    window: DateTime<Utc>,
) -> anyhow::Result<bool> {
    let mut until = after(window);
    loop {
        let files = files_before(connection, source, until).await?;
        let Some(File { window, .. }) = files.first() else { return Ok(false) };
        until = *window;
        for file in &files {
            // newest first; those of newer windows only a late file may hold
            let here = places.iter().rev().filter(|place| month(place.window) == month(file.own_window));
            let (stored, newer): (Vec<&Place>, Vec<&Place>) =
                here.partition(|place| place.window <= file.own_window);
            let newer = newer.iter().filter(|_| file.complete.is_none());
            let ids: Vec<i64> = stored.iter().chain(newer).map(|place| place.row_id).collect();
            if holds(connection, file.file_id, &ids).await? {
                return Ok(true);
            }
        }
        if files.iter().any(|file| file.complete == Some(true)) {
            return Ok(false);
        }
    }
}

/// A manifest refers to versions of its own month only.
fn month(at: DateTime<Utc>) -> (i32, u32) {
    (at.year(), at.month())
}

/// Versions of newer windows that files seen at or before `until` hold, with the newest such window; with `before`, strictly
/// before, and the oldest. Such a file came late, or was seen in a window older than its own.
pub async fn borrowed(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
    until: DateTime<Utc>,
    before: bool,
) -> anyhow::Result<HashMap<i64, DateTime<Utc>>> {
    let newer = |place: &&Place| {
        month(place.window) == month(until)
            && if before { place.window >= until } else { place.window > until }
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
    .context("look for newer versions in older windows")?;
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

/// Reads these versions of a lot.
pub async fn read(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    places: Vec<Place>,
    spellings: &Spellings,
) -> anyhow::Result<Vec<Version>> {
    let ids: Vec<i64> = places.iter().map(|place| place.row_id).collect();
    let rows = sqlx::query!(
        r#"-- history: a lot's versions
        select row_id as "row_id!", file_id as "file_id!", header as "header!", payload as "payload!"
        from raw.lot_versions
        where lot = $1 and source = $2 and row_id = any($3)"#,
        key(lot)?,
        source,
        &ids
    )
    .fetch_all(connection)
    .await
    .context("read the lot's row versions")?;
    let mapping = mapping::for_source(source);
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(place) = places.iter().find(|place| place.row_id == row.row_id) else { continue };
        let Value::Object(payload) = row.payload else { continue };
        let header = serde_json::from_value(row.header).context("read a file's header")?;
        let kept = Kept::read(header, &payload, mapping)
            .with_context(|| format!("read row version {}", row.row_id))?;
        let record = kept.record();
        let hash = RowHasher::new(record.header()).hash(&record);
        let typed = Typed::read(&record, spellings, &mut Warnings::default());
        let (updated, makes_a_lot) = (typed.source_updated_at, typed.skip_reason.is_none());
        let unreadable = typed.unreadable;
        versions.push(Version {
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
