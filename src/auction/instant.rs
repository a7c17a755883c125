//! Parses days and instants in the formats that sources write, where only one interpretation is possible.
//!
//! A feed's format changes without notice (`+0000` and a missing offset have been seen beside RFC 3339), and a person
//! who repairs a file in a spreadsheet saves it in that program's format. An ambiguous value, such as a year of two
//! digits, is unreadable. So is a value that no table accepts: `infinity`, a year before 1900, a 30th of February.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveTime, TimeZone, Utc};

/// Returns the instant of a `Last Updated Time`, or None for another text. The text is a day as `YYYY-MM-DD`, `T` or a
/// blank, a time of day with or without seconds and their fraction, and an offset as `Z`, `UTC`, `+00:00`, `+0000` or
/// `+00`. A missing offset means UTC.
pub fn parse_update_time(text: &str) -> Option<DateTime<Utc>> {
    let (day, rest) = text.split_at_checked("YYYY-MM-DD".len())?;
    let day = parse_day(day, '-')?;
    let rest = rest.strip_prefix(['T', 't', ' ', '\u{a0}'])?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ',')).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(end);
    let local = day.and_time(parse_time_of_day(time)?);
    let at = parse_offset(zone.trim_start())?.from_local_datetime(&local).single()?.to_utc();
    (1900..=9999).contains(&at.year()).then_some(at)
}

/// Returns a day as the number `YYYYMMDD`, or None for another text. The text is `YYYY-MM-DD`, `YYYY/MM/DD` or
/// `MM/DD/YYYY`. Month and day may have one digit, and a midnight may follow. A day of zeros (`0000-00-00`) is 0, like
/// a missing one.
pub fn parse_day_number(text: &str) -> Option<i32> {
    let text = match text.find(['T', ' ']) {
        Some(at) => {
            let time = text[at + 1..].trim_end_matches('Z');
            let midnight = (4..=15).contains(&time.len()) && time.bytes().all(|b| matches!(b, b'0' | b':' | b'.'));
            midnight.then(|| &text[..at])?
        }
        None => text,
    };
    let separator = text.chars().find(|c| !c.is_ascii_digit())?;
    if matches!(text, "0000-00-00" | "00/00/0000") {
        return Some(0);
    }
    let day = parse_day(text, separator)?;
    let number = day.year() * 10_000 + i32::try_from(day.month() * 100 + day.day()).ok()?;
    Some(number)
}

/// Returns the time of day of `HH:MM` or `HH:MM:SS` as the number `HHMM`. Seconds must be zero. `9:05` is 905.
pub fn parse_time_number(text: &str) -> Option<i32> {
    let (hour, rest) = text.split_once(':')?;
    let (minute, second) = rest.split_once(':').unwrap_or((rest, "00"));
    let two = |text: &str| (text.len() == 2).then(|| parse_digits(text, 2))?;
    let (hour, minute) = (parse_digits(hour, 2)?, two(minute)?);
    (hour < 24 && minute < 60 && second == "00").then(|| i32::try_from(hour * 100 + minute).ok())?
}

/// Returns the day written as `YYYY-MM-DD`, `YYYY/MM/DD` or `MM/DD/YYYY`.
fn parse_day(text: &str, separator: char) -> Option<NaiveDate> {
    let mut parts = text.split(separator);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = match separator {
        '-' | '/' if first.len() == 4 => (first, second, third),
        '/' if third.len() == 4 => (third, first, second),
        _ => return None,
    };
    let year = i32::try_from(parse_digits(year, 4)?).ok().filter(|year| *year >= 1900)?;
    parts.next().is_none().then(|| NaiveDate::from_ymd_opt(year, parse_digits(month, 2)?, parse_digits(day, 2)?))?
}

/// Returns the time written as `HH:MM`, `HH:MM:SS` or `HH:MM:SS.fraction`. Digits past the nanosecond are dropped.
fn parse_time_of_day(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = match text.split_once(['.', ',']) {
        Some((clock, fraction)) if clock.len() == "HH:MM:SS".len() => (clock, fraction),
        Some(_) => return None,
        None => (text, "0"),
    };
    let mut parts = clock.split(':');
    let mut two = |part: &str| (part.len() == 2).then(|| parse_digits(part, 2))?;
    let (hour, minute) = (two(parts.next()?)?, two(parts.next()?)?);
    let second = parts.next().map_or(Some(0), &mut two)?;
    let fraction = fraction.get(..9).unwrap_or(fraction);
    let nanos = parse_digits(fraction, 9)? * 10_u32.pow(9 - u32::try_from(fraction.len()).ok()?);
    // A leap second is the last second of a minute.
    let (second, nanos) = if second == 60 { (59, 1_000_000_000 + nanos) } else { (second, nanos) };
    parts.next().is_none().then(|| NaiveTime::from_hms_nano_opt(hour, minute, second, nanos))?
}

/// Returns the offset written as `Z`, `UTC`, `GMT`, `+HH:MM`, `+HHMM` or `+HH`, and UTC for an empty text.
fn parse_offset(text: &str) -> Option<FixedOffset> {
    if ["", "Z", "UTC", "GMT"].iter().any(|utc| text.eq_ignore_ascii_case(utc)) {
        return FixedOffset::east_opt(0);
    }
    let sign = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match &text.as_bytes()[1..] {
        [_, _] => (&text[1..], "00"),
        [_, _, b':', _, _] => (&text[1..3], &text[4..]),
        [_, _, _, _] => text[1..].split_at_checked(2)?,
        _ => return None,
    };
    let (hours, minutes) = (parse_digits(hours, 2)?, parse_digits(minutes, 2)?);
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    (hours < 24 && minutes < 60).then(|| FixedOffset::east_opt(sign * seconds))?
}

