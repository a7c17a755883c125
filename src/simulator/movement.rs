//! The changes between two windows.
//!
//! The lots in the feed are grouped by the time of their auction (past, within two hours, within a day, further, none),
//! and lots are drawn from these groups. The options set how many disappear and how many change, and each kind of
//! change gets its share even in a small feed. A lot changes at most once a window. `Last Updated Time` changes with
//! it, except if only the model group changed, as in the real feed: hence a new version always shows. Nothing here
//! depends on which windows are requested.

use super::Simulator;
use super::dice::Dice;
use super::fleet::{Vehicle, VinKind};
use super::lifecycle::Life;
use super::lot::{Lot, Values, instant};
use super::yards::{Clock, YARDS};
use chrono::{Datelike, Weekday};

const HOUR: i32 = 60;
const DAY: i32 = 24 * HOUR;

/// The lots of the feed by the time of their auction, and the absent lots.
#[derive(Default)]
struct Groups {
    past: Vec<u32>,
    near: Vec<u32>,
    soon: Vec<u32>,
    far: Vec<u32>,
    none: Vec<u32>,
    absent: Vec<u32>,
}

/// The kinds of change to a lot.
#[derive(Clone, Copy)]
enum Change {
    Bid,
    DateSet,
    DateLater,
    DateEarlier,
    DateDropped,
    Item,
    SaleType,
    Grid,
    ModelGroup,
    Yard,
    Offer,
    Repair,
    Note,
    Title,
    Condition,
    Brand,
    Keys,
    Odometer,
    Spelling,
    Touch,
}

/// The kinds of change with their frequency per thousand changes.
const CHANGES: &[(Change, u32)] = &[
    (Change::Bid, 380),
    (Change::DateSet, 105),
    (Change::DateLater, 110),
    (Change::DateEarlier, 1),
    (Change::DateDropped, 1),
    (Change::Item, 130),
    (Change::SaleType, 55),
    (Change::Grid, 50),
    (Change::ModelGroup, 16),
    (Change::Yard, 28),
    (Change::Offer, 25),
    (Change::Repair, 14),
    (Change::Note, 8),
    (Change::Title, 7),
    (Change::Condition, 6),
    (Change::Brand, 5),
    (Change::Keys, 5),
    (Change::Odometer, 5),
    (Change::Spelling, 12),
    (Change::Touch, 37),
];

impl Simulator {
    /// Creates the lots of window 0.
    pub(super) fn fill(&mut self) {
        let window = self.options.minutes(0);
        let mut dice = Dice::of([self.options.seed, 8, 0]);
        self.lots.reserve(self.options.rows);
        for _ in 0..self.options.rows {
            let index = self.lots.len() as u32;
            let yard_dice = &mut Dice::of([self.options.seed, 9, u64::from(index)]);
            // Most rows are weeks old, some are from the last hours. No row is younger than the snapshot.
            let age = if dice.per_mille(300) { dice.between(6, 1440) } else { dice.between(1440, 60 * 1440) };
            let mut now = Values::born(yard_dice, window - age as i32, 0, dice.chance(self.options.modern));
            if dice.per_mille(467) {
                now.auction = match dice.below(1000) {
                    0..450 => hour(&mut dice, window, -HOUR, 12 * HOUR, &now),
                    450..550 => hour(&mut dice, window, 12 * HOUR, 36 * HOUR, &now),
                    _ => far(&mut dice, window, &now),
                };
                now.item = if dice.per_mille(640) { dice.between(1, 11_027) as u16 } else { 0 };
                now.bid = if dice.per_mille(700) { Values::raise(&mut dice) } else { 0 };
            }
            self.enter(now, None, &mut dice);
        }
    }

