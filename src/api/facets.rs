//! Facets: the number of lots that match each option of each filter, counted in memory.

use super::catalogue::{DIMENSION_COUNT, DIMENSIONS, DimensionKind, FacetCounts, LotCatalogue, MODEL_YEARS};
use super::labels::TaxonomyLabels;
use super::language::Language;
use super::params::{ParamType, QueryParam};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::search::{self, AsOfResponse};
use super::{ApiState, RequestQuery};
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

/// Default maximum number of options per facet.
const DEFAULT_OPTIONS: i64 = 100;
/// Name of the facet of model years, which are numbers and therefore no dimension.
const YEAR_FACET: &str = "year";

const FACET_NAMES: [&str; DIMENSION_COUNT + 1] = {
    let mut names = [YEAR_FACET; DIMENSION_COUNT + 1];
    let mut at = 0;
    while at < DIMENSION_COUNT {
        names[at] = DIMENSIONS[at].name;
        at += 1;
    }
    names
};

const FACET_PARAMS: &[QueryParam] = &[
    QueryParam::repeated("facet", ParamType::OneOf(&FACET_NAMES), "Facet to return. Default: all facets"),
    QueryParam::optional(
        "options",
        ParamType::Number(1, 1000),
        "Maximum number of options per facet, the most frequent first. Default: 100",
    ),
];

/// OpenAPI parameters of the facets.
pub struct FacetsQuery;

impl IntoParams for FacetsQuery {
    fn into_params(of: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut all = search::FilterQuery::into_params(of);
        all.extend(FACET_PARAMS.iter().map(QueryParam::to_openapi));
        all
    }
}

/// Counts of the requested facets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FacetsResponse {
    /// Number of lots that match all filters
    pub total: u32,
    /// Requested facets, in the order of the filters, with `year` last
    pub facets: Vec<FacetResponse>,
    /// State of the data
    pub as_of: AsOfResponse,
}

/// Options of one filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FacetResponse {
    /// Name of the filter parameter. `year` is the facet of `year_min` and `year_max`
    pub name: String,
    /// Options with at least one lot, most frequent first
    pub options: Vec<FacetOption>,
    /// Number of options, including those that are not listed
    pub total_options: usize,
}

/// Option of a filter and the number of lots it matches together with all other filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FacetOption {
    /// Value to use in the filter, or null if the raw value is not mapped to a code
    pub code: Option<String>,
    /// Label of the code in the requested language, or the raw value if there is no code
    pub label: String,
    /// Raw value as written in the feed. Absent if there is a code
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub raw: Option<String>,
    /// Number of lots with this option that match all other filters
    #[schema(minimum = 1)]
    pub count: u32,
}

impl FacetOption {
    fn from_text(text: &str, label: &str, count: u32) -> FacetOption {
        FacetOption { code: Some(text.to_owned()), label: label.to_owned(), raw: None, count }
    }
}

/// Returns the options of a dimension with their counts, unordered. All aliases of one code are one option.
fn dimension_options(
    catalogue: &LotCatalogue,
    words: &TaxonomyLabels,
    lang: Language,
    place: usize,
    counts: &[u32],
) -> Vec<FacetOption> {
    let dictionary = &catalogue.dictionaries[place];
    let used = dictionary.words.iter().zip(counts).skip(1).filter(|(_, count)| **count > 0);
    let DimensionKind::Coded(domain) = DIMENSIONS[place].kind else {
        let mut texts: HashMap<&str, FacetOption> = HashMap::new();
        for (word, count) in used {
            let text = word.raw.as_deref().or(word.name.as_deref()).unwrap_or("");
            let label = word.name.as_deref().unwrap_or(text);
            texts.entry(text).or_insert_with(|| FacetOption::from_text(text, label, 0)).count += *count;
        }
        return texts.into_values().collect();
    };
    let mut options: HashMap<Result<&str, &str>, u32> = HashMap::new();
    for (word, count) in used {
        let meaning = catalogue.code_of(words, place, word);
        let key = meaning.ok_or_else(|| word.raw.as_deref().unwrap_or(""));
        *options.entry(key).or_default() += count;
    }
    let shown = |(key, count): (Result<&str, &str>, u32)| match key {
        Ok(code) => FacetOption::from_text(code, &words.label(domain, code, lang), count),
        Err(raw) => FacetOption { code: None, label: raw.to_owned(), raw: Some(raw.to_owned()), count },
    };
    options.into_iter().map(shown).collect()
}

fn year_options(counts: &[u32]) -> Vec<FacetOption> {
    let used = MODEL_YEARS.zip(counts).filter(|(_, count)| **count > 0);
    used.map(|(year, count)| FacetOption::from_text(&year.to_string(), &year.to_string(), *count)).collect()
}

fn build_facets(
    catalogue: &LotCatalogue,
    words: &TaxonomyLabels,
    lang: Language,
    counts: &FacetCounts,
    wanted: &[&str],
    most: usize,
) -> Vec<FacetResponse> {
    let facet = |(place, name): (usize, &&str)| {
        let mut options = match counts.words.get(place) {
            Some(counts) => dimension_options(catalogue, words, lang, place, counts),
            None if *name == YEAR_FACET => year_options(&counts.years),
            None => Vec::new(),
        };
        options.sort_by(|one, other| {
            (Reverse(one.count), &one.label, &one.code).cmp(&(Reverse(other.count), &other.label, &other.code))
        });
        let total_options = options.len();
        options.truncate(most);
        FacetResponse { name: (*name).to_owned(), options, total_options }
    };
    let asked = |(_, name): &(usize, &&str)| wanted.is_empty() || wanted.contains(name);
    FACET_NAMES.iter().enumerate().filter(asked).map(facet).collect()
}

/// Facets of the search
///
/// Returns the options of each filter with the number of lots that each option matches. A facet applies all filters
/// except its own, and therefore also counts the alternatives to the selected value. Options without lots are omitted.
#[utoipa::path(
    get, path = "/api/v1/facets", tag = "search", params(FacetsQuery),
    responses((status = 200, description = "Options and their counts", body = FacetsResponse), super::openapi::ErrorResponses)
)]
pub async fn list_facets(State(shared): State<Arc<ApiState>>, ask: RequestQuery) -> Result<Response, Problem> {
    let asked = search::parse_query(&ask, FACET_PARAMS)?;
    let lang = Language::from_request(&asked, &ask.headers);
    let catalogue = shared.catalogue();
    let filter = search::compile_filter(&shared, &catalogue, &asked).await?;
    let counts = catalogue.facet_counts(&filter);
    let wanted: Vec<&str> = asked.values("facet").collect();
    let most = usize::try_from(asked.number("options").unwrap_or(DEFAULT_OPTIONS)).unwrap_or(1);
    let facets = build_facets(&catalogue, &shared.labels(), lang, &counts, &wanted, most);
    let answer = FacetsResponse { total: counts.total, facets, as_of: AsOfResponse::from_catalogue(&catalogue) };
    Ok(json_response(&ask.headers, Some(lang), CachePolicy::Revalidate, &answer))
}
