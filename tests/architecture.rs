//! Rules of the source's structure: which module may depend on which, maximum lengths of files and functions, no unused
//! SQL file, and one list of jobs. The tests read the source as text, which is cruder than a compiler and good enough:
//! paths begin with `crate::` here, and a grouped `use crate::{db, queue}` is split.
//!
//! Long because each rule keeps its table, its reasons and its test together.

#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Allowed dependencies: a module, the modules that it may use, and the reason. Modules that may use all of `src/` are
/// in [`WIDE`].
const ALLOWED_DEPENDENCIES: &[(&str, &[&str], &str)] = &[
    ("config", &[], "everybody reads it, so it reads nobody"),
    ("taxonomy", &[], "codes and spellings are data"),
    (
        "db",
        &["config", "taxonomy", "auction"],
        "migrating ends in seeding the lookup tables from the taxonomies' files; a row version is typed as it was ingested",
    ),
    ("auction", &["taxonomy"], "rules without input or output; never those of the other domain"),
    ("listing", &[], "the same; of input and output only the statements by which one BOM is active"),
    ("queue", &["db", "config"], "it runs whatever fleet it is handed"),
    (
        "scheduler",
        &["queue", "source", "auction", "db", "config"],
        "it enqueues the entry it is handed, if the source lets it; how long a window is, the domain says",
    ),
    ("source", &["db"], "what the database holds of a source; how one is fetched is its domain's"),
    ("store", &["config"], "bytes, whosever they are"),
    ("embedded", &["config"], "a server, whatever is in it"),
    ("telemetry", &["config"], "names of metrics, not what they count"),
    ("simulator", &[], "a truth made by the rules it is held against would prove nothing"),
    (
        "api",
        &["auction", "taxonomy", "telemetry", "db", "config"],
        "reads what there is, as a role that can do nothing else; of the queue and the store it knows nothing",
    ),
    (
        "http",
        &["api", "queue", "telemetry", "db"],
        "shows what there is; of the queue the operators' face, of telemetry the figures",
    ),
    (
        "workers",
        &["cli", "queue", "auction", "store", "config"],
        "workers/mod.rs puts the fleet together, in the shape in which the command line takes it; the types of a comparison are the domain's",
    ),
    (
        "workers/auction",
        &["queue", "source", "auction", "taxonomy", "store", "telemetry", "db", "config"],
        "a job knows its domain, its queue and its data; not who looks on",
    ),
];

/// Modules that may use all of `src/`, and the jobs only through the registry. People run the first two, and tests of
/// any module use the third.
const UNRESTRICTED_MODULES: &[&str] = &["cli", "bench", "testing"];

/// Crate names that only these modules may contain. Otherwise an engine or a library could not be replaced.
const LIBRARY_OWNERS: &[(&str, &[&str])] =
    &[("apalis", &["queue"]), ("clap", &["cli"]), ("axum", &["api", "http", "simulator"])];

/// A longer file needs a reason in its head.
const LONG_FILE_LINES: usize = 400;
/// A longer file fails the test.
const MAX_FILE_LINES: usize = 600;
/// A longer function needs an entry in [`LONG_FUNCTIONS`].
const MAX_FUNCTION_LINES: usize = 70;
/// Functions that may be longer: file, function, reason.
const KNOWN_LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("src/auction/row.rs", "from_record", "one line per column, in the order of the struct"),
    (
        "src/simulator/evolution.rs",
        "advance_window",
        "the order in which chance is drawn decides every byte of the feed",
    ),
    ("src/simulator/csv_row.rs", "write_row", "one line per column of the feed, in its order"),
    ("workers/auction/fetch.rs", "attempt_fetch", "the outcomes of one attempt, each an arm"),
    ("workers/auction/fold/write.rs", "write_rows", "one statement per table, whose order the locks prescribe"),
    ("workers/auction/ingest.rs", "run", "the phases of an ingest in one transaction"),
    (
        "workers/auction/ingest/finish.rs",
        "finish_ingest",
        "the end of an ingest, whose order the readers of its tables prescribe",
    ),
    ("workers/auction/ingest/finish.rs", "move_heads", "two statements that must agree on which version is the latest"),
];
/// The beginning of the head line that gives the reason for a file longer than [`LONG`].
const REASON_PREFIX: &str = "//! Long because ";

