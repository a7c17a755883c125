//! The withdrawal of a file that should not have been ingested: request and result.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// The file to withdraw.
#[derive(Clone, Debug)]
pub struct WithdrawalRequest {
    /// The source of the file.
    pub source: String,
    /// The start of the window that the file was ingested for.
    pub window: DateTime<Utc>,
    /// The file, required if the window has several.
    pub file_id: Option<Uuid>,
}

/// The result of a withdrawal.
#[derive(Clone, Debug, Serialize)]
pub struct Withdrawal {
    /// The source of the file.
    pub source: String,
    /// The file.
    pub file_id: Uuid,
    /// The sha256 of the file's bytes, in hex.
    pub sha256: String,
    /// The withdrawn windows: the requested one, and those that repeated its file as unchanged.
    pub windows: Vec<DateTime<Utc>>,
    /// True if the file itself is withdrawn, since no other window refers to it.
    pub file_withdrawn: bool,
    /// Deleted row versions, which only this file contained.
    pub versions_deleted: u64,
    /// Row versions that this file stored and that remain, since other files contain them too.
    pub versions_kept: u64,
    /// Lots whose values were recomputed.
    pub lots_recomputed: u64,
    /// Deleted lots, which no other file contains.
    pub lots_deleted: u64,
    /// Vehicles whose values were recomputed.
    pub vehicles_recomputed: u64,
    /// Deleted vehicles, which no other file contains.
    pub vehicles_deleted: u64,
    /// Lots whose status changed.
    pub statuses_changed: u64,
    /// Windows whose state changed without this file, such as late ones that are in order now.
    pub windows_changed: Vec<DateTime<Utc>>,
    /// The newest remaining window, or null if the source has no other file.
    pub newest_window: Option<DateTime<Utc>>,
}

/// Callback that receives the name of the current phase, the amount of work that is done, and the total amount.
pub type WithdrawalObserver = Box<dyn Fn(&'static str, u64, u64) + Send + Sync>;
