//! Ingest: reads a file, stores new row versions, and stages the rows to apply.
//!
//! - *What*: reads the file once, compares each row with the newest version of its lot, and stores the versions that
//!   differ. The manifest of the file lists the versions of all its rows.
//! - *Reads*: the store, `raw.heads`, `raw.lotless_rows`, `raw.csv_files`, `taxonomies.aliases`.
//! - *Writes*: `raw.rows`, `raw.manifests`, `raw.heads`, `raw.lotless_rows`, `staging.copart_raw`,
//!   `audit.parse_errors`, `audit.skipped_lots`, `audit.unknown_taxonomy_values`, `audit.etl_runs`.
//! - *Safe to repeat because* one transaction contains all writes and ends the job, and an ingested file is left alone.
//! - *Followed by* upsert-vehicles, enqueued in the same transaction.
//!
//! Work and space grow with the number of changed rows, not with the file: an unchanged row only adds an entry to the
//! manifest. A month's first file stores every row, so that the month is self-contained. Only this load justifies a
//! second connection. Its rows go into a detached table, which is indexed and committed, and then attached to
//! `raw.rows` by the step's own transaction. The table of a killed load is dropped by the next load
//! (`month_partition.rs`).
//!
//! Races: two files of one source are never processed at once (row lock of the source). A window waits for an older one
//! that is unfinished, and for a newer one between its ingest and its end. The staged rows of that window record until
//! when the versions they replaced were seen, and a late file is judged by them. A file older than the heads (*late*)
//! is stored and staged like any other, but replaces no newer head and does not decide absence.
//!
//! A file is quarantined, that is stored and reported but not applied, in these cases:
//!
//! - the file is not the feed, or has no rows,
//! - more than 2 % of the records are unreadable,
//! - fewer than half of the records have a lot number,
//! - a key column is unreadable in more than half of the rows.
//!
//! The job then succeeds, since a retry would read the same bytes. An incomplete file (`src/auction/completeness.rs`)
//! is applied but does not decide absence. An unreadable record with a readable lot number keeps its lot in the feed,
//! and opens a closed lot again.

use super::restage::restage_file;
use super::upsert_vehicles::UpsertVehicles;
use super::{LockedWindow, Sighting, ensure_partitions, peak_rss_mb, record_step, write_catalogue};
use crate::auction::mapping;
use crate::db::copy::CopyStream;
use crate::db::taxonomy;
use crate::queue::{Job, JobError, JobResult, JobRun, JobTransaction, abort, snooze};
use crate::store::Store;
use anyhow::Context;
use chrono::{DateTime, Utc};
use file_history::FileHistory;
use heads::LotHeads;
use lotless::LotlessRows;
use scan::{ColumnDrift, MissingKeys, RowChunk, SkippedCounts, UnreadableStats, ValueCount};
pub(super) use scan::{ScanError, ScanPlan, scan_checked};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

mod columns;
mod read_ahead;
pub(super) use columns::{copy_into_sql, copy_staged_sql, staged_columns};
mod file_history;
pub(super) use file_history::earlier_files;
mod finish;
mod heads;
mod lotless;
mod month_partition;
mod scan;

const COPY_RAW_ROWS: &str =
    "copy raw.rows (id, file_id, row_no, window_start_utc, lot, payload_jsonb) from stdin (format binary)";
const COPY_SKIPPED_LOTS: &str = "copy audit.skipped_lots (window_start_utc, file_id, source, row_no, lot_external_id, vin_raw, reason) \
    from stdin (format binary)";
const COPY_MANIFESTS: &str = "copy raw.manifests (file_id, window_start_utc, row_ids) from stdin (format binary)";
/// Chunks buffered between the scanner and COPY. With a buffer of one, each side keeps waiting for the other.
const BUFFERED_CHUNKS: usize = 2;
/// The delay before a window checks again whether the conflicting windows have finished.
const CONFLICT_DELAY: Duration = Duration::from_millis(250);

