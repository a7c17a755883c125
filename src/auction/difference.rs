//! Differences between stored rows and the rows computed from stored versions.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

/// The kind of a difference between a stored row and its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// A column has another value.
    Value,
    /// The versions yield a row that the table lacks.
    Missing,
    /// The table contains a row that no stored version yields.
    Unfounded,
}

/// A difference between a stored row and the row computed from its versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowDifference {
    /// The kind of the difference.
    pub kind: DifferenceKind,
    /// The table: `lots`, `vehicles` or `images`.
    pub table: &'static str,
    /// The source of the lot whose version should be in effect.
    pub source: Option<String>,
    /// The number of that lot.
    pub lot: Option<i64>,
    /// The VIN of a vehicle.
    pub vin: Option<String>,
    /// The column, or the variant of a picture link. Null if the whole row differs.
    pub column: Option<String>,
    /// The stored value.
    pub stands: Value,
    /// The value computed from the versions.
    pub versions: Value,
    /// The newest window that stored the version which should be in effect.
    pub window: Option<DateTime<Utc>>,
}

/// The rows that a comparison covers.
#[derive(Clone, Debug)]
pub struct ComparisonScope {
    /// Number of lots to pick at random, or None for all lots.
    pub sample: Option<u32>,
    /// The source of the lots; none for all.
    pub source: Option<String>,
}

/// Running counts of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComparisonCounts {
    /// Compared lots, with their open picture links.
    pub lots: u64,
    /// Compared vehicles. A vehicle shared by lots of several batches is counted once per batch.
    pub vehicles: u64,
    /// Lots and vehicles that were skipped because an unfinished window is about to change them.
    pub under_way: u64,
    /// Differences found.
    pub differences: u64,
}

/// Progress of a comparison, reported after each batch.
#[derive(Clone, Debug, Default)]
pub struct ComparisonProgress {
    /// The counts so far.
    pub counts: ComparisonCounts,
    /// Total number of lots to compare.
    pub total: u64,
    /// Differences found in this batch.
    pub found: Vec<RowDifference>,
}

/// Callback that receives the progress after each batch of a comparison.
pub type ComparisonObserver = Box<dyn Fn(ComparisonProgress) + Send + Sync>;
