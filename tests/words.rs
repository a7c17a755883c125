//! The language of the source and of the documentation: standard terms, item docs that can be read alone, type names
//! that are unique, log messages that can be searched for. The rules read the source as text.
//!
//! Each list of exceptions carries its reasons, and an exception that nothing uses fails.

#![expect(clippy::unwrap_used, reason = "a failed test panics, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Words that the program, comments and documentation do not use, with the terms that they use instead. Identifiers are
/// split into their words: `told_by` has the words `told` and `by`.
const BANNED: &[(&str, &str)] = &[
    ("told", "returned, printed, logged, recorded"),
    ("tells", "contains, returns, prints"),
    ("tongue", "language"),
    ("deed", "operation, check"),
    ("deeds", "operations, checks"),
    ("servant", "operating system user"),
    ("whoever", "the caller, the worker, the operator"),
    ("whosever", "name the owner"),
    ("nobody", "no worker, no caller"),
    ("somebody", "another worker, an operator"),
    ("pretend", "simulated"),
    ("papers", "documentation"),
    ("vocabulary", "taxonomy"),
    ("spelling", "raw value, alias"),
    ("spellings", "raw values, aliases"),
    ("settle", "finalize, complete"),
    ("settles", "finalizes, completes"),
    ("settled", "finalized, completed"),
    ("mend", "fix, recover"),
    ("mends", "fixes, recovers"),
    ("mended", "fixed, recovered"),
    ("shall", "will, must"),
    ("besides", "also"),
    ("lest", "or else"),
    ("hasten", "reschedule"),
    ("hastened", "rescheduled"),
    ("leavings", "leftovers, stale files"),
    ("specimen", "fixture"),
    ("sabotage", "drift"),
    ("goodbye", "grace period"),
    ("patience", "timeout"),
    ("luck", "jitter"),
    ("passing", "transient"),
    ("riddle", "say it plainly"),
    ("riddles", "say it plainly"),
    ("aloud", "explicitly"),
    ("midst", "during"),
    ("unkept", "not stored"),
];

/// Where a banned word may stay: file, word, reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("ARCHITECTURE.md", "spelling", "the name of a stored column"),
    ("README.md", "vocabulary", "the glossary names other projects' terms"),
    ("CONTRIBUTING.md", "papers", "the name of a test binary"),
    ("deploy/prometheus/alerts.yml", "nobody", "names of alerts, to which receivers refer"),
    ("deploy/prometheus/alerts_test.yml", "nobody", "names of alerts, to which receivers refer"),
    ("migrations/0019_fleet_sources.sql", "unkept", "a stored outcome"),
    ("src/cli/rebuild/apply.rs", "spelling", "a stored key of the store's catalogue"),
    ("src/db/catalogue.rs", "spelling", "a stored key of the store's catalogue"),
    ("src/db/taxonomy.rs", "spelling", "a stored key, and the name of a stored act"),
    ("src/source/mod.rs", "unkept", "a stored column"),
    ("src/embedded/mod.rs", "nobody", "the name of an operating system user"),
    ("src/embedded/os_user.rs", "nobody", "the name of an operating system user"),
];

/// The first words of an item doc that is no sentence of its own: it leans on the line above.
const FRAGMENTS: &[&str] = &[
    "And", "As", "Because", "But", "For", "How", "If", "Its", "Of", "Or", "So", "Such", "Than", "That", "Their",
    "Those", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why", "With",
];

/// Type names that are defined in several files, with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// The last word of the name of a constant that is a duration: the role that the duration has.
const DURATION_ROLES: &[&str] = &[
    "TIMEOUT",
    "INTERVAL",
    "GRACE",
    "DELAY",
    "MARGIN",
    "COOLDOWN",
    "KEEPALIVE",
    "BACKOFF",
    "LEASE",
    "AGE",
    "WINDOW",
    "RETENTION",
    "SKEW",
];

/// A text file of the project.
struct TextFile {
    path: String,
    text: String,
}

/// Returns the files with one of these extensions below the folders, in the order of their paths.
fn text_files(folders: &[&str], extensions: &[&str]) -> Vec<TextFile> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| extensions.iter().any(|wanted| it == *wanted)) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| TextFile {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Returns the Rust files of the program without those that hold only tests.
fn program_files() -> Vec<TextFile> {
    let mut files = text_files(&["src", "workers"], &["rs"]);
    files.retain(|file| !is_test_file(&file.path));
    for file in &mut files {
        file.text.truncate(program_end(&file.text));
    }
    files
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

/// Returns where the tests at the end of a file begin, or the file's length.
fn program_end(text: &str) -> usize {
    text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len())
}

/// Splits a line into lower-case words, at everything but letters and at the capitals of an identifier.
fn words_of(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in line.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

fn assert_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}\n  {}", wrong.join("\n  "));
}

#[test]
fn the_words_are_those_of_the_field() {
    let banned: BTreeMap<&str, &str> = BANNED.iter().copied().collect();
    let mut files = text_files(&["src", "workers", "migrations", "deploy"], &["rs", "sql", "md", "yml"]);
    files.extend(text_files(&["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"], &["md"]));
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for file in &files {
        // Names of tests and of tables stay, so only the comments of tests and of SQL files are checked.
        let comment = if file.path.ends_with(".sql") { Some("--") } else { is_test_file(&file.path).then_some("//") };
        let end = program_end(&file.text);
        for (at, line) in file.text[..end].lines().enumerate() {
            let checked = comment.map_or(line, |begin| line.split_once(begin).map_or("", |(_, text)| text));
            for word in words_of(checked) {
                let Some(instead) = banned.get(word.as_str()) else { continue };
                match ALLOWED.iter().position(|(path, allowed, _)| *path == file.path && *allowed == word) {
                    Some(exception) => {
                        used.insert(exception);
                    }
                    None => wrong.push(format!("{}:{} {word}: {instead}", file.path, at + 1)),
                }
            }
        }
    }
    let unused = ALLOWED.iter().enumerate().filter(|(at, _)| !used.contains(at));
    wrong.extend(unused.map(|(_, (path, word, _))| format!("{path} does not have the word {word}")));
    assert_none(&wrong, "words with a standard term:");
}

