//! JSON responses with an ETag of their content. A conditional request for unchanged content returns 304 without a
//! body.

use super::language::Language;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

/// Caching policy of a response, sent as `Cache-Control`.
#[derive(Clone, Copy, Debug)]
pub enum CachePolicy {
    /// Caches revalidate each time. For data that changes with each window.
    Revalidate,
    /// Caches may reuse the response for five minutes. For labels, which operators edit rarely.
    Short,
}

/// Returns the content as JSON with an ETag, or 304 if the request's `If-None-Match` contains that ETag.
pub fn json_response(
    request: &HeaderMap,
    lang: Option<Language>,
    keep: CachePolicy,
    content: &impl Serialize,
) -> Response {
    let body = match serde_json::to_vec(content) {
        Ok(body) => body,
        Err(error) => return super::problem::Problem::internal(&error.into()).into_response(),
    };
    // Weak, because the same content may be sent compressed or uncompressed.
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
        CachePolicy::Revalidate => "public, no-cache",
        CachePolicy::Short => "public, max-age=300",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.typed_insert(tag);
    if let Some(lang) = lang {
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(lang.name()));
        headers.append(header::VARY, HeaderValue::from_static("accept-language"));
    }
    response
}
