//! The vehicles of the simulated feed: makes and models, and the properties derived from a vehicle's number.
//!
//! A vehicle is a number. Its constant properties (make, year, colour, engine, VIN) are drawn again from that number
//! whenever a row is written, so that a lot costs a hundred bytes regardless of its text. VINs are made without I, O
//! and Q and contain the vehicle's number, so two vehicles never share one by accident. The feed's defects of a VIN are
//! added afterwards ([`VinForm`]). The result that a tolerant reader must obtain for each defect is known from its
//! construction.

use super::feed_values::COLORS;
use super::rng::SplitMix64;

/// A vehicle model.
pub(super) struct VehicleModel {
    /// `Vehicle Type`.
    pub(super) kind: char,
    /// `Make`.
    pub(super) make: &'static str,
    /// The first three characters of the VIN.
    pub(super) wmi: &'static str,
    /// The full `Model Group`. The old feed cuts it to ten characters.
    pub(super) group: &'static str,
    /// Values of `Trim`, which also end `Model Detail`.
    pub(super) trims: &'static [&'static str],
    /// Index into [`super::feed_values::BODIES`].
    pub(super) body: u8,
    /// `Engine` and `Cylinders`.
    pub(super) engine: (&'static str, &'static str),
    /// Index into [`super::feed_values::DRIVES`].
    pub(super) drive: u8,
    /// Index into [`super::feed_values::FUELS`].
    pub(super) fuel: u8,
    /// Share among the models of the same vehicle type.
    pub(super) weight: u32,
}

const I4: (&str, &str) = ("2.0L  4", "4");
const I25: (&str, &str) = ("2.5L  4", "4");
const I15: (&str, &str) = ("1.5L  4", "4");
const V6: (&str, &str) = ("3.5L  6", "6");
const V6B: (&str, &str) = ("3.6L 6", "6");
const V8: (&str, &str) = ("5.3L  8", "8");
const D15: (&str, &str) = ("14.9L  6", "6");
const EV: (&str, &str) = ("", "0");
const TWIN: (&str, &str) = ("2", "2");
const ODD: (&str, &str) = ("3.474057568L 6", "6");
const NO: (&str, &str) = ("", "");

#[expect(clippy::too_many_arguments, reason = "a row of the table below")]
const fn m(
    kind: char,
    make: &'static str,
    wmi: &'static str,
    group: &'static str,
    trims: &'static [&'static str],
    body: u8,
    engine: (&'static str, &'static str),
    drive: u8,
    fuel: u8,
    weight: u32,
) -> VehicleModel {
    VehicleModel { kind, make, wmi, group, trims, body, engine, drive, fuel, weight }
}

