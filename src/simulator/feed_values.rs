//! Raw values of the feed with their frequencies, from 181,249 real lots of 2026 and the 153,991 rows of October 2025.
//! Where a raw value has changed over time, both forms are here with the same meaning. A row is written in one of the
//! two generations ([`super::lot::LotValues::modern`]), and both generations occur in one file.

/// A value in its old and its new form, with its frequency.
pub(super) struct FeedValue {
    /// The form until about March 2026.
    pub(super) old: &'static str,
    /// The form since then.
    pub(super) new: &'static str,
    /// Number of occurrences.
    pub(super) weight: u32,
}

const fn feed_value(old: &'static str, new: &'static str, weight: u32) -> FeedValue {
    FeedValue { old, new, weight }
}

/// A kind of damage: the feed's text, the code of the taxonomy, and the frequencies as primary and as secondary damage.
pub(super) struct DamageValue {
    pub(super) text: &'static str,
    pub(super) code: &'static str,
    pub(super) primary: u32,
    pub(super) secondary: u32,
}

const fn damage_value(text: &'static str, code: &'static str, primary: u32, secondary: u32) -> DamageValue {
    DamageValue { text, code, primary, secondary }
}

/// `Damage Description` and `Secondary Damage`.
pub(super) const DAMAGES: &[DamageValue] = &[
    damage_value("FRONT END", "damage_front_end", 93663, 12834),
    damage_value("REAR END", "damage_rear_end", 25855, 14070),
    damage_value("SIDE", "damage_side", 23422, 28526),
    damage_value("MINOR DENT/SCRATCHES", "damage_minor_dent", 9605, 12873),
    damage_value("MECHANICAL", "damage_mechanical", 5450, 2805),
    damage_value("NORMAL WEAR", "damage_normal_wear", 4008, 697),
    damage_value("HAIL", "damage_hail", 3659, 1018),
    damage_value("ALL OVER", "damage_all_over", 3021, 266),
    damage_value("UNDERCARRIAGE", "damage_undercarriage", 2366, 4742),
    damage_value("ROLLOVER", "damage_rollover", 2281, 105),
    damage_value("VANDALISM", "damage_vandalism", 1931, 167),
    damage_value("BURN", "damage_burn", 1671, 108),
    damage_value("WATER/FLOOD", "damage_flood", 1643, 126),
    damage_value("TOP/ROOF", "damage_roof", 1203, 947),
    damage_value("BURN - ENGINE", "damage_burn_engine", 515, 79),
    damage_value("STRIPPED", "damage_stripped", 299, 251),
    damage_value("BURN - INTERIOR", "damage_burn_interior", 220, 153),
    damage_value("FRAME DAMAGE", "damage_frame", 163, 215),
    damage_value("DAMAGE HISTORY", "damage_history", 90, 159),
    damage_value("BIOHAZARD/CHEMICAL", "damage_biohazard", 86, 4),
    damage_value("PARTIAL REPAIR", "damage_partial_repair", 39, 29),
    damage_value("MISSING/ALTERED VIN", "damage_altered_vin", 23, 82),
    damage_value("REJECTED REPAIR", "damage_rejected_repair", 21, 26),
    damage_value("REPLACED VIN", "damage_replaced_vin", 10, 24),
    damage_value("UNKNOWN", "damage_unknown", 5, 4),
];

/// `Color`.
pub(super) const COLORS: &[(&str, u32)] = &[
    ("WHITE", 40799),
    ("BLACK", 36742),
    ("GRAY", 26337),
    ("SILVER", 23109),
    ("BLUE", 18728),
    ("RED", 12197),
    ("CHARCOAL", 4737),
    ("BURGUNDY", 3460),
    ("GREEN", 2813),
    ("TAN", 2076),
    ("MAROON", 1710),
    ("BROWN", 1555),
    ("BEIGE", 1334),
    ("GOLD", 1328),
    ("ORANGE", 892),
    ("TWO TONE", 761),
    ("YELLOW", 557),
    ("BURN", 512),
    ("TEAL", 426),
    ("PURPLE", 420),
    ("CREAM", 393),
    ("TURQUOISE", 314),
    ("PINK", 37),
    ("CRIMSON", 7),
    ("UNKNOWN - NOT OK FOR INV.", 5),
];

/// `Fuel Type`, indexed by [`super::vehicles::VehicleModel::fuel`].
pub(super) const FUELS: &[FeedValue] = &[
    feed_value("GAS", "GAS", 148217),
    feed_value("FLEXIBLE FUEL", "FLEXIBLE", 12396),
    feed_value("HYBRID ENGINE", "ELECTRIC AND GAS HYBRID", 7859),
    feed_value("DIESEL", "DIESEL", 4706),
    feed_value("ELECTRIC", "ELECTRIC", 3400),
    feed_value("UNKNOWN", "UNKNOWN", 159),
];

/// `Drive`, indexed by [`super::vehicles::VehicleModel::drive`].
pub(super) const DRIVES: &[FeedValue] = &[
    feed_value("Front-wheel Drive", "FRONT WHEEL DRIVE", 84941),
    feed_value("Rear-wheel drive", "REAR WHEEL DRIVE", 20237),
    feed_value("All wheel drive", "ALL WHEEL DRIVE", 43209),
    feed_value("4x4 w/Rear Wheel Drv", "4X4 W/REAR WHEEL DRV", 19181),
    feed_value("4x4 w/Front Whl Drv", "4X4 W/FRONT WHL DRV", 5585),
    feed_value("Four by Four", "FOUR BY FOUR", 1485),
    feed_value("4x2", "4X2", 473),
];

