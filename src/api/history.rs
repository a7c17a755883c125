//! The resources of a lot's past: its history of changes, and its values at a time.
//!
//! [`crate::db::history`] contains the rules. This module converts its results to the JSON forms and labels of the
//! other resources. Vehicles, lots and images that other resources hide are hidden here too.

use super::labels::TaxonomyLabels;
use super::language::{CodedValueResponse, Language};
use super::lot_path::{self, LotPath};
use super::lots::{LotResponse, MoneyResponse};
use super::params::{LANG_PARAM, ParamType, ParsedQuery, QueryParam};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::{ApiState, RequestQuery};
use crate::db::history::display::{self, DisplayValue, TaxonomyValue};
use crate::db::history::{self, ChangeSubject, FeedPresence};
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use snapshot_row::snapshot_row;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};
use visibility::HistoryVisibility;

mod snapshot_row;
mod visibility;

const TIME_PARAM: QueryParam =
    QueryParam::required("time", ParamType::Instant, "Time for which the lot is returned, past or present");

/// OpenAPI query parameters of a lot at a time.
pub struct LotAtQuery;

impl IntoParams for LotAtQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::document_params(&[TIME_PARAM, LANG_PARAM])
    }
}

/// History of a lot.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotHistoryResponse {
    /// Lot number at the source
    #[schema(example = "63868745")]
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: String,
    /// Normalised VIN of the lot's vehicle
    pub vin: String,
    /// Current status of the lot
    pub status: Option<CodedValueResponse>,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Start of the newest window whose file contains the lot, including repeated and late files
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot
    pub in_feed: bool,
    /// Changes in the order in which they were applied. This order differs from the order of windows if a file was
    /// ingested late
    pub events: Vec<LotEventResponse>,
    /// All lots of the vehicle including this one, oldest first
    pub listings: Vec<ListingResponse>,
}

/// Changes of one object by the file of one window.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotEventResponse {
    /// Start of the window of the file
    pub window_start_utc: DateTime<Utc>,
    /// Time at which the change was applied
    pub applied_at: DateTime<Utc>,
    /// Object that changed: the vehicle as this lot describes it, the lot, or the lot's status
    #[schema(inline)]
    pub what: ChangedObject,
    /// Reason for a change of the status, or null for other changes
    #[schema(example = "absent_after_auction")]
    pub reason: Option<String>,
    /// Changed columns with their values
    pub changes: Vec<FieldChangeResponse>,
}

/// Object whose values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangedObject {
    /// Vehicle, as this lot describes it
    Vehicle,
    /// Lot
    Lot,
    /// Status of the lot
    Status,
}

/// Change of the value of a column.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FieldChangeResponse {
    /// Column name in the database
    #[schema(example = "current_bid_usd")]
    pub column: String,
    /// Previous value, or null if there was none
    pub before: Option<ValueResponse>,
    /// New value, or null if there is none
    pub after: Option<ValueResponse>,
}

/// Value of a column: a coded value, an amount, a text (times are RFC 3339 in UTC), a number or a boolean.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ValueResponse {
    /// Coded value of a taxonomy
    Coded(CodedValueResponse),
    /// Amount in its currency
    Money(MoneyResponse),
    /// Text, or a time in RFC 3339 form
    Text(String),
    /// Number
    Number(f64),
    /// Boolean
    Truth(bool),
}

/// Summary of one lot of a vehicle.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ListingResponse {
    /// Lot number at the source
    pub lot: String,
    /// Name of the source whose feed contains the lot
    pub source: String,
    /// Current status of the lot
    pub status: Option<CodedValueResponse>,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Start of the newest window whose file contains the lot, including repeated and late files
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot
    pub in_feed: bool,
    /// Time of the sale in UTC, or null while there is no date with a known time zone
    pub sale_at: Option<DateTime<Utc>>,
    /// Current high bid, or null if there is no bid
    pub current_bid: Option<ValueResponse>,
    /// Odometer reading in `odometer_unit`
    pub odometer: Option<ValueResponse>,
    /// Unit of the odometer reading: `mi` or `km`
    pub odometer_unit: Option<String>,
    /// Primary damage, a coded value. Null if the feed contains none
    pub damage: Option<CodedValueResponse>,
    /// Fields of this object whose values come from an older row of the feed, because the newest row's values cannot be
    /// parsed. Empty if there are none
    #[schema(example = json!(["sale_at"]))]
    pub carried: Vec<String>,
}

