//! `vinops source`: manages sources, their breakers and their sessions.

use super::output::{self, JsonArgs};
pub(super) use super::session::os_user as operator;
use super::session::{CommandSession, ConnectArgs};
use super::{CommandError, JobRegistry};
use crate::config::Config;
use crate::source::{self, SourceRemoval, SourceStatus, UnknownSource, WARN_FAILED_SLOTS};
use crate::telemetry::escape_line;
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;

/// The subcommands of `vinops source`.
#[derive(Debug, clap::Subcommand)]
pub enum SourceCommand {
    /// Show the state, breaker, last success and session of each source
    Status(SourceStatusArgs),
    /// Allow fetches from a source again
    Enable(SourceSwitchArgs),
    /// Stop all fetches from a source, scheduled and manual
    Disable(SourceSwitchArgs),
    /// Close a source's breaker and reset its failure count
    ResetBreaker(SourceSwitchArgs),
    /// Accept the size of a source's newest file after the feed has become smaller
    AcceptSize(SourceSwitchArgs),
    /// Log in now and store the session for all workers
    Login(SourceLoginArgs),
    /// Add a source, so that its files can be ingested and fetched
    Add(SourceNameArgs),
    /// List sources
    List(SourceListArgs),
    /// Remove a source that has no file
    Remove(SourceNameArgs),
}

/// Arguments of `vinops source add` and `remove`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vinops source add iaai --reason \"a second auction\"\n  vinops source remove iaai \
    --reason \"misspelt\""
)]
pub struct SourceNameArgs {
    /// Name: a lower-case letter, then up to 62 lower-case letters, digits, _ and -
    #[arg(value_name = "NAME", value_parser = parse_name)]
    source: String,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops source list`.
#[derive(Debug, clap::Args)]
pub struct SourceListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    source::is_source_name(text)
        .then(|| text.to_owned())
        .ok_or("expected a lower-case letter, then up to 62 lower-case letters, digits, _ and -")
}

/// Arguments of `vinops source status`.
#[derive(Debug, clap::Args)]
pub struct SourceStatusArgs {
    /// Show only this source
    source: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops source enable`, `disable`, `reset-breaker` and `accept-size`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops source reset-breaker copart --reason \"the address was renewed\"")]
pub struct SourceSwitchArgs {
    /// Name of the source
    #[arg(default_value = "copart")]
    source: String,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops source login`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Logs in as COPART_USER with COPART_PASSWORD. The cookies are stored encrypted with VINOPS_COOKIE_KEY."
)]
pub struct SourceLoginArgs {
    /// Name of the source
    #[arg(default_value = "copart")]
    source: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs a subcommand of `vinops source`.
pub async fn run(command: SourceCommand, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    match command {
        SourceCommand::Status(args) => show_status(args, config).await,
        SourceCommand::Enable(args) => switch_source(args, config, true).await,
        SourceCommand::Disable(args) => switch_source(args, config, false).await,
        SourceCommand::ResetBreaker(args) => reset_breaker(args, config).await,
        SourceCommand::AcceptSize(args) => accept_size(args, config).await,
        SourceCommand::Login(args) => log_in(args, fleet, config).await,
        SourceCommand::Add(args) => add_source(args, config).await,
        SourceCommand::List(args) => list_sources(args, config).await,
        SourceCommand::Remove(args) => remove_source(args, config).await,
    }
}

/// Checks that a source is known.
///
/// # Errors
/// Returns a usage error if the source is unknown.
pub(super) async fn expect_source(pool: &PgPool, source: &str) -> Result<(), CommandError> {
    source::expect_known(pool, source)
        .await
        .map_err(|error| if error.is::<UnknownSource>() { CommandError::usage(error) } else { error.into() })
}

async fn add_source(args: SourceNameArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let added = source::add_source(&session.db.pool, &args.source, &operator(), &args.reason).await?;
    session.close().await?;
    print_change(args.json, &args.source, added, &format!("source {} is added", args.source))
}

async fn remove_source(args: SourceNameArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    expect_source(&session.db.pool, &args.source).await?;
    let removal = source::remove_source(&session.db.pool, &args.source, &operator(), &args.reason).await?;
    session.close().await?;
    let name = &args.source;
    match removal {
        SourceRemoval::Removed => print_change(args.json, name, true, &format!("source {name} is removed")),
        SourceRemoval::Unknown => Err(CommandError::usage(anyhow!("unknown source {name:?}"))),
        SourceRemoval::HasFiles => Err(anyhow!(
            "source {name:?} has files and cannot be removed\nhint: to stop its fetches, run `vinops source disable \
             {name} --reason \"…\"`"
        )
        .into()),
        SourceRemoval::HasJobs => Err(anyhow!(
            "source {name:?} has unfinished jobs\nhint: cancel them with `vinops jobs cancel --source {name}`"
        )
        .into()),
    }
}

