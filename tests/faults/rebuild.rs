//! A lost database, rebuilt from the store: all data is as before, however often the command is killed.

use super::cli_fixture::CliFixture;
use super::{CommandOutput, ROWS};
use rand::RngExt;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use vinops::config::test_number;
use vinops::db::catalogue::{ActionAuthor, record_withdrawal};
use vinops::simulator::fault::FeedFault;
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::testing::{TestDb, migrated_database};

const REBUILD_COMMAND: &[&str] = &["rebuild", "--yes", "--json", "--reason", "the disk is lost"];

/// The state that must be equal, in addition to [`CliFixture::stored`].
const STATE_QUERY: &str = "select jsonb_build_object(
    'lots', (select jsonb_agg(jsonb_build_array(source, lot_external_id, status, is_removed) order by lot_external_id) from lots),
    'hidden', (select jsonb_agg(vin order by vin) from vehicles where is_removed),
    'pictures', (select jsonb_agg(source_url order by source_url) from images where is_removed),
    'windows', (select jsonb_agg(jsonb_build_array(window_start_utc, state) order by window_start_utc) from fleet.windows),
    'sightings', (
      select jsonb_agg(jsonb_build_array(g.window_start_utc, g.state, f.sha256, f.path, g.accepted) order by g.window_start_utc, f.sha256)
      from raw.sightings g join raw.csv_files f using (file_id)
    ),
    'moves', (
      select jsonb_agg(jsonb_build_array(window_start_utc, lot_external_id, old_status, new_status, reason)
        order by window_start_utc, lot_external_id, old_status, new_status)
      from audit.status_transitions
    ),
    'spellings', (select jsonb_agg(jsonb_build_array(domain, raw, code) order by domain, raw) from taxonomies.aliases where code <> seeded_code),
    'label', (select en || ru from taxonomies.labels where code = 'color_white'),
    'catalogue', (select jsonb_agg(jsonb_build_array(key, body, written_at is null) order by key) from raw.catalogue))";

impl CliFixture {
    async fn read_state(&self) -> Value {
        sqlx::query_scalar(STATE_QUERY).fetch_one(self.pool()).await.unwrap()
    }

    /// Replaces the database by an empty one, and returns the old one.
    pub async fn lose_database(&mut self) -> TestDb {
        std::mem::replace(&mut self.db, migrated_database().await)
    }

    /// Copies a file to another window.
    fn copy_to_window(&self, file: &PathBuf, minute: &str) -> PathBuf {
        let copy = file.with_file_name(format!("{minute}.csv"));
        fs::copy(file, &copy).unwrap();
        copy
    }

    fn catalogue_folder(&self) -> PathBuf {
        self.folder.path().join("store/catalogue")
    }

    async fn ingest_all(&self, files: &[PathBuf]) -> Vec<String> {
        let mut states = Vec::new();
        for file in files {
            states.push(self.ingest_file(file).await.json()["state"].as_str().unwrap().to_owned());
        }
        states
    }
}

/// Returns a fixture with windows in order, late, repeated, quarantined and accepted, a mapped raw value, an edited
/// label, and removed rows.
async fn fixture_with_history() -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    let file = |k| fixture.write_window_file(k, None);
    assert_eq!(fixture.ingest_all(&[file(1), file(3), file(2)]).await, ["applied", "applied", "late"]);
    let map = ["taxonomy", "map", "damage_types", "FRONT END", "damage_vandalism"];
    fixture.run_vinops(&map).await.assert_output(0, "");
    let labels = fixture.folder.path().join("labels.csv");
    fs::write(&labels, "domain,code,state,en,ru,needs_review\ncolors,color_white,,Snow,Снежный,false\n").unwrap();
    fixture.run_vinops(&["taxonomy", "import", labels.to_str().unwrap()]).await.assert_output(0, "");
    // the newest bytes again, and older ones
    assert_eq!(fixture.ingest_all(&[fixture.copy_to_window(&file(3), "1800")]).await, ["applied"]);
    fixture.ingest_all(&[fixture.copy_to_window(&file(1), "1815")]).await;
    let broken = fixture.write_window_file(6, Some(FeedFault::BrokenRows { per_mille: 100 }));
    assert_eq!(fixture.ingest_all(std::slice::from_ref(&broken)).await, ["quarantined"]);
    let accept = ["windows", "accept", "2026-03-06T18:30Z", "--reason", "its values are right", "--yes"];
    fixture.run_vinops(&accept).await.assert_output(0, "");
    fixture.ingest_all(&[broken]).await;
    sqlx::raw_sql(
        "update lots set is_removed = true where lot_external_id in (select lot_external_id from lots order by lot_external_id limit 2);
        update vehicles set is_removed = true where vin in (select vin from vehicles order by vin limit 2);
        update images set is_removed = true where id in (select id from images where valid_until is null order by source_url limit 2);
        update lots set is_removed = false where lot_external_id in (select lot_external_id from lots order by lot_external_id limit 1)",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    fixture.ingest_all(&[file(7), file(8)]).await;
    fixture
}

