//! A lot: the values that change from window to window, and those of the last file that showed it.
//!
//! A lot has about a hundred bytes, so that a million and a half lots fit into the memory of a worker. All text is
//! generated again from the lot's and the vehicle's numbers when a row is written.

use super::feed_values::{BRANDS, CONDITIONS, DAMAGES, DamageValue, KEYS, SALE_TYPES};
use super::lifecycle::LotLifecycle;
use super::rng::SplitMix64;
use super::vehicles::{SimulatedVehicle, VehicleModel, VinForm};
use super::yards::{AuctionYard, YARDS};
use chrono::{DateTime, Utc};

/// Odometer values that mean "unknown".
const ODOMETER_SENTINELS: [u32; 4] = [99_999, 299_999, 999_999, 9_999_999];

/// Returns the instant of whole minutes since 1970.
pub(super) fn from_minutes(minutes: i32) -> DateTime<Utc> {
    DateTime::from_timestamp(i64::from(minutes) * 60, 0).unwrap_or_default()
}

/// The values that change from one window to the next. Equal versions mean equal rows, `Id` and `Create Date/Time`
/// aside.
#[derive(Clone, Copy, Default)]
pub(super) struct LotValues {
    /// The auction's instant in minutes since 1970, or 0 if none is set.
    pub(super) auction: i32,
    /// `Last Updated Time` in minutes since 1970.
    pub(super) updated: i32,
    /// `High Bid`, in whole units of the lot's currency.
    pub(super) bid: u32,
    /// Version number, incremented by each visible change.
    pub(super) version: u32,
    /// Index into [`YARDS`].
    pub(super) yard: u16,
    /// `Item#`.
    pub(super) item: u16,
    /// Index into [`SALE_TYPES`].
    pub(super) sale_type: u8,
    /// Index into [`KEYS`].
    pub(super) keys: u8,
    /// Index into [`BRANDS`].
    pub(super) brand: u8,
    /// Index into [`CONDITIONS`].
    pub(super) condition: u8,
    /// The form of `Model Group`: 0 cut to ten characters, 1 whole, 2 a catch-all.
    pub(super) model_form: u8,
    /// Number of odometer corrections and of earlier listings of the vehicle.
    pub(super) odometer: u8,
    /// Number of moves within the yard.
    pub(super) grid: u8,
    /// Number of the repair estimate.
    pub(super) repair: u8,
    /// Number of special note changes. 0 is the initial note.
    pub(super) note: u8,
    /// Number of title changes.
    pub(super) title: u8,
    /// `Make-an-Offer Eligible`.
    pub(super) offer: bool,
    /// True if the row is written with the new raw values.
    pub(super) modern: bool,
}

/// A lot of the simulated feed.
pub(super) struct SimulatedLot {
    /// `Lot number`.
    pub(super) number: u32,
    /// The number of the vehicle on sale.
    pub(super) vehicle: u32,
    /// The number of the vehicle whose VIN the lot has. It differs from `vehicle` only if two VINs collide.
    pub(super) vin_of: u32,
    /// The form of the VIN.
    pub(super) vin: VinForm,
    /// True if the lot is in the feed at the current window.
    pub(super) present: bool,
    /// The window in which the lot returns, or 0 for never.
    pub(super) returns: u32,
    /// The current values.
    pub(super) now: LotValues,
    /// The values in the last file that showed the lot.
    pub(super) seen: LotValues,
    /// The lifecycle according to the files read so far.
    pub(super) life: LotLifecycle,
}

/// The constant properties of a sale, drawn from the lot's index.
pub(super) struct SimulatedSale {
    pub(super) damage: &'static DamageValue,
    pub(super) secondary: Option<&'static DamageValue>,
    /// An odometer without a reading: 0 or one of the sentinels.
    pub(super) blank_odometer: Option<u32>,
    /// Random numbers for the columns that are not recorded elsewhere.
    pub(super) dice: SplitMix64,
}

