//! The door to PostgreSQL: connections, and the schema behind them.
//!
//! Two URLs lead in. The pool may go through a pooler in transaction mode, so nothing it carries may outlive its
//! transaction: no session locks, no LISTEN, no `set` without `local`. What needs a session (LISTEN, migrations)
//! uses the direct URL.
//!
//! What a pooler must do besides, and how it is found out, stands in [`pooler`]. Parameters of the connection's start,
//! which poolers refuse, are none but the usual.
//!
//! **A connection may die without a word** (its host is gone, a middlebox forgot it), and then whatever waits for an answer
//! waits for the kernel to give up, a quarter of an hour. So a connection that leaves a pool or comes back to it must show
//! within `PROOF` that it lives, or it is thrown away; loops that must not wait put a limit on their questions besides.
//! Accepted: a job's own statement in the midst of which that happens waits for its kind's time limit.

pub mod catalogue;
pub mod copy;
pub mod digest;
pub mod encoding;
pub mod history;
pub mod listing;
pub mod migrate;
pub mod migrations;
pub mod operator;
pub mod papers;
pub mod passing;
pub mod pooler;
pub mod rights;
pub mod seed;
pub mod verify;
pub mod vocabulary;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::str::FromStr;
use std::time::Duration;

pub use migrate::{SchemaError, expect_schema};

/// Statements slower than this are logged, for those who log at debug.
const SLOW: Duration = Duration::from_secs(1);
/// How long a connection may take to answer a ping when it is taken up or let go.
const PROOF: Duration = Duration::from_secs(2);

/// A pool for pooled work, and what a direct connection (LISTEN, migrations) needs.
#[derive(Clone, Debug)]
pub struct Db {
    /// Connections for everyday work; may lead through a pooler.
    pub pool: PgPool,
    direct: PgConnectOptions,
    listens: bool,
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
        // an idle one that has died is thrown away where the usual test would wait for it
        let pool = pool()
            .test_before_acquire(false)
            .before_acquire(|connection, _| Box::pin(alive(connection)))
            .max_connections(max)
            .connect_with(options)
            .await
            .with_context(|| format!("connect to {whereto}"))?;
        // one connection is no fleet's
        let shared =
            max > 1 && pooler::shared(&pool).await.with_context(|| format!("connect to {whereto}"))?;
        let listens = !shared || direct_url.is_some_and(|direct| direct != url);
        Ok(Db { pool, direct, listens })
    }

    /// Whether there is a way to LISTEN: not by way of a pooler in transaction mode. Who can't has to poll.
    pub fn listens(&self) -> bool {
        self.listens
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

/// A pool that takes back no connection that has died without a word.
pub fn pool() -> PgPoolOptions {
    PgPoolOptions::new().after_release(|connection, _| Box::pin(alive(connection)))
}

async fn alive(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let answered = tokio::time::timeout(PROOF, connection.ping()).await;
    answered.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())).map(|()| true)
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
    let options = options.extra_float_digits(None);
    Ok(options.log_slow_statements(log::LevelFilter::Debug, SLOW))
}

/// Where a URL leads, without its password.
fn address(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("{}:{}/{database} as {}", options.get_host(), options.get_port(), options.get_username())
}
