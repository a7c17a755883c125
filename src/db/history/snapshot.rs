//! Snapshot of a lot at a given time.

use super::carried_columns;
use super::display::{self, CurrencyAmount, DisplayValue, TaxonomyValue, ValueContext};
use super::version_order;
use super::versions::{self, RowVersion};
use super::windows;
use crate::auction::fold::{ColumnGroup, FoldedVersion, LOT_GROUPS, VEHICLE_GROUPS, fold_versions};
use crate::auction::mapping;
use crate::auction::money::FeedDecimal;
use crate::auction::row::{ParseWarnings, ParsedRow};
use crate::auction::zone::SalePlace;
use crate::taxonomy::{AliasIndex, TaxonomyDomain};
use anyhow::Context;
use chrono::{DateTime, FixedOffset, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// A lot at a given time.
#[derive(Debug, Serialize)]
pub struct HistoricalLot {
    /// The lot number.
    pub lot: String,
    /// The name of the source.
    pub source: String,
    /// The given time.
    pub time: DateTime<Utc>,
    /// The newest stored window at or before the given time. None before the first window.
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Presence of the lot in the feed at that time.
    pub presence: FeedPresence,
    /// The oldest window that contains the lot. None if that month is no longer in the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// The status at that time. None before the lot was first seen.
    pub status: Option<DisplayValue>,
    /// The values at that time. None before the lot was first seen.
    pub standing: Option<LotSnapshot>,
}

/// Presence of a lot in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedPresence {
    /// No file up to that time contains the lot.
    NotYetSeen,
    /// The newest file contains the lot.
    InFeed,
    /// The newest complete file does not contain the lot. A source that sends only changes has no lots of this kind.
    Gone,
}

/// The values of a lot at a given time: the greatest row version, with unreadable values replaced by those of older
/// versions.
///
/// Values are parsed by the rules of ingest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of `lots` and `vehicles`; what needs a word has one")]
pub struct LotSnapshot {
    /// The id of the version in `raw.rows`.
    pub row_id: i64,
    /// The file that stored the version.
    pub file_id: Uuid,
    /// A window that contains the version.
    pub held_window_utc: DateTime<Utc>,
    /// The feed's `Last Updated Time`.
    pub source_updated_at: Option<DateTime<Utc>>,
    pub vin: Option<String>,
    pub vin_raw: Option<String>,
    pub year: Option<i32>,
    pub make: Option<String>,
    pub model: Option<String>,
    pub model_detail: Option<String>,
    pub trim: Option<String>,
    pub body: Option<TaxonomyValue>,
    pub fuel: Option<TaxonomyValue>,
    pub transmission: Option<TaxonomyValue>,
    pub drive: Option<TaxonomyValue>,
    pub engine: Option<String>,
    pub cylinders: Option<i32>,
    pub color: Option<TaxonomyValue>,
    pub vehicle_type: Option<TaxonomyValue>,
    pub site_code: Option<String>,
    pub yard_name: Option<String>,
    pub city: Option<String>,
    pub region: Option<String>,
    pub country: Option<String>,
    pub location_zip: Option<String>,
    pub tz: Option<String>,
    pub grid_row: Option<String>,
    /// Time of the sale in UTC. `auction_local` is the same time in the time zone of the yard.
    pub auction_datetime_utc: Option<DateTime<Utc>>,
    pub auction_local: Option<DateTime<FixedOffset>>,
    pub item_number: Option<i32>,
    pub damage: Option<TaxonomyValue>,
    pub secondary_damage: Option<TaxonomyValue>,
    pub title_state: Option<String>,
    pub title: Option<TaxonomyValue>,
    pub has_keys: Option<bool>,
    pub keys: Option<TaxonomyValue>,
    pub lot_condition: Option<TaxonomyValue>,
    pub runs_drives: Option<TaxonomyValue>,
    pub odometer: Option<String>,
    /// Unit of the odometer, `mi` or `km`.
    pub odometer_unit: Option<String>,
    pub odometer_brand: Option<TaxonomyValue>,
    pub sale_type: Option<TaxonomyValue>,
    pub current_bid: Option<CurrencyAmount>,
    pub buy_it_now: Option<CurrencyAmount>,
    pub retail_value: Option<CurrencyAmount>,
    pub repair_cost: Option<CurrencyAmount>,
    pub currency_code: Option<String>,
    pub make_offer_eligible: Option<bool>,
    pub special_note: Option<String>,
    pub thumbnail_url: Option<String>,
    pub image_url: Option<String>,
    /// Names of the values that come from an older version, since they are unreadable in the greatest.
    pub carried: Vec<&'static str>,
    /// Columns of `lots` and `vehicles` that come from an older version.
    #[serde(skip)]
    pub carried_columns: Vec<&'static str>,
}

