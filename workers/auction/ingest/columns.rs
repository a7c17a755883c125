//! The columns of `staging.copart_raw`: their names, and the encoding of a parsed row.

use crate::auction::row::{ParsedRow, SkipReason};
use crate::db::copy::CopyBuf;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Returns the COPY statement for rows of [`write_staged_row`], into `staging.copart_raw` or into a `detached` table.
///
/// A table created in this transaction is loaded with COPY FREEZE, which saves the later hint-bit writes.
pub fn copy_staged_sql(detached: Option<&str>) -> String {
    let (table, freeze) = detached.map_or(("staging.copart_raw", ""), |table| (table, ", freeze"));
    format!("copy {table} ({STAGED_COLUMNS}) from stdin (format binary{freeze})")
}

/// Returns the COPY statement for rows of [`write_staged_row`] into another table with the columns of
/// `staging.copart_raw`.
pub fn copy_into_sql(table: &str) -> String {
    format!("copy {table} ({STAGED_COLUMNS}) from stdin (format binary)")
}

/// Returns the names of the columns that [`write_staged_row`] writes.
pub fn staged_columns() -> impl Iterator<Item = &'static str> {
    STAGED_COLUMNS.split(',').map(str::trim)
}

const STAGED_COLUMNS: &str = "file_id, window_start_utc, row_no, row_id, row_hash, prev_hash, prev_seen, lot_external_id, vin_raw, \
    vin, year, make, model, model_detail, trim, body, fuel, transmission, drive, engine, cylinders, \
    color, site_code, yard_name, city, region, country, location_zip, tz, sale_date_raw, \
    sale_day_of_week, sale_time_hhmm, auction_datetime_utc, item_number, vehicle_type, \
    damage_description, damage_code, secondary_damage, secondary_damage_code, title_state, title_type, \
    has_keys, has_keys_code, lot_condition_code, odometer, odometer_unit, odometer_brand, retail_value_usd, \
    repair_cost_usd, runs_drives, sale_type, sale_type_code, current_bid_usd, special_note, \
    currency_code, thumbnail_url, image_url, grid_row, make_offer_eligible, buy_it_now_usd, \
    source_updated_at, version_at, irregular, processing_error";

const STAGED_COLUMN_COUNT: i16 = 64;

/// A row to be staged.
pub struct StagedRow<'a> {
    /// The id of the file.
    pub file_id: Uuid,
    /// The file's window.
    pub window: DateTime<Utc>,
    /// The position of the row in the file, from 1.
    pub row_no: u64,
    /// The id of the row's version in `raw.rows`.
    pub row_id: i64,
    /// The hash of the row's values.
    pub row_hash: Uuid,
    /// The hash of the version that the row replaces as the head of its lot.
    pub prev_hash: Option<Uuid>,
    /// The last window in which the replaced version was seen.
    pub prev_seen: Option<DateTime<Utc>>,
    /// The position of the row among the versions of its lot.
    pub version_at: DateTime<Utc>,
    /// True if a value could not be read, or if the update time cannot be right.
    pub irregular: bool,
    /// The parsed values.
    pub typed: &'a ParsedRow<'a>,
}

/// Encodes a row for the COPY statement of [`copy_staged_sql`].
pub fn write_staged_row(out: &mut CopyBuf, s: &StagedRow<'_>) {
    let t = s.typed;
    out.begin_row(STAGED_COLUMN_COUNT);
    out.put_uuid(Some(s.file_id));
    out.put_timestamptz(Some(s.window));
    out.put_int(i32::try_from(s.row_no).ok());
    out.put_bigint(s.row_id);
    out.put_uuid(Some(s.row_hash));
    out.put_uuid(s.prev_hash);
    out.put_timestamptz(s.prev_seen);
    out.put_text(t.lot_external_id.as_deref());
    out.put_text(t.vin_raw);
    out.put_text(t.vin.as_deref());
    out.put_int(t.year);
    out.put_text(t.make);
    out.put_text(t.model);
    out.put_text(t.model_detail);
    out.put_text(t.trim);
    out.put_text(t.body);
    out.put_text(t.fuel);
    out.put_text(t.transmission);
    out.put_text(t.drive);
    out.put_text(t.engine);
    out.put_int(t.cylinders);
    out.put_text(t.color);
    out.put_text(t.site_code);
    out.put_text(t.yard_name);
    out.put_text(t.city);
    out.put_text(t.region);
    out.put_text(t.country);
    out.put_text(t.location_zip);
    out.put_text(t.tz);
    out.put_int(t.sale_date_raw);
    out.put_text(t.sale_day_of_week);
    out.put_int(t.sale_time_hhmm);
    out.put_timestamptz(t.auction_datetime_utc);
    out.put_int(t.item_number);
    out.put_text(t.vehicle_type);
    out.put_text(t.damage_description);
    out.put_text(t.damage_code);
    out.put_text(t.secondary_damage);
    out.put_text(t.secondary_damage_code);
    out.put_text(t.title_state);
    out.put_text(t.title_type);
    out.put_boolean(t.has_keys);
    out.put_text(t.has_keys_code);
    out.put_text(t.lot_condition_code);
    out.put_numeric(t.odometer.map(|d| (d.unscaled, d.scale)));
    out.put_text(t.odometer_unit);
    out.put_text(t.odometer_brand);
    out.put_numeric(t.retail_value_usd.map(|d| (d.unscaled, d.scale)));
    out.put_numeric(t.repair_cost_usd.map(|d| (d.unscaled, d.scale)));
    out.put_text(t.runs_drives);
    out.put_text(t.sale_type);
    out.put_text(t.sale_type_code);
    out.put_numeric(t.current_bid_usd.map(|d| (d.unscaled, d.scale)));
    out.put_text(t.special_note);
    out.put_text(t.currency_code);
    out.put_display(t.image_thumbnail);
    out.put_display(t.image_url);
    out.put_text(t.grid_row);
    out.put_boolean(t.make_offer_eligible);
    out.put_numeric(t.buy_it_now_usd.map(|d| (d.unscaled, d.scale)));
    out.put_timestamptz(t.source_updated_at);
    out.put_timestamptz(Some(s.version_at));
    out.put_boolean(Some(s.irregular));
    out.put_text(t.skip_reason.map(SkipReason::as_str));
}
