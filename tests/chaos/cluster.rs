//! A PostgreSQL of the test's own, that may be killed at any moment and comes back with what was committed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use vinops::db::migrate;
use vinops::db::migrations::AUCTION;
use vinops::embedded::{Embedded, Options};

pub struct Cluster {
    // before the folder, so that the server is gone when the folder goes
    server: Option<Embedded>,
    home: TempDir,
}

impl Cluster {
    /// Commits wait for the log to be written but not for the disk: a killed server loses nothing, a power cut would.
    pub async fn new() -> Cluster {
        let home = tempfile::tempdir().unwrap();
        // as root, the server is another user's
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut cluster = Cluster { server: None, home };
        cluster.start().await;
        let mut session = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
        for setting in ["alter system set fsync = off", "select pg_reload_conf()"] {
            sqlx::raw_sql(setting).execute(&mut session).await.unwrap();
        }
        cluster
    }

    /// A migrated database.
    pub async fn database(&self, name: &str) -> String {
        let url = self.server.as_ref().unwrap().database(name).await.unwrap();
        migrate::up(&mut PgConnection::connect(&url).await.unwrap(), &AUCTION, |_| {}).await.unwrap();
        url
    }

    pub fn url(&self, database: &str) -> String {
        self.server.as_ref().expect("the server is up").url(database)
    }

    pub fn address(&self) -> SocketAddr {
        let url = url::Url::parse(&self.url("postgres")).unwrap();
        SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()))
    }

    /// As `pg_ctl stop -m immediate`: no goodbye, no checkpoint.
    pub async fn kill(&mut self) {
        let server = self.server.take().expect("the server is up");
        kill(Pid::from_raw(server.pid().cast_signed()), Signal::SIGQUIT).unwrap();
        server.stop().await.unwrap();
    }

    /// Starts it, after a kill on another port and by way of its log.
    pub async fn start(&mut self) {
        let options = Options { home: Some(self.home.path().to_owned()), temporary: false, durable: true };
        self.server = Some(Embedded::start(options).await.unwrap());
    }
}

/// Runs statements without parameters.
pub async fn run(url: &str, sql: &str) {
    let mut session = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
}
