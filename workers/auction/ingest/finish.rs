//! The end of an ingest: writes heads, manifest, run and window after every row is in its table.
//!
//! Long because the end of an ingest is one transaction whose statements depend on their order.

use super::scan::{ColumnDrift, MAX_KEPT_RECORDS, QuarantinedFile, ScanOutcome, ScanPlan};
use super::{COPY_MANIFESTS, COPY_SKIPPED_LOTS, IngestReport, month_partition, month_start};
use crate::auction::completeness::Completeness;
use crate::db::copy::{CopyBuf, CopyStream};
use crate::workers::auction::LockedWindow;
use anyhow::Context;
use serde_json::json;
use sqlx::PgConnection;

/// Tables that were loaded detached, and are attached at the end of the ingest.
pub struct DetachedLoads {
    /// The load of the month's row versions on a second connection.
    pub apart: Option<month_partition::PartitionLoad>,
    /// The detached table with the day's staged rows.
    pub day: Option<String>,
}

/// Maximum number of heads that one statement points at a new month's versions.
const HEADS_PER_STATEMENT: usize = 50_000;
/// Number of manifest ids in one chunk of COPY data.
const MANIFEST_CHUNK_IDS: usize = 64 << 10;

/// Writes everything that depends on the whole file, and returns the report.
pub async fn finish_ingest(
    connection: &mut PgConnection,
    plan: &ScanPlan,
    window: &LockedWindow,
    mut outcome: ScanOutcome,
    loads: DetachedLoads,
) -> anyhow::Result<IngestReport> {
    // The month's indexes are built while this connection does the rest.
    let apart = match loads.apart {
        Some(load) => Some(load.start_indexing().await),
        None => None,
    };
    let errors = std::mem::take(&mut outcome.errors);
    errors.send_all(connection).await.context("could not copy the parse errors")?;
    let lotless = std::mem::take(&mut outcome.lotless);
    lotless.save_stored(connection, &window.source, plan.window, month_start(plan.window), plan.in_order).await?;
    let no_lots = std::mem::take(&mut outcome.no_lots);
    no_lots.send(connection, COPY_SKIPPED_LOTS).await.context("could not copy the skipped rows")?;
    if plan.is_first_file() {
        sqlx::query!(
            "-- ingest: the source's first heads\n select raw.first_heads($1, $2, $3, $4::text::regclass)",
            window.source,
            plan.file_id,
            plan.window,
            loads.day.as_deref().unwrap_or("staging.copart_raw")
        )
        .execute(&mut *connection)
        .await
        .context("could not write the source's first heads")?;
    }
    if loads.day.is_some() {
        sqlx::query!("-- ingest: index the day\n select staging.index_day($1)", plan.window)
            .execute(&mut *connection)
            .await
            .context("could not index the day's rows")?;
    }
    write_manifest(connection, plan, &outcome.manifest).await.context("could not write the manifest")?;
    record_unknown_values(connection, plan, &outcome).await?;
    if let Some(indexed) = apart {
        indexed.attach_month(connection, plan.window).await?;
    }
    if loads.day.is_some() {
        sqlx::query!("-- ingest: attach the day\n select staging.attach_day($1)", plan.window)
            .execute(&mut *connection)
            .await
            .context("could not attach the day to staging.copart_raw")?;
    }
    let staged = if plan.full { outcome.rows } else { outcome.new + outcome.changed };
    sqlx::query!("-- ingest: tell the planner\n select staging.analyze($1, $2)", plan.window, i64::try_from(staged)?)
        .execute(&mut *connection)
        .await
        .context("could not analyze the staged rows")?;
    // For a lot that was absent, only the head contains the time until which its last version was seen.
    sqlx::query!(
        r#"-- ingest: until when replaced versions were seen
        update staging.copart_raw s
        set prev_seen = h.last_seen
        from raw.heads h
        where s.lot_external_id = any ($4) and s.file_id = $1 and s.window_start_utc = $3
          and s.prev_hash is not null and s.prev_seen is null
          and h.source = $2 and h.lot = s.lot_external_id::bigint"#,
        plan.file_id,
        window.source,
        plan.window,
        &outcome.reappeared
    )
    .execute(&mut *connection)
    .await
    .context("could not record when replaced versions were last seen")?;
    let complete = plan.in_order && outcome.completeness.is_complete();
    if plan.in_order {
        move_heads(connection, plan, window, &outcome, complete).await?;
    } else {
        sqlx::query_file!(
            "workers/auction/ingest.late_heads.sql",
            plan.file_id,
            window.source,
            plan.window,
            plan.mapping.is_absence_judged()
        )
        .execute(&mut *connection)
        .await
        .context("could not update the heads for the late file")?;
    }
    let report = IngestReport {
        state: "ingested",
        reason: if plan.in_order { describe_incompleteness(plan, &outcome) } else { None },
        gone: if plan.mapping.is_absence_judged() { outcome.disappeared.len() as u64 } else { 0 },
        unknown_values: outcome.words.unknown_values().len() as u64,
        words: outcome.words.counts_by_domain(),
        complete,
        ..report_counts(plan, &outcome)
    };
    if !report.header_drift.is_empty() {
        tracing::warn!(file_id = %plan.file_id, drift = report.header_drift.join(", "), "feed header changed");
    }
    log_column_drift(plan, &report.column_drift);
    open_run(connection, plan, &report).await?;
    sqlx::query!(
        r#"-- ingest: the file
        with window_update as (
          update fleet.windows set state = 'ingested', file_id = $1, note = null, updated_at = now()
          where source = $6 and window_start_utc = $7
        ),
        sighting_update as (
          update raw.sightings set state = 'ingested', complete = $5, ingested_at = now()
          where source = $6 and window_start_utc = $7 and file_id = $1
        )
        update raw.csv_files
        set
          state = 'ingested',
          row_count = $2,
          headers_jsonb = $3,
          snapshot_clock = $4,
          -- a file that arrives again does not count as a further file for absence
          complete = case when window_start_utc = $7 then $5 else complete end,
          incomplete_reason = case when window_start_utc = $7 then $8 else incomplete_reason end,
          record_count = $9,
          recognised_lots = $10,
          header_no = raw.header_no($11),
          ingested_at = coalesce(ingested_at, now())
        where file_id = $1"#,
        plan.file_id,
        i32::try_from(report.rows)?,
        json!(outcome.header),
        outcome.snapshot_clock,
        plan.in_order.then_some(complete),
        window.source,
        plan.window,
        if plan.in_order { outcome.completeness.incomplete_reason() } else { None },
        i32::try_from(outcome.lots.records)?,
        i32::try_from(outcome.lots.recognised)?,
        json!(outcome.columns)
    )
    .execute(connection)
    .await
    .context("could not record the state of the file")?;
    Ok(report)
}

