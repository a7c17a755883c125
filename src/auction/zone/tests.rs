//! Tests of the zones of sales: the effect of each column, and the resulting instants.

use super::super::sale_time::{auction_instant, parse_day, parse_time};
use super::*;

const MINUTE_FORMAT: &str = "%Y-%m-%dT%H:%MZ";

fn sale_place<'a>(abbreviation: &'a str, state: &'a str, yard: &'a str) -> SalePlace<'a> {
    SalePlace { abbreviation, yard, state, country: "" }
}

fn sale_instant(date: i32, hhmm: i32, abbreviation: &str, state: &str, yard: &str) -> Option<String> {
    let at = auction_instant(parse_day(date)?, parse_time(hhmm), sale_place(abbreviation, state, yard).zone()?)?;
    Some(at.format(MINUTE_FORMAT).to_string())
}

#[test]
fn finding_2_the_offset_is_that_of_the_sale_date_not_of_the_abbreviation() {
    // Updated before the change of 2026-03-08, sold after it: still EST, but sold at 10:00 EDT.
    assert_eq!(sale_instant(20_260_310, 1000, "EST", "NJ", "NJ - TRENTON").unwrap(), "2026-03-10T14:00Z");
    assert_eq!(sale_instant(20_260_306, 1000, "EST", "NJ", "NJ - TRENTON").unwrap(), "2026-03-06T15:00Z");
    assert_eq!(sale_instant(20_251_017, 1200, "PDT", "CA", "CA - VALLEJO").unwrap(), "2025-10-17T19:00Z");
    assert_eq!(sale_instant(20_251_105, 1200, "PDT", "CA", "CA - VALLEJO").unwrap(), "2025-11-05T20:00Z");
    assert_eq!(sale_instant(20_251_105, 1100, "CDT", "TX", "TX - DALLAS").unwrap(), "2025-11-05T17:00Z");
    assert_eq!(sale_instant(20_251_105, 1100, "MDT", "CO", "CO - DENVER").unwrap(), "2025-11-05T18:00Z");
    assert_eq!(sale_instant(20_260_710, 900, "HST", "HI", "HI - HONOLULU").unwrap(), "2026-07-10T19:00Z");
}

#[test]
fn finding_2_atlantic_canada_sells_at_13_00_local_in_winter_and_in_summer() {
    let yard = "ATLANTIC CANADA AUCTION";
    assert_eq!(sale_instant(20_260_115, 800, "AKST", "NS", yard).unwrap(), "2026-01-15T17:00Z");
    assert_eq!(sale_instant(20_260_715, 700, "AKST", "NB", yard).unwrap(), "2026-07-15T16:00Z");
    assert_eq!(sale_instant(20_260_715, 700, "", "PE", yard).unwrap(), "2026-07-15T16:00Z");
}

#[test]
fn finding_2_anchorage_sells_at_noon_local_in_winter_and_in_summer() {
    let yard = "AK - ANCHORAGE";
    assert_eq!(sale_instant(20_260_115, 2000, "ASDT", "AK", yard).unwrap(), "2026-01-15T21:00Z");
    assert_eq!(sale_instant(20_260_715, 1900, "ADDT", "AK", yard).unwrap(), "2026-07-15T20:00Z");
    assert_eq!(sale_instant(20_260_715, 1200, "AKDT", "AK", yard).unwrap(), "2026-07-15T20:00Z");
}

#[test]
fn an_arizona_yard_has_one_offset_under_any_abbreviation() {
    for (date, abbreviation) in
        [(20_260_715, "PDT"), (20_260_115, "MST"), (20_260_715, "MST"), (20_260_115, ""), (20_260_715, "XYZ")]
    {
        let at = sale_instant(date, 900, abbreviation, "AZ", "AZ - PHOENIX").unwrap();
        assert!(at.ends_with("T16:00Z"), "{date} {abbreviation}: {at}");
    }
    // The yard decides, not the location of the car.
    assert_eq!(sale_instant(20_260_715, 900, "PDT", "NV", "AZ - TUCSON").unwrap(), "2026-07-15T16:00Z");
}

