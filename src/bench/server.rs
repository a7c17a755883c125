//! The PostgreSQL server of the benchmarks, and databases on it that nothing else uses.
//!
//! The server is a temporary cluster with durable writes, or, with `--server`, the server of DATABASE_URL. On the
//! latter, the databases are named after this process and are dropped at the end. Both need a superuser, because of
//! CHECKPOINT.

use crate::db::migrations::AUCTION_SET;
use crate::db::{Database, migrate};
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres};
use anyhow::{Context, anyhow};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Server with a migrated template database.
pub struct BenchServer {
    admin: String,
    prefix: String,
    embedded: Option<EmbeddedPostgres>,
    made: AtomicU32,
}

/// Migrated database with an empty store.
pub struct BenchDatabase {
    /// Connection pool of the database.
    pub db: Database,
    /// URL of the database, including the password.
    pub url: String,
    name: String,
    store: TempDir,
}

impl BenchServer {
    /// Starts a temporary cluster and creates the template on it.
    pub async fn start_temporary() -> anyhow::Result<BenchServer> {
        let embedded =
            EmbeddedPostgres::start(EmbeddedOptions { temporary: true, ..EmbeddedOptions::default() }).await?;
        BenchServer::create_template(embedded.socket_url("postgres"), Some(embedded)).await
    }

    /// Creates the template on a running server. `url` is any of the server's databases.
    pub async fn connect(url: &str) -> anyhow::Result<BenchServer> {
        BenchServer::create_template(url.to_owned(), None).await
    }

    async fn create_template(admin: String, embedded: Option<EmbeddedPostgres>) -> anyhow::Result<BenchServer> {
        let prefix = format!("vinops_bench_{}", std::process::id());
        let place = BenchServer { admin, prefix, embedded, made: AtomicU32::new(0) };
        let template = place.template_name();
        place.run_statement(format!("create database {template} template template0")).await?;
        let mut session = connect_session(&place.database_url(&template)?).await?;
        migrate::apply_pending(&mut session, &AUCTION_SET, |_| {})
            .await
            .context("could not migrate the template database")?;
        session.close().await?;
        Ok(place)
    }

    /// Creates a migrated database and a store.
    pub async fn create_database(&self) -> anyhow::Result<BenchDatabase> {
        let name = format!("{}_{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed));
        self.run_statement(format!("create database {name} template {}", self.template_name())).await?;
        let url = self.database_url(&name)?;
        let store = tempfile::Builder::new()
            .prefix("vinops-bench-")
            .tempdir()
            .context("could not create a folder for the store")?;
        Ok(BenchDatabase { db: Database::connect(&url, None, 16).await?, url, name, store })
    }

    /// Drops a database and its store.
    pub async fn drop_database(&self, database: BenchDatabase) -> anyhow::Result<()> {
        database.db.pool.close().await;
        self.run_statement(format!("drop database if exists {} with (force)", database.name)).await
    }

    /// Stops the temporary cluster, or drops all databases of this run on another server.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Some(embedded) = self.embedded {
            return embedded.stop().await;
        }
        for at in 0..self.made.load(Ordering::Relaxed) {
            self.run_statement(format!("drop database if exists {}_{at} with (force)", self.prefix)).await?;
        }
        self.run_statement(format!("drop database if exists {} with (force)", self.template_name())).await
    }

    /// Returns the server's version and origin, for reports.
    pub async fn describe(&self) -> anyhow::Result<String> {
        if let Some(embedded) = &self.embedded {
            return Ok(embedded.describe());
        }
        let mut session = connect_session(&self.admin).await?;
        let version = sqlx::query_scalar!(
            r#"-- bench: version
            select version() as "version!""#
        )
        .fetch_one(&mut session)
        .await?;
        Ok(format!("{version}, server of DATABASE_URL"))
    }

    /// Returns the path of `psql`: from the folder of the server's programs, otherwise from PATH.
    pub fn find_psql(&self) -> Option<PathBuf> {
        let beside = self.embedded.as_ref().map(|embedded| embedded.binaries().folder.clone());
        let named = beside.or_else(crate::config::pg_bindir).map(|folder| folder.join("psql"));
        let runs = |program: &Path| {
            std::process::Command::new(program).arg("--version").output().is_ok_and(|said| said.status.success())
        };
        named.into_iter().chain([PathBuf::from("psql")]).find(|program| runs(program))
    }

    fn template_name(&self) -> String {
        format!("{}_template", self.prefix)
    }

    fn database_url(&self, database: &str) -> anyhow::Result<String> {
        let mut url = url::Url::parse(&self.admin).context("server URL is invalid")?;
        url.set_path(database);
        Ok(url.into())
    }

    async fn run_statement(&self, statement: String) -> anyhow::Result<()> {
        let mut session = connect_session(&self.admin).await?;
        execute_statement(&mut session, statement).await?;
        session.close().await?;
        Ok(())
    }
}

impl BenchDatabase {
    /// Runs CHECKPOINT, so that earlier writes do not affect the next measurement.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        execute_statement(&mut self.open_session().await?, "checkpoint".to_owned()).await
    }

    /// Opens a connection outside the pool.
    pub async fn open_session(&self) -> anyhow::Result<PgConnection> {
        connect_session(&self.url).await
    }

    /// Returns the URL of the database, including the password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL of the store, in the form of VINOPS_STORE.
    pub fn store_url(&self) -> anyhow::Result<String> {
        let url = url::Url::from_directory_path(self.store.path());
        url.map(String::from).map_err(|()| anyhow!("{} is not an absolute path", self.store.path().display()))
    }

    /// Returns the folder of the store.
    pub fn store_folder(&self) -> &Path {
        self.store.path()
    }
}

/// Opens a connection that logs no slow statements, because checkpoints and dropped databases are slow.
async fn connect_session(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url).context("server URL is invalid")?;
    let options = options.disable_statement_logging();
    options.connect().await.context("could not connect to the benchmark server")
}

/// Runs a statement. Names in the statement are constants of the benchmarks or quoted names from the catalog.
pub async fn execute_statement(connection: &mut PgConnection, statement: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(connection).await.context(statement)?;
    Ok(())
}