/// Returns the counts of a report, which are the same for a quarantined file.
fn report_counts(plan: &ScanPlan, outcome: &ScanOutcome) -> IngestReport {
    IngestReport {
        rows: outcome.rows,
        new: outcome.new,
        changed: outcome.changed,
        unchanged: outcome.unchanged,
        parse_errors: outcome.rejected,
        repaired: outcome.repaired,
        staged: outcome.staged,
        unreadable_values: outcome.unreadable.values().map(|column| column.count).sum(),
        unreadable: outcome.unreadable.clone(),
        column_drift: outcome.column_drift.clone(),
        skipped: outcome.skipped.clone(),
        missing: outcome.missing,
        recognised_lots: outcome.lots.recognised,
        header_drift: outcome.drift.clone(),
        late: !plan.in_order,
        ..IngestReport::default()
    }
}

/// Returns the reason why the file is incomplete, or `None` for a complete file.
fn describe_incompleteness(plan: &ScanPlan, outcome: &ScanOutcome) -> Option<String> {
    match outcome.completeness {
        Completeness::Complete | Completeness::SizeAccepted => None,
        Completeness::TooSmall => Some(format!(
            "{} rows are less than 70 % of the median of the last complete files, which have {:?}",
            outcome.rows, plan.earlier.files.complete_sizes
        )),
        Completeness::TooFewLots => Some(format!(
            "{} of {} records have a recognised lot number ({:.1} %), a complete file has 95 %",
            outcome.lots.recognised,
            outcome.lots.records,
            outcome.lots.percent()
        )),
    }
}

