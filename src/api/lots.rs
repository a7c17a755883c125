//! The resource of a lot: one vehicle put up for sale, with its sale, its condition and its images.

use super::carried;
use super::labels::TaxonomyLabels;
use super::language::{CodedValueResponse, Language};
use super::lot_path::{self, LotPath};
use super::params::{LANG_PARAM, ParsedQuery};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::vehicles::{self, VehicleResponse};
use super::{ApiState, RequestQuery};
use crate::auction::zone::SalePlace;
use crate::db::history;
use crate::taxonomy::TaxonomyDomain;
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use std::sync::Arc;
use utoipa::ToSchema;

/// Lot: one vehicle put up for sale.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotResponse {
    /// Lot number at the source, 1 to 18 digits without leading zeros
    #[schema(example = "63868745", pattern = "^[1-9][0-9]{0,17}$")]
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: Option<String>,
    /// Status of the lot, a coded value derived from the feed and the time of the sale
    pub status: Option<CodedValueResponse>,
    /// Vehicle that is sold
    pub vehicle: VehicleResponse,
    /// Time and type of the sale
    pub sale: SaleResponse,
    /// Title type, a coded value, with the label of the state that issued the title if the state has its own
    pub title: Option<CodedValueResponse>,
    /// State that issued the title, an abbreviation
    pub title_state: Option<String>,
    /// Primary damage, a coded value. Null if the feed contains none
    pub damage: Option<CodedValueResponse>,
    /// Secondary damage, a coded value. Null if the feed contains none
    pub secondary_damage: Option<CodedValueResponse>,
    /// Odometer reading, or null if there is neither a distance nor a brand
    pub odometer: Option<OdometerResponse>,
    /// Presence of keys, a coded value. Null if the feed does not state it
    pub keys: Option<CodedValueResponse>,
    /// Result of the yard's engine start and drive test, a coded value. Null if the feed contains none
    pub runs_drives: Option<CodedValueResponse>,
    /// Lot condition stated by the auction, a coded value such as runs and drives, or not verified
    pub condition: Option<CodedValueResponse>,
    /// Vehicle type at the auction, a coded value such as automobile
    pub vehicle_type: Option<CodedValueResponse>,
    /// Yard at which the vehicle is stored
    pub yard: YardResponse,
    /// Current high bid, or null if there is no bid
    pub current_bid: Option<MoneyResponse>,
    /// Buy-it-now price, or null if the lot is not offered at a fixed price
    pub buy_it_now: Option<MoneyResponse>,
    /// Estimated retail value of the undamaged vehicle, or null if the feed contains none
    pub retail_value: Option<MoneyResponse>,
    /// Estimated repair cost, or null if the feed contains none
    pub repair_cost: Option<MoneyResponse>,
    /// True if the seller accepts offers. Null if the feed does not state it
    pub make_offer: Option<bool>,
    /// Special note of the auction, free text. Null if there is none
    pub special_note: Option<String>,
    /// Images of the vehicle. Empty if there are none
    pub images: Vec<ImageResponse>,
    /// Time at which the lot was first stored in this database
    pub created_at: DateTime<Utc>,
    /// Time of the last change in this database
    pub updated_at: DateTime<Utc>,
    /// Time of the last change at the source, or null if the feed contains no readable time
    pub source_updated_at: Option<DateTime<Utc>>,
    /// Paths of the fields in this object whose values come from an older row of the feed, because the newest row's
    /// values cannot be parsed. Empty if there are none
    #[schema(example = json!(["odometer", "sale.at"]))]
    pub carried: Vec<String>,
}

/// Amount of money in its own currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MoneyResponse {
    /// Decimal amount with two digits after the point
    #[schema(example = "10674.00", pattern = r"^[0-9]+\.[0-9]{2}$")]
    pub amount: String,
    /// ISO 4217 currency code, or null if the feed names no currency
    #[schema(example = "USD")]
    pub currency: Option<String>,
}

/// Time and type of a lot's sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SaleResponse {
    /// Time of the sale in UTC, or null while there is no date with a known time zone
    pub at: Option<DateTime<Utc>>,
    /// Time of the sale in the yard's time zone, RFC 3339 with the zone's offset. Null if `at` is null or the zone is
    /// not known
    #[schema(example = "2026-03-16T12:00:00-07:00", format = DateTime)]
    pub local: Option<String>,
    /// Time zone of the yard: an IANA name, or a fixed offset such as `UTC-09:00`. Null if `local` is null
    #[schema(example = "America/Los_Angeles")]
    pub zone: Option<String>,
    /// Sale type, a coded value. Null if the feed contains none
    #[serde(rename = "type")]
    pub kind: Option<CodedValueResponse>,
    /// Item number in the order of the sale, or null if none is assigned
    pub item_number: Option<i32>,
    /// Grid and row at which the vehicle is parked in the yard
    pub grid_row: Option<String>,
}