/// `Transmission`.
pub(super) const TRANSMISSIONS: &[FeedValue] = &[
    feed_value("AUTOMATIC", "AUTOMATIC", 173_654),
    feed_value("MANUAL", "MANUAL", 5117),
    feed_value("UNKNOWN", "UNKNOWN", 146),
    feed_value("NONE", "NONE", 85),
    feed_value("Automatic", "AUTOMATIC", 1800),
    feed_value("Manual", "MANUAL", 50),
];

/// `Body Style`, cut to eight characters in the old generation, indexed by [`super::vehicles::VehicleModel::body`].
pub(super) const BODIES: &[FeedValue] = &[
    feed_value("SEDAN 4D", "SEDAN 4DR", 0),
    feed_value("4DR SPOR", "4DR SPORT UTILITY", 0),
    feed_value("CREW PIC", "CREW PICKUP", 0),
    feed_value("HATCHBAC", "HATCHBACK 4DR", 0),
    feed_value("STATION", "STATION WAGON", 0),
    feed_value("SPORTS V", "SPORTS VAN", 0),
    feed_value("COUPE", "COUPE 3DR", 0),
    feed_value("CARGO VA", "CARGO VAN", 0),
    feed_value("CONVERTI", "CONVERTIBLE", 0),
    feed_value("CONVENTI", "CONVENTIONAL CAB", 0),
    feed_value("ROAD/STR", "ROAD/STREET", 0),
    feed_value("TRAILER", "TRAILER", 0),
    feed_value("ALL TERR", "ALL TERRAIN", 0),
    feed_value("MOTORIZE", "MOTORIZED HOME", 0),
    feed_value("STRAIGHT", "STRAIGHT TRUCK", 0),
    feed_value("SNOWMOBI", "SNOWMOBILE", 0),
    feed_value("UTILITY", "UTILITY", 0),
];

/// `Sale Status`, which is a type of sale and never a state of the lot.
pub(super) const SALE_TYPES: &[(&str, u32)] =
    &[("Pure Sale", 100_543), ("On Minimum Bid", 43_386), ("On Approval", 10_054)];

/// `Has Keys-Yes or No`, with its meaning.
pub(super) const KEYS: &[(&str, Option<bool>, u32)] =
    &[("YES", Some(true), 138_312), ("NO", Some(false), 9671), ("EXM", None, 5999)];

/// `Odometer Brand`.
pub(super) const BRANDS: &[(&str, u32)] = &[("A", 138_410), ("N", 24_886), ("E", 17_592), ("X", 276)];

/// `Lot Cond. Code` with its `Runs/Drives`.
pub(super) const CONDITIONS: &[(&str, &str, u32)] = &[
    ("D", "Run & Drive Verified", 118_268),
    ("S", "Vehicle Starts", 14_561),
    ("E", "DEFAULT", 41_752),
    ("", "", 9500),
];

/// `Sale Title Type` if the state has no usual code.
pub(super) const TITLES: &[(&str, u32)] = &[
    ("ST", 45989),
    ("SC", 43511),
    ("CT", 33303),
    ("BP", 5286),
    ("BS", 3121),
    ("RS", 2957),
    ("CZ", 2868),
    ("DV", 1066),
    ("PO", 855),
    ("NR", 424),
    ("FS", 322),
    ("SB", 273),
    ("RT", 261),
    ("NT", 195),
    ("RP", 180),
    ("SQ", 161),
    ("DC", 161),
    ("JT", 113),
    ("SH", 113),
    ("FC", 108),
    ("PX", 100),
    ("DA", 98),
    ("SS", 92),
    ("SD", 86),
    ("WT", 60),
    ("PR", 40),
];

/// `Sale Title Type` by state, for states with a usual code.
pub(super) const STATE_TITLES: &[(&str, &str)] = &[
    ("TX", "SV"),
    ("FL", "RB"),
    ("MD", "S1"),
    ("NY", "SM"),
    ("ON", "NU"),
    ("CO", "PS"),
    ("AB", "BV"),
    ("QC", "SR"),
    ("CA", "SC"),
    ("NC", "SC"),
    ("MI", "CT"),
];

/// `Seller Name`. One value is invalid, as in the real feed.
pub(super) const SELLERS: &[(&str, u32)] = &[
    ("State Farm Insurance", 300),
    ("GEICO", 220),
    ("Progressive Insurance", 260),
    ("Allstate Insurance", 140),
    ("USAA", 120),
    ("Farmers Insurance", 90),
    ("Liberty Mutual", 80),
    ("Nationwide", 50),
    ("Enterprise Holdings", 40),
    ("ENTERPRISE-LOGO.jpeg", 4),
    ("AVIS BUDGET GROUP", 16),
    ("INTACT ASSURANCE", 20),
    ("Charity Donation", 30),
];

/// `Special Note`, which the feed pads to 28 characters. One contains a no-break space, one a telephone number.
pub(super) const NOTES: &[&str] = &[
    "REPOSSESSION",
    "ODOMETER IS IN KILOMETERS",
    "OFFSITE: CALL (555) 010-0137 TO PREVIEW",
    "BIDDER MUST HOLD A DEALER\u{a0}LICENSE",
    "ENGINE NOT ORIGINAL",
    "MISSING CATALYTIC CONVERTER",
];

/// A `Special Note` with an inch sign, which the feed does not escape.
pub(super) const INCH_NOTE: &str = "FITTED WITH 22\" WHEELS AND A 6\" LIFT";

/// `Announcements`.
pub(super) const ANNOUNCEMENTS: &[&str] =
    &["Maintenance", "Safety,Comfort", "Maintenance,Safety,Comfort,Other,Emission", "Emission,Other"];

/// `Sale Light`.
pub(super) const LIGHTS: &[(&str, u32)] = &[("RED LIGHT", 3529), ("GREEN LIGHT", 467), ("YELLOW LIGHT", 285)];
