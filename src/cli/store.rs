//! `vinops store check`: compares the files of the database with the objects of the store, and restores files from
//! the store itself where that is possible.

use super::CommandError;
use super::confirm::confirm;
use super::output::{self, JsonArgs, format_count, format_megabytes};
use super::progress::ProgressBars;
use super::session::{CommandSession, ConnectArgs};
use crate::config::Config;
use anyhow::anyhow;
use check::{FileProblem, StoreFileState, StoreReport};
use repair::FileRepairer;

mod catalogue;
mod check;
mod repair;

/// The greatest number of problems that are printed as text. `--json` contains all problems.
const MAX_LISTED_PROBLEMS: usize = 100;

/// The subcommands of `vinops store`.
#[derive(Debug, clap::Subcommand)]
pub enum StoreCommand {
    /// Find missing and damaged files, and restore them from copies in the store
    Check(StoreCheckArgs),
}

/// Arguments of `vinops store check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
States of a problem:
  missing     no object has the file's key, and its folder does not contain its
              bytes under another key
  misplaced   no object has the file's key, but another key of its folder
              contains its bytes
  damaged     the object does not decompress, or contains other bytes
  unreadable  the store returned an error while the object was read

Every file is looked up in a listing of the store. The command reads the bytes of the newest 96 files of each \
source, of files whose size differs from the recorded size, and with --all of every file. Objects under raw/ that \
belong to no file are counted and not changed. Such an object may be a file that is being stored.

The catalogue, which `vinops rebuild` uses, is compared too. Missing entries and files without an entry are listed \
and do not change the exit code. With --fix they are written from the database.

With --fix, bytes that are found by their sha256 in the file's folder, or in that folder of damaged/, are copied to \
the file's key. A damaged object is moved to damaged/ first. Nothing is deleted or overwritten. Restore other files \
from a backup.

Exit codes: 0 every file is intact or was repaired, 1 a file is not.

  vinops store check
  vinops store check --all --json
  vinops store check --fix --dry-run
  vinops store check --fix --reason 'the bucket was restored'")]
