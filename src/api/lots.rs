//! The resource of a lot: one vehicle put up for sale, with its sale, its condition and its images.

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

/// Lot: one vehicle put up for sale.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Lot {
    /// Lot number at the source, 1 to 18 digits without leading zeros
    #[schema(example = "63868745", pattern = "^[1-9][0-9]{0,17}$")]
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: Option<String>,
    /// Status of the lot, a coded value derived from the feed and the time of the sale
    pub status: Option<Coded>,
    /// Vehicle that is sold
    pub vehicle: Vehicle,
    /// Time and type of the sale
    pub sale: Sale,
    /// Title type, a coded value, with the label of the state that issued the title if the state has its own
    pub title: Option<Coded>,
    /// State that issued the title, an abbreviation
    pub title_state: Option<String>,
    /// Primary damage, a coded value. Null if the feed contains none
    pub damage: Option<Coded>,
    /// Secondary damage, a coded value. Null if the feed contains none
    pub secondary_damage: Option<Coded>,
    /// Odometer reading, or null if there is neither a distance nor a brand
    pub odometer: Option<Odometer>,
    /// Presence of keys, a coded value. Null if the feed does not state it
    pub keys: Option<Coded>,
    /// Result of the yard's engine start and drive test, a coded value. Null if the feed contains none
    pub runs_drives: Option<Coded>,
    /// Lot condition stated by the auction, a coded value such as runs and drives, or not verified
    pub condition: Option<Coded>,
    /// Vehicle type at the auction, a coded value such as automobile
    pub vehicle_type: Option<Coded>,
    /// Yard at which the vehicle is stored
    pub yard: Yard,
    /// Current high bid, or null if there is no bid
    pub current_bid: Option<Money>,
    /// Buy-it-now price, or null if the lot is not offered at a fixed price
    pub buy_it_now: Option<Money>,
    /// Estimated retail value of the undamaged vehicle, or null if the feed contains none
    pub retail_value: Option<Money>,
    /// Estimated repair cost, or null if the feed contains none
    pub repair_cost: Option<Money>,
    /// True if the seller accepts offers. Null if the feed does not state it
    pub make_offer: Option<bool>,
    /// Special note of the auction, free text. Null if there is none
    pub special_note: Option<String>,
    /// Images of the vehicle. Empty if there are none
    pub images: Vec<Image>,
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
pub struct Money {
    /// Decimal amount with two digits after the point
    #[schema(example = "10674.00", pattern = r"^[0-9]+\.[0-9]{2}$")]
    pub amount: String,
    /// ISO 4217 currency code, or null if the feed names no currency
    #[schema(example = "USD")]
    pub currency: Option<String>,
}

/// Time and type of a lot's sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sale {
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
    pub kind: Option<Coded>,
    /// Item number in the order of the sale, or null if none is assigned
    pub item_number: Option<i32>,
    /// Grid and row at which the vehicle is parked in the yard
    pub grid_row: Option<String>,
}

/// Odometer reading of a vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Odometer {
    /// Distance in `unit`, or null if only the brand is known
    pub value: Option<f64>,
    /// Unit of the distance: `mi` for miles, or `km` for kilometres
    #[schema(example = "mi", pattern = "^(mi|km)$")]
    pub unit: Option<String>,
    /// Odometer brand: reliability of the reading, such as actual or exempt
    pub brand: Option<Coded>,
}

/// Yard at which a vehicle is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Yard {
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
pub struct Image {
    /// Size of the image: `thumbnail` or `listing`
    pub variant: Option<String>,
    /// URL of the image at the source
    pub url: String,
}

/// Row of a lot, its vehicle and its images, as read from the database.
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
    /// Columns of the lot whose values come from an older row of the feed.
    pub carried_columns: Option<Vec<String>>,
    /// Columns of the vehicle whose values come from an older row of the feed.
    pub vehicle_carried_columns: Option<Vec<String>>,
}

/// Returns the visible lots with these ids, unordered.
pub async fn read(connection: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<Row>> {
    sqlx::query_file_as!(Row, "src/api/lots.sql", ids)
        .fetch_all(connection)
        .await
        .context("could not read the lots")
}

/// Returns a time in the zone of the sale as RFC 3339, and the name of the zone. `None` if the zone is not known.
pub fn local(at: DateTime<Utc>, place: SalePlace<'_>) -> Option<(String, String)> {
    let zone = place.zone()?;
    Some((zone.local(at)?.to_rfc3339_opts(SecondsFormat::Secs, true), zone.name()))
}

impl Row {
    /// Moves the vehicle's columns out of the row.
    fn take_vehicle(&mut self) -> vehicles::Row {
        vehicles::Row {
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
    fn sale(&self, words: &Words, lang: Lang) -> Sale {
        let place = SalePlace {
            abbreviation: self.tz.as_deref().unwrap_or_default(),
            yard: self.yard_name.as_deref().unwrap_or_default(),
            state: self.region.as_deref().unwrap_or_default(),
            country: self.country.as_deref().unwrap_or_default(),
        };
        let (local, zone) = self.auction_datetime_utc.and_then(|at| local(at, place)).unzip();
        let (code, raw) = (self.sale_type_code.as_deref(), self.sale_type.as_deref());
        Sale {
            at: self.auction_datetime_utc,
            local,
            zone,
            kind: words.coded(Domain::SaleTypes, code, raw, lang),
            item_number: self.item_number,
            grid_row: self.grid_row.clone(),
        }
    }

    /// Converts the row to the JSON form of the lot, with labels in a language.
    pub fn shown(mut self, words: &Words, lang: Lang) -> Lot {
        let vehicle = self.take_vehicle().shown(words, lang);
        let sale = self.sale(words, lang);
        let money = |amount: Option<String>| {
            amount.map(|amount| Money { amount, currency: self.currency_code.clone() })
        };
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
            sale,
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
            vehicle,
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

/// Lot by its number
///
/// Returns the lot with this number as of the newest applied window. Returns 409 if several sources have a lot with the
/// number.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}", tag = "lots",
    params(super::openapi::Lot, super::openapi::Lang),
    responses(
        (status = 200, description = "Lot", body = Lot),
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
    let row = found
        .into_iter()
        .next()
        .ok_or_else(|| Problem::unknown(format!("Lot {} does not exist.", place.lot)))?;
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &row.shown(&shared.words(), lang)))
}

/// Lot by its source and number
///
/// Returns the lot with this number at a source, as of the newest applied window.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}", tag = "lots",
    params(super::openapi::SourceAndLot, super::openapi::Lang),
    responses(
        (status = 200, description = "Lot", body = Lot),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn lot_of_source(state: State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    lot(state, path, ask).await
}
