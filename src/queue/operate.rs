//! What operators see of the queue and do to it: list, show, count, requeue.
//!
//! Everything here is one statement on `fleet.jobs`, so it needs no worker and no lock beyond the job's row. The
//! command line, the console and the API draw from this one face.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use std::fmt::Display;

/// Which jobs to list; empty lists mean all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// These kinds.
    pub kinds: Vec<String>,
    /// These states.
    pub states: Vec<String>,
    /// Keys that begin so, for example `copart/`.
    pub key: Option<String>,
    /// Put in at or after this instant.
    pub since: Option<DateTime<Utc>>,
    /// Whose latest error contains this.
    pub error: Option<String>,
    /// At most so many, the newest first; 50 if none.
    pub limit: Option<i64>,
}

/// A job as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct JobRow {
    /// The job's id.
    pub id: i64,
    /// What it does.
    pub kind: String,
    /// What it is about.
    pub key: Option<String>,
    /// available, scheduled, running, retryable, completed, cancelled or discarded.
    pub state: String,
    /// The smaller number runs first.
    pub priority: i16,
    /// Not before this instant.
    pub run_at: DateTime<Utc>,
    /// Spent attempts, the running one included.
    pub attempt: i32,
    /// Attempts before it is discarded.
    pub max_attempts: i32,
    /// Leases lost to dead workers.
    pub rescues: i32,
    /// The worker that runs it.
    pub locked_by: Option<String>,
    /// When that worker's lease runs out.
    pub lease_until: Option<DateTime<Utc>>,
    /// Its payload.
    pub payload: Value,
    /// Its report, once completed.
    pub result: Option<Value>,
    /// Its latest error.
    pub error: Option<String>,
    /// When it was put in.
    pub created_at: DateTime<Utc>,
    /// When it was last claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended for good.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One run of a job, or one thing an operator did to it.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// The fence token of the run.
    pub run: i64,
    /// The number of the attempt it was.
    pub attempt: i32,
    /// Who ran it; for `requeued`, who put it back.
    pub worker: String,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended; none while it runs.
    pub outcome: Option<String>,
    /// Its error; for `requeued`, why.
    pub error: Option<String>,
}

/// A job with all its runs, the first one first.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// The job.
    #[serde(flatten)]
    pub job: JobRow,
    /// Its history.
    pub attempts: Vec<AttemptRow>,
}

/// How many jobs of a kind are in a state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Count {
    /// The kind.
    pub kind: String,
    /// The state.
    pub state: String,
    /// How many.
    pub jobs: i64,
    /// Of the waiting ones, how many are due.
    pub ready: i64,
    /// Since when the longest waiting due one has been due, in seconds; none if none is due.
    pub oldest_ready_seconds: Option<f64>,
}

/// The jobs that match, the newest first.
pub async fn list(pool: &PgPool, filter: &Filter) -> anyhow::Result<Vec<JobRow>> {
    sqlx::query_file_as!(
        JobRow,
        "src/queue/operate.list.sql",
        &filter.kinds,
        &filter.states,
        filter.key,
        filter.since,
        filter.error,
        filter.limit.unwrap_or(50),
    )
    .fetch_all(pool)
    .await
    .context("list jobs")
}

/// A job and its history; none if there is no such job.
pub async fn show(pool: &PgPool, id: i64) -> anyhow::Result<Option<Shown>> {
    let job = sqlx::query_file_as!(JobRow, "src/queue/operate.show.sql", id)
        .fetch_optional(pool)
        .await
        .with_context(|| format!("show job {id}"))?;
    let Some(job) = job else { return Ok(None) };
    let attempts = sqlx::query_as!(
        AttemptRow,
        "-- queue: show attempts
        select run, attempt, worker, started_at, finished_at, outcome, error
        from fleet.job_attempts
        where job_id = $1
        order by run",
        id,
    )
    .fetch_all(pool)
    .await
    .with_context(|| format!("show the attempts of job {id}"))?;
    Ok(Some(Shown { job, attempts }))
}

/// Puts an ended or waiting job back as due now with all its attempts, and notes who did it and why in its history.
/// The fence token goes up by one, so nothing of an earlier run can still end it.
pub async fn requeue(pool: &PgPool, id: i64, who: impl Display, why: impl Display) -> anyhow::Result<()> {
    let (who, why) = (who.to_string(), why.to_string());
    let requeued =
        sqlx::query_file_scalar!("src/queue/operate.requeue.sql", id, who, why).fetch_optional(pool).await;
    match requeued {
        Ok(Some(_)) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => bail!(
            "job {id} stays as it is: another job of its kind and key waits, runs or is completed; \
             requeue that one, or cancel it first"
        ),
        Err(error) => Err(error).with_context(|| format!("requeue job {id}")),
        Ok(None) => match show(pool, id).await? {
            None => bail!("there is no job {id}; `vinops jobs list` shows those there are"),
            Some(Shown { job, .. }) => bail!(
                "job {id} ({}) is {}; only a job that is not running can be requeued: wait for its end, which its \
                 lease bounds",
                job.kind,
                job.state,
            ),
        },
    }
}

/// Jobs by kind and state, and how long the oldest due one has been waiting.
pub async fn stats(pool: &PgPool) -> anyhow::Result<Vec<Count>> {
    sqlx::query_file_as!(Count, "src/queue/operate.stats.sql").fetch_all(pool).await.context("count jobs")
}
