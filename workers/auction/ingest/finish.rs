//! The end of an ingest: heads, manifest, run and window, once every row is in its table.

use super::scan::{Outcome, Plan, Refused};
use super::{COPY_ERRORS, COPY_MANIFEST, COPY_SKIPPED, Report, month};
use crate::auction::completeness;
use crate::db::copy::{CopyBuf, CopyStream};
use crate::workers::auction::Window;
use anyhow::Context;
use serde_json::json;
use sqlx::PgConnection;

/// Loads into tables apart, to be made part of theirs.
pub struct Loads {
    /// The month's row versions, on a connection of its own.
    pub apart: Option<month::Load>,
    /// The table apart into which the day's staged rows went.
    pub day: Option<String>,
}

/// Heads pointed at a new month's versions by one statement, at most.
const MOVED: usize = 50_000;
/// Ids of a manifest sent at once.
const PIECE: usize = 64 << 10;

/// Writes what follows from the whole file.
pub async fn finish(
    connection: &mut PgConnection,
    plan: &Plan,
    window: &Window,
    mut outcome: Outcome,
    loads: Loads,
) -> anyhow::Result<Report> {
    // the month's indexes are built while this connection does the rest
    let apart = match loads.apart {
        Some(load) => Some(load.loaded().await),
        None => None,
    };
    let errors = std::mem::take(&mut outcome.errors);
    errors.send(connection, COPY_ERRORS).await.context("copy the parse errors")?;
    let no_lots = std::mem::take(&mut outcome.no_lots);
    no_lots.send(connection, COPY_SKIPPED).await.context("copy the rows that make no lot")?;
    if plan.first() {
        sqlx::query!(
            "-- ingest: the source's first heads\n select raw.first_heads($1, $2, $3, $4::text::regclass)",
            window.source,
            plan.file_id,
            plan.window,
            loads.day.as_deref().unwrap_or("staging.copart_raw")
        )
        .execute(&mut *connection)
        .await
        .context("write the source's first heads")?;
    }
    if loads.day.is_some() {
        sqlx::query!("-- ingest: index the day\n select staging.index_day($1)", plan.window)
            .execute(&mut *connection)
            .await
            .context("index the day's rows")?;
    }
    write_manifest(connection, plan, &outcome.manifest).await.context("write the manifest")?;
    note_unknown(connection, plan, &outcome).await?;
    if let Some(indexed) = apart {
        indexed.attach(connection, plan.window).await?;
    }
    if loads.day.is_some() {
        sqlx::query!("-- ingest: attach the day\n select staging.attach_day($1)", plan.window)
            .execute(&mut *connection)
            .await
            .context("attach the day to staging.copart_raw")?;
    }
    let staged = if plan.full { outcome.rows } else { outcome.new + outcome.changed };
    sqlx::query!(
        "-- ingest: tell the planner\n select staging.analyze($1, $2)",
        plan.window,
        i64::try_from(staged)?
    )
    .execute(&mut *connection)
    .await
    .context("analyze the staged rows")?;
    // a lot that was away knows until when its last version was seen, as long as its head stands
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
        &outcome.returned
    )
    .execute(&mut *connection)
    .await
    .context("note until when replaced versions were seen")?;
    let complete = plan.in_order && is_complete(connection, window, outcome.rows).await?;
    if plan.in_order {
        move_heads(connection, plan, window, &outcome, complete).await?;
    } else {
        sqlx::query_file!("workers/auction/ingest.late_heads.sql", plan.file_id, window.source, plan.window)
            .execute(&mut *connection)
            .await
            .context("note the late file's lots")?;
    }
    let report = Report {
        state: "ingested",
        rows: outcome.rows,
        new: outcome.new,
        changed: outcome.changed,
        unchanged: outcome.unchanged,
        gone: outcome.gone.len() as u64,
        parse_errors: outcome.rejected,
        repaired: outcome.repaired,
        unreadable_values: outcome.unreadable_values,
        skipped: outcome.skipped,
        unknown_values: outcome.words.unknown().len() as u64,
        words: outcome.words.counts(),
        header_drift: outcome.drift,
        late: !plan.in_order,
        complete,
        ..Report::default()
    };
    if !report.header_drift.is_empty() {
        tracing::warn!(file_id = %plan.file_id, drift = ?report.header_drift, "the feed's header has changed");
    }
    open_run(connection, plan, &report).await?;
    sqlx::query!(
        r#"-- ingest: the file
        with w as (
          update fleet.windows set state = 'ingested', file_id = $1, note = null, updated_at = now()
          where source = $6 and window_start_utc = $7
        )
        update raw.csv_files
        set state = 'ingested', row_count = $2, headers_jsonb = $3, snapshot_clock = $4, complete = $5, ingested_at = now()
        where file_id = $1"#,
        plan.file_id,
        i32::try_from(report.rows)?,
        json!(outcome.header),
        outcome.snapshot_clock,
        plan.in_order.then_some(complete),
        window.source,
        plan.window
    )
    .execute(connection)
    .await
    .context("note the file's state")?;
    Ok(report)
}

