//! The resources of a lot's past: its history of changes, and its values at a time.
//!
//! [`crate::db::history`] contains the rules. This module converts its results to the JSON forms and labels of the
//! other resources. Vehicles, lots and images that other resources hide are hidden here too.

use super::answer::{Keep, json};
use super::lang::{Coded, Lang};
use super::lots::{Lot, Money};
use super::params::{Asked, LANG, Param, Shape};
use super::place::{self, LotPath};
use super::problem::Problem;
use super::words::Words;
use super::{Ask, Shared};
use crate::db::history::told::{self, Told, Word};
use crate::db::history::{self, Presence, What};
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sight::Sight;
use standing::row;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

mod sight;
mod standing;

const TIME: Param =
    Param::needed("time", Shape::Instant, "Time for which the lot is returned, past or present");

/// OpenAPI query parameters of a lot at a time.
pub struct Moment;

impl IntoParams for Moment {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::documented(&[TIME, LANG])
    }
}

/// History of a lot.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotHistory {
    /// Lot number at the source
    #[schema(example = "63868745")]
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: String,
    /// Normalised VIN of the lot's vehicle
    pub vin: String,
    /// Current status of the lot
    pub status: Option<Coded>,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Start of the newest window whose file contains the lot, including repeated and late files
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot
    pub in_feed: bool,
    /// Changes in the order in which they were applied. This order differs from the order of windows if a file was
    /// ingested late
    pub events: Vec<Event>,
    /// All lots of the vehicle including this one, oldest first
    pub listings: Vec<Listing>,
}

/// Changes of one object by the file of one window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// Start of the window of the file
    pub window_start_utc: DateTime<Utc>,
    /// Time at which the change was applied
    pub applied_at: DateTime<Utc>,
    /// Object that changed: the vehicle as this lot describes it, the lot, or the lot's status
    #[schema(inline)]
    pub what: Whose,
    /// Reason for a change of the status, or null for other changes
    #[schema(example = "absent_after_auction")]
    pub reason: Option<String>,
    /// Changed columns with their values
    pub changes: Vec<Change>,
}

/// Object whose values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Vehicle, as this lot describes it
    Vehicle,
    /// Lot
    Lot,
    /// Status of the lot
    Status,
}

/// Change of the value of a column.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// Column name in the database
    #[schema(example = "current_bid_usd")]
    pub column: String,
    /// Previous value, or null if there was none
    pub before: Option<Value>,
    /// New value, or null if there is none
    pub after: Option<Value>,
}

/// Value of a column: a coded value, an amount, a text (times are RFC 3339 in UTC), a number or a boolean.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Value {
    /// Coded value of a taxonomy
    Coded(Coded),
    /// Amount in its currency
    Money(Money),
    /// Text, or a time in RFC 3339 form
    Text(String),
    /// Number
    Number(f64),
    /// Boolean
    Truth(bool),
}

/// Summary of one lot of a vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Listing {
    /// Lot number at the source
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: String,
    /// Current status of the lot
    pub status: Option<Coded>,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Start of the newest window whose file contains the lot, including repeated and late files
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot
    pub in_feed: bool,
    /// Time of the sale in UTC, or null while there is no date with a known time zone
    pub sale_at: Option<DateTime<Utc>>,
    /// Current high bid, or null if there is no bid
    pub current_bid: Option<Value>,
    /// Odometer reading in `odometer_unit`
    pub odometer: Option<Value>,
    /// Unit of the odometer reading: `mi` or `km`
    pub odometer_unit: Option<String>,
    /// Primary damage, a coded value. Null if the feed contains none
    pub damage: Option<Coded>,
    /// Fields of this object whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["sale_at"]))]
    pub carried: Vec<String>,
}

/// Lot at a time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotAt {
    /// Lot number at the source
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: String,
    /// Requested time
    pub time: DateTime<Utc>,
    /// Start of the source's newest window at or before the time, or null before the first window
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Presence of the lot in the feed at the time
    #[schema(inline)]
    pub presence: Seen,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Lot at the time, or null if no file had contained the lot. `created_at` is the start of the window that first
    /// contained the lot, and `updated_at` is the start of a window that contained these values
    pub standing: Option<Lot>,
}

/// Presence of a lot in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// No file had contained the lot
    NotYetSeen,
    /// The newest file contained the lot
    InFeed,
    /// The newest complete file did not contain the lot. Not used for a source whose files contain only changes
    Gone,
}

