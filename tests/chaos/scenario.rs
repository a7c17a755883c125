//! The chaos scenario: opens windows, draws and injects faults, and compares the ledger counts at the end.

pub mod checks;
mod faults;

use crate::cluster::{ChaosCluster, run_sql};
use crate::disk::LimitedDisk;
use crate::fleet::{FleetLog, FleetRole, ProcessFleet};
use crate::ledger_counts::LedgerCounts;
use crate::proxy::TcpProxy;
use checks::{compare_counts, run_undisturbed};
use faults::{ChaosFault, FAULT_COUNTS, Operation};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Simulator, SimulatorOptions};

const WINDOWS: u32 = 12;
const ROWS: usize = 4000;
const LEASE_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum time between two faults.
const FAULT_INTERVAL: Duration = Duration::from_millis(500);

/// Triggers that notify channel `play` of claims and of the ends of windows. They also count, in the transaction that
/// completes a job, how often that took effect.
pub const NOTIFY_TRIGGERS: &str = "
create function tell_claim() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', new.locked_by);
  return null;
end $$;
create trigger tell_claim after update of state on fleet.jobs
for each row when (new.state = 'running') execute function tell_claim();
create function tell_window() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', '');
  return null;
end $$;
create trigger tell_window after update of state on fleet.windows
for each row when (new.state not in ('due', 'fetched', 'ingested')) execute function tell_window();
create table effects (job bigint, run bigint);
create function take_effect() returns trigger language plpgsql as $$
begin
  insert into effects values (new.id, new.run);
  return null;
end $$;
create trigger take_effect after update on fleet.jobs
for each row when (new.state = 'completed') execute function take_effect();";

/// Notifications from the database.
enum ScenarioEvent {
    Claim(String),
    /// A window may have ended.
    Look,
}

struct ChaosScenario {
    dice: StdRng,
    deck: Vec<ChaosFault>,
    /// The number of faults that are reserved for later windows.
    kept: usize,
    statements: BTreeMap<Instant, Operation>,
    inflicted: BTreeMap<String, usize>,
    fleet: ProcessFleet,
    proxy: TcpProxy,
    calm: TcpProxy,
    cluster: ChaosCluster,
    up: watch::Sender<bool>,
    ear: mpsc::UnboundedReceiver<ScenarioEvent>,
    pool: PgPool,
    feed: FeedServer,
    disk: Option<LimitedDisk>,
    /// True if the disk stays full until the window ends.
    starving: bool,
    /// The URL that the fleet uses.
    way_in: String,
    _folder: TempDir,
    _feed_stops: DropGuard,
    /// The number of processes that were started without a database.
    stillborn: usize,
    /// Keys of the other program's jobs whose commit was acknowledged.
    knocked: Vec<String>,
    /// The process id of the worker that claimed last.
    claimant: Option<u32>,
    /// The time since which available jobs have not been claimed because of a fault of the database or the network.
    outage: Option<Instant>,
    longest: Duration,
}

pub fn new_simulator() -> Simulator {
    let mut options = SimulatorOptions::new(7, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
    options.broken = 3;
    Simulator::new(options)
}

pub fn open_pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect_lazy(url).unwrap()
}

/// Listens, and requests a check whenever a notification may have been lost.
async fn run_listener(url: String, mut up: watch::Receiver<bool>, heard: mpsc::UnboundedSender<ScenarioEvent>) {
    while up.wait_for(|up| *up).await.is_ok() {
        let listening = async {
            let mut ear = PgListener::connect(&url).await?;
            ear.eager_reconnect(false);
            ear.listen("play").await?;
            heard.send(ScenarioEvent::Look).ok();
            while let Some(output) = ear.try_recv().await? {
                let claim = Some(output.payload()).filter(|worker| !worker.is_empty());
                heard.send(claim.map_or(ScenarioEvent::Look, |worker| ScenarioEvent::Claim(worker.to_owned()))).ok();
            }
            Ok::<_, sqlx::Error>(())
        };
        // interrupted by the kill, or rejected during recovery: try again once the server is up
        listening.await.ok();
        tokio::task::yield_now().await;
    }
}

