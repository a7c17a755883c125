//! The commands that change jobs and job kinds: requeue, cancel, run-now, pause, resume and limit.
//!
//! Jobs are selected by id or by a filter. An empty selection is a usage error, so that a forgotten filter never
//! means the whole table. Jobs found by a filter, and more than one job given by id, need a confirmation at the
//! terminal or `--yes`.

use super::super::confirm::confirm;
use super::super::output::{self, JsonArgs};
use super::super::session::{CommandSession, ConnectArgs, os_user};
use super::super::{CommandError, JobRegistry};
use super::JobFilterArgs;
use crate::config::Config;
use crate::queue::admin::{self, Actor};
use crate::queue::queries::{self, JobDetails};
use anyhow::anyhow;
use serde::Serialize;
use sqlx::PgPool;

/// Arguments of `vinops jobs requeue`, `cancel` and `run-now`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --state, a filter matches the states that the command applies to: requeue matches discarded and cancelled \
jobs, cancel matches waiting and running jobs, run-now matches scheduled and retryable jobs.

  vinops jobs requeue 4711 --reason 'the yard is back'
  vinops jobs requeue --kind fetch --since 2026-11-20T00:00:00Z --error 403
  vinops jobs cancel --source copart --state running
  vinops jobs run-now --kind fetch")]
pub struct JobActionArgs {
    /// Ids of jobs
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: JobFilterArgs,
    /// Reason, recorded with the jobs and in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "manual")]
    reason: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops jobs pause` and `resume`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vinops jobs pause fetch --reason 'the feed returns 403'\n  vinops jobs resume fetch"
)]
pub struct JobKindArgs {
    /// Job kinds
    #[arg(required = true)]
    kinds: Vec<String>,
    #[command(flatten)]
    how: OperatorArgs,
}

/// Arguments of `vinops jobs limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  vinops jobs limit ingest 2\n  vinops jobs limit ingest none")]
pub struct JobLimitArgs {
    /// Job kind
    kind: String,
    /// Maximum number of running jobs, or `none` to remove the limit
    #[arg(value_name = "MAX", value_parser = parse_limit)]
    most: RunningLimit,
    #[command(flatten)]
    how: OperatorArgs,
}

/// The reason, the database and the output form of a command on job kinds.
#[derive(Debug, clap::Args)]
struct OperatorArgs {
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "manual")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// A limit of running jobs. `None` means no limit.
#[derive(Debug, Clone, Copy)]
struct RunningLimit(Option<i32>);

fn parse_limit(text: &str) -> Result<RunningLimit, &'static str> {
    match text.parse() {
        Ok(most) if most > 0 => Ok(RunningLimit(Some(most))),
        _ if text == "none" => Ok(RunningLimit(None)),
        _ => Err("expected a number from 1, or none (to stop a kind, use `vinops jobs pause`)"),
    }
}

/// The result of a command on jobs, as lists of job ids.
#[derive(Debug, Default, Serialize)]
struct JobActionResult {
    /// Jobs that were changed.
    done: Vec<i64>,
    /// Running jobs, whose workers have been asked to release them.
    asked: Vec<i64>,
    /// Jobs that were not changed, because of their state or because another job has their key.
    left: Vec<i64>,
}

/// Runs `vinops jobs requeue`.
pub async fn requeue_jobs(args: JobActionArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let (session, ids) = select_jobs(&args, fleet, config, "requeue", &["discarded", "cancelled"]).await?;
    let (pool, by) = (&session.db.pool, Actor::new(os_user(), &args.reason));
    if let [id] = ids[..] {
        admin::requeue_job(pool, id, by.who, by.why).await?;
        return print_result(
            session,
            &args,
            "available again",
            JobActionResult { done: ids, ..JobActionResult::default() },
        )
        .await;
    }
    let done = admin::requeue_jobs(pool, &ids, &by).await?;
    print_result(session, &args, "available again", action_result(&ids, done, Vec::new())).await
}

/// Runs `vinops jobs cancel`.
pub async fn cancel_jobs(args: JobActionArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let open = ["available", "scheduled", "retryable", "running"];
    let (session, ids) = select_jobs(&args, fleet, config, "cancel", &open).await?;
    let cancelled = admin::cancel_jobs(&session.db.pool, &ids, &Actor::new(os_user(), &args.reason)).await?;
    let (asked, done): (Vec<_>, Vec<_>) = cancelled.into_iter().partition(|job| job.running);
    let acted = action_result(&ids, done.iter().map(|job| job.id).collect(), asked.iter().map(|job| job.id).collect());
    expect_changed(&session.db.pool, &ids, &acted, "cancelled").await?;
    print_result(session, &args, "cancelled", acted).await
}

/// Runs `vinops jobs run-now`.
pub async fn run_now(args: JobActionArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let (session, ids) = select_jobs(&args, fleet, config, "run", &["scheduled", "retryable"]).await?;
    let done = admin::run_jobs_now(&session.db.pool, &ids, &Actor::new(os_user(), &args.reason)).await?;
    let acted = action_result(&ids, done, Vec::new());
    let word = "made due\nhint: run-now applies to scheduled and retryable jobs";
    expect_changed(&session.db.pool, &ids, &acted, word).await?;
    print_result(session, &args, "due now", acted).await
}

/// Runs `vinops jobs pause`.
pub async fn pause_kinds(args: JobKindArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let kinds = expect_kinds(&args.kinds, fleet)?;
    let session = CommandSession::open(config, &args.how.connect).await?;
    let paused = admin::pause_kinds(&session.db.pool, &kinds, &Actor::new(os_user(), &args.how.reason)).await?;
    print_kinds(session, args.how.json, &kinds, &paused, "paused", "was paused already").await
}

