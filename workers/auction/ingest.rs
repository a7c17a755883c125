//! Ingest: takes a file apart, keeps what is new of it, and stages what has to be applied.
//!
//! - *What*: reads the file once, compares each row with the newest version of its lot, and stores the versions that
//!   differ; the file's manifest lists the versions of all its rows.
//! - *Reads*: the store, `raw.heads`, `raw.lotless_rows`, `raw.csv_files`, `taxonomies.aliases`.
//! - *Writes*: `raw.rows`, `raw.manifests`, `raw.heads`, `raw.lotless_rows`, `staging.copart_raw`, `audit.parse_errors`, `audit.skipped_lots`,
//!   `audit.unknown_taxonomy_values`, `audit.etl_runs`.
//! - *Safe to repeat because* all of it is one transaction that ends the job, and a file that is already ingested is left
//!   alone.
//! - *Followed by* upsert-vehicles, enqueued in the same transaction.
//!
//! Work and space grow with what changed, not with the file: of an unchanged row only its place in the manifest is new.
//! A month's first file stores every row, so that the month stands alone. That is the one load worth a second
//! connection: its rows go into a table apart, which is indexed, committed, and made part of `raw.rows` by the step's own
//! transaction; what a killed load left there is thrown away by the next. See `month.rs`.
//!
//! Races: two files of one source never work at once (the source's row lock). A window waits for an older one that is
//! still under way, and for a newer one between its ingest and its end: what that has staged tells until when the
//! versions it replaced were seen, and a late file is judged by it. A file older than the heads (*late*) is stored and
//! staged like any other, but takes no head from a newer one and says nothing about absence.
//!
//! A file that is not the feed, is empty, has more than 2 % unreadable records, lot numbers in less than half of its
//! records, or a key column that is unreadable in more than half of its rows is quarantined: kept, reported, not applied.
//! The job is done then; trying again would read the same bytes. A file that is not complete
//! (`src/auction/completeness.rs`) is applied and judges no absence. A record that cannot be read but whose lot number can
//! keeps its lot in the feed, and opens a closed one again.

use super::restage::restage;
use super::upsert_vehicles::UpsertVehicles;
use super::{Sighting, Window, ensure_partitions, note_step, peak_rss_mb, write_catalogue};
use crate::auction::mapping;
use crate::db::copy::CopyStream;
use crate::db::vocabulary;
use crate::queue::{Job, Run, Step, Stop, Verdict, abort, snooze};
use crate::store::Store;
use anyhow::Context;
use chrono::{DateTime, Utc};
use earlier::Earlier;
use heads::Heads;
use lotless::LotlessRows;
use scan::{Chunk, ColumnDrift, Count, Missing, Skipped, Unreadable};
pub(super) use scan::{Ended, Plan, scan_checked};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

mod ahead;
mod columns;
pub(super) use columns::{copy_into, copy_staged, staged_columns};
mod earlier;
pub(super) use earlier::earlier_files;
mod finish;
mod heads;
mod lotless;
mod month;
mod scan;

const COPY_RAW: &str =
    "copy raw.rows (id, file_id, row_no, window_start_utc, lot, payload_jsonb) from stdin (format binary)";
const COPY_SKIPPED: &str = "copy audit.skipped_lots (window_start_utc, file_id, source, row_no, lot_external_id, vin_raw, reason) \
    from stdin (format binary)";
const COPY_MANIFEST: &str =
    "copy raw.manifests (file_id, window_start_utc, row_ids) from stdin (format binary)";
/// Chunks the scan may be ahead of PostgreSQL: with one, now the one waits for the other and now the other for the one.
const CHUNKS_AHEAD: usize = 2;
/// How long a window waits before it asks again whether the others are through.
const WAIT_FOR_OTHERS: Duration = Duration::from_millis(250);

/// Ingest this file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ingest {
    /// The file and its window.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// Store and stage every row, whatever the heads say: the same result, at the price of a first window.
    #[serde(default)]
    pub full: bool,
    /// The file is replayed: its rows are staged anew, and what stands is brought back to what the stored versions say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repair: bool,
}

