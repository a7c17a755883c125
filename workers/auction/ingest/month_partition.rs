//! Loads the rows of a month's first file over a second connection into a detached table, and indexes it afterwards.
//!
//! Most of the work of a first window is PostgreSQL's processing of 154,000 JSONB rows. Running beside the staging of
//! the same rows, it uses a second core. Building the indexes by one sort costs a third of 154,000 insertions. The
//! price is a second transaction, so the order matters. The second transaction commits first and leaves a table that no
//! query reads. The step's transaction then attaches it. If the worker is killed in between, the table
//! (`raw.rows_YYYY_MM_loading`) stays until the month is opened again, which drops it. An unattached `raw.rows_YYYY_MM`
//! is refused, since its rows are not those of this load.

use crate::db::copy::{CopyBuf, CopyStream};
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

enum LoadMessage {
    Rows(CopyBuf),
    Commit,
}

/// A month partition that is being loaded.
pub struct PartitionLoad {
    rows: mpsc::Sender<LoadMessage>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl PartitionLoad {
    /// Opens the month of `at`. Returns `None` if `raw.rows` already has the partition.
    pub async fn open_month(pool: &PgPool, at: DateTime<Utc>) -> anyhow::Result<Option<PartitionLoad>> {
        let mut transaction = pool.begin().await.context("could not begin the transaction of the month's load")?;
        let table = sqlx::query_scalar!("-- ingest: open the month\n select raw.open_month($1)", at)
            .fetch_one(&mut *transaction)
            .await
            .context("could not open the month partition")?;
        let Some(table) = table else { return Ok(None) };
        let (rows, arriving) = mpsc::channel(1);
        let task = tokio::spawn(load_rows(transaction, table, at, arriving));
        Ok(Some(PartitionLoad { rows, task }))
    }

    /// Sends rows to the load, and waits while the channel is full.
    pub async fn send_rows(&self, rows: CopyBuf) {
        // A closed channel means that the load failed; `attach` returns the error.
        self.rows.send(LoadMessage::Rows(rows)).await.ok();
    }

    /// Ends the rows. Indexing and commit continue in the background.
    pub async fn start_indexing(self) -> PartitionIndexing {
        self.rows.send(LoadMessage::Commit).await.ok();
        PartitionIndexing { task: self.task }
    }
}

/// A month partition that is being indexed and committed.
pub struct PartitionIndexing {
    task: JoinHandle<anyhow::Result<()>>,
}

impl PartitionIndexing {
    /// Waits for the commit, and attaches the partition to `raw.rows` in the step's transaction.
    pub async fn attach_month(self, step: &mut PgConnection, at: DateTime<Utc>) -> anyhow::Result<()> {
        self.task.await.context("the month's load panicked")??;
        sqlx::query!("-- ingest: attach the month\n select raw.attach_month($1)", at)
            .execute(step)
            .await
            .context("could not attach the month to raw.rows")?;
        Ok(())
    }
}

async fn load_rows(
    mut transaction: Transaction<'static, Postgres>,
    table: String,
    at: DateTime<Utc>,
    mut arriving: mpsc::Receiver<LoadMessage>,
) -> anyhow::Result<()> {
    // COPY FREEZE, for the reason given at `columns::copy_staged`.
    let sql = format!(
        "copy {table} (id, file_id, row_no, window_start_utc, lot, payload_jsonb) from stdin (format binary, freeze)"
    );
    let mut copy = CopyStream::begin(&mut transaction, &sql).await.context("could not load the month's rows")?;
    let committed = loop {
        match arriving.recv().await {
            Some(LoadMessage::Rows(rows)) => copy.send(rows).await.context("could not load the month's rows")?,
            Some(LoadMessage::Commit) => break true,
            None => break false,
        }
    };
    copy.finish().await.context("could not load the month's rows")?;
    if !committed {
        return Ok(()); // dropping the transaction rolls it back
    }
    sqlx::query!("-- ingest: index the month\n select raw.index_month($1)", at)
        .execute(&mut *transaction)
        .await
        .context("could not index the month's rows")?;
    transaction.commit().await.context("could not commit the month's rows")
}
