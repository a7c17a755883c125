//! Keeping what is ours, and taking back what is nobody's.
//!
//! The renewer speaks for every job in the worker's hands, in one statement, three times per lease, from a task of
//! its own: whether a job makes progress is the timeout's business, whether its worker is alive is the lease's. The
//! rescuer of every worker looks for leases that ran out, of any kind, also ones it does not serve: it only puts the
//! job back. Both run on the database's clock alone, so clocks of hosts may be wrong.
//!
//! Accepted: a worker cut off from the database goes on running its jobs, perhaps beside a successor, since it cannot
//! tell a dead database from a lost lease. Its effects are fenced; only what it does outside the database (a
//! download) may happen twice, and kinds that care guard that themselves.

use super::engine::{Hold, Link, Shared, count};
use sqlx::PgPool;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Leases one job may lose before it is discarded.
pub(super) const RESCUES: i32 = 20;

/// Renews all leases and the worker's own row, three times per lease and whenever told; cuts off the runs that have
/// lost theirs or are to be cancelled.
pub(super) async fn renews(engine: Shared) {
    let mut link = Link::new(&engine, "renew leases");
    let mut ticks = interval(engine.settings.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            _ = ticks.tick() => false,
            () = engine.renew.notified() => true,
        };
        while let Err(error) = engine.answer(renew(&engine, told)).await {
            tokio::time::sleep(link.down(&error)).await;
        }
        link.up();
    }
}

/// Leases first: whatever is wrong with the register, no job may be lost by it.
async fn renew(engine: &Shared, told: bool) -> sqlx::Result<()> {
    let holds = engine.holds();
    if !holds.is_empty() {
        renew_held(engine, holds).await?;
    }
    if told { Ok(()) } else { seen(engine).await }
}

async fn renew_held(engine: &Shared, holds: Vec<(i64, Hold)>) -> sqlx::Result<()> {
    let (jobs, runs): (Vec<i64>, Vec<i64>) = holds.iter().map(|(job, hold)| (*job, hold.run)).unzip();
    let ours = keep(&engine.own, &engine.name, &jobs, &runs, engine.settings.lease).await?;
    for (job, hold) in holds {
        // A run that ended meanwhile is missing too; nobody waits for its token any more.
        match ours.get(&job) {
            None => hold.lost.cancel(),
            Some(true) => hold.cancelled.cancel(),
            Some(false) => {}
        }
    }
    Ok(())
}

/// Renews the leases of these runs; answers with those that are still `name`'s, and whether they are to be cancelled.
pub(super) async fn keep(
    pool: &PgPool,
    name: &str,
    jobs: &[i64],
    runs: &[i64],
    lease: Duration,
) -> sqlx::Result<HashMap<i64, bool>> {
    let ours = sqlx::query_file!("src/queue/lease.renew.sql", name, jobs, runs, lease.as_secs_f64())
        .fetch_all(pool)
        .await?;
    Ok(ours.into_iter().map(|row| (row.id, row.cancelling)).collect())
}

/// Says in `fleet.workers` that this worker is there.
pub(super) async fn seen(engine: &Shared) -> sqlx::Result<()> {
    sqlx::query_file!(
        "src/queue/lease.seen.sql",
        engine.name,
        &engine.kinds,
        engine.settings.concurrency.min(i32::MAX as usize) as i32,
        engine.holding().min(i32::MAX as usize) as i32,
        engine.draining.is_cancelled(),
        engine.settings.lease.as_secs_f64(),
    )
    .execute(&engine.own)
    .await?;
    Ok(())
}

/// Takes the worker's row away: it has left in order.
pub(super) async fn gone(engine: &Shared) -> sqlx::Result<()> {
    sqlx::query!(
        "-- queue: worker gone
        delete from fleet.workers where name = $1",
        engine.name,
    )
    .execute(&engine.own)
    .await?;
    Ok(())
}

/// Takes back jobs whose leases ran out, at least once a second.
pub(super) async fn rescues(engine: Shared) {
    let mut link = Link::new(&engine, "rescue jobs");
    let mut ticks = interval(Duration::from_secs(1).min(engine.settings.lease / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match engine.answer(rescue(&engine.own)).await {
            Ok(rescued) => {
                link.up();
                count(&engine.counts.rescued, rescued.len() as u64);
                for (job, kind, state) in rescued {
                    tracing::warn!(job, kind, state, "rescued a job from a lost lease");
                }
            }
            Err(error) => tokio::time::sleep(link.down(&error)).await,
        }
    }
}

/// Takes back the jobs whose leases have run out: ids, kinds and the states they are in now.
pub(super) async fn rescue(pool: &PgPool) -> sqlx::Result<Vec<(i64, String, String)>> {
    let rescued = sqlx::query_file!("src/queue/lease.rescue.sql", RESCUES).fetch_all(pool).await?;
    Ok(rescued.into_iter().map(|job| (job.id, job.kind, job.state)).collect())
}
