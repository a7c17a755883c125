//! The result of a scan: the contents of the file, or the error that ended it.

use super::parse_errors::FlawedRecords;
use super::quarantine::QuarantinedFile;
use super::taxonomy_stats::TaxonomyStats;
use crate::auction::completeness::{Completeness, RecognisedLots};
use crate::auction::drift::{DriftPolicies, UnreadableShare};
use crate::auction::row::ParseWarnings;
use crate::db::copy::CopySpool;
use crate::workers::auction::ingest::file_history::FileHistory;
use crate::workers::auction::ingest::lotless::LotlessRows;
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows that produce no vehicle and no lot, by reason.
#[derive(Debug, Default, Clone, Serialize)]
pub struct SkippedCounts {
    /// Rows without a VIN.
    pub vin_empty: u64,
    /// Rows whose VIN has an invalid format.
    pub vin_format: u64,
    /// Rows without a lot number.
    pub lot_missing: u64,
}

/// Rows that lack a key, counted per key. A row may lack both.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct MissingKeys {
    /// Rows without a VIN.
    pub vin: u64,
    /// Rows without a readable lot number.
    pub lot: u64,
}

/// The unreadable values of a column.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableStats {
    /// The number of unreadable values.
    pub count: u64,
    /// The first unreadable value, at most 80 characters.
    pub first: String,
}

/// A column with mostly unreadable values that had few in the last complete file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDrift {
    /// The name of the column in the feed.
    pub column: &'static str,
    /// The number of unreadable values.
    pub unreadable: u64,
    /// The number of staged rows.
    pub rows: u64,
    /// The first unreadable value, at most 80 characters.
    pub first: String,
    /// The policy of the column: `warn` or `refuse`.
    pub policy: &'static str,
    /// The index of the column.
    #[serde(skip)]
    pub place: usize,
}

/// The contents of a file.
#[derive(Debug, Default)]
pub struct ScanOutcome {
    /// Readable records.
    pub rows: u64,
    /// Rows of lots without a head, and new rows without a lot number.
    pub new: u64,
    /// Rows that differ from their lot's head.
    pub changed: u64,
    /// Rows that equal their lot's head.
    pub unchanged: u64,
    /// Unreadable records.
    pub rejected: u64,
    /// Records read only by the tolerant rules, or with a character replaced.
    pub repaired: u64,
    /// Rows whose values were parsed: new and changed rows, and rows staged for another reason.
    pub staged: u64,
    /// The unreadable values of staged rows, by column.
    pub unreadable: BTreeMap<&'static str, UnreadableStats>,
    /// Columns whose values drifted since the last complete file.
    pub column_drift: Vec<ColumnDrift>,
    /// Rows that produce no vehicle and no lot, by reason.
    pub skipped: SkippedCounts,
    /// Rows that lack a key.
    pub missing: MissingKeys,
    /// Records with a recognised lot number.
    pub lots: RecognisedLots,
    /// The decision whether the file seems to contain the whole feed.
    pub completeness: Completeness,
    /// Row ids in file order, 0 for a rejected record.
    pub manifest: Vec<i64>,
    /// The raw values of the staged rows, counted per domain.
    pub words: TaxonomyStats,
    /// The header as written in the file.
    pub header: Vec<String>,
    /// The names of the header by column, in the form of `raw.headers`.
    pub columns: serde_json::Map<String, serde_json::Value>,
    /// Unknown columns of the header, and known columns that are missing or repeated.
    pub drift: Vec<String>,
    /// The value of `Create Date/Time`, if all rows have the same.
    pub snapshot_clock: Option<String>,
    /// Lots that were in the newest file and are not in this one.
    pub disappeared: Vec<i64>,
    /// Lots that were absent before, with no complete file since.
    pub absent: Vec<i64>,
    /// Lots that were absent before and are in an unreadable record of the file.
    pub back_unreadable: Vec<i64>,
    /// Lots without a head in an unreadable record of the file. Closed lots are opened again.
    pub headless_unreadable: Vec<i64>,
    /// Lots of staged rows that replace a version of an absent lot. Only the head contains the time until which it was
    /// seen.
    pub reappeared: Vec<String>,
    /// Lots whose unchanged version is stored again because this month does not contain it: lot and row id.
    pub carried_over: Vec<(i64, i64)>,
    /// Rows without a lot number.
    pub lotless: LotlessRows,
    /// Rows for `audit.parse_errors`.
    pub errors: FlawedRecords,
    /// Rows for `audit.skipped_lots`: the staged rows that produce no lot.
    pub no_lots: CopySpool,
}

impl ScanOutcome {
    /// Records the unreadable values, and the columns that drifted since the last complete file.
    pub fn record_unreadable(&mut self, warnings: &ParseWarnings, earlier: &FileHistory, policies: &DriftPolicies) {
        for (column, count, first) in warnings.iter() {
            let now = UnreadableShare { unreadable: count, rows: self.staged };
            if earlier.unreadable_share(column).is_some_and(|before| now.has_drifted(before)) {
                self.column_drift.push(ColumnDrift {
                    column: column.name(),
                    unreadable: count,
                    rows: self.staged,
                    first: first.to_owned(),
                    policy: policies[column as usize].name(),
                    place: column as usize,
                });
            }
            self.unreadable.insert(column.name(), UnreadableStats { count, first: first.to_owned() });
        }
        self.column_drift.sort_by_key(|drift| drift.place);
    }
}

/// Error that ended a scan.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file must be quarantined.
    #[error("{}", .0.why)]
    Refused(Box<QuarantinedFile>),
    /// The object in the store does not contain the received bytes.
    #[error("the object in the store has sha256 {found} instead of {expected}\nhint: restore it from a backup")]
    Altered {
        /// The sha256 of the object in the store.
        found: String,
        /// The sha256 of the received file.
        expected: String,
    },
    /// The file could not be read.
    #[error("could not read the file: {0}")]
    Io(#[from] std::io::Error),
    /// The receiver of the chunks was dropped.
    #[error("the receiver of the scanned rows stopped")]
    Abandoned,
}
