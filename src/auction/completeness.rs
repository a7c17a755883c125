//! Decides whether a file contains the whole feed, by its share of recognised lot numbers and by its size.
//!
//! A lot that is missing from a complete file is absent, and absence closes lots. A complete file therefore needs two
//! things. Its lot numbers are recognised in at least 95 % of its records, which is at most 5 points below any other
//! file. It has at least 70 % of the median row count of the last three complete files. Incomplete files are not used
//! as a reference for others. A smaller size becomes the reference when an operator accepts it, or automatically once
//! files were too small, with no other defect, for 24 hours of windows.
//!
//! A source that sends only changes has files of any size. Such a file is judged by its lot numbers alone, and never
//! used to judge absence.

use chrono::{DateTime, TimeDelta, Utc};

/// Maximum number of earlier sizes that a file is compared with.
pub const MAX_COMPARED_FILES: usize = 3;
/// Time after which a size that stays small is accepted.
pub const SIZE_ACCEPTANCE_DELAY: TimeDelta = TimeDelta::hours(24);
/// Minimum share of recognised lots in a complete file, in percent.
const MIN_COMPLETE_PERCENT: u64 = 95;
/// Minimum share of recognised lots in a file that is applied, in percent.
const MIN_APPLIED_PERCENT: u64 = 50;

/// Number of records with a readable lot number, among all records of a file. Rejected records are included in the
/// total, and in the recognised ones if their lot number can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecognisedLots {
    /// Records with a readable lot number.
    pub recognised: u64,
    /// All records, rejected ones included.
    pub records: u64,
}

impl RecognisedLots {
    /// Returns the share in percent, or 100 for a file without records.
    pub fn percent(self) -> f64 {
        if self.records == 0 { 100.0 } else { 100.0 * self.recognised as f64 / self.records as f64 }
    }

    /// Returns true if the share is too small for the file to be applied.
    pub fn is_unusable(self) -> bool {
        self.recognised * 100 < MIN_APPLIED_PERCENT * self.records
    }

    /// Returns true if absence may be judged by a file with this share. This includes the rule that the share may not
    /// fall by more than 5 points against the last complete file: from at most 100 %, such a fall ends below 95 %.
    fn is_sufficient(self) -> bool {
        self.recognised * 100 >= MIN_COMPLETE_PERCENT * self.records
    }
}

/// The files of the same source up to a file's window, which the file is compared with.
#[derive(Clone, Debug, Default)]
pub struct EarlierFiles {
    /// Row counts of the last complete files and of the accepted size, newest first, at most [`MAX_COMPARED_FILES`].
    pub complete_sizes: Vec<i32>,
    /// The window of the first file since the last complete one that was too small and had no other defect.
    pub small_since: Option<DateTime<Utc>>,
    /// Row counts of the newest such files, newest first, at most [`MAX_COMPARED_FILES`].
    pub small_sizes: Vec<i32>,
}

/// The result of judging a file's completeness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// The file seems to contain the whole feed.
    #[default]
    Complete,
    /// Complete at a smaller size, which is the reference from now on: the feed stayed small for
    /// [`SIZE_ACCEPTANCE_DELAY`].
    SizeAccepted,
    /// Too few rows, with no other defect.
    TooSmall,
    /// Too few recognised lots, with any number of rows.
    TooFewLots,
}

impl Completeness {
    /// Returns true if a lot that is missing from the file is absent.
    pub fn is_complete(self) -> bool {
        matches!(self, Completeness::Complete | Completeness::SizeAccepted)
    }

    /// Returns the value of `raw.csv_files.incomplete_reason`, or None for a complete file.
    pub fn incomplete_reason(self) -> Option<&'static str> {
        match self {
            Completeness::Complete | Completeness::SizeAccepted => None,
            Completeness::TooSmall => Some("size"),
            Completeness::TooFewLots => Some("lots"),
        }
    }
}

/// Returns the completeness of a snapshot of `window` with `rows` readable rows.
pub fn judge_snapshot(window: DateTime<Utc>, rows: u64, lots: RecognisedLots, earlier: &EarlierFiles) -> Completeness {
    if !lots.is_sufficient() {
        return Completeness::TooFewLots;
    }
    if has_usual_size(rows, &earlier.complete_sizes) {
        return Completeness::Complete;
    }
    let small_for = earlier.small_since.map(|since| window - since);
    // A file far smaller than the earlier small ones does not show that the feed has their size.
    if small_for.is_some_and(|time| time >= SIZE_ACCEPTANCE_DELAY) && has_usual_size(rows, &earlier.small_sizes) {
        return Completeness::SizeAccepted;
    }
    Completeness::TooSmall
}

