//! `vinops rebuild`: makes vehicles, lots, pictures, statuses and their logs from the store, in an empty database.

use super::ask::agreed;
use super::bars::Bars;
use super::chain::{self, Hand};
use super::session::{Connect, Session, who};
use super::show::{self, Json, count, megabytes};
use super::{Failure, Fleet};
use crate::config::Config;
use anyhow::{Context, anyhow};
use apply::Rebuilder;
use plan::{PlanBasis, RebuildPlan};
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
The store of VINOPS_STORE keeps every file, and under catalogue/ in which order files came and what operators did. Into an \
empty, migrated database the files are registered where they lie and applied one after the other, and accepted files, mapped \
spellings, edited labels, accepted sizes and removals are repeated at their places. Withdrawn files are left out. Nothing in \
the store is copied or changed.

A store without a catalogue is rebuilt by the names of its files, in the order of their windows; what it does not say is \
listed. Stop the fleet first: a window that is fetched meanwhile makes all others late.

A rebuild that was interrupted goes on with the same command. So does one of which files are missing, once they are back.

Exit codes: 0 every file is in the data; 1 a file is not, or the database is not empty.

  vinops rebuild --dry-run
  vinops rebuild --yes --reason 'the disk of the database is lost'")]
pub struct Args {
    /// Go by the names of the files, although there is a catalogue
    #[arg(long)]
    by_names: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why; kept with who and when
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "rebuilt by hand")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Runs it; fails where a file is not in the data in the end.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let report = rebuild(&args, fleet, &session).await;
    session.close().await?;
    let report = report?;
    if args.json.json {
        show::json(&report)?;
    } else {
        report.print();
    }
    match report.lost_files() {
        0 => Ok(()),
        lost => Err(anyhow!(
            "{lost} of {} files {} missing or failed\nhint: `vinops store check --all` says more; once they are back, \
             the same command goes on",
            report.files,
            if lost == 1 { "is" } else { "are" }
        )
        .into()),
    }
}

async fn rebuild(args: &Args, fleet: Fleet, session: &Session) -> Result<RebuildReport, Failure> {
    let pool = &session.db.pool;
    let begun = expect_empty(pool).await?;
    let basis = begun.or(args.by_names.then_some(PlanBasis::Names));
    let store = session.store()?;
    let plan = RebuildPlan::read(&store, basis).await?;
    let mut report = plan.report(args.dry_run);
    if args.dry_run {
        return Ok(report);
    }
    if !args.yes {
        let (files, size) = (count(report.files as i64), report.stored_bytes);
        let size = megabytes(i64::try_from(size).unwrap_or(i64::MAX));
        agreed(&format!("rebuild the database from {files} files ({size}) of {}", store.url()))?;
    }
    let details = json!({ "basis": plan.basis.as_str(), "files": report.files, "windows": report.windows });
    note(pool, "rebuild", store.url(), &args.reason, &details).await?;
    let steps = chain::kinds_from(fleet, fleet.fetch.next);
    let first = steps.first().copied().context("a window's chain has no step")?;
    let first = fleet.known(first)?;
    let bars = Bars::new(!args.json.json);
    let hand = Hand::start(&session.db, fleet, &session.config, store.clone(), &steps, &bars)?;
    let began = Instant::now();
    let db = &session.db;
    let (store, steps, hand_ref, bars) = (&store, steps.as_slice(), &hand, &bars);
    let rebuilder = Rebuilder { db, store, fleet, steps, first, hand: hand_ref, bars, reason: &args.reason };
    let done = rebuilder.run(&plan, &mut report).await;
    hand.stop().await?;
    done?;
    report.seconds = began.elapsed().as_secs_f64();
    if report.lost_files() == 0 {
        let details =
            json!({ "files": report.files, "skipped": report.skipped.len(), "seconds": report.seconds });
        note(pool, "rebuild-end", store.url(), &args.reason, &details).await?;
    }
    Ok(report)
}

/// Checks that the database has no file, or that a rebuild of it is under way. Returns what that goes by.
async fn expect_empty(pool: &PgPool) -> Result<Option<PlanBasis>, Failure> {
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
    .context("look for files in the database")?;
    match (found.files, found.basis.as_deref()) {
        (_, Some("catalogue")) => Ok(Some(PlanBasis::Catalogue)),
        (_, Some("names")) => Ok(Some(PlanBasis::Names)),
        (0, _) => Ok(None),
        (files, _) => Err(anyhow!(
            "the database is not empty: it has {} files\nhint: rebuild into a new one: create it, set DATABASE_URL to it, \
             and run `vinops migrate up`",
            count(files)
        )
        .into()),
    }
}

async fn note(
    pool: &PgPool,
    action: &str,
    subject: &str,
    reason: &str,
    details: &Value,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- rebuild: note it\n select fleet.note_action($1, $2, $3, $4, $5)",
        who(),
        action,
        subject,
        reason,
        details
    )
    .execute(pool)
    .await
    .context("note the rebuild")?;
    Ok(())
}
