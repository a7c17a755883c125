//! Limits of the API: length of the address, headers, a body, concurrent requests, time.
//!
//! What is over a limit is refused before anything is read or looked up. The body limit in bytes is the endpoint's
//! (`src/http/observe.rs`). The server itself refuses what it cannot hold at all (over a hundred headers, or some 400 KB of
//! them: 431).

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

/// Bytes of path and query.
pub const ADDRESS: usize = 4096;
/// Bytes of all headers, names and values.
pub const HEADERS: usize = 16 * 1024;
/// Requests answered at the same time; those beyond are turned away.
pub const AT_ONCE: usize = 64;
/// Longest time for an answer. A statement of the database ends after ten seconds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections to the database; requests beyond wait for one.
pub const CONNECTIONS: u32 = 8;
/// How long they wait.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Puts the limits around all routes of a router. Routers that are given the same semaphore share its permits.
pub fn limited<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    permits: Arc<Semaphore>,
    timeout: Duration,
) -> Router<S> {
    let layers = ServiceBuilder::new()
        .layer(from_fn(count_request))
        .layer(from_fn(refuse_oversized))
        .layer(HandleErrorLayer::new(overloaded))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits))
        .layer(TimeoutLayer::new(timeout));
    router.layer(layers)
}

/// Returns the answer to a request that was shed, or that was not answered in time.
async fn overloaded(error: BoxError) -> Problem {
    if error.is::<tower::timeout::error::Elapsed>() {
        tracing::warn!("request timed out");
        return Problem::busy("The request took too long to answer.");
    }
    Problem::busy("The server is answering as many requests as it can at the same time.")
}

async fn refuse_oversized(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refusal(request: &Request) -> Option<Problem> {
    let address = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if address > ADDRESS {
        let detail = format!("The path and the query together are longer than {ADDRESS} bytes.");
        return Some(Problem::too_large(StatusCode::URI_TOO_LONG, detail));
    }
    if header_bytes(request.headers()) > HEADERS {
        let detail = format!("The headers together are longer than {HEADERS} bytes.");
        return Some(Problem::too_large(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
    }
    // No resource reads a body, so the limit on the bytes read would never be met.
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        let detail = "The body has no Content-Length, so its length is not known.".to_owned();
        return Some(Problem::too_large(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    (![Method::GET, Method::HEAD].contains(request.method())).then(Problem::method)
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Counts a request and measures its duration, whatever its answer is.
async fn count_request(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", |path| route(path.as_str()));
    let response = next.run(request).await;
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
        let mut router = limited(router, Arc::new(Semaphore::new(1)), Duration::from_millis(10));
        for _ in 0..2 {
            let request = Request::get("/slow").body(Body::empty()).unwrap();
            let response = router.call(request).await.unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (503, &"1".parse().unwrap())
            );
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["detail"], "The request took too long to answer.");
        }
    }
}
