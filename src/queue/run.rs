//! The handle of a running job: the job, a pool, the worker's extensions, and the transaction of the step.
//!
//! One rule makes the effects of a step happen exactly once: the step's writes, the enqueue of the next job, the report
//! and the fence are one transaction ([`JobRun::begin_step`] … [`JobTransaction::done`]). The fence is the `where`
//! clause of the statement that completes the job: this job, this run, this worker, still running. A worker that was
//! only thought dead matches no row, and everything in the transaction is rolled back.

use super::enqueue::{EnqueueOptions, enqueue_job};
use super::event::WorkerEvent;
use super::job::{Job, JobDone, JobResult};
use super::worker_state::WorkerState;
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time after the worker's timeout at which the server cuts off a step.
///
/// If both did so at the same time, a timeout could look like an error of the statement.
const SERVER_TIMEOUT_MARGIN: Duration = Duration::from_secs(5);

/// A job as this worker claimed it.
#[derive(Clone, Debug)]
pub struct ClaimedJob {
    /// Id of the job.
    pub id: i64,
    /// Kind under which the job is stored.
    pub kind: Arc<str>,
    /// Key of the job, its subject.
    pub key: Option<Arc<str>>,
    /// Fence token of this run.
    pub run: i64,
    /// Number of this attempt, from 1.
    pub attempt: i32,
    /// Maximum number of attempts.
    pub max_attempts: i32,
    /// Payload as stored.
    pub payload: serde_json::Value,
    /// Time at which the response to the claim arrived.
    pub(super) since: Instant,
    /// Span of the run's log lines.
    pub(super) span: tracing::Span,
}

/// Values that jobs need and the queue does not define (a store, a feed), found by their type.
#[derive(Clone, Default)]
pub struct Extensions(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Extensions {
    /// Returns an empty set.
    pub fn new() -> Extensions {
        Extensions::default()
    }

    /// Adds a value. A second value of a type replaces the first.
    pub fn with<T: Send + Sync + 'static>(self, tool: T) -> Extensions {
        self.with_arc(Arc::new(tool))
    }

    /// Adds a value that is already shared.
    pub fn with_arc<T: Send + Sync + 'static>(mut self, tool: Arc<T>) -> Extensions {
        self.0.insert(TypeId::of::<T>(), tool);
        self
    }

    fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }
}

impl std::fmt::Debug for Extensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tools({})", self.0.len())
    }
}

/// The handle of a running job. Cheap to clone, so each task of the job can have one.
#[derive(Clone)]
pub struct JobRun {
    pub(super) engine: Arc<WorkerState>,
    pub(super) job: Arc<ClaimedJob>,
    pub(super) timeout: Duration,
    /// Milliseconds from the claim to the latest progress event.
    pub(super) last_progress_ms: Arc<AtomicU64>,
    /// The transactions of the run's steps, to be terminated at the server when the run is cut off.
    pub(super) backends: StepBackends,
    /// Reason of an immediate retry, stored in the history if this retry is done.
    pub(super) tried: Option<Arc<str>>,
}

/// Server processes and the start times of their transactions. Both together identify a transaction, and no later one.
pub(super) type StepBackends = Arc<Mutex<Vec<(i32, DateTime<Utc>)>>>;

impl JobRun {
    /// Returns the claimed job.
    pub fn job(&self) -> &ClaimedJob {
        &self.job
    }

    /// Returns the pool for work outside the step.
    pub fn pool(&self) -> &PgPool {
        &self.engine.pool
    }

