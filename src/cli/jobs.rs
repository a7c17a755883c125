//! `vinops jobs`: look at jobs, and put failed ones back.

use super::Failure;
use super::session::{Connect, Session};
use super::show::{self, Json, right};
use crate::config::Config;
use crate::queue::operate::{self, Filter, Shown};
use anyhow::anyhow;
use chrono::{DateTime, Utc};

/// `vinops jobs …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List jobs, the newest first
    List(ListArgs),
    /// Show one job and every run of it
    Show(ShowArgs),
    /// Put a finished job back, history kept
    Requeue(RequeueArgs),
}

/// Arguments of `vinops jobs list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "  vinops jobs list --state discarded --kind fetch --error 403")]
pub struct ListArgs {
    /// Only these kinds
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Only these states: available, scheduled, running, retryable, completed, cancelled, discarded
    #[arg(long, value_delimiter = ',')]
    state: Vec<String>,
    /// Only keys that begin so, such as copart/
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Only jobs put in since, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    since: Option<DateTime<Utc>>,
    /// Only jobs whose error contains this
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50)]
    limit: i64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops jobs show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The job's id
    id: i64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops jobs requeue`.
#[derive(Debug, clap::Args)]
pub struct RequeueArgs {
    /// The job's id
    id: i64,
    /// Why; kept with the job
    #[arg(long, default_value = "put back by hand")]
    why: String,
    #[command(flatten)]
    connect: Connect,
}

/// Runs it.
pub async fn run(command: Command, config: Config) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, config).await,
        Command::Show(args) => show_one(args, config).await,
        Command::Requeue(args) => requeue(args, config).await,
    }
}

async fn list(args: ListArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let filter = Filter {
        kinds: args.kind,
        states: args.state,
        key: args.source,
        since: args.since,
        error: args.error,
        limit: Some(args.limit),
    };
    let jobs = operate::list(&session.db.pool, &filter).await?;
    session.close().await?;
    if args.json.json {
        show::json(&jobs)?;
        return Ok(());
    }
    let mut table =
        show::table(&["id", "kind", "state", "attempt", "key", "run at (UTC)", "worker", "error"]);
    for job in jobs {
        table.add_row(vec![
            right(job.id),
            job.kind.into(),
            job.state.into(),
            format!("{}/{}", job.attempt, job.max_attempts).into(),
            job.key.unwrap_or_default().into(),
            show::minute(job.run_at).into(),
            job.locked_by.unwrap_or_default().into(),
            job.error.unwrap_or_default().chars().take(80).collect::<String>().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn show_one(args: ShowArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let shown = operate::show(&session.db.pool, args.id).await?;
    session.close().await?;
    let Shown { job, attempts } = shown
        .ok_or_else(|| anyhow!("there is no job {}: `vinops jobs list` shows what there is", args.id))?;
    if args.json.json {
        show::json(&Shown { job, attempts })?;
        return Ok(());
    }
    println!("job       {} ({})", job.id, job.kind);
    println!(
        "state     {}, attempt {} of {}, rescued {} times",
        job.state, job.attempt, job.max_attempts, job.rescues
    );
    println!("key       {}", job.key.as_deref().unwrap_or("none"));
    println!("payload   {}", job.payload);
    if let Some(result) = &job.result {
        println!("result    {result}");
    }
    if let Some(error) = &job.error {
        println!("error     {error}");
    }
    let mut table =
        show::table(&["run", "attempt", "worker", "started (UTC)", "seconds", "outcome", "error"]);
    for a in attempts {
        let lasted = a.finished_at.map(|end| format!("{:.2}", (end - a.started_at).as_seconds_f64()));
        table.add_row(vec![
            right(a.run),
            right(a.attempt),
            a.worker.into(),
            a.started_at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            right(lasted.unwrap_or_default()),
            a.outcome.unwrap_or_else(|| "running".to_owned()).into(),
            a.error.unwrap_or_default().into(),
        ]);
    }
    println!("{table}");
    if matches!(job.state.as_str(), "discarded" | "cancelled") {
        println!("put it back with: vinops jobs requeue {}", job.id);
    }
    Ok(())
}

async fn requeue(args: RequeueArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let who = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .map_or_else(|| "an operator".to_owned(), |user| user.name);
    operate::requeue(&session.db.pool, args.id, who, &args.why).await?;
    session.close().await?;
    println!("job {} is available again", args.id);
    Ok(())
}