#[test]
fn a_lot_located_in_arizona_follows_the_yard_that_sells_it() {
    let region = "*NCS - MOUNTAIN REGION";
    for state in ["UT", "AZ", "AB", ""] {
        assert_eq!(sale_instant(20_260_618, 1900, "MDT", state, region).unwrap(), "2026-06-19T01:00Z", "{state}");
    }
    assert_eq!(sale_instant(20_260_715, 900, "PDT", "AZ", "CA - VALLEJO").unwrap(), "2026-07-15T16:00Z");
    assert_eq!(sale_instant(20_260_115, 900, "PST", "AZ", "NV - LAS VEGAS").unwrap(), "2026-01-15T17:00Z");
    assert_eq!(sale_instant(20_260_715, 900, "EDT", "AZ", "WHOLESALE AUCTION").unwrap(), "2026-07-15T13:00Z");
    assert_eq!(sale_instant(20_260_715, 900, "MDT", "AZ", "AZTEC SALVAGE").unwrap(), "2026-07-15T15:00Z");
    assert_eq!(sale_place("", "AZ", "WHOLESALE AUCTION").zone(), None);
}

#[test]
fn lots_of_one_yard_date_and_time_have_one_instant_wherever_they_are_located() {
    let yards = [
        ("NJ - TRENTON", ["EST", "EDT", ""]),
        ("AZ - PHOENIX", ["MST", "PDT", ""]),
        ("AB - CALGARY", ["MST", "MDT", "CST"]),
        ("BC - VANCOUVER", ["PST", "PDT", "MST"]),
        ("SK - REGINA", ["CST", "CDT", "MDT"]),
        ("*NCS - MOUNTAIN REGION", ["MST", "MDT", "mdt"]),
        ("ATLANTIC CANADA AUCTION", ["AKST", "AKDT", ""]),
    ];
    for (yard, abbreviations) in yards {
        for date in [20_260_618, 20_261_204, 20_270_706] {
            let states = ["AZ", "AB", "BC", "SK", "NJ", "TX", ""];
            let instants: std::collections::BTreeSet<_> = abbreviations
                .iter()
                .flat_map(|abbreviation| {
                    states.map(|state| sale_instant(date, 900, abbreviation, state, yard).unwrap())
                })
                .collect();
            assert_eq!(instants.len(), 1, "{yard} {date}: {instants:?}");
        }
    }
}

#[test]
fn alberta_and_british_columbia_keep_one_offset_from_november_2026_on_and_saskatchewan_always() {
    let expected = [
        // Before that day the rules of the tz data apply.
        (20_260_115, "AB - CALGARY", "MST", "2026-01-15T16:00Z"),
        (20_260_115, "BC - VANCOUVER", "PST", "2026-01-15T17:00Z"),
        (20_261_030, "AB - CALGARY", "MDT", "2026-10-30T15:00Z"),
        (20_261_031, "BC - VANCOUVER", "PDT", "2026-10-31T16:00Z"),
        (20_261_101, "AB - EDMONTON", "MDT", "2026-11-01T15:00Z"),
        (20_261_101, "BC - VANCOUVER", "PDT", "2026-11-01T16:00Z"),
        (20_261_204, "AB - CALGARY", "MST", "2026-12-04T15:00Z"),
        (20_261_204, "AB - EDMONTON", "MDT", "2026-12-04T15:00Z"),
        (20_261_204, "BC - VANCOUVER", "PST", "2026-12-04T16:00Z"),
        (20_261_204, "BC - VANCOUVER", "PDT", "2026-12-04T16:00Z"),
        (20_270_706, "AB - CALGARY", "CST", "2027-07-06T15:00Z"),
        (20_270_706, "BC - VANCOUVER", "MST", "2027-07-06T16:00Z"),
        (20_260_115, "SK - REGINA", "CST", "2026-01-15T15:00Z"),
        (20_270_706, "SK - REGINA", "CST", "2027-07-06T15:00Z"),
        (20_270_706, "SK - SASKATOON", "", "2027-07-06T15:00Z"),
        // The neighbours change their clocks.
        (20_261_204, "CO - DENVER", "MST", "2026-12-04T16:00Z"),
        (20_261_204, "ON - TORONTO", "EST", "2026-12-04T14:00Z"),
    ];
    for (date, yard, abbreviation, at) in expected {
        assert_eq!(sale_instant(date, 900, abbreviation, &yard[..2], yard).unwrap(), at, "{yard} {abbreviation}");
    }
}

