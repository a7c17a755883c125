//! Display values of logged columns: taxonomy values with their code, amounts with their currency, timestamps in UTC.
//!
//! The log contains columns as they are stored. A raw value and its code are two columns there and one value here. Of
//! most taxonomy values only the raw value is stored. The code is looked up for display, so that an alias mapped later
//! applies too.

use crate::taxonomy::{AliasIndex, TaxonomyDomain};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

/// A value of a taxonomy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaxonomyValue {
    /// The taxonomy table.
    #[serde(skip)]
    pub domain: TaxonomyDomain,
    /// The code. None if the raw value has no alias.
    pub code: Option<String>,
    /// The label of the code. None until the caller sets labels through [`super::LotHistory::taxonomy_values`].
    pub label: Option<String>,
    /// The raw value of the feed. None if only the code is stored.
    pub raw: Option<String>,
    /// The state that issued the title. None for values other than titles.
    #[serde(skip)]
    pub state: Option<String>,
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CurrencyAmount {
    /// The amount, with two digits after the decimal point.
    pub amount: String,
    /// The currency code, three capital letters. None if not known.
    pub currency: Option<String>,
}

/// The value of a column, prepared for display.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DisplayValue {
    /// No value.
    Nothing,
    /// A value of a taxonomy.
    Word(TaxonomyValue),
    /// An amount of money.
    Money(CurrencyAmount),
    /// A timestamp.
    At(DateTime<Utc>),
    /// A text, number or boolean.
    Plain(Value),
}

/// Columns of raw values: the taxonomy, and the column of the code if the log contains that column too.
const TAXONOMY_COLUMNS: [(&str, TaxonomyDomain, Option<&str>); 13] = [
    ("status", TaxonomyDomain::Statuses, None),
    ("damage_description", TaxonomyDomain::DamageTypes, Some("damage_code")),
    ("secondary_damage", TaxonomyDomain::DamageTypes, Some("secondary_damage_code")),
    ("sale_type", TaxonomyDomain::SaleTypes, Some("sale_type_code")),
    ("title_type", TaxonomyDomain::TitleTypes, None),
    ("odometer_brand", TaxonomyDomain::OdometerBrands, None),
    ("runs_drives", TaxonomyDomain::RunsDrives, None),
    ("vehicle_type", TaxonomyDomain::VehicleTypes, None),
    ("body", TaxonomyDomain::BodyStyles, None),
    ("color", TaxonomyDomain::Colors, None),
    ("fuel", TaxonomyDomain::FuelTypes, None),
    ("transmission", TaxonomyDomain::TransmissionTypes, None),
    ("drive", TaxonomyDomain::DriveTypes, None),
];

/// Columns of codes.
const CODE_COLUMNS: [(&str, TaxonomyDomain); 5] = [
    ("damage_code", TaxonomyDomain::DamageTypes),
    ("secondary_damage_code", TaxonomyDomain::DamageTypes),
    ("sale_type_code", TaxonomyDomain::SaleTypes),
    ("has_keys_code", TaxonomyDomain::HasKeys),
    ("lot_condition_code", TaxonomyDomain::LotConditions),
];

const AMOUNT_COLUMNS: [&str; 4] = ["current_bid_usd", "buy_it_now_usd", "retail_value_usd", "repair_cost_usd"];
const TIMESTAMP_COLUMNS: [&str; 1] = ["auction_datetime_utc"];

/// Returns true if a changed column adds no information to `other`, which changed with it.
///
/// That is the code column of a raw value that is shown with its code, and `has_keys` beside the code of the keys.
pub fn is_redundant(column: &str, other: &str) -> bool {
    if column == "has_keys" {
        return other == "has_keys_code";
    }
    TAXONOMY_COLUMNS.iter().any(|(words, _, code)| *words == other && *code == Some(column))
}

/// Values of a lot, at the time of a change, that the display of other values depends on.
#[derive(Clone, Debug, Default)]
pub struct ValueContext {
    /// Currency of the lot's amounts.
    pub currency: Option<String>,
    /// State that issued the lot's title.
    pub title_state: Option<String>,
}

