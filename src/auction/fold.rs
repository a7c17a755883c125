//! Folds several versions of a lot into one row when the greatest version has unreadable values.
//!
//! The greatest version of a lot is in effect. An unreadable value in it must not replace a known one, so each group of
//! columns that belong together falls back to the greatest version in which the whole group is readable. A group that
//! no version has readable stays null, as in the greatest version.
//!
//! An amount has no meaning without its currency. It falls back alone to a version of the same currency. If the
//! readable version has another currency, all amounts and the currency fall back together.

use super::row::ParsedRow;
use super::{Column, ColumnSet};

/// A group of columns that fall back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnGroup {
    /// Time and place of the sale.
    Sale,
    /// Odometer, brand and unit.
    Odometer,
    /// All amounts, with the currency.
    Amounts,
    /// The high bid.
    Bid,
    /// The Buy-It-Now price.
    BuyItNow,
    /// The retail value.
    RetailValue,
    /// The repair cost.
    RepairCost,
    /// Presence of keys.
    Keys,
    /// The damage and its code.
    Damage,
    /// The secondary damage and its code.
    SecondaryDamage,
    /// The type of sale and its code.
    SaleType,
    /// The condition and its code.
    Condition,
    /// The position in the sale.
    ItemNumber,
    /// Eligibility for offers.
    MakeOffer,
    /// The title type.
    Title,
    /// The vehicle type.
    VehicleType,
    /// Ability to run and drive.
    RunsDrives,
    /// The model year.
    Year,
    /// The number of cylinders.
    Cylinders,
    /// The body style.
    Body,
    /// The fuel.
    Fuel,
    /// The transmission.
    Transmission,
    /// The drive.
    Drive,
    /// The color.
    Color,
}

/// The column groups of `lots`, with the currency before the amounts that depend on it.
pub const LOT_GROUPS: &[ColumnGroup] = &[
    ColumnGroup::Sale,
    ColumnGroup::Odometer,
    ColumnGroup::Amounts,
    ColumnGroup::Bid,
    ColumnGroup::BuyItNow,
    ColumnGroup::RetailValue,
    ColumnGroup::RepairCost,
    ColumnGroup::Keys,
    ColumnGroup::Damage,
    ColumnGroup::SecondaryDamage,
    ColumnGroup::SaleType,
    ColumnGroup::Condition,
    ColumnGroup::ItemNumber,
    ColumnGroup::MakeOffer,
    ColumnGroup::Title,
    ColumnGroup::VehicleType,
    ColumnGroup::RunsDrives,
];

/// The column groups of `vehicles`.
pub const VEHICLE_GROUPS: &[ColumnGroup] = &[
    ColumnGroup::Odometer,
    ColumnGroup::Year,
    ColumnGroup::Cylinders,
    ColumnGroup::Body,
    ColumnGroup::Fuel,
    ColumnGroup::Transmission,
    ColumnGroup::Drive,
    ColumnGroup::Color,
];

impl ColumnGroup {
    /// Returns the group's feed columns. The group is readable if each of them is.
    pub const fn feed_columns(self) -> ColumnSet {
        ColumnSet::from_columns(match self {
            ColumnGroup::Sale => &[
                Column::SaleDate,
                Column::SaleTime,
                Column::DayOfWeek,
                Column::TimeZone,
                Column::YardNumber,
                Column::YardName,
                Column::LocationCity,
                Column::LocationState,
                Column::LocationZip,
                Column::LocationCountry,
            ],
            ColumnGroup::Odometer => &[Column::Odometer, Column::OdometerBrand],
            ColumnGroup::Amounts => &[Column::CurrencyCode],
            ColumnGroup::Bid => &[Column::HighBid],
            ColumnGroup::BuyItNow => &[Column::BuyItNowPrice],
            ColumnGroup::RetailValue => &[Column::RetailValue],
            ColumnGroup::RepairCost => &[Column::RepairCost],
            ColumnGroup::Keys => &[Column::HasKeys],
            ColumnGroup::Damage => &[Column::DamageDescription],
            ColumnGroup::SecondaryDamage => &[Column::SecondaryDamage],
            ColumnGroup::SaleType => &[Column::SaleStatus],
            ColumnGroup::Condition => &[Column::LotConditionCode],
            ColumnGroup::ItemNumber => &[Column::ItemNumber],
            ColumnGroup::MakeOffer => &[Column::MakeOfferEligible],
            ColumnGroup::Title => &[Column::TitleType],
            ColumnGroup::VehicleType => &[Column::VehicleType],
            ColumnGroup::RunsDrives => &[Column::RunsDrives],
            ColumnGroup::Year => &[Column::Year],
            ColumnGroup::Cylinders => &[Column::Cylinders],
            ColumnGroup::Body => &[Column::BodyStyle],
            ColumnGroup::Fuel => &[Column::FuelType],
            ColumnGroup::Transmission => &[Column::Transmission],
            ColumnGroup::Drive => &[Column::Drive],
            ColumnGroup::Color => &[Column::Color],
        })
    }

