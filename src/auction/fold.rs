//! Folds several versions of a lot into one row when the greatest version has unreadable values.
//!
//! The greatest version of a lot is in effect. An unreadable value in it must not replace a known one, so each group of
//! columns that belong together falls back to the greatest version in which the whole group is readable. A group that
//! no version has readable stays null, as in the greatest version.
//!
//! An amount has no meaning without its currency. It falls back alone to a version of the same currency. If the
//! readable version has another currency, all amounts and the currency fall back together.

use super::row::Typed;
use super::{Column, ColumnSet};

/// A group of columns that fall back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
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
pub const LOT_GROUPS: &[Group] = &[
    Group::Sale,
    Group::Odometer,
    Group::Amounts,
    Group::Bid,
    Group::BuyItNow,
    Group::RetailValue,
    Group::RepairCost,
    Group::Keys,
    Group::Damage,
    Group::SecondaryDamage,
    Group::SaleType,
    Group::Condition,
    Group::ItemNumber,
    Group::MakeOffer,
    Group::Title,
    Group::VehicleType,
    Group::RunsDrives,
];

/// The column groups of `vehicles`.
pub const VEHICLE_GROUPS: &[Group] = &[
    Group::Odometer,
    Group::Year,
    Group::Cylinders,
    Group::Body,
    Group::Fuel,
    Group::Transmission,
    Group::Drive,
    Group::Color,
];

