//! The read-only HTTP API, version 1: vehicles, lots, taxonomies and windows.
//!
//! **No request can write.** Each request runs in one read-only transaction as role `app_ro`, whatever other rights the
//! login has, with a statement timeout of ten seconds. The settings belong to the transaction, because the connection
//! may go through a pooler.
//!
//! **A response contains no SQL and no file path.** A failed request returns a status and a request id. The cause is in
//! the log.
//!
//! Each resource is one file: `lots`, `history`, `vehicles`, `search`, `facets`, `taxonomies`, `windows`. Search and
//! facets are computed from the lots in memory ([`catalogue`], which contains the reason), which `refresher` updates.
//! The other modules are `params` (query parameters as data), `cursor` (the end of a page), `language`, `labels` (the
//! taxonomies in memory), `response` (JSON and ETags), `problem` (errors), `limits` and `openapi` (the document).

use crate::db::transient::{TransientError, transient_error};
use crate::db::{self, Database};
use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::routing::get;
use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, Transaction};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

mod carried;
pub mod catalogue;
pub mod cursor;
pub mod facets;
pub mod history;
pub mod labels;
pub mod language;
pub mod limits;
mod lot_path;
pub mod lots;
pub mod openapi;
pub mod params;
pub mod problem;
mod refresher;
pub mod response;
pub mod search;
pub mod taxonomies;
pub mod vehicles;
pub mod windows;

use catalogue::LotCatalogue;
use labels::TaxonomyLabels;
use problem::Problem;

/// Cached results of the similarity search: for each make and model of a catalogue, `true` if it is similar to a text.
///
/// The key is the catalogue's address, the time at which it was read and the text in upper case.
type SimilarityCache = HashMap<(usize, DateTime<Utc>, String), Vec<bool>>;

/// The API with its lots loaded, ready to be served.
pub struct Api {
    shared: Arc<ApiState>,
}

/// State that all requests share.
pub struct ApiState {
    pool: PgPool,
    labels: RwLock<Arc<TaxonomyLabels>>,
    catalogue: RwLock<Arc<LotCatalogue>>,
    /// Counters of the last refresh. The lock is held during a refresh.
    counters: Mutex<refresher::ChangeCounters>,
    similarity_cache: Mutex<SimilarityCache>,
    /// One permit for each concurrent request.
    permits: Arc<Semaphore>,
}

impl Api {
    /// Opens a connection pool, loads labels and lots, and starts the task that refreshes them.
    ///
    /// # Errors
    /// Returns an error if the login is not a member of `app_ro` or the database is unreachable.
    pub async fn start(db: &Database) -> anyhow::Result<Api> {
        let pool = db::pool_options()
            .max_connections(limits::MAX_CONNECTIONS)
            // All are opened at the start, so that no request waits for a new connection under load.
            .min_connections(limits::MAX_CONNECTIONS)
            .acquire_timeout(limits::ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with((*db.pool.connect_options()).clone());
        let membership = sqlx::query!(
            r#"-- api: may it read
            select current_user::text as "login!", pg_has_role(current_user, 'app_ro', 'member') as "may!""#
        )
        .fetch_one(&pool)
        .await
        .context("could not read the roles of the database login")?;
        if !membership.may {
            bail!("database login {0} is not a member of role app_ro\nhint: grant app_ro to {0}", membership.login);
        }
        let mut tx = begin_read_only(&pool).await?;
        let words = RwLock::new(Arc::new(TaxonomyLabels::load(&mut tx).await?));
        tx.commit().await?;
        let permits = Arc::new(Semaphore::new(limits::MAX_CONCURRENT_REQUESTS));
        let (catalogue, signs, alike) = Default::default();
        let shared =
            Arc::new(ApiState { pool, labels: words, catalogue, counters: signs, similarity_cache: alike, permits });
        shared.refresh_memory(true).await?;
        tokio::spawn(refresher::run_refresher(Arc::downgrade(&shared)));
        Ok(Api { shared })
    }

    /// Refreshes labels and lots now, which otherwise happens within seconds of a change.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        self.shared.refresh_memory(true).await
    }

