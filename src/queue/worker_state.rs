//! The state shared by the tasks of one worker: the worker's name, the claimed jobs, and the signals between the tasks.
//!
//! The worker's tasks have a pool of their own with five connections, of which claimer and completer keep one each. If
//! they shared the handlers' pool, ten handlers waiting for connections would also delay the lease renewals, and a busy
//! worker would look like a dead one.

use super::completer::RunResult;
use super::event::{RunOutcome, WorkerEvent};
use super::outage::{OutageTracker, log_conflict};
use super::prune::Retention;
use super::registry::JobDefinition;
use super::retry_transient::{MAX_BACKOFF_DELAY, transient_backoff};
use super::run::Extensions;
use crate::db::Database;
use crate::db::transient::is_conflict;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// A worker's shared state.
pub(super) struct WorkerState {
    /// Globally unique name of the worker, one half of the fence.
    pub name: String,
    /// The connections of the handlers.
    pub pool: PgPool,
    /// The connections of the handlers' steps, one per slot.
    ///
    /// A run has one step at a time, and a run that was cut off releases its connection within moments. A pool returns
    /// the connection idle for longest. Here, that connection's server process has already cached the tables, since
    /// only steps use them.
    pub steps: PgPool,
    /// The connections of the worker's own tasks.
    pub own: PgPool,
    pub db: Database,
    pub entries: Vec<&'static JobDefinition>,
    /// The kinds that the worker serves, aliases included, sorted by name.
    pub served: Vec<KindState>,
    /// The names of the served kinds, in the same order.
    pub kinds: Vec<String>,
    pub tools: Extensions,
    pub settings: WorkerSettings,
    /// Slots for handlers. A claimed job without a slot has not started.
    pub slots: Semaphore,
    /// Wakes the claimer.
    pub claim_signal: Notify,
    /// Wakes the lease renewer before its next tick: one of the worker's jobs may have a cancel request.
    pub renew: Notify,
    /// Cancelled when the worker shuts down: no more claims, no more starts.
    pub draining: CancellationToken,
    /// Cancelled when the drain timeout is over: running jobs are cut off.
    pub deadline: CancellationToken,
    pub counts: WorkerCounters,
    pub away: OutageTracker,
    watchers: Option<broadcast::Sender<WorkerEvent>>,
    endings: mpsc::UnboundedSender<RunResult>,
    held: Mutex<HashMap<i64, HeldJob>>,
    /// Signals that a job was removed from `held`.
    pub freed: Notify,
}

/// The settings of a worker.
#[derive(Clone, Copy)]
pub(super) struct WorkerSettings {
    pub concurrency: usize,
    pub prefetch: usize,
    pub lease: Duration,
    pub poll: Duration,
    pub drain: Duration,
    pub keep: Retention,
}

/// The limits that a worker applies to one kind of job.
pub(super) struct KindState {
    pub kind: String,
    /// True if jobs of the kind may be claimed ahead of free slots.
    pub prefetchable: bool,
    /// Maximum number of jobs of the kind that this worker runs at a time.
    pub at_most: usize,
}

/// The number of jobs that a worker may claim now.
pub(super) struct Capacity {
    /// Jobs that can start immediately.
    pub slots: usize,
    /// Further jobs of prefetchable kinds.
    pub ahead: usize,
    /// Maximum for each served kind, in their order.
    pub kinds: Vec<i64>,
}

/// A job that this worker has claimed and whose result is not stored yet.
#[derive(Clone)]
pub(super) struct HeldJob {
    pub run: i64,
    pub kind: Arc<str>,
    /// True once the handler has ended: the job occupies no slot, and the result is not stored yet.
    pub over: bool,
    /// Cancelled when the lease is found lost.
    pub lost: CancellationToken,
    /// Cancelled when the job has a cancel request.
    pub cancelled: CancellationToken,
}

/// Running totals of a worker.
#[derive(Default)]
pub(super) struct WorkerCounters {
    pub claimed: AtomicU64,
    pub done: AtomicU64,
    pub failed: AtomicU64,
    pub discarded: AtomicU64,
    pub snoozed: AtomicU64,
    pub cancelled: AtomicU64,
    pub interrupted: AtomicU64,
    pub returned: AtomicU64,
    pub lost: AtomicU64,
    pub stale: AtomicU64,
    pub rescued: AtomicU64,
}

/// Totals of a worker from start to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WorkerSummary {
    /// Jobs claimed.
    pub claimed: u64,
    /// Runs with outcome `done`.
    pub done: u64,
    /// Runs that failed: errors, panics, timeouts.
    pub failed: u64,
    /// Jobs discarded by this worker's runs.
    pub discarded: u64,
    /// Runs that were snoozed.
    pub snoozed: u64,
    /// Jobs cancelled by request while this worker had them.
    pub cancelled: u64,
    /// Runs cut off by the drain's deadline.
    pub interrupted: u64,
    /// Jobs released before they started.
    pub returned: u64,
    /// Runs whose lease was lost.
    pub lost: u64,
    /// Results that arrived too late to count and were dropped.
    pub stale: u64,
    /// Jobs of dead workers rescued by this worker.
    pub rescued: u64,
}

