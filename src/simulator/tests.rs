//! Tests of the simulated feed, with the plain `csv` crate as an independent naive reader.

#![expect(clippy::disallowed_methods, reason = "a client of the tests' own, on loopback")]

use super::fault::{FeedFault, corrupt_file, guard_page};
use super::server::FeedServer;
use super::*;
use std::collections::{HashMap, HashSet};
use tokio_util::sync::CancellationToken;

fn start_time() -> DateTime<Utc> {
    "2026-10-30T17:30:00Z".parse().unwrap()
}

/// Returns options without inch signs, so that a strict reader can read the file.
fn strict_options(rows: usize) -> SimulatorOptions {
    SimulatorOptions { inch_quotes: false, ..SimulatorOptions::new(7, rows, start_time()) }
}

fn write_file(simulator: &mut Simulator, k: u32) -> (Vec<u8>, FileCounters) {
    let mut bytes = Vec::new();
    let counters = simulator.write_window(k, &mut bytes).unwrap();
    (bytes, counters)
}

type RowsByLot = HashMap<String, HashMap<String, String>>;

fn parse_rows(bytes: &[u8]) -> RowsByLot {
    let mut reader = csv::Reader::from_reader(bytes);
    let rows = reader.deserialize::<HashMap<String, String>>().map(Result::unwrap);
    rows.map(|row| (row["Lot number"].clone(), row)).collect()
}

#[test]
fn the_same_options_give_the_same_bytes_by_whatever_way() {
    let mut one = Simulator::new(SimulatorOptions::new(3, 800, start_time()));
    let mut other = Simulator::new(SimulatorOptions::new(3, 800, start_time()));
    let walked: Vec<Vec<u8>> = (0..5).map(|k| write_file(&mut one, k).0).collect();
    assert_eq!(write_file(&mut other, 4).0, walked[4]);
    assert_eq!(write_file(&mut other, 2).0, walked[2]);
    assert_ne!(walked[3], walked[4]);
    assert_ne!(write_file(&mut Simulator::new(SimulatorOptions::new(4, 800, start_time())), 0).0, walked[0]);
}

#[test]
fn the_columns_are_the_feeds_in_both_generations() {
    let mut simulator = Simulator::new(SimulatorOptions { wholesale_from: 1, ..strict_options(60) });
    let (old, new) = (write_file(&mut simulator, 0).0, write_file(&mut simulator, 1).0);
    let names = |bytes: &[u8]| csv::Reader::from_reader(bytes).headers().unwrap().clone();
    assert_eq!((names(&old).len(), &names(&old)[50], &names(&new)[50]), (59, "Copart Select", "Wholesale"));
    assert_eq!(&names(&old)[34], "High Bid =non-vix,Sealed=Vix");
    assert!(old.starts_with(b"\"Id\",\"Yard number\"") && old.ends_with(b"\"\n") && !old.contains(&b'\r'));
}

#[test]
fn the_counters_agree_with_a_naive_comparison_of_the_files() {
    let mut simulator = Simulator::new(strict_options(3000));
    let mut before: RowsByLot = HashMap::new();
    for k in [0, 1, 2, 3, 9, 10] {
        let (bytes, counters) = write_file(&mut simulator, k);
        let mut now = parse_rows(&bytes);
        for row in now.values_mut() {
            row.remove("Id");
            row.remove("Create Date/Time");
        }
        let both = now.iter().filter_map(|(lot, row)| before.get(lot).map(|old| old != row));
        let (changed, unchanged): (Vec<bool>, Vec<bool>) = both.partition(|differs| *differs);
        assert_eq!(counters.rows, now.len() as u64);
        assert_eq!(counters.changed, changed.len() as u64, "window {k}");
        assert_eq!(counters.unchanged, unchanged.len() as u64);
        assert_eq!(counters.new, counters.rows - counters.changed - counters.unchanged);
        assert_eq!(counters.gone, before.keys().filter(|lot| !now.contains_key(*lot)).count() as u64);
        assert_eq!(counters.vin_empty, now.values().filter(|row| row["VIN"].is_empty()).count() as u64);
        before = now;
    }
}