    /// Advances the lots by one window.
    pub(super) fn step(&mut self) {
        let window = self.options.minutes(self.k);
        let before = self.options.minutes(self.k - 1);
        let mut dice = Dice::of([self.options.seed, 10, u64::from(self.k)]);
        let mut groups = Groups::default();
        let mut overdue = Vec::new();
        for (index, lot) in self.lots.iter().enumerate() {
            let (index, ahead) = (index as u32, lot.now.auction - window);
            match lot.now.auction {
                _ if !lot.present => groups.absent.push(index),
                0 => groups.none.push(index),
                _ if ahead < -3 * HOUR - 20 => overdue.push(index),
                _ if ahead <= 0 => groups.past.push(index),
                _ if ahead <= 2 * HOUR => groups.near.push(index),
                _ if ahead <= DAY + 2 * HOUR => groups.soon.push(index),
                _ => groups.far.push(index),
            }
        }
        let present = self.lots.len() - groups.absent.len();
        let mut leave = dice.round(self.options.gone * present as f64);
        let mut change = dice.round(self.options.churn * present as f64);

        self.bring_back(&groups.absent, window, &mut dice);
        // No lot stays long past its auction: three of four leave the feed, one gets a later date.
        for index in overdue {
            if dice.per_mille(770) {
                self.vanish(index, &mut dice);
                leave = leave.saturating_sub(1);
            } else {
                self.alter(index, Change::DateLater, window, before, &mut dice);
                change = change.saturating_sub(1);
            }
        }
        for _ in 0..leave {
            let share = dice.below(1000);
            let Groups { past, near, soon, far, none, .. } = &mut groups;
            let mut groups = match share {
                0..550 => [past, none, near, soon, far],
                550..670 => [near, soon, none, far, past],
                670..720 => [soon, near, none, far, past],
                720..860 => [far, none, soon, near, past],
                _ => [none, far, soon, near, past],
            };
            if let Some(index) = groups.iter_mut().find_map(|group| dice.take(group)) {
                self.vanish(index, &mut dice);
            }
        }
        for _ in 0..change {
            let kind = CHANGES[dice.weighted(CHANGES, |c| c.1)].0;
            let Groups { past, near, soon, far, none, .. } = &mut groups;
            let mut groups = match kind {
                Change::DateSet => [none, past, near, soon, far],
                Change::DateLater if dice.per_mille(500) => [past, near, soon, far, none],
                Change::DateLater | Change::DateEarlier | Change::DateDropped => {
                    [soon, far, near, past, none]
                }
                Change::Bid | Change::Item => match dice.below(3) {
                    0 => [near, soon, far, past, none],
                    1 => [soon, far, near, past, none],
                    _ => [far, soon, near, past, none],
                },
                _ if dice.per_mille(500) => [none, far, soon, near, past],
                _ => [far, soon, near, none, past],
            };
            if let Some(index) = groups.iter_mut().find_map(|group| dice.take(group)) {
                self.alter(index, kind, window, before, &mut dice);
            }
        }
        let present = self.lots.iter().filter(|lot| lot.present).count();
        let drift = dice.below(4) as f64 * 0.0001;
        let wobble = dice.round(self.options.rows as f64 * drift);
        for _ in present..self.options.rows + wobble {
            self.arrive(&groups.absent, window, before, &mut dice);
        }
    }

    /// Adds back the lots whose return is due: unchanged, with a newer update time, or with a later date.
    fn bring_back(&mut self, absent: &[u32], window: i32, dice: &mut Dice) {
        let before = self.options.minutes(self.k - 1);
        for &index in absent {
            let lot = &mut self.lots[index as usize];
            if lot.returns != self.k {
                continue;
            }
            (lot.present, lot.returns) = (true, 0);
            let over = lot.now.auction != 0 && lot.now.auction <= window;
            match dice.below(10) {
                0..3 => {}
                3..6 if !over => self.alter(index, Change::Touch, window, before, dice),
                _ => self.alter(index, Change::DateLater, window, before, dice),
            }
        }
    }

    /// Removes a lot from the feed. About one in six returns after 1, 2, 5 or 12 windows.
    fn vanish(&mut self, index: u32, dice: &mut Dice) {
        let returns = if dice.per_mille(170) { self.k + dice.one(&[1, 2, 5, 12]) } else { 0 };
        let lot = &mut self.lots[index as usize];
        (lot.present, lot.returns) = (false, returns);
    }

