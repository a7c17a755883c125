//! Receives a file: the steps that `fetch` and a local file share, from a finished spool to an ingest job.
//!
//! There are two halves. [`store_bytes`] puts the bytes into the store outside any transaction, so that no transaction
//! stays open during an upload. [`register_file`] registers the file, its window and the next job in the caller's
//! transaction, all or nothing. A crash between the halves leaves an object that no row refers to. The next attempt
//! with the same bytes finds and uses it. Other bytes of that window get a key with a suffix (`-<first 8 of sha256>`).
//! Such an object only costs space.
//!
//! A file is identified by source and sha256. Bytes that the source has sent before, in any window, are not stored
//! twice. [`super::sightings`] decides the state of their window. Two receivers of the same bytes are ordered by the
//! unique key on source and sha256: the second waits for the first commit and then finds a duplicate. The same bytes of
//! another source are a file of that source.
//!
//! A receipt, and a repeat of known bytes, is recorded in the catalogue in the same transaction
//! (`src/db/catalogue.rs`). The next step of the chain writes the catalogue's object to the store. A rebuild registers
//! files that way without receiving them ([`register_stored_file`]).
//!
//! A source must be registered before a file of it is stored. The transaction that registers the file locks the source,
//! so that it cannot be removed meanwhile.

use super::Sighting;
use super::download::Validators;
use super::ingest::Ingest;
use super::sightings::{RepeatOutcome, record_repeat, record_sighting};
use crate::auction::header::is_html;
use crate::auction::window::{WindowError, floor_to_window, parse_path_time};
use crate::db::catalogue::{CatalogueAction, FileOfWindow, record_action};
use crate::queue::{EnqueueOptions, enqueue_job};
use crate::source;
use crate::store::{PublishOutcome, SpoolFile, Store, object_key};
use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::path::Path;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

/// A received file that is neither in the store nor in the database yet.
#[derive(Debug)]
pub struct IncomingFile {
    /// The name of the source, such as `copart`.
    pub source: String,
    /// The start of the file's window.
    pub window: DateTime<Utc>,
    /// The validators of the response; empty for a local file.
    pub since: Validators,
    /// The spooled bytes.
    pub spool: SpoolFile,
}

/// A file whose bytes are in the store and that is not registered in the database yet.
#[derive(Debug)]
pub struct UnregisteredFile {
    source: String,
    window: DateTime<Utc>,
    since: Validators,
    sha256: String,
    bytes: u64,
    stored_bytes: u64,
    /// The key in the store and the sha256 of the object; `None` if the bytes were already known.
    placed: Option<(String, Option<String>)>,
}

/// Result of receiving a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileReceipt {
    /// The id of the file, or of the known file for a duplicate.
    pub file_id: Uuid,
    /// True if the bytes were already known.
    pub duplicate: bool,
    /// The file and the window, as in the payloads of the chain's jobs.
    #[serde(skip)]
    pub sighting: Sighting,
    /// The consequence of a known file for the window; `None` for a new file.
    #[serde(skip)]
    pub repetition: Option<RepeatOutcome>,
    /// The sha256 of the file, in hex.
    pub sha256: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// Bytes added to the store, 0 for a duplicate.
    pub stored_bytes: u64,
}

/// Outcome of a window that ends or continues with a received file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowOutcome {
    /// A file is stored and will be ingested.
    Fetched,
    /// The bytes are those of the newest file.
    Unchanged,
    /// The bytes are those of a quarantined file.
    Quarantined,
    /// The quarter-hour is over.
    Missed,
}

/// Puts the bytes into the store under the window's key, unless they are already known.
pub async fn store_bytes(pool: &PgPool, store: &Store, arrival: IncomingFile) -> anyhow::Result<UnregisteredFile> {
    let IncomingFile { source, window, since, spool } = arrival;
    let known = sqlx::query_scalar!(
        r#"-- receive: known bytes
        select exists (
          select from raw.csv_files where source = $1 and sha256 = $2 and state <> 'withdrawn'
        ) as "known!""#,
        source,
        spool.sha256
    );
    let known = known.fetch_one(pool).await.context("could not look up the sha256 of the file")?;
    let placed = match known {
        true => None,
        false => {
            let (key, packed_sha256) = place_object(store, &spool, &source, window).await?;
            Some((key, Some(packed_sha256)))
        }
    };
    let SpoolFile { sha256, bytes, stored_bytes, .. } = spool;
    Ok(UnregisteredFile { source, window, since, sha256, bytes, stored_bytes, placed })
}

