//! The operators' queries of the queue: jobs, runs, counts, workers, paused and limited kinds, finished runs.
//!
//! Each query is one statement, so it needs no worker and takes no lock. The command line uses only these queries. The
//! commands that change jobs are in `admin`.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

/// A filter of jobs. Empty lists and `None` match all jobs.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Kinds to match.
    pub kinds: Vec<String>,
    /// States to match.
    pub states: Vec<String>,
    /// Prefix of the key, for example `copart/`.
    pub key: Option<String>,
    /// Source of the job, named by the job or by its file.
    pub source: Option<String>,
    /// Start of the job's window, named by the job or by its file.
    pub window: Option<DateTime<Utc>>,
    /// Earliest time of creation.
    pub since: Option<DateTime<Utc>>,
    /// Text that the latest error contains.
    pub error: Option<String>,
    /// Maximum number of jobs, newest first. Default of `list`: 50.
    pub limit: Option<i64>,
}

/// A job as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct JobRow {
    /// Id of the job.
    pub id: i64,
    /// Kind of the job.
    pub kind: String,
    /// Key of the job, its subject.
    pub key: Option<String>,
    /// State: available, scheduled, running, retryable, completed, cancelled or discarded.
    pub state: String,
    /// Smaller numbers run first.
    pub priority: i16,
    /// Earliest time of the next run.
    pub run_at: DateTime<Utc>,
    /// Spent attempts, the running one included.
    pub attempt: i32,
    /// Attempts before the job is discarded.
    pub max_attempts: i32,
    /// Leases lost to dead workers.
    pub rescues: i32,
    /// The worker that runs the job.
    pub locked_by: Option<String>,
    /// End of that worker's lease.
    pub lease_until: Option<DateTime<Utc>>,
    /// Actor and reason of a cancel request, while the job still runs.
    pub cancelling: Option<String>,
    /// Payload as stored.
    pub payload: Value,
    /// Report of a completed job.
    pub result: Option<Value>,
    /// Latest error.
    pub error: Option<String>,
    /// Time of the enqueue.
    pub created_at: DateTime<Utc>,
    /// Time of the latest claim.
    pub started_at: Option<DateTime<Utc>>,
    /// Time at which the job became completed, cancelled or discarded.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One run of a job, or one operator command on the job.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptRow {
    /// Fence token of the run.
    pub run: i64,
    /// Number of the attempt.
    pub attempt: i32,
    /// The worker of the run. For `requeued`, the operator.
    pub worker: String,
    /// Time of the claim.
    pub started_at: DateTime<Utc>,
    /// End of the run.
    pub finished_at: Option<DateTime<Utc>>,
    /// Outcome of the run, null while the job runs.
    pub outcome: Option<String>,
    /// Error of the run. For `requeued`, the reason.
    pub error: Option<String>,
}

/// A job with all runs, oldest first.
#[derive(Clone, Debug, Serialize)]
pub struct JobDetails {
    /// The job.
    #[serde(flatten)]
    pub job: JobRow,
    /// Runs and operator commands of the job.
    pub attempts: Vec<AttemptRow>,
}

/// A finished run.
#[derive(Clone, Debug, Serialize)]
pub struct RunEndRow {
    /// End of the run.
    pub finished_at: DateTime<Utc>,
    /// Id of the job.
    pub job: i64,
    /// Fence token of the run.
    pub run: i64,
    /// Kind of the job.
    pub kind: String,
    /// Key of the job, its subject.
    pub key: Option<String>,
    /// Outcome of the run.
    pub outcome: String,
    /// Present state of the job.
    pub state: String,
    /// Number of the attempt.
    pub attempt: i32,
    /// The worker of the run. For `requeued`, the operator.
    pub worker: String,
    /// Time from claim to end, in seconds.
    pub seconds: f64,
    /// Error of the run.
    pub error: Option<String>,
}

/// A registered worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerRow {
    /// Name: host, pid and time of start.
    pub name: String,
    /// Kinds that the worker serves.
    pub kinds: Vec<String>,
    /// Maximum number of concurrent jobs.
    pub concurrency: i32,
    /// Jobs of the worker at the latest heartbeat.
    pub running: i32,
    /// State: working, draining, or lost (no heartbeat for a whole lease).
    pub state: String,
    /// Start of the worker.
    pub started_at: DateTime<Utc>,
    /// Time of the latest heartbeat.
    pub seen_at: DateTime<Utc>,
}

/// The operators' settings of a job kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindSettingsRow {
    /// Kind of job.
    pub kind: String,
    /// Maximum number of running jobs over all workers, null if unlimited.
    pub max_running: Option<i32>,
    /// Start of the pause, null if the kind is not paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// The operator who paused the kind.
    pub paused_by: Option<String>,
    /// Reason of the pause.
    pub paused_because: Option<String>,
}