/// The models.
pub(super) const MODELS: &[VehicleModel] = &[
    m('V', "FORD", "1FT", "F150", &["XLT", "LARIAT", "SUPER CREW", "XL"], 2, V6, 3, 1, 60),
    m('V', "FORD", "1FM", "EXPLORER", &["XLT", "LIMITED", "ST"], 1, V6, 2, 0, 34),
    m('V', "FORD", "1FM", "ESCAPE", &["SE", "SEL", "TITANIUM"], 1, I15, 0, 0, 36),
    m('V', "FORD", "3FA", "FUSION", &["SE", "TITANIUM HYBRID", "S"], 0, I25, 0, 0, 30),
    m('V', "FORD", "1FB", "TRANSIT CONNECT", &["XL", "XLT", "T-250"], 7, I25, 1, 0, 10),
    m('V', "FORD", "1FM", "BRONCO BADLANDS", &["", "SPORT"], 1, I4, 3, 0, 8),
    m('V', "TOYOTA", "4T1", "CAMRY", &["LE", "SE", "XSE", "XLE"], 0, I25, 0, 0, 56),
    m('V', "TOYOTA", "2T1", "COROLLA", &["LE", "SE", "L"], 0, I4, 0, 0, 50),
    m('V', "TOYOTA", "2T3", "RAV4", &["XLE", "LE", "LIMITED"], 1, I25, 2, 0, 40),
    m('V', "TOYOTA", "5TD", "HIGHLANDER", &["LIMITED", "XLE"], 1, V6, 2, 0, 20),
    m('V', "TOYOTA", "JTD", "PRIUS", &["", "LE"], 3, I4, 0, 2, 24),
    m('V', "TOYOTA", "5TF", "TACOMA", &["DOUBLE CAB", "ACCESS CAB"], 2, V6, 3, 0, 22),
    m('V', "HONDA", "1HG", "ACCORD", &["LX", "SPORT", "EX-L", "TOURING HYBRID"], 0, I15, 0, 0, 52),
    m('V', "HONDA", "2HG", "CIVIC", &["LX", "EX", "SPORT"], 0, I4, 0, 0, 50),
    m('V', "HONDA", "5J6", "CR-V", &["EX", "EXL", "LX"], 1, I15, 2, 0, 40),
    m('V', "HONDA", "5FN", "ODYSSEY", &["EXL", "TOURING"], 5, V6, 0, 0, 18),
    m('V', "CHEVROLET", "3GC", "SILVERADO", &["LT", "C1500", "K1500 LTZ"], 2, V8, 3, 1, 46),
    m('V', "CHEVROLET", "1G1", "MALIBU", &["LT", "LS"], 0, I15, 0, 0, 36),
    m('V', "CHEVROLET", "2GN", "EQUINOX", &["LT", "LS"], 1, I15, 0, 0, 34),
    m('V', "CHEVROLET", "1GN", "TAHOE", &["K1500 LT", "C1500 LS"], 1, V8, 3, 0, 18),
    m('V', "CHEV", "1G1", "CRUZE", &["LT"], 0, ("1.4L  4", "4"), 0, 0, 1),
    m('V', "NISSAN", "1N4", "ALTIMA", &["S", "2.5", "SV", "SR"], 0, I25, 0, 0, 56),
    m('V', "NISSAN", "5N1", "ROGUE", &["S", "SV", "SL"], 1, I25, 2, 0, 50),
    m('V', "NISSAN", "3N1", "SENTRA", &["S", "SV"], 0, I4, 0, 0, 36),
    m('V', "NISSAN", "3N1", "VERSA", &["S", "SV"], 0, ("1.6L  4", "4"), 0, 0, 20),
    m('V', "NISS", "1N4", "MAXIMA", &["3.5S"], 0, V6, 0, 0, 1),
    m('V', "HYUNDAI", "5NP", "ELANTRA", &["SE", "SEL"], 0, I4, 0, 0, 44),
    m('V', "HYUNDAI", "5NP", "SONATA", &["SE", "SPORT", "HYBRID"], 0, ("2.4L  4", "4"), 0, 0, 40),
    m('V', "HYUNDAI", "KM8", "TUCSON", &["SEL", "LIMITED"], 1, I25, 2, 0, 24),
    m('V', "KIA", "3KP", "FORTE", &["FE", "LX"], 0, I4, 0, 0, 28),
    m('V', "KIA", "5XX", "OPTIMA", &["LX", "EX"], 0, ("2.4L  4", "4"), 0, 0, 26),
    m('V', "KIA", "5XY", "SORENTO", &["LX", "S"], 1, ("2.4L  4", "4"), 2, 0, 20),
    m('V', "JEEP", "1C4", "GRAND CHEROKEE", &["LAREDO", "LIMITED"], 1, V6B, 3, 0, 34),
    m('V', "JEEP", "1C4", "WRANGLER UNLIMITED", &["SAHARA", "SPORT"], 1, V6B, 3, 0, 18),
    m('V', "JEEP", "1C4", "CHEROKEE", &["LATITUDE", "LIMITED"], 1, ("2.4L  4", "4"), 4, 0, 22),
    m('V', "DODGE", "2C3", "CHARGER", &["SXT", "R/T", "SCAT PACK"], 0, V6B, 1, 0, 32),
    m('V', "DODGE", "2C3", "CHALLENGER", &["SXT", "R/T"], 6, V6B, 1, 0, 18),
    m('V', "DODGE", "2C4", "GRAND CARAVAN", &["SXT", "SE"], 5, V6B, 0, 1, 18),
    m('V', "RAM", "1C6", "1500", &["BIG HORN/LONE STAR", "CLASSIC TRADESMAN"], 2, ("5.7L  8", "8"), 3, 0, 30),
    m('V', "CHRYSLER", "2C4", "PACIFICA", &["TOURING L", "LIMITED"], 5, V6B, 0, 0, 14),
    m('V', "SUBARU", "4S4", "OUTBACK", &["2.5I PREMIUM", "LIMITED"], 4, I25, 2, 0, 24),
    m('V', "SUBARU", "JF2", "FORESTER", &["PREMIUM", "SPORT"], 1, I25, 2, 0, 18),
    m('V', "VOLKSWAGEN", "3VW", "JETTA", &["S", "SE"], 0, ("1.4L  4", "4"), 0, 0, 24),
    m('V', "VOLKSWAGEN", "1V2", "ATLAS CROSS SPORT", &["SE", "SEL"], 1, I4, 2, 0, 8),
    m('V', "MAZDA", "JM3", "CX-5", &["TOURING", "GRAND TOURING"], 1, I25, 2, 0, 20),
    m('V', "BMW", "WBA", "3 SERIES", &["330I", "330XI", "328I"], 0, I4, 2, 0, 20),
    m('V', "BMW", "5UX", "X5", &["XDRIVE40I", "XDRIVE35I"], 1, ODD, 2, 0, 14),
    m('V', "MERCEDES-BENZ", "WDD", "C-CLASS", &["300 4MATIC", "300"], 0, I4, 2, 0, 22),
    m('V', "AUDI", "WAU", "A4", &["PREMIUM", "PREMIUM PLUS"], 0, I4, 2, 0, 12),
    m('V', "LEXUS", "JTH", "IS", &["250", "300", "350"], 0, V6, 1, 0, 16),
    m('V', "TESLA", "5YJ", "MODEL 3", &["", "LONG RANGE"], 0, EV, 1, 4, 30),
    m('V', "TESLA", "7SA", "MODEL Y", &["", "PERFORMANCE"], 1, EV, 2, 4, 22),
    m('V', "GMC", "1GT", "ALL MODELS", &["SLE", "DENALI"], 2, V8, 3, 3, 10),
    m('V', "CADILLAC", "1GY", "ALL OTHER", &["LUXURY"], 1, V6B, 2, 0, 12),
    m('V', "MITSUBISHI", "JA4", "OUTLANDER SPORT", &["ES", "SE"], 1, I4, 2, 0, 10),
    m('K', "FORD", "1FD", "SUPER DUTY F-650", &["", "STRAIGHT FRAME"], 14, ("6.7L  8", "8"), 1, 3, 10),
    m('K', "ISUZU", "JAL", "NPR", &["", "HD"], 14, ("5.2L  4", "4"), 6, 3, 6),
    m('U', "FREIGHTLINER", "3AK", "CASCADIA 126", &["", "113\" SLEEPER CAB"], 9, D15, 6, 3, 10),
    m('U', "FREIGLINER", "3AK", "CASCADIA", &[""], 9, D15, 6, 3, 1),
    m('U', "KENWORTH", "1XK", "T680", &["", "76\" HI-ROOF SLEEPER"], 9, D15, 6, 3, 6),
    m('C', "HARLEY-DAVIDSON", "1HD", "FLHX", &["", "STREET GLIDE"], 10, TWIN, 1, 0, 10),
    m('C', "HONDA", "MLH", "CBR600", &["RR", ""], 10, TWIN, 1, 0, 6),
    m('C', "YAMAHA", "JYA", "YZFR6", &[""], 10, ("4", "4"), 1, 0, 6),
    m('R', "FOREST RIVER", "4X4", "CHEROKEE", &["GREY WOLF 23'", ""], 11, NO, 0, 0, 8),
    m('R', "WINNEBAGO", "1F6", "ALL Models", &["VISTA 29V"], 13, ("6.8L 10", "10"), 1, 0, 4),
    m('L', "GREAT DANE", "1GR", "ALL OTHER", &["53' DRY VAN", "REEFER"], 11, NO, 0, 0, 8),
    m('L', "16FT", "4YM", "All Models", &["UTILITY"], 11, NO, 0, 0, 1),
    m('A', "POLARIS", "4XA", "RZR XP 1000", &["", "PREMIUM"], 12, TWIN, 5, 0, 8),
    m('M', "BAYLINER", "BLB", "ALL MODELS", &["175 BR"], 16, ("3.0L 4", "4"), 0, 0, 4),
    m('E', "CATERPILLAR", "CAT", "ALL OTHER", &["299D3"], 16, ("U", ""), 0, 3, 4),
    m('J', "SEA-DOO", "YDV", "GTX", &["300", "LIMITED"], 16, ("3", "3"), 0, 0, 4),
    m('S', "SKI-DOO", "2BP", "SUMMIT 850 X 165\"", &["E-TEC", ""], 15, TWIN, 0, 0, 4),
];

