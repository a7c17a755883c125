//! Search: pages of lots that match filters, in a sort order.

use super::answer::{Keep, json};
use super::catalogue::{COUNT, Catalogue, DIMENSIONS, Filter, Place, Range, Sort};
use super::cursor::Cursor;
use super::lang::Lang;
use super::lots::{self, Lot};
use super::params::{Asked, LANG, Param, Shape};
use super::problem::Problem;
use super::{Ask, Shared};
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
const LIMIT: i64 = 50;
/// Minimum trigram similarity of a text to a make and model, from 0 to 1. A name of six letters with one missing letter
/// still matches.
const ALIKE: f32 = 0.4;
/// Maximum number of texts in the similarity cache.
const REMEMBERED: usize = 256;

/// Filter parameters that are not a dimension: the text, the VIN and the ranges.
pub const RANGES: &[Param] = &[
    Param::one(
        "q",
        Shape::Text,
        "Text compared with make and model by similarity, so that misspelt and partial texts match too",
    ),
    Param::one("vin", Shape::VinPrefix, "First characters of the VIN, in upper or lower case"),
    Param::one("year_min", Shape::Number(1900, 2100), "Minimum model year. Lots without a year are omitted"),
    Param::one("year_max", Shape::Number(1900, 2100), "Maximum model year. Lots without a year are omitted"),
    Param::one(
        "price_min",
        Shape::Money,
        "Minimum high bid, in the lot's own currency. Lots without a bid are omitted",
    ),
    Param::one(
        "price_max",
        Shape::Money,
        "Maximum high bid, in the lot's own currency. Lots without a bid are omitted",
    ),
    Param::one("sale_from", Shape::Instant, "Earliest time of the sale. Lots without a date are omitted"),
    Param::one("sale_to", Shape::Instant, "Latest time of the sale. Lots without a date are omitted"),
];

const FILTERS: [Param; COUNT] = {
    let mut params = [LANG; COUNT];
    let mut at = 0;
    while at < COUNT {
        params[at] = DIMENSIONS[at].param();
        at += 1;
    }
    params
};

/// Parameters that select a page of the result.
const PAGE: &[Param] = &[
    Param::one(
        "sort",
        Shape::OneOf(Sort::NAMES),
        "Sort order, descending with a minus. Default: `sale_date`. Lots without a value come last",
    ),
    Param::one("limit", Shape::Number(1, 200), "Maximum number of lots per page. Default: 50"),
    Param::one("cursor", Shape::Cursor, "Value of `next` from the previous page"),
];

/// OpenAPI parameters that search and facets share: filters and language.
pub struct Filters;

impl IntoParams for Filters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        [&FILTERS[..], RANGES, &[LANG]].concat().iter().map(Param::document).collect()
    }
}

/// OpenAPI parameters of the search.
pub struct Everything;

impl IntoParams for Everything {
    fn into_params(of: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut all = Filters::into_params(of);
        all.extend(PAGE.iter().map(Param::document));
        all
    }
}

/// State of the data in a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AsOf {
    /// Start of the newest window of any source whose file, or the file that it repeats, was applied. Null before the
    /// first applied window
    pub window: Option<DateTime<Utc>>,
}

impl AsOf {
    pub(super) fn of(catalogue: &Catalogue) -> AsOf {
        AsOf { window: catalogue.window }
    }
}

/// A page of lots.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Found {
    /// Number of lots that match all filters, on all pages
    pub total: u32,
    /// Lots of this page, in the requested order
    pub lots: Vec<Lot>,
    /// Value of `cursor` for the next page, or null on the last page
    pub next: Option<String>,
    /// State of the data
    pub as_of: AsOf,
}

/// Parses a query of the filter parameters and the parameters in `besides`.
pub(super) fn read(ask: &Ask, besides: &[Param]) -> Result<Asked, Problem> {
    Asked::read(ask.query(), &[&FILTERS, RANGES, &[LANG], besides])
}

/// Compiles the filters of a query for a catalogue.
pub(super) async fn filter(
    shared: &Shared,
    catalogue: &Arc<Catalogue>,
    asked: &Asked,
) -> Result<Filter, Problem> {
    let range = |from: Option<i64>, to: Option<i64>| Range { from, to };
    let micros = |name| asked.instant(name).map(|at| at.timestamp_micros());
    let mut filter = Filter::of(asked, catalogue, &shared.words());
    filter.year = range(asked.number("year_min"), asked.number("year_max"));
    filter.price = range(asked.cents("price_min"), asked.cents("price_max"));
    filter.sale = range(micros("sale_from"), micros("sale_to"));
    filter.vin = asked.one("vin").unwrap_or("").to_ascii_uppercase().into_bytes();
    if let Some(text) = asked.one("q") {
        filter.names = Some(shared.alike(catalogue, text).await?);
    }
    Ok(filter)
}

