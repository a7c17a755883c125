//! Writes folded rows over the table rows, and logs the changes.

use super::compute::{FoldedLot, FoldedVehicle};
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// A table whose rows are folded.
struct FoldTarget {
    table: &'static str,
    key: &'static [&'static str],
    log: &'static str,
    /// Columns of the log in addition to window, file and changes, with values from the folded row `f`.
    log_columns: &'static str,
    log_values: &'static str,
    /// Columns that are written but not logged, since they only determine the version order.
    unlogged: &'static [&'static str],
    /// Columns that only a new row gets, and their values from the folded row `f`.
    created: (&'static str, &'static str),
}

/// Treatment of equal and of missing rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Every existing row is written. Missing rows are skipped, since the upserts have inserted the required ones.
    Replace,
    /// Only rows that differ from the fold are written, and missing rows are inserted.
    Repair,
}

/// The table `lots` and the log of changes.
const LOTS_TARGET: FoldTarget = FoldTarget {
    table: "public.lots",
    key: &["source", "lot_external_id"],
    log: "audit.lot_conflicts",
    log_columns: "source, lot_external_id",
    log_values: "f.source, f.lot_external_id",
    unlogged: UNLOGGED_COLUMNS,
    created: (", status", ", public.feed_status(f.auction_datetime_utc, $2)"),
};

/// The table `vehicles` and the log of changes.
const VEHICLES_TARGET: FoldTarget = FoldTarget {
    table: "public.vehicles",
    key: &["vin"],
    log: "audit.vehicle_conflicts",
    log_columns: "vin, source, lot_external_id",
    log_values: "f.vin, f.source, f.source_lot::text",
    unlogged: UNLOGGED_COLUMNS,
    created: ("", ""),
};

const UNLOGGED_COLUMNS: &[&str] = &[
    "source",
    "source_lot",
    "source_updated_at",
    "version_at",
    "row_hash",
    "seen_window",
    "needs_fold",
    "carried_columns",
    "location_city",
    "location_state",
    "location_country",
];

/// Writes folded lots and their image links, and logs the changes under this file and window.
///
/// Returns the number of lots changed or inserted.
pub async fn write_lots(
    connection: &mut PgConnection,
    sighting: (Option<Uuid>, DateTime<Utc>),
    lots: Vec<FoldedLot>,
    mode: WriteMode,
) -> anyhow::Result<i64> {
    let mut links = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for lot in lots {
        let (source, number) = lot.key;
        links.0.push(source);
        links.1.push(number.to_string());
        links.2.push(lot.thumbnail);
        links.3.push(lot.listing);
        rows.push(lot.row);
    }
    let changed = write_rows(connection, LOTS_TARGET, sighting, rows, mode).await?;
    let (sources, numbers, thumbnails, listings) = links;
    sqlx::query!(
        r#"-- fold: picture links
        select public.replace_image_links(array_agg(l.id), array_agg(g.thumbnail), array_agg(g.listing), $5)
        from unnest($1::text[], $2::text[], $3::text[], $4::text[]) as g (source, lot, thumbnail, listing)
        join public.lots l on l.source = g.source and l.lot_external_id = g.lot"#,
        &sources,
        &numbers,
        thumbnails as Vec<Option<String>>,
        listings as Vec<Option<String>>,
        sighting.1
    )
    .fetch_one(&mut *connection)
    .await
    .context("could not replace the image links of folded lots")?;
    Ok(changed)
}

/// Writes folded vehicles, and logs the changes under this file and window.
///
/// Returns the number of vehicles changed or inserted.
pub async fn write_vehicles(
    connection: &mut PgConnection,
    sighting: (Option<Uuid>, DateTime<Utc>),
    vehicles: Vec<FoldedVehicle>,
    mode: WriteMode,
) -> anyhow::Result<i64> {
    let rows = vehicles.into_iter().map(|vehicle| vehicle.row).collect();
    write_rows(connection, VEHICLES_TARGET, sighting, rows, mode).await
}

async fn write_rows(
    connection: &mut PgConnection,
    target: FoldTarget,
    (file_id, window): (Option<Uuid>, DateTime<Utc>),
    rows: Vec<Value>,
    mode: WriteMode,
) -> anyhow::Result<i64> {
    let Some(Value::Object(first)) = rows.first() else { return Ok(0) };
    let written: Vec<String> = first.keys().filter(|name| !target.key.contains(&name.as_str())).cloned().collect();
    let FoldTarget { table, log, log_columns, log_values, unlogged, created, .. } = target;
    let on = target.key.iter().map(|name| format!("l.{name} = f.{name}")).collect::<Vec<_>>().join(" and ");
    let set = written.iter().map(|name| format!("{name} = b.{name}")).collect::<Vec<_>>().join(", ");
    let counted = if mode == WriteMode::Repair { "count(one)" } else { "count(changes)" };
    let (differs, created) = match mode {
        WriteMode::Replace => (String::new(), String::from("select where false")),
        WriteMode::Repair => {
            // `seen_window` is not a value of the lot, and the upserts do not update it for rows that do not change.
            let names = written.iter().filter(|name| *name != "seen_window");
            let one = |name: &String| format!("l.{name} is distinct from b.{name}");
            let differs = names.map(one).collect::<Vec<_>>().join(" or ");
            let columns: Vec<&str> = first.keys().map(String::as_str).collect();
            let values = columns.iter().map(|name| format!("f.{name}")).collect::<Vec<_>>().join(", ");
            let insert = format!(
                "insert into {table} ({}{})
                select {values}{}
                from jsonb_populate_recordset(null::{table}, $1) as f
                where not exists (select from {table} as l where {on})
                returning 1",
                columns.join(", "),
                created.0,
                created.1
            );
            (format!("and ({differs})"), insert)
        }
    };
    // All interpolated names are constants of this file.
    let sql = format!(
        "-- fold: write
        with beside as (
          select
            l.ctid as place,
            f.*,
            (
              select jsonb_object_agg(n.key, jsonb_build_array(o.value, n.value))
              from jsonb_each(to_jsonb(f)) as n
              join jsonb_each(to_jsonb(l)) as o on o.key = n.key
              where n.key = any ($4)
                and n.value is distinct from o.value
            ) as changes
          from jsonb_populate_recordset(null::{table}, $1) as f
          join {table} as l on {on}
        ),
        written as (
          update {table} as l
          set {set}, updated_at = case when b.changes is null then l.updated_at else now() end
          from beside as b
          where l.ctid = b.place {differs}
          returning b.changes, true as one
        ),
        created as (
          {created}
        ),
        logged as (
          insert into {log} (window_start_utc, file_id, {log_columns}, changes)
          select $2, $3, {log_values}, f.changes
          from beside as f
          where f.changes is not null
        )
        select {counted} + (select count(*) from created) from written"
    );
    let logged: Vec<String> = written.into_iter().filter(|name| !unlogged.contains(&name.as_str())).collect();
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(Value::Array(rows))
        .bind(window)
        .bind(file_id)
        .bind(logged)
        .fetch_one(&mut *connection)
        .await
        .with_context(|| format!("could not write the folded rows of {table}"))
}
