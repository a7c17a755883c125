//! A row's typed values: what ingest copies into the typed columns of staging.
//!
//! Normalised once, here, and never again in SQL. Texts are trimmed and borrowed, all but the raw VIN; empty is None.
//! What the feed writes for "unknown" is None too: `0` for a sale date, a bid, a Buy-It-Now price or a year; 99999, 299999,
//! 999999 and 9999999 miles; a repair cost of 9999999.99. Zero elsewhere (a repair cost, an item number before
//! the run list exists) is a value. The payload keeps every text as it came.
//!
//! A value that cannot be read, or that its column could not hold, is None and is counted in [`Warnings`]: a letter
//! in a number costs that number, never the row. [`Typed::unreadable`] names the columns of the row. Amounts are in `currency_code`, whatever the columns' names say:
//! Canadian lots are CAD.
//!
//! Long because the fields of a row, how each is read and what could not be read are one list that is read together.

use super::blank::trim_blanks;
use super::instant::{day_number, time_number, update_time};
use super::lot_number::lot_number;
use super::mapping::ZoneRule;
use super::money::{Decimal, plain_number, without_currency};
use super::reader::Record;
use super::time::{auction_instant, clock, day};
use super::vin::{Vin, classify};
use super::zone::{SalePlace, Zone};
use super::{Column, ColumnSet};
use crate::taxonomy::{Domain, LONGEST, Spellings};
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::fmt;

/// Why a row makes no vehicle and no lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// No VIN.
    VinEmpty,
    /// A VIN that is none: a trailer's, a boat's, an old car's.
    VinFormat,
    /// No lot number of 1 to 18 digits; reported first, since such a row has no identity at all.
    LotMissing,
}

impl SkipReason {
    /// As in `audit.skipped_lots`.
    pub const fn as_str(self) -> &'static str {
        match self {
            SkipReason::VinEmpty => "vin_empty",
            SkipReason::VinFormat => "vin_format",
            SkipReason::LotMissing => "lot_missing",
        }
    }
}

/// An `https` address without its scheme: the feed writes none, or `http`, and the server redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Https<'a>(pub &'a str);

impl Https<'_> {
    /// What stands before the borrowed part.
    pub const SCHEME: &'static str = "https://";
}

impl fmt::Display for Https<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.0)
    }
}

/// Counts of values that could not be read, by column, with the first of each.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Vec<(Column, u64, String)>);

impl Warnings {
    /// One more value of this column.
    pub fn add(&mut self, column: Column, value: &str) {
        match self.0.iter_mut().find(|(c, ..)| *c == column) {
            Some((_, count, _)) => *count += 1,
            None => self.0.push((column, 1, value.chars().take(80).collect())),
        }
    }

    /// Column, count and the first value of each column that has any.
    pub fn iter(&self) -> impl Iterator<Item = (Column, u64, &str)> {
        self.0.iter().map(|(column, count, first)| (*column, *count, first.as_str()))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count, _)| count).sum()
    }
}

