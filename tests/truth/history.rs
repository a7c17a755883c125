//! A lot's history against the simulator's record of its changes. If files are received in any order, against the
//! definition of the greatest version, in [`crate::order`].

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use vinops::db::history::display::DisplayValue;
use vinops::db::history::{self, ChangeSubject, FeedPresence, HistoricalLot, LotHistory};
use vinops::simulator::{ExpectedLot, FieldText, SimulatedChange, Simulator, SimulatorOptions};
use vinops::taxonomy::{AliasIndex, TaxonomyDomain};

async fn read_history(connection: &mut PgConnection, lot: u32) -> LotHistory {
    let history = history::lot_history(connection, None, &lot.to_string(), AliasIndex::built_in()).await.unwrap();
    history.unwrap_or_else(|| panic!("lot {lot} has no history"))
}

async fn read_lot_at(connection: &mut PgConnection, lot: u32, time: DateTime<Utc>) -> HistoricalLot {
    let stood = history::lot_at(connection, None, &lot.to_string(), time, AliasIndex::built_in()).await.unwrap();
    stood.unwrap_or_else(|| panic!("lot {lot} never was"))
}

/// Returns a value of the history in the simulator's form. A value that has only a code stays a code.
fn to_fact(value: &DisplayValue) -> FieldText {
    match value {
        DisplayValue::Nothing => None,
        DisplayValue::Word(word) => word.raw.clone().or(word.code.clone()),
        DisplayValue::Money(money) => Some(money.amount.clone()),
        other => Some(other.to_text()),
    }
}

/// Returns the simulator's name of a column. An unknown column keeps its name, so the comparison shows it.
fn known_column(column: &str) -> &'static str {
    column.to_owned().leak()
}

/// Returns a change of the simulator in the form of the history.
fn to_codes(change: &SimulatedChange) -> SimulatedChange {
    let domain = match change.column {
        "has_keys_code" => TaxonomyDomain::HasKeys,
        "lot_condition_code" => TaxonomyDomain::LotConditions,
        _ => return change.clone(),
    };
    let code =
        |raw: &FieldText| raw.as_deref().map(|raw| AliasIndex::built_in().find_code(domain, raw).unwrap().to_owned());
    SimulatedChange { before: code(&change.before), after: code(&change.after), ..change.clone() }
}

#[tokio::test]
async fn a_lots_history_is_what_the_simulator_changed_and_its_lot_then_is_the_simulators() {
    let options = SimulatorOptions {
        gone: 0.02,
        churn: 0.1,
        ..SimulatorOptions::new(41, 2000, parse_time("2026-11-20T14:00:00Z"))
    };
    let windows = [0, 1, 8, 9, 16];
    let mut pipeline = Pipeline::new().await;
    let mut simulator = Simulator::new(options.clone());
    let mut changed: HashMap<u32, Vec<SimulatedChange>> = HashMap::new();
    let mut then: Vec<(DateTime<Utc>, HashMap<u32, ExpectedLot>)> = Vec::new();
    for k in windows {
        let mut bytes = Vec::new();
        simulator.write_window(k, &mut bytes).unwrap();
        pipeline.run_chain(&bytes, options.window_start(k)).await;
        for change in simulator.expected_state().changes() {
            changed.entry(change.lot).or_default().push(to_codes(change));
        }
        then.push((options.window_start(k), simulator.expected_state().lots().map(|lot| (lot.lot, lot)).collect()));
    }
    let (mut columns, mut listed, mut presences) = (HashMap::new(), 0, HashMap::new());
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let now = &then.last().unwrap().1;
    for lot in now.values().filter(|lot| lot.skip.is_none()) {
        let history = read_history(&mut connection, lot.lot).await;
        let name = format!("lot {}", lot.lot);
        assert_eq!(Some(&history.vin), lot.vin.as_ref(), "{name}");
        assert_eq!((history.first_seen, history.last_seen), (Some(lot.first_seen), Some(lot.last_seen)), "{name}");
        assert_eq!(history.in_feed, lot.in_feed, "{name}");

        let mut said: Vec<SimulatedChange> = Vec::new();
        for event in history.events.iter().filter(|event| event.what != ChangeSubject::Vehicle) {
            for change in &event.changes {
                said.push(SimulatedChange {
                    lot: lot.lot,
                    window: event.window_start_utc,
                    column: known_column(&change.column),
                    before: to_fact(&change.before),
                    after: to_fact(&change.after),
                });
            }
        }
        let mut made = changed.remove(&lot.lot).unwrap_or_default();
        for all in [&mut said, &mut made] {
            all.sort_by_key(|change| (change.window, change.column == "status", change.column));
        }
        assert_eq!(said, made, "{name}");
        for change in made {
            *columns.entry(change.column).or_insert(0) += 1;
        }

        let mut lots: Vec<&ExpectedLot> = now.values().filter(|other| other.vin == lot.vin).collect();
        lots.sort_by_key(|other| (other.first_seen, other.lot));
        let listings: Vec<&str> = history.listings.iter().map(|listing| listing.lot.as_str()).collect();
        assert_eq!(listings, lots.iter().map(|other| other.lot.to_string()).collect::<Vec<_>>(), "{name}");
        listed += usize::from(lots.len() > 1);

        for (window, lots) in &then {
            let stood = read_lot_at(&mut connection, lot.lot, *window + Duration::minutes(7)).await;
            *presences.entry(stood.presence as u8).or_insert(0) += 1;
            compare_lot(&stood, lots.get(&lot.lot), &format!("{name} at {window}"));
        }
        let before = read_lot_at(&mut connection, lot.lot, then[0].0 - Duration::seconds(1)).await;
        assert_eq!((before.presence, before.window_start_utc), (FeedPresence::NotYetSeen, None), "{name}");
    }
    assert!(changed.is_empty(), "changes of lots that are not told: {:?}", changed.keys());
    println!("{columns:?} {presences:?}, {listed} lots of vehicles with several");
    for column in [
        "current_bid_usd",
        "auction_datetime_utc",
        "status",
        "odometer",
        "title_type",
        "site_code",
        "has_keys_code",
        "special_note",
    ] {
        assert!(columns.contains_key(column), "nothing changed {column}: {columns:?}");
    }
    assert!(presences.len() == 3 && listed > 4);
}

