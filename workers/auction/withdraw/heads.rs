//! Rebuilds the heads of lots from the remaining manifests.
//!
//! The head of a lot is the version in the newest file that contains the lot. If the withdrawn file was the newest one,
//! the heads of all open lots are looked up again. Otherwise only those of lots last seen in it, and of lots closed
//! since, are looked up. Manifests are read from the newest one backwards until each of these lots is found. For nearly
//! all lots that is the first manifest.

use super::WithdrawnFile;
use super::file::{RemovedRows, manifest_row_ids};
use super::versions::{RowLocations, locate_rows, read_version_order};
use crate::auction::header::FeedHeader;
use crate::auction::lot_number::lot_of_rejected;
use crate::auction::mapping;
use crate::auction::reader::{ReaderLimits, RejectedRecord, RejectionReason};
use crate::auction::withdrawal::WithdrawalObserver;
use crate::workers::auction::fold::stored::lots_of_manifest;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// The row hash of a lot whose version is unknown; no version has it.
const UNKNOWN_ROW_HASH: Uuid = Uuid::nil();
/// The row id of a lot whose version is unknown.
const UNKNOWN_ROW_ID: i64 = -1;

/// Result of the rebuild.
pub struct RebuiltHeads {
    /// The lots whose heads were looked up.
    pub lots: Vec<i64>,
    /// The newest remaining window.
    pub newest_window: Option<DateTime<Utc>>,
}

/// A head before the rebuild.
struct StoredHead {
    row_id: i64,
    row_hash: Uuid,
    last_seen: Option<DateTime<Utc>>,
}

/// A lot in the newest manifest that contains it.
struct SightedLot {
    /// The rows of the lot in that file: one, or several if the file contains the lot twice.
    row_ids: Vec<i64>,
    /// The window until which the file was the newest one; `None` for the newest file.
    seen_until: Option<DateTime<Utc>>,
}

/// A head to be written.
struct RebuiltHead {
    lot: i64,
    row_id: i64,
    row_hash: Uuid,
    version_window: DateTime<Utc>,
    last_seen: Option<DateTime<Utc>>,
}

/// A remaining manifest.
struct RemainingManifest {
    file_id: Uuid,
    window: DateTime<Utc>,
    seen_until: DateTime<Utc>,
    /// True if the file is complete and was in order.
    complete: bool,
}

/// Looks up the heads that depended on the file, and writes them.
pub async fn rebuild_heads(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    removed: &RemovedRows,
    closed: &[i64],
    observer: &WithdrawalObserver,
) -> anyhow::Result<RebuiltHeads> {
    let manifests = remaining_manifests(connection, target).await?;
    let newest = manifests.first();
    let standing = stored_heads(connection, target).await?;
    let mut wanted: BTreeSet<i64> = closed.iter().copied().collect();
    // The head of a row that produces no lot stays until a complete file does not contain it.
    let unjudged = manifests.iter().take_while(|manifest| !manifest.complete).count();
    let looked_at = if target.is_newest || unjudged > 0 { unjudged + 1 } else { 0 };
    for manifest in manifests.iter().take(looked_at) {
        wanted.extend(lots_of_manifest(connection, manifest.file_id, manifest.window).await?);
    }
    if target.is_newest {
        wanted.extend(removed.lots.iter().chain(standing.keys()));
    } else {
        let stale = |head: &StoredHead| head.last_seen.is_some_and(|at| target.windows.contains(&at));
        wanted.extend(standing.iter().filter(|(_, head)| stale(head)).map(|(lot, _)| lot));
    }
    let wanted: Vec<i64> = wanted.into_iter().collect();
    let rows = locate_rows(connection, target, &wanted).await?;
    let sighted = last_sightings(connection, &manifests, &rows, observer).await?;
    let mut heads = choose_rows(connection, target, &sighted, &rows, &standing).await?;
    if let Some(newest) = newest.filter(|_| target.is_newest) {
        let unreadable = unreadable_lots(connection, target, newest).await?;
        let known: HashSet<i64> = heads.iter().map(|head| head.lot).collect();
        for head in heads.iter_mut().filter(|head| unreadable.contains(&head.lot)) {
            head.last_seen = None;
        }
        let unknown = unreadable.into_iter().filter(|lot| !known.contains(lot));
        heads.extend(unknown.map(|lot| RebuiltHead {
            lot,
            row_id: UNKNOWN_ROW_ID,
            row_hash: UNKNOWN_ROW_HASH,
            version_window: newest.window,
            last_seen: None,
        }));
    }
    write_heads(connection, target, &wanted, &heads, &standing).await?;
    update_source(connection, target, newest).await?;
    mark_absent(connection, target).await?;
    Ok(RebuiltHeads { lots: wanted, newest_window: newest.map(|newest| newest.window) })
}