#[test]
fn the_feed_moves_at_the_rates_it_is_told_to() {
    let mut simulator = Simulator::new(SimulatorOptions::new(11, 8000, start_time()));
    write_file(&mut simulator, 0);
    for k in 1..=8 {
        let counters = write_file(&mut simulator, k).1;
        let share = |n: u64| n as f64 / counters.rows as f64;
        assert!((0.030..0.040).contains(&share(counters.changed)), "{counters:?}");
        assert!((0.003..0.008).contains(&share(counters.gone)), "{counters:?}");
        assert!((0.003..0.008).contains(&share(counters.new)), "{counters:?}");
        assert!((7950..8050).contains(&counters.rows), "{counters:?}");
    }
}

#[test]
fn what_is_true_of_a_lot_is_what_its_row_says() {
    let mut simulator = Simulator::new(strict_options(2000));
    write_file(&mut simulator, 0);
    let rows = parse_rows(&write_file(&mut simulator, 1).0);
    let mut unscheduled = 0;
    for lot in simulator.expected_state().lots().filter(|lot| lot.in_feed) {
        let row = &rows[&lot.lot.to_string()];
        assert_eq!((&row["VIN"], row["Make"].as_str()), (&lot.vin_raw, lot.make));
        let bare: String = row["VIN"].to_uppercase().chars().filter(|c| !"IOQ".contains(*c)).collect();
        let good = (11..=17).contains(&bare.len()) && bare.chars().all(|c| c.is_ascii_alphanumeric());
        assert_eq!(lot.vin, good.then_some(bare));
        assert_eq!((&row["Model Group"], row["Damage Description"].as_str()), (&lot.model, lot.damage));
        assert_eq!((row["Sale Status"].as_str(), row["Currency Code"].as_str()), (lot.sale_type, lot.currency));
        assert_eq!(row["Last Updated Time"], lot.source_updated_at.format("%FT%TZ").to_string());
        assert_eq!(row["Sale Date M/D/CY"] == "0", lot.auction.is_none());
        assert_eq!(row["High Bid =non-vix,Sealed=Vix"], format!("{}.0", lot.bid.unwrap_or(0)));
        assert_eq!(row["Special Note"].trim_end_matches(' '), lot.special_note.unwrap_or(""));
        let miles = lot.odometer.map(|n| format!("{n}.0"));
        assert!(miles.is_none_or(|miles| row["Odometer"] == miles));
        unscheduled += u64::from(lot.auction.is_none());
    }
    assert!((900..1200).contains(&unscheduled), "{unscheduled}");
}

#[test]
fn a_sale_is_in_local_time_and_its_zone_is_that_of_the_last_update() {
    // The clocks go back on 1 November 2026: rows updated before contain EDT, later sales are at UTC-5.
    let mut simulator = Simulator::new(strict_options(4000));
    let rows = parse_rows(&write_file(&mut simulator, 0).0);
    let mut seen = HashSet::new();
    for lot in simulator.expected_state().lots() {
        let row = &rows[&lot.lot.to_string()];
        seen.insert((row["Time Zone"].clone(), row["Location state"].clone()));
        let Some(auction) = lot.auction else { continue };
        let offset = match row["Time Zone"].as_str() {
            "EDT" if auction < "2026-11-01T06:00:00Z".parse::<DateTime<Utc>>().unwrap() => -4,
            "EDT" => -5,
            "AKST" if lot.yard_name == "ATLANTIC CANADA AUCTION" => -9,
            "ADDT" => -1,
            "PDT" if row["Location state"] == "AZ" => -7,
            "HST" => -10,
            _ => continue,
        };
        let local = auction + Duration::hours(offset);
        assert_eq!(row["Sale Date M/D/CY"], local.format("%Y%m%d").to_string());
        assert_eq!(row["Sale time (HHMM)"], local.format("%H%M").to_string().trim_start_matches('0'));
        assert_eq!(row["Day of Week"], local.format("%A").to_string().to_uppercase());
    }
    for (zone, state) in [("AKST", "NB"), ("ADDT", "AK"), ("PDT", "AZ"), ("HST", "HI"), ("CDT", "TX")] {
        assert!(seen.contains(&(zone.to_owned(), state.to_owned())), "{zone} {state}");
    }
}

