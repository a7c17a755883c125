//! The catalogue: the recorded actions from which, together with the stored files, a database can be rebuilt.
//!
//! Three kinds of actions are recorded: the receipt of a file, the repeat of known bytes, and each operator action that
//! changes vehicles, lots or statuses (accept, withdrawal, mapped alias, edited labels, accepted size, removal). Each
//! action is one row of `raw.catalogue` and one small JSON object under `catalogue/` in the store. Keys sort by the
//! time of the action, as in `catalogue/2026/11/20/143012.345678-receipt-0a1b2c3d.json`, which ends in the first eight
//! hex digits of the object's sha256.
//!
//! **The row is committed with its action, and the object is put afterwards** (a transactional outbox). So there is no
//! object of an action that was rolled back. If a process dies before the put, the row has no `written_at`, and the
//! next step puts the object: ingest and detect-completion begin with [`write_pending_entries`], before they change
//! anything. While the put fails, the step fails and is retried, so no file is applied that is missing in the store's
//! catalogue. Objects are created and never overwritten. A put is repeated if its process died before the update of
//! `written_at`, and then finds the same bytes under the same key. Operator commands do not put objects, since an
//! operator's host may have no access to the store.
//!
//! **Removals** (`is_removed` of a vehicle, a lot or an image) are manual SQL statements, since no command does them. A
//! trigger records them. Other manual statements are not recorded, such as a changed status or a changed row of
//! `public.config`. Sources are not in the catalogue either: a source with files cannot be removed, and a source
//! without files is not needed by a rebuild.
//!
//! An object has `version`, `kind`, `at` and the fields of [`CatalogueAction`]. Readers ignore unknown fields, and
//! reject unknown versions and kinds.

use super::taxonomy::LabelRow;
use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// The folder of catalogue objects in the store.
pub const CATALOGUE_FOLDER: &str = "catalogue";
/// Version of the objects that this program writes and reads.
const OBJECT_VERSION: u32 = 1;
/// Number of rows that one query of pending entries returns.
const BATCH_ROWS: i64 = 1000;

/// Reference to a file of a window, without the file id, since file ids differ between databases.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileOfWindow {
    /// The name of the source.
    pub source: String,
    /// The start of the window.
    pub window_start_utc: DateTime<Utc>,
    /// sha256 of the file's bytes, in hex.
    pub sha256: String,
}

/// Operator and reason of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionAuthor {
    /// The name of the operator.
    pub operator: String,
    /// The reason that the operator gave.
    pub reason: String,
}

/// A recorded action of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CatalogueAction {
    /// A file arrived with bytes that are new for its source.
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
        /// The validator `ETag` of the response with the file.
        etag: Option<String>,
        /// The validator `Last-Modified` of the response with the file.
        last_modified: Option<DateTime<Utc>>,
    },
    /// Bytes that are known from the same source arrived for a window.
    Repeat {
        /// The file, and the window of the repeat.
        #[serde(flatten)]
        file: FileOfWindow,
    },
    /// A quarantined file was accepted.
    Accept {
        /// The file and its window.
        #[serde(flatten)]
        file: FileOfWindow,
        /// Operator and reason.
        #[serde(flatten)]
        author: ActionAuthor,
    },
    /// A file was withdrawn, and no longer counts for this window.
    Withdrawal {
        /// The file and its window.
        #[serde(flatten)]
        file: FileOfWindow,
        /// Operator and reason.
        #[serde(flatten)]
        author: ActionAuthor,
    },
    /// The size of a source's newest judged file was accepted as normal.
    AcceptSize {
        /// The name of the source.
        source: String,
        /// Operator and reason.
        #[serde(flatten)]
        author: ActionAuthor,
    },
    /// A raw value was mapped to a code.
    Mapping {
        /// The taxonomy table, such as `damage_types`.
        domain: String,
        /// The folded raw value.
        spelling: String,
        /// The code that the raw value has since.
        code: String,
        /// Operator and reason.
        #[serde(flatten)]
        author: ActionAuthor,
    },
    /// Labels were edited.
    Labels {
        /// The labels that differed from the table before.
        labels: Vec<LabelRow>,
        /// Operator and reason.
        #[serde(flatten)]
        author: ActionAuthor,
    },
    /// A vehicle (`vin` alone), a lot (`source`, `lot`) or an image (`image`) was hidden or shown again. The trigger
    /// `raw.note_removal` writes this action.
    Removal {
        /// True if hidden, false if shown again.
        removed: bool,
        /// The login that executed the statement.
        login: String,
        /// VIN of the vehicle, or of the image's vehicle.
        vin: Option<String>,
        /// Source of the lot, or of the image's lot.
        source: Option<String>,
        /// Number of the lot, or of the image's lot.
        lot: Option<String>,
        /// The URL of the image.
        image: Option<String>,
        /// The variant of the image within its lot.
        variant: Option<String>,
    },
}

