//! Filters of a query, compiled for a catalogue. Each filter is a range, or a table that contains for each distinct
//! value whether the value matches.

use super::{
    ColumnValue, DIMENSIONS, DimensionKind, FacetCounts, LotCatalogue, MODEL_YEARS, NO_VALUE, NO_YEAR, ValueDictionary,
};
use crate::api::labels::TaxonomyLabels;
use crate::api::params::ParsedQuery;
use crate::taxonomy::fold_text;

/// Range of numbers. Both bounds are included and optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueRange {
    /// Minimum, if there is one.
    pub from: Option<i64>,
    /// Maximum, if there is one.
    pub to: Option<i64>,
}

impl ValueRange {
    fn is_bounded(self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Returns true if the range contains a value. A missing value is in no range.
    fn contains(self, value: i64) -> bool {
        value != NO_VALUE && self.from.is_none_or(|from| value >= from) && self.to.is_none_or(|to| value <= to)
    }
}

/// Conditions that a lot must meet.
#[derive(Clone, Debug, Default)]
pub struct LotFilter {
    /// Index of a filtered dimension, and for each of its values whether the value matches.
    words: Vec<(usize, Vec<bool>)>,
    /// Similarity of each make and model to the text of the query: true if similar. `None` if the query has no text.
    pub names: Option<Vec<bool>>,
    /// Range of model years.
    pub year: ValueRange,
    /// Range of the high bid, in cents.
    pub price: ValueRange,
    /// Range of the time of the sale, in microseconds since 1970.
    pub sale: ValueRange,
    /// VIN prefix in upper case. Empty if the query has none.
    pub vin: Vec<u8>,
}

/// Returns the code of a value: the stored code, otherwise the code of its alias.
pub(super) fn value_code<'a>(words: &'a TaxonomyLabels, kind: DimensionKind, word: &'a ColumnValue) -> Option<&'a str> {
    let DimensionKind::Coded(domain) = kind else { return None };
    word.code.as_deref().or_else(|| words.aliases.find_code(domain, word.raw.as_deref()?))
}

impl LotCatalogue {
    /// Returns the code of a dimension's value: the stored code, otherwise the code of its alias.
    pub fn code_of<'a>(&self, words: &'a TaxonomyLabels, dimension: usize, word: &'a ColumnValue) -> Option<&'a str> {
        value_code(words, DIMENSIONS[dimension].kind, word)
    }
}

impl LotFilter {
    /// Compiles the filters of all dimensions of a query. The caller sets the text, the VIN and the ranges.
    pub fn from_query(asked: &ParsedQuery, all: &LotCatalogue, words: &TaxonomyLabels) -> LotFilter {
        let mut filter = LotFilter::default();
        let none = ValueDictionary::default();
        for (place, dimension) in DIMENSIONS.iter().enumerate() {
            let wanted: Vec<&str> = asked.values(dimension.name).collect();
            if wanted.is_empty() {
                continue;
            }
            let dictionary = all.dictionaries.get(place).unwrap_or(&none);
            let matching = match dimension.kind {
                DimensionKind::Text => {
                    dictionary.match_folded(&wanted.iter().map(|text| fold_text(text)).collect::<Vec<_>>())
                }
                DimensionKind::Coded(_) => {
                    let is = |word: &ColumnValue| {
                        value_code(words, dimension.kind, word).is_some_and(|code| wanted.contains(&code))
                    };
                    dictionary.words.iter().map(is).collect()
                }
            };
            filter.words.push((place, matching));
        }
        filter
    }

    /// Returns for each slot whether its lot is visible and matches all filters.
    pub(super) fn matching_slots(&self, all: &LotCatalogue) -> Vec<bool> {
        let mut passes = all.visible.clone();
        let mut keep = |test: &dyn Fn(usize) -> bool| {
            for (slot, pass) in passes.iter_mut().enumerate().filter(|(_, pass)| **pass) {
                *pass = test(slot);
            }
        };
        for (place, matching) in &self.words {
            let column = &all.columns[*place];
            keep(&|slot| matching[column[slot] as usize]);
        }
        if let Some(names) = &self.names {
            keep(&|slot| names[all.name[slot] as usize]);
        }
        if self.year.is_bounded() {
            keep(&|slot| self.matches_year(all, slot));
        }
        if self.price.is_bounded() {
            keep(&|slot| self.price.contains(all.prices[slot]));
        }
        if self.sale.is_bounded() {
            keep(&|slot| self.sale.contains(all.sales[slot]));
        }
        if !self.vin.is_empty() {
            keep(&|slot| all.vin_bytes(slot).starts_with(&self.vin));
        }
        passes
    }

    fn matches_year(&self, all: &LotCatalogue, slot: usize) -> bool {
        all.years[slot] != NO_YEAR && self.year.contains(i64::from(all.years[slot]))
    }

    /// Counts the lots of each option, ignoring the filter of the option's own dimension.
    ///
    /// A lot that fails only one filter is counted in the facet of that filter. A lot that fails two is not counted.
    pub(super) fn count_facets(&self, all: &LotCatalogue) -> FacetCounts {
        const PASSES_ALL: u32 = u32::MAX;
        const FAILS_SEVERAL: u32 = u32::MAX - 1;
        let year_place = DIMENSIONS.len() as u32;
        // Filters without a facet first.
        let others = LotFilter { words: Vec::new(), year: ValueRange::default(), ..self.clone() };
        let passes = others.matching_slots(all);
        let mut fails: Vec<u32> = passes.iter().map(|pass| if *pass { PASSES_ALL } else { FAILS_SEVERAL }).collect();
        let mut fail = |place: u32, test: &dyn Fn(usize) -> bool| {
            for (slot, failed) in fails.iter_mut().enumerate().filter(|(_, failed)| **failed != FAILS_SEVERAL) {
                if !test(slot) {
                    *failed = if *failed == PASSES_ALL { place } else { FAILS_SEVERAL };
                }
            }
        };
        for (place, matching) in &self.words {
            let column = &all.columns[*place];
            fail(*place as u32, &|slot| matching[column[slot] as usize]);
        }
        if self.year.is_bounded() {
            fail(year_place, &|slot| self.matches_year(all, slot));
        }
        let count = |place: usize| {
            let mut counts = vec![0; all.dictionaries[place].words.len()];
            for (word, failed) in all.columns[place].iter().zip(&fails) {
                if *failed == PASSES_ALL || *failed == place as u32 {
                    counts[*word as usize] += 1;
                }
            }
            counts
        };
        let words = (0..all.dictionaries.len()).map(count).collect();
        let mut years = vec![0; MODEL_YEARS.count()];
        for (year, failed) in all.years.iter().zip(&fails) {
            if *year != NO_YEAR && (*failed == PASSES_ALL || *failed == year_place) {
                years[(*year - MODEL_YEARS.start()) as usize] += 1;
            }
        }
        let total = fails.iter().map(|failed| u32::from(*failed == PASSES_ALL)).sum();
        FacetCounts { total, words, years }
    }
}