impl SimulatedSale {
    /// Returns the sale of the lot with this index.
    pub(super) fn from_index(seed: u64, index: u32) -> SimulatedSale {
        let mut dice = SplitMix64::with_seed([seed, 4, u64::from(index)]);
        let damage = &DAMAGES[dice.pick_weighted(DAMAGES, |d| d.primary)];
        let secondary = (!dice.per_mille(570)).then(|| &DAMAGES[dice.pick_weighted(DAMAGES, |d| d.secondary)]);
        let blank_odometer = match dice.below(1000) {
            0..110 => Some(0),
            110..113 => Some(dice.pick(&ODOMETER_SENTINELS)),
            _ => None,
        };
        SimulatedSale { damage, secondary, blank_odometer, dice }
    }
}

impl LotValues {
    /// Returns the values of a new lot. The caller decides on `auction`.
    pub(super) fn new_lot(dice: &mut SplitMix64, updated: i32, auction: i32, modern: bool) -> LotValues {
        let dated = auction != 0;
        LotValues {
            auction,
            updated,
            bid: if dice.per_mille(if dated { 700 } else { 100 }) { LotValues::bid_increment(dice) } else { 0 },
            version: 1,
            yard: dice.pick_weighted(YARDS, |y| y.weight) as u16,
            item: if dated && dice.per_mille(640) { dice.between(1, 11_027) as u16 } else { 0 },
            sale_type: dice.pick_weighted(SALE_TYPES, |s| s.1) as u8,
            keys: dice.pick_weighted(KEYS, |k| k.2) as u8,
            brand: dice.pick_weighted(BRANDS, |b| b.1) as u8,
            condition: dice.pick_weighted(CONDITIONS, |c| c.2) as u8,
            model_form: u8::from(modern),
            offer: dice.per_mille(90),
            modern,
            ..LotValues::default()
        }
    }

    /// Returns the amount of one bid increment.
    pub(super) fn bid_increment(dice: &mut SplitMix64) -> u32 {
        25 * dice.between(1, 40) as u32
    }

    /// Returns the yard of the lot.
    pub(super) fn yard(&self) -> &'static AuctionYard {
        &YARDS[usize::from(self.yard)]
    }

    /// Returns the value of `Model Group`.
    pub(super) fn model_group(&self, model: &VehicleModel) -> &'static str {
        match self.model_form {
            0 => truncate_chars(model.group, 10),
            1 => model.group,
            _ => "ALL OTHER",
        }
    }

    /// Returns the next form of the model group with another text, or None if there is none.
    pub(super) fn next_model_form(&self, model: &VehicleModel) -> Option<u8> {
        let mut next = LotValues { model_form: self.model_form + 1, ..*self };
        while next.model_form <= 2 {
            if next.model_group(model) != self.model_group(model) {
                return Some(next.model_form);
            }
            next.model_form += 1;
        }
        None
    }

    /// Returns the value of the `Odometer` column.
    pub(super) fn odometer(&self, sale: &SimulatedSale, vehicle: &SimulatedVehicle) -> u32 {
        sale.blank_odometer.unwrap_or(vehicle.odometer + u32::from(self.odometer) * 137)
    }

    /// Returns the odometer, or None for a sentinel, also if a vehicle has reached one by its miles.
    pub(super) fn known_odometer(&self, sale: &SimulatedSale, vehicle: &SimulatedVehicle) -> Option<u32> {
        Some(self.odometer(sale, vehicle)).filter(|odometer| !ODOMETER_SENTINELS.contains(odometer))
    }
}

impl SimulatedLot {
    /// Returns the lot's vehicle.
    pub(super) fn vehicle(&self, seed: u64) -> SimulatedVehicle {
        SimulatedVehicle::from_id(seed, self.vehicle, self.vin)
    }

    /// Returns the text of the VIN column, and the VIN that it is to be read as.
    pub(super) fn vin(&self, seed: u64) -> (String, Option<String>) {
        let owner = SimulatedVehicle::from_id(seed, self.vin_of, self.vin);
        super::vehicles::make_vin(seed, self.vin_of, owner.model, self.vin, self.number)
    }

    /// Returns true if the VIN identifies a vehicle, so that the database has the lot.
    pub(super) fn has_vehicle(&self) -> bool {
        !matches!(self.vin, VinForm::Empty | VinForm::Malformed)
    }
}

/// Returns the first `n` characters.
pub(super) fn truncate_chars(text: &str, n: usize) -> &str {
    text.char_indices().nth(n).map_or(text, |(at, _)| &text[..at])
}
