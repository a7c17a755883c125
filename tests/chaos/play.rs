//! The conductor: opens windows, draws faults and inflicts them, and in the end compares the books.

use crate::books::Books;
use crate::cluster::{Cluster, run};
use crate::disk::Disk;
use crate::fleet::{Fleet, Role};
use crate::proxy::{Mode, Proxy};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::scheduler::Scheduler;
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Options, Simulator};
use vinops::workers::FLEET;

const WINDOWS: u32 = 12;
const ROWS: usize = 4000;
/// Jobs that another program puts in after each window, in a transaction of its own.
const KNOCKS: usize = 6;
const LEASE: Duration = Duration::from_secs(1);
/// Faults follow one another within this time.
const SPAN: Duration = Duration::from_millis(500);

/// Tells channel `play` who claims what, and how windows end.
const TELL: &str = "
create function tell_claim() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', new.worker);
  return null;
end $$;
create trigger tell_claim after insert on fleet.job_attempts for each row execute function tell_claim();
create function tell_window() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', '');
  return null;
end $$;
create trigger tell_window after update of state on fleet.windows
for each row when (new.state not in ('due', 'fetched', 'ingested')) execute function tell_window();";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KillWorker,
    KillScheduler,
    Freeze,
    KillPostgres,
    Cut,
    Refuse,
    Delay,
    Swallow,
    FillDisk,
}

const DECK: &[(Fault, usize)] = &[
    (Fault::KillWorker, 20),
    (Fault::KillScheduler, 4),
    (Fault::Freeze, 8),
    (Fault::KillPostgres, 4),
    (Fault::Cut, 5),
    (Fault::Refuse, 3),
    (Fault::Delay, 4),
    (Fault::Swallow, 4),
    (Fault::FillDisk, 2),
];

/// What is to happen at its moment.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Strike,
    Spawn(usize),
    Thaw(usize, u32),
    StartPostgres,
    Pass { cut: bool },
    FreeDisk,
}

/// What is heard from the database.
enum Heard {
    Claim(String),
    /// A window may have ended: look.
    Look,
}

struct Play {
    dice: StdRng,
    deck: Vec<Fault>,
    /// So many faults stay for later windows.
    kept: usize,
    deeds: BTreeMap<Instant, Deed>,
    inflicted: BTreeMap<String, usize>,
    fleet: Fleet,
    proxy: Proxy,
    calm: Proxy,
    cluster: Cluster,
    up: watch::Sender<bool>,
    ear: mpsc::UnboundedReceiver<Heard>,
    pool: PgPool,
    feed: FeedServer,
    disk: Option<Disk>,
    /// The disk stays full until the window ends.
    starving: bool,
    /// The fleet's way to the database.
    way_in: String,
    _folder: TempDir,
    _feed_stops: DropGuard,
    /// Births that found no database.
    stillborn: usize,
    /// Keys of the other program's jobs whose commit was acknowledged.
    knocked: Vec<String>,
    /// Who claimed last.
    claimant: Option<u32>,
    /// Since when nothing has been claimed that was open, by a fault of the database or the way there.
    outage: Option<Instant>,
    longest: Duration,
}

fn simulator() -> Simulator {
    let mut options = Options::new(7, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
    options.broken = 3;
    Simulator::new(options)
}

fn pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).connect_lazy(url).unwrap()
}

/// Listens, and says to look whenever it may have missed something.
async fn listen(url: String, mut up: watch::Receiver<bool>, heard: mpsc::UnboundedSender<Heard>) {
    while up.wait_for(|up| *up).await.is_ok() {
        let listening = async {
            let mut ear = PgListener::connect(&url).await?;
            ear.eager_reconnect(false);
            ear.listen("play").await?;
            heard.send(Heard::Look).ok();
            while let Some(told) = ear.try_recv().await? {
                let claim = Some(told.payload()).filter(|worker| !worker.is_empty());
                heard.send(claim.map_or(Heard::Look, |worker| Heard::Claim(worker.to_owned()))).ok();
            }
            Ok::<_, sqlx::Error>(())
        };
        // cut off by its death, or refused while it recovers: again once it is up
        listening.await.ok();
        tokio::task::yield_now().await;
    }
}

