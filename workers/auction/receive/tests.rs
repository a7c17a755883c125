//! Tests receiving into a real database and a store in a folder: new, known, concurrent and interrupted files.

use super::*;
use crate::testing::{TestDb, migrated_database};
use bytes::Bytes;
use std::path::PathBuf;
use url::Url;

fn parse_time(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

const WINDOW_START: &str = "2026-11-20T14:30:00Z";

/// A database and a store in a folder for one test.
struct ReceiveFixture {
    db: TestDb,
    store: Store,
    folder: tempfile::TempDir,
}

impl ReceiveFixture {
    async fn new() -> ReceiveFixture {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(folder.path().join("store")).unwrap();
        ReceiveFixture { db: migrated_database().await, store: Store::open(url.as_str()).unwrap(), folder }
    }

    fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    async fn incoming_file(&self, text: &str, window: &str) -> IncomingFile {
        let mut writer = self.store.writer().unwrap();
        writer.write(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
        let since = Validators { etag: Some("\"e1\"".into()), last_modified: Some(parse_time("2026-11-20T14:30:03Z")) };
        let spool = writer.finish().await.unwrap();
        IncomingFile { source: "copart".into(), window: parse_time(window), since, spool }
    }

    async fn receive_text(&self, text: &str, window: &str) -> FileReceipt {
        let kept = store_bytes(self.pool(), &self.store, self.incoming_file(text, window).await).await.unwrap();
        let mut tx = self.pool().begin().await.unwrap();
        let receipt = register_file(&mut tx, &kept).await.unwrap();
        tx.commit().await.unwrap();
        receipt
    }

    async fn window_state(&self, window: &str) -> Option<(String, Option<Uuid>)> {
        let row = sqlx::query!(
            "select state, file_id from fleet.windows where source = 'copart' and window_start_utc = $1",
            parse_time(window)
        );
        row.fetch_optional(self.pool()).await.unwrap().map(|row| (row.state, row.file_id))
    }

    async fn stored_paths(&self) -> Vec<String> {
        let paths = sqlx::query_scalar!("select path from raw.csv_files order by file_no");
        paths.fetch_all(self.pool()).await.unwrap()
    }

    async fn ingest_keys(&self) -> Vec<Option<String>> {
        let keys = sqlx::query_scalar!("select key from fleet.jobs where kind = 'ingest' order by id");
        keys.fetch_all(self.pool()).await.unwrap()
    }

    async fn set_window_states(&self, state: &str) {
        let mark = sqlx::query!("update fleet.windows set state = $1", state);
        mark.execute(self.pool()).await.unwrap();
    }

    fn write_file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn receive_file(&self, path: &Path) -> anyhow::Result<(DateTime<Utc>, FileReceipt)> {
        self.receive_file_at(path, "copart", None).await
    }

    async fn receive_file_at(
        &self,
        path: &Path,
        source: &str,
        window: Option<DateTime<Utc>>,
    ) -> anyhow::Result<(DateTime<Utc>, FileReceipt)> {
        receive_file(self.pool(), &self.store, path, source, window, |_, _| {}).await
    }
}

#[tokio::test]
async fn a_new_file_is_kept_written_down_and_its_ingest_enqueued() {
    let fixture = ReceiveFixture::new().await;
    let receipt = fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
    assert!(!receipt.duplicate && receipt.stored_bytes > 0);
    assert_eq!(fixture.window_state(WINDOW_START).await, Some(("fetched".into(), Some(receipt.file_id))));
    assert_eq!(fixture.ingest_keys().await, [Some(receipt.file_id.to_string())]);
    let row = sqlx::query!("select path, sha256, bytes, stored_bytes, etag, last_modified, state from raw.csv_files");
    let row = row.fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(row.path, "raw/copart/2026/11/20/1430.csv.zst");
    assert_eq!((row.bytes, row.stored_bytes), (9, Some(receipt.stored_bytes as i64)));
    assert_eq!((row.etag.as_deref(), row.last_modified), (Some("\"e1\""), Some(parse_time("2026-11-20T14:30:03Z"))));
    assert_eq!((row.state.as_str(), &row.sha256), ("received", &receipt.sha256));
    fixture.store.export_file(&row.path, &row.sha256, std::io::sink()).await.unwrap();
}

#[tokio::test]
async fn known_bytes_end_their_window_as_unchanged_and_enqueue_no_ingest() {
    let fixture = ReceiveFixture::new().await;
    let first = fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
    let again = fixture.receive_text("Id,a\n1,2\n", "2026-11-20T14:45:00Z").await;
    assert_eq!((again.file_id, again.duplicate, again.stored_bytes), (first.file_id, true, 0));
    assert_eq!(again.repetition, Some(RepeatOutcome::Unchanged));
    assert_eq!(fixture.window_state("2026-11-20T14:45:00Z").await, Some(("unchanged".into(), Some(first.file_id))));
    assert_eq!((fixture.stored_paths().await.len(), fixture.ingest_keys().await.len()), (1, 1));
}

#[tokio::test]
async fn known_bytes_do_not_hide_what_their_window_has_come_to() {
    let fixture = ReceiveFixture::new().await;
    fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
    for (before, after) in [("applied", "applied"), ("quarantined", "quarantined"), ("failed", "failed")] {
        fixture.set_window_states(before).await;
        fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
        assert_eq!(fixture.window_state(WINDOW_START).await.unwrap().0, after);
    }
}

#[tokio::test]
async fn a_second_file_of_a_window_gets_a_key_with_its_sha256() {
    let fixture = ReceiveFixture::new().await;
    fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
    let second = fixture.receive_text("Id,a\n1,3\n", WINDOW_START).await;
    let with_sha8 = format!("raw/copart/2026/11/20/1430-{}.csv.zst", &second.sha256[..8]);
    assert_eq!(fixture.stored_paths().await, ["raw/copart/2026/11/20/1430.csv.zst".to_owned(), with_sha8]);
    assert_eq!(fixture.window_state(WINDOW_START).await, Some(("fetched".into(), Some(second.file_id))));
}

#[tokio::test]
async fn a_crash_between_store_and_database_is_repeated_without_a_second_object() {
    let fixture = ReceiveFixture::new().await;
    let arrival = fixture.incoming_file("Id,a\n1,2\n", WINDOW_START).await;
    drop(store_bytes(fixture.pool(), &fixture.store, arrival).await.unwrap());
    assert_eq!(fixture.stored_paths().await.len(), 0);
    fixture.receive_text("Id,a\n1,2\n", WINDOW_START).await;
    assert_eq!(fixture.stored_paths().await, ["raw/copart/2026/11/20/1430.csv.zst"]);
}

#[tokio::test]
async fn a_step_that_does_not_commit_leaves_no_file_no_window_and_no_job() {
    let fixture = ReceiveFixture::new().await;
    let kept = store_bytes(fixture.pool(), &fixture.store, fixture.incoming_file("Id,a\n1,2\n", WINDOW_START).await)
        .await
        .unwrap();
    let mut tx = fixture.pool().begin().await.unwrap();
    register_file(&mut tx, &kept).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!((fixture.stored_paths().await.len(), fixture.ingest_keys().await.len()), (0, 0));
    assert_eq!(fixture.window_state(WINDOW_START).await, None);
}

#[tokio::test]
async fn the_same_bytes_received_twice_at_once_are_one_file_and_one_duplicate() {
    let fixture = ReceiveFixture::new().await;
    let other = "2026-11-20T14:45:00Z";
    let (first, second) =
        (fixture.incoming_file("Id,a\n1,2\n", WINDOW_START).await, fixture.incoming_file("Id,a\n1,2\n", other).await);
    // Both find the bytes unknown, and both store them.
    let first = store_bytes(fixture.pool(), &fixture.store, first).await.unwrap();
    let second = store_bytes(fixture.pool(), &fixture.store, second).await.unwrap();
    let mut tx = fixture.pool().begin().await.unwrap();
    let winner = register_file(&mut tx, &first).await.unwrap();
    let pool = fixture.pool().clone();
    let loser = tokio::spawn(async move {
        let mut tx = pool.begin().await.unwrap();
        let receipt = register_file(&mut tx, &second).await.unwrap();
        tx.commit().await.unwrap();
        receipt
    });
    tx.commit().await.unwrap();
    let loser = loser.await.unwrap();
    assert_eq!((loser.file_id, loser.duplicate, loser.stored_bytes), (winner.file_id, true, 0));
    assert_eq!(fixture.ingest_keys().await.len(), 1);
}

#[tokio::test]
async fn a_local_file_comes_in_by_the_window_of_its_path() {
    let fixture = ReceiveFixture::new().await;
    let text = "Id,a\n1,2\n".repeat(100_000);
    let path = fixture.write_file("archive/2026/11/20/1437.csv", &text);
    let (window, receipt) = fixture.receive_file(&path).await.unwrap();
    assert_eq!((window, receipt.bytes), (parse_time(WINDOW_START), text.len() as u64));
    assert_eq!(fixture.window_state(WINDOW_START).await, Some(("fetched".into(), Some(receipt.file_id))));
    assert!(fixture.receive_file(&path).await.unwrap().1.duplicate);
}

#[tokio::test]
async fn a_local_file_that_is_none_is_refused_by_name_and_leaves_nothing() {
    let fixture = ReceiveFixture::new().await;
    for (path, says) in [
        (fixture.write_file("empty.csv", ""), "is empty"),
        (fixture.write_file("page.csv", "\u{feff}\n <!DOCTYPE html><html>"), "is an HTML page"),
        (fixture.folder.path().to_owned(), "is not a file"),
        (fixture.folder.path().join("absent.csv"), "open "),
    ] {
        let e = fixture.receive_file_at(&path, "copart", Some(parse_time(WINDOW_START))).await.unwrap_err();
        let e = format!("{e:#}");
        assert!(e.contains(says) && e.contains(&path.display().to_string()), "{e}");
    }
    assert_eq!(fixture.stored_paths().await.len(), 0);
    let spool = fixture.folder.path().join("store/spool");
    assert_eq!(std::fs::read_dir(spool).unwrap().count(), 0);
}

#[tokio::test]
async fn the_same_bytes_of_another_source_are_a_file_of_that_source() {
    let fixture = ReceiveFixture::new().await;
    let path = fixture.write_file("2026/11/20/1430.csv", "Id,a\n1,2\n");
    let unknown = fixture.receive_file_at(&path, "iaai", None).await.unwrap_err();
    assert!(unknown.is::<source::UnknownSource>(), "{unknown:#}");
    let objects = |folder: &str| std::fs::read_dir(fixture.folder.path().join(folder)).map_or(0, Iterator::count);
    assert_eq!((objects("store/raw"), objects("store/spool")), (0, 0), "nothing is stored under a name nobody knows");

    sqlx::query("select fleet.add_source('iaai', 'me', 'a test')").execute(fixture.pool()).await.unwrap();
    let (_, ours) = fixture.receive_file_at(&path, "copart", None).await.unwrap();
    let (_, theirs) = fixture.receive_file_at(&path, "iaai", None).await.unwrap();
    assert!(!ours.duplicate && !theirs.duplicate && ours.file_id != theirs.file_id);
    assert_eq!(
        fixture.stored_paths().await,
        ["raw/copart/2026/11/20/1430.csv.zst", "raw/iaai/2026/11/20/1430.csv.zst"]
    );
    let (_, again) = fixture.receive_file_at(&path, "iaai", None).await.unwrap();
    assert_eq!((again.duplicate, again.file_id), (true, theirs.file_id));
    assert_eq!(fixture.ingest_keys().await.len(), 2);
}

#[tokio::test]
async fn a_file_that_names_no_window_needs_one_from_its_caller() {
    let fixture = ReceiveFixture::new().await;
    let path = fixture.write_file("salesdata.csv", "Id,a\n1,2\n");
    let error = fixture.receive_file(&path).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(WindowError::Unnamed)), "{error:#}");
    let flag = Some(parse_time("2026-11-20T14:37:00Z"));
    assert_eq!(fixture.receive_file_at(&path, "copart", flag).await.unwrap().0, parse_time(WINDOW_START));
}
