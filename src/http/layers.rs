//! Layers around every request of the HTTP endpoint: request id, access log, problem documents, panics, body limit.
//!
//! **Every response has an `x-request-id`.** The client's own id is used if it is short and printable, so that a
//! proxy's id connects both logs. Any other id is replaced, since ids are written to the log.
//!
//! **Every request is one log line**: method, path, status, duration and request id. The query is omitted, since it
//! contains the search terms of users. Successful probes and scrapes are logged at debug level only. A request whose
//! client disconnects before the response has no line.
//!
//! **Every error has a body.** An error of a layer or of the router without a problem document gets one here, and the
//! request id is added to all problem documents. `/readyz` keeps its own JSON.

use crate::api::problem::Problem;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::time::Instant;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::Instrument;

/// Largest body of a request, in bytes. No resource reads a body.
pub const MAX_BODY_BYTES: usize = 1024;
/// Longest request id accepted from a client.
const MAX_REQUEST_ID_BYTES: usize = 64;
/// Longest logged path. Longer paths are truncated.
const MAX_LOGGED_PATH_BYTES: usize = 256;
/// Paths that monitoring requests every few seconds.
const PROBE_PATHS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps all routes of a router in the layers, the fallback included.
pub fn with_layers(router: Router) -> Router {
    let nosniff = HeaderValue::from_static("nosniff");
    let layers = ServiceBuilder::new()
        .map_request(drop_unusable_request_id)
        .layer(SetRequestIdLayer::new(REQUEST_ID_HEADER, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID_HEADER))
        .layer(from_fn(log_request))
        .layer(SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, nosniff))
        .layer(CompressionLayer::new())
        .layer(from_fn(complete_problem))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(RequestBodyLimitLayer::new(MAX_BODY_BYTES));
    router.layer(layers)
}

/// Removes the client's request id unless it is one header of 1 to 64 printable ASCII characters without blanks.
fn drop_unusable_request_id(mut request: Request) -> Request {
    let mut ids = request.headers().get_all(REQUEST_ID_HEADER).iter();
    let usable = |id: &HeaderValue| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let accepted = ids.next().is_some_and(usable) && ids.next().is_none();
    if !accepted {
        request.headers_mut().remove(REQUEST_ID_HEADER);
    }
    request
}

fn request_id(request: &Request) -> String {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// Writes the access log. The span adds the request id to every line that is logged during the request.
async fn log_request(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(MAX_LOGGED_PATH_BYTES).collect();
    // At the error level, so that no filter that shows an error hides its request id.
    let span = tracing::error_span!("request", request_id = request_id(&request));
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    let duration_ms = started.elapsed().as_micros() as f64 / 1000.0;
    let (method, code) = (method.as_str(), status.as_u16());
    if PROBE_PATHS.contains(&path.as_str()) && status.is_success() {
        tracing::debug!(parent: &span, method, path, status = code, duration_ms, "request completed");
    } else {
        tracing::info!(parent: &span, method, path, status = code, duration_ms, "request completed");
    }
    response
}

/// Adds a problem document to errors without a body, and the request id to every problem document.
async fn complete_problem(request: Request, next: Next) -> Response {
    let (id, head) = (request_id(&request), request.method() == Method::HEAD);
    let mut response = next.run(request).await;
    let status = response.status();
    let own_body = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if (status.is_client_error() || status.is_server_error()) && !own_body => Problem::from_status(status),
        None => return response,
    };
    let (parts, body) = problem.with_request_id(id).into_response().into_parts();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().extend(parts.headers);
    *response.body_mut() = if head { Body::empty() } else { body };
    response
}

/// Logs a panic of a handler and returns a response with status 500.
fn panic_response(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let error = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(error, "request handler panicked");
    Problem::from_status(axum::http::StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::Value;
    use tower::Service;

    async fn send_request(request: Request) -> (Response<()>, Value) {
        let router = Router::new()
            .route("/fine", get(async || "fine"))
            .route("/panic", get(async || -> &'static str { panic!("out of cheese") }))
            .route("/bare", get(async || StatusCode::CONFLICT));
        let response = with_layers(router).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn request_id_for(sent: &[&str]) -> String {
        let mut request = Request::get("/fine");
        for id in sent {
            request = request.header("x-request-id", *id);
        }
        let (response, _) = send_request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers().get_all("x-request-id").iter().count(), 1);
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_request_id_is_kept_if_it_is_short_and_printable_and_made_otherwise() {
        assert_eq!(request_id_for(&["proxy-1:7f/3"]).await, "proxy-1:7f/3");
        let longest = "x".repeat(MAX_REQUEST_ID_BYTES);
        assert_eq!(request_id_for(&[&longest]).await, longest);
        let too_long = format!("{longest}x");
        for unusable in [&[][..], &[""], &[&too_long], &["a b"], &["a\tb"], &["é"], &["a", "b"]] {
            let made = request_id_for(unusable).await;
            assert!(uuid::Uuid::parse_str(&made).is_ok(), "{unusable:?}: {made}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_document_without_its_message() {
        let (response, problem) = send_request(Request::get("/panic").body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(problem["title"], "Internal Server Error");
        assert_eq!(problem["request_id"], response.headers()["x-request-id"].to_str().unwrap());
        assert!(!problem.to_string().contains("cheese"), "{problem}");
    }

    #[tokio::test]
    async fn an_error_without_a_body_gets_a_problem_document() {
        let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let large = Request::get("/fine").header("content-length", "1025").body(Body::empty()).unwrap();
        let posted = Request::post("/fine").body(Body::empty()).unwrap();
        for (request, status, title) in [
            (get("/nowhere"), 404, "Not Found"),
            (get("/bare"), 409, "Conflict"),
            (large, 413, "Payload Too Large"),
            (posted, 405, "Method Not Allowed"),
        ] {
            let (response, problem) = send_request(request).await;
            assert_eq!((response.status().as_u16(), &problem["title"]), (status, &title.into()));
            assert_eq!(problem["status"], status);
            assert_eq!(problem["request_id"], response.headers()["x-request-id"].to_str().unwrap());
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.ends_with('.') && detail.contains(' '), "{problem}");
        }
    }
}
