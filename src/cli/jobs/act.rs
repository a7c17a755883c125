//! The commands that change jobs and job kinds: requeue, cancel, run-now, pause, resume and limit.
//!
//! Jobs are selected by id or by a filter. An empty selection is a usage error, so that a forgotten filter never
//! means the whole table. Jobs found by a filter, and more than one job given by id, need a confirmation at the
//! terminal or `--yes`.

use super::super::ask::agreed;
use super::super::session::{Connect, Session, who};
use super::super::show::{self, Json};
use super::super::{Failure, Fleet};
use super::FilterArgs;
use crate::config::Config;
use crate::queue::operate::{self, Shown};
use crate::queue::steer::{self, By};
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
pub struct Args {
    /// Ids of jobs
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Reason, recorded with the jobs and in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "manual")]
    reason: String,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops jobs pause` and `resume`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  vinops jobs pause fetch --reason 'the feed returns 403'\n  vinops jobs resume fetch"
)]
pub struct KindArgs {
    /// Job kinds
    #[arg(required = true)]
    kinds: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Arguments of `vinops jobs limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  vinops jobs limit ingest 2\n  vinops jobs limit ingest none")]
pub struct LimitArgs {
    /// Job kind
    kind: String,
    /// Maximum number of running jobs, or `none` to remove the limit
    #[arg(value_name = "MAX", value_parser = most)]
    most: Most,
    #[command(flatten)]
    how: How,
}

/// The reason, the database and the output form of a command on job kinds.
#[derive(Debug, clap::Args)]
struct How {
    /// Reason, recorded in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "manual")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// A limit of running jobs. `None` means no limit.
#[derive(Debug, Clone, Copy)]
struct Most(Option<i32>);

fn most(text: &str) -> Result<Most, &'static str> {
    match text.parse() {
        Ok(most) if most > 0 => Ok(Most(Some(most))),
        _ if text == "none" => Ok(Most(None)),
        _ => Err("expected a number from 1, or none (to stop a kind, use `vinops jobs pause`)"),
    }
}

/// The result of a command on jobs, as lists of job ids.
#[derive(Debug, Default, Serialize)]
struct Acted {
    /// Jobs that were changed.
    done: Vec<i64>,
    /// Running jobs, whose workers have been asked to release them.
    asked: Vec<i64>,
    /// Jobs that were not changed, because of their state or because another job has their key.
    left: Vec<i64>,
}

/// Runs `vinops jobs requeue`.
pub async fn requeue(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let (session, ids) = chosen(&args, fleet, config, "requeue", &["discarded", "cancelled"]).await?;
    let (pool, by) = (&session.db.pool, By::new(who(), &args.reason));
    if let [id] = ids[..] {
        steer::requeue(pool, id, by.who, by.why).await?;
        return finish(session, &args, "available again", Acted { done: ids, ..Acted::default() }).await;
    }
    let done = steer::requeue_all(pool, &ids, &by).await?;
    finish(session, &args, "available again", acted(&ids, done, Vec::new())).await
}

/// Runs `vinops jobs cancel`.
pub async fn cancel(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let open = ["available", "scheduled", "retryable", "running"];
    let (session, ids) = chosen(&args, fleet, config, "cancel", &open).await?;
    let cancelled = steer::cancel(&session.db.pool, &ids, &By::new(who(), &args.reason)).await?;
    let (asked, done): (Vec<_>, Vec<_>) = cancelled.into_iter().partition(|job| job.running);
    let acted =
        acted(&ids, done.iter().map(|job| job.id).collect(), asked.iter().map(|job| job.id).collect());
    only(&session.db.pool, &ids, &acted, "cancelled").await?;
    finish(session, &args, "cancelled", acted).await
}

/// Runs `vinops jobs run-now`.
pub async fn run_now(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let (session, ids) = chosen(&args, fleet, config, "run", &["scheduled", "retryable"]).await?;
    let done = steer::run_now(&session.db.pool, &ids, &By::new(who(), &args.reason)).await?;
    let acted = acted(&ids, done, Vec::new());
    let word = "made due\nhint: run-now applies to scheduled and retryable jobs";
    only(&session.db.pool, &ids, &acted, word).await?;
    finish(session, &args, "due now", acted).await
}

