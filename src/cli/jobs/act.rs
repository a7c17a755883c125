//! What operators do to jobs and kinds: requeue, cancel, run-now, pause, resume, limit.
//!
//! Jobs are named by their ids or by a filter, never by nothing: a forgotten filter must not mean the whole table. Whatever a
//! filter finds, and more than one job by id, is asked about first, at the terminal; where there is none, `--yes` has to be
//! there already.

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
Without --state a filter means the states that the command is for: requeue takes discarded and cancelled jobs, cancel those
that wait or run, run-now scheduled and retryable ones.

  vinops jobs requeue 4711 --reason 'the yard is back'
  vinops jobs requeue --kind fetch --since 2026-11-20T00:00:00Z --error 403 --yes
  vinops jobs cancel --source copart --state running
  vinops jobs run-now --kind fetch")]
pub struct Args {
    /// Jobs, by id
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Why; kept with the jobs and in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "by hand")]
    reason: String,
    /// Do not ask
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
    after_help = "  vinops jobs pause fetch --reason 'the feed answers 403'\n  vinops jobs resume fetch"
)]
pub struct KindArgs {
    /// Kinds of jobs
    #[arg(required = true)]
    kinds: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// Arguments of `vinops jobs limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "  vinops jobs limit ingest 2\n  vinops jobs limit ingest none")]
pub struct LimitArgs {
    /// The kind of jobs
    kind: String,
    /// How many at once, or none
    #[arg(value_parser = most)]
    most: Most,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Why; kept in audit.operator_actions
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "by hand")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// A limit, or that there is none.
#[derive(Debug, Clone, Copy)]
struct Most(Option<i32>);

fn most(text: &str) -> Result<Most, &'static str> {
    match text.parse() {
        Ok(most) if most > 0 => Ok(Most(Some(most))),
        _ if text == "none" => Ok(Most(None)),
        _ => Err("write a number from 1, or none; to let nothing run, pause the kind"),
    }
}

/// What an act did to jobs.
#[derive(Debug, Default, Serialize)]
struct Acted {
    /// Done.
    done: Vec<i64>,
    /// Running: their workers have been asked.
    asked: Vec<i64>,
    /// As they were: not in a state for it, or their key is another's.
    left: Vec<i64>,
}

/// `vinops jobs requeue`.
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

/// `vinops jobs cancel`.
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

/// `vinops jobs run-now`.
pub async fn run_now(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let (session, ids) = chosen(&args, fleet, config, "run", &["scheduled", "retryable"]).await?;
    let done = steer::run_now(&session.db.pool, &ids, &By::new(who(), &args.reason)).await?;
    let acted = acted(&ids, done, Vec::new());
    only(&session.db.pool, &ids, &acted, "made due: that is for scheduled and retryable jobs").await?;
    finish(session, &args, "due now", acted).await
}

/// `vinops jobs pause`.
pub async fn pause(args: KindArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(&args.kinds, fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    let paused = steer::pause(&session.db.pool, &kinds, &By::new(who(), &args.how.reason)).await?;
    said(session, args.how.json, &kinds, &paused, "paused", "was paused already").await
}

/// `vinops jobs resume`.
pub async fn resume(args: KindArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(&args.kinds, fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    let resumed = steer::resume(&session.db.pool, &kinds, &By::new(who(), &args.how.reason)).await?;
    said(session, args.how.json, &kinds, &resumed, "runs again", "was not paused").await
}

/// `vinops jobs limit`.
pub async fn limit(args: LimitArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let kinds = known(std::slice::from_ref(&args.kind), fleet)?;
    let session = Session::open(config, &args.how.connect).await?;
    steer::limit(&session.db.pool, &kinds[0], args.most.0, &By::new(who(), &args.how.reason)).await?;
    let words = args.most.0.map_or("any number at once".to_owned(), |most| format!("at most {most} at once"));
    said(session, args.how.json, &kinds, &kinds, &words, "").await
}

/// The jobs that are meant, once nobody objects.
async fn chosen(
    args: &Args,
    fleet: Fleet,
    config: Config,
    verb: &str,
    states: &[&str],
) -> Result<(Session, Vec<i64>), Failure> {
    if args.ids.is_empty() == args.filter.is_empty() {
        return Err(Failure::wrong(anyhow!(
            "say which jobs to {verb}: their ids, or a filter such as --kind or --error, and not both"
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
    // who names one job has looked at it; what a filter finds has not been seen, be it one
    if !(args.yes || ids.is_empty() || args.ids.len() == 1) {
        agreed(&what)?;
    }
    Ok((session, ids))
}

fn acted(asked_for: &[i64], done: Vec<i64>, asked: Vec<i64>) -> Acted {
    let left = asked_for.iter().filter(|id| !done.contains(id) && !asked.contains(id)).copied().collect();
    Acted { done, asked, left }
}

/// One job that was named and left as it was is an error that says what it is.
async fn only(pool: &PgPool, ids: &[i64], acted: &Acted, word: &str) -> Result<(), Failure> {
    let ([id], false) = (ids, acted.left.is_empty()) else { return Ok(()) };
    Err(match operate::show(pool, *id).await? {
        None => anyhow!("there is no job {id}; `vinops jobs list` shows those there are"),
        Some(Shown { job, .. }) => match job.cancelling {
            Some(cancelling) => anyhow!("job {id} ({}) is running and {cancelling} already", job.kind),
            None => anyhow!("job {id} ({}) is {} and cannot be {word}", job.kind, job.state),
        },
    }
    .into())
}

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
        [id] => println!("job {id} is running; its worker has been asked to let go of it"),
        _ => println!(
            "{} jobs are running; their workers have been asked",
            show::count(acted.asked.len() as i64)
        ),
    }
    if !acted.left.is_empty() {
        let left: Vec<String> = acted.left.iter().map(i64::to_string).collect();
        println!("left as they were: {}", left.join(", "));
    }
    Ok(())
}

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

/// The kinds as they are stored. An old name may be meant too: its jobs are drained under it.
fn known(kinds: &[String], fleet: Fleet) -> Result<Vec<String>, Failure> {
    kinds.iter().try_for_each(|kind| fleet.known(kind).map(drop))?;
    Ok(kinds.to_vec())
}
