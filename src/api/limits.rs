//! Limits of API requests: URI length, header size, body size, concurrency and time.
//!
//! A request over a limit is rejected before any handler runs. `src/http/observe.rs` enforces the limit on the bytes of
//! a body. The HTTP server rejects a request with over a hundred headers or about 400 KB of headers (431) before the
//! request reaches these layers.

use super::problem::Problem;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Router};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;

/// Maximum length of path and query together, in bytes. A longer URI returns 414.
pub const MAX_URI_BYTES: usize = 4096;
/// Maximum size of all headers, names and values, in bytes. Larger headers return 431.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Maximum number of concurrent requests. Further requests return 503.
pub const MAX_CONCURRENT_REQUESTS: usize = 64;
/// Maximum time for a response. A database statement is cancelled after ten seconds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of database connections. Further requests wait for a connection.
pub const MAX_CONNECTIONS: u32 = 8;
/// Maximum time that a request waits for a database connection.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// Applies the limits to all routes of a router. Routers with the same semaphore share its permits.
pub fn enforce_limits<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    permits: Arc<Semaphore>,
    timeout: Duration,
) -> Router<S> {
    let layers = ServiceBuilder::new()
        .layer(from_fn(count_request))
        .layer(from_fn(reject_oversized))
        .layer(HandleErrorLayer::new(overload_problem))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits))
        .layer(TimeoutLayer::new(timeout));
    router.layer(layers)
}

/// Converts a shed request or an elapsed timeout to the 503 problem.
async fn overload_problem(error: BoxError) -> Problem {
    if error.is::<tower::timeout::error::Elapsed>() {
        tracing::warn!("API request timed out");
        return Problem::unavailable("The request took too long to answer.");
    }
    Problem::unavailable("The server is answering the maximum number of concurrent requests.")
}

async fn reject_oversized(request: Request, next: Next) -> Response {
    match limit_problem(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn limit_problem(request: &Request) -> Option<Problem> {
    let address = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if address > MAX_URI_BYTES {
        let detail = format!("The path and the query together are longer than {MAX_URI_BYTES} bytes.");
        return Some(Problem::too_large(StatusCode::URI_TOO_LONG, detail));
    }
    if header_bytes(request.headers()) > MAX_HEADER_BYTES {
        let detail = format!("The headers together are longer than {MAX_HEADER_BYTES} bytes.");
        return Some(Problem::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    // No resource reads a body, so the limit on the bytes read would never apply.
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        let detail = "The body has no Content-Length, so its length is not known.".to_owned();
        return Some(Problem::too_large(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    (![Method::GET, Method::HEAD].contains(request.method())).then(Problem::method_not_allowed)
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Counts a request and measures its duration, including rejected requests.
async fn count_request(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| route_label(path.as_str()));
    let response = next.run(request).await;
    metrics::counter!("vinops_api_requests_total", "route" => route, "status" => status_class(response.status()))
        .increment(1);
    metrics::histogram!("vinops_api_request_duration_seconds", "route" => route).record(began.elapsed());
    response
}

/// Returns the metric label of a route: the first segment of its path, or `other`.
fn route_label(path: &str) -> &'static str {
    let resource = path.trim_start_matches("/api/v1/").split('/').next().unwrap_or("");
    crate::telemetry::API_ROUTES.iter().find(|route| **route == resource).copied().unwrap_or("other")
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use serde_json::Value;
    use tower::Service;

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_a_503_with_retry_after() {
        let router = Router::new().route("/slow", get(async || std::future::pending::<&str>().await));
        let mut router = enforce_limits(router, Arc::new(Semaphore::new(1)), Duration::from_millis(10));
        for _ in 0..2 {
            let request = Request::get("/slow").body(Body::empty()).unwrap();
            let response = router.call(request).await.unwrap();
            assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["detail"], "The request took too long to answer.");
        }
    }
}
