//! Filters of a query, compiled for a catalogue. Each filter is a range, or a table that contains for each distinct
//! value whether the value matches.

use super::{Catalogue, Counts, DIMENSIONS, Dictionary, Kind, NO_YEAR, NONE, Word, YEARS};
use crate::api::params::Asked;
use crate::api::words::Words;
use crate::taxonomy::fold;

/// Range of numbers. Both bounds are included and optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Minimum, if there is one.
    pub from: Option<i64>,
    /// Maximum, if there is one.
    pub to: Option<i64>,
}

impl Range {
    fn given(self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Returns true if the range contains a value. A missing value is in no range.
    fn holds(self, value: i64) -> bool {
        value != NONE && self.from.is_none_or(|from| value >= from) && self.to.is_none_or(|to| value <= to)
    }
}

/// Conditions that a lot must meet.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Index of a filtered dimension, and for each of its values whether the value matches.
    words: Vec<(usize, Vec<bool>)>,
    /// Similarity of each make and model to the text of the query: true if similar. `None` if the query has no text.
    pub names: Option<Vec<bool>>,
    /// Range of model years.
    pub year: Range,
    /// Range of the high bid, in cents.
    pub price: Range,
    /// Range of the time of the sale, in microseconds since 1970.
    pub sale: Range,
    /// VIN prefix in upper case. Empty if the query has none.
    pub vin: Vec<u8>,
}

/// Returns the code of a value: the stored code, otherwise the code of its alias.
pub(super) fn code<'a>(words: &'a Words, kind: Kind, word: &'a Word) -> Option<&'a str> {
    let Kind::Coded(domain) = kind else { return None };
    word.code.as_deref().or_else(|| words.spellings.code(domain, word.raw.as_deref()?))
}

impl Catalogue {
    /// Returns the code of a dimension's value: the stored code, otherwise the code of its alias.
    pub fn code<'a>(&self, words: &'a Words, dimension: usize, word: &'a Word) -> Option<&'a str> {
        code(words, DIMENSIONS[dimension].kind, word)
    }
}

impl Filter {
    /// Compiles the filters of all dimensions of a query. The caller sets the text, the VIN and the ranges.
    pub fn of(asked: &Asked, all: &Catalogue, words: &Words) -> Filter {
        let mut filter = Filter::default();
        let none = Dictionary::default();
        for (place, dimension) in DIMENSIONS.iter().enumerate() {
            let wanted: Vec<&str> = asked.all(dimension.name).collect();
            if wanted.is_empty() {
                continue;
            }
            let dictionary = all.dictionaries.get(place).unwrap_or(&none);
            let passing = match dimension.kind {
                Kind::Text => dictionary.folded(&wanted.iter().map(|text| fold(text)).collect::<Vec<_>>()),
                Kind::Coded(_) => {
                    let is = |word: &Word| {
                        code(words, dimension.kind, word).is_some_and(|code| wanted.contains(&code))
                    };
                    dictionary.words.iter().map(is).collect()
                }
            };
            filter.words.push((place, passing));
        }
        filter
    }

    /// Returns for each slot whether its lot is visible and matches all filters.
    pub(super) fn passes(&self, all: &Catalogue) -> Vec<bool> {
        let mut passes = all.visible.clone();
        let mut keep = |test: &dyn Fn(usize) -> bool| {
            for (slot, pass) in passes.iter_mut().enumerate().filter(|(_, pass)| **pass) {
                *pass = test(slot);
            }
        };
        for (place, passing) in &self.words {
            let column = &all.columns[*place];
            keep(&|slot| passing[column[slot] as usize]);
        }
        if let Some(names) = &self.names {
            keep(&|slot| names[all.name[slot] as usize]);
        }
        if self.year.given() {
            keep(&|slot| self.year(all, slot));
        }
        if self.price.given() {
            keep(&|slot| self.price.holds(all.prices[slot]));
        }
        if self.sale.given() {
            keep(&|slot| self.sale.holds(all.sales[slot]));
        }
        if !self.vin.is_empty() {
            keep(&|slot| all.vin(slot).starts_with(&self.vin));
        }
        passes
    }

    fn year(&self, all: &Catalogue, slot: usize) -> bool {
        all.years[slot] != NO_YEAR && self.year.holds(i64::from(all.years[slot]))
    }

    /// Counts the lots of each option, ignoring the filter of the option's own dimension.
    ///
    /// A lot that fails only one filter is counted in the facet of that filter. A lot that fails two is not counted.
    pub(super) fn counts(&self, all: &Catalogue) -> Counts {
        const ALL: u32 = u32::MAX;
        const NOBODY: u32 = u32::MAX - 1;
        let year_place = DIMENSIONS.len() as u32;
        // Filters without a facet first.
        let others = Filter { words: Vec::new(), year: Range::default(), ..self.clone() };
        let passes = others.passes(all);
        let mut fails: Vec<u32> = passes.iter().map(|pass| if *pass { ALL } else { NOBODY }).collect();
        let mut fail = |place: u32, test: &dyn Fn(usize) -> bool| {
            for (slot, failed) in fails.iter_mut().enumerate().filter(|(_, failed)| **failed != NOBODY) {
                if !test(slot) {
                    *failed = if *failed == ALL { place } else { NOBODY };
                }
            }
        };
        for (place, passing) in &self.words {
            let column = &all.columns[*place];
            fail(*place as u32, &|slot| passing[column[slot] as usize]);
        }
        if self.year.given() {
            fail(year_place, &|slot| self.year(all, slot));
        }
        let count = |place: usize| {
            let mut counts = vec![0; all.dictionaries[place].words.len()];
            for (word, failed) in all.columns[place].iter().zip(&fails) {
                if *failed == ALL || *failed == place as u32 {
                    counts[*word as usize] += 1;
                }
            }
            counts
        };
        let words = (0..all.dictionaries.len()).map(count).collect();
        let mut years = vec![0; YEARS.count()];
        for (year, failed) in all.years.iter().zip(&fails) {
            if *year != NO_YEAR && (*failed == ALL || *failed == year_place) {
                years[(*year - YEARS.start()) as usize] += 1;
            }
        }
        let total = fails.iter().map(|failed| u32::from(*failed == ALL)).sum();
        Counts { total, words, years }
    }
}
