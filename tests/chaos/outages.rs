//! One outage at a time, for one worker and one scheduler, both the program itself: the database restarts, a standby
//! replaces it, or the pooler restarts. Each process survives, logs the outage once when it begins and once when it
//! ends, and continues to work.

use crate::cluster::ChaosCluster;
use crate::fleet::FleetLog;
use crate::pooler::TestPooler;
use crate::proxy::TcpProxy;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use vinops::simulator::server::FeedServer;
use vinops::simulator::{Simulator, SimulatorOptions};

const TEST_TIMEOUT: Duration = Duration::from_secs(100);

/// A feed, and a worker and a scheduler over a database at `url`.
struct WorkerAndScheduler {
    worker: Child,
    scheduler: Child,
    log: FleetLog,
    _feed: FeedServer,
    _stops: DropGuard,
    _folder: TempDir,
}

impl WorkerAndScheduler {
    /// Waits until both have logged that the database is unavailable.
    async fn wait_outage(&self) {
        self.wait_for_log("database unavailable").await;
        self.wait_for_log("scheduling failed").await;
    }

    /// Waits until both have logged that the database is available, and the window is applied.
    async fn wait_recovery(&self, url: &str) {
        self.wait_for_log("database available again").await;
        self.wait_for_log("scheduling resumed").await;
        wait_until(self, url, WINDOW_APPLIED).await;
    }

