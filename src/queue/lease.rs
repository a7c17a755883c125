//! Renews the leases of held jobs, and rescues jobs with expired leases.
//!
//! The renewer renews the leases of all jobs of the worker with one statement, three times per lease, from a task of
//! its own. The lease shows that the worker is alive. The timeout handles jobs without progress. The rescuer of every
//! worker finds expired leases of any kind, including kinds that the worker does not serve: a rescue only makes the job
//! available again. Both use the database's clock alone, so the clocks of the hosts may be wrong.
//!
//! Accepted: a worker that is cut off from the database continues to run its jobs, possibly beside a successor, since a
//! dead database and a lost lease look the same. The fence discards its effects. Only effects outside the database (a
//! download) may happen twice, and the kinds concerned guard against that themselves.

use super::worker_state::{HeldJob, LoopConnection, WorkerShared, increment_counter};
use sqlx::PgPool;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Number of leases that a job may lose before it is discarded.
pub(super) const MAX_RESCUES: i32 = 20;

/// Renews all leases and the worker's heartbeat three times per lease, and the leases on every signal.
///
/// Cuts off the runs that have lost their lease or have a cancel request.
pub(super) async fn run_lease_renewer(engine: WorkerShared) {
    let mut link = LoopConnection::new(&engine, "renew leases");
    let mut ticks = interval(engine.settings.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_notified = tokio::select! {
            _ = ticks.tick() => false,
            () = engine.renew.notified() => true,
        };
        while let Err(error) = engine.with_query_timeout(renew_once(&engine, is_notified)).await {
            tokio::time::sleep(link.on_failure(&error)).await;
        }
        link.on_success();
    }
}

/// Renews the leases, then the heartbeat unless a signal woke the renewer.
///
/// The leases come first, so that an error of the heartbeat loses no job.
async fn renew_once(engine: &WorkerShared, is_notified: bool) -> sqlx::Result<()> {
    let holds = engine.held_jobs();
    if !holds.is_empty() {
        renew_held(engine, holds).await?;
    }
    if is_notified { Ok(()) } else { upsert_heartbeat(engine).await }
}

async fn renew_held(engine: &WorkerShared, holds: Vec<(i64, HeldJob)>) -> sqlx::Result<()> {
    let (jobs, runs): (Vec<i64>, Vec<i64>) = holds.iter().map(|(job, hold)| (*job, hold.run)).unzip();
    let ours = renew_leases(&engine.own, &engine.name, &jobs, &runs, engine.settings.lease).await?;
    for (job, hold) in holds {
        // A run that has ended in the meantime is missing too. Its token has no listener any more.
        match ours.get(&job) {
            None => hold.lost.cancel(),
            Some(true) => hold.cancelled.cancel(),
            Some(false) => {}
        }
    }
    Ok(())
}

/// Renews the leases of runs. Returns the jobs that the worker `name` still holds, each with true if it has a cancel
/// request.
pub(super) async fn renew_leases(
    pool: &PgPool,
    name: &str,
    jobs: &[i64],
    runs: &[i64],
    lease: Duration,
) -> sqlx::Result<HashMap<i64, bool>> {
    let ours =
        sqlx::query_file!("src/queue/lease.renew.sql", name, jobs, runs, lease.as_secs_f64()).fetch_all(pool).await?;
    Ok(ours.into_iter().map(|row| (row.id, row.cancelling)).collect())
}

/// Writes this worker's heartbeat to `fleet.workers`.
pub(super) async fn upsert_heartbeat(engine: &WorkerShared) -> sqlx::Result<()> {
    sqlx::query_file!(
        "src/queue/lease.heartbeat.sql",
        engine.name,
        &engine.kinds,
        engine.settings.concurrency.min(i32::MAX as usize) as i32,
        engine.held_count().min(i32::MAX as usize) as i32,
        engine.draining.is_cancelled(),
        engine.settings.lease.as_secs_f64(),
    )
    .execute(&engine.own)
    .await?;
    Ok(())
}

/// Deletes the worker's row from `fleet.workers` after an orderly shutdown.
pub(super) async fn delete_worker(engine: &WorkerShared) -> sqlx::Result<()> {
    sqlx::query!(
        "-- queue: worker gone
        delete from fleet.workers where name = $1",
        engine.name,
    )
    .execute(&engine.own)
    .await?;
    Ok(())
}

/// Rescues jobs with expired leases, at least once a second.
pub(super) async fn run_rescuer(engine: WorkerShared) {
    let mut link = LoopConnection::new(&engine, "rescue jobs");
    let mut ticks = interval(Duration::from_secs(1).min(engine.settings.lease / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match engine.with_query_timeout(rescue_jobs(&engine.own)).await {
            Ok(rescued) => {
                link.on_success();
                increment_counter(&engine.counts.rescued, rescued.len() as u64);
                for (job, kind, state) in rescued {
                    tracing::warn!(job, kind, state, "job rescued after its lease expired");
                }
            }
            Err(error) => tokio::time::sleep(link.on_failure(&error)).await,
        }
    }
}

/// Rescues the jobs with expired leases. Returns their ids, kinds and new states.
pub(super) async fn rescue_jobs(pool: &PgPool) -> sqlx::Result<Vec<(i64, String, String)>> {
    let rescued = sqlx::query_file!("src/queue/lease.rescue.sql", MAX_RESCUES).fetch_all(pool).await?;
    Ok(rescued.into_iter().map(|job| (job.id, job.kind, job.state)).collect())
}
