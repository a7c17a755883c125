//! The HTTP face of a process: `/metrics`, `/livez`, `/readyz`, and beside them the API where a role serves it.
//! Read-only, and without anything secret.
//!
//! Every role may show it. It has a pool of its own, of two connections: were it to share the jobs', a busy worker
//! would look like a dead one. What costs the database anything is asked at most every few seconds, however often
//! somebody looks: a dozen of probes and scrapers are one statement. Its connections are bounded (`connections.rs`).
//!
//! Around all of it are the layers of `observe`: request ids, the access log, problem documents.
//!
//! | path | says |
//! |---|---|
//! | `/` | links to what is served here |
//! | `/livez` | the process and its runtime go; nothing else, so that a database that is away kills nobody |
//! | `/readyz` | the database answers, its schema is this program's, and nobody told it to leave; else 503 and why |
//! | `/metrics` | everything in `src/telemetry/names.rs`; with the database away, what this process counts itself |

use crate::api::Api;
use crate::api::problem::Problem;
use crate::db::{Db, SchemaError, expect_schema};
use crate::queue::Entry;
use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connections::{BoundedListener, CONNECTION_TIMEOUT, MAX_CONNECTIONS};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod connections;
mod index;
mod observe;
mod readings;

pub use observe::observed;

/// How long the database may take to answer a question of this face.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer of the database is good for.
const FRESH: Duration = Duration::from_secs(2);
/// How often the samples of histograms are put into their buckets when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long open requests may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a process shows of itself.
pub struct Face {
    /// The database; this face makes connections of its own to it.
    pub db: Db,
    /// The fleet, for the kinds' names.
    pub fleet: &'static [Entry],
    /// Renders what this process counts.
    pub figures: PrometheusHandle,
    /// Cancelled when the process was told to leave.
    pub leave: CancellationToken,
    /// What is served beside.
    pub api: Option<Api>,
}

/// A face that is being shown.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

struct Shown {
    face: Face,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
    readings: Mutex<Option<(Instant, Option<String>)>>,
}

impl Server {
    /// Shows the face at `address`, such as `127.0.0.1:9464`, until it is stopped.
    pub async fn start(address: &str, mut face: Face) -> anyhow::Result<Server> {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}, where /metrics, /livez and /readyz would be"))?;
        let address = listener.local_addr().context("ask for the address listened on")?;
        face.db.pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with((*face.db.pool.connect_options()).clone());
        let figures = face.figures.clone();
        let has_api = face.api.is_some();
        let beside = face.api.as_ref().map(Api::router).unwrap_or_default();
        let shown = Arc::new(Shown { face, ready: Mutex::default(), readings: Mutex::default() });
        let app = Router::new()
            .route("/", get(async move |headers: HeaderMap| index::index(&headers, has_api)))
            .route("/livez", get(async || answer(StatusCode::OK, &json!({ "alive": true }))))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(shown)
            .merge(beside)
            .fallback(async || Problem::of(StatusCode::NOT_FOUND));
        let app = observed(app);
        let stop = CancellationToken::new();
        let until = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            let listener = BoundedListener::new(listener, MAX_CONNECTIONS, CONNECTION_TIMEOUT);
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until).await {
                tracing::error!(%error, "the HTTP face is gone");
            }
        });
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                figures.run_upkeep();
            }
        });
        tracing::info!(%address, "shows /metrics, /livez and /readyz");
        Ok(Server { address, stop, tasks: [serving, upkeep] })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; requests under way may end too.
    pub async fn stop(self) {
        self.stop.cancel();
        let [mut serving, upkeep] = self.tasks;
        upkeep.abort();
        if tokio::time::timeout(GOODBYE, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

fn answer(status: StatusCode, what: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{what}\n")).into_response()
}

async fn readyz(State(shown): State<Arc<Shown>>) -> Response {
    match shown.ready().await {
        Ok(()) => answer(StatusCode::OK, &json!({ "ready": true })),
        Err(reason) => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
    }
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let readings = shown.readings().await;
    metrics::gauge!("vinops_database_up").set(if readings.is_some() { 1.0 } else { 0.0 });
    metrics::gauge!("vinops_draining").set(if shown.face.leave.is_cancelled() { 1.0 } else { 0.0 });
    let figures = shown.face.figures.render();
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, figures + &readings.unwrap_or_default()).into_response()
}

impl Shown {
    /// Why this process should not be counted on; the lock makes those who ask at the same time ask once.
    async fn ready(&self) -> Result<(), String> {
        if self.face.leave.is_cancelled() {
            return Err("told to leave: draining".to_owned());
        }
        let mut known = self.ready.lock().await;
        if let Some((since, ready)) = &*known
            && since.elapsed() < FRESH
        {
            return ready.clone();
        }
        let looked = tokio::time::timeout(PATIENCE, expect_schema(&self.face.db)).await;
        let ready = match looked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SchemaError::Unreachable(_))) | Err(_) => Err("the database does not answer".to_owned()),
            Ok(Err(schema)) => Err(schema.to_string()),
        };
        *known = Some((Instant::now(), ready.clone()));
        ready
    }

    /// What the database says, rendered; none if it does not answer.
    async fn readings(&self) -> Option<String> {
        let mut known = self.readings.lock().await;
        if let Some((since, readings)) = &*known
            && since.elapsed() < FRESH
        {
            return readings.clone();
        }
        let looked = tokio::time::timeout(PATIENCE, readings::read(&self.face.db.pool)).await;
        let readings = match looked {
            Ok(Ok(readings)) => Some(readings::render(&readings, self.face.fleet)),
            Ok(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "the database gave no figures");
                None
            }
            Err(_) => None,
        };
        *known = Some((Instant::now(), readings.clone()));
        readings
    }
}
