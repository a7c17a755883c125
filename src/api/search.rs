//! Search: pages of lots that match filters, in a sort order.

use super::catalogue::{DIMENSION_COUNT, DIMENSIONS, LotCatalogue, LotFilter, SortKey, SortPosition, ValueRange};
use super::cursor::PageCursor;
use super::language::Language;
use super::lots::{self, LotResponse};
use super::params::{LANG_PARAM, ParamType, ParsedQuery, QueryParam};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::{ApiState, RequestQuery};
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

/// Default number of lots per page.
const DEFAULT_PAGE_SIZE: i64 = 50;
/// Minimum trigram similarity of a text to a make and model, from 0 to 1. A name of six letters with one missing letter
/// still matches.
const MIN_SIMILARITY: f32 = 0.4;
/// Maximum number of texts in the similarity cache.
const MAX_CACHED_TEXTS: usize = 256;

/// Filter parameters that are not a dimension: the text, the VIN and the ranges.
pub const RANGE_PARAMS: &[QueryParam] = &[
    QueryParam::optional(
        "q",
        ParamType::Text,
        "Text compared with make and model by similarity, so that misspelt and partial texts match too",
    ),
    QueryParam::optional("vin", ParamType::VinPrefix, "First characters of the VIN, in upper or lower case"),
    QueryParam::optional(
        "year_min",
        ParamType::Number(1900, 2100),
        "Minimum model year. Lots without a year are omitted",
    ),
    QueryParam::optional(
        "year_max",
        ParamType::Number(1900, 2100),
        "Maximum model year. Lots without a year are omitted",
    ),
    QueryParam::optional(
        "price_min",
        ParamType::Money,
        "Minimum high bid, in the lot's own currency. Lots without a bid are omitted",
    ),
    QueryParam::optional(
        "price_max",
        ParamType::Money,
        "Maximum high bid, in the lot's own currency. Lots without a bid are omitted",
    ),
    QueryParam::optional("sale_from", ParamType::Instant, "Earliest time of the sale. Lots without a date are omitted"),
    QueryParam::optional("sale_to", ParamType::Instant, "Latest time of the sale. Lots without a date are omitted"),
];

const FILTER_PARAMS: [QueryParam; DIMENSION_COUNT] = {
    let mut params = [LANG_PARAM; DIMENSION_COUNT];
    let mut at = 0;
    while at < DIMENSION_COUNT {
        params[at] = DIMENSIONS[at].query_param();
        at += 1;
    }
    params
};

/// Parameters that select a page of the result.
const PAGE_PARAMS: &[QueryParam] = &[
    QueryParam::optional(
        "sort",
        ParamType::OneOf(SortKey::PARAM_VALUES),
        "Sort order, descending with a minus. Default: `sale_date`. Lots without a value come last",
    ),
    QueryParam::optional("limit", ParamType::Number(1, 200), "Maximum number of lots per page. Default: 50"),
    QueryParam::optional("cursor", ParamType::Cursor, "Value of `next` from the previous page"),
];

/// OpenAPI parameters that search and facets share: filters and language.
pub struct FilterQuery;

impl IntoParams for FilterQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [&FILTER_PARAMS[..], RANGE_PARAMS, &[LANG_PARAM]].concat().iter().map(QueryParam::to_openapi).collect()
    }
}

/// OpenAPI parameters of the search.
pub struct SearchQuery;

impl IntoParams for SearchQuery {
    fn into_params(of: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut all = FilterQuery::into_params(of);
        all.extend(PAGE_PARAMS.iter().map(QueryParam::to_openapi));
        all
    }
}

/// State of the data in a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AsOfResponse {
    /// Start of the newest window of any source whose file, or the file that it repeats, was applied. Null before the
    /// first applied window
    pub window: Option<DateTime<Utc>>,
}

impl AsOfResponse {
    pub(super) fn from_catalogue(catalogue: &LotCatalogue) -> AsOfResponse {
        AsOfResponse { window: catalogue.window }
    }
}

/// A page of lots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SearchResponse {
    /// Number of lots that match all filters, on all pages
    pub total: u32,
    /// Lots of this page, in the requested order
    pub lots: Vec<LotResponse>,
    /// Value of `cursor` for the next page, or null on the last page
    pub next: Option<String>,
    /// State of the data
    pub as_of: AsOfResponse,
}

/// Parses a query of the filter parameters and the parameters in `further`.
pub(super) fn parse_query(ask: &RequestQuery, further: &[QueryParam]) -> Result<ParsedQuery, Problem> {
    ParsedQuery::parse(ask.query(), &[&FILTER_PARAMS, RANGE_PARAMS, &[LANG_PARAM], further])
}

/// Compiles the filters of a query for a catalogue.
pub(super) async fn compile_filter(
    shared: &ApiState,
    catalogue: &Arc<LotCatalogue>,
    asked: &ParsedQuery,
) -> Result<LotFilter, Problem> {
    let range = |from: Option<i64>, to: Option<i64>| ValueRange { from, to };
    let micros = |name| asked.instant(name).map(|at| at.timestamp_micros());
    let mut filter = LotFilter::from_query(asked, catalogue, &shared.labels());
    filter.year = range(asked.number("year_min"), asked.number("year_max"));
    filter.price = range(asked.cents("price_min"), asked.cents("price_max"));
    filter.sale = range(micros("sale_from"), micros("sale_to"));
    filter.vin = asked.value("vin").unwrap_or("").to_ascii_uppercase().into_bytes();
    if let Some(text) = asked.value("q") {
        filter.names = Some(shared.find_similar(catalogue, text).await?);
    }
    Ok(filter)
}

