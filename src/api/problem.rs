//! What a reader is told when there is no answer: problem documents (RFC 9457).
//!
//! They say what the reader can mend and nothing of what lies behind: a failure of ours is a status and a request id, its
//! cause is in the log under that id.

use crate::db::passing::{Passing, passing};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Seconds after which somebody who was turned away may come again.
const AGAIN: u32 = 1;

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is; the same for all problems of the kind
    #[serde(rename = "type")]
    #[schema(example = "urn:vinops:problem:parameter")]
    pub kind: &'static str,
    /// The kind in words
    pub title: &'static str,
    /// The status of the answer
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong this time
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
    /// The parameter that is wrong
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// The sources that have a lot of this number; `/lots/{source}/{lot}` names one of them
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, example = json!(["copart", "iaai"]))]
    pub sources: Option<Box<[String]>>,
    /// By which the log names what happened
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub request_id: Option<Uuid>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: Option<String>) -> Problem {
        Problem {
            kind,
            title,
            status: status.as_u16(),
            detail,
            parameter: None,
            sources: None,
            request_id: None,
        }
    }

    /// A parameter, of the query or of the path, that cannot be taken as it is.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Problem {
        let new = Problem::new(
            StatusCode::BAD_REQUEST,
            "urn:vinops:problem:parameter",
            "a parameter is wrong",
            Some(detail.into()),
        );
        Problem { parameter: Some(name.to_owned()), ..new }
    }

    /// There is none of this.
    pub fn unknown(what: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "urn:vinops:problem:unknown",
            "there is no such thing",
            Some(what.into()),
        )
    }

    /// Returns the problem of a resource that was taken out of sight.
    pub fn gone(what: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GONE, "urn:vinops:problem:gone", "this was removed", Some(what.into()))
    }

    /// Returns the problem of a lot number that several sources have.
    pub fn ambiguous(lot: &str, sources: Vec<String>) -> Problem {
        let detail = format!("several sources have lot {lot}; ask for /lots/{{source}}/{lot}");
        let new = Problem::new(
            StatusCode::CONFLICT,
            "urn:vinops:problem:ambiguous",
            "the lot number is ambiguous",
            Some(detail),
        );
        Problem { sources: Some(sources.into()), ..new }
    }

    /// Only GET and HEAD are understood.
    pub fn method() -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:vinops:problem:method",
            "this interface is read only",
            None,
        )
    }

    /// The request is greater than it may be.
    pub fn too_large(status: StatusCode, detail: String) -> Problem {
        Problem::new(status, "urn:vinops:problem:too-large", "the request is too large", Some(detail))
    }

    /// Too many at once, or a database that does not answer: the reader may come again.
    pub fn busy(detail: &str) -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:vinops:problem:busy",
            "no answer at this moment",
            Some(detail.to_owned()),
        )
    }

    /// Something of ours failed; the cause goes to the log.
    pub fn internal(error: &anyhow::Error) -> Problem {
        let id = Uuid::new_v4();
        tracing::error!(request_id = %id, error = format!("{error:#}"), "an answer of the API failed");
        let new = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "urn:vinops:problem:internal",
            "this is our fault",
            None,
        );
        Problem { request_id: Some(id), ..new }
    }
}

impl From<anyhow::Error> for Problem {
    /// A statement that took too long and a database that is away pass by; all else is our fault.
    fn from(error: anyhow::Error) -> Problem {
        let code = error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
            sqlx::Error::Database(told) => told.code(),
            _ => None,
        });
        if code.as_deref() == Some("57014") {
            tracing::warn!(error = format!("{error:#}"), "a statement of the API was cut off");
            return Problem::busy("the answer took too long to find");
        }
        // who can't write and tries to is wrong, whatever it may mean to a job
        match passing(&error) {
            Some(Passing::Connection) if code.as_deref() != Some("25006") => {
                tracing::warn!(error = format!("{error:#}"), "the API has no database");
                Problem::busy("the database does not answer")
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
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(AGAIN));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET,HEAD"));
        }
        response
    }
}
