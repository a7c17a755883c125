//! Answers: JSON with a tag of its content, so that who has it already is told so and sent nothing.

use super::lang::Lang;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
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
    // Weak, since the same content may be compressed or not.
    let tag = match format!("W/\"{:032x}\"", xxh3_128(&body)).parse::<ETag>() {
        Ok(tag) => tag,
        Err(error) => return super::problem::Problem::internal(&error.into()).into_response(),
    };
    let condition = request.typed_get::<IfNoneMatch>();
    let mut response = if condition.is_none_or(|condition| condition.precondition_passes(&tag)) {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    } else {
        StatusCode::NOT_MODIFIED.into_response()
    };
    let headers = response.headers_mut();
    let keep = match keep {
        Keep::Asking => "public, no-cache",
        Keep::Minutes => "public, max-age=300",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.typed_insert(tag);
    if let Some(lang) = lang {
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(lang.name()));
        headers.append(header::VARY, HeaderValue::from_static("accept-language"));
    }
    response
}
