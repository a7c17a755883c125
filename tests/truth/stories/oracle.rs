//! The oracle of a story: the expected results of its files, by the rules as they are documented.
//!
//! It keeps every version of every lot with the windows that contained it, and computes the current values from all of
//! them each time. Statuses are moved file by file, since they depend on when a lot was judged. Nothing here calls the
//! product's rules.

use super::script::{StoryFile, StoryFileKind};
use chrono::{DateTime, Duration, Utc};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use vinops::simulator::LifecycleStatus;

/// A source and a lot number.
pub type LotId = (&'static str, u32);
/// Named values as text.
pub type NamedValues = Vec<(&'static str, Option<String>)>;

/// A value of a row, and whether the row's text of it can be read.
#[derive(Clone, Debug)]
pub struct ReadValue<T> {
    pub readable: bool,
    /// If it cannot be read: the value to use if no other version has one.
    pub value: T,
}

/// A row of a file with its expected values.
#[derive(Clone, Debug)]
pub struct ExpectedRow {
    pub lot: u32,
    /// Every cell except the position and the snapshot's clock. Equal texts are one version.
    pub text: String,
    pub vin_raw: String,
    /// The vehicle. `None` for a row that makes no lot.
    pub vin: Option<String>,
    /// The update time. `None` if it cannot be read.
    pub updated: Option<DateTime<Utc>>,
    /// The auction, the yard's number and its name.
    pub sale: ReadValue<(Option<DateTime<Utc>>, String, String)>,
    pub odometer: ReadValue<Option<u32>>,
    pub bid: ReadValue<Option<u32>>,
    pub year: ReadValue<Option<u16>>,
    /// Values of the lot that can be read in every row.
    pub lot_facts: NamedValues,
    /// Values of the vehicle that can be read in every row.
    pub vehicle_facts: NamedValues,
    /// Picture links by variant.
    pub pictures: NamedValues,
}

/// A version of a lot.
struct ExpectedVersion {
    row: ExpectedRow,
    vin: String,
    windows: BTreeSet<DateTime<Utc>>,
}

/// The status of a lot after the files so far.
#[derive(Default)]
struct LotLife {
    status: LifecycleStatus,
    /// The first complete file's window without the lot. `None` while the lot is present.
    absent_since: Option<DateTime<Utc>>,
    /// The number of complete files without the lot. A repeated file does not count.
    absences: u32,
}

/// The files of a source so far.
#[derive(Default)]
struct SourceRecord {
    /// The number of the newest file that was applied.
    newest: Option<usize>,
    /// The number and rows of complete files.
    complete: Vec<(usize, usize)>,
    /// The number, window and rows of files that were only too small, since the last complete one.
    small: Vec<(usize, DateTime<Utc>, usize)>,
}

/// The expected state of the database.
#[derive(Default)]
pub struct StoryOracle {
    versions: HashMap<LotId, Vec<ExpectedVersion>>,
    lives: BTreeMap<LotId, LotLife>,
    feeds: HashMap<&'static str, SourceRecord>,
}

impl ExpectedVersion {
    /// Returns the order key: the update time, or the start of the first window if the update time cannot be right.
    fn version_at(&self) -> DateTime<Utc> {
        let first = self.windows.first().copied().unwrap_or_default();
        let limit = first + Duration::minutes(15) + Duration::days(1);
        self.row.updated.filter(|updated| *updated <= limit).unwrap_or(first)
    }

    fn rank(&self) -> (DateTime<Utc>, Option<DateTime<Utc>>) {
        (self.version_at(), self.windows.last().copied())
    }
}

/// Returns the value of the greatest version in which it can be read. `versions` begin with the greatest.
fn fold_value<T>(versions: &[&ExpectedVersion], reading: impl Fn(&ExpectedRow) -> &ReadValue<T>) -> T
where
    T: Clone,
{
    let readings = || versions.iter().map(|version| reading(&version.row));
    let known = readings().find(|reading| reading.readable).or_else(|| readings().next());
    known.expect("a lot has a version").value.clone()
}

fn optional_text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// Formats an instant as the database's query does.
fn format_time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

impl StoryOracle {
    /// Applies a file, the newest one of its source. Returns the state of its window.
    pub fn apply_file(&mut self, file: &StoryFile) -> &'static str {
        if file.kind == StoryFileKind::Refused {
            return "quarantined";
        }
        for row in &file.rows {
            let Some(vin) = row.vin.clone() else { continue };
            let versions = self.versions.entry((file.source, row.lot)).or_default();
            match versions.iter_mut().find(|version| version.row.text == row.text) {
                Some(version) => {
                    version.windows.insert(file.window);
                }
                None => {
                    versions.push(ExpectedVersion { row: row.clone(), vin, windows: BTreeSet::from([file.window]) });
                }
            }
        }
        let feed = self.feeds.entry(file.source).or_default();
        let unchanged = feed.newest == Some(file.number);
        feed.newest = Some(file.number);
        if unchanged {
            self.close_past_auctions(file, true);
            return "unchanged";
        }
        let complete = feed.is_complete(file);
        self.mark_present(file);
        if complete {
            self.mark_absent(file);
        }
        self.close_past_auctions(file, complete);
        if complete { "applied" } else { "incomplete" }
    }

    /// Marks the lots of a file as present. Nothing else is known of lots in rows that cannot be read.
    fn mark_present(&mut self, file: &StoryFile) {
        for row in file.rows.iter().filter(|row| row.vin.is_some()) {
            let auction = self.auction_time((file.source, row.lot));
            let ahead = auction.is_some_and(|auction| auction > file.window);
            let status = if ahead { LifecycleStatus::Scheduled } else { LifecycleStatus::Active };
            self.lives.insert((file.source, row.lot), LotLife { status, ..LotLife::default() });
        }
        for lot in &file.torn {
            let key = (file.source, *lot);
            let ahead = self.auction_time(key).is_some_and(|auction| auction > file.window);
            if let Some(life) = self.lives.get_mut(&key) {
                (life.absent_since, life.absences) = (None, 0);
                if life.status.is_closed() {
                    life.status = if ahead { LifecycleStatus::Scheduled } else { LifecycleStatus::Active };
                }
            }
        }
    }

    /// Marks the lots that a complete file lacks as absent, and removes them at the third such file.
    fn mark_absent(&mut self, file: &StoryFile) {
        let shown: HashSet<u32> = file.rows.iter().map(|row| row.lot).chain(file.torn.iter().copied()).collect();
        let lots: Vec<LotId> = self.lives.keys().copied().filter(|key| key.0 == file.source).collect();
        for key in lots.into_iter().filter(|key| !shown.contains(&key.1)) {
            let auction = self.auction_time(key);
            let Some(life) = self.lives.get_mut(&key) else { continue };
            let since = *life.absent_since.get_or_insert(file.window);
            life.absences += u32::from(!file.again);
            let over = auction.is_some_and(|auction| auction + Duration::hours(2) <= file.window);
            let far = auction.is_none_or(|auction| auction > since + Duration::hours(24));
            if !life.status.is_closed() && !over && life.absences >= 3 && far {
                life.status = LifecycleStatus::Removed;
            }
        }
    }

    /// Moves the statuses that the clock decides: a sale begins, and with `absent` the auction of an absent lot is two
    /// hours past.
    fn close_past_auctions(&mut self, file: &StoryFile, absent: bool) {
        let lots: Vec<LotId> = self.lives.keys().copied().filter(|key| key.0 == file.source).collect();
        for key in lots {
            let Some(auction) = self.auction_time(key) else { continue };
            let Some(life) = self.lives.get_mut(&key) else { continue };
            if life.status.is_closed() {
                continue;
            }
            if absent && life.absent_since.is_some() && auction + Duration::hours(2) <= file.window {
                life.status = LifecycleStatus::PendingResult;
            } else if life.status == LifecycleStatus::Scheduled && auction <= file.window {
                life.status = LifecycleStatus::Active;
            }
        }
    }

    fn auction_time(&self, key: LotId) -> Option<DateTime<Utc>> {
        let versions = self.ranked_versions(key);
        if versions.is_empty() { None } else { fold_value(&versions, |row| &row.sale).0 }
    }

    /// Returns the versions of a lot, the greatest first.
    fn ranked_versions(&self, key: LotId) -> Vec<&ExpectedVersion> {
        let mut versions: Vec<&ExpectedVersion> = self.versions.get(&key).into_iter().flatten().collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.rank()));
        versions
    }

    /// Returns the expected values of each lot.
    pub fn lots(&self) -> BTreeMap<String, NamedValues> {
        let lots = self.versions.keys().map(|&key| {
            let versions = self.ranked_versions(key);
            let greatest = versions[0];
            let (auction, yard, yard_name) = fold_value(&versions, |row| &row.sale);
            let links = greatest
                .row
                .pictures
                .iter()
                .filter_map(|(variant, url)| url.as_ref().map(|url| format!("{variant} {url} {}", greatest.vin)));
            let links: Vec<String> = links.collect();
            let mut facts = vec![
                ("vin", Some(greatest.vin.clone())),
                ("source_updated_at", greatest.row.updated.map(format_time)),
                ("version_at", Some(format_time(greatest.version_at()))),
                ("auction_datetime_utc", auction.map(format_time)),
                ("site_code", Some(yard)),
                ("yard_name", Some(yard_name)),
                ("odometer", optional_text(fold_value(&versions, |row| &row.odometer))),
                ("current_bid_usd", optional_text(fold_value(&versions, |row| &row.bid))),
                ("pictures", (!links.is_empty()).then(|| links.join(", "))),
                ("status", self.lives.get(&key).map(|life| life.status.as_str().to_owned())),
            ];
            facts.extend(greatest.row.lot_facts.iter().cloned());
            (format!("lot {}/{}", key.0, key.1), facts)
        });
        lots.collect()
    }

    /// Returns the expected values of each vehicle. Of all versions with its VIN, those count whose raw VIN owns it.
    pub fn vehicles(&self) -> BTreeMap<String, NamedValues> {
        let mut of_vin: BTreeMap<&str, Vec<(LotId, &ExpectedVersion)>> = BTreeMap::new();
        for (&key, versions) in &self.versions {
            for version in versions {
                of_vin.entry(&version.vin).or_default().push((key, version));
            }
        }
        let raw = |version: &ExpectedVersion| version.row.vin_raw.to_uppercase();
        let vehicles = of_vin.into_iter().map(|(vin, mut all)| {
            // the VIN itself before any other notation, then the least
            let owner = all.iter().map(|(_, version)| raw(version)).min_by_key(|raw| (raw != vin, raw.clone()));
            all.retain(|(_, version)| Some(raw(version)) == owner);
            all.sort_by_key(|(key, version)| {
                let (at, last) = version.rank();
                std::cmp::Reverse((at, *key, last))
            });
            let versions: Vec<&ExpectedVersion> = all.iter().map(|(_, version)| *version).collect();
            let mut facts = vec![
                ("owner", owner),
                ("source", Some(all[0].0.0.to_owned())),
                ("source_lot", Some(all[0].0.1.to_string())),
                ("year", optional_text(fold_value(&versions, |row| &row.year))),
                ("odometer_value", optional_text(fold_value(&versions, |row| &row.odometer))),
            ];
            facts.extend(versions[0].row.vehicle_facts.iter().cloned());
            (format!("vehicle {vin}"), facts)
        });
        vehicles.collect()
    }
}

