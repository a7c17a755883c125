//! A lot: one vehicle put up for sale, with all that is known of it.

use super::answer::{Keep, json};
use super::lang::{Coded, Lang};
use super::params::{Asked, LANG};
use super::problem::Problem;
use super::vehicles::Vehicle;
use super::words::Words;
use super::{Ask, Named, Shared};
use crate::auction::time::{Zone, zone};
use crate::taxonomy::Domain;
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, FixedOffset, Offset, SecondsFormat, TimeZone, Utc};
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
    /// The instant; null until there is a date
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
    /// Of what
    #[schema(example = "mi")]
    pub unit: &'static str,
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
}

/// The lots with these numbers, in no order.
pub async fn read(connection: &mut PgConnection, lots: &[String]) -> anyhow::Result<Vec<Row>> {
    sqlx::query_file_as!(Row, "src/api/lots.sql", lots).fetch_all(connection).await.context("read lots")
}

/// An instant by the clock of the yard, and the name of that clock.
pub fn local(
    at: DateTime<Utc>,
    tz: Option<&str>,
    state: Option<&str>,
    yard: Option<&str>,
) -> Option<(String, String)> {
    let shown = |at: DateTime<FixedOffset>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    match zone(tz?, state.unwrap_or(""), yard.unwrap_or(""))? {
        Zone::Region(region) => {
            let here = at.with_timezone(&region);
            Some((shown(here.with_timezone(&here.offset().fix())), region.name().to_owned()))
        }
        Zone::Fixed(behind) => {
            let here = FixedOffset::west_opt(behind * 3600)?;
            Some((shown(here.from_utc_datetime(&at.naive_utc())), format!("UTC-{behind:02}:00")))
        }
    }
}

impl Row {
    /// As a reader is shown it.
    pub fn shown(self, words: &Words, lang: Lang) -> Lot {
        let money = |amount: Option<String>| {
            amount.map(|amount| Money { amount, currency: self.currency_code.clone() })
        };
        let (local, zone) = self
            .auction_datetime_utc
            .and_then(|at| local(at, self.tz.as_deref(), self.region.as_deref(), self.yard_name.as_deref()))
            .unzip();
        let written = |domain, code: &Option<String>, raw: &Option<String>| {
            words.coded(domain, code.as_deref(), raw.as_deref(), lang)
        };
        let spelled = |domain, raw: &Option<String>| words.spelled(domain, raw.as_deref(), lang);
        let brand = spelled(Domain::OdometerBrands, &self.odometer_brand);
        let odometer = (self.odometer.is_some() || brand.is_some()).then_some(Odometer {
            value: self.odometer,
            unit: "mi",
            brand,
        });
        Lot {
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
            vehicle: Vehicle {
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
            },
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

/// A lot's number as it stands in the tables: 1 to 18 digits, without leading zeros.
pub fn number(text: &str) -> Result<&str, Problem> {
    let digits = text.trim_start_matches('0');
    let right = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match right && !digits.is_empty() {
        true => Ok(digits),
        false => Err(Problem::parameter("lot", "is not a lot's number: 1 to 18 digits")),
    }
}

/// A lot
///
/// By the auction's number of it, as it stands after the newest window applied.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}", tag = "lots",
    params(("lot" = String, Path, description = "the auction's number of the lot", pattern = "^0*[1-9][0-9]{0,17}$", max_length = 18), super::openapi::Lang),
    responses((status = 200, description = "the lot", body = Lot), super::openapi::Refused, super::openapi::NotThere)
)]
pub async fn lot(
    State(shared): State<Arc<Shared>>,
    Named(lot): Named,
    ask: Ask,
) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let lot = number(&lot)?;
    let mut tx = shared.read().await?;
    let found = read(&mut tx, &[lot.to_owned()]).await?;
    drop(tx);
    let row = found.into_iter().next().ok_or_else(|| Problem::unknown(format!("no lot {lot}")))?;
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &row.shown(&shared.words(), lang)))
}
