//! A window that is processed again: the data is the same afterwards, whatever step the replay begins with.

use super::cli_fixture::CliFixture;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use vinops::queue::{Extensions, Worker, WorkerEvent};
use vinops::simulator::fault::FeedFault;
use vinops::store::Store;
use vinops::workers::JOBS;

const STEPS: [&str; 4] = ["ingest", "upsert-vehicles", "upsert-lots", "detect-completion"];

/// Runs a worker until a job of this kind has ended.
async fn run_worker_until(fixture: &CliFixture, last: &str) {
    let store = url::Url::from_directory_path(fixture.folder.path().join("store")).unwrap();
    let (events, mut seen) = broadcast::channel(1000);
    let leave = CancellationToken::new();
    let tools = Extensions::new().with(Store::open(store.as_str()).unwrap());
    let worker = Worker::new(&fixture.db.db, JOBS).with_extensions(tools).with_event_sender(events);
    let working = tokio::spawn(worker.run(leave.clone()));
    loop {
        if let WorkerEvent::Ended { kind, .. } = seen.recv().await.unwrap()
            && &*kind == last
        {
            break;
        }
    }
    leave.cancel();
    working.await.unwrap().unwrap();
}

/// Returns each job's kind and state, in the order of their ids.
async fn list_jobs(fixture: &CliFixture, after: i64) -> Vec<(String, String)> {
    sqlx::query_as("select kind, state from fleet.jobs where id > $1 order by id")
        .bind(after)
        .fetch_all(fixture.pool())
        .await
        .unwrap()
}

async fn newest_job_id(fixture: &CliFixture) -> i64 {
    sqlx::query_scalar("select max(id) from fleet.jobs").fetch_one(fixture.pool()).await.unwrap()
}

/// Returns a fixture with three applied windows.
async fn fixture_with_three_windows() -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    for k in 1..3 {
        let said = fixture.ingest_file(&fixture.write_window_file(k, None)).await;
        assert_eq!(said.json()["state"], "applied", "{}", said.err);
    }
    fixture
}

#[tokio::test]
async fn a_replay_from_any_step_of_any_window_changes_nothing() {
    let fixture = fixture_with_three_windows().await;
    let before = fixture.stored_counts().await;
    let windows = "select jsonb_agg(jsonb_build_array(window_start_utc, state, file_id) order by window_start_utc) from fleet.windows";
    let as_they_were: Value = sqlx::query_scalar(windows).fetch_one(fixture.pool()).await.unwrap();
    for window in ["2026-03-06T17:00:00Z", "2026-03-06T17:15Z", "2026-03-06T17:30:00Z"] {
        for (n, step) in STEPS.into_iter().enumerate() {
            let newest = newest_job_id(&fixture).await;
            let said = fixture.run_vinops(&["replay", window, "--from", step, "--yes", "--json"]).await;
            said.assert_output(0, "");
            assert_eq!(said.json()["replaced"].as_array().unwrap().len(), STEPS.len() - n);
            run_worker_until(&fixture, "detect-completion").await;
            let done: Vec<_> = STEPS[n..].iter().map(|it| (it.to_string(), "completed".to_owned())).collect();
            assert_eq!(list_jobs(&fixture, newest).await, done, "each step enqueues the next");
            assert_eq!(fixture.stored_counts().await, before, "{window} from {step}");
        }
    }
    let as_they_are: Value = sqlx::query_scalar(windows).fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(as_they_are, as_they_were);
}

#[tokio::test]
async fn a_replay_brings_back_what_was_changed_by_hand_and_closes_a_window_that_had_failed() {
    let fixture = fixture_with_three_windows().await;
    let before = fixture.stored_counts().await;
    // the last step did not run, and a lot has lost its bid
    let damage = "
        delete from fleet.jobs where kind = 'detect-completion' and key = (
          select file_id::text from fleet.windows order by window_start_utc desc limit 1);
        update fleet.jobs set state = 'discarded', result = null, completed_by = null, error = 'a bug' where kind = 'upsert-lots' and key = (
          select file_id::text from fleet.windows order by window_start_utc desc limit 1);
        update fleet.windows set state = 'failed' where window_start_utc = '2026-03-06T17:30Z'";
    sqlx::raw_sql(damage).execute(fixture.pool()).await.unwrap();
    let early = fixture.run_vinops(&["replay", "2026-03-06T17:30Z", "--from", "detect-completion", "--yes"]).await;
    early.assert_output(
        1,
        "error: detect-completion has not run for window copart 2026-03-06T17:30:00Z\n\
         hint: replay the window from an earlier step\n",
    );
    let said = fixture.run_vinops(&["replay", "2026-03-06T17:30Z", "--yes"]).await;
    assert_eq!((said.code, said.out.contains("is replayed from ingest: job ")), (Some(0), true), "{}", said.err);
    run_worker_until(&fixture, "detect-completion").await;
    assert_eq!(fixture.newest_window().await.0, "applied");
    assert_eq!(fixture.stored_counts().await, before);
}