async fn is_complete(connection: &mut PgConnection, window: &Window, rows: u64) -> anyhow::Result<bool> {
    let last_three = sqlx::query_scalar!(
        r#"-- ingest: the last three files
        select row_count as "row_count!"
        from raw.csv_files
        where source = $1 and window_start_utc <= $2 and row_count is not null and state in ('ingested', 'applied', 'incomplete')
        order by window_start_utc desc, file_no desc
        limit 3"#,
        window.source,
        window.start
    )
    .fetch_all(connection)
    .await
    .context("read the last files' row counts")?;
    Ok(completeness::is_complete(rows, &last_three))
}

async fn move_heads(
    connection: &mut PgConnection,
    plan: &Plan,
    window: &Window,
    outcome: &Outcome,
    complete: bool,
) -> anyhow::Result<()> {
    if !plan.first() {
        sqlx::query_file!("workers/auction/ingest.heads.sql", plan.file_id, window.source, plan.window)
            .execute(&mut *connection)
            .await
            .context("bring the heads up to the file")?;
    }
    for moved in outcome.moved.chunks(MOVED) {
        let (lots, row_ids): (Vec<i64>, Vec<i64>) = moved.iter().copied().unzip();
        sqlx::query!(
            r#"-- ingest: versions stored anew in this month
            update raw.heads h
            set row_id = m.row_id, version_window = $4
            from unnest($2::bigint[], $3::bigint[]) as m (lot, row_id)
            -- a lot that stands in the file twice may have moved on to its other row
            where h.source = $1 and h.lot = m.lot and h.version_window <> $4"#,
            window.source,
            &lots,
            &row_ids,
            plan.window
        )
        .execute(&mut *connection)
        .await
        .context("point the heads at this month's versions")?;
    }
    let mut away = outcome.gone.clone();
    if complete {
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
        complete,
        plan.window
    )
    .execute(&mut *connection)
    .await
    .context("mark the lots that are away")?;
    sqlx::query!(
        "-- ingest: where the heads stand\n update raw.sources set head_window = $2, head_file_id = $3 where source = $1",
        window.source,
        plan.window,
        plan.file_id
    )
    .execute(connection)
    .await
    .context("note where the heads stand")?;
    Ok(())
}

/// In pieces: encoded whole, a manifest would be the largest thing a worker holds.
async fn write_manifest(connection: &mut PgConnection, plan: &Plan, ids: &[i64]) -> sqlx::Result<()> {
    let mut copy = CopyStream::begin(connection, COPY_MANIFEST).await?;
    let mut piece = CopyBuf::default();
    piece.row(3);
    piece.uuid(Some(plan.file_id));
    piece.timestamptz(Some(plan.window));
    piece.bigints(ids.len());
    for ids in ids.chunks(PIECE) {
        for id in ids {
            piece.bigint(*id);
        }
        copy.send(piece.take()).await?;
    }
    copy.finish().await?;
    Ok(())
}

async fn note_unknown(connection: &mut PgConnection, plan: &Plan, outcome: &Outcome) -> anyhow::Result<()> {
    let (domains, values): (Vec<String>, Vec<String>) =
        outcome.words.unknown().iter().map(|(domain, raw)| (domain.name().to_owned(), raw.clone())).unzip();
    sqlx::query!(
        r#"-- ingest: unknown spellings, one occurrence a file
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
    .context("note unknown spellings")?;
    Ok(())
}

async fn open_run(connection: &mut PgConnection, plan: &Plan, report: &Report) -> anyhow::Result<()> {
    let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
    sqlx::query_file!(
        "workers/auction/ingest.run.sql",
        plan.file_id,
        if report.state == "quarantined" { "failed" } else { "running" },
        count(report.rows),
        count(report.skipped.vin_empty + report.skipped.vin_format + report.skipped.lot_missing),
        count(report.skipped.vin_empty),
        count(report.skipped.lot_missing),
        count(report.parse_errors),
        report.reason.as_ref().map(|reason| json!({ "reason": reason })),
        json!({})
    )
    .execute(connection)
    .await
    .context("write the run")?;
    Ok(())
}

/// Sets the file and its window aside; the first of its unreadable records are told.
pub async fn quarantine(
    connection: &mut PgConnection,
    plan: &Plan,
    refused: Refused,
) -> anyhow::Result<Report> {
    let reason = refused.to_string();
    let mut report = Report {
        state: "quarantined",
        reason: Some(reason.clone()),
        late: !plan.in_order,
        ..Report::default()
    };
    if let Refused::Rejected { rejected, records, errors } = refused {
        (report.parse_errors, report.rows) = (rejected, records - rejected);
        errors.send(connection, COPY_ERRORS).await.context("copy the parse errors")?;
    }
    sqlx::query!(
        r#"-- ingest: quarantine
        with file as (
          update raw.csv_files set state = 'quarantined', ingested_at = now() where file_id = $1
          returning source, window_start_utc
        )
        update fleet.windows w
        set state = 'quarantined', file_id = $1, note = $2, updated_at = now()
        from file
        where w.source = file.source and w.window_start_utc = file.window_start_utc"#,
        plan.file_id,
        reason
    )
    .execute(&mut *connection)
    .await
    .context("quarantine the file")?;
    open_run(connection, plan, &report).await?;
    tracing::error!(target: "told", file_id = %plan.file_id, window = %plan.window, reason, "file quarantined");
    Ok(report)
}
