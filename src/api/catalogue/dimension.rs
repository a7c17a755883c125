//! The list of columns by which lots are filtered and counted. Parameters, facets and the catalogue are derived from
//! it.

use super::Word;
use super::load::Read;
use crate::api::params::{Param, Shape};
use crate::taxonomy::Domain;

/// Kind of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Values of a taxonomy, filtered by code.
    Coded(Domain),
    /// Raw texts, compared regardless of case, blanks and punctuation.
    Text,
}

/// Column by which lots are filtered and counted.
#[derive(Clone, Copy, Debug)]
pub struct Dimension {
    /// Name of the query parameter and the facet.
    pub name: &'static str,
    /// Kind of the values.
    pub kind: Kind,
    /// Description in the OpenAPI document, one line.
    pub about: &'static str,
    /// Function that returns the value of a row.
    pub(super) word: fn(&Read) -> Word,
}

impl Dimension {
    /// Returns the query parameter of the dimension, which may be repeated.
    pub const fn param(&self) -> Param {
        let shape = match self.kind {
            Kind::Coded(domain) => Shape::Code(domain),
            Kind::Text => Shape::Text,
        };
        Param::many(self.name, shape, self.about)
    }
}

const fn coded(
    name: &'static str,
    domain: Domain,
    about: &'static str,
    word: fn(&Read) -> Word,
) -> Dimension {
    Dimension { name, kind: Kind::Coded(domain), about, word }
}

const fn text(name: &'static str, about: &'static str, word: fn(&Read) -> Word) -> Dimension {
    Dimension { name, kind: Kind::Text, about, word }
}

fn raw(raw: &Option<String>) -> Word {
    Word { raw: raw.clone(), ..Word::default() }
}

fn code(code: &Option<String>) -> Word {
    Word { code: code.clone(), ..Word::default() }
}

fn both(code: &Option<String>, raw: &Option<String>) -> Word {
    match code {
        Some(_) => self::code(code),
        None => self::raw(raw),
    }
}

/// Number of dimensions. A constant of its own, because array types need the length before the list is defined.
pub const COUNT: usize = 21;

/// All dimensions, in the order of the facets.
pub const DIMENSIONS: &[Dimension; COUNT] = &[
    text("make", "Make of the vehicle", |row| raw(&row.make)),
    text("model", "Model group of the vehicle", |row| raw(&row.model)),
    coded("status", Domain::Statuses, "Status of the lot", |row| raw(&row.status)),
    coded("damage", Domain::DamageTypes, "Primary damage", |row| {
        both(&row.damage_code, &row.damage_description)
    }),
    coded("secondary_damage", Domain::DamageTypes, "Secondary damage", |row| {
        both(&row.secondary_damage_code, &row.secondary_damage)
    }),
    coded("title", Domain::TitleTypes, "Title type", |row| raw(&row.title_type)),
    text("title_state", "State that issued the title", |row| raw(&row.title_state)),
    coded("sale_type", Domain::SaleTypes, "Sale type", |row| both(&row.sale_type_code, &row.sale_type)),
    coded("keys", Domain::HasKeys, "Presence of keys", |row| code(&row.has_keys_code)),
    coded("runs_drives", Domain::RunsDrives, "Result of the yard's engine start and drive test", |row| {
        raw(&row.runs_drives)
    }),
    coded("condition", Domain::LotConditions, "Lot condition stated by the auction", |row| {
        code(&row.lot_condition_code)
    }),
    coded("vehicle_type", Domain::VehicleTypes, "Vehicle type at the auction", |row| raw(&row.vehicle_type)),
    coded("odometer_brand", Domain::OdometerBrands, "Odometer brand: reliability of the reading", |row| {
        raw(&row.odometer_brand)
    }),
    coded("body", Domain::BodyStyles, "Body style", |row| raw(&row.body)),
    coded("fuel", Domain::FuelTypes, "Fuel type", |row| raw(&row.fuel)),
    coded("transmission", Domain::TransmissionTypes, "Transmission type", |row| raw(&row.transmission)),
    coded("drive", Domain::DriveTypes, "Drive type", |row| raw(&row.drive)),
    coded("color", Domain::Colors, "Exterior colour", |row| raw(&row.color)),
    text("yard", "Yard number or name", |row| Word {
        raw: row.site_code.clone(),
        name: row.yard_name.clone(),
        ..Word::default()
    }),
    text("state", "State or province in which the vehicle is located", |row| raw(&row.region)),
    text("country", "Country in which the vehicle is located", |row| raw(&row.country)),
];
