//! The HTTP endpoint of a long-running role, and the metrics of the jobs that the role runs.

use super::error_text::error_line;
use super::session::CommandSession;
use super::{CommandError, JobRegistry};
use crate::api::Api;
use crate::config::{Config, SettingError};
use crate::http;
use crate::queue::{RunOutcome, Worker, WorkerEvent};
use crate::telemetry;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events that are buffered while counting lags behind: minutes of the busiest worker.
const EVENT_CAPACITY: usize = 65_536;
/// The longest wait for the last events to be counted.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The address of the HTTP endpoint.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HttpArgs {
    /// Serve /metrics, /livez and /readyz on this address, e.g. 127.0.0.1:9464 [env: VINOPS_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl HttpArgs {
    /// Returns the address of the flag, or of the environment, or `usual`.
    pub fn with_default(self, config: &Config, usual: &str) -> Result<HttpArgs, SettingError> {
        let listen = match self.listen {
            Some(address) => Some(address),
            None => config.listen.get()?.clone(),
        };
        Ok(HttpArgs { listen: listen.or_else(|| Some(usual.to_owned())) })
    }
}

/// The choice to serve the API in addition to health and metrics.
#[derive(Clone, Copy, Debug)]
pub enum ApiExposure {
    /// The role serves the API and fails to start without it.
    Required,
    /// The role serves the API if the login may read as `app_ro`. Otherwise it logs a warning.
    Optional,
    /// The role serves no API.
    Absent,
}

/// The HTTP endpoint of a role. Without an address nothing is served and nothing is counted.
pub struct HttpEndpoint {
    fleet: JobRegistry,
    server: Option<http::HttpServer>,
    counting: JoinSet<()>,
}

impl HttpEndpoint {
    /// Starts the endpoint on the address of the flag or of the environment. Without one it uses `usual`, if that
    /// address is free.
    ///
    /// # Errors
    /// Returns an error with exit code 3 if the configured address cannot be used.
    pub async fn start(
        role: &'static str,
        listen: &HttpArgs,
        usual: Option<&str>,
        session: &CommandSession,
        fleet: JobRegistry,
        leave: &CancellationToken,
        api: ApiExposure,
    ) -> Result<HttpEndpoint, CommandError> {
        let asked = match listen.listen.as_deref() {
            Some(address) => Some(address),
            None => session.config.listen.get()?.as_deref(),
        };
        let address = asked.or(usual);
        let mut shown = HttpEndpoint { fleet, server: None, counting: JoinSet::new() };
        let Some(address) = address else { return Ok(shown) };
        let kinds: Vec<&'static str> = fleet.jobs.iter().map(|entry| entry.kind).collect();
        let figures = telemetry::init_metrics(role, &kinds)?;
        let api = match api {
            ApiExposure::Required => Some(Api::start(&session.db).await.map_err(CommandError::unavailable)?),
            ApiExposure::Optional => match Api::start(&session.db).await {
                Ok(api) => Some(api),
                Err(error) => {
                    tracing::warn!(error = error_line(&error), "API not served");
                    None
                }
            },
            ApiExposure::Absent => None,
        };
        let (db, leave) = (session.db.clone(), leave.clone());
        let face = http::HttpServerOptions { db, fleet: fleet.jobs, metrics: figures, leave, api };
        shown.server = match http::HttpServer::start(address, face).await {
            Ok(server) => Some(server),
            Err(error) if asked.is_some() => return Err(CommandError::unavailable(error)),
            // The default address is optional, so the role runs without it.
            Err(error) => {
                tracing::warn!(error = error_line(&error), "HTTP endpoint not started");
                None
            }
        };
        Ok(shown)
    }

    /// Counts the job runs of a worker if the endpoint is served. Returns the worker.
    pub fn observe_worker(&mut self, worker: Worker) -> Worker {
        if self.server.is_none() {
            return worker;
        }
        let (events, watching) = broadcast::channel(EVENT_CAPACITY);
        self.follow_events(watching);
        worker.with_event_sender(events)
    }

    /// Counts events if the endpoint is served.
    pub fn follow_events(&mut self, events: broadcast::Receiver<WorkerEvent>) {
        if self.server.is_some() {
            self.counting.spawn(count_events(self.fleet, events));
        }
    }

    /// Shuts down the endpoint after the last events have been counted.
    pub async fn close(self) {
        let HttpEndpoint { server, counting, .. } = self;
        // An abandoned handler may keep the worker's channel open.
        tokio::time::timeout(SHUTDOWN_GRACE, counting.join_all()).await.ok();
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

/// Counts the outcomes and reports of job runs until the channel is closed.
async fn count_events(fleet: JobRegistry, mut events: broadcast::Receiver<WorkerEvent>) {
    loop {
        match events.recv().await {
            Ok(WorkerEvent::Ended { kind, outcome, report, discarded, duration, .. }) => {
                let known = fleet.jobs.iter().find(|entry| entry.matches_kind(&kind));
                let kind = known.map_or("other", |entry| entry.kind);
                // The report is counted before the run, so a scrape that contains the run contains its report.
                if outcome == RunOutcome::Done {
                    (fleet.record_metrics)(kind, &report);
                }
                metrics::counter!("vinops_job_runs_total", "kind" => kind, "outcome" => outcome.as_str()).increment(1);
                metrics::counter!("vinops_jobs_discarded_total", "kind" => kind).increment(u64::from(discarded));
                metrics::histogram!("vinops_job_duration_seconds", "kind" => kind).record(duration);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(events)) => metrics::counter!("vinops_events_lost_total").increment(events),
            Err(RecvError::Closed) => return,
        }
    }
}