/// `Vehicle Type` counts of October 2025, with the codes of 2026 that occur beside them.
const VEHICLE_TYPES: &[(char, u32)] = &[
    ('V', 140_232),
    ('K', 3633),
    ('C', 2902),
    ('R', 2039),
    ('L', 1603),
    ('U', 1469),
    ('A', 642),
    ('M', 542),
    ('E', 425),
    ('J', 132),
    ('S', 169),
];

/// Vehicle types with short or unusual VINs.
const UNCOMMON_TYPES: &[(char, u32)] = &[('L', 4), ('M', 3), ('E', 2), ('R', 1), ('V', 4)];

/// The form of a VIN in the feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum VinForm {
    /// Seventeen valid characters.
    Plain,
    /// Seventeen valid characters in lower case.
    Lower,
    /// A valid number of 11 to 13 characters, from before 1981.
    Legacy,
    /// An O typed for a 0, which normalising removes. Sixteen characters remain.
    Lost,
    /// An inserted I, O or Q. Without the letter, the number may be that of other lots too.
    Inserted,
    /// No text.
    Empty,
    /// An invalid number: too short, too long, or with other characters.
    Malformed,
}

/// The constant properties of a vehicle.
pub(super) struct SimulatedVehicle {
    /// The vehicle's model.
    pub(super) model: &'static VehicleModel,
    /// `Year`. 0 means unknown.
    pub(super) year: u16,
    /// `Color`.
    pub(super) color: &'static str,
    /// `Trim`.
    pub(super) trim: &'static str,
    /// The odometer at the first listing.
    pub(super) odometer: u32,
    /// The value without damage.
    pub(super) value: u32,
}