/// Returns everything that a replay repairs, without ids and timestamps.
async fn read_values(fixture: &CliFixture) -> Value {
    let query = "select jsonb_build_array(
        (select jsonb_agg(to_jsonb(l) - '{id, created_at, updated_at, seen_window}'::text[] order by l.lot_external_id) from lots l),
        (select jsonb_agg(to_jsonb(v) - '{created_at, updated_at, seen_window}'::text[] order by v.vin) from vehicles v),
        (select jsonb_agg(jsonb_build_array(l.lot_external_id, i.variant, i.source_url) order by l.lot_external_id, i.variant)
          from images i join lots l on l.id = i.lot_id where i.valid_until is null),
        (select jsonb_agg(to_jsonb(s) - '{id, ingested_at}'::text[] order by s.window_start_utc, s.row_no)
          from staging.copart_raw s))";
    sqlx::query_scalar(query).fetch_one(fixture.pool()).await.unwrap()
}

#[tokio::test]
async fn a_replay_from_any_step_repairs_what_was_spoiled() {
    let fixture = fixture_with_three_windows().await;
    let (right, stored) = (read_values(&fixture).await, fixture.stored_counts().await);
    let spoil = "
        update lots set current_bid_usd = 1, damage_code = 'wrong' where lot_external_id in (
          select lot_external_id from lots order by lot_external_id limit 3);
        update vehicles set make = 'WRONG' where vin in (select vin from vehicles order by vin limit 3);
        update images set source_url = 'wrong' where id in (select id from images where valid_until is null order by id limit 2);
        update staging.copart_raw set make = 'WRONG' where lot_external_id in (
          select lot_external_id from lots order by lot_external_id limit 3);
        create temp table gone as select id, vin from lots order by lot_external_id desc limit 2;
        delete from images where lot_id in (select id from gone);
        delete from lots where id in (select id from gone);
        delete from vehicles where vin in (select vin from gone) and vin not in (select vin from lots);
        drop table gone";
    for step in ["ingest", "upsert-vehicles"] {
        sqlx::raw_sql(spoil).execute(fixture.pool()).await.unwrap();
        assert_ne!(read_values(&fixture).await, right);
        // each window repairs the lots of its file
        let span = ["replay", "--since", "2026-03-06T17:00:00Z", "--until", "2026-03-06T18:00:00Z", "--from", step];
        let dry = fixture.run_vinops(&[&span[..], &["--dry-run", "--json"]].concat()).await;
        assert_eq!(dry.json().as_array().unwrap().iter().filter(|one| one["job"].is_null()).count(), 3);
        let said = fixture.run_vinops(&[&span[..], &["--yes", "--json"]].concat()).await;
        assert_eq!(said.json().as_array().unwrap().len(), 3, "{}", said.err);
        for _ in 0..3 {
            run_worker_until(&fixture, "detect-completion").await;
            let left: i64 = sqlx::query_scalar("select count(*) from fleet.jobs where finished_at is null")
                .fetch_one(fixture.pool())
                .await
                .unwrap();
            if left == 0 {
                break;
            }
        }
        assert_eq!(read_values(&fixture).await, right, "from {step}");
    }
    assert_eq!(fixture.stored_counts().await.digest, stored.digest);
}

#[tokio::test]
async fn a_replay_stages_a_file_anew_whose_staged_rows_are_gone() {
    let fixture = fixture_with_three_windows().await;
    let right = read_values(&fixture).await[0].clone();
    sqlx::raw_sql("truncate staging.copart_raw; update lots set current_bid_usd = 1")
        .execute(fixture.pool())
        .await
        .unwrap();
    fixture.run_vinops(&["replay", "2026-03-06T17:30Z", "--from", "upsert-lots", "--yes"]).await.assert_output(0, "");
    run_worker_until(&fixture, "detect-completion").await;
    let staged: Vec<String> = sqlx::query_scalar(
        "select lot_external_id from staging.copart_raw where vin is not null and lot_external_id is not null",
    )
    .fetch_all(fixture.pool())
    .await
    .unwrap();
    assert!(staged.len() > super::ROWS / 2, "all rows of the file are staged: {}", staged.len());
    let of_file = |lots: &Value| -> Vec<Value> {
        let lots = lots.as_array().unwrap().iter();
        lots.filter(|lot| staged.iter().any(|number| lot["lot_external_id"] == **number)).cloned().collect()
    };
    assert_eq!(of_file(&read_values(&fixture).await[0]), of_file(&right));
}

