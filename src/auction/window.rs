//! The window of a file that was not fetched, from the file's path or from the clock of its snapshot.
//!
//! `Create Date/Time` is written as `2026-11-27-02.10.06.000795` in US Pacific time, on a 12-hour clock without AM or
//! PM, about five minutes before the file's window. One clock therefore has two instants, half a day apart. An instant
//! is *possible* if it is neither before the file's greatest `Last Updated Time`, since no row can be newer than the
//! snapshot, nor ahead of the present. Each instant is rounded to the nearest quarter-hour. The rounding moves it by up
//! to 7.5 minutes, so it is possible if either the instant or its quarter-hour is. In the hour that Pacific clocks show
//! twice, both readings count. A clock is used only if all rows of the file share it.

use super::Column;
use super::instant::parse_update_time;
use super::mapping::SourceMapping;
use super::reader::{ReaderLimits, RecordItem, RecordReader};
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Timelike, Utc};
use chrono_tz::America::Los_Angeles;
use std::io::{self, Read};
use std::path::Path;

/// Length of a window: a quarter of an hour.
pub const WINDOW_INTERVAL: std::time::Duration = std::time::Duration::from_secs(900);
/// Length of a window, in seconds.
const WINDOW_SECONDS: i64 = WINDOW_INTERVAL.as_secs() as i64;
/// Maximum time from the present to the start of a window.
const AHEAD_MARGIN: Duration = Duration::minutes(15);
/// Maximum distance of a window from the nearer instant of its file's clock.
const CLOCK_MARGIN: Duration = Duration::hours(36);

/// The times recorded in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileClock {
    /// `Create Date/Time`, if all readable records share one value that is a valid clock.
    pub clock: Option<String>,
    /// The greatest `Last Updated Time` of the file's records.
    pub greatest_update: Option<DateTime<Utc>>,
}

/// The error for a file without a valid window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Neither path nor clock gives a window.
    #[error(
        "the file names no window\ndetail: its path does not end in YYYY/MM/DD/HHmm.csv, and its column \"Create \
         Date/Time\" is not one clock for all rows\nhint: name the window with --window"
    )]
    Unnamed,
    /// The clock does not have exactly one possible instant.
    #[error(
        "the file's clock {clock:?} does not name one window\ndetail: the clock shows {} in UTC, and {}\nhint: name \
         the window with --window",
        join_windows(.candidates, " or "),
        if *.possible == 0 { "none of them is possible" } else { "more than one of them is possible" }
    )]
    Ambiguous {
        /// The text of the clock in the file.
        clock: String,
        /// The nearest quarter-hours of the clock's instants.
        candidates: Vec<DateTime<Utc>>,
        /// Number of possible instants.
        possible: usize,
    },
    /// The window has not begun.
    #[error(
        "window {} is more than 15 minutes ahead of the database's clock\ndetail: the clock shows {}\nhint: name \
         the right window with --window, or accept this one with --even-so --reason \"…\"",
        format_time(*.window),
        format_time(*.now)
    )]
    Ahead {
        /// The start of the window.
        window: DateTime<Utc>,
        /// The database's clock.
        now: DateTime<Utc>,
    },
    /// The window is too far from the file's clock.
    #[error(
        "window {} is more than 36 hours from the file's clock {clock:?}\ndetail: the clock shows {} in UTC\nhint: \
         name the right window with --window, or accept this one with --even-so --reason \"…\"",
        format_time(*.window),
        join_windows(.candidates, " or ")
    )]
    FarFromClock {
        /// The start of the window.
        window: DateTime<Utc>,
        /// The text of the clock in the file.
        clock: String,
        /// The nearest quarter-hours of the clock's instants.
        candidates: Vec<DateTime<Utc>>,
    },
}

fn format_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn join_windows(windows: &[DateTime<Utc>], between: &str) -> String {
    windows.iter().map(|at| format_time(*at)).collect::<Vec<_>>().join(between)
}

/// Returns the start of the quarter-hour that contains `time`.
pub fn floor_to_window(time: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = time.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(WINDOW_SECONDS), 0).unwrap_or(time)
}

