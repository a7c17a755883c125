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
//! not back [`PATIENCE`] after it was missed. The row of an attempt whose step then commits tells of the latest such
//! failure.

use super::entry::{Entry, Erased, Failure};
use super::job::Stop;
use super::run::Run;
use backon::BackoffBuilder;
use std::time::{Duration, Instant};

/// The last of so many conflicts is final.
const CONFLICTS: u32 = 5;
/// A connection that is lost so long after the first failure is final.
const PATIENCE: Duration = Duration::from_secs(30);

/// What passes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// With other transactions: one of them had to give way.
    Conflict,
    /// The connection, or the server behind it.
    Connection,
}

/// Runs the handler, again where only the database was at fault.
pub(super) async fn persist(entry: &Entry, mut run: Run, payload: serde_json::Value) -> Erased {
    let waits = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter();
    let mut waits = waits.build();
    let (mut conflicts, mut first) = (0, None);
    loop {
        let ended = (entry.run)(run.clone(), payload.clone()).await;
        let Err(Failure::Stop(Stop::Retry(error))) = &ended else { return ended };
        let Some(fault) = fault(error) else { return ended };
        conflicts += u32::from(fault == Fault::Conflict);
        if conflicts >= CONFLICTS || first.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return ended;
        }
        let (job, error) = (run.job().id, format!("{error:#}"));
        tracing::info!(job, kind = &*run.job().kind, error, "tries again on the spot");
        tokio::time::sleep(waits.next().unwrap_or_default()).await;
        run.tried = Some(format!("tried again on the spot: {}", error.replace('\0', "\u{fffd}")).into());
    }
}

/// What the database did, if the error's cause is the database's and passes.
fn fault(error: &anyhow::Error) -> Option<Fault> {
    error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
        sqlx::Error::Database(told) => match told.code()?.as_ref() {
            // deadlock, serialization failure, a statement that said how long it waits for a lock
            "40P01" | "40001" | "55P03" => Some(Fault::Conflict),
            // shut down in whichever mode, starting up, too many connections, a standby that is about to take over
            "57P01" | "57P02" | "57P03" | "53300" | "25006" => Some(Fault::Connection),
            code if code.starts_with("08") => Some(Fault::Connection),
            _ => None,
        },
        // a connection that is closed in the midst of its greeting shows as a breach of the protocol
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
            Some(Fault::Connection)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    #[test]
    fn a_lost_connection_is_seen_under_what_was_being_done() {
        let lost = Err::<(), _>(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
        let error = lost.context("lock the source").context("ingest").unwrap_err();
        assert_eq!(fault(&error), Some(Fault::Connection));
    }

    #[test]
    fn a_full_disk_and_a_missing_row_are_the_jobs_own() {
        let disk = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("keep the bytes");
        assert_eq!(fault(&disk), None);
        assert_eq!(fault(&sqlx::Error::RowNotFound.into()), None);
    }
}
