//! Folded rows as JSON objects of table columns, and how they are written.

use super::StoredVersion;
use crate::auction::fold::Folded;
use crate::auction::money::Decimal;
use crate::queue::Step;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

/// A table whose rows are folded.
pub struct Target {
    table: &'static str,
    key: &'static [&'static str],
    log: &'static str,
    /// The log's columns beside window, file and changes, from the folded row `f`.
    log_columns: &'static str,
    log_values: &'static str,
    /// Columns that are written and are no news: they belong to the order of versions.
    unlogged: &'static [&'static str],
}

/// `lots`.
pub const LOTS: Target = Target {
    table: "public.lots",
    key: &["source", "lot_external_id"],
    log: "audit.lot_conflicts",
    log_columns: "source, lot_external_id",
    log_values: "f.source, f.lot_external_id",
    unlogged: UNLOGGED,
};

/// `vehicles`.
pub const VEHICLES: Target = Target {
    table: "public.vehicles",
    key: &["vin"],
    log: "audit.vehicle_conflicts",
    log_columns: "vin, source, lot_external_id",
    log_values: "f.vin, f.source, f.source_lot::text",
    unlogged: UNLOGGED,
};

const UNLOGGED: &[&str] = &[
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

/// A number that keeps its digits.
fn number(decimal: Option<Decimal>) -> Value {
    decimal.map_or(Value::Null, |decimal| Value::String(decimal.to_string()))
}

/// Adds the columns that say which version stands.
fn add_order(
    columns: &mut Map<String, Value>,
    version: &StoredVersion,
    folded: &Folded<'_>,
    needs_fold: bool,
) {
    let typed = &folded.typed;
    let order = json!({
        "source": version.source,
        "source_updated_at": typed.source_updated_at,
        "version_at": version.version_at(typed).0,
        "row_hash": version.hash,
        "seen_window": version.last_window,
        "needs_fold": needs_fold,
        "carried_columns": (!folded.carried.is_empty()).then_some(&folded.carried),
    });
    if let Value::Object(order) = order {
        columns.extend(order);
    }
}

/// Returns a row of `lots`.
pub fn lot(version: &StoredVersion, folded: &Folded<'_>, needs_fold: bool) -> Value {
    let t = &folded.typed;
    let mut columns = json!({
        "lot_external_id": version.lot.to_string(),
        "vin": t.vin,
        "site_code": t.site_code,
        "yard_name": t.yard_name,
        "city": t.city,
        "region": t.region,
        "country": t.country,
        "location_city": t.city,
        "location_state": t.region,
        "location_country": t.country,
        "location_zip": t.location_zip,
        "tz": t.tz,
        "sale_date_raw": t.sale_date_raw,
        "sale_day_of_week": t.sale_day_of_week,
        "sale_time_hhmm": t.sale_time_hhmm,
        "auction_datetime_utc": t.auction_datetime_utc,
        "item_number": t.item_number,
        "vehicle_type": t.vehicle_type,
        "damage_description": t.damage_description,
        "damage_code": t.damage_code,
        "secondary_damage": t.secondary_damage,
        "secondary_damage_code": t.secondary_damage_code,
        "title_state": t.title_state,
        "title_type": t.title_type,
        "has_keys": t.has_keys,
        "has_keys_code": t.has_keys_code,
        "lot_condition_code": t.lot_condition_code,
        "odometer": number(t.odometer),
        "odometer_unit": t.odometer_unit,
        "odometer_brand": t.odometer_brand,
        "retail_value_usd": number(t.retail_value_usd),
        "repair_cost_usd": number(t.repair_cost_usd),
        "runs_drives": t.runs_drives,
        "sale_type": t.sale_type,
        "sale_type_code": t.sale_type_code,
        "current_bid_usd": number(t.current_bid_usd),
        "special_note": t.special_note,
        "currency_code": t.currency_code,
        "grid_row": t.grid_row,
        "make_offer_eligible": t.make_offer_eligible,
        "buy_it_now_usd": number(t.buy_it_now_usd),
    });
    if let Value::Object(columns) = &mut columns {
        add_order(columns, version, folded, needs_fold);
    }
    columns
}

/// Returns a row of `vehicles`.
pub fn vehicle(vin: &str, version: &StoredVersion, folded: &Folded<'_>, needs_fold: bool) -> Value {
    let t = &folded.typed;
    // tenths, rounded as the cast of a numeric does
    let odometer = t.odometer.map(|miles| (miles.unscaled + 5) / 10);
    let mut columns = json!({
        "vin": vin,
        "vin_raw": t.vin_raw,
        "year": t.year,
        "make": t.make,
        "model": t.model,
        "model_detail": t.model_detail,
        "trim": t.trim,
        "body": t.body,
        "fuel": t.fuel,
        "transmission": t.transmission,
        "drive": t.drive,
        "engine": t.engine,
        "cylinders": t.cylinders,
        "color": t.color,
        "odometer_value": odometer,
        "odometer_unit": t.odometer_unit,
        "odometer_brand": t.odometer_brand,
        "source_lot": version.lot,
    });
    if let Value::Object(columns) = &mut columns {
        add_order(columns, version, folded, needs_fold);
    }
    columns
}

/// Writes folded rows over those that stand, and logs what changed. Returns how many rows changed.
pub async fn write(
    step: &mut Step,
    target: Target,
    (file_id, window): (Uuid, DateTime<Utc>),
    rows: Vec<Value>,
) -> anyhow::Result<i64> {
    let Some(Value::Object(first)) = rows.first() else { return Ok(0) };
    let written: Vec<&str> =
        first.keys().map(String::as_str).filter(|name| !target.key.contains(name)).collect();
    let Target { table, log, log_columns, log_values, unlogged, .. } = target;
    let on = target.key.iter().map(|name| format!("l.{name} = f.{name}")).collect::<Vec<_>>().join(" and ");
    let set = written.iter().map(|name| format!("{name} = b.{name}")).collect::<Vec<_>>().join(", ");
    // the names are those of this file
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
          where l.ctid = b.place
          returning b.changes
        ),
        logged as (
          insert into {log} (window_start_utc, file_id, {log_columns}, changes)
          select $2, $3, {log_values}, f.changes
          from beside as f
          where f.changes is not null
        )
        select count(changes) from written"
    );
    let logged: Vec<&str> = written.into_iter().filter(|name| !unlogged.contains(name)).collect();
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(Value::Array(rows.clone()))
        .bind(window)
        .bind(file_id)
        .bind(logged)
        .fetch_one(&mut **step)
        .await
        .with_context(|| format!("write the folded rows of {table}"))
}
