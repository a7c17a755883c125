//! Receiving a file: what `fetch` and an operator's file have in common, from a finished spool to an ingest job.
//!
//! Two halves. [`keep`] puts the bytes into the store, outside any transaction, so that none stays open for the time
//! of an upload. [`record`] says so in the database, inside the caller's transaction: the file, its window, the next
//! job, all or nothing. A crash between the halves leaves an object that no row names; the next attempt at the same
//! bytes finds it and uses it, other bytes of that window step aside (`-<first 8 of sha256>`). Such an object costs
//! its space and nothing else.
//!
//! A file is its source and its sha256. Bytes that the source has brought before, in any window, are not stored twice; what their
//! window comes to is decided in [`super::sightings`]. Two receivers of the same bytes at once are put in order by the unique key on
//! source and sha256: the second waits for the first's commit, then finds a duplicate. The same bytes of another source are that
//! source's file.
//!
//! A receipt, and a repeat of known bytes, is noted in the catalogue in the same transaction (`src/db/catalogue.rs`). The next step
//! of the chain puts its object into the store. A rebuild registers files that way without receiving them ([`register`]).
//!
//! A source must be known before anything of it is stored; the transaction that writes down its file keeps it from being
//! removed meanwhile.

use super::Sighting;
use super::download::Since;
use super::ingest::Ingest;
use super::sightings::{Repetition, record_repetition, record_sighting};
use crate::auction::header::is_html;
use crate::auction::window::{WindowError, quarter_hour, time_in_path};
use crate::db::catalogue::{CatalogueAct, FileOfWindow, note_act};
use crate::queue::{Enqueue, enqueue};
use crate::source;
use crate::store::{Placed, Spool, Store, key};
use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::path::Path;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

/// A file that has come in, published by nobody yet.
#[derive(Debug)]
pub struct Arrival {
    /// Its source: `copart`.
    pub source: String,
    /// The start of its window.
    pub window: DateTime<Utc>,
    /// What its answer said of itself; nothing for a local file.
    pub since: Since,
    /// Its bytes.
    pub spool: Spool,
}

/// A file whose bytes are safe.
#[derive(Debug)]
pub struct Kept {
    source: String,
    window: DateTime<Utc>,
    since: Since,
    sha256: String,
    bytes: u64,
    stored_bytes: u64,
    /// Where in the store, and the sha256 of what is there; none when the bytes were known already.
    placed: Option<(String, Option<String>)>,
}

/// What became of a file that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The file; the known one for a duplicate.
    pub file_id: Uuid,
    /// Whether the bytes were known already.
    pub duplicate: bool,
    /// The file and its window, as the chain's jobs name them.
    #[serde(skip)]
    pub sighting: Sighting,
    /// What a known file means for the window; none for a new one.
    #[serde(skip)]
    pub repetition: Option<Repetition>,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Raw size in bytes.
    pub bytes: u64,
    /// Bytes added to the store: 0 for a duplicate.
    pub stored_bytes: u64,
}

/// What a window has come to, as far as receiving goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowOutcome {
    /// A file is kept and will be ingested.
    Fetched,
    /// Its bytes are those of the newest file.
    Unchanged,
    /// Its bytes are those of a quarantined file.
    Quarantined,
    /// Its quarter-hour went by.
    Missed,
}

/// Puts the bytes into the store under the window's key, unless they are known.
pub async fn keep(pool: &PgPool, store: &Store, arrival: Arrival) -> anyhow::Result<Kept> {
    let Arrival { source, window, since, spool } = arrival;
    let known = sqlx::query_scalar!(
        r#"-- receive: known bytes
        select exists (
          select from raw.csv_files where source = $1 and sha256 = $2 and state <> 'withdrawn'
        ) as "known!""#,
        source,
        spool.sha256
    );
    let known = known.fetch_one(pool).await.context("look for the file's sha256")?;
    let placed = match known {
        true => None,
        false => {
            let (key, packed_sha256) = place(store, &spool, &source, window).await?;
            Some((key, Some(packed_sha256)))
        }
    };
    let Spool { sha256, bytes, stored_bytes, .. } = spool;
    Ok(Kept { source, window, since, sha256, bytes, stored_bytes, placed })
}