/// Runs `vinops jobs pause`.
pub async fn pause(args: KindArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(&args.kinds, fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    let paused = steer::pause(&session.db.pool, &kinds, &By::new(who(), &args.how.reason)).await?;
    said(session, args.how.json, &kinds, &paused, "paused", "was paused already").await
}

/// Runs `vinops jobs resume`.
pub async fn resume(args: KindArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(&args.kinds, fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    let resumed = steer::resume(&session.db.pool, &kinds, &By::new(who(), &args.how.reason)).await?;
    said(session, args.how.json, &kinds, &resumed, "runs again", "was not paused").await
}

/// Runs `vinops jobs limit`.
pub async fn limit(args: LimitArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(std::slice::from_ref(&args.kind), fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    steer::limit(&session.db.pool, &kinds[0], args.most.0, &By::new(who(), &args.how.reason)).await?;
    let words = args.most.0.map_or("any number at once".to_owned(), |most| format!("at most {most} at once"));
    said(session, args.how.json, &kinds, &kinds, &words, "").await
}

/// Returns the selected jobs, after a confirmation if one is needed.
async fn chosen(
    args: &Args,
    fleet: Fleet,
    config: Config,
    verb: &str,
    states: &[&str],
) -> Result<(Session, Vec<i64>), Failure> {
    if args.ids.is_empty() == args.filter.is_empty() {
        return Err(Failure::wrong(anyhow!(
            "no jobs to {verb} are selected, or both by id and by filter\nhint: give ids of jobs, or a filter such \
             as --kind or --error"
        )));
    }
    let (session, mut filter) = args.filter.clone().open(fleet, config, &args.connect).await?;
    let ids = if args.ids.is_empty() {
        if filter.states.is_empty() {
            filter.states = states.iter().map(|state| (*state).to_owned()).collect();
        }
        operate::ids(&session.db.pool, &filter).await?
    } else {
        args.ids.clone()
    };
    let what = match ids[..] {
        [id] => format!("{verb} job {id}"),
        _ => format!("{verb} {} jobs", show::count(ids.len() as i64)),
    };
    // An operator who gives one id has seen the job. A job that a filter finds has not been seen, even if it is one.
    if !(args.yes || ids.is_empty() || args.ids.len() == 1) {
        agreed(&what)?;
    }
    Ok((session, ids))
}

/// Returns the result, with the ids that were neither changed nor asked for as left.
fn acted(asked_for: &[i64], done: Vec<i64>, asked: Vec<i64>) -> Acted {
    let left = asked_for.iter().filter(|id| !done.contains(id) && !asked.contains(id)).copied().collect();
    Acted { done, asked, left }
}

/// Returns an error with the job's state if a single job was selected and not changed.
async fn only(pool: &PgPool, ids: &[i64], acted: &Acted, word: &str) -> Result<(), Failure> {
    let ([id], false) = (ids, acted.left.is_empty()) else { return Ok(()) };
    Err(match operate::show(pool, *id).await? {
        None => anyhow!("job {id} does not exist\nhint: `vinops jobs list` lists the jobs"),
        Some(Shown { job, .. }) => match job.cancelling {
            Some(cancelling) => anyhow!("job {id} ({}) is running and already {cancelling}", job.kind),
            None => anyhow!("job {id} ({}) is {} and cannot be {word}", job.kind, job.state),
        },
    }
    .into())
}

/// Closes the session and prints the result.
async fn finish(session: Session, args: &Args, word: &str, acted: Acted) -> Result<(), Failure> {
    session.close().await?;
    if args.json.json {
        show::json(&acted)?;
        return Ok(());
    }
    match acted.done[..] {
        [] if acted.asked.is_empty() && acted.left.is_empty() => println!("no job matches"),
        [] => {}
        [id] => println!("job {id} is {word}"),
        _ => println!("{} jobs are {word}", show::count(acted.done.len() as i64)),
    }
    match acted.asked[..] {
        [] => {}
        [id] => println!("job {id} is running; its worker has been asked to release it"),
        _ => println!(
            "{} jobs are running; their workers have been asked to release them",
            show::count(acted.asked.len() as i64)
        ),
    }
    if !acted.left.is_empty() {
        let left: Vec<String> = acted.left.iter().map(i64::to_string).collect();
        println!("not changed: {}", left.join(", "));
    }
    Ok(())
}

/// Closes the session and prints a line per job kind.
async fn said(
    session: Session,
    json: Json,
    kinds: &[String],
    changed: &[String],
    word: &str,
    already: &str,
) -> Result<(), Failure> {
    let steered = operate::kinds(&session.db.pool).await?;
    session.close().await?;
    if json.json {
        show::json(&steered)?;
        return Ok(());
    }
    for kind in kinds {
        println!("{kind}: {}", if changed.contains(kind) { word } else { already });
    }
    Ok(())
}

/// Checks that the kinds are known and returns them unchanged. An earlier name of a kind is allowed, because its jobs
/// are drained under that name.
fn known(kinds: &[String], fleet: Fleet) -> Result<Vec<String>, Failure> {
    kinds.iter().try_for_each(|kind| fleet.known(kind).map(drop))?;
    Ok(kinds.to_vec())
}