impl Shared {
    /// Returns for each make and model of a catalogue whether it is similar to a text, by pg_trgm.
    ///
    /// There are a few thousand makes and models regardless of the number of lots, so PostgreSQL compares all of them.
    /// The result is cached until the catalogue changes.
    async fn alike(&self, catalogue: &Arc<Catalogue>, text: &str) -> Result<Vec<bool>, Problem> {
        let key = (Arc::as_ptr(catalogue) as usize, catalogue.read_at, text.to_uppercase());
        if let Some(known) = self.alike.lock().await.get(&key) {
            return Ok(known.clone());
        }
        let names: Vec<String> = catalogue.names().map(str::to_owned).collect();
        let mut tx = self.read().await?;
        let alike = sqlx::query_scalar!(
            r#"-- api: makes and models like this
            select n as "place!"
            from unnest($1::text[]) with ordinality as t (name, n)
            where public.word_similarity($2, name) >= $3
              or public.similarity($2, name) >= $3"#,
            &names,
            key.2,
            ALIKE
        )
        .fetch_all(&mut *tx)
        .await
        .context("could not compare makes and models with the text")?;
        drop(tx);
        let mut passing = vec![false; names.len()];
        for place in alike {
            if let Some(pass) = usize::try_from(place - 1).ok().and_then(|place| passing.get_mut(place)) {
                *pass = true;
            }
        }
        let mut known = self.alike.lock().await;
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, passing.clone());
        Ok(passing)
    }
}

/// Returns the cursor of the page that begins after a lot.
fn cursor_at(place: Place) -> Cursor {
    Cursor { key: place.key, tie: format!("{}.{}", place.lot, place.id) }
}

/// Returns the sort position in a cursor, or `None` if the cursor was not returned by a search.
fn place(Cursor { key, tie }: Cursor) -> Option<Place> {
    let (lot, id) = tie.split_once('.')?;
    Some(Place { key, lot: lot.parse().ok()?, id: id.parse().ok()? })
}

/// Search for lots
///
/// Returns the lots that match all filters. A repeated filter matches any of its values. Each page begins after the
/// last lot of the previous page. If lots appear or disappear between two requests, unchanged lots are neither repeated
/// nor skipped.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "search", params(Everything),
    responses((status = 200, description = "Page of lots", body = Found), super::openapi::Refused)
)]
pub async fn search(State(shared): State<Arc<Shared>>, ask: Ask) -> Result<Response, Problem> {
    let asked = read(&ask, PAGE)?;
    let lang = Lang::of(&asked, &ask.headers);
    let sort = asked.one("sort").and_then(Sort::named).unwrap_or((Sort::Sale, false));
    let question = asked.without(&["lang", "limit", "cursor"]);
    let cursor = asked.one("cursor").map(|text| Cursor::read(text, &question)).transpose()?;
    let mut after = match cursor {
        None => None,
        Some(cursor) => Some(
            place(cursor)
                .ok_or_else(|| Problem::parameter("cursor", "is not a cursor that a page returned"))?,
        ),
    };
    let limit = usize::try_from(asked.number("limit").unwrap_or(LIMIT)).unwrap_or(1);
    let catalogue = shared.catalogue();
    let filter = filter(&shared, &catalogue, &asked).await?;
    let words = shared.words();
    // A lot that was removed since the catalogue was read is omitted, and the next page does not begin after it.
    let (total, shown, more) = loop {
        let page = catalogue.page(&filter, sort, after, limit);
        let ids: Vec<i64> = page.lots.iter().map(|place| place.id).collect();
        let rows =
            if ids.is_empty() { Vec::new() } else { lots::read(&mut *shared.read().await?, &ids).await? };
        let mut rows: HashMap<i64, lots::Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        let shown: Vec<(Place, lots::Row)> =
            page.lots.iter().filter_map(|place| Some((*place, rows.remove(&place.id)?))).collect();
        if !shown.is_empty() || !page.more {
            break (page.total, shown, page.more);
        }
        after = page.lots.last().copied();
    };
    let next = shown.last().filter(|_| more).map(|(place, _)| cursor_at(*place).text(&question));
    let lots = shown.into_iter().map(|(_, row)| row.shown(&words, lang)).collect();
    let found = Found { total, lots, next, as_of: AsOf::of(&catalogue) };
    Ok(json(&ask.headers, Some(lang), Keep::Asking, &found))
}
