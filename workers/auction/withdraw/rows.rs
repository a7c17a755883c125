//! Recomputes the lots and vehicles of a withdrawn file from the remaining versions.

use super::file::RemovedRows;
use super::{WithdrawnFile, sightings};
use crate::auction::withdrawal::WithdrawalObserver;
use crate::db::taxonomy;
use crate::taxonomy::AliasIndex;
use crate::workers::auction::fold::compute::{compute_lots, compute_vehicles};
use crate::workers::auction::fold::stored::{VersionsByLot, lots_of_vehicles, read_versions};
use crate::workers::auction::fold::write::{WriteMode, write_lots, write_vehicles};
use crate::workers::auction::fold::{LOT_BATCH_SIZE, LotKey};
use anyhow::Context;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Counts and keys of the recomputed rows.
#[derive(Default)]
pub struct RecomputedRows {
    /// The recomputed lots, including deleted ones.
    pub lots: Vec<i64>,
    /// The number of lots deleted because no version is left.
    pub lots_deleted: u64,
    /// The number of recomputed vehicles.
    pub vehicles: u64,
    /// The number of deleted vehicles.
    pub vehicles_deleted: u64,
    /// VINs without a remaining version.
    unmade: Vec<String>,
    /// VINs that are already recomputed.
    done: HashSet<String>,
}

/// Recomputes the lots that the file changed, and their vehicles.
pub async fn recompute_rows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    removed: &RemovedRows,
    observer: &WithdrawalObserver,
) -> anyhow::Result<RecomputedRows> {
    let staged: Vec<i64> = removed.staged.keys().copied().collect();
    let affected = sqlx::query_file!(
        "workers/auction/withdraw/affected.sql",
        target.source,
        &target.windows,
        &removed.lots,
        &staged,
        target.window,
        target.arrived_at
    )
    .fetch_all(&mut *connection)
    .await
    .context("could not read the lots to fold")?;
    let lots: BTreeSet<i64> = affected.iter().filter_map(|row| row.lot).collect();
    let vins: Vec<String> = affected.into_iter().filter_map(|row| row.vin).collect();
    let lots: Vec<i64> = lots.into_iter().collect();
    sightings::record_sightings(connection, target, &lots).await?;
    let aliases = taxonomy::load_aliases(&mut *connection).await?;
    let mut folded = RecomputedRows { lots: lots.clone(), ..RecomputedRows::default() };
    for (n, lots) in lots.chunks(LOT_BATCH_SIZE).enumerate() {
        observer("computing lots", (n * LOT_BATCH_SIZE) as u64, folded.lots.len() as u64);
        recompute_lots(connection, target, lots, &aliases, &mut folded).await?;
    }
    for vins in vins.chunks(LOT_BATCH_SIZE) {
        recompute_vehicles(connection, target, vins, BTreeMap::new(), VersionsByLot::new(), &aliases, &mut folded)
            .await?;
    }
    folded.vehicles_deleted = delete_vehicles(connection, &folded.unmade).await?;
    Ok(folded)
}

async fn recompute_lots(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    lots: &[i64],
    aliases: &AliasIndex,
    folded: &mut RecomputedRows,
) -> anyhow::Result<()> {
    let keys: Vec<LotKey> = lots.iter().map(|lot| (target.source.clone(), *lot)).collect();
    let versions = read_versions(connection, &keys).await?;
    let made = compute_lots(&versions, aliases);
    let mut vehicles: BTreeMap<String, Vec<LotKey>> = BTreeMap::new();
    for lot in &made {
        for vin in &lot.vins {
            vehicles.entry(vin.clone()).or_default().push(lot.key.clone());
        }
    }
    let mut vins = vins_of_lots(connection, target, lots).await?;
    vins.extend(vehicles.keys().cloned());
    let vins: Vec<String> = vins.into_iter().collect();
    recompute_vehicles(connection, target, &vins, vehicles, versions, aliases, folded).await?;
    let left: HashSet<i64> = made.iter().map(|lot| lot.key.1).collect();
    write_lots(connection, (None, target.window), made, WriteMode::Replace).await?;
    let gone: Vec<i64> = lots.iter().copied().filter(|lot| !left.contains(lot)).collect();
    folded.lots_deleted += delete_lots(connection, target, &gone).await?;
    Ok(())
}

