//! The long-running roles: worker, scheduler, serve, and worker and scheduler in one process (`up`).

use super::face::{Face, Listen, Serve};
use super::session::{self, Connect, Session};
use super::source::expect_source;
use super::{Failure, Fleet};
use crate::config::{Config, SettingError};
use crate::queue::Worker;
use crate::scheduler::{Scheduler, WAKING};
use anyhow::{Context, anyhow};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The default address of `serve` and `up`, which only this machine can reach.
const LOOPBACK: &str = "127.0.0.1:9464";

/// Arguments of `vinops worker`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
SIGTERM and SIGINT drain the worker: it claims no new jobs, running jobs may finish within --drain, and the rest is \
released. The jobs of a killed worker are rescued by other workers when their leases expire (VINOPS_LEASE, 30 s).

  vinops worker
  vinops worker --kind fetch --concurrency 1
  vinops worker --max-per-kind ingest=1,fetch=1")]
pub struct WorkerArgs {
    /// Run only jobs of these kinds, separated by commas
    #[arg(long, value_delimiter = ',')]
    kind: Vec<String>,
    /// Number of concurrent jobs
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    /// Limit concurrent jobs of a kind on this worker, e.g. fetch=1
    #[arg(long, alias = "at-most", value_name = "KIND=N", value_delimiter = ',', value_parser = at_most)]
    max_per_kind: Vec<(String, usize)>,
    /// Grace period for running jobs at shutdown
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    drain: Duration,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `vinops scheduler`.
#[derive(Debug, clap::Args)]
pub struct SchedulerArgs {
    /// Sources to schedule
    #[arg(long, value_delimiter = ',', default_value = "copart")]
    source: Vec<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `vinops serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The server only reads: the login of DATABASE_URL needs the role app_ro. Paths:
  /         links to the paths below
  /api/v1/  API documentation and the API
  /livez    the process is running
  /readyz   the database is reachable, its schema version matches, and the
            process is not shutting down; otherwise 503 with the reason
  /metrics  metrics in Prometheus's text format; those of the queue, the windows
            and the sources are the same in every process

Each request is logged with the id that the response contains as x-request-id.

  vinops serve --listen 127.0.0.1:9464
  curl -i http://127.0.0.1:9464/")]
pub struct ServeArgs {
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    connect: Connect,
}

/// Arguments of `vinops up`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Uses DATABASE_URL if it is set, and a private PostgreSQL otherwise, whose data is kept between \
        starts. Applies pending migrations first. Serves the API, health checks and metrics on 127.0.0.1:9464 by \
        default."
)]
pub struct UpArgs {
    /// Sources to schedule
    #[arg(long, value_delimiter = ',', default_value = "copart")]
    source: Vec<String>,
    /// Number of concurrent jobs
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    #[command(flatten)]
    listen: Listen,
}

/// Returns a token that SIGTERM or SIGINT cancels. A second SIGINT exits at once with 130, which is as safe as a kill.
pub fn until_told() -> anyhow::Result<CancellationToken> {
    let leave = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    tokio::spawn({
        let leave = leave.clone();
        async move {
            let mut interrupted = false;
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {
                        if interrupted {
                            std::process::exit(130);
                        }
                        interrupted = true;
                    }
                }
                leave.cancel();
            }
        }
    });
    Ok(leave)
}

/// Returns the kinds that a worker runs: the requested ones, or all whose prerequisites this worker has. A worker
/// without the feed's address must not claim a fetch, because that would use the only attempt of the window.
fn kinds(asked: &[String], fleet: Fleet, config: &Config) -> Result<Vec<&'static str>, Failure> {
    let mut kinds = Vec::new();
    for kind in asked {
        let entry = fleet.known(kind)?;
        if let Some(why) = (fleet.lacks)(config, entry) {
            return Err(Failure::wrong(anyhow!("--kind {kind}: {why}")));
        }
        kinds.push(entry.kind);
    }
    if asked.is_empty() {
        let able = fleet.jobs.iter().filter(|entry| (fleet.lacks)(config, entry).is_none());
        kinds.extend(able.map(|entry| entry.kind));
    }
    Ok(kinds)
}

fn at_most(text: &str) -> Result<(String, usize), &'static str> {
    let parts = text.split_once('=').and_then(|(kind, most)| Some((kind.to_owned(), most.parse().ok()?)));
    parts.filter(|(_, most)| *most > 0).ok_or("expected a kind and a number from 1, for example fetch=1")
}

/// Checks the settings that a worker uses, before the worker connects.
fn check_worker_settings(config: &Config) -> Result<(), SettingError> {
    config.copart.get()?;
    config.cookie_key.get()?;
    config.store.get()?;
    config.lease.get()?;
    config.listen.get()?;
    Ok(())
}

/// Checks the settings that a scheduler uses, before the scheduler connects.
fn check_scheduler_settings(config: &Config) -> Result<(), SettingError> {
    config.fetch_delay.get()?;
    config.fetch_jitter.get()?;
    config.listen.get()?;
    Ok(())
}

/// Runs a worker until SIGTERM or SIGINT.
pub async fn worker(args: WorkerArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    check_worker_settings(&config)?;
    let kinds = kinds(&args.kind, fleet, &config)?;
    for (kind, _) in &args.max_per_kind {
        fleet.known(kind)?;
    }
    let leave = until_told()?;
    let session = Session::open(config, &args.connect).await?;
    for entry in fleet.jobs.iter().filter(|_| args.kind.is_empty()) {
        if let Some(why) = (fleet.lacks)(&session.config, entry) {
            tracing::warn!(kind = entry.kind, reason = why, "job kind not served");
        }
    }
    let worker = Worker::new(&session.db, fleet.jobs).kinds(&kinds);
    let worker = args
        .max_per_kind
        .iter()
        .fold(worker, |worker, (kind, most)| worker.at_most(kind, *most))
        .lease(*session.config.lease.get()?)
        .concurrency(args.concurrency)
        .drain(args.drain)
        .tools((fleet.tools)(&session.config, session.store()?)?);
    let mut face = Face::show("worker", &args.listen, None, &session, fleet, &leave, Serve::Nothing).await?;
    face.counting(worker).run(leave).await?;
    face.close().await;
    session.close().await
}

/// Returns a scheduler of these sources with the configured wake-up time.
fn schedules(fleet: Fleet, sources: &[String], config: &Config) -> Result<Scheduler, SettingError> {
    let start = config.fetch_delay.get()?.unwrap_or(WAKING[0]);
    let jitter = config.fetch_jitter.get()?.unwrap_or(WAKING[1]);
    Ok(Scheduler::new(fleet.fetch, sources).waking(start, jitter))
}

/// Returns an error unless all of these sources are known.
async fn expect_sources(session: &Session, sources: &[String]) -> Result<(), Failure> {
    for source in sources {
        expect_source(&session.db.pool, source).await?;
    }
    Ok(())
}

/// Runs a scheduler until SIGTERM or SIGINT.
pub async fn scheduler(args: SchedulerArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    check_scheduler_settings(&config)?;
    let leave = until_told()?;
    let session = Session::open(config, &args.connect).await?;
    expect_sources(&session, &args.source).await?;
    let scheduler = schedules(fleet, &args.source, &session.config)?;
    let face = Face::show("scheduler", &args.listen, None, &session, fleet, &leave, Serve::Nothing).await?;
    scheduler.run(&session.db.pool, leave).await;
    face.close().await;
    session.close().await
}

/// Serves the API, health checks and metrics until SIGTERM or SIGINT.
pub async fn serve(args: ServeArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let leave = until_told()?;
    let session = Session::open(config, &args.connect).await?;
    let listen = args.listen.or(&session.config, LOOPBACK)?;
    let face = Face::show("serve", &listen, None, &session, fleet, &leave, Serve::Api).await?;
    leave.cancelled().await;
    face.close().await;
    session.close().await
}

/// Runs all roles in one process, on the database of `DATABASE_URL` or on the private cluster.
pub async fn up(args: UpArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    if config.copart.get()?.feed_url.is_none() {
        return Err(Failure::wrong(anyhow!(
            "COPART_FEED_URL is not set, and `vinops up` fetches the real feed\nhint: set it to the feed's address \
             with its key, or run `vinops demo` on a simulated feed"
        )));
    }
    check_worker_settings(&config)?;
    check_scheduler_settings(&config)?;
    let leave = until_told()?;
    let session = match config.database_url.get()? {
        Some(_) => Session::connect(config, &Connect::default()).await?,
        None => Session::on(config, session::kept().await?).await?,
    };
    super::migrate::bring_up(&session.db, |line| tracing::info!("migration {line}")).await?;
    expect_sources(&session, &args.source).await?;
    let store = session.store()?;
    let worker = Worker::new(&session.db, fleet.jobs)
        .lease(*session.config.lease.get()?)
        .concurrency(args.concurrency)
        .tools((fleet.tools)(&session.config, store)?);
    let scheduler = schedules(fleet, &args.source, &session.config)?;
    let mut face =
        Face::show("up", &args.listen, Some(LOOPBACK), &session, fleet, &leave, Serve::ApiBesides).await?;
    let worker = face.counting(worker);
    let (worked, ()) =
        tokio::join!(worker.run(leave.clone()), scheduler.run(&session.db.pool, leave.clone()));
    worked?;
    face.close().await;
    session.close().await
}
