//! The columns by which lots are filtered and counted, as one list: parameters, facets and the reading are drawn from it.

use super::Word;
use super::load::Read;
use crate::api::params::{Param, Shape};
use crate::taxonomy::Domain;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Words of a taxonomy, asked for by code.
    Coded(Domain),
    /// Words as they are, asked for without regard to case, blanks and punctuation.
    Text,
}

/// A column by which lots are filtered and counted.
#[derive(Clone, Copy, Debug)]
pub struct Dimension {
    /// Of parameter and facet.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// One line.
    pub about: &'static str,
    /// Takes it from a row.
    pub(super) word: fn(&Read) -> Word,
}

impl Dimension {
    /// As a parameter.
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

/// How many there are; said apart, since types that were made of the list itself would have to be known before it.
pub const COUNT: usize = 21;

/// All of them, in the order of facets.
pub const DIMENSIONS: &[Dimension; COUNT] = &[
    text("make", "Make", |row| raw(&row.make)),
    text("model", "Model group", |row| raw(&row.model)),
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
    coded("condition", Domain::LotConditions, "Lot condition, a one-letter code of the auction", |row| {
        code(&row.lot_condition_code)
    }),
    coded("vehicle_type", Domain::VehicleTypes, "Vehicle type at the auction", |row| raw(&row.vehicle_type)),
    coded(
        "odometer_brand",
        Domain::OdometerBrands,
        "Odometer brand, the reliability of the reading",
        |row| raw(&row.odometer_brand),
    ),
    coded("body", Domain::BodyStyles, "Body style", |row| raw(&row.body)),
    coded("fuel", Domain::FuelTypes, "Fuel type", |row| raw(&row.fuel)),
    coded("transmission", Domain::TransmissionTypes, "Transmission type", |row| raw(&row.transmission)),
    coded("drive", Domain::DriveTypes, "Drive type", |row| raw(&row.drive)),
    coded("color", Domain::Colors, "Colour", |row| raw(&row.color)),
    text("yard", "Yard number or name", |row| Word {
        raw: row.site_code.clone(),
        name: row.yard_name.clone(),
        ..Word::default()
    }),
    text("state", "State or province of the yard", |row| raw(&row.region)),
    text("country", "Country of the yard", |row| raw(&row.country)),
];
