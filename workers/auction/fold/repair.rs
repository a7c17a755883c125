//! Repairs the lots and vehicles of a file from their stored versions.
//!
//! A replay repairs, which the upserts cannot do: they skip a row whose version is already in the table, even if its
//! values have changed since. The repair folds each lot of the file and each vehicle of those lots from all stored
//! versions. It rewrites a row that differs and inserts a missing one.

use super::compute::{compute_lots, compute_vehicles};
use super::stored::{lots_of_manifest, lots_of_vehicles, read_versions};
use super::write::{WriteMode, write_lots, write_vehicles};
use super::{LOT_BATCH_SIZE, LotKey};
use crate::db::taxonomy;
use crate::queue::{JobRun, JobTransaction};
use crate::workers::auction::LockedWindow;
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// Repairs the lots of a file. Returns the number of lots changed or inserted.
pub async fn repair_lots(
    run: &JobRun,
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
) -> anyhow::Result<i64> {
    let lots = lots_of_file(step, file_id, window).await?;
    let aliases = taxonomy::load_aliases(step).await?;
    let mut repaired = 0;
    for (n, keys) in lots.chunks(LOT_BATCH_SIZE).enumerate() {
        run.report_progress((n * LOT_BATCH_SIZE) as u64, lots.len() as u64);
        let versions = read_versions(step, keys).await?;
        let folded = compute_lots(&versions, &aliases);
        repaired += write_lots(step, (Some(file_id), window.start), folded, WriteMode::Repair).await?;
    }
    Ok(repaired)
}

/// Repairs the vehicles of all versions of a file's lots. Returns the number of vehicles changed or inserted.
pub async fn repair_vehicles(
    run: &JobRun,
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
) -> anyhow::Result<i64> {
    let lots = lots_of_file(step, file_id, window).await?;
    let aliases = taxonomy::load_aliases(step).await?;
    let mut seen = HashSet::new();
    let mut repaired = 0;
    for (n, keys) in lots.chunks(LOT_BATCH_SIZE).enumerate() {
        run.report_progress((n * LOT_BATCH_SIZE) as u64, lots.len() as u64);
        let versions = read_versions(step, keys).await?;
        let mut of_these: BTreeMap<String, Vec<LotKey>> = BTreeMap::new();
        for lot in compute_lots(&versions, &aliases) {
            for vin in lot.vins.into_iter().filter(|vin| !seen.contains(vin)) {
                of_these.entry(vin).or_default().push(lot.key.clone());
            }
        }
        seen.extend(of_these.keys().cloned());
        let vins: Vec<String> = of_these.keys().cloned().collect();
        let mut vehicles = lots_of_vehicles(step, &vins).await?;
        for (vin, mut keys) in of_these {
            vehicles.entry(vin).or_default().append(&mut keys);
        }
        for keys in vehicles.values_mut() {
            keys.sort_unstable();
            keys.dedup();
        }
        let keys: Vec<LotKey> = vehicles.values().flatten().cloned().collect();
        let versions = read_versions(step, &keys).await?;
        let folded = compute_vehicles(&versions, &vehicles, &aliases);
        repaired += write_vehicles(step, (Some(file_id), window.start), folded, WriteMode::Repair).await?;
    }
    Ok(repaired)
}

/// Returns the keys of a file's lots.
async fn lots_of_file(step: &mut JobTransaction, file_id: Uuid, window: &LockedWindow) -> anyhow::Result<Vec<LotKey>> {
    let lots = lots_of_manifest(step, file_id, window.start).await?;
    Ok(lots.into_iter().map(|lot| (window.source.clone(), lot)).collect())
}
