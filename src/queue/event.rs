//! Events that a worker publishes for progress bars, metrics and tests.
//!
//! Events go to a broadcast channel made by the receiver. A slow receiver loses the oldest events, and a job never
//! waits for a receiver. `Ended` is sent after the result is committed, so a receiver finds the result in the database.

use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// An event in the life of a job on this worker.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// A handler is about to start.
    Started {
        /// Id of the job.
        job: i64,
        /// Kind of the job as stored.
        kind: Arc<str>,
        /// Key of the job.
        key: Option<Arc<str>>,
    },
    /// A handler reported progress, in the handler's own units.
    Progress {
        /// Id of the job.
        job: i64,
        /// Kind of the job as stored.
        kind: Arc<str>,
        /// Units done.
        done: u64,
        /// Total number of units, as far as known.
        total: u64,
    },
    /// A run has ended and its result is stored.
    Ended {
        /// Id of the job.
        job: i64,
        /// Kind of the job as stored.
        kind: Arc<str>,
        /// Key of the job.
        key: Option<Arc<str>>,
        /// Outcome of the run.
        outcome: RunOutcome,
        /// The report, or null.
        report: Value,
        /// The error with all causes.
        error: Option<String>,
        /// True if this result discarded the job.
        discarded: bool,
        /// Time from claim to result.
        duration: Duration,
    },
}

/// The outcome of one run.
///
/// `fleet.job_attempts.outcome` contains the same values, and `requeued`, which is an operator's command and not the
/// outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// The work is done.
    Done,
    /// The attempt failed with an error.
    Retry,
    /// The job returned an error that no attempt can overcome.
    Abort,
    /// The job asked to be run later.
    Snooze,
    /// The handler panicked: a failed attempt.
    Panic,
    /// The handler was cut off at the timeout of the policy: a failed attempt.
    Timeout,
    /// The payload could not be decoded: the job is discarded.
    Unreadable,
    /// The lease expired, or the result arrived too late to count.
    Lost,
    /// The run was cut off on request: the job is over.
    Cancelled,
    /// The run was cut off because the worker shut down: no attempt is spent.
    Interrupted,
    /// The job was released before it started: no attempt is spent.
    #[serde(rename = "returned")]
    Released,
}

impl RunOutcome {
    /// Returns the value stored in `fleet.job_attempts`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunOutcome::Done => "done",
            RunOutcome::Retry => "retry",
            RunOutcome::Abort => "abort",
            RunOutcome::Snooze => "snooze",
            RunOutcome::Panic => "panic",
            RunOutcome::Timeout => "timeout",
            RunOutcome::Unreadable => "unreadable",
            RunOutcome::Lost => "lost",
            RunOutcome::Cancelled => "cancelled",
            RunOutcome::Interrupted => "interrupted",
            RunOutcome::Released => "returned",
        }
    }

    /// Returns the effect on the job, a parameter of the completer's statement. After `Lost`, the fence leaves the job
    /// to its present holder.
    pub(super) fn job_effect(self) -> &'static str {
        match self {
            RunOutcome::Done => "complete",
            RunOutcome::Retry | RunOutcome::Panic | RunOutcome::Timeout => "fail",
            RunOutcome::Abort | RunOutcome::Unreadable => "discard",
            RunOutcome::Snooze => "snooze",
            RunOutcome::Cancelled => "cancel",
            RunOutcome::Interrupted | RunOutcome::Released | RunOutcome::Lost => "release",
        }
    }
}
