//! The simulator's record of what is true, for tests to hold the database against.
//!
//! Only what a file has shown counts: a lot that came and went between two files never was, and a lot that is absent
//! keeps the values of the last file that showed it. Everything here comes from the lots' own state and from how
//! their text was made; no text is parsed.

use super::facts::{self, Change};
use super::fleet::VinKind;
use super::lifecycle::Status;
use super::lot::{Lot, Sale, instant};
use super::words::{KEYS, SALE_TYPES};
use super::{Options, Reach, write};
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// What one file brought, against the file read before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The file's window.
    pub window: DateTime<Utc>,
    /// Rows that hold a lot: new, changed and unchanged ones.
    pub rows: u64,
    /// Lots that the file before did not hold, whether they were ever seen or not.
    pub new: u64,
    /// Of the new ones, those never seen before.
    pub first_seen: u64,
    /// Of the new ones, those seen before whose row differs from when they were last seen in more than `Id` and
    /// `Create Date/Time`.
    pub returned_changed: u64,
    /// Of the new ones, those seen before whose row is the same.
    pub returned_same: u64,
    /// Lots of both files whose rows differ in more than `Id` and `Create Date/Time`.
    pub changed: u64,
    /// Lots of both files whose rows do not.
    pub unchanged: u64,
    /// Lots that the file before held and this one does not.
    pub gone: u64,
    /// Rows that no reader can place; they are not among `rows`.
    pub parse_errors: u64,
    /// Rows in which a quote inside a text is not escaped, which a strict reader gets wrong.
    pub repaired: u64,
    /// Rows with a line end inside a text.
    pub newlines: u64,
    /// Rows without a VIN.
    pub vin_empty: u64,
    /// Rows whose VIN names no vehicle.
    pub vin_format: u64,
    /// Of the two above, rows that are new or changed.
    pub skipped_touched: u64,
    /// Lots that became PENDING_RESULT.
    pub pending_result: u64,
    /// Lots that became removed.
    pub removed: u64,
    /// Lots that came back from PENDING_RESULT or removed.
    pub revived: u64,
}

/// Why a row makes no lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skip {
    /// The VIN is empty.
    VinEmpty,
    /// The VIN names no vehicle.
    VinFormat,
}

/// What is true of one lot.
#[derive(Clone, Debug, PartialEq)]
pub struct LotTruth {
    /// `Lot number`.
    pub lot: u32,
    /// What stands in the VIN column.
    pub vin_raw: String,
    /// The vehicle it is read as.
    pub vin: Option<String>,
    /// Why there is none.
    pub skip: Option<Skip>,
    /// The instant of its auction, where one is set.
    pub auction: Option<DateTime<Utc>>,
    /// `USD` or `CAD`.
    pub currency: &'static str,
    /// The running bid in whole units; none where the feed says 0.
    pub bid: Option<u32>,
    /// Miles; none for the sentinels.
    pub odometer: Option<u32>,
    /// The model year; none where the feed says 0.
    pub year: Option<u16>,
    /// `Make`.
    pub make: &'static str,
    /// `Model Group`.
    pub model: String,
    /// None where keys are not required.
    pub has_keys: Option<bool>,
    /// `Damage Description` as written.
    pub damage: &'static str,
    /// The taxonomy's code of it.
    pub damage_code: &'static str,
    /// `Sale Status`.
    pub sale_type: &'static str,
    /// `Special Note` without its padding; it may hold inch signs and a no-break space.
    pub special_note: Option<&'static str>,
    /// `Last Updated Time`.
    pub source_updated_at: DateTime<Utc>,
    /// `Yard number`.
    pub yard: u16,
    /// `Yard name`.
    pub yard_name: &'static str,
    /// In the last file read.
    pub in_feed: bool,
    /// The first complete file without it.
    pub absent_since: Option<DateTime<Utc>>,
    /// The first file with it.
    pub first_seen: DateTime<Utc>,
    /// The last file with it.
    pub last_seen: DateTime<Utc>,
    /// Where it stands; none for a lot that is skipped.
    pub status: Option<Status>,
}

/// What is true of one vehicle: the values of the lot that wins it.
#[derive(Clone, Debug, PartialEq)]
pub struct VehicleTruth {
    /// Its VIN, normalised.
    pub vin: String,
    /// The raw text that owns it, in capitals.
    pub owner: String,
    /// The lots that carry it, spoiled or not.
    pub lots: u32,
    /// The lots whose raw VIN is not the owner's.
    pub conflicts: u32,
    /// The lot whose values it has.
    pub winner: LotTruth,
}

/// The record after the files read so far.
pub struct Truth<'a> {
    options: &'a Options,
    lots: &'a [Lot],
    counters: &'a Counters,
    changes: &'a [Change],
}

impl<'a> Truth<'a> {
    pub(super) fn new(
        options: &'a Options,
        lots: &'a [Lot],
        counters: &'a Counters,
        changes: &'a [Change],
    ) -> Self {
        Truth { options, lots, counters, changes }
    }

