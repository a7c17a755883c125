//! `vinops source`: how sources are, and the switches that operators turn.

use super::session::{Connect, Session};
use super::show::{self, Json};
use super::{Failure, Fleet};
use crate::config::Config;
use crate::source::{self, Status, WARN};
use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde_json::json;

/// `vinops source …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show switch, breaker, last success and session of each source
    Status(StatusArgs),
    /// Let a source be fetched again
    Enable(SwitchArgs),
    /// Fetch nothing more from a source, neither by schedule nor by hand
    Disable(SwitchArgs),
    /// Close a source's breaker and forget its failures
    ResetBreaker(SwitchArgs),
    /// Log in now and keep the session for the fleet
    Login(LoginArgs),
}

/// Arguments of `vinops source status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Only this one
    source: Option<String>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of those that turn a switch.
#[derive(Debug, clap::Args)]
#[command(after_help = "  vinops source reset-breaker copart --why \"the address was renewed\"")]
pub struct SwitchArgs {
    /// Which source
    #[arg(default_value = "copart")]
    source: String,
    /// Why; kept with who and when
    #[arg(long, alias = "reason", value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    why: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops source login`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Logs in as COPART_USER with COPART_PASSWORD; the cookies are kept under VINOPS_COOKIE_KEY."
)]
pub struct LoginArgs {
    /// Which source
    #[arg(default_value = "copart")]
    source: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Runs it.
pub async fn run(command: Command, fleet: Fleet, config: Config) -> Result<(), Failure> {
    match command {
        Command::Status(args) => status(args, config).await,
        Command::Enable(args) => switch(args, config, true).await,
        Command::Disable(args) => switch(args, config, false).await,
        Command::ResetBreaker(args) => reset_breaker(args, config).await,
        Command::Login(args) => login(args, fleet, config).await,
    }
}

async fn status(args: StatusArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let sources = source::status(&session.db.pool, args.source.as_deref()).await?;
    session.close().await?;
    if let (Some(source), true) = (&args.source, sources.is_empty()) {
        return Err(unknown(source));
    }
    if args.json.json {
        show::json(&sources)?;
        return Ok(());
    }
    if sources.is_empty() {
        println!("no sources yet: one is known from its first `vinops scheduler` or `vinops fetch --now`");
    }
    for status in sources {
        println!("{}", told(&status));
    }
    Ok(())
}

fn unknown(source: &str) -> Failure {
    anyhow!("there is no source {source}: `vinops source status` shows what there is").into()
}

/// A source in lines for people.
fn told(status: &Status) -> String {
    let at = |at: Option<DateTime<Utc>>| at.map_or_else(|| "never".to_owned(), show::minute);
    let fetching = match (status.enabled, status.auto_fetch_enabled) {
        (false, _) => format!("disabled; vinops source enable {}", status.source),
        (true, false) => "by hand only: config.auto_fetch_enabled is false".to_owned(),
        (true, true) => "every quarter-hour".to_owned(),
    };
    let breaker = match (status.breaker.as_str(), status.probe_job) {
        ("half_open", Some(job)) => format!("half open since job {job} is its probe"),
        ("open", _) => format!(
            "open since {}, probe at {}; vinops source reset-breaker {}",
            at(status.opened_at),
            at(status.probe_at),
            status.source
        ),
        _ if status.consecutive_failures >= WARN => {
            "closed, and near opening (5 failed slots in a row)".to_owned()
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
        lines.push(format!("last failure  {}: {error}", at(status.last_failure_at)));
    }
    let until = status
        .session_expires_at
        .map_or_else(|| "none".to_owned(), |end| format!("until {}", show::minute(end)));
    lines.push(match &status.session_error {
        Some(error) => format!("session       {until}; the last login was refused: {error}"),
        None => format!("session       {until}"),
    });
    if !status.transitions.is_empty() {
        let mut table = show::table(&["at (UTC)", "from", "to", "who", "why"]);
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

async fn switch(args: SwitchArgs, config: Config, on: bool) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let changed = source::switch(&session.db.pool, &args.source, on, &operator(), &args.why).await?;
    session.close().await?;
    let word = if on { "enabled" } else { "disabled" };
    say(&args, changed, &format!("source {} is {word}", args.source))
}

async fn reset_breaker(args: SwitchArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let pool = &session.db.pool;
    if source::status(pool, Some(&args.source)).await?.is_empty() {
        return Err(unknown(&args.source));
    }
    let changed = source::reset_breaker(pool, &args.source, &operator(), &args.why).await?;
    session.close().await?;
    say(&args, changed, &format!("the breaker of {} is closed", args.source))
}

fn say(args: &SwitchArgs, changed: bool, what: &str) -> Result<(), Failure> {
    if args.json.json {
        show::json(&json!({ "source": args.source, "changed": changed }))?;
    } else {
        println!("{what}{}", if changed { "" } else { ", as it was" });
    }
    Ok(())
}

async fn login(args: LoginArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    if config.copart.user.is_none() {
        return Err(Failure::wrong(anyhow!(
            "COPART_USER is not set: set it with COPART_PASSWORD and VINOPS_COOKIE_KEY, or name files that hold them in \
             COPART_USER_FILE, COPART_PASSWORD_FILE and VINOPS_COOKIE_KEY_FILE"
        )));
    }
    let session = Session::open(config, &args.connect).await?;
    let who = format!("{}, process {}", operator(), std::process::id());
    let ends = (fleet.login)(&session.config, session.db.pool.clone(), args.source.clone(), who).await;
    session.close().await?;
    let ends = ends?;
    if args.json.json {
        show::json(&json!({ "source": args.source, "session_expires_at": ends }))?;
    } else {
        println!("logged in to {} until {}", args.source, show::minute(ends));
    }
    Ok(())
}

/// Whose command this is.
pub(super) fn operator() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map_or_else(|| "an operator".to_owned(), |user| user.name)
}
