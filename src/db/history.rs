//! A lot's past: what changed and when, how it stood at a moment, and where its vehicle was offered before and since.
//!
//! **What changed** is told by the logs that the upserts and detect-completion write; nothing is derived. Events come in
//! the order in which they were applied, so that each old value is the new one before it. Where windows came late that is
//! not the order of windows, and both are told.
//!
//! **How it stood** ([`at()`]) is told by the row versions, by the rule that `lots` itself follows: of all versions that a
//! file at or before the moment held, the greatest by (`version_at`, newest such file, hash). A value that cannot be read
//! falls back to an older one of them ([`crate::auction::fold`]) and is marked ([`carried`]). So asked for now it
//! answers what `lots` says, and asked for then what `lots` said, had all files come in their order. Whether the lot
//! was in the feed is told by the manifests of the newest file that can tell: one that holds it, or a complete one that
//! does not. Its status then is told by the log.
//!
//! **What it costs**: some index look-ups for each month that is kept, and one manifest (a file's million bytes) where
//! presence is asked. More manifests are read only where files came late or hold a lot twice, and rows disagree with one
//! time of update.
//!
//! A version is found by the canonical lot number that ingest read, which `raw.rows` has as a column of its own: how a file
//! writes the number and what it calls the column make no difference. Eight bytes a version and 23 of index (1.5 % of what a
//! version takes) cost less than searching manifests for row ids, and closed lots have no head to start from.
//!
//! A lot is known by its source and its number. Where the source is not named, the number must be that of one source.
//!
//! Of raw and audit it reads views only, so that app_ro may.
//!
//! Long because a lot, its changes and its vehicle's listings are one answer, and its types are read beside the queries that fill them.

use crate::taxonomy::Spellings;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use thiserror::Error;
use told::{Setting, Told, Word};
use uuid::Uuid;

pub mod carried;
mod moment;
mod order;
pub mod told;
mod versions;
mod windows;

pub use moment::{LotAt, Presence, Standing, at};

/// A lot's whole history.
#[derive(Debug, Serialize)]
pub struct LotHistory {
    /// The lot number.
    pub lot: String,
    /// Its source.
    pub source: String,
    /// The vehicle.
    pub vin: String,
    /// Where it stands now.
    pub status: Told,
    /// The oldest window that holds it; none once that month is gone from the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window that saw it, be it in a file that was repeated or came late.
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it stands in the newest file.
    pub in_feed: bool,
    /// The names of its values that come from an older version, as [`Standing`] names them.
    pub carried: Vec<&'static str>,
    /// What changed, in the order in which it was applied.
    pub events: Vec<Event>,
    /// Every lot of the vehicle, this one too, in the order in which they came.
    pub listings: Vec<Listing>,
}

/// What one file changed of a lot.
#[derive(Debug, Serialize)]
pub struct Event {
    /// The window it came in.
    pub window_start_utc: DateTime<Utc>,
    /// When that was applied.
    pub applied_at: DateTime<Utc>,
    /// The file.
    pub file_id: Option<Uuid>,
    /// Of what: the lot, its status, or the vehicle as this lot describes it.
    pub what: What,
    /// Why, of a status.
    pub reason: Option<String>,
    /// Which vehicle, where the vehicle's values changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vin: Option<String>,
    /// Column by column.
    pub changes: Vec<Change>,
}

/// Whose values changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The vehicle's.
    Vehicle,
    /// The lot's.
    Lot,
    /// The lot's status.
    Status,
}

/// A column's change.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Its name in `lots`, or in `vehicles`.
    pub column: String,
    /// What stood.
    pub before: Told,
    /// What came.
    pub after: Told,
}

/// A lot among others of its vehicle.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The lot number.
    pub lot: String,
    /// Its source.
    pub source: String,
    /// Where it stands.
    pub status: Told,
    /// The oldest window that holds it.
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window that saw it, be it in a file that was repeated or came late.
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it stands in the newest file.
    pub in_feed: bool,
    /// When it is or was to be sold.
    pub auction_datetime_utc: Option<DateTime<Utc>>,
    /// The last bid known.
    pub current_bid: Told,
    /// The last odometer known.
    pub odometer: Told,
    /// Its unit, `mi` or `km`.
    pub odometer_unit: Option<String>,
    /// What is broken.
    pub damage: Told,
    /// The names of these values that come from an older version.
    pub carried: Vec<&'static str>,
}

/// The values of a [`Listing`] that can be carried.
const LISTED: [&str; 5] = ["auction_datetime_utc", "current_bid", "odometer", "odometer_unit", "damage"];

