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
    #[error("status {status}, body \"{body}\"{}", asked_wait(.retry_after))]
    Status {
        /// The status.
        status: StatusCode,
        /// The body's beginning.
        body: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that asks for a longer wait than the slot has left.
    #[error(
        "status {status}, body \"{body}\"; its Retry-After of {} s is beyond the {} s left, so the slot is given up",
        .wait.as_secs(), .left.as_secs()
    )]
    RetryAfter {
        /// The status.
        status: StatusCode,
        /// The body's beginning.
        body: String,
        /// How long the server asks to wait.
        wait: Duration,
        /// How long there was left to wait.
        left: Duration,
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
    /// Compressed, in another format than gzip.
    #[error("status 200 OK, but the body is compressed ({encoding}), which was not asked for")]
    Compressed {
        /// The format by its first bytes, else its `Content-Encoding`.
        encoding: String,
    },
    /// Compressed with gzip, and not readable to its end.
    #[error("status 200 OK, but the gzip body cannot be decompressed: {why}")]
    Gzip {
        /// The decompressor's words.
        why: String,
    },
    /// Compressed, and larger than any feed for its size.
    #[error("status 200 OK, but {read} bytes of gzip became {written} or more, over {most} times as many")]
    Ratio {
        /// Bytes decompressed.
        read: u64,
        /// Bytes that they became.
        written: u64,
        /// The limit.
        most: u64,
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

fn asked_wait(retry_after: &Option<Duration>) -> String {
    retry_after.map_or(String::new(), |wait| format!("; its Retry-After is {} s", wait.as_secs()))
}

impl DownloadError {
    /// Whether the server keeps us out, so that another session may help.
    pub fn is_no_entry(&self) -> bool {
        matches!(self, DownloadError::Refused(Refusal::Redirects { .. } | Refusal::Html { .. }))
            || matches!(
                self,
                DownloadError::Refused(Refusal::Status { status, .. } | Refusal::RetryAfter { status, .. })
                    if matches!(status.as_u16(), 401 | 403)
            )
    }

    /// Returns how long the server asks to wait before the next request.
    pub fn retry_after(&self) -> Duration {
        match self {
            DownloadError::Refused(Refusal::Status { retry_after, .. }) => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// Returns the error of a slot that is given up, since the wait asked for is longer than `left`.
    pub(super) fn beyond(self, left: Duration) -> DownloadError {
        match self {
            DownloadError::Refused(Refusal::Status { status, body, retry_after: Some(wait) }) => {
                Refusal::RetryAfter { status, body, wait, left }.into()
            }
            other => other,
        }
    }

    /// Whether the next try within this attempt may go better.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            // Four times two gigabytes help nobody.
            DownloadError::Refused(
                Refusal::TooLarge { .. } | Refusal::Ratio { .. } | Refusal::RetryAfter { .. },
            ) => false,
            DownloadError::Refused(_) | DownloadError::Broken(_) => true,
            DownloadError::Store(_) => false,
        }
    }
}
