//! The documentation matches the project: its tables list what exists, and its links and paths resolve. A test whose
//! table differs prints the table as it must be.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use vinops::{config, workers};

/// All pages of documentation. A new page must be added here.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    "migrations/README.md",
    "migrations/INDEX.md",
    "migrations/listing/README.md",
    "migrations/listing/INDEX.md",
];

fn read_file(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the trimmed cells of the table whose header row begins with `headings`, row by row.
fn table_rows(page: &str, headings: &str) -> Vec<Vec<String>> {
    let text = read_file(page);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(headings));
    assert!(lines.next().is_some(), "{page} has no table that begins with {headings}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Returns the texts in backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn assert_same<T: Ord + std::fmt::Debug>(
    written: impl IntoIterator<Item = T>,
    real: impl IntoIterator<Item = T>,
    what: &str,
) {
    let (written, real): (BTreeSet<T>, BTreeSet<T>) = (written.into_iter().collect(), real.into_iter().collect());
    let missing: Vec<_> = real.difference(&written).collect();
    let stale: Vec<_> = written.difference(&real).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{what}\n  missing: {missing:?}\n  not there (any more): {stale:?}"
    );
}

#[test]
fn the_table_of_jobs_is_the_fleet() {
    let written = table_rows("README.md", "| kind | when |");
    let fleet: Vec<Vec<String>> = workers::JOBS
        .iter()
        .map(|job| {
            let words = [job.when, job.reads, job.writes, job.safe];
            assert!(!job.verb.is_empty() && words.iter().all(|it| !it.is_empty()), "{job:?} lacks words");
            let kind = format!("**{}** {}", job.kind, job.verb);
            [kind.as_str()].into_iter().chain(words).map(str::to_owned).collect()
        })
        .collect();
    let lines: Vec<String> = fleet.iter().map(|cells| format!("| {} |", cells.join(" | "))).collect();
    assert_eq!(written, fleet, "the README's table of jobs must be:\n{}\n", lines.join("\n"));
}

/// Returns the names under `[section]` of Cargo.toml.
fn dependency_names(section: &str) -> Vec<String> {
    let manifest = read_file("Cargo.toml");
    let (_, rest) = manifest.split_once(&format!("\n[{section}]\n")).unwrap();
    rest.lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_dependency_has_its_reason_and_every_reason_a_dependency() {
    let rows = table_rows("README.md", "| crate | for |");
    for row in &rows {
        assert!(row.len() == 2 && row[1].len() > 5, "{row:?} gives no reason");
    }
    let written = rows.iter().map(|row| row[0].trim_matches('`').to_owned());
    let real = [dependency_names("dependencies"), dependency_names("dev-dependencies")].concat();
    assert_same(written, real, "the README's table of dependencies and Cargo.toml");
    let tests = rows.iter().filter(|row| row[1].starts_with("for tests: "));
    let tests = tests.map(|row| row[0].trim_matches('`').to_owned());
    assert_same(tests, dependency_names("dev-dependencies"), "dependencies said to be for tests");
}

#[test]
fn every_dependency_is_named_by_the_code() {
    let code: String =
        ["src", "workers", "tests"].iter().flat_map(|folder| list_files(folder, "rs")).map(read_file).collect();
    let unused: Vec<String> = [dependency_names("dependencies"), dependency_names("dev-dependencies")]
        .concat()
        .into_iter()
        .filter(|name| {
            let name = name.replace('-', "_");
            ["::", "!"].iter().all(|mark| !contains_word(&code, &format!("{name}{mark}")))
        })
        .collect();
    assert!(unused.is_empty(), "dependencies that nothing uses: {unused:?}");
}

/// Returns true if the text contains the word, and not only as the end of a longer word.
fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':'))
}

fn list_files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(list_files(path.to_str().unwrap(), extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found
}

/// Returns the commands that `vinops COMMAND… --help` lists.
fn list_commands(of: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_vinops")).args(of).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
    listed
        .lines()
        .take_while(|line| line.starts_with("  "))
        // a wrapped description is indented further
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_table_of_commands_is_what_help_lists() {
    let rows = table_rows("README.md", "| command | does |");
    let written = rows.iter().map(|row| {
        let command = row[0].trim_start_matches("`vinops ");
        command.split(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap().to_owned()
    });
    assert_same(written, list_commands(&[]), "the README's table of commands and `vinops --help`");
    for group in ["jobs", "raw", "store", "migrate", "source", "verify"] {
        let row = rows.iter().find(|row| row[0].starts_with(&format!("`vinops {group}"))).unwrap();
        let output = backticked(&row[0]).map(|it| it.trim_start_matches("vinops ").trim_start_matches(group).trim());
        let output = output.map(|it| it.split(' ').next().unwrap().to_owned());
        assert_same(output, list_commands(&[group]), &format!("the README's commands of `vinops {group}`"));
    }
}

#[test]
fn the_table_of_variables_is_what_is_read() {
    let rows = table_rows("README.md", "| variable | meaning |");
    let written = rows.iter().flat_map(|row| backticked(&row[0]));
    assert_same(
        written,
        config::VARIABLE_NAMES.iter().copied(),
        "the README's table of variables and config::VARIABLES",
    );
}

#[test]
fn every_room_is_on_the_map() {
    let map = table_rows("README.md", "| module | contents |").concat().join("\n");
    for entry in std::fs::read_dir("src").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = ["lib.rs", "main.rs", "testing.rs"].contains(&name.as_str());
        let shown = map.contains(&format!("(src/{name})")) || name.ends_with(".sql");
        // a module's tests and SQL files are in a folder beside its file
        let beside = Path::new("src").join(format!("{name}.rs")).exists();
        assert!(known || shown || beside, "src/{name} is not in the README's map");
    }
}

#[test]
fn what_a_paper_points_to_is_there() {
    let mut lost = Vec::new();
    for paper in DOCUMENTS {
        let text = read_file(paper);
        let folder = Path::new(paper).parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            if !folder.join(file).exists() {
                lost.push(format!("{paper} links to {link}"));
            }
        }
        // a path in backticks is one from the repository's top
        let path = |word: &&str| {
            ["src/", "workers/", "tests/", "migrations/", "deploy/"].iter().any(|top| word.starts_with(top))
                && !word.contains(['<', ' ', '*', '…'])
                && !word.contains("NNNN")
        };
        for word in backticked(&text).filter(path) {
            if !Path::new(word).exists() {
                lost.push(format!("{paper} names {word}"));
            }
        }
    }
    assert!(lost.is_empty(), "not there:\n  {}", lost.join("\n  "));
}

#[test]
fn every_entry_of_the_runbook_ends_in_a_command() {
    let runbook = read_file("deploy/README.md");
    let known = list_commands(&[]);
    let entries: Vec<&str> = runbook.split("\n### ").skip(1).collect();
    assert!(!entries.is_empty(), "the runbook has no entries");
    for entry in entries {
        let entry = entry.split("\n## ").next().unwrap();
        let symptom = entry.lines().next().unwrap();
        let last = entry.lines().rfind(|line| !line.trim().is_empty()).unwrap();
        let command = last.strip_prefix("    vinops ").and_then(|rest| rest.split(' ').next());
        assert!(
            command.is_some_and(|command| known.iter().any(|it| it == command)),
            "\"{symptom}\" ends in no vinops command: {last}"
        );
    }
}

#[test]
fn the_readme_gives_the_two_commands() {
    let readme = read_file("README.md");
    for command in ["apt-get install -y postgresql && cargo run --release -- demo", "cargo test"] {
        assert!(readme.lines().any(|line| line == format!("    {command}")), "the README lacks: {command}");
    }
}