#[test]
fn an_item_doc_can_be_read_alone() {
    let mut wrong = Vec::new();
    for file in program_files() {
        let mut in_doc = false;
        for (at, line) in file.text.lines().enumerate() {
            let doc = line.trim_start().strip_prefix("/// ");
            if let Some(doc) = doc.filter(|_| !in_doc) {
                let first = doc.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
                let is_lower = first != "sha" && first.chars().next().is_some_and(char::is_lowercase);
                if FRAGMENTS.contains(&first) || is_lower || doc.starts_with("The same") {
                    wrong.push(format!("{}:{} {doc}", file.path, at + 1));
                }
            }
            in_doc = line.trim_start().starts_with("///");
        }
    }
    assert_none(&wrong, "item docs that lean on a neighbour:");
}

/// Returns the name of the type that a line defines.
fn defined_type(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c: char| !c.is_whitespace()).trim_start(),
        None => item,
    };
    let keywords = ["struct ", "enum ", "trait ", "union ", "type "];
    let rest = keywords.iter().find_map(|keyword| item.strip_prefix(keyword))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    // an associated type is named by its trait
    let is_associated = item.starts_with("type ") && line.starts_with(' ');
    // `union all` in a string of SQL is no type
    let is_type = rest.starts_with(|c: char| c.is_uppercase());
    (is_type && !is_associated).then(|| &rest[..end])
}

#[test]
fn a_type_name_is_defined_once() {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in program_files() {
        for name in file.text.lines().filter_map(defined_type) {
            places.entry(name.to_owned()).or_default().insert(file.path.clone());
        }
    }
    assert!(SHARED_NAMES.len() <= 10, "at most ten type names may be shared");
    let is_shared = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    let mut wrong: Vec<String> = places
        .iter()
        .filter(|(name, files)| files.len() > 1 && !is_shared(name))
        .map(|(name, files)| format!("{name}: {}", files.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    let is_defined_twice = |name: &str| places.get(name).is_some_and(|files| files.len() > 1);
    let unused = SHARED_NAMES.iter().filter(|(name, _)| !is_defined_twice(name));
    wrong.extend(unused.map(|(name, _)| format!("{name} is not defined twice")));
    assert_none(&wrong, "type names of several files:");
}

/// Splits the arguments of a macro call at the commas between them.
fn arguments(call: &str) -> Vec<&str> {
    let (mut depth, mut start, mut in_string, mut escaped) = (0, 0, false, false);
    let mut arguments = Vec::new();
    for (at, c) in call.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                arguments.push(call[start..at].trim());
                return arguments;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(call[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments
}

#[test]
fn a_log_message_has_two_words_and_its_fields_are_values() {
    let mut wrong = Vec::new();
    for file in program_files() {
        for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
            for (at, _) in file.text.match_indices(&format!("tracing::{level}")) {
                let call = &file.text[at + "tracing::".len() + level.len()..];
                let place = format!("{}:{}", file.path, file.text[..at].lines().count() + 1);
                let arguments = arguments(call);
                let message = arguments.iter().find(|argument| argument.starts_with('"'));
                if message.is_none_or(|message| message.split_whitespace().count() < 2) {
                    wrong.push(format!("{place} a message of two words or more: {message:?}"));
                }
                for argument in arguments.iter().filter(|argument| !argument.starts_with('"')) {
                    let value = argument.split_once('=').map_or(*argument, |(_, value)| value).trim();
                    if value.starts_with('?') || value.contains(":?}") {
                        wrong.push(format!("{place} a field in Rust's Debug form: {argument}"));
                    }
                }
            }
        }
    }
    assert_none(&wrong, "log lines:");
}

#[test]
fn a_constant_duration_names_its_role() {
    let mut wrong = Vec::new();
    for file in program_files() {
        for (at, line) in file.text.lines().enumerate() {
            let Some((before, kind)) = line.split_once(": ") else { continue };
            let Some((_, name)) = before.split_once("const ") else { continue };
            let is_constant = !before.contains("fn ");
            let is_duration = is_constant && ["Duration", "TimeDelta"].iter().any(|it| kind.starts_with(it));
            if is_duration && !DURATION_ROLES.iter().any(|role| name.split('_').any(|word| word == *role)) {
                wrong.push(format!("{}:{} {name}", file.path, at + 1));
            }
        }
    }
    assert_none(&wrong, "constant durations without a role:");
}

#[test]
fn the_rules_find_what_they_are_for() {
    assert_eq!(words_of("told_by(HeldJob) it's"), ["told", "by", "held", "job", "it", "s"]);
    assert_eq!(defined_type("pub(super) struct LotHead<'a> {"), Some("LotHead"));
    assert_eq!(defined_type("    type Error = Report;"), None);
    assert_eq!(defined_type("let kind = 1;"), None);
    assert_eq!(
        arguments("job = 1, error = f(a, \"b)\"), \"job run finished\");\n x"),
        ["job = 1", "error = f(a, \"b)\")", "\"job run finished\""]
    );
    assert!(Path::new("src/lib.rs").exists(), "the rules read the project's root");
}
