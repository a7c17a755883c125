//! A private PostgreSQL, so that `cargo run` and `cargo test` need only PostgreSQL's programs. Missing programs are
//! downloaded.
//!
//! **Programs.** `VINOPS_PG_BINDIR`, else the newest installed server of version 15 or later, else a package downloaded
//! once with the npm client and checked against a pinned hash (`package.rs`). The build of the package is about half as
//! fast as a distribution's, so every printed measurement names its server ([`EmbeddedPostgres::describe`]).
//!
//! **User.** PostgreSQL refuses to run as root. If vinops runs as root, only the server processes change to `postgres`
//! or `nobody` (`os_user.rs`). The process of vinops itself keeps its user.
//!
//! **Lifetime.** The server must not outlive vinops, even after a `kill -9`, or an orphan keeps the data folder locked.
//! Linux sends the server SIGINT (a clean, fast shutdown) when the *thread* that started it ends, hence a thread of its
//! own (`server.rs`). On other systems a shell at the other end of a pipe does the same. A temporary cluster is deleted
//! with its folder when the process exits. The leftovers of a killed process are deleted by the next process that
//! starts.
//!
//! **Races.** Two processes on one folder: the second one gets an error from the file lock. A free port is taken before
//! the server binds it: another port is tried. The server of a predecessor is still shutting down: the start waits. A
//! stale `postmaster.pid` contains the pid of an unrelated process (common in containers, where pids are small): the
//! file is removed, since the lock proves that no server of vinops uses the folder. Accepted: a server that another
//! user started manually on the folder is not detected without `/proc`. PostgreSQL's own checks remain.
//!
//! Connections use loopback TCP with a random password, which is stored beside the data for the next start, readable by
//! the owner only. The path of a Unix socket would be too long in half of all temporary folders.
//! [`EmbeddedPostgres::socket_url`] returns the socket where the path is short enough.

mod binaries;
mod cluster;
mod os_user;
mod package;
mod server;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::PathBuf;
use std::sync::Arc;

pub use binaries::{BinariesOrigin, ServerBinaries};

/// Options of the cluster to start.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Folder of clusters and downloaded programs. Default: `/var/lib/vinops` for root, else the user's data folder.
    pub home: Option<PathBuf>,
    /// True for a cluster in a folder of its own, deleted with the process. False for the permanent cluster in `home`,
    /// created on first use.
    pub temporary: bool,
    /// True if the cluster survives a power cut. False never waits for the disk, for tests and demonstrations.
    pub durable: bool,
    /// True if other servers may replicate the cluster. False writes bulk loads only once, with minimal WAL.
    pub followed: bool,
}

impl Default for EmbeddedOptions {
    /// Returns the options of the user's permanent, durable cluster.
    fn default() -> EmbeddedOptions {
        EmbeddedOptions { home: None, temporary: false, durable: true, followed: false }
    }
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    server: Arc<server::PostgresServer>,
    binaries: ServerBinaries,
}

impl EmbeddedPostgres {
    /// Finds the programs, creates the cluster if it does not exist, and returns once the server accepts connections.
    pub async fn start(options: EmbeddedOptions) -> anyhow::Result<EmbeddedPostgres> {
        tokio::task::spawn_blocking(move || EmbeddedPostgres::start_blocking(&options))
            .await
            .context("could not start the embedded PostgreSQL")?
    }

    fn start_blocking(options: &EmbeddedOptions) -> anyhow::Result<EmbeddedPostgres> {
        let os_user = os_user::OsUser::select_user()?;
        let home = match &options.home {
            Some(home) => home.clone(),
            None => os_user.default_home()?,
        };
        let folder = if options.temporary {
            cluster::ClusterFolder::create_temporary(&os_user)?
        } else {
            cluster::ClusterFolder::open_cluster(&home.join("postgres"), &os_user)?
        };
        let binaries = binaries::find_binaries(&home, &os_user, folder.major_version()?)?;
        let password = folder.prepare_cluster(&binaries, &os_user, options.durable)?;
        let settings = cluster::server_settings(&binaries, options, folder.socket_folder());
        let server = server::PostgresServer::launch_server(folder, &binaries, &os_user, &settings, password)?;
        Ok(EmbeddedPostgres { server, binaries })
    }

    /// Returns the URL of `database` on this server for the superuser, password included.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// Returns the URL of `database` over the server's Unix socket, or over TCP if the server has no socket.
    ///
    /// For a machine without other users. A COPY over TCP may wait 40 ms for an acknowledgement at the end, see
    /// `db::copy`.
    pub fn socket_url(&self, database: &str) -> String {
        self.server.socket_url(database)
    }

    /// Creates an empty `database` unless it exists. Returns the URL.
    pub async fn ensure_database(&self, database: &str) -> anyhow::Result<String> {
        let mut session = PgConnection::connect(&self.url("postgres"))
            .await
            .context("could not connect to the embedded PostgreSQL")?;
        let there: bool = sqlx::query_scalar(
            "-- embedded: database there
             select exists (select from pg_database where datname = $1)",
        )
        .bind(database)
        .fetch_one(&mut session)
        .await?;
        if !there {
            // A statement contains a name only as text, hence the quotes.
            let create = format!("create database \"{}\"", database.replace('"', "\"\""));
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&mut session)
                .await
                .with_context(|| format!("could not create database {database}"))?;
        }
        session.close().await?;
        Ok(self.url(database))
    }

    /// Returns version, origin and folder of the server for people: "PostgreSQL 15.18, installed in /usr/lib/…".
    pub fn describe(&self) -> String {
        self.binaries.to_string()
    }

    /// Returns the programs of the server.
    pub fn binaries(&self) -> &ServerBinaries {
        &self.binaries
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Stops the server without a checkpoint, as a crash would, and returns once the process has ended. For tests.
    pub async fn crash(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.server.crash())
            .await
            .context("could not crash the embedded PostgreSQL")?
    }

    /// Closes open connections, stops the server and returns once the process has ended.
    pub async fn stop(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.server.stop())
            .await
            .context("could not stop the embedded PostgreSQL")?
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.server.stop() {
            tracing::warn!(error = format!("{error:#}"), "could not stop the embedded PostgreSQL");
        }
    }
}

#[cfg(test)]
mod tests;
