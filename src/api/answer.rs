//! Answers: JSON with a tag of its content, so that who has it already is told so and sent nothing.

use super::lang::Lang;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

/// For how long an answer may be shown without asking again.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// Asks each time whether it still holds: what changes with each window.
    Asking,
    /// Minutes: labels, which operators edit now and then.
    Minutes,
}

/// The content as JSON, or 304 where the request's `If-None-Match` names it.
pub fn json(request: &HeaderMap, lang: Option<Lang>, keep: Keep, content: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(content) {
        Ok(body) => body,
        Err(error) => return super::problem::Problem::internal(&error.into()).into_response(),
    };
    // weak, for the same content may be compressed or not
    let tag = format!("W/\"{:032x}\"", xxh3_128(&body));
    let known = names(request, &tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    };
    let headers = response.headers_mut();
    let keep = match keep {
        Keep::Asking => "public, no-cache",
        Keep::Minutes => "public, max-age=300",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(lang) = lang {
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(lang.name()));
        headers.append(header::VARY, HeaderValue::from_static("accept-language"));
    }
    response
}

/// Whether `If-None-Match` names the tag; strength makes no difference to it (RFC 9110, 13.1.2).
fn names(request: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}