/// Lot at a time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LotAtResponse {
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
    pub presence: PresenceResponse,
    /// Start of the oldest window whose file contains the lot
    pub first_seen: Option<DateTime<Utc>>,
    /// Lot at the time, or null if no file had contained the lot. `created_at` is the start of the window that first
    /// contained the lot, and `updated_at` is the start of a window that contained these values
    pub standing: Option<LotResponse>,
}

/// Presence of a lot in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PresenceResponse {
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
    params(super::openapi::LotParams, super::openapi::LanguageQuery),
    responses(
        (status = 200, description = "History of the lot", body = LotHistoryResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse, super::openapi::AmbiguousResponse
    )
)]
pub async fn show_history(
    State(shared): State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[&[LANG_PARAM]])?;
    let lang = Language::from_request(&asked, &ask.headers);
    let words = shared.labels();
    let mut tx = shared.begin_read().await?;
    let place = lot_path::find_lot(&mut tx, &path).await?;
    let unknown = || Problem::not_found(format!("Lot {} has no history.", place.lot));
    let source = place.source.as_deref().ok_or_else(unknown)?;
    let history = history::lot_history(&mut tx, Some(source), &place.lot, &words.aliases).await?.ok_or_else(unknown)?;
    let sight = HistoryVisibility::load(&mut tx, &history).await?;
    tx.commit().await?;
    let shown = |event: &history::LotEvent| !event.vin.as_ref().is_some_and(|vin| sight.hidden.contains(vin));
    let history = LotHistoryResponse {
        lot: history.lot,
        source: history.source,
        vin: history.vin,
        status: coded_response(history.status, &words, lang),
        first_seen: history.first_seen,
        last_seen: history.last_seen,
        in_feed: history.in_feed,
        events: history
            .events
            .into_iter()
            .filter(shown)
            .map(|event| LotEventResponse::from_history(sight.without_hidden(event), &words, lang))
            .collect(),
        listings: history
            .listings
            .into_iter()
            .filter(|listing| sight.open.contains(&(listing.source.clone(), listing.lot.clone())))
            .map(|listing| ListingResponse::from_history(listing, &words, lang))
            .collect(),
    };
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &history))
}

/// History of a lot by its source and number
///
/// Returns every change of the lot's values and status with its window, and all lots of the vehicle.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/history", tag = "lots",
    params(super::openapi::SourceLotParams, super::openapi::LanguageQuery),
    responses(
        (status = 200, description = "History of the lot", body = LotHistoryResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse
    )
)]
pub async fn show_source_history(
    state: State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    show_history(state, path, ask).await
}

/// Lot at a time by its number
///
/// Returns the lot as of the newest file at or before the time, regardless of the order in which files were ingested.
/// Returns 409 if several sources have a lot with the number.
#[utoipa::path(
    get, path = "/api/v1/lots/{lot}/at", tag = "lots",
    params(super::openapi::LotParams, LotAtQuery),
    responses(
        (status = 200, description = "Lot at the time", body = LotAtResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse, super::openapi::AmbiguousResponse
    )
)]
pub async fn show_lot_at(
    State(shared): State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[&[TIME_PARAM, LANG_PARAM]])?;
    let lang = Language::from_request(&asked, &ask.headers);
    let time =
        asked.instant(TIME_PARAM.name).ok_or_else(|| Problem::invalid_parameter(TIME_PARAM.name, "is missing"))?;
    let words = shared.labels();
    let mut tx = shared.begin_read().await?;
    let place = lot_path::find_lot(&mut tx, &path).await?;
    let unknown = || Problem::not_found(format!("Lot {} has no history.", place.lot));
    let source = place.source.as_deref().ok_or_else(unknown)?;
    let mut snapshot =
        history::lot_at(&mut tx, Some(source), &place.lot, time, &words.aliases).await?.ok_or_else(unknown)?;
    if let Some(standing) = &mut snapshot.standing {
        visibility::hide_removed(&mut tx, &place, standing).await?;
    }
    tx.commit().await?;
    let status = snapshot.status.and_then(|status| if let DisplayValue::Word(word) = status { word.raw } else { None });
    let (lot, source, first_seen) = (snapshot.lot, snapshot.source, snapshot.first_seen);
    let standing = snapshot
        .standing
        .map(|standing| snapshot_row(&lot, &source, status, first_seen, standing).into_lot(&words, lang));
    let snapshot = LotAtResponse {
        time: snapshot.time,
        window_start_utc: snapshot.window_start_utc,
        presence: match snapshot.presence {
            FeedPresence::NotYetSeen => PresenceResponse::NotYetSeen,
            FeedPresence::InFeed => PresenceResponse::InFeed,
            FeedPresence::Gone => PresenceResponse::Gone,
        },
        first_seen,
        standing,
        lot,
        source,
    };
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &snapshot))
}

