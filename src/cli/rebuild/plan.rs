//! The plan of a rebuild: the entries of the catalogue in the order of their keys. Without a catalogue, the files in
//! the order of the windows in their names.

use super::report::{NamedFile, RebuildReport};
use crate::auction::window::parse_path_time;
use crate::cli::CommandError;
use crate::db::catalogue::{self, CatalogueAction, CatalogueEntry, FileOfWindow};
use crate::store::{Store, StoredObject};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

/// The folder of the store that contains the files.
const RAW_FOLDER: &str = "raw";
/// The number of concurrent reads of catalogue objects.
const MAX_CONCURRENT_READS: usize = 16;

/// The basis of a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RebuildBasis {
    /// The entries of the catalogue.
    Catalogue,
    /// The names of the files.
    Names,
}

impl RebuildBasis {
    /// Returns the value that `audit.operator_actions` records.
    pub fn as_str(self) -> &'static str {
        match self {
            RebuildBasis::Catalogue => "catalogue",
            RebuildBasis::Names => "names",
        }
    }
}

/// One act of a rebuild.
#[derive(Debug)]
pub enum PlannedAction {
    /// Repeats an entry of the catalogue.
    Entry(CatalogueEntry),
    /// Records an entry of the catalogue without repeating it, because its file is withdrawn for that window.
    Withdrawn(CatalogueEntry),
    /// Registers a file by its name.
    Named(NamedFile),
}

/// All acts of a rebuild, and the files of the store.
#[derive(Debug)]
pub struct RebuildPlan {
    /// The basis of the acts.
    pub basis: RebuildBasis,
    /// The acts, in order.
    pub acts: Vec<PlannedAction>,
    /// The first receipt of each file, by source and sha256.
    pub receipts: HashMap<(String, String), CatalogueAction>,
    /// The objects under `raw/`, by key.
    pub objects: HashMap<String, StoredObject>,
    /// Objects under `raw/` that no entry names.
    unlisted: Vec<String>,
}

impl RebuildPlan {
    /// Reads the catalogue and lists the files. Without `basis`, the catalogue is the basis if there is one.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read, or if an object of the catalogue cannot be parsed.
    pub async fn read(store: &Store, basis: Option<RebuildBasis>) -> Result<RebuildPlan, CommandError> {
        let objects = list_objects(store, RAW_FOLDER).await.map_err(CommandError::unavailable)?;
        let entries = match basis {
            Some(RebuildBasis::Names) => Vec::new(),
            _ => read_entries(store).await?,
        };
        let objects: HashMap<String, StoredObject> =
            objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        let basis = basis.unwrap_or(match entries.is_empty() {
            true => RebuildBasis::Names,
            false => RebuildBasis::Catalogue,
        });
        Ok(match basis {
            RebuildBasis::Catalogue => RebuildPlan::from_entries(entries, objects),
            RebuildBasis::Names => RebuildPlan::from_names(objects),
        })
    }

    /// Returns the plan of a rebuild by catalogue.
    fn from_entries(entries: Vec<CatalogueEntry>, objects: HashMap<String, StoredObject>) -> RebuildPlan {
        let mut receipts = HashMap::new();
        for entry in &entries {
            if let CatalogueAction::Receipt { file, .. } = &entry.act {
                let name = (file.source.clone(), file.sha256.clone());
                receipts.entry(name).or_insert_with(|| entry.act.clone());
            }
        }
        let listed: HashSet<&str> = entries.iter().filter_map(|entry| receipt_key(&entry.act)).collect();
        let mut unlisted: Vec<String> = objects.keys().filter(|key| !listed.contains(key.as_str())).cloned().collect();
        unlisted.sort_unstable();
        // Entries are processed backwards, so that a file that came again after a withdrawal is repeated.
        let mut withdrawn: HashSet<FileOfWindow> = HashSet::new();
        let mut acts = Vec::with_capacity(entries.len());
        for entry in entries.into_iter().rev() {
            let skip = match &entry.act {
                CatalogueAction::Withdrawal { file, .. } => {
                    withdrawn.insert(file.clone());
                    true
                }
                CatalogueAction::Receipt { file, .. } => withdrawn.remove(file),
                CatalogueAction::Repeat { file } | CatalogueAction::Accept { file, .. } => withdrawn.contains(file),
                _ => false,
            };
            acts.push(if skip { PlannedAction::Withdrawn(entry) } else { PlannedAction::Entry(entry) });
        }
        acts.reverse();
        RebuildPlan { basis: RebuildBasis::Catalogue, acts, receipts, objects, unlisted }
    }

