//! A row's typed values, which ingest copies into the typed columns of staging.
//!
//! Values are normalised here once, and never again in SQL. Texts are trimmed and borrowed, except for the raw VIN.
//! Empty is None. The feed's values for "unknown" are None too: `0` for a sale date, a bid, a Buy-It-Now price or a
//! year; 99999, 299999, 999999 and 9999999 miles; a repair cost of 9999999.99. Zero elsewhere (a repair cost, an item
//! number before the run list exists) is a value. The payload stores every text unchanged.
//!
//! A value that cannot be read, or that is out of its column's range, is None and is counted in [`ParseWarnings`]: a
//! letter in a number costs that number, never the row. [`ParsedRow::unreadable`] contains the columns of the row.
//! Amounts are in `currency_code`, regardless of the columns' names: Canadian lots are in CAD.
//!
//! Long because the fields of a row, how each is read and what could not be read are one list that is read together.

use super::blank::trim_blanks;
use super::instant::{parse_day_number, parse_time_number, parse_update_time};
use super::lot_number::parse_lot_number;
use super::mapping::ZoneRule;
use super::money::{FeedDecimal, remove_grouping, strip_currency};
use super::reader::FeedRecord;
use super::sale_time::{auction_instant, parse_day, parse_time};
use super::vin::{ParsedVin, classify_vin};
use super::zone::{SalePlace, SaleZone};
use super::{Column, ColumnSet};
use crate::taxonomy::{AliasIndex, MAX_ALIAS_BYTES, TaxonomyDomain};
use chrono::{DateTime, Utc};
use std::borrow::Cow;
use std::fmt;

/// The reason why a row yields no vehicle and no lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The VIN is empty.
    VinEmpty,
    /// The VIN is not a valid one: that of a trailer, a boat or an old car.
    VinFormat,
    /// The lot number is not 1 to 18 digits. Reported before the other reasons, since such a row has no identity.
    LotMissing,
}

impl SkipReason {
    /// Returns the value in `audit.skipped_lots`.
    pub const fn as_str(self) -> &'static str {
        match self {
            SkipReason::VinEmpty => "vin_empty",
            SkipReason::VinFormat => "vin_format",
            SkipReason::LotMissing => "lot_missing",
        }
    }
}

/// An `https` address without its scheme. The feed writes no scheme or `http`, and the server redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsUrl<'a>(pub &'a str);

impl HttpsUrl<'_> {
    /// The scheme that precedes the borrowed part.
    pub const SCHEME: &'static str = "https://";
}

impl fmt::Display for HttpsUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::SCHEME, self.0)
    }
}

/// Number of values that could not be read, by column, with the first value of each.
#[derive(Clone, Debug, Default)]
pub struct ParseWarnings(Vec<(Column, u64, String)>);

impl ParseWarnings {
    /// Counts one more unreadable value of this column.
    pub fn add(&mut self, column: Column, value: &str) {
        match self.0.iter_mut().find(|(c, ..)| *c == column) {
            Some((_, count, _)) => *count += 1,
            None => self.0.push((column, 1, value.chars().take(80).collect())),
        }
    }

    /// Returns column, count and first value of each column with unreadable values.
    pub fn iter(&self) -> impl Iterator<Item = (Column, u64, &str)> {
        self.0.iter().map(|(column, count, first)| (*column, *count, first.as_str()))
    }

    /// Returns the number of unreadable values over all columns.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count, _)| count).sum()
    }
}

