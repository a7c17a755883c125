//! The report of a rebuild, printed as text or as JSON.

use super::plan::RebuildBasis;
use crate::cli::output::{self, format_count, format_megabytes};
use crate::db::catalogue::FileOfWindow;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// The greatest number of items of a list that are printed as text. `--json` contains all items.
const MAX_LISTED_ITEMS: usize = 20;
/// The facts that the names of files do not contain.
const UNKNOWN_BY_NAMES: &[&str] = &[
    "the order in which files came",
    "windows that repeated known bytes",
    "accepted files and accepted sizes",
    "mapped values and edited labels",
    "withdrawn files (they are applied again)",
    "hidden vehicles, lots and images (they are shown again)",
];

/// A file that is known by its name only.
#[derive(Clone, Debug, Serialize)]
pub struct NamedFile {
    /// The source of the file.
    pub source: String,
    /// The start of the window.
    pub window_start_utc: DateTime<Utc>,
    /// The key of the object in the store.
    pub key: String,
    /// Size of the object in bytes.
    pub stored_bytes: u64,
}

/// A file or an act that could not be repeated.
#[derive(Clone, Debug, Serialize)]
pub struct RebuildProblem {
    /// The key of the file or of the catalogue entry.
    pub key: String,
    /// The reason as text.
    pub reason: String,
}

/// The counts and the problems of a rebuild.
#[derive(Debug, Serialize)]
pub struct RebuildReport {
    /// The basis of the rebuild.
    pub basis: RebuildBasis,
    /// True if nothing was changed.
    pub dry_run: bool,
    /// Number of files to apply.
    pub files: usize,
    /// Number of windows of the files.
    pub windows: usize,
    /// Size of the files in bytes. Null in a rebuild by names.
    pub bytes: Option<u64>,
    /// Size of the stored objects in bytes.
    pub stored_bytes: u64,
    /// Number of windows that repeated known bytes.
    pub repeats: usize,
    /// Number of accepted quarantined files.
    pub accepts: usize,
    /// Number of sizes that were accepted as normal.
    pub accepted_sizes: usize,
    /// Number of mapped values.
    pub mappings: usize,
    /// Number of label edits.
    pub label_edits: usize,
    /// Number of times that a vehicle, a lot or an image was hidden or shown again.
    pub removals: usize,
    /// Withdrawn files, which are left out.
    pub withdrawn: Vec<FileOfWindow>,
    /// Number of acts that an earlier run has done.
    pub done_before: usize,
    /// Keys of files of the catalogue that are missing in the store.
    pub missing: Vec<String>,
    /// Files whose bytes cannot be read, or whose chain failed.
    pub failed: Vec<RebuildProblem>,
    /// Acts of operators whose object does not exist.
    pub skipped: Vec<RebuildProblem>,
    /// Objects under `raw/` that are left out, because no entry names them or their name contains no window.
    pub unlisted: Vec<String>,
    /// Facts that the store does not contain.
    pub unknown: Vec<&'static str>,
    /// Duration from the first act to the last, in seconds.
    pub seconds: f64,
}

impl RebuildReport {
    /// Returns a report with all counts at zero.
    pub fn new(basis: RebuildBasis, dry_run: bool, unlisted: Vec<String>) -> RebuildReport {
        let unknown = match basis {
            RebuildBasis::Catalogue => Vec::new(),
            RebuildBasis::Names => UNKNOWN_BY_NAMES.to_vec(),
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

    /// Returns the number of missing and failed files.
    pub fn lost_files(&self) -> usize {
        self.missing.len() + self.failed.len()
    }

    /// Prints the report as text.
    pub fn print_report(&self) {
        let would = if self.dry_run { "would be " } else { "" };
        println!(
            "{} files of {} windows ({}) {would}applied by the {}{}",
            format_count(self.files as i64),
            format_count(self.windows as i64),
            format_megabytes(i64::try_from(self.stored_bytes).unwrap_or(i64::MAX)),
            match self.basis {
                RebuildBasis::Catalogue => "catalogue",
                RebuildBasis::Names => "names of the files",
            },
            if self.dry_run { String::new() } else { format!(" in {:.1} s", self.seconds) }
        );
        for (number, what) in [
            (self.repeats, "windows that repeated known bytes"),
            (self.accepts, "accepted files"),
            (self.accepted_sizes, "accepted sizes"),
            (self.mappings, "mapped values"),
            (self.label_edits, "label edits"),
            (self.removals, "removals"),
        ] {
            if number > 0 {
                println!("  {} {what}", format_count(number as i64));
            }
        }
        if self.done_before > 0 {
            println!("{} acts were done by an earlier run", format_count(self.done_before as i64));
        }
        let withdrawn = self
            .withdrawn
            .iter()
            .map(|file| format!("{} {} {}", file.source, output::format_minute(file.window_start_utc), file.sha256));
        print_list("withdrawn files are left out", withdrawn.collect());
        print_list("files are missing in the store", self.missing.clone());
        let describe = |all: &[RebuildProblem]| all.iter().map(|one| format!("{}: {}", one.key, one.reason)).collect();
        print_list("files failed", describe(&self.failed));
        print_list("acts are skipped, because their object does not exist", describe(&self.skipped));
        print_list(
            "objects under raw/ are left out, because no entry names them or their name contains no window",
            self.unlisted.clone(),
        );
        print_list(
            "facts are unknown, because the store has no catalogue",
            self.unknown.iter().map(|it| (*it).to_owned()).collect(),
        );
    }
}

/// Prints a list with its count, or nothing if the list is empty.
fn print_list(what: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    println!("{} {what}:", format_count(items.len() as i64));
    for item in items.iter().take(MAX_LISTED_ITEMS) {
        println!("  {item}");
    }
    if items.len() > MAX_LISTED_ITEMS {
        println!("  and {} more (--json lists all)", format_count((items.len() - MAX_LISTED_ITEMS) as i64));
    }
}
