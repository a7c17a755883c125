//! A lot: one vehicle put up for sale, with all that is known of it.

use super::answer::{Keep, json};
use super::carried;
use super::lang::{Coded, Lang};
use super::params::{Asked, LANG};
use super::place::{self, LotPath};
use super::problem::Problem;
use super::vehicles::{self, Vehicle};
use super::words::Words;
use super::{Ask, Shared};
use crate::auction::zone::SalePlace;
use crate::db::history;
use crate::taxonomy::Domain;
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;
use std::sync::Arc;
use utoipa::ToSchema;

/// One vehicle put up for sale.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Lot {
    /// The auction's number of the lot
    #[schema(example = "63868745", pattern = "^[1-9][0-9]{0,17}$")]
    pub lot: String,
    /// Whose feed it is from
    pub source: Option<String>,
    /// Where it is in its life
    pub status: Option<Coded>,
    /// What is sold
    pub vehicle: Vehicle,
    /// When and how
    pub sale: Sale,
    /// The vehicle's papers
    pub title: Option<Coded>,
    /// The state that issued them
    pub title_state: Option<String>,
    /// What is broken
    pub damage: Option<Coded>,
    /// What else is
    pub secondary_damage: Option<Coded>,
    /// What it has run
    pub odometer: Option<Odometer>,
    /// Whether there are keys
    pub keys: Option<Coded>,
    /// What was tried at the yard
    pub runs_drives: Option<Coded>,
    /// The auction's one-letter condition
    pub condition: Option<Coded>,
    /// The auction's class of vehicle
    pub vehicle_type: Option<Coded>,
    /// Where it stands
    pub yard: Yard,
    /// The highest bid so far
    pub current_bid: Option<Money>,
    /// The price at which it is sold at once
    pub buy_it_now: Option<Money>,
    /// What it would be worth undamaged
    pub retail_value: Option<Money>,
    /// What mending it would cost
    pub repair_cost: Option<Money>,
    /// Whether offers are taken
    pub make_offer: Option<bool>,
    /// The auction's remark
    pub special_note: Option<String>,
    /// Its pictures
    pub images: Vec<Image>,
    /// When it was first seen
    pub created_at: DateTime<Utc>,
    /// When it last changed here
    pub updated_at: DateTime<Utc>,
    /// When the source last changed it
    pub source_updated_at: Option<DateTime<Utc>>,
    /// The fields, by their path in this object, whose values come from an older row of the feed, since the newest row has
    /// values there that cannot be read; empty where there are none
    #[schema(example = json!(["odometer", "sale.at"]))]
    pub carried: Vec<String>,
}

/// An amount in its own currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Money {
    /// Decimal, with two digits after the point
    #[schema(example = "10674.00", pattern = r"^[0-9]+\.[0-9]{2}$")]
    pub amount: String,
    /// ISO 4217; null where the feed names none
    #[schema(example = "USD")]
    pub currency: Option<String>,
}

/// When and how a lot is sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sale {
    /// The instant; null until there is a date whose time zone is known
    pub at: Option<DateTime<Utc>>,
    /// The same by the yard's clock
    #[schema(example = "2026-03-16T12:00:00-07:00", format = DateTime)]
    pub local: Option<String>,
    /// The yard's time zone
    #[schema(example = "America/Los_Angeles")]
    pub zone: Option<String>,
    /// How it is sold
    #[serde(rename = "type")]
    pub kind: Option<Coded>,
    /// Its place in the sale
    pub item_number: Option<i32>,
    /// Where it stands on the yard
    pub grid_row: Option<String>,
}

/// What a vehicle has run.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Odometer {
    /// How much
    pub value: Option<f64>,
    /// The unit of the value: miles, or kilometres where the lot is in Canada
    #[schema(example = "mi", pattern = "^(mi|km)$")]
    pub unit: Option<String>,
    /// How far that is to be believed
    pub brand: Option<Coded>,
}

/// Where a lot stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Yard {
    /// The yard's number
    pub code: Option<String>,
    /// Its name
    pub name: Option<String>,
    /// City
    pub city: Option<String>,
    /// State or province
    pub state: Option<String>,
    /// Country
    #[schema(example = "USA")]
    pub country: Option<String>,
    /// Postal code
    pub zip: Option<String>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Which form of it: thumbnail or listing
    pub variant: Option<String>,
    /// Where it is
    pub url: String,
}

/// As it stands in the tables.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are the columns'")]
pub struct Row {
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
    pub images: Json<Vec<Image>>,
    /// The lot's columns that come from an older row.
    pub carried_columns: Option<Vec<String>>,
    /// The vehicle's columns that do.
    pub vehicle_carried_columns: Option<Vec<String>>,
}