/// Odometer reading of a vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OdometerResponse {
    /// Distance in `unit`, or null if only the brand is known
    pub value: Option<f64>,
    /// Unit of the distance: `mi` for miles, or `km` for kilometres
    #[schema(example = "mi", pattern = "^(mi|km)$")]
    pub unit: Option<String>,
    /// Odometer brand: reliability of the reading, such as actual or exempt
    pub brand: Option<CodedValueResponse>,
}

/// Yard at which a vehicle is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct YardResponse {
    /// Yard number at the source
    pub code: Option<String>,
    /// Yard name at the source
    pub name: Option<String>,
    /// City in which the vehicle is located
    pub city: Option<String>,
    /// State or province in which the vehicle is located, an abbreviation
    pub state: Option<String>,
    /// Country in which the vehicle is located, an abbreviation
    #[schema(example = "USA")]
    pub country: Option<String>,
    /// Postal code of the location
    pub zip: Option<String>,
}

/// Image of a vehicle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageResponse {
    /// Size of the image: `thumbnail` or `listing`
    pub variant: Option<String>,
    /// URL of the image at the source
    pub url: String,
}

/// Row of a lot, its vehicle and its images, as read from the database.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the columns'")]
pub struct LotRow {
    pub id: i64,
    pub lot: String,
    pub source: Option<String>,
    pub status: Option<String>,
    pub vin: String,
    pub auction_datetime_utc: Option<DateTime<Utc>>,
    pub tz: Option<String>,
    pub item_number: Option<i32>,
    pub grid_row: Option<String>,
    pub sale_type: Option<String>,
    pub sale_type_code: Option<String>,
    pub title_type: Option<String>,
    pub title_state: Option<String>,
    pub damage_description: Option<String>,
    pub damage_code: Option<String>,
    pub secondary_damage: Option<String>,
    pub secondary_damage_code: Option<String>,
    pub odometer: Option<f64>,
    pub odometer_unit: Option<String>,
    pub odometer_brand: Option<String>,
    pub has_keys_code: Option<String>,
    pub runs_drives: Option<String>,
    pub lot_condition_code: Option<String>,
    pub vehicle_type: Option<String>,
    pub site_code: Option<String>,
    pub yard_name: Option<String>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub country: Option<String>,
    pub location_zip: Option<String>,
    pub currency_code: Option<String>,
    pub current_bid: Option<String>,
    pub buy_it_now: Option<String>,
    pub retail_value: Option<String>,
    pub repair_cost: Option<String>,
    pub make_offer_eligible: Option<bool>,
    pub special_note: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub source_updated_at: Option<DateTime<Utc>>,
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
    pub images: Json<Vec<ImageResponse>>,
    /// Columns of the lot whose values come from an older row of the feed.
    pub carried_columns: Option<Vec<String>>,
    /// Columns of the vehicle whose values come from an older row of the feed.
    pub vehicle_carried_columns: Option<Vec<String>>,
}