async fn list_sources(args: SourceListArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let sources = source::list_sources(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&sources)?;
        return Ok(());
    }
    let mut table = output::new_table(&["source", "fetched", "files", "last good window (UTC)"]);
    for source in sources {
        table.add_row(vec![
            source.source.into(),
            if source.enabled { "yes" } else { "no" }.into(),
            output::right_cell(output::format_count(source.files)),
            source.last_good_window.map(output::format_minute).unwrap_or_default().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn show_status(args: SourceStatusArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    if let Some(source) = &args.source {
        expect_source(&session.db.pool, source).await?;
    }
    let sources = source::read_status(&session.db.pool, args.source.as_deref()).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&sources)?;
        return Ok(());
    }
    if sources.is_empty() {
        println!("no sources yet: `vinops source add NAME --reason \"…\"` adds one");
    }
    for status in sources {
        println!("{}", describe_status(&status));
    }
    Ok(())
}

/// Returns the status of a source as lines of text.
fn describe_status(status: &SourceStatus) -> String {
    let at = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), output::format_minute);
    let fetching = match (status.enabled, status.auto_fetch_enabled) {
        (false, _) => format!("disabled; vinops source enable {}", status.source),
        (true, false) => "manually only: config.auto_fetch_enabled is false".to_owned(),
        (true, true) => "every quarter-hour".to_owned(),
    };
    let breaker = match (status.breaker.as_str(), status.probe_job) {
        ("half_open", Some(job)) => format!("half open, job {job} is the probe"),
        ("open", _) => format!(
            "open since {}, probe at {}; vinops source reset-breaker {}",
            at(status.opened_at),
            at(status.probe_at),
            status.source
        ),
        _ if status.consecutive_failures >= WARN_FAILED_SLOTS => {
            "closed, opens after 5 failed slots in a row".to_owned()
        }
        (other, _) => other.to_owned(),
    };
    let mut lines = vec![
        format!("source        {}", status.source),
        format!("fetched       {fetching}"),
        format!("breaker       {breaker}"),
        format!("failed slots  {} in a row", status.consecutive_failures),
        format!("last success  {}", at(status.last_success_at)),
        format!("last applied  {}", at(status.last_applied_window)),
    ];
    if let Some(error) = &status.last_error {
        lines.push(format!("last failure  {}: {}", at(status.last_failure_at), escape_line(error)));
    }
    let until = status
        .session_expires_at
        .map_or_else(|| "none".to_owned(), |end| format!("until {}", output::format_minute(end)));
    lines.push(match &status.session_error {
        Some(error) => format!("session       {until}; the last login failed: {}", escape_line(error)),
        None => format!("session       {until}"),
    });
    if !status.transitions.is_empty() {
        let mut table = output::new_table(&["at (UTC)", "from", "to", "who", "why"]);
        for t in &status.transitions {
            table.add_row(vec![
                t.at.format("%Y-%m-%d %H:%M:%S").to_string(),
                t.from.clone(),
                t.to.clone(),
                t.who.clone(),
                t.why.clone(),
            ]);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}

async fn switch_source(args: SourceSwitchArgs, config: Config, on: bool) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    expect_source(&session.db.pool, &args.source).await?;
    let changed = source::switch_source(&session.db.pool, &args.source, on, &operator(), &args.reason).await?;
    session.close().await?;
    let word = if on { "enabled" } else { "disabled" };
    print_change(args.json, &args.source, changed, &format!("source {} is {word}", args.source))
}

async fn reset_breaker(args: SourceSwitchArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let pool = &session.db.pool;
    expect_source(pool, &args.source).await?;
    let changed = source::reset_breaker(pool, &args.source, &operator(), &args.reason).await?;
    session.close().await?;
    print_change(args.json, &args.source, changed, &format!("the breaker of {} is closed", args.source))
}

async fn accept_size(args: SourceSwitchArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let mut connection = session.db.pool.acquire().await.context("could not acquire a connection")?;
    let accepted = source::accept_size(&mut connection, &args.source, &operator(), &args.reason).await;
    drop(connection);
    let accepted = accepted?;
    session.close().await?;
    let (window, rows) = (accepted.window_start_utc, accepted.row_count);
    let file = format!(
        "the newest file of source {}, window {}, {} rows",
        args.source,
        window.map_or_else(|| "none".to_owned(), output::format_minute),
        rows.unwrap_or(0)
    );
    match accepted.outcome.as_str() {
        "unknown" => {
            return Err(CommandError::usage(anyhow!(
                "source \"{}\" has no file whose size can be accepted\nhint: `vinops source status` lists the sources",
                args.source
            )));
        }
        "lots" => {
            return Err(anyhow!(
                "{file}, is incomplete because of its lot numbers, not its size\ndetail: too few of its records have \
                 a readable lot number\nhint: the report of its ingest job contains the counts"
            )
            .into());
        }
        _ => {}
    }
    let changed = accepted.outcome == "accepted";
    if args.json.json {
        let json = json!({
            "source": args.source, "changed": changed, "window_start_utc": window, "rows": rows,
        });
        output::print_json(&json)?;
    } else if changed {
        println!("accepted the size of {file}: later files are compared with it");
    } else {
        println!("{file}, is complete; nothing changed");
    }
    Ok(())
}

/// Prints the result of a change of a source.
fn print_change(json: JsonArgs, source: &str, changed: bool, what: &str) -> Result<(), CommandError> {
    if json.json {
        output::print_json(&json!({ "source": source, "changed": changed }))?;
    } else {
        println!("{what}{}", if changed { "" } else { " already" });
    }
    Ok(())
}

async fn log_in(args: SourceLoginArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    if config.copart.get()?.user.is_none() {
        return Err(CommandError::usage(anyhow!(
            "COPART_USER is not set\nhint: set COPART_USER, COPART_PASSWORD and VINOPS_COOKIE_KEY, or set \
             COPART_USER_FILE, COPART_PASSWORD_FILE and VINOPS_COOKIE_KEY_FILE to the paths of files that contain them"
        )));
    }
    let session = CommandSession::open(config, &args.connect).await?;
    expect_source(&session.db.pool, &args.source).await?;
    let who = format!("{}, process {}", operator(), std::process::id());
    let ends = (fleet.login)(&session.config, session.db.pool.clone(), args.source.clone(), who).await;
    session.close().await?;
    let ends = ends?;
    if args.json.json {
        output::print_json(&json!({ "source": args.source, "session_expires_at": ends }))?;
    } else {
        println!("logged in to {} until {}", args.source, output::format_minute(ends));
    }
    Ok(())
}
