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
pub enum LifecycleStatus {
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

impl LifecycleStatus {
    /// Returns the value in `lots.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            LifecycleStatus::Active => "active",
            LifecycleStatus::Scheduled => "scheduled",
            LifecycleStatus::PendingResult => "PENDING_RESULT",
            LifecycleStatus::Removed => "removed",
        }
    }

    /// Returns true if the lot is no longer expected in the feed.
    pub fn is_closed(self) -> bool {
        matches!(self, LifecycleStatus::PendingResult | LifecycleStatus::Removed)
    }
}

/// The lifecycle of a lot according to the files so far.
#[derive(Clone, Copy, Default)]
pub(super) struct LotLifecycle {
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
    pub(super) status: LifecycleStatus,
}

impl LotLifecycle {
    /// Records that a file of this window contains the lot, with this auction (0 for none). Returns true if a closed
    /// lot came back.
    pub(super) fn record_presence(&mut self, window: i32, auction: i32) -> bool {
        let back = self.last_seen != 0 && self.status.is_closed();
        let status = if auction > window { LifecycleStatus::Scheduled } else { LifecycleStatus::Active };
        let first_seen = if self.last_seen == 0 { window } else { self.first_seen };
        *self = LotLifecycle { first_seen, last_seen: window, in_last_file: true, status, ..LotLifecycle::default() };
        back
    }

    /// Records that a complete file of this window lacks the lot. Returns the new status, or None if the status is
    /// unchanged.
    pub(super) fn record_absence(&mut self, window: i32, auction: i32) -> Option<LifecycleStatus> {
        const HOUR_MINUTES: i32 = 60;
        self.in_last_file = false;
        if self.absences == 0 {
            self.absent_since = window;
        }
        self.absences = self.absences.saturating_add(1);
        if self.status.is_closed() {
            return None;
        }
        let to = if auction != 0 && auction + 2 * HOUR_MINUTES <= window {
            LifecycleStatus::PendingResult
        } else if self.absences >= 3 && (auction == 0 || auction > self.absent_since + 24 * HOUR_MINUTES) {
            LifecycleStatus::Removed
        } else if self.status == LifecycleStatus::Scheduled && auction <= window {
            LifecycleStatus::Active
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

    const FIRST_WINDOW: i32 = 30_000_000;

    #[test]
    fn a_lot_that_vanishes_after_its_auction_becomes_pending_two_hours_after_it() {
        let mut life = LotLifecycle::default();
        life.record_presence(FIRST_WINDOW, FIRST_WINDOW + 60);
        assert_eq!(life.status, LifecycleStatus::Scheduled);
        assert_eq!(life.record_absence(FIRST_WINDOW + 60, FIRST_WINDOW + 60), Some(LifecycleStatus::Active));
        assert_eq!(life.record_absence(FIRST_WINDOW + 165, FIRST_WINDOW + 60), None);
        assert_eq!(life.record_absence(FIRST_WINDOW + 180, FIRST_WINDOW + 60), Some(LifecycleStatus::PendingResult));
        assert!(life.record_presence(FIRST_WINDOW + 195, FIRST_WINDOW + 3000));
        assert_eq!(life.status, LifecycleStatus::Scheduled);
    }

    #[test]
    fn a_lot_without_a_date_is_removed_at_its_third_absence() {
        let mut life = LotLifecycle::default();
        life.record_presence(FIRST_WINDOW, 0);
        assert_eq!(life.record_absence(FIRST_WINDOW + 15, 0), None);
        assert_eq!(life.record_absence(FIRST_WINDOW + 30, 0), None);
        assert_eq!(life.record_absence(FIRST_WINDOW + 45, 0), Some(LifecycleStatus::Removed));
        assert_eq!(life.record_absence(FIRST_WINDOW + 60, 0), None);
    }

    #[test]
    fn a_lot_that_vanishes_within_a_day_of_its_auction_waits_for_it() {
        let auction = FIRST_WINDOW + 15 + 24 * 60;
        let mut life = LotLifecycle::default();
        life.record_presence(FIRST_WINDOW, auction);
        for n in 1..=96 {
            assert_eq!(life.record_absence(FIRST_WINDOW + 15 * n, auction), None);
        }
        assert_eq!(life.record_absence(FIRST_WINDOW + 15 * 97, auction), Some(LifecycleStatus::Active));
        assert_eq!(life.record_absence(auction + 120, auction), Some(LifecycleStatus::PendingResult));
    }
}
