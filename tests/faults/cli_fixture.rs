//! The fixture of tests that start processes: a database, a store in a folder, and the `vinops` binary with only these
//! in its environment.

use sqlx::PgPool;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::Command;
use vinops::testing::{TestDb, migrated_database};

/// The resources of one test's processes, removed when it is dropped.
pub struct CliFixture {
    pub db: TestDb,
    pub folder: TempDir,
    /// Additional variables of the processes, such as those of another store.
    pub environment: Vec<(String, String)>,
}

impl CliFixture {
    pub async fn new() -> CliFixture {
        CliFixture { db: migrated_database().await, folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    pub fn pool(&self) -> &PgPool {
        &self.db.db.pool
    }

    /// Returns a `vinops` command with these arguments, not yet started. The process is killed on drop.
    pub fn vinops_command(&self, arguments: &[&str]) -> Command {
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
