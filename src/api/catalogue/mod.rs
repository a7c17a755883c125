//! All visible lots in memory, by what is filtered, sorted and counted: search and facets are answered from here.
//!
//! **Why not by indexes.** Readers combine twenty filters as they like, and each index that served one combination would
//! be paid by every window: measured with EXPLAIN (docs in `src/bench/api.rs`), three filters over 154,000 lots take 90
//! to 160 ms without one, 10 to 60 ms with the fitting one, and a facet reads everything whatever there is. Here a
//! filter is a pass over a column of numbers: 154,000 lots are some 20 MB, and any question a few milliseconds. What is
//! shown of a lot is read from the tables by its key, so what is in memory decides which lots are shown and in what order,
//! never what is said of them.
//!
//! **How it follows the tables.** A keeper looks once a second whether anything was written (`keeper`), and reads the rows
//! that changed since the last reading: those whose transaction had not ended then. A reading is one snapshot; readers
//! go on with the one before until it is whole. So search is seconds behind the tables, and never between two states
//! of a window's step.
//!
//! `load` reads, `filter` is a question compiled, `order` the sorts, `dimension` the columns by name.

mod dimension;
mod filter;
mod load;
mod order;

pub use dimension::{COUNT, DIMENSIONS, Dimension, Kind};
pub use filter::{Filter, Range};
pub use order::Sort;

use crate::taxonomy::fold;
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// Years that a facet can count: those a vehicle may have.
pub const YEARS: std::ops::RangeInclusive<i32> = 1900..=2100;
/// A VIN, filled up with zeros.
type Vin = [u8; 17];

/// The words of one column: each once, by number. 0 is none.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    /// Each word: what was written as its code, and as it came.
    pub words: Vec<Word>,
    numbers: HashMap<Word, u32>,
}

/// A word of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word {
    /// The code in the column beside it, where it has one.
    pub code: Option<String>,
    /// As it came.
    pub raw: Option<String>,
    /// What else it is called: a yard's name beside its number.
    pub name: Option<String>,
}

impl Dictionary {
    fn number(&mut self, word: Word) -> u32 {
        if self.words.is_empty() {
            self.words.push(Word::default());
        }
        if word == Word::default() {
            return 0;
        }
        if let Some(number) = self.numbers.get(&word) {
            return *number;
        }
        let number = u32::try_from(self.words.len()).unwrap_or(0);
        self.words.push(word.clone());
        self.numbers.insert(word, number);
        number
    }

    /// Which words these folded texts are.
    fn folded(&self, wanted: &[String]) -> Vec<bool> {
        let is = |word: &Word| {
            let texts = [&word.raw, &word.name];
            texts.into_iter().flatten().any(|text| wanted.contains(&fold(text)))
        };
        self.words.iter().map(is).collect()
    }
}

/// The lots, each in a slot of every column.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Words of each dimension.
    pub dictionaries: Vec<Dictionary>,
    columns: Vec<Vec<u32>>,
    /// Make and model together, for what is like them.
    names: Dictionary,
    name: Vec<u32>,
    ids: Vec<i64>,
    lots: Vec<i64>,
    vins: Vec<Vin>,
    years: Vec<i32>,
    prices: Vec<i64>,
    sales: Vec<i64>,
    updates: Vec<i64>,
    visible: Vec<bool>,
    slots: HashMap<i64, u32>,
    orders: Vec<order::Order>,
    /// The oldest transaction that had not ended when it was read.
    horizon: Option<String>,
    /// When it was read.
    pub read_at: DateTime<Utc>,
    /// The newest window that ended well, of any source.
    pub window: Option<DateTime<Utc>>,
}

/// No value.
const NONE: i64 = i64::MIN;
/// No year.
const NO_YEAR: i32 = i32::MIN;

/// How often each option of each facet occurs.
#[derive(Debug)]
pub struct Counts {
    /// Lots that pass all filters.
    pub total: u32,
    /// By dimension and word; each without regard to its own filter, so that a reader sees what else there would be.
    pub words: Vec<Vec<u32>>,
    /// By year from the first possible one.
    pub years: Vec<u32>,
}

/// The place of a lot in an order: its sort key, and what makes it the only one there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its sort key; none where it has no value.
    pub key: Option<i64>,
    /// Its number, which lots of several sources may share.
    pub lot: i64,
    /// Its id in `lots`.
    pub id: i64,
}

/// A page of lots.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Their places, in order.
    pub lots: Vec<Place>,
    /// Whether there are more after them.
    pub more: bool,
    /// Lots that pass the filter.
    pub total: u32,
}

impl Catalogue {
    /// Lots that can be found.
    pub fn len(&self) -> usize {
        self.orders.first().map_or(0, order::Order::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes and models as one text each, by their number in [`Filter::names`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.words.iter().map(|word| word.raw.as_deref().unwrap_or(""))
    }

    fn vin(&self, slot: usize) -> &[u8] {
        &self.vins[slot]
    }

    /// The key of a lot under a sort; none where it has no value.
    fn key(&self, sort: Sort, slot: u32) -> Option<i64> {
        let slot = slot as usize;
        let key = match sort {
            Sort::Sale => self.sales[slot],
            Sort::Price => self.prices[slot],
            Sort::Year if self.years[slot] == NO_YEAR => NONE,
            Sort::Year => i64::from(self.years[slot]),
            Sort::Updated => self.updates[slot],
            Sort::Lot => self.lots[slot],
        };
        (key != NONE).then_some(key)
    }

    /// The place of a lot under a sort.
    fn place_of(&self, sort: Sort, slot: u32) -> Place {
        Place { key: self.key(sort, slot), lot: self.lots[slot as usize], id: self.ids[slot as usize] }
    }

    /// A page of the lots that pass, after the one with this place.
    pub fn page(
        &self,
        filter: &Filter,
        (sort, descending): (Sort, bool),
        after: Option<Place>,
        limit: usize,
    ) -> Page {
        let passes = filter.passes(self);
        let total = passes.iter().map(|pass| u32::from(*pass)).sum();
        let order = &self.orders[sort as usize];
        let mut found = order
            .walk(self, sort, descending, after)
            .filter(|slot| passes[*slot as usize])
            .take(limit + 1)
            .collect::<Vec<u32>>();
        let more = found.len() > limit;
        found.truncate(limit);
        Page { lots: found.into_iter().map(|slot| self.place_of(sort, slot)).collect(), more, total }
    }

    /// How often each option occurs.
    pub fn counts(&self, filter: &Filter) -> Counts {
        filter.counts(self)
    }
}