#[test]
fn every_sale_time_can_be_read_back_on_the_nights_the_clocks_change() {
    use chrono::TimeZone;
    for begin in ["2026-10-31T00:00:00Z", "2026-03-07T00:00:00Z"] {
        for night in 0..10 {
            let start = begin.parse::<DateTime<Utc>>().unwrap() + Duration::hours(5 * night);
            let mut simulator = Simulator::new(SimulatorOptions { start, ..strict_options(300) });
            write_file(&mut simulator, 0);
            let rows = parse_rows(&write_file(&mut simulator, 3).0);
            for lot in simulator.expected_state().lots().filter(|lot| lot.in_feed && lot.auction.is_some()) {
                let row = &rows[&lot.lot.to_string()];
                let zone = match (row["Time Zone"].as_str(), row["Location state"].as_str()) {
                    (_, "AZ" | "AK" | "NB") => continue,
                    // The same offsets as Alberta's on these days: UTC-6 from November 2026 on.
                    (_, "AB") if begin.starts_with("2026-10") => chrono_tz::America::Regina,
                    ("EDT" | "EST", _) => chrono_tz::America::New_York,
                    ("CDT" | "CST", _) => chrono_tz::America::Chicago,
                    ("MDT" | "MST", _) => chrono_tz::America::Denver,
                    ("PDT" | "PST", _) => chrono_tz::America::Los_Angeles,
                    _ => chrono_tz::Pacific::Honolulu,
                };
                let text = format!("{}{:0>4}", row["Sale Date M/D/CY"], row["Sale time (HHMM)"]);
                let local = chrono::NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M").unwrap();
                assert_ne!(row["Sale time (HHMM)"], "0");
                assert_eq!(zone.from_local_datetime(&local).single().map(|at| at.to_utc()), lot.auction);
            }
        }
    }
}

#[test]
fn the_snapshots_clock_has_twelve_hours_and_no_half_of_the_day() {
    // 04:00 UTC is 21:00 PDT. The snapshot was taken at 20:55 and contains 08:55.
    let clock = csv_row::snapshot_clock("2025-10-15T04:00:00Z".parse().unwrap(), 795);
    assert_eq!(clock, "2025-10-14-08.55.06.000795");
    let noon = csv_row::snapshot_clock("2025-10-14T19:15:00Z".parse().unwrap(), 1);
    assert_eq!(noon, "2025-10-14-12.10.06.000001");
}

#[test]
fn every_oddity_of_a_vin_occurs_in_a_small_feed_too() {
    let mut simulator = Simulator::new(SimulatorOptions::new(5, 500, start_time()));
    let counters = write_file(&mut simulator, 0).1;
    assert!(counters.vin_empty >= 2 && counters.vin_format >= 2, "{counters:?}");
    assert!(counters.repaired > 0 && counters.newlines > 0, "{counters:?}");
    let truth = simulator.expected_state();
    let lots: Vec<ExpectedLot> = truth.lots().collect();
    let some = |f: &dyn Fn(&ExpectedLot) -> bool| lots.iter().any(f);
    assert!(some(&|lot| lot.vin_raw != lot.vin_raw.to_uppercase()));
    assert!(some(&|lot| lot.vin.as_ref().is_some_and(|vin| vin.len() == 16)));
    assert!(some(&|lot| lot.vin.as_ref().is_some_and(|vin| vin.len() < 14)));
    let vehicles = truth.vehicles();
    assert!(vehicles.iter().any(|v| v.lots > 1 && v.conflicts == 0), "listed twice");
    assert!(vehicles.iter().any(|v| v.conflicts > 0 && v.owner == v.vin), "a spoiled copy");
    assert!(vehicles.iter().any(|v| v.conflicts > 0 && v.owner != v.vin), "two spoiled copies");
    let distinct: HashSet<&String> = vehicles.iter().map(|v| &v.vin).collect();
    assert_eq!(distinct.len(), vehicles.len());
    for vin in distinct {
        assert!((11..=17).contains(&vin.len()) && !vin.contains(['I', 'O', 'Q', ' ', '-']), "{vin}");
    }
}

#[test]
fn lots_pass_through_every_state_within_a_dozen_windows() {
    let mut simulator = Simulator::new(SimulatorOptions::new(9, 2000, start_time()));
    let (mut pending, mut removed, mut revived, mut same, mut altered) = (0, 0, 0, 0, 0);
    for k in 0..24 {
        let counters = write_file(&mut simulator, k).1;
        pending += counters.pending_result;
        removed += counters.removed;
        revived += counters.revived;
        same += counters.returned_same;
        altered += counters.returned_changed;
    }
    assert!(pending > 10 && removed > 5 && revived > 0 && same > 0 && altered > 0);
    let statuses = simulator.expected_state().status_counts();
    assert_eq!(statuses.len(), 4, "{statuses:?}");
}