    /// Returns the worker's extension of type `T`.
    ///
    /// # Errors
    ///
    /// Returns an error if the worker has no value of this type.
    pub fn extension<T: Send + Sync + 'static>(&self) -> anyhow::Result<Arc<T>> {
        self.engine
            .tools
            .get()
            .ok_or_else(|| anyhow!("the worker has no extension of type {}", std::any::type_name::<T>()))
    }

    /// Sends a progress event, at most twenty times a second. Without receivers this does nothing.
    pub fn report_progress(&self, done: u64, total: u64) {
        let Some(watchers) = self.engine.event_sender() else { return };
        let now = self.job.since.elapsed().as_millis() as u64;
        if done < total && now < self.last_progress_ms.load(Ordering::Relaxed) + 50 {
            return;
        }
        self.last_progress_ms.store(now, Ordering::Relaxed);
        // An error means that the last receiver was dropped between the two statements.
        let _ = watchers.send(WorkerEvent::Progress { job: self.job.id, kind: self.job.kind.clone(), done, total });
    }

    /// Opens the transaction of the step.
    ///
    /// The server itself cuts the transaction off soon after the timeout of the kind, so a frozen worker does not keep
    /// its locks. A worker that cuts a run off terminates the transaction at the server before the job can run again.
    ///
    /// # Errors
    ///
    /// Returns [`LeaseLost`] if this run no longer has the job.
    pub async fn begin_step(&self) -> anyhow::Result<JobTransaction> {
        let mut tx = self.engine.steps.begin().await.context("could not begin the transaction of the step")?;
        let limit = ((self.timeout + SERVER_TIMEOUT_MARGIN).as_millis().clamp(1, i32::MAX as u128)).to_string();
        let ours = sqlx::query_file!("src/queue/run.begin.sql", self.job.id, self.job.run, self.engine.name, limit,)
            .fetch_optional(&mut *tx)
            .await
            .context("could not check the holder of the job")?;
        let Some(ours) = ours else { return Err(LeaseLost { job: self.job.id, run: self.job.run }.into()) };
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).push((ours.backend, ours.began));
        Ok(JobTransaction { tx, run: self.clone(), followed: false })
    }

    /// Returns the result of a job without a step. The completer then stores the completion, under the fence.
    pub async fn done<R>(&self, report: R) -> JobResult<R> {
        Ok(JobDone { report, committed: false, note: self.tried.clone() })
    }
}

/// The error of a run that no longer has its job: the lease expired, or the job was cancelled. Its writes are rolled
/// back.
#[derive(Debug, thiserror::Error)]
#[error("job {job} is no longer held by run {run}\ndetail: its lease expired, or the job was cancelled")]
pub struct LeaseLost {
    /// Id of the job.
    pub job: i64,
    /// Fence token that no longer matches.
    pub run: i64,
}

/// The transaction of a step. Used as a connection and ended with [`JobTransaction::done`]. Rolls back when dropped.
pub struct JobTransaction {
    tx: Transaction<'static, Postgres>,
    run: JobRun,
    /// True if this step has enqueued a next job.
    followed: bool,
}

impl JobTransaction {
    /// Enqueues the next job in this transaction. Returns `false` if `key` is already in use.
    ///
    /// The step then commits with `synchronous_commit = off`: the commit of the next job flushes both, in WAL order.
    pub async fn enqueue_next<J: Job>(&mut self, job: &J, key: &str) -> anyhow::Result<bool> {
        let put_in = enqueue_job(&mut self.tx, job, EnqueueOptions::with_key(key)).await?.is_some();
        self.followed |= put_in;
        Ok(put_in)
    }

    /// Completes the job and commits the transaction.
    ///
    /// # Errors
    ///
    /// Returns [`LeaseLost`] if this run no longer has the job. Then the transaction is rolled back.
    pub async fn done<R: Serialize>(mut self, report: R) -> JobResult<R> {
        let result = serde_json::to_value(&report).context("could not encode the report as JSON")?;
        let job = self.run.job.clone();
        let (name, note) = (&self.run.engine.name, self.run.tried.as_deref());
        let completed = complete_job(&mut self.tx, &job, name, result, note, self.followed).await;
        if !completed.context("could not complete the job")? {
            return Err(LeaseLost { job: job.id, run: job.run }.into());
        }
        self.tx.commit().await.context("could not commit the step")?;
        Ok(JobDone { report, committed: true, note: None })
    }
}

/// Completes a job in the transaction of its step. Returns false if the worker `name` no longer holds the job, or if
/// the job has a cancel request.
pub(super) async fn complete_job(
    connection: &mut PgConnection,
    job: &ClaimedJob,
    name: &str,
    result: serde_json::Value,
    note: Option<&str>,
    followed: bool,
) -> sqlx::Result<bool> {
    let completed = sqlx::query_file!("src/queue/run.finish.sql", job.id, job.run, name, result, note, followed);
    Ok(completed.fetch_optional(connection).await?.is_some())
}

impl Deref for JobTransaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for JobTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}
