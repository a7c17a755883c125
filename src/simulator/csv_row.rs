//! Writes one row of the file in the feed's own quoting: text in double quotes, numbers bare, an inch sign inside a
//! text unescaped.

use super::SimulatorOptions;
use super::feed_values::{
    ANNOUNCEMENTS, BODIES, BRANDS, CONDITIONS, DRIVES, FUELS, FeedValue, INCH_NOTE, KEYS, LIGHTS, NOTES, SALE_TYPES,
    SELLERS, STATE_TITLES, TITLES, TRANSMISSIONS,
};
use super::lot::{LotValues, SimulatedLot, SimulatedSale, from_minutes, truncate_chars};
use super::rng::SplitMix64;
use super::vehicles::SimulatedVehicle;
use chrono::{DateTime, Datelike, Duration, Timelike, Utc};
use chrono_tz::America;

/// The header of October 2025. Later files call column 51 `Wholesale`.
const FEED_HEADER: &str = "\"Id\",\"Yard number\",\"Yard name\",\"Sale Date M/D/CY\",\"Day of Week\",\"Sale time (HHMM)\",\
\"Time Zone\",\"Item#\",\"Lot number\",\"Vehicle Type\",\"Year\",\"Make\",\"Model Group\",\"Model Detail\",\"Body Style\",\
\"Color\",\"Damage Description\",\"Secondary Damage\",\"Sale Title State\",\"Sale Title Type\",\"Has Keys-Yes or No\",\
\"Lot Cond. Code\",\"VIN\",\"Odometer\",\"Odometer Brand\",\"Est. Retail Value\",\"Repair cost\",\"Engine\",\"Drive\",\
\"Transmission\",\"Fuel Type\",\"Cylinders\",\"Runs/Drives\",\"Sale Status\",\"High Bid =non-vix,Sealed=Vix\",\
\"Special Note\",\"Location city\",\"Location state\",\"Location ZIP\",\"Location country\",\"Currency Code\",\
\"Image Thumbnail\",\"Create Date/Time\",\"Grid/Row\",\"Make-an-Offer Eligible\",\"Buy-It-Now Price\",\"Image URL\",\
\"Trim\",\"Last Updated Time\",\"Rentals\",\"Copart Select\",\"Seller Name\",\"Offsite Address1\",\"Offsite State\",\
\"Offsite City\",\"Offsite Zip\",\"Sale Light\",\"AutoGrade\",\"Announcements\"\n";

/// Returns the header line of window `k`.
pub(super) fn header_line(options: &SimulatorOptions, k: u32) -> String {
    if k >= options.wholesale_from { FEED_HEADER.replace("Copart Select", "Wholesale") } else { FEED_HEADER.to_owned() }
}

/// Returns the snapshot's clock, which every row of a file contains: Pacific time on a 12-hour clock without AM or PM,
/// five minutes before the window.
pub(super) fn snapshot_clock(window: DateTime<Utc>, micros: u32) -> String {
    let at = (window - Duration::minutes(5)).with_timezone(&America::Los_Angeles);
    format!("{}-{:02}.{:02}.06.{micros:06}", at.format("%Y-%m-%d"), at.hour12().1, at.minute())
}

/// A CSV line under construction.
struct CsvLine<'a>(&'a mut Vec<u8>);

impl CsvLine<'_> {
    fn push_text(&mut self, value: &str) {
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\",");
    }

    fn push_digits(&mut self, mut n: u64) {
        let mut buffer = [0; 20];
        let mut at = buffer.len();
        loop {
            at -= 1;
            buffer[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.0.extend_from_slice(&buffer[at..]);
    }

    fn push_number(&mut self, n: u64) {
        self.push_digits(n);
        self.0.push(b',');
    }

    /// Appends a number with one digit after the decimal point, a zero.
    fn push_tenths(&mut self, n: u64) {
        self.push_digits(n);
        self.0.extend_from_slice(b".0,");
    }

    /// Appends an amount of cents with two digits after the decimal point.
    fn push_cents(&mut self, n: u64) {
        self.push_digits(n / 100);
        self.0.extend_from_slice(&[b'.', b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8, b',']);
    }
}

fn push_hex(dice: &mut SplitMix64, into: &mut String, digits: usize) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut left = 0;
    for n in 0..digits {
        if n % 16 == 0 {
            left = dice.next();
        }
        into.push(HEX_DIGITS[(left & 15) as usize] as char);
        left >>= 4;
    }
}

