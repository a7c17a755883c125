//! The comparison of `raw.csv_files` with the store, folder by folder.
//!
//! Memory grows with the files of some folders (a folder contains a day of a source) and with the number of problems,
//! not with the store. Rows are read before their folder is listed, and an object is placed before its row is
//! committed, so a file that is stored meanwhile is never reported missing. Objects without a row are looked up again
//! after the listing.

use super::catalogue::CatalogueReport;
use crate::cli::CommandError;
use crate::cli::error_text::error_line;
use crate::cli::progress::ProgressBars;
use crate::store::{self, DAMAGED_FOLDER, ObjectSums, Store, StoredObject};
use anyhow::Context;
use chrono::{DateTime, Utc};
use futures::{StreamExt, stream};
use serde::Serialize;
use sqlx::PgPool;
use std::collections::{BTreeSet, HashMap, HashSet};
use uuid::Uuid;

/// The number of newest files per source whose bytes are read without `--all`: the windows of a day.
const NEWEST_FILES: i64 = 96;
/// The number of folders whose rows one query reads.
const FOLDERS_PER_QUERY: usize = 32;
/// The number of concurrent reads. Each needs a decompressor of some megabytes.
const MAX_CONCURRENT_READS: usize = 4;
/// The greatest number of unnamed objects that the report lists by key.
const MAX_UNNAMED_KEYS: usize = 1000;
/// The folder of the store that contains only files.
const RAW_FOLDER: &str = "raw";

/// The result of a check and of the repair.
#[derive(Debug, Default, Serialize)]
pub struct StoreReport {
    /// Number of files in the database.
    pub files: i64,
    /// Number of files whose bytes were read.
    pub read: i64,
    /// Files that are missing, misplaced, damaged or unreadable.
    pub problems: Vec<FileProblem>,
    /// Number of repaired files.
    pub repaired: usize,
    /// Objects without a row.
    pub unnamed: UnnamedObjects,
    /// The comparison of the catalogue.
    pub catalogue: CatalogueReport,
}

impl StoreReport {
    /// Returns the number of problems of one state.
    pub fn count_state(&self, state: StoreFileState) -> i64 {
        self.problems.iter().filter(|problem| problem.state == state).count() as i64
    }
}

/// Objects under `raw/` without a row.
#[derive(Debug, Default, Serialize)]
pub struct UnnamedObjects {
    /// Number of objects.
    pub objects: i64,
    /// Total size of the objects in bytes.
    pub stored_bytes: i64,
    /// The first thousand keys.
    pub keys: Vec<String>,
}

/// A file that the store does not contain intact.
#[derive(Debug, Serialize)]
pub struct FileProblem {
    /// The id of the file.
    pub file_id: Uuid,
    /// The source of the file.
    pub source: String,
    /// The start of the file's window.
    pub window_start_utc: DateTime<Utc>,
    /// The key in the file's row.
    pub key: String,
    /// The kind of the problem.
    pub state: StoreFileState,
    /// A description of the object under the key, if there is one.
    pub detail: Option<String>,
    /// The key of an object that contains the file's bytes.
    pub found_as: Option<String>,
    /// True if the file was repaired.
    pub repaired: bool,
    /// A description of the repair, done or planned.
    pub outcome: Option<String>,
    /// The sha256 of the original bytes.
    pub sha256: String,
    /// The sha256 of the stored bytes, if recorded.
    pub packed_sha256: Option<String>,
}

/// The kind of a file's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreFileState {
    /// No object has the file's key, and no object of its folder contains its bytes.
    Missing,
    /// No object has the file's key, but another object contains its bytes.
    Misplaced,
    /// The object under the file's key contains other bytes or does not decompress.
    Damaged,
    /// The object under the file's key cannot be read.
    Unreadable,
}

impl StoreFileState {
    /// Returns the name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            StoreFileState::Missing => "missing",
            StoreFileState::Misplaced => "misplaced",
            StoreFileState::Damaged => "damaged",
            StoreFileState::Unreadable => "unreadable",
        }
    }
}

/// A row of `raw.csv_files`.
#[derive(Debug)]
struct CsvFileRow {
    file_id: Uuid,
    source: String,
    window_start_utc: DateTime<Utc>,
    key: String,
    folder: String,
    sha256: String,
    packed_sha256: Option<String>,
    stored_bytes: Option<i64>,
}

impl CsvFileRow {
    /// Returns true if the object has the recorded size, or if no size is recorded.
    fn has_size_of(&self, object: &StoredObject) -> bool {
        self.stored_bytes.is_none_or(|bytes| u64::try_from(bytes) == Ok(object.stored_bytes))
    }

