//! The simulator's expected state, which tests compare with the database.
//!
//! Only the content of files counts: a lot that came and went between two files does not exist, and an absent lot has
//! the values of the last file that showed it. Everything here comes from the lots' own state and from the construction
//! of their text. No text is parsed.

use super::feed_values::{KEYS, SALE_TYPES};
use super::lifecycle::LifecycleStatus;
use super::lot::{SimulatedLot, SimulatedSale, from_minutes};
use super::row_fields::{self, SimulatedChange};
use super::vehicles::VinForm;
use super::{FileDelivery, SimulatorOptions, csv_row};
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// The counters of one file, compared with the file read before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileCounters {
    /// The file's window.
    pub window: DateTime<Utc>,
    /// Rows with a lot: new, changed and unchanged ones.
    pub rows: u64,
    /// Lots that were not in the file before, seen earlier or not.
    pub new: u64,
    /// New lots that were never seen before.
    pub first_seen: u64,
    /// New lots that were seen before and whose row has changed since, apart from `Id` and `Create Date/Time`.
    pub returned_changed: u64,
    /// New lots that were seen before and whose row is the same.
    pub returned_same: u64,
    /// Lots of both files whose rows differ, apart from `Id` and `Create Date/Time`.
    pub changed: u64,
    /// Lots of both files whose rows are equal.
    pub unchanged: u64,
    /// Lots that were in the file before and are not in this one.
    pub gone: u64,
    /// Unparseable rows, which are not included in `rows`.
    pub parse_errors: u64,
    /// Rows with an unescaped quote inside a text, which a strict reader misreads.
    pub repaired: u64,
    /// Rows with a line end inside a text.
    pub newlines: u64,
    /// Rows without a VIN.
    pub vin_empty: u64,
    /// Rows whose VIN identifies no vehicle.
    pub vin_format: u64,
    /// Rows without a vehicle (`vin_empty` and `vin_format`) that are new or changed.
    pub skipped_touched: u64,
    /// Lots that became PENDING_RESULT.
    pub pending_result: u64,
    /// Lots that became removed.
    pub removed: u64,
    /// Lots that came back from PENDING_RESULT or removed.
    pub revived: u64,
}

/// The reason why a row yields no lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedSkip {
    /// The VIN is empty.
    VinEmpty,
    /// The VIN identifies no vehicle.
    VinFormat,
}

/// The expected values of one lot.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedLot {
    /// The lot number.
    pub lot: u32,
    /// The text of the VIN column.
    pub vin_raw: String,
    /// The VIN that the text is read as.
    pub vin: Option<String>,
    /// The reason why there is no VIN.
    pub skip: Option<ExpectedSkip>,
    /// The instant of the auction, if one is set.
    pub auction: Option<DateTime<Utc>>,
    /// `USD` or `CAD`.
    pub currency: &'static str,
    /// The current bid in whole units. None if the feed's value is 0.
    pub bid: Option<u32>,
    /// Miles. None for the sentinels.
    pub odometer: Option<u32>,
    /// The model year. None if the feed's value is 0.
    pub year: Option<u16>,
    /// `Make`.
    pub make: &'static str,
    /// `Model Group`.
    pub model: String,
    /// Presence of keys. None if keys are not required.
    pub has_keys: Option<bool>,
    /// `Damage Description` as written.
    pub damage: &'static str,
    /// The taxonomy's code of the damage.
    pub damage_code: &'static str,
    /// `Sale Status`.
    pub sale_type: &'static str,
    /// `Special Note` without its padding. It may contain inch signs and a no-break space.
    pub special_note: Option<&'static str>,
    /// `Last Updated Time`.
    pub source_updated_at: DateTime<Utc>,
    /// `Yard number`.
    pub yard: u16,
    /// `Yard name`.
    pub yard_name: &'static str,
    /// True if the lot is in the last file read.
    pub in_feed: bool,
    /// Window of the first complete file without the lot.
    pub absent_since: Option<DateTime<Utc>>,
    /// Window of the first file with the lot.
    pub first_seen: DateTime<Utc>,
    /// Window of the last file with the lot.
    pub last_seen: DateTime<Utc>,
    /// The lifecycle status. None for a skipped lot.
    pub status: Option<LifecycleStatus>,
}

