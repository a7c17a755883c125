//! All visible lots in memory, with the columns that are filtered, sorted and counted. Search and facets use this data.
//!
//! **Why no database indexes.** Clients combine twenty filters freely, and every window would pay for each index that
//! serves one combination. With EXPLAIN (results in `src/bench/api.rs`), three filters over 154,000 lots take 90 to 160
//! ms without an index and 10 to 60 ms with the matching index. A facet reads every lot with any index. In memory, a
//! filter is one pass over a column of numbers. 154,000 lots take about 20 MB, and a query takes a few milliseconds.
//! The fields of a lot in a response are read from the tables by its key. The data in memory therefore determines which
//! lots are returned and in which order, but not their contents.
//!
//! **How the data follows the tables.** The task in `refresher` polls once a second for writes and reads the rows that
//! changed since the last read: the rows whose transaction had not ended then. Each read is one snapshot. Requests use
//! the previous catalogue until the next one is complete. A search result is therefore seconds behind the tables, but
//! never between two states of a window's step.
//!
//! `load` reads the catalogue, `filter` compiles a query, `order` contains the sort orders, and `dimension` lists the
//! columns by name.

mod dimension;
mod filter;
mod load;
mod order;

pub use dimension::{DIMENSION_COUNT, DIMENSIONS, Dimension, DimensionKind};
pub use filter::{LotFilter, ValueRange};
pub use order::SortKey;

use crate::taxonomy::fold_text;
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// Model years that a vehicle may have, and that the facet `year` counts.
pub const MODEL_YEARS: std::ops::RangeInclusive<i32> = 1900..=2100;
/// VIN as ASCII bytes, padded with zero bytes.
type VinBytes = [u8; 17];

/// Dictionary of a column's distinct values. A value's number is its index, and number 0 means no value.
#[derive(Clone, Debug, Default)]
pub struct ValueDictionary {
    /// Distinct values by number.
    pub words: Vec<ColumnValue>,
    numbers: HashMap<ColumnValue, u32>,
}

/// Distinct value of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnValue {
    /// Code that is stored in a column of its own, if there is one.
    pub code: Option<String>,
    /// Raw value. For a yard, its number.
    pub raw: Option<String>,
    /// Second name of the value. For a yard, its name.
    pub name: Option<String>,
}

impl ValueDictionary {
    fn intern(&mut self, word: ColumnValue) -> u32 {
        if self.words.is_empty() {
            self.words.push(ColumnValue::default());
        }
        if word == ColumnValue::default() {
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

    /// Returns for each value whether its raw value or its name equals one of these folded texts.
    fn match_folded(&self, wanted: &[String]) -> Vec<bool> {
        let is = |word: &ColumnValue| {
            let texts = [&word.raw, &word.name];
            texts.into_iter().flatten().any(|text| wanted.contains(&fold_text(text)))
        };
        self.words.iter().map(is).collect()
    }
}

/// Lots in memory, stored by column. A slot is a lot's index in every column.
#[derive(Clone, Debug, Default)]
pub struct LotCatalogue {
    /// Distinct values of each dimension.
    pub dictionaries: Vec<ValueDictionary>,
    columns: Vec<Vec<u32>>,
    /// Distinct pairs of make and model, as one text each, for the similarity search.
    names: ValueDictionary,
    name: Vec<u32>,
    ids: Vec<i64>,
    lots: Vec<i64>,
    vins: Vec<VinBytes>,
    years: Vec<i32>,
    prices: Vec<i64>,
    sales: Vec<i64>,
    updates: Vec<i64>,
    visible: Vec<bool>,
    slots: HashMap<i64, u32>,
    orders: Vec<order::SortedLots>,
    /// Id of the oldest transaction that had not ended at the time of the read.
    horizon: Option<String>,
    /// Time of the read.
    pub read_at: DateTime<Utc>,
    /// Start of the newest window of any source that ended well.
    pub window: Option<DateTime<Utc>>,
}

/// Marker of a missing value in a column of numbers.
const NO_VALUE: i64 = i64::MIN;
/// Marker of a missing year.
const NO_YEAR: i32 = i32::MIN;

/// Number of lots for each option of each facet.
#[derive(Debug)]
pub struct FacetCounts {
    /// Number of lots that match all filters.
    pub total: u32,
    /// Number of lots by dimension and value number. The filter of the same dimension is ignored, so that the
    /// alternatives to the selected value are counted too.
    pub words: Vec<Vec<u32>>,
    /// Number of lots by model year, beginning with the first year of [`MODEL_YEARS`].
    pub years: Vec<u32>,
}

/// Unique position of a lot in a sort order: sort key and tie-breakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortPosition {
    /// Sort key of the lot. `None` if the lot has no value.
    pub key: Option<i64>,
    /// Lot number, which lots of several sources may share.
    pub lot: i64,
    /// Id of the row in `lots`.
    pub id: i64,
}

/// Page of lots.
#[derive(Debug, PartialEq, Eq)]
pub struct LotPage {
    /// Positions of the lots, in sort order.
    pub lots: Vec<SortPosition>,
    /// True if there is a next page.
    pub more: bool,
    /// Number of lots that match the filter, on all pages.
    pub total: u32,
}

impl LotCatalogue {
    /// Returns the number of visible lots.
    pub fn len(&self) -> usize {
        self.orders.first().map_or(0, order::SortedLots::len)
    }

    /// Returns true if there is no visible lot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns each distinct make and model as one text, in the order of [`LotFilter::names`].
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.names.words.iter().map(|word| word.raw.as_deref().unwrap_or(""))
    }

    fn vin_bytes(&self, slot: usize) -> &[u8] {
        &self.vins[slot]
    }

    /// Returns the sort key of a lot, or `None` if the lot has no value.
    fn sort_key(&self, sort: SortKey, slot: u32) -> Option<i64> {
        let slot = slot as usize;
        let key = match sort {
            SortKey::Sale => self.sales[slot],
            SortKey::Price => self.prices[slot],
            SortKey::Year if self.years[slot] == NO_YEAR => NO_VALUE,
            SortKey::Year => i64::from(self.years[slot]),
            SortKey::Updated => self.updates[slot],
            SortKey::Lot => self.lots[slot],
        };
        (key != NO_VALUE).then_some(key)
    }

    /// Returns the position of a lot in a sort order.
    fn sort_position(&self, sort: SortKey, slot: u32) -> SortPosition {
        SortPosition { key: self.sort_key(sort, slot), lot: self.lots[slot as usize], id: self.ids[slot as usize] }
    }

    /// Returns the page of matching lots that begins after a position.
    pub fn find_page(
        &self,
        filter: &LotFilter,
        (sort, descending): (SortKey, bool),
        after: Option<SortPosition>,
        limit: usize,
    ) -> LotPage {
        let passes = filter.matching_slots(self);
        let total = passes.iter().map(|pass| u32::from(*pass)).sum();
        let order = &self.orders[sort as usize];
        let mut found = order
            .slots_after(self, sort, descending, after)
            .filter(|slot| passes[*slot as usize])
            .take(limit + 1)
            .collect::<Vec<u32>>();
        let more = found.len() > limit;
        found.truncate(limit);
        LotPage { lots: found.into_iter().map(|slot| self.sort_position(sort, slot)).collect(), more, total }
    }

    /// Returns the number of lots for each option of each facet.
    pub fn facet_counts(&self, filter: &LotFilter) -> FacetCounts {
        filter.count_facets(self)
    }
}