/// The number of jobs of a kind in a state.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobCount {
    /// Kind of the jobs.
    pub kind: String,
    /// State of the jobs.
    pub state: String,
    /// Number of jobs.
    pub jobs: i64,
    /// Number of waiting jobs that are due.
    pub ready: i64,
    /// Seconds since the oldest due job became due, null if no job is due.
    pub oldest_ready_seconds: Option<f64>,
}

/// Returns the jobs that match, newest first.
pub async fn list_jobs(pool: &PgPool, filter: &JobFilter) -> anyhow::Result<Vec<JobRow>> {
    sqlx::query_file_as!(
        JobRow,
        "src/queue/queries.list.sql",
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
    .context("could not list jobs")
}

/// Returns a job and its history, or `None` if the job does not exist.
pub async fn job_details(pool: &PgPool, id: i64) -> anyhow::Result<Option<JobDetails>> {
    let job = sqlx::query_file_as!(JobRow, "src/queue/queries.show.sql", id)
        .fetch_optional(pool)
        .await
        .with_context(|| format!("could not read job {id}"))?;
    let Some(job) = job else { return Ok(None) };
    let attempts = sqlx::query_file_as!(AttemptRow, "src/queue/queries.show.runs.sql", id)
        .fetch_all(pool)
        .await
        .with_context(|| format!("could not read the runs of job {id}"))?;
    Ok(Some(JobDetails { job, attempts }))
}

/// Returns the job that now uses the kind and key of a cancelled or discarded job, or `None` if the key is free.
pub async fn find_successor(pool: &PgPool, id: i64) -> anyhow::Result<Option<i64>> {
    sqlx::query_scalar!(
        "-- queue: successor
        select holder.id
        from fleet.jobs as job
        join fleet.jobs as holder
          on (holder.kind, holder.key) = (job.kind, job.key)
          and holder.id <> job.id
          and holder.state not in ('cancelled', 'discarded')
          and (job.unique_over is null or holder.state = any(job.unique_over))
        where job.id = $1
        limit 1",
        id
    )
    .fetch_optional(pool)
    .await
    .with_context(|| format!("could not look up the successor of job {id}"))
}

/// Counts all jobs by kind and state, and returns the age of the oldest due job.
pub async fn job_stats(pool: &PgPool) -> anyhow::Result<Vec<JobCount>> {
    count_jobs(pool, &JobFilter::default()).await
}

/// Counts the jobs that match, by kind and state. Ignores the limit of the filter.
pub async fn count_jobs(pool: &PgPool, filter: &JobFilter) -> anyhow::Result<Vec<JobCount>> {
    sqlx::query_file_as!(
        JobCount,
        "src/queue/queries.stats.sql",
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
    .context("could not count jobs")
}

/// Returns the ids of the jobs that match, newest first. Without a limit, all of them.
pub async fn job_ids(pool: &PgPool, filter: &JobFilter) -> anyhow::Result<Vec<i64>> {
    sqlx::query_file_scalar!(
        "src/queue/queries.ids.sql",
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
    .context("could not look up jobs")
}

/// Returns the runs that ended at or after `since`, oldest first. Ignores the filter's own `since`.
///
/// The end of a run is the time at which its transaction began, so a run may become visible after a younger one.
/// Callers that poll should overlap their queries by some seconds.
pub async fn list_run_ends(pool: &PgPool, since: DateTime<Utc>, filter: &JobFilter) -> anyhow::Result<Vec<RunEndRow>> {
    sqlx::query_file_as!(
        RunEndRow,
        "src/queue/queries.ends.sql",
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
    .context("could not list finished runs")
}

/// Returns the time of the database's clock.
pub async fn database_time(pool: &PgPool) -> anyhow::Result<DateTime<Utc>> {
    let now = sqlx::query_scalar!(
        r#"-- queue: clock
        select clock_timestamp() as "now!""#
    );
    now.fetch_one(pool).await.context("could not read the clock of the database")
}

/// Returns the registered workers, oldest first.
pub async fn list_workers(pool: &PgPool) -> anyhow::Result<Vec<WorkerRow>> {
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
    .context("could not list workers")
}

/// Returns the settings of the paused or limited job kinds.
pub async fn list_kind_settings(pool: &PgPool) -> anyhow::Result<Vec<KindSettingsRow>> {
    sqlx::query_as!(
        KindSettingsRow,
        "-- queue: kinds
        select kind, max_running, paused_at, paused_by, paused_because
        from fleet.job_kind_settings
        where max_running is not null or paused_at is not null
        order by kind"
    )
    .fetch_all(pool)
    .await
    .context("could not list paused and limited job kinds")
}
