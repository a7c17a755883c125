//! A worker: runs jobs of some kinds in a number of slots until it shuts down.
//!
//! The shutdown is a drain. When the token is cancelled, claiming ends. Claimed jobs that have not started are released
//! at once, and their attempts are refunded. Running jobs may finish within the drain timeout. Then they are cut off
//! and released too (`interrupted`). [`Worker::run`] returns only after that, so a process that exits afterwards leaves
//! no lease behind. The leases of a killed worker expire.

use super::backend::ApalisBackend;
use super::event::WorkerEvent;
use super::execute::execute_job;
use super::prune::{self, Retention};
use super::registry::JobDefinition;
use super::run::{ClaimedJob, Extensions};
use super::worker_state::{WorkerSettings, WorkerShared, WorkerState, WorkerSummary, WorkerTasks};
use super::{claim, completer, lease};
use crate::db::Database;
use anyhow::{Context, bail, ensure};
use apalis::prelude::{BoxDynError, WorkerBuilder, WorkerContext};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Time after the drain's deadline for storing the last results during an outage of the database.
const COMPLETER_GRACE: Duration = Duration::from_secs(5);

/// Longest wait for the deletion of the worker's row from `fleet.workers`.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);

/// The builder of a worker, run with [`Worker::run`].
pub struct Worker {
    db: Database,
    fleet: &'static [JobDefinition],
    kinds: Option<Vec<String>>,
    at_most: HashMap<String, usize>,
    settings: WorkerSettings,
    tools: Extensions,
    watchers: Option<broadcast::Sender<WorkerEvent>>,
}

impl Worker {
    /// Returns a worker for all kinds, with 4 slots, a lease of 30 s, a poll interval of 2 s and a drain timeout of 30
    /// s.
    pub fn new(db: &Database, fleet: &'static [JobDefinition]) -> Worker {
        let settings = WorkerSettings {
            concurrency: 4,
            prefetch: 0,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            drain: Duration::from_secs(30),
            keep: Retention::DEFAULT,
        };
        Worker {
            db: db.clone(),
            fleet,
            kinds: None,
            at_most: HashMap::new(),
            settings,
            tools: Extensions::new(),
            watchers: None,
        }
    }

    /// Restricts the worker to these kinds.
    pub fn with_kinds<S: AsRef<str>>(mut self, kinds: &[S]) -> Worker {
        self.kinds = Some(kinds.iter().map(|kind| kind.as_ref().to_owned()).collect());
        self
    }

    /// Sets the number of slots: jobs that run concurrently.
    pub fn with_concurrency(mut self, slots: usize) -> Worker {
        self.settings.concurrency = slots.max(1);
        self
    }

    /// Limits the concurrent jobs of a kind on this worker. Earlier names of the kind are counted separately.
    pub fn with_kind_limit(mut self, kind: &str, jobs: usize) -> Worker {
        self.at_most.insert(kind.to_owned(), jobs);
        self
    }

    /// Sets the number of jobs of prefetchable kinds ([`JobPolicy::prefetchable`]) that the worker claims beyond its
    /// slots.
    ///
    /// Prefetching saves round trips, but other workers cannot run these jobs in the meantime. Default: 0.
    ///
    /// [`JobPolicy::prefetchable`]: super::JobPolicy::prefetchable
    pub fn with_prefetch(mut self, jobs: usize) -> Worker {
        self.settings.prefetch = jobs;
        self
    }

    /// Sets the lease: the time that a job stays unavailable after the death of its worker.
    pub fn with_lease(mut self, lease: Duration) -> Worker {
        self.settings.lease = lease;
        self
    }

    /// Sets the poll interval: the longest time between two claims of an idle worker.
    pub fn with_poll_interval(mut self, poll: Duration) -> Worker {
        self.settings.poll = poll;
        self
    }

    /// Sets the time for running jobs to finish once the worker shuts down.
    pub fn with_drain_timeout(mut self, drain: Duration) -> Worker {
        self.settings.drain = drain;
        self
    }

    /// Sets the retention of finished jobs.
    pub fn with_retention(mut self, keep: Retention) -> Worker {
        self.settings.keep = keep;
        self
    }

    /// Sets the extensions that jobs can request.
    pub fn with_extensions(mut self, tools: Extensions) -> Worker {
        self.tools = tools;
        self
    }

    /// Sets the channel for the worker's events.
    pub fn with_event_sender(mut self, watchers: broadcast::Sender<WorkerEvent>) -> Worker {
        self.watchers = Some(watchers);
        self
    }