/// Runs `vinops jobs resume`.
pub async fn resume_kinds(args: JobKindArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let kinds = expect_kinds(&args.kinds, fleet)?;
    let session = CommandSession::open(config, &args.how.connect).await?;
    let resumed = admin::resume_kinds(&session.db.pool, &kinds, &Actor::new(os_user(), &args.how.reason)).await?;
    print_kinds(session, args.how.json, &kinds, &resumed, "runs again", "was not paused").await
}

/// Runs `vinops jobs limit`.
pub async fn limit_kind(args: JobLimitArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let kinds = expect_kinds(std::slice::from_ref(&args.kind), fleet)?;
    let session = CommandSession::open(config, &args.how.connect).await?;
    admin::limit_kind(&session.db.pool, &kinds[0], args.most.0, &Actor::new(os_user(), &args.how.reason)).await?;
    let words = args.most.0.map_or("any number at once".to_owned(), |most| format!("at most {most} at once"));
    print_kinds(session, args.how.json, &kinds, &kinds, &words, "").await
}

/// Returns the selected jobs, after a confirmation if one is needed.
async fn select_jobs(
    args: &JobActionArgs,
    fleet: JobRegistry,
    config: Config,
    verb: &str,
    states: &[&str],
) -> Result<(CommandSession, Vec<i64>), CommandError> {
    if args.ids.is_empty() == args.filter.is_empty() {
        return Err(CommandError::usage(anyhow!(
            "no jobs to {verb} are selected, or both by id and by filter\nhint: give ids of jobs, or a filter such \
             as --kind or --error"
        )));
    }
    let (session, mut filter) = args.filter.clone().open_session(fleet, config, &args.connect).await?;
    let ids = if args.ids.is_empty() {
        if filter.states.is_empty() {
            filter.states = states.iter().map(|state| (*state).to_owned()).collect();
        }
        queries::job_ids(&session.db.pool, &filter).await?
    } else {
        args.ids.clone()
    };
    let what = match ids[..] {
        [id] => format!("{verb} job {id}"),
        _ => format!("{verb} {} jobs", output::format_count(ids.len() as i64)),
    };
    // An operator who gives one id has seen the job. A job that a filter finds has not been seen, even if it is one.
    if !(args.yes || ids.is_empty() || args.ids.len() == 1) {
        confirm(&what)?;
    }
    Ok((session, ids))
}

/// Returns the result, with the ids that were neither changed nor asked for as left.
fn action_result(asked_for: &[i64], done: Vec<i64>, asked: Vec<i64>) -> JobActionResult {
    let left = asked_for.iter().filter(|id| !done.contains(id) && !asked.contains(id)).copied().collect();
    JobActionResult { done, asked, left }
}

/// Returns an error with the job's state if a single job was selected and not changed.
async fn expect_changed(pool: &PgPool, ids: &[i64], acted: &JobActionResult, word: &str) -> Result<(), CommandError> {
    let ([id], false) = (ids, acted.left.is_empty()) else { return Ok(()) };
    Err(match queries::job_details(pool, *id).await? {
        None => anyhow!("job {id} does not exist\nhint: `vinops jobs list` lists the jobs"),
        Some(JobDetails { job, .. }) => match job.cancelling {
            Some(cancelling) => anyhow!("job {id} ({}) is running and already {cancelling}", job.kind),
            None => anyhow!("job {id} ({}) is {} and cannot be {word}", job.kind, job.state),
        },
    }
    .into())
}

/// Closes the session and prints the result.
async fn print_result(
    session: CommandSession,
    args: &JobActionArgs,
    word: &str,
    acted: JobActionResult,
) -> Result<(), CommandError> {
    session.close().await?;
    if args.json.json {
        output::print_json(&acted)?;
        return Ok(());
    }
    match acted.done[..] {
        [] if acted.asked.is_empty() && acted.left.is_empty() => println!("no job matches"),
        [] => {}
        [id] => println!("job {id} is {word}"),
        _ => println!("{} jobs are {word}", output::format_count(acted.done.len() as i64)),
    }
    match acted.asked[..] {
        [] => {}
        [id] => println!("job {id} is running; its worker has been asked to release it"),
        _ => println!(
            "{} jobs are running; their workers have been asked to release them",
            output::format_count(acted.asked.len() as i64)
        ),
    }
    if !acted.left.is_empty() {
        let left: Vec<String> = acted.left.iter().map(i64::to_string).collect();
        println!("not changed: {}", left.join(", "));
    }
    Ok(())
}

/// Closes the session and prints a line per job kind.
async fn print_kinds(
    session: CommandSession,
    json: JsonArgs,
    kinds: &[String],
    changed: &[String],
    word: &str,
    already: &str,
) -> Result<(), CommandError> {
    let steered = queries::list_kind_settings(&session.db.pool).await?;
    session.close().await?;
    if json.json {
        output::print_json(&steered)?;
        return Ok(());
    }
    for kind in kinds {
        println!("{kind}: {}", if changed.contains(kind) { word } else { already });
    }
    Ok(())
}

/// Checks that the kinds are known and returns them unchanged. An earlier name of a kind is allowed, because its jobs
/// are drained under that name.
fn expect_kinds(kinds: &[String], fleet: JobRegistry) -> Result<Vec<String>, CommandError> {
    kinds.iter().try_for_each(|kind| fleet.find_job(kind).map(drop))?;
    Ok(kinds.to_vec())
}
