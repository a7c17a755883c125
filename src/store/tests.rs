//! Tests of the store in a folder and as an object store: bytes are unchanged, nothing is overwritten, and nothing is
//! left behind.

use super::*;
use std::sync::Mutex;

const WINDOW_START: &str = "2026-11-20T14:30:00Z";

fn test_window() -> DateTime<Utc> {
    WINDOW_START.parse().unwrap()
}

fn folder_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Url::from_directory_path(folder.path()).unwrap().as_str()).unwrap();
    (folder, store)
}

async fn write_spool(store: &Store, text: &str) -> SpoolFile {
    let mut writer = store.writer().unwrap();
    for piece in text.as_bytes().chunks(7) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

/// Target of an export whose bytes can be read afterwards.
#[derive(Clone, Default)]
struct SharedSink(Arc<Mutex<Vec<u8>>>);

impl Write for SharedSink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn list_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => found.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    found
}

#[test]
fn a_key_names_source_day_and_quarter_hour() {
    assert_eq!(object_key("copart", test_window(), None), "raw/copart/2026/11/20/1430.csv.zst");
    assert_eq!(object_key("copart", test_window(), Some("0a1b2c3d")), "raw/copart/2026/11/20/1430-0a1b2c3d.csv.zst");
}

#[tokio::test]
async fn a_file_comes_back_byte_for_byte_from_a_folder_and_from_an_object_store() {
    let (_folder, local) = folder_store();
    for store in [local, Store::open("memory:").unwrap()] {
        let text = "\"Id\",\"a\0b\"\r\n1,\u{a0}\r\n".repeat(5000);
        let spool = write_spool(&store, &text).await;
        assert_eq!(spool.bytes, text.len() as u64);
        let key = object_key("copart", test_window(), None);
        assert_eq!(store.publish_spool(&spool, &key).await.unwrap(), PublishOutcome::New);
        assert_eq!(store.stored_bytes(&key).await.unwrap(), spool.stored_bytes);
        let sink = SharedSink::default();
        assert_eq!(store.export_file(&key, &spool.sha256, sink.clone()).await.unwrap(), spool.bytes);
        assert_eq!(*sink.0.lock().unwrap(), text.as_bytes());
        let mut reader = store.open_reader(&key).await.unwrap();
        let read = spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(read.await.unwrap().unwrap(), text);
    }
}

#[tokio::test]
async fn a_key_is_never_overwritten_and_the_same_bytes_are_known_again() {
    let (_folder, local) = folder_store();
    for store in [local, Store::open("memory:").unwrap()] {
        let key = object_key("copart", test_window(), None);
        let first = write_spool(&store, "first").await;
        assert_eq!(store.publish_spool(&first, &key).await.unwrap(), PublishOutcome::New);
        assert_eq!(
            store.publish_spool(&write_spool(&store, "first").await, &key).await.unwrap(),
            PublishOutcome::Same { packed_sha256: first.packed_sha256.clone() }
        );
        assert_eq!(
            store.publish_spool(&write_spool(&store, "second").await, &key).await.unwrap(),
            PublishOutcome::Taken
        );
        store.export_file(&key, &first.sha256, io::sink()).await.unwrap();
    }
}

#[tokio::test]
async fn a_large_file_goes_up_in_parts_and_still_finds_its_key_taken() {
    let store = Store::open("memory:").unwrap();
    // Bytes that do not compress, so that there are several parts.
    let mut word = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (word >> 56) as u8
    })
    .take(2 * PART_BYTES + 1000)
    .collect();
    let mut writer = store.writer().unwrap();
    for chunk in noise.chunks(64 << 10) {
        writer.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let spool = writer.finish().await.unwrap();
    store.put_spool_parts(&spool, "raw/big").await.unwrap();
    assert_eq!(store.export_file("raw/big", &spool.sha256, io::sink()).await.unwrap(), noise.len() as u64);
    assert!(is_taken(&store.put_spool_parts(&spool, "raw/big").await.unwrap_err()));
}

