//! `vinops store check`: compares the files that the database names with the objects of the store, and puts back what
//! can be repaired from the store itself.

use super::Failure;
use super::ask::agreed;
use super::bars::Bars;
use super::session::{Connect, Session};
use super::show::{self, Json, count, megabytes};
use crate::config::Config;
use anyhow::anyhow;
use check::{FileProblem, FileState, StoreReport};
use fix::Repairer;

mod catalogue;
mod check;
mod fix;

/// Most problems that are printed for people; `--json` lists every one.
const MAX_SHOWN: usize = 100;

/// `vinops store …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Find files that the store has lost or spoiled, and put back what it holds elsewhere
    Check(CheckArgs),
}

/// Arguments of `vinops store check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file is one of these:
  missing     nothing is under its key, nor are its bytes anywhere in its folder
  misplaced   nothing is under its key, and its bytes are under another key of its folder
  damaged     what is under its key does not decompress, or is not the file
  unreadable  the store gives an error while the object is read; its bytes were not judged

Every file is looked up by listing the store. The bytes are read of the newest 96 files of each source, of files whose size \
is not the recorded one, and with --all of every file. Objects under raw/ that no file names are counted and left alone: \
they cost space, and one may be a file that is just coming in.

The catalogue, which `vinops rebuild` goes by, is compared too: entries that the store has lost, and files without an entry, are named and do not change the exit code. With --fix they are written from the database.

With --fix, bytes that are found by their sha256 in the file's folder (or that folder of damaged/) are copied to the file's key. \
A damaged object is moved to damaged/ first. Nothing is deleted or overwritten. What cannot be repaired has to come back from a backup.

Exit codes: 0 every file is whole, or was repaired; 1 a file is not.

  vinops store check
  vinops store check --all --json
  vinops store check --fix --dry-run
  vinops store check --fix --reason 'the bucket was restored from its replica'")]
pub struct CheckArgs {
    /// Read the bytes of every file
    #[arg(long)]
    all: bool,
    /// Repair what can be repaired from the store itself
    #[arg(long)]
    fix: bool,
    /// Show what --fix would do, and do nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Why; kept with who and when in audit.operator_actions
    #[arg(long, alias = "why", requires = "fix", value_name = "TEXT", default_value = "repaired by hand")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Runs `vinops store`; fails where a file is not whole in the end.
pub async fn run(command: Command, config: Config) -> Result<(), Failure> {
    let Command::Check(args) = command;
    let session = Session::open(config, &args.connect).await?;
    let report = check_and_fix(&args, &session).await;
    session.close().await?;
    let report = report?;
    if args.json.json {
        show::json(&report)?;
    } else {
        print(&args, &report);
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

async fn check_and_fix(args: &CheckArgs, session: &Session) -> Result<StoreReport, Failure> {
    let store = session.store()?;
    let bars = Bars::new(!args.json.json);
    let mut report = check::check(&session.db.pool, &store, args.all, &bars).await?;
    report.catalogue = catalogue::check(&session.db.pool, &store).await?;
    if !args.fix {
        return Ok(report);
    }
    let repairable = report.problems.iter().filter(|problem| problem.found_as.is_some()).count();
    let entries = report.catalogue.repairable();
    if repairable + entries > 0 && !args.dry_run && !args.yes {
        let also = match entries {
            0 => String::new(),
            entries => format!(" and {} entries of the catalogue", count(entries as i64)),
        };
        agreed(&format!("put {} files{also} back in {}", count(repairable as i64), store.url()))?;
    }
    let mut repairer = Repairer::new(&session.db.pool, &store);
    if args.dry_run {
        report.problems.iter_mut().for_each(|problem| repairer.plan(problem));
        return Ok(report);
    }
    if entries > 0 {
        catalogue::fix(&session.db.pool, &store, &mut report.catalogue).await?;
    }
    if repairable > 0 {
        repairer.note("fix-store", &args.reason, &serde_json::json!({ "files": repairable })).await?;
        let bar = bars.steps("repair", repairable as u64);
        for problem in &mut report.problems {
            repairer.repair(problem).await;
            bar.inc(u64::from(problem.found_as.is_some()));
        }
        bar.finish_and_clear();
        report.repaired = report.problems.iter().filter(|problem| problem.repaired).count();
        let done = serde_json::json!({ "files": report.repaired, "failed": repairable - report.repaired });
        repairer.note("fix-store-end", &args.reason, &done).await?;
    }
    Ok(report)
}

fn print(args: &CheckArgs, report: &StoreReport) {
    if !report.problems.is_empty() {
        let mut table = show::table(&["window (UTC)", "source", "state", "key", "what"]);
        for problem in report.problems.iter().take(MAX_SHOWN) {
            table.add_row(vec![
                show::minute(problem.window_start_utc),
                problem.source.clone(),
                problem.state.as_str().to_owned(),
                problem.key.clone(),
                described(problem),
            ]);
        }
        println!("{table}");
        if report.problems.len() > MAX_SHOWN {
            println!(
                "and {} more: --json lists every one",
                count((report.problems.len() - MAX_SHOWN) as i64)
            );
        }
    }
    println!(
        "{} files, the bytes of {} read: {} whole, {} missing, {} misplaced, {} damaged, {} unreadable",
        count(report.files),
        count(report.read),
        count(report.files - report.problems.len() as i64),
        count(report.count(FileState::Missing)),
        count(report.count(FileState::Misplaced)),
        count(report.count(FileState::Damaged)),
        count(report.count(FileState::Unreadable)),
    );
    if args.fix && !args.dry_run {
        println!("{} files repaired", count(report.repaired as i64));
    }
    print_catalogue(report);
    if report.unnamed.objects > 0 {
        println!(
            "{} objects under raw/ ({}) are named by no file: {}{}",
            count(report.unnamed.objects),
            megabytes(report.unnamed.stored_bytes),
            report.unnamed.keys.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
            if report.unnamed.objects > 3 { ", …" } else { "" }
        );
    }
}

fn print_catalogue(report: &StoreReport) {
    let catalogue = &report.catalogue;
    let keys = |keys: &[String]| {
        let more = if keys.len() > 3 { ", …" } else { "" };
        format!("{}{more}", keys.iter().take(3).cloned().collect::<Vec<_>>().join(", "))
    };
    let files = catalogue.files_without_entry.iter();
    let files: Vec<String> =
        files.map(|file| format!("{} {}", file.source, show::minute(file.window_start_utc))).collect();
    for (what, items) in [
        ("entries of the catalogue are missing in the store", &catalogue.missing),
        ("files have no entry in the catalogue", &files),
        ("objects under catalogue/ are unknown to the database", &catalogue.unnamed),
    ] {
        if !items.is_empty() {
            println!("{} {what}: {}", count(items.len() as i64), keys(items));
        }
    }
    if catalogue.written > 0 {
        println!("{} entries of the catalogue written", count(catalogue.written.cast_signed()));
    }
}

fn described(problem: &FileProblem) -> String {
    let found = problem.found_as.as_ref().map(|key| format!("its bytes are under {key}"));
    let parts = [problem.detail.clone(), found, problem.outcome.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