/// Puts the spool into the store. Returns the key of the object and the sha256 of the object.
async fn place_object(
    store: &Store,
    spool: &SpoolFile,
    source: &str,
    window: DateTime<Utc>,
) -> anyhow::Result<(String, String)> {
    for sha8 in [None, Some(spool.sha8())] {
        let key = object_key(source, window, sha8);
        match store.publish_spool(spool, &key).await? {
            PublishOutcome::New => return Ok((key, spool.packed_sha256.clone())),
            PublishOutcome::Same { packed_sha256 } => return Ok((key, packed_sha256)),
            PublishOutcome::Taken => {}
        }
    }
    bail!(
        "object {} of the store {} contains the bytes of another file\nhint: move the object away",
        object_key(source, window, Some(spool.sha8())),
        store.url()
    )
}

/// Registers a stored file, the window and the ingest job in the caller's transaction.
pub async fn register_file(conn: &mut PgConnection, kept: &UnregisteredFile) -> anyhow::Result<FileReceipt> {
    ensure!(
        source::lock_known(conn, &kept.source).await?,
        "source {:?} has just been removed\ndetail: the file was not registered",
        kept.source
    );
    let inserted = match &kept.placed {
        Some((path, packed_sha256)) => insert_file(conn, kept, path, packed_sha256.as_deref()).await?,
        None => None,
    };
    let duplicate = inserted.is_none();
    let (file_id, repetition) = match inserted {
        Some(file_id) => {
            record_sighting(conn, &kept.source, kept.window, file_id, "received").await?;
            set_window_state(conn, &kept.source, kept.window, WindowOutcome::Fetched, Some(file_id)).await?;
            let sighting = Sighting::first_of_file(file_id);
            enqueue_job(
                conn,
                &Ingest { sighting, full: false, repair: false },
                EnqueueOptions::with_key(sighting.job_key()),
            )
            .await?;
            (file_id, None)
        }
        None => {
            let file_id = find_known_file(conn, kept).await?;
            let repetition = record_repeat(conn, &kept.source, kept.window, file_id).await?;
            (file_id, Some(repetition))
        }
    };
    if repetition != Some(RepeatOutcome::Known) {
        record_action(conn, &catalogue_act(kept, duplicate)).await?;
    }
    let sighting = find_sighting(conn, file_id, kept.window).await?;
    let stored_bytes = if duplicate { 0 } else { kept.stored_bytes };
    let (sha256, bytes) = (kept.sha256.clone(), kept.bytes);
    Ok(FileReceipt { file_id, duplicate, sighting, repetition, sha256, bytes, stored_bytes })
}

/// Returns the catalogue entry of a new file, or of a known one that was received again.
fn catalogue_act(kept: &UnregisteredFile, duplicate: bool) -> CatalogueAction {
    let UnregisteredFile { source, window, sha256, .. } = kept;
    let file = FileOfWindow { source: source.clone(), window_start_utc: *window, sha256: sha256.clone() };
    match &kept.placed {
        Some((path, packed_sha256)) if !duplicate => CatalogueAction::Receipt {
            file,
            path: path.clone(),
            packed_sha256: packed_sha256.clone(),
            bytes: kept.bytes,
            stored_bytes: Some(kept.stored_bytes),
            etag: kept.since.etag.clone(),
            last_modified: kept.since.last_modified,
        },
        _ => CatalogueAction::Repeat { file },
    }
}

/// A file that is already in the store, with metadata.
#[derive(Debug)]
pub struct StoredFile {
    /// The name of the source, such as `copart`.
    pub source: String,
    /// The start of the file's window.
    pub window: DateTime<Utc>,
    /// The sha256 of the file, in hex.
    pub sha256: String,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The size of the object in bytes.
    pub stored_bytes: u64,
    /// The validators of the response that contained the file.
    pub since: Validators,
    /// The key in the store and, if known, the sha256 of the object; `None` for a file that is already registered.
    pub placed: Option<(String, Option<String>)>,
}

/// Registers a file under the present key, with the window and the ingest job in the caller's transaction.
///
/// # Errors
/// Returns an error if the source is unknown, or if the file has no key and is not registered.
pub async fn register_stored_file(conn: &mut PgConnection, file: StoredFile) -> anyhow::Result<FileReceipt> {
    let StoredFile { source, window, sha256, bytes, stored_bytes, since, placed } = file;
    register_file(conn, &UnregisteredFile { source, window, since, sha256, bytes, stored_bytes, placed }).await
}

/// Returns the file and its window in the form that the jobs of this window use.
async fn find_sighting(conn: &mut PgConnection, file_id: Uuid, window: DateTime<Utc>) -> anyhow::Result<Sighting> {
    let again = sqlx::query_scalar!(
        r#"-- receive: whether the file came for another window first
        select window_start_utc <> $2 as "again!" from raw.csv_files where file_id = $1"#,
        file_id,
        window
    )
    .fetch_one(conn)
    .await
    .with_context(|| format!("could not read file {file_id}"))?;
    Ok(Sighting { file_id, window_start_utc: again.then_some(window) })
}

