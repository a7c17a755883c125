//! What operators do to the queue: requeue, cancel, run now, pause, resume, limit.
//!
//! Each act is one statement that changes the rows, notes who and why in `audit.operator_actions`, and tells the workers,
//! all in one transaction; it needs no worker and no lock beyond the rows. It works as role `vinops_ops`. Acts on many
//! jobs take their ids, in batches, each its own transaction: what a batch has done stays done.
//!
//! An act answers with what it did. A job that is missing from the answer was not in a state for it; that is no error of
//! many, since jobs go on while an operator looks at a list.

use super::operate::{Shown, show};
use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::PgPool;
use std::fmt::Display;

pub use crate::db::operator::By;

/// Jobs that one transaction takes.
const BATCH: usize = 500;

/// A job that was cancelled, or is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cancelled {
    /// The job's id.
    pub id: i64,
    /// It runs: its worker has been asked to let go of it.
    pub running: bool,
}

/// Puts an ended or waiting job back as due now with all its attempts; says why where that cannot be.
pub async fn requeue(pool: &PgPool, id: i64, who: impl Display, why: impl Display) -> anyhow::Result<()> {
    if !requeue_all(pool, &[id], &By::new(who, why)).await?.is_empty() {
        return Ok(());
    }
    match show(pool, id).await? {
        None => bail!("there is no job {id}; `vinops jobs list` shows those there are"),
        Some(Shown { job, .. }) if job.state == "running" => bail!(
            "job {id} ({}) is running; only a job that is not running can be requeued: wait for its end, or cancel it \
             with `vinops jobs cancel {id}`",
            job.kind,
        ),
        Some(_) => bail!(
            "job {id} stays as it is: another job of its kind and key waits, runs or is completed; requeue that one, or \
             cancel it first"
        ),
    }
}

/// Puts back those of these jobs that are not running and whose keys are free; of several with one key the newest.
pub async fn requeue_all(pool: &PgPool, ids: &[i64], by: &By) -> anyhow::Result<Vec<i64>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH) {
        let batch =
            sqlx::query_file_scalar!("src/queue/steer.requeue.sql", ids, by.who, by.why).fetch_all(pool);
        done.extend(batch.await.context("requeue jobs")?);
    }
    Ok(done)
}

/// Cancels those of these jobs that wait, and asks the workers of those that run to let go of them.
pub async fn cancel(pool: &PgPool, ids: &[i64], by: &By) -> anyhow::Result<Vec<Cancelled>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH) {
        let batch = sqlx::query_file_as!(Cancelled, "src/queue/steer.cancel.sql", ids, by.who, by.why);
        done.extend(batch.fetch_all(pool).await.context("cancel jobs")?);
    }
    Ok(done)
}

/// Makes those of these jobs due that wait for their time or their next attempt.
pub async fn run_now(pool: &PgPool, ids: &[i64], by: &By) -> anyhow::Result<Vec<i64>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH) {
        let batch =
            sqlx::query_file_scalar!("src/queue/steer.run_now.sql", ids, by.who, by.why).fetch_all(pool);
        done.extend(batch.await.context("run jobs now")?);
    }
    Ok(done)
}

/// No job of these kinds is claimed any more, by any worker; what runs goes on. Answers with those that ran till now.
pub async fn pause(pool: &PgPool, kinds: &[String], by: &By) -> anyhow::Result<Vec<String>> {
    let paused = sqlx::query_file_scalar!("src/queue/steer.pause.sql", kinds, by.who, by.why).fetch_all(pool);
    paused.await.context("pause kinds")
}

/// Ends the pause of these kinds; answers with those that were paused.
pub async fn resume(pool: &PgPool, kinds: &[String], by: &By) -> anyhow::Result<Vec<String>> {
    let resumed =
        sqlx::query_file_scalar!("src/queue/steer.resume.sql", kinds, by.who, by.why).fetch_all(pool);
    resumed.await.context("resume kinds")
}

/// Of this kind at most so many run at once in the whole fleet; any number if none.
pub async fn limit(pool: &PgPool, kind: &str, most: Option<i32>, by: &By) -> anyhow::Result<()> {
    let limited =
        sqlx::query_file_scalar!("src/queue/steer.limit.sql", kind, by.who, by.why, most).fetch_one(pool);
    limited.await.with_context(|| format!("limit {kind}")).map(drop)
}
