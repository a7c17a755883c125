//! The HTTP server of a process: `/metrics`, `/livez`, `/readyz`, and the API if the role serves it. Read-only, without
//! secrets.
//!
//! Every role can run this server. The server has a separate pool with two connections: with the pool of the jobs, a
//! busy worker would look like a dead one. Queries to the database are cached for a few seconds, so a dozen probes and
//! scrapers cause one statement. The client connections are bounded (`connections.rs`).
//!
//! The layers of `layers.rs` wrap all routes: request ids, the access log, problem documents.
//!
//! | path | response |
//! |---|---|
//! | `/` | links to the paths of this process |
//! | `/livez` | 200 while the process and its runtime are running, independent of the database |
//! | `/readyz` | 200 if the database is reachable, the schema matches and no shutdown has begun, else 503 with the reason |
//! | `/metrics` | all metrics of `src/telemetry/names.rs`. During an outage of the database only the process's own |

use crate::api::Api;
use crate::api::problem::Problem;
use crate::db::{Database, SchemaError, expect_schema};
use crate::queue::JobDefinition;
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
mod db_metrics;
mod index;
mod layers;

pub use layers::with_layers;

/// Timeout of a query by this server.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest age of a cached query result.
const MAX_CACHE_AGE: Duration = Duration::from_secs(2);
/// Time between two passes that sort the samples of histograms into buckets, without waiting for a scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Time for open requests to finish at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// The parts of a process that its HTTP server exposes.
pub struct HttpServerOptions {
    /// The database. The server opens connections of its own.
    pub db: Database,
    /// The table of jobs, for the names of the kinds.
    pub fleet: &'static [JobDefinition],
    /// Renderer of the metrics that this process counts.
    pub metrics: PrometheusHandle,
    /// Cancelled when the process begins to shut down.
    pub leave: CancellationToken,
    /// The API, if the role serves it.
    pub api: Option<Api>,
}

/// A running HTTP server.
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

struct HttpState {
    face: HttpServerOptions,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
    readings: Mutex<Option<(Instant, Option<String>)>>,
}

impl HttpServer {
    /// Starts a server on `address`, such as `127.0.0.1:9464`.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be bound.
    pub async fn start(address: &str, mut face: HttpServerOptions) -> anyhow::Result<HttpServer> {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("could not listen on {address} for /metrics, /livez and /readyz"))?;
        let address = listener.local_addr().context("could not read the address of the listener")?;
        face.db.pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(QUERY_TIMEOUT)
            .connect_lazy_with((*face.db.pool.connect_options()).clone());
        let figures = face.metrics.clone();
        let has_api = face.api.is_some();
        let beside = face.api.as_ref().map(Api::router).unwrap_or_default();
        let shown = Arc::new(HttpState { face, ready: Mutex::default(), readings: Mutex::default() });
        let app = Router::new()
            .route("/", get(async move |headers: HeaderMap| index::index_response(&headers, has_api)))
            .route("/livez", get(async || json_response(StatusCode::OK, &json!({ "alive": true }))))
            .route("/readyz", get(handle_readyz))
            .route("/metrics", get(handle_metrics))
            .with_state(shown)
            .merge(beside)
            .fallback(async || Problem::from_status(StatusCode::NOT_FOUND));
        let app = with_layers(app);
        let stop = CancellationToken::new();
        let until = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            let listener = BoundedListener::new(listener, MAX_CONNECTIONS, CONNECTION_TIMEOUT);
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until).await {
                tracing::error!(%error, "HTTP server failed");
            }
        });
        let upkeep = tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                figures.run_upkeep();
            }
        });
        tracing::info!(%address, "HTTP server started");
        Ok(HttpServer { address, stop, tasks: [serving, upkeep] })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server. Open requests may finish within a second.
    pub async fn stop(self) {
        self.stop.cancel();
        let [mut serving, upkeep] = self.tasks;
        upkeep.abort();
        if tokio::time::timeout(SHUTDOWN_GRACE, &mut serving).await.is_err() {
            serving.abort();
        }
        tracing::info!(address = %self.address, "HTTP server stopped");
    }
}

fn json_response(status: StatusCode, what: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{what}\n")).into_response()
}

async fn handle_readyz(State(shown): State<Arc<HttpState>>) -> Response {
    match shown.check_ready().await {
        Ok(()) => json_response(StatusCode::OK, &json!({ "ready": true })),
        Err(reason) => json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
    }
}

async fn handle_metrics(State(shown): State<Arc<HttpState>>) -> Response {
    let readings = shown.read_metrics().await;
    metrics::gauge!("vinops_database_up").set(if readings.is_some() { 1.0 } else { 0.0 });
    metrics::gauge!("vinops_draining").set(if shown.face.leave.is_cancelled() { 1.0 } else { 0.0 });
    let figures = shown.face.metrics.render();
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, figures + &readings.unwrap_or_default()).into_response()
}

impl HttpState {
    /// Returns the reason why this process is not ready, if any.
    ///
    /// The lock makes concurrent requests share one query.
    async fn check_ready(&self) -> Result<(), String> {
        if self.face.leave.is_cancelled() {
            return Err("the process is shutting down".to_owned());
        }
        let mut known = self.ready.lock().await;
        if let Some((since, ready)) = &*known
            && since.elapsed() < MAX_CACHE_AGE
        {
            return ready.clone();
        }
        let looked = tokio::time::timeout(QUERY_TIMEOUT, expect_schema(&self.face.db)).await;
        let ready = match looked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SchemaError::Unreachable(_))) | Err(_) => Err("the database is unavailable".to_owned()),
            Ok(Err(schema)) => Err(schema.message()),
        };
        *known = Some((Instant::now(), ready.clone()));
        ready
    }

    /// Returns the rendered metrics of the database, or `None` if the database is unavailable.
    async fn read_metrics(&self) -> Option<String> {
        let mut known = self.readings.lock().await;
        if let Some((since, readings)) = &*known
            && since.elapsed() < MAX_CACHE_AGE
        {
            return readings.clone();
        }
        let looked = tokio::time::timeout(QUERY_TIMEOUT, db_metrics::read_samples(&self.face.db.pool)).await;
        let readings = match looked {
            Ok(Ok(readings)) => Some(db_metrics::render_samples(&readings, self.face.fleet)),
            Ok(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "database metrics unavailable");
                None
            }
            Err(_) => None,
        };
        *known = Some((Instant::now(), readings.clone()));
        readings
    }
}
