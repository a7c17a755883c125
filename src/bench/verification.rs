//! Verification that the measured work was done correctly.

use super::files::{BenchFiles, hash_file};
use super::run_window;
use super::server::{BenchDatabase, BenchServer};
use crate::cli::{ImportRequest, JobRegistry};
use crate::config::Config;
use crate::db::digest::{DataDigest, compute_digest};
use crate::queue::{Worker, WorkerEvent};
use crate::store::Store;
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Result of the verification.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// Number of files, all of which `vinops raw export` returned byte for byte.
    pub files: usize,
    /// Digest of the database that the measured windows filled.
    pub measured: DataDigest,
    /// Digest of a database in which every window stored and applied every row. Null without `--verify`.
    pub full: Option<DataDigest>,
}

impl Verification {
    /// Returns true if the two digests are equal or only one was computed.
    pub fn has_passed(&self) -> bool {
        self.full.as_ref().is_none_or(|full| *full == self.measured)
    }
}

/// Exports the file of each window and compares its hash with that of the input. Returns the number of files.
pub async fn verify_exports(database: &BenchDatabase, files: &BenchFiles) -> anyhow::Result<usize> {
    for window in &files.windows {
        let file_id = sqlx::query_scalar!(
            "-- bench: a file by its bytes
            select file_id
            from raw.csv_files
            where source = 'copart'
              and sha256 = $1
              and state <> 'withdrawn'",
            window.sha256
        )
        .fetch_one(&database.db.pool)
        .await
        .with_context(|| format!("could not find the stored file of {}", window.path.display()))?;
        let out = window.path.with_extension("out");
        let to = out.to_str().context("the path of the temporary folder is not UTF-8")?;
        run_window::run_vinops(database, &["raw", "export", &file_id.to_string(), "--out", to]).await?;
        let sha256 = hash_file(&out)?;
        std::fs::remove_file(&out)?;
        ensure!(sha256 == window.sha256, "exported file {} differs from its input", window.path.display());
    }
    Ok(files.windows.len())
}

/// Processes all windows in full in a new database, so that every row is stored and applied. Returns its digest.
pub async fn full_digest(
    place: &BenchServer,
    files: &BenchFiles,
    fleet: JobRegistry,
    config: &Config,
) -> anyhow::Result<DataDigest> {
    let database = place.create_database().await?;
    let store = Store::open(&database.store_url()?)?;
    let mut file_ids = Vec::new();
    for window in &files.windows {
        let receipt = (fleet.receive)(ImportRequest {
            db: database.db.clone(),
            store: store.clone(),
            path: window.path.clone(),
            source: "copart".to_owned(),
            window: None,
            progress: Box::new(|_, _| {}),
        })
        .await?;
        let asked = sqlx::query!(
            r#"-- bench: work this file in full
            update fleet.jobs set payload = payload || '{"full": true}' where key = $1 and kind = $2"#,
            receipt.file_id.to_string(),
            receipt.kind
        )
        .execute(&database.db.pool)
        .await?;
        ensure!(asked.rows_affected() == 1, "file {} has no ingest job", receipt.file_id);
        file_ids.push(receipt.file_id);
    }
    let (watchers, events) = broadcast::channel(4096);
    let leave = CancellationToken::new();
    let worker = Worker::new(&database.db, fleet.jobs)
        .with_lease(*config.lease.get()?)
        .with_extensions((fleet.extensions)(config, store)?)
        .with_event_sender(watchers)
        .run(leave.clone());
    let worker = tokio::spawn(worker);
    let applied = wait_until_applied(&database, &file_ids, events).await;
    leave.cancel();
    worker.await.context("worker panicked")??;
    applied?;
    let full = compute_digest(&database.db.pool).await?;
    place.drop_database(database).await?;
    Ok(full)
}

/// Waits until these files are applied.
///
/// # Errors
/// Returns an error if a job was discarded or the worker stopped before.
async fn wait_until_applied(
    database: &BenchDatabase,
    files: &[Uuid],
    mut events: broadcast::Receiver<WorkerEvent>,
) -> anyhow::Result<()> {
    loop {
        let left = sqlx::query_scalar!(
            r#"-- bench: files not applied yet
            select count(*) as "left!" from raw.csv_files where file_id = any($1) and state <> 'applied'"#,
            files
        )
        .fetch_one(&database.db.pool)
        .await?;
        if left == 0 {
            return Ok(());
        }
        match events.recv().await {
            Ok(WorkerEvent::Ended { kind, error, discarded: true, .. }) => {
                bail!("{kind} job was discarded: {}", error.unwrap_or_default())
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => bail!("worker stopped before all files were applied"),
        }
    }
}
