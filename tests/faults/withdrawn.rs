//! A withdrawn file: lots, vehicles, links and statuses are those of a database that never had the file.

use super::ROWS;
use super::cli_fixture::CliFixture;
use rand::RngExt;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use vinops::config;
use vinops::simulator::{Simulator, SimulatorOptions};

const WRONG_WINDOW: &str = "2062-01-01T00:00:00Z";
const OTHER_WINDOW: &str = "2026-03-06T17:45:00Z";
/// Rows of the real feed.
const REAL_ROWS: u64 = 153_991;
/// The default number of kills of a command.
const KILL_COUNT: u64 = 5;

/// Writes the file of another auction: other lots, other vehicles.
fn write_other_file(fixture: &CliFixture) -> PathBuf {
    let options = SimulatorOptions::new(77, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
    let path = fixture.folder.path().join("strangers.csv");
    let mut simulator = Simulator::new(options);
    simulator.write_window(3, &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

async fn ingest_with(fixture: &CliFixture, path: &std::path::Path, more: &[&str]) -> Value {
    let said = fixture.run_vinops(&[&["ingest", path.to_str().unwrap(), "--json"], more].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.json()
}

/// Returns a fixture with six windows: the second file under a window of 2062, and another auction's file in place of
/// the fourth.
async fn fixture_with_six_windows() -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    let even_so = ["--even-so", "--reason", "a test"];
    ingest_with(&fixture, &fixture.write_window_file(1, None), &[&["--window", WRONG_WINDOW], &even_so[..]].concat())
        .await;
    ingest_with(&fixture, &fixture.write_window_file(2, None), &[]).await;
    ingest_with(&fixture, &write_other_file(&fixture), &[&["--window", OTHER_WINDOW], &even_so[..]].concat()).await;
    for k in [4, 5] {
        ingest_with(&fixture, &fixture.write_window_file(k, None), &[]).await;
    }
    fixture
}

/// Returns a fixture with the four correct windows only.
async fn fixture_with_four_windows() -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    for k in [2, 4, 5] {
        ingest_with(&fixture, &fixture.write_window_file(k, None), &[]).await;
    }
    fixture
}

/// Returns the state that must be equal in addition to the digest: the status of each lot, the state of each window.
async fn read_statuses(fixture: &CliFixture) -> Value {
    sqlx::query_scalar(
        "select jsonb_build_array(
          (select jsonb_object_agg(lot_external_id, status) from lots),
          (select jsonb_object_agg(window_start_utc, state) from fleet.windows where state <> 'withdrawn'),
          (select jsonb_object_agg(lot, jsonb_build_array(row_hash, last_seen, absent_since)) from raw.heads),
          (select jsonb_agg(jsonb_build_array(head_window, completed_window)) from raw.sources)
        )",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap()
}

async fn run_withdraw(fixture: &CliFixture, window: &str, more: &[&str]) -> super::CommandOutput {
    let arguments = ["windows", "withdraw", window, "--reason", "a test", "--yes", "--json"];
    fixture.run_vinops(&[&arguments[..], more].concat()).await
}

#[tokio::test]
async fn two_withdrawn_files_of_six_leave_what_the_other_four_make() {
    let (mut fixture, expected) = (fixture_with_six_windows().await, fixture_with_four_windows().await);
    let before = fixture.stored_counts().await;
    let dry = run_withdraw(&fixture, WRONG_WINDOW, &["--dry-run"]).await;
    dry.assert_output(0, "");
    assert_eq!(fixture.stored_counts().await, before, "a dry run changes nothing");
    let said = run_withdraw(&fixture, WRONG_WINDOW, &[]).await;
    said.assert_output(0, "");
    let (planned, done) = (dry.json(), said.json());
    assert_eq!(planned["versions_deleted"], done["versions_deleted"]);
    assert_eq!((&done["file_withdrawn"], &done["lots_deleted"]), (&json!(true), &json!(0)), "{done}");
    assert_eq!(done["windows_changed"].as_array().unwrap().len(), 4, "they were late: {done}");
    let said = run_withdraw(&fixture, OTHER_WINDOW, &[]).await;
    said.assert_output(0, "");
    assert!(said.json()["lots_deleted"].as_u64().unwrap() > 200, "{}", said.out);
    assert_eq!(fixture.stored_counts().await.digest, expected.stored_counts().await.digest);
    assert_eq!(read_statuses(&fixture).await, read_statuses(&expected).await);
    let states: Vec<(String, String)> = sqlx::query_as(
        "select w.state, f.state from fleet.windows w join raw.csv_files f using (file_id)
        where w.state = 'withdrawn' order by w.window_start_utc",
    )
    .fetch_all(fixture.pool())
    .await
    .unwrap();
    assert_eq!(states, vec![("withdrawn".to_owned(), "withdrawn".to_owned()); 2]);
    let verified = fixture.run_vinops(&["verify", "lots", "--all"]).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    let noted: Vec<(String, String)> = sqlx::query_as(
        "select subject, reason from audit.operator_actions where action = 'withdraw-window' order by id",
    )
    .fetch_all(fixture.pool())
    .await
    .unwrap();
    let subject = |window: &str| (format!("copart/{window}"), "a test".to_owned());
    assert_eq!(noted, [subject(WRONG_WINDOW), subject(OTHER_WINDOW)]);
    // the next window puts the withdrawals into the store's catalogue, and a rebuild leaves the files out
    ingest_with(&fixture, &fixture.write_window_file(6, None), &[]).await;
    let (digest, standing) = (fixture.stored_counts().await.digest, read_statuses(&fixture).await);
    fixture.lose_database().await;
    let rebuilt = fixture.run_vinops(&["rebuild", "--yes", "--json", "--reason", "a test"]).await;
    assert_eq!(rebuilt.code, Some(0), "{}", rebuilt.err);
    assert_eq!(rebuilt.json()["withdrawn"].as_array().unwrap().len(), 2, "{}", rebuilt.out);
    assert_eq!((fixture.stored_counts().await.digest, read_statuses(&fixture).await), (digest, standing));
}

#[tokio::test]
async fn the_bytes_of_a_withdrawn_file_may_come_again_under_their_own_window() {
    let fixture = fixture_with_six_windows().await;
    run_withdraw(&fixture, WRONG_WINDOW, &[]).await.assert_output(0, "");
    let again = ingest_with(&fixture, &fixture.write_window_file(1, None), &[]).await;
    assert_eq!((&again["duplicate"], &again["state"]), (&json!(false), &json!("late")), "{again}");
    run_withdraw(&fixture, WRONG_WINDOW, &[]).await.assert_output(
        1,
        "error: window copart 2062-01-01T00:00:00Z has no file to withdraw\n\
        hint: `vinops windows` shows which windows have one\n",
    );
    let replay = fixture.run_vinops(&["replay", WRONG_WINDOW, "--reason", "a test", "--yes"]).await;
    replay.assert_output(1, "error: window copart 2062-01-01T00:00:00Z is withdrawn\n");
}

#[tokio::test]
async fn a_withdrawal_waits_for_no_chain_and_asks_before_it_writes() {
    let fixture = CliFixture::with_first_window().await;
    fixture.run_vinops(&["windows", "withdraw", "2026-03-06T17:00Z", "--reason", "a test"]).await.assert_output(
        2,
        "error: this would withdraw the file of window copart 2026-03-06 17:00, and standard input is not a terminal\n\
        hint: pass --yes to confirm\n",
    );
    let replayed = fixture.run_vinops(&["replay", "2026-03-06T17:00Z", "--reason", "a test", "--yes", "--json"]).await;
    let job = replayed.json()["job"].as_i64().unwrap();
    run_withdraw(&fixture, "2026-03-06T17:00Z", &[]).await.assert_output(
        1,
        &format!("error: window copart 2026-03-06T17:00:00Z is unfinished: job {job} (ingest) is available\n"),
    );
}

#[tokio::test]
async fn the_only_file_of_a_source_leaves_nothing() {
    let fixture = CliFixture::with_first_window().await;
    run_withdraw(&fixture, "2026-03-06T17:00Z", &[]).await.assert_output(0, "");
    let left: Value = sqlx::query_scalar(
        "select jsonb_build_array(
          (select count(*) from lots), (select count(*) from vehicles), (select count(*) from images),
          (select count(*) from raw.heads), (select count(*) from raw.rows), (select count(*) from staging.copart_raw),
          (select head_window from raw.sources)
        )",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap();
    assert_eq!(left, json!([0, 0, 0, 0, 0, 0, null]));
    // the next file is like a first one
    let said = fixture.ingest_file(&fixture.write_window_file(1, None)).await;
    assert_eq!(said.json()["state"], "applied", "{}", said.err);
}

/// A withdrawal that is killed at any moment has happened or has not. `VINOPS_TEST_KILLS` sets the number of kills.
#[tokio::test]
async fn killed_a_withdrawal_is_done_by_the_next_one() {
    let (fixture, expected) = (fixture_with_six_windows().await, fixture_with_four_windows().await);
    let kills = config::test_number("VINOPS_TEST_KILLS").unwrap_or(KILL_COUNT);
    let mut done = 0;
    for window in [WRONG_WINDOW, OTHER_WINDOW] {
        let before = fixture.stored_counts().await;
        for _ in 0..kills.div_ceil(2) {
            let mut command = fixture.vinops_command(&["windows", "withdraw", window, "--reason", "a test", "--yes"]);
            let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let wait = Duration::from_millis(rand::rng().random_range(0..600));
            let ended = tokio::time::timeout(wait, process.wait()).await;
            process.kill().await.unwrap();
            if ended.is_ok_and(|status| status.unwrap().success()) {
                done += 1;
            }
        }
        let said = run_withdraw(&fixture, window, &[]).await;
        assert!(said.code == Some(0) || said.err.contains("no file to withdraw"), "{}", said.err);
        assert_ne!(fixture.stored_counts().await, before);
    }
    println!("{kills} kills, {done} too late");
    assert_eq!(fixture.stored_counts().await.digest, expected.stored_counts().await.digest);
    assert_eq!(read_statuses(&fixture).await, read_statuses(&expected).await);
}

/// Returns the file with other lot numbers, since another auction's file shares none.
fn renumber_rows(bytes: &[u8]) -> Vec<u8> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().unwrap().clone();
    let lot = header.iter().position(|name| name == "Lot number").unwrap();
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&header).unwrap();
    for record in reader.records() {
        let record = record.unwrap();
        let cells = record.iter().enumerate();
        writer
            .write_record(cells.map(|(n, cell)| if n == lot { format!("7{cell}") } else { cell.to_owned() }))
            .unwrap();
    }
    writer.into_inner().unwrap()
}

