//! A lot's past: what changed and when, and how it stood at a moment.
//!
//! The rules are those of [`crate::db::history`]; here they are given the shapes and labels of the other answers. What is
//! hidden from the other answers is hidden here.

use super::answer::{Keep, json};
use super::lang::{Coded, Lang};
use super::lots::{self, Image, Lot, Money, number};
use super::params::{Asked, LANG, Param, Shape};
use super::problem::Problem;
use super::words::Words;
use super::{Ask, Named, Shared};
use crate::db::history::told::{self, Told, Word};
use crate::db::history::{self, Presence, Standing, What};
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

const TIME: Param = Param::needed("time", Shape::Instant, "the moment: how the lot stood then");

/// Everything `at` knows.
pub struct Moment;

impl IntoParams for Moment {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::documented(&[TIME, LANG])
    }
}

/// What became of a lot.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotHistory {
    /// The auction's number of the lot
    #[schema(example = "63868745")]
    pub lot: String,
    /// Whose feed it is from
    pub source: String,
    /// What is sold
    pub vin: String,
    /// Where it is in its life
    pub status: Option<Coded>,
    /// The oldest window whose file holds it
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window known to hold it
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it stands in the newest file
    pub in_feed: bool,
    /// What changed, in the order in which it was applied: where a window came late, not that of windows
    pub events: Vec<Event>,
    /// Every lot of the vehicle, this one too, in the order in which they came
    pub listings: Vec<Listing>,
}

/// What one window's file changed of a lot.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// The window it came in
    pub window_start_utc: DateTime<Utc>,
    /// When it was applied
    pub applied_at: DateTime<Utc>,
    /// Whose values changed: the vehicle's as this lot describes it, the lot's, or the lot's status
    #[schema(inline)]
    pub what: Whose,
    /// Why, of a status
    #[schema(example = "absent_after_auction")]
    pub reason: Option<String>,
    /// Column by column
    pub changes: Vec<Change>,
}

/// Whose values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The vehicle's
    Vehicle,
    /// The lot's
    Lot,
    /// The lot's status
    Status,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// The column, as the tables name it
    #[schema(example = "current_bid_usd")]
    pub column: String,
    /// What stood; null where there was nothing
    pub before: Option<Value>,
    /// What came
    pub after: Option<Value>,
}

/// A value: coded, an amount, a text (an instant is RFC 3339 in UTC), a number, yes or no.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Value {
    /// A word of the vocabulary
    Coded(Coded),
    /// An amount
    Money(Money),
    /// A text, or an instant
    Text(String),
    /// A number
    Number(f64),
    /// Yes or no
    Truth(bool),
}

/// A lot among the others of its vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Listing {
    /// The auction's number of the lot
    pub lot: String,
    /// Where it is in its life
    pub status: Option<Coded>,
    /// The oldest window whose file holds it
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window known to hold it
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it stands in the newest file
    pub in_feed: bool,
    /// When it is or was to be sold
    pub sale_at: Option<DateTime<Utc>>,
    /// The highest bid known
    pub current_bid: Option<Value>,
    /// Miles
    pub odometer: Option<Value>,
    /// What is broken
    pub damage: Option<Coded>,
}

/// How a lot stood.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotAt {
    /// The auction's number of the lot
    pub lot: String,
    /// Whose feed it is from
    pub source: String,
    /// The moment that was asked for
    pub time: DateTime<Utc>,
    /// The newest window at or before it; null before the first
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Whether the lot was in the feed then
    #[schema(inline)]
    pub presence: Seen,
    /// The oldest window whose file holds it
    pub first_seen: Option<DateTime<Utc>>,
    /// The lot as it stood, in the shape of today's; null before it was seen. `created_at` is when it was first seen,
    /// `updated_at` a window that held what stood
    pub standing: Option<Lot>,
}

/// Whether a lot was in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// No file had held it
    NotYetSeen,
    /// The newest file held it
    InFeed,
    /// The newest complete file did not
    Gone,
}

