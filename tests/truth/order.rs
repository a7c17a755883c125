//! Any order of windows, with repeats, in full or by their changes, gives the same vehicles and lots.
//!
//! The files are small and hostile: half a dozen lots, three of which share a vehicle under three notations of its VIN,
//! three update times, one of another year, an empty one, and a few contents, one of which has an odometer that cannot
//! be read. So nearly every comparison is a tie. Lots appear and disappear (half of them with an auction long past, so
//! that they are closed as soon as they are absent), two files may share a window, a file may contain a lot twice, and
//! the windows cross a month's end.
//!
//! Equal digests alone would not suffice: all orders could be wrong in the same way. [`greatest`] computes the
//! contract's result over all sightings at once, and the stored values must be among its results (it leaves ties of the
//! hash open). The same is checked for each past window: the values of a lot at that time depend on the contents of the
//! files, not on when they were received.
//!
//! Long because the story, the files it makes and the rule for them are read together.

use crate::pipeline::{Pipeline, parse_time};
use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRng, TestRunner};
use std::collections::{BTreeMap, HashMap, HashSet};
use vinops::db::digest::DataDigest;

mod past_windows;

/// A row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct OrderRow {
    lot: u8,
    content: u8,
    updated: u8,
}

/// A file: its window and its rows.
#[derive(Clone, Debug)]
struct OrderFile {
    window: u8,
    rows: Vec<OrderRow>,
}

/// A story, and one order of it: when each file is received, and whether its ingest is full.
#[derive(Clone, Debug)]
struct OrderCase {
    files: Vec<OrderFile>,
    way: Vec<(usize, bool)>,
    /// All files are received before the worker starts, whose four slots then mix them up.
    at_once: bool,
}

/// The possible models of each lot.
type PossibleLots = BTreeMap<String, HashSet<String>>;
/// A vehicle's model, the lot of its values, and its odometer.
type VehicleValues = (String, u64, Option<u32>);
/// The possible values of each VIN.
type PossibleVehicles = BTreeMap<String, HashSet<VehicleValues>>;

const LOT_COUNT: u8 = 6;
/// A vehicle's VIN, and raw texts that are read as it.
const SHARED_VINS: [&str; 3] = ["1HGCM82633A004352", "1hgcm82633a0o04352", "1HGCM826I33A004352"];

impl OrderRow {
    /// Lots 0 to 2 share a vehicle. The content of lots 1 and 2 decides their notation of the VIN, lot 0 has the plain
    /// one.
    fn vin_raw(self) -> String {
        match self.lot {
            0 => SHARED_VINS[0].to_owned(),
            1 | 2 => SHARED_VINS[usize::from((self.content + self.lot) % 3)].to_owned(),
            // never complete: the least notation owns the vehicle
            3 | 4 => {
                format!("2HGFC2F59{}GH512345", ["I", "O", "Q"][usize::from((self.content + self.lot) % 3)])
            }
            n => format!("5YJ3E1EA7KF31700{n}"),
        }
    }

    fn owner(self) -> String {
        self.vin_raw().to_uppercase()
    }

    fn vin(self) -> String {
        self.owner().chars().filter(|c| !"IOQ".contains(*c)).collect()
    }

    fn number(self) -> u64 {
        40_000_000 + u64::from(self.lot)
    }

    fn model(self) -> String {
        format!("MODEL {}", self.content)
    }

    /// Returns the update time: an hour of a day, a time of another year, or none.
    fn updated_at(self) -> String {
        match self.updated {
            3 => "2062-10-01T00:00:00Z".to_owned(),
            4 if self.has_garbled_time() => "yesterday".to_owned(),
            4 => String::new(),
            hour => format!("2026-10-01T{hour:02}:00:00Z"),
        }
    }

    fn has_garbled_time(self) -> bool {
        self.lot == 5 && self.updated == 4
    }

    /// Returns the order key of a version whose first window is `first`.
    fn version_at(self, first: u8) -> DateTime<Utc> {
        match self.updated {
            3 | 4 => window_start(first),
            hour => parse_time("2026-10-01T00:00:00Z") + Duration::hours(i64::from(hour)),
        }
    }