impl SimulatedVehicle {
    /// Returns the vehicle with this number.
    pub(super) fn from_id(seed: u64, id: u32, kind: VinForm) -> SimulatedVehicle {
        let mut dice = SplitMix64::with_seed([seed, 1, u64::from(id)]);
        let kinds = if matches!(kind, VinForm::Malformed | VinForm::Empty) { UNCOMMON_TYPES } else { VEHICLE_TYPES };
        let letter = if kind == VinForm::Legacy { 'V' } else { kinds[dice.pick_weighted(kinds, |k| k.1)].0 };
        let model = &MODELS[dice.pick_weighted(MODELS, |m| if m.kind == letter { m.weight } else { 0 })];
        let old = kind == VinForm::Legacy || (kind == VinForm::Malformed && letter == 'V');
        let year = match (old, dice.below(10_000)) {
            (true, _) => dice.between(1930, 1980),
            (false, 0) => 0,
            // The later of two draws: most vehicles in the feed are ten years old or less.
            _ => dice.between(1998, 2026).max(dice.between(2004, 2026)),
        };
        SimulatedVehicle {
            model,
            year: year as u16,
            color: COLORS[dice.pick_weighted(COLORS, |c| c.1)].0,
            trim: dice.pick(model.trims),
            odometer: dice.between(900, 120_000) as u32 + dice.below(130_000) as u32,
            value: dice.between(1500, 30_000) as u32 + dice.below(9000) as u32,
        }
    }
}

/// Returns the text of the VIN column, and the VIN that it is read as, or `None` if it identifies no vehicle. `salt` is
/// the lot's own number: two lots distort one VIN in different ways.
pub(super) fn make_vin(seed: u64, id: u32, model: &VehicleModel, kind: VinForm, salt: u32) -> (String, Option<String>) {
    const VIN_CHARACTERS: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ0123456789";
    const PLANT_CODES: &[u8] = b"ABCDEFGHJKLMNPRSTUVWXYZ";
    let mut dice = SplitMix64::with_seed([seed, 2, u64::from(id)]);
    let mut own = SplitMix64::with_seed([seed, 3, u64::from(salt)]);
    // A permutation of the numbers below 23 million, which looks like a serial number and never repeats.
    let serial = (u64::from(id) * 7_368_787 + 1_234_577) % 23_000_000;
    let mut whole = String::with_capacity(20);
    whole.push_str(model.wmi);
    (0..6).for_each(|_| whole.push(dice.pick(VIN_CHARACTERS) as char));
    whole.push(dice.pick(b"ABCDEFGHJKLMNPRSTVWXY123456789") as char);
    whole.push(PLANT_CODES[(serial / 1_000_000) as usize] as char);
    whole.push_str(&format!("{:06}", serial % 1_000_000));
    match kind {
        VinForm::Plain => (whole.clone(), Some(whole)),
        VinForm::Lower => (whole.to_lowercase(), Some(whole)),
        VinForm::Legacy => {
            let short = format!("{}{serial:08}", &whole[..3 + dice.below(3) as usize]);
            (short.clone(), Some(short))
        }
        VinForm::Lost => {
            let at = dice.between(3, 8) as usize;
            let (left, right) = (&whole[..at], &whole[at + 1..]);
            (format!("{left}O{right}"), Some(format!("{left}{right}")))
        }
        VinForm::Inserted => {
            let at = own.between(3, 16) as usize;
            let letter = own.pick(&["I", "O", "Q"]);
            (format!("{}{letter}{}", &whole[..at], &whole[at..]), Some(whole))
        }
        VinForm::Empty => (String::new(), None),
        VinForm::Malformed => (make_malformed_vin(&mut own, &whole), None),
    }
}

/// Returns a text that no rule accepts as a VIN.
fn make_malformed_vin(dice: &mut SplitMix64, whole: &str) -> String {
    match dice.below(10) {
        0..=4 => whole[17 - dice.between(6, 10) as usize..].to_owned(),
        5 => format!("{}-{}", &whole[..4], &whole[11..]),
        6 => format!("{} {}", &whole[..5], &whole[9..]),
        7 => format!("{whole}{}", &whole[11..]),
        // Eleven characters, of which ten remain after normalising.
        8 => format!("{}O{}", &whole[7..10], &whole[10..]),
        _ => "NOVIN".to_owned(),
    }
}
