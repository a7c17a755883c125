//! Workers that die: `kill -9` at random moments, SIGTERM, and two schedulers at once, with real processes and a real
//! database.
//!
//! The killed run and the undisturbed one process the same five windows of a simulated feed, whole chains from download
//! to status, and must end with the same ledger counts. Two kills fall into each of the 25 jobs. Their times are drawn
//! over the job's undisturbed duration and a third more, so that some fall between two jobs. One in five is drawn from
//! the start of a worker, before it has a job. Triggers of this test send a NOTIFY for each claim and each window.
//!
//! The only timers are those times. They synchronise nothing: each is a time limit on waiting for the window's end, and
//! the worker is killed when it is over, whatever has happened. `VINOPS_KILL_SEED` repeats the times, not the
//! interleaving.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

#[path = "../faults/cli_fixture.rs"]
mod cli_fixture;
mod ledger_counts;
#[cfg(feature = "s3")]
#[expect(dead_code, reason = "this scenario injects no faults into the bucket")]
#[path = "../s3/server.rs"]
mod server;
mod terminate;

use cli_fixture::CliFixture;
use ledger_counts::LedgerCounts;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::postgres::PgListener;
use std::collections::HashMap;
use std::future::pending;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::scheduler::Scheduler;
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::workers::JOBS;

const WINDOWS: u32 = 5;
const KILL_COUNT: usize = 50;
const ROWS: usize = 2000;
/// Longer than the whole scenario takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(90);

/// Triggers that notify channel `play` of claims and of the ends of windows.
const NOTIFY_TRIGGERS: &str = "
create function tell_claim() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', format('claim %s %s', new.id, new.locked_by));
  return null;
end $$;
create trigger tell_claim after update of state on fleet.jobs
for each row when (new.state = 'running') execute function tell_claim();
create function tell_window() returns trigger language plpgsql as $$
begin
  perform pg_notify('play', 'window ' || new.state);
  return null;
end $$;
create trigger tell_window after update of state on fleet.windows
for each row when (new.state not in ('due', 'fetched', 'ingested')) execute function tell_window();";

/// A feed, a fleet's database, and a listener on it.
struct KillScenario {
    fixture: CliFixture,
    feed: FeedServer,
    ear: PgListener,
    _feed_stops: DropGuard,
}

enum ScenarioNotice {
    Claimed { job: i64, worker: String },
    WindowEnded,
}

impl KillScenario {
    async fn new() -> KillScenario {
        KillScenario::with_environment(Vec::new()).await
    }

