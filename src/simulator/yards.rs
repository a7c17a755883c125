//! Yards and their clocks.
//!
//! A lot's auction is stored as its real instant. The feed's local date, time and zone abbreviation are derived from
//! the instant here, never the reverse, so that no interpretation of those three columns can affect the expected state.
//! Five properties of the real feed are reproduced. The abbreviation is the one in force when the row was last
//! *updated*. Arizona, which has no summer time, writes PDT in summer and MST in winter. The Atlantic Canada auction
//! writes AKST all year and means a fixed UTC-9. Anchorage writes ASDT or ADDT and means a fixed UTC-1. Alberta, which
//! has one offset since 2026-11-01, writes MST or MDT like its neighbours.

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{America, OffsetComponents, OffsetName, Pacific, Tz};

/// The instant 2026-11-01T06:00:00Z in seconds since 1970, the start of the day from which Alberta's clocks no longer
/// change.
const ALBERTA_SINCE_UNIX: i64 = 1_793_512_800;

/// The rule by which a yard writes its local time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum YardClock {
    /// The time and abbreviations of a region.
    Region(Tz),
    /// UTC-7 all year, under the abbreviations of the neighbours.
    Arizona,
    /// Mountain time before 2026-11-01 and UTC-6 since, under the abbreviations of the neighbours.
    Alberta,
    /// Fixed UTC-9 under the name AKST.
    Atlantic,
    /// Fixed UTC-1 under the names ASDT and ADDT.
    Anchorage,
}

impl YardClock {
    /// Returns the local time that the feed shows for an instant.
    pub(super) fn local_time(self, at: DateTime<Utc>) -> NaiveDateTime {
        match self {
            YardClock::Region(tz) => at.with_timezone(&tz).naive_local(),
            YardClock::Arizona => at.with_timezone(&America::Phoenix).naive_local(),
            // Both offsets are UTC-6 in the night in which the neighbours set their clocks back.
            YardClock::Alberta if at.timestamp() >= ALBERTA_SINCE_UNIX => at.naive_utc() - Duration::hours(6),
            YardClock::Alberta => at.with_timezone(&America::Denver).naive_local(),
            YardClock::Atlantic => at.naive_utc() - Duration::hours(9),
            YardClock::Anchorage => at.naive_utc() - Duration::hours(1),
        }
    }

    /// Returns the abbreviation of a row last updated at this instant.
    pub(super) fn abbreviation(self, updated: DateTime<Utc>) -> &'static str {
        let summer = |tz: Tz| !tz.offset_from_utc_datetime(&updated.naive_utc()).dst_offset().is_zero();
        match self {
            YardClock::Region(tz) => match tz.offset_from_utc_datetime(&updated.naive_utc()).abbreviation() {
                Some("EDT") => "EDT",
                Some("EST") => "EST",
                Some("CDT") => "CDT",
                Some("CST") => "CST",
                Some("MDT") => "MDT",
                Some("MST") => "MST",
                Some("PDT") => "PDT",
                Some("PST") => "PST",
                Some("AKDT") => "AKDT",
                Some("AKST") => "AKST",
                _ => "HST",
            },
            YardClock::Arizona if summer(America::Los_Angeles) => "PDT",
            YardClock::Arizona => "MST",
            YardClock::Alberta if summer(America::Denver) => "MDT",
            YardClock::Alberta => "MST",
            YardClock::Atlantic => "AKST",
            YardClock::Anchorage if summer(America::Anchorage) => "ADDT",
            YardClock::Anchorage => "ASDT",
        }
    }

    /// Returns the first whole hour from `at` on that the feed can express. Midnight is excluded, since its `0` also
    /// means "no time". So is the hour that a clock set back shows twice.
    pub(super) fn next_expressible(self, mut at: DateTime<Utc>) -> DateTime<Utc> {
        loop {
            let local = self.local_time(at);
            let twice = match self {
                YardClock::Region(tz) => matches!(tz.from_local_datetime(&local), LocalResult::Ambiguous(..)),
                YardClock::Alberta if at.timestamp() < ALBERTA_SINCE_UNIX => {
                    matches!(America::Denver.from_local_datetime(&local), LocalResult::Ambiguous(..))
                }
                _ => false,
            };
            if !twice && local.time().signed_duration_since(chrono::NaiveTime::MIN) >= Duration::hours(1) {
                return at;
            }
            at += Duration::hours(1);
        }
    }
}

/// An auction yard.
pub(super) struct AuctionYard {
    /// `Yard number`.
    pub(super) number: u16,
    /// `Yard name`.
    pub(super) name: &'static str,
    /// `Location city`.
    pub(super) city: &'static str,
    /// `Location state`.
    pub(super) state: &'static str,
    /// `Location ZIP`.
    pub(super) zip: &'static str,
    /// True if the yard's lots are in Canada, with prices in Canadian dollars.
    pub(super) canada: bool,
    /// The yard's clock.
    pub(super) clock: YardClock,
    /// Share of the lots.
    pub(super) weight: u32,
}

