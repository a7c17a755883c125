//! Bad input and bad environments, through the outside interfaces: one clear error that names the cause and the fix,
//! the right exit code, and unchanged stored data.
//!
//! - `files`: files for `vinops ingest`
//! - `feed`: responses for `vinops fetch`
//! - `environment`: databases, schemas and folders
//! - `calls`: the command line itself
//! - `sources`: sources that are enabled and disabled
//! - `replay`: windows that are processed again
//! - `known_files`: files that are ingested again
//! - `store`: `vinops store check`
//! - `rebuild`: a database rebuilt from the store
//! - `withdrawn`: a file that is withdrawn
//! - `killed`: commands that are killed
//! - `jobs`: operator commands on jobs
//! - `confirm`: confirmations at a terminal

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod calls;
mod cli_fixture;
mod confirm;
mod environment;
mod feed;
mod files;
mod jobs;
mod killed;
mod known_files;
mod rebuild;
mod replay;
mod sources;
mod store;
mod withdrawn;

use cli_fixture::CliFixture;
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::Output;
use vinops::db::digest::{DataDigest, compute_digest};
use vinops::simulator::fault::{FeedFault, corrupt_file};
use vinops::simulator::{Simulator, SimulatorOptions};

const ROWS: usize = 400;

/// The output of a process, without the parts that differ from run to run.
struct CommandOutput {
    code: Option<i32>,
    out: String,
    err: String,
}

impl CommandOutput {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON:\n{}\n{}", self.out, self.err))
    }

    fn assert_output(&self, code: i32, err: &str) {
        assert_eq!((self.code, self.err.as_str()), (Some(code), err), "{}", self.out);
    }
}

/// The counts that a rejected file must not change.
#[derive(Debug, PartialEq)]
struct StoredCounts {
    digest: DataDigest,
    versions: i64,
    manifests: i64,
    heads: i64,
    staged: i64,
    transitions: i64,
}

impl CliFixture {
    async fn run_vinops(&self, arguments: &[&str]) -> CommandOutput {
        self.command_output(self.vinops_command(arguments).output().await.unwrap())
    }

    fn command_output(&self, output: Output) -> CommandOutput {
        let text =
            |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(self.folder.path().to_str().unwrap(), "FOLDER");
        CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Writes the simulated feed's file of window `k` into a tree of windows, with a fault if one is given. Returns its
    /// path.
    fn write_window_file(&self, k: u32, fault: Option<FeedFault>) -> PathBuf {
        let options = SimulatorOptions::new(3, ROWS, "2026-03-06T17:00:00Z".parse().unwrap());
        let path = self.folder.path().join(format!("in/{}.csv", options.window_start(k).format("%Y/%m/%d/%H%M")));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut whole = Vec::new();
        Simulator::new(options).write_window(k, &mut whole).unwrap();
        match fault {
            Some(fault) => drop(corrupt_file(&*whole, &mut File::create(&path).unwrap(), fault).unwrap()),
            None => std::fs::write(&path, whole).unwrap(),
        }
        path
    }

    async fn ingest_file(&self, path: &std::path::Path) -> CommandOutput {
        self.run_vinops(&["ingest", path.to_str().unwrap(), "--json"]).await
    }

    /// Returns a fixture with the first window applied.
    async fn with_first_window() -> CliFixture {
        let fixture = CliFixture::new().await;
        let said = fixture.ingest_file(&fixture.write_window_file(0, None)).await;
        // on a busy machine a job may be rescued, and the log contains that
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(said.json()["state"], "applied");
        fixture
    }

    async fn stored_counts(&self) -> StoredCounts {
        let counts = "select (select count(*) from raw.rows), (select count(*) from raw.manifests), \
            (select count(*) from raw.heads), (select count(*) from staging.copart_raw), \
            (select count(*) from audit.status_transitions)";
        let (versions, manifests, heads, staged, transitions) =
            sqlx::query_as(counts).fetch_one(self.pool()).await.unwrap();
        StoredCounts {
            digest: compute_digest(self.pool()).await.unwrap(),
            versions,
            manifests,
            heads,
            staged,
            transitions,
        }
    }

    /// Returns the newest window's state and note.
    async fn newest_window(&self) -> (String, Option<String>) {
        sqlx::query_as("select state, note from fleet.windows order by updated_at desc limit 1")
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Returns the newest job's kind and state, and the outcome of its last run.
    async fn newest_job(&self) -> (String, String, String) {
        let job = "select j.kind, j.state, a.outcome from fleet.jobs j join fleet.job_attempts a on a.job_id = j.id \
            order by j.id desc, a.run desc limit 1";
        sqlx::query_as(job).fetch_one(self.pool()).await.unwrap()
    }

    /// Checks that the newest file is stored byte for byte, its job completed, its window quarantined, and nothing else
    /// changed.
    async fn assert_quarantined(&self, before: &StoredCounts, bytes: &[u8], why: &str) {
        assert_eq!(self.newest_window().await, ("quarantined".to_owned(), Some(why.to_owned())));
        assert_eq!(self.newest_job().await, ("ingest".to_owned(), "completed".to_owned(), "done".to_owned()));
        assert_eq!(&self.stored_counts().await, before);
        let file: uuid::Uuid = sqlx::query_scalar("select file_id from raw.csv_files where state = 'quarantined'")
            .fetch_one(self.pool())
            .await
            .unwrap();
        let exported = self.vinops_command(&["raw", "export", &file.to_string()]).output().await.unwrap();
        assert!(exported.status.success() && exported.stdout == bytes, "the store keeps its bytes");
    }

    async fn count_rows(&self, table: &str) -> i64 {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(count).fetch_one(self.pool()).await.unwrap()
    }
}