    /// Creates a scenario with variables of its workers, such as those of a store in a bucket.
    async fn with_environment(environment: Vec<(String, String)>) -> KillScenario {
        let mut fixture = CliFixture::new().await;
        fixture.environment = environment;
        sqlx::raw_sql(NOTIFY_TRIGGERS).execute(fixture.pool()).await.unwrap();
        let mut ear = fixture.db.db.connect_listener().await.unwrap();
        ear.listen("play").await.unwrap();
        let mut options = SimulatorOptions::new(7, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
        options.broken = 3;
        let stop = CancellationToken::new();
        let feed = FeedServer::start(Simulator::new(options), stop.clone()).await.unwrap();
        KillScenario { fixture, feed, ear, _feed_stops: stop.drop_guard() }
    }

    /// Starts a worker, which appends its log to a file.
    fn start_worker(&self) -> Child {
        let log = self.fixture.folder.path().join("workers.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.fixture
            .vinops_command(&["worker"])
            .env("COPART_FEED_URL", self.feed.url())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Advances the feed and opens its window.
    async fn open_window(&self, k: u32) {
        self.feed.advance_to(k).await.unwrap();
        let at = self.feed.with_simulator(|simulator| simulator.options().window_start(k));
        let scheduler = Scheduler::new(&JOBS[0], &["copart"]).simulated();
        let due = scheduler.enqueue_due_windows(self.fixture.pool(), Some(at)).await.unwrap();
        assert!(due[0].job.is_some());
    }

    async fn next_notice(&mut self) -> ScenarioNotice {
        let output = self.ear.recv().await.unwrap();
        match output.payload().split(' ').collect::<Vec<_>>()[..] {
            ["claim", job, worker] => ScenarioNotice::Claimed { job: job.parse().unwrap(), worker: worker.to_owned() },
            _ => ScenarioNotice::WindowEnded,
        }
    }

    async fn wait_window_end(&mut self) {
        while !matches!(self.next_notice().await, ScenarioNotice::WindowEnded) {}
    }

    /// Reads the ledger counts after the last worker has stopped and its jobs were released.
    async fn finish(&self, mut worker: Child) -> LedgerCounts {
        worker.kill().await.unwrap();
        LedgerCounts::read(self.fixture.pool()).await
    }

    /// Returns how long each job's last run took, in the order of the jobs.
    async fn job_durations(&self) -> Vec<Duration> {
        let seconds: Vec<f64> = sqlx::query_scalar(
            "select extract(epoch from max(finished_at - started_at))::float8 from fleet.job_attempts group by job_id order by job_id",
        )
        .fetch_all(self.fixture.pool())
        .await
        .unwrap();
        seconds.into_iter().map(Duration::from_secs_f64).collect()
    }
}

async fn run_undisturbed() -> (LedgerCounts, Vec<Duration>) {
    let mut play = KillScenario::new().await;
    let worker = play.start_worker();
    for k in 0..WINDOWS {
        play.open_window(k).await;
        play.wait_window_end().await;
    }
    (play.finish(worker).await, play.job_durations().await)
}

/// The running worker, the random times of kills, and their number so far.
struct WorkerKiller {
    dice: StdRng,
    worker: Child,
    kills: usize,
    idle: usize,
}

impl WorkerKiller {
    /// Waits for the window's end, at most until a random time within `span`. Then it kills the worker and starts
    /// another. Returns true if the window ended.
    async fn kill_or_finish(&mut self, play: &mut KillScenario, span: Duration) -> bool {
        let moment = span.mul_f64(self.dice.random());
        let ended = timeout(moment, play.wait_window_end()).await.is_ok();
        if !ended {
            self.kill_worker(play).await;
        }
        ended
    }

    async fn kill_worker(&mut self, play: &KillScenario) {
        self.worker.kill().await.unwrap();
        self.worker = play.start_worker();
        self.kills += 1;
    }

    fn is_worker(&self, worker: &str) -> bool {
        worker.contains(&format!("-{}-", self.worker.id().unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_over_five_windows_change_nothing_in_the_end() {
    let began = Instant::now();
    let seed = read_seed();
    println!("to play it again: VINOPS_KILL_SEED={seed}");
    timeout(TEST_TIMEOUT, run_scenario(seed, Vec::new())).await.expect("it ends within its time");
    println!("in {:.1} s", began.elapsed().as_secs_f64());
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_with_the_store_in_a_bucket_end_as_undisturbed_on_a_folder() {
    let server = server::BucketServer::start().await;
    server.faults().slow_down_every.store(9, std::sync::atomic::Ordering::SeqCst);
    let seed = read_seed();
    println!("to play it again: VINOPS_KILL_SEED={seed}");
    let play = timeout(TEST_TIMEOUT, run_scenario(seed, server.environment())).await.expect("it ends within its time");
    let check = play.fixture.vinops_command(&["store", "check", "--all"]).output().await.unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.starts_with("5 files, 5 read in full: 5 intact"), "{said}");
}

/// Kills workers with these variables, and expects the result of an undisturbed run on a folder.
async fn run_scenario(seed: u64, environment: Vec<(String, String)>) -> KillScenario {
    let (wanted, durations) = run_undisturbed().await;
    let mut play = KillScenario::with_environment(environment).await;
    let worker = play.start_worker();
    let mut reaper = WorkerKiller { dice: StdRng::seed_from_u64(seed), worker, kills: 0, idle: 0 };
    let mut met: HashMap<i64, (usize, usize)> = HashMap::new();
    for k in 0..WINDOWS {
        play.open_window(k).await;
        loop {
            let (job, worker) = match play.next_notice().await {
                ScenarioNotice::WindowEnded => break,
                ScenarioNotice::Claimed { job, worker } => (job, worker),
            };
            let next = met.len();
            let (nth, killed) = met.entry(job).or_insert((next, 0));
            let jobs_left = durations.len() - *nth;
            if !reaper.is_worker(&worker) || *killed >= (KILL_COUNT - reaper.kills).div_ceil(jobs_left) {
                continue;
            }
            *killed += 1;
            if reaper.kill_or_finish(&mut play, durations[*nth].mul_f64(4.0 / 3.0)).await {
                break;
            }
            if reaper.dice.random_bool(0.25) && reaper.kills < KILL_COUNT {
                reaper.idle += 1;
                if reaper.kill_or_finish(&mut play, Duration::from_millis(300)).await {
                    break;
                }
            }
        }
    }
    // kills for which the jobs were too fast hit idle workers
    while reaper.kills < KILL_COUNT {
        reaper.idle += 1;
        let moment = Duration::from_millis(300).mul_f64(reaper.dice.random());
        timeout(moment, pending::<()>()).await.ok();
        reaper.kill_worker(&play).await;
    }
    let WorkerKiller { worker, kills, idle, .. } = reaper;
    let found = play.finish(worker).await;
    let rescues: i64 =
        sqlx::query_scalar("select sum(rescues)::bigint from fleet.jobs").fetch_one(play.fixture.pool()).await.unwrap();
    let downloads = play.feed.requests().iter().filter(|hit| hit.status == 200).count();
    println!(
        "{kills} kills, {idle} counted from a worker's birth; {rescues} leases rescued, {downloads} downloads begun"
    );

    assert_eq!(kills, KILL_COUNT);
    assert!(rescues > 0);
    assert_eq!(found, wanted);
    assert_eq!(found.counts["window applied"], i64::from(WINDOWS));
    assert_eq!(found.counts["runs that ended a job"], 5 * i64::from(WINDOWS));
    assert_eq!(found.counts["leases"], 0);
    play
}

/// Returns a new seed, or the one of `VINOPS_KILL_SEED`.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
fn read_seed() -> u64 {
    std::env::var("VINOPS_KILL_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap())
}