/// The values of a row that do not come from its lot.
pub(super) struct RowContext<'a> {
    pub(super) options: &'a SimulatorOptions,
    pub(super) position: u64,
    pub(super) clock: &'a str,
}

/// Fields that are drawn for a row and depend on the lot's values. The same numbers are drawn for all values, so that
/// one change does not cause others.
pub(super) struct DrawnFields {
    styled: bool,
    /// `Sale Title Type`.
    pub(super) title: &'static str,
    /// `Repair cost` in cents. None if the feed writes its sentinel.
    pub(super) repair: Option<u64>,
}

impl DrawnFields {
    /// Draws the fields with the sale's random numbers.
    pub(super) fn draw(dice: &mut SplitMix64, now: &LotValues, vehicle: &SimulatedVehicle) -> DrawnFields {
        let styled = dice.per_mille(if now.modern { 950 } else { 140 });
        let title = draw_title(dice, now.yard().state, now.title);
        // The initial estimate, plus half a per cent of the vehicle's value for each new one.
        let estimate = dice.below(u64::from(vehicle.value) * 60) + u64::from(vehicle.value) * 15;
        let repair = match dice.below(1000) {
            0..240 if now.repair == 0 => Some(0),
            999 if now.repair == 0 => None,
            _ => Some(estimate + u64::from(vehicle.value) * u64::from(now.repair) / 2),
        };
        DrawnFields { styled, title, repair }
    }
}

