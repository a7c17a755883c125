//! Retries a handler immediately after a transient database error: a deadlock, a serialization failure, a lost
//! connection.
//!
//! Such an error is no evidence about the job, and repeating the work is the remedy. Spending an attempt and waiting
//! for the backoff of the policy would gain nothing, and a kind with a single attempt would lose its work. So the
//! handler runs again under the same claim. The lease is still renewed, the timeout continues to run, and everything
//! that cuts off a run also cuts off a retry. Handlers see the same as in any second run, because of the fence and the
//! new transaction: the writes of the first step are rolled back. If only the response to the commit was lost, the
//! second step finds the job completed and stops.
//!
//! The retries are bounded. The fifth conflict with other transactions counts as a failure of the job, and so does a
//! database that is still unavailable [`RETRY_TIMEOUT`] after the first failure. If the run is then done, its history
//! contains the latest transient error.

use super::completer::storable_text;
use super::job::JobError;
use super::registry::{ErasedResult, JobDefinition, RunFailure};
use super::run::JobRun;
use crate::db::transient::{TransientError, transient_error};
use backon::BackoffBuilder;
use std::time::{Duration, Instant};

/// Number of conflicts after which the error is final.
const MAX_CONFLICTS: u32 = 5;
/// Time since the first transient error after which the next one is final.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest delay between two retries, without jitter.
pub(super) const MAX_BACKOFF_DELAY: Duration = Duration::from_secs(2);

/// Returns the delays between retries while the database has a transient error: 50 ms, doubling to 2 s, with jitter.
///
/// The sequence is endless.
pub(super) fn transient_backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(MAX_BACKOFF_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Runs the handler, and again after transient database errors. Returns the result of the last call.
pub(super) async fn with_retry(entry: &JobDefinition, mut run: JobRun, payload: serde_json::Value) -> ErasedResult {
    let mut waits = transient_backoff();
    let (mut conflicts, mut first) = (0, None);
    loop {
        let ended = (entry.run)(run.clone(), payload.clone()).await;
        let Err(RunFailure::Stop(JobError::Retry(error))) = &ended else { return ended };
        let Some(transient) = transient_error(error) else { return ended };
        conflicts += u32::from(transient == TransientError::Conflict);
        if conflicts >= MAX_CONFLICTS || first.get_or_insert_with(Instant::now).elapsed() > RETRY_TIMEOUT {
            return ended;
        }
        let (job, error) = (run.job().id, format!("{error:#}"));
        tracing::info!(job, kind = &*run.job().kind, error, "job run retried immediately");
        tokio::time::sleep(waits.next().unwrap_or_default()).await;
        run.tried = Some(storable_text(&format!("retried immediately: {error}")).into());
    }
}