/// Payload of the job: the file to ingest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ingest {
    /// The file and its window.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// Stores and stages every row, as for a month's first file. The result is the same, at a higher cost.
    #[serde(default)]
    pub full: bool,
    /// True for a replay: the rows are staged again, and the table rows are repaired from the stored versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

/// Report of the job. Counts are rows unless stated otherwise.
#[derive(Debug, Default, Serialize)]
pub struct IngestReport {
    /// The state `ingested` or `quarantined`, or `already` if another attempt ingested the file first.
    pub state: &'static str,
    /// The reason why the file is quarantined or incomplete.
    pub reason: Option<String>,
    /// Readable records: new, changed and unchanged ones.
    pub rows: u64,
    /// Rows of lots without a head, and rows without a lot number that no earlier file contained.
    pub new: u64,
    /// Rows that differ from their lot's head.
    pub changed: u64,
    /// Rows that equal their lot's head.
    pub unchanged: u64,
    /// Lots that were in the newest file before and are not in this one.
    pub gone: u64,
    /// Unreadable records. `audit.parse_errors` contains all of them, or the first 5,000 of a quarantined file.
    pub parse_errors: u64,
    /// Records that only the tolerant rules could read.
    pub repaired: u64,
    /// Rows whose values were parsed: new and changed rows, and rows staged for another reason.
    pub staged: u64,
    /// Values of the staged rows that could not be read and are null.
    pub unreadable_values: u64,
    /// The unreadable values by column: their number, and the first of them.
    pub unreadable: BTreeMap<&'static str, UnreadableStats>,
    /// Columns with mostly unreadable values that had few in the last complete file.
    pub column_drift: Vec<ColumnDrift>,
    /// Rows without a vehicle and a lot, by their first reason.
    pub skipped: SkippedCounts,
    /// Rows without a VIN or a lot number, each counted separately.
    pub missing: MissingKeys,
    /// Records with a recognised lot number, including unreadable records whose lot number can be read.
    pub recognised_lots: u64,
    /// Distinct raw values of the staged rows that the taxonomies do not contain.
    pub unknown_values: u64,
    /// Raw values of the staged rows by domain: all, and unknown ones.
    pub words: BTreeMap<&'static str, ValueCount>,
    /// Unknown columns of the header, and known columns that are missing or repeated.
    pub header_drift: Vec<String>,
    /// True if the file is older than the newest ingested one.
    pub late: bool,
    /// True if the file seems to contain the whole feed.
    pub complete: bool,
    /// Duration from start to commit, in seconds.
    pub seconds: f64,
    /// Peak resident memory of the worker process, in MB.
    pub peak_rss_mb: f64,
}

impl Job for Ingest {
    const KIND: &'static str = "ingest";
    const VERB: &'static str = "reads a file, stores its new row versions and stages the rows to apply";
    const WHEN: &'static str = "after fetch";
    const READS: &'static str = "the store, raw.heads, taxonomies.aliases";
    const WRITES: &'static str = "raw.rows, raw.manifests, raw.heads, staging.copart_raw, audit, fleet.windows";
    const SAFE: &'static str = "one transaction ends the job; an ingested file is left alone";
    const NEXT: &'static str = "upsert-vehicles";
    type Report = IngestReport;

