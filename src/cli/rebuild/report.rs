//! What a rebuild found, did and could not know, for people and for programs.

use super::plan::PlanBasis;
use crate::cli::show::{self, count, megabytes};
use crate::db::catalogue::FileOfWindow;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// Most items of a list that are printed for people; `--json` has every one.
const MAX_SHOWN: usize = 20;
/// What the names of files do not say.
const UNKNOWN_BY_NAMES: &[&str] = &[
    "the order in which files came",
    "windows that brought known bytes again",
    "accepted files and accepted sizes",
    "mapped spellings and edited labels",
    "withdrawn files: they are applied again",
    "hidden vehicles, lots and pictures: they are shown again",
];

/// A file that is known by its name only.
#[derive(Clone, Debug, Serialize)]
pub struct NamedFile {
    /// Its source.
    pub source: String,
    /// The start of its window.
    pub window_start_utc: DateTime<Utc>,
    /// Its key in the store.
    pub key: String,
    /// Size of the object in bytes.
    pub stored_bytes: u64,
}

/// Something that could not be repeated, and why.
#[derive(Clone, Debug, Serialize)]
pub struct NotRepeated {
    /// The key of the file, or of the catalogue's entry.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// What a rebuild does, did and could not know.
#[derive(Debug, Serialize)]
pub struct RebuildReport {
    /// What it goes by.
    pub basis: PlanBasis,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Files to be applied.
    pub files: usize,
    /// Windows that they came for.
    pub windows: usize,
    /// Size of the files in bytes; unknown by names.
    pub bytes: Option<u64>,
    /// Size of their objects in bytes.
    pub stored_bytes: u64,
    /// Windows that brought known bytes again.
    pub repeats: usize,
    /// Quarantined files that were accepted.
    pub accepts: usize,
    /// Sizes that were accepted as normal.
    pub accepted_sizes: usize,
    /// Spellings that were mapped.
    pub mappings: usize,
    /// Edits of labels.
    pub label_edits: usize,
    /// Vehicles, lots and pictures that were hidden or shown again.
    pub removals: usize,
    /// Withdrawn files, which are left out.
    pub withdrawn: Vec<FileOfWindow>,
    /// Acts that an earlier run of the command had done.
    pub done_before: usize,
    /// Files of the catalogue that the store has lost.
    pub missing: Vec<String>,
    /// Files whose bytes cannot be read, or whose chain failed.
    pub failed: Vec<NotRepeated>,
    /// Operators' acts that found nothing to be done to.
    pub skipped: Vec<NotRepeated>,
    /// Objects under `raw/` that were left out: no entry of the catalogue names them, or no window is in their name.
    pub unlisted: Vec<String>,
    /// What the store does not say.
    pub unknown: Vec<&'static str>,
    /// From the first act to the last.
    pub seconds: f64,
}

impl RebuildReport {
    /// Returns a report of nothing yet.
    pub fn new(basis: PlanBasis, dry_run: bool, unlisted: Vec<String>) -> RebuildReport {
        let unknown = match basis {
            PlanBasis::Catalogue => Vec::new(),
            PlanBasis::Names => UNKNOWN_BY_NAMES.to_vec(),
        };
        RebuildReport {
            basis,
            dry_run,
            files: 0,
            windows: 0,
            bytes: None,
            stored_bytes: 0,
            repeats: 0,
            accepts: 0,
            accepted_sizes: 0,
            mappings: 0,
            label_edits: 0,
            removals: 0,
            withdrawn: Vec::new(),
            done_before: 0,
            missing: Vec::new(),
            failed: Vec::new(),
            skipped: Vec::new(),
            unlisted,
            unknown,
            seconds: 0.0,
        }
    }

    /// Returns the number of files that are not in the data.
    pub fn lost_files(&self) -> usize {
        self.missing.len() + self.failed.len()
    }

    /// Prints it for people.
    pub fn print(&self) {
        let would = if self.dry_run { "would be " } else { "" };
        println!(
            "{} files of {} windows ({}) {would}applied by the {}{}",
            count(self.files as i64),
            count(self.windows as i64),
            megabytes(i64::try_from(self.stored_bytes).unwrap_or(i64::MAX)),
            match self.basis {
                PlanBasis::Catalogue => "catalogue",
                PlanBasis::Names => "names of the files",
            },
            if self.dry_run { String::new() } else { format!(" in {:.1} s", self.seconds) }
        );
        for (number, what) in [
            (self.repeats, "windows that brought known bytes again"),
            (self.accepts, "accepted files"),
            (self.accepted_sizes, "accepted sizes"),
            (self.mappings, "mapped spellings"),
            (self.label_edits, "edits of labels"),
            (self.removals, "removals"),
        ] {
            if number > 0 {
                println!("  {} {what}", count(number as i64));
            }
        }
        if self.done_before > 0 {
            println!("{} acts had been done before", count(self.done_before as i64));
        }
        let withdrawn = self
            .withdrawn
            .iter()
            .map(|file| format!("{} {} {}", file.source, show::minute(file.window_start_utc), file.sha256));
        list("withdrawn files are left out", withdrawn.collect());
        list("files are missing in the store", self.missing.clone());
        let told =
            |all: &[NotRepeated]| all.iter().map(|one| format!("{}: {}", one.key, one.reason)).collect();
        list("files are not in the data", told(&self.failed));
        list("acts found nothing to be done to", told(&self.skipped));
        list(
            "objects under raw/ are left out: no entry names them, or no window is in their name",
            self.unlisted.clone(),
        );
        list("things the store does not say", self.unknown.iter().map(|it| (*it).to_owned()).collect());
    }
}

fn list(what: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    println!("{} {what}:", count(items.len() as i64));
    for item in items.iter().take(MAX_SHOWN) {
        println!("  {item}");
    }
    if items.len() > MAX_SHOWN {
        println!("  and {} more: --json lists every one", count((items.len() - MAX_SHOWN) as i64));
    }
}
