//! The time zone of a sale.
//!
//! A row gives its zone as an abbreviation, and by the locations of the yard and of the lot. The abbreviation is the
//! one that was in force when the row was last *updated*. All 429 lots with a sale after the change to daylight time of
//! 2026-03-08 that were last updated before it still had EST, CST, MST or PST. An abbreviation is therefore read as a
//! region (`EST` and `EDT` are both New York), and the offset is the region's on the day of the sale.
//!
//! A sale has one clock, which is the yard's. A lot can be located in another state than the yard that sells it. The
//! state in the yard's name (`NJ - TRENTON`) therefore comes before the state of the lot's location, so that lots of
//! one yard, date and time get one instant.
//!
//! Exceptions, each from observed sales:
//! - `AKST` at the yard ATLANTIC CANADA AUCTION (New Brunswick, Nova Scotia) is a fixed UTC-9. Its sales are at 0800 in
//!   winter and at 0700 in summer, which is 13:00 Atlantic time only in that reading.
//! - `ASDT` and `ADDT` are a fixed UTC-1 at Anchorage. 2000 in winter and 1900 in summer are noon in Alaska only in
//!   that reading.
//! - Arizona has one offset all year. Its yards write PDT in summer and MST in winter. The yard's name decides, never
//!   the location: a car in Arizona that another yard sells at 1900 MDT is sold at 1900 in Denver.
//!
//! Provinces that ended the change of clocks: Alberta (UTC-6) and British Columbia (UTC-7) have one offset from
//! 2026-11-01 on, Saskatchewan (UTC-6) always. The tz data of chrono-tz is version 2025b and older than the first two
//! rules, so they are written here. The yard's name decides. If it has no state, the lot's location decides, provided
//! that the abbreviation is the province's own.
//!
//! One case is left with two instants: a yard whose name has neither a state nor a `*`, which sells lots of such a
//! province and of another place under one abbreviation. A row of it contains the lot's location but not the yard's, so
//! no rule for a single row can join them. The location is the better guess: nearly every lot is sold where it is
//! located.
//!
//! An empty or unknown abbreviation gets the zone of the yard's state, otherwise of the lot's location, if that state
//! or country has only one zone. A state with several zones gives none. A yard whose name begins with `*` sells for a
//! whole region (`*NCS - MOUNTAIN REGION`), so the location of its lots is not consulted.

use super::Column;
use super::reader::FeedRecord;
use chrono::{DateTime, Duration, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::{America, Asia, Europe, Pacific, Tz};

/// The tz data version that the rules above were checked against, and that chrono-tz is built from.
pub const TZ_DATA_VERSION: &str = "2025b";
/// The release day of [`TZ_DATA_VERSION`].
pub const TZ_DATA_RELEASED: Option<NaiveDate> = NaiveDate::from_ymd_opt(2025, 3, 22);
/// Maximum age of the tz data. Older data probably lacks a rule that is in force.
pub const TZ_DATA_MAX_AGE: Duration = Duration::days(365);

/// The first day on which Alberta and British Columbia have one offset for good.
const ONE_OFFSET_SINCE: Option<NaiveDate> = NaiveDate::from_ymd_opt(2026, 11, 1);

/// The clock of a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaleZone {
    /// A region with the rules of the tz data.
    Region(Tz),
    /// A fixed number of hours behind UTC.
    Fixed(i32),
    /// A region up to 2026-10-31, and a fixed number of hours behind UTC afterwards.
    OneOffset {
        /// The region, which gives the zone its name.
        region: Tz,
        /// Hours behind UTC since 2026-11-01.
        behind: i32,
    },
}

const EASTERN: SaleZone = SaleZone::Region(America::New_York);
const CENTRAL: SaleZone = SaleZone::Region(America::Chicago);
const MOUNTAIN: SaleZone = SaleZone::Region(America::Denver);
const PACIFIC: SaleZone = SaleZone::Region(America::Los_Angeles);
const HAWAII: SaleZone = SaleZone::Region(Pacific::Honolulu);
const ALASKA: SaleZone = SaleZone::Region(America::Anchorage);
const ARIZONA: SaleZone = SaleZone::Region(America::Phoenix);
const ALBERTA: SaleZone = SaleZone::OneOffset { region: America::Edmonton, behind: 6 };
const BRITISH_COLUMBIA: SaleZone = SaleZone::OneOffset { region: America::Vancouver, behind: 7 };
const SASKATCHEWAN: SaleZone = SaleZone::Region(America::Regina);

/// The abbreviations of the feed, with their regions.
const ABBREVIATIONS: &[(&str, SaleZone)] = &[
    ("EST", EASTERN),
    ("EDT", EASTERN),
    ("CST", CENTRAL),
    ("CDT", CENTRAL),
    ("MST", MOUNTAIN),
    ("MDT", MOUNTAIN),
    ("PST", PACIFIC),
    ("PDT", PACIFIC),
    ("HST", HAWAII),
    ("AKST", ALASKA),
    ("AKDT", ALASKA),
    ("ASDT", SaleZone::Fixed(1)),
    ("ADDT", SaleZone::Fixed(1)),
];