/// A lot number that several sources have.
#[derive(Debug, Error)]
#[error("lot {lot} is ambiguous: the sources {} have it", sources.join(", "))]
pub struct AmbiguousLot {
    /// The lot number.
    pub lot: String,
    /// The sources that have it, by name.
    pub sources: Vec<String>,
}

/// What `lots` has of a lot.
#[derive(Debug)]
struct Known {
    source: String,
    vin: String,
    status: Option<String>,
    currency: Option<String>,
    title_state: Option<String>,
    carried: Option<Vec<String>>,
    vehicle_carried: Option<Vec<String>>,
}

/// Returns the lot with this number; none where `lots` has no such lot.
///
/// # Errors
///
/// [`AmbiguousLot`] where `source` is `None` and several sources have the number.
async fn find(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
) -> anyhow::Result<Option<Known>> {
    let mut lots = sqlx::query_as!(
        Known,
        r#"-- history: the lot
        select
          l.source as "source!", l.vin, l.status, l.currency_code::text as currency, l.title_state,
          l.carried_columns as carried, v.carried_columns as "vehicle_carried?"
        from public.lots l
        left join public.vehicles v on v.vin = l.vin
        where l.lot_external_id = $1 and l.source is not null and l.source = coalesce($2, l.source)
        order by l.source"#,
        lot,
        source
    )
    .fetch_all(connection)
    .await
    .context("look for the lot")?;
    if lots.len() > 1 {
        let sources = lots.into_iter().map(|lot| lot.source).collect();
        return Err(AmbiguousLot { lot: lot.to_owned(), sources }.into());
    }
    Ok(lots.pop())
}

/// Returns the history of a lot; none where `lots` has no such lot.
///
/// # Errors
///
/// [`AmbiguousLot`] where `source` is `None` and several sources have the number.
pub async fn history(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
    spellings: &Spellings,
) -> anyhow::Result<Option<LotHistory>> {
    let Some(known) = find(connection, source, lot).await? else { return Ok(None) };
    let listings = relistings(connection, &known.vin, spellings).await?;
    let mut rows = sqlx::query_as!(
        Logged,
        r#"-- history: the lot's changes
        select window_start_utc as "window_start_utc!", applied_at as "applied_at!", file_id, file_no, id as "id!",
          what as "what!", reason, null as vin, changes as "changes!"
        from audit.lot_changes
        where lot_external_id = $1 and coalesce(source, $2) = $2"#,
        lot,
        known.source
    )
    .fetch_all(&mut *connection)
    .await
    .context("read the lot's changes")?;
    rows.extend(vehicle_changes(connection, (&known.source, lot), &known.vin, &rows).await?);
    let setting = Setting { currency: known.currency, title_state: known.title_state };
    let mine = listings.iter().find(|listing| listing.lot == lot && listing.source == known.source);
    Ok(Some(LotHistory {
        lot: lot.to_owned(),
        vin: known.vin,
        status: told::tell("status", known.status.into(), &setting, spellings),
        first_seen: mine.and_then(|listing| listing.first_seen),
        last_seen: mine.and_then(|listing| listing.last_seen),
        in_feed: mine.is_some_and(|listing| listing.in_feed),
        carried: carried::values(known.carried.as_deref(), known.vehicle_carried.as_deref()),
        events: events(rows, setting, spellings),
        listings,
        source: known.source,
    }))
}

/// A line of the log.
#[derive(Debug)]
struct Logged {
    window_start_utc: DateTime<Utc>,
    applied_at: DateTime<Utc>,
    file_id: Option<Uuid>,
    file_no: Option<i64>,
    id: i64,
    what: String,
    reason: Option<String>,
    vin: Option<String>,
    changes: Value,
}

impl Logged {
    fn what(&self) -> What {
        match self.what.as_str() {
            "vehicle" => What::Vehicle,
            "status" => What::Status,
            _ => What::Lot,
        }
    }
}

/// What the lot's rows changed of its vehicle, and of those it was said to be before.
async fn vehicle_changes(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    vin: &str,
    changes: &[Logged],
) -> anyhow::Result<Vec<Logged>> {
    let others = changes.iter().filter_map(|change| change.changes.get("vin")?.get(0)?.as_str());
    let vins: Vec<String> = others.chain([vin]).map(str::to_owned).collect();
    sqlx::query_as!(
        Logged,
        r#"-- history: what the lot changed of its vehicle
        select window_start_utc as "window_start_utc!", applied_at as "applied_at!", file_id, file_no, id as "id!",
          'vehicle' as "what!", null as reason, vin, changes as "changes!"
        from audit.vehicle_changes
        where vin = any($1) and lot_external_id = $2 and coalesce(source, $3) = $3"#,
        &vins,
        lot,
        source
    )
    .fetch_all(connection)
    .await
    .context("read the vehicle's changes")
}

