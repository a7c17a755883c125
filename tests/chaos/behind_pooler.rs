//! The fleet behind a pooler in transaction mode, where a client uses another server connection for each transaction.
//! The ledger counts equal those of a fleet without a pooler, although the pooler is killed during a window. Also the
//! errors for unsuitable poolers.

use crate::cluster::{ChaosCluster, run_sql};
use crate::fleet::{FleetLog, ProcessFleet};
use crate::ledger_counts::LedgerCounts;
use crate::pooler::{TestPooler, carries_prepared_statements};
use crate::scenario::checks::{comparable_counts, run_undisturbed};
use crate::scenario::{NOTIFY_TRIGGERS, new_simulator, open_pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vinops::simulator::server::FeedServer;

/// Longer than the whole scenario takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(100);
const WINDOWS: u32 = 4;
/// The window during which the pooler is killed, and the number of claims before the kill: its fetch and its ingest.
const KILL_POINT: (u32, usize) = (2, 2);
/// The number of server connections, fewer than the clients have.
const SERVER_CONNECTIONS: u32 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_behind_a_pooler_in_transaction_mode_ends_with_the_books_of_one_without() {
    let log = FleetLog::default();
    let played = timeout(TEST_TIMEOUT, run_behind_pooler(&log)).await;
    assert!(played.is_ok(), "it takes too long:\n{}", log.last_lines());
}

async fn run_behind_pooler(log: &FleetLog) {
    let cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("pooled").await;
    run_sql(&direct, NOTIFY_TRIGGERS).await;
    let Some(mut pooler) = TestPooler::transaction_mode(&cluster, "pooled", SERVER_CONNECTIONS).await else {
        return;
    };
    let pooled = pooler.url("pooled");
    let stop = CancellationToken::new();
    let feed = FeedServer::start(new_simulator(), stop.clone()).await.unwrap();
    let _stops = stop.drop_guard();
    let store = url::Url::from_directory_path(pooler.folder().join("store")).unwrap();
    let environment = vec![
        ("DATABASE_URL", pooled.clone()),
        ("DATABASE_DIRECT_URL", direct.clone()),
        ("VINOPS_STORE", store.to_string()),
        ("VINOPS_LEASE", "1s".to_owned()),
        ("HOME", pooler.folder().to_str().unwrap().to_owned()),
        ("COPART_FEED_URL", feed.url()),
    ];
    let mut fleet = ProcessFleet::new(2, 1, environment.clone(), log);
    let mut ear = PgListener::connect(&direct).await.unwrap();
    ear.listen("play").await.unwrap();
    for place in 0..fleet.members.len() {
        fleet.spawn_member(place).await;
    }
    for k in 0..WINDOWS {
        feed.advance_to(k).await.unwrap();
        fleet.set_clock(feed.with_simulator(|simulator| simulator.options().window_start(k)).to_rfc3339()).await;
        let mut claims = 0;
        // a claim's payload is the worker's name, the end of a window's is empty
        while !ear.recv().await.unwrap().payload().is_empty() {
            claims += 1;
            if (k, claims) == KILL_POINT {
                pooler.kill().await;
                log.wait_for("database unavailable").await;
                pooler.start().await;
                let back = Instant::now();
                log.wait_for("database available again").await;
                println!("the workers were back {:.1} s after the pooler", back.elapsed().as_secs_f64());
            }
        }
    }
    for arguments in [&["jobs", "list", "--json"][..], &["windows"], &["source", "status"], &["digest"]] {
        let said = run_vinops(arguments, &environment).await;
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
    let doctors = run_vinops(&["doctor"], &environment).await;
    let doctors = String::from_utf8(doctors.stdout).unwrap();
    assert!(doctors.contains("PASS  listen "), "{doctors}");
    check_serve(&environment, log).await;
    // no process has exited, and all exit after SIGTERM
    assert_eq!(fleet.shut_down().await, [Some(0); 3], "{}", log.last_lines());
    let found = LedgerCounts::read(&open_pool(&direct)).await;
    let all: Vec<u32> = (0..WINDOWS).collect();
    let wanted = run_undisturbed(&cluster, &all, log).await;
    assert_eq!(found.digest, wanted.digest);
    assert_eq!(comparable_counts(&found), comparable_counts(&wanted));
    assert_eq!(found.counts.get("window applied"), Some(&i64::from(WINDOWS)));
    assert_eq!(found.counts.get("leases"), Some(&0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_around_the_pooler_nobody_listens_and_the_doctor_says_so() {
    let cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("pooled").await;
    // one server connection: if it listened, a notification would break the next client's statement
    let Some(pooler) = TestPooler::transaction_mode(&cluster, "pooled", 1).await else { return };
    let log = FleetLog::default();
    let home = pooler.folder().to_str().unwrap().to_owned();
    let environment = vec![("DATABASE_URL", pooler.url("pooled")), ("HOME", home)];
    let mut fleet = ProcessFleet::new(1, 0, environment.clone(), &log);
    fleet.spawn_member(0).await;
    timeout(TEST_TIMEOUT, log.wait_for("no LISTEN through the pooler")).await.expect("the worker says so");
    let mut session = vinops::db::connect_session(&pooler.url("pooled")).await.unwrap();
    let put = "select fleet.enqueue('ingest', '{}', 'unreadable')";
    sqlx::query(put).execute(&mut session).await.unwrap();
    let ended = async {
        let of = "select state = 'discarded' from fleet.jobs";
        let mut direct = PgConnection::connect(&direct).await.unwrap();
        while !sqlx::query_scalar::<_, bool>(of).fetch_one(&mut direct).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, ended).await.expect("the worker polls");
    let requeued = run_vinops(&["jobs", "requeue", "1"], &environment).await;
    assert!(requeued.status.success(), "{}", String::from_utf8_lossy(&requeued.stderr));
    let doctors = run_vinops(&["doctor"], &environment).await;
    let doctors = String::from_utf8(doctors.stdout).unwrap();
    assert!(doctors.contains("WARN  listen        DATABASE_URL leads through a pooler"), "{doctors}");
    assert_eq!(fleet.shut_down().await, [Some(0)], "{}", log.last_lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_loses_prepared_statements_is_refused_at_the_start() {
    let cluster = ChaosCluster::new().await;
    let direct = cluster.create_database("pooled").await;
    let mut settings = "pool_mode = transaction".to_owned();
    if carries_prepared_statements() {
        settings += "\nmax_prepared_statements = 0";
    }
    let Some(pooler) = TestPooler::new(&cluster, "pooled", &settings).await else { return };
    let home = pooler.folder().to_str().unwrap().to_owned();
    let pooled = vec![("DATABASE_URL", pooler.url("pooled")), ("HOME", home)];
    let around = [&pooled[..], &[("DATABASE_DIRECT_URL", direct)]].concat();
    for environment in [pooled, around] {
        for arguments in [&["worker"][..], &["jobs", "list"], &["doctor"]] {
            let said = run_vinops(arguments, &environment).await;
            let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            let output = if arguments == ["doctor"] { &out } else { &err };
            assert_eq!(said.status.code(), Some(3), "{arguments:?}: {out}{err}");
            assert!(
                output.contains("a pooler that loses prepared statements")
                    && output.contains("max_prepared_statements"),
                "{arguments:?}: {output}"
            );
        }
    }
}

/// Checks that the API reads as another role and under a time limit, which must end with the transaction on a shared
/// connection.
async fn check_serve(environment: &[(&'static str, String)], log: &FleetLog) {
    let mut command = vinops_command(&["serve", "--listen", "127.0.0.1:0"], environment);
    let mut serve = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(serve.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("it serves");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        if let Some(address) = line["address"].as_str() {
            break address.to_owned();
        }
    };
    log.read_from("serve".to_owned(), lines.into_inner(), "");
    for (path, words) in [
        ("/api/v1/windows", "\"state\":\"applied\""),
        ("/api/v1/search?limit=1", "\"lots\":[{"),
        ("/readyz", "\"ready\":true"),
        ("/metrics", "vinops_"),
    ] {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: vinops\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(words), "{path}: {answer}");
        }
    }
    kill(Pid::from_raw(serve.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    let left = timeout(TEST_TIMEOUT, serve.wait()).await.expect("it leaves").unwrap();
    assert_eq!(left.code(), Some(0), "{}", log.last_lines());
}

/// Runs a command to its end.
async fn run_vinops(arguments: &[&str], environment: &[(&'static str, String)]) -> Output {
    timeout(TEST_TIMEOUT, vinops_command(arguments, environment).output()).await.expect("it ends").unwrap()
}

fn vinops_command(arguments: &[&str], environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vinops"));
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}