#[test]
fn a_province_is_taken_from_the_location_only_where_the_yards_name_has_none() {
    let at = |abbreviation, state, yard| sale_instant(20_261_204, 900, abbreviation, state, yard).unwrap();
    for yard in ["", "WHOLESALE AUCTION"] {
        assert_eq!(at("MST", "AB", yard), "2026-12-04T15:00Z");
        assert_eq!(at("PST", "BC", yard), "2026-12-04T16:00Z");
        assert_eq!(sale_instant(20_270_706, 900, "CDT", "SK", yard).unwrap(), "2027-07-06T15:00Z");
    }
    // Another yard's sale, and another region's abbreviation.
    assert_eq!(at("MST", "AB", "CO - DENVER"), "2026-12-04T16:00Z");
    assert_eq!(at("EST", "AB", "WHOLESALE AUCTION"), "2026-12-04T14:00Z");
}

#[test]
fn an_unknown_abbreviation_gets_the_only_zone_of_yard_state_or_country() {
    for odd in ["", "UTC", "XYZ", "\u{1F697}"] {
        let name = |state, yard| sale_place(odd, state, yard).zone().map(SaleZone::name);
        let from = |country| SalePlace { abbreviation: odd, country, ..SalePlace::default() }.zone();
        assert_eq!(name("TX", "NJ - TRENTON").as_deref(), Some("America/New_York"));
        assert_eq!(name("NJ", "").as_deref(), Some("America/New_York"));
        assert_eq!(name("il", "WHOLESALE AUCTION").as_deref(), Some("America/Chicago"));
        assert_eq!(name("NS", "").as_deref(), Some("America/Halifax"));
        assert_eq!(name("BC", "").as_deref(), Some("America/Vancouver"));
        // Several zones, a region's sale, an unknown state, empty columns.
        for (state, yard) in [("NJ", "TX - DALLAS"), ("TN", ""), ("NJ", "*NCS - EASTERN REGION"), ("ZZ", ""), ("", "")]
        {
            assert_eq!(name(state, yard), None, "{state} {yard}");
        }
        assert_eq!(from("GBR").map(SaleZone::name).as_deref(), Some("Europe/London"));
        assert_eq!((from("USA"), from("CAN"), from("ESP")), (None, None, None));
        let berlin = SalePlace { state: "DE", yard: "DE - BERLIN", country: "DEU", abbreviation: odd };
        assert_eq!(berlin.zone().map(SaleZone::name).as_deref(), Some("Europe/Berlin"));
    }
}

#[test]
fn an_abbreviation_is_read_in_any_case_and_between_blanks() {
    for odd in ["edt", "EDT ", " Est"] {
        assert_eq!(sale_place(odd, "TX", "").zone(), Some(EASTERN), "{odd}");
    }
}

#[test]
fn the_clock_of_a_zone_shows_what_the_feed_wrote() {
    for (abbreviation, yard) in [
        ("EST", "NJ - TRENTON"),
        ("MST", "AB - CALGARY"),
        ("PST", "BC - VANCOUVER"),
        ("CST", "SK - REGINA"),
        ("PDT", "AZ - PHOENIX"),
        ("AKST", "ATLANTIC CANADA AUCTION"),
    ] {
        let zone = sale_place(abbreviation, "", yard).zone().unwrap();
        for date in [20_260_118, 20_260_718, 20_261_031, 20_261_101, 20_261_102, 20_270_718] {
            for hhmm in [30, 900, 2330] {
                let written = parse_day(date).unwrap().and_time(parse_time(hhmm).unwrap());
                let shown = zone.local_time(zone.instant(written).unwrap()).unwrap();
                assert_eq!(shown.naive_local(), written, "{yard} {date} {hhmm}");
            }
        }
    }
    assert_eq!(sale_place("MST", "", "AB - CALGARY").zone().unwrap().name(), "America/Edmonton");
    assert_eq!(sale_place("AKST", "", "ATLANTIC CANADA AUCTION").zone().unwrap().name(), "UTC-09:00");
}

#[test]
fn the_documented_version_of_the_tz_data_is_the_one_that_is_built_in() {
    assert_eq!(chrono_tz::IANA_TZDB_VERSION, TZ_DATA_VERSION);
    let released = TZ_DATA_RELEASED.unwrap().format("%Y").to_string();
    assert!(TZ_DATA_VERSION.starts_with(&released), "{released}");
    assert!(include_str!("../zone.rs").contains(&format!("is version {TZ_DATA_VERSION} ")), "the module's doc");
}
