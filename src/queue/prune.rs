//! Letting go of finished jobs: by age, in batches, by whichever worker's turn it is.
//!
//! Every worker looks once an hour, and a transaction-level advisory lock lets one of them at a time do it. A duty of the
//! workers and not a job of its own, because then it also happens where nobody schedules (`vinops ingest` by hand, day
//! after day), and because a paused or clogged queue is exactly one that needs it.
//!
//! A pass walks the table by id, from the oldest, a batch to a transaction, and stops at the first batch that ends in a
//! job too young for any limit. So it reads what it deletes and what outlives it (discarded jobs, kept longer), never
//! the million jobs of this week; it needs no index that every job would pay for. A job's history goes with it. Rows of
//! workers that were lost a day ago go as well.

use super::engine::{Link, Shared};
use sqlx::PgPool;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(3600);

/// Jobs looked at by one transaction.
const BATCH: i32 = 2000;

/// How long finished jobs stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Completed ones. While one is kept its key stays taken.
    pub completed: Duration,
    /// Cancelled and discarded ones: somebody may still want to know why.
    pub failed: Duration,
}

impl Keep {
    /// A month and a quarter of a year.
    pub const DEFAULT: Keep =
        Keep { completed: Duration::from_secs(30 * 86_400), failed: Duration::from_secs(90 * 86_400) };
}

/// Prunes once an hour; the first look comes somewhere in the first minutes, so that a fleet does not look as one.
pub(super) async fn prunes(engine: Shared) {
    let mut link = Link::new(&engine, "prune finished jobs");
    tokio::time::sleep(Duration::from_secs(30).mul_f64(1.0 + 9.0 * rand::random::<f64>())).await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match prune(&engine.own, engine.settings.keep).await {
            Ok(0) => link.up(),
            Ok(jobs) => {
                link.up();
                tracing::info!(jobs, "pruned finished jobs");
            }
            Err(error) => tokio::time::sleep(link.down(&error)).await,
        }
    }
}

/// One pass; tells how many jobs went. None while another worker prunes.
pub(super) async fn prune(pool: &PgPool, keep: Keep) -> sqlx::Result<u64> {
    let (mut after, mut pruned) = (0, 0);
    loop {
        let batch = sqlx::query_file!(
            "src/queue/prune.sql",
            after,
            BATCH,
            keep.completed.as_secs_f64(),
            keep.failed.as_secs_f64(),
        )
        .fetch_one(pool)
        .await?;
        pruned += batch.pruned.unsigned_abs();
        match batch.last {
            Some(last) if batch.more => after = last,
            _ => return Ok(pruned),
        }
    }
}
