//! The operators' commands on the queue: requeue, cancel, run now, pause, resume, limit.
//!
//! Each command is one statement that changes the rows, records actor and reason in `audit.operator_actions` and
//! notifies the workers, all in one transaction. A command needs no worker and no lock beyond the rows, and works as
//! role `vinops_ops`. Commands on many jobs take the ids of the jobs in batches, one transaction each: the changes of a
//! finished batch remain if a later batch fails.
//!
//! A command returns the changed jobs. A missing job was not in a suitable state. With many jobs that is not an
//! error, since jobs continue while an operator reads a list.

use super::queries::{JobDetails, job_details};
use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::PgPool;
use std::fmt::Display;

pub use crate::db::operator::Actor;

/// Maximum number of jobs changed by one transaction.
const BATCH_JOBS: usize = 500;

/// A job that was cancelled or has got a cancel request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CancelledJob {
    /// Id of the job.
    pub id: i64,
    /// True if the job runs: the worker has been notified of the request.
    pub running: bool,
}

/// Requeues a finished or waiting job: due now, with all attempts.
///
/// # Errors
///
/// Returns an error with the reason if the job does not exist, runs, or if its key is in use.
pub async fn requeue_job(pool: &PgPool, id: i64, who: impl Display, why: impl Display) -> anyhow::Result<()> {
    if !requeue_jobs(pool, &[id], &Actor::new(who, why)).await?.is_empty() {
        return Ok(());
    }
    match job_details(pool, id).await? {
        None => bail!("job {id} does not exist\nhint: `vinops jobs list` lists the jobs"),
        Some(JobDetails { job, .. }) if job.state == "running" => bail!(
            "job {id} ({}) is running and cannot be requeued\nhint: wait for its end, or cancel it with \
             `vinops jobs cancel {id}`",
            job.kind,
        ),
        Some(_) => bail!(
            "job {id} cannot be requeued\ndetail: another job of its kind and key waits, runs or is completed\nhint: \
             requeue that job, or cancel it first"
        ),
    }
}

/// Requeues the jobs that are not running and whose keys are free. Of several jobs with one key, the newest is
/// requeued. Returns the ids of the requeued jobs.
pub async fn requeue_jobs(pool: &PgPool, ids: &[i64], by: &Actor) -> anyhow::Result<Vec<i64>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH_JOBS) {
        let batch = sqlx::query_file_scalar!("src/queue/admin.requeue.sql", ids, by.who, by.why).fetch_all(pool);
        done.extend(batch.await.context("could not requeue jobs")?);
    }
    Ok(done)
}

/// Cancels the waiting jobs, and requests the cancellation of the running jobs from their workers. Returns both.
pub async fn cancel_jobs(pool: &PgPool, ids: &[i64], by: &Actor) -> anyhow::Result<Vec<CancelledJob>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH_JOBS) {
        let batch = sqlx::query_file_as!(CancelledJob, "src/queue/admin.cancel.sql", ids, by.who, by.why);
        done.extend(batch.fetch_all(pool).await.context("could not cancel jobs")?);
    }
    Ok(done)
}

/// Makes the scheduled and retryable jobs due now. Returns their ids.
pub async fn run_jobs_now(pool: &PgPool, ids: &[i64], by: &Actor) -> anyhow::Result<Vec<i64>> {
    let mut done = Vec::new();
    for ids in ids.chunks(BATCH_JOBS) {
        let batch = sqlx::query_file_scalar!("src/queue/admin.run_now.sql", ids, by.who, by.why).fetch_all(pool);
        done.extend(batch.await.context("could not make jobs due now")?);
    }
    Ok(done)
}

/// Pauses job kinds for all workers. Running jobs continue. Returns the kinds that were not paused before.
pub async fn pause_kinds(pool: &PgPool, kinds: &[String], by: &Actor) -> anyhow::Result<Vec<String>> {
    let paused = sqlx::query_file_scalar!("src/queue/admin.pause.sql", kinds, by.who, by.why).fetch_all(pool);
    paused.await.context("could not pause job kinds")
}

/// Resumes paused job kinds. Returns the kinds that were paused.
pub async fn resume_kinds(pool: &PgPool, kinds: &[String], by: &Actor) -> anyhow::Result<Vec<String>> {
    let resumed = sqlx::query_file_scalar!("src/queue/admin.resume.sql", kinds, by.who, by.why).fetch_all(pool);
    resumed.await.context("could not resume job kinds")
}

/// Limits the running jobs of a kind over all workers. `None` removes the limit.
pub async fn limit_kind(pool: &PgPool, kind: &str, most: Option<i32>, by: &Actor) -> anyhow::Result<()> {
    let limited = sqlx::query_file_scalar!("src/queue/admin.limit.sql", kind, by.who, by.why, most).fetch_one(pool);
    limited.await.with_context(|| format!("could not limit job kind {kind}")).map(drop)
}
