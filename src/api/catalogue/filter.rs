//! A question, compiled against the words in use: each filter a table of which words pass, or a range.

use super::{Catalogue, Counts, DIMENSIONS, Dictionary, Kind, NO_YEAR, NONE, Word, YEARS};
use crate::api::params::Asked;
use crate::api::words::Words;
use crate::taxonomy::fold;

/// From and to, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub from: Option<i64>,
    /// The greatest.
    pub to: Option<i64>,
}

impl Range {
    fn given(self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// No value is in no range.
    fn holds(self, value: i64) -> bool {
        value != NONE && self.from.is_none_or(|from| value >= from) && self.to.is_none_or(|to| value <= to)
    }
}

/// What lots must be like.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Dimension, and which of its words pass.
    words: Vec<(usize, Vec<bool>)>,
    /// Which makes and models pass, for what is like a text.
    pub names: Option<Vec<bool>>,
    /// Model years.
    pub year: Range,
    /// Cents.
    pub price: Range,
    /// Microseconds since 1970.
    pub sale: Range,
    /// The beginning of the VIN, in capitals.
    pub vin: Vec<u8>,
}

/// What a word means: the code beside it, else by its spelling.
pub(super) fn code<'a>(words: &'a Words, kind: Kind, word: &'a Word) -> Option<&'a str> {
    let Kind::Coded(domain) = kind else { return None };
    word.code.as_deref().or_else(|| words.spellings.code(domain, word.raw.as_deref()?))
}

impl Catalogue {
    /// What a word of a dimension means.
    pub fn code<'a>(&self, words: &'a Words, dimension: usize, word: &'a Word) -> Option<&'a str> {
        code(words, DIMENSIONS[dimension].kind, word)
    }
}

impl Filter {
    /// What is asked by dimension.
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

    /// For each slot, whether its lot passes.
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

    /// Counts each option without regard to its own dimension's filter: a lot that fails one filter alone counts for
    /// that filter's facet only, one that fails two for none.
    pub(super) fn counts(&self, all: &Catalogue) -> Counts {
        const ALL: u32 = u32::MAX;
        const NOBODY: u32 = u32::MAX - 1;
        let year_place = DIMENSIONS.len() as u32;
        // those without a facet first
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