impl Play {
    async fn new(seed: u64) -> Play {
        let cluster = Cluster::new().await;
        let direct = cluster.database("chaos").await;
        run(&direct, TELL).await;
        let (proxy, calm) = (Proxy::new(cluster.address()).await, Proxy::new(cluster.address()).await);
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let disk = match Disk::mount(&store, 8) {
            Ok(disk) => Some(disk),
            Err(why) => {
                println!("WITHOUT the full disk: no tmpfs can be mounted here ({why})");
                None
            }
        };
        let stop = CancellationToken::new();
        let feed = FeedServer::start(simulator(), stop.clone()).await.unwrap();
        let fleet = Fleet::new(
            4,
            2,
            vec![
                ("DATABASE_URL", proxy.url(&direct)),
                ("VINOPS_STORE", url::Url::from_directory_path(&store).unwrap().into()),
                ("VINOPS_LEASE", humantime::format_duration(LEASE).to_string()),
                ("HOME", folder.path().to_str().unwrap().to_owned()),
                ("COPART_FEED_URL", feed.url()),
            ],
        );
        let (telling, ear) = mpsc::unbounded_channel();
        let (up, is_up) = watch::channel(true);
        tokio::spawn(listen(calm.url(&direct), is_up, telling));
        let mut dice = StdRng::seed_from_u64(seed);
        let cards = DECK.iter().filter(|(fault, _)| disk.is_some() || *fault != Fault::FillDisk);
        let mut deck: Vec<Fault> = cards.flat_map(|(fault, n)| std::iter::repeat_n(*fault, *n)).collect();
        deck.shuffle(&mut dice);
        Play {
            dice,
            kept: deck.len(),
            deck,
            deeds: BTreeMap::new(),
            inflicted: BTreeMap::new(),
            fleet,
            pool: pool(&calm.url(&direct)),
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

    fn after(&mut self, from: Duration, to: Duration, deed: Deed) {
        let mut at = Instant::now() + from + (to - from).mul_f64(self.dice.random());
        while self.deeds.contains_key(&at) {
            at += Duration::from_nanos(1);
        }
        self.deeds.insert(at, deed);
    }

    /// The next fault, unless it is a later window's.
    fn plan(&mut self) {
        if self.deck.len() > self.kept && !self.deeds.values().any(|deed| matches!(deed, Deed::Strike)) {
            self.after(Duration::ZERO, SPAN, Deed::Strike);
        }
    }

    fn one_of(&mut self, places: &[usize]) -> Option<usize> {
        (!places.is_empty()).then(|| places[self.dice.random_range(0..places.len())])
    }

    /// Preferably the worker that claimed last: it is the one at work.
    fn victim(&mut self) -> Option<usize> {
        let workers = self.fleet.places(Role::Worker);
        let busy = workers.iter().copied().find(|place| self.fleet.pid(*place) == self.claimant);
        let any = self.one_of(&workers);
        busy.filter(|_| self.dice.random_bool(0.75)).or(any)
    }

    async fn inflict(&mut self, fault: Fault) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.fleet.log.note(format!("--- {fault:?}"));
        *self.inflicted.entry(format!("{fault:?}")).or_default() += 1;
        match fault {
            Fault::KillWorker => {
                if let Some(place) = self.victim() {
                    self.fleet.kill(place).await;
                    self.after(ms(0), ms(300), Deed::Spawn(place));
                }
            }
            Fault::KillScheduler => {
                let schedulers = self.fleet.places(Role::Scheduler);
                if let Some(place) = self.one_of(&schedulers) {
                    self.fleet.kill(place).await;
                    self.after(ms(0), ms(300), Deed::Spawn(place));
                }
            }
            Fault::Freeze => {
                if let Some(place) = self.victim() {
                    self.fleet.signal(place, Signal::SIGSTOP);
                    let pid = self.fleet.pid(place).unwrap();
                    self.after(LEASE.mul_f64(1.2), LEASE * 3, Deed::Thaw(place, pid));
                }
            }
            Fault::KillPostgres if *self.up.borrow() => {
                self.up.send_replace(false);
                self.cluster.kill().await;
                self.outage.get_or_insert_with(Instant::now);
                self.after(ms(100), ms(1500), Deed::StartPostgres);
            }
            Fault::KillPostgres => {}
            Fault::Cut => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.cut();
            }
            Fault::Refuse => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set(Mode::Refuse);
                self.proxy.cut();
                self.after(ms(200), ms(1500), Deed::Pass { cut: false });
            }
            Fault::Delay => {
                self.proxy.set(Mode::Delay(ms(20).mul_f64(self.dice.random())));
                self.after(ms(200), s(2), Deed::Pass { cut: false });
            }
            Fault::Swallow => {
                self.outage.get_or_insert_with(Instant::now);
                self.proxy.set(Mode::Swallow);
                let cut = self.dice.random_bool(0.5);
                self.after(ms(300), s(2), Deed::Pass { cut });
            }
            Fault::FillDisk => {
                self.disk.as_ref().unwrap().fill();
                self.after(ms(300), ms(1500), Deed::FreeDisk);
            }
        }
    }

    async fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Strike => {
                if let Some(fault) = self.deck.pop() {
                    self.inflict(fault).await;
                }
                self.plan();
            }
            Deed::Spawn(place) => self.fleet.spawn(place).await,
            Deed::Thaw(place, pid) => {
                if self.fleet.pid(place) == Some(pid) {
                    self.fleet.signal(place, Signal::SIGCONT);
                }
            }
            Deed::StartPostgres => {
                self.cluster.start().await;
                self.proxy.lead_to(self.cluster.address());
                self.calm.lead_to(self.cluster.address());
                self.up.send_replace(true);
            }
            Deed::Pass { cut } => {
                if cut {
                    self.proxy.cut();
                }
                self.proxy.set(Mode::Pass);
            }
            Deed::FreeDisk if self.starving => {}
            Deed::FreeDisk => self.disk.as_ref().unwrap().free(),
        }
    }

    /// The next deed, or somebody who left, or news, whichever comes first.
    async fn step(&mut self) -> Option<Heard> {
        let next = self.deeds.keys().next().copied();
        tokio::select! {
            Some(heard) = self.ear.recv() => return Some(heard),
            (place, status) = self.fleet.left() => {
                self.fleet.bury(place, status);
                self.stillborn += 1;
                self.after(Duration::from_millis(200), Duration::from_millis(400), Deed::Spawn(place));
            }
            () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                if let Some((_, deed)) = self.deeds.pop_first() {
                    self.act(deed).await;
                }
            }
        }
        None
    }

    fn start_of(&self, k: u32) -> chrono::DateTime<chrono::Utc> {
        self.feed.look(|simulator| simulator.options().window_start(k))
    }

    async fn turn_clock(&mut self, k: u32) {
        self.feed.advance(k).await.unwrap();
        self.fleet.strike(self.start_of(k).to_rfc3339()).await;
    }

    /// Works window `k` to its end among its share of the faults; how it ended.
    async fn window(&mut self, k: u32) -> String {
        self.kept = self.deck.len() - self.deck.len().div_ceil((WINDOWS - k) as usize);
        self.plan();
        self.turn_clock(k).await;
        let start = self.start_of(k);
        loop {
            match self.step().await {
                Some(Heard::Claim(worker)) => {
                    self.claimant = worker.split('-').rev().nth(1).and_then(|pid| pid.parse().ok());
                    if let Some(since) = self.outage.take_if(|_| *self.up.borrow()) {
                        self.longest = self.longest.max(since.elapsed());
                    }
                }
                Some(Heard::Look) => {
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

    /// The clock moves past window `k` while no scheduler lives.
    async fn skip(&mut self, k: u32) {
        for place in self.fleet.places(Role::Scheduler) {
            self.fleet.kill(place).await;
            self.after(Duration::from_millis(500), Duration::from_secs(1), Deed::Spawn(place));
        }
        // whoever was to be born meanwhile comes later
        self.turn_clock(k).await;
    }
}

impl Play {
    /// Another program puts jobs in, by the fleet's own way to the database and with only SQL. What it was not told to be
    /// committed it would have to put in again; what it was told must not be lost.
    async fn knock(&mut self, k: u32) {
        let keys: Vec<String> = (0..KNOCKS).map(|n| format!("again {k} {n}")).collect();
        let asked = async {
            let mut session = PgConnection::connect(&self.way_in).await?;
            sqlx::query(
                "select fleet.enqueue('ingest', jsonb_build_object('file_id', w.file_id), key)
                from unnest($1::text[]) as key
                cross join (select file_id from fleet.windows where state = 'applied' limit 1) as w",
            )
            .bind(&keys)
            .execute(&mut session)
            .await
        };
        if matches!(timeout(LEASE, asked).await, Ok(Ok(done)) if done.rows_affected() > 0) {
            self.knocked.extend(keys);
        }
    }

    /// Lets everything come to its end: no fault is left, and no job.
    async fn settle(&mut self) {
        (self.kept, self.ear) = (0, mpsc::unbounded_channel().1);
        self.plan();
        while !self.deeds.is_empty() {
            self.step().await;
        }
        let open =
            "select count(*) from fleet.jobs where state not in ('completed', 'discarded', 'cancelled')";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&self.pool).await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.fleet.leave().await, [Some(0); 6]);
    }

    /// Only a full disk may cost a window its file; whatever befalls processes and connections costs no attempt.
    async fn expect_no_job_was_given_up_but_for_the_disk(&self) {
        let errors: Vec<(String, Option<String>)> =
            sqlx::query_as("select kind, error from fleet.jobs where state in ('discarded', 'cancelled')")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let full =
            |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains("No space left"));
        assert!(errors.iter().all(|(kind, error)| kind == "fetch" && full(error)), "{errors:?}");
    }

    /// Every job that was acknowledged to the other program is done, once; then they are taken out of the books, which
    /// an undisturbed run has without them.
    async fn expect_knocks(&self) {
        let done: Vec<String> = sqlx::query_scalar(
            "select key from fleet.jobs as job
            where key like 'again %' and state = 'completed'
              and (select count(*) from fleet.job_attempts where job_id = job.id and outcome = 'done') = 1",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let lost: Vec<&String> = self.knocked.iter().filter(|key| !done.contains(key)).collect();
        assert!(!self.knocked.is_empty() && lost.is_empty(), "lost: {lost:?} of {}", self.knocked.len());
        sqlx::query("delete from fleet.jobs where key like 'again %'").execute(&self.pool).await.unwrap();
    }
}

pub async fn play(seed: u64) {
    let mut play = Play::new(seed).await;
    for place in 0..play.fleet.members.len() {
        play.fleet.spawn(place).await;
    }
    let skipped = play.dice.random_range(3..WINDOWS - 2);
    let starved = play.disk.is_some().then(|| skipped - 1 - play.dice.random_range(0..2));
    let mut applied = Vec::new();
    for k in 0..WINDOWS {
        if k == skipped {
            play.skip(k).await;
            continue;
        }
        if starved == Some(k) {
            play.inflict(Fault::FillDisk).await;
            play.starving = true;
        }
        let began = Instant::now();
        let state = play.window(k).await;
        println!("window {k}: {state} after {:.1} s", began.elapsed().as_secs_f64());
        if state == "applied" {
            applied.push(k);
            play.knock(k).await;
        } else {
            assert_eq!(state, "failed", "window {k}");
        }
        if starved == Some(k) {
            assert_eq!(state, "failed", "window {k} came through a full disk");
            play.starving = false;
            play.act(Deed::FreeDisk).await;
        }
        // the quarter-hour is longer than the fault
        while state == "failed" && play.deeds.values().any(|deed| matches!(deed, Deed::FreeDisk)) {
            play.step().await;
        }
    }
    play.settle().await;
    let figures = play.figures(applied.len()).await;
    play.expect_no_job_was_given_up_but_for_the_disk().await;
    play.expect_knocks().await;
    let found = Books::open(&play.pool).await;
    let wanted = undisturbed(&play.cluster, &applied).await;
    println!("{figures}");
    compare(&play, &found, &wanted, skipped, &applied).await;
}

impl Play {
    async fn figures(&self, applied: usize) -> String {
        let (jobs, rescues, lost): (i64, i64, i64) = sqlx::query_as(
            "select count(*), sum(rescues)::bigint, (select count(*) from fleet.job_attempts where outcome = 'lost')
            from fleet.jobs",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let (faults, log) = (self.inflicted.values().sum::<usize>(), &self.fleet.log);
        format!(
            "{faults} faults: {:?}\n{jobs} jobs, {} of them another program's; {rescues} leases rescued, {lost} runs lost, {} tried \
            again on the spot; {} outages met by workers, {} processes born without a database; longest outage to \
            recovery {:.1} s; {applied} of {WINDOWS} windows applied",
            self.inflicted,
            self.knocked.len(),
            log.count("tries again on the spot"),
            log.count("the database is away"),
            self.stillborn,
            self.longest.as_secs_f64(),
        )
    }
}

async fn compare(play: &Play, found: &Books, wanted: &Books, skipped: u32, applied: &[u32]) {
    let missed: Vec<chrono::DateTime<chrono::Utc>> =
        sqlx::query_scalar("select window_start_utc from fleet.windows where state = 'missed'")
            .fetch_all(&play.pool)
            .await
            .unwrap();
    assert_eq!(missed, [play.start_of(skipped)]);
    assert_eq!(found.digest, wanted.digest);
    let same = |books: &Books| -> BTreeMap<String, i64> {
        let own = ["window ", "job fetch ", "attempts "];
        let counts = books.counts.iter().filter(|(name, _)| !own.iter().any(|own| name.starts_with(own)));
        counts.map(|(name, count)| (name.clone(), *count)).collect()
    };
    assert_eq!(same(found), same(wanted));
    let count = |name: &str| found.counts.get(name).copied().unwrap_or_default();
    assert_eq!(count("leases"), 0);
    assert_eq!(count("window applied"), applied.len() as i64);
    assert_eq!(count("job fetch completed"), applied.len() as i64);
    assert_eq!(count("window applied") + count("window failed") + 1, i64::from(WINDOWS));
    assert_eq!(count("job fetch discarded"), count("window failed"));
}

/// One worker, left in peace, works these windows.
async fn undisturbed(cluster: &Cluster, windows: &[u32]) -> Books {
    let direct = cluster.database("peace").await;
    run(&direct, TELL).await;
    let folder = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let feed = FeedServer::start(simulator(), stop.clone()).await.unwrap();
    let _stops = stop.drop_guard();
    let mut fleet = Fleet::new(
        1,
        0,
        vec![
            ("DATABASE_URL", direct.clone()),
            ("VINOPS_STORE", url::Url::from_directory_path(folder.path()).unwrap().into()),
            ("HOME", folder.path().to_str().unwrap().to_owned()),
            ("COPART_FEED_URL", feed.url()),
        ],
    );
    let mut ear = PgListener::connect(&direct).await.unwrap();
    ear.listen("play").await.unwrap();
    fleet.spawn(0).await;
    let pool = pool(&direct);
    for k in windows {
        feed.advance(*k).await.unwrap();
        let at = feed.look(|simulator| simulator.options().window_start(*k));
        Scheduler::new(&FLEET[0], &["copart"]).simulated().due(&pool, Some(at)).await.unwrap();
        while !ear.recv().await.unwrap().payload().is_empty() {}
    }
    assert_eq!(fleet.leave().await, [Some(0)]);
    Books::open(&pool).await
}
