//! `vinops windows withdraw WINDOW`: a file that was ingested by mistake no longer counts.

use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::cli::ask::agreed;
use crate::cli::bars::Bars;
use crate::cli::replay::{self, end, expect_idle};
use crate::cli::session::{Connect, Session};
use crate::cli::show::{self, Json, count};
use crate::cli::{Failure, Fleet, source};
use crate::config::Config;
use crate::db::catalogue::{ActAuthor, note_withdrawal};
use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

/// Arguments of `vinops windows withdraw`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes a file back that should not have been ingested: one of another auction, or one under the wrong window. Lots, vehicles, picture links, statuses and the states of later windows become what they would be had the file never come. Rows that other files hold too stay; lots and vehicles that only this file held are deleted. Later windows that repeated it as unchanged are withdrawn with it. The bytes stay in the store and may be ingested again.

All of it is one transaction, which waits for no worker and refuses to begin while a chain of the source is under way. Needs the login that owns the tables. Try it with --dry-run first: it does the work, prints the counts and rolls back.

  vinops windows withdraw 2062-01-01T00:00:00Z --reason 'wrong --window' --dry-run
  vinops windows withdraw 2026-11-20T14:30:00Z --reason 'a file of another auction'")]
pub struct Args {
    /// The window's start, RFC 3339
    #[arg(value_name = "WINDOW", value_parser = replay::window)]
    window: DateTime<Utc>,
    /// Source of the file
    #[arg(long, default_value = "copart")]
    source: String,
    /// Which file, if the window has several
    #[arg(long, value_name = "FILE_ID")]
    file: Option<Uuid>,
    /// Show what would be changed and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// The answer for programs.
#[derive(Serialize)]
struct Answer<'a> {
    dry_run: bool,
    #[serde(flatten)]
    withdrawal: &'a Withdrawal,
}

/// Asks for confirmation, and withdraws the file.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    source::expect_source(&session.db.pool, &args.source).await?;
    if !args.yes && !args.dry_run {
        agreed(&format!("withdraw the file of window {} {}", args.source, show::minute(args.window)))?;
    }
    let withdrawn = withdraw(&session.db.pool, fleet, &args).await;
    session.close().await?;
    let withdrawn = withdrawn?;
    if args.json.json {
        show::json(&Answer { dry_run: args.dry_run, withdrawal: &withdrawn })?;
    } else {
        print(&withdrawn, args.dry_run);
    }
    Ok(())
}

async fn withdraw(pool: &PgPool, fleet: Fleet, args: &Args) -> anyhow::Result<Withdrawal> {
    let request = WithdrawalRequest { source: args.source.clone(), window: args.window, file_id: args.file };
    let mut tx = pool.begin().await.context("begin the withdrawal")?;
    expect_idle(&mut tx, &args.source).await?;
    let withdrawn = (fleet.withdraw)(&mut tx, request, observer(args.json.json)).await?;
    sqlx::query!(
        "-- withdraw: note it
        select fleet.note_action($1, 'withdraw-window', $2, $3, $4)",
        source::operator(),
        format!("{}/{}", args.source, args.window.to_rfc3339_opts(SecondsFormat::Secs, true)),
        args.reason,
        json!(withdrawn),
    )
    .execute(&mut *tx)
    .await
    .context("record the withdrawal")?;
    for window in &withdrawn.windows {
        let author = ActAuthor { operator: source::operator(), reason: args.reason.clone() };
        note_withdrawal(&mut tx, withdrawn.file_id, *window, author).await?;
    }
    end(tx, args.dry_run).await?;
    Ok(withdrawn)
}

/// Draws a bar for each phase, unless `quiet`.
fn observer(quiet: bool) -> WithdrawalObserver {
    let bar = Bars::new(!quiet).steps("withdraw", 0);
    Box::new(move |phase, done, total| {
        bar.set_prefix(phase);
        bar.set_length(total);
        bar.set_position(done);
    })
}

fn print(it: &Withdrawal, dry_run: bool) {
    let number = |n: u64| count(i64::try_from(n).unwrap_or(i64::MAX));
    let times =
        |windows: &[DateTime<Utc>]| windows.iter().map(|at| show::minute(*at)).collect::<Vec<_>>().join(", ");
    println!("file {} {} withdrawn", it.file_id, if dry_run { "would be" } else { "is" });
    println!("windows withdrawn   {}", times(&it.windows));
    println!(
        "row versions        {} deleted, {} kept",
        number(it.versions_deleted),
        number(it.versions_kept)
    );
    println!(
        "lots                {} recomputed, {} deleted",
        number(it.lots_recomputed),
        number(it.lots_deleted)
    );
    println!(
        "vehicles            {} recomputed, {} deleted",
        number(it.vehicles_recomputed),
        number(it.vehicles_deleted)
    );
    println!("statuses changed    {}", number(it.statuses_changed));
    if !it.windows_changed.is_empty() {
        println!("windows changed     {}", times(&it.windows_changed));
    }
    println!("newest window       {}", it.newest_window.map_or_else(|| "none".to_owned(), show::minute));
}
