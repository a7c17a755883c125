//! The changes between two windows.
//!
//! The lots in the feed are grouped by the time of their auction (past, within two hours, within a day, further, none),
//! and lots are drawn from these groups. The options set how many disappear and how many change, and each kind of
//! change gets its share even in a small feed. A lot changes at most once a window. `Last Updated Time` changes with
//! it, except if only the model group changed, as in the real feed: hence a new version always shows. Nothing here
//! depends on which windows are requested.

use super::Simulator;
use super::lifecycle::LotLifecycle;
use super::lot::{LotValues, SimulatedLot, from_minutes};
use super::rng::SplitMix64;
use super::vehicles::{SimulatedVehicle, VinForm};
use super::yards::{YARDS, YardClock};
use chrono::{Datelike, Weekday};

const HOUR_MINUTES: i32 = 60;
const DAY_MINUTES: i32 = 24 * HOUR_MINUTES;

/// The lots of the feed by the time of their auction, and the absent lots.
#[derive(Default)]
struct AuctionGroups {
    past: Vec<u32>,
    near: Vec<u32>,
    soon: Vec<u32>,
    far: Vec<u32>,
    none: Vec<u32>,
    absent: Vec<u32>,
}

/// The kinds of change to a lot.
#[derive(Clone, Copy)]
enum LotChangeKind {
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
    Notation,
    Touch,
}

/// The kinds of change with their frequency per thousand changes.
const CHANGE_WEIGHTS: &[(LotChangeKind, u32)] = &[
    (LotChangeKind::Bid, 380),
    (LotChangeKind::DateSet, 105),
    (LotChangeKind::DateLater, 110),
    (LotChangeKind::DateEarlier, 1),
    (LotChangeKind::DateDropped, 1),
    (LotChangeKind::Item, 130),
    (LotChangeKind::SaleType, 55),
    (LotChangeKind::Grid, 50),
    (LotChangeKind::ModelGroup, 16),
    (LotChangeKind::Yard, 28),
    (LotChangeKind::Offer, 25),
    (LotChangeKind::Repair, 14),
    (LotChangeKind::Note, 8),
    (LotChangeKind::Title, 7),
    (LotChangeKind::Condition, 6),
    (LotChangeKind::Brand, 5),
    (LotChangeKind::Keys, 5),
    (LotChangeKind::Odometer, 5),
    (LotChangeKind::Notation, 12),
    (LotChangeKind::Touch, 37),
];

impl Simulator {
    /// Creates the lots of window 0.
    pub(super) fn create_lots(&mut self) {
        let window = self.options.window_minutes(0);
        let mut dice = SplitMix64::with_seed([self.options.seed, 8, 0]);
        self.lots.reserve(self.options.rows);
        for _ in 0..self.options.rows {
            let index = self.lots.len() as u32;
            let yard_dice = &mut SplitMix64::with_seed([self.options.seed, 9, u64::from(index)]);
            // Most rows are weeks old, some are from the last hours. No row is younger than the snapshot.
            let age = if dice.per_mille(300) { dice.between(6, 1440) } else { dice.between(1440, 60 * 1440) };
            let mut now =
                LotValues::new_lot(yard_dice, window - age as i32, 0, dice.with_probability(self.options.modern));
            if dice.per_mille(467) {
                now.auction = match dice.below(1000) {
                    0..450 => near_auction(&mut dice, window, -HOUR_MINUTES, 12 * HOUR_MINUTES, &now),
                    450..550 => near_auction(&mut dice, window, 12 * HOUR_MINUTES, 36 * HOUR_MINUTES, &now),
                    _ => distant_auction(&mut dice, window, &now),
                };
                now.item = if dice.per_mille(640) { dice.between(1, 11_027) as u16 } else { 0 };
                now.bid = if dice.per_mille(700) { LotValues::bid_increment(&mut dice) } else { 0 };
            }
            self.insert_lot(now, None, &mut dice);
        }
    }