/// What the file held; counts are rows.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `ingested`, `quarantined`, or `already` when another attempt was first.
    pub state: &'static str,
    /// Why it was quarantined, or is not complete.
    pub reason: Option<String>,
    /// Readable records: new + changed + unchanged.
    pub rows: u64,
    /// Of lots without a head, and rows without a lot number that no file has held.
    pub new: u64,
    /// Different from their lot's head.
    pub changed: u64,
    /// Equal to their lot's head.
    pub unchanged: u64,
    /// Lots that stood in the file before and not in this one.
    pub gone: u64,
    /// Unreadable records. All are in `audit.parse_errors`; of a quarantined file the first 5,000.
    pub parse_errors: u64,
    /// Records that only the tolerant rules could read.
    pub repaired: u64,
    /// Rows whose values were read: new and changed ones, and those that are staged for another reason.
    pub staged: u64,
    /// Values of these rows that could not be read and are null.
    pub unreadable_values: u64,
    /// The same by column: how many, and the first of them.
    pub unreadable: BTreeMap<&'static str, Unreadable>,
    /// Columns that are no longer understood: most values are unreadable, and few were in the last complete file.
    pub column_drift: Vec<ColumnDrift>,
    /// Rows without vehicle and lot, by their first reason.
    pub skipped: Skipped,
    /// Rows that lack a key, each key counted by itself.
    pub missing: Missing,
    /// Records with a recognised lot number; unreadable records count if their lot number can be read.
    pub recognised_lots: u64,
    /// Distinct spellings the taxonomies do not know, among new and changed rows.
    pub unknown_values: u64,
    /// Words of new and changed rows by domain: how many, and how many of them nobody knows.
    pub words: BTreeMap<&'static str, Count>,
    /// Columns nobody knows, and known ones that are missing.
    pub header_drift: Vec<String>,
    /// Whether the file is older than what has been ingested before.
    pub late: bool,
    /// Whether all of the feed seems to be in it.
    pub complete: bool,
    /// From start to commit.
    pub seconds: f64,
    /// Of this process.
    pub peak_rss_mb: f64,
}

impl Job for Ingest {
    const KIND: &'static str = "ingest";
    const VERB: &'static str = "takes a file apart, keeps what is new and stages what to apply";
    const WHEN: &'static str = "after fetch";
    const READS: &'static str = "the store, raw.heads, taxonomies.aliases";
    const WRITES: &'static str =
        "raw.rows, raw.manifests, raw.heads, staging.copart_raw, audit, fleet.windows";
    const SAFE: &'static str = "one transaction ends the job; an ingested file is left alone";
    const NEXT: &'static str = "upsert-vehicles";
    type Report = Report;

