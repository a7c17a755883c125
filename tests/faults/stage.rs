//! A stage for processes: a database, a store in a folder, and the `vinops` binary with just these in its environment.

use sqlx::PgPool;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::Command;
use vinops::testing::{TestDb, database};

/// What the processes of one test share; gone with it.
pub struct Stage {
    pub db: TestDb,
    pub folder: TempDir,
    /// Variables of the processes besides their own, such as another store's.
    pub environment: Vec<(String, String)>,
}

impl Stage {
    pub async fn new() -> Stage {
        Stage { db: database().await, folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    pub fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    /// `vinops` with these arguments, not yet started; it is killed when the test lets go of it.
    pub fn vinops(&self, arguments: &[&str]) -> Command {
        let store = url::Url::from_directory_path(self.folder.path().join("store")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vinops"));
        command
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", &self.db.url)
            .env("VINOPS_STORE", store.as_str())
            .env("VINOPS_LEASE", "300ms")
            .env("HOME", self.folder.path())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}
