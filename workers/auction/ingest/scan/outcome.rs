//! How a scan ends: with what the file holds, or with why it is not applied.

use super::MAX_ROWS;
use super::words::Words;
use crate::db::copy::CopySpool;
use serde::Serialize;

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
    /// Values of staged rows that could not be read and are null.
    pub unreadable_values: u64,
    /// By reason.
    pub skipped: Skipped,
    /// Row ids in file order, 0 for a rejected record.
    pub manifest: Vec<i64>,
    /// The words of the staged rows.
    pub words: Words,
    /// The header, as it stands in the file.
    pub header: Vec<String>,
    /// Columns nobody knows, and known ones that are missing.
    pub drift: Vec<String>,
    /// `Create Date/Time`, where all rows have the same.
    pub snapshot_clock: Option<String>,
    /// Lots that stood in the newest file and not in this one.
    pub gone: Vec<i64>,
    /// Lots absent before, of which no complete file was read since.
    pub absent: Vec<i64>,
    /// Lots of staged rows that replace a version of which only the head knows until when it was seen.
    pub returned: Vec<String>,
    /// Lots whose unchanged version is stored once more, since this month has none: lot, row id.
    pub moved: Vec<(i64, i64)>,
    /// For `audit.parse_errors`.
    pub errors: CopySpool,
    /// For `audit.skipped_lots`: the staged rows that make no lot.
    pub no_lots: CopySpool,
}

/// Why a file is not applied; it is kept, and its window quarantined.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No header, or not the feed's.
    #[error("{0}")]
    Header(String),
    /// A header and nothing else.
    #[error("the file has a header but no rows")]
    Empty,
    /// More rows than ids can be made for.
    #[error("the file has more than {} records", MAX_ROWS)]
    TooMany,
    /// More than one row in fifty is unreadable.
    #[error("{rejected} of {records} records cannot be read, more than 2 %")]
    Rejected {
        /// Unreadable ones.
        rejected: u64,
        /// All.
        records: u64,
        /// The unreadable ones that are kept, for `audit.parse_errors`.
        errors: CopySpool,
    },
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The file is not fit to be applied.
    #[error(transparent)]
    Refused(#[from] Refused),
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