#[test]
fn a_broken_row_stands_beside_the_lots_and_is_counted() {
    let mut plain = Simulator::new(strict_options(600));
    let mut simulator = Simulator::new(SimulatorOptions { broken: 5, ..strict_options(600) });
    let (whole, _) = write_file(&mut plain, 0);
    let (bytes, counters) = write_file(&mut simulator, 0);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&bytes[..]);
    let wrong = reader.records().filter(|row| row.as_ref().unwrap().len() != 59).count();
    assert_eq!((wrong, counters.parse_errors, counters.rows), (5, 5, parse_rows(&whole).len() as u64));
}

#[test]
fn a_file_of_half_the_rows_moves_nothing_absent() {
    let mut simulator = Simulator::new(strict_options(400));
    write_file(&mut simulator, 0);
    simulator.advance_to(1);
    let counters = simulator.record_file(FileDelivery::First(200));
    assert_eq!((counters.rows, counters.pending_result + counters.removed), (200, 0));
    assert!(simulator.expected_state().lots().all(|lot| lot.absent_since.is_none()));
}

#[test]
fn a_spoiled_file_is_spoiled_as_told() {
    let mut simulator = Simulator::new(strict_options(300));
    let bytes = write_file(&mut simulator, 0).0;
    let spoiled = |fault| {
        let mut out = Vec::new();
        let hits = corrupt_file(&bytes[..], &mut out, fault).unwrap();
        (out, hits)
    };
    assert_eq!(guard_page().len(), 963);
    assert_eq!(spoiled(FeedFault::BrokenRows { per_mille: 100 }).1, 30);
    assert_eq!(parse_rows(&spoiled(FeedFault::FirstRows { rows: 150 }).0).len(), 150);
    assert_eq!(spoiled(FeedFault::Nuls { every: 100 }).0.iter().filter(|b| **b == 0).count(), 3);
    assert!(std::str::from_utf8(&spoiled(FeedFault::Latin1 { every: 7 }).0).is_err());
    let nameless = spoiled(FeedFault::NoLotNumber { every: 50 });
    assert_eq!((nameless.1, parse_rows(&nameless.0).len()), (6, 295), "six share the empty number");
    assert_eq!(spoiled(FeedFault::LongLine { bytes: 5000 }).0.len(), bytes.len() + 5001);
    assert_eq!(spoiled(FeedFault::Truncated { at: 999 }).0, bytes[..999]);
    assert!(!String::from_utf8(spoiled(FeedFault::WrongHeader).0).unwrap().contains("\"VIN\""));
    assert_eq!(spoiled(FeedFault::Windows).0[..7], *b"\xef\xbb\xbf\"Id\"");
    assert_eq!(parse_rows(&spoiled(FeedFault::Windows).0[3..]).len(), parse_rows(&bytes).len());
    assert!(spoiled(FeedFault::Empty).0.is_empty());
    assert_eq!(spoiled(FeedFault::Stale).0, bytes);
}

#[test]
#[ignore = "a measurement: 154,000 rows"]
fn a_file_of_the_real_size_has_the_real_weight() {
    let began = std::time::Instant::now();
    let mut simulator =
        Simulator::new(SimulatorOptions { broken: 5, ..SimulatorOptions::new(1, 153_991, start_time()) });
    println!("made in {:?}, {} bytes a lot", began.elapsed(), size_of::<SimulatedLot>());
    for k in 0..8 {
        let mut bytes = Vec::with_capacity(100 << 20);
        let began = std::time::Instant::now();
        let counters = simulator.write_window(k, &mut bytes).unwrap();
        let took = began.elapsed();
        let packed = if k % 4 == 0 { zstd::encode_all(&bytes[..], 3).unwrap().len() } else { 0 };
        let each = bytes.len() as f64 / counters.rows as f64;
        println!("window {k} in {took:?}: {each:.1} bytes a row, {packed} as zstd -3, {counters:?}");
    }
}

