//! A known file is not necessarily an applied file: `vinops ingest` of a file that was ingested before, and of a window
//! that cannot be the file's.

use super::cli_fixture::CliFixture;
use serde_json::{Value, json};
use std::path::PathBuf;
use vinops::simulator::fault::FeedFault;
use vinops::simulator::{Simulator, SimulatorOptions};

impl CliFixture {
    async fn query_text(&self, sql: &'static str) -> Option<String> {
        sqlx::query_scalar(sql).fetch_one(self.pool()).await.unwrap()
    }

    /// Writes the simulated feed's first file of this window, under a name that does not contain the window.
    fn write_unnamed_file(&self, window: &str) -> PathBuf {
        let path = self.folder.path().join("salesdata.csv");
        let mut bytes = Vec::new();
        Simulator::new(SimulatorOptions::new(3, 50, window.parse().unwrap())).write_window(0, &mut bytes).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

#[tokio::test]
async fn a_file_whose_worker_was_killed_is_worked_to_its_end_when_it_is_typed_again() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_window_file(0, None);
    sqlx::query("insert into raw.sources (source) values ('copart')").execute(fixture.pool()).await.unwrap();
    let mut lock = fixture.pool().begin().await.unwrap();
    sqlx::query("select from raw.sources for update").execute(&mut *lock).await.unwrap();
    let mut killed = fixture.vinops_command(&["ingest", path.to_str().unwrap()]).spawn().unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(fixture.pool()).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    killed.kill().await.unwrap();
    lock.rollback().await.unwrap();
    assert_eq!(fixture.query_text("select state from raw.csv_files").await.as_deref(), Some("received"));

    let said = fixture.run_vinops(&["ingest", path.to_str().unwrap(), "--json"]).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    let report = said.json();
    assert_eq!([&report["state"], &report["duplicate"]], [&json!("applied"), &json!(true)]);
    assert!(fixture.count_rows("lots").await > 300);

    let again = fixture.run_vinops(&["ingest", path.to_str().unwrap()]).await;
    again.assert_output(0, "");
    assert!(again.out.contains("\nFile already ingested (file_id: "), "{}", again.out);
    assert!(again.out.ends_with("Skipping ingestion (idempotent).\nState:  applied\n"), "{}", again.out);
}

#[tokio::test]
async fn a_chain_that_may_not_run_names_why_and_a_cancelled_one_is_put_back() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_window_file(0, None);
    fixture.run_vinops(&["jobs", "pause", "upsert-lots", "--reason", "the disk"]).await.assert_output(0, "");
    for _ in 0..2 {
        let said = fixture.ingest_file(&path).await;
        assert_eq!((said.code, &said.json()["state"]), (Some(1), &json!("ingested")));
        assert!(said.err.starts_with("error: the file is ingested: job "), "{}", said.err);
        for words in [
            "its kind upsert-lots is paused since ",
            ": the disk\n",
            "hint: run `vinops jobs resume upsert-lots --reason \"…\"`\n",
        ] {
            assert!(said.err.contains(words), "{words} in {}", said.err);
        }
    }
    fixture
        .run_vinops(&["jobs", "cancel", "--kind", "upsert-lots", "--yes", "--reason", "a test"])
        .await
        .assert_output(0, "");
    assert_eq!(fixture.newest_window().await.0, "failed");
    fixture.run_vinops(&["jobs", "resume", "upsert-lots"]).await.assert_output(0, "");
    let said = fixture.ingest_file(&path).await;
    said.assert_output(0, "");
    assert_eq!([&said.json()["state"], &said.json()["duplicate"]], [&json!("applied"), &json!(true)]);
    let requeued = "select reason from audit.operator_actions where action = 'requeue'";
    assert_eq!(fixture.query_text(requeued).await.as_deref(), Some("the file was ingested again by an operator"));
    assert_eq!(fixture.newest_window().await.0, "applied");
}