/// The log as events, in the order in which it was written. What amounts are in, and whose paper a title is, is known
/// of now; going back, each change of it tells what was before.
fn events(mut rows: Vec<Logged>, mut setting: Setting, spellings: &Spellings) -> Vec<Event> {
    rows.sort_by_key(|row| (row.applied_at, row.file_no, row.what(), row.id));
    let mut events: Vec<Event> = Vec::with_capacity(rows.len());
    for row in rows.into_iter().rev() {
        let what = row.what();
        let Value::Object(logged) = row.changes else { continue };
        let was = |column: &str, now: &Option<String>| match logged.get(column) {
            Some(pair) => pair[0].as_str().map(str::to_owned),
            None => now.clone(),
        };
        let before = Setting {
            currency: was("currency_code", &setting.currency),
            title_state: was("title_state", &setting.title_state),
        };
        events.push(Event {
            window_start_utc: row.window_start_utc,
            applied_at: row.applied_at,
            file_id: row.file_id,
            what,
            reason: row.reason,
            vin: row.vin,
            changes: changes(&logged, &before, &setting, spellings),
        });
        setting = before;
    }
    events.reverse();
    events
}

fn changes(
    logged: &Map<String, Value>,
    before: &Setting,
    after: &Setting,
    spellings: &Spellings,
) -> Vec<Change> {
    let told = logged.iter().filter(|(column, _)| !logged.keys().any(|other| told::told_by(column, other)));
    told.map(|(column, pair)| Change {
        column: column.clone(),
        before: told::tell(column, pair[0].clone(), before, spellings),
        after: told::tell(column, pair[1].clone(), after, spellings),
    })
    .collect()
}

/// Every lot of a vehicle, in the order in which they came.
pub async fn relistings(
    connection: &mut PgConnection,
    vin: &str,
    spellings: &Spellings,
) -> anyhow::Result<Vec<Listing>> {
    let lots = sqlx::query!(
        r#"-- history: the lots of a vehicle
        select
          l.lot_external_id as "lot!", l.source as "source!", l.status, l.currency_code::text as currency, l.title_state,
          l.auction_datetime_utc, l.current_bid_usd::float8 as bid, l.odometer::float8 as odometer, l.odometer_unit,
          l.damage_description as damage, l.carried_columns as carried,
          coalesce(s.last_seen, l.seen_window) as last_seen,
          coalesce(s.in_feed, false) as "in_feed!"
        from public.lots l
        left join raw.lot_sightings s on s.source = l.source and s.lot = l.lot_external_id::bigint
        where l.vin = $1 and l.lot_external_id is not null and l.source is not null"#,
        vin
    )
    .fetch_all(&mut *connection)
    .await
    .context("read the lots of the vehicle")?;
    let mut listings = Vec::with_capacity(lots.len());
    for lot in lots {
        let places = versions::places(connection, &lot.source, &lot.lot).await?;
        let first_seen = versions::oldest(connection, &lot.source, &places).await?;
        let last_seen = match lot.last_seen {
            Some(known) => Some(versions::newest(connection, &lot.source, &places, known).await?),
            None => None,
        };
        let setting = Setting { currency: lot.currency, title_state: lot.title_state };
        let tell = |column: &str, value: Value| told::tell(column, value, &setting, spellings);
        let mut carried = carried::values(lot.carried.as_deref(), None);
        carried.retain(|name| LISTED.contains(name));
        listings.push(Listing {
            carried,
            status: tell("status", lot.status.into()),
            first_seen,
            last_seen,
            in_feed: lot.in_feed,
            auction_datetime_utc: lot.auction_datetime_utc,
            current_bid: tell("current_bid_usd", lot.bid.into()),
            odometer: tell("odometer", lot.odometer.into()),
            odometer_unit: lot.odometer_unit,
            damage: tell("damage_description", lot.damage.into()),
            lot: lot.lot,
            source: lot.source,
        });
    }
    listings.sort_by(|a, b| {
        let key = |l: &Listing| (l.first_seen, l.lot.len());
        (key(a), &a.lot, &a.source).cmp(&(key(b), &b.lot, &b.source))
    });
    Ok(listings)
}

impl LotHistory {
    /// Every word in it, to be given its label.
    pub fn words(&mut self) -> impl Iterator<Item = &mut Word> {
        let changes = self.events.iter_mut().flat_map(|event| &mut event.changes);
        let changed = changes.flat_map(|change| [&mut change.before, &mut change.after]);
        let listed = self.listings.iter_mut().flat_map(|listing| [&mut listing.status, &mut listing.damage]);
        changed.chain(listed).chain([&mut self.status]).filter_map(Told::word_mut)
    }
}