/// The normalised row, with fields named after the columns of `staging.copart_raw`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the staging columns'; what needs a word has one")]
pub struct ParsedRow<'a> {
    /// 1 to 18 digits without leading zeros, so that it is one text for one number.
    pub lot_external_id: Option<Cow<'a, str>>,
    /// The untrimmed field, or None if it is blank.
    pub vin_raw: Option<&'a str>,
    /// The normalised VIN, if it is valid.
    pub vin: Option<Cow<'a, str>>,
    pub skip_reason: Option<SkipReason>,
    /// A year from 1900 to 2100.
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
    /// The number `YYYYMMDD`, even if it is not a valid day.
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
    /// The meaning of `has_keys_code`. None for exempt, which is not "no".
    pub has_keys: Option<bool>,
    /// The trimmed raw value. Not staged, and neither is `lot_condition`.
    pub has_keys_raw: Option<&'a str>,
    pub has_keys_code: Option<&'a str>,
    pub lot_condition: Option<&'a str>,
    pub lot_condition_code: Option<&'a str>,
    /// Distance with one digit after the decimal point.
    pub odometer: Option<FeedDecimal>,
    /// `mi` or `km` by the lot's country. None without an odometer.
    pub odometer_unit: Option<&'static str>,
    pub odometer_brand: Option<&'a str>,
    /// Amount in `currency_code` with two decimal places, like all amounts.
    pub retail_value_usd: Option<FeedDecimal>,
    pub repair_cost_usd: Option<FeedDecimal>,
    pub runs_drives: Option<&'a str>,
    /// `Sale Status` as written: a type of sale, never a state of the lot.
    pub sale_type: Option<&'a str>,
    pub sale_type_code: Option<&'a str>,
    pub current_bid_usd: Option<FeedDecimal>,
    pub special_note: Option<&'a str>,
    /// Three capital letters. The mapping's default if the row has none.
    pub currency_code: Option<&'a str>,
    /// The light of a wholesale lot. Not staged.
    pub sale_light: Option<&'a str>,
    pub image_thumbnail: Option<HttpsUrl<'a>>,
    pub image_url: Option<HttpsUrl<'a>>,
    pub grid_row: Option<&'a str>,
    pub make_offer_eligible: Option<bool>,
    pub buy_it_now_usd: Option<FeedDecimal>,
    pub source_updated_at: Option<DateTime<Utc>>,
    /// Columns whose value is present and could not be read. An empty value, a value that means "unknown" and a raw
    /// value without a code are readable.
    pub unreadable: ColumnSet,
}

/// Exclusive upper limits of `numeric(12,2)` in cents and `numeric(10,1)` in tenths. A greater amount would fail the
/// whole COPY.
const MONEY_LIMIT_CENTS: i64 = 1_000_000_000_000;
const MILES_LIMIT_TENTHS: i64 = 10_000_000_000;
/// Odometer values that mean "unknown", in tenths.
const UNKNOWN_MILES_TENTHS: [i64; 4] = [999_990, 2_999_990, 9_999_990, 99_999_990];
/// The repair cost that means "unknown", in cents.
const UNKNOWN_COST_CENTS: i64 = 999_999_999;

/// Reads the columns of one record and counts the unreadable ones.
struct FieldReader<'a, 'w> {
    record: FeedRecord<'a>,
    warnings: &'w mut ParseWarnings,
    unreadable: ColumnSet,
}

