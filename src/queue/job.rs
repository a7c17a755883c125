//! What a job is: a payload with a kind, and the four words it may end in.
//!
//! **done** (with a report), **retry** (the work failed, the next attempt may not), **abort** (no attempt will ever
//! succeed), **snooze** (nothing failed, it is too early). `?` on any error means retry, because that is right for
//! almost every error of a network or a database; abort is written out, because it is a decision. One retry becomes an
//! abort: PostgreSQL refused a value for what it is (`db::passing::is_permanent`), as it would each time.

use super::run::Run;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A piece of work that the fleet does: its fields are the payload, identifiers only.
///
/// The payload is stored as JSON and read back by whatever version of the program claims it, so fields added later
/// need `#[serde(default)]`. The seven words are the job's row in the README's table.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which jobs of this type are stored: a literal, data, never reused for something else.
    const KIND: &'static str;
    /// How often, how patiently and for how long it is tried.
    const POLICY: Policy = Policy::DEFAULT;
    /// What it does, as a verb phrase: "upserts the lots of a file".
    const VERB: &'static str = "";
    /// What makes it run: "every quarter-hour", "after ingest".
    const WHEN: &'static str = "";
    /// What it reads.
    const READS: &'static str = "";
    /// What it writes.
    const WRITES: &'static str = "";
    /// Why running it twice does no harm.
    const SAFE: &'static str = "";
    /// The kind that follows it, or nothing.
    const NEXT: &'static str = "";

    /// What it has to say in the end: stored as the job's result.
    type Report: Serialize + Send;

    /// Does the work. Runs as a task of its own; whatever keeps a core busy for longer than about 10 ms belongs in
    /// `tokio::task::spawn_blocking`, or the worker's lease renewals starve.
    fn run(self, run: Run) -> impl Future<Output = Verdict<Self::Report>> + Send;
}

/// How a kind's failures are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts before the job is discarded; rescues, snoozes and interruptions are not attempts.
    pub max_attempts: i32,
    /// The wait after the first failed attempt; it doubles with each further one.
    pub base: Duration,
    /// The longest wait, before jitter.
    pub cap: Duration,
    /// How long one attempt may take before it is cut off, here and at the server.
    pub timeout: Duration,
    /// Over in milliseconds, so a worker may claim some ahead of its free slots; other workers cannot have those
    /// meanwhile, so a kind that may take long must not be.
    pub cheap: bool,
}

impl Policy {
    /// Ten attempts over about a quarter of an hour, ten minutes for each.
    pub const DEFAULT: Policy = Policy {
        max_attempts: 10,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        timeout: Duration::from_secs(600),
        cheap: false,
    };

    /// The same with another number of attempts.
    pub const fn attempts(self, max_attempts: i32) -> Policy {
        Policy { max_attempts, ..self }
    }

    /// The same with other waits.
    pub const fn waits(self, base: Duration, cap: Duration) -> Policy {
        Policy { base, cap, ..self }
    }

    /// The same with another limit of time.
    pub const fn within(self, timeout: Duration) -> Policy {
        Policy { timeout, ..self }
    }

    /// The same for a kind that is over in milliseconds: workers may claim ahead.
    pub const fn cheap(self) -> Policy {
        Policy { cheap: true, ..self }
    }

    /// The wait after failed attempt number `attempt` (from 1): `base * 2^(attempt-1)`, at most `cap`, times
    /// `0.75 + luck / 2` with luck from 0 to 1, so that jobs that failed together do not come back together.
    pub fn wait(&self, attempt: i32, luck: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).clamp(0, 30) as u32;
        self.base.saturating_mul(1 << doublings).min(self.cap).mul_f64(0.75 + luck.clamp(0.0, 1.0) / 2.0)
    }
}

/// How a run ended, in the job's own words.
pub type Verdict<R> = Result<Done<R>, Stop>;

/// The work is done. Made by [`Run::done`] or `Step::done`, by nothing else.
#[derive(Debug)]
pub struct Done<R> {
    pub(super) report: R,
    /// Whether the completion is already committed with the step's own transaction.
    pub(super) committed: bool,
    /// What its history tells of it that its job does not, and is not written yet.
    pub(super) note: Option<Arc<str>>,
}

/// The work is not done, and what is to become of it.
#[derive(Debug)]
pub enum Stop {
    /// This attempt failed: wait, then try again while attempts are left.
    Retry(anyhow::Error),
    /// No attempt can succeed: discard the job with this reason.
    Abort(anyhow::Error),
    /// Nothing failed: come back after this time, without spending the attempt.
    Snooze(Duration),
}

// `Stop` is no `std::error::Error` itself; that is what lets `?` take every error there is.
impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Retry(error.into())
    }
}

/// Gives the job up: `return Err(abort(anyhow!("…")))`.
pub fn abort(error: impl Into<anyhow::Error>) -> Stop {
    Stop::Abort(error.into())
}

/// Puts the job off without spending its attempt.
pub fn snooze(delay: Duration) -> Stop {
    Stop::Snooze(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_by_a_quarter() {
        let policy = Policy::DEFAULT.waits(Duration::from_secs(2), Duration::from_secs(60));
        let waits: Vec<u64> = (1..=8).map(|attempt| policy.wait(attempt, 0.5).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.wait(1, 0.0), Duration::from_millis(1500));
        assert_eq!(policy.wait(1, 1.0), Duration::from_millis(2500));
        assert_eq!(policy.wait(i32::MAX, 0.5).as_secs(), 60);
    }

    #[test]
    fn a_question_mark_means_retry() {
        fn parse() -> Verdict<i32> {
            Ok(Done { report: "x".parse()?, committed: false, note: None })
        }
        assert!(matches!(parse(), Err(Stop::Retry(_))));
    }
}
