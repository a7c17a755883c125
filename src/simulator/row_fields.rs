//! The values of a lot's row by database column, and the changes from one row to another.
//!
//! Values are texts as a reader must obtain them: trimmed, and none if the feed's value is empty or means "unknown".
//! Instants are RFC 3339, amounts have two digits after the decimal point and miles have one. Raw values are the feed's
//! own, since codes belong to the taxonomy.

use super::csv_row::{self, DAY_NAMES, DrawnFields};
use super::feed_values::{BRANDS, CONDITIONS, KEYS, SALE_TYPES};
use super::lot::{LotValues, SimulatedLot, SimulatedSale, from_minutes};
use super::vehicles::SimulatedVehicle;
use super::{LifecycleStatus, SimulatorOptions};
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

/// A value as text.
pub type FieldText = Option<String>;

/// A change of a known lot by a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedChange {
    /// The lot number.
    pub lot: u32,
    /// The file's window.
    pub window: DateTime<Utc>,
    /// The column's name in `lots`, including `status`.
    pub column: &'static str,
    /// The value before the file.
    pub before: FieldText,
    /// The value in the file.
    pub after: FieldText,
}

/// Appends the changes of a lot's columns: its current values against those of the last file that showed it.
pub(super) fn push_field_changes(
    options: &SimulatorOptions,
    index: u32,
    lot: &SimulatedLot,
    window: i32,
    into: &mut Vec<SimulatedChange>,
) {
    let (before, after) = (row_fields(options, index, lot, &lot.seen), row_fields(options, index, lot, &lot.now));
    let both = before.into_iter().zip(after);
    into.extend(both.filter(|((_, before), (_, after))| before != after).map(|((column, before), (_, after))| {
        SimulatedChange { lot: lot.number, window: from_minutes(window), column, before, after }
    }));
}

/// Appends the change of a lot's status, if the status differs from `before`.
pub(super) fn push_status_change(
    lot: &SimulatedLot,
    window: i32,
    before: LifecycleStatus,
    into: &mut Vec<SimulatedChange>,
) {
    let after = lot.life.status;
    if before != after {
        let (before, after) = (Some(before.as_str().to_owned()), Some(after.as_str().to_owned()));
        into.push(SimulatedChange { lot: lot.number, window: from_minutes(window), column: "status", before, after });
    }
}

fn row_fields(
    options: &SimulatorOptions,
    index: u32,
    lot: &SimulatedLot,
    values: &LotValues,
) -> Vec<(&'static str, FieldText)> {
    let seed = options.seed;
    let (vehicle, sale, yard): (SimulatedVehicle, SimulatedSale, _) =
        (lot.vehicle(seed), SimulatedSale::from_index(seed, index), values.yard());
    let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let number = |n: u64| Some(n.to_string());
    let cents = |cents: u64| Some(format!("{}.{:02}", cents / 100, cents % 100));
    let drawn = DrawnFields::draw(&mut sale.dice.clone(), values, &vehicle);
    let at = (values.auction != 0).then(|| from_minutes(values.auction));
    let local = at.map(|at| yard.clock.local_time(at));
    let condition = &CONDITIONS[usize::from(values.condition)];
    let mut grid = String::new();
    csv_row::push_grid_row(seed, index, values.grid, &mut grid);
    vec![
        ("site_code", number(yard.number.into())),
        ("yard_name", text(yard.name)),
        ("city", text(yard.city)),
        ("region", text(yard.state)),
        ("location_zip", text(yard.zip)),
        ("tz", text(yard.clock.abbreviation(from_minutes(values.updated)))),
        ("title_state", text(yard.state)),
        ("auction_datetime_utc", at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("sale_date_raw", local.map(|local| local.format("%Y%m%d").to_string())),
        ("sale_day_of_week", local.and_then(|local| text(DAY_NAMES[local.weekday().num_days_from_monday() as usize]))),
        ("sale_time_hhmm", number(local.map_or(0, |local| u64::from(local.hour() * 100 + local.minute())))),
        ("item_number", number(values.item.into())),
        ("title_type", text(drawn.title)),
        ("has_keys_code", text(KEYS[usize::from(values.keys)].0)),
        ("lot_condition_code", text(condition.0)),
        ("runs_drives", text(condition.1)),
        ("odometer", values.known_odometer(&sale, &vehicle).map(|odometer| format!("{odometer}.0"))),
        ("odometer_brand", text(BRANDS[usize::from(values.brand)].0)),
        ("repair_cost_usd", drawn.repair.and_then(cents)),
        ("sale_type", text(SALE_TYPES[usize::from(values.sale_type)].0)),
        ("current_bid_usd", (values.bid > 0).then_some(u64::from(values.bid) * 100).and_then(cents)),
        ("special_note", csv_row::special_note(options, index, values.note).and_then(text)),
        ("grid_row", text(&grid)),
        ("make_offer_eligible", text(if values.offer { "yes" } else { "no" })),
    ]
}