#[tokio::test]
async fn a_file_that_came_again_is_worked_for_its_window_though_its_jobs_were_deleted() {
    let fixture = CliFixture::new().await;
    let (first, second) = (fixture.write_window_file(0, None), fixture.write_window_file(1, None));
    fixture.ingest_file(&first).await.assert_output(0, "");
    fixture.ingest_file(&second).await.assert_output(0, "");
    let again = ["ingest", first.to_str().unwrap(), "--json", "--window", "2026-03-06T17:30:00Z"];
    fixture.run_vinops(&["jobs", "pause", "ingest"]).await.assert_output(0, "");
    assert_eq!(fixture.run_vinops(&again).await.code, Some(1));
    fixture.run_vinops(&["jobs", "resume", "ingest"]).await.assert_output(0, "");
    sqlx::query("delete from fleet.jobs where state = 'available'").execute(fixture.pool()).await.unwrap();
    let said = fixture.run_vinops(&again).await;
    assert_eq!((said.code, &said.json()["state"]), (Some(0), &json!("applied")), "{}", said.err);
    let state = "select state from fleet.windows where window_start_utc = '2026-03-06T17:30:00Z'";
    assert_eq!(fixture.query_text(state).await.as_deref(), Some("applied"));
}

#[tokio::test]
async fn a_chain_that_fails_is_a_failure_each_time_it_is_typed() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_window_file(0, None);
    // rows of the file's table cannot be read any more
    fixture.run_vinops(&["jobs", "pause", "ingest"]).await.assert_output(0, "");
    assert_eq!(fixture.ingest_file(&path).await.code, Some(1));
    fixture.run_vinops(&["jobs", "resume", "ingest"]).await.assert_output(0, "");
    let kept = fixture.folder.path().join("store/raw/copart/2026/03/06/1700.csv.zst");
    let other = std::fs::read(fixture.write_window_file(1, None)).unwrap();
    std::fs::write(&kept, zstd::encode_all(other.as_slice(), 3).unwrap()).unwrap();
    for _ in 0..2 {
        let said = fixture.ingest_file(&path).await;
        assert_eq!((said.code, &said.json()["state"]), (Some(1), &json!("failed")), "{}", said.err);
        assert!(said.err.contains("the file is failed: the object in the store has sha256"), "{}", said.err);
    }
    assert_eq!(fixture.count_rows("lots").await, 0);
}

#[tokio::test]
async fn a_quarantined_file_is_a_failure_each_time_it_is_typed() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_window_file(0, Some(FeedFault::BrokenRows { per_mille: 100 }));
    for duplicate in [false, true, true] {
        let said = fixture.ingest_file(&path).await;
        said.assert_output(1, "error: the file is quarantined: 40 of 400 records cannot be read, more than 2 %\n");
        assert_eq!([&said.json()["state"], &said.json()["duplicate"]], [&json!("quarantined"), &json!(duplicate)]);
    }
    let said = fixture.run_vinops(&["ingest", path.to_str().unwrap()]).await;
    assert!(!said.out.contains("already ingested") && said.out.contains("State:  quarantined\n"), "{}", said.out);

    // it is also quarantined in another window, which brought nothing
    let other = ["ingest", path.to_str().unwrap(), "--window", "2026-03-06T17:15:00Z"];
    assert_eq!(fixture.run_vinops(&other).await.code, Some(1));
    let span = ["--since", "2026-03-06T17:00:00Z", "--until", "2026-03-06T17:30:00Z"];
    let missing = fixture.run_vinops(&[&["windows", "--missing", "--json"][..], &span].concat()).await.json();
    assert_eq!(missing.as_array().unwrap().len(), 2, "{missing}");
    assert_eq!(
        fixture.query_text("select last_good_window::text from fleet.freshness where source = 'copart'").await,
        None
    );
}