#[tokio::test]
async fn a_lost_database_is_made_again_from_the_store_and_its_catalogue() {
    let mut fixture = fixture_with_history().await;
    let (stored, standing) = (fixture.stored_counts().await, fixture.read_state().await);
    assert!(standing["hidden"].as_array().unwrap().len() == 2 && standing["spellings"].as_array().unwrap().len() == 1);
    assert_eq!(standing["label"], "SnowСнежный");
    let refused = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.starts_with("error: the database is not empty: it contains 7 files\nhint: "),
        "{}",
        refused.err
    );
    fixture.lose_database().await;
    let dry = fixture.run_vinops(&["rebuild", "--dry-run", "--json"]).await;
    dry.assert_output(0, "");
    let counts = |said: &CommandOutput| {
        let json = said.json();
        ["files", "windows", "repeats", "accepts", "mappings", "label_edits", "removals"]
            .map(|name| json[name].as_u64().unwrap())
    };
    assert_eq!(counts(&dry), [7, 9, 2, 1, 1, 1, 7]);
    assert_eq!(fixture.count_rows("raw.csv_files").await, 0);
    let unasked = fixture.run_vinops(&["rebuild"]).await;
    assert_eq!(unasked.code, Some(2), "there is no terminal to ask at: {}", unasked.err);

    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(counts(&said), [7, 9, 2, 1, 1, 1, 7]);
    for list in ["missing", "failed", "skipped", "unlisted", "unknown", "withdrawn"] {
        assert_eq!(said.json()[list], serde_json::json!([]), "{list}");
    }
    assert!(said.err.contains("file 1 of 7: copart 2026-03-06 17:00 UTC: applied\n"), "{}", said.err);
    assert_eq!(fixture.stored_counts().await, stored);
    assert_eq!(fixture.read_state().await, standing);
    let noted: Vec<String> = sqlx::query_scalar(
        "select action || ' ' || reason from audit.operator_actions where action like 'rebuild%' order by id",
    )
    .fetch_all(fixture.pool())
    .await
    .unwrap();
    assert_eq!(noted, ["rebuild the disk is lost", "rebuild-end the disk is lost"]);
    assert_eq!(fixture.run_vinops(REBUILD_COMMAND).await.code, Some(1), "it is not empty any more");
    // and the fleet continues
    assert_eq!(fixture.ingest_all(&[fixture.write_window_file(9, None)]).await, ["applied"]);
    fixture.run_vinops(&["store", "check", "--all"]).await.assert_output(0, "");
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_where_it_stopped() {
    let mut fixture = fixture_with_history().await;
    let (stored, standing) = (fixture.stored_counts().await, fixture.read_state().await);
    fixture.lose_database().await;
    let began = Instant::now();
    fixture.run_vinops(REBUILD_COMMAND).await;
    let whole = began.elapsed();
    fixture.lose_database().await;
    let kills = test_number("VINOPS_TEST_KILLS").unwrap_or(5);
    let (mut killed, mut rebuilt) = (0, 0);
    while killed < kills {
        let mut process =
            fixture.vinops_command(REBUILD_COMMAND).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moment = whole.mul_f64(0.7 * rand::rng().random::<f64>());
        match timeout(moment, process.wait()).await {
            Err(_) => {
                process.kill().await.unwrap();
                killed += 1;
            }
            // exit code 1 if everything was done before the last kill
            Ok(_) => {
                assert_eq!(fixture.stored_counts().await, stored);
                assert_eq!(fixture.read_state().await, standing);
                rebuilt += 1;
                fixture.lose_database().await;
            }
        }
    }
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    // everything may have been done before a kill
    assert!(said.code == Some(0) || said.err.contains("the database is not empty"), "{}", said.err);
    println!("{killed} kills, {rebuilt} rebuilt in between");
    assert_eq!(fixture.stored_counts().await, stored);
    assert_eq!(fixture.read_state().await, standing);
}

