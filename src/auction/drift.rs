//! Detects columns whose values can no longer be read: drift, and unreadable key columns.
//!
//! A value is unreadable if it is present and cannot be parsed for its column. An empty value is readable. A column
//! drifts when most of its values are unreadable that were readable before. The consequence is the column's policy in
//! the mapping of the source ([`super::mapping`]): a warning, or the file is refused. The key columns are judged over
//! every row, changed or not: a file with unreadable keys must not replace known data.

use super::Column;
use super::blank::trim_blanks;
use super::instant::parse_update_time;
use super::reader::FeedRecord;
use serde::Deserialize;

/// Minimum number of new and changed rows in a file before its columns are judged.
pub const MIN_JUDGED_ROWS: u64 = 200;
/// Upper bound of the usual share of unreadable values, in percent. Only a column below the bound can drift.
const MAX_USUAL_PERCENT: u64 = 5;

/// The consequence of column drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// Report a warning and apply the file.
    #[default]
    Warn,
    /// Quarantine the file.
    Refuse,
}

impl DriftPolicy {
    /// Returns the policy's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            DriftPolicy::Warn => "warn",
            DriftPolicy::Refuse => "refuse",
        }
    }
}

/// The policy of each column, in the order of [`Column::ALL`].
pub type DriftPolicies = [DriftPolicy; Column::COUNT];

/// Number of unreadable values of a column, among the rows whose values were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnreadableShare {
    /// Values that could not be read.
    pub unreadable: u64,
    /// New and changed rows, whose values were read.
    pub rows: u64,
}

impl UnreadableShare {
    /// Returns true if the column drifted since the last complete file, whose share is `before`: more than half of at
    /// least [`MIN_JUDGED_ROWS`] rows are unreadable, and less than 5 % were.
    pub fn has_drifted(self, before: UnreadableShare) -> bool {
        let usual = before.unreadable == 0 || before.unreadable * 100 < MAX_USUAL_PERCENT * before.rows;
        self.rows >= MIN_JUDGED_ROWS && self.unreadable * 2 > self.rows && usual
    }
}

/// Number of rows of a file in which a key column is unreadable.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnreadableKeys {
    lot_number: u64,
    last_updated_time: u64,
}

impl UnreadableKeys {
    /// Counts the unreadable keys of a row. A VIN is always readable: a VIN of no known form yields no vehicle and is
    /// not a read error.
    pub fn record_row(&mut self, record: &FeedRecord<'_>, has_lot: bool) {
        if !has_lot && !trim_blanks(record.get(Column::LotNumber)).is_empty() {
            self.lot_number += 1;
        }
        let updated = record.get(Column::LastUpdatedTime);
        if !has_usual_form(updated.as_bytes()) {
            let updated = trim_blanks(updated);
            self.last_updated_time += u64::from(!updated.is_empty() && parse_update_time(updated).is_none());
        }
    }

    /// Returns the key column that is unreadable in more than half of `rows` rows, with the number of such rows.
    pub fn mostly_unreadable(self, rows: u64) -> Option<(Column, u64)> {
        [(Column::LotNumber, self.lot_number), (Column::LastUpdatedTime, self.last_updated_time)]
            .into_iter()
            .find(|(_, unreadable)| unreadable * 2 > rows)
    }
}

/// Returns true for an update time in the usual form, `2025-10-14T07:01:00Z`. Days after the 28th need the full parser,
/// which checks the length of the month.
fn has_usual_form(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 20]>::try_from(text) else { return false };
    let two = |at: usize| {
        let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
        if tens <= 9 && ones <= 9 { 10 * tens + ones } else { u8::MAX }
    };
    let marks = text[4] == b'-' && text[7] == b'-' && text[10] == b'T' && text[13] == b':' && text[16] == b':';
    let date = (19..=99).contains(&two(0)) && two(2) <= 99 && (1..=12).contains(&two(5)) && (1..=28).contains(&two(8));
    marks && text[19] == b'Z' && date && two(11) <= 23 && two(14) <= 59 && two(17) <= 59
}

#[cfg(test)]
mod tests {
    use super::super::fixture::civic_fixture;
    use super::*;

    #[test]
    fn a_column_drifts_when_most_of_200_values_are_unreadable_that_were_readable_before() {
        let share = |unreadable, rows| UnreadableShare { unreadable, rows };
        let fine = share(0, 5_000);
        assert!(share(101, 200).has_drifted(fine));
        assert!(share(101, 200).has_drifted(share(0, 0)), "the last complete file changed nothing");
        assert!(!share(100, 200).has_drifted(fine), "half is not more than half");
        assert!(!share(199, 199).has_drifted(fine), "too few rows");
        assert!(share(200, 200).has_drifted(share(249, 5_000)));
        assert!(!share(200, 200).has_drifted(share(250, 5_000)), "5 % were unreadable before");
    }

    #[test]
    fn a_key_column_is_unreadable_where_a_value_is_there_that_cannot_be_read() {
        for (column, value, unreadable) in [
            (Column::LotNumber, "45148624", None),
            (Column::LotNumber, "", None),
            (Column::LotNumber, "LOT-1", Some(Column::LotNumber)),
            (Column::Vin, "NO VIN AT ALL", None),
            (Column::Vin, "", None),
            (Column::LastUpdatedTime, "2025-10-14T07:01:00Z", None),
            (Column::LastUpdatedTime, "2025-10-31T07:01:00Z", None),
            (Column::LastUpdatedTime, " 2025-10-14T07:01:00Z ", None),
            (Column::LastUpdatedTime, "", None),
            (Column::LastUpdatedTime, "2025-13-14T07:01:00Z", Some(Column::LastUpdatedTime)),
            (Column::LastUpdatedTime, "2025-02-30T07:01:00Z", Some(Column::LastUpdatedTime)),
            (Column::LastUpdatedTime, "2025-10-14T24:01:00Z", Some(Column::LastUpdatedTime)),
            (Column::LastUpdatedTime, "yesterday at seven..", Some(Column::LastUpdatedTime)),
        ] {
            let mut keys = UnreadableKeys::default();
            civic_fixture().with_value(column.name(), value).with_record(|record| {
                let has_lot = record.get(Column::LotNumber).bytes().all(|b| b.is_ascii_digit());
                keys.record_row(record, has_lot && !record.get(Column::LotNumber).is_empty());
            });
            assert_eq!(keys.mostly_unreadable(1).map(|(column, _)| column), unreadable, "{column:?} {value:?}");
            assert_eq!(keys.mostly_unreadable(2), None, "one of two is not more than half");
        }
    }

    #[test]
    fn a_time_in_the_usual_form_is_one_that_the_full_rule_reads() {
        for text in ["2025-10-14T07:01:00Z", "1900-01-01T00:00:00Z", "9999-12-28T23:59:59Z"] {
            assert!(has_usual_form(text.as_bytes()) && parse_update_time(text).is_some(), "{text}");
        }
        for text in
            ["2025-10-14T07:01:60Z", "2025-00-14T07:01:00Z", "2025-10-00T07:01:00Z", "2025-10-14 07:01:00Z", "x"]
        {
            assert!(!has_usual_form(text.as_bytes()), "{text}");
        }
    }
}