impl SourceRecord {
    /// Returns true if a file has the usual size: 70 % of the median of the last three complete ones. A size that has
    /// stayed small for 24 hours becomes the usual one.
    fn is_complete(&mut self, file: &StoryFile) -> bool {
        let rows = file.rows.len();
        let sizes = self.complete.iter().filter(|(number, _)| *number != file.number).map(|(_, rows)| *rows);
        let small: Vec<_> = self.small.iter().filter(|(number, ..)| *number != file.number).copied().collect();
        if has_usual_size(rows, sizes.collect()) {
            if !file.again {
                self.complete.push((file.number, rows));
                self.small.clear();
            }
            return true;
        }
        let long = small.first().is_some_and(|(_, since, _)| file.window - *since >= Duration::hours(24));
        if long && has_usual_size(rows, small.iter().map(|(.., rows)| *rows).collect()) {
            self.complete = vec![(file.number, rows)];
            self.small.clear();
            return true;
        }
        if !file.again {
            self.small.push((file.number, file.window, rows));
        }
        false
    }
}

/// Returns true if `rows` is at least 70 % of the median of `sizes`, which end with the newest. Of two sizes the
/// greater one is the median.
fn has_usual_size(rows: usize, sizes: Vec<usize>) -> bool {
    let mut last: Vec<usize> = sizes.into_iter().rev().take(3).collect();
    last.sort_unstable();
    last.get(last.len() / 2).is_none_or(|median| rows * 10 >= median * 7)
}
