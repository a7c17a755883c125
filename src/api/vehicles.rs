//! The resource of a vehicle: the vehicle that a VIN identifies, with all its lots.

use super::labels::TaxonomyLabels;
use super::language::{CodedValueResponse, Language};
use super::lots::{self, LotResponse};
use super::params::{LANG_PARAM, ParsedQuery};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::{ApiState, PathName, RequestQuery};
use crate::db::history;
use crate::taxonomy::TaxonomyDomain;
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::cmp::Reverse;
use std::sync::Arc;
use utoipa::ToSchema;

/// Vehicle, identified by its VIN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct VehicleResponse {
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
    pub body: Option<CodedValueResponse>,
    /// Fuel type, a coded value
    pub fuel: Option<CodedValueResponse>,
    /// Transmission type, a coded value
    pub transmission: Option<CodedValueResponse>,
    /// Drive type (driven wheels), a coded value
    pub drive: Option<CodedValueResponse>,
    /// Exterior colour, a coded value
    pub color: Option<CodedValueResponse>,
    /// Engine description, free text
    pub engine: Option<String>,
    /// Number of cylinders of the engine
    pub cylinders: Option<i32>,
}

/// Row of a vehicle, as read from the database.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the columns'")]
pub struct VehicleRow {
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

impl VehicleRow {
    /// Converts the row to the JSON form of the vehicle, with labels in a language.
    pub fn into_vehicle(self, words: &TaxonomyLabels, lang: Language) -> VehicleResponse {
        let spelled = |domain, raw: &Option<String>| words.coded_from_raw(domain, raw.as_deref(), lang);
        VehicleResponse {
            body: spelled(TaxonomyDomain::BodyStyles, &self.body),
            fuel: spelled(TaxonomyDomain::FuelTypes, &self.fuel),
            transmission: spelled(TaxonomyDomain::TransmissionTypes, &self.transmission),
            drive: spelled(TaxonomyDomain::DriveTypes, &self.drive),
            color: spelled(TaxonomyDomain::Colors, &self.color),
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
    pub vehicle: VehicleResponse,
    /// Fields of the vehicle whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["year"]))]
    pub carried: Vec<String>,
    /// Visible lots of the vehicle, newest first, at most 200
    pub lots: Vec<LotResponse>,
}

/// Maximum number of lots in the response of one vehicle. Vehicles are usually offered a few times.
const MAX_LOTS: i64 = 200;

fn parse_vin(text: &str) -> Result<String, Problem> {
    let letter = |c: char| c.is_ascii_alphanumeric() && !"IOQioq".contains(c);
    if (11..=17).contains(&text.len()) && text.chars().all(letter) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(Problem::invalid_parameter("vin", "is not a VIN of 11 to 17 letters and digits without I, O and Q"))
    }
}

/// Vehicle by its VIN
///
/// Returns the vehicle with this VIN and its visible lots, newest first.
#[utoipa::path(
    get, path = "/api/v1/vehicles/{vin}", tag = "vehicles",
    params(("vin" = String, Path, description = "VIN, in upper or lower case", pattern = "^[A-HJ-NPR-Za-hj-npr-z0-9]{11,17}$"), super::openapi::LanguageQuery),
    responses(
        (status = 200, description = "Vehicle", body = VehicleWithLots),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse
    )
)]
pub async fn show_vehicle(
    State(shared): State<Arc<ApiState>>,
    PathName(text): PathName,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[&[LANG_PARAM]])?;
    let lang = Language::from_request(&asked, &ask.headers);
    let vin = parse_vin(&text)?;
    let mut tx = shared.begin_read().await?;
    let found = sqlx::query!(
        r#"-- api: is the vehicle in sight
        select is_removed from public.vehicles where vin = $1"#,
        vin
    )
    .fetch_optional(&mut *tx)
    .await
    .context("could not look up a vehicle")?;
    match found {
        None => return Err(Problem::not_found(format!("Vehicle {vin} does not exist."))),
        Some(found) if found.is_removed => {
            return Err(Problem::gone(format!("Vehicle {vin} was removed.")));
        }
        Some(_) => {}
    }
    let row = sqlx::query_as!(
        VehicleRow,
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
        MAX_LOTS
    )
    .fetch_all(&mut *tx)
    .await
    .context("could not read the lots of the vehicle")?;
    let mut rows = lots::read_lots(&mut tx, &ids).await?;
    drop(tx);
    rows.sort_by_key(|row| Reverse(row.id));
    let words = shared.labels();
    let lots: Vec<LotResponse> = rows.into_iter().map(|row| row.into_lot(&words, lang)).collect();
    let carried = history::carried_columns::value_names(None, row.carried_columns.as_deref());
    let carried = carried.into_iter().map(str::to_owned).collect();
    let vehicle = row.into_vehicle(&words, lang);
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &VehicleWithLots { vehicle, carried, lots }))
}
