//! `vinops windows`: the newest windows and what became of them; with `--missing` the quarter-hours of a span that
//! brought nothing into the data.

use super::session::{Connect, Session};
use super::show::{self, Json, count, right};
use super::source::expect_source;
use super::{Failure, Fleet, replay};
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
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

/// What to do with a window.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Apply a quarantined file after all
    Accept(accept::Args),
    /// Take a file back that was ingested by mistake
    Withdraw(withdraw::Args),
}

/// Arguments of a command that acts on the file of a window.
#[derive(Debug, clap::Args)]
struct WindowActArgs {
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

/// Arguments of the list.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Only quarter-hours without an applied or unchanged window; those of the last day unless a span is given
    #[arg(long)]
    missing: bool,
    /// Only from this time on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    since: Option<DateTime<Utc>>,
    /// Only before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    until: Option<DateTime<Utc>>,
    /// How many, the newest first; of the missing ones all unless it is given
    #[arg(long)]
    limit: Option<i64>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// A window as it is shown.
#[derive(Debug, Serialize)]
struct Row {
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

/// Runs the command, or prints the windows if there is none.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    match args.command {
        Some(Command::Accept(accept)) => accept::run(accept, fleet, config).await,
        Some(Command::Withdraw(withdraw)) => withdraw::run(withdraw, fleet, config).await,
        None => list(args.list, config).await,
    }
}

async fn list(args: ListArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    if let Some(source) = &args.source {
        expect_source(&session.db.pool, source).await?;
    }
    if args.missing {
        let rows = missing(&session.db.pool, &args).await?;
        session.close().await?;
        return show_missing(&rows, args.json);
    }
    let rows = sqlx::query_as!(
        Row,
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
    .context("read fleet.windows")?;
    session.close().await?;
    if args.json.json {
        show::json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        println!(
            "no windows yet: `vinops scheduler` enqueues one each quarter-hour, `vinops ingest FILE` takes in a file"
        );
        return Ok(());
    }
    let mut table = show::table(&[
        "window (UTC)",
        "source",
        "state",
        "rows",
        "new",
        "changed",
        "errors",
        "seconds",
        "file",
    ]);
    let number = |n: Option<i32>| right(n.map(count).unwrap_or_default());
    for row in rows {
        table.add_row(vec![
            show::minute(row.window_start_utc).into(),
            row.source.into(),
            match row.note {
                Some(note) => format!("{}: {note}", row.state).into(),
                None => row.state.into(),
            },
            number(row.rows),
            number(row.new),
            number(row.changed),
            number(row.parse_errors),
            right(row.seconds.map(|s| format!("{s:.2}")).unwrap_or_default()),
            row.file_id.map(|id| id.to_string()).unwrap_or_default().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// A quarter-hour that brought nothing.
#[derive(Debug, Serialize)]
struct Missing {
    source: String,
    window_start_utc: DateTime<Utc>,
    /// What became of it; none where nobody opened it.
    state: Option<String>,
    note: Option<String>,
}

/// The quarter-hours of the span that are over and have no applied or unchanged window, for each source that had a
/// window before them, the newest first.
async fn missing(pool: &PgPool, args: &ListArgs) -> anyhow::Result<Vec<Missing>> {
    sqlx::query_file_as!(
        Missing,
        "src/cli/windows.missing.sql",
        args.source,
        args.since,
        args.until,
        args.limit
    )
    .fetch_all(pool)
    .await
    .context("look for missing windows")
}

fn show_missing(rows: &[Missing], json: Json) -> Result<(), Failure> {
    if json.json {
        show::json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        println!("no window is missing");
        return Ok(());
    }
    let mut table = show::table(&["window (UTC)", "source", "state", "why"]);
    for row in rows {
        table.add_row(vec![
            show::minute(row.window_start_utc),
            row.source.clone(),
            row.state.clone().unwrap_or_else(|| "never opened".to_owned()),
            row.note.clone().unwrap_or_default(),
        ]);
    }
    println!("{table}");
    Ok(())
}
