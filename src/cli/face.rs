//! The HTTP endpoint of a long-running role, and the metrics of the jobs that the role runs.

use super::error_text::error_line;
use super::session::Session;
use super::{Failure, Fleet};
use crate::api::Api;
use crate::config::{Config, SettingError};
use crate::http;
use crate::queue::{Event, Outcome, Worker};
use crate::telemetry;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Events that are buffered while counting lags behind: minutes of the busiest worker.
const EVENTS: usize = 65_536;
/// The longest wait for the last events to be counted.
const GOODBYE: Duration = Duration::from_secs(1);

/// The address of the HTTP endpoint.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Listen {
    /// Serve /metrics, /livez and /readyz on this address, e.g. 127.0.0.1:9464 [env: VINOPS_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl Listen {
    /// Returns the address of the flag, or of the environment, or `usual`.
    pub fn or(self, config: &Config, usual: &str) -> Result<Listen, SettingError> {
        let listen = match self.listen {
            Some(address) => Some(address),
            None => config.listen.get()?.clone(),
        };
        Ok(Listen { listen: listen.or_else(|| Some(usual.to_owned())) })
    }
}

/// The choice to serve the API in addition to health and metrics.
#[derive(Clone, Copy, Debug)]
pub enum Serve {
    /// The role serves the API and fails to start without it.
    Api,
    /// The role serves the API if the login may read as `app_ro`. Otherwise it logs a warning.
    ApiBesides,
    /// The role serves no API.
    Nothing,
}

/// The HTTP endpoint of a role. Without an address nothing is served and nothing is counted.
pub struct Face {
    fleet: Fleet,
    server: Option<http::Server>,
    counting: JoinSet<()>,
}

impl Face {
    /// Starts the endpoint on the address of the flag or of the environment. Without one it uses `usual`, if that
    /// address is free.
    ///
    /// # Errors
    /// Returns an error with exit code 3 if the configured address cannot be used.
    pub async fn show(
        role: &'static str,
        listen: &Listen,
        usual: Option<&str>,
        session: &Session,
        fleet: Fleet,
        leave: &CancellationToken,
        api: Serve,
    ) -> Result<Face, Failure> {
        let asked = match listen.listen.as_deref() {
            Some(address) => Some(address),
            None => session.config.listen.get()?.as_deref(),
        };
        let address = asked.or(usual);
        let mut shown = Face { fleet, server: None, counting: JoinSet::new() };
        let Some(address) = address else { return Ok(shown) };
        let kinds: Vec<&'static str> = fleet.jobs.iter().map(|entry| entry.kind).collect();
        let figures = telemetry::measure(role, &kinds)?;
        let api = match api {
            Serve::Api => Some(Api::open(&session.db).await.map_err(Failure::unreachable)?),
            Serve::ApiBesides => match Api::open(&session.db).await {
                Ok(api) => Some(api),
                Err(error) => {
                    tracing::warn!(error = error_line(&error), "API not served");
                    None
                }
            },
            Serve::Nothing => None,
        };
        let (db, leave) = (session.db.clone(), leave.clone());
        let face = http::Face { db, fleet: fleet.jobs, figures, leave, api };
        shown.server = match http::Server::start(address, face).await {
            Ok(server) => Some(server),
            Err(error) if asked.is_some() => return Err(Failure::unreachable(error)),
            // The default address is optional, so the role runs without it.
            Err(error) => {
                tracing::warn!(error = error_line(&error), "HTTP endpoint not started");
                None
            }
        };
        Ok(shown)
    }

    /// Counts the job runs of a worker if the endpoint is served. Returns the worker.
    pub fn counting(&mut self, worker: Worker) -> Worker {
        if self.server.is_none() {
            return worker;
        }
        let (events, watching) = broadcast::channel(EVENTS);
        self.follow(watching);
        worker.observe(events)
    }

    /// Counts events if the endpoint is served.
    pub fn follow(&mut self, events: broadcast::Receiver<Event>) {
        if self.server.is_some() {
            self.counting.spawn(count(self.fleet, events));
        }
    }

    /// Shuts down the endpoint after the last events have been counted.
    pub async fn close(self) {
        let Face { server, counting, .. } = self;
        // An abandoned handler may keep the worker's channel open.
        tokio::time::timeout(GOODBYE, counting.join_all()).await.ok();
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

/// Counts the outcomes and reports of job runs until the channel is closed.
async fn count(fleet: Fleet, mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Ended { kind, outcome, report, discarded, duration, .. }) => {
                let known = fleet.jobs.iter().find(|entry| entry.answers_to(&kind));
                let kind = known.map_or("other", |entry| entry.kind);
                // The report is counted before the run, so a scrape that contains the run contains its report.
                if outcome == Outcome::Done {
                    (fleet.counted)(kind, &report);
                }
                metrics::counter!("vinops_job_runs_total", "kind" => kind, "outcome" => outcome.word())
                    .increment(1);
                metrics::counter!("vinops_jobs_discarded_total", "kind" => kind)
                    .increment(u64::from(discarded));
                metrics::histogram!("vinops_job_duration_seconds", "kind" => kind).record(duration);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(events)) => metrics::counter!("vinops_events_lost_total").increment(events),
            Err(RecvError::Closed) => return,
        }
    }
}