fn log_column_drift(plan: &ScanPlan, drift: &[ColumnDrift]) {
    for ColumnDrift { column, unreadable, rows, first, policy, .. } in drift {
        tracing::warn!(
            file_id = %plan.file_id, window = %plan.window, column, unreadable, rows, first, policy, "column drift"
        );
    }
}

async fn move_heads(
    connection: &mut PgConnection,
    plan: &ScanPlan,
    window: &LockedWindow,
    outcome: &ScanOutcome,
    complete: bool,
) -> anyhow::Result<()> {
    if !plan.is_first_file() {
        sqlx::query_file!("workers/auction/ingest.heads.sql", plan.file_id, window.source, plan.window)
            .execute(&mut *connection)
            .await
            .context("could not update the heads")?;
    }
    for moved in outcome.carried_over.chunks(HEADS_PER_STATEMENT) {
        let (lots, row_ids): (Vec<i64>, Vec<i64>) = moved.iter().copied().unzip();
        sqlx::query!(
            r#"-- ingest: versions stored anew in this month
            update raw.heads h
            set row_id = m.row_id, version_window = $4
            from unnest($2::bigint[], $3::bigint[]) as m (lot, row_id)
            -- the head of a lot that occurs twice in the file may already refer to the other row
            where h.source = $1 and h.lot = m.lot and h.version_window <> $4"#,
            window.source,
            &lots,
            &row_ids,
            plan.window
        )
        .execute(&mut *connection)
        .await
        .context("could not point the heads at this month's versions")?;
    }
    // If the source sends only changes, a missing lot is not absent, and only the time it was last seen is recorded.
    let absent = complete && plan.mapping.is_absence_judged();
    let mut away = outcome.disappeared.clone();
    if absent {
        away.extend_from_slice(&outcome.absent);
    }
    sqlx::query!(
        r#"-- ingest: lots that are away
        update raw.heads h
        set last_seen = coalesce(h.last_seen, $3), absent_since = case when $4 then $5::timestamptz end
        from unnest($2::bigint[]) as a (lot)
        where h.source = $1 and h.lot = a.lot"#,
        window.source,
        &away,
        plan.head_window,
        absent,
        plan.window
    )
    .execute(&mut *connection)
    .await
    .context("could not mark the absent lots")?;
    if !outcome.back_unreadable.is_empty() {
        sqlx::query!(
            "-- ingest: lots that are back in records that cannot be read
            update raw.heads set last_seen = null, absent_since = null where source = $1 and lot = any ($2)",
            window.source,
            &outcome.back_unreadable
        )
        .execute(&mut *connection)
        .await
        .context("could not mark the reappeared lots")?;
    }
    if !outcome.headless_unreadable.is_empty() {
        sqlx::query_file!(
            "workers/auction/ingest.back_closed.sql",
            plan.file_id,
            window.source,
            plan.window,
            &outcome.headless_unreadable
        )
        .execute(&mut *connection)
        .await
        .context("could not open the closed lots that reappeared")?;
    }
    sqlx::query!(
        "-- ingest: where the heads stand
        update raw.sources
        set head_window = $2, head_file_id = $3, sends_changes = $4
        where source = $1",
        window.source,
        plan.window,
        plan.file_id,
        !plan.mapping.is_absence_judged()
    )
    .execute(&mut *connection)
    .await
    .context("could not record the window of the heads")?;
    if outcome.completeness == Completeness::SizeAccepted {
        sqlx::query!(
            "-- ingest: accept the size
            update raw.sources set size_accepted_window = $2, size_accepted_rows = $3 where source = $1",
            window.source,
            plan.window,
            i32::try_from(outcome.rows)?
        )
        .execute(connection)
        .await
        .context("could not accept the size of the file")?;
        tracing::warn!(file_id = %plan.file_id, rows = outcome.rows, "file size accepted after 24 hours of small files");
    }
    Ok(())
}

