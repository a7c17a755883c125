//! What a worker tells those who watch it: progress bars, metrics, tests.
//!
//! Events go to a broadcast channel of the watcher's making; a slow watcher loses the oldest, a job never waits for
//! one. An `Ended` comes after the ending is committed, so whoever acts on it finds it in the database.

use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened to a job on this worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// A handler is about to start.
    Started {
        /// The job's id.
        job: i64,
        /// Its kind as stored.
        kind: Arc<str>,
        /// Its key.
        key: Option<Arc<str>>,
    },
    /// A handler reported how far it is, in units of its own.
    Progress {
        /// The job's id.
        job: i64,
        /// Its kind as stored.
        kind: Arc<str>,
        /// Units done.
        done: u64,
        /// Units in all, as far as known.
        total: u64,
    },
    /// A run is over and its end is stored.
    Ended {
        /// The job's id.
        job: i64,
        /// Its kind as stored.
        kind: Arc<str>,
        /// Its key.
        key: Option<Arc<str>>,
        /// How the run ended.
        outcome: Outcome,
        /// The report, or null.
        report: Value,
        /// The error's whole chain.
        error: Option<String>,
        /// Whether the job was discarded by this end.
        discarded: bool,
        /// From claim to end.
        duration: Duration,
    },
}

/// How one run ended; `fleet.job_attempts.outcome` holds the same words (and `requeued`, which is done to a job rather
/// than by it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The work is done.
    Done,
    /// The attempt failed with an error.
    Retry,
    /// The job gave itself up.
    Abort,
    /// The job put itself off.
    Snooze,
    /// The handler panicked: a failed attempt.
    Panic,
    /// The handler was cut off at its policy's limit: a failed attempt.
    Timeout,
    /// The payload could not be read: discarded.
    Unreadable,
    /// The lease ran out, or the end came too late to count.
    Lost,
    /// Cut off because somebody asked for it: the job is over.
    Cancelled,
    /// Cut off because the worker had to leave: not an attempt.
    Interrupted,
    /// Given back before it started: not an attempt.
    Returned,
}

impl Outcome {
    /// The word stored in `fleet.job_attempts`.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Retry => "retry",
            Outcome::Abort => "abort",
            Outcome::Snooze => "snooze",
            Outcome::Panic => "panic",
            Outcome::Timeout => "timeout",
            Outcome::Unreadable => "unreadable",
            Outcome::Lost => "lost",
            Outcome::Cancelled => "cancelled",
            Outcome::Interrupted => "interrupted",
            Outcome::Returned => "returned",
        }
    }

    /// What becomes of the job after it; `Lost` leaves it to whoever holds it now.
    pub(super) fn effect(self) -> &'static str {
        match self {
            Outcome::Done => "complete",
            Outcome::Retry | Outcome::Panic | Outcome::Timeout => "fail",
            Outcome::Abort | Outcome::Unreadable => "discard",
            Outcome::Snooze => "snooze",
            Outcome::Cancelled => "cancel",
            Outcome::Interrupted | Outcome::Returned | Outcome::Lost => "release",
        }
    }
}