    /// Returns the names of the group's columns in `lots` and `vehicles`.
    pub const fn table_columns(self) -> &'static [&'static str] {
        match self {
            ColumnGroup::Sale => &[
                "sale_date_raw",
                "sale_day_of_week",
                "sale_time_hhmm",
                "tz",
                "auction_datetime_utc",
                "site_code",
                "yard_name",
                "city",
                "region",
                "country",
                "location_zip",
            ],
            ColumnGroup::Odometer => &["odometer", "odometer_brand", "odometer_unit"],
            ColumnGroup::Amounts => {
                &["currency_code", "current_bid_usd", "buy_it_now_usd", "retail_value_usd", "repair_cost_usd"]
            }
            ColumnGroup::Bid => &["current_bid_usd"],
            ColumnGroup::BuyItNow => &["buy_it_now_usd"],
            ColumnGroup::RetailValue => &["retail_value_usd"],
            ColumnGroup::RepairCost => &["repair_cost_usd"],
            ColumnGroup::Keys => &["has_keys", "has_keys_code"],
            ColumnGroup::Damage => &["damage_description", "damage_code"],
            ColumnGroup::SecondaryDamage => &["secondary_damage", "secondary_damage_code"],
            ColumnGroup::SaleType => &["sale_type", "sale_type_code"],
            ColumnGroup::Condition => &["lot_condition_code"],
            ColumnGroup::ItemNumber => &["item_number"],
            ColumnGroup::MakeOffer => &["make_offer_eligible"],
            ColumnGroup::Title => &["title_type", "title_state"],
            ColumnGroup::VehicleType => &["vehicle_type"],
            ColumnGroup::RunsDrives => &["runs_drives"],
            ColumnGroup::Year => &["year"],
            ColumnGroup::Cylinders => &["cylinders"],
            ColumnGroup::Body => &["body"],
            ColumnGroup::Fuel => &["fuel"],
            ColumnGroup::Transmission => &["transmission"],
            ColumnGroup::Drive => &["drive"],
            ColumnGroup::Color => &["color"],
        }
    }

    /// Copies the group's values from another row.
    fn copy_values<'a>(self, to: &mut ParsedRow<'a>, from: &ParsedRow<'a>) {
        match self {
            ColumnGroup::Sale => {
                (to.sale_date_raw, to.sale_day_of_week) = (from.sale_date_raw, from.sale_day_of_week);
                (to.sale_time_hhmm, to.tz) = (from.sale_time_hhmm, from.tz);
                to.auction_datetime_utc = from.auction_datetime_utc;
                (to.site_code, to.yard_name, to.city) = (from.site_code, from.yard_name, from.city);
                (to.region, to.country) = (from.region, from.country);
                to.location_zip = from.location_zip;
            }
            ColumnGroup::Odometer => {
                (to.odometer, to.odometer_unit) = (from.odometer, from.odometer_unit);
                to.odometer_brand = from.odometer_brand;
            }
            ColumnGroup::Amounts => {
                to.currency_code = from.currency_code;
                for amount in
                    [ColumnGroup::Bid, ColumnGroup::BuyItNow, ColumnGroup::RetailValue, ColumnGroup::RepairCost]
                {
                    amount.copy_values(to, from);
                }
            }
            ColumnGroup::Bid => to.current_bid_usd = from.current_bid_usd,
            ColumnGroup::BuyItNow => to.buy_it_now_usd = from.buy_it_now_usd,
            ColumnGroup::RetailValue => to.retail_value_usd = from.retail_value_usd,
            ColumnGroup::RepairCost => to.repair_cost_usd = from.repair_cost_usd,
            ColumnGroup::Keys => {
                (to.has_keys, to.has_keys_code) = (from.has_keys, from.has_keys_code);
                to.has_keys_raw = from.has_keys_raw;
            }
            ColumnGroup::Damage => {
                (to.damage_description, to.damage_code) = (from.damage_description, from.damage_code);
            }
            ColumnGroup::SecondaryDamage => {
                to.secondary_damage = from.secondary_damage;
                to.secondary_damage_code = from.secondary_damage_code;
            }
            ColumnGroup::SaleType => (to.sale_type, to.sale_type_code) = (from.sale_type, from.sale_type_code),
            ColumnGroup::Condition => {
                (to.lot_condition, to.lot_condition_code) = (from.lot_condition, from.lot_condition_code);
            }
            ColumnGroup::ItemNumber => to.item_number = from.item_number,
            ColumnGroup::MakeOffer => to.make_offer_eligible = from.make_offer_eligible,
            ColumnGroup::Title => (to.title_type, to.title_state) = (from.title_type, from.title_state),
            ColumnGroup::VehicleType => to.vehicle_type = from.vehicle_type,
            ColumnGroup::RunsDrives => to.runs_drives = from.runs_drives,
            ColumnGroup::Year => to.year = from.year,
            ColumnGroup::Cylinders => to.cylinders = from.cylinders,
            ColumnGroup::Body => to.body = from.body,
            ColumnGroup::Fuel => to.fuel = from.fuel,
            ColumnGroup::Transmission => to.transmission = from.transmission,
            ColumnGroup::Drive => to.drive = from.drive,
            ColumnGroup::Color => to.color = from.color,
        }
    }

    /// Returns true for an amount, which has no meaning without its currency.
    const fn is_amount(self) -> bool {
        matches!(self, ColumnGroup::Bid | ColumnGroup::BuyItNow | ColumnGroup::RetailValue | ColumnGroup::RepairCost)
    }
}

