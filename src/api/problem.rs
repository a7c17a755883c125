//! Problem documents (RFC 9457), the bodies of all errors.
//!
//! A problem document explains what the client can change and contains no internals of the server. A server failure
//! returns a status and a request id, and the cause is logged with that id. `src/http/observe.rs` adds the request id.

use crate::db::transient::{TransientError, transient_error};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Value of `Retry-After` in a 503 response, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Problem document of a failed request (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Type of the problem as a URN, or `about:blank` if only the status describes the problem
    #[serde(rename = "type")]
    #[schema(example = "urn:vinops:problem:parameter")]
    pub kind: &'static str,
    /// Reason phrase of the HTTP status
    #[schema(example = "Bad Request")]
    pub title: &'static str,
    /// HTTP status code of the response
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Explanation of this problem, one or two sentences in English
    #[schema(example = "The parameter `limit` is not a whole number from 1 to 200.")]
    pub detail: String,
    /// Name of the invalid parameter of the query or the path. Absent in other problems
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// Sources that have a lot with the requested number. `/lots/{source}/{lot}` identifies one lot. Absent in other
    /// problems
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, example = json!(["copart", "iaai"]))]
    pub sources: Option<Box<[String]>>,
    /// Id of the request, as in the header `x-request-id` and in the server's log. Absent if the server assigned no id
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, max_length = 64)]
    pub request_id: Option<Box<str>>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            kind,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
            sources: None,
            request_id: None,
        }
    }

    /// Returns the general problem of a status, for responses without a problem of their own.
    pub fn from_status(status: StatusCode) -> Problem {
        match status {
            StatusCode::NOT_FOUND => Problem::not_found("There is no resource at this path."),
            StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::too_large(status, "The body is longer than a request may be.".to_owned())
            }
            StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable("The server cannot answer at the moment."),
            StatusCode::INTERNAL_SERVER_ERROR => Problem::new(
                status,
                "urn:vinops:problem:internal",
                "The server failed to answer. The server's log contains the cause with this request id.",
            ),
            // RFC 9457, 4.2.1: `about:blank` means that the status alone describes the problem.
            _ => Problem::new(status, "about:blank", "The server cannot answer this request."),
        }
    }

    /// Returns the problem with the id of its request.
    pub fn with_request_id(self, id: String) -> Problem {
        Problem { request_id: Some(id.into()), ..self }
    }

    /// Returns the 400 problem of a parameter of the query or the path. `complaint` continues the sentence after the
    /// parameter's name, such as `is missing`.
    pub fn invalid_parameter(name: &str, complaint: impl AsRef<str>) -> Problem {
        let detail = format!("The parameter `{name}` {}.", complaint.as_ref());
        let new = Problem::new(StatusCode::BAD_REQUEST, "urn:vinops:problem:parameter", detail);
        Problem { parameter: Some(name.to_owned()), ..new }
    }

    /// Returns the 404 problem of a resource that does not exist.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "urn:vinops:problem:unknown", detail)
    }

    /// Returns the 410 problem of a resource that was removed.
    pub fn gone(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GONE, "urn:vinops:problem:gone", detail)
    }

    /// Returns the 409 problem of a lot number that several sources have.
    pub fn ambiguous(lot: &str, sources: Vec<String>) -> Problem {
        let detail = format!("Several sources have lot {lot}. Request /lots/{{source}}/{lot} instead.");
        let new = Problem::new(StatusCode::CONFLICT, "urn:vinops:problem:ambiguous", detail);
        Problem { sources: Some(sources.into()), ..new }
    }

    /// Returns the 405 problem of a method other than GET and HEAD.
    pub fn method_not_allowed() -> Problem {
        let detail = "Only GET and HEAD are allowed. The API is read-only.";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "urn:vinops:problem:method", detail)
    }

    /// Returns the problem of a request that exceeds a size limit, with status 413, 414 or 431.
    pub fn too_large(status: StatusCode, detail: String) -> Problem {
        Problem::new(status, "urn:vinops:problem:too-large", detail)
    }

    /// Returns the 503 problem of an overloaded server, a timeout or an unreachable database. The client may retry.
    pub fn unavailable(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "urn:vinops:problem:busy", detail)
    }

    /// Logs the cause of a server failure and returns the 500 problem, which does not contain the cause.
    pub fn internal(error: &anyhow::Error) -> Problem {
        tracing::error!(error = format!("{error:#}"), "API request failed");
        Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<anyhow::Error> for Problem {
    /// Converts a statement timeout and a lost connection to 503, and any other error to 500.
    fn from(error: anyhow::Error) -> Problem {
        let code = error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
            sqlx::Error::Database(error) => error.code(),
            _ => None,
        });
        if code.as_deref() == Some("57014") {
            tracing::warn!(error = format!("{error:#}"), "API statement timed out");
            return Problem::unavailable("The query took too long.");
        }
        // SQLSTATE 25006, a write in a read-only transaction, is transient for a job but not here.
        match transient_error(&error) {
            Some(TransientError::Connection) if code.as_deref() != Some("25006") => {
                tracing::warn!(error = format!("{error:#}"), "API database unreachable");
                Problem::unavailable("The database cannot be reached.")
            }
            _ => Problem::internal(&error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        anyhow::Error::new(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, headers, body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        // The layer that adds the request id reads the problem from here.
        response.extensions_mut().insert(self);
        response
    }
}
