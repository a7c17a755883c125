//! Proof that the measured work was done: fast and wrong is no figure.

use super::files::{Files, sha256};
use super::hand;
use super::place::{Ground, Place};
use crate::cli::{Fleet, Received};
use crate::config::Config;
use crate::db::digest::{Digest, digest};
use crate::queue::{Event, Worker};
use crate::store::Store;
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What was proved.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// Files that `vinops raw export` gave back byte for byte: all of them.
    pub files: usize,
    /// Of the database that the measured windows made.
    pub measured: Digest,
    /// Of one where every window stored and applied every row; none unless asked for.
    pub full: Option<Digest>,
}

impl Proof {
    /// Whether all that was looked at is as it must be.
    pub fn holds(&self) -> bool {
        self.full.as_ref().is_none_or(|full| *full == self.measured)
    }
}

/// Exports each window of `ground` and compares it with its file; gives how many there were.
pub async fn files_come_back(ground: &Ground, files: &Files) -> anyhow::Result<usize> {
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
        .fetch_one(&ground.db.pool)
        .await
        .with_context(|| format!("look for {}", window.path.display()))?;
        let out = window.path.with_extension("out");
        let to = out.to_str().context("the temporary folder's name is not UTF-8")?;
        hand::vinops(ground, &["raw", "export", &file_id.to_string(), "--out", to]).await?;
        let sha256 = sha256(&out)?;
        std::fs::remove_file(&out)?;
        ensure!(sha256 == window.sha256, "{} came back with other bytes", window.path.display());
    }
    Ok(files.windows.len())
}

/// The digest of what all windows give when every row of each is stored and applied.
pub async fn full_digest(
    place: &Place,
    files: &Files,
    fleet: Fleet,
    config: &Config,
) -> anyhow::Result<Digest> {
    let ground = place.ground().await?;
    let store = Store::open(&ground.store()?)?;
    let mut file_ids = Vec::new();
    for window in &files.windows {
        let receipt = (fleet.receive)(Received {
            db: ground.db.clone(),
            store: store.clone(),
            path: window.path.clone(),
            source: "copart".to_owned(),
            window: None,
            told: Box::new(|_, _| {}),
        })
        .await?;
        let asked = sqlx::query!(
            r#"-- bench: work this file in full
            update fleet.jobs set payload = payload || '{"full": true}' where key = $1 and kind = $2"#,
            receipt.file_id.to_string(),
            receipt.kind
        )
        .execute(&ground.db.pool)
        .await?;
        ensure!(asked.rows_affected() == 1, "file {} has no first job", receipt.file_id);
        file_ids.push(receipt.file_id);
    }
    let (watchers, events) = broadcast::channel(4096);
    let leave = CancellationToken::new();
    let worker = Worker::new(&ground.db, fleet.jobs)
        .lease(*config.lease.get()?)
        .tools((fleet.tools)(config, store)?)
        .observe(watchers)
        .run(leave.clone());
    let worker = tokio::spawn(worker);
    let applied = applied(&ground, &file_ids, events).await;
    leave.cancel();
    worker.await.context("the worker panicked")??;
    applied?;
    let full = digest(&ground.db.pool).await?;
    place.leave(ground).await?;
    Ok(full)
}

/// Waits until these files are applied.
async fn applied(
    ground: &Ground,
    files: &[Uuid],
    mut events: broadcast::Receiver<Event>,
) -> anyhow::Result<()> {
    loop {
        let left = sqlx::query_scalar!(
            r#"-- bench: files not applied yet
            select count(*) as "left!" from raw.csv_files where file_id = any($1) and state <> 'applied'"#,
            files
        )
        .fetch_one(&ground.db.pool)
        .await?;
        if left == 0 {
            return Ok(());
        }
        match events.recv().await {
            Ok(Event::Ended { kind, error, discarded: true, .. }) => {
                bail!("{kind} was given up: {}", error.unwrap_or_default())
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => bail!("the worker left before its work was done"),
        }
    }
}
