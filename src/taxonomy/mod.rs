//! The taxonomy: codes for the feed's raw values, with labels in English and Russian.
//!
//! Many raw values map to one code. The feed's values drift (from March 2026 `FLEXIBLE FUEL` became `FLEXIBLE`, and
//! both were in use for months), so a raw value is compared without case, blanks and punctuation. A new one needs a
//! line in `aliases.csv`, or `vinops taxonomy map`. An unknown raw value has no code: the caller stores the text and
//! counts it.
//!
//! The files in this folder are the data, compiled in. The tables of schema `taxonomies` are filled from them and may
//! be edited there. A job therefore uses the aliases of its database ([`AliasIndex::from_rows`]). The compiled aliases
//! are the initial content of a database.
//!
//! A title's code is two letters, which two states may print on different documents. `title_types.csv` has the labels
//! that apply in every state, `title_labels.csv` those of a single state.

use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A taxonomy table, which gives codes to one kind of raw value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaxonomyDomain {
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

impl TaxonomyDomain {
    /// All domains.
    pub const ALL: [TaxonomyDomain; 15] = [
        TaxonomyDomain::DamageTypes,
        TaxonomyDomain::TitleTypes,
        TaxonomyDomain::Statuses,
        TaxonomyDomain::SaleTypes,
        TaxonomyDomain::OdometerBrands,
        TaxonomyDomain::Colors,
        TaxonomyDomain::BodyStyles,
        TaxonomyDomain::FuelTypes,
        TaxonomyDomain::DriveTypes,
        TaxonomyDomain::TransmissionTypes,
        TaxonomyDomain::VehicleTypes,
        TaxonomyDomain::RunsDrives,
        TaxonomyDomain::HasKeys,
        TaxonomyDomain::LotConditions,
        TaxonomyDomain::SaleLights,
    ];

    /// Returns the table's name in schema `taxonomies`.
    pub const fn name(self) -> &'static str {
        match self {
            TaxonomyDomain::DamageTypes => "damage_types",
            TaxonomyDomain::TitleTypes => "title_types",
            TaxonomyDomain::Statuses => "statuses",
            TaxonomyDomain::SaleTypes => "sale_types",
            TaxonomyDomain::OdometerBrands => "odometer_brands",
            TaxonomyDomain::Colors => "colors",
            TaxonomyDomain::BodyStyles => "body_styles",
            TaxonomyDomain::FuelTypes => "fuel_types",
            TaxonomyDomain::DriveTypes => "drive_types",
            TaxonomyDomain::TransmissionTypes => "transmission_types",
            TaxonomyDomain::VehicleTypes => "vehicle_types",
            TaxonomyDomain::RunsDrives => "runs_drives",
            TaxonomyDomain::HasKeys => "has_keys",
            TaxonomyDomain::LotConditions => "lot_conditions",
            TaxonomyDomain::SaleLights => "sale_lights",
        }
    }

    /// Returns the domain whose table has this name.
    pub fn from_name(name: &str) -> Option<TaxonomyDomain> {
        TaxonomyDomain::ALL.into_iter().find(|domain| domain.name() == name)
    }

    const fn csv_text(self) -> &'static str {
        match self {
            TaxonomyDomain::DamageTypes => include_str!("damage_types.csv"),
            TaxonomyDomain::TitleTypes => include_str!("title_types.csv"),
            TaxonomyDomain::Statuses => include_str!("statuses.csv"),
            TaxonomyDomain::SaleTypes => include_str!("sale_types.csv"),
            TaxonomyDomain::OdometerBrands => include_str!("odometer_brands.csv"),
            TaxonomyDomain::Colors => include_str!("colors.csv"),
            TaxonomyDomain::BodyStyles => include_str!("body_styles.csv"),
            TaxonomyDomain::FuelTypes => include_str!("fuel_types.csv"),
            TaxonomyDomain::DriveTypes => include_str!("drive_types.csv"),
            TaxonomyDomain::TransmissionTypes => include_str!("transmission_types.csv"),
            TaxonomyDomain::VehicleTypes => include_str!("vehicle_types.csv"),
            TaxonomyDomain::RunsDrives => include_str!("runs_drives.csv"),
            TaxonomyDomain::HasKeys => include_str!("has_keys.csv"),
            TaxonomyDomain::LotConditions => include_str!("lot_conditions.csv"),
            TaxonomyDomain::SaleLights => include_str!("sale_lights.csv"),
        }
    }
}

