//! The row hash: equal exactly when the lot's row says the same as before.
//!
//! Left out are `Id` (the export's row number) and `Create Date/Time` (the snapshot's clock), which change in every
//! row of every file. The rest goes in by canonical column, not by position, so that a renamed or moved column
//! (`Copart Select` became `Wholesale`) does not make 154,000 rows new. A missing column counts as an empty one;
//! of unknown columns only the ones with a value count, by folded name, so that an empty new column is no change
//! either. Each value has its length before it: no value can pretend to be two.

use super::Column;
use super::header::Header;
use super::reader::Record;
use crate::taxonomy::fold;
use xxhash_rust::xxh3::xxh3_128;

/// Hashes the rows of one file; reuses its buffer.
#[derive(Clone, Debug)]
pub struct RowHasher {
    known: Vec<Option<usize>>,
    /// Folded name (in ascending order) and position.
    unknown: Vec<(String, usize)>,
    scratch: Vec<u8>,
}

impl RowHasher {
    /// For files with this header.
    pub fn new(header: &Header) -> RowHasher {
        let counts = |c: &Column| !matches!(c, Column::Id | Column::CreateDateTime);
        let known = Column::ALL.into_iter().filter(counts).map(|c| header.place(c)).collect();
        let named = |i: &usize| (fold(&header.names()[*i]), *i);
        let mut unknown: Vec<_> = header.unknown().iter().map(named).collect();
        unknown.sort();
        RowHasher { known, unknown, scratch: Vec::with_capacity(4096) }
    }

    /// The hash (xxh3, 128 bits) of a row of that file.
    pub fn hash(&mut self, record: &Record<'_>) -> u128 {
        self.scratch.clear();
        for place in &self.known {
            put(&mut self.scratch, place.map_or("", |i| record.field(i)));
        }
        for (name, place) in &self.unknown {
            let value = record.field(*place);
            if !value.is_empty() {
                put(&mut self.scratch, name);
                put(&mut self.scratch, value);
            }
        }
        xxh3_128(&self.scratch)
    }
}

/// A value with its length before it; a record has at most 4 GB.
fn put(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::specimen::{self, Specimen};
    use super::*;

    fn hash(row: &Specimen) -> u128 {
        row.read(|record| RowHasher::new(record.header()).hash(record))
    }

    #[test]
    fn finding_6_the_row_number_and_the_snapshots_clock_change_no_hash() {
        let row = specimen::civic();
        let later = row.clone().with("Id", "77").with("Create Date/Time", "2025-10-14-09.10.06.000795");
        assert_eq!(hash(&row), hash(&later));
    }

    #[test]
    fn finding_7_a_change_of_any_other_column_changes_the_hash_though_the_timestamp_stays() {
        let row = specimen::civic();
        for column in Column::ALL {
            if !matches!(column, Column::Id | Column::CreateDateTime) {
                assert_ne!(hash(&row), hash(&row.clone().with(column.name(), "other")), "{column:?}");
            }
        }
    }

    #[test]
    fn finding_3_a_renamed_or_moved_column_changes_no_hash() {
        let row = specimen::civic();
        assert_eq!(hash(&row), hash(&row.clone().renamed("Wholesale", "Copart Select")));
        let mut turned = row.clone();
        turned.reverse();
        assert_eq!(hash(&row), hash(&turned));
    }

    #[test]
    fn an_unknown_column_counts_once_it_has_a_value() {
        let row = specimen::civic();
        assert_eq!(hash(&row), hash(&row.clone().with("Aura", "")));
        assert_ne!(hash(&row), hash(&row.clone().with("Aura", "blue")));
        assert_ne!(hash(&row.clone().with("Aura", "blue")), hash(&row.clone().with("Mood", "blue")));
    }

    #[test]
    fn text_moved_from_one_column_to_the_next_changes_the_hash() {
        let row = specimen::civic();
        let (a, b) =
            (row.clone().with("Make", "HOND").with("Model Group", "ACIVIC"), row.with("Make", "HONDA"));
        assert_ne!(hash(&a), hash(&b.with("Model Group", "CIVIC")));
    }
}