impl Group {
    /// Returns the group's feed columns. The group is readable if each of them is.
    pub const fn columns(self) -> ColumnSet {
        ColumnSet::of(match self {
            Group::Sale => &[
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
            Group::Odometer => &[Column::Odometer, Column::OdometerBrand],
            Group::Amounts => &[Column::CurrencyCode],
            Group::Bid => &[Column::HighBid],
            Group::BuyItNow => &[Column::BuyItNowPrice],
            Group::RetailValue => &[Column::RetailValue],
            Group::RepairCost => &[Column::RepairCost],
            Group::Keys => &[Column::HasKeys],
            Group::Damage => &[Column::DamageDescription],
            Group::SecondaryDamage => &[Column::SecondaryDamage],
            Group::SaleType => &[Column::SaleStatus],
            Group::Condition => &[Column::LotConditionCode],
            Group::ItemNumber => &[Column::ItemNumber],
            Group::MakeOffer => &[Column::MakeOfferEligible],
            Group::Title => &[Column::TitleType],
            Group::VehicleType => &[Column::VehicleType],
            Group::RunsDrives => &[Column::RunsDrives],
            Group::Year => &[Column::Year],
            Group::Cylinders => &[Column::Cylinders],
            Group::Body => &[Column::BodyStyle],
            Group::Fuel => &[Column::FuelType],
            Group::Transmission => &[Column::Transmission],
            Group::Drive => &[Column::Drive],
            Group::Color => &[Column::Color],
        })
    }

    /// Returns the names of the group's columns in `lots` and `vehicles`.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Group::Sale => &[
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
            Group::Odometer => &["odometer", "odometer_brand", "odometer_unit"],
            Group::Amounts => {
                &["currency_code", "current_bid_usd", "buy_it_now_usd", "retail_value_usd", "repair_cost_usd"]
            }
            Group::Bid => &["current_bid_usd"],
            Group::BuyItNow => &["buy_it_now_usd"],
            Group::RetailValue => &["retail_value_usd"],
            Group::RepairCost => &["repair_cost_usd"],
            Group::Keys => &["has_keys", "has_keys_code"],
            Group::Damage => &["damage_description", "damage_code"],
            Group::SecondaryDamage => &["secondary_damage", "secondary_damage_code"],
            Group::SaleType => &["sale_type", "sale_type_code"],
            Group::Condition => &["lot_condition_code"],
            Group::ItemNumber => &["item_number"],
            Group::MakeOffer => &["make_offer_eligible"],
            Group::Title => &["title_type", "title_state"],
            Group::VehicleType => &["vehicle_type"],
            Group::RunsDrives => &["runs_drives"],
            Group::Year => &["year"],
            Group::Cylinders => &["cylinders"],
            Group::Body => &["body"],
            Group::Fuel => &["fuel"],
            Group::Transmission => &["transmission"],
            Group::Drive => &["drive"],
            Group::Color => &["color"],
        }
    }

    /// Copies the group's values from another row.
    fn copy<'a>(self, to: &mut Typed<'a>, from: &Typed<'a>) {
        match self {
            Group::Sale => {
                (to.sale_date_raw, to.sale_day_of_week) = (from.sale_date_raw, from.sale_day_of_week);
                (to.sale_time_hhmm, to.tz) = (from.sale_time_hhmm, from.tz);
                to.auction_datetime_utc = from.auction_datetime_utc;
                (to.site_code, to.yard_name, to.city) = (from.site_code, from.yard_name, from.city);
                (to.region, to.country) = (from.region, from.country);
                to.location_zip = from.location_zip;
            }
            Group::Odometer => {
                (to.odometer, to.odometer_unit) = (from.odometer, from.odometer_unit);
                to.odometer_brand = from.odometer_brand;
            }
            Group::Amounts => {
                to.currency_code = from.currency_code;
                for amount in [Group::Bid, Group::BuyItNow, Group::RetailValue, Group::RepairCost] {
                    amount.copy(to, from);
                }
            }
            Group::Bid => to.current_bid_usd = from.current_bid_usd,
            Group::BuyItNow => to.buy_it_now_usd = from.buy_it_now_usd,
            Group::RetailValue => to.retail_value_usd = from.retail_value_usd,
            Group::RepairCost => to.repair_cost_usd = from.repair_cost_usd,
            Group::Keys => {
                (to.has_keys, to.has_keys_code) = (from.has_keys, from.has_keys_code);
                to.has_keys_raw = from.has_keys_raw;
            }
            Group::Damage => {
                (to.damage_description, to.damage_code) = (from.damage_description, from.damage_code);
            }
            Group::SecondaryDamage => {
                to.secondary_damage = from.secondary_damage;
                to.secondary_damage_code = from.secondary_damage_code;
            }
            Group::SaleType => (to.sale_type, to.sale_type_code) = (from.sale_type, from.sale_type_code),
            Group::Condition => {
                (to.lot_condition, to.lot_condition_code) = (from.lot_condition, from.lot_condition_code);
            }
            Group::ItemNumber => to.item_number = from.item_number,
            Group::MakeOffer => to.make_offer_eligible = from.make_offer_eligible,
            Group::Title => (to.title_type, to.title_state) = (from.title_type, from.title_state),
            Group::VehicleType => to.vehicle_type = from.vehicle_type,
            Group::RunsDrives => to.runs_drives = from.runs_drives,
            Group::Year => to.year = from.year,
            Group::Cylinders => to.cylinders = from.cylinders,
            Group::Body => to.body = from.body,
            Group::Fuel => to.fuel = from.fuel,
            Group::Transmission => to.transmission = from.transmission,
            Group::Drive => to.drive = from.drive,
            Group::Color => to.color = from.color,
        }
    }

    /// Returns true for an amount, which has no meaning without its currency.
    const fn is_amount(self) -> bool {
        matches!(self, Group::Bid | Group::BuyItNow | Group::RetailValue | Group::RepairCost)
    }
}

/// The row folded from several versions of a lot.
#[derive(Clone, Debug)]
pub struct Folded<'a> {
    /// The folded values.
    pub typed: Typed<'a>,
    /// Names of the columns whose values come from an older version.
    pub carried: Vec<&'static str>,
}

/// Returns the fold of `versions`, given with the greatest first, or None if there is none.
pub fn fold<'a>(versions: &[&Typed<'a>], groups: &[Group]) -> Option<Folded<'a>> {
    let (greatest, older) = versions.split_first()?;
    let mut folded = Folded { typed: (*greatest).clone(), carried: Vec::new() };
    let mut amounts_carried = false;
    for group in groups.iter().copied() {
        if !greatest.unreadable.intersects(group.columns()) || amounts_carried && group.is_amount() {
            continue;
        }
        let mut needed = group.columns();
        if group.is_amount() {
            needed.insert(Column::CurrencyCode);
        }
        let Some(from) = older.iter().find(|version| !version.unreadable.intersects(needed)) else {
            continue;
        };
        let other_currency = group.is_amount() && from.currency_code != folded.typed.currency_code;
        let carried = if other_currency { Group::Amounts } else { group };
        amounts_carried |= carried == Group::Amounts;
        carried.copy(&mut folded.typed, from);
        folded
            .carried
            .extend(carried.names().iter().filter(|name| !folded.carried.contains(name)).collect::<Vec<_>>());
    }
    Some(folded)
}

