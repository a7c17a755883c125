//! Random stories: eight windows of two sources' feeds with halves, quarantined files, repeats and rows that are hard
//! to read.
//!
//! Each story is checked twice. In order: after each file the lots, vehicles, open picture links and statuses are those
//! of an independent [`record`]. In another order, with some files repeated: the digest is that of the first order,
//! since only statuses depend on the order of files. A third check withdraws a file ([`withdrawn`]).
//!
//! `VINOPS_TEST_STORIES` sets the number of stories. `VINOPS_TEST_SEED` is the seed of the first story, and each
//! further story has the next number.

use crate::pipeline::Pipeline;
use oracle::{NamedValues, StoryOracle};
use rng::StoryRng;
use script::StoryFile;
use sqlx::Row as _;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use vinops::config;
use vinops::db::digest::DataDigest;

mod oracle;
mod rng;
mod script;
mod withdrawn;

/// The default number of stories.
const DEFAULT_STORIES: u64 = 20;
/// The number of stories that run concurrently.
const CONCURRENT_STORIES: usize = 4;
/// The maximum number of differences that are printed of a story.
const MAX_PRINTED_DIFFERENCES: usize = 8;

#[test]
fn a_story_in_order_is_what_its_record_says_and_in_any_order_gives_the_same_values() {
    check_stories(DEFAULT_STORIES, check_story);
}

#[test]
fn a_story_whose_wrong_file_is_withdrawn_is_the_story_without_it() {
    check_stories(DEFAULT_STORIES, withdrawn::check_withdrawal);
}

