//! Conversion of a lot's snapshot to the row form of the lot resource.

use super::super::lots::{self, ImageResponse};
use crate::db::history::LotSnapshot;
use crate::db::history::display::{CurrencyAmount, TaxonomyValue};
use chrono::{DateTime, Utc};
use sqlx::types::Json;

/// Converts a snapshot of a lot to the row form that the lot resource reads from the tables.
pub fn snapshot_row(
    lot: &str,
    source: &str,
    status: Option<String>,
    first_seen: Option<DateTime<Utc>>,
    s: LotSnapshot,
) -> lots::LotRow {
    let raw = |word: &Option<TaxonomyValue>| word.as_ref().and_then(|word| word.raw.clone());
    let code = |word: &Option<TaxonomyValue>| word.as_ref().and_then(|word| word.code.clone());
    let amount = |money: Option<CurrencyAmount>| money.map(|money| money.amount);
    lots::LotRow {
        id: 0,
        lot: lot.to_owned(),
        source: Some(source.to_owned()),
        status,
        vin: s.vin.unwrap_or_default(),
        auction_datetime_utc: s.auction_datetime_utc,
        tz: s.tz,
        item_number: s.item_number,
        grid_row: s.grid_row,
        sale_type: raw(&s.sale_type),
        sale_type_code: code(&s.sale_type),
        title_type: raw(&s.title),
        title_state: s.title_state,
        damage_description: raw(&s.damage),
        damage_code: code(&s.damage),
        secondary_damage: raw(&s.secondary_damage),
        secondary_damage_code: code(&s.secondary_damage),
        odometer: s.odometer.and_then(|miles| miles.parse().ok()),
        odometer_unit: s.odometer_unit,
        odometer_brand: raw(&s.odometer_brand),
        has_keys_code: code(&s.keys),
        runs_drives: raw(&s.runs_drives),
        lot_condition_code: code(&s.lot_condition),
        vehicle_type: raw(&s.vehicle_type),
        site_code: s.site_code,
        yard_name: s.yard_name,
        city: s.city,
        region: s.region,
        country: s.country,
        location_zip: s.location_zip,
        currency_code: s.currency_code,
        current_bid: amount(s.current_bid),
        buy_it_now: amount(s.buy_it_now),
        retail_value: amount(s.retail_value),
        repair_cost: amount(s.repair_cost),
        make_offer_eligible: s.make_offer_eligible,
        special_note: s.special_note,
        created_at: first_seen.unwrap_or(s.held_window_utc),
        updated_at: s.held_window_utc,
        source_updated_at: s.source_updated_at,
        carried_columns: Some(s.carried_columns.into_iter().map(str::to_owned).collect()),
        vehicle_carried_columns: None,
        vin_raw: s.vin_raw,
        year: s.year,
        make: s.make,
        model: s.model,
        model_detail: s.model_detail,
        trim: s.trim,
        body: raw(&s.body),
        fuel: raw(&s.fuel),
        transmission: raw(&s.transmission),
        drive: raw(&s.drive),
        engine: s.engine,
        cylinders: s.cylinders,
        color: raw(&s.color),
        images: snapshot_images(s.image_url, s.thumbnail_url),
    }
}

fn snapshot_images(listing: Option<String>, thumbnail: Option<String>) -> Json<Vec<ImageResponse>> {
    let image =
        |variant: &str, url: Option<String>| url.map(|url| ImageResponse { variant: Some(variant.to_owned()), url });
    Json([image("listing", listing), image("thumbnail", thumbnail)].into_iter().flatten().collect())
}