async fn insert_file(
    conn: &mut PgConnection,
    kept: &UnregisteredFile,
    path: &str,
    packed_sha256: Option<&str>,
) -> anyhow::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "-- receive: file
        insert into raw.csv_files (source, path, sha256, packed_sha256, bytes, stored_bytes, window_start_utc, etag, last_modified)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict do nothing
        returning file_id",
        kept.source,
        path,
        kept.sha256,
        packed_sha256,
        i64::try_from(kept.bytes)?,
        i64::try_from(kept.stored_bytes)?,
        kept.window,
        kept.since.etag,
        kept.since.last_modified,
    )
    .fetch_optional(conn)
    .await
    .with_context(|| format!("could not register the file {path}"))
}

async fn find_known_file(conn: &mut PgConnection, kept: &UnregisteredFile) -> anyhow::Result<Uuid> {
    sqlx::query_scalar!(
        "-- receive: known file
        select file_id from raw.csv_files where source = $1 and sha256 = $2 and state <> 'withdrawn'",
        kept.source,
        kept.sha256
    )
    .fetch_optional(conn)
    .await?
    .with_context(|| match &kept.placed {
        // The key was free in the store although a row refers to it.
        Some((path, _)) => {
            format!("raw.csv_files refers to {path} for another file, which is missing from the store\nhint: restore the object")
        }
        None => format!("the file with sha256 {} has just been removed\nhint: receive the file again", kept.sha256),
    })
}

/// Sets a window's state. A new file always replaces the state. An outcome without a new file never overwrites a later
/// state.
pub(super) async fn set_window_state(
    conn: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    outcome: WindowOutcome,
    file_id: Option<Uuid>,
) -> anyhow::Result<()> {
    let state = match outcome {
        WindowOutcome::Fetched => "fetched",
        WindowOutcome::Unchanged => "unchanged",
        WindowOutcome::Quarantined => "quarantined",
        WindowOutcome::Missed => "missed",
    };
    sqlx::query!(
        "-- receive: set the window state
        insert into fleet.windows as w (source, window_start_utc, state, file_id)
        values ($1, $2, $3, $4)
        on conflict (source, window_start_utc) do update
        set state = excluded.state, file_id = excluded.file_id, note = null, updated_at = now()
        where excluded.state = 'fetched' or w.state in ('due', 'failed', 'missed', 'withdrawn')",
        source,
        window,
        state,
        file_id,
    )
    .execute(conn)
    .await
    .with_context(|| format!("could not mark window {source} {window} {state}"))?;
    Ok(())
}

/// Receives a local file for `source`: spools, stores and registers the file, and enqueues the ingest.
///
/// The window is `flag`, or else the one in the path. The caller checks whether the window is plausible for the file.
/// `progress` is called with bytes read and bytes expected. Returns the window and the receipt.
///
/// # Errors
/// Returns an error if the source is unknown, before anything is stored, and if neither flag nor path contains a
/// window.
pub async fn receive_file(
    pool: &PgPool,
    store: &Store,
    path: &Path,
    source: &str,
    flag: Option<DateTime<Utc>>,
    progress: impl Fn(u64, u64),
) -> anyhow::Result<(DateTime<Utc>, FileReceipt)> {
    let name = path.display();
    source::expect_known(pool, source).await?;
    let mut file = tokio::fs::File::open(path).await.with_context(|| format!("could not open {name}"))?;
    let about = file.metadata().await.with_context(|| format!("could not read the metadata of {name}"))?;
    ensure!(about.is_file(), "{name} is not a file");
    ensure!(about.len() > 0, "file {name} is empty");
    let window = floor_to_window(flag.or_else(|| parse_path_time(path)).ok_or(WindowError::Unnamed)?);
    let mut writer = store.writer()?;
    let mut read = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(256 << 10);
        let n = file.read_buf(&mut chunk).await.with_context(|| format!("could not read {name}"))?;
        if n == 0 {
            break;
        }
        ensure!(
            read > 0 || !is_html(&chunk),
            "file {name} is an HTML page, not a feed\nhint: check the program that wrote it"
        );
        read += n as u64;
        writer.write(chunk.freeze()).await?;
        progress(read, about.len());
    }
    let spool = writer.finish().await?;
    let arrival = IncomingFile { source: source.to_owned(), window, since: Validators::default(), spool };
    let kept = store_bytes(pool, store, arrival).await?;
    let mut tx = pool.begin().await.context("could not begin the registration of the file")?;
    let receipt = register_file(&mut tx, &kept).await?;
    tx.commit().await.with_context(|| format!("could not register {name}"))?;
    if receipt.duplicate {
        metrics::counter!("etl_duplicate_files_total").increment(1);
    }
    Ok((window, receipt))
}

#[cfg(test)]
mod tests;
