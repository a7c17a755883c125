//! Replays and acceptances whose commands and workers are killed at any moment: the rows end as in an undisturbed run.
//!
//! `VINOPS_TEST_KILLS` sets the number of kills.

use super::Said;
use super::stage::Stage;
use rand::RngExt;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use vinops::config::test_number;
use vinops::simulator::fault::Fault;

/// The default number of kills.
const KILLS: u64 = 6;
/// Longer than a chain takes, with all its rescues.
const LIMIT: Duration = Duration::from_secs(120);

fn kills() -> u64 {
    test_number("VINOPS_TEST_KILLS").unwrap_or(KILLS)
}

/// Starts a command and kills it after a random time, unless it has ended.
async fn kill_within(stage: &Stage, arguments: &[&str], most: u64) {
    let mut command = stage.vinops(arguments);
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let wait = Duration::from_millis(rand::rng().random_range(0..most));
    timeout(wait, process.wait()).await.ok();
    process.kill().await.unwrap();
}

/// Runs a worker until no job is left.
async fn finish(stage: &Stage) {
    let mut worker = stage.vinops(&["worker"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let open = "select count(*) from fleet.jobs where state not in ('completed', 'cancelled', 'discarded')";
    let idle = async {
        while sqlx::query_scalar::<_, i64>(open).fetch_one(stage.pool()).await.unwrap() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, idle).await.expect("the chains end");
    worker.kill().await.unwrap();
}

async fn statuses(stage: &Stage) -> serde_json::Value {
    let query = "select jsonb_build_array(
        (select jsonb_object_agg(lot_external_id, status) from lots),
        (select jsonb_object_agg(window_start_utc, state) from fleet.windows))";
    sqlx::query_scalar(query).fetch_one(stage.pool()).await.unwrap()
}

#[tokio::test]
async fn killed_replays_mend_what_an_undisturbed_one_does() {
    let stage = Stage::begun().await;
    for k in 1..3 {
        let said = stage.ingest(&stage.file(k, None)).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let before = (stage.stored().await.digest, statuses(&stage).await);
    let spoil = "update lots set odometer = 1, city = 'NOWHERE' where lot_external_id like '%3';
        update vehicles set make = 'NONE' where vin like '%7'; delete from images where source_url like '%1%'";
    sqlx::raw_sql(spoil).execute(stage.pool()).await.unwrap();
    assert_ne!(stage.stored().await.digest, before.0);
    let windows = ["2026-03-06T17:00:00Z", "2026-03-06T17:15:00Z", "2026-03-06T17:30:00Z"];
    for n in 0..kills() as usize {
        let replay = ["replay", windows[n % 3], "--from", "ingest", "--reason", "a test", "--yes"];
        kill_within(&stage, &replay, 400).await;
        kill_within(&stage, &["worker"], 900).await;
    }
    finish(&stage).await;
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
    kill_within(&stage, &[&span[..], &["--wait"]].concat(), 1500).await;
    finish(&stage).await;
    let said: Said = stage.run(&[&span[..], &["--wait"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((stage.stored().await.digest, statuses(&stage).await), before);
}

#[tokio::test]
async fn a_killed_acceptance_ends_as_an_undisturbed_one() {
    let accept = ["windows", "accept", "2026-03-06T17:15Z", "--reason", "its values are right", "--yes"];
    let quarantined = async || {
        let stage = Stage::begun().await;
        let said = stage.ingest(&stage.file(1, Some(Fault::BrokenRows { per_mille: 100 }))).await;
        assert_eq!(said.json()["state"], "quarantined");
        stage
    };
    let (stage, undisturbed) = (quarantined().await, quarantined().await);
    let said = undisturbed.run(&[&accept[..], &["--wait"]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for _ in 0..kills() {
        kill_within(&stage, &accept, 400).await;
        kill_within(&stage, &["worker"], 500).await;
    }
    let said = stage.run(&accept).await;
    assert!(
        said.code == Some(0) || said.err.contains("quarantined") || said.err.contains("is unfinished: "),
        "{}",
        said.err
    );
    finish(&stage).await;
    let all = async |stage: &Stage| (stage.stored().await.digest, statuses(stage).await);
    assert_eq!(all(&stage).await, all(&undisturbed).await);
}
