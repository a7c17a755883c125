//! A worker: so many slots, for such kinds, until it is told to leave.
//!
//! Leaving is a drain. On the token: no more claims; what has not started goes back at once, its attempt refunded;
//! what runs may end within the drain's time, then it is cut off and goes back too (`interrupted`). Only then does
//! [`Worker::run`] return, so a process that exits afterwards leaves no lease behind. A worker killed instead leaves
//! leases, and those run out.

use super::backend::Fleet;
use super::engine::{Engine, Settings, Shared, Summary, Tasks};
use super::entry::Entry;
use super::event::Event;
use super::execute::execute;
use super::prune::{self, Keep};
use super::run::{Claimed, Tools};
use super::{claim, lease, settle};
use crate::db::Db;
use anyhow::{Context, bail, ensure};
use apalis::prelude::{BoxDynError, WorkerBuilder, WorkerContext};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// How long after the drain's deadline the last ends may take to be stored when the database is away.
const GRACE: Duration = Duration::from_secs(5);

/// How long its own row may take to be taken out of `fleet.workers`.
const GOODBYE: Duration = Duration::from_secs(1);

/// A worker to be set up and run.
pub struct Worker {
    db: Db,
    fleet: &'static [Entry],
    kinds: Option<Vec<String>>,
    at_most: HashMap<String, usize>,
    settings: Settings,
    tools: Tools,
    watchers: Option<broadcast::Sender<Event>>,
}

impl Worker {
    /// A worker for all kinds of the fleet: 4 slots, lease 30 s, poll 2 s, drain 30 s.
    pub fn new(db: &Db, fleet: &'static [Entry]) -> Worker {
        let settings = Settings {
            concurrency: 4,
            prefetch: 0,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(2),
            drain: Duration::from_secs(30),
            keep: Keep::DEFAULT,
        };
        Worker {
            db: db.clone(),
            fleet,
            kinds: None,
            at_most: HashMap::new(),
            settings,
            tools: Tools::new(),
            watchers: None,
        }
    }

    /// Only these kinds.
    pub fn kinds<S: AsRef<str>>(mut self, kinds: &[S]) -> Worker {
        self.kinds = Some(kinds.iter().map(|kind| kind.as_ref().to_owned()).collect());
        self
    }

    /// How many jobs run at once.
    pub fn concurrency(mut self, slots: usize) -> Worker {
        self.settings.concurrency = slots.max(1);
        self
    }

    /// Of this kind no more than so many at once; earlier names of it are counted apart.
    pub fn at_most(mut self, kind: &str, jobs: usize) -> Worker {
        self.at_most.insert(kind.to_owned(), jobs);
        self
    }

    /// How many jobs of cheap kinds ([`Policy::cheap`]) it claims beyond its slots: fewer round trips, but other workers
    /// cannot have them meanwhile. None by default.
    ///
    /// [`Policy::cheap`]: super::Policy::cheap
    pub fn prefetch(mut self, jobs: usize) -> Worker {
        self.settings.prefetch = jobs;
        self
    }

    /// How long after its worker's death a job stays unavailable.
    pub fn lease(mut self, lease: Duration) -> Worker {
        self.settings.lease = lease;
        self
    }

    /// How long it sleeps at most without looking at the queue.
    pub fn poll(mut self, poll: Duration) -> Worker {
        self.settings.poll = poll;
        self
    }

    /// How long running jobs may go on once the worker is told to leave.
    pub fn drain(mut self, drain: Duration) -> Worker {
        self.settings.drain = drain;
        self
    }

    /// How long finished jobs are kept.
    pub fn keep(mut self, keep: Keep) -> Worker {
        self.settings.keep = keep;
        self
    }

    /// What its jobs may ask for.
    pub fn tools(mut self, tools: Tools) -> Worker {
        self.tools = tools;
        self
    }

    /// Tells a channel what happens.
    pub fn observe(mut self, watchers: broadcast::Sender<Event>) -> Worker {
        self.watchers = Some(watchers);
        self
    }