/// A lot's history
///
/// Every change of its values and its status, each with the window it came in; and every lot of its vehicle.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/history", tag = "lots",
    params(("lot" = String, Path, description = "the auction's number of the lot", pattern = "^0*[1-9][0-9]{0,17}$", max_length = 18), super::openapi::Lang),
    responses((status = 200, description = "its history", body = LotHistory), super::openapi::Refused, super::openapi::NotThere)
)]
pub async fn lot(
    State(shared): State<Arc<Shared>>,
    Named(lot): Named,
    ask: Ask,
) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let lot = number(&lot)?;
    let words = shared.words();
    let unknown = || Problem::unknown(format!("no lot {lot}"));
    let mut tx = shared.read().await?;
    let told = history::history(&mut tx, lot, &words.spellings).await?.ok_or_else(unknown)?;
    let numbers: Vec<String> = told.listings.iter().map(|listing| listing.lot.clone()).collect();
    let open: HashSet<String> = lots::read(&mut tx, &numbers).await?.into_iter().map(|row| row.lot).collect();
    tx.commit().await?;
    if !open.contains(lot) {
        return Err(unknown());
    }
    let told = LotHistory {
        lot: told.lot,
        source: told.source,
        vin: told.vin,
        status: coded(told.status, &words, lang),
        first_seen: told.first_seen,
        last_seen: told.last_seen,
        in_feed: told.in_feed,
        events: told.events.into_iter().map(|event| Event::of(event, &words, lang)).collect(),
        listings: told
            .listings
            .into_iter()
            .filter(|listing| open.contains(&listing.lot))
            .map(|listing| Listing::of(listing, &words, lang))
            .collect(),
    };
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &told))
}

/// A lot as it stood
///
/// At a moment: what the newest file at or before it made of the lot, in whatever order the files came.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/at", tag = "lots",
    params(("lot" = String, Path, description = "the auction's number of the lot", pattern = "^0*[1-9][0-9]{0,17}$", max_length = 18), Moment),
    responses((status = 200, description = "the lot then", body = LotAt), super::openapi::Refused, super::openapi::NotThere)
)]
pub async fn at(State(shared): State<Arc<Shared>>, Named(lot): Named, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[TIME, LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let lot = number(&lot)?;
    let time = asked.instant(TIME.name).ok_or_else(|| Problem::parameter(TIME.name, "is missing"))?;
    let words = shared.words();
    let unknown = || Problem::unknown(format!("no lot {lot}"));
    let mut tx = shared.read().await?;
    let told = history::at(&mut tx, lot, time, &words.spellings).await?.ok_or_else(unknown)?;
    let open = lots::read(&mut tx, &[lot.to_owned()]).await?;
    tx.commit().await?;
    if open.is_empty() {
        return Err(unknown());
    }
    let status = told.status.and_then(|status| if let Told::Word(word) = status { word.raw } else { None });
    let (lot, source, first_seen) = (told.lot, told.source, told.first_seen);
    let standing =
        told.standing.map(|standing| row(&lot, &source, status, first_seen, standing).shown(&words, lang));
    let told = LotAt {
        time: told.time,
        window_start_utc: told.window_start_utc,
        presence: match told.presence {
            Presence::NotYetSeen => Seen::NotYetSeen,
            Presence::InFeed => Seen::InFeed,
            Presence::Gone => Seen::Gone,
        },
        first_seen,
        standing,
        lot,
        source,
    };
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &told))
}

/// A word with its label.
fn said(word: Word, words: &Words, lang: Lang) -> Option<Coded> {
    let state = word.state.as_deref();
    let title = state.and_then(|state| words.title(word.raw.as_deref(), Some(state), lang));
    title.or_else(|| words.coded(word.domain, word.code.as_deref(), word.raw.as_deref(), lang))
}

fn coded(told: Told, words: &Words, lang: Lang) -> Option<Coded> {
    if let Told::Word(word) = told { said(word, words, lang) } else { None }
}

