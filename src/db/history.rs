//! History of a lot: the changes, the values at a given time, and the other listings of its vehicle.
//!
//! **Changes** come from the logs that the upserts and detect-completion write. Nothing is derived. Events are in the
//! order in which they were applied, so that each old value equals the new value of the event before. If windows came
//! late, that order differs from the order of windows, so an event contains both times.
//!
//! **Values at a time** ([`lot_at`]) come from the row versions, by the rule that `lots` itself follows. Of all
//! versions in files at or before that time, the greatest by (`version_at`, newest such file, hash) wins. An unreadable
//! value is replaced by that of an older version ([`crate::auction::fold`]) and is marked ([`carried_columns`]). The
//! result for the present equals the row in `lots`. For the past the result equals what `lots` would have contained,
//! had all files arrived in order. The presence of the lot in the feed comes from the manifests. The newest file that
//! decides is one that contains the lot, or a complete one that does not. The status comes from the log.
//!
//! **Cost**: some index look-ups per stored month, and one manifest (one megabyte per file) for the presence. More
//! manifests are read only if files came late or contain a lot twice, and rows differ that have the same update time.
//!
//! A version is found by the canonical lot number that ingest read, which is a column of `raw.rows`. So the form of the
//! number and the name of its column in a file make no difference. Eight bytes per version and 23 bytes of index (1.5 %
//! of a version's size) cost less than searching manifests for row ids. Closed lots have no lot head to start from.
//!
//! A lot is identified by its source and number. A call without a source fails if several sources have the number.
//!
//! Only views of the schemas raw and audit are read, so that `app_ro` has sufficient rights.
//!
//! This file is long because a lot, its changes and its vehicle's listings are one response, and its types are easier
//! to read beside the queries that fill them.
//!
//! Long because the types of the history are documented beside the queries that fill them.

use crate::taxonomy::AliasIndex;
use anyhow::Context;
use chrono::{DateTime, Utc};
use display::{DisplayValue, TaxonomyValue, ValueContext};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

pub mod carried_columns;
pub mod display;
mod snapshot;
mod version_order;
mod versions;
mod windows;

pub use snapshot::{FeedPresence, HistoricalLot, LotSnapshot, lot_at};

/// The whole history of a lot.
#[derive(Debug, Serialize)]
pub struct LotHistory {
    /// The lot number.
    pub lot: String,
    /// The name of the source.
    pub source: String,
    /// The VIN of the vehicle.
    pub vin: String,
    /// The present status.
    pub status: DisplayValue,
    /// The oldest window that contains the lot. None if that month is no longer in the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window that contains the lot, including windows of repeated and late files.
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot.
    pub in_feed: bool,
    /// Names of the values that come from an older version, as [`LotSnapshot`] names them.
    pub carried: Vec<&'static str>,
    /// The changes, in the order in which they were applied.
    pub events: Vec<LotEvent>,
    /// All lots of the vehicle including this one, the oldest first.
    pub listings: Vec<VehicleListing>,
}

/// The changes of a lot by one file.
#[derive(Debug, Serialize)]
pub struct LotEvent {
    /// The window of the file.
    pub window_start_utc: DateTime<Utc>,
    /// Time at which the change was applied.
    pub applied_at: DateTime<Utc>,
    /// The id of the file.
    pub file_id: Option<Uuid>,
    /// The changed object: the lot, its status, or the vehicle as this lot describes it.
    pub what: ChangeSubject,
    /// Reason of a change of status. None for other changes.
    pub reason: Option<String>,
    /// VIN of the changed vehicle. None if the vehicle did not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vin: Option<String>,
    /// The changed columns.
    pub changes: Vec<ColumnChange>,
}

/// The object that a change applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeSubject {
    /// The values of the vehicle.
    Vehicle,
    /// The values of the lot.
    Lot,
    /// The status of the lot.
    Status,
}

/// The change of one column.
#[derive(Debug, Serialize)]
pub struct ColumnChange {
    /// The column of `lots` or `vehicles`.
    pub column: String,
    /// The value before.
    pub before: DisplayValue,
    /// The value after.
    pub after: DisplayValue,
}

