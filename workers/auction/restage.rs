//! Stages a file again: reads the file, and updates its staged rows to match it.
//!
//! A replay needs the staged rows, which may be damaged or deleted, since they are retained for a limited time. If rows
//! of the file are staged, those that differ are rewritten, and missing rows that the file stored itself are inserted.
//! If none is left, all rows of the file are staged. The columns of a staged row that describe the replaced version are
//! preserved.

use super::LockedWindow;
use super::ingest::{ScanError, ScanPlan, copy_into_sql, copy_staged_sql, packed_sha256, scan_checked, staged_columns};
use crate::auction::mapping;
use crate::db::taxonomy;
use crate::queue::{JobError, JobRun, JobTransaction, abort};
use crate::store::Store;
use anyhow::{Context, anyhow};
use sqlx::AssertSqlSafe;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Chunks buffered between the scanner and COPY.
const BUFFERED_CHUNKS: usize = 2;

/// Stages the rows of a file again. Returns the number of staged rows changed or inserted.
///
/// # Errors
///
/// Aborts the job if the file has no manifest for this window and was therefore never ingested, or if the object in the
/// store does not contain the received bytes.
pub async fn restage_file(
    run: &JobRun,
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
) -> Result<i64, JobError> {
    let store = run.extension::<Store>()?;
    let plan = plan_restage(step, file_id, window).await?;
    let packed_sha256 = packed_sha256(&store, window).await?;
    let day = sqlx::query_scalar!("-- restage: open the day\n select staging.open_day($1)", window.start)
        .fetch_one(&mut **step)
        .await
        .context("could not open the day of staging.copart_raw")?;
    let copy = match day.as_deref() {
        Some(day) => copy_staged_sql(Some(day)),
        None => {
            sqlx::query(
                "-- restage: a table apart
                create temp table restaged (like staging.copart_raw including defaults) on commit drop",
            )
            .execute(&mut **step)
            .await
            .context("could not create the table of scanned rows")?;
            copy_into_sql("restaged")
        }
    };
    let file = store.open_reader(&window.path).await?;
    let (chunks, mut arriving) = mpsc::channel(BUFFERED_CHUNKS);
    let scanning =
        tokio::task::spawn_blocking(move || scan_checked(file, &packed_sha256, &plan, Default::default(), &chunks));
    let whole = u64::try_from(window.bytes).unwrap_or(0);
    while let Some(chunk) = arriving.recv().await {
        run.report_progress(chunk.bytes_read, whole);
        chunk.staged.send(step, &copy).await.context("could not copy the staged rows")?;
    }
    match scanning.await.context("the scan panicked")? {
        Ok(_) => {}
        Err(ScanError::Refused(refusal)) => {
            return Err(abort(anyhow!("could not read the file again: {}", refusal.why)));
        }
        Err(altered @ ScanError::Altered { .. }) => return Err(abort(altered)),
        Err(other) => return Err(anyhow::Error::new(other).into()),
    }
    Ok(match day {
        Some(_) => attach_day(step, file_id, window).await?,
        None => merge_staged_rows(step, file_id, window).await?,
    })
}

/// Returns the plan of the scan: the file is read like a first one, but its rows already have their ids.
async fn plan_restage(step: &mut JobTransaction, file_id: Uuid, window: &LockedWindow) -> Result<ScanPlan, JobError> {
    let ids = sqlx::query_scalar!(
        "-- restage: the row ids of the file
        select row_ids from raw.manifests where file_id = $1 and window_start_utc = $2",
        file_id,
        window.start
    )
    .fetch_optional(&mut **step)
    .await
    .context("could not read the manifest of the file")?
    .ok_or_else(|| abort(anyhow!("file {file_id} has no manifest for window {}", window.start)))?;
    let mapping = mapping::mapping_for_source(&window.source);
    Ok(ScanPlan {
        file_id,
        source: Arc::from(window.source.as_str()),
        earlier_ids: Some(Arc::from(ids)),
        file_no: window.file_no,
        window: window.start,
        head_window: None,
        in_order: true,
        headless: true,
        full: true,
        accepted: true,
        mapping,
        aliases: Arc::new(taxonomy::load_aliases(step).await?),
        earlier: Arc::default(),
        policies: mapping.drift_policies,
    })
}

/// Attaches the day again, of which no staged row was left. Returns the number of rows.
async fn attach_day(step: &mut JobTransaction, file_id: Uuid, window: &LockedWindow) -> anyhow::Result<i64> {
    sqlx::query!("-- restage: index the day\n select staging.index_day($1)", window.start)
        .execute(&mut **step)
        .await
        .context("could not index the day's rows")?;
    sqlx::query!("-- restage: attach the day\n select staging.attach_day($1)", window.start)
        .execute(&mut **step)
        .await
        .context("could not attach the day to staging.copart_raw")?;
    sqlx::query_scalar!(
        r#"-- restage: the rows of the day
        select count(*) as "rows!" from staging.copart_raw where file_id = $1 and window_start_utc = $2"#,
        file_id,
        window.start
    )
    .fetch_one(&mut **step)
    .await
    .context("could not count the staged rows")
}

/// Updates the file's staged rows to the scanned rows. Returns the number of rows changed or inserted.
async fn merge_staged_rows(step: &mut JobTransaction, file_id: Uuid, window: &LockedWindow) -> anyhow::Result<i64> {
    let compared =
        |name: &&str| !matches!(*name, "file_id" | "window_start_utc" | "row_no" | "prev_hash" | "prev_seen");
    let columns: Vec<&str> = staged_columns().filter(compared).collect();
    let set = columns.iter().map(|name| format!("{name} = t.{name}")).collect::<Vec<_>>().join(", ");
    let differs =
        columns.iter().map(|name| format!("s.{name} is distinct from t.{name}")).collect::<Vec<_>>().join(" or ");
    let all = staged_columns().collect::<Vec<_>>().join(", ");
    // All interpolated names are constants of the program.
    sqlx::query_scalar(AssertSqlSafe(format!(
        "-- restage: merge
        with standing as materialized (
          select row_no from staging.copart_raw where file_id = $1 and window_start_utc = $2
        ),
        changed as (
          update staging.copart_raw as s
          set {set}
          from restaged as t
          where s.file_id = $1
            and s.window_start_utc = $2
            and s.row_no = t.row_no
            and ({differs})
          returning 1
        ),
        added as (
          insert into staging.copart_raw ({all})
          select {all}
          from restaged as t
          where not exists (select from standing)
            or t.row_id = ($3::bigint << 24) + t.row_no
            and t.row_no not in (select row_no from standing where row_no is not null)
          returning 1
        )
        select (select count(*) from changed) + (select count(*) from added)"
    )))
    .bind(file_id)
    .bind(window.start)
    .bind(window.file_no)
    .fetch_one(&mut **step)
    .await
    .context("could not update the staged rows")
}