#[cfg(test)]
mod tests {
    use super::super::specimen::{self, Specimen};
    use super::*;
    use crate::auction::row::Warnings;
    use crate::taxonomy::Spellings;

    /// Returns the fold of these rows, given with the greatest first, formatted by `show`.
    fn folded(rows: &[Specimen], show: impl Fn(&Folded<'_>) -> String) -> String {
        let kept: Vec<_> = rows.iter().map(Specimen::kept).collect();
        let records: Vec<_> = kept.iter().map(|row| row.record()).collect();
        let read = |record| Typed::read(record, Spellings::compiled(), &mut Warnings::default());
        let versions: Vec<Typed<'_>> = records.iter().map(read).collect();
        show(&fold(&versions.iter().collect::<Vec<_>>(), LOT_GROUPS).unwrap())
    }

    #[test]
    fn an_unreadable_odometer_falls_back_with_its_brand_and_unit() {
        let known = specimen::civic().with("Odometer", "60019.0").with("Odometer Brand", "A");
        let broken = specimen::civic().with("Odometer", "6oo19").with("Odometer Brand", "N");
        let show = |f: &Folded<'_>| {
            let miles = f.typed.odometer.map(|d| d.to_string()).unwrap_or_default();
            format!("{miles} {:?} {:?}", f.typed.odometer_brand, f.carried)
        };
        assert_eq!(
            folded(&[broken.clone(), known.clone()], show),
            r#"60019.0 Some("A") ["odometer", "odometer_brand", "odometer_unit"]"#
        );
        assert_eq!(
            folded(&[broken.clone(), broken.clone(), known.clone()], show).split(' ').next(),
            Some("60019.0")
        );
        assert_eq!(folded(&[known.clone(), broken], show), r#"60019.0 Some("A") []"#);
        // An empty value is readable and replaces the known one.
        let empty = specimen::civic().with("Odometer", "").with("Odometer Brand", "N");
        assert_eq!(folded(&[empty, known], show), r#" Some("N") []"#);
    }

    #[test]
    fn an_amount_never_changes_its_currency() {
        let usd =
            specimen::civic().with("High Bid =non-vix,Sealed=Vix", "900.0").with("Currency Code", "USD");
        let cad = usd.clone().with("Currency Code", "CAD").with("Est. Retail Value", "5000.0");
        let show = |f: &Folded<'_>| {
            let t = &f.typed;
            let amount =
                |d: Option<crate::auction::money::Decimal>| d.map(|d| d.to_string()).unwrap_or_default();
            format!("{} {} {:?}", amount(t.current_bid_usd), amount(t.retail_value_usd), t.currency_code)
        };
        let broken = |row: &Specimen| row.clone().with("High Bid =non-vix,Sealed=Vix", "nine");
        let later = broken(&usd).with("Est. Retail Value", "5000.0");
        assert_eq!(folded(&[later, usd.clone()], show), r#"900.00 5000.00 Some("USD")"#);
        let retail = usd.clone().with("Est. Retail Value", "4000.0");
        assert_eq!(folded(&[broken(&cad), retail.clone()], show), r#"900.00 4000.00 Some("USD")"#);
        let no_currency = cad.with("Currency Code", "C$");
        assert_eq!(folded(&[no_currency, retail], show), r#"900.00 4000.00 Some("USD")"#);
    }

    #[test]
    fn a_sale_falls_back_as_a_whole() {
        let known = specimen::civic().with("Sale Date M/D/CY", "20261211").with("Yard name", "CA - VALLEJO");
        let broken = known.clone().with("Sale Date M/D/CY", "soon").with("Yard name", "NJ - TRENTON");
        let shown =
            folded(&[broken, known], |f| format!("{:?} {:?}", f.typed.sale_date_raw, f.typed.yard_name));
        assert_eq!(shown, r#"Some(20261211) Some("CA - VALLEJO")"#);
    }
}