/// A lot of a vehicle, in the list of all lots of that vehicle.
#[derive(Debug, Serialize)]
pub struct VehicleListing {
    /// The lot number.
    pub lot: String,
    /// The name of the source.
    pub source: String,
    /// The present status.
    pub status: DisplayValue,
    /// The oldest window that contains the lot. None if that month is no longer in the database.
    pub first_seen: Option<DateTime<Utc>>,
    /// The newest window that contains the lot, including windows of repeated and late files.
    pub last_seen: Option<DateTime<Utc>>,
    /// True if the newest file contains the lot.
    pub in_feed: bool,
    /// Time of the sale, in the future or in the past.
    pub auction_datetime_utc: Option<DateTime<Utc>>,
    /// The last known bid.
    pub current_bid: DisplayValue,
    /// The last known odometer reading.
    pub odometer: DisplayValue,
    /// Unit of the odometer, `mi` or `km`.
    pub odometer_unit: Option<String>,
    /// The primary damage.
    pub damage: DisplayValue,
    /// Names of the values that come from an older version.
    pub carried: Vec<&'static str>,
}

/// Values of a [`VehicleListing`] that can come from an older version.
const LISTING_VALUES: [&str; 5] = ["auction_datetime_utc", "current_bid", "odometer", "odometer_unit", "damage"];

/// A lot number that several sources have.
#[derive(Debug, Error)]
#[error("lot {lot} is ambiguous: the sources {} have it", sources.join(", "))]
pub struct AmbiguousLot {
    /// The lot number.
    pub lot: String,
    /// Names of the sources that have the number.
    pub sources: Vec<String>,
}

/// The present row of a lot in `lots`.
#[derive(Debug)]
struct CurrentLot {
    source: String,
    vin: String,
    status: Option<String>,
    currency: Option<String>,
    title_state: Option<String>,
    carried: Option<Vec<String>>,
    vehicle_carried: Option<Vec<String>>,
}