/// Recomputes the vehicles with these VINs. `more` adds lots that had the VIN in a version, and `versions` contains the
/// versions already read.
async fn recompute_vehicles(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    vins: &[String],
    mut more: BTreeMap<String, Vec<LotKey>>,
    mut versions: VersionsByLot,
    aliases: &AliasIndex,
    folded: &mut RecomputedRows,
) -> anyhow::Result<()> {
    let vins: Vec<String> = vins.iter().filter(|vin| folded.done.insert((*vin).clone())).cloned().collect();
    let mut vehicles = lots_of_vehicles(connection, &vins).await?;
    for vin in &vins {
        let lots = vehicles.entry(vin.clone()).or_default();
        lots.append(&mut more.remove(vin).unwrap_or_default());
        lots.sort_unstable();
        lots.dedup();
    }
    let keys: BTreeSet<&LotKey> = vehicles.values().flatten().filter(|lot| !versions.contains_key(*lot)).collect();
    let keys: Vec<LotKey> = keys.into_iter().cloned().collect();
    versions.extend(read_versions(connection, &keys).await?);
    let made = compute_vehicles(&versions, &vehicles, aliases);
    let left: HashSet<&str> = made.iter().map(|vehicle| vehicle.vin.as_str()).collect();
    folded.unmade.extend(vins.iter().filter(|vin| !left.contains(vin.as_str())).cloned());
    folded.vehicles += made.len() as u64;
    write_vehicles(connection, (None, target.window), made, WriteMode::Replace).await?;
    Ok(())
}

/// Returns the VINs of these lots, present and former ones.
async fn vins_of_lots(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    lots: &[i64],
) -> anyhow::Result<BTreeSet<String>> {
    let vins = sqlx::query_scalar!(
        r#"-- withdraw: vehicles of lots
        select l.vin as "vin!"
        from unnest($2::bigint[]) as u (lot)
        join public.lots l on l.source = $1 and l.lot_external_id = u.lot::text
        union
        select f.vin
        from raw.former_vins f
        where f.source = $1
          and f.lot = any ($2)"#,
        target.source,
        lots
    )
    .fetch_all(connection)
    .await
    .context("could not read the vehicles of lots")?;
    Ok(vins.into_iter().collect())
}

/// Deletes lots without a remaining version, and their image links.
async fn delete_lots(connection: &mut PgConnection, target: &WithdrawnFile, lots: &[i64]) -> anyhow::Result<u64> {
    if lots.is_empty() {
        return Ok(0);
    }
    let deleted = sqlx::query_file_scalar!("workers/auction/withdraw/delete_lots.sql", target.source, lots)
        .fetch_one(&mut *connection)
        .await
        .context("could not delete the lots of the file")?;
    sqlx::query!(
        "-- withdraw: lots\n delete from public.lots where id = any ($1)",
        deleted.as_deref().unwrap_or_default()
    )
    .execute(connection)
    .await
    .context("could not delete the lots of the file")?;
    Ok(deleted.map_or(0, |ids| ids.len() as u64))
}

/// Deletes vehicles without a remaining version that no other row refers to.
async fn delete_vehicles(connection: &mut PgConnection, vins: &[String]) -> anyhow::Result<u64> {
    if vins.is_empty() {
        return Ok(0);
    }
    sqlx::query!(
        "-- withdraw: closed picture links of vehicles
        delete from public.images where vin = any ($1) and valid_until is not null",
        vins
    )
    .execute(&mut *connection)
    .await
    .context("could not delete the image links of vehicles")?;
    let deleted = sqlx::query!(
        "-- withdraw: vehicles
        delete from public.vehicles v
        where v.vin = any ($1)
          and v.row_hash is not null
          and not exists (select from public.lots l where l.vin = v.vin)
          and not exists (select from public.images i where i.vin = v.vin)
          and not exists (select from public.sale_events e where e.vin = v.vin)",
        vins
    )
    .execute(connection)
    .await
    .context("could not delete the vehicles of the file")?;
    Ok(deleted.rows_affected())
}
