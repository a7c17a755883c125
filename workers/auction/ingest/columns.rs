//! The columns of `staging.copart_raw`: their names, and the encoding of a parsed row.

use crate::auction::row::{SkipReason, Typed};
use crate::db::copy::CopyBuf;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Returns the COPY statement for rows of [`stage`], into `staging.copart_raw` or into a `detached` table.
///
/// A table created in this transaction is loaded with COPY FREEZE, which saves the later hint-bit writes.
pub fn copy_staged(detached: Option<&str>) -> String {
    let (table, freeze) = detached.map_or(("staging.copart_raw", ""), |table| (table, ", freeze"));
    format!("copy {table} ({COLUMNS}) from stdin (format binary{freeze})")
}

/// Returns the COPY statement for rows of [`stage`] into another table with the columns of `staging.copart_raw`.
pub fn copy_into(table: &str) -> String {
    format!("copy {table} ({COLUMNS}) from stdin (format binary)")
}

/// Returns the names of the columns that [`stage`] writes.
pub fn staged_columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.split(',').map(str::trim)
}

const COLUMNS: &str = "file_id, window_start_utc, row_no, row_id, row_hash, prev_hash, prev_seen, lot_external_id, vin_raw, \
    vin, year, make, model, model_detail, trim, body, fuel, transmission, drive, engine, cylinders, \
    color, site_code, yard_name, city, region, country, location_zip, tz, sale_date_raw, \
    sale_day_of_week, sale_time_hhmm, auction_datetime_utc, item_number, vehicle_type, \
    damage_description, damage_code, secondary_damage, secondary_damage_code, title_state, title_type, \
    has_keys, has_keys_code, lot_condition_code, odometer, odometer_unit, odometer_brand, retail_value_usd, \
    repair_cost_usd, runs_drives, sale_type, sale_type_code, current_bid_usd, special_note, \
    currency_code, thumbnail_url, image_url, grid_row, make_offer_eligible, buy_it_now_usd, \
    source_updated_at, version_at, irregular, processing_error";

const COUNT: i16 = 64;

/// A row to be staged.
pub struct Staged<'a> {
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
    pub typed: &'a Typed<'a>,
}

/// Encodes a row for the COPY statement of [`copy_staged`].
pub fn stage(out: &mut CopyBuf, s: &Staged<'_>) {
    let t = s.typed;
    out.row(COUNT);
    out.uuid(Some(s.file_id));
    out.timestamptz(Some(s.window));
    out.int(i32::try_from(s.row_no).ok());
    out.bigint(s.row_id);
    out.uuid(Some(s.row_hash));
    out.uuid(s.prev_hash);
    out.timestamptz(s.prev_seen);
    out.text(t.lot_external_id.as_deref());
    out.text(t.vin_raw);
    out.text(t.vin.as_deref());
    out.int(t.year);
    out.text(t.make);
    out.text(t.model);
    out.text(t.model_detail);
    out.text(t.trim);
    out.text(t.body);
    out.text(t.fuel);
    out.text(t.transmission);
    out.text(t.drive);
    out.text(t.engine);
    out.int(t.cylinders);
    out.text(t.color);
    out.text(t.site_code);
    out.text(t.yard_name);
    out.text(t.city);
    out.text(t.region);
    out.text(t.country);
    out.text(t.location_zip);
    out.text(t.tz);
    out.int(t.sale_date_raw);
    out.text(t.sale_day_of_week);
    out.int(t.sale_time_hhmm);
    out.timestamptz(t.auction_datetime_utc);
    out.int(t.item_number);
    out.text(t.vehicle_type);
    out.text(t.damage_description);
    out.text(t.damage_code);
    out.text(t.secondary_damage);
    out.text(t.secondary_damage_code);
    out.text(t.title_state);
    out.text(t.title_type);
    out.boolean(t.has_keys);
    out.text(t.has_keys_code);
    out.text(t.lot_condition_code);
    out.numeric(t.odometer.map(|d| (d.unscaled, d.scale)));
    out.text(t.odometer_unit);
    out.text(t.odometer_brand);
    out.numeric(t.retail_value_usd.map(|d| (d.unscaled, d.scale)));
    out.numeric(t.repair_cost_usd.map(|d| (d.unscaled, d.scale)));
    out.text(t.runs_drives);
    out.text(t.sale_type);
    out.text(t.sale_type_code);
    out.numeric(t.current_bid_usd.map(|d| (d.unscaled, d.scale)));
    out.text(t.special_note);
    out.text(t.currency_code);
    out.display(t.image_thumbnail);
    out.display(t.image_url);
    out.text(t.grid_row);
    out.boolean(t.make_offer_eligible);
    out.numeric(t.buy_it_now_usd.map(|d| (d.unscaled, d.scale)));
    out.timestamptz(t.source_updated_at);
    out.timestamptz(Some(s.version_at));
    out.boolean(Some(s.irregular));
    out.text(t.skip_reason.map(SkipReason::as_str));
}
