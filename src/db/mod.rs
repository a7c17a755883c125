//! The door to PostgreSQL: pools and connections.
use anyhow::Context;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use std::str::FromStr;

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
        let options = PgConnectOptions::from_str(url).context("DATABASE_URL is not a PostgreSQL URL")?;
        let direct = PgConnectOptions::from_str(direct_url.unwrap_or(url))
            .context("DATABASE_DIRECT_URL is not a PostgreSQL URL")?;
        let pool = PgPoolOptions::new().max_connections(max).connect_with(options).await?;
        Ok(Db { pool, direct })
    }

    /// A connection of its own for LISTEN, never through a pooler.
    pub async fn listener(&self) -> sqlx::Result<PgListener> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(self.direct.clone()).await?;
        PgListener::connect_with(&pool).await
    }
}

pub mod copy;
