//! `vinops jobs`: look at jobs, follow them, and steer them.

mod act;
mod tail;

use super::session::{Connect, Session};
use super::show::{self, Json, right};
use super::{Failure, Fleet};
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
    /// Put finished jobs back, history kept
    Requeue(act::Args),
    /// Cancel jobs that wait, and cut off those that run
    Cancel(act::Args),
    /// Run jobs now that wait for their time or their next attempt
    RunNow(act::Args),
    /// Let no worker claim jobs of a kind; what runs goes on
    Pause(act::KindArgs),
    /// Let workers claim them again
    Resume(act::KindArgs),
    /// Let only so many jobs of a kind run at once in the whole fleet
    Limit(act::LimitArgs),
    /// Count jobs by kind and state, and show what is paused or limited
    Stats(ListArgs),
    /// Follow the ends of runs as they happen
    Tail(ListArgs),
}

/// Which jobs; the same for every command.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FilterArgs {
    /// Only these kinds
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Only these states: available, scheduled, running, retryable, completed, cancelled, discarded
    #[arg(long, value_delimiter = ',', value_parser = STATES)]
    state: Vec<String>,
    /// Only keys that begin so, such as copart/
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Only jobs put in since (tail: runs ended since), RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    since: Option<DateTime<Utc>>,
    /// Only jobs whose error contains this
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// At most so many, the newest; else list shows 50, and the others take all
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

const STATES: [&str; 7] =
    ["available", "scheduled", "running", "retryable", "completed", "cancelled", "discarded"];

impl FilterArgs {
    fn is_empty(&self) -> bool {
        let FilterArgs { kind, state, source, since, error, limit } = self;
        kind.is_empty()
            && state.is_empty()
            && source.is_none()
            && since.is_none()
            && error.is_none()
            && limit.is_none()
    }

    fn filter(self) -> Filter {
        let FilterArgs { kind, state, source, since, error, limit } = self;
        Filter { kinds: kind, states: state, key: source, since, error, limit }
    }
}

/// Arguments of `vinops jobs list`, `stats` and `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "  vinops jobs list --state discarded --kind fetch --error 403")]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
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

/// Runs it.
pub async fn run(command: Command, fleet: Fleet, config: Config) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, config).await,
        Command::Show(args) => show_one(args, config).await,
        Command::Requeue(args) => act::requeue(args, config).await,
        Command::Cancel(args) => act::cancel(args, config).await,
        Command::RunNow(args) => act::run_now(args, config).await,
        Command::Pause(args) => act::pause(args, fleet, config).await,
        Command::Resume(args) => act::resume(args, fleet, config).await,
        Command::Limit(args) => act::limit(args, fleet, config).await,
        Command::Stats(args) => stats(args, config).await,
        Command::Tail(args) => tail::run(args, config).await,
    }
}

async fn list(args: ListArgs, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let filter = args.filter.filter();
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
    if let Some(cancelling) = &job.cancelling {
        println!("          {cancelling}; its worker has been asked to let go of it");
    }
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

async fn stats(args: ListArgs, config: Config) -> Result<(), Failure> {
    #[derive(serde::Serialize)]
    struct Stats {
        counts: Vec<operate::Count>,
        kinds: Vec<operate::KindRow>,
    }
    let session = Session::open(config, &args.connect).await?;
    let counts = operate::counts(&session.db.pool, &args.filter.filter()).await?;
    let kinds = operate::kinds(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        show::json(&Stats { counts, kinds })?;
        return Ok(());
    }
    let mut table = show::table(&["kind", "state", "jobs", "due", "oldest due"]);
    for count in counts {
        table.add_row(vec![
            count.kind.into(),
            count.state.into(),
            right(show::count(count.jobs)),
            right(show::count(count.ready)),
            right(count.oldest_ready_seconds.map(show::seconds).unwrap_or_default()),
        ]);
    }
    println!("{table}");
    for kind in kinds {
        if let Some(most) = kind.max_running {
            println!("{}: at most {most} at once in the whole fleet", kind.kind);
        }
        if let (Some(at), Some(who), Some(why)) = (kind.paused_at, kind.paused_by, kind.paused_because) {
            println!("{}: paused since {} by {who}: {why}", kind.kind, show::minute(at));
        }
    }
    Ok(())
}