impl<'a> FieldReader<'a, '_> {
    fn trimmed_text(&self, column: Column) -> Option<&'a str> {
        Some(trim_blanks(self.record.get(column))).filter(|text| !text.is_empty())
    }

    /// Records that a value could not be read. An empty value is readable.
    fn note_unreadable(&mut self, column: Column) {
        if let Some(text) = self.trimmed_text(column) {
            self.warnings.add(column, text);
            self.unreadable.insert(column);
        }
    }

    /// Parses a text with `read`. A present text that `read` rejects is counted as unreadable.
    fn parse_field<T>(&mut self, column: Column, read: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        let text = self.trimmed_text(column)?;
        let value = read(text);
        if value.is_none() {
            self.note_unreadable(column);
        }
        value
    }

    fn read_integer(&mut self, column: Column) -> Option<i32> {
        self.parse_field(column, parse_integer)
    }

    fn read_decimal(&mut self, column: Column, scale: u8, limit: i64) -> Option<FeedDecimal> {
        self.parse_field(column, |text| parse_decimal(text, scale, limit))
    }

    /// Reads an amount in the row's currency.
    fn read_amount(&mut self, column: Column, currency: Option<&str>) -> Option<FeedDecimal> {
        self.parse_field(column, |text| {
            parse_decimal(text, 2, MONEY_LIMIT_CENTS)
                .or_else(|| parse_decimal(strip_currency(text, currency), 2, MONEY_LIMIT_CENTS))
        })
    }

    fn read_flag(&mut self, column: Column) -> Option<bool> {
        let is = |text: &str, words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        self.parse_field(column, |text| match text {
            _ if is(text, ["Y", "YES", "TRUE", "1"]) => Some(true),
            _ if is(text, ["N", "NO", "FALSE", "0"]) => Some(false),
            _ => None,
        })
    }

    /// Reads a raw value of the taxonomy. A text longer than any alias has no code and is unreadable.
    fn read_taxonomy_value(&mut self, column: Column) -> Option<&'a str> {
        let text = self.trimmed_text(column)?;
        if !is_alias_sized(text) {
            self.note_unreadable(column);
        }
        Some(text)
    }

    fn read_url(&self, column: Column) -> Option<HttpsUrl<'a>> {
        let text = self.trimmed_text(column)?;
        let rest = |scheme: &str| {
            let (head, tail) = text.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(tail)
        };
        Some(HttpsUrl(rest("https://").or_else(|| rest("http://")).unwrap_or(text)))
    }

    fn read_lot_number(&mut self) -> Option<Cow<'a, str>> {
        self.parse_field(Column::LotNumber, parse_lot_number)
    }

    /// Returns the instant of the sale. A known day without an instant is counted, with the column that prevents it.
    fn read_auction_time(&mut self, date: Option<i32>, hhmm: Option<i32>) -> Option<DateTime<Utc>> {
        let day = self.or_warn(Column::SaleDate, parse_day(date?))?;
        let time = match hhmm {
            None | Some(0) => None,
            Some(hhmm) => self.or_warn(Column::SaleTime, parse_time(hhmm)),
        };
        let zone = match self.record.header().mapping().zone {
            ZoneRule::Region(region) => Some(SaleZone::Region(region)),
            ZoneRule::Abbreviation => SalePlace::from_record(&self.record).zone(),
        };
        auction_instant(day, time, self.or_warn(Column::TimeZone, zone)?)
    }

    /// Returns `value`, and counts the column as unreadable if the value is None.
    fn or_warn<T>(&mut self, column: Column, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.note_unreadable(column);
        }
        value
    }
}

/// Returns a whole number. `4.0` and `2,507` are accepted.
fn parse_integer(text: &str) -> Option<i32> {
    text.parse().ok().or_else(|| {
        let plain = remove_grouping(text)?;
        let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
        part.bytes().all(|b| b == b'0').then(|| whole.parse().ok())?
    })
}

/// Returns a number from 0 to below `limit`, rounded to `scale` digits after the decimal point. `limit` is in units of
/// the last digit.
fn parse_decimal(text: &str, scale: u8, limit: i64) -> Option<FeedDecimal> {
    FeedDecimal::parse(&remove_grouping(text)?, scale).filter(|d| (0..limit).contains(&d.unscaled))
}

/// Returns true if a raw value is no longer than an alias may be.
fn is_alias_sized(text: &str) -> bool {
    text.len() <= MAX_ALIAS_BYTES || text.chars().count() <= MAX_ALIAS_BYTES
}

/// Returns the meaning of a keys code as yes or no, or None for exempt.
pub fn has_keys(code: Option<&str>) -> Option<bool> {
    match code {
        Some("keys_yes") => Some(true),
        Some("keys_no") => Some(false),
        _ => None,
    }
}

fn is_not_zero(decimal: &FeedDecimal) -> bool {
    decimal.unscaled != 0
}

/// The identity of a record and whether it yields a lot. An unchanged row needs no other values.
#[derive(Clone, Debug)]
pub struct RowKey<'a> {
    /// The lot number in its canonical form.
    pub lot_external_id: Option<Cow<'a, str>>,
    /// The reason why the row yields no vehicle and no lot, or None if it does.
    pub skip_reason: Option<SkipReason>,
}