/// Appends the row of a lot.
pub(super) fn write_row(into: &mut Vec<u8>, frame: &RowContext<'_>, index: u32, lot: &SimulatedLot) {
    let seed = frame.options.seed;
    let now = &lot.now;
    let (vehicle, sale) = (lot.vehicle(seed), SimulatedSale::from_index(seed, index));
    let (yard, model) = (now.yard(), vehicle.model);
    let mut dice = sale.dice.clone();
    let spell = |word: &'static FeedValue| if now.modern { word.new } else { word.old };
    let inches = frame.options.inch_quotes;
    let mut scratch = String::new();
    let mut line = CsvLine(into);

    line.push_number(frame.position);
    line.push_number(u64::from(yard.number));
    line.push_text(yard.name);
    if now.auction == 0 {
        line.0.extend_from_slice(b"0,\"\",0,");
    } else {
        let local = yard.clock.local_time(from_minutes(now.auction));
        line.push_number((local.year() as u64 * 100 + u64::from(local.month())) * 100 + u64::from(local.day()));
        line.push_text(DAY_NAMES[local.weekday().num_days_from_monday() as usize]);
        line.push_number(u64::from(local.hour() * 100 + local.minute()));
    }
    line.push_text(yard.clock.abbreviation(from_minutes(now.updated)));
    line.push_number(u64::from(now.item));
    line.push_number(u64::from(lot.number));
    scratch.push(model.kind);
    line.push_text(&scratch);
    line.push_number(u64::from(vehicle.year));
    line.push_text(model.make);
    let plain = |text: &'static str| frame.options.visible_text(text);
    line.push_text(plain(now.model_group(model)));
    scratch.clear();
    scratch.extend([plain(model.group), if vehicle.trim.is_empty() { "" } else { " " }, plain(vehicle.trim)]);
    line.push_text(if now.modern { &scratch } else { truncate_chars(&scratch, 10) });
    let drawn = DrawnFields::draw(&mut dice, now, &vehicle);
    line.push_text(if drawn.styled { spell(&BODIES[usize::from(model.body)]) } else { "" });
    line.push_text(vehicle.color);
    line.push_text(sale.damage.text);
    line.push_text(sale.secondary.map_or("", |d| d.text));
    line.push_text(yard.state);
    line.push_text(drawn.title);
    line.push_text(KEYS[usize::from(now.keys)].0);
    let condition = &CONDITIONS[usize::from(now.condition)];
    line.push_text(condition.0);
    line.push_text(&lot.vin(seed).0);
    line.push_tenths(u64::from(now.odometer(&sale, &vehicle)));
    line.push_text(BRANDS[usize::from(now.brand)].0);
    line.push_tenths(u64::from(vehicle.value));
    match drawn.repair {
        Some(0) => line.push_tenths(0),
        estimate => line.push_cents(estimate.unwrap_or(999_999_999)),
    }
    let whole = !dice.per_mille(48);
    line.push_text(if whole { model.engine.0 } else { "" });
    line.push_text(if dice.per_mille(57) { "" } else { spell(&DRIVES[usize::from(model.drive)]) });
    let gears = &TRANSMISSIONS[dice.pick_weighted(TRANSMISSIONS, |t| t.weight)];
    line.push_text(if dice.per_mille(52) { "" } else { spell(gears) });
    line.push_text(if dice.per_mille(34) { "" } else { spell(&FUELS[usize::from(model.fuel)]) });
    line.push_text(if whole { model.engine.1 } else { "" });
    line.push_text(condition.1);
    line.push_text(SALE_TYPES[usize::from(now.sale_type)].0);
    line.0.push(b'"');
    line.push_digits(u64::from(now.bid));
    line.0.extend_from_slice(b".0\",");
    scratch.clear();
    push_note(frame.options, index, lot, &mut scratch);
    line.push_text(&scratch);
    line.push_text(yard.city);
    line.push_text(yard.state);
    line.push_text(yard.zip);
    line.push_text(if yard.canada { "CAN" } else { "USA" });
    line.push_text(if yard.canada { "CAD" } else { "USD" });
    push_picture(&mut dice, &mut scratch);
    line.push_text(&scratch);
    if frame.options.clock_per_row {
        line.push_text(&format!("{}{:06}", &frame.clock[..frame.clock.len() - 6], frame.position % 1_000_000));
    } else {
        line.push_text(frame.clock);
    }
    push_grid_row(seed, index, now.grid, &mut scratch);
    line.push_text(&scratch);
    line.push_text(if now.offer { "Y" } else { "N" });
    line.push_tenths(if dice.per_mille(70) { u64::from(vehicle.value) / 200 * 100 } else { 0 });
    line.0.extend_from_slice(b"\"http://inventoryv2.copart.io/v1/lotImages/");
    line.push_digits(u64::from(lot.number));
    line.0.extend_from_slice(if yard.canada { b"?country=ca" } else { b"?country=us" });
    line.0.extend_from_slice(b"&brand=cprt&yardNumber=");
    line.push_digits(u64::from(yard.number));
    line.0.extend_from_slice(b"\",");
    push_trim(&mut dice, &vehicle, inches, &mut scratch);
    line.push_text(&scratch);
    push_update_time(now.updated, &mut scratch);
    line.push_text(&scratch);
    line.push_text(if dice.per_mille(9) { "Y" } else { "N" });
    line.push_text(if dice.per_mille(27) { "Y" } else { "N" });
    line.push_text(if dice.per_mille(656) { "" } else { SELLERS[dice.pick_weighted(SELLERS, |s| s.1)].0 });
    if dice.per_mille(14) {
        line.0.extend_from_slice(b"\"");
        line.push_digits(dice.below(9000) + 1);
        line.0.extend_from_slice(b" INDUSTRIAL PKWY\",");
        line.push_text(yard.state);
        line.push_text(yard.city);
        line.push_text(truncate_chars(yard.zip, 5));
    } else {
        line.0.extend_from_slice(b"\"\",\"\",\"\",\"\",");
    }
    if dice.per_mille(3) {
        line.push_text(LIGHTS[dice.pick_weighted(LIGHTS, |l| l.1)].0);
        let grade = dice.below(51);
        line.push_digits(grade / 10);
        line.0.push(b'.');
        line.push_number(grade % 10);
    } else {
        line.0.extend_from_slice(b"\"\",,");
    }
    let announced = if dice.per_mille(2) { dice.pick(ANNOUNCEMENTS) } else { "" };
    line.0.push(b'"');
    line.0.extend_from_slice(announced.as_bytes());
    if has_line_break(frame.options, index) {
        line.0.extend_from_slice(b"Other,\nSafety");
    }
    line.0.extend_from_slice(b"\"\n");
}

/// Values of `Day of Week`, from Monday.
pub(super) const DAY_NAMES: [&str; 7] = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];

/// Returns true if the lot's announcements span two lines. About forty lots do in a file of 154,000.
pub(super) fn has_line_break(options: &SimulatorOptions, index: u32) -> bool {
    options.newlines && index % 3850.min(options.rows as u32 / 2 + 1) == 17
}