    /// Creates a lot. One in twelve offers a vehicle that was offered before, and a few offer one that is still in the
    /// feed under another number.
    fn arrive(&mut self, absent: &[u32], window: i32, before: i32, dice: &mut Dice) {
        let again = match dice.below(1000) {
            0..80 if !absent.is_empty() => Some(dice.one(absent)),
            80..85 => Some(dice.below(self.lots.len() as u64) as u32),
            _ => None,
        };
        let updated = moved(dice, window, before);
        let modern = dice.chance(self.options.modern);
        let mut now = Values::born(dice, updated, 0, modern);
        if dice.per_mille(100) {
            now.auction = far(dice, window, &now);
        }
        self.enter(now, again, dice);
    }

    /// Inserts a lot. Its VIN defect depends on its index, so that a file of any size has the real file's share of each
    /// defect, and at least two of each.
    fn enter(&mut self, now: Values, again: Option<u32>, dice: &mut Dice) {
        let index = self.lots.len() as u32;
        let most = (self.options.rows as u32 / 2).max(60);
        let each = |period: u32, offset: u32| index % period.min(most) == offset;
        let other = |lots: &[Lot], accept: fn(&Lot) -> bool| {
            (0..index).rev().find(|&n| accept(&lots[n as usize]) && lots[n as usize].vin_of == n)
        };
        let mut lot = Lot {
            number: number(index, dice),
            vehicle: index,
            vin_of: index,
            vin: VinKind::Plain,
            present: true,
            returns: 0,
            now,
            seen: now,
            life: Life::default(),
        };
        let like = match again {
            Some(n) => Some(n),
            None if each(38_500, 41) => other(&self.lots, |lot| lot.vin == VinKind::Plain),
            None => None,
        };
        if let Some(like) = like.map(|n| &self.lots[n as usize]).filter(|like| like.kept()) {
            (lot.vehicle, lot.vin_of, lot.vin) = (like.vehicle, like.vin_of, like.vin);
            lot.now.odometer = like.now.odometer.wrapping_add(1);
            lot.seen = lot.now;
        } else if each(19_250, 3) {
            lot.vin = VinKind::Empty;
        } else if each(250, 5) {
            lot.vin = VinKind::Malformed;
        } else if each(5000, 9) {
            lot.vin = VinKind::Lower;
        } else if each(2500, 15) {
            lot.vin = VinKind::Legacy;
        } else if each(30_000, 19) {
            lot.vin = VinKind::Lost;
        } else if each(30_000, 23) {
            // Another vehicle's VIN with an extra letter. The other vehicle owns the VIN.
            lot.vin = VinKind::Inserted;
            lot.vin_of = other(&self.lots, |lot| lot.vin == VinKind::Plain).unwrap_or(index);
        } else if each(40_000, 31) {
            lot.vin = VinKind::Inserted;
        } else if each(40_000, 33) {
            // A second distortion of a VIN that no lot has intact. The lesser text owns the VIN.
            lot.vin = VinKind::Inserted;
            lot.vin_of = other(&self.lots, |lot| lot.vin == VinKind::Inserted).unwrap_or(index);
        }
        self.lots.push(lot);
    }

