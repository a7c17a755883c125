//! What a long-running role shows of itself while it works: its HTTP face, and the counting of what its jobs report.

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

/// Events kept while the counting is behind: minutes of the busiest worker.
const EVENTS: usize = 65_536;
/// How long the last ends may take to be counted.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where a role shows health and metrics.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Listen {
    /// Show /metrics, /livez and /readyz at this address, such as 127.0.0.1:9464; VINOPS_LISTEN else
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

impl Listen {
    /// The same, at `usual` where neither flag nor environment names an address.
    pub fn or(self, config: &Config, usual: &str) -> Result<Listen, SettingError> {
        let listen = match self.listen {
            Some(address) => Some(address),
            None => config.listen.get()?.clone(),
        };
        Ok(Listen { listen: listen.or_else(|| Some(usual.to_owned())) })
    }
}

/// What a role serves beside health and metrics.
#[derive(Clone, Copy, Debug)]
pub enum Serve {
    /// The API; what it is there for.
    Api,
    /// The API if its login may read as app_ro; no reason not to work.
    ApiBesides,
    /// Nothing.
    Nothing,
}

/// A role's face; without an address nothing is shown and nothing counted.
pub struct Face {
    fleet: Fleet,
    server: Option<http::Server>,
    counting: JoinSet<()>,
}

impl Face {
    /// Shows the role at the address of the flag or of the environment, else at `usual` if that is free, else nowhere.
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
                    tracing::warn!("the API is not served: {error:#}");
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
            // nobody asked for it: that is no reason not to work
            Err(error) => {
                tracing::warn!("nothing is shown: {error:#}");
                None
            }
        };
        Ok(shown)
    }

    /// The worker, with what becomes of its jobs counted here if anybody can see it.
    pub fn counting(&mut self, worker: Worker) -> Worker {
        if self.server.is_none() {
            return worker;
        }
        let (events, watching) = broadcast::channel(EVENTS);
        self.follow(watching);
        worker.observe(events)
    }

    /// Counts what these events tell, if anybody can see it.
    pub fn follow(&mut self, events: broadcast::Receiver<Event>) {
        if self.server.is_some() {
            self.counting.spawn(count(self.fleet, events));
        }
    }

    /// Ends it, once the last figures are there for whoever still asks.
    pub async fn close(self) {
        let Face { server, counting, .. } = self;
        // a handler that was abandoned may hold on to its worker's channel
        tokio::time::timeout(GOODBYE, counting.join_all()).await.ok();
        if let Some(server) = server {
            server.stop().await;
        }
    }
}

/// Counts how runs ended and what they reported, until no worker tells any more.
async fn count(fleet: Fleet, mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Ended { kind, outcome, report, discarded, duration, .. }) => {
                let known = fleet.jobs.iter().find(|entry| entry.answers_to(&kind));
                let kind = known.map_or("other", |entry| entry.kind);
                // before the run itself, so that whoever sees the run finds its report counted
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
