//! Counts the raw values of a file per taxonomy domain, all and unknown ones.
//!
//! Only the values of staged rows are counted, which are the new and changed ones. An unchanged row is not parsed, and
//! its values were counted when it was new. In a month's first file the shares are therefore those of the feed, later
//! those of the changes.
//!
//! Each row has fifteen such values. For values that the parser has coded the result is known. Most of the others
//! repeat the row before (`GAS`, `AUTOMATIC`) and need no look-up.

use crate::auction::row::Typed;
use crate::taxonomy::{Domain, Spellings};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Maximum number of distinct unknown values that are recorded. All are counted.
const KEPT: usize = 1_000;

/// The number of raw values in a domain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All values.
    pub values: u64,
    /// Values without a code.
    pub unknown: u64,
}

/// The last look-up for a column.
#[derive(Debug, Default, Clone)]
struct Last {
    word: String,
    known: bool,
}

/// The counts of the rows so far.
#[derive(Debug, Default)]
pub struct Words {
    counts: [Count; Domain::ALL.len()],
    last: [Last; Typed::WORDS],
    unknown: HashSet<(Domain, String)>,
}

impl Words {
    /// Counts the values of a row that was parsed with `spellings`.
    pub fn note(&mut self, typed: &Typed<'_>, spellings: &Spellings) {
        for ((domain, raw, coded), last) in typed.words().into_iter().zip(&mut self.last) {
            let Some(raw) = raw else { continue };
            let known = match coded {
                Some(coded) => coded,
                None if last.word == raw => last.known,
                None => {
                    last.known = spellings.code(domain, raw).is_some();
                    last.word.clear();
                    last.word.push_str(raw);
                    last.known
                }
            };
            let count = &mut self.counts[domain as usize];
            count.values += 1;
            if !known {
                count.unknown += 1;
                if self.unknown.len() < KEPT {
                    self.unknown.insert((domain, raw.to_owned()));
                }
            }
        }
    }

    /// Returns the distinct unknown values.
    pub fn unknown(&self) -> &HashSet<(Domain, String)> {
        &self.unknown
    }

    /// Returns the counts by domain, without domains that have none.
    pub fn counts(&self) -> BTreeMap<&'static str, Count> {
        let counted = Domain::ALL.into_iter().map(|domain| (domain.name(), self.counts[domain as usize]));
        counted.filter(|(_, count)| count.values > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::row::Warnings;
    use crate::auction::specimen::civic;

    #[test]
    fn every_word_is_counted_and_an_unknown_one_as_often_as_it_is_met() {
        let spellings = Spellings::compiled();
        let mut words = Words::default();
        let blank = civic().with("Fuel Type", "");
        let goat = civic().with("Damage Description", "EATEN BY GOAT").with("Color", "OCTARINE");
        for row in [&civic(), &goat, &goat, &civic(), &goat, &blank] {
            row.read(|record| {
                words.note(&Typed::read(record, spellings, &mut Warnings::default()), spellings)
            });
        }
        let counts = words.counts();
        assert_eq!(counts["damage_types"], Count { values: 12, unknown: 3 }, "in both columns");
        assert_eq!(counts["colors"], Count { values: 6, unknown: 3 });
        assert_eq!(counts["fuel_types"], Count { values: 5, unknown: 0 });
        assert!(!counts.contains_key("sale_lights") && !counts.contains_key("statuses"));
        assert_eq!(words.unknown().len(), 2);
    }

    #[test]
    fn a_text_of_more_than_128_characters_is_no_spelling() {
        let spellings = Spellings::compiled();
        let mut words = Words::default();
        for length in [128, 129, 30_000] {
            let row = civic().with("Color", &"\u{448}".repeat(length));
            row.read(|record| {
                words.note(&Typed::read(record, spellings, &mut Warnings::default()), spellings)
            });
        }
        assert_eq!(words.counts()["colors"], Count { values: 1, unknown: 1 });
        assert_eq!(words.unknown().iter().map(|(_, raw)| raw.chars().count()).collect::<Vec<_>>(), [128]);
    }
}