const EAST: YardClock = YardClock::Region(America::New_York);
const CENTRAL: YardClock = YardClock::Region(America::Chicago);
const MOUNTAIN: YardClock = YardClock::Region(America::Denver);
const WEST: YardClock = YardClock::Region(America::Los_Angeles);
const ALASKA: YardClock = YardClock::Region(America::Anchorage);
const HAWAII: YardClock = YardClock::Region(Pacific::Honolulu);

const fn us_yard(
    number: u16,
    name: &'static str,
    city: &'static str,
    zip: &'static str,
    clock: YardClock,
    weight: u32,
) -> AuctionYard {
    AuctionYard { number, name, city, state: state_of(name), zip, canada: false, clock, weight }
}

const fn canadian_yard(
    number: u16,
    name: &'static str,
    city: &'static str,
    zip: &'static str,
    clock: YardClock,
    weight: u32,
) -> AuctionYard {
    AuctionYard { number, name, city, state: state_of(name), zip, canada: true, clock, weight }
}

/// Returns the two letters at the beginning of a yard's name.
const fn state_of(name: &'static str) -> &'static str {
    name.split_at(2).0
}

/// The yards. Weights add up to about 1,540 lots, with the zones' shares of October 2025.
pub(super) const YARDS: &[AuctionYard] = &[
    us_yard(1, "CA - VALLEJO", "VALLEJO", "94590 7203", WEST, 14),
    us_yard(2, "CA - HAYWARD", "HAYWARD", "94545 1130", WEST, 11),
    us_yard(3, "CA - SACRAMENTO", "SACRAMENTO", "95828 0912", WEST, 17),
    us_yard(7, "CA - LOS ANGELES", "LOS ANGELES", "90001 1234", WEST, 22),
    us_yard(9, "CA - FRESNO", "FRESNO", "93725 9326", WEST, 12),
    us_yard(10, "CA - SAN DIEGO", "SAN DIEGO", "92154 7301", WEST, 13),
    us_yard(11, "OR - PORTLAND NORTH", "PORTLAND", "97217 8020", WEST, 9),
    us_yard(12, "WA - GRAHAM", "GRAHAM", "98338 8615", WEST, 14),
    us_yard(13, "NV - LAS VEGAS", "LAS VEGAS", "89115 1851", WEST, 11),
    us_yard(22, "WA - SPOKANE", "AIRWAY HEIGHTS", "99001 9052", WEST, 5),
    us_yard(24, "CA - RANCHO CUCAMONGA", "RANCHO CUCAMONGA", "91739 9404", WEST, 14),
    us_yard(49, "CA - VAN NUYS", "VAN NUYS", "91406 1012", WEST, 14),
    us_yard(25, "AZ - PHOENIX", "PHOENIX", "85043 2502", YardClock::Arizona, 24),
    us_yard(26, "AZ - TUCSON", "TUCSON", "85706 7105", YardClock::Arizona, 9),
    us_yard(28, "CO - DENVER", "LITTLETON", "80125 9766", MOUNTAIN, 17),
    us_yard(29, "CO - COLORADO SPRINGS", "COLORADO SPRINGS", "80907 4103", MOUNTAIN, 8),
    us_yard(30, "UT - SALT LAKE CITY", "NORTH SALT LAKE", "84054 2605", MOUNTAIN, 19),
    us_yard(31, "NM - ALBUQUERQUE", "ALBUQUERQUE", "87105 3906", MOUNTAIN, 9),
    us_yard(32, "ID - BOISE", "NAMPA", "83687 3013", MOUNTAIN, 9),
    us_yard(33, "MT - BILLINGS", "BILLINGS", "59101 7309", MOUNTAIN, 4),
    us_yard(34, "TX - EL PASO", "ANTHONY", "79821 7302", MOUNTAIN, 9),
    us_yard(35, "WY - CASPER", "CASPER", "82604 1802", MOUNTAIN, 2),
    us_yard(40, "TX - DALLAS", "GRAND PRAIRIE", "75051 1401", CENTRAL, 46),
    us_yard(41, "TX - FT. WORTH", "HASLET", "76052 3612", CENTRAL, 34),
    us_yard(42, "TX - HOUSTON", "HOUSTON", "77073 5106", CENTRAL, 48),
    us_yard(43, "TX - SAN ANTONIO", "SAN ANTONIO", "78224 1303", CENTRAL, 30),
    us_yard(44, "TX - AUSTIN", "DALE", "78616 3136", CENTRAL, 18),
    us_yard(45, "TX - MCALLEN", "MERCEDES", "78570 9702", CENTRAL, 18),
    us_yard(46, "TX - LONGVIEW", "LONGVIEW", "75602 5514", CENTRAL, 22),
    us_yard(47, "TX - ABILENE", "ABILENE", "79601 6104", CENTRAL, 9),
    us_yard(51, "IL - CHICAGO NORTH", "ELGIN", "60120 7712", CENTRAL, 32),
    us_yard(52, "IL - CHICAGO SOUTH", "CHICAGO HEIGHTS", "60411 3906", CENTRAL, 28),
    us_yard(53, "IL - SOUTHERN ILLINOIS", "ALORTON", "62207 1902", CENTRAL, 14),
    us_yard(54, "WI - MILWAUKEE NORTH", "MILWAUKEE", "53224 3106", CENTRAL, 14),
    us_yard(55, "WI - MADISON SOUTH", "MADISON", "53718 6403", CENTRAL, 11),
    us_yard(56, "MN - MINNEAPOLIS", "SAINT PAUL", "55108 5212", CENTRAL, 19),
    us_yard(57, "MN - ST. CLOUD", "AVON", "56310 8601", CENTRAL, 6),
    us_yard(58, "MO - ST. LOUIS", "BRIDGETON", "63044 2304", CENTRAL, 19),
    us_yard(59, "MO - COLUMBIA", "COLUMBIA", "65202 9812", CENTRAL, 8),
    us_yard(60, "KS - KANSAS CITY", "KANSAS CITY", "66111 3407", CENTRAL, 19),
    us_yard(61, "KS - WICHITA", "WICHITA", "67216 1404", CENTRAL, 8),
    us_yard(62, "IA - DES MOINES", "DES MOINES", "50317 6303", CENTRAL, 9),
    us_yard(63, "IA - DAVENPORT", "ELDRIDGE", "52748 9704", CENTRAL, 6),
    us_yard(64, "NE - LINCOLN", "GREENWOOD", "68366 4013", CENTRAL, 9),
    us_yard(65, "OK - OKLAHOMA CITY", "OKLAHOMA CITY", "73129 8305", CENTRAL, 19),
    us_yard(66, "OK - TULSA", "TULSA", "74107 8006", CENTRAL, 14),
    us_yard(67, "AR - LITTLE ROCK", "CONWAY", "72032 8901", CENTRAL, 12),
    us_yard(68, "LA - NEW ORLEANS", "NEW ORLEANS", "70129 1203", CENTRAL, 14),
    us_yard(69, "LA - BATON ROUGE", "GREENWELL SPRINGS", "70739 3410", CENTRAL, 11),
    us_yard(70, "LA - SHREVEPORT", "SHREVEPORT", "71109 7616", CENTRAL, 7),
    us_yard(71, "MS - JACKSON", "FLORENCE", "39073 8404", CENTRAL, 9),
    us_yard(72, "AL - BIRMINGHAM", "HUEYTOWN", "35023 1802", CENTRAL, 12),
    us_yard(73, "AL - MOBILE", "EIGHT MILE", "36613 3510", CENTRAL, 9),
    us_yard(74, "TN - MEMPHIS", "MEMPHIS", "38118 1510", CENTRAL, 14),
    us_yard(75, "TN - NASHVILLE", "LEBANON", "37090 5501", CENTRAL, 19),
    us_yard(76, "FL - TALLAHASSEE", "MIDWAY", "32343 6603", EAST, 8),
    us_yard(80, "FL - MIAMI NORTH", "OPA LOCKA", "33054 3310", EAST, 27),
    us_yard(81, "FL - MIAMI CENTRAL", "MIAMI", "33167 3401", EAST, 21),
    us_yard(82, "FL - ORLANDO NORTH", "APOPKA", "32703 8604", EAST, 24),
    us_yard(83, "FL - TAMPA SOUTH", "RIVERVIEW", "33578 3809", EAST, 22),
    us_yard(84, "FL - JACKSONVILLE EAST", "JACKSONVILLE", "32218 2313", EAST, 16),
    us_yard(85, "GA - ATLANTA EAST", "LOGANVILLE", "30052 3505", EAST, 25),
    us_yard(86, "GA - ATLANTA SOUTH", "ELLENWOOD", "30294 3811", EAST, 23),
    us_yard(87, "GA - SAVANNAH", "SAVANNAH", "31407 9305", EAST, 12),
    us_yard(88, "SC - COLUMBIA", "GASTON", "29053 8704", EAST, 16),
    us_yard(89, "NC - RALEIGH", "DUNN", "28334 6703", EAST, 25),
    us_yard(90, "NC - CHINA GROVE", "CHINA GROVE", "28023 8410", EAST, 21),
    us_yard(91, "NC - MOCKSVILLE", "MOCKSVILLE", "27028 4906", EAST, 13),
    us_yard(92, "VA - RICHMOND", "SANDSTON", "23150 5106", EAST, 13),
    us_yard(93, "VA - FREDERICKSBURG", "FREDERICKSBURG", "22407 7201", EAST, 11),
    us_yard(94, "MD - BALTIMORE", "FINKSBURG", "21048 1604", EAST, 18),
    us_yard(95, "MD - WASHINGTON DC", "WALDORF", "20602 2704", EAST, 16),
    us_yard(96, "DE - SEAFORD", "SEAFORD", "19973 6105", EAST, 6),
    us_yard(97, "PA - PHILADELPHIA", "PENNSBURG", "18073 2402", EAST, 21),
    us_yard(98, "PA - PITTSBURGH SOUTH", "WEST MIFFLIN", "15122 1003", EAST, 13),
    us_yard(99, "PA - HARRISBURG", "GRANTVILLE", "17028 9310", EAST, 14),
    us_yard(100, "NJ - SOMERVILLE", "HILLSBOROUGH", "08844 4509", EAST, 18),
    us_yard(101, "NJ - TRENTON", "WINDSOR", "08561 0010", EAST, 17),
    us_yard(102, "NY - LONG ISLAND", "BROOKHAVEN", "11719 9405", EAST, 19),
    us_yard(103, "NY - NEWBURGH", "MARLBORO", "12542 6304", EAST, 14),
    us_yard(104, "NY - ROCHESTER", "LEROY", "14482 9205", EAST, 10),
    us_yard(105, "CT - HARTFORD", "NEW BRITAIN", "06051 3105", EAST, 11),
    us_yard(106, "MA - NORTH BOSTON", "NORTH BILLERICA", "01862 2504", EAST, 13),
    us_yard(107, "NH - CANDIA", "CANDIA", "03034 2130", EAST, 7),
    us_yard(108, "ME - LYMAN", "LYMAN", "04002 6402", EAST, 6),
    us_yard(110, "OH - COLUMBUS", "COLUMBUS", "43207 3909", EAST, 17),
    us_yard(111, "OH - CLEVELAND EAST", "NORTHFIELD", "44067 1904", EAST, 12),
    us_yard(112, "OH - DAYTON", "MORAINE", "45439 1608", EAST, 12),
    us_yard(113, "MI - DETROIT", "WOODHAVEN", "48183 1701", EAST, 20),
    us_yard(114, "MI - LANSING", "LANSING", "48917 9405", EAST, 15),
    us_yard(115, "IN - INDIANAPOLIS", "INDIANAPOLIS", "46254 4504", EAST, 21),
    us_yard(116, "IN - FORT WAYNE", "FORT WAYNE", "46803 9104", EAST, 9),
    us_yard(117, "KY - LOUISVILLE", "LOUISVILLE", "40272 3808", EAST, 10),
    us_yard(118, "WV - CHARLESTON", "HURRICANE", "25526 1304", EAST, 7),
    us_yard(120, "HI - HONOLULU", "KAPOLEI", "96707 1802", HAWAII, 7),
    us_yard(121, "AK - ANCHORAGE", "ANCHORAGE", "99501 1514", YardClock::Anchorage, 2),
    us_yard(122, "AK - FAIRBANKS", "FAIRBANKS", "99701 6404", ALASKA, 2),
    canadian_yard(180, "ON - TORONTO", "COOKSTOWN", "L0L 1L0", EAST, 20),
    canadian_yard(181, "ON - LONDON", "LONDON", "N6N 1E3", EAST, 8),
    canadian_yard(182, "ON - OTTAWA", "STITTSVILLE", "K2S 1B6", EAST, 6),
    canadian_yard(183, "QC - MONTREAL", "MONTREAL", "H1B 5W5", EAST, 14),
    canadian_yard(184, "AB - CALGARY", "ROCKY VIEW COUNTY", "T1X 0K2", YardClock::Alberta, 8),
    canadian_yard(185, "AB - EDMONTON", "NISKU", "T9E 8L1", YardClock::Alberta, 7),
    AuctionYard {
        number: 190,
        name: "ATLANTIC CANADA AUCTION",
        city: "MONCTON",
        state: "NB",
        zip: "E1E 4R3",
        canada: true,
        clock: YardClock::Atlantic,
        weight: 2,
    },
    AuctionYard {
        number: 371,
        name: "WHOLESALE AUCTION",
        city: "DALLAS",
        state: "TX",
        zip: "75254 7604",
        canada: false,
        clock: CENTRAL,
        weight: 4,
    },
    AuctionYard {
        number: 372,
        name: "*NCS - EASTERN REGION",
        city: "HAMPTON",
        state: "VA",
        zip: "23661 1107",
        canada: false,
        clock: EAST,
        weight: 4,
    },
];
