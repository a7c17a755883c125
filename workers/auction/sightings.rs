//! Sightings: decides the state of a window whose file is already known.
//!
//! A file is identified by the bytes, and a source may send the same bytes for several windows. Each such window is a
//! *sighting* of the file, a row of `raw.sightings`. The consequence depends on the newest window of the source so far:
//!
//! - The newest window received the same file and is not newer than this window: nothing is new. The window ends as
//!   unchanged, and detect-completion moves lots by the clock.
//! - The newest window received another file, or is newer: the file's chain runs again for this window. A late sighting
//!   records until when versions were seen, which decides between versions with the same update time.
//! - The file is quarantined: the window is quarantined too. Bytes that could not be applied are not applied on a
//!   repeat.
//!
//! A chain that was discarded (its window has failed) does not count as the newest one, so the file's chain runs for
//! the new window.

use super::Sighting;
use super::detect_completion::DetectCompletion;
use super::ingest::Ingest;
use super::receive::{WindowOutcome, set_window_state};
use crate::queue::{EnqueueOptions, enqueue_job};
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

/// The outcome of a window that received a known file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatOutcome {
    /// The window already had this file, and nothing is written.
    Known,
    /// The file is the newest one, and the window is unchanged.
    Unchanged,
    /// The file's chain runs again for this window.
    Again,
    /// The file is quarantined, and the window with it.
    Quarantined,
}

/// Records a sighting of a known file, the state of its window, and the next job in the caller's transaction.
///
/// # Errors
///
/// Returns an error if the file is not in `raw.csv_files`, or if the database is unavailable.
pub async fn record_repeat(
    conn: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
) -> anyhow::Result<RepeatOutcome> {
    let repetition = classify_repeat(conn, source, window, file_id).await?;
    let (state, outcome) = match repetition {
        RepeatOutcome::Known => return Ok(repetition),
        RepeatOutcome::Unchanged => ("unchanged", WindowOutcome::Unchanged),
        RepeatOutcome::Again => ("received", WindowOutcome::Fetched),
        RepeatOutcome::Quarantined => ("quarantined", WindowOutcome::Quarantined),
    };
    record_sighting(conn, source, window, file_id, state).await?;
    set_window_state(conn, source, window, outcome, Some(file_id)).await?;
    let sighting = Sighting { file_id, window_start_utc: Some(window) };
    match repetition {
        RepeatOutcome::Unchanged => {
            enqueue_job(conn, &DetectCompletion { sighting }, EnqueueOptions::with_key(sighting.job_key())).await?;
        }
        RepeatOutcome::Again => {
            enqueue_job(
                conn,
                &Ingest { sighting, full: false, repair: false },
                EnqueueOptions::with_key(sighting.job_key()),
            )
            .await?;
        }
        RepeatOutcome::Known | RepeatOutcome::Quarantined => {}
    }
    Ok(repetition)
}

/// Inserts the row of a sighting.
pub(super) async fn record_sighting(
    conn: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
    state: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- sightings: record
        insert into raw.sightings (source, window_start_utc, file_id, file_no, state)
        select
          $1, $2, f.file_id,
          case when f.window_start_utc = $2 then f.file_no else nextval('raw.csv_files_file_no_seq') end,
          $4
        from raw.csv_files f
        where f.file_id = $3
        on conflict do nothing",
        source,
        window,
        file_id,
        state
    )
    .execute(conn)
    .await
    .with_context(|| format!("could not record the sighting of file {file_id}"))?;
    Ok(())
}

async fn classify_repeat(
    conn: &mut PgConnection,
    source: &str,
    window: DateTime<Utc>,
    file_id: Uuid,
) -> anyhow::Result<RepeatOutcome> {
    let row = sqlx::query!(
        r#"-- sightings: classify
        select
          f.state = 'quarantined' as "quarantined!",
          exists (
            select from raw.sightings g
            where g.source = $1 and g.window_start_utc = $2 and g.file_id = f.file_id
          ) as "known!",
          coalesce(
            (
              select
                g.file_id = f.file_id
                and g.window_start_utc <= $2
                and w.state is distinct from 'failed'
              from raw.sightings g
              left join fleet.windows w
                on w.source = g.source
                and w.window_start_utc = g.window_start_utc
              where g.source = $1
                and g.state not in ('quarantined', 'withdrawn')
              order by g.window_start_utc desc, g.seen_at desc
              limit 1
            ),
            false
          ) as "newest!"
        from raw.csv_files f
        where f.file_id = $3"#,
        source,
        window,
        file_id
    )
    .fetch_optional(conn)
    .await
    .context("could not read the newest file of the source")?
    .with_context(|| format!("file {file_id} is not in raw.csv_files"))?;
    Ok(match row {
        row if row.known => RepeatOutcome::Known,
        row if row.quarantined => RepeatOutcome::Quarantined,
        row if row.newest => RepeatOutcome::Unchanged,
        _ => RepeatOutcome::Again,
    })
}