/// Returns the lots with these ids that are in sight, in no order.
pub async fn read(connection: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<Row>> {
    sqlx::query_file_as!(Row, "src/api/lots.sql", ids).fetch_all(connection).await.context("read lots")
}

/// Returns an instant by the clock of the sale, and the name of its zone.
pub fn local(at: DateTime<Utc>, place: SalePlace<'_>) -> Option<(String, String)> {
    let zone = place.zone()?;
    Some((zone.local(at)?.to_rfc3339_opts(SecondsFormat::Secs, true), zone.name()))
}

impl Row {
    /// As a reader is shown it.
    pub fn shown(self, words: &Words, lang: Lang) -> Lot {
        let money = |amount: Option<String>| {
            amount.map(|amount| Money { amount, currency: self.currency_code.clone() })
        };
        let place = SalePlace {
            abbreviation: self.tz.as_deref().unwrap_or_default(),
            yard: self.yard_name.as_deref().unwrap_or_default(),
            state: self.region.as_deref().unwrap_or_default(),
            country: self.country.as_deref().unwrap_or_default(),
        };
        let (local, zone) = self.auction_datetime_utc.and_then(|at| local(at, place)).unzip();
        let written = |domain, code: &Option<String>, raw: &Option<String>| {
            words.coded(domain, code.as_deref(), raw.as_deref(), lang)
        };
        let spelled = |domain, raw: &Option<String>| words.spelled(domain, raw.as_deref(), lang);
        let brand = spelled(Domain::OdometerBrands, &self.odometer_brand);
        let odometer = (self.odometer.is_some() || brand.is_some()).then_some(Odometer {
            value: self.odometer,
            unit: self.odometer_unit,
            brand,
        });
        let carried = history::carried::values(
            self.carried_columns.as_deref(),
            self.vehicle_carried_columns.as_deref(),
        );
        Lot {
            carried: carried::paths(&carried),
            status: spelled(Domain::Statuses, &self.status),
            sale: Sale {
                at: self.auction_datetime_utc,
                local,
                zone,
                kind: written(Domain::SaleTypes, &self.sale_type_code, &self.sale_type),
                item_number: self.item_number,
                grid_row: self.grid_row,
            },
            title: words.title(self.title_type.as_deref(), self.title_state.as_deref(), lang),
            damage: written(Domain::DamageTypes, &self.damage_code, &self.damage_description),
            secondary_damage: written(
                Domain::DamageTypes,
                &self.secondary_damage_code,
                &self.secondary_damage,
            ),
            odometer,
            keys: written(Domain::HasKeys, &self.has_keys_code, &None),
            runs_drives: spelled(Domain::RunsDrives, &self.runs_drives),
            condition: written(Domain::LotConditions, &self.lot_condition_code, &None),
            vehicle_type: spelled(Domain::VehicleTypes, &self.vehicle_type),
            current_bid: money(self.current_bid),
            buy_it_now: money(self.buy_it_now),
            retail_value: money(self.retail_value),
            repair_cost: money(self.repair_cost),
            vehicle: vehicles::Row {
                body: self.body,
                fuel: self.fuel,
                transmission: self.transmission,
                drive: self.drive,
                color: self.color,
                vin: self.vin,
                vin_raw: self.vin_raw,
                year: self.year,
                make: self.make,
                model: self.model,
                model_detail: self.model_detail,
                trim: self.trim,
                engine: self.engine,
                cylinders: self.cylinders,
                carried_columns: None,
            }
            .shown(words, lang),
            lot: self.lot,
            source: self.source,
            title_state: self.title_state,
            yard: Yard {
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

/// A lot
///
/// By its number, as it stands after the newest window applied. The number is enough while one source has it.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}", tag = "lots",
    params(super::openapi::Lot, super::openapi::Lang),
    responses(
        (status = 200, description = "the lot", body = Lot),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone, super::openapi::Ambiguous
    )
)]
pub async fn lot(State(shared): State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let mut tx = shared.read().await?;
    let place = place::find(&mut tx, &path).await?;
    let found = read(&mut tx, &[place.id]).await?;
    drop(tx);
    let row = found.into_iter().next().ok_or_else(|| Problem::unknown(format!("no lot {}", place.lot)))?;
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &row.shown(&shared.words(), lang)))
}

/// A lot of a source
///
/// By its source and number, as it stands after the newest window applied.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}", tag = "lots",
    params(super::openapi::SourceAndLot, super::openapi::Lang),
    responses(
        (status = 200, description = "the lot", body = Lot),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn lot_of_source(state: State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    lot(state, path, ask).await
}
