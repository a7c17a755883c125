//! The long-running roles: worker, scheduler, serve, and worker and scheduler in one process (`up`).

use super::http_endpoint::{ApiExposure, HttpArgs, HttpEndpoint};
use super::session::{self, CommandSession, ConnectArgs};
use super::source::expect_source;
use super::{CommandError, JobRegistry};
use crate::config::{Config, SettingError};
use crate::queue::Worker;
use crate::scheduler::{DEFAULT_WAKEUP, Scheduler};
use anyhow::{Context, anyhow};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The default address of `serve` and `up`, which only this machine can reach.
const LOOPBACK_ADDRESS: &str = "127.0.0.1:9464";

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
    #[arg(long, alias = "at-most", value_name = "KIND=N", value_delimiter = ',', value_parser = parse_kind_limit)]
    max_per_kind: Vec<(String, usize)>,
    /// Grace period for running jobs at shutdown
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    drain: Duration,
    #[command(flatten)]
    listen: HttpArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Arguments of `vinops scheduler`.
#[derive(Debug, clap::Args)]
pub struct SchedulerArgs {
    /// Sources to schedule
    #[arg(long, value_delimiter = ',', default_value = "copart")]
    source: Vec<String>,
    #[command(flatten)]
    listen: HttpArgs,
    #[command(flatten)]
    connect: ConnectArgs,
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
    listen: HttpArgs,
    #[command(flatten)]
    connect: ConnectArgs,
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
    listen: HttpArgs,
}

/// Returns a token that SIGTERM or SIGINT cancels. A second SIGINT exits at once with 130, which is as safe as a kill.
pub fn shutdown_signal() -> anyhow::Result<CancellationToken> {
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
fn served_kinds(asked: &[String], fleet: JobRegistry, config: &Config) -> Result<Vec<&'static str>, CommandError> {
    let mut kinds = Vec::new();
    for kind in asked {
        let entry = fleet.find_job(kind)?;
        if let Some(why) = (fleet.missing_prerequisites)(config, entry) {
            return Err(CommandError::usage(anyhow!("--kind {kind}: {why}")));
        }
        kinds.push(entry.kind);
    }
    if asked.is_empty() {
        let able = fleet.jobs.iter().filter(|entry| (fleet.missing_prerequisites)(config, entry).is_none());
        kinds.extend(able.map(|entry| entry.kind));
    }
    Ok(kinds)
}

fn parse_kind_limit(text: &str) -> Result<(String, usize), &'static str> {
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
pub async fn run_worker(args: WorkerArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    check_worker_settings(&config)?;
    let kinds = served_kinds(&args.kind, fleet, &config)?;
    for (kind, _) in &args.max_per_kind {
        fleet.find_job(kind)?;
    }
    let leave = shutdown_signal()?;
    let session = CommandSession::open(config, &args.connect).await?;
    for entry in fleet.jobs.iter().filter(|_| args.kind.is_empty()) {
        if let Some(why) = (fleet.missing_prerequisites)(&session.config, entry) {
            tracing::warn!(kind = entry.kind, reason = why, "job kind not served");
        }
    }
    let worker = Worker::new(&session.db, fleet.jobs).with_kinds(&kinds);
    let worker = args
        .max_per_kind
        .iter()
        .fold(worker, |worker, (kind, most)| worker.with_kind_limit(kind, *most))
        .with_lease(*session.config.lease.get()?)
        .with_concurrency(args.concurrency)
        .with_drain_timeout(args.drain)
        .with_extensions((fleet.extensions)(&session.config, session.open_store()?)?);
    let mut face =
        HttpEndpoint::start("worker", &args.listen, None, &session, fleet, &leave, ApiExposure::Absent).await?;
    face.observe_worker(worker).run(leave).await?;
    face.close().await;
    session.close().await
}

/// Returns a scheduler of these sources with the configured wake-up time.
fn build_scheduler(fleet: JobRegistry, sources: &[String], config: &Config) -> Result<Scheduler, SettingError> {
    let start = config.fetch_delay.get()?.unwrap_or(DEFAULT_WAKEUP[0]);
    let jitter = config.fetch_jitter.get()?.unwrap_or(DEFAULT_WAKEUP[1]);
    Ok(Scheduler::new(fleet.fetch, sources).with_wakeup(start, jitter))
}

/// Returns an error unless all of these sources are known.
async fn expect_sources(session: &CommandSession, sources: &[String]) -> Result<(), CommandError> {
    for source in sources {
        expect_source(&session.db.pool, source).await?;
    }
    Ok(())
}

/// Runs a scheduler until SIGTERM or SIGINT.
pub async fn run_scheduler(args: SchedulerArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    check_scheduler_settings(&config)?;
    let leave = shutdown_signal()?;
    let session = CommandSession::open(config, &args.connect).await?;
    expect_sources(&session, &args.source).await?;
    let scheduler = build_scheduler(fleet, &args.source, &session.config)?;
    let face =
        HttpEndpoint::start("scheduler", &args.listen, None, &session, fleet, &leave, ApiExposure::Absent).await?;
    scheduler.run(&session.db.pool, leave).await;
    face.close().await;
    session.close().await
}

/// Serves the API, health checks and metrics until SIGTERM or SIGINT.
pub async fn run_server(args: ServeArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let leave = shutdown_signal()?;
    let session = CommandSession::open(config, &args.connect).await?;
    let listen = args.listen.with_default(&session.config, LOOPBACK_ADDRESS)?;
    let face = HttpEndpoint::start("serve", &listen, None, &session, fleet, &leave, ApiExposure::Required).await?;
    leave.cancelled().await;
    face.close().await;
    session.close().await
}

/// Runs all roles in one process, on the database of `DATABASE_URL` or on the private cluster.
pub async fn run_all_roles(args: UpArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    if config.copart.get()?.feed_url.is_none() {
        return Err(CommandError::usage(anyhow!(
            "COPART_FEED_URL is not set, and `vinops up` fetches the real feed\nhint: set it to the feed's address \
             with its key, or run `vinops demo` on a simulated feed"
        )));
    }
    check_worker_settings(&config)?;
    check_scheduler_settings(&config)?;
    let leave = shutdown_signal()?;
    let session = match config.database_url.get()? {
        Some(_) => CommandSession::connect(config, &ConnectArgs::default()).await?,
        None => CommandSession::with_cluster(config, session::start_private_cluster().await?).await?,
    };
    super::migrate::run_migrations(&session.db, |line| tracing::info!("migration {line}")).await?;
    expect_sources(&session, &args.source).await?;
    let store = session.open_store()?;
    let worker = Worker::new(&session.db, fleet.jobs)
        .with_lease(*session.config.lease.get()?)
        .with_concurrency(args.concurrency)
        .with_extensions((fleet.extensions)(&session.config, store)?);
    let scheduler = build_scheduler(fleet, &args.source, &session.config)?;
    let mut face =
        HttpEndpoint::start("up", &args.listen, Some(LOOPBACK_ADDRESS), &session, fleet, &leave, ApiExposure::Optional)
            .await?;
    let worker = face.observe_worker(worker);
    let (worked, ()) = tokio::join!(worker.run(leave.clone()), scheduler.run(&session.db.pool, leave.clone()));
    worked?;
    face.close().await;
    session.close().await
}
