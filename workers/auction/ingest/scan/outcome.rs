//! How a scan ends: with what the file holds, or with why it is not applied.

use super::errors::Flaws;
use super::refusal::Refusal;
use super::words::Words;
use crate::auction::completeness::{Completeness, RecognisedLots};
use crate::auction::drift::{DriftPolicies, UnreadableShare};
use crate::auction::row::Warnings;
use crate::db::copy::CopySpool;
use crate::workers::auction::ingest::earlier::Earlier;
use crate::workers::auction::ingest::lotless::LotlessRows;
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows that make no vehicle and no lot, by reason.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Skipped {
    /// No VIN.
    pub vin_empty: u64,
    /// A VIN that no rule of VINs fits.
    pub vin_format: u64,
    /// No lot number.
    pub lot_missing: u64,
}

/// Rows that lack a key, each counted by itself: a row may lack both.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Missing {
    /// Rows without a VIN.
    pub vin: u64,
    /// Rows without a lot number that can be read.
    pub lot: u64,
}

/// The values of a column that could not be read.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// How many.
    pub count: u64,
    /// The first of them, at most 80 characters.
    pub first: String,
}

/// A column that is no longer understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDrift {
    /// Its name in the feed.
    pub column: &'static str,
    /// Values that could not be read.
    pub unreadable: u64,
    /// New and changed rows.
    pub rows: u64,
    /// The first such value, at most 80 characters.
    pub first: String,
    /// What follows: `warn` or `refuse`.
    pub policy: &'static str,
    /// Its place among the columns.
    #[serde(skip)]
    pub place: usize,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Readable records.
    pub rows: u64,
    /// Of lots without a head.
    pub new: u64,
    /// That differ from their lot's head.
    pub changed: u64,
    /// Equal to their lot's head.
    pub unchanged: u64,
    /// Unreadable records.
    pub rejected: u64,
    /// Records read only by the tolerant rules, or with a character replaced.
    pub repaired: u64,
    /// Rows whose values were read: new and changed ones, and those that are staged for another reason.
    pub staged: u64,
    /// Values of staged rows that could not be read, by column.
    pub unreadable: BTreeMap<&'static str, Unreadable>,
    /// Columns that are no longer understood.
    pub column_drift: Vec<ColumnDrift>,
    /// By reason.
    pub skipped: Skipped,
    /// Rows that lack a key.
    pub missing: Missing,
    /// Records with a recognised lot number.
    pub lots: RecognisedLots,
    /// Whether all of the feed seems to be in it.
    pub completeness: Completeness,
    /// Row ids in file order, 0 for a rejected record.
    pub manifest: Vec<i64>,
    /// The words of the staged rows.
    pub words: Words,
    /// The header, as it stands in the file.
    pub header: Vec<String>,
    /// The header's names by column, as `raw.headers` has them.
    pub columns: serde_json::Map<String, serde_json::Value>,
    /// Columns nobody knows, and known ones that are missing.
    pub drift: Vec<String>,
    /// `Create Date/Time`, where all rows have the same.
    pub snapshot_clock: Option<String>,
    /// Lots that stood in the newest file and not in this one.
    pub gone: Vec<i64>,
    /// Lots absent before, of which no complete file was read since.
    pub absent: Vec<i64>,
    /// Lots absent before that the file holds in a record that cannot be read.
    pub back_unreadable: Vec<i64>,
    /// Lots without a head that the file holds in a record that cannot be read: closed ones are open again.
    pub headless_unreadable: Vec<i64>,
    /// Lots of staged rows that replace a version of which only the head knows until when it was seen.
    pub returned: Vec<String>,
    /// Lots whose unchanged version is stored once more, since this month has none: lot, row id.
    pub moved: Vec<(i64, i64)>,
    /// Rows without a lot number.
    pub lotless: LotlessRows,
    /// For `audit.parse_errors`.
    pub errors: Flaws,
    /// For `audit.skipped_lots`: the staged rows that make no lot.
    pub no_lots: CopySpool,
}

impl Outcome {
    /// Notes the values that could not be read, and the columns that drifted since the last complete file.
    pub fn note_unreadable(&mut self, warnings: &Warnings, earlier: &Earlier, policies: &DriftPolicies) {
        for (column, count, first) in warnings.iter() {
            let now = UnreadableShare { unreadable: count, rows: self.staged };
            if earlier.unreadable(column).is_some_and(|before| now.has_drifted(before)) {
                self.column_drift.push(ColumnDrift {
                    column: column.name(),
                    unreadable: count,
                    rows: self.staged,
                    first: first.to_owned(),
                    policy: policies[column as usize].name(),
                    place: column as usize,
                });
            }
            self.unreadable.insert(column.name(), Unreadable { count, first: first.to_owned() });
        }
        self.column_drift.sort_by_key(|drift| drift.place);
    }
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The file is not fit to be applied.
    #[error("{}", .0.why)]
    Refused(Box<Refusal>),
    /// What the store gave back is not what came in.
    #[error("the store's copy has sha256 {found}, the file had {expected}: restore it from a backup")]
    Altered {
        /// Of what the store gave back.
        found: String,
        /// As received.
        expected: String,
    },
    /// The bytes could not be read.
    #[error("read the file: {0}")]
    Io(#[from] std::io::Error),
    /// Nobody takes the chunks any more.
    #[error("the load was given up")]
    Abandoned,
}