fn compare_lot(stood: &HistoricalLot, truth: Option<&ExpectedLot>, name: &str) {
    let Some(truth) = truth else {
        assert_eq!(stood.presence, FeedPresence::NotYetSeen, "{name}");
        assert!(stood.standing.is_none() && stood.status.is_none(), "{name}");
        return;
    };
    assert_eq!(stood.presence, if truth.in_feed { FeedPresence::InFeed } else { FeedPresence::Gone }, "{name}");
    assert_eq!(stood.first_seen, Some(truth.first_seen), "{name}");
    assert_eq!(stood.status.as_ref().and_then(to_fact).as_deref(), truth.status.map(|s| s.as_str()), "{name}");
    let lot = stood.standing.as_ref().unwrap();
    assert_eq!(lot.vin, truth.vin, "{name}");
    assert_eq!(lot.auction_datetime_utc, truth.auction, "{name}");
    assert_eq!(lot.auction_local.map(|local| local.to_utc()), truth.auction, "{name}");
    assert_eq!(lot.currency_code.as_deref(), Some(truth.currency), "{name}");
    let bid = lot.current_bid.as_ref().map(|money| money.amount.clone());
    assert_eq!(bid, truth.bid.map(|bid| format!("{bid}.00")), "{name}");
    assert_eq!(lot.odometer, truth.odometer.map(|distance| format!("{distance}.0")), "{name}");
    let unit = if truth.currency == "CAD" { "km" } else { "mi" };
    assert_eq!(lot.odometer_unit.as_deref(), truth.odometer.map(|_| unit), "{name}");
    assert_eq!(lot.year, truth.year.map(i32::from), "{name}");
    assert_eq!(lot.make.as_deref(), Some(truth.make), "{name}");
    assert_eq!(lot.model.as_deref(), Some(truth.model.trim()), "{name}");
    assert_eq!(lot.has_keys, truth.has_keys, "{name}");
    let damage = lot.damage.as_ref().unwrap();
    assert_eq!(
        (damage.raw.as_deref(), damage.code.as_deref()),
        (Some(truth.damage), Some(truth.damage_code)),
        "{name}"
    );
    assert_eq!(lot.sale_type.as_ref().and_then(|word| word.raw.as_deref()), Some(truth.sale_type), "{name}");
    assert_eq!(lot.special_note.as_deref(), truth.special_note.map(str::trim), "{name}");
    assert_eq!(lot.source_updated_at, Some(truth.source_updated_at), "{name}");
    assert_eq!(lot.site_code, Some(truth.yard.to_string()), "{name}");
    assert_eq!(lot.yard_name.as_deref(), Some(truth.yard_name), "{name}");
}

#[tokio::test]
async fn where_a_window_came_late_the_history_tells_what_was_applied_and_the_past_what_the_files_say() {
    let mut pipeline = Pipeline::new().await;
    let quarter = |n: i64| parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n);
    let file = |damage: &str, updated: u32| {
        let rows = (10..20).map(|n| {
            let (damage, updated) = if n == 10 { (damage, updated) } else { ("SIDE", 9) };
            format!("{n},400{n},1HGCM82633A0040{n},{damage},2026-11-20T{updated:02}:00:00Z,{updated}\n")
        });
        let head = "Id,Lot number,VIN,Damage Description,Last Updated Time,Create Date/Time\n".to_owned();
        (head + &rows.collect::<String>()).into_bytes()
    };
    for (window, damage, updated) in [(0, "FRONT END", 10), (2, "HAIL", 11), (1, "BURN", 12), (3, "VANDALISM", 13)] {
        pipeline.run_chain(&file(damage, updated), quarter(window)).await;
    }
    // the same bytes again change nothing
    assert!(pipeline.run_chain(&file("VANDALISM", 13), quarter(4)).await.receipt.duplicate);
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let events = read_history(&mut connection, 40_010).await.events;
    let changes: Vec<(DateTime<Utc>, FieldText, FieldText)> = events
        .iter()
        .map(|event| (event.window_start_utc, to_fact(&event.changes[0].before), to_fact(&event.changes[0].after)))
        .collect();
    let word = |word: &str| Some(word.to_owned());
    assert_eq!(
        changes,
        [
            (quarter(2), word("FRONT END"), word("HAIL")),
            (quarter(1), word("HAIL"), word("BURN")),
            (quarter(3), word("BURN"), word("VANDALISM")),
        ]
    );
    assert!(events.iter().all(|event| event.changes.len() == 1), "the code is told with its word: {events:?}");
    for (n, damage) in [(0, "FRONT END"), (1, "BURN"), (2, "BURN"), (3, "VANDALISM"), (4, "VANDALISM")] {
        let stood = read_lot_at(&mut connection, 40_010, quarter(n)).await;
        let standing = stood.standing.unwrap();
        assert_eq!((standing.damage.unwrap().raw, stood.presence), (word(damage), FeedPresence::InFeed), "window {n}");
    }
}