    /// Returns the difference between an object and this file as it was stored, or `None` if they are equal.
    fn find_mismatch(&self, object: &ObjectSums) -> Option<String> {
        match &object.sha256 {
            Err(reason) => return Some(format!("does not decompress: {reason}")),
            Ok(sha256) if *sha256 != self.sha256 => {
                return Some(format!("contains other bytes, sha256 {sha256}"));
            }
            Ok(_) => {}
        }
        match (object.compressed, is_compressed(&self.key)) {
            (false, true) => return Some("contains the file uncompressed".to_owned()),
            (true, false) => return Some("contains the file compressed".to_owned()),
            _ => {}
        }
        let recorded = self.packed_sha256.as_ref().filter(|recorded| **recorded != object.packed_sha256)?;
        Some(format!("contains the file compressed to other bytes; the recorded sha256 is {recorded}"))
    }

    /// Returns a problem of this file.
    fn new_problem(&self, state: StoreFileState, detail: Option<String>) -> FileProblem {
        FileProblem {
            file_id: self.file_id,
            source: self.source.clone(),
            window_start_utc: self.window_start_utc,
            key: self.key.clone(),
            state,
            detail,
            found_as: None,
            repaired: false,
            outcome: None,
            sha256: self.sha256.clone(),
            packed_sha256: self.packed_sha256.clone(),
        }
    }
}

/// Returns true if the object under a key must be compressed.
pub(super) fn is_compressed(key: &str) -> bool {
    !key.ends_with(".csv")
}

/// The checksums of objects by key, or the error of the read.
type SumsByKey = HashMap<String, Result<ObjectSums, String>>;

