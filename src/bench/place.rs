//! Where measurements happen: a server, and databases on it that nobody else uses.
//!
//! Either a temporary cluster of our own, durable like a real one, or (`--server`) the server of DATABASE_URL, in
//! databases named after this process that are dropped at the end. Both need the rights of a superuser: CHECKPOINT.

use crate::db::migrations::AUCTION;
use crate::db::{Db, migrate};
use crate::embedded::{Embedded, Options};
use anyhow::{Context, anyhow};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// A server with a migrated template on it.
pub struct Place {
    admin: String,
    prefix: String,
    embedded: Option<Embedded>,
    made: AtomicU32,
}

/// A migrated database and an empty store.
pub struct Ground {
    /// Connected to the database.
    pub db: Db,
    /// Its URL, password included.
    pub url: String,
    name: String,
    store: TempDir,
}

impl Place {
    /// On a temporary cluster.
    pub async fn temporary() -> anyhow::Result<Place> {
        let embedded = Embedded::start(Options { temporary: true, ..Options::default() }).await?;
        Place::open(embedded.near_url("postgres"), Some(embedded)).await
    }

    /// On a server that runs already; `url` is any of its databases.
    pub async fn on(url: &str) -> anyhow::Result<Place> {
        Place::open(url.to_owned(), None).await
    }

    async fn open(admin: String, embedded: Option<Embedded>) -> anyhow::Result<Place> {
        let prefix = format!("vinops_bench_{}", std::process::id());
        let place = Place { admin, prefix, embedded, made: AtomicU32::new(0) };
        let template = place.template();
        place.run(format!("create database {template} template template0")).await?;
        let mut session = session(&place.url(&template)?).await?;
        migrate::up(&mut session, &AUCTION, |_| {}).await.context("migrate the template")?;
        session.close().await?;
        Ok(place)
    }

    /// A new migrated database and a new store.
    pub async fn ground(&self) -> anyhow::Result<Ground> {
        let name = format!("{}_{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed));
        self.run(format!("create database {name} template {}", self.template())).await?;
        let url = self.url(&name)?;
        let store = tempfile::Builder::new()
            .prefix("vinops-bench-")
            .tempdir()
            .context("make a folder for a store")?;
        Ok(Ground { db: Db::connect(&url, None, 16).await?, url, name, store })
    }

    /// Drops a database and its store.
    pub async fn leave(&self, ground: Ground) -> anyhow::Result<()> {
        ground.db.pool.close().await;
        self.run(format!("drop database if exists {} with (force)", ground.name)).await
    }

    /// Drops all there is of this run and stops a server of our own.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            return embedded.stop().await;
        }
        for at in 0..self.made.load(Ordering::Relaxed) {
            self.run(format!("drop database if exists {}_{at} with (force)", self.prefix)).await?;
        }
        self.run(format!("drop database if exists {} with (force)", self.template())).await
    }

    /// Which server this is, for people.
    pub async fn describe(&self) -> anyhow::Result<String> {
        if let Some(embedded) = &self.embedded {
            return Ok(embedded.describe());
        }
        let mut session = session(&self.admin).await?;
        let version = sqlx::query_scalar!(
            r#"-- bench: version
            select version() as "version!""#
        )
        .fetch_one(&mut session)
        .await?;
        Ok(format!("{version}, the server of DATABASE_URL"))
    }

    /// `psql`: beside the server's programs, else wherever the shell would find it.
    pub fn psql(&self) -> Option<PathBuf> {
        let beside = self.embedded.as_ref().map(|embedded| embedded.binaries().folder.clone());
        let named = beside.or_else(crate::config::pg_bindir).map(|folder| folder.join("psql"));
        let runs = |program: &Path| {
            std::process::Command::new(program)
                .arg("--version")
                .output()
                .is_ok_and(|said| said.status.success())
        };
        named.into_iter().chain([PathBuf::from("psql")]).find(|program| runs(program))
    }

    fn template(&self) -> String {
        format!("{}_template", self.prefix)
    }

    fn url(&self, database: &str) -> anyhow::Result<String> {
        let mut url = url::Url::parse(&self.admin).context("read the server's URL")?;
        url.set_path(database);
        Ok(url.into())
    }

    async fn run(&self, statement: String) -> anyhow::Result<()> {
        let mut session = session(&self.admin).await?;
        execute(&mut session, statement).await?;
        session.close().await?;
        Ok(())
    }
}

impl Ground {
    /// Writes out what is in memory, so that what follows starts even.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        execute(&mut self.session().await?, "checkpoint".to_owned()).await
    }

    /// A connection of its own.
    pub async fn session(&self) -> anyhow::Result<PgConnection> {
        session(&self.url).await
    }

    /// Its URL, password included.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The store as VINOPS_STORE names it.
    pub fn store(&self) -> anyhow::Result<String> {
        let url = url::Url::from_directory_path(self.store.path());
        url.map(String::from).map_err(|()| anyhow!("{} is not an absolute path", self.store.path().display()))
    }

    /// The store's folder.
    pub fn store_folder(&self) -> &Path {
        self.store.path()
    }
}

/// A connection that does not warn of slow statements: checkpoints and dropped databases take their time.
async fn session(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url).context("read the server's URL")?;
    let options = options.disable_statement_logging();
    options.connect().await.context("connect to the server that is measured")
}

/// Runs a statement whose names come from this room or, quoted, from the catalogue.
pub async fn execute(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await.context(statement)?;
    Ok(())
}
