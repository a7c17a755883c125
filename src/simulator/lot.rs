//! A lot: what moves from window to window, and what it was when a file last showed it.
//!
//! About a hundred bytes each, so that a million and a half fit where a worker fits. All text is made again from the
//! lot's and the vehicle's numbers when a row is written.

use super::dice::Dice;
use super::fleet::{Model, Vehicle, VinKind};
use super::lifecycle::Life;
use super::words::{BRANDS, CONDITIONS, DAMAGES, Damage, KEYS, SALE_TYPES};
use super::yards::{YARDS, Yard};
use chrono::{DateTime, Utc};

/// Odometers that are no reading.
const SENTINELS: [u32; 4] = [99_999, 299_999, 999_999, 9_999_999];

/// An instant from whole minutes since 1970.
pub(super) fn instant(minutes: i32) -> DateTime<Utc> {
    DateTime::from_timestamp(i64::from(minutes) * 60, 0).unwrap_or_default()
}

/// What changes from one window to the next. Equal versions mean equal rows, `Id` and `Create Date/Time` aside.
#[derive(Clone, Copy, Default)]
pub(super) struct Values {
    /// The auction's instant in minutes since 1970; 0 when none is set.
    pub(super) auction: i32,
    /// `Last Updated Time` in minutes since 1970.
    pub(super) updated: i32,
    /// `High Bid`, in whole units of the lot's currency.
    pub(super) bid: u32,
    /// One up for each change that shows.
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
    /// `Model Group`: 0 cut to ten characters, 1 whole, 2 a catch-all.
    pub(super) model_form: u8,
    /// How often the odometer was corrected, or the vehicle listed before.
    pub(super) odometer: u8,
    /// Which place in the yard.
    pub(super) grid: u8,
    /// Which estimate of the repair.
    pub(super) repair: u8,
    /// Which special note; 0 as the lot was born with.
    pub(super) note: u8,
    /// Which title.
    pub(super) title: u8,
    /// `Make-an-Offer Eligible`.
    pub(super) offer: bool,
    /// Written in the new spellings.
    pub(super) modern: bool,
}

/// One lot.
pub(super) struct Lot {
    /// `Lot number`.
    pub(super) number: u32,
    /// The vehicle on sale.
    pub(super) vehicle: u32,
    /// The vehicle whose VIN it carries: another's only where two VINs collide.
    pub(super) vin_of: u32,
    /// What became of the VIN.
    pub(super) vin: VinKind,
    /// In the feed at the simulator's window.
    pub(super) present: bool,
    /// The window it comes back in; 0 never.
    pub(super) returns: u32,
    /// Its row now.
    pub(super) now: Values,
    /// Its row as a file last showed it.
    pub(super) seen: Values,
    /// What the files seen so far make of it.
    pub(super) life: Life,
}

/// What is constant about a sale, drawn from the lot's index.
pub(super) struct Sale {
    pub(super) damage: &'static Damage,
    pub(super) secondary: Option<&'static Damage>,
    /// An odometer that is no reading: 0 or one of the sentinels.
    pub(super) blank_odometer: Option<u32>,
    /// For the columns that only the row itself shows.
    pub(super) dice: Dice,
}

impl Sale {
    /// The sale of the lot with this index.
    pub(super) fn of(seed: u64, index: u32) -> Sale {
        let mut dice = Dice::of([seed, 4, u64::from(index)]);
        let damage = &DAMAGES[dice.weighted(DAMAGES, |d| d.primary)];
        let secondary = (!dice.per_mille(570)).then(|| &DAMAGES[dice.weighted(DAMAGES, |d| d.secondary)]);
        let blank_odometer = match dice.below(1000) {
            0..110 => Some(0),
            110..113 => Some(dice.one(&SENTINELS)),
            _ => None,
        };
        Sale { damage, secondary, blank_odometer, dice }
    }
}

impl Values {
    /// A lot that enters the feed; `auction` is decided by the caller.
    pub(super) fn born(dice: &mut Dice, updated: i32, auction: i32, modern: bool) -> Values {
        let dated = auction != 0;
        Values {
            auction,
            updated,
            bid: if dice.per_mille(if dated { 700 } else { 100 }) { Values::raise(dice) } else { 0 },
            version: 1,
            yard: dice.weighted(YARDS, |y| y.weight) as u16,
            item: if dated && dice.per_mille(640) { dice.between(1, 11_027) as u16 } else { 0 },
            sale_type: dice.weighted(SALE_TYPES, |s| s.1) as u8,
            keys: dice.weighted(KEYS, |k| k.2) as u8,
            brand: dice.weighted(BRANDS, |b| b.1) as u8,
            condition: dice.weighted(CONDITIONS, |c| c.2) as u8,
            model_form: u8::from(modern),
            offer: dice.per_mille(90),
            modern,
            ..Values::default()
        }
    }

    /// One bid.
    pub(super) fn raise(dice: &mut Dice) -> u32 {
        25 * dice.between(1, 40) as u32
    }

    /// The yard it stands in.
    pub(super) fn yard(&self) -> &'static Yard {
        &YARDS[usize::from(self.yard)]
    }

    /// `Model Group`.
    pub(super) fn model_group(&self, model: &Model) -> &'static str {
        match self.model_form {
            0 => cut(model.group, 10),
            1 => model.group,
            _ => "ALL OTHER",
        }
    }

    /// The next form of the model group that reads differently, if there is one.
    pub(super) fn next_model_form(&self, model: &Model) -> Option<u8> {
        let mut next = Values { model_form: self.model_form + 1, ..*self };
        while next.model_form <= 2 {
            if next.model_group(model) != self.model_group(model) {
                return Some(next.model_form);
            }
            next.model_form += 1;
        }
        None
    }

    /// The `Odometer` column.
    pub(super) fn odometer(&self, sale: &Sale, vehicle: &Vehicle) -> u32 {
        sale.blank_odometer.unwrap_or(vehicle.odometer + u32::from(self.odometer) * 137)
    }

    /// What the `Odometer` column means: nothing for the sentinels, also where a vehicle has come to one by its miles.
    pub(super) fn reading(&self, sale: &Sale, vehicle: &Vehicle) -> Option<u32> {
        Some(self.odometer(sale, vehicle)).filter(|odometer| !SENTINELS.contains(odometer))
    }
}

impl Lot {
    /// Its vehicle.
    pub(super) fn vehicle(&self, seed: u64) -> Vehicle {
        Vehicle::of(seed, self.vehicle, self.vin)
    }

    /// What stands in the VIN column, and what it is to be read as.
    pub(super) fn vin(&self, seed: u64) -> (String, Option<String>) {
        let owner = Vehicle::of(seed, self.vin_of, self.vin);
        super::fleet::vin(seed, self.vin_of, owner.model, self.vin, self.number)
    }

    /// It names a vehicle, and so becomes a lot in the database.
    pub(super) fn kept(&self) -> bool {
        !matches!(self.vin, VinKind::Empty | VinKind::Malformed)
    }
}

/// The first `n` characters.
pub(super) fn cut(text: &str, n: usize) -> &str {
    text.char_indices().nth(n).map_or(text, |(at, _)| &text[..at])
}
