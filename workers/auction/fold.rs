//! Folds lots and vehicles with irregular versions from all of their stored versions.
//!
//! The set-based upserts compare a staged row with the row in the table. That is not enough if a version has values
//! that could not be read, or an update time that cannot be right. An older version may then contain a value that the
//! greatest version lacks. A window that arrives late may also be the first that contained a version, which changes the
//! version's position ([`crate::auction::version`]). The upserts skip such lots and vehicles and return their staged
//! rows. The fold reads all stored versions of each, sorts them and folds them ([`crate::auction::fold`]). The result
//! replaces the row in the table and is logged as any other change.
//!
//! The order is that of the upserts: (`version_at`, newest window with the version, row hash). For a vehicle the owner
//! of the VIN comes first, and the source and the lot come before the window. Few rows are irregular, so one look-up
//! per version is cheap enough.
//!
//! Reading the versions ([`stored`]), folding them ([`compute`]) and writing the result ([`mod@write`]) are separate
//! modules, since the comparison of the table rows uses only the first two.

use super::LockedWindow;
use crate::db::taxonomy;
use crate::queue::JobTransaction;
use anyhow::Context;
use compute::{compute_lots, compute_vehicles};
use std::collections::BTreeMap;
use stored::{lots_of_vehicles, read_versions};
use uuid::Uuid;
use write::{WriteMode, write_lots, write_vehicles};

mod columns;
pub mod compute;
pub mod repair;
pub mod stored;
pub mod write;

/// Lots or vehicles whose versions are loaded in one batch.
pub const LOT_BATCH_SIZE: usize = 500;

/// The key of a lot: source and lot number.
pub type LotKey = (String, i64);

/// Folds the lots of the given staged rows. Returns the number of changed lots.
pub async fn fold_lots(
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
    staged: &[i64],
) -> anyhow::Result<i64> {
    let lots = sqlx::query_scalar!(
        r#"-- fold: the lots of staged rows
        select distinct lot_external_id::bigint as "lot!"
        from staging.copart_raw
        where id = any($1)
          and window_start_utc = $2
          and lot_external_id is not null"#,
        staged,
        window.start
    )
    .fetch_all(&mut **step)
    .await
    .context("could not read the lots to fold")?;
    let aliases = taxonomy::load_aliases(step).await?;
    let mut changed = 0;
    for lots in lots.chunks(LOT_BATCH_SIZE) {
        let keys: Vec<LotKey> = lots.iter().map(|lot| (window.source.clone(), *lot)).collect();
        let versions = read_versions(step, &keys).await?;
        let lots = compute_lots(&versions, &aliases);
        changed += write_lots(step, (Some(file_id), window.start), lots, WriteMode::Replace).await?;
    }
    Ok(changed)
}

/// Folds the vehicles of the given staged rows. Returns the number of changed vehicles.
pub async fn fold_vehicles(
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
    staged: &[i64],
) -> anyhow::Result<i64> {
    let rows = sqlx::query_file!("workers/auction/fold/staged_vehicles.sql", file_id, window.start, staged)
        .fetch_all(&mut **step)
        .await
        .context("could not read the vehicles to fold")?;
    let mut staged: BTreeMap<String, Vec<StagedVehicle>> = BTreeMap::new();
    for row in rows {
        let vehicle = StagedVehicle { vin: row.vin, lot: row.lot };
        staged.entry(vehicle.vin.clone()).or_default().push(vehicle);
    }
    let staged: Vec<Vec<StagedVehicle>> = staged.into_values().collect();
    let aliases = taxonomy::load_aliases(step).await?;
    let mut changed = 0;
    for vehicles in staged.chunks(LOT_BATCH_SIZE) {
        let vins: Vec<String> = vehicles.iter().flatten().map(|vehicle| vehicle.vin.clone()).collect();
        let mut lots = lots_of_vehicles(step, &vins).await?;
        add_staged_lots(&mut lots, vehicles, &window.source);
        let keys: Vec<LotKey> = lots.values().flatten().cloned().collect();
        let versions = read_versions(step, &keys).await?;
        let folded = compute_vehicles(&versions, &lots, &aliases);
        changed += write_vehicles(step, (Some(file_id), window.start), folded, WriteMode::Replace).await?;
    }
    Ok(changed)
}

/// The VIN and the lot of a staged row.
struct StagedVehicle {
    vin: String,
    lot: Option<i64>,
}

/// Adds the lots of the staged rows, some of which are not in `lots` yet.
fn add_staged_lots(lots: &mut BTreeMap<String, Vec<LotKey>>, vehicles: &[Vec<StagedVehicle>], source: &str) {
    for vehicle in vehicles.iter().flatten() {
        let of_vehicle = lots.entry(vehicle.vin.clone()).or_default();
        of_vehicle.extend(vehicle.lot.map(|lot| (source.to_owned(), lot)));
    }
    for of_vehicle in lots.values_mut() {
        of_vehicle.sort_unstable();
        of_vehicle.dedup();
    }
}