    /// Starts both. The test locks the windows, so the scheduler waits in its first query.
    async fn new(url: &str, direct: &str) -> WorkerAndScheduler {
        let stop = CancellationToken::new();
        let options = SimulatorOptions::new(7, 2000, "2026-03-06T17:00:00Z".parse().unwrap());
        let feed = FeedServer::start(Simulator::new(options), stop.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = FleetLog::default();
        let start = |role: &str| {
            let store = url::Url::from_directory_path(folder.path().join("store")).unwrap();
            let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_vinops"))
                .arg(role)
                .env_clear()
                .env("DATABASE_URL", url)
                .env("DATABASE_DIRECT_URL", direct)
                .env("VINOPS_STORE", store.as_str())
                .env("VINOPS_LEASE", "1s")
                .env("COPART_FEED_URL", feed.url())
                .env("HOME", folder.path())
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            log.read_from(role.to_owned(), child.stderr.take().unwrap(), "worker started");
            child
        };
        let (worker, scheduler) = (start("worker"), start("scheduler"));
        WorkerAndScheduler { worker, scheduler, log, _feed: feed, _stops: stop.drop_guard(), _folder: folder }
    }

    async fn wait_for_log(&self, words: &str) {
        let said = timeout(TEST_TIMEOUT, self.log.wait_for(words)).await;
        said.unwrap_or_else(|_| panic!("nobody says {words:?}:\n{}", self.log.to_text()));
    }

    /// Checks that both processes survived and logged each change once, and shuts them down.
    async fn shut_down_after_outage(self) {
        for (away, back) in
            [("database unavailable", "database available again"), ("scheduling failed", "scheduling resumed")]
        {
            let all = self.log.to_text();
            let output = all.lines().filter_map(|line| match () {
                () if line.contains(away) => Some(false),
                () if line.contains(back) => Some(true),
                () => None,
            });
            // one line for each change: a busy machine may add an outage of its own
            let output: Vec<bool> = output.collect();
            assert!(output.len() >= 2 && output.iter().enumerate().all(|(n, back)| *back == (n % 2 == 1)), "{all}");
        }
        self.shut_down().await;
    }

    /// Shuts both down.
    async fn shut_down(mut self) {
        for process in [&mut self.worker, &mut self.scheduler] {
            let pid = process.id().expect("it has kept its process").cast_signed();
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
            let left = timeout(TEST_TIMEOUT, process.wait()).await.expect("it leaves when told");
            assert_eq!(left.unwrap().code(), Some(0), "{}", self.log.to_text());
        }
    }
}

/// Locks the windows, so that every scheduler waits in its first query.
async fn lock_windows(url: &str) -> PgConnection {
    let mut lock = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("begin; lock table fleet.windows in access exclusive mode").execute(&mut lock).await.unwrap();
    lock
}

/// Starts a pair whose scheduler waits in a query, so that the outage interrupts it. `direct` bypasses the part that
/// will fail.
async fn start_pair(url: &str, direct_url: &str, direct: &str) -> (WorkerAndScheduler, PgConnection) {
    let lock = lock_windows(direct).await;
    let pair = WorkerAndScheduler::new(url, direct_url).await;
    pair.wait_for_log("worker started").await;
    wait_until(&pair, direct, SCHEDULER_WAITS).await;
    (pair, lock)
}

/// Repeats the query until it returns true.
async fn wait_until(pair: &WorkerAndScheduler, url: &str, question: &'static str) {
    let asking = async {
        let mut session = PgConnection::connect(url).await.unwrap();
        while !sqlx::query_scalar::<_, bool>(question).fetch_one(&mut session).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| panic!("it never became true: {question}\n{}", pair.log.to_text()));
}

const SCHEDULER_WAITS: &str =
    "select exists (select from pg_locks where not granted and relation = 'fleet.windows'::regclass)";
const WINDOW_APPLIED: &str = "select exists (select from fleet.windows where state = 'applied')";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_at_once_and_starts_again_is_ridden_out() {
    let mut cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("restart").await;
    let proxy = TcpProxy::new(cluster.address()).await;
    let url = proxy.url(&direct);
    let (pair, lock) = start_pair(&url, &url, &direct).await;

    cluster.kill().await;
    drop(lock);
    pair.wait_outage().await;
    cluster.start().await;
    proxy.set_backend(cluster.address());
    let back = Instant::now();
    pair.wait_recovery(&cluster.url("restart")).await;
    println!("restart: the window was applied {:.1} s after the database's return", back.elapsed().as_secs_f64());
    pair.shut_down_after_outage().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_without_a_word_are_replaced() {
    let cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("silence").await;
    let proxy = TcpProxy::new(cluster.address()).await;
    let url = proxy.url(&direct);
    let pair = WorkerAndScheduler::new(&url, &url).await;
    wait_until(&pair, &direct, WINDOW_APPLIED).await;

    proxy.strand_connections();
    let stranded = Instant::now();
    let mut session = PgConnection::connect(&direct).await.unwrap();
    let again = "select fleet.enqueue('ingest', jsonb_build_object('file_id', file_id), 'again') from raw.csv_files";
    sqlx::raw_sql(again).execute(&mut session).await.unwrap();
    wait_until(&pair, &direct, "select state = 'completed' from fleet.jobs where key = 'again'").await;
    println!("silence: a job was done {:.1} s after every connection had died", stranded.elapsed().as_secs_f64());
    pair.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_leave_while_the_database_is_away_leaves() {
    let mut cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("gone").await;
    let pair = WorkerAndScheduler::new(&direct, &direct).await;
    wait_until(&pair, &direct, WINDOW_APPLIED).await;
    cluster.kill().await;
    pair.wait_for_log("database unavailable").await;
    let output = Instant::now();
    pair.shut_down().await;
    assert!(output.elapsed() < Duration::from_secs(20), "{:?}", output.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_takes_over_is_ridden_out() {
    let mut cluster = ChaosCluster::new().await;
    let Some(mut standby) = cluster.standby().await else {
        println!("WITHOUT a standby: there is no pg_basebackup beside this PostgreSQL");
        return;
    };
    let direct = cluster.create_database("failover").await;
    let proxy = TcpProxy::new(cluster.address()).await;
    let url = proxy.url(&direct);
    let (pair, lock) = start_pair(&url, &url, &direct).await;

    cluster.kill().await;
    drop(lock);
    pair.wait_outage().await;
    let lost = Instant::now();
    // for a moment the database is read-only
    proxy.set_backend(standby.address());
    standby.promote().await;
    pair.wait_recovery(&standby.url("failover")).await;
    println!("fail-over: the window was applied {:.1} s after the promotion began", lost.elapsed().as_secs_f64());
    pair.shut_down_after_outage().await;
    standby.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_restarts_is_ridden_out() {
    let cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("pooled").await;
    let Some(mut pooler) = TestPooler::new(&cluster, "pooled", "pool_mode = session\ndefault_pool_size = 60").await
    else {
        return;
    };
    let (pair, lock) = start_pair(&pooler.url("pooled"), &direct, &direct).await;

    pooler.kill().await;
    pair.wait_outage().await;
    drop(lock);
    pooler.start().await;
    let back = Instant::now();
    pair.wait_recovery(&direct).await;
    println!("pooler: the window was applied {:.1} s after its return", back.elapsed().as_secs_f64());
    pair.shut_down_after_outage().await;
}
