//! What is the database's fault is tried again on the spot: a deadlock, a serialization failure, a lost connection.
//!
//! Such an end says nothing of the job, and the cure is to do the same once more; an attempt spent on it, and a wait as
//! long as the kind's policy, would be a price for nothing (and a kind with a single attempt would lose its work). So the
//! handler runs again under the same claim: the lease goes on being renewed, the time limit goes on running, and each
//! of the things that cut a run off cuts this one off too. It is for handlers what the fence and a fresh transaction
//! make of any second run: what the first wrote in its step is rolled back, or, if only the commit's answer was lost,
//! the second step finds the job completed and stops.
//!
//! Bounded: the fifth conflict with other transactions counts as the job's own failure, and so does a database that is
//! not back [`PATIENCE`] after it was missed. The history of a run that is then done tells of the latest such failure.

use super::entry::{Entry, Erased, Failure};
use super::job::Stop;
use super::run::Run;
use super::settle::storable;
use crate::db::passing::{Passing, passing};
use backon::BackoffBuilder;
use std::time::{Duration, Instant};

/// The last of so many conflicts is final.
const CONFLICTS: u32 = 5;
/// A connection that is lost so long after the first failure is final.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest delay between two retries, without its jitter.
pub(super) const MAX_BACKOFF_DELAY: Duration = Duration::from_secs(2);

/// Returns the delays between retries while the database has a transient error: 50 ms, doubling to 2 s, with jitter, without
/// end.
pub(super) fn transient_backoff() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(MAX_BACKOFF_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Runs the handler, again where only the database was at fault.
pub(super) async fn persist(entry: &Entry, mut run: Run, payload: serde_json::Value) -> Erased {
    let mut waits = transient_backoff();
    let (mut conflicts, mut first) = (0, None);
    loop {
        let ended = (entry.run)(run.clone(), payload.clone()).await;
        let Err(Failure::Stop(Stop::Retry(error))) = &ended else { return ended };
        let Some(passing) = passing(error) else { return ended };
        conflicts += u32::from(passing == Passing::Conflict);
        if conflicts >= CONFLICTS || first.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return ended;
        }
        let (job, error) = (run.job().id, format!("{error:#}"));
        tracing::info!(job, kind = &*run.job().kind, error, "tries again on the spot");
        tokio::time::sleep(waits.next().unwrap_or_default()).await;
        run.tried = Some(storable(&format!("tried again on the spot: {error}")).into());
    }
}
