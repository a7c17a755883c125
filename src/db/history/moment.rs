//! Snapshot of a lot at a given time.

use super::carried;
use super::order;
use super::told::{self, Money, Setting, Told, Word};
use super::versions::{self, Version};
use super::windows;
use crate::auction::fold::{Folded, Group, LOT_GROUPS, VEHICLE_GROUPS, fold};
use crate::auction::mapping;
use crate::auction::money::Decimal;
use crate::auction::row::{Typed, Warnings};
use crate::auction::zone::SalePlace;
use crate::taxonomy::{Domain, Spellings};
use anyhow::Context;
use chrono::{DateTime, FixedOffset, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// A lot at a given time.
#[derive(Debug, Serialize)]
pub struct LotAt {
    /// The lot number.
    pub lot: String,
    /// The name of the source.
    pub source: String,
    /// The given time.
    pub time: DateTime<Utc>,
    /// The newest stored window at or before the given time. None before the first window.
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Presence of the lot in the feed at that time.
    pub presence: Presence,
    /// The oldest window that contains the lot. None if that month is no longer in the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// The status at that time. None before the lot was first seen.
    pub status: Option<Told>,
    /// The values at that time. None before the lot was first seen.
    pub standing: Option<Standing>,
}

/// Presence of a lot in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
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
pub struct Standing {
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
    pub body: Option<Word>,
    pub fuel: Option<Word>,
    pub transmission: Option<Word>,
    pub drive: Option<Word>,
    pub engine: Option<String>,
    pub cylinders: Option<i32>,
    pub color: Option<Word>,
    pub vehicle_type: Option<Word>,
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
    pub damage: Option<Word>,
    pub secondary_damage: Option<Word>,
    pub title_state: Option<String>,
    pub title: Option<Word>,
    pub has_keys: Option<bool>,
    pub keys: Option<Word>,
    pub lot_condition: Option<Word>,
    pub runs_drives: Option<Word>,
    pub odometer: Option<String>,
    /// Unit of the odometer, `mi` or `km`.
    pub odometer_unit: Option<String>,
    pub odometer_brand: Option<Word>,
    pub sale_type: Option<Word>,
    pub current_bid: Option<Money>,
    pub buy_it_now: Option<Money>,
    pub retail_value: Option<Money>,
    pub repair_cost: Option<Money>,
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
pub async fn at(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
    time: DateTime<Utc>,
    spellings: &Spellings,
) -> anyhow::Result<Option<LotAt>> {
    let Some(known) = super::find(connection, source, lot).await? else { return Ok(None) };
    let newest = windows::newest_window(connection, &known.source, windows::after(time)).await?;
    let places = versions::places(connection, &known.source, lot).await?;
    let mut told = LotAt {
        lot: lot.to_owned(),
        time,
        window_start_utc: newest,
        presence: Presence::NotYetSeen,
        first_seen: versions::oldest(connection, &known.source, &places).await?,
        status: None,
        standing: None,
        source: known.source,
    };
    let Some(window) = newest.filter(|window| told.first_seen.is_some_and(|first| first <= *window)) else {
        return Ok(Some(told));
    };
    let held = !mapping::for_source(&told.source).absence_is_judged()
        || versions::is_held(connection, &told.source, &places, window).await?;
    told.presence = if held { Presence::InFeed } else { Presence::Gone };
    let status = status(connection, (&told.source, lot), window).await?.or(known.status);
    told.status = Some(told::tell("status", status.into(), &Setting::default(), spellings));
    let versions = order::in_order(connection, (&told.source, lot), &places, window, spellings).await?;
    told.standing = Standing::of(&versions, spellings);
    Ok(Some(told))
}

/// Returns the status of the lot after `window` was judged, or `None` if the status never changed.
async fn status(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    window: DateTime<Utc>,
) -> anyhow::Result<Option<String>> {
    let told = sqlx::query_scalar!(
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
    Ok(told.flatten())
}

/// Folds the versions of a lot, the greatest first. Returns `None` if there are none.
///
/// The lot's values are folded over all versions, and the vehicle's values over the versions with the same VIN.
fn folded<'a>(versions: &[Typed<'a>]) -> Option<Folded<'a>> {
    let lot = fold(&versions.iter().collect::<Vec<_>>(), LOT_GROUPS)?;
    let same_vin = versions.iter().skip(1).filter(|version| version.vin == lot.typed.vin);
    let of_vehicle: Vec<&Typed<'a>> = std::iter::once(&lot.typed).chain(same_vin).collect();
    // the odometer in the result is the lot's
    let groups: Vec<Group> =
        VEHICLE_GROUPS.iter().copied().filter(|group| *group != Group::Odometer).collect();
    let mut folded = fold(&of_vehicle, &groups)?;
    folded.carried.splice(0..0, lot.carried);
    Some(folded)
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

impl Standing {
    /// Returns the snapshot of versions that are given the greatest first, or `None` if there are none.
    fn of(versions: &[Version], spellings: &Spellings) -> Option<Standing> {
        let version = versions.first()?;
        let records: Vec<_> = versions.iter().map(|version| version.kept.record()).collect();
        let read = |record| Typed::read(record, spellings, &mut Warnings::default());
        let typed: Vec<Typed<'_>> = records.iter().map(read).collect();
        let folded = folded(&typed)?;
        Some(Standing::shown(version, &folded, spellings))
    }

    fn shown(version: &Version, folded: &Folded<'_>, spellings: &Spellings) -> Standing {
        let t = &folded.typed;
        let setting = Setting { currency: owned(t.currency_code), title_state: owned(t.title_state) };
        let word = |domain, raw: Option<&str>| raw.map(|raw| told::word(domain, raw, &setting, spellings));
        let money = |amount: Option<Decimal>| {
            amount.map(|amount| Money { amount: amount.to_string(), currency: setting.currency.clone() })
        };
        Standing {
            row_id: version.place.row_id,
            file_id: version.file_id,
            held_window_utc: version.place.window,
            source_updated_at: t.source_updated_at,
            vin: t.vin.as_deref().map(str::to_owned),
            vin_raw: owned(t.vin_raw),
            year: t.year,
            make: owned(t.make),
            model: owned(t.model),
            model_detail: owned(t.model_detail),
            trim: owned(t.trim),
            body: word(Domain::BodyStyles, t.body),
            fuel: word(Domain::FuelTypes, t.fuel),
            transmission: word(Domain::TransmissionTypes, t.transmission),
            drive: word(Domain::DriveTypes, t.drive),
            engine: owned(t.engine),
            cylinders: t.cylinders,
            color: word(Domain::Colors, t.color),
            vehicle_type: word(Domain::VehicleTypes, t.vehicle_type),
            site_code: owned(t.site_code),
            yard_name: owned(t.yard_name),
            city: owned(t.city),
            region: owned(t.region),
            country: owned(t.country),
            location_zip: owned(t.location_zip),
            tz: owned(t.tz),
            grid_row: owned(t.grid_row),
            auction_datetime_utc: t.auction_datetime_utc,
            auction_local: local(t),
            item_number: t.item_number,
            damage: word(Domain::DamageTypes, t.damage_description),
            secondary_damage: word(Domain::DamageTypes, t.secondary_damage),
            title_state: owned(t.title_state),
            title: word(Domain::TitleTypes, t.title_type),
            has_keys: t.has_keys,
            keys: word(Domain::HasKeys, t.has_keys_raw),
            lot_condition: word(Domain::LotConditions, t.lot_condition),
            runs_drives: word(Domain::RunsDrives, t.runs_drives),
            odometer: t.odometer.map(|distance| distance.to_string()),
            odometer_unit: owned(t.odometer_unit),
            odometer_brand: word(Domain::OdometerBrands, t.odometer_brand),
            sale_type: word(Domain::SaleTypes, t.sale_type),
            current_bid: money(t.current_bid_usd),
            buy_it_now: money(t.buy_it_now_usd),
            retail_value: money(t.retail_value_usd),
            repair_cost: money(t.repair_cost_usd),
            currency_code: setting.currency.clone(),
            make_offer_eligible: t.make_offer_eligible,
            special_note: owned(t.special_note),
            thumbnail_url: t.image_thumbnail.map(|url| url.to_string()),
            image_url: t.image_url.map(|url| url.to_string()),
            carried: carried::values(Some(&folded.carried), None),
            carried_columns: folded.carried.clone(),
        }
    }
}

/// Returns the time of the sale in the time zone of the yard.
fn local(typed: &Typed<'_>) -> Option<DateTime<FixedOffset>> {
    let place = SalePlace {
        abbreviation: typed.tz.unwrap_or_default(),
        yard: typed.yard_name.unwrap_or_default(),
        state: typed.region.unwrap_or_default(),
        country: typed.country.unwrap_or_default(),
    };
    place.zone()?.local(typed.auction_datetime_utc?)
}

impl LotAt {
    /// Returns all taxonomy values of the lot, so that the caller can set their labels.
    pub fn words(&mut self) -> impl Iterator<Item = &mut Word> {
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
        standing.flatten().chain(self.status.iter_mut().filter_map(Told::word_mut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::lots;
    use crate::auction::specimen::civic;

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
            let row = civic().with("Yard name", yard).with("Time Zone", abbreviation);
            let row = row.with("Sale Date M/D/CY", date).with("Sale time (HHMM)", time);
            row.read(|record| {
                let typed = Typed::read(record, Spellings::compiled(), &mut Warnings::default());
                assert_eq!(local(&typed).unwrap().to_rfc3339(), shown);
                let place = SalePlace {
                    abbreviation,
                    yard,
                    state: typed.region.unwrap(),
                    country: typed.country.unwrap(),
                };
                let (api, _) = lots::local(typed.auction_datetime_utc.unwrap(), place).unwrap();
                assert_eq!(api, shown);
            });
        }
    }
}
