//! Replays and acceptances whose commands and workers are killed at any moment: the rows end as in an undisturbed run.
//!
//! `VINOPS_TEST_KILLS` sets the number of kills.

use super::CommandOutput;
use super::cli_fixture::CliFixture;
use rand::RngExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use vinops::config::test_number;
use vinops::simulator::fault::FeedFault;

/// The default number of kills.
const KILL_COUNT: u64 = 6;
/// Longer than a chain takes, with all its rescues.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(120);

fn kill_count() -> u64 {
    test_number("VINOPS_TEST_KILLS").unwrap_or(KILL_COUNT)
}

/// Starts a command and kills it after a random time, unless it has ended.
async fn kill_command_within(fixture: &CliFixture, arguments: &[&str], most: u64) {
    let mut command = fixture.vinops_command(arguments);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let wait = Duration::from_millis(rand::rng().random_range(0..most));
    timeout(wait, process.wait()).await.ok();
    process.kill().await.unwrap();
}

/// Runs a worker until no job is left.
async fn run_until_idle(fixture: &CliFixture) {
    let mut worker = fixture.vinops_command(&["worker"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let open = "select count(*) from fleet.jobs where state not in ('completed', 'cancelled', 'discarded')";
    let idle = async {
        while sqlx::query_scalar::<_, i64>(open).fetch_one(fixture.pool()).await.unwrap() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(CHAIN_TIMEOUT, idle).await.expect("the chains end");
    worker.kill().await.unwrap();
}

async fn read_statuses(fixture: &CliFixture) -> serde_json::Value {
    let query = "select jsonb_build_array(
        (select jsonb_object_agg(lot_external_id, status) from lots),
        (select jsonb_object_agg(window_start_utc, state) from fleet.windows))";
    sqlx::query_scalar(query).fetch_one(fixture.pool()).await.unwrap()
}

#[tokio::test]
async fn killed_replays_mend_what_an_undisturbed_one_does() {
    let fixture = CliFixture::with_first_window().await;
    for k in 1..3 {
        let said = fixture.ingest_file(&fixture.write_window_file(k, None)).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let before = (fixture.stored_counts().await.digest, read_statuses(&fixture).await);
    let spoil = "update lots set odometer = 1, city = 'NOWHERE' where lot_external_id like '%3';
        update vehicles set make = 'NONE' where vin like '%7'; delete from images where source_url like '%1%'";
    sqlx::raw_sql(spoil).execute(fixture.pool()).await.unwrap();
    assert_ne!(fixture.stored_counts().await.digest, before.0);
    let windows = ["2026-03-06T17:00:00Z", "2026-03-06T17:15:00Z", "2026-03-06T17:30:00Z"];
    for n in 0..kill_count() as usize {
        let replay = ["replay", windows[n % 3], "--from", "ingest", "--reason", "a test", "--yes"];
        kill_command_within(&fixture, &replay, 400).await;
        kill_command_within(&fixture, &["worker"], 900).await;
    }
    run_until_idle(&fixture).await;
    let span = [
        "replay",
        "--since",
        windows[0],
        "--until",
        "2026-03-06T17:45:00Z",
        "--from",
        "ingest",
        "--reason",
        "a test",
        "--yes",
    ];
    kill_command_within(&fixture, &[&span[..], &["--wait"]].concat(), 1500).await;
    run_until_idle(&fixture).await;
    let said: CommandOutput = fixture.run_vinops(&[&span[..], &["--wait"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((fixture.stored_counts().await.digest, read_statuses(&fixture).await), before);
}

#[tokio::test]
async fn a_killed_acceptance_ends_as_an_undisturbed_one() {
    let accept = ["windows", "accept", "2026-03-06T17:15Z", "--reason", "its values are right", "--yes"];
    let quarantined = async || {
        let fixture = CliFixture::with_first_window().await;
        let said =
            fixture.ingest_file(&fixture.write_window_file(1, Some(FeedFault::BrokenRows { per_mille: 100 }))).await;
        assert_eq!(said.json()["state"], "quarantined");
        fixture
    };
    let (fixture, undisturbed) = (quarantined().await, quarantined().await);
    let said = undisturbed.run_vinops(&[&accept[..], &["--wait"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for _ in 0..kill_count() {
        kill_command_within(&fixture, &accept, 400).await;
        kill_command_within(&fixture, &["worker"], 500).await;
    }
    let said = fixture.run_vinops(&accept).await;
    assert!(
        said.code == Some(0) || said.err.contains("quarantined") || said.err.contains("is unfinished: "),
        "{}",
        said.err
    );
    run_until_idle(&fixture).await;
    let all = async |fixture: &CliFixture| (fixture.stored_counts().await.digest, read_statuses(fixture).await);
    assert_eq!(all(&fixture).await, all(&undisturbed).await);
}