/// Returns the lot with this number, or `None` if `lots` has no such lot.
///
/// # Errors
/// Returns [`AmbiguousLot`] if `source` is `None` and several sources have the number.
async fn find_lot(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
) -> anyhow::Result<Option<CurrentLot>> {
    let mut lots = sqlx::query_as!(
        CurrentLot,
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
    .context("could not read the lot")?;
    if lots.len() > 1 {
        let sources = lots.into_iter().map(|lot| lot.source).collect();
        return Err(AmbiguousLot { lot: lot.to_owned(), sources }.into());
    }
    Ok(lots.pop())
}

/// Returns the history of a lot, or `None` if `lots` has no such lot.
///
/// # Errors
/// Returns [`AmbiguousLot`] if `source` is `None` and several sources have the number.
pub async fn lot_history(
    connection: &mut PgConnection,
    source: Option<&str>,
    lot: &str,
    aliases: &AliasIndex,
) -> anyhow::Result<Option<LotHistory>> {
    let Some(known) = find_lot(connection, source, lot).await? else { return Ok(None) };
    let listings = vehicle_listings(connection, &known.vin, aliases).await?;
    let mut rows = sqlx::query_as!(
        ChangeLogRow,
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
    .context("could not read the changes of the lot")?;
    rows.extend(vehicle_changes(connection, (&known.source, lot), &known.vin, &rows).await?);
    let setting = ValueContext { currency: known.currency, title_state: known.title_state };
    let mine = listings.iter().find(|listing| listing.lot == lot && listing.source == known.source);
    Ok(Some(LotHistory {
        lot: lot.to_owned(),
        vin: known.vin,
        status: display::describe_value("status", known.status.into(), &setting, aliases),
        first_seen: mine.and_then(|listing| listing.first_seen),
        last_seen: mine.and_then(|listing| listing.last_seen),
        in_feed: mine.is_some_and(|listing| listing.in_feed),
        carried: carried_columns::value_names(known.carried.as_deref(), known.vehicle_carried.as_deref()),
        events: build_events(rows, setting, aliases),
        listings,
        source: known.source,
    }))
}

/// A row of the change log.
#[derive(Debug)]
struct ChangeLogRow {
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

impl ChangeLogRow {
    fn change_subject(&self) -> ChangeSubject {
        match self.what.as_str() {
            "vehicle" => ChangeSubject::Vehicle,
            "status" => ChangeSubject::Status,
            _ => ChangeSubject::Lot,
        }
    }
}

/// Returns the changes by this lot's rows of its vehicle, and of the vehicles that the lot had before.
async fn vehicle_changes(
    connection: &mut PgConnection,
    (source, lot): (&str, &str),
    vin: &str,
    changes: &[ChangeLogRow],
) -> anyhow::Result<Vec<ChangeLogRow>> {
    let others = changes.iter().filter_map(|change| change.changes.get("vin")?.get(0)?.as_str());
    let vins: Vec<String> = others.chain([vin]).map(str::to_owned).collect();
    sqlx::query_as!(
        ChangeLogRow,
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
    .context("could not read the changes of the vehicle")
}

/// Converts rows of the log to events, in the order in which they were applied.
///
/// The currency and the title state are known for the present. Going back in time, each change of them contains the
/// value before.
fn build_events(mut rows: Vec<ChangeLogRow>, mut setting: ValueContext, aliases: &AliasIndex) -> Vec<LotEvent> {
    rows.sort_by_key(|row| (row.applied_at, row.file_no, row.change_subject(), row.id));
    let mut events: Vec<LotEvent> = Vec::with_capacity(rows.len());
    for row in rows.into_iter().rev() {
        let what = row.change_subject();
        let Value::Object(logged) = row.changes else { continue };
        let was = |column: &str, now: &Option<String>| match logged.get(column) {
            Some(pair) => pair[0].as_str().map(str::to_owned),
            None => now.clone(),
        };
        let before = ValueContext {
            currency: was("currency_code", &setting.currency),
            title_state: was("title_state", &setting.title_state),
        };
        events.push(LotEvent {
            window_start_utc: row.window_start_utc,
            applied_at: row.applied_at,
            file_id: row.file_id,
            what,
            reason: row.reason,
            vin: row.vin,
            changes: describe_changes(&logged, &before, &setting, aliases),
        });
        setting = before;
    }
    events.reverse();
    events
}

fn describe_changes(
    logged: &Map<String, Value>,
    before: &ValueContext,
    after: &ValueContext,
    aliases: &AliasIndex,
) -> Vec<ColumnChange> {
    let shown = logged.iter().filter(|(column, _)| !logged.keys().any(|other| display::is_redundant(column, other)));
    shown
        .map(|(column, pair)| ColumnChange {
            column: column.clone(),
            before: display::describe_value(column, pair[0].clone(), before, aliases),
            after: display::describe_value(column, pair[1].clone(), after, aliases),
        })
        .collect()
}

/// Returns all lots of a vehicle, the oldest first.
pub async fn vehicle_listings(
    connection: &mut PgConnection,
    vin: &str,
    aliases: &AliasIndex,
) -> anyhow::Result<Vec<VehicleListing>> {
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
    .context("could not read the lots of the vehicle")?;
    let mut listings = Vec::with_capacity(lots.len());
    for lot in lots {
        let places = versions::find_versions(connection, &lot.source, &lot.lot).await?;
        let first_seen = versions::first_seen_window(connection, &lot.source, &places).await?;
        let last_seen = match lot.last_seen {
            Some(known) => Some(versions::last_seen_window(connection, &lot.source, &places, known).await?),
            None => None,
        };
        let setting = ValueContext { currency: lot.currency, title_state: lot.title_state };
        let tell = |column: &str, value: Value| display::describe_value(column, value, &setting, aliases);
        let mut carried = carried_columns::value_names(lot.carried.as_deref(), None);
        carried.retain(|name| LISTING_VALUES.contains(name));
        listings.push(VehicleListing {
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
        let key = |l: &VehicleListing| (l.first_seen, l.lot.len());
        (key(a), &a.lot, &a.source).cmp(&(key(b), &b.lot, &b.source))
    });
    Ok(listings)
}

impl LotHistory {
    /// Returns all taxonomy values of the history, so that the caller can set their labels.
    pub fn taxonomy_values(&mut self) -> impl Iterator<Item = &mut TaxonomyValue> {
        let changes = self.events.iter_mut().flat_map(|event| &mut event.changes);
        let changed = changes.flat_map(|change| [&mut change.before, &mut change.after]);
        let listed = self.listings.iter_mut().flat_map(|listing| [&mut listing.status, &mut listing.damage]);
        changed.chain(listed).chain([&mut self.status]).filter_map(DisplayValue::taxonomy_value_mut)
    }
}
