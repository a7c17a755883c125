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
use chrono::{DateTime, Datelike, Utc};
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

/// Whether the newest file up to `window` that can tell holds one of these: one that does, or a complete one that does not.
pub async fn is_held(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
    window: DateTime<Utc>,
) -> anyhow::Result<bool> {
    let ids: Vec<i64> = places.iter().map(|place| place.row_id).collect();
    let held = sqlx::query_scalar!(
        r#"-- history: does the newest file hold it
        select h.held as "held!"
        from raw.file_manifests m
        cross join lateral (
          select exists (select from unnest($2::bigint[]) as u (row_id) where u.row_id = any(m.row_ids)) as held
        ) as h
        where m.source = $1
          and m.window_start_utc <= $3
          and (m.complete or h.held)
        order by m.window_start_utc desc, h.held desc
        limit 1"#,
        source,
        &ids,
        window
    )
    .fetch_optional(connection)
    .await
    .context("ask the newest file for the lot")?;
    Ok(held.unwrap_or(false))
}

/// Versions of newer windows that late files at or before `until` hold, with the newest such file's window; with
/// `before`, strictly before, and the oldest. A manifest refers to versions of its own month only.
async fn borrowed(
    connection: &mut PgConnection,
    source: &str,
    places: &[Place],
    until: DateTime<Utc>,
    before: bool,
) -> anyhow::Result<HashMap<i64, DateTime<Utc>>> {
    let month = |at: DateTime<Utc>| (at.year(), at.month());
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
        let there = held_in(connection, source, &ids, last.window, last.window).await?;
        if there.len() == 1 {
            return Ok(there);
        }
    }
    held_in(connection, source, &ids, last.window, window).await
}

/// The ids that the newest window of this span holds that holds any.
async fn held_in(
    connection: &mut PgConnection,
    source: &str,
    ids: &[i64],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    let held = sqlx::query!(
        r#"-- history: the newest window that holds one of these
        select h.row_id as "row_id!"
        from (
          select m.window_start_utc
          from raw.file_manifests m
          where m.source = $1
            and m.window_start_utc between $3 and $4
            and exists (select from unnest($2::bigint[]) as u (row_id) where u.row_id = any(m.row_ids))
          order by m.window_start_utc desc
          limit 1
        ) as newest
        join raw.file_manifests m
          on m.source = $1
          and m.window_start_utc = newest.window_start_utc
        cross join unnest($2::bigint[]) as h (row_id)
        where h.row_id = any(m.row_ids)"#,
        source,
        ids,
        from,
        until
    )
    .fetch_all(connection)
    .await
    .context("look for the newest file that holds a version")?;
    Ok(held.into_iter().map(|row| row.row_id).collect::<HashSet<_>>().into_iter().collect())
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
