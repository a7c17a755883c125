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

use super::engine::{Link, Shared, count};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Leases one job may lose before it is discarded.
pub(super) const RESCUES: i32 = 20;

/// Renews all leases, three times per lease; cancels the runs that have lost theirs.
pub(super) async fn renews(engine: Shared) {
    let mut link = Link::new(&engine, "renew leases");
    let mut ticks = interval(engine.settings.lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(error) = engine.answer(renew(&engine)).await {
            tokio::time::sleep(link.down(&error)).await;
        }
        link.up();
    }
}

async fn renew(engine: &Shared) -> sqlx::Result<()> {
    let holds = engine.holds();
    if holds.is_empty() {
        return Ok(());
    }
    let (jobs, runs): (Vec<i64>, Vec<i64>) = holds.iter().map(|(job, hold)| (*job, hold.run)).unzip();
    let ours = sqlx::query_file_scalar!(
        "src/queue/lease.renew.sql",
        engine.name,
        &jobs,
        &runs,
        engine.settings.lease.as_secs_f64(),
    )
    .fetch_all(&engine.own)
    .await?;
    for (job, hold) in holds {
        // A run that ended meanwhile is missing too; nobody waits for its token any more.
        if !ours.contains(&job) {
            hold.lost.cancel();
        }
    }
    Ok(())
}

/// Takes back jobs whose leases ran out, at least once a second.
pub(super) async fn rescues(engine: Shared) {
    let mut link = Link::new(&engine, "rescue jobs");
    let mut ticks = interval(Duration::from_secs(1).min(engine.settings.lease / 3));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let rescue = sqlx::query_file!("src/queue/lease.rescue.sql", RESCUES).fetch_all(&engine.own);
        match engine.answer(rescue).await {
            Ok(rescued) => {
                link.up();
                count(&engine.counts.rescued, rescued.len() as u64);
                for job in rescued {
                    tracing::warn!(
                        job = job.id,
                        kind = job.kind,
                        state = job.state,
                        "rescued a job from a lost lease"
                    );
                }
            }
            Err(error) => tokio::time::sleep(link.down(&error)).await,
        }
    }
}