    /// What the last file changed of the lots that were known and have a vehicle.
    pub fn changes(&self) -> &'a [Change] {
        self.changes
    }

    /// What the last file brought.
    pub fn counters(&self) -> &'a Counters {
        self.counters
    }

    /// Every lot that a file has shown, those without a vehicle included.
    pub fn lots(&self) -> impl Iterator<Item = LotTruth> + use<'a> {
        let options = self.options;
        let seen = self.lots.iter().enumerate().filter(|(_, lot)| lot.life.last_seen != 0);
        seen.map(move |(index, lot)| lot_truth(options, index as u32, lot))
    }

    /// How many lots stand where, those without a vehicle left out.
    pub fn statuses(&self) -> HashMap<Status, u64> {
        let mut counts = HashMap::new();
        for lot in self.lots.iter().filter(|lot| lot.life.last_seen != 0 && lot.kept()) {
            *counts.entry(lot.life.status).or_default() += 1;
        }
        counts
    }

    /// Every vehicle that a file has shown, in no order.
    ///
    /// The owner of a VIN is the raw text that equals it, else the least of those that normalise to it; of the
    /// owner's lots the greatest wins, by update, then by lot number.
    pub fn vehicles(&self) -> Vec<VehicleTruth> {
        let mut by_vin: HashMap<u32, Vec<u32>> = HashMap::new();
        for (index, lot) in self.lots.iter().enumerate() {
            if lot.life.last_seen != 0 && lot.kept() {
                by_vin.entry(lot.vin_of).or_default().push(index as u32);
            }
        }
        by_vin.into_values().filter_map(|indexes| self.vehicle(&indexes)).collect()
    }

    fn vehicle(&self, indexes: &[u32]) -> Option<VehicleTruth> {
        let seed = self.options.seed;
        let raws: Vec<String> =
            indexes.iter().map(|&n| self.lots[n as usize].vin(seed).0.to_uppercase()).collect();
        let vin = self.lots[*indexes.first()? as usize].vin(seed).1?;
        let owner = if raws.contains(&vin) { vin.clone() } else { raws.iter().min()?.clone() };
        let mine: Vec<u32> =
            indexes.iter().zip(&raws).filter(|(_, raw)| **raw == owner).map(|(&n, _)| n).collect();
        let winner = mine.iter().copied().max_by_key(|&n| {
            let lot = &self.lots[n as usize];
            (lot.seen.updated, lot.number)
        })?;
        Some(VehicleTruth {
            vin,
            owner,
            lots: indexes.len() as u32,
            conflicts: (indexes.len() - mine.len()) as u32,
            winner: lot_truth(self.options, winner, &self.lots[winner as usize]),
        })
    }
}

fn lot_truth(options: &Options, index: u32, lot: &Lot) -> LotTruth {
    let (seed, seen) = (options.seed, &lot.seen);
    let (vehicle, sale, yard) = (lot.vehicle(seed), Sale::of(seed, index), seen.yard());
    let (vin_raw, vin) = lot.vin(seed);
    LotTruth {
        lot: lot.number,
        vin_raw,
        vin,
        skip: match lot.vin {
            VinKind::Empty => Some(Skip::VinEmpty),
            VinKind::Malformed => Some(Skip::VinFormat),
            _ => None,
        },
        auction: (seen.auction != 0).then(|| instant(seen.auction)),
        currency: if yard.canada { "CAD" } else { "USD" },
        bid: (seen.bid > 0).then_some(seen.bid),
        odometer: seen.reading(&sale, &vehicle),
        year: (vehicle.year > 0).then_some(vehicle.year),
        make: vehicle.model.make,
        model: options.inches(seen.model_group(vehicle.model)).to_owned(),
        has_keys: KEYS[usize::from(seen.keys)].1,
        damage: sale.damage.text,
        damage_code: sale.damage.code,
        sale_type: SALE_TYPES[usize::from(seen.sale_type)].0,
        special_note: write::shown_note(options, index, seen.note),
        source_updated_at: instant(seen.updated),
        yard: yard.number,
        yard_name: yard.name,
        in_feed: lot.life.in_last_file,
        absent_since: (lot.life.absences > 0).then(|| instant(lot.life.absent_since)),
        first_seen: instant(lot.life.first_seen),
        last_seen: instant(lot.life.last_seen),
        status: lot.kept().then_some(lot.life.status),
    }
}

/// Enters a file into the record. A file of which only the first rows came says nothing about the others.
pub(super) fn record(
    options: &Options,
    lots: &mut [Lot],
    order: &[u32],
    window: i32,
    reach: Reach,
    broken: u32,
    changes: &mut Vec<Change>,
) -> Counters {
    changes.clear();
    let mut counters =
        Counters { window: instant(window), parse_errors: u64::from(broken), ..Counters::default() };
    let shown = match reach {
        Reach::Whole => order,
        Reach::First(n) => &order[..order.len().min(n as usize)],
        Reach::Nothing => return counters,
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
        counters.vin_empty += u64::from(lot.vin == VinKind::Empty);
        counters.vin_format += u64::from(lot.vin == VinKind::Malformed);
        counters.skipped_touched += u64::from(!lot.kept() && (differs || !known || !lot.life.in_last_file));
        counters.repaired += u64::from(write::has_inches(options, index, lot, &lot.vehicle(options.seed)));
        counters.newlines += u64::from(write::breaks(options, index));
        if known && differs && lot.kept() {
            facts::changes(options, index, lot, window, changes);
        }
        lot.seen = lot.now;
        let before = lot.life.status;
        let back = lot.life.seen(window, lot.now.auction);
        if known && lot.kept() {
            facts::moved(lot, window, before, changes);
        }
        counters.revived += u64::from(back && lot.kept());
    }
    counters.new = counters.first_seen + counters.returned_changed + counters.returned_same;
    for lot in lots.iter_mut().filter(|lot| lot.life.last_seen != 0 && lot.life.last_seen != window) {
        counters.gone += u64::from(lot.life.in_last_file);
        if reach != Reach::Whole {
            lot.life.in_last_file = false;
            continue;
        }
        let before = lot.life.status;
        let moved = lot.life.absent(window, lot.seen.auction).filter(|_| lot.kept());
        if moved.is_some() {
            facts::moved(lot, window, before, changes);
        }
        counters.pending_result += u64::from(moved == Some(Status::PendingResult));
        counters.removed += u64::from(moved == Some(Status::Removed));
    }
    counters
}
