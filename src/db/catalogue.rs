//! The catalogue: what a database is rebuilt from besides the files themselves.
//!
//! Each receipt of a file, each repeat of known bytes, and each act of an operator that changes vehicles, lots or statuses
//! (accept, withdrawal, mapped spelling, edited labels, accepted size, removal) is one row of `raw.catalogue` and one small JSON
//! object under `catalogue/` in the store. Keys sort by the moment of the act:
//! `catalogue/2026/11/20/143012.345678-receipt-0a1b2c3d.json`, with the first eight hex digits of the object's sha256.
//!
//! **The row is committed with its act, the object is put afterwards** (a transactional outbox). So there is no object of an
//! act that was rolled back. An act whose process dies before the put keeps its row without `written_at`, and the next
//! step puts it: ingest and detect-completion begin with [`write_unwritten`], before they change anything. While the put
//! fails, the step fails and is retried, so no file is applied that the store's catalogue does not know. Objects are created
//! and never overwritten. A put that is repeated, because its process died before it noted it, meets the same bytes under
//! the same key. Commands of operators do not put anything, since an operator's host may have no store.
//!
//! **Removals** (`is_removed` of a vehicle, a lot or a picture) are statements that somebody types, since no command does it. A
//! trigger notes them. Sources are not in the catalogue: one that has files cannot be removed, and one without files is
//! nothing that a rebuild needs. Other statements that are typed, such as a status set by hand or a switch of `public.config`, are
//! not in it either.
//!
//! An object has `version`, `kind`, `at` and the fields of [`CatalogueAct`]. Readers ignore fields that they do not know,
//! and refuse versions and kinds that they do not know.

use super::vocabulary::Label;
use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// The store's folder of catalogue objects.
pub const FOLDER: &str = "catalogue";
/// The version of objects that this program writes and reads.
const VERSION: u32 = 1;
/// Rows that one query of unwritten entries returns.
const BATCH_ROWS: i64 = 1000;

/// A file of a window, as acts name it: file ids differ from database to database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileOfWindow {
    /// The source.
    pub source: String,
    /// The start of the window.
    pub window_start_utc: DateTime<Utc>,
    /// sha256 of the file's bytes, in hex.
    pub sha256: String,
}

/// The operator and the reason of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActAuthor {
    /// Who did it.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// An act as the catalogue keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CatalogueAct {
    /// A file came that its source had not brought before.
    Receipt {
        /// The file and its window.
        #[serde(flatten)]
        file: FileOfWindow,
        /// The file's key in the store.
        path: String,
        /// sha256 of the object under that key.
        packed_sha256: Option<String>,
        /// Size of the file in bytes.
        bytes: u64,
        /// Size of the object in bytes.
        stored_bytes: Option<u64>,
        /// The validator `ETag` of the answer that brought it.
        etag: Option<String>,
        /// The validator `Last-Modified` of the answer that brought it.
        last_modified: Option<DateTime<Utc>>,
    },
    /// Bytes that the source had brought before came for a window.
    Repeat {
        /// The file and the window that it came for again.
        #[serde(flatten)]
        file: FileOfWindow,
    },
    /// A quarantined file was accepted.
    Accept {
        /// The file and its window.
        #[serde(flatten)]
        file: FileOfWindow,
        /// Who and why.
        #[serde(flatten)]
        author: ActAuthor,
    },
    /// A file was withdrawn: it no longer counts for this window.
    Withdrawal {
        /// The file and its window.
        #[serde(flatten)]
        file: FileOfWindow,
        /// Who and why.
        #[serde(flatten)]
        author: ActAuthor,
    },
    /// The size of a source's newest judged file was accepted as normal.
    AcceptSize {
        /// The source.
        source: String,
        /// Who and why.
        #[serde(flatten)]
        author: ActAuthor,
    },
    /// A spelling was given a meaning.
    Mapping {
        /// The table, such as `damage_types`.
        domain: String,
        /// The spelling, folded.
        spelling: String,
        /// What it means since.
        code: String,
        /// Who and why.
        #[serde(flatten)]
        author: ActAuthor,
    },
    /// Labels were edited.
    Labels {
        /// The labels that had said something else.
        labels: Vec<Label>,
        /// Who and why.
        #[serde(flatten)]
        author: ActAuthor,
    },
    /// A vehicle (`vin` alone), a lot (`source`, `lot`) or a picture (`image`) was hidden or shown again. The trigger
    /// `raw.note_removal` writes it.
    Removal {
        /// Whether it is hidden since.
        removed: bool,
        /// The login whose statement it was.
        login: String,
        /// The vehicle, or the picture's.
        vin: Option<String>,
        /// The source of the lot, or of the picture's lot.
        source: Option<String>,
        /// The number of the lot, or of the picture's lot.
        lot: Option<String>,
        /// The picture's link.
        image: Option<String>,
        /// Which of the lot's pictures it is.
        variant: Option<String>,
    },
}

/// An object of the catalogue, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Its key in the store.
    pub key: String,
    /// The moment of the act.
    pub at: DateTime<Utc>,
    /// What was done.
    pub act: CatalogueAct,
    /// The object, byte for byte.
    pub body: String,
}

