//! The instant of an auction in UTC.
//!
//! The feed gives a day, a local time and a zone ([`super::zone`]).
//!
//! Decided, not observed: a local time that the change to daylight time skips is read with the offset before it (02:30
//! becomes 03:30). If a time occurs twice, the first occurrence counts. A known day with a missing, zero or broken time
//! is noon. Noon gives the right local day in every region and errs by half a working day, while midnight would end the
//! auction before it began. A day without a zone gives no instant, and is counted.

use super::zone::SaleZone;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// Returns the day of a `YYYYMMDD` number from 2000 to 2100, or None for 0 (not scheduled) and for an invalid day.
pub fn parse_day(yyyymmdd: i32) -> Option<NaiveDate> {
    let (year, month, day) = (yyyymmdd / 10_000, yyyymmdd / 100 % 100, yyyymmdd % 100);
    let known = (2000..=2100).contains(&year);
    known.then(|| NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?))?
}

/// Returns the time of an unpadded `HHMM` number (800 is 08:00), or None for 0 and for an invalid time.
pub fn parse_time(hhmm: i32) -> Option<NaiveTime> {
    let (hour, minute) = (u32::try_from(hhmm / 100).ok()?, u32::try_from(hhmm % 100).ok()?);
    if hhmm == 0 { None } else { NaiveTime::from_hms_opt(hour, minute, 0) }
}

/// Returns the instant of a sale on this day. The default time is noon.
pub fn auction_instant(day: NaiveDate, time: Option<NaiveTime>, zone: SaleZone) -> Option<DateTime<Utc>> {
    let local = day.and_time(time.unwrap_or(NaiveTime::from_hms_opt(12, 0, 0)?));
    zone.instant(local)
}

#[cfg(test)]
mod tests {
    use super::super::zone::SalePlace;
    use super::*;

    fn sale_instant(date: i32, hhmm: i32) -> Option<String> {
        let place = SalePlace { abbreviation: "EST", state: "NJ", ..SalePlace::default() };
        let at = auction_instant(parse_day(date)?, parse_time(hhmm), place.zone()?)?;
        Some(at.format("%Y-%m-%dT%H:%MZ").to_string())
    }

    #[test]
    fn finding_1_a_sale_date_is_eight_digits_or_none() {
        assert_eq!(parse_day(20_251_017), NaiveDate::from_ymd_opt(2025, 10, 17));
        assert_eq!(parse_day(0), None);
        for broken in [20_251_301, 20_250_230, 101_725, -20_251_017, 99_991_231, i32::MIN, i32::MAX] {
            assert_eq!(parse_day(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_known_day_with_a_missing_zero_or_broken_time_is_local_noon() {
        for hhmm in [0, 2500, 1299, -800] {
            assert_eq!(sale_instant(20_251_017, hhmm).unwrap(), "2025-10-17T16:00Z", "{hhmm}");
        }
    }

    #[test]
    fn a_time_that_daylight_time_skips_is_an_hour_later_and_one_that_comes_twice_is_the_first() {
        assert_eq!(sale_instant(20_260_308, 230).unwrap(), "2026-03-08T07:30Z");
        assert_eq!(sale_instant(20_251_102, 130).unwrap(), "2025-11-02T05:30Z");
    }
}
