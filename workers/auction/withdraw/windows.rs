//! Updates the states of windows and files: the withdrawn ones, and those judged together with them.

use super::WithdrawnFile;
use crate::auction::completeness::{Completeness, RecognisedLots, judge_changes, judge_snapshot};
use crate::workers::auction::ingest::earlier_files;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// The note of a window whose file is incomplete.
const INCOMPLETE_NOTE: &str = "the file is not complete";

/// Marks the windows withdrawn, and the file if no other window has it. Returns true if the file is withdrawn.
pub async fn mark_withdrawn(connection: &mut PgConnection, target: &WithdrawnFile) -> anyhow::Result<bool> {
    let left =
        sqlx::query_file_scalar!("workers/auction/withdraw/mark.sql", target.source, target.file_id, &target.windows)
            .fetch_one(connection)
            .await
            .context("could not mark the withdrawn windows")?;
    Ok(!left)
}

/// A window that was ingested after the file.
struct LaterWindow {
    file_id: Uuid,
    window: DateTime<Utc>,
    state: String,
    complete: Option<bool>,
    /// The completeness of the file, which for a file received again is that of its first window.
    file_complete: Option<bool>,
    /// True if the window is the file's first one.
    is_first: bool,
    rows: i32,
    records: i32,
    recognised: i32,
}

/// Judges the windows that were ingested after the file again, and returns those whose state changed.
///
/// A late window may now be in order, and a file may have been compared with the withdrawn one.
pub async fn rejudge_windows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
) -> anyhow::Result<Vec<DateTime<Utc>>> {
    sqlx::query_file!("workers/auction/withdraw/forget_size.sql", target.source, &target.windows, target.arrived_at)
        .execute(&mut *connection)
        .await
        .context("could not reset the accepted size")?;
    let later =
        sqlx::query_file_as!(LaterWindow, "workers/auction/withdraw/later.sql", target.source, target.arrived_at)
            .fetch_all(&mut *connection)
            .await
            .context("could not read the windows after the file")?;
    let mut changed = Vec::new();
    for window in later {
        let judged = judge_window(connection, target, &window).await?;
        let complete = judged.is_complete();
        let state = if complete { "applied" } else { "incomplete" };
        let is_known = window.state == state && window.complete == Some(complete);
        if is_known && (!window.is_first || window.file_complete == Some(complete)) {
            continue;
        }
        sqlx::query_file!(
            "workers/auction/withdraw/judged.sql",
            target.source,
            window.window,
            window.file_id,
            state,
            complete,
            judged.incomplete_reason(),
            window.is_first,
            (!complete).then_some(INCOMPLETE_NOTE)
        )
        .execute(&mut *connection)
        .await
        .context("could not record the state of a window")?;
        if !is_known {
            changed.push(window.window);
        }
    }
    Ok(changed)
}

async fn judge_window(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    window: &LaterWindow,
) -> anyhow::Result<Completeness> {
    let count = |n: i32| u64::from(n.unsigned_abs());
    let lots = RecognisedLots { recognised: count(window.recognised), records: count(window.records) };
    if !target.absence_is_judged {
        return Ok(judge_changes(lots));
    }
    let earlier = earlier_files(connection, &target.source, window.window, window.file_id).await?;
    let judged = judge_snapshot(window.window, count(window.rows), lots, &earlier);
    if judged == Completeness::SizeAccepted {
        sqlx::query!(
            "-- withdraw: accept the size
            update raw.sources set size_accepted_window = $2, size_accepted_rows = $3 where source = $1",
            target.source,
            window.window,
            window.rows
        )
        .execute(connection)
        .await
        .context("could not accept the size of a file")?;
    }
    Ok(judged)
}