/// Where the bytes are, and the sha256 of them as they are there.
async fn place(
    store: &Store,
    spool: &Spool,
    source: &str,
    window: DateTime<Utc>,
) -> anyhow::Result<(String, String)> {
    for sha8 in [None, Some(spool.sha8())] {
        let key = key(source, window, sha8);
        match store.place(spool, &key).await? {
            Placed::New => return Ok((key, spool.packed_sha256.clone())),
            Placed::Same { packed_sha256 } => return Ok((key, packed_sha256)),
            Placed::Taken => {}
        }
    }
    bail!(
        "the store {} holds other bytes under {}, which only this file may have; move that object away",
        store.url(),
        key(source, window, Some(spool.sha8()))
    )
}

/// Writes down a kept file, its window and its ingest job, in the caller's transaction.
pub async fn record(conn: &mut PgConnection, kept: &Kept) -> anyhow::Result<Receipt> {
    ensure!(
        source::hold_known(conn, &kept.source).await?,
        "source {:?} has just been removed; nothing is written down",
        kept.source
    );
    let inserted = match &kept.placed {
        Some((path, packed_sha256)) => insert(conn, kept, path, packed_sha256.as_deref()).await?,
        None => None,
    };
    let duplicate = inserted.is_none();
    let (file_id, repetition) = match inserted {
        Some(file_id) => {
            record_sighting(conn, &kept.source, kept.window, file_id, "received").await?;
            settle(conn, &kept.source, kept.window, WindowOutcome::Fetched, Some(file_id)).await?;
            let sighting = Sighting::first(file_id);
            enqueue(conn, &Ingest { sighting, full: false, repair: false }, Enqueue::once(sighting.key()))
                .await?;
            (file_id, None)
        }
        None => {
            let file_id = known(conn, kept).await?;
            let repetition = record_repetition(conn, &kept.source, kept.window, file_id).await?;
            (file_id, Some(repetition))
        }
    };
    if repetition != Some(Repetition::Known) {
        note_act(conn, &act_of(kept, duplicate)).await?;
    }
    let sighting = sighting_of(conn, file_id, kept.window).await?;
    let stored_bytes = if duplicate { 0 } else { kept.stored_bytes };
    let (sha256, bytes) = (kept.sha256.clone(), kept.bytes);
    Ok(Receipt { file_id, duplicate, sighting, repetition, sha256, bytes, stored_bytes })
}

/// Returns what the catalogue says of a file that came, or of a known one that came again.
fn act_of(kept: &Kept, duplicate: bool) -> CatalogueAct {
    let Kept { source, window, sha256, .. } = kept;
    let file = FileOfWindow { source: source.clone(), window_start_utc: *window, sha256: sha256.clone() };
    match &kept.placed {
        Some((path, packed_sha256)) if !duplicate => CatalogueAct::Receipt {
            file,
            path: path.clone(),
            packed_sha256: packed_sha256.clone(),
            bytes: kept.bytes,
            stored_bytes: Some(kept.stored_bytes),
            etag: kept.since.etag.clone(),
            last_modified: kept.since.last_modified,
        },
        _ => CatalogueAct::Repeat { file },
    }
}

/// A file that lies in the store already, and what is known of it.
#[derive(Debug)]
pub struct StoredFile {
    /// Its source: `copart`.
    pub source: String,
    /// The start of its window.
    pub window: DateTime<Utc>,
    /// sha256 of its bytes, in hex.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size of the object in bytes.
    pub stored_bytes: u64,
    /// What the answer that brought it said of itself.
    pub since: Since,
    /// The key in the store and, where it is known, the sha256 of what is there; none for a file that is registered already.
    pub placed: Option<(String, Option<String>)>,
}

