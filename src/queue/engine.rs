//! What the parts of one worker share: who it is, what it holds, and the signals between them.
//!
//! The engine has a pool of its own with five connections, of which claimer and settler keep one each. Were it to share
//! the handlers' pool, ten handlers waiting for connections would keep the lease renewals waiting too, and a busy worker
//! would look like a dead one.

use super::again::{MAX_BACKOFF_DELAY, transient_backoff};
use super::away::{Away, conflict};
use super::entry::Entry;
use super::event::{Event, Outcome};
use super::prune::Keep;
use super::run::Tools;
use super::settle::Ending;
use crate::db::Db;
use crate::db::passing::is_conflict;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// A worker's shared state.
pub(super) struct Engine {
    /// The worker's name, unique in the world: it is half of the fence.
    pub name: String,
    /// The handlers' connections.
    pub pool: PgPool,
    /// The connections of their steps, one for each slot: a run has one step at a time, and one that was cut off lets go
    /// within moments. A pool hands out the one that has rested longest: among these, which nobody else takes, one whose
    /// server process knows the tables already.
    pub steps: PgPool,
    /// The engine's own connections.
    pub own: PgPool,
    pub db: Db,
    pub entries: Vec<&'static Entry>,
    /// The kinds it serves, aliases included, by name.
    pub served: Vec<Served>,
    /// Their names.
    pub kinds: Vec<String>,
    pub tools: Tools,
    pub settings: Settings,
    /// Slots for handlers; a claimed job without one has not started.
    pub slots: Semaphore,
    /// Says that a look at the queue is worth while.
    pub kick: Notify,
    /// Says that the leases are to be renewed now: somebody may have asked to cancel one of its jobs.
    pub renew: Notify,
    /// The worker is leaving: claim nothing, start nothing.
    pub draining: CancellationToken,
    /// The drain's time is up: cut off what still runs.
    pub deadline: CancellationToken,
    pub counts: Counts,
    pub away: Away,
    watchers: Option<broadcast::Sender<Event>>,
    endings: mpsc::UnboundedSender<Ending>,
    held: Mutex<HashMap<i64, Hold>>,
    /// Says that `held` became smaller.
    pub freed: Notify,
}

/// How a worker was set up.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub concurrency: usize,
    pub prefetch: usize,
    pub lease: Duration,
    pub poll: Duration,
    pub drain: Duration,
    pub keep: Keep,
}

/// A kind as this worker serves it.
pub(super) struct Served {
    pub kind: String,
    /// May be claimed ahead of free slots.
    pub cheap: bool,
    /// How many of it this worker runs at once, at most.
    pub at_most: usize,
}

/// How many more jobs a worker may claim.
pub(super) struct Room {
    /// So many could start at once.
    pub slots: usize,
    /// So many more of cheap kinds, to be at hand.
    pub ahead: usize,
    /// Of each of the kinds it serves, in their order.
    pub kinds: Vec<i64>,
}

/// A job in this worker's hands.
#[derive(Clone)]
pub(super) struct Hold {
    pub run: i64,
    pub kind: Arc<str>,
    /// Its handler has ended: it takes no slot any more, and waits for its end to be stored.
    pub over: bool,
    /// Cancelled when the lease turns out to be lost.
    pub lost: CancellationToken,
    /// Cancelled when somebody wants the job cancelled.
    pub cancelled: CancellationToken,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a worker has done so far.
        #[derive(Default)]
        pub(super) struct Counts { $(pub $name: AtomicU64),+ }

        /// What a worker did from its start to its end.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Summary { $($(#[$doc])* pub $name: u64),+ }

        impl Counts {
            pub fn summary(&self) -> Summary {
                Summary { $($name: self.$name.load(Ordering::Relaxed)),+ }
            }
        }
    };
}

counts! {
    /// Jobs claimed.
    claimed,
    /// Runs that ended done.
    done,
    /// Runs that failed: errors, panics, timeouts.
    failed,
    /// Jobs discarded by this worker's runs.
    discarded,
    /// Runs that put themselves off.
    snoozed,
    /// Jobs cancelled by request while this worker had them.
    cancelled,
    /// Runs cut off by the drain's deadline.
    interrupted,
    /// Jobs given back before they started.
    returned,
    /// Runs whose lease was lost.
    lost,
    /// Ends that came too late to count and were dropped.
    stale,
    /// Jobs of dead workers taken back by this one.
    rescued,
}

pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Engine {
    pub fn new(
        db: &Db,
        entries: Vec<&'static Entry>,
        at_most: &HashMap<String, usize>,
        tools: Tools,
        settings: Settings,
        watchers: Option<broadcast::Sender<Event>>,
        endings: mpsc::UnboundedSender<Ending>,
    ) -> Engine {
        let names =
            entries.iter().flat_map(|e| std::iter::once(&e.kind).chain(e.aliases).map(move |kind| (e, kind)));
        let mut served: Vec<Served> = names
            .map(|(entry, kind)| Served {
                kind: kind.to_string(),
                cheap: entry.policy.cheap,
                at_most: at_most.get(entry.kind).copied().unwrap_or(usize::MAX),
            })
            .collect();
        served.sort_by(|a, b| a.kind.cmp(&b.kind));
        Engine {
            name: name(),
            pool: db.pool.clone(),
            own: crate::db::pool()
                .max_connections(5)
                // a dead one is found out by its first question, and all of these are asked again
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
            kick: Notify::new(),
            renew: Notify::new(),
            draining: CancellationToken::new(),
            deadline: CancellationToken::new(),
            counts: Counts::default(),
            away: Away::default(),
            watchers,
            endings,
            held: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// How many more jobs it may claim; none if none. A run whose end is not stored yet takes no slot, or each slot
    /// would stand empty while the disk turns; but of those there are never more than there are slots.
    pub fn room(&self) -> Option<Room> {
        let held = self.held();
        let all = self.settings.concurrency + self.settings.prefetch;
        let open = held.values().filter(|hold| !hold.over).count();
        let all = all.saturating_sub((held.len() - open).saturating_sub(all));
        let slots = self.settings.concurrency.min(all).saturating_sub(open);
        let ahead =
            if self.served.iter().any(|served| served.cheap) { all.saturating_sub(open + slots) } else { 0 };
        let room = |served: &Served| {
            let most = if served.cheap { slots + ahead } else { slots };
            if served.at_most == usize::MAX {
                return most as i64;
            }
            let taken = held.values().filter(|hold| !hold.over && *hold.kind == *served.kind).count();
            most.min(served.at_most.saturating_sub(taken)) as i64
        };
        // With half of what is claimed ahead still at hand, a claim would cost the same and bring little.
        if slots == 0 && ahead < self.settings.prefetch.div_ceil(2) {
            return None;
        }
        let kinds: Vec<i64> = self.served.iter().map(room).collect();
        kinds.iter().any(|room| *room > 0).then_some(Room { slots, ahead, kinds })
    }

    /// The database's answer, or an error when it does not come in time: a third of the lease, from 5 s to 10 s.
    pub async fn answer<T>(&self, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        let patience = (self.settings.lease / 3).clamp(Duration::from_secs(5), Duration::from_secs(10));
        let answered = tokio::time::timeout(patience, asked).await;
        answered.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    pub fn hold(&self, job: i64, run: i64, kind: Arc<str>) {
        let (lost, cancelled) = (CancellationToken::new(), CancellationToken::new());
        self.held().insert(job, Hold { run, kind, over: false, lost, cancelled });
    }

    /// How many jobs are in its hands.
    pub fn holding(&self) -> usize {
        self.held().len()
    }

    pub fn hold_of(&self, job: i64) -> Option<Hold> {
        self.held().get(&job).cloned()
    }

    pub fn holds(&self) -> Vec<(i64, Hold)> {
        self.held().iter().map(|(job, hold)| (*job, hold.clone())).collect()
    }

    /// Lets go of a run; a later run of the same job stays held.
    pub fn release(&self, job: i64, run: i64) {
        let mut held = self.held();
        if held.get(&job).is_some_and(|hold| hold.run == run) {
            held.remove(&job);
        }
        drop(held);
        self.kick.notify_one();
        self.freed.notify_one();
    }

    /// The channel to watchers, if somebody watches.
    pub fn watched(&self) -> Option<&broadcast::Sender<Event>> {
        self.watchers.as_ref().filter(|watchers| watchers.receiver_count() > 0)
    }

    /// Hands over how a run ended.
    pub fn conclude(&self, ending: Ending) {
        let counter = match ending.outcome {
            Outcome::Done => &self.counts.done,
            Outcome::Retry | Outcome::Panic | Outcome::Timeout | Outcome::Abort | Outcome::Unreadable => {
                &self.counts.failed
            }
            Outcome::Snooze => &self.counts.snoozed,
            Outcome::Cancelled => &self.counts.cancelled,
            Outcome::Interrupted => &self.counts.interrupted,
            Outcome::Returned => &self.counts.returned,
            Outcome::Lost => &self.counts.lost,
        };
        count(counter, 1);
        if let Some(hold) = self.held().get_mut(&ending.job.id).filter(|hold| hold.run == ending.job.run) {
            hold.over = true;
        }
        self.kick.notify_one();
        // An error means that the worker is already gone; the lease takes care of the job.
        let _ = self.endings.send(ending);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<i64, Hold>> {
        // No code panics while it holds this lock; were it so, the map would still be whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Host, process, the process's first use of the queue, and from the second worker of a process its number: no two
/// workers ever have the same name, so a restarted one can never be taken for the holder of its predecessor's jobs.
fn name() -> String {
    static FIRST: OnceLock<String> = OnceLock::new();
    static WORKERS: AtomicU64 = AtomicU64::new(1);
    let process = FIRST.get_or_init(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = Some(host.trim()).filter(|host| !host.is_empty()).unwrap_or("host").to_owned();
        format!("{host}-{}-{:x}", std::process::id(), crate::config::now().timestamp_micros())
    });
    match WORKERS.fetch_add(1, Ordering::Relaxed) {
        1 => process.clone(),
        n => format!("{process}-{n}"),
    }
}

/// One loop's view of the database: how long to wait while it is away. The loops of a worker share one voice, so that an
/// outage is told once when the first of them meets it, and once when the last of them has got through again.
pub(super) struct Link {
    engine: Shared,
    doing: &'static str,
    waits: Option<backon::ExponentialBackoff>,
    line: Option<PoolConnection<Postgres>>,
}

impl Link {
    pub fn new(engine: &Shared, doing: &'static str) -> Link {
        Link { engine: engine.clone(), doing, waits: None, line: None }
    }

    /// A connection of the loop's own until the first error. What is asked all the time is asked of one server process,
    /// which has it all at hand, and without the proof of life that a connection gives on its way back to the pool.
    pub async fn line(&mut self) -> sqlx::Result<&mut PgConnection> {
        match &mut self.line {
            Some(line) => Ok(line),
            none => Ok(none.insert(self.engine.own.acquire().await?)),
        }
    }

    pub fn up(&mut self) {
        if self.waits.take().is_some()
            && let Some(since) = self.engine.away.returned()
        {
            let ms = since.elapsed().as_millis() as u64;
            tracing::info!(worker = self.engine.name, ms, "the database is back");
        }
    }

    /// Returns the wait until the next try: 50 ms, doubling to 2 s, with jitter. A conflict with other transactions is no
    /// outage: it is not logged as one, and the wait after it does not grow.
    pub fn down(&mut self, error: &sqlx::Error) -> Duration {
        if is_conflict(error) {
            return conflict(&self.engine.name, self.doing, error);
        }
        self.line = None;
        if self.waits.is_none() && self.engine.away.missed() {
            let (worker, doing) = (&self.engine.name, self.doing);
            tracing::warn!(worker, doing, %error, "the database is away; trying until it is back");
        }
        self.waits.get_or_insert_with(transient_backoff).next().unwrap_or(MAX_BACKOFF_DELAY)
    }
}

/// Aborts the tasks of a worker whose `run` is dropped.
pub(super) type Tasks = tokio::task::JoinSet<()>;

/// The engine, shared.
pub(super) type Shared = Arc<Engine>;