/// Checks the requested number of stories, or the default one, several concurrently.
fn check_stories<F: Future<Output = Result<(), String>>>(usual: u64, check: fn(u64) -> F) {
    let count = config::test_number("VINOPS_TEST_STORIES").unwrap_or(usual);
    let first = config::test_number("VINOPS_TEST_SEED").unwrap_or(1);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(BTreeMap::new());
    std::thread::scope(|threads| {
        for _ in 0..CONCURRENT_STORIES {
            threads.spawn(|| {
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let checked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(check(seed))));
                    if let Err(difference) = checked.unwrap_or_else(|_| Err("panicked".to_owned())) {
                        eprintln!("story {seed}: {difference}");
                        failed.lock().unwrap().insert(seed, difference);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {count} stories differ, the first with VINOPS_TEST_SEED={} VINOPS_TEST_STORIES=1",
        failed.len(),
        failed.keys().next().unwrap()
    );
}

#[test]
fn the_stories_have_files_states_and_statuses_of_every_sort() {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 1..=DEFAULT_STORIES {
        let mut record = StoryOracle::default();
        for file in script::write_script(seed) {
            let state = record.apply_file(&file);
            *counts.entry(format!("{} file", file.describe_kind())).or_default() += 1;
            *counts.entry(format!("{state} window")).or_default() += 1;
        }
        for facts in record.lots().into_values() {
            let status = facts.into_iter().find(|(name, _)| *name == "status").and_then(|(_, status)| status);
            *counts.entry(format!("{} lot", status.unwrap())).or_default() += 1;
        }
    }
    println!("{counts:?}");
    // five sorts, four states, four statuses
    assert!(counts.len() == 13 && counts.values().all(|count| *count >= 3), "{counts:?}");
}

/// Checks the story of this seed in order and in another order.
async fn check_story(seed: u64) -> Result<(), String> {
    let files = script::write_script(seed);
    let description = script::describe_files(&files);
    let (record, expected) = run_in_order(&files).await.map_err(|error| format!("in order, {error}\n{description}"))?;
    let mut way: Vec<usize> = (0..files.len()).collect();
    let mut chance = StoryRng(!seed);
    for _ in 0..2 {
        way.push(chance.below(files.len()));
    }
    chance.shuffle(&mut way);
    let pipeline = run_in_another_order(&files, &way).await;
    let mut differences = compare_all(&pipeline, &record, false).await;
    differences.extend(pipeline.compare_lots().await.1);
    if pipeline.digest().await != expected {
        differences.push("the digest is another".to_owned());
    }
    print_differences(differences).map_err(|error| format!("in the order {way:?}, {error}\n{description}"))
}

/// Returns an error with the first of some differences.
fn print_differences(mut differences: Vec<String>) -> Result<(), String> {
    let count = differences.len();
    differences.truncate(MAX_PRINTED_DIFFERENCES);
    if count == 0 { Ok(()) } else { Err(format!("{count} differences:\n  {}", differences.join("\n  "))) }
}

async fn story_pipeline() -> Pipeline {
    let pipeline = Pipeline::new().await;
    pipeline.run_sql("insert into fleet.sources (source) values ('other') on conflict do nothing").await;
    pipeline
}

async fn run_in_order(files: &[StoryFile]) -> Result<(StoryOracle, DataDigest), String> {
    let mut pipeline = story_pipeline().await;
    let mut record = StoryOracle::default();
    for (n, file) in files.iter().enumerate() {
        pipeline.source = file.source;
        pipeline.run_chain(&file.bytes, file.window).await;
        let state = record.apply_file(file);
        let mut differences = compare_all(&pipeline, &record, true).await;
        let found = window_state(&pipeline, file).await;
        if found != state {
            differences.insert(0, format!("the window is {found}, not {state}"));
        }
        print_differences(differences).map_err(|error| format!("after file {n}, {error}"))?;
    }
    print_differences(pipeline.compare_lots().await.1).map_err(|error| format!("at the end, {error}"))?;
    Ok((record, pipeline.digest().await))
}

async fn run_in_another_order(files: &[StoryFile], way: &[usize]) -> Pipeline {
    let mut pipeline = story_pipeline().await;
    for n in way {
        pipeline.source = files[*n].source;
        pipeline.run_chain(&files[*n].bytes, files[*n].window).await;
    }
    pipeline
}

/// Returns the differences between the database and the oracle.
async fn compare_all(pipeline: &Pipeline, record: &StoryOracle, statuses: bool) -> Vec<String> {
    let mut expected = record.lots();
    if !statuses {
        expected.values_mut().for_each(|facts| facts.retain(|(name, _)| *name != "status"));
    }
    let mut differences = compare_facts(&expected, &read_lots(pipeline).await);
    differences.extend(compare_facts(&record.vehicles(), &read_vehicles(pipeline).await));
    differences
}

/// Returns the differences, key by key and column by column.
fn compare_facts(expected: &BTreeMap<String, NamedValues>, found: &BTreeMap<String, NamedValues>) -> Vec<String> {
    let mut differences = Vec::new();
    for (key, facts) in expected {
        let Some(stored) = found.get(key) else {
            differences.push(format!("{key} is missing"));
            continue;
        };
        let stored: BTreeMap<_, _> = stored.iter().cloned().collect();
        for (name, value) in facts {
            if stored[name] != *value {
                differences.push(format!("{key}: {name} is {:?}, not {value:?}", stored[name]));
            }
        }
    }
    differences.extend(found.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key} never was")));
    differences
}

const LOTS_QUERY: &str = "select
      concat('lot ', source, '/', lot_external_id) as key,
      vin,
      to_char(source_updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as source_updated_at,
      to_char(version_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as version_at,
      to_char(auction_datetime_utc at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as auction_datetime_utc,
      site_code,
      yard_name,
      odometer::float8::text as odometer,
      current_bid_usd::float8::text as current_bid_usd,
      (
        select string_agg(concat_ws(' ', i.variant, i.source_url, i.vin), ', ' order by i.variant)
        from images i
        where i.lot_id = l.id and i.valid_until is null
      ) as pictures,
      status,
      currency_code::text as currency_code,
      has_keys::text as has_keys,
      damage_description,
      damage_code,
      sale_type,
      special_note
    from lots l";

const VEHICLES_QUERY: &str = "select
      concat('vehicle ', vin) as key,
      upper(trim(vin_raw)) as owner,
      source,
      source_lot::text as source_lot,
      year::text as year,
      odometer_value::text as odometer_value,
      make,
      model
    from vehicles";

async fn read_lots(pipeline: &Pipeline) -> BTreeMap<String, NamedValues> {
    read_facts(
        pipeline,
        LOTS_QUERY,
        &[
            "vin",
            "source_updated_at",
            "version_at",
            "auction_datetime_utc",
            "site_code",
            "yard_name",
            "odometer",
            "current_bid_usd",
            "pictures",
            "status",
            "currency_code",
            "has_keys",
            "damage_description",
            "damage_code",
            "sale_type",
            "special_note",
        ],
    )
    .await
}

async fn read_vehicles(pipeline: &Pipeline) -> BTreeMap<String, NamedValues> {
    let names = ["owner", "source", "source_lot", "year", "odometer_value", "make", "model"];
    read_facts(pipeline, VEHICLES_QUERY, &names).await
}

async fn read_facts(pipeline: &Pipeline, query: &'static str, names: &[&'static str]) -> BTreeMap<String, NamedValues> {
    let rows = sqlx::query(query).fetch_all(pipeline.pool()).await.unwrap();
    let facts = |row: &sqlx::postgres::PgRow| names.iter().map(|name| (*name, row.get(*name))).collect();
    rows.iter().map(|row| (row.get("key"), facts(row))).collect()
}

async fn window_state(pipeline: &Pipeline, file: &StoryFile) -> String {
    sqlx::query_scalar("select state from fleet.windows where source = $1 and window_start_utc = $2")
        .bind(file.source)
        .bind(file.window)
        .fetch_one(pipeline.pool())
        .await
        .unwrap()
}