impl ChaosScenario {
    async fn new(seed: u64, log: &FleetLog) -> ChaosScenario {
        let cluster = ChaosCluster::new().await;
        let direct = cluster.create_database("chaos").await;
        run_sql(&direct, NOTIFY_TRIGGERS).await;
        let (proxy, calm) = (TcpProxy::new(cluster.address()).await, TcpProxy::new(cluster.address()).await);
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let disk = match LimitedDisk::mount(&store, 8) {
            Ok(disk) => Some(disk),
            Err(why) => {
                println!("WITHOUT the full disk: no tmpfs can be mounted here ({why})");
                None
            }
        };
        let stop = CancellationToken::new();
        let feed = FeedServer::start(new_simulator(), stop.clone()).await.unwrap();
        let fleet = ProcessFleet::new(
            4,
            2,
            vec![
                ("DATABASE_URL", proxy.url(&direct)),
                ("VINOPS_STORE", url::Url::from_directory_path(&store).unwrap().into()),
                ("VINOPS_LEASE", humantime::format_duration(LEASE_TIMEOUT).to_string()),
                ("HOME", folder.path().to_str().unwrap().to_owned()),
                ("COPART_FEED_URL", feed.url()),
            ],
            log,
        );
        let (telling, ear) = mpsc::unbounded_channel();
        let (up, is_up) = watch::channel(true);
        tokio::spawn(run_listener(calm.url(&direct), is_up, telling));
        let mut dice = StdRng::seed_from_u64(seed);
        let cards = FAULT_COUNTS.iter().filter(|(fault, _)| disk.is_some() || *fault != ChaosFault::FillDisk);
        let mut deck: Vec<ChaosFault> = cards.flat_map(|(fault, n)| std::iter::repeat_n(*fault, *n)).collect();
        deck.shuffle(&mut dice);
        ChaosScenario {
            dice,
            kept: deck.len(),
            deck,
            statements: BTreeMap::new(),
            inflicted: BTreeMap::new(),
            fleet,
            pool: open_pool(&calm.url(&direct)),
            way_in: proxy.url(&direct),
            proxy,
            calm,
            cluster,
            up,
            ear,
            feed,
            disk,
            starving: false,
            _folder: folder,
            _feed_stops: stop.drop_guard(),
            stillborn: 0,
            knocked: Vec::new(),
            claimant: None,
            outage: None,
            longest: Duration::ZERO,
        }
    }

    fn schedule_operation(&mut self, from: Duration, to: Duration, statement: Operation) {
        let mut at = Instant::now() + from + (to - from).mul_f64(self.dice.random());
        while self.statements.contains_key(&at) {
            at += Duration::from_nanos(1);
        }
        self.statements.insert(at, statement);
    }

    /// Schedules the next fault, unless it is reserved for a later window.
    fn schedule_fault(&mut self) {
        if self.deck.len() > self.kept
            && !self.statements.values().any(|statement| matches!(statement, Operation::Strike))
        {
            self.schedule_operation(Duration::ZERO, FAULT_INTERVAL, Operation::Strike);
        }
    }