#[tokio::test]
async fn a_store_without_a_catalogue_is_rebuilt_by_names_and_has_one_afterwards() {
    let mut fixture = CliFixture::with_first_window().await;
    let file = |k| fixture.write_window_file(k, None);
    fixture.ingest_all(&[file(1), file(3), file(2), fixture.copy_to_window(&file(3), "1800"), file(5)]).await;
    let digest = fixture.stored_counts().await.digest;
    for _ in 0..2 {
        fixture.lose_database().await;
        fs::remove_dir_all(fixture.catalogue_folder()).unwrap();
        let said = fixture.run_vinops(REBUILD_COMMAND).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
        let report = said.json();
        assert_eq!((&report["basis"], &report["files"]), (&"names".into(), &5.into()));
        assert_eq!(report["unknown"].as_array().unwrap().len(), 6);
        assert_eq!(fixture.stored_counts().await.digest, digest);
    }
    fixture.lose_database().await;
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!((said.code, &said.json()["basis"]), (Some(0), &"catalogue".into()), "{}", said.err);
    assert_eq!(fixture.stored_counts().await.digest, digest);
    assert!(digest.lot_count as usize > ROWS / 2);
}

#[tokio::test]
async fn what_the_store_has_lost_is_listed_and_comes_in_once_it_is_back() {
    let mut fixture = CliFixture::with_first_window().await;
    fixture.ingest_all(&[fixture.write_window_file(1, None), fixture.write_window_file(2, None)]).await;
    let (stored, old) = (fixture.stored_counts().await, fixture.lose_database().await);
    let object = fixture.folder.path().join("store/raw/copart/2026/03/06/1730.csv.zst");
    fs::rename(&object, fixture.folder.path().join("aside")).unwrap();
    fs::write(fixture.folder.path().join("store/raw/copart/2026/03/06/stranger"), "of nobody").unwrap();
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(1));
    assert_eq!(said.json()["missing"], serde_json::json!(["raw/copart/2026/03/06/1730.csv.zst"]));
    assert_eq!(said.json()["unlisted"], serde_json::json!(["raw/copart/2026/03/06/stranger"]));
    fs::rename(fixture.folder.path().join("aside"), &object).unwrap();
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.json()["done_before"], 2);
    assert_eq!(fixture.stored_counts().await, stored);
    drop(old);
}