    async fn run(self, run: JobRun) -> JobResult<IngestReport> {
        let began = Instant::now();
        let store = run.extension::<Store>()?;
        write_catalogue(run.pool(), &store).await?;
        let mut step = run.begin_step().await?;
        let window = LockedWindow::lock(&mut step, self.sighting).await?;
        if window.state == "quarantined" {
            return step.done(IngestReport { state: "quarantined", ..IngestReport::default() }).await;
        }
        if window.state != "received" {
            let staged = if self.repair {
                restage_file(&run, &mut step, self.sighting.file_id, &window).await?.unsigned_abs()
            } else {
                0
            };
            step.enqueue_next(&self.next_job(), &self.sighting.job_key()).await?;
            return step.done(IngestReport { state: "already", staged, ..IngestReport::default() }).await;
        }
        if has_conflicting_windows(&mut step, &window).await? {
            return Err(snooze(CONFLICT_DELAY));
        }

        // Two connections, so that two PostgreSQL backends work in parallel.
        let (heads, apart) = tokio::try_join!(
            LotHeads::load(&mut step, &window.source, month_start(window.start)),
            prepare_partitions(&run, window.start)
        )?;
        let lotless = LotlessRows::load(&mut step, &window.source, month_start(window.start)).await?;
        let earlier = FileHistory::load(&mut step, &window, self.sighting.file_id).await?;
        let mapping = mapping::mapping_for_source(&window.source);
        let plan = ScanPlan {
            file_id: self.sighting.file_id,
            source: Arc::from(window.source.as_str()),
            earlier_ids: earlier_ids(&mut step, self.sighting.file_id, &window).await?,
            file_no: window.file_no,
            window: window.start,
            head_window: window.head_window,
            in_order: window.in_order,
            headless: heads.is_empty(),
            full: self.full,
            accepted: window.accepted,
            mapping,
            aliases: Arc::new(taxonomy::load_aliases(&mut step).await?),
            earlier: Arc::new(earlier),
            policies: mapping.drift_policies,
        };
        let day = sqlx::query_scalar!("-- ingest: open the day\n select staging.open_day($1)", window.start)
            .fetch_one(&mut *step)
            .await
            .context("could not open the day of staging.copart_raw")?;
        let copy_staged = columns::copy_staged_sql(day.as_deref());
        let packed_sha256 = packed_sha256(&store, &window).await?;
        let file = store.open_reader(&window.path).await?;
        let (chunks, arriving) = mpsc::channel(BUFFERED_CHUNKS);
        let scanning = tokio::task::spawn_blocking({
            let plan = plan.clone();
            move || scan::scan_checked(file, &packed_sha256, &plan, (heads, lotless), &chunks)
        });
        stream_rows(&run, &mut step, &window, arriving, apart.as_ref(), &copy_staged).await?;
        match scanning.await.context("the scan panicked")? {
            Ok(outcome) => {
                let mut report =
                    finish::finish_ingest(&mut step, &plan, &window, outcome, finish::DetachedLoads { apart, day })
                        .await?;
                (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
                record_step(&mut step, (self.sighting.file_id, window.start), "ingest", &report).await?;
                step.enqueue_next(&self.next_job(), &self.sighting.job_key()).await?;
                step.done(report).await
            }
            Err(ScanError::Refused(refusal)) => {
                // Only the quarantine record of the file is written; everything else is rolled back.
                drop(step);
                let mut step = run.begin_step().await?;
                let mut report = finish::quarantine_file(&mut step, &plan, *refusal).await?;
                (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
                record_step(&mut step, (self.sighting.file_id, window.start), "ingest", &report).await?;
                step.done(report).await
            }
            Err(altered @ ScanError::Altered { .. }) => Err(abort(altered)),
            Err(other) => Err(anyhow::Error::new(other).into()),
        }
    }
}

/// Returns the expected sha256 of the compressed object in the store.
///
/// If another program registered the file without that sha256, the object is read to compute it.
///
/// # Errors
///
/// Aborts the job if the object does not contain the bytes of the file.
pub(super) async fn packed_sha256(store: &Store, window: &LockedWindow) -> Result<String, JobError> {
    if let Some(sha256) = &window.packed_sha256 {
        return Ok(sha256.clone());
    }
    let (found, packed) = store.file_sums(&window.path).await?;
    if found == window.sha256 {
        Ok(packed)
    } else {
        Err(abort(ScanError::Altered { found, expected: window.sha256.clone() }))
    }
}

impl Ingest {
    fn next_job(&self) -> UpsertVehicles {
        UpsertVehicles { sighting: self.sighting, repair: self.repair, restage: false }
    }
}

/// Creates the partitions of the window in a separate transaction, and opens the month for a first file.
///
/// The partitions are harmless if the step fails afterwards.
async fn prepare_partitions(
    run: &JobRun,
    window: DateTime<Utc>,
) -> anyhow::Result<Option<month_partition::PartitionLoad>> {
    ensure_partitions(run.pool(), window).await?;
    month_partition::PartitionLoad::open_month(run.pool(), window).await
}

/// Returns the row ids of the file in file order, if this month already has a manifest. A file that is received again
/// stores no row twice.
async fn earlier_ids(
    step: &mut JobTransaction,
    file_id: Uuid,
    window: &LockedWindow,
) -> anyhow::Result<Option<Arc<[i64]>>> {
    if window.start == window.first_window {
        return Ok(None);
    }
    let ids = sqlx::query_scalar!(
        "-- ingest: the row ids of a file that came before
        select row_ids
        from raw.manifests
        where file_id = $1
          and window_start_utc >= date_trunc('month', $2::timestamptz, 'UTC')
          and window_start_utc < date_trunc('month', $2::timestamptz, 'UTC') + interval '1 month'
        order by window_start_utc
        limit 1",
        file_id,
        window.start
    )
    .fetch_optional(&mut **step)
    .await
    .context("could not read the row ids of the file's earlier window")?;
    Ok(ids.map(Arc::from))
}

/// Returns true if an older window of the source is unfinished, or a newer one is ingested and unfinished.
async fn has_conflicting_windows(step: &mut JobTransaction, window: &LockedWindow) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- ingest: other windows under way
        select exists (
          select from fleet.windows
          where source = $1
            and (window_start_utc < $2 and state in ('fetched', 'ingested') or window_start_utc > $2 and state = 'ingested')
        ) as "under_way!""#,
        window.source,
        window.start
    )
    .fetch_one(&mut **step)
    .await
    .context("could not read the conflicting windows")
}