impl ApiState {
    /// Returns for each make and model of a catalogue whether it is similar to a text, by pg_trgm.
    ///
    /// There are a few thousand makes and models regardless of the number of lots, so PostgreSQL compares all of them.
    /// The result is cached until the catalogue changes.
    async fn find_similar(&self, catalogue: &Arc<LotCatalogue>, text: &str) -> Result<Vec<bool>, Problem> {
        let key = (Arc::as_ptr(catalogue) as usize, catalogue.read_at, text.to_uppercase());
        if let Some(known) = self.similarity_cache.lock().await.get(&key) {
            return Ok(known.clone());
        }
        let names: Vec<String> = catalogue.model_names().map(str::to_owned).collect();
        let mut tx = self.begin_read().await?;
        let alike = sqlx::query_scalar!(
            r#"-- api: makes and models like this
            select n as "place!"
            from unnest($1::text[]) with ordinality as t (name, n)
            where public.word_similarity($2, name) >= $3
              or public.similarity($2, name) >= $3"#,
            &names,
            key.2,
            MIN_SIMILARITY
        )
        .fetch_all(&mut *tx)
        .await
        .context("could not compare makes and models with the text")?;
        drop(tx);
        let mut allowed = vec![false; names.len()];
        for place in alike {
            if let Some(pass) = usize::try_from(place - 1).ok().and_then(|place| allowed.get_mut(place)) {
                *pass = true;
            }
        }
        let mut known = self.similarity_cache.lock().await;
        if known.len() >= MAX_CACHED_TEXTS {
            known.clear();
        }
        known.insert(key, allowed.clone());
        Ok(allowed)
    }
}

/// Returns the cursor of the page that begins after a lot.
fn cursor_after(place: SortPosition) -> PageCursor {
    PageCursor { key: place.key, tie: format!("{}.{}", place.lot, place.id) }
}

/// Returns the sort position in a cursor, or `None` if the cursor was not returned by a search.
fn parse_position(PageCursor { key, tie }: PageCursor) -> Option<SortPosition> {
    let (lot, id) = tie.split_once('.')?;
    Some(SortPosition { key, lot: lot.parse().ok()?, id: id.parse().ok()? })
}

/// Search for lots
///
/// Returns the lots that match all filters. A repeated filter matches any of its values. Each page begins after the
/// last lot of the previous page. If lots appear or disappear between two requests, unchanged lots are neither repeated
/// nor skipped.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "search", params(SearchQuery),
    responses((status = 200, description = "Page of lots", body = SearchResponse), super::openapi::ErrorResponses)
)]
pub async fn search_lots(State(shared): State<Arc<ApiState>>, ask: RequestQuery) -> Result<Response, Problem> {
    let asked = parse_query(&ask, PAGE_PARAMS)?;
    let lang = Language::from_request(&asked, &ask.headers);
    let sort = asked.value("sort").and_then(SortKey::parse).unwrap_or((SortKey::Sale, false));
    let question = asked.without_params(&["lang", "limit", "cursor"]);
    let cursor = asked.value("cursor").map(|text| PageCursor::decode(text, &question)).transpose()?;
    let mut after = match cursor {
        None => None,
        Some(cursor) => Some(
            parse_position(cursor)
                .ok_or_else(|| Problem::invalid_parameter("cursor", "is not a cursor that a page returned"))?,
        ),
    };
    let limit = usize::try_from(asked.number("limit").unwrap_or(DEFAULT_PAGE_SIZE)).unwrap_or(1);
    let catalogue = shared.catalogue();
    let filter = compile_filter(&shared, &catalogue, &asked).await?;
    let words = shared.labels();
    // A lot that was removed since the catalogue was read is omitted, and the next page does not begin after it.
    let (total, shown, more) = loop {
        let page = catalogue.find_page(&filter, sort, after, limit);
        let ids: Vec<i64> = page.lots.iter().map(|place| place.id).collect();
        let rows =
            if ids.is_empty() { Vec::new() } else { lots::read_lots(&mut *shared.begin_read().await?, &ids).await? };
        let mut rows: HashMap<i64, lots::LotRow> = rows.into_iter().map(|row| (row.id, row)).collect();
        let shown: Vec<(SortPosition, lots::LotRow)> =
            page.lots.iter().filter_map(|place| Some((*place, rows.remove(&place.id)?))).collect();
        if !shown.is_empty() || !page.more {
            break (page.total, shown, page.more);
        }
        after = page.lots.last().copied();
    };
    let next = shown.last().filter(|_| more).map(|(place, _)| cursor_after(*place).encode(&question));
    let lots = shown.into_iter().map(|(_, row)| row.into_lot(&words, lang)).collect();
    let found = SearchResponse { total, lots, next, as_of: AsOfResponse::from_catalogue(&catalogue) };
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &found))
}