#[tokio::test]
async fn a_file_is_not_applied_before_the_catalogue_has_it() {
    let fixture = CliFixture::with_first_window().await;
    fs::rename(fixture.catalogue_folder(), fixture.folder.path().join("aside")).unwrap();
    fs::write(fixture.catalogue_folder(), "no folder").unwrap();
    let path = fixture.write_window_file(1, None);
    let mut ingest = fixture.vinops_command(&["ingest", path.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
    let failed = async {
        let error =
            "select error from fleet.jobs where kind = 'ingest' and state in ('scheduled', 'retryable') limit 1";
        loop {
            let error: Option<Option<String>> = sqlx::query_scalar(error).fetch_optional(fixture.pool()).await.unwrap();
            match error.flatten() {
                Some(error) => return error,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let error = timeout(Duration::from_secs(30), failed).await.unwrap();
    assert!(error.contains("write the store's catalogue"), "{error}");
    assert_eq!(fixture.count_rows("raw.manifests").await, 1);
    fs::remove_file(fixture.catalogue_folder()).unwrap();
    fs::rename(fixture.folder.path().join("aside"), fixture.catalogue_folder()).unwrap();
    assert!(ingest.wait().await.unwrap().success());
    assert_eq!(fixture.count_rows("raw.catalogue where written_at is not null").await, 2);
}

#[tokio::test]
async fn a_catalogue_that_has_lost_entries_is_mended_from_the_database() {
    let mut fixture = CliFixture::with_first_window().await;
    let first = fixture.write_window_file(1, None);
    fixture
        .ingest_all(&[first.clone(), fixture.copy_to_window(&first, "1730"), fixture.write_window_file(3, None)])
        .await;
    let (stored, standing) = (fixture.stored_counts().await, fixture.read_state().await);
    fs::remove_dir_all(fixture.catalogue_folder()).unwrap();
    sqlx::raw_sql("delete from raw.catalogue where key <> (select min(key) from raw.catalogue)")
        .execute(fixture.pool())
        .await
        .unwrap();
    let check = fixture.run_vinops(&["store", "check", "--json"]).await;
    check.assert_output(0, "");
    let catalogue = &check.json()["catalogue"];
    assert_eq!(catalogue["missing"].as_array().unwrap().len(), 1);
    assert_eq!(catalogue["files_without_entry"].as_array().unwrap().len(), 3);
    let fix = fixture.run_vinops(&["store", "check", "--fix", "--yes", "--json"]).await;
    assert_eq!(fix.json()["catalogue"]["written"], 4);
    let said = fixture.run_vinops(&["store", "check"]).await;
    assert_eq!(said.out.lines().count(), 1, "{}", said.out);
    fixture.lose_database().await;
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(fixture.stored_counts().await, stored);
    let mut rebuilt = fixture.read_state().await;
    rebuilt["catalogue"] = standing["catalogue"].clone();
    assert_eq!(rebuilt, standing);
}

#[tokio::test]
async fn a_withdrawn_file_is_left_out_as_if_it_had_never_come() {
    let other = CliFixture::with_first_window().await;
    other.ingest_all(&[other.write_window_file(2, None), other.write_window_file(3, None)]).await;
    let (stored, mut standing) = (other.stored_counts().await, other.read_state().await);
    let mut fixture = CliFixture::with_first_window().await;
    fixture.ingest_all(&[fixture.write_window_file(1, None), fixture.write_window_file(2, None)]).await;
    let mut tx = fixture.pool().begin().await.unwrap();
    let (file, window) = sqlx::query_as(
        "select file_id, window_start_utc from raw.csv_files where window_start_utc = '2026-03-06T17:15Z'",
    )
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    let author = ActionAuthor { operator: "nana".to_owned(), reason: "another day's file".to_owned() };
    record_withdrawal(&mut tx, file, window, author).await.unwrap();
    tx.commit().await.unwrap();
    fixture.ingest_all(&[fixture.write_window_file(3, None)]).await;
    fixture.lose_database().await;
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.json()["withdrawn"][0]["window_start_utc"], "2026-03-06T17:15:00Z");
    assert_eq!(fixture.stored_counts().await, stored);
    standing["catalogue"] = fixture.read_state().await["catalogue"].clone();
    assert_eq!(fixture.read_state().await, standing);
}

#[tokio::test]
#[ignore = "it measures: `.ci/full rebuild`"]
async fn what_a_rebuild_of_a_day_of_windows_takes_is_printed() {
    let number = |name, usual| u32::try_from(test_number(name).unwrap_or(usual)).unwrap();
    let (windows, rows) = (number("VINOPS_TEST_WINDOWS", 96), number("VINOPS_TEST_ROWS", 153_991));
    let mut fixture = CliFixture::new().await;
    let mut feed = Simulator::new(SimulatorOptions::new(3, rows as usize, "2026-03-06T00:00:00Z".parse().unwrap()));
    let mut worked = Duration::ZERO;
    for k in 0..windows {
        let name = feed.options().window_start(k).format("in/%Y/%m/%d/%H%M.csv").to_string();
        let path = fixture.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        feed.write_window(k, &mut fs::File::create(&path).unwrap()).unwrap();
        let began = Instant::now();
        assert_eq!(fixture.ingest_all(std::slice::from_ref(&path)).await, ["applied"]);
        worked += began.elapsed();
        fs::remove_file(path).unwrap();
    }
    let (stored, standing) = (fixture.stored_counts().await, fixture.read_state().await);
    fixture.lose_database().await;
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(fixture.stored_counts().await, stored);
    assert_eq!(fixture.read_state().await, standing);
    println!(
        "{windows} windows of {rows} rows: rebuilt in {:.1} s, digest and statuses equal; one `vinops ingest` each took {:.1} s",
        said.json()["seconds"].as_f64().unwrap(),
        worked.as_secs_f64()
    );
}

#[tokio::test]
async fn a_size_that_was_accepted_is_accepted_at_its_place() {
    let mut fixture = CliFixture::with_first_window().await;
    fixture.ingest_all(&[fixture.write_window_file(1, None), fixture.write_window_file(2, None)]).await;
    let small = |k| {
        let path = fixture.write_window_file(k, None);
        let options = SimulatorOptions::new(3, ROWS / 2, "2026-03-06T17:00:00Z".parse().unwrap());
        Simulator::new(options).write_window(k, &mut fs::File::create(&path).unwrap()).unwrap();
        path
    };
    assert_eq!(fixture.ingest_all(&[small(3)]).await, ["incomplete"]);
    fixture.run_vinops(&["source", "accept-size", "copart", "--reason", "fewer yards"]).await.assert_output(0, "");
    assert_eq!(fixture.ingest_all(&[small(4)]).await, ["applied"]);
    let (stored, standing) = (fixture.stored_counts().await, fixture.read_state().await);
    fixture.lose_database().await;
    let said = fixture.run_vinops(REBUILD_COMMAND).await;
    assert_eq!((said.code, &said.json()["accepted_sizes"]), (Some(0), &1.into()), "{}", said.err);
    assert_eq!(fixture.stored_counts().await, stored);
    assert_eq!(fixture.read_state().await, standing);
}