impl WorkerCounters {
    pub fn summary(&self) -> WorkerSummary {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WorkerSummary {
            claimed: load(&self.claimed),
            done: load(&self.done),
            failed: load(&self.failed),
            discarded: load(&self.discarded),
            snoozed: load(&self.snoozed),
            cancelled: load(&self.cancelled),
            interrupted: load(&self.interrupted),
            returned: load(&self.returned),
            lost: load(&self.lost),
            stale: load(&self.stale),
            rescued: load(&self.rescued),
        }
    }
}

pub(super) fn increment_counter(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl WorkerState {
    pub fn new(
        db: &Database,
        entries: Vec<&'static JobDefinition>,
        at_most: &HashMap<String, usize>,
        tools: Extensions,
        settings: WorkerSettings,
        watchers: Option<broadcast::Sender<WorkerEvent>>,
        endings: mpsc::UnboundedSender<RunResult>,
    ) -> WorkerState {
        let names = entries.iter().flat_map(|e| std::iter::once(&e.kind).chain(e.aliases).map(move |kind| (e, kind)));
        let mut served: Vec<KindState> = names
            .map(|(entry, kind)| KindState {
                kind: kind.to_string(),
                prefetchable: entry.policy.prefetchable,
                at_most: at_most.get(entry.kind).copied().unwrap_or(usize::MAX),
            })
            .collect();
        served.sort_by(|a, b| a.kind.cmp(&b.kind));
        WorkerState {
            name: worker_name(),
            pool: db.pool.clone(),
            own: crate::db::pool_options()
                .max_connections(5)
                // A dead connection fails its first query, and all these queries are retried.
                .test_before_acquire(false)
                .acquire_timeout(Duration::from_secs(5))
                .connect_lazy_with((*db.pool.connect_options()).clone()),
            steps: db
                .pool
                .options()
                .clone()
                .max_connections(u32::try_from(settings.concurrency).unwrap_or(u32::MAX))
                .connect_lazy_with((*db.pool.connect_options()).clone()),
            db: db.clone(),
            kinds: served.iter().map(|served| served.kind.clone()).collect(),
            served,
            entries,
            tools,
            settings,
            slots: Semaphore::new(settings.concurrency),
            claim_signal: Notify::new(),
            renew: Notify::new(),
            draining: CancellationToken::new(),
            deadline: CancellationToken::new(),
            counts: WorkerCounters::default(),
            away: OutageTracker::default(),
            watchers,
            endings,
            held: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Returns the number of jobs the worker may claim now, or `None` for no claim.
    ///
    /// A run whose result is not stored yet occupies no slot, or each slot would be idle during the disk write. Beyond
    /// the number of slots and prefetched jobs, each such run reduces the capacity by one.
    pub fn free_capacity(&self) -> Option<Capacity> {
        let held = self.lock_held();
        let all = self.settings.concurrency + self.settings.prefetch;
        let open = held.values().filter(|hold| !hold.over).count();
        let all = all.saturating_sub((held.len() - open).saturating_sub(all));
        let slots = self.settings.concurrency.min(all).saturating_sub(open);
        let ahead =
            if self.served.iter().any(|served| served.prefetchable) { all.saturating_sub(open + slots) } else { 0 };
        let room = |served: &KindState| {
            let most = if served.prefetchable { slots + ahead } else { slots };
            if served.at_most == usize::MAX {
                return most as i64;
            }
            let taken = held.values().filter(|hold| !hold.over && *hold.kind == *served.kind).count();
            most.min(served.at_most.saturating_sub(taken)) as i64
        };
        // While half of the prefetched jobs are left, a claim would cost the same and return few jobs.
        if slots == 0 && ahead < self.settings.prefetch.div_ceil(2) {
            return None;
        }
        let kinds: Vec<i64> = self.served.iter().map(room).collect();
        kinds.iter().any(|room| *room > 0).then_some(Capacity { slots, ahead, kinds })
    }

    /// Returns the result of a query, or an error after a third of the lease (at least 5 s, at most 10 s).
    pub async fn with_query_timeout<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let query_timeout = (self.settings.lease / 3).clamp(Duration::from_secs(5), Duration::from_secs(10));
        let answered = tokio::time::timeout(query_timeout, asked).await;
        answered.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    pub fn track(&self, job: i64, run: i64, kind: Arc<str>) {
        let (lost, cancelled) = (CancellationToken::new(), CancellationToken::new());
        self.lock_held().insert(job, HeldJob { run, kind, over: false, lost, cancelled });
    }

    /// Returns the number of held jobs.
    pub fn held_count(&self) -> usize {
        self.lock_held().len()
    }

    pub fn held_job(&self, job: i64) -> Option<HeldJob> {
        self.lock_held().get(&job).cloned()
    }

    pub fn held_jobs(&self) -> Vec<(i64, HeldJob)> {
        self.lock_held().iter().map(|(job, hold)| (*job, hold.clone())).collect()
    }

    /// Removes a run from the held jobs. A later run of the same job stays held.
    pub fn untrack(&self, job: i64, run: i64) {
        let mut held = self.lock_held();
        if held.get(&job).is_some_and(|hold| hold.run == run) {
            held.remove(&job);
        }
        drop(held);
        self.claim_signal.notify_one();
        self.freed.notify_one();
    }

    /// Returns the channel for events, or `None` without receivers.
    pub fn event_sender(&self) -> Option<&broadcast::Sender<WorkerEvent>> {
        self.watchers.as_ref().filter(|watchers| watchers.receiver_count() > 0)
    }

    /// Counts the result of a run and sends it to the completer.
    pub fn report_result(&self, ending: RunResult) {
        let counter = match ending.outcome {
            RunOutcome::Done => &self.counts.done,
            RunOutcome::Retry
            | RunOutcome::Panic
            | RunOutcome::Timeout
            | RunOutcome::Abort
            | RunOutcome::Unreadable => &self.counts.failed,
            RunOutcome::Snooze => &self.counts.snoozed,
            RunOutcome::Cancelled => &self.counts.cancelled,
            RunOutcome::Interrupted => &self.counts.interrupted,
            RunOutcome::Released => &self.counts.returned,
            RunOutcome::Lost => &self.counts.lost,
        };
        increment_counter(counter, 1);
        if let Some(hold) = self.lock_held().get_mut(&ending.job.id).filter(|hold| hold.run == ending.job.run) {
            hold.over = true;
        }
        self.claim_signal.notify_one();
        // An error means that the worker has already ended. The job is rescued when its lease expires.
        let _ = self.endings.send(ending);
    }

    fn lock_held(&self) -> MutexGuard<'_, HashMap<i64, HeldJob>> {
        // No code panics while this lock is held. Even then the map would be intact.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a new worker name: host, pid, time of the process's first worker, and a number for further workers.
///
/// Names are never reused, so a restarted worker cannot pass for the holder of its predecessor's jobs.
fn worker_name() -> String {
    static PROCESS_NAME: OnceLock<String> = OnceLock::new();
    static WORKER_COUNT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS_NAME.get_or_init(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("host").to_owned();
        format!("{host}-{}-{:x}", std::process::id(), crate::config::now().timestamp_micros())
    });
    match WORKER_COUNT.fetch_add(1, Ordering::Relaxed) {
        1 => process.clone(),
        n => format!("{process}-{n}"),
    }
}

/// The database connection of one loop, with the delays between its retries.
///
/// The loops of a worker share one outage tracker, so the begin and the end of an outage are logged once each.
pub(super) struct LoopConnection {
    engine: WorkerShared,
    doing: &'static str,
    waits: Option<backon::ExponentialBackoff>,
    connection: Option<PoolConnection<Postgres>>,
}

impl LoopConnection {
    pub fn new(engine: &WorkerShared, doing: &'static str) -> LoopConnection {
        LoopConnection { engine: engine.clone(), doing, waits: None, connection: None }
    }

    /// Returns the loop's own connection, kept until the first error.
    ///
    /// The statements of a loop then run in one server process with warm caches, without the pings of the pool.
    pub async fn connection(&mut self) -> sqlx::Result<&mut PgConnection> {
        match &mut self.connection {
            Some(line) => Ok(line),
            none => Ok(none.insert(self.engine.own.acquire().await?)),
        }
    }

    pub fn on_success(&mut self) {
        if self.waits.take().is_some()
            && let Some(since) = self.engine.away.record_recovery()
        {
            let ms = since.elapsed().as_millis() as u64;
            tracing::info!(worker = self.engine.name, ms, "database available again");
        }
    }

    /// Returns the delay until the next try: 50 ms, doubling to 2 s, with jitter.
    ///
    /// A conflict with other transactions is not logged as an outage, and the delay after a conflict does not grow.
    pub fn on_failure(&mut self, error: &sqlx::Error) -> Duration {
        if is_conflict(error) {
            return log_conflict(&self.engine.name, self.doing, error);
        }
        self.connection = None;
        if self.waits.is_none() && self.engine.away.record_failure() {
            let (worker, doing) = (&self.engine.name, self.doing);
            tracing::warn!(worker, doing, %error, "database unavailable, retrying");
        }
        self.waits.get_or_insert_with(transient_backoff).next().unwrap_or(MAX_BACKOFF_DELAY)
    }
}

/// The tasks of a worker, aborted when its `run` is dropped.
pub(super) type WorkerTasks = tokio::task::JoinSet<()>;

/// Shared ownership of a worker's state.
pub(super) type WorkerShared = Arc<WorkerState>;