fn value(told: Told, words: &Words, lang: Lang) -> Option<Value> {
    Some(match told {
        Told::Nothing => return None,
        Told::Word(word) => Value::Coded(said(word, words, lang)?),
        Told::Money(told::Money { amount, currency }) => Value::Money(Money { amount, currency }),
        Told::At(at) => Value::Text(at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        Told::Plain(serde_json::Value::Bool(truth)) => Value::Truth(truth),
        Told::Plain(serde_json::Value::String(text)) => Value::Text(text),
        Told::Plain(other) => other.as_f64().map_or_else(|| Value::Text(other.to_string()), Value::Number),
    })
}

impl Event {
    fn of(event: history::Event, words: &Words, lang: Lang) -> Event {
        let change = |change: history::Change| Change {
            column: change.column,
            before: value(change.before, words, lang),
            after: value(change.after, words, lang),
        };
        Event {
            window_start_utc: event.window_start_utc,
            applied_at: event.applied_at,
            what: match event.what {
                What::Vehicle => Whose::Vehicle,
                What::Lot => Whose::Lot,
                What::Status => Whose::Status,
            },
            reason: event.reason,
            changes: event.changes.into_iter().map(change).collect(),
        }
    }
}

impl Listing {
    fn of(listing: history::Listing, words: &Words, lang: Lang) -> Listing {
        Listing {
            lot: listing.lot,
            status: coded(listing.status, words, lang),
            first_seen: listing.first_seen,
            last_seen: listing.last_seen,
            in_feed: listing.in_feed,
            sale_at: listing.auction_datetime_utc,
            current_bid: value(listing.current_bid, words, lang),
            odometer: value(listing.odometer, words, lang),
            damage: coded(listing.damage, words, lang),
        }
    }
}

/// A version in the shape of a row of the tables, to be shown as those are.
fn row(
    lot: &str,
    source: &str,
    status: Option<String>,
    first_seen: Option<DateTime<Utc>>,
    s: Standing,
) -> lots::Row {
    let raw = |word: &Option<Word>| word.as_ref().and_then(|word| word.raw.clone());
    let code = |word: &Option<Word>| word.as_ref().and_then(|word| word.code.clone());
    let amount = |money: Option<told::Money>| money.map(|money| money.amount);
    let image =
        |variant: &str, url: Option<String>| url.map(|url| Image { variant: Some(variant.to_owned()), url });
    lots::Row {
        id: 0,
        lot: lot.to_owned(),
        source: Some(source.to_owned()),
        status,
        vin: s.vin.unwrap_or_default(),
        auction_datetime_utc: s.auction_datetime_utc,
        tz: s.tz,
        item_number: s.item_number,
        grid_row: s.grid_row,
        sale_type: raw(&s.sale_type),
        sale_type_code: code(&s.sale_type),
        title_type: raw(&s.title),
        title_state: s.title_state,
        damage_description: raw(&s.damage),
        damage_code: code(&s.damage),
        secondary_damage: raw(&s.secondary_damage),
        secondary_damage_code: code(&s.secondary_damage),
        odometer: s.odometer.and_then(|miles| miles.parse().ok()),
        odometer_brand: raw(&s.odometer_brand),
        has_keys_code: code(&s.keys),
        runs_drives: raw(&s.runs_drives),
        lot_condition_code: code(&s.lot_condition),
        vehicle_type: raw(&s.vehicle_type),
        site_code: s.site_code,
        yard_name: s.yard_name,
        city: s.city,
        region: s.region,
        country: s.country,
        location_zip: s.location_zip,
        currency_code: s.currency_code,
        current_bid: amount(s.current_bid),
        buy_it_now: amount(s.buy_it_now),
        retail_value: amount(s.retail_value),
        repair_cost: amount(s.repair_cost),
        make_offer_eligible: s.make_offer_eligible,
        special_note: s.special_note,
        created_at: first_seen.unwrap_or(s.held_window_utc),
        updated_at: s.held_window_utc,
        source_updated_at: s.source_updated_at,
        vin_raw: s.vin_raw,
        year: s.year,
        make: s.make,
        model: s.model,
        model_detail: s.model_detail,
        trim: s.trim,
        body: raw(&s.body),
        fuel: raw(&s.fuel),
        transmission: raw(&s.transmission),
        drive: raw(&s.drive),
        engine: s.engine,
        cylinders: s.cylinders,
        color: raw(&s.color),
        images: sqlx::types::Json(
            [image("listing", s.image_url), image("thumbnail", s.thumbnail_url)]
                .into_iter()
                .flatten()
                .collect(),
        ),
    }
}
