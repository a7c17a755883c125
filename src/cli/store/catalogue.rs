//! The comparison of `raw.catalogue` with the store's folder `catalogue/`, and of both with the files.
//!
//! Rows are read before the folder is listed, and a row is marked as written only after its object exists. So an act
//! that is recorded meanwhile is never reported missing.

use crate::cli::CommandError;
use crate::db::catalogue::{self, FileOfWindow};
use crate::store::Store;
use anyhow::Context;
use serde::Serialize;
use sqlx::PgPool;
use std::collections::HashSet;

/// The deviations of the catalogue, and the number of repaired entries.
#[derive(Debug, Default, Serialize)]
pub struct CatalogueReport {
    /// Number of entries in the database.
    pub entries: i64,
    /// Number of entries whose object is not written yet. The next step of a chain writes it.
    pub unwritten: i64,
    /// Keys of entries whose object was written and is missing.
    pub missing: Vec<String>,
    /// Files of windows without an entry.
    pub files_without_entry: Vec<FileOfWindow>,
    /// Keys of objects without an entry in the database.
    pub unnamed: Vec<String>,
    /// Number of objects that the repair wrote.
    pub written: u64,
}

impl CatalogueReport {
    /// Returns the number of objects that a repair writes.
    pub fn repairable_count(&self) -> usize {
        self.missing.len() + self.files_without_entry.len() + usize::try_from(self.unwritten).unwrap_or_default()
    }
}

/// Compares the catalogue with the store and with the files.
///
/// # Errors
/// Returns an error if the database cannot be read or the store cannot be listed.
pub async fn check_catalogue(pool: &PgPool, store: &Store) -> Result<CatalogueReport, CommandError> {
    let entries = sqlx::query!(
        r#"-- store check: entries of the catalogue
        select key, written_at is not null as "written!" from raw.catalogue order by key"#
    )
    .fetch_all(pool)
    .await
    .context("could not read raw.catalogue")?;
    let files_without_entry = sqlx::query_as!(
        FileOfWindow,
        r#"-- store check: files without an entry
        select g.source, g.window_start_utc, f.sha256
        from raw.sightings g
        join raw.csv_files f on f.file_id = g.file_id
        where g.state <> 'withdrawn'
          and not exists (
          select
          from raw.catalogue c
          where c.kind in ('receipt', 'repeat')
            and c.body::jsonb ->> 'sha256' = f.sha256
            and c.body::jsonb ->> 'source' = g.source
            and (c.body::jsonb ->> 'window_start_utc')::timestamptz = g.window_start_utc
        )
        order by g.seen_at, g.window_start_utc"#
    )
    .fetch_all(pool)
    .await
    .context("could not read the files without a catalogue entry")?;
    let mut there = HashSet::new();
    for folder in store.list_folders(catalogue::CATALOGUE_FOLDER).await.map_err(CommandError::unavailable)? {
        there.extend(store.list_folder(&folder).await?.into_iter().map(|object| object.key));
    }
    let mut report = CatalogueReport { files_without_entry, ..CatalogueReport::default() };
    for entry in entries {
        report.entries += 1;
        let is_there = there.remove(&entry.key);
        match entry.written {
            false => report.unwritten += 1,
            true if !is_there => report.missing.push(entry.key),
            true => {}
        }
    }
    report.unnamed = there.into_iter().collect();
    report.unnamed.sort_unstable();
    Ok(report)
}

/// Writes missing entries of the catalogue from the database. A file without an entry gets a receipt or a repeat,
/// dated when the file was seen.
///
/// # Errors
/// Returns the error of the store or of the database.
pub async fn repair_catalogue(pool: &PgPool, store: &Store, report: &mut CatalogueReport) -> anyhow::Result<()> {
    let mut tx = pool.begin().await.context("could not begin a transaction")?;
    for file in &report.files_without_entry {
        add_file(&mut tx, file).await?;
    }
    sqlx::query!(
        "-- store check: entries whose object is lost
        update raw.catalogue set written_at = null where key = any($1)",
        &report.missing
    )
    .execute(&mut *tx)
    .await
    .context("could not mark the entries whose object is missing")?;
    tx.commit().await.context("could not repair the catalogue")?;
    report.written = catalogue::write_pending_entries(pool, |key, body| store.create_object(key, body)).await?;
    Ok(())
}

/// Adds the entry of a file to the catalogue.
async fn add_file(conn: &mut sqlx::PgConnection, file: &FileOfWindow) -> anyhow::Result<()> {
    sqlx::query!(
        "-- store check: a file's entry
        select raw.add_to_catalogue(
          g.seen_at,
          case when f.window_start_utc = g.window_start_utc
            then to_jsonb(c) || jsonb_build_object('kind', 'receipt')
            else jsonb_build_object(
              'kind', 'repeat', 'source', c.source, 'window_start_utc', c.window_start_utc, 'sha256', c.sha256
            )
          end
        )
        from raw.sightings g
        join raw.csv_files f on f.file_id = g.file_id
        cross join lateral (
          select
            g.source, g.window_start_utc, f.sha256, f.path, f.packed_sha256, f.bytes, f.stored_bytes, f.etag, f.last_modified
        ) as c
        where g.source = $1
          and g.window_start_utc = $2
          and f.sha256 = $3",
        file.source,
        file.window_start_utc,
        file.sha256
    )
    .execute(conn)
    .await
    .with_context(|| format!("could not add the file {} to the catalogue", file.sha256))?;
    Ok(())
}
