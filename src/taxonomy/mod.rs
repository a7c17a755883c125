//! Lookup tables: what Copart's spellings mean, in English and Russian.
//!
//! Many raw spellings lead to one code. The feed's vocabulary drifts (from March 2026 `FLEXIBLE FUEL` became
//! `FLEXIBLE`, and both were about for months), so a spelling is compared without case, blanks and punctuation,
//! and a new one is a line in `aliases.csv`, or `vinops taxonomy map`. An unknown spelling has no code: the caller
//! keeps the text and counts it.
//!
//! The files beside this one are the data, compiled in; the tables of schema `taxonomies` are filled from them, and may
//! be edited there. So a job reads by the spellings of its database ([`Spellings::of`]); the compiled ones are what a
//! database begins with.
//!
//! A title's code is two letters that one state prints on one paper and another on another: `title_types.csv` has what
//! holds wherever it is met, `title_labels.csv` what the state itself calls it.

use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A lookup table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Primary and secondary damage.
    DamageTypes,
    /// The papers of a vehicle: the feed's `Sale Title Type`.
    TitleTypes,
    /// A lot's life: ours, not the feed's.
    Statuses,
    /// How a lot is sold: the feed's `Sale Status`.
    SaleTypes,
    /// How far the odometer is to be believed.
    OdometerBrands,
    /// Of the paint.
    Colors,
    /// Of cars, trucks, motorcycles and what else is sold.
    BodyStyles,
    /// What it runs on.
    FuelTypes,
    /// Driven wheels.
    DriveTypes,
    /// Gearboxes.
    TransmissionTypes,
    /// The feed's one-letter classes.
    VehicleTypes,
    /// What was tried at the yard.
    RunsDrives,
    /// Keys there, not there, or none needed.
    HasKeys,
    /// The feed's one-letter conditions, which say the same as `runs_drives`.
    LotConditions,
    /// The lights of wholesale lots.
    SaleLights,
}

impl Domain {
    /// All of them.
    pub const ALL: [Domain; 15] = [
        Domain::DamageTypes,
        Domain::TitleTypes,
        Domain::Statuses,
        Domain::SaleTypes,
        Domain::OdometerBrands,
        Domain::Colors,
        Domain::BodyStyles,
        Domain::FuelTypes,
        Domain::DriveTypes,
        Domain::TransmissionTypes,
        Domain::VehicleTypes,
        Domain::RunsDrives,
        Domain::HasKeys,
        Domain::LotConditions,
        Domain::SaleLights,
    ];

    /// The table's name in schema `taxonomies`.
    pub const fn name(self) -> &'static str {
        match self {
            Domain::DamageTypes => "damage_types",
            Domain::TitleTypes => "title_types",
            Domain::Statuses => "statuses",
            Domain::SaleTypes => "sale_types",
            Domain::OdometerBrands => "odometer_brands",
            Domain::Colors => "colors",
            Domain::BodyStyles => "body_styles",
            Domain::FuelTypes => "fuel_types",
            Domain::DriveTypes => "drive_types",
            Domain::TransmissionTypes => "transmission_types",
            Domain::VehicleTypes => "vehicle_types",
            Domain::RunsDrives => "runs_drives",
            Domain::HasKeys => "has_keys",
            Domain::LotConditions => "lot_conditions",
            Domain::SaleLights => "sale_lights",
        }
    }

    /// The table of this name.
    pub fn named(name: &str) -> Option<Domain> {
        Domain::ALL.into_iter().find(|domain| domain.name() == name)
    }

    const fn file(self) -> &'static str {
        match self {
            Domain::DamageTypes => include_str!("damage_types.csv"),
            Domain::TitleTypes => include_str!("title_types.csv"),
            Domain::Statuses => include_str!("statuses.csv"),
            Domain::SaleTypes => include_str!("sale_types.csv"),
            Domain::OdometerBrands => include_str!("odometer_brands.csv"),
            Domain::Colors => include_str!("colors.csv"),
            Domain::BodyStyles => include_str!("body_styles.csv"),
            Domain::FuelTypes => include_str!("fuel_types.csv"),
            Domain::DriveTypes => include_str!("drive_types.csv"),
            Domain::TransmissionTypes => include_str!("transmission_types.csv"),
            Domain::VehicleTypes => include_str!("vehicle_types.csv"),
            Domain::RunsDrives => include_str!("runs_drives.csv"),
            Domain::HasKeys => include_str!("has_keys.csv"),
            Domain::LotConditions => include_str!("lot_conditions.csv"),
            Domain::SaleLights => include_str!("sale_lights.csv"),
        }
    }
}

