//! The taxonomy: codes for the feed's raw values, with labels in English and Russian.
//!
//! Many raw values map to one code. The feed's values drift (from March 2026 `FLEXIBLE FUEL` became `FLEXIBLE`, and
//! both were in use for months), so a raw value is compared without case, blanks and punctuation. A new one needs a
//! line in `aliases.csv`, or `vinops taxonomy map`. An unknown raw value has no code: the caller stores the text and
//! counts it.
//!
//! The files in this folder are the data, compiled in. The tables of schema `taxonomies` are filled from them and may
//! be edited there. A job therefore uses the aliases of its database ([`Spellings::of`]). The compiled aliases are the
//! initial content of a database.
//!
//! A title's code is two letters, which two states may print on different documents. `title_types.csv` has the labels
//! that apply in every state, `title_labels.csv` those of a single state.

use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A taxonomy table, which gives codes to one kind of raw value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Primary and secondary damage.
    DamageTypes,
    /// Title documents of a vehicle, from the feed's `Sale Title Type`.
    TitleTypes,
    /// Lifecycle states of a lot, which vinops defines and not the feed.
    Statuses,
    /// Types of sale, from the feed's `Sale Status`.
    SaleTypes,
    /// Reliability of the odometer reading.
    OdometerBrands,
    /// Paint colors.
    Colors,
    /// Body styles of cars, trucks, motorcycles and other vehicles.
    BodyStyles,
    /// Fuels and other power sources.
    FuelTypes,
    /// Driven wheels.
    DriveTypes,
    /// Transmissions.
    TransmissionTypes,
    /// One-letter vehicle classes of the feed.
    VehicleTypes,
    /// Results of the engine and driving test at the yard.
    RunsDrives,
    /// Presence of keys: present, missing, or not required.
    HasKeys,
    /// One-letter conditions of the feed, with the same meaning as `runs_drives`.
    LotConditions,
    /// Sale lights of wholesale lots.
    SaleLights,
}

impl Domain {
    /// All domains.
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

    /// Returns the table's name in schema `taxonomies`.
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

    /// Returns the domain whose table has this name.
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

/// One code of a taxonomy table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The code, which matches `^[a-z0-9_]+$` and is unique in its table.
    pub code: String,
    /// English label.
    pub en: String,
    /// Russian label.
    pub ru: String,
    /// A group of codes within the table.
    pub category: String,
    /// Position in lists, ascending.
    pub sort_order: i32,
    /// True if no native speaker or source has confirmed the Russian label.
    pub needs_review: bool,
}

/// A mapped raw value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Alias {
    /// The taxonomy table of the code.
    pub domain: Domain,
    /// The raw value as in the feed (or in `lots.status`).
    pub raw: String,
    /// The code that the raw value is mapped to.
    pub code: String,
}

/// A state's own label of a title type.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TitleLabel {
    /// The code in `title_types`.
    pub code: String,
    /// The feed's `Sale Title State`: two capital letters of a state or a province.
    pub state: String,
    /// English label.
    pub en: String,
    /// Russian label.
    pub ru: String,
    /// True if no native speaker or source has confirmed the Russian label.
    pub needs_review: bool,
}

/// Maximum length of a folded alias, in bytes. A longer raw value has no code and needs no buffer. The constraint
/// `aliases_raw_is_folded` enforces the limit.
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

/// Returns a table's codes in their order.
pub fn entries(domain: Domain) -> &'static [Entry] {
    &TABLES.entries[domain as usize]
}

/// Returns the states' own labels of title types.
pub fn title_labels() -> &'static [TitleLabel] {
    &TABLES.title_labels
}

/// Returns all compiled aliases.
pub fn aliases() -> &'static [Alias] {
    &TABLES.aliases
}

/// Aliases and their codes, by domain.
#[derive(Clone, Debug)]
pub struct Spellings {
    /// Codes by folded raw value (see [`fold`]), one map per domain.
    codes: [HashMap<String, String>; Domain::ALL.len()],
}

impl Spellings {
    /// Returns the compiled aliases, the initial content of a database.
    pub fn compiled() -> &'static Spellings {
        &COMPILED
    }

    /// Returns the index of these rows: domain, raw value (folded or not) and code.
    pub fn of<S: AsRef<str>>(rows: impl IntoIterator<Item = (Domain, S, S)>) -> Spellings {
        let mut codes = Domain::ALL.map(|_| HashMap::new());
        for (domain, raw, code) in rows {
            codes[domain as usize].insert(fold(raw.as_ref()), code.as_ref().to_owned());
        }
        Spellings { codes }
    }

    /// Returns the code of a raw value, or None for an unknown one.
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

/// Returns a raw value without case, blanks and punctuation.
pub fn fold(raw: &str) -> String {
    folded(raw).collect()
}

fn folded(raw: &str) -> impl Iterator<Item = char> {
    raw.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;
