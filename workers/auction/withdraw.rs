//! Withdraws a file that was ingested by mistake, as if it had never been received.
//!
//! All effects of a file are derived from manifests and row versions. The file's manifest and the versions that only it
//! contains are deleted, and everything derived from them is computed again: the heads of lots from the remaining
//! manifests, lots and vehicles from the remaining versions ([`super::fold`]), the states of windows that were late or
//! judged because of the file, and the statuses of lots by the remaining windows. Lots that the file did not change are
//! not read.
//!
//! The withdrawal is one transaction under the source's row lock, which the ingest also takes, so a kill leaves no
//! partial result. It deletes from tables that workers may only insert into, and therefore requires the login of their
//! owner.
//!
//! A repeat of the file as the newest one (`unchanged`) has no manifest of its own and is withdrawn with it. If the
//! file's chain ran again for another window, that window stays, and the file with it.
//!
//! The change history is not rewritten. Corrections are logged as new changes without a file.

use crate::auction::mapping;
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

mod file;
mod heads;
mod rows;
mod sightings;
mod versions;
mod windows;

/// The window of a file that is withdrawn.
struct WithdrawnFile {
    source: String,
    window: DateTime<Utc>,
    file_id: Uuid,
    sha256: String,
    /// The time of the file's ingest, or of its receipt if it was never ingested.
    arrived_at: DateTime<Utc>,
    /// True if the file has a manifest for the window.
    ingested: bool,
    /// The window and those that repeated its file as unchanged, oldest first.
    windows: Vec<DateTime<Utc>>,
    /// True if the source's heads are those of this window.
    is_newest: bool,
    /// True if a lot counts as absent when a file of the source does not contain it.
    absence_is_judged: bool,
}

/// Withdraws a file in the caller's transaction. The caller ensures that no chain of the source is unfinished.
///
/// # Errors
///
/// Returns an error if the window has no such file, or has several and the request names none.
pub async fn withdraw_file(
    connection: &mut PgConnection,
    request: &WithdrawalRequest,
    observer: &WithdrawalObserver,
) -> anyhow::Result<Withdrawal> {
    let target = find_withdrawn_file(connection, request).await?;
    let removed = file::remove_rows(connection, &target, observer).await?;
    let file_withdrawn = windows::mark_withdrawn(connection, &target).await?;
    let windows_changed = windows::rejudge_windows(connection, &target).await?;
    let closed = lots_closed_since(connection, &target).await?;
    let moved = heads::rebuild_heads(connection, &target, &removed, &closed, observer).await?;
    let folded = rows::recompute_rows(connection, &target, &removed, observer).await?;
    let lots: BTreeSet<i64> = moved.lots.iter().chain(&folded.lots).chain(&closed).copied().collect();
    let statuses_changed = move_statuses(connection, &target, &lots).await?;
    Ok(Withdrawal {
        source: target.source,
        file_id: target.file_id,
        sha256: target.sha256,
        windows: target.windows,
        file_withdrawn,
        versions_deleted: removed.deleted,
        versions_kept: removed.kept,
        lots_recomputed: folded.lots.len() as u64 - folded.lots_deleted,
        lots_deleted: folded.lots_deleted,
        vehicles_recomputed: folded.vehicles,
        vehicles_deleted: folded.vehicles_deleted,
        statuses_changed,
        windows_changed,
        newest_window: moved.newest_window,
    })
}

/// Locks the source and looks up the file.
async fn find_withdrawn_file(
    connection: &mut PgConnection,
    request: &WithdrawalRequest,
) -> anyhow::Result<WithdrawnFile> {
    let WithdrawalRequest { source, window, file_id } = request;
    let head_window = sqlx::query_scalar!(
        "-- withdraw: lock the source\n select head_window from raw.sources where source = $1 for update",
        source
    )
    .fetch_optional(&mut *connection)
    .await
    .context("could not lock the source")?
    .flatten();
    let found = sqlx::query_file!("workers/auction/withdraw/target.sql", source, window, *file_id)
        .fetch_all(&mut *connection)
        .await
        .context("could not read the file of the window")?;
    let at = window.to_rfc3339_opts(SecondsFormat::Secs, true);
    let Some(file) = found.first() else {
        bail!("window {source} {at} has no file to withdraw\nhint: `vinops windows` shows which windows have one");
    };
    if found.len() > 1 {
        let files: Vec<String> = found.iter().map(|file| file.file_id.to_string()).collect();
        bail!("window {source} {at} has several files\nhint: name one with --file: {}", files.join(", "));
    }
    let mut windows = vec![*window];
    windows.extend(file.repeats.iter().flatten());
    Ok(WithdrawnFile {
        source: source.clone(),
        window: *window,
        file_id: file.file_id,
        sha256: file.sha256.clone(),
        arrived_at: file.arrived_at,
        ingested: file.ingested,
        is_newest: head_window.is_some_and(|head| windows.contains(&head)),
        windows,
        absence_is_judged: mapping::mapping_for_source(source).is_absence_judged(),
    })
}

/// Returns the lots that are closed now and were closed by the file or after it.
async fn lots_closed_since(connection: &mut PgConnection, target: &WithdrawnFile) -> anyhow::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"-- withdraw: lots that were closed since
        select distinct l.lot_external_id::bigint as "lot!"
        from audit.status_transitions t
        join public.lots l on l.source = t.source and l.lot_external_id = t.lot_external_id
        where t.source = $1
          and (t.window_start_utc >= $2 or t.transitioned_at >= $3)
          and t.new_status in ('PENDING_RESULT', 'removed')
          and l.status in ('PENDING_RESULT', 'removed')
          and l.lot_external_id ~ '^[0-9]{1,18}$'"#,
        target.source,
        target.window,
        target.arrived_at
    )
    .fetch_all(connection)
    .await
    .context("could not read the lots closed since")
}

/// Sets the statuses that follow from the remaining windows. Returns the number of changed lots.
async fn move_statuses(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    lots: &BTreeSet<i64>,
) -> anyhow::Result<u64> {
    let lots: Vec<String> = lots.iter().map(i64::to_string).collect();
    let moved = sqlx::query_file_scalar!(
        "workers/auction/withdraw/statuses.sql",
        target.source,
        &lots,
        target.window,
        target.absence_is_judged
    )
    .fetch_one(&mut *connection)
    .await
    .context("could not update the statuses")?;
    sqlx::query_file!("workers/auction/detect_completion.close.sql", target.source)
        .fetch_one(connection)
        .await
        .context("could not delete the heads of closed lots")?;
    Ok(moved.unsigned_abs())
}