/// The normalised row; fields are named as the columns of `staging.copart_raw`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the staging columns'; what needs a word has one")]
pub struct Typed<'a> {
    /// 1 to 18 digits without leading zeros, so that it is one text for one number.
    pub lot_external_id: Option<Cow<'a, str>>,
    /// The field as it stands, blanks included; None where there is nothing else.
    pub vin_raw: Option<&'a str>,
    /// Only where it makes a vehicle.
    pub vin: Option<Cow<'a, str>>,
    pub skip_reason: Option<SkipReason>,
    /// 1900 to 2100.
    pub year: Option<i32>,
    pub make: Option<&'a str>,
    pub model: Option<&'a str>,
    pub model_detail: Option<&'a str>,
    pub trim: Option<&'a str>,
    pub body: Option<&'a str>,
    pub fuel: Option<&'a str>,
    pub transmission: Option<&'a str>,
    pub drive: Option<&'a str>,
    pub engine: Option<&'a str>,
    pub cylinders: Option<i32>,
    pub color: Option<&'a str>,
    pub site_code: Option<&'a str>,
    pub yard_name: Option<&'a str>,
    pub city: Option<&'a str>,
    pub region: Option<&'a str>,
    pub country: Option<&'a str>,
    pub location_zip: Option<&'a str>,
    pub tz: Option<&'a str>,
    /// `YYYYMMDD`, also where that is no day.
    pub sale_date_raw: Option<i32>,
    pub sale_day_of_week: Option<&'a str>,
    pub sale_time_hhmm: Option<i32>,
    pub auction_datetime_utc: Option<DateTime<Utc>>,
    pub item_number: Option<i32>,
    pub vehicle_type: Option<&'a str>,
    pub damage_description: Option<&'a str>,
    pub damage_code: Option<&'a str>,
    pub secondary_damage: Option<&'a str>,
    pub secondary_damage_code: Option<&'a str>,
    pub title_state: Option<&'a str>,
    pub title_type: Option<&'a str>,
    /// What `has_keys_code` means; None for exempt, which is not "no".
    pub has_keys: Option<bool>,
    /// As it stands; not staged, nor is `lot_condition`.
    pub has_keys_raw: Option<&'a str>,
    pub has_keys_code: Option<&'a str>,
    pub lot_condition: Option<&'a str>,
    pub lot_condition_code: Option<&'a str>,
    /// One digit after the point.
    pub odometer: Option<Decimal>,
    /// `mi` or `km` by the lot's country, where there is an odometer.
    pub odometer_unit: Option<&'static str>,
    pub odometer_brand: Option<&'a str>,
    /// Cents of `currency_code`, as all amounts.
    pub retail_value_usd: Option<Decimal>,
    pub repair_cost_usd: Option<Decimal>,
    pub runs_drives: Option<&'a str>,
    /// `Sale Status` as it stands: a type of sale, never a state of the lot.
    pub sale_type: Option<&'a str>,
    pub sale_type_code: Option<&'a str>,
    pub current_bid_usd: Option<Decimal>,
    pub special_note: Option<&'a str>,
    /// Three capital letters; the mapping's default where the row has none.
    pub currency_code: Option<&'a str>,
    /// Of wholesale lots; not staged.
    pub sale_light: Option<&'a str>,
    pub image_thumbnail: Option<Https<'a>>,
    pub image_url: Option<Https<'a>>,
    pub grid_row: Option<&'a str>,
    pub make_offer_eligible: Option<bool>,
    pub buy_it_now_usd: Option<Decimal>,
    pub source_updated_at: Option<DateTime<Utc>>,
    /// Columns whose value is there and could not be read. An empty value, one that means "unknown" and a spelling
    /// without a code are readable.
    pub unreadable: ColumnSet,
}

/// Digits of `numeric(12,2)` and `numeric(10,1)`: a greater amount would fail the whole copy.
const MONEY: i64 = 1_000_000_000_000;
const MILES: i64 = 10_000_000_000;
/// Odometer readings that mean "unknown", in tenths.
const NO_MILES: [i64; 4] = [999_990, 2_999_990, 9_999_990, 99_999_990];
/// The repair cost that means "unknown", in cents.
const NO_COST: i64 = 999_999_999;

/// Reads one record's columns and counts what it cannot read.
struct Cells<'a, 'w> {
    record: Record<'a>,
    warnings: &'w mut Warnings,
    unreadable: ColumnSet,
}

impl<'a> Cells<'a, '_> {
    fn text(&self, column: Column) -> Option<&'a str> {
        Some(trim_blanks(self.record.get(column))).filter(|text| !text.is_empty())
    }

    /// Notes that a value could not be read; an empty one could.
    fn note_unreadable(&mut self, column: Column) {
        if let Some(text) = self.text(column) {
            self.warnings.add(column, text);
            self.unreadable.insert(column);
        }
    }

    /// A present text that `read` must understand.
    fn parse<T>(&mut self, column: Column, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let text = self.text(column)?;
        let value = read(text);
        if value.is_none() {
            self.note_unreadable(column);
        }
        value
    }

    fn int(&mut self, column: Column) -> Option<i32> {
        self.parse(column, whole_number)
    }

    fn decimal(&mut self, column: Column, scale: u8, limit: i64) -> Option<Decimal> {
        self.parse(column, |text| decimal(text, scale, limit))
    }

    /// An amount in the row's currency.
    fn money(&mut self, column: Column, currency: Option<&str>) -> Option<Decimal> {
        self.parse(column, |text| {
            decimal(text, 2, MONEY).or_else(|| decimal(without_currency(text, currency), 2, MONEY))
        })
    }

    fn yes(&mut self, column: Column) -> Option<bool> {
        let is = |text: &str, words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        self.parse(column, |text| match text {
            _ if is(text, ["Y", "YES", "TRUE", "1"]) => Some(true),
            _ if is(text, ["N", "NO", "FALSE", "0"]) => Some(false),
            _ => None,
        })
    }

    /// A text of the vocabulary, with its code. A text that is longer than any spelling has no code and is unreadable.
    fn word(&mut self, column: Column) -> Option<&'a str> {
        let text = self.text(column)?;
        if !is_spelling(text) {
            self.note_unreadable(column);
        }
        Some(text)
    }

    fn https(&self, column: Column) -> Option<Https<'a>> {
        let text = self.text(column)?;
        let rest = |scheme: &str| {
            let (head, tail) = text.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(tail)
        };
        Some(Https(rest("https://").or_else(|| rest("http://")).unwrap_or(text)))
    }

    fn lot(&mut self) -> Option<Cow<'a, str>> {
        self.parse(Column::LotNumber, lot_number)
    }

    /// The instant of the sale; what keeps a known day from having one is counted.
    fn auction(&mut self, date: Option<i32>, hhmm: Option<i32>) -> Option<DateTime<Utc>> {
        let day = self.told(Column::SaleDate, day(date?))?;
        let time = match hhmm {
            None | Some(0) => None,
            Some(hhmm) => self.told(Column::SaleTime, clock(hhmm)),
        };
        let zone = match self.record.header().mapping().zone {
            ZoneRule::Region(region) => Some(Zone::Region(region)),
            ZoneRule::Abbreviation => SalePlace::of(&self.record).zone(),
        };
        auction_instant(day, time, self.told(Column::TimeZone, zone)?)
    }

    fn told<T>(&mut self, column: Column, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.note_unreadable(column);
        }
        value
    }
}