    /// Advances the lots by one window.
    pub(super) fn advance_window(&mut self) {
        let window = self.options.window_minutes(self.k);
        let before = self.options.window_minutes(self.k - 1);
        let mut dice = SplitMix64::with_seed([self.options.seed, 10, u64::from(self.k)]);
        let mut groups = AuctionGroups::default();
        let mut overdue = Vec::new();
        for (index, lot) in self.lots.iter().enumerate() {
            let (index, ahead) = (index as u32, lot.now.auction - window);
            match lot.now.auction {
                _ if !lot.present => groups.absent.push(index),
                0 => groups.none.push(index),
                _ if ahead < -3 * HOUR_MINUTES - 20 => overdue.push(index),
                _ if ahead <= 0 => groups.past.push(index),
                _ if ahead <= 2 * HOUR_MINUTES => groups.near.push(index),
                _ if ahead <= DAY_MINUTES + 2 * HOUR_MINUTES => groups.soon.push(index),
                _ => groups.far.push(index),
            }
        }
        let present = self.lots.len() - groups.absent.len();
        let mut leave = dice.round_randomly(self.options.gone * present as f64);
        let mut change = dice.round_randomly(self.options.churn * present as f64);

        self.return_lots(&groups.absent, window, &mut dice);
        // No lot stays long past its auction: three of four leave the feed, one gets a later date.
        for index in overdue {
            if dice.per_mille(770) {
                self.remove_lot(index, &mut dice);
                leave = leave.saturating_sub(1);
            } else {
                self.change_lot(index, LotChangeKind::DateLater, window, before, &mut dice);
                change = change.saturating_sub(1);
            }
        }
        for _ in 0..leave {
            let share = dice.below(1000);
            let AuctionGroups { past, near, soon, far, none, .. } = &mut groups;
            let mut groups = match share {
                0..550 => [past, none, near, soon, far],
                550..670 => [near, soon, none, far, past],
                670..720 => [soon, near, none, far, past],
                720..860 => [far, none, soon, near, past],
                _ => [none, far, soon, near, past],
            };
            if let Some(index) = groups.iter_mut().find_map(|group| dice.remove_random(group)) {
                self.remove_lot(index, &mut dice);
            }
        }
        for _ in 0..change {
            let kind = CHANGE_WEIGHTS[dice.pick_weighted(CHANGE_WEIGHTS, |c| c.1)].0;
            let AuctionGroups { past, near, soon, far, none, .. } = &mut groups;
            let mut groups = match kind {
                LotChangeKind::DateSet => [none, past, near, soon, far],
                LotChangeKind::DateLater if dice.per_mille(500) => [past, near, soon, far, none],
                LotChangeKind::DateLater | LotChangeKind::DateEarlier | LotChangeKind::DateDropped => {
                    [soon, far, near, past, none]
                }
                LotChangeKind::Bid | LotChangeKind::Item => match dice.below(3) {
                    0 => [near, soon, far, past, none],
                    1 => [soon, far, near, past, none],
                    _ => [far, soon, near, past, none],
                },
                _ if dice.per_mille(500) => [none, far, soon, near, past],
                _ => [far, soon, near, none, past],
            };
            if let Some(index) = groups.iter_mut().find_map(|group| dice.remove_random(group)) {
                self.change_lot(index, kind, window, before, &mut dice);
            }
        }
        let present = self.lots.iter().filter(|lot| lot.present).count();
        let drift = dice.below(4) as f64 * 0.0001;
        let wobble = dice.round_randomly(self.options.rows as f64 * drift);
        for _ in present..self.options.rows + wobble {
            self.create_lot(&groups.absent, window, before, &mut dice);
        }
    }

    /// Adds back the lots whose return is due: unchanged, with a newer update time, or with a later date.
    fn return_lots(&mut self, absent: &[u32], window: i32, dice: &mut SplitMix64) {
        let before = self.options.window_minutes(self.k - 1);
        for &index in absent {
            let lot = &mut self.lots[index as usize];
            if lot.returns != self.k {
                continue;
            }
            (lot.present, lot.returns) = (true, 0);
            let over = lot.now.auction != 0 && lot.now.auction <= window;
            match dice.below(10) {
                0..3 => {}
                3..6 if !over => self.change_lot(index, LotChangeKind::Touch, window, before, dice),
                _ => self.change_lot(index, LotChangeKind::DateLater, window, before, dice),
            }
        }
    }

    /// Removes a lot from the feed. About one in six returns after 1, 2, 5 or 12 windows.
    fn remove_lot(&mut self, index: u32, dice: &mut SplitMix64) {
        let returns = if dice.per_mille(170) { self.k + dice.pick(&[1, 2, 5, 12]) } else { 0 };
        let lot = &mut self.lots[index as usize];
        (lot.present, lot.returns) = (false, returns);
    }

