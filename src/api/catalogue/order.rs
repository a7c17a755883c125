//! Sort orders of the lots. Lots without a value come last in ascending and in descending order.

use super::{LotCatalogue, SortPosition};
use std::collections::HashSet;

/// Sort key of lots. Lots with equal keys are sorted by lot number, and lots with equal numbers by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Time of the sale.
    Sale,
    /// Current high bid.
    Price,
    /// Model year of the vehicle.
    Year,
    /// Time of the last change in this database.
    Updated,
    /// Lot number.
    Lot,
}

/// All sort keys, in the order of their discriminants.
pub const SORT_KEYS: &[SortKey] = &[SortKey::Sale, SortKey::Price, SortKey::Year, SortKey::Updated, SortKey::Lot];

impl SortKey {
    /// Values of the parameter `sort`. A minus means descending.
    pub const PARAM_VALUES: &'static [&'static str] =
        &["sale_date", "-sale_date", "price", "-price", "year", "-year", "updated", "-updated", "lot", "-lot"];

    /// Parses a value of the parameter `sort`. Returns the sort key, and true if the order is descending.
    pub fn parse(name: &str) -> Option<(SortKey, bool)> {
        let descending = name.starts_with('-');
        let sort = match name.trim_start_matches('-') {
            "sale_date" => SortKey::Sale,
            "price" => SortKey::Price,
            "year" => SortKey::Year,
            "updated" => SortKey::Updated,
            "lot" => SortKey::Lot,
            _ => return None,
        };
        Some((sort, descending))
    }
}

/// Slots of the visible lots in one sort order: lots with a value, and lots without a value.
#[derive(Clone, Debug, Default)]
pub struct SortedLots {
    valued: Vec<u32>,
    without: Vec<u32>,
}

impl SortedLots {
    pub(super) fn len(&self) -> usize {
        self.valued.len() + self.without.len()
    }

    /// Moves the touched lots to their new positions.
    pub(super) fn update_slots(&mut self, all: &LotCatalogue, sort: SortKey, touched: &HashSet<u32>) {
        self.valued.retain(|slot| !touched.contains(slot));
        self.without.retain(|slot| !touched.contains(slot));
        for slot in touched.iter().copied().filter(|slot| all.is_visible(*slot)) {
            match all.sort_key(sort, slot) {
                Some(_) => self.valued.push(slot),
                None => self.without.push(slot),
            }
        }
        // The untouched lots are one sorted run, which the stable sort detects.
        let place = |slot: &u32| all.sort_position(sort, *slot);
        self.valued.sort_by_key(place);
        self.without.sort_by_key(place);
    }

    /// Returns the slots of the lots after a position, in sort order.
    pub(super) fn slots_after<'a>(
        &'a self,
        all: &'a LotCatalogue,
        sort: SortKey,
        descending: bool,
        after: Option<SortPosition>,
    ) -> Box<dyn Iterator<Item = u32> + 'a> {
        let place = move |slot: &u32| all.sort_position(sort, *slot);
        // The rest of a part after the position. The whole part if the position is in the previous part.
        let rest = |part: &'a [u32], after: Option<SortPosition>| match (after, descending) {
            (None, _) => part,
            (Some(last), false) => &part[part.partition_point(|slot| place(slot) <= last)..],
            (Some(last), true) => &part[..part.partition_point(|slot| place(slot) < last)],
        };
        let (valued, without) = match after {
            Some(SortPosition { key: None, .. }) => (&[][..], rest(&self.without, after)),
            _ => (rest(&self.valued, after), &self.without[..]),
        };
        match descending {
            false => Box::new(valued.iter().chain(without).copied()),
            true => Box::new(valued.iter().rev().chain(without.iter().rev()).copied()),
        }
    }
}