/// One code of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// `^[a-z0-9_]+$`, unique in its table.
    pub code: String,
    /// English label.
    pub en: String,
    /// Russian label.
    pub ru: String,
    /// A group of codes within the table.
    pub category: String,
    /// Place in lists, ascending.
    pub sort_order: i32,
    /// No native speaker or source has confirmed the Russian label.
    pub needs_review: bool,
}

/// One spelling of a code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Alias {
    /// Its table.
    pub domain: Domain,
    /// As the feed (or `lots.status`) spells it.
    pub raw: String,
    /// What it means.
    pub code: String,
}

/// What a state calls one of its titles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TitleLabel {
    /// Of `title_types`.
    pub code: String,
    /// As the feed's `Sale Title State`: two capital letters, of a state or a province.
    pub state: String,
    /// English label.
    pub en: String,
    /// Russian label.
    pub ru: String,
    /// No native speaker or source has confirmed the Russian label.
    pub needs_review: bool,
}

/// No spelling folds to more bytes, so a longer text has no code and needs no buffer; `aliases_raw_is_folded` holds it.
pub const LONGEST: usize = 128;

struct Tables {
    entries: [Vec<Entry>; Domain::ALL.len()],
    title_labels: Vec<TitleLabel>,
    aliases: Vec<Alias>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    entries: Domain::ALL.map(|domain| rows(domain.file())),
    title_labels: rows(include_str!("title_labels.csv")),
    aliases: rows(include_str!("aliases.csv")),
});

static COMPILED: LazyLock<Spellings> =
    LazyLock::new(|| Spellings::of(aliases().iter().map(|a| (a.domain, a.raw.as_str(), a.code.as_str()))));

#[expect(clippy::expect_used, reason = "the text is compiled in, and a test reads every line of it")]
fn rows<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a taxonomy file reads as its type")
}

/// A table's codes in their order.
pub fn entries(domain: Domain) -> &'static [Entry] {
    &TABLES.entries[domain as usize]
}

/// The states' own labels of titles.
pub fn title_labels() -> &'static [TitleLabel] {
    &TABLES.title_labels
}

/// All known spellings.
pub fn aliases() -> &'static [Alias] {
    &TABLES.aliases
}

/// Spellings and their codes, by domain.
#[derive(Clone, Debug)]
pub struct Spellings {
    /// From what [`fold`] leaves of a spelling.
    codes: [HashMap<String, String>; Domain::ALL.len()],
}

impl Spellings {
    /// Those of the files, which a database begins with.
    pub fn compiled() -> &'static Spellings {
        &COMPILED
    }

    /// These: domain, spelling (folded or not) and code.
    pub fn of<S: AsRef<str>>(rows: impl IntoIterator<Item = (Domain, S, S)>) -> Spellings {
        let mut codes = Domain::ALL.map(|_| HashMap::new());
        for (domain, raw, code) in rows {
            codes[domain as usize].insert(fold(raw.as_ref()), code.as_ref().to_owned());
        }
        Spellings { codes }
    }

    /// The code of a spelling, if it is known.
    pub fn code(&self, domain: Domain, raw: &str) -> Option<&str> {
        let mut buffer = [0; LONGEST];
        let mut length = 0;
        if raw.is_ascii() {
            for byte in raw.bytes().filter(u8::is_ascii_alphanumeric) {
                *buffer.get_mut(length)? = byte.to_ascii_lowercase();
                length += 1;
            }
        } else {
            for c in folded(raw) {
                c.encode_utf8(buffer.get_mut(length..length + c.len_utf8())?);
                length += c.len_utf8();
            }
        }
        let key = std::str::from_utf8(&buffer[..length]).ok()?;
        self.codes[domain as usize].get(key).map(String::as_str)
    }
}

/// A spelling without case, blanks and punctuation.
pub fn fold(raw: &str) -> String {
    folded(raw).collect()
}

fn folded(raw: &str) -> impl Iterator<Item = char> {
    raw.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;
