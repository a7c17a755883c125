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
    /// The newest window that saw it, be it in a file that was repeated or came late
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
    /// Whose feed it is from
    pub source: String,
    /// Where it is in its life
    pub status: Option<Coded>,
    /// The oldest window whose file holds it
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window that saw it, be it in a file that was repeated or came late
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it stands in the newest file
    pub in_feed: bool,
    /// When it is or was to be sold
    pub sale_at: Option<DateTime<Utc>>,
    /// The highest bid known
    pub current_bid: Option<Value>,
    /// What it has run
    pub odometer: Option<Value>,
    /// The unit of that: `mi` or `km`
    pub odometer_unit: Option<String>,
    /// What is broken
    pub damage: Option<Coded>,
    /// The fields of this object whose values come from an older row of the feed, since the newest row has values there that
    /// cannot be read; empty where there are none
    #[schema(example = json!(["sale_at"]))]
    pub carried: Vec<String>,
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
/// Every change of its values and its status, each with the window it came in; and every lot of its vehicle. The number is
/// enough while one source has it.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/history", tag = "lots",
    params(super::openapi::Lot, super::openapi::Lang),
    responses(
        (status = 200, description = "its history", body = LotHistory),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone, super::openapi::Ambiguous
    )
)]
pub async fn lot(State(shared): State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[&[LANG]])?;
    let lang = Lang::of(&asked, &ask.headers);
    let words = shared.words();
    let mut tx = shared.read().await?;
    let place = place::find(&mut tx, &path).await?;
    let unknown = || Problem::unknown(format!("no history of lot {}", place.lot));
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

/// A lot's history, of a source
///
/// By source and number: every change of its values and its status, and every lot of its vehicle.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/history", tag = "lots",
    params(super::openapi::SourceAndLot, super::openapi::Lang),
    responses(
        (status = 200, description = "its history", body = LotHistory),
        super::openapi::Refused, super::openapi::NotThere, super::openapi::Gone
    )
)]
pub async fn lot_of_source(state: State<Arc<Shared>>, path: LotPath, ask: Ask) -> Result<Response, Problem> {
    lot(state, path, ask).await
}

/// A lot as it stood
///
/// At a moment: what the newest file at or before it made of the lot, in whatever order the files came. The number is enough
/// while one source has it.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/at", tag = "lots",
    params(super::openapi::Lot, Moment),
    responses(
        (status = 200, description = "the lot then", body = LotAt),
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
    let unknown = || Problem::unknown(format!("no history of lot {}", place.lot));
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

/// A lot as it stood, of a source
///
/// By source and number, at a moment: what the newest file at or before it made of the lot.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/at", tag = "lots",
    params(super::openapi::SourceAndLot, Moment),
    responses(
        (status = 200, description = "the lot then", body = LotAt),
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