/// Returns a number of 1 to `most` (at most 9) ASCII digits.
fn parse_digits(text: &str, most: usize) -> Option<u32> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_time_is_one_instant_however_it_is_written() {
        for text in [
            "2026-11-27T10:15:00Z",
            "2026-11-27T10:15:00z",
            "2026-11-27t10:15:00+00:00",
            "2026-11-27T10:15:00+0000",
            "2026-11-27T10:15:00-00",
            "2026-11-27T10:15:00.000+0000",
            "2026-11-27 10:15:00",
            "2026-11-27T10:15:00",
            "2026-11-27 10:15",
            "2026-11-27 10:15:00 UTC",
            "2026-11-27 10:15:00.000000 +00:00",
            "2026-11-27T02:15:00-0800",
            "2026-11-27T15:45:00+05:30",
            "2026-11-28T00:15:00+14",
            "2026-11-27\u{a0}10:15:00",
        ] {
            assert_eq!(
                parse_update_time(text).map(|at| at.to_rfc3339()).as_deref(),
                Some("2026-11-27T10:15:00+00:00"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_fraction_of_a_second_is_kept_to_the_nanosecond() {
        let nanos = |text| parse_update_time(text).unwrap().timestamp_subsec_nanos();
        assert_eq!(nanos("2026-11-27T10:15:00.5Z"), 500_000_000);
        assert_eq!(nanos("2026-11-27T10:15:00,123Z"), 123_000_000);
        assert_eq!(nanos("2026-11-27T10:15:00.1234567899999Z"), 123_456_789);
        assert_eq!(
            parse_update_time("2026-12-31T23:59:60Z"),
            DateTime::parse_from_rfc3339("2026-12-31T23:59:60Z").ok().map(|at| at.to_utc())
        );
    }

    #[test]
    fn an_update_time_with_two_readings_or_outside_of_every_calendar_is_none() {
        for text in [
            "",
            "yesterday",
            "infinity",
            "-infinity",
            "now",
            "0",
            "1764238500",
            "2026-11-27",
            "2026-11-27T",
            "2026-11-27T10",
            "26-11-27T10:15:00Z",
            "11/27/2026 10:15",
            "2026-02-30T00:00:00Z",
            "2026-11-27T24:00:00Z",
            "2026-11-27T10:60:00Z",
            "2026-11-27T10:15:00 PM",
            "2026-11-27T10:15:00 PST",
            "2026-11-27T10:15:00+24:00",
            "2026-11-27T10:15:00+0",
            "2026-11-27T10:15:00.Z",
            "2026-11-27T10:15.5Z",
            "2026-11-27T10:15:00Z.",
            "20261127T101500Z",
            "0000-00-00 00:00:00",
            "0001-01-01T00:00:00Z",
            "294277-01-01T00:00:00Z",
            "999999-01-01T00:00:00Z",
            "-2026-11-27T10:15:00Z",
            "2026-11-2éT10:15:00Z",
            "9999-12-31T23:59:59-01:00",
            "２０２６-11-27T10:15:00Z",
            "2026-11-27T10:15:00+é0",
        ] {
            assert_eq!(parse_update_time(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_day_is_one_number_however_it_is_written() {
        for text in [
            "2026-12-04",
            "2026/12/04",
            "12/04/2026",
            "12/4/2026",
            "2026-12-4",
            "2026-12-04T00:00:00",
            "12/04/2026 0:00",
            "2026-12-04 00:00:00.000",
        ] {
            assert_eq!(parse_day_number(text), Some(20_261_204), "{text}");
        }
        assert_eq!((parse_day_number("0000-00-00"), parse_day_number("00/00/0000")), (Some(0), Some(0)));
    }

    #[test]
    fn a_day_with_two_readings_or_that_is_none_is_none() {
        for text in [
            "",
            "2026",
            "20261204",
            "12/04/26",
            "17/10/2026",
            "12-04-2026",
            "04.12.2026",
            "2026-13-04",
            "2026-02-30",
            "2026-12-04T09:00:00",
            "12/04/2026 extra",
            "Dec 4, 2026",
            "infinity",
            "0001-01-01",
            "12/04/2026/1",
            "99999-12-04",
            "--",
            "/",
            "é/04/2026",
            " ",
        ] {
            assert_eq!(parse_day_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_of_day_with_a_colon_is_a_number_too() {
        let read = ["10:00", "9:05", "09:05:00", "00:00"].map(parse_time_number);
        assert_eq!(read, [Some(1000), Some(905), Some(905), Some(0)]);
        for text in ["", "10", "10:0", "24:00", "10:60", "10:00:30", "10:00 PM", "100:00", ":"] {
            assert_eq!(parse_time_number(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,30}|[-0-9T:/+. Zé]{0,30}") {
            let _ = (parse_update_time(&text), parse_day_number(&text), parse_time_number(&text));
        }

        #[test]
        fn what_rfc_3339_has_is_read_as_chrono_reads_it(seconds in 0_i64..4_102_444_800, nanos in 0_u32..1_000_000_000, hours in -12_i32..=14) {
            let at = DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&FixedOffset::east_opt(hours * 3600).unwrap());
            prop_assert_eq!(parse_update_time(&at.to_rfc3339()), Some(at.to_utc()));
        }
    }
}