#[tokio::test]
async fn a_file_that_nobody_said_yes_to_leaves_nothing() {
    let (folder, store) = folder_store();
    let mut writer = store.writer().unwrap();
    writer.write(Bytes::from_static(b"half a file")).await.unwrap();
    assert_eq!(list_files(folder.path()).len(), 1);
    drop(writer);
    assert_eq!(list_files(folder.path()), [""; 0]);
    let finished = write_spool(&store, "a whole file").await;
    drop(finished);
    assert_eq!(list_files(folder.path()), [""; 0]);
    let placed = write_spool(&store, "a placed file").await;
    store.publish_spool(&placed, "raw/copart/x.csv.zst").await.unwrap();
    drop(placed);
    assert_eq!(list_files(folder.path()), ["raw/copart/x.csv.zst"]);
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_after_a_day() {
    let (folder, store) = folder_store();
    drop(store.writer().unwrap());
    let left = |name: &str, age: TimeDelta| {
        let file = std::fs::File::create(folder.path().join(SPOOL_FOLDER).join(name)).unwrap();
        file.set_modified((crate::config::now() - age).into()).unwrap();
    };
    left("vinops-old", STALE_SPOOL_AGE + TimeDelta::minutes(1));
    left("vinops-young", STALE_SPOOL_AGE - TimeDelta::minutes(1));
    Store::open(store.url()).unwrap();
    assert_eq!(list_files(folder.path()), ["spool/vinops-young"]);
}

#[tokio::test]
async fn an_object_is_moved_aside_whole_and_can_be_moved_again_after_a_kill() {
    let (_folder, local) = folder_store();
    for store in [local, Store::open("memory:").unwrap()] {
        let key = object_key("copart", test_window(), None);
        let first = write_spool(&store, "first").await;
        store.publish_spool(&first, &key).await.unwrap();
        let sums = store.object_sums(&key).await.unwrap();
        assert_eq!((sums.sha256.as_ref(), &sums.packed_sha256), (Ok(&first.sha256), &first.packed_sha256));
        let aside = store.move_aside(&key, &sums.packed_sha256).await.unwrap();
        assert_eq!(aside, format!("damaged/{key}.{}", &sums.packed_sha256[..8]));
        assert_eq!(store.object_sums(&aside).await.unwrap(), sums);
        assert!(is_not_found(&store.object_sums(&key).await.unwrap_err()));
        // killed between the copy and the removal
        store.publish_spool(&first, &key).await.unwrap();
        assert_eq!(store.move_aside(&key, &sums.packed_sha256).await.unwrap(), aside);
        assert_eq!(store.list_folders("raw").await.unwrap(), [""; 0]);
        assert_eq!(store.list_folders(DAMAGED_FOLDER).await.unwrap(), ["damaged/raw/copart/2026/11/20"]);
    }
}

#[tokio::test]
async fn an_object_is_copied_as_it_is_unpacked_and_packed_again() {
    let (_folder, local) = folder_store();
    for store in [local, Store::open("memory:").unwrap()] {
        let first = write_spool(&store, &"first line\n".repeat(1000)).await;
        store.publish_spool(&first, "raw/x").await.unwrap();
        let same = store.spool_copy("raw/x", SpoolFormat::AsIs).await.unwrap();
        assert_eq!((&same.sha256, &same.packed_sha256), (&first.sha256, &first.packed_sha256));
        assert_eq!((same.bytes, same.stored_bytes), (first.bytes, first.stored_bytes));
        let plain = store.spool_copy("raw/x", SpoolFormat::Plain).await.unwrap();
        assert_eq!((&plain.packed_sha256, plain.stored_bytes), (&first.sha256, first.bytes));
        assert_eq!(store.publish_spool(&plain, "raw/y.csv").await.unwrap(), PublishOutcome::New);
        assert!(!store.object_sums("raw/y.csv").await.unwrap().compressed);
        let packed = store.spool_copy("raw/y.csv", SpoolFormat::Compressed).await.unwrap();
        assert_eq!((&packed.sha256, &packed.packed_sha256), (&first.sha256, &first.packed_sha256));
    }
}

#[tokio::test]
async fn what_does_not_decompress_is_told_from_what_cannot_be_read() {
    let (folder, store) = folder_store();
    store.publish_spool(&write_spool(&store, &"text".repeat(1000)).await, "raw/x").await.unwrap();
    let path = folder.path().join("raw/x");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(store.object_sums("raw/x").await.unwrap().sha256.is_err());
    // a directory can be opened and not be read
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(store.object_sums("raw/x").await.is_err());
}

#[tokio::test]
async fn a_damaged_file_is_named_with_both_sums() {
    let (folder, store) = folder_store();
    let spool = write_spool(&store, "the truth").await;
    store.publish_spool(&spool, "raw/x").await.unwrap();
    let other = "0".repeat(64);
    let e = format!("{:#}", store.export_file("raw/x", &other, io::sink()).await.unwrap_err());
    assert!(e.contains("raw/x") && e.contains(&other) && e.contains(&spool.sha256), "{e}");
    std::fs::write(folder.path().join("raw/x"), b"not zstd").unwrap();
    let e = format!("{:#}", store.export_file("raw/x", &other, io::sink()).await.unwrap_err());
    assert!(e.contains("could not export the object raw/x"), "{e}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    // a file in the way fails for root too, who is not restricted by permissions
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let url = Url::from_directory_path(folder.path().join("file/store")).unwrap();
    let e = format!("{:#}", Store::open(url.as_str()).unwrap_err());
    assert!(e.contains("file/store") && e.contains("VINOPS_STORE=file:///"), "{e}");
}

#[tokio::test]
async fn a_folder_that_is_no_longer_writable_is_named_with_the_way_out() {
    let (folder, store) = folder_store();
    let spool = write_spool(&store, "text").await;
    std::fs::write(folder.path().join("raw"), b"a file in the way").unwrap();
    let e = format!("{:#}", store.publish_spool(&spool, "raw/copart/x").await.unwrap_err());
    assert!(e.contains(&folder.path().display().to_string()) && e.contains("VINOPS_STORE"), "{e}");
}

#[test]
fn a_store_that_is_no_url_or_of_an_unknown_kind_is_refused() {
    for (url, says) in [("/var/data", "file:///"), ("ftp://x/y", "expected one of file, s3")] {
        let e = format!("{:#}", Store::open(url).unwrap_err());
        assert!(e.contains(url) && e.contains(says), "{e}");
    }
    #[cfg(not(feature = "s3"))]
    assert!(Store::open("s3://bucket/prefix").unwrap_err().to_string().contains("--features s3"));
}