/// The provinces with rules of their own: the zone, and the region of the abbreviations that they write.
const PROVINCES: &[(&str, SaleZone, SaleZone)] =
    &[("AB", ALBERTA, MOUNTAIN), ("BC", BRITISH_COLUMBIA, PACIFIC), ("SK", SASKATCHEWAN, CENTRAL)];

/// The states of the United States and the provinces of Canada, each with its zone if there is only one.
///
/// Arizona has none here, since only a yard's name leads to its zone.
#[rustfmt::skip]
const STATES: &[(&str, Option<SaleZone>)] = &[
    ("AK", None), ("AL", Some(CENTRAL)), ("AR", Some(CENTRAL)), ("AZ", None), ("CA", Some(PACIFIC)),
    ("CO", Some(MOUNTAIN)), ("CT", Some(EASTERN)), ("DC", Some(EASTERN)), ("DE", Some(EASTERN)), ("FL", None),
    ("GA", Some(EASTERN)), ("GU", Some(SaleZone::Region(Pacific::Guam))), ("HI", Some(HAWAII)), ("IA", Some(CENTRAL)),
    ("ID", None), ("IL", Some(CENTRAL)), ("IN", None), ("KS", None), ("KY", None), ("LA", Some(CENTRAL)),
    ("MA", Some(EASTERN)), ("MD", Some(EASTERN)), ("ME", Some(EASTERN)), ("MI", None), ("MN", Some(CENTRAL)),
    ("MO", Some(CENTRAL)), ("MS", Some(CENTRAL)), ("MT", Some(MOUNTAIN)), ("NC", Some(EASTERN)), ("ND", None),
    ("NE", None), ("NH", Some(EASTERN)), ("NJ", Some(EASTERN)), ("NM", Some(MOUNTAIN)), ("NV", None),
    ("NY", Some(EASTERN)), ("OH", Some(EASTERN)), ("OK", Some(CENTRAL)), ("OR", None), ("PA", Some(EASTERN)),
    ("PR", Some(SaleZone::Region(America::Puerto_Rico))), ("RI", Some(EASTERN)), ("SC", Some(EASTERN)), ("SD", None),
    ("TN", None), ("TX", None), ("UT", Some(MOUNTAIN)), ("VA", Some(EASTERN)),
    ("VI", Some(SaleZone::Region(America::St_Thomas))), ("VT", Some(EASTERN)), ("WA", Some(PACIFIC)),
    ("WI", Some(CENTRAL)), ("WV", Some(EASTERN)), ("WY", Some(MOUNTAIN)),
    // Canada
    ("AB", Some(ALBERTA)), ("BC", Some(BRITISH_COLUMBIA)), ("MB", Some(SaleZone::Region(America::Winnipeg))),
    ("NB", Some(SaleZone::Region(America::Moncton))), ("NL", None), ("NS", Some(SaleZone::Region(America::Halifax))),
    ("NT", None), ("NU", None), ("ON", None), ("PE", Some(SaleZone::Region(America::Halifax))), ("QC", None),
    ("SK", Some(SASKATCHEWAN)), ("YT", Some(SaleZone::Region(America::Whitehorse))),
];

/// The names of the countries whose states are in [`STATES`]. A row without a country is read as one of theirs.
const COUNTRIES_WITH_STATES: &[&str] = &["", "USA", "US", "CAN", "CA"];

/// Countries with one zone.
const COUNTRIES: &[(&str, SaleZone)] = &[
    ("ARE", SaleZone::Region(Asia::Dubai)),
    ("BHR", SaleZone::Region(Asia::Bahrain)),
    ("DEU", SaleZone::Region(Europe::Berlin)),
    ("FIN", SaleZone::Region(Europe::Helsinki)),
    ("GBR", SaleZone::Region(Europe::London)),
    ("IRL", SaleZone::Region(Europe::Dublin)),
    ("OMN", SaleZone::Region(Asia::Muscat)),
    ("PRI", SaleZone::Region(America::Puerto_Rico)),
];

/// The columns of a row that decide the zone of its sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SalePlace<'a> {
    /// `Time Zone`.
    pub abbreviation: &'a str,
    /// `Yard name`.
    pub yard: &'a str,
    /// `Location state`.
    pub state: &'a str,
    /// `Location country`.
    pub country: &'a str,
}

impl<'a> SalePlace<'a> {
    /// Reads the columns from a record.
    pub fn from_record(record: &FeedRecord<'a>) -> SalePlace<'a> {
        SalePlace {
            abbreviation: record.get(Column::TimeZone),
            yard: record.get(Column::YardName),
            state: record.get(Column::LocationState),
            country: record.get(Column::LocationCountry),
        }
    }
}

impl SalePlace<'_> {
    /// Returns the zone of the sale, or None if the columns allow none or several.
    pub fn zone(&self) -> Option<SaleZone> {
        let yard = self.yard.trim();
        if begins_with_arizona(yard) {
            return Some(ARIZONA);
        }
        let written = self.zone_of_abbreviation(yard);
        match self.state_of_yard(yard) {
            Some(code) => find_province(code).map(|(_, zone, _)| *zone).or(written).or_else(|| only_zone(code)),
            None if yard.starts_with('*') => written,
            None => match written {
                Some(region) => Some(self.province_of_lot(region).unwrap_or(region)),
                None => self.only_zone_of_lot(),
            },
        }
    }

