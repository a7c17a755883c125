//! When an auction takes place, in UTC.
//!
//! The feed gives a day, a local time and an abbreviation, and the abbreviation lies: it is the one that was in
//! force when the row was last *updated*. Of 429 lots with a sale after the change to daylight time of 2026-03-08,
//! last updated before it, all 429 still said EST, CST, MST or PST. So an abbreviation names a region only
//! (`EST` and `EDT` are both New York), and the offset is the one that the region has on the day of the sale.
//!
//! Exceptions, each from observed sales:
//! - `AKST` at the yard ATLANTIC CANADA AUCTION (New Brunswick, Nova Scotia) is a fixed UTC-9: its sales are
//!   at 0800 in winter and 0700 in summer, which is 13:00 Atlantic time only so.
//! - `ASDT` and `ADDT` are a fixed UTC-1 at Anchorage: 2000 in winter and 1900 in summer are noon in Alaska only so.
//! - Arizona keeps one offset all year, and its rows say PDT in summer and MST in winter: America/Phoenix.
//!
//! Decided, not observed: a local time that the change to daylight time skips is read with the offset before it
//! (02:30 becomes 03:30); of a time that occurs twice the first counts. A known day with a missing, zero or broken
//! time is noon: that keeps the local day right in every region and errs by half a working day, where midnight
//! would call the auction over before it began. An unknown abbreviation gives no instant, and is counted.

use chrono::{
    DateTime, Duration, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc,
};
use chrono_tz::{America, Pacific, Tz};

/// Where a sale's clock hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// A region with its own rules of daylight time.
    Region(Tz),
    /// The same hours behind UTC on every day.
    Fixed(i32),
}

/// The zone of a sale by its abbreviation, with the state (`AZ`) and the yard's name for the exceptions.
pub fn zone(abbreviation: &str, state: &str, yard: &str) -> Option<Zone> {
    let arizona = state.eq_ignore_ascii_case("AZ");
    let atlantic = yard.eq_ignore_ascii_case("ATLANTIC CANADA AUCTION");
    Some(match abbreviation {
        "MST" | "MDT" | "PST" | "PDT" if arizona => Zone::Region(America::Phoenix),
        "EST" | "EDT" => Zone::Region(America::New_York),
        "CST" | "CDT" => Zone::Region(America::Chicago),
        "MST" | "MDT" => Zone::Region(America::Denver),
        "PST" | "PDT" => Zone::Region(America::Los_Angeles),
        "HST" => Zone::Region(Pacific::Honolulu),
        "AKST" | "AKDT" if atlantic => Zone::Fixed(9),
        "AKST" | "AKDT" => Zone::Region(America::Anchorage),
        "ASDT" | "ADDT" => Zone::Fixed(1),
        _ => return None,
    })
}

/// The day of a `YYYYMMDD` number, from 2000 to 2100; None for 0 (not scheduled) and for what is no day.
pub fn day(yyyymmdd: i32) -> Option<NaiveDate> {
    let (year, month, day) = (yyyymmdd / 10_000, yyyymmdd / 100 % 100, yyyymmdd % 100);
    let known = (2000..=2100).contains(&year);
    known.then(|| NaiveDate::from_ymd_opt(year, u32::try_from(month).ok()?, u32::try_from(day).ok()?))?
}

/// The time of an unpadded `HHMM` number (800 is 08:00); None for 0 and for what is no time.
pub fn clock(hhmm: i32) -> Option<NaiveTime> {
    let (hour, minute) = (u32::try_from(hhmm / 100).ok()?, u32::try_from(hhmm % 100).ok()?);
    if hhmm == 0 { None } else { NaiveTime::from_hms_opt(hour, minute, 0) }
}

/// The instant of a sale on this day; no time means noon.
pub fn auction_instant(day: NaiveDate, time: Option<NaiveTime>, zone: Zone) -> Option<DateTime<Utc>> {
    let local = day.and_time(time.unwrap_or(NaiveTime::from_hms_opt(12, 0, 0)?));
    match zone {
        Zone::Region(region) => first(region, local),
        Zone::Fixed(behind) => {
            let offset = FixedOffset::west_opt(behind * 3600)?;
            Some(offset.from_local_datetime(&local).single()?.to_utc())
        }
    }
}

/// The first instant at which the region's clocks show `local`, or would have, had they not been put forward.
fn first(region: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match region.from_local_datetime(&local) {
        MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at.to_utc()),
        MappedLocalTime::None => {
            let hour = Duration::hours(1);
            Some(region.from_local_datetime(&(local - hour)).earliest()?.to_utc() + hour)
        }
    }
}

