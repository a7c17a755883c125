//! Why a download failed; the caller branches on refused or broken off.

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use std::time::Duration;

/// Why a download failed, after its last try. Holds no part of the URL.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server answered, and the answer is not the feed.
    #[error("the feed's answer is refused: {0}")]
    Refused(Refusal),
    /// There was no answer, or not all of it.
    #[error("the feed broke off: {0}")]
    Broken(Break),
    /// Our side: the bytes could not be kept.
    #[error("keep the downloaded bytes: {0:#}")]
    Store(anyhow::Error),
}

// By hand, since thiserror's `from` would also make a source of it, and a chain of causes would say everything twice.
impl From<Refusal> for DownloadError {
    fn from(refusal: Refusal) -> DownloadError {
        DownloadError::Refused(refusal)
    }
}

impl From<Break> for DownloadError {
    fn from(broken: Break) -> DownloadError {
        DownloadError::Broken(broken)
    }
}

impl From<anyhow::Error> for DownloadError {
    fn from(error: anyhow::Error) -> DownloadError {
        DownloadError::Store(error)
    }
}

/// An answer that is not the feed; `body` is its beginning, one line, at most 200 characters.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Neither 200 nor an answer to what was asked.
    #[error("status {status}, body \"{body}\"")]
    Status {
        /// The status.
        status: StatusCode,
        /// The body's beginning.
        body: String,
    },
    /// A page, for people.
    #[error("status 200 OK, but an HTML page: \"{body}\"")]
    Html {
        /// The body's beginning.
        body: String,
    },
    /// Not the header's first column.
    #[error("status 200 OK, but the body does not begin with the column Id: \"{body}\"")]
    FirstBytes {
        /// The body's beginning.
        body: String,
    },
    /// The lengths promised and received differ.
    #[error("status 200 OK, but {bytes} bytes came instead of {total}")]
    Length {
        /// Bytes promised.
        total: u64,
        /// Bytes received.
        bytes: u64,
    },
    /// No header with a single row is so small.
    #[error("status 200 OK, but {bytes} bytes are too few (at least {least}): \"{body}\"")]
    TooSmall {
        /// Bytes received.
        bytes: u64,
        /// The limit.
        least: u64,
        /// The body's beginning.
        body: String,
    },
    /// Larger than any feed.
    #[error("status 200 OK, but {bytes} bytes or more are too many (at most {most})")]
    TooLarge {
        /// Bytes promised or received when it was given up.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// Compressed, although it was asked for as it is.
    #[error("status 200 OK, but the body is packed ({packing}), which was not asked for")]
    Packed {
        /// Its `Content-Encoding`.
        packing: String,
    },
    /// An older file than the last good one: a copy that somebody on the way has kept.
    #[error("status 200 OK, but a stale copy: last modified {now}, and the last good file {then}")]
    Stale {
        /// When this one was modified.
        now: DateTime<Utc>,
        /// When the last good file was.
        then: DateTime<Utc>,
    },
    /// Sent from place to place.
    #[error("more than {most} redirects ({why})")]
    Redirects {
        /// The limit.
        most: usize,
        /// The client's words, redacted.
        why: String,
    },
}

/// A download without an end.
#[derive(Debug, thiserror::Error)]
pub enum Break {
    /// No connection, or it broke before the answer.
    #[error("connection: {why}")]
    Connection {
        /// The client's words, redacted.
        why: String,
    },
    /// Connected, asked, and heard nothing.
    #[error("no answer within {silence:?}")]
    Silent {
        /// The limit.
        silence: Duration,
    },
    /// The body stopped coming.
    #[error("nothing more came for {silence:?} after {got} bytes")]
    Stalled {
        /// The limit.
        silence: Duration,
        /// Bytes received.
        got: u64,
    },
    /// The body ended early.
    #[error("the body was cut after {got} of {} bytes: {why}", .total.map_or("unknown".into(), |t| t.to_string()))]
    Cut {
        /// Bytes received.
        got: u64,
        /// Bytes promised.
        total: Option<u64>,
        /// The client's words, redacted.
        why: String,
    },
    /// A resumed download did not fit its beginning; the next try starts over.
    #[error("the rest does not fit the beginning: {why}")]
    Range {
        /// What differs.
        why: String,
    },
    /// All tries together took too long.
    #[error("not done within {deadline:?}")]
    Overdue {
        /// The limit.
        deadline: Duration,
    },
}

impl DownloadError {
    /// Whether the server keeps us out, so that another session may help.
    pub fn is_no_entry(&self) -> bool {
        matches!(self, DownloadError::Refused(Refusal::Redirects { .. } | Refusal::Html { .. }))
            || matches!(self, DownloadError::Refused(Refusal::Status { status, .. }) if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether the next try within this attempt may go better.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            // Four times two gigabytes help nobody.
            DownloadError::Refused(Refusal::TooLarge { .. }) => false,
            DownloadError::Refused(_) | DownloadError::Broken(_) => true,
            DownloadError::Store(_) => false,
        }
    }
}
