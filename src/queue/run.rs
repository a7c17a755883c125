//! What a running job holds in its hands: itself, a pool, its tools, and the one transaction of its step.
//!
//! The rule that makes a step's effects happen exactly once: its writes, the enqueue of what follows, its report and
//! the fence are one transaction ([`Run::begin`] … [`Step::done`]). The fence is the `where` of the statement that
//! completes the job: this job, this run, this worker, still running. A worker that was taken for dead and comes back
//! late finds no such row, and everything it did in the transaction is rolled back.

use super::engine::Engine;
use super::enqueue::{Enqueue, enqueue};
use super::event::Event;
use super::job::{Done, Job, Verdict};
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

/// How much later than the worker the server cuts a step off: were both to do it at once, a timeout would now and then
/// look like an error of the statement.
const GRACE: Duration = Duration::from_secs(5);

/// A job as this worker claimed it.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The job's id.
    pub id: i64,
    /// The kind it is stored under.
    pub kind: Arc<str>,
    /// What it is about.
    pub key: Option<Arc<str>>,
    /// The fence token of this run.
    pub run: i64,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// How many attempts there are.
    pub max_attempts: i32,
    /// The payload as stored.
    pub payload: serde_json::Value,
    /// When this worker learned that it has the job.
    pub(super) since: Instant,
    /// What its log lines stand in.
    pub(super) span: tracing::Span,
}

/// Things that jobs need and the queue knows nothing of (a store, a feed), found by their type.
#[derive(Clone, Default)]
pub struct Tools(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Tools {
    /// None.
    pub fn new() -> Tools {
        Tools::default()
    }

    /// The same and `tool`; a second tool of a type takes the place of the first.
    pub fn with<T: Send + Sync + 'static>(self, tool: T) -> Tools {
        self.with_arc(Arc::new(tool))
    }

    /// The same for a tool that is shared already.
    pub fn with_arc<T: Send + Sync + 'static>(mut self, tool: Arc<T>) -> Tools {
        self.0.insert(TypeId::of::<T>(), tool);
        self
    }

    fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }
}

impl std::fmt::Debug for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tools({})", self.0.len())
    }
}

/// A running job's handle on its surroundings; cheap to clone, so that a part of the work may take one along.
#[derive(Clone)]
pub struct Run {
    pub(super) engine: Arc<Engine>,
    pub(super) job: Arc<Claimed>,
    pub(super) timeout: Duration,
    /// Milliseconds from the claim to the last progress told.
    pub(super) told: Arc<AtomicU64>,
    /// The transactions of its steps, so that they can be ended at the server when the run is cut off.
    pub(super) backends: Backends,
    /// Why it is being tried again on the spot; for its history, should this try be done.
    pub(super) tried: Option<Arc<str>>,
}

/// Backends and when their transactions began, which together name a transaction and no later one.
pub(super) type Backends = Arc<Mutex<Vec<(i32, DateTime<Utc>)>>>;

impl Run {
    /// The job that runs.
    pub fn job(&self) -> &Claimed {
        &self.job
    }

    /// Connections for its work.
    pub fn pool(&self) -> &PgPool {
        &self.engine.pool
    }

    /// The tool of type `T` that the worker was given.
    pub fn tool<T: Send + Sync + 'static>(&self) -> anyhow::Result<Arc<T>> {
        self.engine
            .tools
            .get()
            .ok_or_else(|| anyhow!("this worker was started without a {}", std::any::type_name::<T>()))
    }

    /// Tells watchers how far the work is; at most twenty times a second, and for nothing when nobody watches.
    pub fn progress(&self, done: u64, total: u64) {
        let Some(watchers) = self.engine.watched() else { return };
        let now = self.job.since.elapsed().as_millis() as u64;
        if done < total && now < self.told.load(Ordering::Relaxed) + 50 {
            return;
        }
        self.told.store(now, Ordering::Relaxed);
        // An error means that the last watcher left between the two lines.
        let _ = watchers.send(Event::Progress { job: self.job.id, kind: self.job.kind.clone(), done, total });
    }

    /// Opens the step's transaction, unless the job is no longer ours. The server itself cuts the transaction off soon
    /// after the kind's time limit, so a worker that froze does not sit on its locks; and a worker that cuts its run off ends
    /// it there before anybody may try again.
    pub async fn begin(&self) -> anyhow::Result<Step> {
        let mut tx = self.engine.steps.begin().await.context("begin the step's transaction")?;
        let limit = ((self.timeout + GRACE).as_millis().clamp(1, i32::MAX as u128)).to_string();
        let ours =
            sqlx::query_file!("src/queue/run.begin.sql", self.job.id, self.job.run, self.engine.name, limit,)
                .fetch_optional(&mut *tx)
                .await
                .context("check that the job is still ours")?;
        let Some(ours) = ours else { return Err(Lost { job: self.job.id, run: self.job.run }.into()) };
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).push((ours.backend, ours.began));
        Ok(Step { tx, run: self.clone(), followed: false })
    }

    /// Done, for a job that has no transaction of its own: the completion is stored right after, under the fence.
    pub async fn done<R>(&self, report: R) -> Verdict<R> {
        Ok(Done { report, committed: false, note: self.tried.clone() })
    }
}

/// The run was taken away (its lease ran out) or ended by somebody else; its writes must not stand.
#[derive(Debug, thiserror::Error)]
#[error("job {job} is no longer held by this run ({run}): its lease ran out, or it was cancelled")]
pub struct Lost {
    /// The job's id.
    pub job: i64,
    /// The fence token that no longer fits.
    pub run: i64,
}

/// The step's one transaction: use it as a connection, then end it with [`Step::done`]. Dropped, it rolls back.
pub struct Step {
    tx: Transaction<'static, Postgres>,
    run: Run,
    /// Something follows, put in by this step.
    followed: bool,
}

impl Step {
    /// Puts in what follows, once per `key`, if and when this step commits; false when the key is taken. The commit then
    /// does not wait for the disk: that of what follows does, and the log has the two in their order.
    pub async fn enqueue<J: Job>(&mut self, job: &J, key: &str) -> anyhow::Result<bool> {
        let put_in = enqueue(&mut self.tx, job, Enqueue::once(key)).await?.is_some();
        self.followed |= put_in;
        Ok(put_in)
    }

    /// Completes the job and commits everything, or, where the job is no longer ours, nothing.
    pub async fn done<R: Serialize>(mut self, report: R) -> Verdict<R> {
        let result = serde_json::to_value(&report).context("write the report as JSON")?;
        let job = self.run.job.clone();
        let (name, note) = (&self.run.engine.name, self.run.tried.as_deref());
        let completed = complete(&mut self.tx, &job, name, result, note, self.followed).await;
        if !completed.context("complete the job")? {
            return Err(Lost { job: job.id, run: job.run }.into());
        }
        self.tx.commit().await.context("commit the step")?;
        Ok(Done { report, committed: true, note: None })
    }
}

/// Completes a job in the transaction of its step; false if the job is not `name`'s any more, or to be cancelled.
pub(super) async fn complete(
    connection: &mut PgConnection,
    job: &Claimed,
    name: &str,
    result: serde_json::Value,
    note: Option<&str>,
    followed: bool,
) -> sqlx::Result<bool> {
    let completed =
        sqlx::query_file!("src/queue/run.finish.sql", job.id, job.run, name, result, note, followed);
    Ok(completed.fetch_optional(connection).await?.is_some())
}

impl Deref for Step {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for Step {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}