    /// Applies one change to a lot.
    fn alter(&mut self, index: u32, change: Change, window: i32, before: i32, dice: &mut Dice) {
        let seed = self.options.seed;
        let lot = &mut self.lots[index as usize];
        let was = lot.now;
        let now = &mut lot.now;
        now.version += 1;
        if let Change::ModelGroup = change {
            let vehicle = Vehicle::of(seed, lot.vehicle, lot.vin);
            if let Some(form) = was.next_model_form(vehicle.model) {
                now.model_form = form;
                return;
            }
        }
        now.updated = moved(dice, window, before);
        match change {
            Change::Bid => now.bid += Values::raise(dice),
            Change::DateSet | Change::DateLater => {
                let near = dice.per_mille(if now.auction > window + DAY { 0 } else { 500 });
                let later =
                    if near { hour(dice, window, HOUR, 8 * HOUR, now) } else { far(dice, window, now) };
                now.auction =
                    if later > was.auction { later } else { far(dice, was.auction.max(window), now) };
                now.item = 0;
            }
            Change::DateEarlier if was.auction > window + DAY => {
                now.auction = hour(dice, window, 2 * HOUR, 20 * HOUR, now);
            }
            Change::DateDropped => (now.auction, now.item) = (0, 0),
            Change::Item => now.item = dice.between(1, 11_027) as u16,
            Change::SaleType => now.sale_type = (was.sale_type + 1) % 3,
            Change::Grid => now.grid = was.grid.wrapping_add(1),
            Change::Yard => {
                let canada = was.yard().canada;
                now.yard = dice.weighted(YARDS, |y| if y.canada == canada { y.weight } else { 0 }) as u16;
                if now.auction != 0 {
                    let at = now.yard().clock.expressible(instant(now.auction));
                    now.auction = (at.timestamp() / 60) as i32;
                }
            }
            Change::Offer => now.offer = !was.offer,
            Change::Repair => now.repair = was.repair.wrapping_add(1),
            Change::Note => now.note = was.note.wrapping_add(1),
            Change::Title => now.title = was.title.wrapping_add(1),
            Change::Condition => now.condition = (was.condition + 1) % 4,
            Change::Brand => now.brand = (was.brand + 1) % 4,
            Change::Keys => now.keys = (was.keys + 1) % 3,
            Change::Odometer => now.odometer = was.odometer.wrapping_add(1),
            Change::Spelling => now.modern = true,
            Change::DateEarlier | Change::ModelGroup | Change::Touch => {}
        }
    }
}

/// Returns a lot number of eight digits, of which the last stands for the year. Numbers are unique below eight million
/// lots.
fn number(index: u32, dice: &mut Dice) -> u32 {
    let mixed = (u64::from(index) * 3_141_593 + 271_828) % 8_000_000;
    10_000_000 + mixed as u32 * 10 + dice.one(&[5, 5, 6, 4])
}

/// Returns a `Last Updated Time` between the last snapshot and this one. Snapshots are taken five minutes before their
/// windows.
fn moved(dice: &mut Dice, window: i32, before: i32) -> i32 {
    dice.between(i64::from(before) - 4, i64::from(window) - 5) as i32
}

/// Returns a whole hour between these two distances from the window, in minutes since 1970, that the yard's clock can
/// show.
fn hour(dice: &mut Dice, window: i32, from: i32, to: i32, now: &Values) -> i32 {
    let at = (window + dice.between(i64::from(from), i64::from(to)) as i32).div_euclid(HOUR) * HOUR;
    (now.yard().clock.expressible(instant(at)).timestamp() / 60) as i32
}

/// Returns an instant on a weekday two to thirty days ahead, from eight to one o'clock in the yard's time, in minutes
/// since 1970.
fn far(dice: &mut Dice, window: i32, now: &Values) -> i32 {
    let mut day = (window + dice.between(2, 30) as i32 * DAY).div_euclid(DAY) * DAY;
    while matches!(instant(day).weekday(), Weekday::Sat | Weekday::Sun) {
        day += DAY;
    }
    let clock = now.yard().clock;
    let local = dice.one(&[8, 9, 10, 10, 11, 12, 12, 13]);
    let hour = match clock {
        // 13:00 Atlantic time, and noon in Alaska. The clocks of these yards in the feed differ.
        Clock::Atlantic => 17,
        Clock::Anchorage => 21,
        _ => local - (clock.local(instant(day)) - instant(day).naive_utc()).num_hours() as i32,
    };
    (clock.expressible(instant(day + hour * HOUR)).timestamp() / 60) as i32
}
