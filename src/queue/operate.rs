//! What operators see of the queue: jobs, their runs, counts, workers, what is paused, and ends as they happen.
//!
//! Everything here is one statement, so it needs no worker and takes no lock. The command line
//! draw from this one face; what they do to jobs is next door, in `steer`.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

/// Which jobs to list; empty lists mean all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// These kinds.
    pub kinds: Vec<String>,
    /// These states.
    pub states: Vec<String>,
    /// Keys that begin so, for example `copart/`.
    pub key: Option<String>,
    /// Of this source, whether the job names it or a file of it.
    pub source: Option<String>,
    /// Of the window that begins at this instant, whether the job names it or a file of it.
    pub window: Option<DateTime<Utc>>,
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
    /// Who asked that it be cancelled, and why, while it still runs.
    pub cancelling: Option<String>,
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

/// The end of a run, as it happens.
#[derive(Clone, Debug, Serialize)]
pub struct EndRow {
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// The job's id.
    pub job: i64,
    /// The run.
    pub run: i64,
    /// The job's kind.
    pub kind: String,
    /// What it is about.
    pub key: Option<String>,
    /// How the run ended.
    pub outcome: String,
    /// The state that the job is in now.
    pub state: String,
    /// The attempt it was.
    pub attempt: i32,
    /// Who ran it; for `requeued`, who put it back.
    pub worker: String,
    /// From claim to end.
    pub seconds: f64,
    /// Its error.
    pub error: Option<String>,
}

/// A worker of the fleet.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerRow {
    /// Host, process, time of start.
    pub name: String,
    /// What it serves.
    pub kinds: Vec<String>,
    /// Jobs it runs at once.
    pub concurrency: i32,
    /// Jobs in its hands when it was last seen.
    pub running: i32,
    /// working, draining or lost: not seen for a whole lease.
    pub state: String,
    /// Since when it works.
    pub started_at: DateTime<Utc>,
    /// When it was last seen.
    pub seen_at: DateTime<Utc>,
}

/// What operators said about a kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindRow {
    /// The kind.
    pub kind: String,
    /// So many at once in the whole fleet; any number if none.
    pub max_running: Option<i32>,
    /// Since when it is paused; none if it is not.
    pub paused_at: Option<DateTime<Utc>>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why.
    pub paused_because: Option<String>,
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
        filter.source,
        filter.window,
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
    let attempts = sqlx::query_file_as!(AttemptRow, "src/queue/operate.show.runs.sql", id)
        .fetch_all(pool)
        .await
        .with_context(|| format!("show the attempts of job {id}"))?;
    Ok(Some(Shown { job, attempts }))
}

/// Returns the job that holds the kind and key of a job that was given up; none if the key is free.
pub async fn successor(pool: &PgPool, id: i64) -> anyhow::Result<Option<i64>> {
    sqlx::query_scalar!(
        "-- queue: successor
        select other.id
        from fleet.jobs as job
        join fleet.jobs as other
          on (other.kind, other.key) = (job.kind, job.key)
          and other.id <> job.id
          and other.state not in ('cancelled', 'discarded')
          and (job.unique_over is null or other.state = any(job.unique_over))
        where job.id = $1
        limit 1",
        id
    )
    .fetch_optional(pool)
    .await
    .with_context(|| format!("look for the successor of job {id}"))
}

/// Jobs by kind and state, and how long the oldest due one has been waiting.
pub async fn stats(pool: &PgPool) -> anyhow::Result<Vec<Count>> {
    counts(pool, &Filter::default()).await
}

/// The same of the jobs that match; the filter's limit does not matter.
pub async fn counts(pool: &PgPool, filter: &Filter) -> anyhow::Result<Vec<Count>> {
    sqlx::query_file_as!(
        Count,
        "src/queue/operate.stats.sql",
        &filter.kinds,
        &filter.states,
        filter.key,
        filter.since,
        filter.error,
        filter.source,
        filter.window,
    )
    .fetch_all(pool)
    .await
    .context("count jobs")
}

/// The ids of the jobs that match, the newest first; all of them if there is no limit.
pub async fn ids(pool: &PgPool, filter: &Filter) -> anyhow::Result<Vec<i64>> {
    sqlx::query_file_scalar!(
        "src/queue/operate.ids.sql",
        &filter.kinds,
        &filter.states,
        filter.key,
        filter.since,
        filter.error,
        filter.limit,
        filter.source,
        filter.window,
    )
    .fetch_all(pool)
    .await
    .context("look for jobs")
}

/// Ends of runs at or after `since` (the filter's own is not looked at), in their order. An end is dated when its
/// transaction begins, so one may come to light after a younger one: ask from some seconds before the last seen.
pub async fn ends(pool: &PgPool, since: DateTime<Utc>, filter: &Filter) -> anyhow::Result<Vec<EndRow>> {
    sqlx::query_file_as!(
        EndRow,
        "src/queue/operate.ends.sql",
        &filter.kinds,
        &filter.states,
        filter.key,
        since,
        filter.error,
        filter.source,
        filter.window,
    )
    .fetch_all(pool)
    .await
    .context("look for ends of jobs")
}

/// The database's clock.
pub async fn now(pool: &PgPool) -> anyhow::Result<DateTime<Utc>> {
    let now = sqlx::query_scalar!(
        r#"-- queue: clock
        select clock_timestamp() as "now!""#
    );
    now.fetch_one(pool).await.context("read the database's clock")
}

/// The workers, the longest at work first.
pub async fn workers(pool: &PgPool) -> anyhow::Result<Vec<WorkerRow>> {
    sqlx::query_as!(
        WorkerRow,
        r#"-- queue: workers
        select name, kinds, concurrency, running, started_at, seen_at,
          case when seen_at < now() - lease then 'lost' when draining then 'draining' else 'working' end as "state!"
        from fleet.workers
        order by started_at, name"#
    )
    .fetch_all(pool)
    .await
    .context("list workers")
}

/// What is paused or limited.
pub async fn kinds(pool: &PgPool) -> anyhow::Result<Vec<KindRow>> {
    sqlx::query_as!(
        KindRow,
        "-- queue: kinds
        select kind, max_running, paused_at, paused_by, paused_because
        from fleet.kinds
        where max_running is not null or paused_at is not null
        order by kind"
    )
    .fetch_all(pool)
    .await
    .context("list what is paused or limited")
}