    /// Returns the odometer. That of content 2 cannot be read.
    fn odometer(self) -> Option<u32> {
        (self.content != 2).then(|| 1_000 + u32::from(self.content))
    }
}

fn window_start(n: u8) -> DateTime<Utc> {
    parse_time("2026-10-31T23:15:00Z") + Duration::minutes(15 * i64::from(n))
}

/// Returns the file as text. `nth` makes files of equal rows different files.
fn file_bytes(file: &OrderFile, nth: usize) -> Vec<u8> {
    let mut text = String::from(
        "Id,Lot number,VIN,Model Group,Odometer,Last Updated Time,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Create Date/Time\n",
    );
    for (n, row) in file.rows.iter().enumerate() {
        let sale = if row.lot % 2 == 0 { "20261001,1000,EST" } else { "0,0," };
        text += &format!(
            "{},{},{},{},{},{},{sale},2026-10-31-00.00.00.{nth:06}\n",
            n + 1,
            row.number(),
            row.vin_raw(),
            row.model(),
            row.odometer().map_or_else(|| "1oo2".to_owned(), |miles| miles.to_string()),
            row.updated_at(),
        );
    }
    text.into_bytes()
}

/// Returns the versions in these files with their order keys, without the hash: the update time and the last window.
fn version_windows(files: &[OrderFile]) -> HashMap<OrderRow, (DateTime<Utc>, u8)> {
    let mut seen: HashMap<OrderRow, (u8, u8)> = HashMap::new();
    for file in files {
        for row in &file.rows {
            let (first, last) = seen.entry(*row).or_insert((file.window, file.window));
            (*first, *last) = ((*first).min(file.window), (*last).max(file.window));
        }
    }
    seen.into_iter().map(|(row, (first, last))| (row, (row.version_at(first), last))).collect()
}

/// Returns the possible odometers of a lot whose row has this model: its own, otherwise those of the greatest version
/// that has one.
fn possible_odometers(files: &[OrderFile], lot: &str, model: &str) -> HashSet<Option<u32>> {
    let of_lot: Vec<_> =
        version_windows(files).into_iter().filter(|(row, _)| row.number().to_string() == lot).collect();
    if model != "MODEL 2" {
        return of_lot.iter().filter(|(row, _)| row.model() == model).map(|(row, _)| row.odometer()).collect();
    }
    let known = || of_lot.iter().filter(|(row, _)| row.odometer().is_some());
    let Some(best) = known().map(|(_, key)| key).max() else { return HashSet::from([None]) };
    known().filter(|(_, key)| key == best).map(|(row, _)| row.odometer()).collect()
}

/// Returns the possible contents of each key: those of the greatest sightings, by all but the hash. A version's window
/// is its last.
fn expected_values(files: &[OrderFile]) -> (PossibleLots, PossibleVehicles) {
    type GreatestVersion = ((DateTime<Utc>, u8), HashSet<String>);
    let mut lots: BTreeMap<String, GreatestVersion> = BTreeMap::new();
    let versions = version_windows(files);
    for (row, (updated, seen)) in &versions {
        let (best, models) = lots.entry(row.number().to_string()).or_default();
        let key = (*updated, *seen);
        if models.is_empty() || key > *best {
            (*best, *models) = (key, HashSet::new());
        }
        if key == *best {
            models.insert(row.model());
        }
    }
    let vins: HashSet<String> = versions.keys().map(|row| row.vin()).collect();
    let vehicle = |vin: String| {
        let of_vin = versions.iter().filter(|(row, _)| row.vin() == vin);
        (vin.clone(), expected_vehicles(of_vin.map(|(row, key)| (*row, *key)).collect()))
    };
    (lots.into_iter().map(|(lot, (_, models))| (lot, models)).collect(), vins.into_iter().map(vehicle).collect())
}

