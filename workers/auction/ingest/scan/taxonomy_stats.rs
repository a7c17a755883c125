//! Counts the raw values of a file per taxonomy domain, all and unknown ones.
//!
//! Only the values of staged rows are counted, which are the new and changed ones. An unchanged row is not parsed, and
//! its values were counted when it was new. In a month's first file the shares are therefore those of the feed, later
//! those of the changes.
//!
//! Each row has fifteen such values. For values that the parser has coded the result is known. Most of the others
//! repeat the row before (`GAS`, `AUTOMATIC`) and need no look-up.

use crate::auction::row::ParsedRow;
use crate::taxonomy::{AliasIndex, TaxonomyDomain};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Maximum number of distinct unknown values that are recorded. All are counted.
const MAX_UNKNOWN_VALUES: usize = 1_000;

/// The number of raw values in a domain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ValueCount {
    /// All values.
    pub values: u64,
    /// Values without a code.
    pub unknown: u64,
}

/// The last look-up for a column.
#[derive(Debug, Default, Clone)]
struct LastLookup {
    word: String,
    known: bool,
}

/// The counts of the rows so far.
#[derive(Debug, Default)]
pub struct TaxonomyStats {
    counts: [ValueCount; TaxonomyDomain::ALL.len()],
    last: [LastLookup; ParsedRow::TAXONOMY_VALUES],
    unknown: HashSet<(TaxonomyDomain, String)>,
}

impl TaxonomyStats {
    /// Counts the values of a row that was parsed with `aliases`.
    pub fn record_row(&mut self, typed: &ParsedRow<'_>, aliases: &AliasIndex) {
        for ((domain, raw, coded), last) in typed.taxonomy_values().into_iter().zip(&mut self.last) {
            let Some(raw) = raw else { continue };
            let known = match coded {
                Some(coded) => coded,
                None if last.word == raw => last.known,
                None => {
                    last.known = aliases.find_code(domain, raw).is_some();
                    last.word.clear();
                    last.word.push_str(raw);
                    last.known
                }
            };
            let count = &mut self.counts[domain as usize];
            count.values += 1;
            if !known {
                count.unknown += 1;
                if self.unknown.len() < MAX_UNKNOWN_VALUES {
                    self.unknown.insert((domain, raw.to_owned()));
                }
            }
        }
    }

    /// Returns the distinct unknown values.
    pub fn unknown_values(&self) -> &HashSet<(TaxonomyDomain, String)> {
        &self.unknown
    }

    /// Returns the counts by domain, without domains that have none.
    pub fn counts_by_domain(&self) -> BTreeMap<&'static str, ValueCount> {
        let counted = TaxonomyDomain::ALL.into_iter().map(|domain| (domain.name(), self.counts[domain as usize]));
        counted.filter(|(_, count)| count.values > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::fixture::civic_fixture;
    use crate::auction::row::ParseWarnings;

    #[test]
    fn every_word_is_counted_and_an_unknown_one_as_often_as_it_is_met() {
        let aliases = AliasIndex::built_in();
        let mut words = TaxonomyStats::default();
        let blank = civic_fixture().with_value("Fuel Type", "");
        let goat = civic_fixture().with_value("Damage Description", "EATEN BY GOAT").with_value("Color", "OCTARINE");
        for row in [&civic_fixture(), &goat, &goat, &civic_fixture(), &goat, &blank] {
            row.with_record(|record| {
                words.record_row(&ParsedRow::from_record(record, aliases, &mut ParseWarnings::default()), aliases)
            });
        }
        let counts = words.counts_by_domain();
        assert_eq!(counts["damage_types"], ValueCount { values: 12, unknown: 3 }, "in both columns");
        assert_eq!(counts["colors"], ValueCount { values: 6, unknown: 3 });
        assert_eq!(counts["fuel_types"], ValueCount { values: 5, unknown: 0 });
        assert!(!counts.contains_key("sale_lights") && !counts.contains_key("statuses"));
        assert_eq!(words.unknown_values().len(), 2);
    }

    #[test]
    fn a_text_of_more_than_128_characters_is_no_spelling() {
        let aliases = AliasIndex::built_in();
        let mut words = TaxonomyStats::default();
        for length in [128, 129, 30_000] {
            let row = civic_fixture().with_value("Color", &"\u{448}".repeat(length));
            row.with_record(|record| {
                words.record_row(&ParsedRow::from_record(record, aliases, &mut ParseWarnings::default()), aliases)
            });
        }
        assert_eq!(words.counts_by_domain()["colors"], ValueCount { values: 1, unknown: 1 });
        assert_eq!(words.unknown_values().iter().map(|(_, raw)| raw.chars().count()).collect::<Vec<_>>(), [128]);
    }
}
