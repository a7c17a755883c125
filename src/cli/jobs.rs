//! `vinops jobs`: lists, follows and manages jobs.

mod commands;
mod tail;

use super::output::{self, JsonArgs, right_cell};
use super::session::{CommandSession, ConnectArgs};
use super::source::expect_source;
use super::{CommandError, JobRegistry};
use crate::config::Config;
use crate::queue::queries::{self, JobDetails, JobFilter, JobRow};
use crate::source;
use crate::telemetry::escape_line;
use anyhow::anyhow;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValue, TypedValueParser};
use std::ffi::OsStr;

/// The subcommands of `vinops jobs`.
#[derive(Debug, clap::Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first
    List(JobListArgs),
    /// Show one job and all its runs
    Show(JobShowArgs),
    /// Requeue finished jobs and keep their run history
    Requeue(commands::JobActionArgs),
    /// Cancel waiting jobs and interrupt running ones
    Cancel(commands::JobActionArgs),
    /// Make scheduled and retryable jobs due now
    RunNow(commands::JobActionArgs),
    /// Pause job kinds; running jobs continue
    Pause(commands::JobKindArgs),
    /// Resume paused job kinds
    Resume(commands::JobKindArgs),
    /// Limit how many jobs of a kind run at once on all workers
    Limit(commands::JobLimitArgs),
    /// Count jobs by kind and state, and list paused and limited kinds
    Stats(JobListArgs),
    /// Follow finished job runs
    Tail(JobListArgs),
}

/// The filter of jobs, shared by the subcommands.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct JobFilterArgs {
    /// Match jobs of these kinds, separated by commas
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Match jobs in these states, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = JobStateParser)]
    state: Vec<String>,
    /// Match jobs of this source
    #[arg(long)]
    source: Option<String>,
    /// Match jobs of this window, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    window: Option<DateTime<Utc>>,
    /// Match jobs whose key begins with this text, e.g. copart/2026-11-20
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
    /// Match jobs enqueued since this time (tail: runs finished since), RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    since: Option<DateTime<Utc>>,
    /// Match jobs whose error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Maximum number of jobs, newest first [list: 50, other commands: no limit]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

const JOB_STATES: [&str; 7] = ["available", "scheduled", "running", "retryable", "completed", "cancelled", "discarded"];

fn parse_state(text: &str) -> Result<String, String> {
    JOB_STATES
        .contains(&text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("unknown job state {text:?}; expected one of {}", JOB_STATES.join(", ")))
}

/// A value parser for job states, which also lists the states in shell completions.
#[derive(Clone)]
struct JobStateParser;

impl TypedValueParser for JobStateParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        parse_state.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(JOB_STATES.into_iter().map(PossibleValue::new)))
    }
}

