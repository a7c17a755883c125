//! Deletes finished jobs by age, in batches, from one worker at a time.
//!
//! Every worker tries once an hour, and a transaction-level advisory lock admits one of them. Pruning is a task of the
//! workers and not a job, so that jobs are also pruned without a scheduler (a daily manual `vinops ingest`), and
//! because a paused or congested queue needs pruning most.
//!
//! A pass walks the table by id, oldest first, one transaction per batch. The pass stops at the first batch that ends
//! in a job too young for any retention. So a pass reads the jobs that it deletes and those with a longer retention
//! (discarded jobs), never the million jobs of this week, and needs no index that every job would pay for. The history
//! of a job is deleted with the job. Rows of workers that were lost a day ago are deleted as well.

use super::worker_state::{LoopConnection, WorkerShared};
use sqlx::PgPool;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Time between two passes of one worker.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// Jobs examined by one transaction.
const BATCH_JOBS: i32 = 2000;

/// Retention of finished jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Retention of completed jobs. A retained job keeps its key in use.
    pub completed: Duration,
    /// Retention of cancelled and discarded jobs, longer so that their errors can be examined.
    pub failed: Duration,
}

impl Retention {
    /// 30 days for completed jobs, 90 days for cancelled and discarded jobs.
    pub const DEFAULT: Retention =
        Retention { completed: Duration::from_secs(30 * 86_400), failed: Duration::from_secs(90 * 86_400) };
}

/// Prunes hourly. The first run is delayed by a random 30 to 300 s so that workers do not all prune at once.
pub(super) async fn run_pruner(engine: WorkerShared) {
    let mut link = LoopConnection::new(&engine, "prune finished jobs");
    tokio::time::sleep(Duration::from_secs(30).mul_f64(1.0 + 9.0 * rand::random::<f64>())).await;
    let mut ticks = interval(PRUNE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match prune_jobs(&engine.own, engine.settings.keep).await {
            Ok(0) => link.on_success(),
            Ok(jobs) => {
                link.on_success();
                tracing::info!(jobs, "finished jobs pruned");
            }
            Err(error) => tokio::time::sleep(link.on_failure(&error)).await,
        }
    }
}

/// Prunes in one pass and returns the number of deleted jobs, 0 while another worker prunes.
pub(super) async fn prune_jobs(pool: &PgPool, keep: Retention) -> sqlx::Result<u64> {
    let (mut after, mut pruned) = (0, 0);
    loop {
        let batch = sqlx::query_file!(
            "src/queue/prune.sql",
            after,
            BATCH_JOBS,
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