    /// Waits for the next operation, exit of a process, or notification.
    async fn next_event(&mut self) -> Option<ScenarioEvent> {
        let next = self.statements.keys().next().copied();
        tokio::select! {
            Some(heard) = self.ear.recv() => return Some(heard),
            (place, status) = self.fleet.next_exit() => self.replace_member(place, status),
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                if let Some((_, statement)) = self.statements.pop_first() {
                    self.run_operation(statement).await;
                }
            }
        }
        None
    }

    /// Replaces a process that was started without a database.
    fn replace_member(&mut self, place: usize, status: ExitStatus) {
        self.fleet.remove_member(place, status);
        self.stillborn += 1;
        self.schedule_operation(Duration::from_millis(200), Duration::from_millis(400), Operation::Spawn(place));
    }

    fn window_start(&self, k: u32) -> chrono::DateTime<chrono::Utc> {
        self.feed.with_simulator(|simulator| simulator.options().window_start(k))
    }

    async fn advance_clock(&mut self, k: u32) {
        self.feed.advance_to(k).await.unwrap();
        self.fleet.set_clock(self.window_start(k).to_rfc3339()).await;
    }

    /// Processes window `k` to its end during its share of the faults. Returns the window's state.
    async fn run_window(&mut self, k: u32) -> String {
        self.kept = self.deck.len() - self.deck.len().div_ceil((WINDOWS - k) as usize);
        self.schedule_fault();
        self.advance_clock(k).await;
        let start = self.window_start(k);
        loop {
            match self.next_event().await {
                Some(ScenarioEvent::Claim(worker)) => {
                    self.claimant = worker.split('-').rev().nth(1).and_then(|pid| pid.parse().ok());
                    if let Some(since) = self.outage.take_if(|_| *self.up.borrow()) {
                        self.longest = self.longest.max(since.elapsed());
                    }
                }
                Some(ScenarioEvent::Look) => {
                    let ended = sqlx::query_scalar::<_, String>(
                        "select state from fleet.windows where window_start_utc = $1 and state not in ('due', 'fetched', 'ingested')",
                    );
                    if let Ok(Some(state)) = ended.bind(start).fetch_optional(&self.pool).await {
                        self.outage = None;
                        return state;
                    }
                }
                None => {}
            }
        }
    }

    /// Advances the clock past window `k` while no scheduler is alive.
    async fn skip_window(&mut self, k: u32) {
        for place in self.fleet.members_of(FleetRole::Scheduler) {
            self.fleet.kill(place).await;
            self.schedule_operation(Duration::from_millis(500), Duration::from_secs(1), Operation::Spawn(place));
        }
        // processes that should have started meanwhile start later
        self.advance_clock(k).await;
    }
}

impl ChaosScenario {
    /// Waits until no fault and no job is left.
    async fn drain(&mut self) {
        (self.kept, self.ear) = (0, mpsc::unbounded_channel().1);
        self.schedule_fault();
        // until all workers have started to work: one that was started without a database may still exit
        loop {
            if !self.statements.is_empty() {
                self.next_event().await;
                continue;
            }
            let at_work = self.fleet.all_started();
            tokio::select! {
                (place, status) = self.fleet.next_exit() => self.replace_member(place, status),
                () = at_work => break,
            }
        }
        let open = "select count(*) from fleet.jobs where state not in ('completed', 'discarded', 'cancelled')";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&self.pool).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.fleet.shut_down().await, [Some(0); 6]);
    }
}

pub async fn run_scenario(seed: u64, log: &FleetLog) {
    let mut play = ChaosScenario::new(seed, log).await;
    for place in 0..play.fleet.members.len() {
        play.fleet.spawn_member(place).await;
    }
    let skipped = play.dice.random_range(3..WINDOWS - 2);
    let starved = play.disk.is_some().then(|| skipped - 1 - play.dice.random_range(0..2));
    let mut applied = Vec::new();
    for k in 0..WINDOWS {
        if k == skipped {
            play.skip_window(k).await;
            continue;
        }
        if starved == Some(k) {
            play.inject_fault(ChaosFault::FillDisk).await;
            play.starving = true;
        }
        let began = Instant::now();
        let state = play.run_window(k).await;
        println!("window {k}: {state} after {:.1} s", began.elapsed().as_secs_f64());
        if state == "applied" {
            applied.push(k);
            play.enqueue_external_jobs(k).await;
        } else {
            assert_eq!(state, "failed", "window {k}");
        }
        if starved == Some(k) {
            assert_eq!(state, "failed", "window {k} came through a full disk");
            play.starving = false;
            play.run_operation(Operation::FreeDisk).await;
        }
        // the quarter-hour is longer than the fault
        while state == "failed" && play.statements.values().any(|statement| matches!(statement, Operation::FreeDisk)) {
            play.next_event().await;
        }
    }
    play.drain().await;
    let figures = play.describe_run(applied.len()).await;
    play.expect_only_disk_failures().await;
    play.expect_one_effect_each().await;
    play.expect_external_jobs().await;
    let found = LedgerCounts::read(&play.pool).await;
    let wanted = run_undisturbed(&play.cluster, &applied, log).await;
    println!("{figures}");
    compare_counts(&play, &found, &wanted, skipped, &applied).await;
}