/// An entry of the catalogue, parsed from its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The key in the store.
    pub key: String,
    /// The time of the action.
    pub at: DateTime<Utc>,
    /// The recorded action.
    pub act: CatalogueAction,
    /// The text of the object, unchanged.
    pub body: String,
}

impl CatalogueEntry {
    /// Parses an object.
    ///
    /// # Errors
    /// Returns an error if the text is no JSON of the catalogue, or has a version or kind that this program does not
    /// know.
    pub fn parse(key: &str, body: String) -> anyhow::Result<CatalogueEntry> {
        #[derive(Deserialize)]
        struct ObjectEnvelope {
            version: u32,
            at: DateTime<Utc>,
        }
        let context = || format!("could not parse the catalogue object {key}");
        let ObjectEnvelope { version, at } = serde_json::from_str(&body).with_context(context)?;
        ensure!(
            version == OBJECT_VERSION,
            "catalogue object {key} has version {version}, and this program reads version {}\n\
             hint: use the program that wrote the object, or a newer one",
            OBJECT_VERSION
        );
        let act = serde_json::from_str(&body).with_context(context)?;
        Ok(CatalogueEntry { key: key.to_owned(), at, act, body })
    }
}

/// Records an action in its transaction. A later step puts the object into the store.
///
/// In a transaction of a rebuild ([`begin_rebuilding`]) nothing is recorded.
///
/// # Errors
/// Returns an error if the database is not reachable, or the login may not write `raw.catalogue`.
pub async fn record_action(conn: &mut PgConnection, act: &CatalogueAction) -> anyhow::Result<()> {
    let act = serde_json::to_value(act).context("could not print a catalogue action as JSON")?;
    sqlx::query!("-- catalogue: note an act\n select raw.note_in_catalogue($1)", act)
        .execute(conn)
        .await
        .context("could not record the action in raw.catalogue")?;
    Ok(())
}

/// Records that a file no longer counts for a window, in the transaction that withdraws the file.
///
/// A file that is withdrawn for several windows needs one call for each.
///
/// # Errors
/// Returns an error if the file is not in `raw.csv_files`, or the database is not reachable.
pub async fn record_withdrawal(
    conn: &mut PgConnection,
    file_id: Uuid,
    window_start_utc: DateTime<Utc>,
    author: ActionAuthor,
) -> anyhow::Result<()> {
    let file = file_of_window(conn, file_id, window_start_utc).await?;
    record_action(conn, &CatalogueAction::Withdrawal { file, author }).await
}

/// Returns the reference by which actions name a file.
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
    .context("could not read the file of a catalogue action")?
    .with_context(|| format!("file {file_id} is not in raw.csv_files"))?;
    Ok(FileOfWindow { source: file.source, window_start_utc, sha256: file.sha256 })
}

/// Turns recording off until the transaction ends, for [`record_action`] and for the trigger. A rebuild repeats
/// recorded actions.
///
/// # Errors
/// Returns an error if the database is not reachable.
pub async fn begin_rebuilding(conn: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query!("-- catalogue: repeat acts\n select set_config('vinops.rebuild', 'on', true)")
        .fetch_one(conn)
        .await
        .context("could not turn off raw.note_in_catalogue")?;
    Ok(())
}

/// Inserts an entry that the store already has. Returns false if the table has the entry.
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
    .with_context(|| format!("could not insert the catalogue entry {}", entry.key))?;
    Ok(adopted.rows_affected() > 0)
}

/// Puts the objects of all entries without one, in the order of their keys. Returns the number of entries.
///
/// `put` creates an object, and accepts an existing one with the same bytes.
///
/// # Errors
/// Returns the error of a put, or of the database. Objects put before the error are recorded as written.
pub async fn write_pending_entries<F>(pool: &PgPool, put: impl Fn(String, String) -> F) -> anyhow::Result<u64>
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
        .context("could not read the catalogue entries that are not in the store")?;
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
            .context("could not mark a catalogue entry as written")?;
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests;