/// Compares every file with the store.
///
/// # Errors
/// Returns an error if the database cannot be read or the store cannot be listed.
pub async fn check_store(
    pool: &PgPool,
    store: &Store,
    all: bool,
    bars: &ProgressBars,
) -> Result<StoreReport, CommandError> {
    let newest = newest_files(pool).await?;
    let (row_folders, files) = folders_of_rows(pool).await?;
    let mut folders = row_folders;
    folders.extend(store.list_folders(RAW_FOLDER).await.map_err(CommandError::unavailable)?);
    let folders: Vec<String> = folders.into_iter().collect();
    let bar = bars.add_step_bar("check", files);
    let mut report = StoreReport::default();
    for some in folders.chunks(FOLDERS_PER_QUERY) {
        let mut rows: HashMap<String, Vec<CsvFileRow>> = HashMap::new();
        for row in rows_of_folders(pool, some).await? {
            rows.entry(row.folder.clone()).or_default().push(row);
        }
        let mut unnamed = Vec::new();
        for folder in some {
            let rows = rows.remove(folder).unwrap_or_default();
            let is_due = |row: &CsvFileRow| all || newest.contains(&row.file_id);
            unnamed.extend(check_folder(store, folder, &rows, is_due, &mut report).await?);
            bar.inc(rows.len() as u64);
        }
        report.unnamed.add_objects(without_named(pool, unnamed).await?);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// Compares the files of one folder with its objects. Returns the objects without a row.
async fn check_folder(
    store: &Store,
    folder: &str,
    rows: &[CsvFileRow],
    is_due: impl Fn(&CsvFileRow) -> bool,
    report: &mut StoreReport,
) -> anyhow::Result<Vec<StoredObject>> {
    let listed = if store::is_key(folder) { store.list_folder(folder).await? } else { Vec::new() };
    let objects: HashMap<&str, &StoredObject> = listed.iter().map(|object| (object.key.as_str(), object)).collect();
    let to_read = rows
        .iter()
        .filter(|row| objects.get(row.key.as_str()).is_some_and(|object| is_due(row) || !row.has_size_of(object)));
    let mut sums = read_sums(store, to_read.map(|row| row.key.clone())).await;
    report.files += rows.len() as i64;
    report.read += sums.len() as i64;
    let problem_of = |row: &CsvFileRow| match (objects.get(row.key.as_str()), sums.get(&row.key)) {
        (None, _) => Some(row.new_problem(StoreFileState::Missing, None)),
        (Some(_), None) => None,
        (Some(_), Some(Ok(sums))) => {
            row.find_mismatch(sums).map(|mismatch| row.new_problem(StoreFileState::Damaged, Some(mismatch)))
        }
        (Some(_), Some(Err(error))) => Some(row.new_problem(StoreFileState::Unreadable, Some(error.clone()))),
    };
    let mut problems: Vec<FileProblem> = rows.iter().filter_map(problem_of).collect();
    let named: HashSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let unnamed: Vec<StoredObject> =
        listed.iter().filter(|object| !named.contains(object.key.as_str())).cloned().collect();
    if !problems.is_empty() && store::is_key(folder) {
        let aside = store.list_folder(&format!("{DAMAGED_FOLDER}/{folder}")).await?;
        let elsewhere = unnamed.iter().chain(&aside).map(|object| object.key.clone());
        sums.extend(read_sums(store, elsewhere).await);
        problems.iter_mut().for_each(|problem| find_elsewhere(problem, &sums));
    }
    report.problems.append(&mut problems);
    let is_raw = folder == RAW_FOLDER || folder.starts_with("raw/");
    Ok(if is_raw { unnamed } else { Vec::new() })
}

/// Reads objects concurrently and computes their checksums.
async fn read_sums(store: &Store, keys: impl Iterator<Item = String>) -> SumsByKey {
    let reads = keys.map(|key| async move {
        let sums = store.object_sums(&key).await.map_err(|error| error_line(&error));
        (key, sums)
    });
    stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(MAX_CONCURRENT_READS).collect().await
}

/// Looks for the file's bytes among the objects that were read. An object with the recorded stored bytes is
/// preferred. The file's own key comes last, because its object then only needs to be compressed again.
fn find_elsewhere(problem: &mut FileProblem, sums: &SumsByKey) {
    let rank = |key: &str, sums: &ObjectSums| {
        let same = problem.packed_sha256.as_ref().is_none_or(|packed| *packed == sums.packed_sha256);
        (key == problem.key, !same, key.to_owned())
    };
    let found = sums
        .iter()
        .filter_map(|(key, sums)| sums.as_ref().ok().map(|sums| (key, sums)))
        .filter(|(_, sums)| sums.sha256.as_ref() == Ok(&problem.sha256))
        .min_by_key(|(key, sums)| rank(key, sums));
    problem.found_as = found.map(|(key, _)| key.clone());
    if problem.state == StoreFileState::Missing && problem.found_as.is_some() {
        problem.state = StoreFileState::Misplaced;
    }
}

impl UnnamedObjects {
    fn add_objects(&mut self, objects: Vec<StoredObject>) {
        for object in objects {
            self.objects += 1;
            self.stored_bytes += i64::try_from(object.stored_bytes).unwrap_or(i64::MAX);
            if self.keys.len() < MAX_UNNAMED_KEYS {
                self.keys.push(object.key);
            }
        }
    }
}

/// Returns the newest files of each source.
async fn newest_files(pool: &PgPool) -> anyhow::Result<HashSet<Uuid>> {
    let files = sqlx::query_scalar!(
        "-- store check: newest files
        select file_id
        from (
          select file_id, row_number() over (partition by source order by window_start_utc desc, file_no desc) as nth
          from raw.csv_files
        ) as f
        where nth <= $1",
        NEWEST_FILES
    );
    Ok(files.fetch_all(pool).await.context("could not read the newest files")?.into_iter().collect())
}

/// Returns the folders of all rows, and the number of rows.
async fn folders_of_rows(pool: &PgPool) -> anyhow::Result<(BTreeSet<String>, u64)> {
    let folders = sqlx::query!(
        r#"-- store check: folders of files
        select regexp_replace(ltrim(path, '/'), '/?[^/]*$', '') as "folder!", count(*) as "files!"
        from raw.csv_files
        group by 1"#
    )
    .fetch_all(pool)
    .await
    .context("could not read the folders of files")?;
    let files = folders.iter().map(|folder| folder.files.unsigned_abs()).sum();
    Ok((folders.into_iter().map(|folder| folder.folder).collect(), files))
}

/// Returns the files of these folders.
async fn rows_of_folders(pool: &PgPool, folders: &[String]) -> anyhow::Result<Vec<CsvFileRow>> {
    sqlx::query_as!(
        CsvFileRow,
        r#"-- store check: files of folders
        select
          file_id, source, window_start_utc, ltrim(path, '/') as "key!",
          regexp_replace(ltrim(path, '/'), '/?[^/]*$', '') as "folder!", sha256, packed_sha256, stored_bytes
        from raw.csv_files
        where regexp_replace(ltrim(path, '/'), '/?[^/]*$', '') = any($1)
        order by path, source"#,
        folders
    )
    .fetch_all(pool)
    .await
    .context("could not read the files of some folders")
}

/// Removes the objects that have a row by now.
async fn without_named(pool: &PgPool, mut objects: Vec<StoredObject>) -> anyhow::Result<Vec<StoredObject>> {
    if objects.is_empty() {
        return Ok(objects);
    }
    let keys: Vec<String> = objects.iter().map(|object| object.key.clone()).collect();
    let named: HashSet<String> = sqlx::query_scalar!(
        r#"-- store check: objects named meanwhile
        select ltrim(path, '/') as "key!" from raw.csv_files where ltrim(path, '/') = any($1)"#,
        &keys
    )
    .fetch_all(pool)
    .await
    .context("could not look up unnamed objects again")?
    .into_iter()
    .collect();
    objects.retain(|object| !named.contains(&object.key));
    Ok(objects)
}
