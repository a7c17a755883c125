//! Compares folded rows with the table rows, column by column.

use super::super::fold::compute::{FoldedLot, FoldedVehicle};
use crate::auction::difference::{DifferenceKind, RowDifference};
use anyhow::Context;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet};

/// Columns of the fold that are not kept exact and therefore not compared.
const EXCLUDED_COLUMNS: &[&str] = &["seen_window"];

/// Returns the names of the columns to compare, which are those of a folded row.
fn compared_columns(row: Option<&Value>) -> Vec<String> {
    let names = row.and_then(Value::as_object).into_iter().flat_map(|columns| columns.keys());
    names.filter(|name| !EXCLUDED_COLUMNS.contains(&name.as_str())).cloned().collect()
}

/// Returns the kind of a difference: a missing row or a different value.
fn difference_kind(missing: bool) -> DifferenceKind {
    if missing { DifferenceKind::Missing } else { DifferenceKind::Value }
}

/// Compares folded lots with `lots` and returns the differences.
pub async fn compare_lots(connection: &mut PgConnection, lots: &[FoldedLot]) -> anyhow::Result<Vec<RowDifference>> {
    let columns = compared_columns(lots.first().map(|lot| &lot.row));
    let rows = Value::Array(lots.iter().map(|lot| lot.row.clone()).collect());
    let found = sqlx::query_file!("workers/auction/compare/lots.sql", rows, &columns)
        .fetch_all(connection)
        .await
        .context("could not compare the lots")?;
    let windows: BTreeMap<(&str, i64), _> =
        lots.iter().map(|lot| ((lot.key.0.as_str(), lot.key.1), lot.stored_window)).collect();
    let differences = found.into_iter().map(|row| {
        let lot = row.lot.parse().ok();
        RowDifference {
            kind: difference_kind(row.missing),
            table: "lots",
            window: lot.and_then(|lot| windows.get(&(row.source.as_str(), lot)).copied()),
            source: Some(row.source),
            lot,
            vin: None,
            column: row.column,
            stands: row.stands.unwrap_or_default(),
            versions: row.versions.unwrap_or_default(),
        }
    });
    Ok(differences.collect())
}

/// Compares the open image links of existing lots and returns the differences.
pub async fn compare_links(connection: &mut PgConnection, lots: &[FoldedLot]) -> anyhow::Result<Vec<RowDifference>> {
    let sources: Vec<String> = lots.iter().map(|lot| lot.key.0.clone()).collect();
    let numbers: Vec<i64> = lots.iter().map(|lot| lot.key.1).collect();
    let thumbnails: Vec<Option<String>> = lots.iter().map(|lot| lot.thumbnail.clone()).collect();
    let listings: Vec<Option<String>> = lots.iter().map(|lot| lot.listing.clone()).collect();
    let found = sqlx::query_file!(
        "workers/auction/compare/links.sql",
        &sources,
        &numbers,
        thumbnails as Vec<Option<String>>,
        listings as Vec<Option<String>>
    )
    .fetch_all(connection)
    .await
    .context("could not compare the image links")?;
    let windows: BTreeMap<(&str, i64), _> =
        lots.iter().map(|lot| ((lot.key.0.as_str(), lot.key.1), lot.stored_window)).collect();
    let differences = found.into_iter().map(|row| RowDifference {
        kind: match (&row.stands, &row.versions) {
            (None, _) => DifferenceKind::Missing,
            (_, None) => DifferenceKind::Unfounded,
            _ => DifferenceKind::Value,
        },
        table: "images",
        window: windows.get(&(row.source.as_str(), row.lot)).copied(),
        source: Some(row.source),
        lot: Some(row.lot),
        vin: None,
        column: Some(row.variant),
        stands: row.stands.map(Value::String).unwrap_or_default(),
        versions: row.versions.map(Value::String).unwrap_or_default(),
    });
    Ok(differences.collect())
}

/// Compares folded vehicles with `vehicles` and returns the differences.
pub async fn compare_vehicles(
    connection: &mut PgConnection,
    vehicles: &[FoldedVehicle],
) -> anyhow::Result<Vec<RowDifference>> {
    let columns = compared_columns(vehicles.first().map(|vehicle| &vehicle.row));
    let rows = Value::Array(vehicles.iter().map(|vehicle| vehicle.row.clone()).collect());
    let found = sqlx::query_file!("workers/auction/compare/vehicles.sql", rows, &columns)
        .fetch_all(connection)
        .await
        .context("could not compare the vehicles")?;
    let folded: BTreeMap<&str, &FoldedVehicle> =
        vehicles.iter().map(|vehicle| (vehicle.vin.as_str(), vehicle)).collect();
    let differences = found.into_iter().map(|row| {
        let vehicle = folded.get(row.vin.as_str());
        RowDifference {
            kind: difference_kind(row.missing),
            table: "vehicles",
            source: vehicle.map(|vehicle| vehicle.lot.0.clone()),
            lot: vehicle.map(|vehicle| vehicle.lot.1),
            window: vehicle.map(|vehicle| vehicle.stored_window),
            vin: Some(row.vin),
            column: row.column,
            stands: row.stands.unwrap_or_default(),
            versions: row.versions.unwrap_or_default(),
        }
    });
    Ok(differences.collect())
}

/// Returns the vehicles with these VINs that the feed created and that no stored version produces.
pub async fn find_unfounded_vehicles(
    connection: &mut PgConnection,
    vins: &[String],
    folded: &[FoldedVehicle],
) -> anyhow::Result<Vec<RowDifference>> {
    let made: HashSet<&str> = folded.iter().map(|vehicle| vehicle.vin.as_str()).collect();
    let unmade: Vec<String> = vins.iter().filter(|vin| !made.contains(vin.as_str())).cloned().collect();
    if unmade.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_file!("workers/auction/compare/vehicles_standing.sql", &unmade)
        .fetch_all(connection)
        .await
        .context("could not read the existing vehicles")?;
    let differences = rows.into_iter().map(|row| RowDifference {
        kind: DifferenceKind::Unfounded,
        table: "vehicles",
        source: row.source,
        lot: row.source_lot,
        vin: Some(row.vin),
        column: None,
        stands: Value::Null,
        versions: Value::Null,
        window: None,
    });
    Ok(differences.collect())
}
