//! `vinops windows`: lists the newest windows with their states. With `--missing` it lists the quarter-hours of a span
//! without an applied or unchanged window.

use super::output::{self, JsonArgs, format_count, right_cell};
use super::session::{CommandSession, ConnectArgs};
use super::source::expect_source;
use super::{CommandError, JobRegistry, replay};
use crate::config::Config;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

pub(super) mod accept;
mod withdraw;

/// Arguments of `vinops windows`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WindowsArgs {
    #[command(subcommand)]
    command: Option<WindowsCommand>,
    #[command(flatten)]
    list: WindowListArgs,
}

/// The subcommands of `vinops windows`.
#[derive(Debug, clap::Subcommand)]
enum WindowsCommand {
    /// Apply a quarantined file
    Accept(accept::AcceptWindowArgs),
    /// Withdraw a file that was ingested by mistake
    Withdraw(withdraw::WithdrawWindowArgs),
}

/// Arguments of a command that acts on the file of a window.
#[derive(Debug, clap::Args)]
struct WindowActionArgs {
    /// Start of the window, RFC 3339
    #[arg(value_name = "WINDOW", value_parser = replay::parse_window)]
    window: DateTime<Utc>,
    /// Source of the file
    #[arg(long, default_value = "copart")]
    source: String,
    /// Id of the file, if the window has several
    #[arg(long, value_name = "FILE_ID")]
    file: Option<Uuid>,
    /// Print the changes and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of the list.
#[derive(Debug, clap::Args)]
struct WindowListArgs {
    /// List only this source
    #[arg(long)]
    source: Option<String>,
    /// List quarter-hours without an applied or unchanged window [default span: the last day]
    #[arg(long, visible_alias = "gaps")]
    missing: bool,
    /// List only windows from this time on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    since: Option<DateTime<Utc>>,
    /// List only windows before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    until: Option<DateTime<Utc>>,
    /// Maximum number of windows, newest first [default: 20; with --missing: no limit]
    #[arg(long)]
    limit: Option<i64>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// A row of the list of windows.
#[derive(Debug, Serialize)]
struct WindowListRow {
    source: String,
    window_start_utc: DateTime<Utc>,
    state: String,
    note: Option<String>,
    file_id: Option<Uuid>,
    rows: Option<i32>,
    bytes: Option<i64>,
    stored_bytes: Option<i64>,
    new: Option<i32>,
    changed: Option<i32>,
    parse_errors: Option<i32>,
    seconds: Option<f64>,
    updated_at: DateTime<Utc>,
}

/// Runs the subcommand, or lists the windows if there is none.
pub async fn run(args: WindowsArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    match args.command {
        Some(WindowsCommand::Accept(accept)) => accept::run(accept, fleet, config).await,
        Some(WindowsCommand::Withdraw(withdraw)) => withdraw::run(withdraw, fleet, config).await,
        None => list_windows(args.list, config).await,
    }
}

/// Lists the windows, or the missing ones.
async fn list_windows(args: WindowListArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    if let Some(source) = &args.source {
        expect_source(&session.db.pool, source).await?;
    }
    if args.missing {
        let rows = find_missing(&session.db.pool, &args).await?;
        session.close().await?;
        return show_missing(&rows, args.json);
    }
    let rows = sqlx::query_as!(
        WindowListRow,
        r#"-- windows
        select
          w.source, w.window_start_utc, w.state, w.note, w.file_id, w.updated_at,
          f.row_count as "rows?", f.bytes as "bytes?", f.stored_bytes as "stored_bytes?",
          (r.report #>> '{ingest,new}')::int as new, (r.report #>> '{ingest,changed}')::int as changed,
          r.errors as "parse_errors?", r.duration_seconds as "seconds?"
        from fleet.windows w
        left join raw.csv_files f on f.file_id = w.file_id
        left join audit.etl_runs r on r.file_id = w.file_id and r.window_start_utc = w.window_start_utc
        where ($1::text is null or w.source = $1)
          and ($2::timestamptz is null or w.window_start_utc >= $2)
          and ($3::timestamptz is null or w.window_start_utc < $3)
        order by w.window_start_utc desc, w.source
        limit $4"#,
        args.source,
        args.since,
        args.until,
        args.limit.unwrap_or(20)
    )
    .fetch_all(&session.db.pool)
    .await
    .context("could not read fleet.windows")?;
    session.close().await?;
    if args.json.json {
        output::print_json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        println!(
            "no windows yet: `vinops scheduler` enqueues one per quarter-hour, `vinops ingest FILE` ingests a file"
        );
        return Ok(());
    }
    let mut table =
        output::new_table(&["window (UTC)", "source", "state", "rows", "new", "changed", "errors", "seconds", "file"]);
    let number = |n: Option<i32>| right_cell(n.map(format_count).unwrap_or_default());
    for row in rows {
        table.add_row(vec![
            output::format_minute(row.window_start_utc).into(),
            row.source.into(),
            match row.note {
                Some(note) => format!("{}: {note}", row.state).into(),
                None => row.state.into(),
            },
            number(row.rows),
            number(row.new),
            number(row.changed),
            number(row.parse_errors),
            right_cell(row.seconds.map(|s| format!("{s:.2}")).unwrap_or_default()),
            row.file_id.map(|id| id.to_string()).unwrap_or_default().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// A quarter-hour without an applied or unchanged window.
#[derive(Debug, Serialize)]
struct MissingWindow {
    source: String,
    window_start_utc: DateTime<Utc>,
    /// The state of the window. Null if the scheduler never opened the window.
    state: Option<String>,
    note: Option<String>,
}

/// Returns the past quarter-hours of the span without an applied or unchanged window, newest first. A source is
/// included from its first window on.
async fn find_missing(pool: &PgPool, args: &WindowListArgs) -> anyhow::Result<Vec<MissingWindow>> {
    sqlx::query_file_as!(MissingWindow, "src/cli/windows.missing.sql", args.source, args.since, args.until, args.limit)
        .fetch_all(pool)
        .await
        .context("could not read missing windows")
}

/// Prints the missing windows.
fn show_missing(rows: &[MissingWindow], json: JsonArgs) -> Result<(), CommandError> {
    if json.json {
        output::print_json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        println!("no window is missing");
        return Ok(());
    }
    let mut table = output::new_table(&["window (UTC)", "source", "state", "reason"]);
    for row in rows {
        table.add_row(vec![
            output::format_minute(row.window_start_utc),
            row.source.clone(),
            row.state.clone().unwrap_or_else(|| "never opened".to_owned()),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(())
}