/// Copies rows as they arrive, so that PostgreSQL works while the file is read.
///
/// Raw and staged rows alternate on the step's connection. In a month's first file, raw rows use the month's
/// connection, beside one long COPY of the staged rows.
async fn stream_rows(
    run: &JobRun,
    step: &mut JobTransaction,
    window: &LockedWindow,
    mut arriving: mpsc::Receiver<RowChunk>,
    apart: Option<&month_partition::PartitionLoad>,
    copy_staged: &str,
) -> anyhow::Result<()> {
    let whole = u64::try_from(window.bytes).unwrap_or(0);
    match apart {
        None => {
            while let Some(chunk) = arriving.recv().await {
                run.report_progress(chunk.bytes_read, whole);
                chunk.raw.send(step, COPY_RAW_ROWS).await.context("could not copy the row versions")?;
                chunk.staged.send(step, copy_staged).await.context("could not copy the staged rows")?;
            }
        }
        Some(load) => {
            let mut copy =
                CopyStream::begin(step, copy_staged).await.context("could not begin the copy of staged rows")?;
            while let Some(chunk) = arriving.recv().await {
                run.report_progress(chunk.bytes_read, whole);
                load.send_rows(chunk.raw).await;
                if !chunk.staged.is_empty() {
                    copy.send(chunk.staged).await.context("could not copy the staged rows")?;
                }
            }
            copy.finish().await.context("could not copy the staged rows")?;
        }
    }
    Ok(())
}

/// Returns the start of the month that contains `at`.
fn month_start(at: DateTime<Utc>) -> DateTime<Utc> {
    use chrono::{Datelike, NaiveTime};
    let first = at.date_naive() - chrono::Days::new(u64::from(at.day0()));
    first.and_time(NaiveTime::MIN).and_utc()
}
