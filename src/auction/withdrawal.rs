//! The withdrawal of a file that should not have been ingested: what is asked, and what was done.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A file to withdraw.
#[derive(Clone, Debug)]
pub struct WithdrawalRequest {
    /// The source of the file.
    pub source: String,
    /// The start of the window that the file was ingested for.
    pub window: DateTime<Utc>,
    /// The file, where the window has several.
    pub file_id: Option<Uuid>,
}

/// The result of a withdrawal.
#[derive(Clone, Debug, Serialize)]
pub struct Withdrawal {
    /// The source of the file.
    pub source: String,
    /// The file.
    pub file_id: Uuid,
    /// The sha256 of its bytes, in hex.
    pub sha256: String,
    /// The withdrawn windows: the one that was named, and those that repeated its file as unchanged.
    pub windows: Vec<DateTime<Utc>>,
    /// Whether no window of the file is left, so that the file is withdrawn too.
    pub file_withdrawn: bool,
    /// Row versions that only this file held, which are deleted.
    pub versions_deleted: u64,
    /// Row versions that the file stored and that other files hold too, which stay.
    pub versions_kept: u64,
    /// Lots whose values were computed again.
    pub lots_recomputed: u64,
    /// Lots that no other file holds, which are deleted.
    pub lots_deleted: u64,
    /// Vehicles whose values were computed again.
    pub vehicles_recomputed: u64,
    /// Vehicles that no other file holds, which are deleted.
    pub vehicles_deleted: u64,
    /// Lots that got another status.
    pub statuses_changed: u64,
    /// Windows that have another state without this file, such as late ones that are in order now.
    pub windows_changed: Vec<DateTime<Utc>>,
    /// The newest window that is left; none if the source has no other file.
    pub newest_window: Option<DateTime<Utc>>,
}

/// Receives the name of the phase under way, how much of it is done, and how much there is.
pub type WithdrawalObserver = Box<dyn Fn(&'static str, u64, u64) + Send + Sync>;