    /// Runs jobs until `leave` is cancelled and the drain is over. Returns the totals of the worker.
    ///
    /// # Errors
    ///
    /// Returns an error if a selected kind is unknown, the lease is too short or the runtime fails.
    pub async fn run(self, leave: CancellationToken) -> anyhow::Result<WorkerSummary> {
        let entries = self.selected_jobs()?;
        ensure!(self.settings.lease >= Duration::from_millis(30), "the lease is shorter than 30 ms");
        let (endings, ends) = mpsc::unbounded_channel();
        let (claimed, jobs) = mpsc::unbounded_channel();
        let engine =
            WorkerState::new(&self.db, entries, &self.at_most, self.tools, self.settings, self.watchers, endings);
        let engine = Arc::new(engine);

        // Dropped with this future: a worker that is no longer polled keeps no lease alive.
        let mut tasks = WorkerTasks::new();
        tasks.spawn(claim::run_claimer(engine.clone(), claimed));
        if self.db.supports_listen() {
            tasks.spawn(claim::run_listener(engine.clone()));
        } else {
            let poll_ms = engine.settings.poll.as_millis() as u64;
            let reason = "DATABASE_URL is a pooler and DATABASE_DIRECT_URL is not set";
            tracing::warn!(reason, poll_ms, "no LISTEN through the pooler, jobs wait for the next poll");
        }
        tasks.spawn(lease::run_lease_renewer(engine.clone()));
        tasks.spawn(lease::run_rescuer(engine.clone()));
        tasks.spawn(completer::run_completer(engine.clone(), ends));
        tasks.spawn(prune::run_pruner(engine.clone()));
        tasks.spawn(run_drain(engine.clone(), leave));

        let (kinds, slots) = (engine.kinds.join(","), engine.settings.concurrency);
        tracing::info!(worker = engine.name, kinds, slots, "worker started");
        let runtime = run_apalis(&engine, jobs);
        let overdue = async {
            engine.deadline.cancelled().await;
            tokio::time::sleep(COMPLETER_GRACE).await;
        };
        tokio::select! {
            ended = runtime => ended.context("could not run the worker")?,
            () = overdue => {
                let jobs = engine.held_count();
                tracing::warn!(worker = engine.name, jobs, "job results not stored, leases will expire");
            }
        }
        tasks.shutdown().await;
        // A row that remains is deleted when it is a day old.
        let _ = tokio::time::timeout(DEREGISTER_TIMEOUT, lease::delete_worker(&engine)).await;
        let summary = engine.counts.summary();
        log_stop(&engine.name, &summary);
        Ok(summary)
    }

    fn selected_jobs(&self) -> anyhow::Result<Vec<&'static JobDefinition>> {
        let known = |kind: &String| match self.fleet.iter().find(|entry| entry.matches_kind(kind)) {
            Some(entry) => Ok(entry),
            None => {
                let known: Vec<_> = self.fleet.iter().map(|entry| entry.kind).collect();
                bail!("unknown job kind \"{kind}\"; expected one of {}", known.join(", "))
            }
        };
        self.at_most.keys().try_for_each(|kind| known(kind).map(drop))?;
        match &self.kinds {
            None => Ok(self.fleet.iter().collect()),
            Some(kinds) => kinds.iter().map(known).collect(),
        }
    }
}

/// Logs the end of a worker with the totals.
fn log_stop(worker: &str, summary: &WorkerSummary) {
    tracing::info!(
        worker,
        claimed = summary.claimed,
        done = summary.done,
        failed = summary.failed,
        discarded = summary.discarded,
        snoozed = summary.snoozed,
        cancelled = summary.cancelled,
        interrupted = summary.interrupted,
        returned = summary.returned,
        lost = summary.lost,
        stale = summary.stale,
        rescued = summary.rescued,
        "worker stopped"
    );
}

/// Runs the apalis worker over the queue's backend until it ends.
///
/// The stream is boxed, because inside an async block the compiler cannot prove that the runtime's own future is
/// `Send`.
async fn run_apalis(engine: &WorkerShared, jobs: mpsc::UnboundedReceiver<ClaimedJob>) -> anyhow::Result<()> {
    let context = WorkerContext::new(&engine.name);
    let runner = engine.clone();
    let mut events = WorkerBuilder::new(context.clone())
        .backend(ApalisBackend::new(engine.clone(), jobs))
        .build(move |job: ClaimedJob| -> BoxFuture<'static, Result<(), BoxDynError>> {
            execute_job(runner.clone(), job).map(Ok).boxed()
        })
        .stream()
        .boxed();
    // The first event is the start. A worker can be stopped only after its start.
    events.next().await.transpose()?;
    let mut stopped = false;
    loop {
        tokio::select! {
            event = events.next() => match event.transpose()? {
                Some(_) => {}
                None => return Ok(()),
            },
            () = engine.draining.cancelled(), if !stopped => {
                stopped = true;
                context.stop()?;
            }
        }
    }
}

/// Starts the drain when `leave` is cancelled, and ends the drain at the deadline.
async fn run_drain(engine: WorkerShared, leave: CancellationToken) {
    leave.cancelled().await;
    tracing::info!(worker = engine.name, running = engine.held_count(), "worker draining");
    engine.draining.cancel();
    tokio::time::sleep(engine.settings.drain).await;
    engine.deadline.cancel();
}
