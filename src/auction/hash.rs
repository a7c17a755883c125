//! The row hash, which changes exactly when a lot's row changes.
//!
//! `Id` (the export's row number) and `Create Date/Time` (the snapshot's clock) are left out, since they change in
//! every row of every file. All other values are hashed by canonical column and not by position, so that a renamed or
//! moved column (`Copart Select` became `Wholesale`) does not make 154,000 rows new. A missing column hashes like an
//! empty one. An unknown column is hashed by folded name, and only if its value is not empty, so that a new empty
//! column is not a change either. Each value is preceded by its length, so that adjacent values cannot be confused.
//!
//! The last 48 bits, a UUID's last group, are the hash of the picture links alone. With them upsert-lots finds the lots
//! whose pictures are unchanged without querying them. Hashes are compared between two versions of one lot, never
//! across all lots, so 80 bits for the row and 48 bits for its links are enough.

use super::Column;
use super::header::FeedHeader;
use super::reader::FeedRecord;
use crate::taxonomy::fold_text;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Mask of the bits that hash the picture links.
const LINK_HASH_MASK: u128 = (1 << 48) - 1;

/// Hashes the rows of one file with a reused buffer.
#[derive(Clone, Debug)]
pub struct RowHasher {
    known: Vec<Option<usize>>,
    links: [Option<usize>; 2],
    /// Folded names, in ascending order, with their positions.
    unknown: Vec<(String, usize)>,
    scratch: Vec<u8>,
}

impl RowHasher {
    /// Returns a hasher for files with this header.
    pub fn new(header: &FeedHeader) -> RowHasher {
        let counts = |c: &Column| !matches!(c, Column::Id | Column::CreateDateTime);
        let known = Column::ALL.into_iter().filter(counts).map(|c| header.position(c)).collect();
        let named = |i: &usize| (fold_text(&header.names()[*i]), *i);
        let mut unknown: Vec<_> = header.unknown_positions().iter().map(named).collect();
        unknown.sort();
        let links = [Column::ImageThumbnail, Column::ImageUrl].map(|c| header.position(c));
        RowHasher { known, links, unknown, scratch: Vec::with_capacity(4096) }
    }

    /// Returns the hash (xxh3) of a row of a file with the hasher's header.
    pub fn hash_row(&mut self, record: &FeedRecord<'_>) -> u128 {
        self.scratch.clear();
        for place in &self.known {
            write_value(&mut self.scratch, place.map_or("", |i| record.field(i)));
        }
        for (name, place) in &self.unknown {
            let value = record.field(*place);
            if !value.is_empty() {
                write_value(&mut self.scratch, name);
                write_value(&mut self.scratch, value);
            }
        }
        let row = xxh3_128(&self.scratch);
        self.scratch.clear();
        for place in self.links {
            write_value(&mut self.scratch, place.map_or("", |i| record.field(i)));
        }
        row & !LINK_HASH_MASK | u128::from(xxh3_64(&self.scratch)) & LINK_HASH_MASK
    }
}

/// Appends a value preceded by its length. A record has at most 4 GB.
fn write_value(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, RowFixture};
    use super::*;

    fn hash_of_fixture(row: &RowFixture) -> u128 {
        row.with_record(|record| RowHasher::new(record.header()).hash_row(record))
    }

    #[test]
    fn finding_6_the_row_number_and_the_snapshots_clock_change_no_hash() {
        let row = fixture::civic_fixture();
        let later = row.clone().with_value("Id", "77").with_value("Create Date/Time", "2025-10-14-09.10.06.000795");
        assert_eq!(hash_of_fixture(&row), hash_of_fixture(&later));
    }

    #[test]
    fn finding_7_a_change_of_any_other_column_changes_the_hash_though_the_timestamp_stays() {
        let row = fixture::civic_fixture();
        for column in Column::ALL {
            if !matches!(column, Column::Id | Column::CreateDateTime) {
                assert_ne!(
                    hash_of_fixture(&row),
                    hash_of_fixture(&row.clone().with_value(column.name(), "other")),
                    "{column:?}"
                );
            }
        }
    }

    #[test]
    fn the_last_48_bits_are_those_of_the_picture_links() {
        let row = fixture::civic_fixture();
        for column in Column::ALL {
            let links = matches!(column, Column::ImageThumbnail | Column::ImageUrl);
            let other = hash_of_fixture(&row) ^ hash_of_fixture(&row.clone().with_value(column.name(), "other"));
            assert_eq!(other & LINK_HASH_MASK != 0, links, "{column:?}");
        }
    }

    #[test]
    fn finding_3_a_renamed_or_moved_column_changes_no_hash() {
        let row = fixture::civic_fixture();
        assert_eq!(
            hash_of_fixture(&row),
            hash_of_fixture(&row.clone().with_renamed_column("Wholesale", "Copart Select"))
        );
        let mut turned = row.clone();
        turned.reverse_columns();
        assert_eq!(hash_of_fixture(&row), hash_of_fixture(&turned));
    }

    #[test]
    fn an_unknown_column_counts_once_it_has_a_value() {
        let row = fixture::civic_fixture();
        assert_eq!(hash_of_fixture(&row), hash_of_fixture(&row.clone().with_value("Aura", "")));
        assert_ne!(hash_of_fixture(&row), hash_of_fixture(&row.clone().with_value("Aura", "blue")));
        assert_ne!(
            hash_of_fixture(&row.clone().with_value("Aura", "blue")),
            hash_of_fixture(&row.clone().with_value("Mood", "blue"))
        );
    }

    #[test]
    fn text_moved_from_one_column_to_the_next_changes_the_hash() {
        let row = fixture::civic_fixture();
        let (a, b) = (
            row.clone().with_value("Make", "HOND").with_value("Model Group", "ACIVIC"),
            row.with_value("Make", "HONDA"),
        );
        assert_ne!(hash_of_fixture(&a), hash_of_fixture(&b.with_value("Model Group", "CIVIC")));
    }
}
