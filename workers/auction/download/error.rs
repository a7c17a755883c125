//! Errors of a download. The caller branches on rejected, broken off and not stored.

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use std::time::Duration;

/// Error of a download after the last request, without any part of the URL.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server sent a response that is not the feed.
    #[error("the feed's response was rejected: {0}")]
    Refused(RejectedResponse),
    /// There was no response, or an incomplete one.
    #[error("the feed transfer failed: {0}")]
    Broken(TransferError),
    /// The bytes could not be stored on this side.
    #[error("could not store the downloaded bytes: {0:#}")]
    Store(anyhow::Error),
}

// Not by thiserror's `from`, which would also make it the source, so a chain of causes would print everything twice.
impl From<RejectedResponse> for DownloadError {
    fn from(refusal: RejectedResponse) -> DownloadError {
        DownloadError::Refused(refusal)
    }
}

impl From<TransferError> for DownloadError {
    fn from(broken: TransferError) -> DownloadError {
        DownloadError::Broken(broken)
    }
}

impl From<anyhow::Error> for DownloadError {
    fn from(error: anyhow::Error) -> DownloadError {
        DownloadError::Store(error)
    }
}

/// A response that is not the feed. `body` is the beginning in one line of at most 200 characters.
#[derive(Debug, thiserror::Error)]
pub enum RejectedResponse {
    /// The status is neither 200 nor expected for the request.
    #[error("status {status}, body \"{body}\"{}", format_retry_after(.retry_after))]
    Status {
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
        /// The delay that the server asks for.
        retry_after: Option<Duration>,
    },
    /// The server asks for a longer delay than the slot has left.
    #[error(
        "status {status}, body \"{body}\"; its Retry-After of {} s exceeds the {} s left in the slot",
        .wait.as_secs(), .left.as_secs()
    )]
    RetryAfter {
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
        /// The delay that the server asks for.
        wait: Duration,
        /// The time that was left in the slot.
        left: Duration,
    },
    /// The body is an HTML page.
    #[error("status 200 OK, but an HTML page: \"{body}\"")]
    Html {
        /// The beginning of the body.
        body: String,
    },
    /// The body does not begin with the header's first column.
    #[error("status 200 OK, but the body does not begin with the column Id: \"{body}\"")]
    FirstBytes {
        /// The beginning of the body.
        body: String,
    },
    /// The announced and the received length differ.
    #[error("status 200 OK, but received {bytes} bytes instead of {total}")]
    Length {
        /// Bytes announced.
        total: u64,
        /// Bytes received.
        bytes: u64,
    },
    /// The body is smaller than a header with a single row.
    #[error("status 200 OK, but the body of {bytes} bytes is too small (at least {least}): \"{body}\"")]
    TooSmall {
        /// Bytes received.
        bytes: u64,
        /// The minimum in bytes.
        least: u64,
        /// The beginning of the body.
        body: String,
    },
    /// The body is larger than the limit.
    #[error("status 200 OK, but the body of {bytes} bytes or more is too large (at most {most})")]
    TooLarge {
        /// Bytes announced, or received when the download was cancelled.
        bytes: u64,
        /// The maximum in bytes.
        most: u64,
    },
    /// The body is compressed in another format than gzip.
    #[error("status 200 OK, but the body is compressed ({encoding}), which was not requested")]
    Compressed {
        /// The format detected by the first bytes, or else the `Content-Encoding`.
        encoding: String,
    },
    /// The gzip body cannot be decompressed completely.
    #[error("status 200 OK, but the gzip body cannot be decompressed: {why}")]
    Gzip {
        /// The error message of the decompressor.
        why: String,
    },
    /// The gzip body expands beyond the ratio limit.
    #[error("status 200 OK, but {read} bytes of gzip expanded to {written} or more, over {most} times as many")]
    Ratio {
        /// Compressed bytes read.
        read: u64,
        /// Bytes after decompression.
        written: u64,
        /// The maximum ratio.
        most: u64,
    },
    /// The file is older than the last good one, which means a stale cache.
    #[error("status 200 OK, but a stale copy: last modified {now}, and the last good file {then}")]
    Stale {
        /// The modification time of this file.
        now: DateTime<Utc>,
        /// The modification time of the last good file.
        then: DateTime<Utc>,
    },
    /// There were too many redirects.
    #[error("more than {most} redirects ({why})")]
    Redirects {
        /// The maximum number of redirects.
        most: usize,
        /// The error message of the client, redacted.
        why: String,
    },
}

/// A transfer that did not complete.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection failed, or broke before the response.
    #[error("connection failed: {why}")]
    Connection {
        /// The error message of the client, redacted.
        why: String,
    },
    /// The server accepted the request and did not respond.
    #[error("no response within {silence:?}")]
    Silent {
        /// The timeout.
        silence: Duration,
    },
    /// The body stalled.
    #[error("no data for {silence:?} after {got} bytes")]
    Stalled {
        /// The timeout.
        silence: Duration,
        /// Bytes received.
        got: u64,
    },
    /// The body ended early.
    #[error("the body was cut after {got} of {} bytes: {why}", .total.map_or("unknown".into(), |t| t.to_string()))]
    Cut {
        /// Bytes received.
        got: u64,
        /// Bytes announced.
        total: Option<u64>,
        /// The error message of the client, redacted.
        why: String,
    },
    /// A resumed body did not match the first part. The next request starts over.
    #[error("the resumed body does not match its beginning: {why}")]
    Range {
        /// The difference between the two responses.
        why: String,
    },
    /// All requests together exceeded the deadline.
    #[error("not completed within {deadline:?}")]
    Overdue {
        /// The deadline.
        deadline: Duration,
    },
}

fn format_retry_after(retry_after: &Option<Duration>) -> String {
    retry_after.map_or(String::new(), |wait| format!("; its Retry-After is {} s", wait.as_secs()))
}

impl DownloadError {
    /// Returns true if the server denies access, so that another session may help.
    pub fn is_access_denied(&self) -> bool {
        matches!(self, DownloadError::Refused(RejectedResponse::Redirects { .. } | RejectedResponse::Html { .. }))
            || matches!(
                self,
                DownloadError::Refused(RejectedResponse::Status { status, .. } | RejectedResponse::RetryAfter { status, .. })
                    if matches!(status.as_u16(), 401 | 403)
            )
    }

    /// Returns the delay that the server asks for before the next request.
    pub fn retry_after(&self) -> Duration {
        match self {
            DownloadError::Refused(RejectedResponse::Status { retry_after, .. }) => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// Returns the error of a slot that has less time `left` than the requested delay.
    pub(super) fn into_retry_after_error(self, left: Duration) -> DownloadError {
        match self {
            DownloadError::Refused(RejectedResponse::Status { status, body, retry_after: Some(wait) }) => {
                RejectedResponse::RetryAfter { status, body, wait, left }.into()
            }
            other => other,
        }
    }

    /// Returns true if another request within this attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A retry would only transfer up to two gigabytes again.
            DownloadError::Refused(
                RejectedResponse::TooLarge { .. }
                | RejectedResponse::Ratio { .. }
                | RejectedResponse::RetryAfter { .. },
            ) => false,
            DownloadError::Refused(_) | DownloadError::Broken(_) => true,
            DownloadError::Store(_) => false,
        }
    }
}
