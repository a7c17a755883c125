//! The mapping of a source: one strict data file that defines how the source's files are read.
//!
//! A mapping is a JSON object. JSON allows names, aliases and flags side by side, and serde refuses an unknown field, a
//! missing field and a wrong type by name. Copart's mapping is `mappings/copart.json`. The fields:
//!
//! | field | value |
//! |---|---|
//! | `kind` | `snapshot`: each file has every open lot, and absence is judged. `changes`: a file has only changed lots, and absence is never judged |
//! | `columns` | a list of `{"ours": …, "name": …, "aliases": […]}`: our column, its name in the source's header, and other names that it has had. Names are compared without case, blanks and punctuation. A column of ours that the source lacks is left out and reads as empty. A column of the source without an entry stays in the payload |
//! | `required` | our columns without which a file is refused; `lot_number` and `vin` are mandatory |
//! | `lot_number` | `digits`: 1 to 18 digits; there is no other rule yet |
//! | `quote_before_blank_closes` | whether `",` and a blank close a quoted field. False for a source that writes no blank after its commas, since they are text there: `LIFT 6", 35" TIRES` |
//! | `zone` | `abbreviation`: the time zone column, yard and state decide ([`super::sale_time`]). Otherwise an IANA name, such as `America/New_York`, that applies to every sale |
//! | `odometer_unit` | `{"default": "mi", "by_country": {"CAN": "km"}}`: the unit by the lot's country |
//! | `default_currency` | three capital letters, used if the currency column is empty, or null |
//! | `drift` | optional; `{"odometer": "refuse"}`: the policy for a column of ours whose values become unreadable ([`super::drift`]). `warn`, the default, reports the drift and applies the file. `refuse` quarantines the file |
//!
//! Dates, amounts and numbers are read in the same way for all sources ([`super::instant`], [`super::money`]). A source
//! without a mapping is read by Copart's. An operator's mappings are read once, at startup ([`install_mappings`]), and
//! take precedence over the built-in one.

use super::Column;
use super::drift::{DriftPolicies, DriftPolicy};
use crate::taxonomy::fold_text;
use chrono_tz::Tz;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, OnceLock};

/// The content of a source's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Every open lot. A lot that is missing from the file is absent.
    Snapshot,
    /// Only lots that changed since the file before. A missing lot is not absent.
    Changes,
}

/// The rule that determines the time zone of a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneRule {
    /// Zone by abbreviation, yard and state.
    Abbreviation,
    /// One region for every sale.
    Region(Tz),
}

/// The unit of an odometer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum OdometerUnit {
    /// Miles.
    #[serde(rename = "mi")]
    Miles,
    /// Kilometres.
    #[serde(rename = "km")]
    Kilometres,
}

impl OdometerUnit {
    /// Returns the unit's value in `lots.odometer_unit`.
    pub const fn as_str(self) -> &'static str {
        match self {
            OdometerUnit::Miles => "mi",
            OdometerUnit::Kilometres => "km",
        }
    }
}

/// The error for an invalid mapping file.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The text is not JSON, or not an object with these fields and types.
    #[error("the mapping is not valid: {0}")]
    Format(#[from] serde_json::Error),
    /// The key is not one of our columns.
    #[error("unknown column {0:?}; expected one of {list}", list = Column::ALL.map(Column::mapping_key).join(", "))]
    UnknownColumn(String),
    /// A column of ours has two entries.
    #[error("column {0:?} has two entries")]
    RepeatedColumn(String),
    /// A name of the source is empty or belongs to two columns.
    #[error("name {name:?} of column {column:?} is empty, or is a name of another column too")]
    AmbiguousName {
        /// The ambiguous name.
        name: String,
        /// The second column with the name.
        column: String,
    },
    /// A required column has no entry.
    #[error("required column {0:?} has no entry in columns")]
    RequiredWithoutEntry(String),
    /// A drift policy names a column without an entry.
    #[error("column {0:?} of drift has no entry in columns")]
    DriftWithoutEntry(String),
    /// A mandatory column is not listed as required.
    #[error("column {0:?} must be among the required ones")]
    NotRequired(String),
    /// The zone is not an IANA name.
    #[error("unknown zone {0:?}; expected abbreviation or an IANA name such as America/New_York")]
    UnknownZone(String),
    /// The currency is not three capital letters.
    #[error("invalid default_currency {0:?}; expected three capital letters")]
    InvalidCurrency(String),
}

/// The parsed mapping of a source.
#[derive(Clone, Debug)]
pub struct SourceMapping {
    /// The content of a file.
    pub kind: SourceKind,
    /// True if a quote, a comma and a blank close a quoted field.
    pub quote_before_blank_closes: bool,
    /// The rule for the time zone of a sale.
    pub zone: ZoneRule,
    /// The currency of amounts in a row without a currency.
    pub default_currency: Option<String>,
    /// The drift policy of each column.
    pub drift_policies: DriftPolicies,
    names: [Option<String>; Column::COUNT],
    /// Folded names, then folded aliases, with their columns.
    folded: Vec<(String, Column)>,
    required: Vec<Column>,
    default_unit: OdometerUnit,
    /// Units by country, with the country in capital letters.
    units_by_country: BTreeMap<String, OdometerUnit>,
}