    /// Creates a lot. One in twelve offers a vehicle that was offered before, and a few offer one that is still in the
    /// feed under another number.
    fn create_lot(&mut self, absent: &[u32], window: i32, before: i32, dice: &mut SplitMix64) {
        let again = match dice.below(1000) {
            0..80 if !absent.is_empty() => Some(dice.pick(absent)),
            80..85 => Some(dice.below(self.lots.len() as u64) as u32),
            _ => None,
        };
        let updated = update_minutes(dice, window, before);
        let modern = dice.with_probability(self.options.modern);
        let mut now = LotValues::new_lot(dice, updated, 0, modern);
        if dice.per_mille(100) {
            now.auction = distant_auction(dice, window, &now);
        }
        self.insert_lot(now, again, dice);
    }

    /// Inserts a lot. Its VIN defect depends on its index, so that a file of any size has the real file's share of each
    /// defect, and at least two of each.
    fn insert_lot(&mut self, now: LotValues, again: Option<u32>, dice: &mut SplitMix64) {
        let index = self.lots.len() as u32;
        let most = (self.options.rows as u32 / 2).max(60);
        let each = |period: u32, offset: u32| index % period.min(most) == offset;
        let other = |lots: &[SimulatedLot], accept: fn(&SimulatedLot) -> bool| {
            (0..index).rev().find(|&n| accept(&lots[n as usize]) && lots[n as usize].vin_of == n)
        };
        let mut lot = SimulatedLot {
            number: lot_number(index, dice),
            vehicle: index,
            vin_of: index,
            vin: VinForm::Plain,
            present: true,
            returns: 0,
            now,
            seen: now,
            life: LotLifecycle::default(),
        };
        let like = match again {
            Some(n) => Some(n),
            None if each(38_500, 41) => other(&self.lots, |lot| lot.vin == VinForm::Plain),
            None => None,
        };
        if let Some(like) = like.map(|n| &self.lots[n as usize]).filter(|like| like.has_vehicle()) {
            (lot.vehicle, lot.vin_of, lot.vin) = (like.vehicle, like.vin_of, like.vin);
            lot.now.odometer = like.now.odometer.wrapping_add(1);
            lot.seen = lot.now;
        } else if each(19_250, 3) {
            lot.vin = VinForm::Empty;
        } else if each(250, 5) {
            lot.vin = VinForm::Malformed;
        } else if each(5000, 9) {
            lot.vin = VinForm::Lower;
        } else if each(2500, 15) {
            lot.vin = VinForm::Legacy;
        } else if each(30_000, 19) {
            lot.vin = VinForm::Lost;
        } else if each(30_000, 23) {
            // Another vehicle's VIN with an extra letter. The other vehicle owns the VIN.
            lot.vin = VinForm::Inserted;
            lot.vin_of = other(&self.lots, |lot| lot.vin == VinForm::Plain).unwrap_or(index);
        } else if each(40_000, 31) {
            lot.vin = VinForm::Inserted;
        } else if each(40_000, 33) {
            // A second distortion of a VIN that no lot has intact. The lesser text owns the VIN.
            lot.vin = VinForm::Inserted;
            lot.vin_of = other(&self.lots, |lot| lot.vin == VinForm::Inserted).unwrap_or(index);
        }
        self.lots.push(lot);
    }

