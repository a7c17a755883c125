//! How much of anything one reader may ask for: length of the address, headers, a body, requests at once.
//!
//! What is over is refused before anything is read or looked up. The server below refuses by itself what it can't hold at
//! all (over a hundred headers, or some 400 KB of them: 431).

use super::Shared;
use super::problem::Problem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of path and query.
pub const ADDRESS: usize = 4096;
/// Bytes of all headers, names and values.
pub const HEADERS: usize = 16 * 1024;
/// Bytes of a body, which no request needs.
pub const BODY: u64 = 1024;
/// Requests answered at the same time; those beyond are turned away.
pub const AT_ONCE: usize = 64;
/// Connections to the database; requests beyond wait for one.
pub const CONNECTIONS: u32 = 8;
/// How long they wait.
pub const PATIENCE: Duration = Duration::from_secs(2);

fn refused(request: &Request) -> Option<Problem> {
    let address = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if address > ADDRESS {
        let detail = format!("path and query are longer than {ADDRESS} bytes");
        return Some(Problem::too_large(StatusCode::URI_TOO_LONG, detail));
    }
    let headers: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > HEADERS {
        let detail = format!("the headers are longer than {HEADERS} bytes");
        return Some(Problem::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    if body(request.headers()) > BODY {
        let detail = format!("the body is longer than {BODY} bytes");
        return Some(Problem::too_large(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    // before the router, which would answer without a word
    (![Method::GET, Method::HEAD].contains(request.method())).then(Problem::method)
}

/// The length of a body as announced; of one in pieces nobody knows it.
fn body(headers: &HeaderMap) -> u64 {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return u64::MAX;
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.map_or(0, |length| length.parse().unwrap_or(u64::MAX))
}

/// Lets a request through if it is within all limits; counts it either way.
pub async fn hold(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| route(path.as_str()));
    let mut response = match (refused(&request), shared.gate.try_acquire()) {
        (Some(problem), _) => problem.into_response(),
        (None, Err(_)) => Problem::busy("too many requests at once").into_response(),
        (None, Ok(_permit)) => next.run(request).await,
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let route = route.unwrap_or("other");
    metrics::counter!("vinops_api_requests_total", "route" => route, "status" => class(response.status()))
        .increment(1);
    metrics::histogram!("vinops_api_request_duration_seconds", "route" => route).record(began.elapsed());
    response
}

/// The resource that a path of the router leads to.
fn route(path: &str) -> &'static str {
    let resource = path.trim_start_matches("/api/v1/").split('/').next().unwrap_or("");
    crate::telemetry::ROUTES.iter().find(|route| **route == resource).copied().unwrap_or("other")
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    }
}