/// Writes the manifest in chunks, since a manifest encoded as a whole would be the largest allocation of a worker.
async fn write_manifest(connection: &mut PgConnection, plan: &ScanPlan, ids: &[i64]) -> sqlx::Result<()> {
    let mut copy = CopyStream::begin(connection, COPY_MANIFESTS).await?;
    let mut piece = CopyBuf::default();
    piece.begin_row(3);
    piece.put_uuid(Some(plan.file_id));
    piece.put_timestamptz(Some(plan.window));
    piece.begin_bigint_array(ids.len());
    for ids in ids.chunks(MANIFEST_CHUNK_IDS) {
        for id in ids {
            piece.put_bigint(*id);
        }
        copy.send(piece.take()).await?;
    }
    copy.finish().await?;
    Ok(())
}

async fn record_unknown_values(
    connection: &mut PgConnection,
    plan: &ScanPlan,
    outcome: &ScanOutcome,
) -> anyhow::Result<()> {
    let (domains, values): (Vec<String>, Vec<String>) =
        outcome.words.unknown_values().iter().map(|(domain, raw)| (domain.name().to_owned(), raw.clone())).unzip();
    sqlx::query!(
        r#"-- ingest: unknown values, one occurrence a file
        insert into audit.unknown_taxonomy_values as u (domain, raw_value, occurrences, first_seen_at, last_seen_at, first_file_id)
        select v.domain, v.raw_value, 1, now(), now(), $3
        from unnest($1::text[], $2::text[]) as v (domain, raw_value)
        on conflict (domain, raw_value)
        do update set occurrences = u.occurrences + 1, last_seen_at = now()"#,
        &domains,
        &values,
        plan.file_id
    )
    .execute(connection)
    .await
    .context("could not record the unknown values")?;
    Ok(())
}

async fn open_run(connection: &mut PgConnection, plan: &ScanPlan, report: &IngestReport) -> anyhow::Result<()> {
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    sqlx::query_file!(
        "workers/auction/ingest.run.sql",
        plan.file_id,
        plan.window,
        if report.state == "quarantined" { "failed" } else { "running" },
        count(report.rows),
        count(report.skipped.vin_empty + report.skipped.vin_format + report.skipped.lot_missing),
        count(report.missing.vin),
        count(report.missing.lot),
        count(report.parse_errors),
        report.reason.as_ref().map(|reason| json!({ "reason": reason })),
        json!({})
    )
    .execute(connection)
    .await
    .context("could not record the run")?;
    Ok(())
}

/// Quarantines the file and the window, and stores the first unreadable records.
pub async fn quarantine_file(
    connection: &mut PgConnection,
    plan: &ScanPlan,
    QuarantinedFile { why, mut outcome }: QuarantinedFile,
) -> anyhow::Result<IngestReport> {
    let errors = std::mem::take(&mut outcome.errors);
    let mut reason = why.to_string();
    if errors.omitted_records() > 0 {
        reason += &format!(
            "; the first {MAX_KEPT_RECORDS} unreadable records are stored, {} are not",
            errors.omitted_records()
        );
    }
    errors.send_first(connection).await.context("could not copy the parse errors")?;
    let report = IngestReport { state: "quarantined", reason: Some(reason.clone()), ..report_counts(plan, &outcome) };
    log_column_drift(plan, &report.column_drift);
    sqlx::query!(
        r#"-- ingest: quarantine
        with file as (
          update raw.csv_files set state = 'quarantined', ingested_at = now() where file_id = $1
          returning source
        ),
        sighting_update as (
          update raw.sightings set state = 'quarantined'
          where file_id = $1 and window_start_utc = $3
        )
        update fleet.windows w
        set state = 'quarantined', file_id = $1, note = $2, updated_at = now()
        from file
        where w.source = file.source and w.window_start_utc = $3"#,
        plan.file_id,
        reason,
        plan.window
    )
    .execute(&mut *connection)
    .await
    .context("could not quarantine the file")?;
    open_run(connection, plan, &report).await?;
    tracing::error!(target: "outcome", file_id = %plan.file_id, window = %plan.window, reason, "file quarantined");
    Ok(report)
}
