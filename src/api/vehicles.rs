//! The resource of a vehicle: the vehicle that a VIN identifies, with all its lots.

use super::answer::{Keep, json};
use super::lang::{Coded, Lang};
use super::lots::{self, Lot};
use super::params::{Asked, LANG};
use super::problem::Problem;
use super::words::Words;
use super::{Ask, Named, Shared};
use crate::db::history;
use crate::taxonomy::Domain;
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::cmp::Reverse;
use std::sync::Arc;
use utoipa::ToSchema;

/// Vehicle, identified by its VIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Vehicle {
    /// Normalised VIN, 11 to 17 capital letters and digits
    #[schema(example = "1HGCM82633A004352", pattern = "^[A-HJ-NPR-Z0-9]{11,17}$")]
    pub vin: String,
    /// VIN as written in the feed, before normalisation
    pub vin_raw: Option<String>,
    /// Model year, four digits
    pub year: Option<i32>,
    /// Make, as written in the feed
    pub make: Option<String>,
    /// Model group, as written in the feed
    pub model: Option<String>,
    /// Model detail, more specific than the model group
    pub model_detail: Option<String>,
    /// Trim level, as written in the feed
    pub trim: Option<String>,
    /// Body style, a coded value
    pub body: Option<Coded>,
    /// Fuel type, a coded value
    pub fuel: Option<Coded>,
    /// Transmission type, a coded value
    pub transmission: Option<Coded>,
    /// Drive type (driven wheels), a coded value
    pub drive: Option<Coded>,
    /// Exterior colour, a coded value
    pub color: Option<Coded>,
    /// Engine description, free text
    pub engine: Option<String>,
    /// Number of cylinders of the engine
    pub cylinders: Option<i32>,
}

/// Row of a vehicle, as read from the database.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the columns'")]
pub struct Row {
    pub vin: String,
    pub vin_raw: Option<String>,
    pub year: Option<i32>,
    pub make: Option<String>,
    pub model: Option<String>,
    pub model_detail: Option<String>,
    pub trim: Option<String>,
    pub body: Option<String>,
    pub fuel: Option<String>,
    pub transmission: Option<String>,
    pub drive: Option<String>,
    pub engine: Option<String>,
    pub cylinders: Option<i32>,
    pub color: Option<String>,
    pub carried_columns: Option<Vec<String>>,
}

impl Row {
    /// Converts the row to the JSON form of the vehicle, with labels in a language.
    pub fn shown(self, words: &Words, lang: Lang) -> Vehicle {
        let spelled = |domain, raw: &Option<String>| words.spelled(domain, raw.as_deref(), lang);
        Vehicle {
            body: spelled(Domain::BodyStyles, &self.body),
            fuel: spelled(Domain::FuelTypes, &self.fuel),
            transmission: spelled(Domain::TransmissionTypes, &self.transmission),
            drive: spelled(Domain::DriveTypes, &self.drive),
            color: spelled(Domain::Colors, &self.color),
            vin: self.vin,
            vin_raw: self.vin_raw,
            year: self.year,
            make: self.make,
            model: self.model,
            model_detail: self.model_detail,
            trim: self.trim,
            engine: self.engine,
            cylinders: self.cylinders,
        }
    }
}

/// Vehicle with its lots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct VehicleWithLots {
    /// Fields of the vehicle
    #[serde(flatten)]
    pub vehicle: Vehicle,
    /// Fields of the vehicle whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["year"]))]
    pub carried: Vec<String>,
    /// Visible lots of the vehicle, newest first, at most 200
    pub lots: Vec<Lot>,
}

/// Maximum number of lots in the response of one vehicle. Vehicles are usually offered a few times.
const LOTS: i64 = 200;

fn vin(text: &str) -> Result<String, Problem> {
    let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
    if (11..=17).contains(&text.len()) && text.chars().all(letter) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(Problem::parameter("vin", "is not a VIN of 11 to 17 letters and digits without I, O and Q"))
    }
}

/// Vehicle by its VIN
///
/// Returns the vehicle with this VIN and its visible lots, newest first.
#[utoipa::path(
    get, path = "/api/v1/vehicles/{vin}", tag = "vehicles",
    params(("vin" = String, Path, description = "VIN, in upper or lower case", pattern = "^[A-HJ-NPR-Za-hj-npr-z0-9]{11,17}$"), super::openapi::Lang),
    responses(
        (status = 200, description = "Vehicle", body = VehicleWithLots),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn vehicle(
    State(shared): State<Arc<Shared>>,
    Named(text): Named,
    ask: Ask,
) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let vin = vin(&text)?;
    let mut tx = shared.read().await?;
    let found = sqlx::query!(
        r#"-- api: is the vehicle in sight
        select is_removed from public.vehicles where vin = $1"#,
        vin
    )
    .fetch_optional(&mut *tx)
    .await
    .context("could not look up a vehicle")?;
    match found {
        None => return Err(Problem::unknown(format!("Vehicle {vin} does not exist."))),
        Some(found) if found.is_removed => {
            return Err(Problem::gone(format!("Vehicle {vin} was removed.")));
        }
        Some(_) => {}
    }
    let row = sqlx::query_as!(
        Row,
        r#"-- api: a vehicle
        select
          vin, vin_raw, year, make, model, model_detail, trim, body, fuel, transmission, drive, engine, cylinders, color,
          carried_columns
        from public.vehicles
        where vin = $1"#,
        vin
    )
    .fetch_one(&mut *tx)
    .await
    .context("could not read the vehicle")?;
    let ids = sqlx::query_scalar!(
        r#"-- api: lots of a vehicle
        select l.id
        from public.lots as l
        where l.vin = $1
          and not l.is_removed
          and l.lot_external_id is not null
        order by l.id desc
        limit $2"#,
        vin,
        LOTS
    )
    .fetch_all(&mut *tx)
    .await
    .context("could not read the lots of the vehicle")?;
    let mut rows = lots::read(&mut tx, &ids).await?;
    drop(tx);
    rows.sort_by_key(|row| Reverse(row.id));
    let words = shared.words();
    let lots: Vec<Lot> = rows.into_iter().map(|row| row.shown(&words, lang)).collect();
    let carried = history::carried::values(None, row.carried_columns.as_deref());
    let carried = carried.into_iter().map(str::to_owned).collect();
    let vehicle = row.shown(&words, lang);
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &VehicleWithLots { vehicle, carried, lots }))
}
