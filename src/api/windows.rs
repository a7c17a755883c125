//! Windows: what came in, quarter-hour by quarter-hour.

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

/// Windows of a page unless told otherwise.
const LIMIT: i64 = 50;

/// States of a window, as `fleet.windows` has them.
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
    Param::many("state", Shape::OneOf(STATES), "Window state"),
    Param::one("source", Shape::Text, "Source name"),
    Param::one("limit", Shape::Number(1, 200), "Number of windows per page, 50 by default"),
    Param::one("cursor", Shape::Cursor, "`next` of the previous page"),
];

/// Everything windows know.
pub struct Everything;

impl IntoParams for Everything {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        super::openapi::documented(PARAMS)
    }
}

/// A source and a quarter-hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
    /// Source name
    #[schema(example = "copart")]
    pub source: String,
    /// Start of the window, which lasts a quarter of an hour
    pub start: DateTime<Utc>,
    /// Window state
    #[schema(example = "applied")]
    pub state: String,
    /// Number of rows in the window's file
    pub rows: Option<i32>,
    /// Time of the last change of the state
    pub updated_at: DateTime<Utc>,
}

/// A page of windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Windows {
    /// Windows, newest first
    pub windows: Vec<Window>,
    /// Value of `cursor` for the next page, or null on the last page
    pub next: Option<String>,
}

/// Windows
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
    .context("read windows")?;
    drop(tx);
    let most = usize::try_from(limit).unwrap_or(1);
    let more = windows.len() > most;
    windows.truncate(most);
    let next = windows.last().filter(|_| more).map(|last| {
        Cursor { key: Some(last.start.timestamp_micros()), tie: last.source.clone() }.text(&question)
    });
    Ok(json(&ask.headers, None, Keep::Asking, &Windows { windows, next }))
}