/// Returns the possible values of a vehicle with these versions.
fn expected_vehicles(mut versions: Vec<(OrderRow, (DateTime<Utc>, u8))>) -> HashSet<VehicleValues> {
    // the owner: the vehicle's own text before any other, then the least. The others do not count.
    let owner = versions.iter().map(|(row, _)| (row.owner() != row.vin(), row.owner())).min();
    versions.retain(|(row, _)| Some((row.owner() != row.vin(), row.owner())) == owner);
    let key = |(row, (updated, seen)): &(OrderRow, (DateTime<Utc>, u8))| (*updated, row.lot, *seen);
    let best = versions.iter().map(key).max();
    let known = || versions.iter().filter(|(row, _)| row.odometer().is_some());
    let best_known = known().map(key).max();
    let miles: HashSet<_> =
        known().filter(|version| Some(key(version)) == best_known).map(|(row, _)| row.odometer()).collect();
    let of_winner = |(row, _): &(OrderRow, _)| {
        let miles = match row.odometer() {
            None if !miles.is_empty() => miles.clone(),
            own => HashSet::from([own]),
        };
        miles.into_iter().map(|miles| (row.model(), row.number(), miles)).collect::<Vec<_>>()
    };
    versions.iter().filter(|version| Some(key(version)) == best).flat_map(of_winner).collect()
}

fn order_cases() -> impl Strategy<Value = OrderCase> {
    let row = (0..LOT_COUNT, 0..3_u8, 0..5_u8).prop_map(|(lot, content, updated)| OrderRow { lot, content, updated });
    // mostly the row of the previous window stays: a new draw for each lot would leave little unchanged
    let file = (0..9_u8, prop::collection::vec(row, 1..6), any::<u16>());
    prop::collection::vec(file, 2..9).prop_flat_map(|mut drawn| {
        drawn.sort_by_key(|(window, ..)| *window);
        let mut files: Vec<OrderFile> = Vec::new();
        for (window, rows, keep) in drawn {
            let fresh: HashSet<u8> = rows.iter().map(|row| row.lot).collect();
            let before = files.last().map(|file| file.rows.clone()).unwrap_or_default();
            let stays = |row: &OrderRow| !fresh.contains(&row.lot) || keep.is_multiple_of(3);
            let mut all: Vec<OrderRow> = before
                .into_iter()
                .enumerate()
                .filter(|(n, row)| keep >> n & 3 != 0 && stays(row))
                .map(|(_, row)| row)
                .chain(rows.into_iter().take(if keep.is_multiple_of(5) { 1 } else { 3 }))
                .collect();
            // with more of them the file would be quarantined
            if all.iter().filter(|row| row.has_garbled_time()).count() * 2 > all.len() {
                all.iter_mut().filter(|row| row.has_garbled_time()).for_each(|row| row.updated = 2);
            }
            let mut shown = HashSet::new();
            all.retain(|row| shown.insert(*row));
            if keep & 0x400 != 0 {
                all.reverse();
            }
            files.push(OrderFile { window, rows: all });
        }
        let count = files.len();
        let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        let again = prop::collection::vec(0..count, 0..3);
        let full = prop::collection::vec(prop::bool::weighted(0.2), count + 3);
        (Just(files), order, again, full, prop::bool::weighted(0.2)).prop_map(
            |(files, mut way, again, full, at_once)| {
                way.extend(again);
                OrderCase { files, way: way.into_iter().zip(full).collect(), at_once }
            },
        )
    })
}

/// Processes the files in this order. Returns the digest and the pipeline.
async fn run_case(files: &[OrderFile], way: &[(usize, bool)], at_once: bool) -> (DataDigest, Pipeline) {
    let mut pipeline = Pipeline::without_worker().await;
    if !at_once {
        pipeline.start_worker();
    }
    let mut waiting = Vec::new();
    for (nth, full) in way {
        let (bytes, window) = (file_bytes(&files[*nth], *nth), window_start(files[*nth].window));
        if at_once {
            waiting.push(pipeline.receive_file(&bytes, window, *full).await);
        } else {
            pipeline.run_chain_with(&bytes, window, *full).await;
        }
    }
    if at_once {
        pipeline.start_worker();
        pipeline.follow_all(waiting.iter().filter(|receipt| !receipt.duplicate).map(|receipt| receipt.file_id)).await;
    }
    (pipeline.digest().await, pipeline)
}