    /// Returns the region of the abbreviation.
    fn zone_of_abbreviation(&self, yard: &str) -> Option<SaleZone> {
        let abbreviation = self.abbreviation.trim();
        if yard.eq_ignore_ascii_case("ATLANTIC CANADA AUCTION")
            && ["AKST", "AKDT", ""].iter().any(|own| abbreviation.eq_ignore_ascii_case(own))
        {
            return Some(SaleZone::Fixed(9));
        }
        ABBREVIATIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(abbreviation)).map(|(_, zone)| *zone)
    }

    /// Returns the known state at the beginning of the yard's name: `NJ` for `NJ - TRENTON`.
    fn state_of_yard<'a>(&self, yard: &'a str) -> Option<&'a str> {
        let (code, rest) = yard.split_at_checked(2)?;
        let code = Some(code).filter(|_| rest.trim_start().starts_with('-'))?;
        self.has_states().then_some(code).filter(|code| find_state(code).is_some())
    }

    /// Returns the zone of the province in which the lot is located, if `region` is the one whose abbreviations the
    /// province writes.
    fn province_of_lot(&self, region: SaleZone) -> Option<SaleZone> {
        let (_, zone, own) = find_province(self.state.trim()).filter(|_| self.has_states())?;
        (*own == region).then_some(*zone)
    }

    fn only_zone_of_lot(&self) -> Option<SaleZone> {
        let country = self.country.trim();
        match self.has_states() {
            true => only_zone(self.state.trim()),
            false => COUNTRIES.iter().find(|(name, _)| name.eq_ignore_ascii_case(country)).map(|(_, zone)| *zone),
        }
    }

    fn has_states(&self) -> bool {
        COUNTRIES_WITH_STATES.iter().any(|name| name.eq_ignore_ascii_case(self.country.trim()))
    }
}

/// Returns true if a yard's name begins with the state `AZ`, and not with a longer word.
fn begins_with_arizona(yard: &str) -> bool {
    yard.split_at_checked(2).is_some_and(|(code, rest)| {
        code.eq_ignore_ascii_case("AZ") && !rest.starts_with(|next: char| next.is_alphanumeric())
    })
}

fn find_state(code: &str) -> Option<&'static (&'static str, Option<SaleZone>)> {
    STATES.iter().find(|(name, _)| name.eq_ignore_ascii_case(code))
}

fn only_zone(code: &str) -> Option<SaleZone> {
    find_state(code)?.1
}

fn find_province(code: &str) -> Option<&'static (&'static str, SaleZone, SaleZone)> {
    PROVINCES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(code))
}

impl SaleZone {
    /// Returns the first instant at which a clock of this zone shows `local`.
    ///
    /// A local time that the change to daylight time skips is read with the offset before the change.
    pub fn instant(self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self {
            SaleZone::Region(region) => first_instant(region, local),
            SaleZone::Fixed(behind) => fixed_instant(behind, local),
            SaleZone::OneOffset { behind, .. } if has_one_offset(local.date()) => fixed_instant(behind, local),
            SaleZone::OneOffset { region, .. } => first_instant(region, local),
        }
    }

    /// Returns `at` with the offset of this zone at that instant.
    pub fn local_time(self, at: DateTime<Utc>) -> Option<DateTime<FixedOffset>> {
        let of = |region: Tz| Some(region.offset_from_utc_datetime(&at.naive_utc()).fix());
        let offset = match self {
            SaleZone::Region(region) => of(region),
            SaleZone::Fixed(behind) => FixedOffset::west_opt(behind * 3600),
            SaleZone::OneOffset { region, behind } => FixedOffset::west_opt(behind * 3600)
                .filter(|offset| has_one_offset(at.with_timezone(offset).date_naive()))
                .or_else(|| of(region)),
        };
        Some(at.with_timezone(&offset?))
    }

    /// Returns the IANA name of the region, or `UTC-09:00` for a fixed offset.
    pub fn name(self) -> String {
        match self {
            SaleZone::Region(region) | SaleZone::OneOffset { region, .. } => region.name().to_owned(),
            SaleZone::Fixed(behind) => format!("UTC-{behind:02}:00"),
        }
    }
}

fn has_one_offset(day: NaiveDate) -> bool {
    ONE_OFFSET_SINCE.is_some_and(|since| day >= since)
}

fn fixed_instant(behind: i32, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    Some(FixedOffset::west_opt(behind * 3600)?.from_local_datetime(&local).single()?.to_utc())
}

/// Returns the first instant at which the region's clocks show `local`, or would show it without the change.
fn first_instant(region: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match region.from_local_datetime(&local) {
        MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at.to_utc()),
        MappedLocalTime::None => {
            let hour = Duration::hours(1);
            Some(region.from_local_datetime(&(local - hour)).earliest()?.to_utc() + hour)
        }
    }
}

#[cfg(test)]
mod tests;