/// Lot at a time by its source and number
///
/// Returns the lot as of the newest file at or before the time, regardless of the order in which files were ingested.
#[utoipa::path(
    get, path = "/api/v1/lots/{source}/{lot}/at", tag = "lots",
    params(super::openapi::SourceLotParams, LotAtQuery),
    responses(
        (status = 200, description = "Lot at the time", body = LotAtResponse),
        super::openapi::ErrorResponses, super::openapi::NotFoundResponse, super::openapi::GoneResponse
    )
)]
pub async fn show_source_lot_at(
    state: State<Arc<ApiState>>,
    path: LotPath,
    ask: RequestQuery,
) -> Result<Response, Problem> {
    show_lot_at(state, path, ask).await
}

/// Returns the coded value of a taxonomy value, with the label that its state uses for titles.
fn label_value(word: TaxonomyValue, words: &TaxonomyLabels, lang: Language) -> Option<CodedValueResponse> {
    let state = word.state.as_deref();
    let title = state.and_then(|state| words.title_value(word.raw.as_deref(), Some(state), lang));
    title.or_else(|| words.coded_value(word.domain, word.code.as_deref(), word.raw.as_deref(), lang))
}

fn coded_response(value: DisplayValue, words: &TaxonomyLabels, lang: Language) -> Option<CodedValueResponse> {
    if let DisplayValue::Word(word) = value { label_value(word, words, lang) } else { None }
}

fn value_response(value: DisplayValue, words: &TaxonomyLabels, lang: Language) -> Option<ValueResponse> {
    Some(match value {
        DisplayValue::Nothing => return None,
        DisplayValue::Word(word) => ValueResponse::Coded(label_value(word, words, lang)?),
        DisplayValue::Money(display::CurrencyAmount { amount, currency }) => {
            ValueResponse::Money(MoneyResponse { amount, currency })
        }
        DisplayValue::At(at) => ValueResponse::Text(at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        DisplayValue::Plain(serde_json::Value::Bool(truth)) => ValueResponse::Truth(truth),
        DisplayValue::Plain(serde_json::Value::String(text)) => ValueResponse::Text(text),
        DisplayValue::Plain(other) => {
            other.as_f64().map_or_else(|| ValueResponse::Text(other.to_string()), ValueResponse::Number)
        }
    })
}

impl LotEventResponse {
    fn from_history(event: history::LotEvent, words: &TaxonomyLabels, lang: Language) -> LotEventResponse {
        let change = |change: history::ColumnChange| FieldChangeResponse {
            column: change.column,
            before: value_response(change.before, words, lang),
            after: value_response(change.after, words, lang),
        };
        LotEventResponse {
            window_start_utc: event.window_start_utc,
            applied_at: event.applied_at,
            what: match event.what {
                ChangeSubject::Vehicle => ChangedObject::Vehicle,
                ChangeSubject::Lot => ChangedObject::Lot,
                ChangeSubject::Status => ChangedObject::Status,
            },
            reason: event.reason,
            changes: event.changes.into_iter().map(change).collect(),
        }
    }
}

/// Returns the name of the listing's field that contains a carried value.
fn listing_field(value: &'static str) -> &'static str {
    if value == "auction_datetime_utc" { "sale_at" } else { value }
}

impl ListingResponse {
    fn from_history(listing: history::VehicleListing, words: &TaxonomyLabels, lang: Language) -> ListingResponse {
        ListingResponse {
            lot: listing.lot,
            source: listing.source,
            status: coded_response(listing.status, words, lang),
            first_seen: listing.first_seen,
            last_seen: listing.last_seen,
            in_feed: listing.in_feed,
            sale_at: listing.auction_datetime_utc,
            current_bid: value_response(listing.current_bid, words, lang),
            odometer: value_response(listing.odometer, words, lang),
            odometer_unit: listing.odometer_unit,
            damage: coded_response(listing.damage, words, lang),
            carried: listing.carried.into_iter().map(listing_field).map(str::to_owned).collect(),
        }
    }
}