/// Returns the start of the quarter-hour nearest to `time`.
fn nearest_window(time: DateTime<Utc>) -> DateTime<Utc> {
    floor_to_window(time + Duration::seconds(WINDOW_SECONDS / 2))
}

/// Returns the time, in UTC, of a path that ends in `YYYY/MM/DD/HHmm.csv`.
pub fn parse_path_time(path: &Path) -> Option<DateTime<Utc>> {
    let mut parts = path.iter().rev().map(|part| part.to_str());
    let mut digits = |suffix: &str, len: usize| {
        let part = parts.next()??.strip_suffix(suffix)?;
        let plain = part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u32>().ok())?
    };
    let time = digits(".csv", 4)?;
    let (day, month, year) = (digits("", 2)?, digits("", 2)?, digits("", 4)?);
    let date = NaiveDate::from_ymd_opt(year.try_into().ok()?, month, day)?;
    Some(date.and_hms_opt(time / 100, time % 100, 0)?.and_utc())
}

/// Returns the instants at which 12-hour Pacific clocks show `clock`, the earliest first. Empty if the text is not such
/// a clock.
pub fn clock_instants(clock: &str) -> Vec<DateTime<Utc>> {
    let Ok(shown) = NaiveDateTime::parse_from_str(clock.trim(), "%Y-%m-%d-%H.%M.%S%.f") else {
        return Vec::new();
    };
    if !(1..=12).contains(&shown.hour()) {
        return Vec::new();
    }
    let morning = shown - Duration::hours(if shown.hour() == 12 { 12 } else { 0 });
    let mut instants = Vec::new();
    for local in [morning, morning + Duration::hours(12)] {
        let at = Los_Angeles.from_local_datetime(&local);
        instants.extend(at.earliest().map(|at| at.to_utc()));
        instants.extend(at.latest().map(|at| at.to_utc()));
    }
    instants.dedup();
    instants
}

