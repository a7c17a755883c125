//! Windows: each source's quarter-hours with their state.

use super::cursor::PageCursor;
use super::params::{ParamType, ParsedQuery, QueryParam};
use super::problem::Problem;
use super::response::{CachePolicy, json_response};
use super::{ApiState, RequestQuery};
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

/// Default number of windows per page.
const DEFAULT_PAGE_SIZE: i64 = 50;

/// Window states, as stored in `fleet.windows`.
const WINDOW_STATES: &[&str] = &[
    "due",
    "fetched",
    "unchanged",
    "ingested",
    "applied",
    "late",
    "incomplete",
    "quarantined",
    "failed",
    "missed",
    "withdrawn",
];

const WINDOW_PARAMS: &[QueryParam] = &[
    QueryParam::repeated(
        "state",
        ParamType::OneOf(WINDOW_STATES),
        "Window state. Repeat to match any of several states",
    ),
    QueryParam::optional("source", ParamType::Text, "Source name, such as `copart`"),
    QueryParam::optional("limit", ParamType::Number(1, 200), "Maximum number of windows per page. Default: 50"),
    QueryParam::optional("cursor", ParamType::Cursor, "Value of `next` from the previous page"),
];

/// OpenAPI parameters of the list of windows.
pub struct WindowsQuery;

impl IntoParams for WindowsQuery {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::document_params(WINDOW_PARAMS)
    }
}

/// Window: a source and a quarter-hour, in which at most one file is fetched from the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WindowResponse {
    /// Name of the source
    #[schema(example = "copart")]
    pub source: String,
    /// Start of the window, which lasts 15 minutes
    pub start: DateTime<Utc>,
    /// State of the window: `due`, `fetched`, `unchanged`, `ingested`, `applied`, `late`, `incomplete`, `quarantined`,
    /// `failed`, `missed` or `withdrawn`
    #[schema(example = "applied")]
    pub state: String,
    /// Number of rows in the window's file, or null if the window has no file or the rows are not counted yet
    pub rows: Option<i32>,
    /// Time of the last change of the state
    pub updated_at: DateTime<Utc>,
}

/// A page of windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WindowsResponse {
    /// Windows of this page, newest first
    pub windows: Vec<WindowResponse>,
    /// Value of `cursor` for the next page, or null on the last page
    pub next: Option<String>,
}

/// List of windows
///
/// Returns the windows of all sources with their states, newest first.
#[utoipa::path(
    get, path = "/api/v1/windows", tag = "windows", params(WindowsQuery),
    responses((status = 200, description = "Page of windows", body = WindowsResponse), super::openapi::ErrorResponses)
)]
pub async fn list_windows(State(shared): State<Arc<ApiState>>, ask: RequestQuery) -> Result<Response, Problem> {
    let asked = ParsedQuery::parse(ask.query(), &[WINDOW_PARAMS])?;
    let question = asked.without_params(&["limit", "cursor"]);
    let wrong = || Problem::invalid_parameter("cursor", "is not a cursor that a page returned");
    let after = match asked.value("cursor").map(|text| PageCursor::decode(text, &question)).transpose()? {
        None => None,
        Some(PageCursor { key, tie }) => Some((key.and_then(DateTime::from_timestamp_micros).ok_or_else(wrong)?, tie)),
    };
    let (at, source) = after.unzip();
    let limit = asked.number("limit").unwrap_or(DEFAULT_PAGE_SIZE);
    let states: Vec<String> = asked.values("state").map(str::to_owned).collect();
    let mut tx = shared.begin_read().await?;
    let mut windows = sqlx::query_as!(
        WindowResponse,
        r#"-- api: windows
        select
          w.source as "source!",
          w.window_start_utc as "start!",
          w.state as "state!",
          (select c.row_count from audit.v_ingest_count as c where c.file_id = w.file_id) as rows,
          w.updated_at as "updated_at!"
        from fleet.windows as w
        where (cardinality($1::text[]) = 0 or w.state = any ($1))
          and ($2::text is null or w.source = $2)
          and ($3::timestamptz is null or (w.window_start_utc, w.source) < ($3, $4::text))
        order by w.window_start_utc desc, w.source desc
        limit $5"#,
        &states,
        asked.value("source"),
        at,
        source,
        limit + 1
    )
    .fetch_all(&mut *tx)
    .await
    .context("could not read the windows")?;
    drop(tx);
    let most = usize::try_from(limit).unwrap_or(1);
    let more = windows.len() > most;
    windows.truncate(most);
    let next = windows.last().filter(|_| more).map(|last| {
        PageCursor { key: Some(last.start.timestamp_micros()), tie: last.source.clone() }.encode(&question)
    });
    Ok(json_response(&ask.headers, None, CachePolicy::Revalidate, &WindowsResponse { windows, next }))
}