impl<'a> RowKey<'a> {
    /// Reads the two columns of the key. Unreadable values are counted by [`ParsedRow::from_record`].
    pub fn from_record(record: &FeedRecord<'a>) -> RowKey<'a> {
        let lot_external_id = parse_lot_number(record.get(Column::LotNumber));
        let skip_reason = match (&lot_external_id, classify_vin(record.get(Column::Vin))) {
            (None, _) => Some(SkipReason::LotMissing),
            (_, ParsedVin::Empty) => Some(SkipReason::VinEmpty),
            (_, ParsedVin::Malformed) => Some(SkipReason::VinFormat),
            (_, ParsedVin::Valid(_)) => None,
        };
        RowKey { lot_external_id, skip_reason }
    }
}

impl<'a> ParsedRow<'a> {
    /// Reads a record and maps its raw values to codes with these aliases. Allocates only for a VIN that normalising
    /// changes.
    pub fn from_record(
        record: &FeedRecord<'a>,
        aliases: &'a AliasIndex,
        warnings: &mut ParseWarnings,
    ) -> ParsedRow<'a> {
        let mut cells = FieldReader { record: *record, warnings, unreadable: ColumnSet::EMPTY };
        let c = &mut cells;

        let lot_external_id = c.read_lot_number();
        let vin_raw = Some(record.get(Column::Vin)).filter(|text| !trim_blanks(text).is_empty());
        let vin = match classify_vin(record.get(Column::Vin)) {
            ParsedVin::Valid(vin) => Some(vin),
            ParsedVin::Empty | ParsedVin::Malformed => None,
        };
        let skip_reason = RowKey::from_record(record).skip_reason;

        let date = |text| parse_integer(text).or_else(|| parse_day_number(text));
        let sale_date_raw = c.parse_field(Column::SaleDate, date).filter(|date| *date != 0);
        let sale_time_hhmm =
            c.parse_field(Column::SaleTime, |text| parse_integer(text).or_else(|| parse_time_number(text)));
        let year = c.read_integer(Column::Year).filter(|year| *year != 0);
        let odometer = c
            .read_decimal(Column::Odometer, 1, MILES_LIMIT_TENTHS)
            .filter(|d| !UNKNOWN_MILES_TENTHS.contains(&d.unscaled));
        let damage_description = c.read_taxonomy_value(Column::DamageDescription);
        let secondary_damage = c.read_taxonomy_value(Column::SecondaryDamage);
        let sale_type = c.read_taxonomy_value(Column::SaleStatus);
        let has_keys_raw = c.read_taxonomy_value(Column::HasKeys);
        let lot_condition = c.read_taxonomy_value(Column::LotConditionCode);
        let code = |domain, raw: Option<&str>| aliases.find_code(domain, raw.filter(|raw| is_alias_sized(raw))?);
        let has_keys_code = code(TaxonomyDomain::HasKeys, has_keys_raw);
        let mapping = record.header().mapping();
        let country = c.trimmed_text(Column::LocationCountry);
        let currency_code = match c.trimmed_text(Column::CurrencyCode) {
            None => mapping.default_currency.as_deref(),
            Some(_) => c.parse_field(Column::CurrencyCode, |text| {
                (text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())).then_some(text)
            }),
        };

