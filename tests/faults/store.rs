//! A store with missing, damaged or misplaced files: `vinops store check` finds each, and `--fix` restores what it can.

use super::CommandOutput;
use super::cli_fixture::CliFixture;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const CHECK_COMMAND: &[&str] = &["store", "check", "--json"];
const FIX_COMMAND: &[&str] = &["store", "check", "--fix", "--yes", "--json", "--reason", "a disk failed"];

/// Returns a fixture with the files of `windows` windows, the first at 17:00.
async fn fixture_with_files(windows: u32) -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    for k in 1..windows {
        fixture.ingest_file(&fixture.write_window_file(k, None)).await.assert_output(0, "");
    }
    fixture
}

impl CliFixture {
    /// Returns the path of an object of the day, such as `1700.csv.zst`.
    fn object_path(&self, name: &str) -> PathBuf {
        self.folder.path().join("store/raw/copart/2026/03/06").join(name)
    }

    async fn file_ids(&self) -> Vec<String> {
        let exported = "select file_id::text from raw.csv_files order by window_start_utc";
        sqlx::query_scalar(exported).fetch_all(self.pool()).await.unwrap()
    }

    /// Checks that every file is exported with its original bytes.
    async fn assert_all_exported(&self) {
        for file in self.file_ids().await {
            self.run_vinops(&["raw", "export", &file, "--out", "/dev/null"]).await.assert_output(0, "");
        }
        let said = self.run_vinops(&["store", "check", "--all", "--json"]).await;
        said.assert_output(0, "");
        assert_eq!(said.json()["problems"], serde_json::json!([]));
    }
}

/// Returns window, state and the key under which the bytes were found, for each problem.
fn list_problems(report: &Value) -> Vec<(String, String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(|text| text.rsplit('/').next().unwrap().to_owned());
    let problems = report["problems"].as_array().unwrap().iter();
    let mut found: Vec<_> =
        problems.map(|p| (text(&p["key"]).unwrap(), text(&p["state"]).unwrap(), text(&p["found_as"]))).collect();
    found.sort();
    found
}

fn repaired_count(said: &CommandOutput) -> u64 {
    said.json()["repaired"].as_u64().unwrap()
}

fn expected_problem(key: &str, state: &str, found_as: Option<&str>) -> (String, String, Option<String>) {
    (key.to_owned(), state.to_owned(), found_as.map(str::to_owned))
}

#[tokio::test]
async fn a_whole_store_is_said_to_be_whole() {
    let fixture = fixture_with_files(2).await;
    let said = fixture.run_vinops(&["store", "check"]).await;
    said.assert_output(0, "");
    let line = "2 files, 2 read in full: 2 intact, 0 missing, 0 misplaced, 0 damaged, 0 unreadable\n";
    assert_eq!(said.out, line);
}

