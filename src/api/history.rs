//! A lot's past: what changed and when, and how it stood at a moment.
//!
//! The rules are those of [`crate::db::history`]; here they are given the shapes and labels of the other answers. What is
//! hidden from the other answers is hidden here.

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

const TIME: Param = Param::needed("time", Shape::Instant, "Time for which the lot is returned");

/// Everything `at` knows.
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
    /// Source whose feed contains the lot
    pub source: String,
    /// VIN of the lot's vehicle
    pub vin: String,
    /// Status of the lot
    pub status: Option<Coded>,
    /// Oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Newest window that contained the lot, in a repeated or late file too
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether the newest file contains the lot
    pub in_feed: bool,
    /// Changes in the order in which they were applied, which differs from the order of windows where a file came late
    pub events: Vec<Event>,
    /// All lots of the vehicle including this one, oldest first
    pub listings: Vec<Listing>,
}

/// Changes of a lot by the file of one window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// Window of the file
    pub window_start_utc: DateTime<Utc>,
    /// Time at which the change was applied
    pub applied_at: DateTime<Utc>,
    /// Object that changed: the vehicle as this lot describes it, the lot, or the lot's status
    #[schema(inline)]
    pub what: Whose,
    /// Reason for a change of the status
    #[schema(example = "absent_after_auction")]
    pub reason: Option<String>,
    /// Changed columns
    pub changes: Vec<Change>,
}

/// Object whose values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Vehicle
    Vehicle,
    /// Lot
    Lot,
    /// Status of the lot
    Status,
}

/// Change of a column.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// Column name in the database
    #[schema(example = "current_bid_usd")]
    pub column: String,
    /// Previous value, or null if there was none
    pub before: Option<Value>,
    /// New value
    pub after: Option<Value>,
}

/// Value: coded, an amount, a text (times are RFC 3339 in UTC), a number or a boolean.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Value {
    /// Coded value of a taxonomy
    Coded(Coded),
    /// Amount in its currency
    Money(Money),
    /// Text or time
    Text(String),
    /// Number
    Number(f64),
    /// Boolean
    Truth(bool),
}

/// A lot among the others of its vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Listing {
    /// Lot number at the source
    pub lot: String,
    /// Source whose feed contains the lot
    pub source: String,
    /// Status of the lot
    pub status: Option<Coded>,
    /// Oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Newest window that contained the lot, in a repeated or late file too
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether the newest file contains the lot
    pub in_feed: bool,
    /// Time of the sale
    pub sale_at: Option<DateTime<Utc>>,
    /// Current high bid
    pub current_bid: Option<Value>,
    /// Odometer reading
    pub odometer: Option<Value>,
    /// Unit of the odometer reading: `mi` or `km`
    pub odometer_unit: Option<String>,
    /// Primary damage
    pub damage: Option<Coded>,
    /// Fields of this object whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["sale_at"]))]
    pub carried: Vec<String>,
}

/// Lot at a time in the past.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotAt {
    /// Lot number at the source
    pub lot: String,
    /// Source whose feed contains the lot
    pub source: String,
    /// Requested time
    pub time: DateTime<Utc>,
    /// Newest window at or before the time, or null before the first window
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Presence of the lot in the feed at the time
    #[schema(inline)]
    pub presence: Seen,
    /// Oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Lot at the time, or null if no file had contained it. `created_at` is the window that first contained it,
    /// `updated_at` a window that contained these values
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
    /// The newest complete file did not contain the lot
    Gone,
}

/// A lot's history
///
/// Returns every change of the lot's values and status with its window, and all lots of the vehicle. The path without a
/// source works while one source has the lot number.
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

/// History of a lot of a source
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

/// A lot at a time
///
/// Returns the lot as of the newest file at or before the time, whatever the order in which files were ingested. The path
/// without a source works while one source has the lot number.
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

/// A lot of a source at a time
///
/// Returns the lot as of the newest file at or before the time.
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

/// Returns the field of a listing that shows this value.
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
