//! The API, version 1: vehicles, lots and the vocabulary, for those who read the data. Read only.
//!
//! **Nothing can be written through it.** Each request has one transaction that is read only, begins as role `app_ro`
//! whatever the login may do besides, and ends its statements after ten seconds. Settings are the transaction's own, since
//! the connection may lead through a pooler.
//!
//! **Nothing of SQL or paths leaves it.** What fails here is a status and a request id; the cause is in the log.
//!
//! One file a resource: `lots`, `history`, `vehicles`, `search`, `facets`, `taxonomies`, `windows`. Search and facets are
//! answered from memory ([`catalogue`], which says why, kept by `keeper`). Around them `params` (what may be asked, as
//! data), `cursor` (where a page ended), `lang` (tongues), `words` (the vocabulary in memory), `answer` (JSON, tags),
//! `problem` (errors), `limits`, `openapi` (the document).

use crate::db::passing::{Passing, passing};
use crate::db::{self, Db};
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

pub mod answer;
mod carried;
pub mod catalogue;
pub mod cursor;
pub mod facets;
pub mod history;
mod keeper;
pub mod lang;
pub mod limits;
pub mod lots;
pub mod openapi;
pub mod params;
mod place;
pub mod problem;
pub mod search;
pub mod taxonomies;
pub mod vehicles;
pub mod windows;
pub mod words;

use catalogue::Catalogue;
use problem::Problem;
use words::Words;

/// What was found like a text: by catalogue, its reading and the text.
type Alike = HashMap<(usize, DateTime<Utc>, String), Vec<bool>>;

/// The API, ready to be served.
pub struct Api {
    shared: Arc<Shared>,
}

/// What all requests share.
pub struct Shared {
    pool: PgPool,
    words: RwLock<Arc<Words>>,
    catalogue: RwLock<Arc<Catalogue>>,
    /// What the keeper saw last; held while it reads.
    signs: Mutex<keeper::Signs>,
    alike: Mutex<Alike>,
    /// One permit for each request that may be answered at the same time.
    permits: Arc<Semaphore>,
}

impl Api {
    /// Over connections of its own to the database. An error where the login may not read as `app_ro`.
    pub async fn open(db: &Db) -> anyhow::Result<Api> {
        let pool = db::pool()
            .max_connections(limits::CONNECTIONS)
            // all from the start: a reader in a crowd should not be the one who waits for a connection to be made
            .min_connections(limits::CONNECTIONS)
            .acquire_timeout(limits::PATIENCE)
            .test_before_acquire(false)
            .connect_lazy_with((*db.pool.connect_options()).clone());
        let told = sqlx::query!(
            r#"-- api: may it read
            select current_user::text as "login!", pg_has_role(current_user, 'app_ro', 'member') as "may!""#
        )
        .fetch_one(&pool)
        .await
        .context("ask for the login's roles")?;
        if !told.may {
            bail!("the API reads as app_ro, and {0} is no member: grant app_ro to {0}", told.login);
        }
        let mut tx = begin(&pool).await?;
        let words = RwLock::new(Arc::new(Words::load(&mut tx).await?));
        tx.commit().await?;
        let permits = Arc::new(Semaphore::new(limits::AT_ONCE));
        let (catalogue, signs, alike) = Default::default();
        let shared = Arc::new(Shared { pool, words, catalogue, signs, alike, permits });
        shared.refresh(true).await?;
        tokio::spawn(keeper::keep(Arc::downgrade(&shared)));
        Ok(Api { shared })
    }

    /// Brings what is in memory up to date now, as happens by itself within seconds.
    pub async fn refresh(&self) -> anyhow::Result<()> {
        self.shared.refresh(true).await
    }