    /// Works until `leave` is cancelled and the drain is over.
    pub async fn run(self, leave: CancellationToken) -> anyhow::Result<Summary> {
        let entries = self.entries()?;
        ensure!(self.settings.lease >= Duration::from_millis(30), "a lease under 30 ms cannot be kept");
        let (endings, ends) = mpsc::unbounded_channel();
        let (claimed, jobs) = mpsc::unbounded_channel();
        let engine =
            Engine::new(&self.db, entries, &self.at_most, self.tools, self.settings, self.watchers, endings);
        let engine = Arc::new(engine);

        // Dropped with this future: a worker that is no longer polled keeps no lease alive.
        let mut tasks = Tasks::new();
        tasks.spawn(claim::claims(engine.clone(), claimed));
        if self.db.listens() {
            tasks.spawn(claim::wakes(engine.clone()));
        } else {
            let poll = humantime::format_duration(engine.settings.poll);
            tracing::warn!(
                "DATABASE_URL leads through a pooler and DATABASE_DIRECT_URL is not set: no LISTEN, so a job waits up to {poll}"
            );
        }
        tasks.spawn(lease::renews(engine.clone()));
        tasks.spawn(lease::rescues(engine.clone()));
        tasks.spawn(settle::settles(engine.clone(), ends));
        tasks.spawn(prune::prunes(engine.clone()));
        tasks.spawn(drains(engine.clone(), leave));

        tracing::info!(worker = engine.name, kinds = ?engine.kinds, slots = engine.settings.concurrency, "working");
        let runtime = runtime(&engine, jobs);
        let overdue = async {
            engine.deadline.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = runtime => ended.context("run the worker")?,
            () = overdue => tracing::warn!(left = engine.holds().len(), "left without storing every end; leases will run out"),
        }
        tasks.shutdown().await;
        // A row that stays is swept away when it is a day old.
        let _ = tokio::time::timeout(GOODBYE, lease::gone(&engine)).await;
        let summary = engine.counts.summary();
        tracing::info!(worker = engine.name, ?summary, "left");
        Ok(summary)
    }

    fn entries(&self) -> anyhow::Result<Vec<&'static Entry>> {
        let known = |kind: &String| match self.fleet.iter().find(|entry| entry.answers_to(kind)) {
            Some(entry) => Ok(entry),
            None => {
                let known: Vec<_> = self.fleet.iter().map(|entry| entry.kind).collect();
                bail!("no job of kind {kind}: there are {}", known.join(", "))
            }
        };
        self.at_most.keys().try_for_each(|kind| known(kind).map(drop))?;
        match &self.kinds {
            None => Ok(self.fleet.iter().collect()),
            Some(kinds) => kinds.iter().map(known).collect(),
        }
    }
}

/// apalis' worker over our backend, driven to its end. As a boxed stream: inside an async block the compiler cannot
/// see that the runtime's own future is `Send`.
async fn runtime(engine: &Shared, jobs: mpsc::UnboundedReceiver<Claimed>) -> anyhow::Result<()> {
    let context = WorkerContext::new(&engine.name);
    let runner = engine.clone();
    let mut events = WorkerBuilder::new(context.clone())
        .backend(Fleet::new(engine.clone(), jobs))
        .build(move |job: Claimed| -> BoxFuture<'static, Result<(), BoxDynError>> {
            execute(runner.clone(), job).map(Ok).boxed()
        })
        .stream()
        .boxed();
    // The first event is the start, and only what has started can be stopped.
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

/// Turns the token into a drain with a deadline.
async fn drains(engine: Shared, leave: CancellationToken) {
    leave.cancelled().await;
    tracing::info!(worker = engine.name, running = engine.holds().len(), "draining");
    engine.draining.cancel();
    tokio::time::sleep(engine.settings.drain).await;
    engine.deadline.cancel();
}