/// A source file and its text.
struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    /// Returns the module: `src/db/migrate.rs` → `db`, `workers/auction/ingest.rs` → `workers/auction`,
    /// `workers/mod.rs` → `workers`. Empty for `lib.rs` and `main.rs`, which may use all modules.
    fn module_name(&self) -> String {
        let mut parts = self.path.trim_end_matches(".rs").split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("src"), Some("lib" | "main"), _) => String::new(),
            (Some("src"), Some(room), _) => room.to_owned(),
            (Some("workers"), Some("mod"), _) => "workers".to_owned(),
            (Some("workers"), Some(domain), _) => format!("workers/{domain}"),
            _ => unreachable!("{}", self.path),
        }
    }

    /// Returns the files that this one includes for its tests only, by `#[cfg(test)] mod name;`.
    fn test_files(&self) -> impl Iterator<Item = PathBuf> {
        let path = Path::new(&self.path);
        let folder = path.parent().unwrap();
        let inner = if path.ends_with("mod.rs") { folder.to_owned() } else { path.with_extension("") };
        self.text.split("#[cfg(test)]\n").skip(1).filter_map(move |after| {
            let (item, _) = after.split_once(';')?;
            let named = item.strip_prefix("#[path = \"").and_then(|rest| rest.split_once('"'));
            match (
                named,
                item.lines()
                    .last()?
                    .rsplit_once("mod ")
                    .filter(|(before, _)| before.is_empty() || before.starts_with("pub")),
            ) {
                (Some((file, _)), Some(_)) => Some(folder.join(file)),
                (None, Some((_, name))) => Some(inner.join(name).with_extension("rs")),
                _ => None,
            }
        })
    }

    /// Returns the lines before the file's tests, without comments, each with its number.
    fn program_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        lines.enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or("")))
    }
}

fn read_sources(folder: &str) -> Vec<SourceFile> {
    list_files(Path::new(folder), "rs")
        .into_iter()
        .map(|path| SourceFile {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.to_str().unwrap().to_owned(),
        })
        .collect()
}

fn list_files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { list_files(&path, extension) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    found.sort();
    found
}

/// Returns the sources of the program and of the workers, without their test-only files, which may use everything.
fn program_sources() -> Vec<SourceFile> {
    let all: Vec<SourceFile> = ["src", "workers"].into_iter().flat_map(read_sources).collect();
    let tests: Vec<PathBuf> = all.iter().flat_map(SourceFile::test_files).collect();
    let within = |path: &str| tests.iter().any(|test| Path::new(path).starts_with(test.with_extension("")));
    all.into_iter().filter(|source| !tests.contains(&PathBuf::from(&source.path)) && !within(&source.path)).collect()
}

/// Returns the modules in the text after `crate::`: `db::Db` → db; `{db, queue::Job}` → db, queue.
fn imported_modules(after: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(group) = after.strip_prefix('{') else { return vec![&after[..word(after)]] };
    let (mut depth, mut start, mut rooms) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                rooms.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                rooms.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    rooms.into_iter().map(str::trim).filter(|room| !room.is_empty()).map(|room| &room[..word(room)]).collect()
}

/// Returns the modules that a file uses, with the workers' domain if it names one.
fn modules_used(source: &SourceFile) -> BTreeSet<String> {
    let text: String = source.program_lines().flat_map(|(_, line)| [line, " "]).collect();
    let mut seen = BTreeSet::new();
    for after in text.split("crate::").skip(1).chain(text.split("vinops::").skip(1)) {
        for room in imported_modules(after) {
            let domain = after.strip_prefix("workers::").map(|rest| imported_modules(rest)[0]);
            seen.insert(domain.map_or(room.to_owned(), |domain| format!("workers/{domain}")));
        }
    }
    seen
}

fn assert_none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}\n  {}", wrong.join("\n  "));
}

#[test]
fn every_room_sees_only_what_it_may() {
    let sight: BTreeMap<&str, (&[&str], &str)> =
        ALLOWED_DEPENDENCIES.iter().map(|(room, may, why)| (*room, (*may, *why))).collect();
    let mut wrong = Vec::new();
    for source in program_sources() {
        let room = source.module_name();
        if room.is_empty() {
            continue;
        }
        for other in modules_used(&source).into_iter().filter(|other| *other != room) {
            let (may, why) = match sight.get(room.as_str()) {
                Some((may, why)) => (may.contains(&other.as_str()), *why),
                None if UNRESTRICTED_MODULES.contains(&room.as_str()) => {
                    (!other.starts_with("workers"), "it is handed the fleet")
                }
                None => panic!("{} is in no room of the table: add `{room}` to it", source.path),
            };
            if !may {
                wrong.push(format!("{} sees {other}, and {room} may not: {why}", source.path));
            }
        }
    }
    assert_none(wrong, "a line of code belongs where its knowledge belongs:");
}