/// Returns true if the row contains a quote that a strict reader cannot read.
pub(super) fn has_inches(
    options: &SimulatorOptions,
    index: u32,
    lot: &SimulatedLot,
    vehicle: &SimulatedVehicle,
) -> bool {
    let now = &lot.now;
    let in_text = vehicle.trim.contains('"')
        || now.model_group(vehicle.model).contains('"')
        || (now.modern && vehicle.model.group.contains('"'));
    options.inch_quotes && (in_text || special_note(options, index, now.note) == Some(INCH_NOTE))
}

fn has_inch_note(options: &SimulatorOptions, index: u32) -> bool {
    options.inch_quotes && index % 2000.min(options.rows as u32 / 2 + 1) == 29
}

/// Returns `Special Note` without its padding, after this many changes.
pub(super) fn special_note(options: &SimulatorOptions, index: u32, changes: u8) -> Option<&'static str> {
    let mut dice = SplitMix64::with_seed([options.seed, 6, u64::from(index) << 8 | u64::from(changes)]);
    if changes == 0 && has_inch_note(options, index) {
        return Some(INCH_NOTE);
    }
    (changes > 0 || dice.per_mille(35)).then(|| dice.pick(NOTES))
}

fn push_note(options: &SimulatorOptions, index: u32, lot: &SimulatedLot, into: &mut String) {
    let Some(text) = special_note(options, index, lot.now.note) else { return };
    into.push_str(text);
    for _ in text.chars().count()..28 {
        into.push(' ');
    }
}

fn draw_title(dice: &mut SplitMix64, state: &str, changes: u8) -> &'static str {
    let usual = STATE_TITLES.iter().find(|(of, _)| *of == state).map(|(_, code)| *code);
    let other = TITLES[dice.pick_weighted(TITLES, |t| t.1)].0;
    let as_usual = dice.per_mille(650);
    let rebuilt = ["RT", "CT", "ST"][usize::from(changes) % 3];
    match usual {
        _ if changes > 0 => rebuilt,
        Some(code) if as_usual => code,
        _ => other,
    }
}

fn push_picture(dice: &mut SplitMix64, into: &mut String) {
    into.clear();
    into.push_str("cs.copart.com/v1/AUTH_svc.pdoc00001/");
    if dice.per_mille(80) {
        into.push_str("PIX133/");
        for (n, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
            if n > 0 {
                into.push('-');
            }
            push_hex(dice, into, digits);
        }
        into.push_str(".JPG");
    } else {
        into.push_str(dice.pick(&["lpp/0225/", "lpp/0325/", "lpp/0925/", "lpp/1025/", "lpp/0126/"]));
        push_hex(dice, into, 38);
        into.push_str("_thb.jpg");
    }
}

/// Replaces `into` with the value of `Grid/Row`, after this many moves.
pub(super) fn push_grid_row(seed: u64, index: u32, moves: u8, into: &mut String) {
    let dice = &mut SplitMix64::with_seed([seed, 5, u64::from(index) << 8 | u64::from(moves)]);
    into.clear();
    match dice.below(1000) {
        0 => {}
        1..40 => into.push_str(dice.pick(&["*OFF", "REC", "HOLD"])),
        _ => {
            into.push_str(dice.pick(&["", " "]));
            into.push(dice.pick(b"ABCDEFGHJKLMNPR") as char);
            into.push_str(&(100 + dice.below(380)).to_string());
        }
    }
}

fn push_trim(dice: &mut SplitMix64, vehicle: &SimulatedVehicle, inches: bool, into: &mut String) {
    into.clear();
    if vehicle.trim.contains('"') {
        into.push_str(if inches { vehicle.trim } else { "" });
    } else if !dice.per_mille(100) {
        into.push_str(vehicle.trim);
    }
    if dice.below(4000) == 0 {
        while into.len() < 250 {
            into.push(' ');
        }
    }
}

fn push_update_time(minutes: i32, into: &mut String) {
    use std::fmt::Write;
    let at = from_minutes(minutes).naive_utc();
    into.clear();
    // Writing to a String cannot fail.
    let _ = write!(into, "{:04}-{:02}-{:02}T{:02}:{:02}:00Z", at.year(), at.month(), at.day(), at.hour(), at.minute());
}
