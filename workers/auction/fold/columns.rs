//! Builds folded rows as JSON objects of table columns.

use super::stored::StoredVersion;
use crate::auction::fold::FoldedVersion;
use crate::auction::money::FeedDecimal;
use serde_json::{Map, Value, json};

/// Returns a decimal as a string, which preserves all digits.
fn decimal_value(decimal: Option<FeedDecimal>) -> Value {
    decimal.map_or(Value::Null, |decimal| Value::String(decimal.to_string()))
}

/// Adds the columns that identify the version of the row.
fn add_order_columns(
    columns: &mut Map<String, Value>,
    version: &StoredVersion,
    folded: &FoldedVersion<'_>,
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
pub fn lot_row(version: &StoredVersion, folded: &FoldedVersion<'_>, needs_fold: bool) -> Value {
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
        "odometer": decimal_value(t.odometer),
        "odometer_unit": t.odometer_unit,
        "odometer_brand": t.odometer_brand,
        "retail_value_usd": decimal_value(t.retail_value_usd),
        "repair_cost_usd": decimal_value(t.repair_cost_usd),
        "runs_drives": t.runs_drives,
        "sale_type": t.sale_type,
        "sale_type_code": t.sale_type_code,
        "current_bid_usd": decimal_value(t.current_bid_usd),
        "special_note": t.special_note,
        "currency_code": t.currency_code,
        "grid_row": t.grid_row,
        "make_offer_eligible": t.make_offer_eligible,
        "buy_it_now_usd": decimal_value(t.buy_it_now_usd),
    });
    if let Value::Object(columns) = &mut columns {
        add_order_columns(columns, version, folded, needs_fold);
    }
    columns
}

/// Returns a row of `vehicles`.
pub fn vehicle_row(vin: &str, version: &StoredVersion, folded: &FoldedVersion<'_>, needs_fold: bool) -> Value {
    let t = &folded.typed;
    // Tenths, rounded as a cast of `numeric` rounds.
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
        add_order_columns(columns, version, folded, needs_fold);
    }
    columns
}