impl SourceMapping {
    /// Parses a mapping file.
    ///
    /// # Errors
    /// Returns an error that names the first invalid field or column.
    pub fn parse(text: &str) -> Result<SourceMapping, MappingError> {
        let file: MappingFile = serde_json::from_str(text)?;
        let LotNumberRule::Digits = file.lot_number;
        let mut names = [const { None }; Column::COUNT];
        let (mut folded, mut aliases, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for entry in &file.columns {
            let column = find_column(&entry.ours)?;
            if names[column as usize].replace(entry.name.clone()).is_some() {
                return Err(MappingError::RepeatedColumn(entry.ours.clone()));
            }
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                if fold_text(name).is_empty() || !seen.insert(fold_text(name)) {
                    return Err(MappingError::AmbiguousName { name: name.clone(), column: entry.ours.clone() });
                }
            }
            folded.push((fold_text(&entry.name), column));
            aliases.extend(entry.aliases.iter().map(|alias| (fold_text(alias), column)));
        }
        folded.append(&mut aliases);
        let mut required = Vec::new();
        for key in &file.required {
            let column = find_column(key)?;
            if names[column as usize].is_none() {
                return Err(MappingError::RequiredWithoutEntry(key.clone()));
            }
            required.push(column);
        }
        if let Some(column) = [Column::LotNumber, Column::Vin].into_iter().find(|c| !required.contains(c)) {
            return Err(MappingError::NotRequired(column.mapping_key()));
        }
        let zone = match file.zone.as_str() {
            "abbreviation" => ZoneRule::Abbreviation,
            name => name.parse().map(ZoneRule::Region).map_err(|_| MappingError::UnknownZone(name.to_owned()))?,
        };
        if let Some(code) = &file.default_currency
            && !(code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()))
        {
            return Err(MappingError::InvalidCurrency(code.clone()));
        }
        let drift_policies = expand_drift_policies(&file.drift, &names)?;
        let units = file.odometer_unit.by_country.into_iter();
        Ok(SourceMapping {
            kind: file.kind,
            quote_before_blank_closes: file.quote_before_blank_closes,
            zone,
            default_currency: file.default_currency,
            drift_policies,
            names,
            folded,
            required,
            default_unit: file.odometer_unit.default,
            units_by_country: units.map(|(country, unit)| (country.to_ascii_uppercase(), unit)).collect(),
        })
    }

    /// Returns a column's name in the source's header, or None if the source has no such column.
    pub fn header_name(&self, column: Column) -> Option<&str> {
        self.names[column as usize].as_deref()
    }

    /// Returns the columns without which a file is refused.
    pub fn required_columns(&self) -> impl Iterator<Item = Column> {
        self.required.iter().copied()
    }

    /// Returns true if a lot that is missing from a file is absent.
    pub fn is_absence_judged(&self) -> bool {
        self.kind == SourceKind::Snapshot
    }

    /// Returns the odometer unit of a lot in this country.
    pub fn odometer_unit(&self, country: Option<&str>) -> OdometerUnit {
        let by_country =
            |country: &str| self.units_by_country.iter().find(|(known, _)| known.eq_ignore_ascii_case(country));
        country.and_then(by_country).map_or(self.default_unit, |(_, unit)| *unit)
    }

    /// Returns the folded names with their columns, then the folded aliases.
    pub(super) fn folded_names(&self) -> impl Iterator<Item = (&str, Column)> {
        self.folded.iter().map(|(name, column)| (name.as_str(), *column))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingFile {
    kind: SourceKind,
    columns: Vec<MappingColumn>,
    required: Vec<String>,
    lot_number: LotNumberRule,
    quote_before_blank_closes: bool,
    zone: String,
    odometer_unit: OdometerUnitRule,
    default_currency: Option<String>,
    #[serde(default)]
    drift: BTreeMap<String, DriftPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingColumn {
    ours: String,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

/// The accepted form of a lot number.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LotNumberRule {
    Digits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OdometerUnitRule {
    default: OdometerUnit,
    #[serde(default)]
    by_country: BTreeMap<String, OdometerUnit>,
}

fn find_column(key: &str) -> Result<Column, MappingError> {
    Column::from_mapping_key(key).ok_or_else(|| MappingError::UnknownColumn(key.to_owned()))
}

/// Returns the drift policy of every column. Columns that are not named get the default, a warning.
fn expand_drift_policies(
    named: &BTreeMap<String, DriftPolicy>,
    names: &[Option<String>],
) -> Result<DriftPolicies, MappingError> {
    let mut policies = [DriftPolicy::default(); Column::COUNT];
    for (key, policy) in named {
        let column = find_column(key)?;
        if names[column as usize].is_none() {
            return Err(MappingError::DriftWithoutEntry(key.clone()));
        }
        policies[column as usize] = *policy;
    }
    Ok(policies)
}

#[expect(clippy::expect_used, reason = "the text is compiled in, and a test reads it")]
static COPART_MAPPING: LazyLock<SourceMapping> =
    LazyLock::new(|| SourceMapping::parse(include_str!("mappings/copart.json")).expect("Copart's mapping is valid"));

static INSTALLED_MAPPINGS: OnceLock<BTreeMap<String, SourceMapping>> = OnceLock::new();

/// Returns Copart's mapping.
pub fn copart_mapping() -> &'static SourceMapping {
    &COPART_MAPPING
}

/// Returns the operator's mapping of a source. The default is Copart's mapping, since a source without its own mapping
/// has Copart's layout.
pub fn mapping_for_source(source: &str) -> &'static SourceMapping {
    INSTALLED_MAPPINGS.get().and_then(|installed| installed.get(source)).unwrap_or_else(copart_mapping)
}

/// Installs an operator's mappings, by source. Returns false if mappings are already installed.
pub fn install_mappings(mappings: BTreeMap<String, SourceMapping>) -> bool {
    INSTALLED_MAPPINGS.set(mappings).is_ok()
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
pub(crate) mod tests;