/// Returns the remaining manifests, newest first.
async fn remaining_manifests(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
) -> anyhow::Result<Vec<RemainingManifest>> {
    sqlx::query_file_as!(RemainingManifest, "workers/auction/withdraw/manifests.sql", target.source)
        .fetch_all(connection)
        .await
        .context("could not read the remaining manifests")
}

async fn stored_heads(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
) -> anyhow::Result<HashMap<i64, StoredHead>> {
    let rows = sqlx::query!(
        "-- withdraw: heads\n select lot, row_id, row_hash, last_seen from raw.heads where source = $1",
        target.source
    )
    .fetch_all(connection)
    .await
    .context("could not read the heads")?;
    let heads = rows
        .into_iter()
        .map(|row| (row.lot, StoredHead { row_id: row.row_id, row_hash: row.row_hash, last_seen: row.last_seen }));
    Ok(heads.collect())
}

/// Returns the newest manifest that contains each lot.
async fn last_sightings(
    connection: &mut PgConnection,
    manifests: &[RemainingManifest],
    rows: &RowLocations,
    observer: &WithdrawalObserver,
) -> anyhow::Result<HashMap<i64, SightedLot>> {
    let all: HashSet<i64> = rows.values().map(|(lot, _)| *lot).collect();
    let mut sighted: HashMap<i64, SightedLot> = HashMap::with_capacity(all.len());
    for (n, manifest) in manifests.iter().enumerate() {
        if sighted.len() == all.len() {
            break;
        }
        observer("looking up lots", sighted.len() as u64, all.len() as u64);
        let mut here: HashMap<i64, Vec<i64>> = HashMap::new();
        for row_id in manifest_row_ids(connection, manifest.file_id, manifest.window).await? {
            match rows.get(&row_id) {
                Some((lot, _)) if !sighted.contains_key(lot) => {
                    here.entry(*lot).or_default().push(row_id);
                }
                _ => {}
            }
        }
        let seen_until = (n > 0).then_some(manifest.seen_until);
        sighted.extend(here.into_iter().map(|(lot, row_ids)| (lot, SightedLot { row_ids, seen_until })));
    }
    Ok(sighted)
}

/// Chooses the row of each lot: the greatest version if a file contains the lot twice.
async fn choose_rows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    sighted: &HashMap<i64, SightedLot>,
    rows: &RowLocations,
    standing: &HashMap<i64, StoredHead>,
) -> anyhow::Result<Vec<RebuiltHead>> {
    let known = |lot: &i64, row_id: i64| standing.get(lot).filter(|head| head.row_id == row_id);
    let unread: Vec<i64> = sighted
        .iter()
        .filter(|(lot, it)| it.row_ids.len() > 1 || it.row_ids.iter().any(|id| known(lot, *id).is_none()))
        .flat_map(|(_, it)| it.row_ids.iter().copied())
        .collect();
    let read = read_version_order(connection, target, &unread, rows).await?;
    let mut heads = Vec::with_capacity(sighted.len());
    for (lot, SightedLot { row_ids, seen_until }) in sighted {
        let greatest = row_ids.iter().filter_map(|id| read.get(id).map(|order| (*order, *id))).max();
        let (row_hash, row_id) = match (greatest, row_ids.first()) {
            (Some(((_, hash), row_id)), _) => (hash, row_id),
            (None, Some(row_id)) => match known(lot, *row_id) {
                Some(head) => (head.row_hash, *row_id),
                None => continue,
            },
            (None, None) => continue,
        };
        let version_window = rows.get(&row_id).map_or(target.window, |(_, window)| *window);
        heads.push(RebuiltHead { lot: *lot, row_id, row_hash, version_window, last_seen: *seen_until });
    }
    Ok(heads)
}