/// The row folded from several versions of a lot.
#[derive(Clone, Debug)]
pub struct FoldedVersion<'a> {
    /// The folded values.
    pub typed: ParsedRow<'a>,
    /// Names of the columns whose values come from an older version.
    pub carried: Vec<&'static str>,
}

/// Returns the fold of `versions`, given with the greatest first, or None if there is none.
pub fn fold_versions<'a>(versions: &[&ParsedRow<'a>], groups: &[ColumnGroup]) -> Option<FoldedVersion<'a>> {
    let (greatest, older) = versions.split_first()?;
    let mut folded = FoldedVersion { typed: (*greatest).clone(), carried: Vec::new() };
    let mut amounts_carried = false;
    for group in groups.iter().copied() {
        if !greatest.unreadable.intersects(group.feed_columns()) || amounts_carried && group.is_amount() {
            continue;
        }
        let mut needed = group.feed_columns();
        if group.is_amount() {
            needed.insert(Column::CurrencyCode);
        }
        let Some(from) = older.iter().find(|version| !version.unreadable.intersects(needed)) else {
            continue;
        };
        let other_currency = group.is_amount() && from.currency_code != folded.typed.currency_code;
        let carried = if other_currency { ColumnGroup::Amounts } else { group };
        amounts_carried |= carried == ColumnGroup::Amounts;
        carried.copy_values(&mut folded.typed, from);
        folded
            .carried
            .extend(carried.table_columns().iter().filter(|name| !folded.carried.contains(name)).collect::<Vec<_>>());
    }
    Some(folded)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, RowFixture};
    use super::*;
    use crate::auction::row::ParseWarnings;
    use crate::taxonomy::AliasIndex;

    /// Returns the fold of these rows, given with the greatest first, formatted by `show`.
    fn show_folded(rows: &[RowFixture], show: impl Fn(&FoldedVersion<'_>) -> String) -> String {
        let kept: Vec<_> = rows.iter().map(RowFixture::to_stored_row).collect();
        let records: Vec<_> = kept.iter().map(|row| row.as_record()).collect();
        let read = |record| ParsedRow::from_record(record, AliasIndex::built_in(), &mut ParseWarnings::default());
        let versions: Vec<ParsedRow<'_>> = records.iter().map(read).collect();
        show(&fold_versions(&versions.iter().collect::<Vec<_>>(), LOT_GROUPS).unwrap())
    }

    #[test]
    fn an_unreadable_odometer_falls_back_with_its_brand_and_unit() {
        let known = fixture::civic_fixture().with_value("Odometer", "60019.0").with_value("Odometer Brand", "A");
        let broken = fixture::civic_fixture().with_value("Odometer", "6oo19").with_value("Odometer Brand", "N");
        let show = |f: &FoldedVersion<'_>| {
            let miles = f.typed.odometer.map(|d| d.to_string()).unwrap_or_default();
            format!("{miles} {:?} {:?}", f.typed.odometer_brand, f.carried)
        };
        assert_eq!(
            show_folded(&[broken.clone(), known.clone()], show),
            r#"60019.0 Some("A") ["odometer", "odometer_brand", "odometer_unit"]"#
        );
        assert_eq!(
            show_folded(&[broken.clone(), broken.clone(), known.clone()], show).split(' ').next(),
            Some("60019.0")
        );
        assert_eq!(show_folded(&[known.clone(), broken], show), r#"60019.0 Some("A") []"#);
        // An empty value is readable and replaces the known one.
        let empty = fixture::civic_fixture().with_value("Odometer", "").with_value("Odometer Brand", "N");
        assert_eq!(show_folded(&[empty, known], show), r#" Some("N") []"#);
    }

    #[test]
    fn an_amount_never_changes_its_currency() {
        let usd = fixture::civic_fixture()
            .with_value("High Bid =non-vix,Sealed=Vix", "900.0")
            .with_value("Currency Code", "USD");
        let cad = usd.clone().with_value("Currency Code", "CAD").with_value("Est. Retail Value", "5000.0");
        let show = |f: &FoldedVersion<'_>| {
            let t = &f.typed;
            let amount = |d: Option<crate::auction::money::FeedDecimal>| d.map(|d| d.to_string()).unwrap_or_default();
            format!("{} {} {:?}", amount(t.current_bid_usd), amount(t.retail_value_usd), t.currency_code)
        };
        let broken = |row: &RowFixture| row.clone().with_value("High Bid =non-vix,Sealed=Vix", "nine");
        let later = broken(&usd).with_value("Est. Retail Value", "5000.0");
        assert_eq!(show_folded(&[later, usd.clone()], show), r#"900.00 5000.00 Some("USD")"#);
        let retail = usd.clone().with_value("Est. Retail Value", "4000.0");
        assert_eq!(show_folded(&[broken(&cad), retail.clone()], show), r#"900.00 4000.00 Some("USD")"#);
        let no_currency = cad.with_value("Currency Code", "C$");
        assert_eq!(show_folded(&[no_currency, retail], show), r#"900.00 4000.00 Some("USD")"#);
    }

    #[test]
    fn a_sale_falls_back_as_a_whole() {
        let known =
            fixture::civic_fixture().with_value("Sale Date M/D/CY", "20261211").with_value("Yard name", "CA - VALLEJO");
        let broken = known.clone().with_value("Sale Date M/D/CY", "soon").with_value("Yard name", "NJ - TRENTON");
        let shown = show_folded(&[broken, known], |f| format!("{:?} {:?}", f.typed.sale_date_raw, f.typed.yard_name));
        assert_eq!(shown, r#"Some(20261211) Some("CA - VALLEJO")"#);
    }
}