#[tokio::test]
async fn the_server_answers_like_the_real_one() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let stop = CancellationToken::new();
    let feed = FeedServer::start(Simulator::new(strict_options(200)), stop.clone()).await.unwrap();
    let client = reqwest::Client::new();
    let whole = client.get(feed.url()).send().await.unwrap();
    let header = |r: &reqwest::Response, name: &str| r.headers()[name].to_str().unwrap().to_owned();
    let etag = header(&whole, "etag");
    assert_eq!(whole.status(), 200);
    assert_eq!(header(&whole, "content-type"), "application/octet-stream");
    let length: usize = header(&whole, "content-length").parse().unwrap();
    let modified = start_time().timestamp() + 2;
    assert_eq!(etag, format!("\"{modified:x}-{length:x}\""));
    assert_eq!(header(&whole, "last-modified"), "Fri, 30 Oct 2026 17:30:02 GMT");
    let bytes = whole.bytes().await.unwrap();
    assert_eq!((bytes.len(), bytes.starts_with(b"\"Id\",")), (length, true));

    let known = client.get(feed.url()).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(known.status(), 304);
    let rest = |tag: String| client.get(feed.url()).header("range", "bytes=1000-").header("if-range", tag).send();
    let part = rest(etag.clone()).await.unwrap();
    assert_eq!(
        (part.status().as_u16(), header(&part, "content-range")),
        (206, format!("bytes 1000-{}/{length}", length - 1))
    );
    assert_eq!(part.bytes().await.unwrap(), bytes.slice(1000..));
    assert_eq!(rest("\"other\"".into()).await.unwrap().status(), 200);
    let beyond = client.get(feed.url()).header("range", format!("bytes={length}-")).send().await.unwrap();
    assert_eq!(beyond.status(), 416);

    feed.advance_to(1).await.unwrap();
    assert_eq!(client.get(feed.url()).header("if-none-match", &etag).send().await.unwrap().status(), 200);
    assert_eq!(feed.requests().iter().map(|hit| hit.status).collect::<Vec<_>>(), [200, 304, 206, 200, 416, 200]);
    stop.cancel();
}

#[tokio::test]
async fn the_server_misbehaves_as_told_and_as_often() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let stop = CancellationToken::new();
    let feed = FeedServer::start(Simulator::new(strict_options(200)), stop.clone()).await.unwrap();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = || client.get(feed.url()).send();
    feed.inject_fault(FeedFault::Forbidden, 1).unwrap();
    assert_eq!(get().await.unwrap().status(), 403);
    let whole = get().await.unwrap().bytes().await.unwrap();
    feed.inject_fault(FeedFault::RedirectLoop, 1).unwrap();
    assert_eq!(get().await.unwrap().status(), 302);
    feed.inject_fault(FeedFault::HtmlPage, 1).unwrap();
    assert!(get().await.unwrap().text().await.unwrap().starts_with("<html"));
    feed.inject_fault(FeedFault::Reset { at: 5000 }, 1).unwrap();
    let mut cut = get().await.unwrap();
    let mut received = 0;
    let error = loop {
        match cut.chunk().await {
            Ok(part) => received += part.expect("the body goes on").len(),
            Err(error) => break error,
        }
    };
    assert_eq!((received, error.is_body() || error.is_decode()), (5000, true));
    feed.inject_fault(FeedFault::Short { missing: 10 }, 1).unwrap();
    assert!(get().await.unwrap().bytes().await.is_err());
    feed.inject_fault(FeedFault::Drip { bytes: 50_000, every: std::time::Duration::from_millis(1) }, 1).unwrap();
    assert_eq!(get().await.unwrap().bytes().await.unwrap(), whole);
    feed.advance_to(1).await.unwrap();
    feed.inject_fault(FeedFault::Stale, 1).unwrap();
    let stale = get().await.unwrap();
    assert_eq!(stale.headers()["last-modified"], "Fri, 30 Oct 2026 17:45:03 GMT");
    assert_eq!(stale.bytes().await.unwrap(), whole);
    feed.advance_with_fault(2, FeedFault::FirstRows { rows: 100 }, FileDelivery::First(100)).await.unwrap();
    assert_eq!(parse_rows(&get().await.unwrap().bytes().await.unwrap()).len(), 100);
    feed.inject_fault(FeedFault::Empty, 1).unwrap();
    assert!(get().await.unwrap().bytes().await.unwrap().is_empty());
    stop.cancel();
}