/// `Last Updated Time`: ISO 8601 with `Z` or an offset.
pub fn updated_at(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(date: i32, hhmm: i32, abbreviation: &str, state: &str, yard: &str) -> Option<String> {
        let at = auction_instant(day(date)?, clock(hhmm), zone(abbreviation, state, yard)?)?;
        Some(at.format("%Y-%m-%dT%H:%MZ").to_string())
    }

    #[test]
    fn finding_1_a_sale_date_is_eight_digits_or_none() {
        assert_eq!(day(20_251_017), NaiveDate::from_ymd_opt(2025, 10, 17));
        assert_eq!(day(0), None);
        for broken in [20_251_301, 20_250_230, 101_725, -20_251_017, 99_991_231, i32::MIN, i32::MAX] {
            assert_eq!(day(broken), None, "{broken}");
        }
    }

    #[test]
    fn finding_2_the_offset_is_that_of_the_sale_date_not_of_the_abbreviation() {
        // Updated before the change of 2026-03-08, sold after it: still EST, but sold at 10:00 EDT.
        assert_eq!(instant(20_260_310, 1000, "EST", "NJ", "NJ - TRENTON").unwrap(), "2026-03-10T14:00Z");
        assert_eq!(instant(20_260_306, 1000, "EST", "NJ", "NJ - TRENTON").unwrap(), "2026-03-06T15:00Z");
        assert_eq!(instant(20_251_017, 1200, "PDT", "CA", "CA - VALLEJO").unwrap(), "2025-10-17T19:00Z");
        assert_eq!(instant(20_251_105, 1200, "PDT", "CA", "CA - VALLEJO").unwrap(), "2025-11-05T20:00Z");
        assert_eq!(instant(20_251_105, 1100, "CDT", "TX", "TX - DALLAS").unwrap(), "2025-11-05T17:00Z");
        assert_eq!(instant(20_251_105, 1100, "MDT", "CO", "CO - DENVER").unwrap(), "2025-11-05T18:00Z");
        assert_eq!(instant(20_260_710, 900, "HST", "HI", "HI - HONOLULU").unwrap(), "2026-07-10T19:00Z");
    }

    #[test]
    fn finding_2_atlantic_canada_sells_at_13_00_local_in_winter_and_in_summer() {
        let yard = "ATLANTIC CANADA AUCTION";
        assert_eq!(instant(20_260_115, 800, "AKST", "NS", yard).unwrap(), "2026-01-15T17:00Z");
        assert_eq!(instant(20_260_715, 700, "AKST", "NB", yard).unwrap(), "2026-07-15T16:00Z");
    }

    #[test]
    fn finding_2_anchorage_sells_at_noon_local_in_winter_and_in_summer() {
        let yard = "AK - ANCHORAGE";
        assert_eq!(instant(20_260_115, 2000, "ASDT", "AK", yard).unwrap(), "2026-01-15T21:00Z");
        assert_eq!(instant(20_260_715, 1900, "ADDT", "AK", yard).unwrap(), "2026-07-15T20:00Z");
        assert_eq!(instant(20_260_715, 1200, "AKDT", "AK", yard).unwrap(), "2026-07-15T20:00Z");
    }

    #[test]
    fn finding_2_arizona_has_one_offset_whatever_it_calls_it() {
        assert_eq!(instant(20_260_715, 900, "PDT", "AZ", "AZ - PHOENIX").unwrap(), "2026-07-15T16:00Z");
        assert_eq!(instant(20_260_115, 900, "MST", "AZ", "AZ - PHOENIX").unwrap(), "2026-01-15T16:00Z");
        // Sold in summer, last updated in winter: only the state knows.
        assert_eq!(instant(20_260_715, 900, "MST", "AZ", "AZ - PHOENIX").unwrap(), "2026-07-15T16:00Z");
        // A car that stands in Arizona and is sold by an eastern yard follows the yard.
        assert_eq!(instant(20_260_715, 900, "EDT", "AZ", "WHOLESALE AUCTION").unwrap(), "2026-07-15T13:00Z");
    }

    #[test]
    fn a_known_day_with_a_missing_zero_or_broken_time_is_local_noon() {
        for hhmm in [0, 2500, 1299, -800] {
            assert_eq!(instant(20_251_017, hhmm, "EDT", "NJ", "").unwrap(), "2025-10-17T16:00Z", "{hhmm}");
        }
    }

    #[test]
    fn a_time_that_daylight_time_skips_is_an_hour_later_and_one_that_comes_twice_is_the_first() {
        assert_eq!(instant(20_260_308, 230, "EST", "NJ", "").unwrap(), "2026-03-08T07:30Z");
        assert_eq!(instant(20_251_102, 130, "EST", "NJ", "").unwrap(), "2025-11-02T05:30Z");
    }

    #[test]
    fn an_unknown_abbreviation_gives_no_instant() {
        for odd in ["", "UTC", "edt", "EDT "] {
            assert_eq!(zone(odd, "NJ", ""), None, "{odd}");
        }
    }

    #[test]
    fn last_updated_time_is_true_utc() {
        assert_eq!(updated_at("2025-10-14T07:01:00Z").unwrap().to_rfc3339(), "2025-10-14T07:01:00+00:00");
        assert_eq!(updated_at("2025-10-14 07:01"), None);
    }
}
