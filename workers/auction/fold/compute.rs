//! Computes lots and vehicles from their stored versions, without input or output.

use super::stored::{StoredVersion, VersionsByLot};
use super::{LotKey, columns};
use crate::auction::blank::trim_blanks;
use crate::auction::fold::{LOT_GROUPS, VEHICLE_GROUPS, fold_versions};
use crate::auction::row::ParsedRow;
use crate::taxonomy::AliasIndex;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A lot computed from stored versions.
pub struct FoldedLot {
    /// The source and the number of the lot.
    pub key: LotKey,
    /// The VINs of all versions of the lot.
    pub vins: BTreeSet<String>,
    /// The newest window that stored the greatest version.
    pub stored_window: DateTime<Utc>,
    /// The columns of `lots`, by name.
    pub row: Value,
    /// The link to the thumbnail.
    pub thumbnail: Option<String>,
    /// The link to the listing of all images.
    pub listing: Option<String>,
}

/// A vehicle computed from the stored versions of its lots.
pub struct FoldedVehicle {
    /// The VIN.
    pub vin: String,
    /// The source and the number of the lot whose version is the greatest.
    pub lot: LotKey,
    /// The newest window that stored that version.
    pub stored_window: DateTime<Utc>,
    /// The columns of `vehicles`, by name.
    pub row: Value,
}

/// Folds each lot from all versions. A lot whose versions are all skipped is left out.
pub fn compute_lots(versions: &VersionsByLot, aliases: &AliasIndex) -> Vec<FoldedLot> {
    versions.values().filter_map(|versions| compute_lot(versions, aliases)).collect()
}

fn compute_lot(versions: &[StoredVersion], aliases: &AliasIndex) -> Option<FoldedLot> {
    let records: Vec<_> = versions.iter().map(|version| version.row.as_record()).collect();
    let mut typed: Vec<(&StoredVersion, ParsedRow<'_>)> = versions
        .iter()
        .zip(&records)
        .map(|(version, record)| (version, ParsedRow::from_record(record, aliases, &mut Default::default())))
        .filter(|(_, typed)| typed.skip_reason.is_none())
        .collect();
    typed.sort_by_key(|(v, t)| Reverse((v.version_at(t).0, v.last_window, v.hash)));
    let (greatest, _) = typed.first()?;
    let in_order: Vec<&ParsedRow<'_>> = typed.iter().map(|(_, typed)| typed).collect();
    let folded = fold_versions(&in_order, LOT_GROUPS)?;
    Some(FoldedLot {
        key: (greatest.source.clone(), greatest.lot),
        vins: typed.iter().filter_map(|(_, typed)| typed.vin.as_deref().map(str::to_owned)).collect(),
        stored_window: greatest.stored_window,
        row: columns::lot_row(greatest, &folded, needs_fold(&typed)),
        thumbnail: folded.typed.image_thumbnail.map(|url| url.to_string()),
        listing: folded.typed.image_url.map(|url| url.to_string()),
    })
}

/// Folds each vehicle from the versions of the lots.
///
/// `versions` must contain all versions of these lots, and may contain others. A vehicle without a version is left out.
pub fn compute_vehicles(
    versions: &VersionsByLot,
    vehicles: &BTreeMap<String, Vec<LotKey>>,
    aliases: &AliasIndex,
) -> Vec<FoldedVehicle> {
    vehicles
        .iter()
        .filter_map(|(vin, lots)| {
            let versions = lots.iter().filter_map(|lot| versions.get(lot)).flatten();
            compute_vehicle(vin, &versions.collect::<Vec<_>>(), aliases)
        })
        .collect()
}

fn compute_vehicle(vin: &str, versions: &[&StoredVersion], aliases: &AliasIndex) -> Option<FoldedVehicle> {
    let records: Vec<_> = versions.iter().map(|version| version.row.as_record()).collect();
    let mut typed: Vec<(&StoredVersion, ParsedRow<'_>)> = versions
        .iter()
        .zip(&records)
        .map(|(version, record)| (*version, ParsedRow::from_record(record, aliases, &mut Default::default())))
        .filter(|(_, typed)| typed.skip_reason.is_none() && typed.vin.as_deref() == Some(vin))
        .collect();
    // The raw VIN that equals the normalised one owns the vehicle, or else the least raw VIN. Others never change its
    // fields.
    let owner = |typed: &ParsedRow<'_>| {
        let raw = trim_blanks(typed.vin_raw.unwrap_or_default()).to_ascii_uppercase();
        (raw != vin, raw)
    };
    let first = typed.iter().map(|(_, typed)| owner(typed)).min()?;
    typed.retain(|(_, typed)| owner(typed) == first);
    typed.sort_by_key(|(v, t)| Reverse((v.version_at(t).0, v.source.clone(), v.lot, v.last_window, v.hash)));
    let (greatest, _) = typed.first()?;
    let in_order: Vec<&ParsedRow<'_>> = typed.iter().map(|(_, typed)| typed).collect();
    let folded = fold_versions(&in_order, VEHICLE_GROUPS)?;
    Some(FoldedVehicle {
        vin: vin.to_owned(),
        lot: (greatest.source.clone(), greatest.lot),
        stored_window: greatest.stored_window,
        row: columns::vehicle_row(vin, greatest, &folded, needs_fold(&typed)),
    })
}

impl StoredVersion {
    /// Returns the order key of the version, and true if the key is its update time.
    pub(super) fn version_at(&self, typed: &ParsedRow<'_>) -> (DateTime<Utc>, bool) {
        crate::auction::version::version_time(typed.source_updated_at, self.first_window)
    }
}

/// Returns true if the next change must fold these versions again. The greatest version comes first.
///
/// That is the case if the greatest version has unreadable values, or if the update time of any version cannot be
/// right. Such a version may come back in a window where its update time is no longer ahead, and only its first window
/// distinguishes it.
fn needs_fold(versions: &[(&StoredVersion, ParsedRow<'_>)]) -> bool {
    versions.first().is_some_and(|(_, greatest)| !greatest.unreadable.is_empty())
        || versions.iter().any(|(version, typed)| !version.version_at(typed).1)
}
