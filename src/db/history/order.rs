//! The order of a lot's versions at a window, by the rule of `lots`, restricted to what files up to then held.
//!
//! Had all files come in their order, the first window with a version would be no later than the window asked for. So the
//! first window that is known by then decides the order key of a version whose update time cannot be right.

use super::versions::{Place, Version, borrowed, held_by, read};
use super::windows::{File, after, files_before, repeated_since};
use crate::auction::version::version_time;
use crate::taxonomy::Spellings;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Returns the versions that files up to `window` held and that make a lot, the greatest first: by (`version_at`, newest window
/// that held it by then, hash). `version_at` is that of the first window that held the version. Each is there once.
///
/// Where the greatest can be read as a whole it is the only one that is returned: the others say nothing of what stood.
pub async fn in_order(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    places: &[Place],
    window: DateTime<Utc>,
    spellings: &Spellings,
) -> anyhow::Result<Vec<Version>> {
    let borrowed = borrowed(connection, source, places, window, false).await?;
    let held: Vec<Place> = places
        .iter()
        .filter_map(|place| match borrowed.get(&place.row_id) {
            // told by the window that is known to hold it
            Some(known) => Some(Place { window: *known, late: true, ..place.clone() }),
            None => Some(place.clone()).filter(|place| place.window <= window),
        })
        .collect();
    let mut versions = read(connection, (source, lot), held, spellings).await?;
    versions.retain(|version| version.makes_a_lot);
    date(&mut versions);
    versions.sort_by_key(|version| Reverse(version.version_at));
    let mut ordered: Vec<Version> = Vec::new();
    while let Some(first) = versions.first() {
        let rest = versions.iter().position(|version| version.version_at != first.version_at);
        let mut equal: Vec<Version> = versions.drain(..rest.unwrap_or(versions.len())).collect();
        while !equal.is_empty() {
            let next = greatest_of_equal(connection, source, &mut equal, window).await?;
            let whole = next.unreadable.is_empty();
            ordered.push(next);
            if whole && ordered.len() == 1 {
                return Ok(ordered);
            }
        }
    }
    Ok(ordered)
}

/// Sets the order key of versions by the first window that held each.
fn date(versions: &mut [Version]) {
    let mut first: HashMap<u128, DateTime<Utc>> = HashMap::new();
    for version in versions.iter() {
        let window = first.entry(version.hash).or_insert(version.place.window);
        *window = version.place.window.min(*window);
    }
    for version in versions {
        let window = first.get(&version.hash).copied().unwrap_or(version.place.window);
        version.version_at = version_time(version.updated, window).0;
    }
}

/// Removes the greatest of versions whose order keys are equal from them, and returns it.
async fn greatest_of_equal(
    connection: &mut PgConnection,
    source: &str,
    equal: &mut Vec<Version>,
    window: DateTime<Utc>,
) -> anyhow::Result<Version> {
    let hashes: HashSet<u128> = equal.iter().map(|version| version.hash).collect();
    let last = if hashes.len() > 1 {
        last_held(connection, source, equal, window).await?
    } else {
        equal.iter().map(|version| version.place.row_id).collect()
    };
    // the newest window that is known to hold it; a keyframe stores a version again
    let key = |version: &Version| (version.hash, version.place.window);
    let greatest = equal
        .iter()
        .enumerate()
        .filter(|(_, version)| last.is_empty() || last.contains(&version.place.row_id))
        .max_by_key(|(_, version)| key(version))
        .map_or(0, |(at, _)| at);
    let greatest = equal.swap_remove(greatest);
    equal.retain(|version| version.hash != greatest.hash);
    Ok(greatest)
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
    if !last.late && !repeated_since(connection, source, last.window, window).await? {
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
