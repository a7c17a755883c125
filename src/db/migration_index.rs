//! Index of the migrations: `migrations/_registry.json` and `migrations/INDEX.md`, generated from the headers of the
//! files.
//!
//! The index lists the migrations of this program. The state of one database is shown by `vinops migrate status`.

use super::migrations::{MigrationHead, MigrationSet};
use anyhow::Context;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

#[derive(Serialize)]
struct IndexEntry {
    id: &'static str,
    name: &'static str,
    file: String,
    rollback_file: Option<String>,
    sha256: String,
    #[serde(flatten)]
    head: MigrationHead,
}

/// Returns the folder of a set's files, relative to the repository's root.
pub fn set_folder(set: &MigrationSet) -> &'static str {
    if set.name == "auction" { "migrations" } else { "migrations/listing" }
}

fn index_entries(set: &MigrationSet) -> anyhow::Result<Vec<IndexEntry>> {
    let entry = |migration: &'static super::migrations::Migration| {
        Ok(IndexEntry {
            id: migration.id,
            name: migration.name,
            file: format!("{}.sql", migration.stem()),
            rollback_file: migration.down.map(|_| format!("rollback/{}_rollback.sql", migration.id)),
            sha256: migration.sha256(),
            head: migration.parse_head()?,
        })
    };
    set.migrations.iter().map(entry).collect()
}

/// Returns the text of `_registry.json`, which is for programs.
pub fn registry_json(set: &MigrationSet) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct RegistryDocument {
        set: &'static str,
        migrations: Vec<IndexEntry>,
    }
    let registry = RegistryDocument { set: set.name, migrations: index_entries(set)? };
    Ok(serde_json::to_string_pretty(&registry).context("could not print the registry as JSON")? + "\n")
}

/// Returns the text of `INDEX.md`, which is for people.
pub fn index_markdown(set: &MigrationSet) -> anyhow::Result<String> {
    let (title, which) = match set.name {
        "auction" => ("Migrations".to_owned(), String::new()),
        name => (format!("Migrations of the {name} helper"), format!(" --set {name}")),
    };
    let mut text = format!(
        "# {title}\n\nGenerated from the files' headers by `vinops migrate{which} registry --write`. Rules: \
         [README.md](README.md). State of a database: `vinops migrate{which} status`.\n",
    );
    for entry in index_entries(set)? {
        let _ = write!(
            text,
            "\n## [{}_{}]({})\n\n{}.\n\n",
            entry.id,
            entry.name,
            entry.file,
            capitalize_line(&entry.head.purpose)
        );
        let back = match (&entry.head.superseded, entry.head.destructive) {
            (Some(by), _) => format!("never applied: superseded by {by}"),
            (None, true) => format!("deletes data ([file]({}))", entry.rollback_file.unwrap_or_default()),
            (None, false) => {
                format!("keeps all data ([file]({}))", entry.rollback_file.unwrap_or_default())
            }
        };
        let _ = writeln!(text, "- depends on: {}", entry.head.depends.as_deref().unwrap_or("nothing"));
        if !entry.head.needs.is_empty() {
            let _ = writeln!(text, "- requires: {}", entry.head.needs.join(", "));
        }
        let _ = writeln!(text, "- rollback: {back}");
        if !entry.head.creates.is_empty() {
            let _ = writeln!(text, "- creates: `{}`", entry.head.creates.join("`, `"));
        }
    }
    Ok(text)
}

fn capitalize_line(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Returns both index files of `set` as (file name, text).
pub fn index_files(set: &MigrationSet) -> anyhow::Result<[(&'static str, String); 2]> {
    Ok([("_registry.json", registry_json(set)?), ("INDEX.md", index_markdown(set)?)])
}

/// Writes both index files of `set` into `folder`.
pub fn write_index_files(set: &MigrationSet, folder: &Path) -> anyhow::Result<()> {
    for (name, text) in index_files(set)? {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("could not write the file {}", path.display()))?;
    }
    Ok(())
}