#[tokio::test]
async fn an_incomplete_file_typed_again_is_no_failure_and_says_what_it_is() {
    let fixture = CliFixture::with_first_window().await;
    let path = fixture.write_window_file(1, Some(FeedFault::FirstRows { rows: 200 }));
    for _ in 0..2 {
        let said = fixture.ingest_file(&path).await;
        said.assert_output(0, "");
        assert_eq!(said.json()["state"], "incomplete");
    }
    let said = fixture.run_vinops(&["ingest", path.to_str().unwrap()]).await;
    assert!(!said.out.contains("already ingested") && said.out.contains("State:  incomplete\n"), "{}", said.out);
}

#[tokio::test]
async fn a_window_ahead_of_the_database_or_far_from_the_files_clock_is_refused_unless_even_so() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_unnamed_file("2026-03-06T17:00:00Z");
    let file = path.to_str().unwrap();
    for (window, why) in [
        (
            "2035-10-15T04:15:00Z",
            "error: window 2035-10-15T04:15:00Z is more than 15 minutes ahead of the database's clock",
        ),
        (
            "2026-03-09T17:00:00Z",
            "error: window 2026-03-09T17:00:00Z is more than 36 hours from the file's clock \"2026-03-06-08.55.",
        ),
    ] {
        let said = fixture.run_vinops(&["ingest", file, "--window", window]).await;
        assert_eq!((said.code, said.err.starts_with(why)), (Some(2), true), "{}", said.err);
        assert!(said.err.contains("--even-so --reason"), "{}", said.err);
    }
    // a path is checked like a flag
    let ahead = fixture.folder.path().join("2035/10/15/0415.csv");
    std::fs::create_dir_all(ahead.parent().unwrap()).unwrap();
    std::fs::copy(&path, &ahead).unwrap();
    assert_eq!(fixture.ingest_file(&ahead).await.code, Some(2));
    assert_eq!((fixture.count_rows("raw.csv_files").await, fixture.count_rows("fleet.windows").await), (0, 0));

    let even_so = ["ingest", file, "--window", "2026-03-09T17:00:00Z", "--even-so"];
    assert_eq!(fixture.run_vinops(&even_so).await.code, Some(2), "a reason is needed");
    let said = fixture.run_vinops(&[&even_so[..], &["--reason", "the clock is wrong", "--json"]].concat()).await;
    said.assert_output(0, "");
    assert_eq!(said.json()["window_start_utc"], "2026-03-09T17:00:00Z");
    let act: Value = sqlx::query_scalar(
        "select jsonb_build_array(action, subject, reason, details ->> 'window_start_utc') from audit.operator_actions",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap();
    assert_eq!(act, json!(["ingest-even-so", "copart/2026-03-09 17:00", "the clock is wrong", "2026-03-09T17:00:00Z"]));
}

