//! The expected lifecycle of a lot after each file, as an independent state machine.
//!
//! The input is the content of each file and its window. The rules are applied as they are documented:
//!
//! - A lot in the file is scheduled while its auction is ahead and active otherwise.
//! - An absent lot is PENDING_RESULT once its auction is two hours past.
//! - An absent lot is removed at its third complete file without it, if it has no auction or one more than 24 hours
//!   ahead of the first of the three.
//!
//! The rule for an auction two hours past is applied before the rule for three files. All hours are those of the file's
//! window.

/// The lifecycle status of a lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub enum Status {
    /// In the feed, without a sale date ahead.
    #[default]
    Active,
    /// In the feed, with a sale date ahead.
    Scheduled,
    /// Absent, with an auction two hours past.
    PendingResult,
    /// Absent for three complete files, with no auction near.
    Removed,
}

impl Status {
    /// Returns the value in `lots.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Scheduled => "scheduled",
            Status::PendingResult => "PENDING_RESULT",
            Status::Removed => "removed",
        }
    }

    /// Returns true if the lot is no longer expected in the feed.
    pub fn closed(self) -> bool {
        matches!(self, Status::PendingResult | Status::Removed)
    }
}

/// The lifecycle of a lot according to the files so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Life {
    /// Window of the first file with the lot, in minutes since 1970, or 0 if there is none.
    pub(super) first_seen: i32,
    /// Window of the last file with the lot, in minutes since 1970, or 0 if there is none.
    pub(super) last_seen: i32,
    /// Window of the first complete file without the lot, in minutes since 1970, or 0 while the lot is in the feed.
    pub(super) absent_since: i32,
    /// Number of consecutive complete files without the lot.
    pub(super) absences: u8,
    /// True if the lot is in the last recorded file.
    pub(super) in_last_file: bool,
    /// The current status.
    pub(super) status: Status,
}

impl Life {
    /// Records that a file of this window contains the lot, with this auction (0 for none). Returns true if a closed
    /// lot came back.
    pub(super) fn seen(&mut self, window: i32, auction: i32) -> bool {
        let back = self.last_seen != 0 && self.status.closed();
        let status = if auction > window { Status::Scheduled } else { Status::Active };
        let first_seen = if self.last_seen == 0 { window } else { self.first_seen };
        *self = Life { first_seen, last_seen: window, in_last_file: true, status, ..Life::default() };
        back
    }

    /// Records that a complete file of this window lacks the lot. Returns the new status, or None if the status is
    /// unchanged.
    pub(super) fn absent(&mut self, window: i32, auction: i32) -> Option<Status> {
        const HOUR: i32 = 60;
        self.in_last_file = false;
        if self.absences == 0 {
            self.absent_since = window;
        }
        self.absences = self.absences.saturating_add(1);
        if self.status.closed() {
            return None;
        }
        let to = if auction != 0 && auction + 2 * HOUR <= window {
            Status::PendingResult
        } else if self.absences >= 3 && (auction == 0 || auction > self.absent_since + 24 * HOUR) {
            Status::Removed
        } else if self.status == Status::Scheduled && auction <= window {
            Status::Active
        } else {
            return None;
        };
        self.status = to;
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: i32 = 30_000_000;

    #[test]
    fn a_lot_that_vanishes_after_its_auction_becomes_pending_two_hours_after_it() {
        let mut life = Life::default();
        life.seen(W, W + 60);
        assert_eq!(life.status, Status::Scheduled);
        assert_eq!(life.absent(W + 60, W + 60), Some(Status::Active));
        assert_eq!(life.absent(W + 165, W + 60), None);
        assert_eq!(life.absent(W + 180, W + 60), Some(Status::PendingResult));
        assert!(life.seen(W + 195, W + 3000));
        assert_eq!(life.status, Status::Scheduled);
    }

    #[test]
    fn a_lot_without_a_date_is_removed_at_its_third_absence() {
        let mut life = Life::default();
        life.seen(W, 0);
        assert_eq!(life.absent(W + 15, 0), None);
        assert_eq!(life.absent(W + 30, 0), None);
        assert_eq!(life.absent(W + 45, 0), Some(Status::Removed));
        assert_eq!(life.absent(W + 60, 0), None);
    }

    #[test]
    fn a_lot_that_vanishes_within_a_day_of_its_auction_waits_for_it() {
        let auction = W + 15 + 24 * 60;
        let mut life = Life::default();
        life.seen(W, auction);
        for n in 1..=96 {
            assert_eq!(life.absent(W + 15 * n, auction), None);
        }
        assert_eq!(life.absent(W + 15 * 97, auction), Some(Status::Active));
        assert_eq!(life.absent(auction + 120, auction), Some(Status::PendingResult));
    }
}