impl CatalogueEntry {
    /// Reads an object.
    ///
    /// # Errors
    /// Returns an error if the object is no JSON of the catalogue, or of a version or kind that this program does not know.
    pub fn parse(key: &str, body: String) -> anyhow::Result<CatalogueEntry> {
        #[derive(Deserialize)]
        struct Envelope {
            version: u32,
            at: DateTime<Utc>,
        }
        let context = || format!("read the catalogue's object {key}");
        let Envelope { version, at } = serde_json::from_str(&body).with_context(context)?;
        ensure!(
            version == VERSION,
            "catalogue object {key} is of version {version}, and this program reads version {VERSION}\n\
             hint: use the program that wrote it, or a newer one"
        );
        let act = serde_json::from_str(&body).with_context(context)?;
        Ok(CatalogueEntry { key: key.to_owned(), at, act, body })
    }
}

/// Notes an act in its transaction. The next step of a chain puts its object into the store. Nothing is noted in a
/// transaction of a rebuild ([`begin_rebuilding`]).
///
/// # Errors
/// Returns an error if the database is not reachable, or the login may not write `raw.catalogue`.
pub async fn note_act(conn: &mut PgConnection, act: &CatalogueAct) -> anyhow::Result<()> {
    let act = serde_json::to_value(act).context("print an act of the catalogue as JSON")?;
    sqlx::query!("-- catalogue: note an act\n select raw.note_in_catalogue($1)", act)
        .execute(conn)
        .await
        .context("note the act in raw.catalogue")?;
    Ok(())
}

/// Notes that a file no longer counts for a window, in the transaction that withdraws it. A file that is withdrawn for several
/// windows is noted for each.
///
/// # Errors
/// Returns an error if the file is not in `raw.csv_files`, or the database is not reachable.
pub async fn note_withdrawal(
    conn: &mut PgConnection,
    file_id: Uuid,
    window_start_utc: DateTime<Utc>,
    author: ActAuthor,
) -> anyhow::Result<()> {
    let file = file_of_window(conn, file_id, window_start_utc).await?;
    note_act(conn, &CatalogueAct::Withdrawal { file, author }).await
}

/// Returns how acts name a file.
///
/// # Errors
/// Returns an error if the file is not in `raw.csv_files`.
pub async fn file_of_window(
    conn: &mut PgConnection,
    file_id: Uuid,
    window_start_utc: DateTime<Utc>,
) -> anyhow::Result<FileOfWindow> {
    let file = sqlx::query!(
        "-- catalogue: a file's name\n select source, sha256 from raw.csv_files where file_id = $1",
        file_id
    )
    .fetch_optional(conn)
    .await
    .context("look up the file of an act")?
    .with_context(|| format!("file {file_id} is not in raw.csv_files"))?;
    Ok(FileOfWindow { source: file.source, window_start_utc, sha256: file.sha256 })
}

/// Begins to repeat acts of the catalogue: until the transaction ends, [`note_act`] and the trigger note nothing.
///
/// # Errors
/// Returns an error if the database is not reachable.
pub async fn begin_rebuilding(conn: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query!("-- catalogue: repeat acts\n select set_config('vinops.rebuild', 'on', true)")
        .fetch_one(conn)
        .await
        .context("switch raw.note_in_catalogue off")?;
    Ok(())
}

/// Writes down an entry that the store has already. Returns false if it was written down before.
///
/// # Errors
/// Returns an error if the database is not reachable.
pub async fn adopt_entry(conn: &mut PgConnection, entry: &CatalogueEntry) -> anyhow::Result<bool> {
    let kind = serde_json::to_value(&entry.act)?["kind"].as_str().unwrap_or_default().to_owned();
    let adopted = sqlx::query!(
        "-- catalogue: adopt an entry
        insert into raw.catalogue (key, at, kind, body, written_at)
        values ($1, $2, $3, $4, now())
        on conflict do nothing",
        entry.key,
        entry.at,
        kind,
        entry.body,
    )
    .execute(conn)
    .await
    .with_context(|| format!("write down the catalogue's entry {}", entry.key))?;
    Ok(adopted.rows_affected() > 0)
}

/// Puts the objects of all entries that have none yet, in the order of their keys. `put` creates an object, and accepts
/// one that is there. Returns the number of entries.
///
/// # Errors
/// Returns the error of a put, or of the database. What was put until then is noted.
pub async fn write_unwritten<F>(pool: &PgPool, put: impl Fn(String, String) -> F) -> anyhow::Result<u64>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut written = 0;
    loop {
        let entries = sqlx::query!(
            "-- catalogue: entries without an object
            select key, body from raw.catalogue where written_at is null order by key limit $1",
            BATCH_ROWS
        )
        .fetch_all(pool)
        .await
        .context("look for entries of the catalogue that the store lacks")?;
        if entries.is_empty() {
            return Ok(written);
        }
        for entry in entries {
            put(entry.key.clone(), entry.body).await?;
            sqlx::query!(
                "-- catalogue: the object is there
                update raw.catalogue set written_at = now() where key = $1 and written_at is null",
                entry.key
            )
            .execute(pool)
            .await
            .context("note that an entry of the catalogue is in the store")?;
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests;