/// Returns the lots that a file contains in unreadable records.
async fn unreadable_lots(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    manifest: &RemainingManifest,
) -> anyhow::Result<HashSet<i64>> {
    let rows = sqlx::query!(
        r#"-- withdraw: records that cannot be read
        select e.row_no, e.reason, e.raw, f.headers_jsonb
        from audit.parse_errors e
        join raw.csv_files f on f.file_id = e.file_id
        where e.file_id = $1
          and e.window_start_utc = $2
          and e.kind = 'rejected'"#,
        manifest.file_id,
        manifest.window
    )
    .fetch_all(connection)
    .await
    .context("could not read the unreadable records")?;
    let Some(names) = rows.first().map(|row| row.headers_jsonb.clone()) else { return Ok(HashSet::new()) };
    let names: Vec<String> = serde_json::from_value(names).context("could not read the header of the newest file")?;
    let first_line = names.join(",");
    let header = FeedHeader::from_names(names, first_line.as_bytes(), mapping::mapping_for_source(&target.source))?;
    let lots = rows.iter().filter_map(|row| {
        let reason = if row.reason == RejectionReason::Truncated.to_string() {
            RejectionReason::Truncated
        } else {
            RejectionReason::OpenQuote
        };
        let is_whole = row.raw.len() < ReaderLimits::default().kept;
        let rejected = RejectedRecord {
            row_no: u64::from(row.row_no.unsigned_abs()),
            byte_offset: 0,
            bytes: &row.raw,
            length: row.raw.len() as u64 + u64::from(!is_whole),
            reason,
        };
        lot_of_rejected(&header, &rejected)?.parse().ok()
    });
    Ok(lots.collect())
}

/// Replaces the heads of the lots that were looked up.
///
/// A lot that no manifest contains keeps a head that the file did not move, since its manifests may have been dropped
/// with their month.
async fn write_heads(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    wanted: &[i64],
    heads: &[RebuiltHead],
    standing: &HashMap<i64, StoredHead>,
) -> anyhow::Result<()> {
    let found: HashSet<i64> = heads.iter().map(|head| head.lot).collect();
    let stays = |lot: &i64| {
        let last_seen = standing.get(lot).and_then(|head| head.last_seen);
        !found.contains(lot) && last_seen.is_some_and(|at| !target.windows.contains(&at))
    };
    let replaced: Vec<i64> = wanted.iter().copied().filter(|lot| !stays(lot)).collect();
    let mut columns = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for head in heads {
        columns.0.push(head.lot);
        columns.1.push(head.row_hash);
        columns.2.push(head.row_id);
        columns.3.push(head.version_window);
        columns.4.push(head.last_seen);
    }
    sqlx::query!(
        "-- withdraw: heads to replace\n delete from raw.heads where source = $1 and lot = any ($2)",
        target.source,
        &replaced
    )
    .execute(&mut *connection)
    .await
    .context("could not delete the heads to replace")?;
    sqlx::query!(
        "-- withdraw: heads
        insert into raw.heads (source, lot, row_hash, row_id, version_window, last_seen)
        select $1, h.*
        from unnest($2::bigint[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::timestamptz[]) as h (lot, row_hash, row_id, version_window, last_seen)
        -- an unreadable record reopens a known lot and creates no lot
        where h.row_id <> -1
          or exists (select from public.lots l where l.source = $1 and l.lot_external_id = h.lot::text)
        on conflict (source, lot) do nothing",
        target.source,
        &columns.0,
        &columns.1,
        &columns.2,
        &columns.3,
        columns.4 as Vec<Option<DateTime<Utc>>>
    )
    .execute(connection)
    .await
    .context("could not write the heads")?;
    Ok(())
}

/// Sets the newest file of the source's heads, and the newest judged window.
async fn update_source(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    newest: Option<&RemainingManifest>,
) -> anyhow::Result<()> {
    sqlx::query_file!(
        "workers/auction/withdraw/source.sql",
        target.source,
        newest.map(|newest| newest.file_id),
        newest.map(|newest| newest.seen_until)
    )
    .execute(connection)
    .await
    .context("could not update the newest file of the source")?;
    Ok(())
}

/// Sets `absent_since` of lots to the first complete file after the last one that contained them.
async fn mark_absent(connection: &mut PgConnection, target: &WithdrawnFile) -> anyhow::Result<()> {
    sqlx::query!(
        "-- withdraw: since when lots are absent
        update raw.heads h
        set absent_since = a.at
        from (
          select
            k.lot,
            (
              select min(g.window_start_utc)
              from raw.sightings g
              where g.source = $1
                and g.complete
                and g.window_start_utc > k.last_seen
                and $2::boolean
            ) as at
          from raw.heads k
          where k.source = $1
            and k.last_seen is not null
        ) a
        where h.source = $1
          and h.lot = a.lot
          and h.absent_since is distinct from a.at",
        target.source,
        target.absence_is_judged
    )
    .execute(connection)
    .await
    .context("could not mark the absent lots")?;
    Ok(())
}
