//! A vehicle: what a VIN names, with all its lots.

use super::answer::{Keep, json};
use super::lang::{Coded, Lang};
use super::lots::{self, Lot};
use super::params::{Asked, LANG};
use super::problem::Problem;
use super::{Ask, Named, Shared};
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::cmp::Reverse;
use std::sync::Arc;
use utoipa::ToSchema;

/// What a VIN names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Vehicle {
    /// Normalised
    #[schema(example = "1HGCM82633A004352", pattern = "^[A-HJ-NPR-Z0-9]{11,17}$")]
    pub vin: String,
    /// As the feed spells it
    pub vin_raw: Option<String>,
    /// Model year
    pub year: Option<i32>,
    /// Make
    pub make: Option<String>,
    /// Model group
    pub model: Option<String>,
    /// Model, in detail
    pub model_detail: Option<String>,
    /// Trim
    pub trim: Option<String>,
    /// Body
    pub body: Option<Coded>,
    /// What it runs on
    pub fuel: Option<Coded>,
    /// Gearbox
    pub transmission: Option<Coded>,
    /// Driven wheels
    pub drive: Option<Coded>,
    /// Paint
    pub color: Option<Coded>,
    /// Engine
    pub engine: Option<String>,
    /// Its cylinders
    pub cylinders: Option<i32>,
}

/// A vehicle and its lots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct VehicleWithLots {
    /// The vehicle
    #[serde(flatten)]
    pub vehicle: Vehicle,
    /// Every time it was put up for sale, the newest first
    pub lots: Vec<Lot>,
}

/// The most lots of one vehicle that are shown: a vehicle is put up again a few times, never hundreds.
const LOTS: i64 = 200;

fn vin(text: &str) -> Result<String, Problem> {
    let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
    match (11..=17).contains(&text.len()) && text.chars().all(letter) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err(Problem::parameter("vin", "is not a VIN: 11 to 17 letters and digits, no I, O, Q")),
    }
}

/// A vehicle
///
/// By its VIN, with every lot it was offered as.
#[utoipa::path(
    get, path = "/api/v1/vehicles/{vin}", tag = "vehicles",
    params(("vin" = String, Path, description = "its VIN, in either case", pattern = "^[A-HJ-NPR-Za-hj-npr-z0-9]{11,17}$"), super::openapi::Lang),
    responses((status = 200, description = "the vehicle", body = VehicleWithLots), super::openapi::Refused, super::openapi::NotThere)
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
    let numbers = sqlx::query_scalar!(
        r#"-- api: lots of a vehicle
        select l.lot_external_id as "lot!"
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
    let mut rows = lots::read(&mut tx, &numbers).await?;
    drop(tx);
    rows.sort_by_key(|row| Reverse(row.id));
    let words = shared.words();
    let lots: Vec<Lot> = rows.into_iter().map(|row| row.shown(&words, lang)).collect();
    // a vehicle is made by a lot, and hidden with its lots
    let Some(vehicle) = lots.first().map(|lot| lot.vehicle.clone()) else {
        return Err(Problem::unknown(format!("no vehicle {vin}")));
    };
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &VehicleWithLots { vehicle, lots }))
}
