//! Shutdown after SIGTERM, and two schedulers at once.

use super::cli_fixture::CliFixture;
use super::{KillScenario, TEST_TIMEOUT};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};
use tokio::time::timeout;

/// Sends SIGTERM, and returns the exit code.
pub async fn terminate(mut process: Child) -> Option<i32> {
    kill(Pid::from_raw(process.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    timeout(TEST_TIMEOUT, process.wait()).await.unwrap().unwrap().code()
}

/// Waits until exactly `sessions` sessions of this database wait for locks.
async fn wait_for_sessions(fixture: &CliFixture, sessions: i64) {
    let ask = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let come = async {
        while sqlx::query_scalar::<_, i64>(ask).fetch_one(fixture.pool()).await.unwrap() != sessions {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, come).await.expect("they come to the lock, or leave it");
}

/// Waits until a session waits for this transaction. A short wait elsewhere, for a claim or a relation's extension, is
/// not the run that the test blocks.
async fn wait_blocked_by(lock: &mut sqlx::PgConnection, fixture: &CliFixture) {
    let holder: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(lock).await.unwrap();
    let ask = "select exists (
        select from pg_stat_activity where datname = current_database() and $1 = any (pg_blocking_pids(pid))
    )";
    let come = async {
        while !sqlx::query_scalar::<_, bool>(ask).bind(holder).fetch_one(fixture.pool()).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, come).await.expect("the run comes to the lock");
}

/// A worker that has claimed the first file's ingest and waits in it, since the test locks its source.
struct HeldRun {
    play: KillScenario,
    worker: Child,
    log: Lines<BufReader<ChildStderr>>,
    lock: sqlx::Transaction<'static, sqlx::Postgres>,
}

async fn start_held_run(drain: &str) -> HeldRun {
    let play = KillScenario::new().await;
    sqlx::query("insert into raw.sources (source) values ('copart')").execute(play.fixture.pool()).await.unwrap();
    let mut lock = play.fixture.pool().begin().await.unwrap();
    sqlx::query("select from raw.sources for update").execute(&mut *lock).await.unwrap();
    play.open_window(0).await;
    let mut worker = play
        .fixture
        .vinops_command(&["worker", "--drain", drain])
        .env("COPART_FEED_URL", play.feed.url())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(worker.stderr.take().unwrap()).lines();
    wait_blocked_by(&mut lock, &play.fixture).await;
    HeldRun { play, worker, log, lock }
}

impl HeldRun {
    async fn read_job(&self) -> (String, i32, Option<String>, Vec<String>) {
        HeldRun::read_job_of(&self.play).await
    }

    async fn read_job_of(play: &KillScenario) -> (String, i32, Option<String>, Vec<String>) {
        sqlx::query_as(
            "select state, attempt, locked_by, array(select outcome from fleet.job_attempts where job_id = id order by run)
            from fleet.jobs where kind = 'ingest'",
        )
        .fetch_one(play.fixture.pool())
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn sigterm_lets_a_running_job_finish() {
    let mut held = start_held_run("60s").await;
    kill(Pid::from_raw(held.worker.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    while !held.log.next_line().await.unwrap().expect("it says that it drains").contains("draining") {}
    std::mem::replace(&mut held.lock, held.play.fixture.pool().begin().await.unwrap()).rollback().await.unwrap();
    while held.log.next_line().await.unwrap().is_some() {}
    assert_eq!(held.worker.wait().await.unwrap().code(), Some(0));
    assert_eq!(held.read_job().await, ("completed".to_owned(), 1, None, vec!["done".to_owned()]));
}

#[tokio::test]
async fn sigterm_gives_back_what_cannot_finish_and_nothing_is_burnt() {
    let mut held = start_held_run("0s").await;
    kill(Pid::from_raw(held.worker.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    let exit = timeout(TEST_TIMEOUT, async {
        while held.log.next_line().await.unwrap().is_some() {}
        held.worker.wait().await.unwrap()
    });
    assert_eq!(exit.await.expect("it waits for no statement").code(), Some(0));
    assert_eq!(held.read_job().await, ("available".to_owned(), 0, None, vec!["interrupted".to_owned()]));
    // the server cancels the dead worker's statement, although the lock that it waits for is still held
    wait_for_sessions(&held.play.fixture, 0).await;
    held.lock.rollback().await.unwrap();
    let successor = held.play.start_worker();
    held.play.wait_window_end().await;
    assert_eq!(terminate(successor).await, Some(0));
}

#[tokio::test]
async fn sigint_drains_and_a_second_one_leaves_at_once_with_nothing_lost() {
    let mut held = start_held_run("60s").await;
    let pid = Pid::from_raw(held.worker.id().unwrap().cast_signed());
    kill(pid, Signal::SIGINT).unwrap();
    while !held.log.next_line().await.unwrap().expect("it says that it drains").contains("draining") {}
    kill(pid, Signal::SIGINT).unwrap();
    let exit = timeout(TEST_TIMEOUT, held.worker.wait()).await.expect("it waits for nothing").unwrap();
    assert_eq!(exit.code(), Some(130));
    // it released nothing, so its lease must run out
    let successor = held.play.start_worker();
    held.lock.rollback().await.unwrap();
    held.play.wait_window_end().await;
    assert_eq!(terminate(successor).await, Some(0));
    let runs = ["lost", "done"].map(str::to_owned).to_vec();
    assert_eq!(HeldRun::read_job_of(&held.play).await, ("completed".to_owned(), 1, None, runs));
}

#[tokio::test]
async fn two_schedulers_at_once_make_one_job_of_a_window() {
    let fixture = CliFixture::new().await;
    // both run at once: neither can start before both are ready
    let mut lock = fixture.pool().begin().await.unwrap();
    sqlx::query("lock table fleet.windows in access exclusive mode").execute(&mut *lock).await.unwrap();
    let schedulers = [(); 2].map(|()| fixture.vinops_command(&["scheduler"]).stderr(Stdio::null()).spawn().unwrap());
    wait_for_sessions(&fixture, 2).await;
    lock.rollback().await.unwrap();
    for scheduler in schedulers {
        assert_eq!(terminate(scheduler).await, Some(0));
    }
    let (windows, jobs): (i64, i64) = sqlx::query_as(
        "select (select count(*) from fleet.windows), (select count(*) from fleet.jobs where kind = 'fetch')",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap();
    // two if a quarter-hour ended between the two
    assert!((1..=2).contains(&windows) && jobs == windows, "{windows} windows, {jobs} jobs");
}