    /// Applies one change to a lot.
    fn change_lot(&mut self, index: u32, change: LotChangeKind, window: i32, before: i32, dice: &mut SplitMix64) {
        let seed = self.options.seed;
        let lot = &mut self.lots[index as usize];
        let was = lot.now;
        let now = &mut lot.now;
        now.version += 1;
        if let LotChangeKind::ModelGroup = change {
            let vehicle = SimulatedVehicle::from_id(seed, lot.vehicle, lot.vin);
            if let Some(form) = was.next_model_form(vehicle.model) {
                now.model_form = form;
                return;
            }
        }
        now.updated = update_minutes(dice, window, before);
        match change {
            LotChangeKind::Bid => now.bid += LotValues::bid_increment(dice),
            LotChangeKind::DateSet | LotChangeKind::DateLater => {
                let near = dice.per_mille(if now.auction > window + DAY_MINUTES { 0 } else { 500 });
                let later = if near {
                    near_auction(dice, window, HOUR_MINUTES, 8 * HOUR_MINUTES, now)
                } else {
                    distant_auction(dice, window, now)
                };
                now.auction =
                    if later > was.auction { later } else { distant_auction(dice, was.auction.max(window), now) };
                now.item = 0;
            }
            LotChangeKind::DateEarlier if was.auction > window + DAY_MINUTES => {
                now.auction = near_auction(dice, window, 2 * HOUR_MINUTES, 20 * HOUR_MINUTES, now);
            }
            LotChangeKind::DateDropped => (now.auction, now.item) = (0, 0),
            LotChangeKind::Item => now.item = dice.between(1, 11_027) as u16,
            LotChangeKind::SaleType => now.sale_type = (was.sale_type + 1) % 3,
            LotChangeKind::Grid => now.grid = was.grid.wrapping_add(1),
            LotChangeKind::Yard => {
                let canada = was.yard().canada;
                now.yard = dice.pick_weighted(YARDS, |y| if y.canada == canada { y.weight } else { 0 }) as u16;
                if now.auction != 0 {
                    let at = now.yard().clock.next_expressible(from_minutes(now.auction));
                    now.auction = (at.timestamp() / 60) as i32;
                }
            }
            LotChangeKind::Offer => now.offer = !was.offer,
            LotChangeKind::Repair => now.repair = was.repair.wrapping_add(1),
            LotChangeKind::Note => now.note = was.note.wrapping_add(1),
            LotChangeKind::Title => now.title = was.title.wrapping_add(1),
            LotChangeKind::Condition => now.condition = (was.condition + 1) % 4,
            LotChangeKind::Brand => now.brand = (was.brand + 1) % 4,
            LotChangeKind::Keys => now.keys = (was.keys + 1) % 3,
            LotChangeKind::Odometer => now.odometer = was.odometer.wrapping_add(1),
            LotChangeKind::Notation => now.modern = true,
            LotChangeKind::DateEarlier | LotChangeKind::ModelGroup | LotChangeKind::Touch => {}
        }
    }
}

/// Returns a lot number of eight digits, of which the last stands for the year. Numbers are unique below eight million
/// lots.
fn lot_number(index: u32, dice: &mut SplitMix64) -> u32 {
    let mixed = (u64::from(index) * 3_141_593 + 271_828) % 8_000_000;
    10_000_000 + mixed as u32 * 10 + dice.pick(&[5, 5, 6, 4])
}

/// Returns a `Last Updated Time` between the last snapshot and this one. Snapshots are taken five minutes before their
/// windows.
fn update_minutes(dice: &mut SplitMix64, window: i32, before: i32) -> i32 {
    dice.between(i64::from(before) - 4, i64::from(window) - 5) as i32
}

/// Returns a whole hour between these two distances from the window, in minutes since 1970, that the yard's clock can
/// show.
fn near_auction(dice: &mut SplitMix64, window: i32, from: i32, to: i32, now: &LotValues) -> i32 {
    let at = (window + dice.between(i64::from(from), i64::from(to)) as i32).div_euclid(HOUR_MINUTES) * HOUR_MINUTES;
    (now.yard().clock.next_expressible(from_minutes(at)).timestamp() / 60) as i32
}

/// Returns an instant on a weekday two to thirty days ahead, from eight to one o'clock in the yard's time, in minutes
/// since 1970.
fn distant_auction(dice: &mut SplitMix64, window: i32, now: &LotValues) -> i32 {
    let mut day = (window + dice.between(2, 30) as i32 * DAY_MINUTES).div_euclid(DAY_MINUTES) * DAY_MINUTES;
    while matches!(from_minutes(day).weekday(), Weekday::Sat | Weekday::Sun) {
        day += DAY_MINUTES;
    }
    let clock = now.yard().clock;
    let local = dice.pick(&[8, 9, 10, 10, 11, 12, 12, 13]);
    let hour = match clock {
        // 13:00 Atlantic time, and noon in Alaska. The clocks of these yards in the feed differ.
        YardClock::Atlantic => 17,
        YardClock::Anchorage => 21,
        _ => local - (clock.local_time(from_minutes(day)) - from_minutes(day).naive_utc()).num_hours() as i32,
    };
    (clock.next_expressible(from_minutes(day + hour * HOUR_MINUTES)).timestamp() / 60) as i32
}
