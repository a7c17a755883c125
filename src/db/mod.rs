//! PostgreSQL access: connection pools, and the schema that the program needs.
//!
//! There are two URLs. The pool may go through a pooler in transaction mode, so no state on a pooled connection may
//! outlive a transaction: no session locks, no LISTEN, no `set` without `local`. Work that needs a session (LISTEN,
//! migrations) uses the direct URL.
//!
//! The other requirements on a pooler, and how a pooler is detected, are described in [`pooler`]. Connections send no
//! startup parameters beyond the defaults, since poolers reject others.
//!
//! **A connection may die silently**, because its host is gone or a middlebox forgot the connection. A client that
//! waits for a response then waits until the kernel gives up, which takes a quarter of an hour. So each connection is
//! pinged when it leaves a pool and when it returns. A connection that does not respond within `PING_TIMEOUT` is
//! closed. Loops that must not wait also put a timeout on their queries. Accepted: a job whose own statement is running
//! when the connection dies waits for the time limit of its kind.

pub mod catalogue;
pub mod copy;
pub mod digest;
pub mod encoding;
pub mod history;
pub mod listing;
pub mod migrate;
pub mod migration_index;
pub mod migrations;
pub mod operator;
pub mod pooler;
pub mod rights;
pub mod seed;
pub mod taxonomy;
pub mod transient;
pub mod verify;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::str::FromStr;
use std::time::Duration;

pub use migrate::{SchemaError, expect_schema};

/// Age from which the driver logs a statement, at level debug.
const SLOW_STATEMENT_AGE: Duration = Duration::from_secs(1);
/// Time limit of the ping of a connection that leaves a pool or returns to it.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Connection pool, and the options of direct connections (LISTEN, migrations).
#[derive(Clone, Debug)]
pub struct Database {
    /// Connections for transactions of any kind. They may go through a pooler.
    pub pool: PgPool,
    direct: PgConnectOptions,
    listens: bool,
}

impl Database {
    /// Connects with at most `max` connections in the pool. `direct_url` defaults to `url`.
    ///
    /// # Errors
    /// Returns an error if a URL is not valid, if the database is not reachable, or if the pooler loses prepared
    /// statements.
    pub async fn connect(url: &str, direct_url: Option<&str>, max: u32) -> anyhow::Result<Database> {
        let options = parse_url(url, "DATABASE_URL")?;
        let direct = match direct_url {
            Some(direct) => parse_url(direct, "DATABASE_DIRECT_URL")?,
            None => options.clone(),
        };
        let whereto = server_address(&options);
        // a dead idle connection is closed here, where the driver's own test would wait for a response
        let pool = pool_options()
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(ping_connection(connection)))
            .max_connections(max)
            .connect_with(options)
            .await
            .with_context(|| format!("could not connect to {whereto}"))?;
        // workers have more than one connection, so a pool of one needs no check
        let shared =
            max > 1 && pooler::detect_pooler(&pool).await.with_context(|| format!("could not connect to {whereto}"))?;
        let listens = !shared || direct_url.is_some_and(|direct| direct != url);
        Ok(Database { pool, direct, listens })
    }

    /// Returns true if LISTEN works, which a pooler in transaction mode prevents. Without LISTEN the caller has to
    /// poll.
    pub fn supports_listen(&self) -> bool {
        self.listens
    }

    /// Opens a separate connection for LISTEN, which never goes through a pooler.
    pub async fn connect_listener(&self) -> sqlx::Result<PgListener> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(self.direct.clone()).await?;
        PgListener::connect_with(&pool).await
    }

    /// Opens a separate connection for work that needs a session, such as migrations.
    pub async fn connect_session(&self) -> anyhow::Result<PgConnection> {
        let whereto = server_address(&self.direct);
        self.direct.connect().await.with_context(|| format!("could not connect to {whereto}"))
    }
}

/// Returns pool options that close each returned connection that does not respond to a ping.
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new().after_release(|connection, _| Box::pin(ping_connection(connection)))
}

async fn ping_connection(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let answered = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
    answered.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())).map(|()| true)
}

/// Opens one connection without a pool, for work that needs a session before there is a schema.
pub async fn connect_session(url: &str) -> anyhow::Result<PgConnection> {
    let options = parse_url(url, "the database URL")?;
    options.connect().await.with_context(|| format!("could not connect to {}", server_address(&options)))
}

fn parse_url(url: &str, name: &str) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).with_context(|| format!("{name} is not a PostgreSQL URL"))?;
    // a job's statement may take seconds, and the job's report contains its duration
    let options = options.extra_float_digits(None);
    Ok(options.log_slow_statements(log::LevelFilter::Debug, SLOW_STATEMENT_AGE))
}

/// Returns the server, database and user of a URL, without the password.
fn server_address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database} as {}", options.get_host(), options.get_port(), options.get_username())
}