/// One code of a taxonomy table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TaxonomyEntry {
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
pub struct TaxonomyAlias {
    /// The taxonomy table of the code.
    pub domain: TaxonomyDomain,
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
pub const MAX_ALIAS_BYTES: usize = 128;

struct TaxonomyTables {
    entries: [Vec<TaxonomyEntry>; TaxonomyDomain::ALL.len()],
    title_labels: Vec<TitleLabel>,
    aliases: Vec<TaxonomyAlias>,
}

static TAXONOMY_TABLES: LazyLock<TaxonomyTables> = LazyLock::new(|| TaxonomyTables {
    entries: TaxonomyDomain::ALL.map(|domain| read_rows(domain.csv_text())),
    title_labels: read_rows(include_str!("title_labels.csv")),
    aliases: read_rows(include_str!("aliases.csv")),
});

static COMPILED_ALIASES: LazyLock<AliasIndex> =
    LazyLock::new(|| AliasIndex::from_rows(aliases().iter().map(|a| (a.domain, a.raw.as_str(), a.code.as_str()))));

#[expect(clippy::expect_used, reason = "the text is compiled in, and a test reads every line of it")]
fn read_rows<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a taxonomy file reads as its type")
}

/// Returns a table's codes in their order.
pub fn entries(domain: TaxonomyDomain) -> &'static [TaxonomyEntry] {
    &TAXONOMY_TABLES.entries[domain as usize]
}

/// Returns the states' own labels of title types.
pub fn title_labels() -> &'static [TitleLabel] {
    &TAXONOMY_TABLES.title_labels
}

/// Returns all compiled aliases.
pub fn aliases() -> &'static [TaxonomyAlias] {
    &TAXONOMY_TABLES.aliases
}

/// Aliases and their codes, by domain.
#[derive(Clone, Debug)]
pub struct AliasIndex {
    /// Codes by folded raw value (see [`fold_text`]), one map per domain.
    codes: [HashMap<String, String>; TaxonomyDomain::ALL.len()],
}

impl AliasIndex {
    /// Returns the compiled aliases, the initial content of a database.
    pub fn built_in() -> &'static AliasIndex {
        &COMPILED_ALIASES
    }

    /// Returns the index of these rows: domain, raw value (folded or not) and code.
    pub fn from_rows<S: AsRef<str>>(rows: impl IntoIterator<Item = (TaxonomyDomain, S, S)>) -> AliasIndex {
        let mut codes = TaxonomyDomain::ALL.map(|_| HashMap::new());
        for (domain, raw, code) in rows {
            codes[domain as usize].insert(fold_text(raw.as_ref()), code.as_ref().to_owned());
        }
        AliasIndex { codes }
    }

    /// Returns the code of a raw value, or None for an unknown one.
    pub fn find_code(&self, domain: TaxonomyDomain, raw: &str) -> Option<&str> {
        let mut buffer = [0; MAX_ALIAS_BYTES];
        let mut length = 0;
        if raw.is_ascii() {
            for byte in raw.bytes().filter(u8::is_ascii_alphanumeric) {
                *buffer.get_mut(length)? = byte.to_ascii_lowercase();
                length += 1;
            }
        } else {
            for c in folded_chars(raw) {
                c.encode_utf8(buffer.get_mut(length..length + c.len_utf8())?);
                length += c.len_utf8();
            }
        }
        let key = std::str::from_utf8(&buffer[..length]).ok()?;
        self.codes[domain as usize].get(key).map(String::as_str)
    }
}

/// Returns a raw value without case, blanks and punctuation.
pub fn fold_text(raw: &str) -> String {
    folded_chars(raw).collect()
}

fn folded_chars(raw: &str) -> impl Iterator<Item = char> {
    raw.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests;