/// The expected values of one vehicle, which are those of its winning lot.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedVehicle {
    /// The normalised VIN.
    pub vin: String,
    /// The raw VIN that owns the vehicle, in capitals.
    pub owner: String,
    /// Number of lots with the VIN, distorted or not.
    pub lots: u32,
    /// Number of lots whose raw VIN is not the owner's.
    pub conflicts: u32,
    /// The lot whose values the vehicle has.
    pub winner: ExpectedLot,
}

/// The expected state after the files read so far.
pub struct ExpectedState<'a> {
    options: &'a SimulatorOptions,
    lots: &'a [SimulatedLot],
    counters: &'a FileCounters,
    changes: &'a [SimulatedChange],
}

impl<'a> ExpectedState<'a> {
    pub(super) fn new(
        options: &'a SimulatorOptions,
        lots: &'a [SimulatedLot],
        counters: &'a FileCounters,
        changes: &'a [SimulatedChange],
    ) -> Self {
        ExpectedState { options, lots, counters, changes }
    }

    /// Returns the changes, by the last file, of known lots with a vehicle.
    pub fn changes(&self) -> &'a [SimulatedChange] {
        self.changes
    }

    /// Returns the counters of the last file.
    pub fn counters(&self) -> &'a FileCounters {
        self.counters
    }

    /// Returns every lot that a file has shown, including those without a vehicle.
    pub fn lots(&self) -> impl Iterator<Item = ExpectedLot> + use<'a> {
        let options = self.options;
        let seen = self.lots.iter().enumerate().filter(|(_, lot)| lot.life.last_seen != 0);
        seen.map(move |(index, lot)| expected_lot(options, index as u32, lot))
    }

    /// Returns the number of lots by status, without those that have no vehicle.
    pub fn status_counts(&self) -> HashMap<LifecycleStatus, u64> {
        let mut counts = HashMap::new();
        for lot in self.lots.iter().filter(|lot| lot.life.last_seen != 0 && lot.has_vehicle()) {
            *counts.entry(lot.life.status).or_default() += 1;
        }
        counts
    }

    /// Returns every vehicle that a file has shown, in no particular order.
    ///
    /// The owner of a VIN is the raw text that equals the VIN, otherwise the least of the texts that normalise to it.
    /// Of the owner's lots the greatest wins, by update time, then by lot number.
    pub fn vehicles(&self) -> Vec<ExpectedVehicle> {
        let mut by_vin: HashMap<u32, Vec<u32>> = HashMap::new();
        for (index, lot) in self.lots.iter().enumerate() {
            if lot.life.last_seen != 0 && lot.has_vehicle() {
                by_vin.entry(lot.vin_of).or_default().push(index as u32);
            }
        }
        by_vin.into_values().filter_map(|indexes| self.expected_vehicle(&indexes)).collect()
    }

    fn expected_vehicle(&self, indexes: &[u32]) -> Option<ExpectedVehicle> {
        let seed = self.options.seed;
        let raws: Vec<String> = indexes.iter().map(|&n| self.lots[n as usize].vin(seed).0.to_uppercase()).collect();
        let vin = self.lots[*indexes.first()? as usize].vin(seed).1?;
        let owner = if raws.contains(&vin) { vin.clone() } else { raws.iter().min()?.clone() };
        let mine: Vec<u32> = indexes.iter().zip(&raws).filter(|(_, raw)| **raw == owner).map(|(&n, _)| n).collect();
        let winner = mine.iter().copied().max_by_key(|&n| {
            let lot = &self.lots[n as usize];
            (lot.seen.updated, lot.number)
        })?;
        Some(ExpectedVehicle {
            vin,
            owner,
            lots: indexes.len() as u32,
            conflicts: (indexes.len() - mine.len()) as u32,
            winner: expected_lot(self.options, winner, &self.lots[winner as usize]),
        })
    }
}