impl FileClock {
    /// Reads a file to its end, by the mapping of its source. The result for a file without a feed header is empty.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn read_file(file: impl Read, mapping: &'static SourceMapping) -> io::Result<FileClock> {
        let mut found = FileClock::default();
        let Ok(mut reader) = RecordReader::new(file, ReaderLimits::default(), mapping) else {
            return Ok(found);
        };
        let mut shared = true;
        while let Some(item) = reader.next_item()? {
            let RecordItem::Row(record) = item else { continue };
            let clock = record.get(Column::CreateDateTime);
            match &found.clock {
                None => found.clock = Some(clock.to_owned()),
                Some(first) => shared &= first == clock,
            }
            found.greatest_update =
                found.greatest_update.max(parse_update_time(record.get(Column::LastUpdatedTime).trim()));
        }
        found.clock = found.clock.filter(|clock| shared && !clock_instants(clock).is_empty());
        Ok(found)
    }

    /// Returns the window of a file: `named` (a flag or a path), otherwise the window of the file's clock.
    ///
    /// # Errors
    /// Returns an error if neither gives exactly one window.
    pub fn select_window(
        &self,
        named: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, WindowError> {
        if let Some(named) = named {
            return Ok(floor_to_window(named));
        }
        let Some(clock) = &self.clock else { return Err(WindowError::Unnamed) };
        let instants = clock_instants(clock);
        let possible: Vec<DateTime<Utc>> = instants
            .iter()
            .copied()
            .filter(|at| {
                let window = nearest_window(*at);
                let (first, last) = (window.min(*at), window.max(*at));
                self.greatest_update.is_none_or(|update| last >= update) && first <= now
            })
            .collect();
        match possible[..] {
            [at] => Ok(nearest_window(at)),
            _ => Err(WindowError::Ambiguous {
                clock: clock.clone(),
                candidates: instants.into_iter().map(nearest_window).collect(),
                possible: possible.len(),
            }),
        }
    }

    /// Checks that a window is plausible for this file.
    ///
    /// # Errors
    /// Returns an error if the window is more than 15 minutes ahead of `now`, or more than 36 hours from the nearer
    /// instant of the file's clock.
    pub fn check_window(&self, window: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), WindowError> {
        if window > now + AHEAD_MARGIN {
            return Err(WindowError::Ahead { window, now });
        }
        let Some(clock) = &self.clock else { return Ok(()) };
        let candidates: Vec<DateTime<Utc>> = clock_instants(clock).into_iter().map(nearest_window).collect();
        let far = candidates.iter().all(|at| (window - *at).abs() > CLOCK_MARGIN);
        if far { Err(WindowError::FarFromClock { window, clock: clock.clone(), candidates }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::civic_fixture;
    use super::*;

    fn parse_time(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    fn file_clock(clock: &str, update: &str) -> FileClock {
        FileClock { clock: Some(clock.to_owned()), greatest_update: Some(parse_time(update)) }
    }

    #[test]
    fn a_clock_of_twelve_hours_has_two_instants_half_a_day_apart() {
        for (clock, instants) in [
            ("2026-11-27-02.10.06.000795", ["2026-11-27T10:10:06.000795Z", "2026-11-27T22:10:06.000795Z"]),
            ("2026-07-01-12.55.00.000000", ["2026-07-01T07:55:00Z", "2026-07-01T19:55:00Z"]),
            // The clocks go forward between the two.
            ("2026-03-08-01.00.00.000000", ["2026-03-08T09:00:00Z", "2026-03-08T20:00:00Z"]),
        ] {
            assert_eq!(clock_instants(clock), instants.map(parse_time), "{clock}");
        }
        // A skipped hour has one instant. An hour shown twice has a third.
        assert_eq!(clock_instants("2026-03-08-02.30.00.000000"), [parse_time("2026-03-08T21:30:00Z")]);
        assert_eq!(
            clock_instants("2026-11-01-01.30.00.000000"),
            ["2026-11-01T08:30:00Z", "2026-11-01T09:30:00Z", "2026-11-01T21:30:00Z"].map(parse_time)
        );
        for none in ["", "2026-11-27-14.10.06.000795", "2026-11-27-00.10.06.000795", "2026-11-27 02:10:06", "x"] {
            assert!(clock_instants(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_clock_names_the_window_nearest_to_its_only_possible_instant() {
        let clock = file_clock("2026-11-27-02.10.06.000795", "2026-11-27T07:01:00Z");
        assert_eq!(
            clock.select_window(None, parse_time("2026-11-27T20:00:00Z")),
            Ok(parse_time("2026-11-27T10:15:00Z"))
        );
        // The morning instant is before the newest row.
        let evening = file_clock("2026-11-27-02.10.06.000795", "2026-11-27T11:00:00Z");
        assert_eq!(
            evening.select_window(None, parse_time("2026-11-30T00:00:00Z")),
            Ok(parse_time("2026-11-27T22:15:00Z"))
        );
        let down = file_clock("2026-11-27-02.07.00.000000", "2026-11-27T10:06:00Z");
        assert_eq!(
            down.select_window(None, parse_time("2026-11-27T10:20:00Z")),
            Ok(parse_time("2026-11-27T10:00:00Z"))
        );
    }

    #[test]
    fn a_clock_with_two_possible_instants_or_none_names_both_and_asks_for_the_flag() {
        let clock = file_clock("2026-11-27-02.10.06.000795", "2026-11-27T07:01:00Z");
        let both = clock.select_window(None, parse_time("2026-11-28T00:00:00Z")).unwrap_err();
        assert_eq!(
            both.to_string(),
            "the file's clock \"2026-11-27-02.10.06.000795\" does not name one window\ndetail: the clock shows \
             2026-11-27T10:15:00Z or 2026-11-27T22:15:00Z in UTC, and more than one of them is possible\nhint: name \
             the window with --window"
        );
        let none = clock.select_window(None, parse_time("2026-11-27T09:00:00Z")).unwrap_err();
        assert!(matches!(none, WindowError::Ambiguous { possible: 0, .. }), "{none}");
        assert_eq!(
            FileClock::default().select_window(None, parse_time("2026-11-28T00:00:00Z")),
            Err(WindowError::Unnamed)
        );
        // A window from a flag or a path is only rounded down.
        let named = clock.select_window(Some(parse_time("2026-11-20T14:59:59Z")), parse_time("2026-11-28T00:00:00Z"));
        assert_eq!(named, Ok(parse_time("2026-11-20T14:45:00Z")));
    }

    #[test]
    fn a_window_ahead_of_the_present_or_far_from_the_clock_is_refused() {
        let clock = file_clock("2026-11-27-02.10.06.000795", "2026-11-27T07:01:00Z");
        let now = parse_time("2026-11-30T12:00:00Z");
        for (window, refused) in [
            ("2026-11-27T10:15:00Z", false),
            ("2026-11-25T22:15:00Z", false),
            ("2026-11-25T22:00:00Z", true),
            ("2026-11-29T10:15:00Z", false),
            ("2026-11-29T10:30:00Z", true),
        ] {
            let checked = clock.check_window(parse_time(window), now);
            assert_eq!(matches!(checked, Err(WindowError::FarFromClock { .. })), refused, "{window}");
        }
        let none = FileClock::default();
        assert_eq!(none.check_window(parse_time("2026-11-30T12:15:00Z"), now), Ok(()));
        assert!(matches!(none.check_window(parse_time("2026-11-30T12:30:00Z"), now), Err(WindowError::Ahead { .. })));
        assert_eq!(none.check_window(parse_time("1990-01-01T00:00:00Z"), now), Ok(()));
    }

    #[test]
    fn only_a_clock_that_all_rows_share_is_the_files() {
        let row = civic_fixture();
        let bytes = |rows: &[&super::super::fixture::RowFixture]| {
            let mut file = rows[0].to_csv();
            for row in &rows[1..] {
                let whole = row.to_csv();
                let line_end = whole.iter().position(|byte| *byte == b'\n').unwrap();
                file.extend_from_slice(&whole[line_end + 1..]);
            }
            file
        };
        let later = row.clone().with_value("Last Updated Time", "2025-10-14T09:30:00Z");
        let one =
            FileClock::read_file(&bytes(&[&row, &later, &row])[..], super::super::mapping::copart_mapping()).unwrap();
        assert_eq!(one, file_clock("2025-10-14-08.55.06.000795", "2025-10-14T09:30:00Z"));
        let other = row.clone().with_value("Create Date/Time", "2025-10-14-08.55.07.000000");
        assert_eq!(
            FileClock::read_file(&bytes(&[&row, &other])[..], super::super::mapping::copart_mapping()).unwrap().clock,
            None
        );
        let empty = row.clone().with_value("Create Date/Time", "");
        assert_eq!(
            FileClock::read_file(&bytes(&[&empty])[..], super::super::mapping::copart_mapping()).unwrap().clock,
            None
        );
        for none in [&b""[..], b"<html></html>", b"Id,a\n1,2\n"] {
            assert_eq!(
                FileClock::read_file(none, super::super::mapping::copart_mapping()).unwrap(),
                FileClock::default()
            );
        }
    }

    #[test]
    fn a_path_names_a_window_by_its_last_four_parts() {
        let named = |path: &str| parse_path_time(Path::new(path)).map(floor_to_window);
        assert_eq!(named("/any/copart/2026/11/20/1437.csv"), Some(parse_time("2026-11-20T14:30:00Z")));
        assert_eq!(named("2024/02/29/2345.csv"), Some(parse_time("2024-02-29T23:45:00Z")));
        for other in [
            "salesdata.csv",
            "2026/11/20/1430.txt",
            "2026/11/20/14300.csv",
            "2026/13/20/1430.csv",
            "2025/02/29/1430.csv",
            "2026/11/20/2430.csv",
            "2026/11/20/1460.csv",
            "2026/11/+2/1430.csv",
            "26/11/20/1430.csv",
            "11/20/1430.csv",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn the_quarter_hour_before_1970_is_floored_too() {
        assert_eq!(floor_to_window(parse_time("1969-12-31T23:50:00Z")), parse_time("1969-12-31T23:45:00Z"));
    }
}