/// History of a lot by its number
///
/// Returns every change of the lot's values and status with its window, and all lots of the vehicle. Returns 409 if
/// several sources have a lot with the number.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/history", tag = "lots",
    params(super::openapi::Lot, super::openapi::Lang),
    responses(
        (status = 200, description = "History of the lot", body = LotHistory),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone, super::openapi::Ambiguous
    )
)]
pub async fn lot(State(shared): State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let words = shared.words();
    let mut tx = shared.read().await?;
    let place = place::find(&mut tx, &path).await?;
    let unknown = || Problem::unknown(format!("Lot {} has no history.", place.lot));
    let source = place.source.as_deref().ok_or_else(unknown)?;
    let told =
        history::history(&mut tx, Some(source), &place.lot, &words.spellings).await?.ok_or_else(unknown)?;
    let sight = Sight::read(&mut tx, &told).await?;
    tx.commit().await?;
    let shown = |event: &history::Event| !event.vin.as_ref().is_some_and(|vin| sight.hidden.contains(vin));
    let told = LotHistory {
        lot: told.lot,
        source: told.source,
        vin: told.vin,
        status: coded(told.status, &words, lang),
        first_seen: told.first_seen,
        last_seen: told.last_seen,
        in_feed: told.in_feed,
        events: told
            .events
            .into_iter()
            .filter(shown)
            .map(|event| Event::of(sight.without_hidden(event), &words, lang))
            .collect(),
        listings: told
            .listings
            .into_iter()
            .filter(|listing| sight.open.contains(&(listing.source.clone(), listing.lot.clone())))
            .map(|listing| Listing::of(listing, &words, lang))
            .collect(),
    };
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &told))
}

/// History of a lot by its source and number
///
/// Returns every change of the lot's values and status with its window, and all lots of the vehicle.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/history", tag = "lots",
    params(super::openapi::SourceAndLot, super::openapi::Lang),
    responses(
        (status = 200, description = "History of the lot", body = LotHistory),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn lot_of_source(state: State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    lot(state, path, ask).await
}

/// Lot at a time by its number
///
/// Returns the lot as of the newest file at or before the time, regardless of the order in which files were ingested.
/// Returns 409 if several sources have a lot with the number.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/at", tag = "lots",
    params(super::openapi::Lot, Moment),
    responses(
        (status = 200, description = "Lot at the time", body = LotAt),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone, super::openapi::Ambiguous
    )
)]
pub async fn at(State(shared): State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[TIME, LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let time = asked.instant(TIME.name).ok_or_else(|| Problem::parameter(TIME.name, "is missing"))?;
    let words = shared.words();
    let mut tx = shared.read().await?;
    let place = place::find(&mut tx, &path).await?;
    let unknown = || Problem::unknown(format!("Lot {} has no history.", place.lot));
    let source = place.source.as_deref().ok_or_else(unknown)?;
    let mut told =
        history::at(&mut tx, Some(source), &place.lot, time, &words.spellings).await?.ok_or_else(unknown)?;
    if let Some(standing) = &mut told.standing {
        sight::hide(&mut tx, &place, standing).await?;
    }
    tx.commit().await?;
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

/// Lot at a time by its source and number
///
/// Returns the lot as of the newest file at or before the time, regardless of the order in which files were ingested.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/at", tag = "lots",
    params(super::openapi::SourceAndLot, Moment),
    responses(
        (status = 200, description = "Lot at the time", body = LotAt),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn at_of_source(state: State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    at(state, path, ask).await
}

/// Returns the coded value of a taxonomy value, with the label that its state uses for titles.
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

/// Returns the name of the listing's field that contains a carried value.
fn listed_name(value: &'static str) -> &'static str {
    if value == "auction_datetime_utc" { "sale_at" } else { value }
}

impl Listing {
    fn of(listing: history::Listing, words: &Words, lang: Lang) -> Listing {
        Listing {
            lot: listing.lot,
            source: listing.source,
            status: coded(listing.status, words, lang),
            first_seen: listing.first_seen,
            last_seen: listing.last_seen,
            in_feed: listing.in_feed,
            sale_at: listing.auction_datetime_utc,
            current_bid: value(listing.current_bid, words, lang),
            odometer: value(listing.odometer, words, lang),
            odometer_unit: listing.odometer_unit,
            damage: coded(listing.damage, words, lang),
            carried: listing.carried.into_iter().map(listed_name).map(str::to_owned).collect(),
        }
    }
}
