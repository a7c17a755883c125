//! The list of columns by which lots are filtered and counted. Parameters, facets and the catalogue are derived from
//! it.

use super::ColumnValue;
use super::load::CatalogueRow;
use crate::api::params::{ParamType, QueryParam};
use crate::taxonomy::TaxonomyDomain;

/// Kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DimensionKind {
    /// Values of a taxonomy, filtered by code.
    Coded(TaxonomyDomain),
    /// Raw texts, compared regardless of case, blanks and punctuation.
    Text,
}

/// Column by which lots are filtered and counted.
#[derive(Clone, Copy, Debug)]
pub struct Dimension {
    /// Name of the query parameter and the facet.
    pub name: &'static str,
    /// Kind of the values.
    pub kind: DimensionKind,
    /// Description in the OpenAPI document, one line.
    pub about: &'static str,
    /// Function that returns the value of a row.
    pub(super) word: fn(&CatalogueRow) -> ColumnValue,
}

impl Dimension {
    /// Returns the query parameter of the dimension, which may be repeated.
    pub const fn query_param(&self) -> QueryParam {
        let shape = match self.kind {
            DimensionKind::Coded(domain) => ParamType::Code(domain),
            DimensionKind::Text => ParamType::Text,
        };
        QueryParam::repeated(self.name, shape, self.about)
    }
}

const fn coded_dimension(
    name: &'static str,
    domain: TaxonomyDomain,
    about: &'static str,
    word: fn(&CatalogueRow) -> ColumnValue,
) -> Dimension {
    Dimension { name, kind: DimensionKind::Coded(domain), about, word }
}

const fn text_dimension(name: &'static str, about: &'static str, word: fn(&CatalogueRow) -> ColumnValue) -> Dimension {
    Dimension { name, kind: DimensionKind::Text, about, word }
}

fn raw_value(raw: &Option<String>) -> ColumnValue {
    ColumnValue { raw: raw.clone(), ..ColumnValue::default() }
}

fn code_value(code: &Option<String>) -> ColumnValue {
    ColumnValue { code: code.clone(), ..ColumnValue::default() }
}

fn code_or_raw(code: &Option<String>, raw: &Option<String>) -> ColumnValue {
    match code {
        Some(_) => self::code_value(code),
        None => self::raw_value(raw),
    }
}

/// Number of dimensions. A constant of its own, because array types need the length before the list is defined.
pub const DIMENSION_COUNT: usize = 21;

/// All dimensions, in the order of the facets.
pub const DIMENSIONS: &[Dimension; DIMENSION_COUNT] = &[
    text_dimension("make", "Make of the vehicle", |row| raw_value(&row.make)),
    text_dimension("model", "Model group of the vehicle", |row| raw_value(&row.model)),
    coded_dimension("status", TaxonomyDomain::Statuses, "Status of the lot", |row| raw_value(&row.status)),
    coded_dimension("damage", TaxonomyDomain::DamageTypes, "Primary damage", |row| {
        code_or_raw(&row.damage_code, &row.damage_description)
    }),
    coded_dimension("secondary_damage", TaxonomyDomain::DamageTypes, "Secondary damage", |row| {
        code_or_raw(&row.secondary_damage_code, &row.secondary_damage)
    }),
    coded_dimension("title", TaxonomyDomain::TitleTypes, "Title type", |row| raw_value(&row.title_type)),
    text_dimension("title_state", "State that issued the title", |row| raw_value(&row.title_state)),
    coded_dimension("sale_type", TaxonomyDomain::SaleTypes, "Sale type", |row| {
        code_or_raw(&row.sale_type_code, &row.sale_type)
    }),
    coded_dimension("keys", TaxonomyDomain::HasKeys, "Presence of keys", |row| code_value(&row.has_keys_code)),
    coded_dimension(
        "runs_drives",
        TaxonomyDomain::RunsDrives,
        "Result of the yard's engine start and drive test",
        |row| raw_value(&row.runs_drives),
    ),
    coded_dimension("condition", TaxonomyDomain::LotConditions, "Lot condition stated by the auction", |row| {
        code_value(&row.lot_condition_code)
    }),
    coded_dimension("vehicle_type", TaxonomyDomain::VehicleTypes, "Vehicle type at the auction", |row| {
        raw_value(&row.vehicle_type)
    }),
    coded_dimension(
        "odometer_brand",
        TaxonomyDomain::OdometerBrands,
        "Odometer brand: reliability of the reading",
        |row| raw_value(&row.odometer_brand),
    ),
    coded_dimension("body", TaxonomyDomain::BodyStyles, "Body style", |row| raw_value(&row.body)),
    coded_dimension("fuel", TaxonomyDomain::FuelTypes, "Fuel type", |row| raw_value(&row.fuel)),
    coded_dimension("transmission", TaxonomyDomain::TransmissionTypes, "Transmission type", |row| {
        raw_value(&row.transmission)
    }),
    coded_dimension("drive", TaxonomyDomain::DriveTypes, "Drive type", |row| raw_value(&row.drive)),
    coded_dimension("color", TaxonomyDomain::Colors, "Exterior colour", |row| raw_value(&row.color)),
    text_dimension("yard", "Yard number or name", |row| ColumnValue {
        raw: row.site_code.clone(),
        name: row.yard_name.clone(),
        ..ColumnValue::default()
    }),
    text_dimension("state", "State or province in which the vehicle is located", |row| raw_value(&row.region)),
    text_dimension("country", "Country in which the vehicle is located", |row| raw_value(&row.country)),
];