/// Returns the visible lots with these ids, unordered.
pub async fn read_lots(connection: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<LotRow>> {
    sqlx::query_file_as!(LotRow, "src/api/lots.sql", ids).fetch_all(connection).await.context("could not read the lots")
}

/// Returns a time in the zone of the sale as RFC 3339, and the name of the zone. `None` if the zone is not known.
pub fn local_time(at: DateTime<Utc>, place: SalePlace<'_>) -> Option<(String, String)> {
    let zone = place.zone()?;
    Some((zone.local_time(at)?.to_rfc3339_opts(SecondsFormat::Secs, true), zone.name()))
}

impl LotRow {
    /// Moves the vehicle's columns out of the row.
    fn take_vehicle(&mut self) -> vehicles::VehicleRow {
        vehicles::VehicleRow {
            body: self.body.take(),
            fuel: self.fuel.take(),
            transmission: self.transmission.take(),
            drive: self.drive.take(),
            color: self.color.take(),
            vin: std::mem::take(&mut self.vin),
            vin_raw: self.vin_raw.take(),
            year: self.year,
            make: self.make.take(),
            model: self.model.take(),
            model_detail: self.model_detail.take(),
            trim: self.trim.take(),
            engine: self.engine.take(),
            cylinders: self.cylinders,
            carried_columns: None,
        }
    }

    /// Returns the time and type of the sale, with labels in a language.
    fn sale_response(&self, words: &TaxonomyLabels, lang: Language) -> SaleResponse {
        let place = SalePlace {
            abbreviation: self.tz.as_deref().unwrap_or_default(),
            yard: self.yard_name.as_deref().unwrap_or_default(),
            state: self.region.as_deref().unwrap_or_default(),
            country: self.country.as_deref().unwrap_or_default(),
        };
        let (local, zone) = self.auction_datetime_utc.and_then(|at| local_time(at, place)).unzip();
        let (code, raw) = (self.sale_type_code.as_deref(), self.sale_type.as_deref());
        SaleResponse {
            at: self.auction_datetime_utc,
            local,
            zone,
            kind: words.coded_value(TaxonomyDomain::SaleTypes, code, raw, lang),
            item_number: self.item_number,
            grid_row: self.grid_row.clone(),
        }
    }

    /// Converts the row to the JSON form of the lot, with labels in a language.
    pub fn into_lot(mut self, words: &TaxonomyLabels, lang: Language) -> LotResponse {
        let vehicle = self.take_vehicle().into_vehicle(words, lang);
        let sale = self.sale_response(words, lang);
        let money = |amount: Option<String>| {
            amount.map(|amount| MoneyResponse { amount, currency: self.currency_code.clone() })
        };
        let written = |domain, code: &Option<String>, raw: &Option<String>| {
            words.coded_value(domain, code.as_deref(), raw.as_deref(), lang)
        };
        let spelled = |domain, raw: &Option<String>| words.coded_from_raw(domain, raw.as_deref(), lang);
        let brand = spelled(TaxonomyDomain::OdometerBrands, &self.odometer_brand);
        let odometer = (self.odometer.is_some() || brand.is_some()).then_some(OdometerResponse {
            value: self.odometer,
            unit: self.odometer_unit,
            brand,
        });
        let carried = history::carried_columns::value_names(
            self.carried_columns.as_deref(),
            self.vehicle_carried_columns.as_deref(),
        );
        LotResponse {
            carried: carried::carried_paths(&carried),
            status: spelled(TaxonomyDomain::Statuses, &self.status),
            sale,
            title: words.title_value(self.title_type.as_deref(), self.title_state.as_deref(), lang),
            damage: written(TaxonomyDomain::DamageTypes, &self.damage_code, &self.damage_description),
            secondary_damage: written(TaxonomyDomain::DamageTypes, &self.secondary_damage_code, &self.secondary_damage),
            odometer,
            keys: written(TaxonomyDomain::HasKeys, &self.has_keys_code, &None),
            runs_drives: spelled(TaxonomyDomain::RunsDrives, &self.runs_drives),
            condition: written(TaxonomyDomain::LotConditions, &self.lot_condition_code, &None),
            vehicle_type: spelled(TaxonomyDomain::VehicleTypes, &self.vehicle_type),
            current_bid: money(self.current_bid),
            buy_it_now: money(self.buy_it_now),
            retail_value: money(self.retail_value),
            repair_cost: money(self.repair_cost),
            vehicle,
            lot: self.lot,
            source: self.source,
            title_state: self.title_state,
            yard: YardResponse {
                code: self.site_code,
                name: self.yard_name,
                city: self.city,
                state: self.region,
                country: self.country,
                zip: self.location_zip,
            },
            make_offer: self.make_offer_eligible,
            special_note: self.special_note,
            images: self.images.0,
            created_at: self.created_at,
            updated_at: self.updated_at,
            source_updated_at: self.source_updated_at,
        }
    }
}

/// Lot by its number
///
/// Returns the lot with this number as of the newest applied window. Returns 409 if several sources have a lot with the
/// number.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}", tag = "lots",
    params(super::openapi::LotParams, super::openapi::LanguageQuery),
    responses(
        (status = 200, description = "Lot", body = LotResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse, super::openapi::AmbiguousResponse
    )
)]
pub async fn show_lot(
    State(shared): State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[&[LANG_PARAM]])?;
    let lang = Language::from_request(&asked, &ask.headers);
    let mut tx = shared.begin_read().await?;
    let place = lot_path::find_lot(&mut tx, &path).await?;
    let found = read_lots(&mut tx, &[place.id]).await?;
    drop(tx);
    let row =
        found.into_iter().next().ok_or_else(|| Problem::not_found(format!("Lot {} does not exist.", place.lot)))?;
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &row.into_lot(&shared.labels(), lang)))
}

/// Lot by its source and number
///
/// Returns the lot with this number at a source, as of the newest applied window.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}", tag = "lots",
    params(super::openapi::SourceLotParams, super::openapi::LanguageQuery),
    responses(
        (status = 200, description = "Lot", body = LotResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse
    )
)]
pub async fn show_source_lot(
    state: State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    show_lot(state, path, ask).await
}
