//! A lot's row versions: which there are, which a file at or before a window held, and the greatest of those.
//!
//! A version is stored where it was new, and from then on held by the manifest of each file that repeats it. Read in
//! their order, files store a version in the first window that holds it. A late file breaks that: what it has in common
//! with the heads it does not store again, so its manifest refers to versions of newer windows, and what it stores is no
//! news for the files that were read before it. Hence the two questions below that only manifests answer; each is asked
//! only where there is reason to.

use crate::auction::hash::RowHasher;
use crate::auction::payload::Kept;
use crate::auction::row::{Typed, Warnings};
use crate::taxonomy::Spellings;
use anyhow::Context;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};
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
    hash: u128,
    updated: Option<DateTime<Utc>>,
    makes_a_lot: bool,
}

/// A lot number in every way a file may write it.
fn written(lot: &str) -> Vec<String> {
    (lot.len()..=18.max(lot.len())).map(|width| format!("{lot:0>width$}")).collect()
}

/// Every version of a lot, by window.
pub async fn places(connection: &mut PgConnection, source: &str, lot: &str) -> anyhow::Result<Vec<Place>> {
    sqlx::query_as!(
        Place,
        r#"-- history: where a lot's versions are
        select row_id as "row_id!", window_start_utc as "window!", late as "late!"
        from raw.lot_versions
        where lot_number = any($1) and source = $2
        order by window_start_utc, row_id"#,
        &written(lot),
        source
    )
    .fetch_all(connection)
    .await
    .context("look for the lot's row versions")
}

/// The oldest window that holds one of these.
pub async fn oldest(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
) -> anyhow::Result<Option<DateTime<Utc>>> {
    let Some(first) = places.first() else { return Ok(None) };
    let before = borrowed(connection, source, places, first.window, true).await?;
    Ok(before.values().min().copied().or(Some(first.window)))
}

/// A file that has a manifest.
struct File {
    file_id: Uuid,
    window: DateTime<Utc>,
    complete: Option<bool>,
}