/// Returns a whole number; `4.0` and `2,507` are some.
fn whole_number(text: &str) -> Option<i32> {
    text.parse().ok().or_else(|| {
        let plain = plain_number(text)?;
        let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
        part.bytes().all(|b| b == b'0').then(|| whole.parse().ok())?
    })
}

/// Returns a number from 0 to under `limit`, rounded to `scale` digits after the point.
fn decimal(text: &str, scale: u8, limit: i64) -> Option<Decimal> {
    Decimal::parse(&plain_number(text)?, scale).filter(|d| (0..limit).contains(&d.unscaled))
}

/// Returns true if a text of the vocabulary is no longer than a spelling may be.
fn is_spelling(text: &str) -> bool {
    text.len() <= LONGEST || text.chars().count() <= LONGEST
}

/// Returns what a code of the keys means as yes or no; exempt is neither.
pub fn has_keys(code: Option<&str>) -> Option<bool> {
    match code {
        Some("keys_yes") => Some(true),
        Some("keys_no") => Some(false),
        _ => None,
    }
}

fn not_zero(decimal: &Decimal) -> bool {
    decimal.unscaled != 0
}

/// What a record is about, and whether it makes a lot: all that an unchanged row is asked.
#[derive(Clone, Debug)]
pub struct Key<'a> {
    /// The lot number in its canonical form.
    pub lot_external_id: Option<Cow<'a, str>>,
    /// Why the row makes no vehicle and no lot, if it does not.
    pub skip_reason: Option<SkipReason>,
}

impl<'a> Key<'a> {
    /// Reads the two columns it takes; what cannot be read is counted by [`Typed::read`].
    pub fn read(record: &Record<'a>) -> Key<'a> {
        let lot_external_id = lot_number(record.get(Column::LotNumber));
        let skip_reason = match (&lot_external_id, classify(record.get(Column::Vin))) {
            (None, _) => Some(SkipReason::LotMissing),
            (_, Vin::Empty) => Some(SkipReason::VinEmpty),
            (_, Vin::Malformed) => Some(SkipReason::VinFormat),
            (_, Vin::Valid(_)) => None,
        };
        Key { lot_external_id, skip_reason }
    }
}

impl<'a> Typed<'a> {
    /// Reads a record, its words by these spellings; allocates only for a VIN that normalising changes.
    pub fn read(record: &Record<'a>, spellings: &'a Spellings, warnings: &mut Warnings) -> Typed<'a> {
        let mut cells = Cells { record: *record, warnings, unreadable: ColumnSet::EMPTY };
        let c = &mut cells;

        let lot_external_id = c.lot();
        let vin_raw = Some(record.get(Column::Vin)).filter(|text| !trim_blanks(text).is_empty());
        let vin = match classify(record.get(Column::Vin)) {
            Vin::Valid(vin) => Some(vin),
            Vin::Empty | Vin::Malformed => None,
        };
        let skip_reason = Key::read(record).skip_reason;

        let date = |text| whole_number(text).or_else(|| day_number(text));
        let sale_date_raw = c.parse(Column::SaleDate, date).filter(|date| *date != 0);
        let sale_time_hhmm =
            c.parse(Column::SaleTime, |text| whole_number(text).or_else(|| time_number(text)));
        let year = c.int(Column::Year).filter(|year| *year != 0);
        let odometer = c.decimal(Column::Odometer, 1, MILES).filter(|d| !NO_MILES.contains(&d.unscaled));
        let damage_description = c.word(Column::DamageDescription);
        let secondary_damage = c.word(Column::SecondaryDamage);
        let sale_type = c.word(Column::SaleStatus);
        let has_keys_raw = c.word(Column::HasKeys);
        let lot_condition = c.word(Column::LotConditionCode);
        let code = |domain, raw: Option<&str>| spellings.code(domain, raw.filter(|raw| is_spelling(raw))?);
        let has_keys_code = code(Domain::HasKeys, has_keys_raw);
        let mapping = record.header().mapping();
        let country = c.text(Column::LocationCountry);
        let currency_code = match c.text(Column::CurrencyCode) {
            None => mapping.default_currency.as_deref(),
            Some(_) => c.parse(Column::CurrencyCode, |text| {
                (text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())).then_some(text)
            }),
        };