/// Writes down a file where it lies, its window and its ingest job, in the caller's transaction.
///
/// # Errors
/// Returns an error if the source is unknown, or if the file has no place and is not registered.
pub async fn register(conn: &mut PgConnection, file: StoredFile) -> anyhow::Result<Receipt> {
    let StoredFile { source, window, sha256, bytes, stored_bytes, since, placed } = file;
    record(conn, &Kept { source, window, since, sha256, bytes, stored_bytes, placed }).await
}

/// Returns how the jobs of this window name the file.
async fn sighting_of(
    conn: &mut PgConnection,
    file_id: Uuid,
    window: DateTime<Utc>,
) -> anyhow::Result<Sighting> {
    let again = sqlx::query_scalar!(
        r#"-- receive: whether the file came for another window first
        select window_start_utc <> $2 as "again!" from raw.csv_files where file_id = $1"#,
        file_id,
        window
    )
    .fetch_one(conn)
    .await
    .with_context(|| format!("look up file {file_id}"))?;
    Ok(Sighting { file_id, window_start_utc: again.then_some(window) })
}

async fn insert(
    conn: &mut PgConnection,
    kept: &Kept,
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
    .with_context(|| format!("write down the file {path}"))
}

async fn known(conn: &mut PgConnection, kept: &Kept) -> anyhow::Result<Uuid> {
    sqlx::query_scalar!(
        "-- receive: known file
        select file_id from raw.csv_files where source = $1 and sha256 = $2 and state <> 'withdrawn'",
        kept.source,
        kept.sha256
    )
    .fetch_optional(conn)
    .await?
    .with_context(|| match &kept.placed {
        // Its key was free in the store, and yet a row names it.
        Some((path, _)) => {
            format!("raw.csv_files names {path} for another file, which the store has lost; restore it")
        }
        None => format!("the file with sha256 {} has just been removed; receive it again", kept.sha256),
    })
}

/// Sets a window's state. A new file always shows; an ending without one never hides what a window has come to.
pub(super) async fn settle(
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
        "-- receive: settle the window
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
    .with_context(|| format!("mark window {source} {window} {state}"))?;
    Ok(())
}

/// Receives a local file as `source`'s: spooled, kept, written down, its ingest enqueued. The window is `flag`, else the
/// one that the path names; whether it may be the file's is the caller's question. `progress` gets bytes read and bytes
/// expected.
///
/// # Errors
/// Returns an error if the source is unknown, before anything is stored, and if neither flag nor path names a window.
pub async fn receive_file(
    pool: &PgPool,
    store: &Store,
    path: &Path,
    source: &str,
    flag: Option<DateTime<Utc>>,
    progress: impl Fn(u64, u64),
) -> anyhow::Result<(DateTime<Utc>, Receipt)> {
    let name = path.display();
    source::expect_known(pool, source).await?;
    let mut file = tokio::fs::File::open(path).await.with_context(|| format!("open {name}"))?;
    let about = file.metadata().await.with_context(|| format!("look at {name}"))?;
    ensure!(about.is_file(), "{name} is not a file");
    ensure!(about.len() > 0, "{name} is empty: there is nothing to ingest");
    let window = quarter_hour(flag.or_else(|| time_in_path(path)).ok_or(WindowError::Unnamed)?);
    let mut writer = store.writer()?;
    let mut read = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(256 << 10);
        let n = file.read_buf(&mut chunk).await.with_context(|| format!("read {name}"))?;
        if n == 0 {
            break;
        }
        ensure!(read > 0 || !is_html(&chunk), "{name} is an HTML page, not a feed; look at what made it");
        read += n as u64;
        writer.write(chunk.freeze()).await?;
        progress(read, about.len());
    }
    let spool = writer.finish().await?;
    let arrival = Arrival { source: source.to_owned(), window, since: Since::default(), spool };
    let kept = keep(pool, store, arrival).await?;
    let mut tx = pool.begin().await.context("begin to write down the file")?;
    let receipt = record(&mut tx, &kept).await?;
    tx.commit().await.with_context(|| format!("write down {name}"))?;
    if receipt.duplicate {
        metrics::counter!("etl_duplicate_files_total").increment(1);
    }
    Ok((window, receipt))
}

#[cfg(test)]
mod tests;
