//! The door to PostgreSQL: connections, and the schema behind them.
//!
//! Two URLs lead in. The pool may go through a pooler in transaction mode, so nothing it carries may outlive its
//! transaction: no session locks, no LISTEN, no `set` without `local`. What needs a session (LISTEN, migrations)
//! uses the direct URL.

pub mod copy;
pub mod digest;
pub mod migrate;
pub mod migrations;
pub mod papers;
pub mod seed;
pub mod verify;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool};
use std::str::FromStr;
use std::time::Duration;

pub use migrate::{SchemaError, expect_schema};

/// Statements slower than this are logged, for those who log at debug.
const SLOW: Duration = Duration::from_secs(1);

/// A pool for pooled work, and what a direct connection (LISTEN, migrations) needs.
#[derive(Clone, Debug)]
pub struct Db {
    /// Connections for everyday work; may lead through a pooler.
    pub pool: PgPool,
    direct: PgConnectOptions,
}

impl Db {
    /// Connects, at most `max` connections in the pool; `direct_url` defaults to `url`.
    pub async fn connect(url: &str, direct_url: Option<&str>, max: u32) -> anyhow::Result<Db> {
        let options = parse(url, "DATABASE_URL")?;
        let direct = match direct_url {
            Some(direct) => parse(direct, "DATABASE_DIRECT_URL")?,
            None => options.clone(),
        };
        let whereto = address(&options);
        let pool = PgPoolOptions::new()
            .max_connections(max)
            .connect_with(options)
            .await
            .with_context(|| format!("connect to {whereto}"))?;
        Ok(Db { pool, direct })
    }

    /// A connection of its own for LISTEN, never through a pooler.
    pub async fn listener(&self) -> sqlx::Result<PgListener> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(self.direct.clone()).await?;
        PgListener::connect_with(&pool).await
    }

    /// A connection of its own for work that needs a session, such as migrations.
    pub async fn session(&self) -> anyhow::Result<PgConnection> {
        let whereto = address(&self.direct);
        self.direct.connect().await.with_context(|| format!("connect to {whereto}"))
    }
}

/// One connection without a pool, for work that needs a session before there is a schema.
pub async fn session(url: &str) -> anyhow::Result<PgConnection> {
    let options = parse(url, "the database's URL")?;
    options.connect().await.with_context(|| format!("connect to {}", address(&options)))
}

fn parse(url: &str, name: &str) -> anyhow::Result<PgConnectOptions> {
    let options =
        PgConnectOptions::from_str(url).with_context(|| format!("{name} is not a PostgreSQL URL"))?;
    // a step's statement may well take seconds: its report says so, the log need not
    Ok(options.log_slow_statements(log::LevelFilter::Debug, SLOW))
}

/// Whether an error is the database's for the moment (a restart, a cut connection, a deadlock), so that the same work
/// may well succeed a little later.
pub fn is_passing(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|error| match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // no connection (08), shutting down or starting up (57P), too many connections, and lost races
            code.starts_with("08") || code.starts_with("57P") || ["53300", "40001", "40P01"].contains(&&*code)
        }),
        _ => false,
    })
}

/// Where a URL leads, without its password.
fn address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database} as {}", options.get_host(), options.get_port(), options.get_username())
}
