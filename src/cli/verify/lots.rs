//! `vinops verify lots`: compares lots, vehicles and image links with the stored row versions.

use crate::auction::difference::{
    ComparisonCounts, ComparisonObserver, ComparisonScope, DifferenceKind, RowDifference,
};
use crate::cli::output::{self, JsonArgs, format_count};
use crate::cli::progress::ProgressBars;
use crate::cli::session::{CommandSession, ConnectArgs};
use crate::cli::{CommandError, JobRegistry, source};
use crate::config::Config;
use crate::telemetry::escape_line;
use anyhow::anyhow;
use chrono::SecondsFormat;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The greatest number of differences that `--json` lists.
const MAX_LISTED_DIFFERENCES: usize = 10_000;
/// The greatest number of hints that are printed.
const MAX_REMEDIES: usize = 3;

/// Arguments of `vinops verify lots`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Folds the stored versions of each lot in their order, and compares the result with `lots`, `vehicles` and the open \
image links, column by column. The command changes nothing and takes no lock. Lots that an unfinished window is \
about to change are counted and left out. Requires a login in vinops_ops or etl_rw.

Exit codes: 0 no differences, 1 differences. To repair a difference, replay the window of the hint from ingest.

  vinops verify lots
  vinops verify lots --all --source copart
  vinops verify lots --sample 100 --json")]
pub struct VerifyLotsArgs {
    /// Number of lots to pick at random
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
    /// Compare all lots, and vehicles that no lot refers to
    #[arg(long, conflicts_with = "sample")]
    all: bool,
    /// Compare the lots of this source only
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// The JSON result of the command.
#[derive(Serialize)]
struct ComparisonReport<'a> {
    ok: bool,
    #[serde(flatten)]
    counts: ComparisonCounts,
    /// The first differences, at most 10,000.
    found: &'a [RowDifference],
}

/// Runs the comparison and prints each difference.
///
/// # Errors
/// Returns an error if there are differences.
pub async fn run(args: VerifyLotsArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    if let Some(name) = &args.source {
        source::expect_source(&session.db.pool, name).await?;
    }
    let scope = ComparisonScope { sample: (!args.all).then_some(args.sample), source: args.source };
    let listed = Arc::new(Mutex::new(Vec::new()));
    let compared =
        (fleet.compare)(session.db.pool.clone(), scope, comparison_observer(args.json.json, Arc::clone(&listed))).await;
    session.close().await?;
    let counts = compared?;
    let listed = std::mem::take(&mut *listed.lock().unwrap_or_else(PoisonError::into_inner));
    if args.json.json {
        output::print_json(&ComparisonReport { ok: counts.differences == 0, counts, found: &listed })?;
    } else {
        println!(
            "{} lots and {} vehicles compared, {} unfinished, {} differences",
            format_count(i64::try_from(counts.lots).unwrap_or(i64::MAX)),
            format_count(i64::try_from(counts.vehicles).unwrap_or(i64::MAX)),
            format_count(i64::try_from(counts.under_way).unwrap_or(i64::MAX)),
            format_count(i64::try_from(counts.differences).unwrap_or(i64::MAX)),
        );
        let remedies: BTreeSet<String> = listed.iter().filter_map(repair_command).collect();
        remedies.iter().take(MAX_REMEDIES).for_each(|remedy| println!("hint: run `{remedy}`"));
    }
    match counts.differences {
        0 => Ok(()),
        1 => Err(anyhow!("1 difference between the rows and their stored versions").into()),
        n => Err(anyhow!("{n} differences between the rows and their stored versions").into()),
    }
}

/// Returns an observer that prints differences as they are found, unless `quiet`, and collects the first ones.
fn comparison_observer(quiet: bool, listed: Arc<Mutex<Vec<RowDifference>>>) -> ComparisonObserver {
    let bar = ProgressBars::new(!quiet).add_step_bar("compare lots", 0);
    Box::new(move |progress| {
        bar.set_length(progress.total);
        bar.set_position((progress.counts.lots + progress.counts.under_way).min(progress.total));
        if !quiet {
            bar.suspend(|| {
                progress.found.iter().for_each(|difference| println!("{}", describe_difference(difference)))
            });
        }
        let mut listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_LISTED_DIFFERENCES - listed.len();
        listed.extend(progress.found.into_iter().take(room));
    })
}

/// Returns a difference as one line of text.
pub fn describe_difference(it: &RowDifference) -> String {
    let lot = it.lot.map(|lot| format!("{}/{lot}", it.source.as_deref().unwrap_or_default()));
    let row = it.vin.clone().or(lot).unwrap_or_default();
    let table = it.table;
    let text = match (it.kind, &it.column) {
        (DifferenceKind::Missing, None) => format!("{table} {row} is missing"),
        (DifferenceKind::Unfounded, None) => format!("{table} {row} exists, but no stored version gives it"),
        (_, column) => {
            let column = column.as_deref().unwrap_or_default();
            format!("{table} {row} {column} is {}, but the stored versions give {}", it.stands, it.versions)
        }
    };
    escape_line(&text).into_owned()
}

/// Returns the command that repairs a difference.
pub fn repair_command(it: &RowDifference) -> Option<String> {
    let (window, source) = (it.window?, it.source.as_ref()?);
    let window = window.to_rfc3339_opts(SecondsFormat::Secs, true);
    let source = if source == "copart" { String::new() } else { format!(" --source {source}") };
    Some(format!("vinops replay {window} --from ingest{source}"))
}