fn expected_lot(options: &SimulatorOptions, index: u32, lot: &SimulatedLot) -> ExpectedLot {
    let (seed, seen) = (options.seed, &lot.seen);
    let (vehicle, sale, yard) = (lot.vehicle(seed), SimulatedSale::from_index(seed, index), seen.yard());
    let (vin_raw, vin) = lot.vin(seed);
    ExpectedLot {
        lot: lot.number,
        vin_raw,
        vin,
        skip: match lot.vin {
            VinForm::Empty => Some(ExpectedSkip::VinEmpty),
            VinForm::Malformed => Some(ExpectedSkip::VinFormat),
            _ => None,
        },
        auction: (seen.auction != 0).then(|| from_minutes(seen.auction)),
        currency: if yard.canada { "CAD" } else { "USD" },
        bid: (seen.bid > 0).then_some(seen.bid),
        odometer: seen.known_odometer(&sale, &vehicle),
        year: (vehicle.year > 0).then_some(vehicle.year),
        make: vehicle.model.make,
        model: options.visible_text(seen.model_group(vehicle.model)).to_owned(),
        has_keys: KEYS[usize::from(seen.keys)].1,
        damage: sale.damage.text,
        damage_code: sale.damage.code,
        sale_type: SALE_TYPES[usize::from(seen.sale_type)].0,
        special_note: csv_row::special_note(options, index, seen.note),
        source_updated_at: from_minutes(seen.updated),
        yard: yard.number,
        yard_name: yard.name,
        in_feed: lot.life.in_last_file,
        absent_since: (lot.life.absences > 0).then(|| from_minutes(lot.life.absent_since)),
        first_seen: from_minutes(lot.life.first_seen),
        last_seen: from_minutes(lot.life.last_seen),
        status: lot.has_vehicle().then_some(lot.life.status),
    }
}

/// Records a file in the expected state. A file that is only partly delivered does not decide on the other lots.
pub(super) fn record_file(
    options: &SimulatorOptions,
    lots: &mut [SimulatedLot],
    order: &[u32],
    window: i32,
    reach: FileDelivery,
    broken: u32,
    changes: &mut Vec<SimulatedChange>,
) -> FileCounters {
    changes.clear();
    let mut counters =
        FileCounters { window: from_minutes(window), parse_errors: u64::from(broken), ..FileCounters::default() };
    let shown = match reach {
        FileDelivery::Whole => order,
        FileDelivery::First(n) => &order[..order.len().min(n as usize)],
        FileDelivery::Nothing => return counters,
    };
    for &index in shown {
        let lot = &mut lots[index as usize];
        let (differs, known) = (lot.seen.version != lot.now.version, lot.life.last_seen != 0);
        counters.rows += 1;
        match (known, lot.life.in_last_file) {
            (false, _) => counters.first_seen += 1,
            (true, false) if differs => counters.returned_changed += 1,
            (true, false) => counters.returned_same += 1,
            (true, true) if differs => counters.changed += 1,
            (true, true) => counters.unchanged += 1,
        }
        counters.vin_empty += u64::from(lot.vin == VinForm::Empty);
        counters.vin_format += u64::from(lot.vin == VinForm::Malformed);
        counters.skipped_touched += u64::from(!lot.has_vehicle() && (differs || !known || !lot.life.in_last_file));
        counters.repaired += u64::from(csv_row::has_inches(options, index, lot, &lot.vehicle(options.seed)));
        counters.newlines += u64::from(csv_row::has_line_break(options, index));
        if known && differs && lot.has_vehicle() {
            row_fields::push_field_changes(options, index, lot, window, changes);
        }
        lot.seen = lot.now;
        let before = lot.life.status;
        let back = lot.life.record_presence(window, lot.now.auction);
        if known && lot.has_vehicle() {
            row_fields::push_status_change(lot, window, before, changes);
        }
        counters.revived += u64::from(back && lot.has_vehicle());
    }
    counters.new = counters.first_seen + counters.returned_changed + counters.returned_same;
    for lot in lots.iter_mut().filter(|lot| lot.life.last_seen != 0 && lot.life.last_seen != window) {
        counters.gone += u64::from(lot.life.in_last_file);
        if reach != FileDelivery::Whole {
            lot.life.in_last_file = false;
            continue;
        }
        let before = lot.life.status;
        let moved = lot.life.record_absence(window, lot.seen.auction).filter(|_| lot.has_vehicle());
        if moved.is_some() {
            row_fields::push_status_change(lot, window, before, changes);
        }
        counters.pending_result += u64::from(moved == Some(LifecycleStatus::PendingResult));
        counters.removed += u64::from(moved == Some(LifecycleStatus::Removed));
    }
    counters
}