#[test]
fn every_allowed_edge_is_used() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in program_sources() {
        used.entry(source.module_name()).or_default().extend(modules_used(&source));
    }
    let unused = ALLOWED_DEPENDENCIES.iter().flat_map(|(room, may, _)| {
        let used = used.get(*room).cloned().unwrap_or_default();
        may.iter().filter(move |other| !used.contains(**other)).map(move |other| format!("{room} → {other}"))
    });
    assert_none(unused.collect(), "allowed and never used, so the permission goes:");
}

/// Returns the functions of a text formatted by rustfmt, with their lengths. The closing brace is in the column of the
/// line that begins the function. A multi-line string with such a brace would end a function too early.
fn function_lengths(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let item = line.trim_start();
        let (before, after) = match item.split_once("fn ") {
            Some((before, after)) => (before, after),
            None => continue,
        };
        let qualifiers = ["async", "const", "unsafe"];
        let begins = before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || word.ends_with(')') || qualifiers.contains(&word));
        if !begins || item.starts_with("//") {
            continue;
        }
        let name = &after[..after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len())];
        let indent = &line[..line.len() - item.len()];
        // A body of one line, or none, as in a trait.
        if name.is_empty() || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let ends = |line: &str| {
            line.strip_prefix(indent).is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        };
        let length = lines[at..].iter().position(|line| ends(line)).map_or(1, |last| last + 1);
        found.push((name, length));
    }
    found
}

#[test]
fn no_function_is_too_long_without_a_reason() {
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for source in program_sources() {
        for (name, length) in
            function_lengths(&source.text).into_iter().filter(|(_, length)| *length > MAX_FUNCTION_LINES)
        {
            let listed = KNOWN_LONG_FUNCTIONS.iter().any(|(path, known, _)| *path == source.path && *known == name);
            if listed {
                excused.insert((source.path.clone(), name.to_owned()));
            } else {
                wrong.push(format!("{}: {name} has {length} lines", source.path));
            }
        }
    }
    let stale = KNOWN_LONG_FUNCTIONS
        .iter()
        .filter(|(path, name, _)| !excused.contains(&((*path).to_owned(), (*name).to_owned())));
    wrong.extend(stale.map(|(path, name, _)| format!("{path}: {name} is short and needs no exception")));
    assert_none(wrong, &format!("a function of over {MAX_FUNCTION_LINES} lines is split, or its reason is listed:"));
}

#[test]
fn the_length_of_a_function_is_counted_from_its_name_to_its_brace() {
    let text = "impl A {\n    pub(super) async fn one(\n        self,\n    ) -> B {\n        if c {\n        }\n    }\n\n    fn \
                two(self) {}\n}\n\nfn three() {\n    d(|| {\n    });\n}\ntrait E {\n    fn four(\n        self,\n    );\n}\n";
    assert_eq!(function_lengths(text), [("one", 6), ("three", 4), ("four", 3)]);
}

#[test]
fn what_a_library_is_for_stays_in_its_room() {
    let mut wrong = Vec::new();
    for source in program_sources() {
        let room = source.module_name();
        for (library, rooms) in LIBRARY_OWNERS {
            let knows =
                |line: &str| line.contains(&format!("{library}::")) || line.contains(&format!("{library}_core::"));
            if !rooms.contains(&room.as_str()) {
                let lines = source.program_lines().filter(|(_, line)| knows(line));
                wrong.extend(lines.map(|(at, _)| format!("{}:{at} names {library}", source.path)));
            }
        }
    }
    assert_none(wrong, "a library with a room of its own is named elsewhere:");
}