#[tokio::test]
async fn a_lots_versions_are_found_however_a_file_writes_its_number_and_calls_the_column() {
    let mut pipeline = Pipeline::new().await;
    let quarter = |n: i64| parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n);
    let aliases = [
        ("Lot number", "40000001 "),
        ("LOT NUMBER", "40000001"),
        ("LOT #", "0040000001"),
        ("lot_no", " 000000000040000001"),
    ];
    for (n, (name, number)) in aliases.iter().enumerate() {
        let file = format!(
            "Id,{name},VIN,Model Group,Last Updated Time,Create Date/Time\n\
             1,{number},1HGCM82633A004352,MODEL {n},2026-11-20T0{n}:00:00Z,{n}\n"
        );
        pipeline.run_chain(file.as_bytes(), quarter(n as i64)).await;
    }
    let mut connection = pipeline.pool().acquire().await.unwrap();
    let history = read_history(&mut connection, 40_000_001).await;
    assert_eq!((history.first_seen, history.last_seen), (Some(quarter(0)), Some(quarter(3))));
    for (n, spelling) in aliases.iter().enumerate() {
        let stood = read_lot_at(&mut connection, 40_000_001, quarter(n as i64)).await;
        let model = stood.standing.and_then(|standing| standing.model);
        assert_eq!((stood.presence, model), (FeedPresence::InFeed, Some(format!("MODEL {n}"))), "{:?}", spelling);
    }
}

#[tokio::test]
async fn the_last_sighting_is_the_newest_window_that_saw_the_lot_in_whatever_way() {
    let mut pipeline = Pipeline::new().await;
    let quarter = |n: i64| parse_time("2026-11-20T14:00:00Z") + Duration::minutes(15 * n);
    let file = |lots: std::ops::Range<u32>, clock: u32| {
        let row = |n| format!("{n},400{n},1HGCM82633A0040{n},2026-11-20T09:00:00Z,{clock}\n");
        let head = "Id,Lot number,VIN,Last Updated Time,Create Date/Time\n".to_owned();
        (head + &lots.map(row).collect::<String>()).into_bytes()
    };
    async fn seen(pipeline: &Pipeline) -> (Option<DateTime<Utc>>, bool, DateTime<Utc>) {
        let mut connection = pipeline.pool().acquire().await.unwrap();
        let history = read_history(&mut connection, 40_010).await;
        let view = "select last_seen from raw.lot_sightings where lot = 40010";
        (history.last_seen, history.in_feed, sqlx::query_scalar(view).fetch_one(pipeline.pool()).await.unwrap())
    }
    pipeline.run_chain(&file(10..20, 0), quarter(0)).await;
    assert_eq!(seen(&pipeline).await, (Some(quarter(0)), true, quarter(0)));
    // the same bytes again
    assert!(pipeline.run_chain(&file(10..20, 0), quarter(1)).await.receipt.duplicate);
    assert_eq!(seen(&pipeline).await, (Some(quarter(1)), true, quarter(1)));
    pipeline.run_chain(&file(10..20, 0), quarter(2)).await;
    assert_eq!(seen(&pipeline).await, (Some(quarter(2)), true, quarter(2)));
    // a file without the lot
    pipeline.run_chain(&file(11..20, 4), quarter(4)).await;
    assert_eq!(seen(&pipeline).await, (Some(quarter(2)), false, quarter(2)));
    // a late file with it
    pipeline.run_chain(&file(10..20, 3), quarter(3)).await;
    assert_eq!(seen(&pipeline).await.0, Some(quarter(3)));
    let mut connection = pipeline.pool().acquire().await.unwrap();
    for (n, presence) in
        [(1, FeedPresence::InFeed), (2, FeedPresence::InFeed), (3, FeedPresence::InFeed), (4, FeedPresence::Gone)]
    {
        let stood = read_lot_at(&mut connection, 40_010, quarter(n)).await;
        assert_eq!((stood.presence, stood.window_start_utc), (presence, Some(quarter(n))), "window {n}");
    }
}