/// Returns a lot at `time`, or `None` if `lots` has no such lot.
///
/// # Errors
/// Returns [`super::AmbiguousLot`] if `source` is `None` and several sources have the number.
pub async fn lot_at(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
    time: DateTime<Utc>,
    aliases: &AliasIndex,
) -> anyhow::Result<Option<HistoricalLot>> {
    let Some(known) = super::find_lot(connection, source, lot).await? else { return Ok(None) };
    let newest = windows::newest_window(connection, &known.source, windows::just_after(time)).await?;
    let places = versions::find_versions(connection, &known.source, lot).await?;
    let mut snapshot = HistoricalLot {
        lot: lot.to_owned(),
        time,
        window_start_utc: newest,
        presence: FeedPresence::NotYetSeen,
        first_seen: versions::first_seen_window(connection, &known.source, &places).await?,
        status: None,
        standing: None,
        source: known.source,
    };
    let Some(window) = newest.filter(|window| snapshot.first_seen.is_some_and(|first| first <= *window)) else {
        return Ok(Some(snapshot));
    };
    let held = !mapping::mapping_for_source(&snapshot.source).is_absence_judged()
        || versions::was_listed(connection, &snapshot.source, &places, window).await?;
    snapshot.presence = if held { FeedPresence::InFeed } else { FeedPresence::Gone };
    let status = status_at(connection, (&snapshot.source, lot), window).await?.or(known.status);
    snapshot.status = Some(display::describe_value("status", status.into(), &ValueContext::default(), aliases));
    let versions =
        version_order::ordered_versions(connection, (&snapshot.source, lot), &places, window, aliases).await?;
    snapshot.standing = LotSnapshot::from_versions(&versions, aliases);
    Ok(Some(snapshot))
}

/// Returns the status of the lot after `window` was judged, or `None` if the status never changed.
async fn status_at(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    window: DateTime<Utc>,
) -> anyhow::Result<Option<String>> {
    let status = sqlx::query_scalar!(
        r#"-- history: the status by then
        (
          select changes #>> '{status,1}' as status
          from audit.lot_changes
          where lot_external_id = $1 and coalesce(source, $3) = $3 and what = 'status' and window_start_utc <= $2
          order by window_start_utc desc, id desc
          limit 1
        )
        union all
        (
          select changes #>> '{status,0}'
          from audit.lot_changes
          where lot_external_id = $1 and coalesce(source, $3) = $3 and what = 'status' and window_start_utc > $2
          order by window_start_utc, id
          limit 1
        )
        limit 1"#,
        lot,
        window,
        source
    )
    .fetch_optional(connection)
    .await
    .context("could not read the status changes of the lot")?;
    Ok(status.flatten())
}