    /// Returns the plan of a rebuild by names.
    fn from_names(objects: HashMap<String, StoredObject>) -> RebuildPlan {
        let mut files = Vec::new();
        let mut unlisted = Vec::new();
        for object in objects.values() {
            match parse_key(&object.key) {
                Some((source, window_start_utc)) => files.push(NamedFile {
                    source: source.to_owned(),
                    window_start_utc,
                    key: object.key.clone(),
                    stored_bytes: object.stored_bytes,
                }),
                None => unlisted.push(object.key.clone()),
            }
        }
        unlisted.sort_unstable();
        // Of several files of one window, the file with the plain name came first.
        files.sort_unstable_by(|a, b| {
            let order =
                |file: &NamedFile| (file.window_start_utc, file.source.clone(), file.key.len(), file.key.clone());
            order(a).cmp(&order(b))
        });
        let acts = files.into_iter().map(PlannedAction::Named).collect();
        RebuildPlan { basis: RebuildBasis::Names, acts, receipts: HashMap::new(), objects, unlisted }
    }

    /// Returns a report with the planned counts.
    pub fn new_report(&self, dry_run: bool) -> RebuildReport {
        let mut report = RebuildReport::new(self.basis, dry_run, self.unlisted.clone());
        let mut windows = BTreeSet::new();
        for act in &self.acts {
            match act {
                PlannedAction::Entry(entry) => self.count_entry(entry, &mut windows, &mut report),
                PlannedAction::Withdrawn(entry) => {
                    if let CatalogueAction::Withdrawal { file, .. } = &entry.act {
                        report.withdrawn.push(file.clone());
                    }
                }
                PlannedAction::Named(file) => {
                    windows.insert((file.source.clone(), file.window_start_utc));
                    report.files += 1;
                    report.stored_bytes += file.stored_bytes;
                }
            }
        }
        report.windows = windows.len();
        report
    }

    /// Adds one entry to the counts of the report.
    fn count_entry(
        &self,
        entry: &CatalogueEntry,
        windows: &mut BTreeSet<(String, DateTime<Utc>)>,
        report: &mut RebuildReport,
    ) {
        match &entry.act {
            CatalogueAction::Receipt { file, path, bytes, .. } => {
                windows.insert((file.source.clone(), file.window_start_utc));
                report.files += 1;
                report.bytes = Some(report.bytes.unwrap_or_default() + bytes);
                match self.objects.get(path) {
                    Some(object) => report.stored_bytes += object.stored_bytes,
                    None => report.missing.push(path.clone()),
                }
            }
            CatalogueAction::Repeat { file } => {
                windows.insert((file.source.clone(), file.window_start_utc));
                report.repeats += 1;
            }
            CatalogueAction::Accept { .. } => report.accepts += 1,
            CatalogueAction::AcceptSize { .. } => report.accepted_sizes += 1,
            CatalogueAction::Mapping { .. } => report.mappings += 1,
            CatalogueAction::Labels { .. } => report.label_edits += 1,
            CatalogueAction::Removal { .. } => report.removals += 1,
            CatalogueAction::Withdrawal { .. } => {}
        }
    }
}

/// Returns the key of a receipt's file, or `None` for another act.
pub fn receipt_key(act: &CatalogueAction) -> Option<&str> {
    match act {
        CatalogueAction::Receipt { path, .. } => Some(path.trim_start_matches('/')),
        _ => None,
    }
}

/// Returns the source and the window in the key of a file, for example `raw/copart/2026/11/20/1430.csv.zst`.
fn parse_key(key: &str) -> Option<(&str, DateTime<Utc>)> {
    let (source, rest) = key.strip_prefix("raw/")?.split_once('/')?;
    let plain = rest.strip_suffix(".csv.zst")?;
    let (day, name) = plain.rsplit_once('/')?;
    let minute = match name.split_once('-') {
        Some((minute, sha8)) if sha8.len() == 8 && sha8.bytes().all(|b| b.is_ascii_hexdigit()) => minute,
        Some(_) => return None,
        None => name,
    };
    Some((source, parse_path_time(Path::new(&format!("{day}/{minute}.csv")))?))
}

/// Returns all objects under a folder.
async fn list_objects(store: &Store, folder: &str) -> anyhow::Result<Vec<StoredObject>> {
    let mut objects = Vec::new();
    for folder in store.list_folders(folder).await? {
        objects.extend(store.list_folder(&folder).await?);
    }
    Ok(objects)
}

/// Reads the catalogue, in the order of the keys.
async fn read_entries(store: &Store) -> Result<Vec<CatalogueEntry>, CommandError> {
    let objects = list_objects(store, catalogue::CATALOGUE_FOLDER).await.map_err(CommandError::unavailable)?;
    let mut keys: Vec<String> = objects.into_iter().map(|object| object.key).collect();
    keys.sort_unstable();
    let reads = stream::iter(keys).map(|key| async move {
        let body = store.read_object(&key).await?;
        CatalogueEntry::parse(&key, body)
    });
    Ok(reads.buffered(MAX_CONCURRENT_READS).try_collect().await?)
}

#[cfg(test)]
mod tests;