/// Returns the display value of a column of the log.
pub fn describe_value(column: &str, value: Value, setting: &ValueContext, aliases: &AliasIndex) -> DisplayValue {
    if value.is_null() {
        return DisplayValue::Nothing;
    }
    let text = value.as_str();
    if let (Some(raw), Some((_, domain, _))) = (text, TAXONOMY_COLUMNS.iter().find(|(name, ..)| *name == column)) {
        return DisplayValue::Word(taxonomy_value(*domain, raw, setting, aliases));
    }
    if let (Some(code), Some((_, domain))) = (text, CODE_COLUMNS.iter().find(|(name, _)| *name == column)) {
        let code = Some(code.to_owned());
        return DisplayValue::Word(TaxonomyValue { domain: *domain, code, label: None, raw: None, state: None });
    }
    if let (Some(amount), true) = (value.as_f64(), AMOUNT_COLUMNS.contains(&column)) {
        return DisplayValue::Money(CurrencyAmount {
            amount: format!("{amount:.2}"),
            currency: setting.currency.clone(),
        });
    }
    if let (Some(Ok(at)), true) = (text.map(str::parse), TIMESTAMP_COLUMNS.contains(&column)) {
        return DisplayValue::At(at);
    }
    DisplayValue::Plain(value)
}

/// Returns the taxonomy value of a raw value.
pub fn taxonomy_value(
    domain: TaxonomyDomain,
    raw: &str,
    setting: &ValueContext,
    aliases: &AliasIndex,
) -> TaxonomyValue {
    TaxonomyValue {
        domain,
        code: aliases.find_code(domain, raw).map(str::to_owned),
        label: None,
        raw: Some(raw.to_owned()),
        state: setting.title_state.clone().filter(|_| domain == TaxonomyDomain::TitleTypes),
    }
}

impl DisplayValue {
    /// Returns the taxonomy value, or `None` if the value is of another kind.
    pub fn taxonomy_value_mut(&mut self) -> Option<&mut TaxonomyValue> {
        if let DisplayValue::Word(word) = self { Some(word) } else { None }
    }

    /// Returns the value as a text for people.
    pub fn to_text(&self) -> String {
        match self {
            DisplayValue::Nothing => "nothing".to_owned(),
            DisplayValue::Word(TaxonomyValue { code, label, raw, .. }) => {
                label.as_ref().or(code.as_ref()).or(raw.as_ref()).cloned().unwrap_or_default()
            }
            DisplayValue::Money(CurrencyAmount { amount, currency }) => match currency {
                Some(currency) => format!("{amount} {currency}"),
                None => amount.clone(),
            },
            DisplayValue::At(at) => at.to_rfc3339_opts(SecondsFormat::Secs, true),
            DisplayValue::Plain(Value::String(text)) => text.clone(),
            DisplayValue::Plain(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
            DisplayValue::Plain(value) => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_told_with_what_it_means() {
        let setting = ValueContext { currency: Some("CAD".to_owned()), title_state: Some("ON".to_owned()) };
        let tell = |column, value| describe_value(column, value, &setting, AliasIndex::built_in());
        let said = |column, value| tell(column, value).to_text();
        assert_eq!(said("damage_description", json!("Burn-Engine")), "damage_burn_engine");
        assert_eq!(said("damage_description", json!("EATEN BY GOAT")), "EATEN BY GOAT");
        assert_eq!(said("lot_condition_code", json!("cond_d")), "cond_d");
        assert_eq!(said("current_bid_usd", json!(1275.5)), "1275.50 CAD");
        assert_eq!(said("current_bid_usd", json!(null)), "nothing");
        assert_eq!(said("auction_datetime_utc", json!("2026-11-20T10:00:00-05:00")), "2026-11-20T15:00:00Z");
        assert_eq!(said("make_offer_eligible", json!(true)), "yes");
        assert_eq!(said("item_number", json!(7)), "7");
        let mut title = tell("title_type", json!("NU"));
        assert_eq!(title.taxonomy_value_mut().unwrap().state.as_deref(), Some("ON"));
    }

    #[test]
    fn a_code_is_told_with_its_word_and_alone_where_there_is_none() {
        assert!(is_redundant("damage_code", "damage_description"));
        assert!(is_redundant("has_keys", "has_keys_code"));
        for (column, other) in [
            ("damage_description", "damage_code"),
            ("has_keys_code", "has_keys"),
            ("lot_condition_code", "runs_drives"),
            ("current_bid_usd", "damage_code"),
        ] {
            assert!(!is_redundant(column, other), "{column} {other}");
        }
    }
}