#[tokio::test]
async fn what_is_lost_spoiled_or_misnamed_is_found_and_put_back_where_its_bytes_are_elsewhere() {
    let fixture = fixture_with_files(4).await;
    fs::rename(fixture.object_path("1700.csv.zst"), fixture.object_path("1700-0a1b2c3d.csv.zst")).unwrap();
    fs::copy(fixture.object_path("1715.csv.zst"), fixture.object_path("copy-of-1715")).unwrap();
    let whole = fs::read(fixture.object_path("1715.csv.zst")).unwrap();
    let half = &whole[..whole.len() / 2];
    fs::write(fixture.object_path("1715.csv.zst"), half).unwrap();
    fs::remove_file(fixture.object_path("1730.csv.zst")).unwrap();
    fs::write(fixture.object_path("stranger"), b"of nobody").unwrap();
    let wrong = [
        expected_problem("1700.csv.zst", "misplaced", Some("1700-0a1b2c3d.csv.zst")),
        expected_problem("1715.csv.zst", "damaged", Some("copy-of-1715")),
        expected_problem("1730.csv.zst", "missing", None),
    ];

    let said = fixture.run_vinops(CHECK_COMMAND).await;
    said.assert_output(1, "error: 3 of 4 files are missing or damaged in the store\n");
    assert_eq!(list_problems(&said.json()), wrong);
    assert_eq!(said.json()["unnamed"]["objects"], 3);

    // without consent, or with a dry run only
    let said = fixture.run_vinops(&["store", "check", "--fix"]).await;
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("this would restore 2 files in file://"), "{}", said.err);
    let said = fixture.run_vinops(&["store", "check", "--fix", "--dry-run", "--json"]).await;
    assert_eq!((said.code, list_problems(&said.json())), (Some(1), wrong.to_vec()));
    assert!(said.out.contains("would be copied from raw/copart/2026/03/06/copy-of-1715"), "{}", said.out);
    assert_eq!(list_problems(&fixture.run_vinops(CHECK_COMMAND).await.json()), wrong);
    assert_eq!(fixture.count_rows("audit.operator_actions").await, 0);

    let said = fixture.run_vinops(FIX_COMMAND).await;
    said.assert_output(1, "error: 1 of 4 files is missing or damaged in the store\n");
    assert_eq!(repaired_count(&said), 2);
    assert_eq!(fs::read(fixture.object_path("1715.csv.zst")).unwrap(), whole);
    let damaged = fixture.folder.path().join("store/damaged/raw/copart/2026/03/06");
    let aside: Vec<_> = fs::read_dir(damaged).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(fs::read(&aside[0]).unwrap(), half);
    assert!(fixture.object_path("stranger").exists() && fixture.object_path("1700-0a1b2c3d.csv.zst").exists());
    let noted = "select action, subject, reason, details::text from audit.operator_actions order by id";
    let noted: Vec<(String, String, String, String)> = sqlx::query_as(noted).fetch_all(fixture.pool()).await.unwrap();
    assert_eq!(noted[0].0, "fix-store");
    assert!(noted[0].1.starts_with("file://"), "{noted:?}");
    assert_eq!((&*noted[0].2, &*noted[0].3), ("a disk failed", r#"{"files": 2}"#));
    assert_eq!((&*noted[1].0, &*noted[1].3), ("fix-store-end", r#"{"files": 2, "failed": 0}"#));
    assert_eq!(noted.len(), 2);

    assert_eq!(list_problems(&fixture.run_vinops(CHECK_COMMAND).await.json()), wrong[2..]);
}

#[tokio::test]
async fn two_files_that_stand_under_each_others_names_are_both_put_back() {
    let fixture = fixture_with_files(2).await;
    let [one, other] = ["1700.csv.zst", "1715.csv.zst"].map(|name| fixture.object_path(name));
    fs::rename(&one, fixture.object_path("between")).unwrap();
    fs::rename(&other, &one).unwrap();
    fs::rename(fixture.object_path("between"), &other).unwrap();
    let said = fixture.run_vinops(FIX_COMMAND).await;
    said.assert_output(0, "");
    assert_eq!(repaired_count(&said), 2);
    fixture.assert_all_exported().await;
}

#[tokio::test]
async fn a_file_that_lies_there_unpacked_or_packed_otherwise_is_packed_as_it_was() {
    let fixture = fixture_with_files(2).await;
    let packed = fs::read(fixture.object_path("1715.csv.zst")).unwrap();
    fs::copy(fixture.folder.path().join("in/2026/03/06/1700.csv"), fixture.object_path("1700.csv.zst")).unwrap();
    let raw = fs::read(fixture.folder.path().join("in/2026/03/06/1715.csv")).unwrap();
    fs::write(fixture.object_path("1715.csv.zst"), zstd::encode_all(&*raw, 1).unwrap()).unwrap();
    let said = fixture.run_vinops(FIX_COMMAND).await;
    said.assert_output(0, "");
    assert_eq!(
        list_problems(&said.json()),
        ["1700.csv.zst", "1715.csv.zst"].map(|name| expected_problem(name, "damaged", Some(name)))
    );
    assert_eq!(fs::read(fixture.object_path("1715.csv.zst")).unwrap(), packed);
    fixture.assert_all_exported().await;
}

#[tokio::test]
async fn a_killed_repair_is_continued_from_what_was_moved_aside() {
    let fixture = fixture_with_files(2).await;
    // killed after both were moved aside and before either was restored; one of the two has the other's bytes
    let aside = fixture.folder.path().join("store/damaged/raw/copart/2026/03/06");
    fs::create_dir_all(&aside).unwrap();
    fs::rename(fixture.object_path("1700.csv.zst"), aside.join("1715.csv.zst.00000000")).unwrap();
    fs::rename(fixture.object_path("1715.csv.zst"), aside.join("1700.csv.zst.00000000")).unwrap();
    let said = fixture.run_vinops(FIX_COMMAND).await;
    said.assert_output(0, "");
    assert_eq!(repaired_count(&said), 2);
    fixture.assert_all_exported().await;
}

#[tokio::test]
async fn bytes_of_older_files_are_read_where_the_size_differs_and_else_only_with_all() {
    let fixture = fixture_with_files(2).await;
    // a day of newer files; the oldest two are no longer among the newest
    sqlx::raw_sql(
        "insert into raw.csv_files (source, path, sha256, bytes, window_start_utc)
        select source, replace(path, '1700', '1' || lpad(n::text, 3, '0') || '-' || left(md5(n::text), 8)),
          repeat(md5(n::text), 2), 1, window_start_utc + n * interval '1 day'
        from raw.csv_files, generate_series(1, 96) as n
        where path like '%1700.csv.zst'",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    let mut bytes = fs::read(fixture.object_path("1700.csv.zst")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(fixture.object_path("1700.csv.zst"), &bytes).unwrap();
    let found = |said: CommandOutput| {
        let report = said.json();
        let mut found = list_problems(&report);
        found.retain(|(_, state, _)| state != "missing");
        (report["files"].as_u64().unwrap(), report["read"].as_u64().unwrap(), found)
    };
    assert_eq!(found(fixture.run_vinops(CHECK_COMMAND).await), (98, 0, vec![]));
    let damaged = vec![expected_problem("1700.csv.zst", "damaged", None)];
    let all = fixture.run_vinops(&["store", "check", "--all", "--json"]).await;
    assert_eq!(found(all), (98, 2, damaged.clone()));
    fs::write(fixture.object_path("1700.csv.zst"), &bytes[1..]).unwrap();
    assert_eq!(found(fixture.run_vinops(CHECK_COMMAND).await), (98, 1, damaged));
}
