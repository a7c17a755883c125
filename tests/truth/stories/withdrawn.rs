//! Stories with a file that should not have been ingested: once it is withdrawn, all is as in the story without it.

use super::rng::StoryRng;
use super::script::{self, StoryFile, StoryFileKind};
use super::{Pipeline, StoryOracle, compare_all, print_differences, story_pipeline, window_state};
use crate::pipeline::parse_time;
use vinops::auction::withdrawal::{Withdrawal, WithdrawalRequest};
use vinops::workers::auction::withdraw;

/// Queries of the data that must be equal in addition to lots and vehicles: statuses, heads, files and their rows, and
/// the sources.
const EXCLUDED_COLUMNS: [&str; 5] = [
    "select concat_ws(' ', 'status', source, lot_external_id, status) from lots order by 1",
    "select concat_ws(' ', 'head', source, lot, row_hash, last_seen, absent_since) from raw.heads order by 1",
    "select concat_ws(' ', 'file', source, window_start_utc, sha256, state, complete, incomplete_reason)
      from raw.csv_files where state <> 'withdrawn' order by 1",
    "select concat_ws(' ', 'rows of', f.source, f.sha256, count(*), md5(string_agg(r.payload_jsonb::text, '' order by r.row_no)))
      from raw.file_rows r join raw.csv_files f on f.file_id = r.file_id
      where f.state <> 'withdrawn' group by f.source, f.sha256 order by 1",
    "select concat_ws(' ', 'source', s.source, s.head_window, f.sha256, s.completed_window, s.size_accepted_rows)
      from raw.sources s left join raw.csv_files f on f.file_id = s.head_file_id
      where s.head_window is not null order by 1",
];

/// Queries of the rows of a digest, as text.
const ROW_QUERIES: [&str; 3] = [
    "select (to_jsonb(l) - '{id,status,created_at,updated_at,seen_window,file_id}'::text[])::text from lots l order by 1",
    "select (to_jsonb(v) - '{id,created_at,updated_at,seen_window,file_id}'::text[])::text from vehicles v order by 1",
    "select concat_ws(' ', l.source, l.lot_external_id, i.vin, i.variant, i.source_url)
      from images i left join lots l on l.id = i.lot_id where i.valid_until is null order by 1",
];

/// Checks the story of this seed with an additional file, at its own window or at one of 2062.
pub async fn check_withdrawal(seed: u64) -> Result<(), String> {
    let mut files = script::write_script(seed);
    let mut chance = StoryRng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let wrong: Vec<usize> = (0..files.len()).filter(|n| files[*n].kind == StoryFileKind::Feed).collect();
    let Some(nth) = (!wrong.is_empty()).then(|| wrong[chance.below(wrong.len())]) else { return Ok(()) };
    let is_misdated = chance.is_drawn(50);
    if is_misdated {
        files[nth].window = parse_time("2062-01-01T00:00:00Z");
    }
    let description = script::describe_files(&files);
    let with = apply_files(&files).await;
    let withdrawn = withdraw_file(&with, &files[nth]).await;
    let left = without_windows(&files, &files[nth], &withdrawn);
    let without = apply_files(&left).await;
    let mut record = StoryOracle::default();
    for file in &left {
        record.apply_file(file);
    }
    let mut differences = compare_all(&with, &record, true).await;
    differences.extend(with.compare_lots().await.1);
    if with.digest().await != without.digest().await {
        differences.push("the digest is another".to_owned());
        for query in ROW_QUERIES {
            differences.extend(different_rows(&with, &without, query).await);
        }
    }
    for query in EXCLUDED_COLUMNS {
        differences.extend(different_rows(&with, &without, query).await);
    }
    for file in &left {
        let (found, expected) = (window_state(&with, file).await, window_state(&without, file).await);
        // the wrong file came between two sightings of one file, so its chain ran again
        let is_repeat = file.again && expected == "unchanged" && ["applied", "incomplete"].contains(&&*found);
        if found != expected && !is_repeat {
            differences.push(format!("window {} {} is {found}, not {expected}", file.source, file.window));
        }
    }
    if window_state(&with, &files[nth]).await != "withdrawn" {
        differences.push("the window is not withdrawn".to_owned());
    }
    print_differences(differences)
        .map_err(|error| format!("file {nth} withdrawn ({:?}), {error}\n{description}", withdrawn.windows_changed))
}

async fn apply_files(files: &[StoryFile]) -> Pipeline {
    let mut pipeline = story_pipeline().await;
    for file in files {
        pipeline.source = file.source;
        pipeline.run_chain(&file.bytes, file.window).await;
    }
    pipeline
}

/// Returns the story without the withdrawn windows of the wrong file.
fn without_windows(files: &[StoryFile], wrong: &StoryFile, withdrawn: &Withdrawal) -> Vec<StoryFile> {
    let mut left: Vec<StoryFile> = Vec::new();
    for file in files {
        let is_wrong = file.source == wrong.source && file.number == wrong.number;
        if is_wrong && withdrawn.windows.contains(&file.window) {
            continue;
        }
        let again = left.iter().any(|other| other.source == file.source && other.number == file.number);
        left.push(StoryFile { again, ..file.clone() });
    }
    left
}

async fn withdraw_file(pipeline: &Pipeline, file: &StoryFile) -> Withdrawal {
    let request = WithdrawalRequest { source: file.source.to_owned(), window: file.window, file_id: None };
    let observer: vinops::auction::withdrawal::WithdrawalObserver = Box::new(|_, _, _| {});
    let mut tx = pipeline.pool().begin().await.unwrap();
    let withdrawn = withdraw::withdraw_file(&mut tx, &request, &observer).await.unwrap();
    tx.commit().await.unwrap();
    withdrawn
}

/// Returns the lines of a query that only one of two databases has.
async fn different_rows(with: &Pipeline, without: &Pipeline, query: &'static str) -> Vec<String> {
    let (found, expected) = (query_texts(with, query).await, query_texts(without, query).await);
    let only = |word: &str, these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{word}: {line}")).collect()
    };
    [only("not", &found, &expected), only("but", &expected, &found)].concat()
}

async fn query_texts(pipeline: &Pipeline, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(pipeline.pool()).await.unwrap()
}
