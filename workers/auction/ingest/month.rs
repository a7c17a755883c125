//! The load of a month's first file: on a connection of its own, into a table apart, indexed afterwards.
//!
//! PostgreSQL's work on 154,000 JSONB rows is most of a first window; beside the staging of the same rows it takes a
//! second core, and indexes built by one sort cost a third of what 154,000 insertions do. The price is a second
//! transaction, so the order matters: this one commits first, leaving a table nobody reads; the step's transaction
//! attaches it. Killed in between, the table (`raw.rows_YYYY_MM_loading`) stays until the month is opened again, which drops
//! it. An unattached `raw.rows_YYYY_MM` is refused: its rows are somebody's.

use crate::db::copy::{CopyBuf, CopyStream};
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

enum Message {
    Rows(CopyBuf),
    Commit,
}

/// A month being loaded.
pub struct Load {
    rows: mpsc::Sender<Message>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Load {
    /// Opens the month of `at`; `None` when `raw.rows` has it already.
    pub async fn open(pool: &PgPool, at: DateTime<Utc>) -> anyhow::Result<Option<Load>> {
        let mut transaction = pool.begin().await.context("a second connection for the month's first file")?;
        let table = sqlx::query_scalar!("-- ingest: open the month\n select raw.open_month($1)", at)
            .fetch_one(&mut *transaction)
            .await
            .context("open the month")?;
        let Some(table) = table else { return Ok(None) };
        let (rows, arriving) = mpsc::channel(1);
        let task = tokio::spawn(load(transaction, table, at, arriving));
        Ok(Some(Load { rows, task }))
    }

    /// Hands rows over; waits when the other side is behind.
    pub async fn rows(&self, rows: CopyBuf) {
        // a closed channel means that the load failed; `attach` tells why
        self.rows.send(Message::Rows(rows)).await.ok();
    }

    /// No more rows: they are indexed and committed from here on.
    pub async fn loaded(self) -> Indexing {
        self.rows.send(Message::Commit).await.ok();
        Indexing { task: self.task }
    }
}

/// A month whose rows are being indexed and committed.
pub struct Indexing {
    task: JoinHandle<anyhow::Result<()>>,
}

impl Indexing {
    /// Waits for the end of that, and makes the month part of `raw.rows` within the step's transaction.
    pub async fn attach(self, step: &mut PgConnection, at: DateTime<Utc>) -> anyhow::Result<()> {
        self.task.await.context("the month's load panicked")??;
        sqlx::query!("-- ingest: attach the month\n select raw.attach_month($1)", at)
            .execute(step)
            .await
            .context("attach the month to raw.rows")?;
        Ok(())
    }
}

async fn load(
    mut transaction: Transaction<'static, Postgres>,
    table: String,
    at: DateTime<Utc>,
    mut arriving: mpsc::Receiver<Message>,
) -> anyhow::Result<()> {
    // frozen: see `columns::copy_staged`
    let sql = format!(
        "copy {table} (id, file_id, row_no, window_start_utc, lot, payload_jsonb) from stdin (format binary, freeze)"
    );
    let mut copy = CopyStream::begin(&mut transaction, &sql).await.context("load the month's rows")?;
    let committed = loop {
        match arriving.recv().await {
            Some(Message::Rows(rows)) => copy.send(rows).await.context("load the month's rows")?,
            Some(Message::Commit) => break true,
            None => break false,
        }
    };
    copy.finish().await.context("load the month's rows")?;
    if !committed {
        return Ok(()); // dropped: rolled back
    }
    sqlx::query!("-- ingest: index the month\n select raw.index_month($1)", at)
        .execute(&mut *transaction)
        .await
        .context("index the month's rows")?;
    transaction.commit().await.context("commit the month's rows")
}
