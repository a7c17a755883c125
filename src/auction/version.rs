//! The order of a version among the versions of its lot.
//!
//! Versions of a lot are ordered by their update time. An update time cannot be right if it is empty, unreadable, or
//! more than a day later than the end of the first window that contains the version. One of the year 2062 would win for
//! ever. Such a version takes the start of its first window instead. It is *irregular*: an earlier window that is found
//! to contain the version moves it, so the lot is folded again from all of its stored versions.

use super::instant::parse_update_time;
use chrono::{DateTime, TimeDelta, Utc};

/// Length of a window, in minutes.
const WINDOW_MINUTES: i64 = 15;
/// Maximum time from the end of the first window to the update time, in hours.
const TOLERANCE_HOURS: i64 = 24;

/// Returns the order key of a version whose first known window starts at `window`, and whether the key is the update
/// time.
pub fn version_time(updated: Option<DateTime<Utc>>, window: DateTime<Utc>) -> (DateTime<Utc>, bool) {
    let limit = window + TimeDelta::minutes(WINDOW_MINUTES) + TimeDelta::hours(TOLERANCE_HOURS);
    match updated {
        Some(updated) if updated <= limit => (updated, true),
        _ => (window, false),
    }
}

/// Returns true if the text of `Last Updated Time` is the order key of a version in a window that starts at `window`.
pub fn has_regular_time(updated: &str, window: DateTime<Utc>) -> bool {
    version_time(parse_update_time(updated.trim()), window).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_time(time: &str) -> DateTime<Utc> {
        time.parse().unwrap()
    }

    #[test]
    fn an_update_time_orders_a_version_unless_it_is_missing_or_more_than_a_day_ahead_of_its_window() {
        let window = parse_time("2026-11-20T14:30:00Z");
        let usual = parse_time("2026-11-20T14:01:00Z");
        assert_eq!(version_time(Some(usual), window), (usual, true));
        let last = parse_time("2026-11-21T14:45:00Z");
        assert_eq!(version_time(Some(last), window), (last, true));
        assert_eq!(version_time(Some(parse_time("2026-11-21T14:45:01Z")), window), (window, false));
        assert_eq!(version_time(None, window), (window, false));
        assert!(has_regular_time(" 2026-11-20T14:01:00Z", window));
        assert!(!has_regular_time("", window) && !has_regular_time("yesterday", window));
    }
}
