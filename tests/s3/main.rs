//! The store in a bucket, on an S3 server that checks signatures and conditional puts and fails now and then, and whole
//! chains of windows on it. `tests/kill` tests kills, on a bucket and on a folder.
//!
//! Every name contains the word bucket, so `cargo test --features s3 --test s3 --test kill bucket` runs all of them.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

#[path = "../faults/cli_fixture.rs"]
mod cli_fixture;
mod server;

use bytes::Bytes;
use cli_fixture::CliFixture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use server::BucketServer;
use std::io;
use std::process::Output;
use std::sync::atomic::Ordering;
use vinops::db::digest::{DataDigest, compute_digest};
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::store::{DAMAGED_FOLDER, PublishOutcome, SpoolFile, Store, is_not_found};
use vinops::testing::migrated_database;

const OBJECT_KEY: &str = "raw/copart/2026/11/20/1430.csv.zst";

fn open_store(server: &BucketServer) -> Store {
    Store::open_with_settings(&server.url(), &server.settings()).unwrap()
}

async fn spool_bytes(store: &Store, bytes: &[u8]) -> SpoolFile {
    let mut writer = store.writer().unwrap();
    for chunk in bytes.chunks(64 << 10) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

/// Returns bytes that do not compress and need several parts of an upload.
fn large_file() -> Vec<u8> {
    let mut bytes = vec![0; 26 << 20];
    StdRng::seed_from_u64(7).fill(&mut bytes[..]);
    bytes
}

#[tokio::test]
async fn a_bucket_takes_a_file_once_and_gives_it_back() {
    let server = BucketServer::start().await;
    let store = open_store(&server);
    let first = spool_bytes(&store, b"first").await;
    assert_eq!(store.publish_spool(&first, OBJECT_KEY).await.unwrap(), PublishOutcome::New);
    assert_eq!(store.stored_bytes(OBJECT_KEY).await.unwrap(), first.stored_bytes);
    assert_eq!(store.export_file(OBJECT_KEY, &first.sha256, io::sink()).await.unwrap(), 5);
    let same = PublishOutcome::Same { packed_sha256: first.packed_sha256.clone() };
    assert_eq!(store.publish_spool(&spool_bytes(&store, b"first").await, OBJECT_KEY).await.unwrap(), same);
    assert_eq!(
        store.publish_spool(&spool_bytes(&store, b"second").await, OBJECT_KEY).await.unwrap(),
        PublishOutcome::Taken
    );
    assert_eq!(store.export_file(OBJECT_KEY, &first.sha256, io::sink()).await.unwrap(), 5);
    let puts: Vec<_> = server.requests().into_iter().filter(|it| it.method == "PUT").collect();
    assert_eq!(puts.iter().map(|it| it.status.as_u16()).collect::<Vec<_>>(), [200, 412, 412]);
    assert!(puts.iter().all(|it| it.if_none_match.as_deref() == Some("*")), "{puts:?}");
    assert!(puts.iter().all(|it| it.authorization.starts_with("AWS4-HMAC-SHA256 ")), "{puts:?}");
}

#[tokio::test]
async fn a_bucket_that_asks_to_slow_down_is_asked_again() {
    let server = BucketServer::start().await;
    let store = open_store(&server);
    let file = spool_bytes(&store, b"a file").await;
    server.faults().slow_down.store(2, Ordering::SeqCst);
    assert_eq!(store.publish_spool(&file, OBJECT_KEY).await.unwrap(), PublishOutcome::New);
    server.faults().slow_down.store(2, Ordering::SeqCst);
    assert_eq!(store.export_file(OBJECT_KEY, &file.sha256, io::sink()).await.unwrap(), 6);
    assert_eq!(server.requests().iter().filter(|it| it.status == 503).count(), 4);
}

#[tokio::test]
async fn a_bucket_takes_a_large_file_in_parts_though_they_are_slow_and_a_connection_is_cut() {
    let server = BucketServer::start().await;
    let store = open_store(&server);
    let bytes = large_file();
    let file = spool_bytes(&store, &bytes).await;
    server.faults().part_delay.store(50, Ordering::SeqCst);
    server.faults().cut_after.store(12 << 20, Ordering::SeqCst);
    server.faults().slow_down_every.store(5, Ordering::SeqCst);
    assert_eq!(store.publish_spool(&file, OBJECT_KEY).await.unwrap(), PublishOutcome::New);
    assert_eq!(server.faults().cut_after.load(Ordering::SeqCst), 0, "a connection was cut");
    assert_eq!(store.export_file(OBJECT_KEY, &file.sha256, io::sink()).await.unwrap(), bytes.len() as u64);
    let parts = server.requests().into_iter().filter(|it| it.is_part() && it.status == 200).count();
    assert!(parts >= 6, "{parts}");
    assert!(server.requests().iter().any(|it| it.status == 503));
    let same = PublishOutcome::Same { packed_sha256: file.packed_sha256.clone() };
    assert_eq!(store.publish_spool(&file, OBJECT_KEY).await.unwrap(), same);
}

#[tokio::test]
async fn a_bucket_refuses_a_wrong_key_and_the_error_names_the_variables() {
    let server = BucketServer::start().await;
    let file = spool_bytes(&open_store(&server), b"a file").await;
    for (wrong, value) in [("aws_secret_access_key", "another"), ("aws_access_key_id", "nobody")] {
        let mut settings = server.settings();
        settings.iter_mut().find(|(name, _)| *name == wrong).unwrap().1 = value.to_owned();
        let store = Store::open_with_settings(&server.url(), &settings).unwrap();
        for error in [
            store.publish_spool(&file, OBJECT_KEY).await.unwrap_err(),
            store.object_sums(OBJECT_KEY).await.unwrap_err(),
            store.list_folders("raw").await.unwrap_err(),
        ] {
            let error = format!("{error:#}");
            assert!(error.contains("AWS_ACCESS_KEY_ID") && error.contains(&server.url()), "{error}");
        }
    }
    assert!(is_not_found(&open_store(&server).object_sums(OBJECT_KEY).await.unwrap_err()));
}

#[tokio::test]
async fn an_object_of_a_bucket_is_moved_aside_and_moved_again_after_a_kill() {
    let server = BucketServer::start().await;
    let store = open_store(&server);
    let file = spool_bytes(&store, b"a file").await;
    store.publish_spool(&file, OBJECT_KEY).await.unwrap();
    let sums = store.object_sums(OBJECT_KEY).await.unwrap();
    let aside = store.move_aside(OBJECT_KEY, &sums.packed_sha256).await.unwrap();
    assert_eq!(store.object_sums(&aside).await.unwrap(), sums);
    assert!(is_not_found(&store.object_sums(OBJECT_KEY).await.unwrap_err()));
    store.publish_spool(&file, OBJECT_KEY).await.unwrap();
    assert_eq!(store.move_aside(OBJECT_KEY, &sums.packed_sha256).await.unwrap(), aside);
    assert_eq!(store.list_folders("raw").await.unwrap(), [""; 0]);
    assert_eq!(store.list_folders(DAMAGED_FOLDER).await.unwrap(), ["damaged/raw/copart/2026/11/20"]);
}

/// Ingests three windows, and returns the digest.
async fn run_windows(fixture: &CliFixture) -> DataDigest {
    let options = SimulatorOptions::new(3, 400, "2026-03-06T17:00:00Z".parse().unwrap());
    for k in 0..3 {
        let start = options.window_start(k);
        let path = fixture.folder.path().join(format!("in/{}.csv", start.format("%Y/%m/%d/%H%M")));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        Simulator::new(options.clone()).write_window(k, &mut std::fs::File::create(&path).unwrap()).unwrap();
        let said = run_vinops(fixture, &["ingest", path.to_str().unwrap(), "--json"]).await;
        assert!(said.0 == Some(0) && said.1.contains("\"applied\""), "{said:?}");
    }
    compute_digest(fixture.pool()).await.unwrap()
}

async fn run_vinops(fixture: &CliFixture, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = fixture.vinops_command(arguments).output().await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn windows_are_applied_on_a_bucket_as_on_a_folder_and_its_files_are_checked_and_repaired() {
    let on_folder = run_windows(&CliFixture::new().await).await;
    let server = BucketServer::start().await;
    server.faults().slow_down_every.store(4, Ordering::SeqCst);
    let mut fixture = CliFixture::new().await;
    fixture.environment = server.environment();
    assert_eq!(run_windows(&fixture).await, on_folder);
    let check = run_vinops(&fixture, &["store", "check", "--all"]).await;
    assert_eq!((check.0, &*check.2), (Some(0), ""), "{}", check.1);
    assert!(check.1.starts_with("3 files, 3 read in full: 3 intact"), "{}", check.1);

    // the first file is under another key, and another file under its key
    let store = open_store(&server);
    let [first, other] = ["1700", "1700-0a1b2c3d"].map(|it| format!("raw/copart/2026/03/06/{it}.csv.zst"));
    let sums = store.object_sums(&first).await.unwrap();
    let copy = store.spool_copy(&first, vinops::store::SpoolFormat::AsIs).await.unwrap();
    store.publish_spool(&copy, &other).await.unwrap();
    store.move_aside(&first, &sums.packed_sha256).await.unwrap();
    store.publish_spool(&spool_bytes(&store, b"not the file").await, &first).await.unwrap();
    assert_eq!(run_vinops(&fixture, &["store", "check"]).await.0, Some(1));
    let fixed = run_vinops(&fixture, &["store", "check", "--fix", "--yes"]).await;
    assert_eq!((fixed.0, &*fixed.2), (Some(0), ""), "{}", fixed.1);
    assert_eq!(store.object_sums(&first).await.unwrap(), sums);
    let file: String = sqlx::query_scalar("select file_id::text from raw.csv_files where path = $1")
        .bind(&first)
        .fetch_one(fixture.pool())
        .await
        .unwrap();
    assert_eq!(run_vinops(&fixture, &["raw", "export", &file, "--out", "/dev/null"]).await.0, Some(0));
}

#[tokio::test]
async fn a_lost_database_is_rebuilt_from_a_bucket_and_its_catalogue() {
    let server = BucketServer::start().await;
    server.faults().slow_down_every.store(5, Ordering::SeqCst);
    let mut fixture = CliFixture::new().await;
    fixture.environment = server.environment();
    let worked = run_windows(&fixture).await;
    let puts = server.requests().into_iter().filter(|it| it.method == "PUT" && it.path.contains("/catalogue/"));
    assert!(puts.clone().all(|it| it.if_none_match.as_deref() == Some("*")));
    assert_eq!(puts.filter(|it| it.status == 200).count(), 3);
    fixture.db = migrated_database().await;
    let rebuilt = run_vinops(&fixture, &["rebuild", "--yes", "--json"]).await;
    assert_eq!(rebuilt.0, Some(0), "{rebuilt:?}");
    assert!(rebuilt.1.contains("\"basis\": \"catalogue\""), "{}", rebuilt.1);
    assert_eq!(compute_digest(fixture.pool()).await.unwrap(), worked);
}
