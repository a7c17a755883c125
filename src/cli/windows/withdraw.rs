//! `vinops windows withdraw WINDOW`: removes a file that was ingested by mistake from the data.

use super::WindowActionArgs;
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::cli::confirm::confirm;
use crate::cli::output::{self, format_count};
use crate::cli::progress::ProgressBars;
use crate::cli::replay::{end_transaction, expect_idle};
use crate::cli::session::CommandSession;
use crate::cli::{CommandError, JobRegistry, source};
use crate::config::Config;
use crate::db::catalogue::{ActionAuthor, record_withdrawal};
use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;

/// Arguments of `vinops windows withdraw`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Withdraws a file that was ingested by mistake, such as a file of another auction or a file under the wrong window. \
Lots, vehicles, image links, statuses and the states of later windows change to their values without the file. Rows \
that other files contain too stay. Lots and vehicles that only this file contains are deleted. Later windows that \
repeated the file as unchanged are withdrawn with it. The bytes stay in the store and can be ingested again.

The command runs in one transaction. It waits for no worker, and fails if a chain of the source is unfinished. It \
requires the login that owns the tables. Run it with --dry-run first, which does the work, prints the counts and \
rolls back.

  vinops windows withdraw 2062-01-01T00:00:00Z --reason 'a typo' --dry-run
  vinops windows withdraw 2026-11-20T14:30:00Z --reason 'another auction'")]
pub struct WithdrawWindowArgs {
    #[command(flatten)]
    act: WindowActionArgs,
}

/// The JSON result of the command.
#[derive(Serialize)]
struct WithdrawalReport<'a> {
    dry_run: bool,
    #[serde(flatten)]
    withdrawal: &'a Withdrawal,
}

/// Asks for a confirmation and withdraws the file.
pub async fn run(args: WithdrawWindowArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.act.connect).await?;
    source::expect_source(&session.db.pool, &args.act.source).await?;
    if !args.act.yes && !args.act.dry_run {
        confirm(&format!(
            "withdraw the file of window {} {}",
            args.act.source,
            output::format_minute(args.act.window)
        ))?;
    }
    let withdrawn = withdraw_file(&session.db.pool, fleet, &args).await;
    session.close().await?;
    let withdrawn = withdrawn?;
    if args.act.json.json {
        output::print_json(&WithdrawalReport { dry_run: args.act.dry_run, withdrawal: &withdrawn })?;
    } else {
        print_withdrawal(&withdrawn, args.act.dry_run);
    }
    Ok(())
}

/// Withdraws the file in one transaction.
async fn withdraw_file(pool: &PgPool, fleet: JobRegistry, args: &WithdrawWindowArgs) -> anyhow::Result<Withdrawal> {
    let request =
        WithdrawalRequest { source: args.act.source.clone(), window: args.act.window, file_id: args.act.file };
    let mut tx = pool.begin().await.context("could not begin a transaction")?;
    expect_idle(&mut tx, &args.act.source).await?;
    let withdrawn = (fleet.withdraw)(&mut tx, request, withdrawal_observer(args.act.json.json)).await?;
    sqlx::query!(
        "-- withdraw: note it
        select fleet.note_action($1, 'withdraw-window', $2, $3, $4)",
        source::operator(),
        format!("{}/{}", args.act.source, args.act.window.to_rfc3339_opts(SecondsFormat::Secs, true)),
        args.act.reason,
        json!(withdrawn),
    )
    .execute(&mut *tx)
    .await
    .context("could not record the withdrawal")?;
    for window in &withdrawn.windows {
        let author = ActionAuthor { operator: source::operator(), reason: args.act.reason.clone() };
        record_withdrawal(&mut tx, withdrawn.file_id, *window, author).await?;
    }
    end_transaction(tx, args.act.dry_run).await?;
    Ok(withdrawn)
}

/// Returns an observer that draws a bar per phase, unless `quiet`.
fn withdrawal_observer(quiet: bool) -> WithdrawalObserver {
    let bar = ProgressBars::new(!quiet).add_step_bar("withdraw", 0);
    Box::new(move |phase, done, total| {
        bar.set_prefix(phase);
        bar.set_length(total);
        bar.set_position(done);
    })
}

/// Prints the counts of the withdrawal.
fn print_withdrawal(it: &Withdrawal, dry_run: bool) {
    let number = |n: u64| format_count(i64::try_from(n).unwrap_or(i64::MAX));
    let times =
        |windows: &[DateTime<Utc>]| windows.iter().map(|at| output::format_minute(*at)).collect::<Vec<_>>().join(", ");
    println!("file {} {} withdrawn", it.file_id, if dry_run { "would be" } else { "is" });
    println!("windows withdrawn   {}", times(&it.windows));
    println!("row versions        {} deleted, {} kept", number(it.versions_deleted), number(it.versions_kept));
    println!("lots                {} recomputed, {} deleted", number(it.lots_recomputed), number(it.lots_deleted));
    println!(
        "vehicles            {} recomputed, {} deleted",
        number(it.vehicles_recomputed),
        number(it.vehicles_deleted)
    );
    println!("statuses changed    {}", number(it.statuses_changed));
    if !it.windows_changed.is_empty() {
        println!("windows changed     {}", times(&it.windows_changed));
    }
    println!("newest window       {}", it.newest_window.map_or_else(|| "none".to_owned(), output::format_minute));
}