/// Folds the versions of a lot, the greatest first. Returns `None` if there are none.
///
/// The lot's values are folded over all versions, and the vehicle's values over the versions with the same VIN.
fn fold_lot<'a>(versions: &[ParsedRow<'a>]) -> Option<FoldedVersion<'a>> {
    let lot = fold_versions(&versions.iter().collect::<Vec<_>>(), LOT_GROUPS)?;
    let same_vin = versions.iter().skip(1).filter(|version| version.vin == lot.typed.vin);
    let of_vehicle: Vec<&ParsedRow<'a>> = std::iter::once(&lot.typed).chain(same_vin).collect();
    // the odometer in the result is the lot's
    let groups: Vec<ColumnGroup> =
        VEHICLE_GROUPS.iter().copied().filter(|group| *group != ColumnGroup::Odometer).collect();
    let mut folded = fold_versions(&of_vehicle, &groups)?;
    folded.carried.splice(0..0, lot.carried);
    Some(folded)
}

fn to_owned_text(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

impl LotSnapshot {
    /// Returns the snapshot of versions that are given the greatest first, or `None` if there are none.
    fn from_versions(versions: &[RowVersion], aliases: &AliasIndex) -> Option<LotSnapshot> {
        let version = versions.first()?;
        let records: Vec<_> = versions.iter().map(|version| version.kept.as_record()).collect();
        let read = |record| ParsedRow::from_record(record, aliases, &mut ParseWarnings::default());
        let typed: Vec<ParsedRow<'_>> = records.iter().map(read).collect();
        let folded = fold_lot(&typed)?;
        Some(LotSnapshot::from_folded(version, &folded, aliases))
    }

    fn from_folded(version: &RowVersion, folded: &FoldedVersion<'_>, aliases: &AliasIndex) -> LotSnapshot {
        let t = &folded.typed;
        let setting =
            ValueContext { currency: to_owned_text(t.currency_code), title_state: to_owned_text(t.title_state) };
        let word = |domain, raw: Option<&str>| raw.map(|raw| display::taxonomy_value(domain, raw, &setting, aliases));
        let money = |amount: Option<FeedDecimal>| {
            amount.map(|amount| CurrencyAmount { amount: amount.to_string(), currency: setting.currency.clone() })
        };
        LotSnapshot {
            row_id: version.place.row_id,
            file_id: version.file_id,
            held_window_utc: version.place.window,
            source_updated_at: t.source_updated_at,
            vin: t.vin.as_deref().map(str::to_owned),
            vin_raw: to_owned_text(t.vin_raw),
            year: t.year,
            make: to_owned_text(t.make),
            model: to_owned_text(t.model),
            model_detail: to_owned_text(t.model_detail),
            trim: to_owned_text(t.trim),
            body: word(TaxonomyDomain::BodyStyles, t.body),
            fuel: word(TaxonomyDomain::FuelTypes, t.fuel),
            transmission: word(TaxonomyDomain::TransmissionTypes, t.transmission),
            drive: word(TaxonomyDomain::DriveTypes, t.drive),
            engine: to_owned_text(t.engine),
            cylinders: t.cylinders,
            color: word(TaxonomyDomain::Colors, t.color),
            vehicle_type: word(TaxonomyDomain::VehicleTypes, t.vehicle_type),
            site_code: to_owned_text(t.site_code),
            yard_name: to_owned_text(t.yard_name),
            city: to_owned_text(t.city),
            region: to_owned_text(t.region),
            country: to_owned_text(t.country),
            location_zip: to_owned_text(t.location_zip),
            tz: to_owned_text(t.tz),
            grid_row: to_owned_text(t.grid_row),
            auction_datetime_utc: t.auction_datetime_utc,
            auction_local: local_sale_time(t),
            item_number: t.item_number,
            damage: word(TaxonomyDomain::DamageTypes, t.damage_description),
            secondary_damage: word(TaxonomyDomain::DamageTypes, t.secondary_damage),
            title_state: to_owned_text(t.title_state),
            title: word(TaxonomyDomain::TitleTypes, t.title_type),
            has_keys: t.has_keys,
            keys: word(TaxonomyDomain::HasKeys, t.has_keys_raw),
            lot_condition: word(TaxonomyDomain::LotConditions, t.lot_condition),
            runs_drives: word(TaxonomyDomain::RunsDrives, t.runs_drives),
            odometer: t.odometer.map(|distance| distance.to_string()),
            odometer_unit: to_owned_text(t.odometer_unit),
            odometer_brand: word(TaxonomyDomain::OdometerBrands, t.odometer_brand),
            sale_type: word(TaxonomyDomain::SaleTypes, t.sale_type),
            current_bid: money(t.current_bid_usd),
            buy_it_now: money(t.buy_it_now_usd),
            retail_value: money(t.retail_value_usd),
            repair_cost: money(t.repair_cost_usd),
            currency_code: setting.currency.clone(),
            make_offer_eligible: t.make_offer_eligible,
            special_note: to_owned_text(t.special_note),
            thumbnail_url: t.image_thumbnail.map(|url| url.to_string()),
            image_url: t.image_url.map(|url| url.to_string()),
            carried: carried_columns::value_names(Some(&folded.carried), None),
            carried_columns: folded.carried.clone(),
        }
    }
}

/// Returns the time of the sale in the time zone of the yard.
fn local_sale_time(typed: &ParsedRow<'_>) -> Option<DateTime<FixedOffset>> {
    let place = SalePlace {
        abbreviation: typed.tz.unwrap_or_default(),
        yard: typed.yard_name.unwrap_or_default(),
        state: typed.region.unwrap_or_default(),
        country: typed.country.unwrap_or_default(),
    };
    place.zone()?.local_time(typed.auction_datetime_utc?)
}

impl HistoricalLot {
    /// Returns all taxonomy values of the lot, so that the caller can set their labels.
    pub fn taxonomy_values(&mut self) -> impl Iterator<Item = &mut TaxonomyValue> {
        let standing = self.standing.iter_mut().flat_map(|s| {
            [
                &mut s.body,
                &mut s.fuel,
                &mut s.transmission,
                &mut s.drive,
                &mut s.color,
                &mut s.vehicle_type,
                &mut s.damage,
                &mut s.secondary_damage,
                &mut s.title,
                &mut s.keys,
                &mut s.lot_condition,
                &mut s.runs_drives,
                &mut s.odometer_brand,
                &mut s.sale_type,
            ]
        });
        standing.flatten().chain(self.status.iter_mut().filter_map(DisplayValue::taxonomy_value_mut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::lots;
    use crate::auction::fixture::civic_fixture;

    #[test]
    fn a_version_is_shown_by_the_clock_by_which_the_api_shows_the_lot() {
        // a yard's own rule, a fixed offset, no time, and a time that daylight saving skips
        let sales = [
            ("AB - CALGARY", "MST", "20261204", "900", "2026-12-04T09:00:00-06:00"),
            ("ATLANTIC CANADA AUCTION", "AKST", "20260115", "800", "2026-01-15T08:00:00-09:00"),
            ("AZ - PHOENIX", "PDT", "20260715", "0", "2026-07-15T12:00:00-07:00"),
            ("CA - VALLEJO", "PST", "20260308", "230", "2026-03-08T03:30:00-07:00"),
            ("NJ - TRENTON", "", "20260310", "1000", "2026-03-10T10:00:00-04:00"),
        ];
        for (yard, abbreviation, date, time, shown) in sales {
            let row = civic_fixture().with_value("Yard name", yard).with_value("Time Zone", abbreviation);
            let row = row.with_value("Sale Date M/D/CY", date).with_value("Sale time (HHMM)", time);
            row.with_record(|record| {
                let typed = ParsedRow::from_record(record, AliasIndex::built_in(), &mut ParseWarnings::default());
                assert_eq!(local_sale_time(&typed).unwrap().to_rfc3339(), shown);
                let place =
                    SalePlace { abbreviation, yard, state: typed.region.unwrap(), country: typed.country.unwrap() };
                let (api, _) = lots::local_time(typed.auction_datetime_utc.unwrap(), place).unwrap();
                assert_eq!(api, shown);
            });
        }
    }
}
