//! Windows: each source's quarter-hours with their state.

use super::answer::{Keep, json};
use super::cursor::Cursor;
use super::params::{Asked, Param, Shape};
use super::problem::Problem;
use super::{Ask, Shared};
use anyhow::Context;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

/// Default number of windows per page.
const LIMIT: i64 = 50;

/// Window states, as stored in `fleet.windows`.
const STATES: &[&str] = &[
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

const PARAMS: &[Param] = &[
    Param::many("state", Shape::OneOf(STATES), "Window state. Repeat to match any of several states"),
    Param::one("source", Shape::Text, "Source name, such as `copart`"),
    Param::one("limit", Shape::Number(1, 200), "Maximum number of windows per page. Default: 50"),
    Param::one("cursor", Shape::Cursor, "Value of `next` from the previous page"),
];

/// OpenAPI parameters of the list of windows.
pub struct Everything;

impl IntoParams for Everything {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::documented(PARAMS)
    }
}

/// Window: a source and a quarter-hour, in which at most one file is fetched from the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
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
pub struct Windows {
    /// Windows of this page, newest first
    pub windows: Vec<Window>,
    /// Value of `cursor` for the next page, or null on the last page
    pub next: Option<String>,
}

/// List of windows
///
/// Returns the windows of all sources with their states, newest first.
#[utoipa::path(
    get, path = "/api/v1/windows", tag = "windows", params(Everything),
    responses((status = 200, description = "Page of windows", body = Windows), super::openapi::Refused)
)]
pub async fn windows(State(shared): State<Arc<Shared>>, ask: Ask) -> Result<Response, Problem> {
    let asked = Asked::read(ask.query(), &[PARAMS])?;
    let question = asked.without(&["limit", "cursor"]);
    let wrong = || Problem::parameter("cursor", "is not a cursor that a page returned");
    let after = match asked.one("cursor").map(|text| Cursor::read(text, &question)).transpose()? {
        None => None,
        Some(Cursor { key, tie }) => {
            Some((key.and_then(DateTime::from_timestamp_micros).ok_or_else(wrong)?, tie))
        }
    };
    let (at, source) = after.unzip();
    let limit = asked.number("limit").unwrap_or(LIMIT);
    let states: Vec<String> = asked.all("state").map(str::to_owned).collect();
    let mut tx = shared.read().await?;
    let mut windows = sqlx::query_as!(
        Window,
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
        asked.one("source"),
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
        Cursor { key: Some(last.start.timestamp_micros()), tie: last.source.clone() }.text(&question)
    });
    Ok(json(&ask.headers, None, Keep::Asking, &Windows { windows, next }))
}
