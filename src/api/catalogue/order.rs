//! Sorts: for each the lots in their order, those without a value last whichever way it is read.

use super::{Catalogue, Place};
use std::collections::HashSet;

/// What lots are sorted by; equal ones by their number, and of one number by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// When they are sold.
    Sale,
    /// Their highest bid.
    Price,
    /// Their vehicle's model year.
    Year,
    /// When they last changed here.
    Updated,
    /// Their number.
    Lot,
}

/// All of them, in the order of their places.
pub const SORTS: &[Sort] = &[Sort::Sale, Sort::Price, Sort::Year, Sort::Updated, Sort::Lot];

impl Sort {
    /// As readers name them; with a minus the other way round.
    pub const NAMES: &'static [&'static str] = &[
        "sale_date",
        "-sale_date",
        "price",
        "-price",
        "year",
        "-year",
        "updated",
        "-updated",
        "lot",
        "-lot",
    ];

    /// The sort of this name, and whether it goes down.
    pub fn named(name: &str) -> Option<(Sort, bool)> {
        let descending = name.starts_with('-');
        let sort = match name.trim_start_matches('-') {
            "sale_date" => Sort::Sale,
            "price" => Sort::Price,
            "year" => Sort::Year,
            "updated" => Sort::Updated,
            "lot" => Sort::Lot,
            _ => return None,
        };
        Some((sort, descending))
    }
}

/// The visible lots in one order.
#[derive(Clone, Debug, Default)]
pub struct Order {
    valued: Vec<u32>,
    without: Vec<u32>,
}

impl Order {
    pub(super) fn len(&self) -> usize {
        self.valued.len() + self.without.len()
    }

    /// Takes the touched lots out and puts them where they belong now.
    pub(super) fn renew(&mut self, all: &Catalogue, sort: Sort, touched: &HashSet<u32>) {
        self.valued.retain(|slot| !touched.contains(slot));
        self.without.retain(|slot| !touched.contains(slot));
        for slot in touched.iter().copied().filter(|slot| all.visible(*slot)) {
            match all.key(sort, slot) {
                Some(_) => self.valued.push(slot),
                None => self.without.push(slot),
            }
        }
        // what was sorted is one run, which a stable sort sees
        let place = |slot: &u32| all.place_of(sort, *slot);
        self.valued.sort_by_key(place);
        self.without.sort_by_key(place);
    }

    /// The lots after the one with this place.
    pub(super) fn walk<'a>(
        &'a self,
        all: &'a Catalogue,
        sort: Sort,
        descending: bool,
        after: Option<Place>,
    ) -> Box<dyn Iterator<Item = u32> + 'a> {
        let place = move |slot: &u32| all.place_of(sort, *slot);
        // of a part what comes after: all of it where the last one was in the part before
        let rest = |part: &'a [u32], after: Option<Place>| match (after, descending) {
            (None, _) => part,
            (Some(last), false) => &part[part.partition_point(|slot| place(slot) <= last)..],
            (Some(last), true) => &part[..part.partition_point(|slot| place(slot) < last)],
        };
        let (valued, without) = match after {
            Some(Place { key: None, .. }) => (&[][..], rest(&self.without, after)),
            _ => (rest(&self.valued, after), &self.without[..]),
        };
        match descending {
            false => Box::new(valued.iter().chain(without).copied()),
            true => Box::new(valued.iter().rev().chain(without.iter().rev()).copied()),
        }
    }
}