/// Returns the completeness of a file of changes, whose row count is not used.
pub fn judge_changes(lots: RecognisedLots) -> Completeness {
    if lots.is_sufficient() { Completeness::Complete } else { Completeness::TooFewLots }
}

/// Returns true if `rows` is at least 70 % of the median of these sizes, or if there are none. The median of two sizes
/// is the greater one: wrongly doubting a whole file costs a quarter-hour, wrongly accepting half a file closes lots.
fn has_usual_size(rows: u64, sizes: &[i32]) -> bool {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    rows * 10 >= u64::try_from(median).unwrap_or(0) * 7
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: DateTime<Utc> = DateTime::from_timestamp_secs(1_795_000_000).unwrap();

    fn recognised_lots(recognised: u64, records: u64) -> RecognisedLots {
        RecognisedLots { recognised, records }
    }

    fn judge_by_size(rows: u64, complete_sizes: &[i32]) -> Completeness {
        let earlier = EarlierFiles { complete_sizes: complete_sizes.to_vec(), ..EarlierFiles::default() };
        judge_snapshot(WINDOW, rows, recognised_lots(rows, rows), &earlier)
    }

    #[test]
    fn a_file_with_less_than_70_percent_of_the_median_of_complete_files_is_too_small() {
        use Completeness::{Complete, TooSmall};
        assert_eq!(judge_by_size(10, &[]), Complete);
        assert_eq!(judge_by_size(70, &[100, 100, 100]), Complete);
        assert_eq!(judge_by_size(69, &[100, 100, 100]), TooSmall);
        assert_eq!(judge_by_size(50, &[50, 100, 100]), TooSmall);
        assert_eq!(judge_by_size(50, &[50, 50, 100]), Complete);
        assert_eq!(judge_by_size(50, &[40, 100]), TooSmall, "of two sizes the greater one counts");
    }

    #[test]
    fn a_file_needs_95_percent_of_recognised_lots_and_so_loses_no_more_than_5_points() {
        let judged = |now| judge_snapshot(WINDOW, 1_000, now, &EarlierFiles::default()).is_complete();
        assert!(judged(recognised_lots(950, 1_000)));
        assert!(!judged(recognised_lots(949, 1_000)));
        assert!(judged(recognised_lots(95_000, 100_000)));
        assert!(!judged(recognised_lots(94_999, 100_000)));
        // A file with too few recognised lots is never reported as too small.
        let earlier = EarlierFiles { complete_sizes: vec![100], ..EarlierFiles::default() };
        assert_eq!(judge_snapshot(WINDOW, 10, recognised_lots(9, 10), &earlier), Completeness::TooFewLots);
    }

    #[test]
    fn a_file_of_changes_is_judged_by_its_lot_numbers_alone() {
        assert_eq!(judge_changes(recognised_lots(1, 1)), Completeness::Complete);
        assert_eq!(judge_changes(recognised_lots(950, 1_000)), Completeness::Complete);
        assert_eq!(judge_changes(recognised_lots(949, 1_000)), Completeness::TooFewLots);
    }

    #[test]
    fn a_file_with_less_than_half_of_its_lots_recognised_is_unusable() {
        assert!(!recognised_lots(50, 100).is_unusable());
        assert!(recognised_lots(49, 100).is_unusable());
        assert!((recognised_lots(1, 3).percent() - 33.33).abs() < 0.01);
    }

    #[test]
    fn a_size_that_stays_small_for_24_hours_of_windows_is_accepted() {
        let judged = |hours: i64, rows: u64, small_sizes: &[i32]| {
            let earlier = EarlierFiles {
                complete_sizes: vec![100, 100, 100],
                small_since: Some(WINDOW - TimeDelta::hours(hours)),
                small_sizes: small_sizes.to_vec(),
            };
            judge_snapshot(WINDOW, rows, recognised_lots(rows, rows), &earlier)
        };
        assert_eq!(judged(23, 50, &[50, 50, 50]), Completeness::TooSmall);
        assert_eq!(judged(24, 50, &[50, 50, 50]), Completeness::SizeAccepted);
        assert_eq!(judged(24, 30, &[50, 50, 50]), Completeness::TooSmall, "smaller than the small ones");
        assert_eq!(judged(24, 90, &[50, 50, 50]), Completeness::Complete);
    }
}
