//! Order of a lot's versions at a window, by the rule of `lots`, restricted to the files up to that window.
//!
//! The order key of a version depends on its first window if its update time cannot be right. Had all files arrived in
//! order, that first window would be no later than the given window. So the first window known by then decides.

use super::versions::{RowVersion, VersionRef, held_by_file, read_versions, versions_from_late_files};
use super::windows::{ManifestFile, files_before, just_after, repeated_since};
use crate::auction::version::version_time;
use crate::taxonomy::AliasIndex;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Returns the versions in files up to `window` that make a lot, the greatest first.
///
/// The order is by (`version_at`, newest window by then that contains the version, hash). `version_at` is computed for
/// the first window that contains the version. Each version is returned once. If the greatest version has no unreadable
/// value, only that one is returned, since the others have no influence on the result.
pub async fn ordered_versions(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    places: &[VersionRef],
    window: DateTime<Utc>,
    aliases: &AliasIndex,
) -> anyhow::Result<Vec<RowVersion>> {
    let borrowed = versions_from_late_files(connection, source, places, window, false).await?;
    let held: Vec<VersionRef> = places
        .iter()
        .filter_map(|place| match borrowed.get(&place.row_id) {
            // use the window that is known to contain it
            Some(known) => Some(VersionRef { window: *known, late: true, ..place.clone() }),
            None => Some(place.clone()).filter(|place| place.window <= window),
        })
        .collect();
    let mut versions = read_versions(connection, (source, lot), held, aliases).await?;
    versions.retain(|version| version.makes_a_lot);
    set_order_keys(&mut versions);
    versions.sort_by_key(|version| Reverse(version.version_at));
    let mut ordered: Vec<RowVersion> = Vec::new();
    while let Some(first) = versions.first() {
        let rest = versions.iter().position(|version| version.version_at != first.version_at);
        let mut equal: Vec<RowVersion> = versions.drain(..rest.unwrap_or(versions.len())).collect();
        while !equal.is_empty() {
            let next = take_greatest(connection, source, &mut equal, window).await?;
            let whole = next.unreadable.is_empty();
            ordered.push(next);
            if whole && ordered.len() == 1 {
                return Ok(ordered);
            }
        }
    }
    Ok(ordered)
}

/// Sets the order key of versions by the first window that contains each.
fn set_order_keys(versions: &mut [RowVersion]) {
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

/// Removes and returns the greatest of versions whose order keys are equal.
async fn take_greatest(
    connection: &mut PgConnection,
    source: &str,
    equal: &mut Vec<RowVersion>,
    window: DateTime<Utc>,
) -> anyhow::Result<RowVersion> {
    let hashes: HashSet<u128> = equal.iter().map(|version| version.hash).collect();
    let last = if hashes.len() > 1 {
        held_by_newest_file(connection, source, equal, window).await?
    } else {
        equal.iter().map(|version| version.place.row_id).collect()
    };
    // the newest window that is known to contain the version, since a keyframe stores a version again
    let key = |version: &RowVersion| (version.hash, version.place.window);
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

/// Returns the versions listed by the newest file, at or before `window`, that lists any of them.
///
/// In most cases that is the version stored last. Its file was read in order, and if a later file had contained another
/// version, that version would have been stored again. Two exceptions need the manifests: the file came late, or the
/// file contains several of the versions (a lot occurs twice).
async fn held_by_newest_file(
    connection: &mut PgConnection,
    source: &str,
    versions: &[RowVersion],
    window: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    let Some(last) = versions.iter().map(|version| &version.place).max_by_key(|place| place.window) else {
        return Ok(Vec::new());
    };
    let ids: Vec<i64> = versions.iter().map(|version| version.place.row_id).collect();
    if !last.late && !repeated_since(connection, source, last.window, window).await? {
        let there = held_before(connection, source, &ids, just_after(last.window)).await?;
        if there.len() == 1 {
            return Ok(there);
        }
    }
    let mut until = just_after(window);
    loop {
        let files = files_before(connection, source, until).await?;
        let Some(ManifestFile { window, .. }) = files.first() else { return Ok(Vec::new()) };
        until = *window;
        let there = held_by_files(connection, &files, &ids).await?;
        // this file contains one of the versions, so the search ends here
        if !there.is_empty() || until <= last.window {
            return Ok(there);
        }
    }
}

/// Returns the ids that the files of the newest window before `until` contain.
async fn held_before(
    connection: &mut PgConnection,
    source: &str,
    ids: &[i64],
    until: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    let files = files_before(connection, source, until).await?;
    held_by_files(connection, &files, ids).await
}

async fn held_by_files(connection: &mut PgConnection, files: &[ManifestFile], ids: &[i64]) -> anyhow::Result<Vec<i64>> {
    let mut held = Vec::new();
    for file in files {
        held.extend(held_by_file(connection, file.file_id, ids).await?);
    }
    held.sort_unstable();
    held.dedup();
    Ok(held)
}