#[tokio::test]
async fn a_quarantined_file_is_applied_once_it_is_accepted() {
    let fixture = CliFixture::with_first_window().await;
    let said = fixture.ingest_file(&fixture.write_window_file(1, Some(FeedFault::BrokenRows { per_mille: 100 }))).await;
    assert_eq!(said.json()["state"], "quarantined");
    let window = "2026-03-06T17:15Z";
    let accept = ["windows", "accept", window, "--reason", "its values are right", "--yes", "--json"];
    fixture.run_vinops(&["windows", "accept", "2026-03-06T17:00Z", "--reason", "x", "--yes"]).await.assert_output(
        1,
        "error: window copart 2026-03-06T17:00:00Z has no quarantined file\n\
         hint: `vinops windows` lists the windows and their states\n",
    );
    let dry = fixture.run_vinops(&[&accept[..], &["--dry-run"]].concat()).await;
    assert!(dry.json()["job"].is_null());
    assert_eq!(fixture.newest_window().await.0, "quarantined");
    fixture.run_vinops(&accept).await.assert_output(0, "");
    fixture.run_vinops(&accept).await.assert_output(
        1,
        &format!(
            "error: window copart 2026-03-06T17:15:00Z is unfinished: job {} (ingest) is available\n",
            newest_job_id(&fixture).await
        ),
    );
    run_worker_until(&fixture, "detect-completion").await;
    assert!(["applied", "incomplete"].contains(&fixture.newest_window().await.0.as_str()));
    let repeated: i64 = sqlx::query_scalar(
        "select count(*) - count(distinct row_no) from audit.parse_errors where window_start_utc = '2026-03-06T17:15Z'",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap();
    assert_eq!(repeated, 0, "each unreadable record is listed once");
    let noted: i64 = sqlx::query_scalar("select count(*) from audit.operator_actions where action = 'accept-window'")
        .fetch_one(fixture.pool())
        .await
        .unwrap();
    assert_eq!(noted, 1);
}

#[tokio::test]
async fn a_file_that_the_store_gives_back_changed_is_not_applied() {
    for (written_down, also) in [("by this program", ""), ("by another", ", packed_sha256 = null")] {
        check_changed_file(written_down, also).await;
    }
}

async fn check_changed_file(written_down: &str, also: &str) {
    let fixture = CliFixture::with_first_window().await;
    let kept = fixture.folder.path().join("store/raw/copart/2026/03/06/1700.csv.zst");
    let other = std::fs::read(fixture.write_window_file(1, None)).unwrap();
    std::fs::write(&kept, zstd::encode_all(other.as_slice(), 3).unwrap()).unwrap();
    let begun_anew = format!(
        "update raw.csv_files set state = 'received'{also}; update raw.sightings set state = 'received';
        truncate raw.rows, raw.manifests, raw.heads"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(begun_anew)).execute(fixture.pool()).await.unwrap();
    let (newest, before) = (newest_job_id(&fixture).await, fixture.stored_counts().await);
    fixture.run_vinops(&["replay", "2026-03-06T17:00Z", "--yes"]).await.assert_output(0, "");
    run_worker_until(&fixture, "ingest").await;
    let error: String = sqlx::query_scalar("select error from fleet.jobs where id > $1")
        .bind(newest)
        .fetch_one(fixture.pool())
        .await
        .unwrap();
    assert!(error.contains("the object in the store has sha256"), "{written_down}: {error}");
    assert_eq!(list_jobs(&fixture, newest).await, [("ingest".to_owned(), "discarded".to_owned())]);
    assert_eq!(fixture.stored_counts().await, before);
}

#[tokio::test]
async fn a_replay_asks_first_and_leaves_alone_what_it_cannot_or_may_not_touch() {
    let fixture = CliFixture::with_first_window().await;
    let newest = newest_job_id(&fixture).await;
    let window = "2026-03-06T17:00Z";
    fixture.run_vinops(&["replay", window]).await.assert_output(
        2,
        "error: this would replay window copart 2026-03-06 17:00 from ingest, and standard input is not a terminal\n\
         hint: pass --yes to confirm\n",
    );
    fixture.run_vinops(&["replay", window, "--from", "fetch", "--yes"]).await.assert_output(
        2,
        "error: unknown step \"fetch\"; expected one of ingest, upsert-vehicles, upsert-lots, detect-completion\n",
    );
    fixture.run_vinops(&["replay", "2026-03-06T18:00Z", "--yes"]).await.assert_output(
        1,
        "error: window copart 2026-03-06T18:00:00Z does not exist\nhint: `vinops windows` lists the windows\n",
    );
    let missed =
        "insert into fleet.windows (source, window_start_utc, state) values ('copart', '2026-03-06T18:15Z', 'missed')";
    sqlx::raw_sql(missed).execute(fixture.pool()).await.unwrap();
    fixture
        .run_vinops(&["replay", "2026-03-06T18:15Z", "--yes"])
        .await
        .assert_output(1, "error: window copart 2026-03-06T18:15:00Z is missed and has no file to replay\n");
    assert_eq!(newest_job_id(&fixture).await, newest, "nothing was put in");
    fixture.run_vinops(&["replay", window, "--yes"]).await.assert_output(0, "");
    let twice = fixture.run_vinops(&["replay", window, "--yes"]).await;
    assert_eq!(twice.code, Some(1));
    let job = newest + 1;
    assert_eq!(
        twice.err,
        format!("error: window copart 2026-03-06T17:00:00Z is unfinished: job {job} (ingest) is available\n")
    );
}
