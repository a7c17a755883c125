//! Differences between the rows that stand and what the stored versions say.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// A column has another value.
    Value,
    /// The versions make a row and none stands.
    Missing,
    /// A row stands and no stored version makes it.
    Unfounded,
}

/// A difference between a standing row and the stored versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowDifference {
    /// The kind of the difference.
    pub kind: DifferenceKind,
    /// The table: `lots`, `vehicles` or `images`.
    pub table: &'static str,
    /// The source of the lot whose version should stand.
    pub source: Option<String>,
    /// The number of that lot.
    pub lot: Option<i64>,
    /// The VIN, of a vehicle.
    pub vin: Option<String>,
    /// The column, or the variant of a picture link; none where the whole row differs.
    pub column: Option<String>,
    /// The value that stands.
    pub stands: Value,
    /// The value that the versions give.
    pub versions: Value,
    /// The newest window that stored the version which should stand.
    pub window: Option<DateTime<Utc>>,
}

/// The rows that a comparison covers.
#[derive(Clone, Debug)]
pub struct ComparisonScope {
    /// How many lots to pick at random; none for all.
    pub sample: Option<u32>,
    /// The source of the lots; none for all.
    pub source: Option<String>,
}

/// Counts of a comparison, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComparisonCounts {
    /// Lots that were compared, with their open picture links.
    pub lots: u64,
    /// Vehicles that were compared. One that lots of several batches share is counted in each.
    pub vehicles: u64,
    /// Lots and vehicles that a window under way is about to change, which were not compared.
    pub under_way: u64,
    /// Differences that were found.
    pub differences: u64,
}

/// What a comparison reports after each batch.
#[derive(Clone, Debug, Default)]
pub struct ComparisonProgress {
    /// The counts so far.
    pub counts: ComparisonCounts,
    /// How many lots there are to compare.
    pub total: u64,
    /// The differences of this batch.
    pub found: Vec<RowDifference>,
}

/// Called after each batch of a comparison.
pub type ComparisonObserver = Box<dyn Fn(ComparisonProgress) + Send + Sync>;
