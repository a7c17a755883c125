//! A PostgreSQL cluster of the test, which may be killed at any moment and restarts with all committed data.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::TempDir;
use tokio::process::Command;
use vinops::db::migrate;
use vinops::db::migrations::AUCTION_SET;
use vinops::embedded::{EmbeddedOptions, EmbeddedPostgres};

pub struct ChaosCluster {
    // dropped before the folder, so that the server stops first
    server: Option<EmbeddedPostgres>,
    home: TempDir,
}

impl ChaosCluster {
    /// Starts a cluster whose commits wait for the log to be written but not for the disk. A killed server loses
    /// nothing, a power cut would.
    pub async fn new() -> ChaosCluster {
        let mut cluster = ChaosCluster { server: None, home: open_folder() };
        cluster.start().await;
        cluster.alter_system("alter system set fsync = off").await;
        cluster
    }

    /// Creates a migrated database and returns its URL.
    pub async fn create_database(&self, name: &str) -> String {
        let url = self.server.as_ref().unwrap().ensure_database(name).await.unwrap();
        migrate::apply_pending(&mut PgConnection::connect(&url).await.unwrap(), &AUCTION_SET, |_| {}).await.unwrap();
        url
    }

    pub fn url(&self, database: &str) -> String {
        self.server.as_ref().expect("the server is up").url(database)
    }

    pub fn address(&self) -> SocketAddr {
        let url = url::Url::parse(&self.url("postgres")).unwrap();
        SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()))
    }

    /// Creates a synchronous standby, without which nothing commits from now on. Returns `None` if its program is
    /// missing.
    pub async fn standby(&self) -> Option<ChaosCluster> {
        let server = self.server.as_ref().unwrap();
        let program = server.binaries().folder.join("pg_basebackup");
        if !program.is_file() {
            return None;
        }
        let home = open_folder();
        let [ours, copy] = [&self.home, &home].map(|home| home.path().join("postgres"));
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(ours.join("password"), copy.join("password")).unwrap();
        let copied = Command::new(program)
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &self.url("postgres"), "-D"])
            .arg(copy.join("data"))
            .output()
            .await
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        // as root, the server runs as another user
        let owner = std::fs::metadata(ours.join("data")).unwrap();
        let owner = format!("{}:{}", owner.uid(), owner.gid());
        assert!(Command::new("chown").arg("-R").arg(owner).arg(&copy).status().await.unwrap().success());
        let mut standby = ChaosCluster { server: None, home };
        standby.start().await;
        self.alter_system("alter system set synchronous_standby_names = '*'").await;
        Some(standby)
    }

    /// Promotes the standby.
    pub async fn promote(&mut self) {
        let mut session = PgConnection::connect(&self.url("postgres")).await.unwrap();
        for statement in
            ["alter system set synchronous_standby_names = ''", "select pg_reload_conf()", "select pg_promote()"]
        {
            sqlx::raw_sql(statement).execute(&mut session).await.unwrap();
        }
    }

    async fn alter_system(&self, setting: &'static str) {
        let mut session = PgConnection::connect(&self.url("postgres")).await.unwrap();
        for statement in [setting, "select pg_reload_conf()"] {
            sqlx::raw_sql(statement).execute(&mut session).await.unwrap();
        }
    }

    /// Stops the server as `pg_ctl stop -m immediate` does, without a checkpoint.
    pub async fn kill(&mut self) {
        self.server.take().expect("the server is up").crash().await.unwrap();
    }

    /// Starts the server. After a kill it uses another port and recovers from its log.
    pub async fn start(&mut self) {
        let options =
            EmbeddedOptions { home: Some(self.home.path().to_owned()), followed: true, ..EmbeddedOptions::default() };
        self.server = Some(EmbeddedPostgres::start(options).await.unwrap());
    }
}

/// Creates a folder that the server's user may enter, whichever user that is.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Runs statements without parameters.
pub async fn run_sql(url: &str, sql: &str) {
    let mut session = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
}