    /// Returns the routes of the API with their limits, to be merged into a server's router.
    pub fn router(&self) -> Router {
        let shared = Arc::clone(&self.shared);
        let routes = Router::new()
            .route("/vehicles/{vin}", get(vehicles::show_vehicle))
            // The router requires one name per path segment: `first` is the lot if it is alone, otherwise the source.
            .route("/lots/{first}", get(lots::show_lot))
            .route("/lots/{first}/history", get(history::show_history))
            .route("/lots/{first}/at", get(history::show_lot_at))
            .route("/lots/{first}/{lot}", get(lots::show_source_lot))
            .route("/lots/{first}/{lot}/history", get(history::show_source_history))
            .route("/lots/{first}/{lot}/at", get(history::show_source_lot_at))
            .route("/search", get(search::search_lots))
            .route("/facets", get(facets::list_facets))
            .route("/taxonomies", get(taxonomies::list_domains))
            .route("/taxonomies/{domain}", get(taxonomies::show_domain))
            .route("/windows", get(windows::list_windows))
            .route("/openapi.json", get(openapi::openapi_json))
            .route("/", get(openapi::browse_page))
            .fallback(async || Problem::not_found("There is no resource at this path."))
            .with_state(Arc::clone(&shared));
        let limited = |routes| limits::enforce_limits(routes, Arc::clone(&shared.permits), limits::REQUEST_TIMEOUT);
        // A nested router does not match its own prefix with a trailing slash.
        let page = Router::new().route("/api/v1/", get(openapi::browse_page));
        Router::new().nest("/api/v1", limited(routes)).merge(limited(page))
    }
}

impl ApiState {
    /// Begins a read-only transaction as `app_ro`. Callers drop the transaction instead of committing, so that no
    /// response waits for its end.
    pub async fn begin_read(&self) -> Result<Transaction<'static, Postgres>, Problem> {
        begin_read_only(&self.pool).await.map_err(Problem::from)
    }

    /// Returns the taxonomy labels and aliases of the last refresh.
    pub fn labels(&self) -> Arc<TaxonomyLabels> {
        Arc::clone(&self.labels.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the lots in memory, as of the last refresh.
    pub fn catalogue(&self) -> Arc<LotCatalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Begins a read-only transaction with its role and its statement timeout in one round trip.
const BEGIN_READ_ONLY: &str = "-- api: begin
    begin transaction isolation level repeatable read, read only;
    set local role app_ro;
    set local statement_timeout = '10s'";

/// Begins a read-only transaction on a pooled connection.
///
/// The pool does not test connections, because the begin statement is the test. A dead connection is discarded and the
/// next one is tried, at most once for each connection that the pool can hold.
async fn begin_read_only(pool: &PgPool) -> anyhow::Result<Transaction<'static, Postgres>> {
    let until = Instant::now() + limits::ACQUIRE_TIMEOUT;
    let mut failed = sqlx::Error::PoolTimedOut.into();
    for _ in 0..=limits::MAX_CONNECTIONS {
        match tokio::time::timeout_at(until, pool.begin_with(BEGIN_READ_ONLY)).await {
            Ok(Ok(begun)) => return Ok(begun),
            Ok(Err(error)) => failed = anyhow::Error::new(error),
            Err(_) => break,
        }
        if transient_error(&failed) != Some(TransientError::Connection) {
            break;
        }
    }
    Err(failed.context("could not begin a read-only transaction"))
}

/// Extractor of the query string and the headers of a request.
pub struct RequestQuery {
    query: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
}

impl RequestQuery {
    /// Returns the raw query string, or `None` if the URL has no query.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<RequestQuery, Problem> {
        Ok(RequestQuery { query: parts.uri.query().map(str::to_owned), headers: parts.headers.clone() })
    }
}

/// Extractor of the only parameter of a path.
pub struct PathName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathName, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| PathName(name)).map_err(|_| Problem::not_found("The path is not UTF-8."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::migrated_database;

    #[tokio::test]
    async fn a_request_reads_as_app_ro_for_ten_seconds_and_cannot_write() {
        let test = migrated_database().await;
        let api = Api::start(&test.db).await.unwrap();
        let mut tx = api.shared.begin_read().await.unwrap();
        let (who, statement_timeout, read_only): (String, String, String) = sqlx::query_as(
            "select current_user::text, current_setting('statement_timeout'), current_setting('transaction_read_only')",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        assert_eq!([who.as_str(), statement_timeout.as_str(), read_only.as_str()], ["app_ro", "10s", "on"]);
        tx.rollback().await.unwrap();
        for statement in [
            "insert into public.vehicles (vin) values ('1HGCM82633A004352')",
            "update public.lots set status = 'sold'",
            "delete from public.lots",
            "insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')",
            "create table mine ()",
        ] {
            let mut tx = api.shared.begin_read().await.unwrap();
            let refused = sqlx::raw_sql(statement).execute(&mut *tx).await.unwrap_err();
            let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert!(["25006", "42501"].contains(&code.as_str()), "{statement}: {refused}");
        }
        // The role alone forbids writes, even in a transaction that is not read-only.
        let mut tx = api.shared.pool.begin().await.unwrap();
        sqlx::raw_sql("set local role app_ro").execute(&mut *tx).await.unwrap();
        let refused = sqlx::raw_sql("update public.lots set status = 'sold'").execute(&mut *tx).await;
        assert_eq!(refused.unwrap_err().as_database_error().unwrap().code().as_deref(), Some("42501"));
    }
}