impl JobFilterArgs {
    fn is_empty(&self) -> bool {
        let JobFilterArgs { kind, state, source, window, key_prefix, since, error, limit } = self;
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
    async fn open_session(
        self,
        fleet: JobRegistry,
        config: Config,
        connect: &ConnectArgs,
    ) -> Result<(CommandSession, JobFilter), CommandError> {
        self.kind.iter().try_for_each(|kind| fleet.find_job(kind).map(drop))?;
        let session = CommandSession::open(config, connect).await?;
        if let Some(source) = &self.source {
            expect_source(&session.db.pool, source).await?;
        }
        let JobFilterArgs { kind, state, source, window, key_prefix, since, error, limit } = self;
        let filter = JobFilter { kinds: kind, states: state, key: key_prefix, source, window, since, error, limit };
        Ok((session, filter))
    }
}

/// Arguments of `vinops jobs list`, `stats` and `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops jobs list --state discarded --kind fetch --error 403")]
pub struct JobListArgs {
    #[command(flatten)]
    filter: JobFilterArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops jobs show`.
#[derive(Debug, clap::Args)]
pub struct JobShowArgs {
    /// Id of the job
    id: i64,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Runs a subcommand of `vinops jobs`.
pub async fn run(command: JobsCommand, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    match command {
        JobsCommand::List(args) => list_jobs(args, fleet, config).await,
        JobsCommand::Show(args) => show_job(args, fleet, config).await,
        JobsCommand::Requeue(args) => commands::requeue_jobs(args, fleet, config).await,
        JobsCommand::Cancel(args) => commands::cancel_jobs(args, fleet, config).await,
        JobsCommand::RunNow(args) => commands::run_now(args, fleet, config).await,
        JobsCommand::Pause(args) => commands::pause_kinds(args, fleet, config).await,
        JobsCommand::Resume(args) => commands::resume_kinds(args, fleet, config).await,
        JobsCommand::Limit(args) => commands::limit_kind(args, fleet, config).await,
        JobsCommand::Stats(args) => show_stats(args, fleet, config).await,
        JobsCommand::Tail(args) => tail::run(args, fleet, config).await,
    }
}

async fn list_jobs(args: JobListArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let (session, filter) = args.filter.open_session(fleet, config, &args.connect).await?;
    let jobs = queries::list_jobs(&session.db.pool, &filter).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&jobs)?;
        return Ok(());
    }
    let mut table = output::new_table(&["id", "kind", "state", "attempt", "key", "run at (UTC)", "worker", "error"]);
    for job in jobs {
        table.add_row(vec![
            right_cell(job.id),
            job.kind.into(),
            job.state.into(),
            format!("{}/{}", job.attempt, job.max_attempts).into(),
            job.key.unwrap_or_default().into(),
            output::format_minute(job.run_at).into(),
            job.locked_by.unwrap_or_default().into(),
            job.error.unwrap_or_default().chars().take(80).collect::<String>().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

async fn show_job(args: JobShowArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let shown = queries::job_details(&session.db.pool, args.id).await?;
    let JobDetails { job, attempts } =
        shown.ok_or_else(|| anyhow!("job {} does not exist\nhint: `vinops jobs list` lists the jobs", args.id))?;
    let hint = requeue_hint(&session, fleet, &job).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&JobDetails { job, attempts })?;
        return Ok(());
    }
    println!("job       {} ({})", job.id, job.kind);
    println!("state     {}, attempt {} of {}, rescued {} times", job.state, job.attempt, job.max_attempts, job.rescues);
    if let Some(cancelling) = &job.cancelling {
        println!("          {}; its worker has been asked to release it", escape_line(cancelling));
    }
    println!("key       {}", job.key.as_deref().unwrap_or("none"));
    println!("payload   {}", job.payload);
    if let Some(result) = &job.result {
        println!("result    {result}");
    }
    if let Some(error) = &job.error {
        println!("error     {error}");
    }
    let mut table = output::new_table(&["run", "attempt", "worker", "started (UTC)", "seconds", "outcome", "error"]);
    for a in attempts {
        let lasted = a.finished_at.map(|end| format!("{:.2}", (end - a.started_at).as_seconds_f64()));
        table.add_row(vec![
            right_cell(a.run),
            right_cell(a.attempt),
            a.worker.into(),
            a.started_at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
            right_cell(lasted.unwrap_or_default()),
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
async fn requeue_hint(session: &CommandSession, fleet: JobRegistry, job: &JobRow) -> anyhow::Result<Option<String>> {
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
    Ok(Some(match queries::find_successor(pool, job.id).await? {
        Some(other) => format!("the job cannot be requeued: job {other} has its key"),
        None => format!("to requeue the job: vinops jobs requeue {}", job.id),
    }))
}

async fn show_stats(args: JobListArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    #[derive(serde::Serialize)]
    struct JobStats {
        counts: Vec<queries::JobCount>,
        kinds: Vec<queries::KindSettingsRow>,
    }
    let (session, filter) = args.filter.open_session(fleet, config, &args.connect).await?;
    let counts = queries::count_jobs(&session.db.pool, &filter).await?;
    let kinds = queries::list_kind_settings(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&JobStats { counts, kinds })?;
        return Ok(());
    }
    let mut table = output::new_table(&["kind", "state", "jobs", "due", "oldest due"]);
    for count in counts {
        table.add_row(vec![
            count.kind.into(),
            count.state.into(),
            right_cell(output::format_count(count.jobs)),
            right_cell(output::format_count(count.ready)),
            right_cell(count.oldest_ready_seconds.map(output::format_seconds).unwrap_or_default()),
        ]);
    }
    println!("{table}");
    for kind in kinds {
        if let Some(most) = kind.max_running {
            println!("{}: limited to {most} at once on all workers", kind.kind);
        }
        if let (Some(at), Some(who), Some(why)) = (kind.paused_at, kind.paused_by, kind.paused_because) {
            let because = format!("{who}: {why}");
            println!("{}: paused since {} by {}", kind.kind, output::format_minute(at), escape_line(&because));
        }
    }
    Ok(())
}
