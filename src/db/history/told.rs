//! How a logged value is told: words with their code, amounts with their currency, instants in UTC.
//!
//! The log holds columns as they are stored. A word and its code are two columns there and one thing here; of most words
//! only the spelling is stored, and its code is looked up when it is told, so that a spelling mapped since is known.

use crate::taxonomy::{Domain, Spellings};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

/// A word of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Its table.
    #[serde(skip)]
    pub domain: Domain,
    /// What it means; none where nobody knows.
    pub code: Option<String>,
    /// What the code is called, once somebody has said so: [`super::LotHistory::words`].
    pub label: Option<String>,
    /// As the feed has it, where that is stored.
    pub raw: Option<String>,
    /// Of a title: the state whose paper it is.
    #[serde(skip)]
    pub state: Option<String>,
}

/// An amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Money {
    /// With two digits after the point.
    pub amount: String,
    /// Three capital letters.
    pub currency: Option<String>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// There is none.
    Nothing,
    /// A word.
    Word(Word),
    /// An amount.
    Money(Money),
    /// An instant.
    At(DateTime<Utc>),
    /// A text, a number, yes or no.
    Plain(Value),
}

/// A column that holds words: of which table, and the column of their code if that is logged too.
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

/// Columns that hold codes.
const CODES: [(&str, Domain); 5] = [
    ("damage_code", Domain::DamageTypes),
    ("secondary_damage_code", Domain::DamageTypes),
    ("sale_type_code", Domain::SaleTypes),
    ("has_keys_code", Domain::HasKeys),
    ("lot_condition_code", Domain::LotConditions),
];

const MONEY: [&str; 4] = ["current_bid_usd", "buy_it_now_usd", "retail_value_usd", "repair_cost_usd"];
const INSTANTS: [&str; 1] = ["auction_datetime_utc"];

/// Whether this column says nothing that `other`, changed with it, does not: the code of a word that is told with its
/// code, and the yes or no of the keys beside their code.
pub fn told_by(column: &str, other: &str) -> bool {
    if column == "has_keys" {
        return other == "has_keys_code";
    }
    WORDS.iter().any(|(words, _, code)| *words == other && *code == Some(column))
}

/// What belongs to a lot, and so to how its values are told, at the time of a change.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// What its amounts are in.
    pub currency: Option<String>,
    /// Whose paper its title is.
    pub title_state: Option<String>,
}

/// A column's value as the log has it.
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

/// A spelling as a word.
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
    /// The word it is, if it is one.
    pub fn word_mut(&mut self) -> Option<&mut Word> {
        if let Told::Word(word) = self { Some(word) } else { None }
    }

    /// For people.
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