async fn check_case(case: &OrderCase) -> Result<(), String> {
    let in_order: Vec<(usize, bool)> = (0..case.files.len()).map(|n| (n, false)).collect();
    let (lots, vehicles) = expected_values(&case.files);
    let (expected, pipeline) = run_case(&case.files, &in_order, false).await;
    compare_stored(&pipeline, &lots, &vehicles).await.map_err(|error| format!("in order: {error}"))?;
    past_windows::check_past_windows(&pipeline, &case.files).await.map_err(|error| format!("in order: {error}"))?;
    let (digest, pipeline) = run_case(&case.files, &case.way, case.at_once).await;
    compare_stored(&pipeline, &lots, &vehicles).await.map_err(|error| format!("this way: {error}"))?;
    past_windows::check_past_windows(&pipeline, &case.files).await.map_err(|error| format!("this way: {error}"))?;
    if digest == expected { Ok(()) } else { Err(format!("{digest:?} and in order {expected:?}")) }
}

async fn compare_stored(pipeline: &Pipeline, lots: &PossibleLots, vehicles: &PossibleVehicles) -> Result<(), String> {
    let stored: Vec<(String, String)> =
        sqlx::query_as("select l.lot_external_id, s.model from lots l cross join lateral (select model from staging.copart_raw s where s.lot_external_id = l.lot_external_id and s.row_hash = l.row_hash limit 1) s")
            .fetch_all(pipeline.pool())
            .await
            .unwrap();
    for (lot, model) in &stored {
        let may = lots.get(lot).ok_or_else(|| format!("lot {lot} never was"))?;
        if !may.contains(model) {
            return Err(format!("lot {lot} is {model}, not one of {may:?}"));
        }
    }
    let there: Vec<(String, String, i64, Option<i32>)> =
        sqlx::query_as("select vin, model, source_lot, odometer_value from vehicles")
            .fetch_all(pipeline.pool())
            .await
            .unwrap();
    for (vin, model, lot, miles) in &there {
        let may = vehicles.get(vin).ok_or_else(|| format!("vehicle {vin} never was"))?;
        if !may.contains(&(model.clone(), *lot as u64, miles.map(|miles| miles as u32))) {
            return Err(format!("vehicle {vin} is {model} of lot {lot} with {miles:?}, not one of {may:?}"));
        }
    }
    if (stored.len(), there.len()) != (lots.len(), vehicles.len()) {
        return Err(format!(
            "{} lots and {} vehicles, not {} and {}",
            stored.len(),
            there.len(),
            lots.len(),
            vehicles.len()
        ));
    }
    let (_, differences) = pipeline.compare_lots().await;
    if differences.is_empty() { Ok(()) } else { Err(format!("not what the versions say: {differences:?}")) }
}

/// `PROPTEST_CASES` sets the number of cases, by default 8. `PROPTEST_RNG_SEED` is their seed.
#[test]
fn any_order_of_windows_with_any_repeated_gives_the_same_vehicles_and_lots() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let set = Config::default();
    let cases_wanted = if set.cases == 256 { 8 } else { set.cases };
    let seed = if let RngSeed::Fixed(seed) = set.rng_seed { seed } else { 1 };
    let mut seed_bytes = [0; 32];
    seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
    let mut runner = TestRunner::new_with_rng(set, rng);
    for n in 0..cases_wanted {
        let mut tree = order_cases().new_tree(&mut runner).unwrap();
        let Err(mut error) = runtime.block_on(check_case(&tree.current())) else { continue };
        eprintln!("case {n}: {error}; looking for a smaller one");
        // the smallest story that still fails, within reason
        let mut worst = tree.current();
        for _ in 0..150 {
            if !tree.simplify() {
                break;
            }
            loop {
                match runtime.block_on(check_case(&tree.current())) {
                    Err(e) => {
                        (error, worst) = (e, tree.current());
                        break;
                    }
                    Ok(()) if tree.complicate() => {}
                    Ok(()) => break,
                }
            }
        }
        panic!("case {n}: {error}\n{worst:#?}");
    }
}

