//! `vinops rebuild`: rebuilds vehicles, lots, images, statuses and their logs from the store, in an empty database.

use super::chain::{self, InlineWorker};
use super::confirm::confirm;
use super::output::{self, JsonArgs, format_count, format_megabytes};
use super::progress::ProgressBars;
use super::session::{CommandSession, ConnectArgs, os_user};
use super::{CommandError, JobRegistry};
use crate::config::Config;
use anyhow::{Context, anyhow};
use apply::Rebuilder;
use plan::{RebuildBasis, RebuildPlan};
use report::RebuildReport;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Instant;

mod apply;
mod plan;
mod report;

/// Arguments of `vinops rebuild`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The store of VINOPS_STORE contains every file. Its folder catalogue/ records the order in which the files came and \
the actions of operators. The files are registered in an empty, migrated database without being copied, and are \
applied one after the other. Accepted files, mapped values, edited labels, accepted sizes and removals are repeated \
in the recorded order. Withdrawn files are left out. The store does not change.

A store without a catalogue is rebuilt from the names of its files, in the order of their windows. The report lists \
what is unknown in that case. Stop all workers and the scheduler first: a window that is fetched meanwhile makes all \
others late.

To continue an interrupted rebuild, run the same command again. The same applies if files were missing and are restored.

Exit codes: 0 every file is applied, 1 a file is missing or failed, or the database is not empty.

  vinops rebuild --dry-run
  vinops rebuild --yes --reason 'the disk of the database is lost'")]
pub struct RebuildArgs {
    /// Use the names of the files even if there is a catalogue
    #[arg(long)]
    by_names: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "rebuilt manually")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs the rebuild and prints the report.
///
/// # Errors
/// Returns an error if a file is missing or failed at the end.
pub async fn run(args: RebuildArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let report = rebuild_database(&args, fleet, &session).await;
    session.close().await?;
    let report = report?;
    if args.json.json {
        output::print_json(&report)?;
    } else {
        report.print_report();
    }
    match report.lost_files() {
        0 => Ok(()),
        lost => Err(anyhow!(
            "{lost} of {} files {} missing or failed\nhint: run `vinops store check --all` for details, restore the \
             files, and run the same command again",
            report.files,
            if lost == 1 { "is" } else { "are" }
        )
        .into()),
    }
}

/// Plans and runs the rebuild. A dry run ends after the plan.
async fn rebuild_database(
    args: &RebuildArgs,
    fleet: JobRegistry,
    session: &CommandSession,
) -> Result<RebuildReport, CommandError> {
    let pool = &session.db.pool;
    let begun = expect_empty(pool).await?;
    let basis = begun.or(args.by_names.then_some(RebuildBasis::Names));
    let store = session.open_store()?;
    let plan = RebuildPlan::read(&store, basis).await?;
    let mut report = plan.new_report(args.dry_run);
    if args.dry_run {
        return Ok(report);
    }
    if !args.yes {
        let (files, size) = (format_count(report.files as i64), report.stored_bytes);
        let size = format_megabytes(i64::try_from(size).unwrap_or(i64::MAX));
        confirm(&format!("rebuild the database from {files} files ({size}) of {}", store.url()))?;
    }
    let details = json!({ "basis": plan.basis.as_str(), "files": report.files, "windows": report.windows });
    record_action(pool, "rebuild", store.url(), &args.reason, &details).await?;
    let steps = chain::downstream_kinds(fleet, fleet.fetch.next);
    let first = steps.first().copied().context("no job follows the fetch job")?;
    let first = fleet.find_job(first)?;
    let bars = ProgressBars::new(!args.json.json);
    let hand = InlineWorker::start(&session.db, fleet, &session.config, store.clone(), &steps, &bars)?;
    let began = Instant::now();
    let db = &session.db;
    let (store, steps, hand_ref, bars) = (&store, steps.as_slice(), &hand, &bars);
    let rebuilder = Rebuilder { db, store, fleet, steps, first, worker: hand_ref, bars, reason: &args.reason };
    let done = rebuilder.run(&plan, &mut report).await;
    hand.stop().await?;
    done?;
    report.seconds = began.elapsed().as_secs_f64();
    if report.lost_files() == 0 {
        let details = json!({ "files": report.files, "skipped": report.skipped.len(), "seconds": report.seconds });
        record_action(pool, "rebuild-end", store.url(), &args.reason, &details).await?;
    }
    Ok(report)
}

/// Checks that the database contains no file, or that a rebuild of it has begun. Returns the basis of a begun rebuild.
async fn expect_empty(pool: &PgPool) -> Result<Option<RebuildBasis>, CommandError> {
    let found = sqlx::query!(
        r#"-- rebuild: is the database empty
        select
          (select count(*) from raw.csv_files) as "files!",
          (
            select case when a.action = 'rebuild' then a.details ->> 'basis' end
            from audit.operator_actions a
            where a.action in ('rebuild', 'rebuild-end')
            order by a.id desc
            limit 1
          ) as basis"#
    )
    .fetch_one(pool)
    .await
    .context("could not count the files of the database")?;
    match (found.files, found.basis.as_deref()) {
        (_, Some("catalogue")) => Ok(Some(RebuildBasis::Catalogue)),
        (_, Some("names")) => Ok(Some(RebuildBasis::Names)),
        (0, _) => Ok(None),
        (files, _) => Err(anyhow!(
            "the database is not empty: it contains {} files\nhint: create a new database, set DATABASE_URL to it, \
             and run `vinops migrate up`",
            format_count(files)
        )
        .into()),
    }
}

/// Records an operator action.
async fn record_action(
    pool: &PgPool,
    action: &str,
    subject: &str,
    reason: &str,
    details: &Value,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- rebuild: note it\n select fleet.note_action($1, $2, $3, $4, $5)",
        os_user(),
        action,
        subject,
        reason,
        details
    )
    .execute(pool)
    .await
    .context("could not record the rebuild")?;
    Ok(())
}