        Typed {
            lot_external_id,
            vin_raw,
            vin,
            skip_reason,
            year: year
                .and_then(|year| c.told(Column::Year, Some(year).filter(|y| (1900..=2100).contains(y)))),
            make: c.text(Column::Make),
            model: c.text(Column::ModelGroup),
            model_detail: c.text(Column::ModelDetail),
            trim: c.text(Column::Trim),
            body: c.word(Column::BodyStyle),
            fuel: c.word(Column::FuelType),
            transmission: c.word(Column::Transmission),
            drive: c.word(Column::Drive),
            engine: c.text(Column::Engine),
            cylinders: c.int(Column::Cylinders),
            color: c.word(Column::Color),
            site_code: c.text(Column::YardNumber),
            yard_name: c.text(Column::YardName),
            city: c.text(Column::LocationCity),
            region: c.text(Column::LocationState),
            country,
            location_zip: c.text(Column::LocationZip),
            tz: c.text(Column::TimeZone),
            sale_date_raw,
            sale_day_of_week: c.text(Column::DayOfWeek),
            sale_time_hhmm,
            auction_datetime_utc: c.auction(sale_date_raw, sale_time_hhmm),
            item_number: c.int(Column::ItemNumber),
            vehicle_type: c.word(Column::VehicleType),
            damage_description,
            damage_code: code(Domain::DamageTypes, damage_description),
            secondary_damage,
            secondary_damage_code: code(Domain::DamageTypes, secondary_damage),
            title_state: c.text(Column::TitleState),
            title_type: c.word(Column::TitleType),
            has_keys: has_keys(has_keys_code),
            has_keys_raw,
            has_keys_code,
            lot_condition,
            lot_condition_code: code(Domain::LotConditions, lot_condition),
            odometer,
            odometer_unit: odometer.map(|_| mapping.odometer_unit(country).as_str()),
            odometer_brand: c.word(Column::OdometerBrand),
            retail_value_usd: c.money(Column::RetailValue, currency_code),
            repair_cost_usd: c.money(Column::RepairCost, currency_code).filter(|d| d.unscaled != NO_COST),
            runs_drives: c.word(Column::RunsDrives),
            sale_type,
            sale_type_code: code(Domain::SaleTypes, sale_type),
            current_bid_usd: c.money(Column::HighBid, currency_code).filter(not_zero),
            special_note: c.text(Column::SpecialNote),
            currency_code,
            sale_light: c.word(Column::SaleLight),
            image_thumbnail: c.https(Column::ImageThumbnail),
            image_url: c.https(Column::ImageUrl),
            grid_row: c.text(Column::GridRow),
            make_offer_eligible: c.yes(Column::MakeOfferEligible),
            buy_it_now_usd: c.money(Column::BuyItNowPrice, currency_code).filter(not_zero),
            source_updated_at: c.parse(Column::LastUpdatedTime, update_time),
            // The last one, since every column that is read before may add to it.
            unreadable: c.unreadable,
        }
    }

    /// How many words a row has.
    pub const WORDS: usize = 15;

    /// The row's words, in one order, with their domain; and, of those that were coded here, whether they have a code.
    /// A text that is longer than any spelling is no word.
    pub fn words(&self) -> [(Domain, Option<&'a str>, Option<bool>); Typed::WORDS] {
        let coded = |code: Option<&str>| Some(code.is_some());
        let words = [
            (Domain::DamageTypes, self.damage_description, coded(self.damage_code)),
            (Domain::DamageTypes, self.secondary_damage, coded(self.secondary_damage_code)),
            (Domain::SaleTypes, self.sale_type, coded(self.sale_type_code)),
            (Domain::HasKeys, self.has_keys_raw, coded(self.has_keys_code)),
            (Domain::LotConditions, self.lot_condition, coded(self.lot_condition_code)),
            (Domain::TitleTypes, self.title_type, None),
            (Domain::OdometerBrands, self.odometer_brand, None),
            (Domain::Colors, self.color, None),
            (Domain::BodyStyles, self.body, None),
            (Domain::FuelTypes, self.fuel, None),
            (Domain::DriveTypes, self.drive, None),
            (Domain::TransmissionTypes, self.transmission, None),
            (Domain::VehicleTypes, self.vehicle_type, None),
            (Domain::RunsDrives, self.runs_drives, None),
            (Domain::SaleLights, self.sale_light, None),
        ];
        words.map(|(domain, raw, coded)| (domain, raw.filter(|raw| is_spelling(raw)), coded))
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