#[test]
fn no_file_is_too_long_and_a_long_one_says_why() {
    let mut wrong = Vec::new();
    for source in ["src", "workers", "tests"].into_iter().flat_map(read_sources) {
        let length = source.text.lines().count();
        if length > MAX_FILE_LINES {
            wrong.push(format!("{} has {length} lines", source.path));
        } else if length > LONG_FILE_LINES && !source.text.contains(REASON_PREFIX) {
            wrong.push(format!("{} has {length} lines and no `{REASON_PREFIX}…` in its head", source.path));
        }
    }
    assert_none(wrong, "a file is read in one sitting:");
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let bare =
        program_sources().into_iter().chain(read_sources("tests")).filter(|source| !source.text.starts_with("//! "));
    assert_none(bare.map(|source| source.path).collect(), "files without a head:");
}

#[test]
fn every_sql_file_is_loaded_by_somebody() {
    let all: String =
        ["src", "workers", "tests"].into_iter().flat_map(read_sources).map(|source| source.text).collect();
    let orphan = |path: &PathBuf| {
        let (path, name) = (path.to_str().unwrap(), path.file_name().unwrap().to_str().unwrap());
        !all.contains(&format!("\"{path}\"")) && !all.contains(&format!("include_str!(\"{name}\")"))
    };
    let files = ["src", "workers"].into_iter().flat_map(|folder| list_files(Path::new(folder), "sql"));
    assert_none(files.filter(orphan).map(|path| path.display().to_string()).collect(), "SQL that nothing loads:");
}

/// Returns the literals after `const KIND: &'static str = ` in the workers.
fn job_kinds() -> Vec<String> {
    let workers = read_sources("workers");
    let lines = workers.iter().flat_map(|source| source.text.lines());
    let literals = lines.filter_map(|line| line.trim().strip_prefix("const KIND: &'static str = \""));
    literals.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn a_kind_is_written_once_and_nowhere_else() {
    let kinds = job_kinds();
    let distinct: BTreeSet<_> = kinds.iter().collect();
    assert_eq!(distinct.len(), kinds.len(), "two jobs share a kind: {kinds:?}");
    let mut wrong = Vec::new();
    for source in program_sources().iter().filter(|source| source.path.starts_with("src/")) {
        // A kind of one word ("fetch") is also an English word, so a single one is not a list.
        let telling = kinds.iter().filter(|kind| kind.contains('-'));
        for kind in telling {
            let quoted = format!("\"{kind}\"");
            let lines = source.program_lines().filter(|(_, line)| line.contains(&quoted));
            wrong.extend(lines.map(|(at, _)| format!("{}:{at} spells out {quoted}", source.path)));
        }
    }
    assert_none(wrong, "the fleet is the one list of jobs; draw from it:");
}

#[test]
fn every_job_is_in_the_fleet() {
    let fleet = std::fs::read_to_string("workers/mod.rs").unwrap();
    let mut wrong = Vec::new();
    for source in read_sources("workers") {
        for line in source.program_lines().map(|(_, line)| line) {
            if let Some(name) = line.strip_prefix("impl Job for ") {
                let name = name.trim_end_matches('{').trim();
                if !fleet.contains(name) {
                    wrong.push(format!("{} ({})", name, source.path));
                }
            }
        }
    }
    assert_none(wrong, "jobs that no worker would run:");
}

#[test]
fn nothing_points_outside_the_repository() {
    // Joined here, so that this file does not find itself.
    let (outside, registries) =
        (["../", "shared"].concat(), ["npmjs", "crates-io.org", "pypi"].map(|it| format!("{it}.org")));
    let mut wrong = Vec::new();
    let mut everything: Vec<PathBuf> = ["rs", "sql", "toml", "md", "yml", "sh", "py", "json"]
        .iter()
        .flat_map(|extension| {
            let folders = ["src", "workers", "tests", "migrations", "deploy", ".ci"];
            folders.into_iter().flat_map(|folder| list_files(Path::new(folder), extension))
        })
        .collect();
    everything.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "Cargo.toml", ".ci/run"].map(PathBuf::from));
    for path in everything {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let found = registries.iter().chain([&outside]).filter(|word| text.contains(word.as_str()));
        wrong.extend(found.map(|word| format!("{} names {word}", path.display())));
    }
    assert_none(wrong, "users have none of this:");
}

#[test]
fn a_group_of_imports_is_taken_apart() {
    assert_eq!(imported_modules("{db::{self, Db}, queue::Job}; x"), ["db", "queue"]);
    assert_eq!(imported_modules("db::Db;"), ["db"]);
}
