//! Receiving a file: what `fetch` and an operator's file have in common, from a finished spool to an ingest job.
//!
//! Two halves. [`keep`] puts the bytes into the store, outside any transaction, so that none stays open for the time
//! of an upload. [`record`] says so in the database, inside the caller's transaction: the file, its window, the next
//! job, all or nothing. A crash between the halves leaves an object that no row names; the next attempt at the same
//! bytes finds it and uses it, other bytes of that window step aside (`-<first 8 of sha256>`). Such an object costs
//! its space and nothing else.
//!
//! A file is its sha256. Bytes that are known, from any window, are not stored twice: their window becomes
//! `unchanged` and names the known file, and the chain ends here. Two receivers of the same bytes at once are put in
//! order by the unique key on sha256: the second waits for the first's commit, then finds a duplicate.

use super::download::Since;
use super::ingest::Ingest;
use crate::queue::{Enqueue, enqueue};
use crate::store::{Placed, Spool, Store, key};
use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use std::path::Path;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

/// Length of a window, in seconds.
const QUARTER_HOUR: i64 = 900;

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
    placed: Option<(String, String)>,
}

/// What became of a file that came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The file; the known one for a duplicate.
    pub file_id: Uuid,
    /// Whether the bytes were known already; nothing was enqueued then.
    pub duplicate: bool,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Raw size in bytes.
    pub bytes: u64,
    /// Bytes added to the store: 0 for a duplicate.
    pub stored_bytes: u64,
}

/// How a window ended, as far as receiving goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A new file is kept and will be ingested.
    Fetched,
    /// Its bytes are a known file's.
    Unchanged,
    /// Its quarter-hour went by.
    Missed,
}

/// Puts the bytes into the store under the window's key, unless they are known.
pub async fn keep(pool: &PgPool, store: &Store, arrival: Arrival) -> anyhow::Result<Kept> {
    let Arrival { source, window, since, spool } = arrival;
    let known = sqlx::query_scalar!(
        r#"-- receive: known bytes
        select exists (select from raw.csv_files where sha256 = $1) as "known!""#,
        spool.sha256
    );
    let known = known.fetch_one(pool).await.context("look for the file's sha256")?;
    let placed = if known { None } else { Some(place(store, &spool, &source, window).await?) };
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
    let inserted = match &kept.placed {
        Some((path, packed_sha256)) => insert(conn, kept, path, packed_sha256).await?,
        None => None,
    };
    let duplicate = inserted.is_none();
    let file_id = match inserted {
        Some(file_id) => {
            settle(conn, &kept.source, kept.window, Fate::Fetched, Some(file_id)).await?;
            enqueue(conn, &Ingest { file_id, full: false }, Enqueue::once(file_id.to_string())).await?;
            file_id
        }
        None => {
            let file_id = known(conn, kept).await?;
            settle(conn, &kept.source, kept.window, Fate::Unchanged, Some(file_id)).await?;
            metrics::counter!("etl_duplicate_files_total").increment(1);
            file_id
        }
    };
    let stored_bytes = if duplicate { 0 } else { kept.stored_bytes };
    Ok(Receipt { file_id, duplicate, sha256: kept.sha256.clone(), bytes: kept.bytes, stored_bytes })
}

async fn insert(
    conn: &mut PgConnection,
    kept: &Kept,
    path: &str,
    packed_sha256: &str,
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
        select file_id from raw.csv_files where sha256 = $1",
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
    fate: Fate,
    file_id: Option<Uuid>,
) -> anyhow::Result<()> {
    let state = match fate {
        Fate::Fetched => "fetched",
        Fate::Unchanged => "unchanged",
        Fate::Missed => "missed",
    };
    sqlx::query!(
        "-- receive: settle the window
        insert into fleet.windows as w (source, window_start_utc, state, file_id)
        values ($1, $2, $3, $4)
        on conflict (source, window_start_utc) do update
        set state = excluded.state, file_id = excluded.file_id, note = null, updated_at = now()
        where excluded.state = 'fetched' or w.state in ('due', 'failed', 'missed')",
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

/// Receives a local file as `source`'s: spooled, kept, written down, its ingest enqueued. The window is `flag`, else
/// read from the path, else from the file's time ([`window_of`]). `progress` is told bytes read and bytes expected.
pub async fn receive_file(
    pool: &PgPool,
    store: &Store,
    path: &Path,
    source: &str,
    flag: Option<DateTime<Utc>>,
    progress: impl Fn(u64, u64),
) -> anyhow::Result<(DateTime<Utc>, Receipt)> {
    let name = path.display();
    let mut file = tokio::fs::File::open(path).await.with_context(|| format!("open {name}"))?;
    let about = file.metadata().await.with_context(|| format!("look at {name}"))?;
    ensure!(about.is_file(), "{name} is not a file");
    ensure!(about.len() > 0, "{name} is empty: there is nothing to ingest");
    let window = window_of(flag, path, about.modified()?.into());
    let mut writer = store.writer()?;
    let mut read = 0;
    loop {
        let mut chunk = BytesMut::with_capacity(256 << 10);
        let n = file.read_buf(&mut chunk).await.with_context(|| format!("read {name}"))?;
        if n == 0 {
            break;
        }
        ensure!(read > 0 || !is_page(&chunk), "{name} is an HTML page, not a feed; look at what made it");
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
    Ok((window, receipt))
}

/// Whether text begins as no CSV does.
fn is_page(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.trim_ascii_start().starts_with(b"<")
}

/// The window of a local file: the flag, else a path that ends `YYYY/MM/DD/HHmm.csv` (UTC), else the file's time;
/// floored to the quarter-hour.
pub fn window_of(flag: Option<DateTime<Utc>>, path: &Path, modified: DateTime<Utc>) -> DateTime<Utc> {
    quarter_hour(flag.or_else(|| time_in_path(path)).unwrap_or(modified))
}

/// The start of the quarter-hour that `time` lies in.
pub fn quarter_hour(time: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = time.timestamp();
    DateTime::from_timestamp(seconds - seconds.rem_euclid(QUARTER_HOUR), 0).unwrap_or(time)
}

fn time_in_path(path: &Path) -> Option<DateTime<Utc>> {
    let mut parts = path.iter().rev().map(|part| part.to_str());
    let mut digits = |suffix: &str, len: usize| {
        let part = parts.next()??.strip_suffix(suffix)?;
        let plain = part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| part.parse::<u32>().ok())?
    };
    let time = digits(".csv", 4)?;
    let (day, month, year) = (digits("", 2)?, digits("", 2)?, digits("", 4)?);
    let date = NaiveDate::from_ymd_opt(year.try_into().ok()?, month, day)?;
    Some(date.and_hms_opt(time / 100, time % 100, 0)?.and_utc())
}

#[cfg(test)]
mod tests;