        ParsedRow {
            lot_external_id,
            vin_raw,
            vin,
            skip_reason,
            year: year.and_then(|year| c.or_warn(Column::Year, Some(year).filter(|y| (1900..=2100).contains(y)))),
            make: c.trimmed_text(Column::Make),
            model: c.trimmed_text(Column::ModelGroup),
            model_detail: c.trimmed_text(Column::ModelDetail),
            trim: c.trimmed_text(Column::Trim),
            body: c.read_taxonomy_value(Column::BodyStyle),
            fuel: c.read_taxonomy_value(Column::FuelType),
            transmission: c.read_taxonomy_value(Column::Transmission),
            drive: c.read_taxonomy_value(Column::Drive),
            engine: c.trimmed_text(Column::Engine),
            cylinders: c.read_integer(Column::Cylinders),
            color: c.read_taxonomy_value(Column::Color),
            site_code: c.trimmed_text(Column::YardNumber),
            yard_name: c.trimmed_text(Column::YardName),
            city: c.trimmed_text(Column::LocationCity),
            region: c.trimmed_text(Column::LocationState),
            country,
            location_zip: c.trimmed_text(Column::LocationZip),
            tz: c.trimmed_text(Column::TimeZone),
            sale_date_raw,
            sale_day_of_week: c.trimmed_text(Column::DayOfWeek),
            sale_time_hhmm,
            auction_datetime_utc: c.read_auction_time(sale_date_raw, sale_time_hhmm),
            item_number: c.read_integer(Column::ItemNumber),
            vehicle_type: c.read_taxonomy_value(Column::VehicleType),
            damage_description,
            damage_code: code(TaxonomyDomain::DamageTypes, damage_description),
            secondary_damage,
            secondary_damage_code: code(TaxonomyDomain::DamageTypes, secondary_damage),
            title_state: c.trimmed_text(Column::TitleState),
            title_type: c.read_taxonomy_value(Column::TitleType),
            has_keys: has_keys(has_keys_code),
            has_keys_raw,
            has_keys_code,
            lot_condition,
            lot_condition_code: code(TaxonomyDomain::LotConditions, lot_condition),
            odometer,
            odometer_unit: odometer.map(|_| mapping.odometer_unit(country).as_str()),
            odometer_brand: c.read_taxonomy_value(Column::OdometerBrand),
            retail_value_usd: c.read_amount(Column::RetailValue, currency_code),
            repair_cost_usd: c
                .read_amount(Column::RepairCost, currency_code)
                .filter(|d| d.unscaled != UNKNOWN_COST_CENTS),
            runs_drives: c.read_taxonomy_value(Column::RunsDrives),
            sale_type,
            sale_type_code: code(TaxonomyDomain::SaleTypes, sale_type),
            current_bid_usd: c.read_amount(Column::HighBid, currency_code).filter(is_not_zero),
            special_note: c.trimmed_text(Column::SpecialNote),
            currency_code,
            sale_light: c.read_taxonomy_value(Column::SaleLight),
            image_thumbnail: c.read_url(Column::ImageThumbnail),
            image_url: c.read_url(Column::ImageUrl),
            grid_row: c.trimmed_text(Column::GridRow),
            make_offer_eligible: c.read_flag(Column::MakeOfferEligible),
            buy_it_now_usd: c.read_amount(Column::BuyItNowPrice, currency_code).filter(is_not_zero),
            source_updated_at: c.parse_field(Column::LastUpdatedTime, parse_update_time),
            // Must be the last field: every column read before may add to the set.
            unreadable: c.unreadable,
        }
    }

    /// Number of taxonomy values in a row.
    pub const TAXONOMY_VALUES: usize = 15;

    /// Returns the row's raw values in a fixed order, each with its domain. For a value that is coded here, the third
    /// element is whether it has a code. A text longer than any alias is left out.
    pub fn taxonomy_values(&self) -> [(TaxonomyDomain, Option<&'a str>, Option<bool>); ParsedRow::TAXONOMY_VALUES] {
        let coded = |code: Option<&str>| Some(code.is_some());
        let words = [
            (TaxonomyDomain::DamageTypes, self.damage_description, coded(self.damage_code)),
            (TaxonomyDomain::DamageTypes, self.secondary_damage, coded(self.secondary_damage_code)),
            (TaxonomyDomain::SaleTypes, self.sale_type, coded(self.sale_type_code)),
            (TaxonomyDomain::HasKeys, self.has_keys_raw, coded(self.has_keys_code)),
            (TaxonomyDomain::LotConditions, self.lot_condition, coded(self.lot_condition_code)),
            (TaxonomyDomain::TitleTypes, self.title_type, None),
            (TaxonomyDomain::OdometerBrands, self.odometer_brand, None),
            (TaxonomyDomain::Colors, self.color, None),
            (TaxonomyDomain::BodyStyles, self.body, None),
            (TaxonomyDomain::FuelTypes, self.fuel, None),
            (TaxonomyDomain::DriveTypes, self.drive, None),
            (TaxonomyDomain::TransmissionTypes, self.transmission, None),
            (TaxonomyDomain::VehicleTypes, self.vehicle_type, None),
            (TaxonomyDomain::RunsDrives, self.runs_drives, None),
            (TaxonomyDomain::SaleLights, self.sale_light, None),
        ];
        words.map(|(domain, raw, coded)| (domain, raw.filter(|raw| is_alias_sized(raw)), coded))
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
