//! The index at `/`: links to the paths of the process, as a page for browsers and as JSON for other clients.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Paths of every process, with their descriptions.
const ENDPOINTS: [(&str, &str); 3] = [
    ("/livez", "Liveness: the process is running"),
    ("/readyz", "Readiness: the database is reachable and its schema version matches"),
    ("/metrics", "Metrics in Prometheus's text format"),
];
/// Further paths of a process that serves the API.
const API_ENDPOINTS: [(&str, &str); 2] =
    [("/api/v1/", "API documentation"), ("/api/v1/openapi.json", "OpenAPI document of the API")];

/// Returns the index in the form that `Accept` asks for.
pub(super) fn index_response(headers: &HeaderMap, has_api: bool) -> Response {
    let endpoints: Vec<(&str, &str)> = API_ENDPOINTS.into_iter().filter(|_| has_api).chain(ENDPOINTS).collect();
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, body) = if accepted.contains("text/html") {
        ("text/html; charset=utf-8", render_html(&endpoints))
    } else {
        let links: Vec<_> =
            endpoints.iter().map(|(path, description)| json!({ "path": path, "description": description })).collect();
        let index = json!({ "name": "vinops", "version": env!("CARGO_PKG_VERSION"), "endpoints": links });
        ("application/json", format!("{index}\n"))
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    ];
    (headers, body).into_response()
}

fn render_html(endpoints: &[(&str, &str)]) -> String {
    let links: String = endpoints
        .iter()
        .map(|(path, description)| format!("<li><a href=\"{path}\">{path}</a>: {description}</li>\n"))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>vinops</title>\n<h1>vinops</h1>\n\
         <ul>\n{links}</ul>\n</html>\n"
    )
}