    /// Returns the routes within their limits, to be merged into a server's.
    pub fn router(&self) -> Router {
        let shared = Arc::clone(&self.shared);
        let routes = Router::new()
            .route("/vehicles/{vin}", get(vehicles::vehicle))
            // the router wants one name for one place of a path: it is the lot where it stands alone, else the source
            .route("/lots/{first}", get(lots::lot))
            .route("/lots/{first}/history", get(history::lot))
            .route("/lots/{first}/at", get(history::at))
            .route("/lots/{first}/{lot}", get(lots::lot_of_source))
            .route("/lots/{first}/{lot}/history", get(history::lot_of_source))
            .route("/lots/{first}/{lot}/at", get(history::at_of_source))
            .route("/search", get(search::search))
            .route("/facets", get(facets::handle))
            .route("/taxonomies", get(taxonomies::domains))
            .route("/taxonomies/{domain}", get(taxonomies::domain))
            .route("/windows", get(windows::windows))
            .route("/openapi.json", get(openapi::document))
            .route("/", get(openapi::page))
            .fallback(async || Problem::unknown("There is no resource at this path."))
            .with_state(Arc::clone(&shared));
        let limited = |routes| limits::limited(routes, Arc::clone(&shared.permits), limits::REQUEST_TIMEOUT);
        // With its slash the page is beside the nest, not in it.
        let page = Router::new().route("/api/v1/", get(openapi::page));
        Router::new().nest("/api/v1", limited(routes)).merge(limited(page))
    }
}

impl Shared {
    /// A transaction that can only read, as `app_ro`. It is dropped rather than committed, so that no reader waits for
    /// its end.
    pub async fn read(&self) -> Result<Transaction<'static, Postgres>, Problem> {
        begin(&self.pool).await.map_err(Problem::from)
    }

    /// The vocabulary as it stands.
    pub fn words(&self) -> Arc<Words> {
        Arc::clone(&self.words.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The lots in memory.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One message: a transaction that can only read, as whom, and for how long.
const BEGIN: &str = "-- api: begin
    begin transaction isolation level repeatable read, read only;
    set local role app_ro;
    set local statement_timeout = '10s'";

/// It is also the proof that the connection lives, so nothing is asked of it before: one that has died meanwhile is
/// thrown away, and the next is taken, as long as there may be any left of before.
async fn begin(pool: &PgPool) -> anyhow::Result<Transaction<'static, Postgres>> {
    let until = Instant::now() + limits::PATIENCE;
    let mut failed = sqlx::Error::PoolTimedOut.into();
    for _ in 0..=limits::CONNECTIONS {
        match tokio::time::timeout_at(until, pool.begin_with(BEGIN)).await {
            Ok(Ok(begun)) => return Ok(begun),
            Ok(Err(error)) => failed = anyhow::Error::new(error),
            Err(_) => break,
        }
        if passing(&failed) != Some(Passing::Connection) {
            break;
        }
    }
    Err(failed.context("begin to read"))
}

/// What is asked besides the path.
pub struct Ask {
    query: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
}

impl Ask {
    /// The query as it came.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

impl<S: Sync> FromRequestParts<S> for Ask {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Ask, Problem> {
        Ok(Ask { query: parts.uri.query().map(str::to_owned), headers: parts.headers.clone() })
    }
}

/// The name in the path.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Named(name)).map_err(|_| Problem::unknown("The path is not UTF-8."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::database;

    #[tokio::test]
    async fn a_request_reads_as_app_ro_for_ten_seconds_and_cannot_write() {
        let test = database().await;
        let api = Api::open(&test.db).await.unwrap();
        let mut tx = api.shared.read().await.unwrap();
        let (who, patience, read_only): (String, String, String) = sqlx::query_as(
            "select current_user::text, current_setting('statement_timeout'), current_setting('transaction_read_only')",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        assert_eq!([who.as_str(), patience.as_str(), read_only.as_str()], ["app_ro", "10s", "on"]);
        tx.rollback().await.unwrap();
        for deed in [
            "insert into public.vehicles (vin) values ('1HGCM82633A004352')",
            "update public.lots set status = 'sold'",
            "delete from public.lots",
            "insert into audit.operator_actions (who, action, subject, reason) values ('a', 'b', 'c', 'd')",
            "create table mine ()",
        ] {
            let mut tx = api.shared.read().await.unwrap();
            let refused = sqlx::raw_sql(deed).execute(&mut *tx).await.unwrap_err();
            let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert!(["25006", "42501"].contains(&code.as_str()), "{deed}: {refused}");
        }
        // the role alone is enough, should a statement ever begin a transaction of its own
        let mut tx = api.shared.pool.begin().await.unwrap();
        sqlx::raw_sql("set local role app_ro").execute(&mut *tx).await.unwrap();
        let refused = sqlx::raw_sql("update public.lots set status = 'sold'").execute(&mut *tx).await;
        assert_eq!(refused.unwrap_err().as_database_error().unwrap().code().as_deref(), Some("42501"));
    }
}