#[tokio::test]
async fn the_clock_of_a_file_names_its_window_where_only_one_half_of_the_day_is_possible() {
    // the morning is before the newest rows of an evening's file
    let fixture = CliFixture::new().await;
    let evening = fixture.write_unnamed_file("2026-03-07T05:00:00Z");
    let future = std::fs::File::options().write(true).open(&evening).unwrap();
    future.set_modified("2031-01-01T00:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap().into()).unwrap();
    let said = fixture.ingest_file(&evening).await;
    said.assert_output(0, "");
    assert_eq!(said.json()["window_start_utc"], "2026-03-07T05:00:00Z");

    let fixture = CliFixture::new().await;
    let morning = fixture.write_unnamed_file("2026-03-06T17:00:00Z");
    let said = fixture.ingest_file(&morning).await;
    assert_eq!(said.code, Some(2));
    for words in ["2026-03-06T17:00:00Z or 2026-03-07T05:00:00Z", "hint: name the window with --window"] {
        assert!(said.err.contains(words), "{words} in {}", said.err);
    }
    // a known file needs no window
    let named = ["ingest", morning.to_str().unwrap(), "--window", "2026-03-06T17:00:00Z"];
    fixture.run_vinops(&named).await.assert_output(0, "");
    let said = fixture.ingest_file(&morning).await;
    said.assert_output(0, "");
    assert_eq!(said.json()["window_start_utc"], "2026-03-06T17:00:00Z");
}

#[tokio::test]
async fn jobs_of_a_source_and_a_window_are_found_for_every_kind() {
    let fixture = CliFixture::with_first_window().await;
    fixture.ingest_file(&fixture.write_window_file(1, None)).await.assert_output(0, "");
    let fetch =
        "select fleet.enqueue('fetch', '{\"source\": \"copart\", \"window_start_utc\": \"2026-03-06T17:00:00Z\"}')";
    sqlx::query(fetch).execute(fixture.pool()).await.unwrap();
    let found = fixture.run_vinops(&["jobs", "list", "--window", "2026-03-06T17:00:00Z", "--json"]).await.json();
    let mut kinds: Vec<&str> = found.as_array().unwrap().iter().map(|job| job["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["detect-completion", "fetch", "ingest", "upsert-lots", "upsert-vehicles"]);
    let of_source = fixture.run_vinops(&["jobs", "list", "--source", "copart", "--json"]).await.json();
    assert_eq!(of_source.as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn a_job_of_a_file_that_has_no_row_is_given_up_at_once() {
    let fixture = CliFixture::new().await;
    let put = "select fleet.enqueue(kind, jsonb_build_object('file_id', gen_random_uuid()))
        from unnest(array['ingest', 'upsert-vehicles', 'upsert-lots', 'detect-completion']) as kind";
    sqlx::query(put).execute(fixture.pool()).await.unwrap();
    sqlx::query(
        "select fleet.enqueue('fetch', '{\"source\": \"iaai\", \"window_start_utc\": \"2026-03-06T17:00:00Z\"}')",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    let mut worker = fixture.vinops_command(&["worker"]);
    let mut worker = worker.env("COPART_FEED_URL", "http://127.0.0.1:9/?authKey=x").spawn().unwrap();
    let left = "select count(*) from fleet.jobs where state not in ('discarded', 'retryable')";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(fixture.pool()).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    worker.kill().await.unwrap();
    let ends: Vec<(String, String, i32)> = sqlx::query_as("select kind, state, attempt from fleet.jobs order by kind")
        .fetch_all(fixture.pool())
        .await
        .unwrap();
    let given_up = |kind: &str| (kind.to_owned(), "discarded".to_owned(), 1);
    assert_eq!(ends, ["detect-completion", "fetch", "ingest", "upsert-lots", "upsert-vehicles"].map(given_up));
    assert_eq!((fixture.count_rows("fleet.windows").await, fixture.count_rows("fleet.sources").await), (0, 1));
}

#[tokio::test]
async fn a_fetch_whose_attempt_is_spent_is_not_said_to_be_put_back() {
    let fixture = CliFixture::new().await;
    let mut command = fixture.vinops_command(&["fetch", "--now"]);
    command.env("COPART_FEED_URL", "http://127.0.0.1:9/?authKey=x");
    let said = fixture.command_output(command.output().await.unwrap());
    assert_eq!(said.code, Some(1), "{}", said.err);
    let job = fixture.query_text("select id::text from fleet.jobs where kind = 'fetch'").await.unwrap();
    let shown = fixture.run_vinops(&["jobs", "show", &job]).await;
    shown.assert_output(0, "");
    assert!(!shown.out.contains("vinops jobs requeue"), "{}", shown.out);
    assert!(
        shown.out.contains("the job cannot be requeued: a source is fetched once per quarter-hour"),
        "{}",
        shown.out
    );

    // a fetch that never used its slot can run within the quarter-hour
    sqlx::raw_sql("delete from fleet.fetch_slots; update fleet.jobs set payload = payload || '{\"late_ok\": true}'")
        .execute(fixture.pool())
        .await
        .unwrap();
    let shown = fixture.run_vinops(&["jobs", "show", &job]).await;
    assert!(shown.out.contains(&format!("to requeue the job: vinops jobs requeue {job}")), "{}", shown.out);
}