    async fn run(self, run: Run) -> Verdict<Report> {
        let began = Instant::now();
        let store = run.tool::<Store>()?;
        write_catalogue(run.pool(), &store).await?;
        let mut step = run.begin().await?;
        let window = Window::lock(&mut step, self.sighting).await?;
        if window.state == "quarantined" {
            return step.done(Report { state: "quarantined", ..Report::default() }).await;
        }
        if window.state != "received" {
            let staged = if self.repair {
                restage(&run, &mut step, self.sighting.file_id, &window).await?.unsigned_abs()
            } else {
                0
            };
            step.enqueue(&self.next(), &self.sighting.key()).await?;
            return step.done(Report { state: "already", staged, ..Report::default() }).await;
        }
        if others_under_way(&mut step, &window).await? {
            return Err(snooze(WAIT_FOR_OTHERS));
        }

        // the server has a core for each
        let (heads, apart) = tokio::try_join!(
            Heads::load(&mut step, &window.source, month_of(window.start)),
            prepare(&run, window.start)
        )?;
        let lotless = LotlessRows::load(&mut step, &window.source, month_of(window.start)).await?;
        let earlier = Earlier::load(&mut step, &window, self.sighting.file_id).await?;
        let mapping = mapping::for_source(&window.source);
        let plan = Plan {
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
            spellings: Arc::new(vocabulary::spellings(&mut step).await?),
            earlier: Arc::new(earlier),
            policies: mapping.drift_policies,
        };
        let day = sqlx::query_scalar!("-- ingest: open the day\n select staging.open_day($1)", window.start)
            .fetch_one(&mut *step)
            .await
            .context("open the day of staging.copart_raw")?;
        let copy_staged = columns::copy_staged(day.as_deref());
        let packed_sha256 = packed_sha256(&store, &window).await?;
        let file =
            store.read(&window.path).await.with_context(|| format!("read {} from the store", window.path))?;
        let (chunks, arriving) = mpsc::channel(CHUNKS_AHEAD);
        let scanning = tokio::task::spawn_blocking({
            let plan = plan.clone();
            move || scan::scan_checked(file, &packed_sha256, &plan, (heads, lotless), &chunks)
        });
        stream(&run, &mut step, &window, arriving, apart.as_ref(), &copy_staged).await?;
        match scanning.await.context("the scan panicked")? {
            Ok(outcome) => {
                let mut report =
                    finish::finish(&mut step, &plan, &window, outcome, finish::Loads { apart, day }).await?;
                (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
                note_step(&mut step, (self.sighting.file_id, window.start), "ingest", &report).await?;
                step.enqueue(&self.next(), &self.sighting.key()).await?;
                step.done(report).await
            }
            Err(Ended::Refused(refusal)) => {
                // nothing of the file stays but what is wrong with it
                drop(step);
                let mut step = run.begin().await?;
                let mut report = finish::quarantine(&mut step, &plan, *refusal).await?;
                (report.seconds, report.peak_rss_mb) = (began.elapsed().as_secs_f64(), peak_rss_mb());
                note_step(&mut step, (self.sighting.file_id, window.start), "ingest", &report).await?;
                step.done(report).await
            }
            Err(altered @ Ended::Altered { .. }) => Err(abort(altered)),
            Err(other) => Err(anyhow::Error::new(other).into()),
        }
    }
}

/// Returns the sha256 that the stored bytes of the file must have. Of a file that another program wrote down they are read for it.
///
/// # Errors
///
/// Bytes that are not those of the file abort the job.
pub(super) async fn packed_sha256(store: &Store, window: &Window) -> Result<String, Stop> {
    if let Some(sha256) = &window.packed_sha256 {
        return Ok(sha256.clone());
    }
    let (found, packed) = store.sums(&window.path).await?;
    if found == window.sha256 {
        Ok(packed)
    } else {
        Err(abort(Ended::Altered { found, expected: window.sha256.clone() }))
    }
}

impl Ingest {
    fn next(&self) -> UpsertVehicles {
        UpsertVehicles { sighting: self.sighting, repair: self.repair, restage: false }
    }
}

/// Makes the partitions the window needs, in a transaction of its own (harmless when the step then fails), and opens its
/// month, should it be the first.
async fn prepare(run: &Run, window: DateTime<Utc>) -> anyhow::Result<Option<month::Load>> {
    ensure_partitions(run.pool(), window).await?;
    month::Load::open(run.pool(), window).await
}

/// Returns the row ids of the file in file order, where this month has its manifest already: a file that comes again stores no row
/// twice.
async fn earlier_ids(step: &mut Step, file_id: Uuid, window: &Window) -> anyhow::Result<Option<Arc<[i64]>>> {
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
    .context("read the row ids of the file's earlier window")?;
    Ok(ids.map(Arc::from))
}

/// Whether an older window of the source is between its fetch and its end, or a newer one between its ingest and its end.
async fn others_under_way(step: &mut Step, window: &Window) -> anyhow::Result<bool> {
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
    .context("look for other windows under way")
}

/// Copies rows as they arrive, so that PostgreSQL works while the file is being read: the raw ones and the staged ones in
/// turn over the step's connection, or the raw ones over the month's with one long stream of staged ones beside.
async fn stream(
    run: &Run,
    step: &mut Step,
    window: &Window,
    mut arriving: mpsc::Receiver<Chunk>,
    apart: Option<&month::Load>,
    copy_staged: &str,
) -> anyhow::Result<()> {
    let whole = u64::try_from(window.bytes).unwrap_or(0);
    match apart {
        None => {
            while let Some(chunk) = arriving.recv().await {
                run.progress(chunk.bytes_read, whole);
                chunk.raw.send(step, COPY_RAW).await.context("copy row versions")?;
                chunk.staged.send(step, copy_staged).await.context("copy rows to stage")?;
            }
        }
        Some(load) => {
            let mut copy =
                CopyStream::begin(step, copy_staged).await.context("begin to copy rows to stage")?;
            while let Some(chunk) = arriving.recv().await {
                run.progress(chunk.bytes_read, whole);
                load.rows(chunk.raw).await;
                if !chunk.staged.is_empty() {
                    copy.send(chunk.staged).await.context("copy rows to stage")?;
                }
            }
            copy.finish().await.context("copy rows to stage")?;
        }
    }
    Ok(())
}

/// The start of the month `at` lies in.
fn month_of(at: DateTime<Utc>) -> DateTime<Utc> {
    use chrono::{Datelike, NaiveTime};
    let first = at.date_naive() - chrono::Days::new(u64::from(at.day0()));
    first.and_time(NaiveTime::MIN).and_utc()
}
