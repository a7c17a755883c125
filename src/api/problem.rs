//! Problem documents (RFC 9457), the bodies of all errors.
//!
//! A problem document explains what the client can change, and nothing of how the server works. A failure of the server is
//! a status and a request id, and the cause is logged under that id. The request id is added by `src/http/observe.rs`.

use crate::db::passing::{Passing, passing};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which a client that was answered 503 may retry.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Type of the problem, the same for all problems of the type
    #[serde(rename = "type")]
    #[schema(example = "urn:vinops:problem:parameter")]
    pub kind: &'static str,
    /// Phrase of the status
    #[schema(example = "Bad Request")]
    pub title: &'static str,
    /// Status code of the answer
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Explanation of this problem in a sentence
    #[schema(example = "The parameter `limit` is not a whole number from 1 to 200.")]
    pub detail: String,
    /// Name of the parameter that is wrong
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// Sources that have a lot of this number. `/lots/{source}/{lot}` names one of them
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, example = json!(["copart", "iaai"]))]
    pub sources: Option<Box<[String]>>,
    /// Id of the request, as in the header `x-request-id` and in the server's log
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

    /// Returns the problem of a status for which nothing else is known.
    pub fn of(status: StatusCode) -> Problem {
        match status {
            StatusCode::NOT_FOUND => Problem::unknown("There is no resource at this path."),
            StatusCode::METHOD_NOT_ALLOWED => Problem::method(),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::too_large(status, "The body is longer than a request may be.".to_owned())
            }
            StatusCode::SERVICE_UNAVAILABLE => Problem::busy("The server cannot answer at the moment."),
            StatusCode::INTERNAL_SERVER_ERROR => Problem::new(
                status,
                "urn:vinops:problem:internal",
                "The server failed to answer. Its log has the cause under this request id.",
            ),
            // RFC 9457, 4.2.1: the status says all there is.
            _ => Problem::new(status, "about:blank", "The server cannot answer this request."),
        }
    }

    /// Returns the same problem with the id of its request.
    pub fn with_request_id(self, id: String) -> Problem {
        Problem { request_id: Some(id.into()), ..self }
    }

    /// Returns the problem of a parameter, of the query or of the path. The complaint goes on after the name, such as
    /// `is missing`.
    pub fn parameter(name: &str, complaint: impl AsRef<str>) -> Problem {
        let detail = format!("The parameter `{name}` {}.", complaint.as_ref());
        let new = Problem::new(StatusCode::BAD_REQUEST, "urn:vinops:problem:parameter", detail);
        Problem { parameter: Some(name.to_owned()), ..new }
    }

    /// Returns the problem of a resource that does not exist.
    pub fn unknown(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "urn:vinops:problem:unknown", detail)
    }

    /// Returns the problem of a resource that was removed.
    pub fn gone(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GONE, "urn:vinops:problem:gone", detail)
    }

    /// Returns the problem of a lot number that several sources have.
    pub fn ambiguous(lot: &str, sources: Vec<String>) -> Problem {
        let detail = format!("Several sources have lot {lot}. Request /lots/{{source}}/{lot} instead.");
        let new = Problem::new(StatusCode::CONFLICT, "urn:vinops:problem:ambiguous", detail);
        Problem { sources: Some(sources.into()), ..new }
    }

    /// Returns the problem of a method other than GET and HEAD.
    pub fn method() -> Problem {
        let detail = "Only GET and HEAD are allowed, since nothing can be written here.";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "urn:vinops:problem:method", detail)
    }

    /// Returns the problem of a request that exceeds a limit of its size.
    pub fn too_large(status: StatusCode, detail: String) -> Problem {
        Problem::new(status, "urn:vinops:problem:too-large", detail)
    }

    /// Returns the problem of an overloaded server or an unreachable database. The client may retry.
    pub fn busy(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "urn:vinops:problem:busy", detail)
    }

    /// Returns the problem of a failure of the server, whose cause is only logged.
    pub fn internal(error: &anyhow::Error) -> Problem {
        tracing::error!(error = format!("{error:#}"), "API request failed");
        Problem::of(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<anyhow::Error> for Problem {
    /// A statement that timed out and an unreachable database are transient. Any other error is a failure of the server.
    fn from(error: anyhow::Error) -> Problem {
        let code = error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
            sqlx::Error::Database(told) => told.code(),
            _ => None,
        });
        if code.as_deref() == Some("57014") {
            tracing::warn!(error = format!("{error:#}"), "API statement timed out");
            return Problem::busy("The query took too long.");
        }
        // 25006, a write in a read-only transaction, is transient for a job only.
        match passing(&error) {
            Some(Passing::Connection) if code.as_deref() != Some("25006") => {
                tracing::warn!(error = format!("{error:#}"), "API database unreachable");
                Problem::busy("The database cannot be reached.")
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
        let headers =
            [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, headers, body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        // For the layer that adds the request id.
        response.extensions_mut().insert(self);
        response
    }
}
