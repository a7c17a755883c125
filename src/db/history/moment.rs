//! A lot as it stood at a moment.

use super::told::{self, Money, Setting, Told, Word};
use super::versions::{self, Version};
use crate::auction::money::Decimal;
use crate::auction::row::{Typed, Warnings};
use crate::auction::time::{clock, day};
use crate::taxonomy::{Domain, Spellings};
use anyhow::Context;
use chrono::{DateTime, FixedOffset, NaiveTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

/// A lot at a moment.
#[derive(Debug, Serialize)]
pub struct LotAt {
    /// The lot number.
    pub lot: String,
    /// Its source.
    pub source: String,
    /// The moment.
    pub time: DateTime<Utc>,
    /// The newest window at or before it that is here; none before the first.
    pub window_start_utc: Option<DateTime<Utc>>,
    /// Whether the lot was in the feed then.
    pub presence: Presence,
    /// The oldest window that holds it; none once that month is gone from the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// Where it stood; none before it was seen.
    pub status: Option<Told>,
    /// Its values; none before it was seen.
    pub standing: Option<Standing>,
}

/// Whether a lot was in the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// No file had held it.
    NotYetSeen,
    /// The newest file held it.
    InFeed,
    /// The newest complete file did not.
    Gone,
}

/// What a row version says, typed by the rules of ingest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of `lots` and `vehicles`; what needs a word has one")]
pub struct Standing {
    /// The version's id in `raw.rows`.
    pub row_id: i64,
    /// The file that stored it.
    pub file_id: Uuid,
    /// A window that held it.
    pub held_window_utc: DateTime<Utc>,
    /// `Last Updated Time`.
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
    /// When it is sold; `auction_local` is the same with the yard's clock.
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
    /// Miles.
    pub odometer: Option<String>,
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
}

/// How a lot stood at `time`; none where `lots` has no such lot.
pub async fn at(
    connection: &mut PgConnection,
    lot: &str,
    time: DateTime<Utc>,
    spellings: &Spellings,
) -> anyhow::Result<Option<LotAt>> {
    let Some(known) = sqlx::query!(
        r#"-- history: which lot, and the newest window by then
        select
          l.source as "source!", l.status,
          (
            select m.window_start_utc
            from raw.file_manifests m
            where m.source = l.source and m.window_start_utc <= $2
            order by m.window_start_utc desc
            limit 1
          ) as window
        from public.lots l
        where l.lot_external_id = $1 and l.source is not null"#,
        lot,
        time
    )
    .fetch_optional(&mut *connection)
    .await
    .context("look for the lot")?
    else {
        return Ok(None);
    };
    let places = versions::places(connection, &known.source, lot).await?;
    let mut told = LotAt {
        lot: lot.to_owned(),
        time,
        window_start_utc: known.window,
        presence: Presence::NotYetSeen,
        first_seen: versions::oldest(connection, &known.source, &places).await?,
        status: None,
        standing: None,
        source: known.source,
    };
    let Some(window) = known.window.filter(|window| told.first_seen.is_some_and(|first| first <= *window))
    else {
        return Ok(Some(told));
    };
    let held = versions::is_held(connection, &told.source, &places, window).await?;
    told.presence = if held { Presence::InFeed } else { Presence::Gone };
    let status = status(connection, lot, window).await?.or(known.status);
    told.status = Some(told::tell("status", status.into(), &Setting::default(), spellings));
    let version = versions::standing(connection, (&told.source, lot), &places, window, spellings).await?;
    told.standing = version.map(|version| Standing::of(&version, spellings));
    Ok(Some(told))
}

/// The status that the lot had once `window` was judged, if it has moved at all.
async fn status(
    connection: &mut PgConnection,
    lot: &str,
    window: DateTime<Utc>,
) -> anyhow::Result<Option<String>> {
    let told = sqlx::query_scalar!(
        r#"-- history: the status by then
        (
          select changes #>> '{status,1}' as status
          from audit.lot_changes
          where lot_external_id = $1 and what = 'status' and window_start_utc <= $2
          order by window_start_utc desc, id desc
          limit 1
        )
        union all
        (
          select changes #>> '{status,0}'
          from audit.lot_changes
          where lot_external_id = $1 and what = 'status' and window_start_utc > $2
          order by window_start_utc, id
          limit 1
        )
        limit 1"#,
        lot,
        window
    )
    .fetch_optional(connection)
    .await
    .context("read the lot's moves of status")?;
    Ok(told.flatten())
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

impl Standing {
    fn of(version: &Version, spellings: &Spellings) -> Standing {
        let record = version.kept.record();
        let typed = Typed::read(&record, spellings, &mut Warnings::default());
        let t = &typed;
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
            odometer: t.odometer.map(|miles| miles.to_string()),
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
        }
    }
}

/// The instant of the sale by the yard's clock: the offset is what lies between the two.
fn local(typed: &Typed<'_>) -> Option<DateTime<FixedOffset>> {
    let at = typed.auction_datetime_utc?;
    let time = typed.sale_time_hhmm.and_then(clock).or(NaiveTime::from_hms_opt(12, 0, 0))?;
    let offset = day(typed.sale_date_raw?)?.and_time(time) - at.naive_utc();
    let offset = FixedOffset::east_opt(i32::try_from(offset.num_seconds()).ok()?)?;
    Some(at.with_timezone(&offset))
}

impl LotAt {
    /// Every word in it, to be given its label.
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
