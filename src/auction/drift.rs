//! Columns whose values are no longer understood: drift, and key columns without which a file is not applied.
//!
//! A value is unreadable if it is there and its column cannot be read from it; an empty value is readable. The feed drifts
//! when most values of a column are unreadable that were readable before. What follows is the column's contract, which the
//! mapping of the source names ([`super::mapping`]): a warning, or the file is refused. Of the key columns every row is judged, changed or not, since a file whose keys are
//! not understood must not replace what is known.

use super::Column;
use super::blank::trim_blanks;
use super::instant::update_time;
use super::reader::Record;
use serde::Deserialize;

/// A file with fewer new and changed rows says nothing about a column.
pub const JUDGED_ROWS: u64 = 200;
/// A column drifts from a smaller share of unreadable values than this, in percent.
const USUAL_PERCENT: u64 = 5;

/// What follows when a column drifts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// A warning; the file is applied.
    #[default]
    Warn,
    /// The file is quarantined.
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

/// How many of the values of a column that were read could not be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnreadableShare {
    /// Values that could not be read.
    pub unreadable: u64,
    /// Rows whose values were read: new and changed ones.
    pub rows: u64,
}

impl UnreadableShare {
    /// Returns true if the column drifted since the last complete file, of which `before` is the share: more than half of
    /// at least [`JUDGED_ROWS`] rows are unreadable, and less than 5 % were.
    pub fn has_drifted(self, before: UnreadableShare) -> bool {
        let usual = before.unreadable == 0 || before.unreadable * 100 < USUAL_PERCENT * before.rows;
        self.rows >= JUDGED_ROWS && self.unreadable * 2 > self.rows && usual
    }
}

/// Counts of rows in which a key column is unreadable, over all rows of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnreadableKeys {
    lot_number: u64,
    last_updated_time: u64,
}

impl UnreadableKeys {
    /// Notes a row. A VIN can be read whatever its form: one of no known form makes no vehicle, and is no reading error.
    pub fn note(&mut self, record: &Record<'_>, has_lot: bool) {
        if !has_lot && !trim_blanks(record.get(Column::LotNumber)).is_empty() {
            self.lot_number += 1;
        }
        let updated = record.get(Column::LastUpdatedTime);
        if !has_usual_form(updated.as_bytes()) {
            let updated = trim_blanks(updated);
            self.last_updated_time += u64::from(!updated.is_empty() && update_time(updated).is_none());
        }
    }

    /// Returns the key column that is unreadable in more than half of `rows` rows, and in how many.
    pub fn mostly_unreadable(self, rows: u64) -> Option<(Column, u64)> {
        [(Column::LotNumber, self.lot_number), (Column::LastUpdatedTime, self.last_updated_time)]
            .into_iter()
            .find(|(_, unreadable)| unreadable * 2 > rows)
    }
}

/// Returns true for an update time in the form that nearly all have, `2025-10-14T07:01:00Z`. Days after the 28th are left
/// to the full rule, which knows the months.
fn has_usual_form(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 20]>::try_from(text) else { return false };
    let two = |at: usize| {
        let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
        if tens <= 9 && ones <= 9 { 10 * tens + ones } else { u8::MAX }
    };
    let marks =
        text[4] == b'-' && text[7] == b'-' && text[10] == b'T' && text[13] == b':' && text[16] == b':';
    let date = (19..=99).contains(&two(0))
        && two(2) <= 99
        && (1..=12).contains(&two(5))
        && (1..=28).contains(&two(8));
    marks && text[19] == b'Z' && date && two(11) <= 23 && two(14) <= 59 && two(17) <= 59
}

#[cfg(test)]
mod tests {
    use super::super::specimen::civic;
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
            civic().with(column.name(), value).read(|record| {
                let has_lot = record.get(Column::LotNumber).bytes().all(|b| b.is_ascii_digit());
                keys.note(record, has_lot && !record.get(Column::LotNumber).is_empty());
            });
            assert_eq!(
                keys.mostly_unreadable(1).map(|(column, _)| column),
                unreadable,
                "{column:?} {value:?}"
            );
            assert_eq!(keys.mostly_unreadable(2), None, "one of two is not more than half");
        }
    }

    #[test]
    fn a_time_in_the_usual_form_is_one_that_the_full_rule_reads() {
        for text in ["2025-10-14T07:01:00Z", "1900-01-01T00:00:00Z", "9999-12-28T23:59:59Z"] {
            assert!(has_usual_form(text.as_bytes()) && update_time(text).is_some(), "{text}");
        }
        for text in [
            "2025-10-14T07:01:60Z",
            "2025-00-14T07:01:00Z",
            "2025-10-00T07:01:00Z",
            "2025-10-14 07:01:00Z",
            "x",
        ] {
            assert!(!has_usual_form(text.as_bytes()), "{text}");
        }
    }
}
