//! The values of a lot's row by database column, and the changes from one row to another.
//!
//! Values are texts as a reader must obtain them: trimmed, and none if the feed's value is empty or means "unknown".
//! Instants are RFC 3339, amounts have two digits after the decimal point and miles have one. Raw values are the feed's
//! own, since codes belong to the taxonomy.

use super::fleet::Vehicle;
use super::lot::{Lot, Sale, Values, instant};
use super::words::{BRANDS, CONDITIONS, KEYS, SALE_TYPES};
use super::write::{self, DAYS, Drawn};
use super::{Options, Status};
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};

/// A value as text.
pub type Fact = Option<String>;

/// A change of a known lot by a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The lot number.
    pub lot: u32,
    /// The file's window.
    pub window: DateTime<Utc>,
    /// The column's name in `lots`, including `status`.
    pub column: &'static str,
    /// The value before the file.
    pub before: Fact,
    /// The value in the file.
    pub after: Fact,
}

/// Appends the changes of a lot's columns: its current values against those of the last file that showed it.
pub(super) fn changes(options: &Options, index: u32, lot: &Lot, window: i32, into: &mut Vec<Change>) {
    let (before, after) = (facts(options, index, lot, &lot.seen), facts(options, index, lot, &lot.now));
    let both = before.into_iter().zip(after);
    into.extend(both.filter(|((_, before), (_, after))| before != after).map(
        |((column, before), (_, after))| Change {
            lot: lot.number,
            window: instant(window),
            column,
            before,
            after,
        },
    ));
}

/// Appends the change of a lot's status, if the status differs from `before`.
pub(super) fn moved(lot: &Lot, window: i32, before: Status, into: &mut Vec<Change>) {
    let after = lot.life.status;
    if before != after {
        let (before, after) = (Some(before.as_str().to_owned()), Some(after.as_str().to_owned()));
        into.push(Change { lot: lot.number, window: instant(window), column: "status", before, after });
    }
}

fn facts(options: &Options, index: u32, lot: &Lot, values: &Values) -> Vec<(&'static str, Fact)> {
    let seed = options.seed;
    let (vehicle, sale, yard): (Vehicle, Sale, _) = (lot.vehicle(seed), Sale::of(seed, index), values.yard());
    let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let number = |n: u64| Some(n.to_string());
    let cents = |cents: u64| Some(format!("{}.{:02}", cents / 100, cents % 100));
    let drawn = Drawn::of(&mut sale.dice.clone(), values, &vehicle);
    let at = (values.auction != 0).then(|| instant(values.auction));
    let local = at.map(|at| yard.clock.local(at));
    let condition = &CONDITIONS[usize::from(values.condition)];
    let mut grid = String::new();
    write::grid_row(seed, index, values.grid, &mut grid);
    vec![
        ("site_code", number(yard.number.into())),
        ("yard_name", text(yard.name)),
        ("city", text(yard.city)),
        ("region", text(yard.state)),
        ("location_zip", text(yard.zip)),
        ("tz", text(yard.clock.abbreviation(instant(values.updated)))),
        ("title_state", text(yard.state)),
        ("auction_datetime_utc", at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("sale_date_raw", local.map(|local| local.format("%Y%m%d").to_string())),
        (
            "sale_day_of_week",
            local.and_then(|local| text(DAYS[local.weekday().num_days_from_monday() as usize])),
        ),
        ("sale_time_hhmm", number(local.map_or(0, |local| u64::from(local.hour() * 100 + local.minute())))),
        ("item_number", number(values.item.into())),
        ("title_type", text(drawn.title)),
        ("has_keys_code", text(KEYS[usize::from(values.keys)].0)),
        ("lot_condition_code", text(condition.0)),
        ("runs_drives", text(condition.1)),
        ("odometer", values.reading(&sale, &vehicle).map(|odometer| format!("{odometer}.0"))),
        ("odometer_brand", text(BRANDS[usize::from(values.brand)].0)),
        ("repair_cost_usd", drawn.repair.and_then(cents)),
        ("sale_type", text(SALE_TYPES[usize::from(values.sale_type)].0)),
        ("current_bid_usd", (values.bid > 0).then_some(u64::from(values.bid) * 100).and_then(cents)),
        ("special_note", write::shown_note(options, index, values.note).and_then(text)),
        ("grid_row", text(&grid)),
        ("make_offer_eligible", text(if values.offer { "yes" } else { "no" })),
    ]
}