/// Returns a file of these (lot, content, update) rows.
fn order_file(window: u8, rows: &[(u8, u8, u8)]) -> OrderFile {
    let rows = rows.iter().map(|&(lot, content, updated)| OrderRow { lot, content, updated }).collect();
    OrderFile { window, rows }
}

/// Processes the files in the given order, by their changes and in full.
async fn check_order(files: Vec<OrderFile>, order: &[usize]) {
    for full in [false, true] {
        let way = order.iter().map(|&n| (n, full)).collect();
        check_case(&OrderCase { files: files.clone(), way, at_once: false }).await.unwrap();
    }
}

#[tokio::test]
async fn a_lot_that_stays_does_not_take_the_vehicle_from_a_greater_one_that_left() {
    // lot 1 has the plain notation of the shared VIN with content 2
    let files = vec![
        order_file(0, &[(0, 0, 1), (1, 2, 1), (5, 0, 0)]),
        order_file(1, &[(0, 0, 1), (5, 0, 0)]),
        order_file(2, &[(0, 0, 1), (5, 1, 1)]),
    ];
    check_order(files, &[2, 0, 1]).await;
}

#[tokio::test]
async fn of_two_files_of_a_window_the_lesser_row_wins_once_it_is_seen_again() {
    for (one, other) in [(0, 1), (1, 0)] {
        let files = vec![
            order_file(0, &[(5, one, 1), (3, 0, 0)]),
            order_file(0, &[(5, other, 1), (3, 0, 1)]),
            order_file(1, &[(5, other, 1), (3, 0, 2)]),
        ];
        check_order(files, &[2, 1, 0]).await;
    }
}

#[tokio::test]
async fn a_late_file_that_takes_the_head_of_a_lot_that_is_away_does_not_forget_until_when_another_was_seen() {
    let files = vec![
        order_file(0, &[(5, 0, 1), (3, 0, 0)]),
        order_file(3, &[(5, 2, 1), (3, 0, 0)]),
        order_file(5, &[(5, 0, 1), (3, 0, 0)]),
        order_file(6, &[(5, 1, 0), (3, 0, 0)]),
        order_file(8, &[(3, 0, 0)]),
    ];
    check_order(files, &[0, 2, 4, 3, 1]).await;
}

#[tokio::test]
async fn a_file_gives_back_its_own_rows_though_a_lot_stood_twice_in_the_months_first() {
    // window 3 begins November; of the two rows the one that is known comes first
    let files = vec![
        order_file(2, &[(5, 0, 1), (3, 0, 0)]),
        order_file(3, &[(5, 0, 1), (5, 1, 2), (3, 0, 0)]),
        order_file(5, &[(5, 1, 2), (3, 0, 0)]),
    ];
    let (_, pipeline) = run_case(&files, &[(0, false), (1, false), (2, false)], false).await;
    let models = "select string_agg(r.payload_jsonb ->> 'Model Group', ', ' order by f.window_start_utc, r.row_no)
        from raw.file_rows r join raw.csv_files f on f.file_id = r.file_id where r.payload_jsonb ->> 'Lot number' = '40000005'";
    assert_eq!(pipeline.query_text(models).await, "MODEL 0, MODEL 0, MODEL 1, MODEL 1");
}

#[tokio::test]
async fn of_two_rows_of_a_lot_in_one_file_the_lesser_wins_once_it_stands_alone() {
    // from one month into the next, and within one
    for (before, twice) in [(2, 3), (3, 4)] {
        for (one, other) in [(0, 1), (1, 0)] {
            let files = vec![
                order_file(before, &[(5, one, 1), (3, 0, 0)]),
                order_file(twice, &[(5, one, 1), (5, other, 1), (3, 0, 0)]),
                order_file(6, &[(5, other, 1), (3, 0, 0)]),
            ];
            check_order(files, &[0, 1, 2]).await;
        }
    }
}