/// Measures the two withdrawals against the first window, which the command line measures itself. `VINOPS_TEST_ROWS`
/// sets the size of the files, by default that of the real feed.
#[tokio::test]
#[ignore = "it measures: `.ci/full withdraw`"]
async fn a_withdrawal_takes_at_most_three_times_as_long_as_a_first_window() {
    let rows = config::test_number("VINOPS_TEST_ROWS").unwrap_or(REAL_ROWS);
    let options = SimulatorOptions::new(3, rows as usize, "2026-03-06T17:00:00Z".parse().unwrap());
    let fixture = CliFixture::new().await;
    let mut simulator = Simulator::new(options.clone());
    let mut first = 0.0;
    for k in 0..6 {
        let path = fixture.folder.path().join("feed.csv");
        simulator.write_window(k, &mut std::io::BufWriter::new(std::fs::File::create(&path).unwrap())).unwrap();
        if k == 3 {
            let mut bytes = Vec::new();
            let options = SimulatorOptions { seed: 77, inch_quotes: false, ..options.clone() };
            Simulator::new(options).write_window(k, &mut bytes).unwrap();
            std::fs::write(&path, renumber_rows(&bytes)).unwrap();
        }
        let window = options.window_start(k).to_rfc3339();
        let window = if k == 1 { WRONG_WINDOW } else { &window };
        let more = ["--window", window, "--even-so", "--reason", "a test"];
        let report = ingest_with(&fixture, &path, &more).await;
        if k == 0 {
            first = report["seconds"]["total"].as_f64().unwrap();
        }
    }
    let strangers = options.window_start(3).to_rfc3339();
    for window in [WRONG_WINDOW, &strangers] {
        let began = std::time::Instant::now();
        let said = run_withdraw(&fixture, window, &[]).await;
        said.assert_output(0, "");
        let seconds = began.elapsed().as_secs_f64();
        println!("first window {first:.2} s, withdrawal {seconds:.2} s, {:.2} of it: {}", seconds / first, said.out);
        assert!(seconds <= 3.0 * first, "{seconds:.2} s beside {first:.2} s");
    }
}
