//! Display values of logged columns: taxonomy values with their code, amounts with their currency, timestamps in UTC.
//!
//! The log contains columns as they are stored. A raw value and its code are two columns there and one value here. Of
//! most taxonomy values only the raw value is stored. The code is looked up for display, so that an alias mapped later
//! applies too.

use crate::taxonomy::{Domain, Spellings};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

/// A value of a taxonomy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    /// The taxonomy table.
    #[serde(skip)]
    pub domain: Domain,
    /// The code. None if the raw value has no alias.
    pub code: Option<String>,
    /// The label of the code. None until the caller sets labels through [`super::LotHistory::words`].
    pub label: Option<String>,
    /// The raw value of the feed. None if only the code is stored.
    pub raw: Option<String>,
    /// The state that issued the title. None for values other than titles.
    #[serde(skip)]
    pub state: Option<String>,
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Money {
    /// The amount, with two digits after the decimal point.
    pub amount: String,
    /// The currency code, three capital letters. None if not known.
    pub currency: Option<String>,
}

/// The value of a column, prepared for display.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// No value.
    Nothing,
    /// A value of a taxonomy.
    Word(Word),
    /// An amount of money.
    Money(Money),
    /// A timestamp.
    At(DateTime<Utc>),
    /// A text, number or boolean.
    Plain(Value),
}

/// Columns of raw values: the taxonomy, and the column of the code if the log contains that column too.
const WORDS: [(&str, Domain, Option<&str>); 13] = [
    ("status", Domain::Statuses, None),
    ("damage_description", Domain::DamageTypes, Some("damage_code")),
    ("secondary_damage", Domain::DamageTypes, Some("secondary_damage_code")),
    ("sale_type", Domain::SaleTypes, Some("sale_type_code")),
    ("title_type", Domain::TitleTypes, None),
    ("odometer_brand", Domain::OdometerBrands, None),
    ("runs_drives", Domain::RunsDrives, None),
    ("vehicle_type", Domain::VehicleTypes, None),
    ("body", Domain::BodyStyles, None),
    ("color", Domain::Colors, None),
    ("fuel", Domain::FuelTypes, None),
    ("transmission", Domain::TransmissionTypes, None),
    ("drive", Domain::DriveTypes, None),
];

/// Columns of codes.
const CODES: [(&str, Domain); 5] = [
    ("damage_code", Domain::DamageTypes),
    ("secondary_damage_code", Domain::DamageTypes),
    ("sale_type_code", Domain::SaleTypes),
    ("has_keys_code", Domain::HasKeys),
    ("lot_condition_code", Domain::LotConditions),
];

const MONEY: [&str; 4] = ["current_bid_usd", "buy_it_now_usd", "retail_value_usd", "repair_cost_usd"];
const INSTANTS: [&str; 1] = ["auction_datetime_utc"];

/// Returns true if a changed column adds no information to `other`, which changed with it.
///
/// That is the code column of a raw value that is shown with its code, and `has_keys` beside the code of the keys.
pub fn told_by(column: &str, other: &str) -> bool {
    if column == "has_keys" {
        return other == "has_keys_code";
    }
    WORDS.iter().any(|(words, _, code)| *words == other && *code == Some(column))
}

/// Values of a lot, at the time of a change, that the display of other values depends on.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Currency of the lot's amounts.
    pub currency: Option<String>,
    /// State that issued the lot's title.
    pub title_state: Option<String>,
}

/// Returns the display value of a column of the log.
pub fn tell(column: &str, value: Value, setting: &Setting, spellings: &Spellings) -> Told {
    if value.is_null() {
        return Told::Nothing;
    }
    let text = value.as_str();
    if let (Some(raw), Some((_, domain, _))) = (text, WORDS.iter().find(|(name, ..)| *name == column)) {
        return Told::Word(word(*domain, raw, setting, spellings));
    }
    if let (Some(code), Some((_, domain))) = (text, CODES.iter().find(|(name, _)| *name == column)) {
        let code = Some(code.to_owned());
        return Told::Word(Word { domain: *domain, code, label: None, raw: None, state: None });
    }
    if let (Some(amount), true) = (value.as_f64(), MONEY.contains(&column)) {
        return Told::Money(Money { amount: format!("{amount:.2}"), currency: setting.currency.clone() });
    }
    if let (Some(Ok(at)), true) = (text.map(str::parse), INSTANTS.contains(&column)) {
        return Told::At(at);
    }
    Told::Plain(value)
}

/// Returns the taxonomy value of a raw value.
pub fn word(domain: Domain, raw: &str, setting: &Setting, spellings: &Spellings) -> Word {
    Word {
        domain,
        code: spellings.code(domain, raw).map(str::to_owned),
        label: None,
        raw: Some(raw.to_owned()),
        state: setting.title_state.clone().filter(|_| domain == Domain::TitleTypes),
    }
}

impl Told {
    /// Returns the taxonomy value, or `None` if the value is of another kind.
    pub fn word_mut(&mut self) -> Option<&mut Word> {
        if let Told::Word(word) = self { Some(word) } else { None }
    }

    /// Returns the value as a text for people.
    pub fn said(&self) -> String {
        match self {
            Told::Nothing => "nothing".to_owned(),
            Told::Word(Word { code, label, raw, .. }) => {
                label.as_ref().or(code.as_ref()).or(raw.as_ref()).cloned().unwrap_or_default()
            }
            Told::Money(Money { amount, currency }) => match currency {
                Some(currency) => format!("{amount} {currency}"),
                None => amount.clone(),
            },
            Told::At(at) => at.to_rfc3339_opts(SecondsFormat::Secs, true),
            Told::Plain(Value::String(text)) => text.clone(),
            Told::Plain(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
            Told::Plain(value) => value.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_told_with_what_it_means() {
        let setting = Setting { currency: Some("CAD".to_owned()), title_state: Some("ON".to_owned()) };
        let tell = |column, value| tell(column, value, &setting, Spellings::compiled());
        let said = |column, value| tell(column, value).said();
        assert_eq!(said("damage_description", json!("Burn-Engine")), "damage_burn_engine");
        assert_eq!(said("damage_description", json!("EATEN BY GOAT")), "EATEN BY GOAT");
        assert_eq!(said("lot_condition_code", json!("cond_d")), "cond_d");
        assert_eq!(said("current_bid_usd", json!(1275.5)), "1275.50 CAD");
        assert_eq!(said("current_bid_usd", json!(null)), "nothing");
        assert_eq!(said("auction_datetime_utc", json!("2026-11-20T10:00:00-05:00")), "2026-11-20T15:00:00Z");
        assert_eq!(said("make_offer_eligible", json!(true)), "yes");
        assert_eq!(said("item_number", json!(7)), "7");
        let mut title = tell("title_type", json!("NU"));
        assert_eq!(title.word_mut().unwrap().state.as_deref(), Some("ON"));
    }

    #[test]
    fn a_code_is_told_with_its_word_and_alone_where_there_is_none() {
        assert!(told_by("damage_code", "damage_description"));
        assert!(told_by("has_keys", "has_keys_code"));
        for (column, other) in [
            ("damage_description", "damage_code"),
            ("has_keys_code", "has_keys"),
            ("lot_condition_code", "runs_drives"),
            ("current_bid_usd", "damage_code"),
        ] {
            assert!(!told_by(column, other), "{column} {other}");
        }
    }
}
