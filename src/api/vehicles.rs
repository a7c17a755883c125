//! A vehicle: what a VIN names, with all its lots.

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
    /// Normalised VIN
    #[schema(example = "1HGCM82633A004352", pattern = "^[A-HJ-NPR-Z0-9]{11,17}$")]
    pub vin: String,
    /// VIN as written in the feed
    pub vin_raw: Option<String>,
    /// Model year
    pub year: Option<i32>,
    /// Make
    pub make: Option<String>,
    /// Model group
    pub model: Option<String>,
    /// Model detail
    pub model_detail: Option<String>,
    /// Trim level
    pub trim: Option<String>,
    /// Body style
    pub body: Option<Coded>,
    /// Fuel type
    pub fuel: Option<Coded>,
    /// Transmission type
    pub transmission: Option<Coded>,
    /// Drive type
    pub drive: Option<Coded>,
    /// Colour
    pub color: Option<Coded>,
    /// Engine
    pub engine: Option<String>,
    /// Number of cylinders
    pub cylinders: Option<i32>,
}

/// A vehicle as it stands in the tables.
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
    /// Returns it as a reader is shown it.
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

/// A vehicle and its lots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct VehicleWithLots {
    /// The vehicle
    #[serde(flatten)]
    pub vehicle: Vehicle,
    /// Fields of the vehicle whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["year"]))]
    pub carried: Vec<String>,
    /// Lots of the vehicle, newest first
    pub lots: Vec<Lot>,
}

/// The most lots of one vehicle that are shown: a vehicle is put up again a few times, never hundreds.
const LOTS: i64 = 200;

fn vin(text: &str) -> Result<String, Problem> {
    let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
    if (11..=17).contains(&text.len()) && text.chars().all(letter) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(Problem::parameter("vin", "is not a VIN of 11 to 17 letters and digits without I, O and Q"))
    }
}

/// A vehicle
///
/// Returns the vehicle with this VIN and all its visible lots.
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
    .context("look for a vehicle")?;
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
    .context("read a vehicle")?;
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
    .context("read the lots of a vehicle")?;
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