/// The files of the newest window before `until`.
async fn files_before(
    connection: &mut PgConnection,
    source: &str,
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<File>> {
    sqlx::query_as!(
        File,
        r#"-- history: the files of the newest window
        select f.file_id as "file_id!", f.window_start_utc as "window!", f.complete
        from raw.file_manifests f
        where f.source = $1
          and f.window_start_utc = (
            select m.window_start_utc
            from raw.file_manifests m
            where m.source = $1 and m.window_start_utc < $2
            order by m.window_start_utc desc
            limit 1
          )"#,
        source,
        until
    )
    .fetch_all(connection)
    .await
    .context("look for the newest files")
}

/// Of these ids, those that a file holds. Each is sought by itself: milliseconds in a file of 154,000 rows.
async fn held_by(connection: &mut PgConnection, file_id: Uuid, ids: &[i64]) -> anyhow::Result<Vec<i64>> {
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

/// An instant after `window` and before any other.
fn after(window: DateTime<Utc>) -> DateTime<Utc> {
    window + TimeDelta::microseconds(1)
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
        // newest first; those of newer windows only a late file may hold
        let here = places.iter().rev().filter(|place| month(place.window) == month(until));
        let (stored, newer): (Vec<&Place>, Vec<&Place>) = here.partition(|place| place.window <= until);
        for file in &files {
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

/// Versions of newer windows that late files at or before `until` hold, with the newest such file's window; with
/// `before`, strictly before, and the oldest.
async fn borrowed(
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
        r#"-- history: newer versions that late files hold
        select m.window_start_utc as "window!", u.row_id as "row_id!"
        from raw.file_manifests m
        cross join unnest($4::bigint[]) as u (row_id)
        where m.source = $1
          and m.late
          and m.window_start_utc >= date_trunc('month', $2::timestamptz, 'UTC')
          and (m.window_start_utc < $2 or m.window_start_utc = $2 and not $3)
          and u.row_id = any(m.row_ids)
        order by m.window_start_utc"#,
        source,
        until,
        before,
        &ids
    )
    .fetch_all(connection)
    .await
    .context("ask late files for newer versions")?;
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

/// The version that stood at `window`: the greatest of those that files up to then held.
pub async fn standing(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    places: &[Place],
    window: DateTime<Utc>,
    spellings: &Spellings,
) -> anyhow::Result<Option<Version>> {
    let borrowed = borrowed(connection, source, places, window, false).await?;
    let held: Vec<Place> = places
        .iter()
        .filter_map(|place| match borrowed.get(&place.row_id) {
            // told by the window that is known to hold it
            Some(known) => Some(Place { window: *known, late: true, ..place.clone() }),
            None => Some(place.clone()).filter(|place| place.window <= window),
        })
        .collect();
    let mut versions = read(connection, lot, held, spellings).await?;
    versions.retain(|version| version.makes_a_lot);
    let Some(updated) = versions.iter().map(|version| version.updated).max() else { return Ok(None) };
    versions.retain(|version| version.updated == updated);
    // the newest window that is known to hold it; a keyframe stores a version again
    let key = |version: &Version| (version.place.window, version.hash);
    let hashes: HashSet<u128> = versions.iter().map(|version| version.hash).collect();
    if hashes.len() > 1 {
        let last = last_held(connection, source, &versions, window).await?;
        versions.retain(|version| last.contains(&version.place.row_id));
        return Ok(versions.into_iter().max_by_key(|version| version.hash));
    }
    Ok(versions.into_iter().max_by_key(key))
}

/// Of versions that differ, those that the newest file up to `window` holds that holds any.
///
/// Mostly that is the version stored last: its file was read in order, and had a file after it held another, that would
/// have been stored anew. It need not be so where that file came late, or holds another of them too (a lot twice).
async fn last_held(
    connection: &mut PgConnection,
    source: &str,
    versions: &[Version],
    window: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    let Some(last) = versions.iter().map(|version| &version.place).max_by_key(|place| place.window) else {
        return Ok(Vec::new());
    };
    let ids: Vec<i64> = versions.iter().map(|version| version.place.row_id).collect();
    if !last.late {
        let there = held_in(connection, source, &ids, after(last.window)).await?;
        if there.len() == 1 {
            return Ok(there);
        }
    }
    let mut until = after(window);
    loop {
        let files = files_before(connection, source, until).await?;
        let Some(File { window, .. }) = files.first() else { return Ok(Vec::new()) };
        until = *window;
        let there = held_by_any(connection, &files, &ids).await?;
        // it holds one itself, so nothing is older
        if !there.is_empty() || until <= last.window {
            return Ok(there);
        }
    }
}

/// Those of these ids that the files of the newest window before `until` hold.
async fn held_in(
    connection: &mut PgConnection,
    source: &str,
    ids: &[i64],
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    let files = files_before(connection, source, until).await?;
    held_by_any(connection, &files, ids).await
}

async fn held_by_any(connection: &mut PgConnection, files: &[File], ids: &[i64]) -> anyhow::Result<Vec<i64>> {
    let mut held = Vec::new();
    for file in files {
        held.extend(held_by(connection, file.file_id, ids).await?);
    }
    held.sort_unstable();
    held.dedup();
    Ok(held)
}

/// Reads these versions of a lot.
async fn read(
    connection: &mut PgConnection,
    lot: &str,
    places: Vec<Place>,
    spellings: &Spellings,
) -> anyhow::Result<Vec<Version>> {
    let ids: Vec<i64> = places.iter().map(|place| place.row_id).collect();
    let rows = sqlx::query!(
        r#"-- history: a lot's versions
        select row_id as "row_id!", file_id as "file_id!", header as "header!", payload as "payload!"
        from raw.lot_versions
        where lot_number = any($1) and row_id = any($2)"#,
        &written(lot),
        &ids
    )
    .fetch_all(connection)
    .await
    .context("read the lot's row versions")?;
    let mut versions = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(place) = places.iter().find(|place| place.row_id == row.row_id) else { continue };
        let Value::Object(payload) = row.payload else { continue };
        let header = serde_json::from_value(row.header).context("read a file's header")?;
        let kept =
            Kept::read(header, &payload).with_context(|| format!("read row version {}", row.row_id))?;
        let record = kept.record();
        let hash = RowHasher::new(record.header()).hash(&record);
        let typed = Typed::read(&record, spellings, &mut Warnings::default());
        let (updated, makes_a_lot) = (typed.source_updated_at, typed.skip_reason.is_none());
        versions.push(Version {
            place: place.clone(),
            file_id: row.file_id,
            kept,
            hash,
            updated,
            makes_a_lot,
        });
    }
    Ok(versions)
}
