//! Defines a job: a payload with a kind, and the four results of a run.
//!
//! **done** (with a report), **retry** (the work failed, the next attempt may succeed), **abort** (no attempt can
//! succeed), **snooze** (nothing failed, the time is too early). `?` on any error means retry, which is right for
//! almost every error of a network or a database. Abort is explicit, because it is a decision. One retry becomes an
//! abort: PostgreSQL rejected a value (`db::transient::is_permanent`), and would reject it in every attempt.

use super::run::JobRun;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A unit of work in the queue. The fields of the implementing type are the payload, identifiers only.
///
/// The payload is stored as JSON and decoded by the version of the program that claims it, so fields added later need
/// `#[serde(default)]`. The constants are the job's row in the README's table.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which jobs of this type are stored: a literal that is never changed or reused.
    const KIND: &'static str;
    /// Attempts, backoff and timeout of the kind.
    const POLICY: JobPolicy = JobPolicy::DEFAULT;
    /// Description of the job as a verb phrase: "upserts the lots of a file".
    const VERB: &'static str = "";
    /// The event or schedule that enqueues the job: "every quarter-hour", "after ingest".
    const WHEN: &'static str = "";
    /// Tables and files that the job reads.
    const READS: &'static str = "";
    /// Tables and files that the job writes.
    const WRITES: &'static str = "";
    /// The reason why a repeated run is harmless.
    const SAFE: &'static str = "";
    /// The kind that the job enqueues next, or an empty string.
    const NEXT: &'static str = "";

    /// The report of a run that is done, stored as the job's result.
    type Report: Serialize + Send;

    /// Does the work, as a task of its own.
    ///
    /// Code that keeps a core busy for longer than about 10 ms belongs in `tokio::task::spawn_blocking`, or the
    /// worker's lease renewals starve.
    fn run(self, run: JobRun) -> impl Future<Output = JobResult<Self::Report>> + Send;
}

/// The policy of a kind: attempts, backoff, timeout and prefetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobPolicy {
    /// Attempts before the job is discarded. Rescues, snoozes and interruptions spend no attempt.
    pub max_attempts: i32,
    /// Delay after the first failed attempt. The delay doubles with each further failed attempt.
    pub base: Duration,
    /// Longest delay, before jitter.
    pub cap: Duration,
    /// Time after which an attempt is cut off, here and at the server.
    pub timeout: Duration,
    /// True for a kind whose runs take milliseconds: a worker may claim jobs ahead of its free slots.
    ///
    /// Other workers cannot run prefetched jobs in the meantime, so a kind that may take long must not set this.
    pub prefetchable: bool,
}

impl JobPolicy {
    /// Ten attempts over about a quarter of an hour, with a timeout of ten minutes each.
    pub const DEFAULT: JobPolicy = JobPolicy {
        max_attempts: 10,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        timeout: Duration::from_secs(600),
        prefetchable: false,
    };

    /// Sets the maximum number of attempts.
    pub const fn with_attempts(self, max_attempts: i32) -> JobPolicy {
        JobPolicy { max_attempts, ..self }
    }

    /// Sets the delay after the first failed attempt and the longest delay.
    pub const fn with_backoff(self, base: Duration, cap: Duration) -> JobPolicy {
        JobPolicy { base, cap, ..self }
    }

    /// Sets the timeout of an attempt.
    pub const fn with_timeout(self, timeout: Duration) -> JobPolicy {
        JobPolicy { timeout, ..self }
    }

    /// Lets workers claim jobs of the kind ahead of their free slots. For kinds whose runs take milliseconds.
    pub const fn prefetchable(self) -> JobPolicy {
        JobPolicy { prefetchable: true, ..self }
    }

    /// Returns the delay after failed attempt number `attempt` (from 1).
    ///
    /// The delay is `base * 2^(attempt-1)`, at most `cap`, times `0.75 + jitter / 2` with `jitter` from 0 to 1. The
    /// jitter spreads the retries of jobs that failed together.
    pub fn retry_delay(&self, attempt: i32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).clamp(0, 30) as u32;
        self.base.saturating_mul(1 << doublings).min(self.cap).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// The result of a run as the job returns it.
pub type JobResult<R> = Result<JobDone<R>, JobError>;

/// The report of a run whose work is done. Constructed only by [`JobRun::done`] and `Step::done`.
#[derive(Debug)]
pub struct JobDone<R> {
    pub(super) report: R,
    /// True if the completion is already committed with the step's own transaction.
    pub(super) committed: bool,
    /// A note for the run's history entry, not stored yet.
    pub(super) note: Option<Arc<str>>,
}

/// The reason why the work is not done, which decides the next state of the job.
#[derive(Debug)]
pub enum JobError {
    /// This attempt failed: try again after a delay while attempts are left.
    Retry(anyhow::Error),
    /// No attempt can succeed: discard the job with this error.
    Abort(anyhow::Error),
    /// Nothing failed: run again after this delay, without spending the attempt.
    Snooze(Duration),
}

// `Stop` does not implement `std::error::Error`, which lets `?` convert every error into it.
impl<E: Into<anyhow::Error>> From<E> for JobError {
    fn from(error: E) -> JobError {
        JobError::Retry(error.into())
    }
}

/// Returns the error that discards the job: `return Err(abort(anyhow!("…")))`.
pub fn abort(error: impl Into<anyhow::Error>) -> JobError {
    JobError::Abort(error.into())
}

/// Returns the error that runs the job again after `delay`, without spending the attempt.
pub fn snooze(delay: Duration) -> JobError {
    JobError::Snooze(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_by_a_quarter() {
        let policy = JobPolicy::DEFAULT.with_backoff(Duration::from_secs(2), Duration::from_secs(60));
        let waits: Vec<u64> = (1..=8).map(|attempt| policy.retry_delay(attempt, 0.5).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.retry_delay(1, 0.0), Duration::from_millis(1500));
        assert_eq!(policy.retry_delay(1, 1.0), Duration::from_millis(2500));
        assert_eq!(policy.retry_delay(i32::MAX, 0.5).as_secs(), 60);
    }

    #[test]
    fn a_question_mark_means_retry() {
        fn parse() -> JobResult<i32> {
            Ok(JobDone { report: "x".parse()?, committed: false, note: None })
        }
        assert!(matches!(parse(), Err(JobError::Retry(_))));
    }
}