pub struct StoreCheckArgs {
    /// Read the bytes of every file
    #[arg(long)]
    all: bool,
    /// Restore files from copies in the store
    #[arg(long)]
    fix: bool,
    /// Print the repairs and change nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", requires = "fix", value_name = "TEXT", default_value = "repaired manually")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs `vinops store check`.
///
/// # Errors
/// Returns an error if a file is missing or damaged at the end.
pub async fn run(command: StoreCommand, config: Config) -> Result<(), CommandError> {
    let StoreCommand::Check(args) = command;
    let session = CommandSession::open(config, &args.connect).await?;
    let report = check_and_fix(&args, &session).await;
    session.close().await?;
    let report = report?;
    if args.json.json {
        output::print_json(&report)?;
    } else {
        print_report(&args, &report);
    }
    match report.problems.iter().filter(|problem| !problem.repaired).count() {
        0 => Ok(()),
        broken => Err(anyhow!(
            "{broken} of {} files {} missing or damaged in the store",
            report.files,
            if broken == 1 { "is" } else { "are" }
        )
        .into()),
    }
}

/// Checks the store and, with `--fix`, repairs files and catalogue entries. Returns the report.
async fn check_and_fix(args: &StoreCheckArgs, session: &CommandSession) -> Result<StoreReport, CommandError> {
    let store = session.open_store()?;
    let bars = ProgressBars::new(!args.json.json);
    let mut report = check::check_store(&session.db.pool, &store, args.all, &bars).await?;
    report.catalogue = catalogue::check_catalogue(&session.db.pool, &store).await?;
    if !args.fix {
        return Ok(report);
    }
    let repairable = report.problems.iter().filter(|problem| problem.found_as.is_some()).count();
    let entries = report.catalogue.repairable_count();
    if repairable + entries > 0 && !args.dry_run && !args.yes {
        let also = match entries {
            0 => String::new(),
            entries => format!(" and {} entries of the catalogue", format_count(entries as i64)),
        };
        confirm(&format!("restore {} files{also} in {}", format_count(repairable as i64), store.url()))?;
    }
    let mut repairer = FileRepairer::new(&session.db.pool, &store);
    if args.dry_run {
        report.problems.iter_mut().for_each(|problem| repairer.plan_repair(problem));
        return Ok(report);
    }
    if entries > 0 {
        catalogue::repair_catalogue(&session.db.pool, &store, &mut report.catalogue).await?;
    }
    if repairable > 0 {
        repairer.record_action("fix-store", &args.reason, &serde_json::json!({ "files": repairable })).await?;
        let bar = bars.add_step_bar("repair", repairable as u64);
        for problem in &mut report.problems {
            repairer.repair_file(problem).await;
            bar.inc(u64::from(problem.found_as.is_some()));
        }
        bar.finish_and_clear();
        report.repaired = report.problems.iter().filter(|problem| problem.repaired).count();
        let done = serde_json::json!({ "files": report.repaired, "failed": repairable - report.repaired });
        repairer.record_action("fix-store-end", &args.reason, &done).await?;
    }
    Ok(report)
}

/// Prints the report as text.
fn print_report(args: &StoreCheckArgs, report: &StoreReport) {
    if !report.problems.is_empty() {
        let mut table = output::new_table(&["window (UTC)", "source", "state", "key", "detail"]);
        for problem in report.problems.iter().take(MAX_LISTED_PROBLEMS) {
            table.add_row(vec![
                output::format_minute(problem.window_start_utc),
                problem.source.clone(),
                problem.state.as_str().to_owned(),
                problem.key.clone(),
                describe_problem(problem),
            ]);
        }
        println!("{table}");
        if report.problems.len() > MAX_LISTED_PROBLEMS {
            println!(
                "and {} more (--json lists all)",
                format_count((report.problems.len() - MAX_LISTED_PROBLEMS) as i64)
            );
        }
    }
    println!(
        "{} files, {} read in full: {} intact, {} missing, {} misplaced, {} damaged, {} unreadable",
        format_count(report.files),
        format_count(report.read),
        format_count(report.files - report.problems.len() as i64),
        format_count(report.count_state(StoreFileState::Missing)),
        format_count(report.count_state(StoreFileState::Misplaced)),
        format_count(report.count_state(StoreFileState::Damaged)),
        format_count(report.count_state(StoreFileState::Unreadable)),
    );
    if args.fix && !args.dry_run {
        println!("{} files repaired", format_count(report.repaired as i64));
    }
    print_catalogue(report);
    if report.unnamed.objects > 0 {
        println!(
            "{} objects under raw/ ({}) belong to no file: {}{}",
            format_count(report.unnamed.objects),
            format_megabytes(report.unnamed.stored_bytes),
            report.unnamed.keys.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
            if report.unnamed.objects > 3 { ", …" } else { "" }
        );
    }
}

/// Prints the part of the report that is about the catalogue.
fn print_catalogue(report: &StoreReport) {
    let catalogue = &report.catalogue;
    let keys = |keys: &[String]| {
        let more = if keys.len() > 3 { ", …" } else { "" };
        format!("{}{more}", keys.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
    };
    let files = catalogue.files_without_entry.iter();
    let files: Vec<String> =
        files.map(|file| format!("{} {}", file.source, output::format_minute(file.window_start_utc))).collect();
    for (what, items) in [
        ("entries of the catalogue are missing in the store", &catalogue.missing),
        ("files have no entry in the catalogue", &files),
        ("objects under catalogue/ are unknown to the database", &catalogue.unnamed),
    ] {
        if !items.is_empty() {
            println!("{} {what}: {}", format_count(items.len() as i64), keys(items));
        }
    }
    if catalogue.written > 0 {
        println!("{} entries of the catalogue written", format_count(catalogue.written.cast_signed()));
    }
}

/// Returns the detail, the place of the bytes and the outcome of a problem as text.
fn describe_problem(problem: &FileProblem) -> String {
    let found = problem.found_as.as_ref().map(|key| format!("bytes found under {key}"));
    let parts = [problem.detail.clone(), found, problem.outcome.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
