//! `vinops jobs`: lists, follows and manages jobs.

mod act;
mod tail;

use super::session::{Connect, Session};
use super::show::{self, Json, right};
use super::source::expect_source;
use super::{Failure, Fleet};
use crate::config::Config;
use crate::queue::operate::{self, Filter, JobRow, Shown};
use crate::source;
use crate::telemetry::visible_line;
use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValue, TypedValueParser};
use std::ffi::OsStr;

/// The subcommands of `vinops jobs`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List jobs, newest first
    List(ListArgs),
    /// Show one job and all its runs
    Show(ShowArgs),
    /// Requeue finished jobs and keep their run history
    Requeue(act::Args),
    /// Cancel waiting jobs and interrupt running ones
    Cancel(act::Args),
    /// Make scheduled and retryable jobs due now
    RunNow(act::Args),
    /// Pause job kinds; running jobs continue
    Pause(act::KindArgs),
    /// Resume paused job kinds
    Resume(act::KindArgs),
    /// Limit how many jobs of a kind run at once on all workers
    Limit(act::LimitArgs),
    /// Count jobs by kind and state, and list paused and limited kinds
    Stats(ListArgs),
    /// Follow finished job runs
    Tail(ListArgs),
}

/// The filter of jobs, shared by the subcommands.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FilterArgs {
    /// Match jobs of these kinds, separated by commas
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Match jobs in these states, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = StateParser)]
    state: Vec<String>,
    /// Match jobs of this source
    #[arg(long)]
    source: Option<String>,
    /// Match jobs of this window, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    window: Option<DateTime<Utc>>,
    /// Match jobs whose key begins with this text, e.g. copart/2026-11-20
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// Match jobs enqueued since this time (tail: runs finished since), RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    since: Option<DateTime<Utc>>,
    /// Match jobs whose error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Maximum number of jobs, newest first [list: 50, other commands: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

const STATES: [&str; 7] =
    ["available", "scheduled", "running", "retryable", "completed", "cancelled", "discarded"];

fn state(text: &str) -> Result<String, String> {
    STATES
        .contains(&text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("unknown job state {text:?}; expected one of {}", STATES.join(", ")))
}

/// A value parser for job states, which also lists the states in shell completions.
#[derive(Clone)]
struct StateParser;

impl TypedValueParser for StateParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        state.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(STATES.into_iter().map(PossibleValue::new)))
    }
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        let FilterArgs { kind, state, source, window, key_prefix, since, error, limit } = self;
        kind.is_empty()
            && state.is_empty()
            && source.is_none()
            && window.is_none()
            && key_prefix.is_none()
            && since.is_none()
            && error.is_none()
            && limit.is_none()
    }

    /// Connects and returns the filter.
    ///
    /// # Errors
    /// Returns a usage error if the filter contains an unknown kind or source.
    async fn open(
        self,
        fleet: Fleet,
        config: Config,
        connect: &Connect,
    ) -> Result<(Session, Filter), Failure> {
        self.kind.iter().try_for_each(|kind| fleet.known(kind).map(drop))?;
        let session = Session::open(config, connect).await?;
        if let Some(source) = &self.source {
            expect_source(&session.db.pool, source).await?;
        }
        let FilterArgs { kind, state, source, window, key_prefix, since, error, limit } = self;
        let filter =
            Filter { kinds: kind, states: state, key: key_prefix, source, window, since, error, limit };
        Ok((session, filter))
    }
}

/// Arguments of `vinops jobs list`, `stats` and `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops jobs list --state discarded --kind fetch --error 403")]
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
    /// Id of the job
    id: i64,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Runs a subcommand of `vinops jobs`.
pub async fn run(command: Command, fleet: Fleet, config: Config) -> Result<(), Failure> {
    match command {
        Command::List(args) => list(args, fleet, config).await,
        Command::Show(args) => show_one(args, fleet, config).await,
        Command::Requeue(args) => act::requeue(args, fleet, config).await,
        Command::Cancel(args) => act::cancel(args, fleet, config).await,
        Command::RunNow(args) => act::run_now(args, fleet, config).await,
        Command::Pause(args) => act::pause(args, fleet, config).await,
        Command::Resume(args) => act::resume(args, fleet, config).await,
        Command::Limit(args) => act::limit(args, fleet, config).await,
        Command::Stats(args) => stats(args, fleet, config).await,
        Command::Tail(args) => tail::run(args, fleet, config).await,
    }
}

async fn list(args: ListArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let (session, filter) = args.filter.open(fleet, config, &args.connect).await?;
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

async fn show_one(args: ShowArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let shown = operate::show(&session.db.pool, args.id).await?;
    let Shown { job, attempts } = shown
        .ok_or_else(|| anyhow!("job {} does not exist\nhint: `vinops jobs list` lists the jobs", args.id))?;
    let hint = way_back(&session, fleet, &job).await?;
    session.close().await?;
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
        println!("          {}; its worker has been asked to release it", visible_line(cancelling));
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
    if let Some(hint) = hint {
        println!("{hint}");
    }
    Ok(())
}

/// Returns a hint for a discarded or cancelled job: the command that requeues the job, or the reason why that is
/// impossible. Returns `None` for a job in another state.
async fn way_back(session: &Session, fleet: Fleet, job: &JobRow) -> anyhow::Result<Option<String>> {
    if !matches!(job.state.as_str(), "discarded" | "cancelled") {
        return Ok(None);
    }
    let pool = &session.db.pool;
    if job.kind == fleet.fetch.kind && !source::can_fetch_again(pool, job.id).await? {
        return Ok(Some(
            "the job cannot be requeued: a source is fetched once per quarter-hour, and the attempt of this window \
             is used or its time is over. The next window has its own fetch job."
                .to_owned(),
        ));
    }
    Ok(Some(match operate::successor(pool, job.id).await? {
        Some(other) => format!("the job cannot be requeued: job {other} has its key"),
        None => format!("to requeue the job: vinops jobs requeue {}", job.id),
    }))
}

async fn stats(args: ListArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    #[derive(serde::Serialize)]
    struct Stats {
        counts: Vec<operate::Count>,
        kinds: Vec<operate::KindRow>,
    }
    let (session, filter) = args.filter.open(fleet, config, &args.connect).await?;
    let counts = operate::counts(&session.db.pool, &filter).await?;
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
            println!("{}: limited to {most} at once on all workers", kind.kind);
        }
        if let (Some(at), Some(who), Some(why)) = (kind.paused_at, kind.paused_by, kind.paused_because) {
            let because = format!("{who}: {why}");
            println!("{}: paused since {} by {}", kind.kind, show::minute(at), visible_line(&because));
        }
    }
    Ok(())
}
