//! The script of a story: eight windows, with random contents.
//!
//! The rows are the simulator's, one simulator per source, and their expected values are the simulator's. Both sources
//! use the same lot numbers, and one vehicle of the first source is also one of the second. Cells are damaged here, so
//! their expected result is known.

use super::oracle::{ExpectedRow, NamedValues, ReadValue};
use super::rng::StoryRng;
use crate::pipeline::parse_time;
use chrono::{DateTime, Duration, Utc};
use std::collections::HashMap;
use vinops::simulator::{ExpectedLot, Simulator, SimulatorOptions, fault};

/// The number of windows of a story.
pub const WINDOWS: usize = 8;
/// The sources. The first has a file in each window.
pub const SOURCES: [&str; 2] = ["copart", "other"];
/// Quarter-hours from one window to the next.
const WINDOW_GAPS: [u32; 8] = [1, 1, 1, 2, 5, 9, 30, 100];
const POSITION_COLUMN: &str = "Id";
const CLOCK_COLUMN: &str = "Create Date/Time";

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoryFileKind {
    /// The feed, or a half of it.
    Feed,
    /// A file that must be quarantined.
    Refused,
}

/// A file of a window.
#[derive(Clone, Debug)]
pub struct StoryFile {
    /// The number of its bytes. A repeated file has the same number.
    pub number: usize,
    pub source: &'static str,
    pub window: DateTime<Utc>,
    pub kind: StoryFileKind,
    pub again: bool,
    pub bytes: Vec<u8>,
    /// The rows that can be read.
    pub rows: Vec<ExpectedRow>,
    /// The lots whose rows are cut off after the lot number.
    pub torn: Vec<u32>,
    /// A description for the failure message.
    pub about: String,
}

/// A row before it is written: its cells and its expected values.
struct RowDraft {
    cells: Vec<String>,
    row: ExpectedRow,
    torn: bool,
}

/// One source's feed.
struct StoryFeed {
    source: &'static str,
    simulator: Simulator,
    header: Vec<String>,
    /// The lot whose VIN is replaced, and the VIN of the vehicle that both sources have.
    common: Option<(u32, String)>,
}

/// Returns the files of the story of this seed.
pub fn write_script(seed: u64) -> Vec<StoryFile> {
    let mut chance = StoryRng(seed);
    let start = parse_time("2026-10-31T21:30:00Z") + Duration::minutes(15 * chance.below(96) as i64);
    let rows = 30 + chance.below(51);
    let mut feeds = SOURCES.map(|source| StoryFeed::new(source, seed, rows, start));
    let common = feeds[0].common_vin();
    feeds[1].common = common;
    let mut files: Vec<StoryFile> = Vec::new();
    let mut k = 0;
    for n in 0..WINDOWS {
        for feed in &mut feeds {
            if feed.source == SOURCES[0] || n == 0 || chance.is_drawn(25) {
                let file = feed.next_file(k, &files, &mut chance);
                files.push(file);
            }
        }
        k += WINDOW_GAPS[chance.below(WINDOW_GAPS.len())];
    }
    files
}

impl StoryFeed {
    fn new(source: &'static str, seed: u64, rows: usize, start: DateTime<Utc>) -> StoryFeed {
        let nth = SOURCES.iter().position(|known| *known == source).unwrap_or(0) as u64;
        let options = SimulatorOptions {
            inch_quotes: false,
            churn: 0.15,
            gone: 0.05,
            ..SimulatorOptions::new(seed * 2 + nth, rows, start)
        };
        StoryFeed { source, simulator: Simulator::new(options), header: Vec::new(), common: None }
    }

    /// Returns the first lot of this source with a valid VIN, and the VIN.
    fn common_vin(&mut self) -> Option<(u32, String)> {
        self.draft_rows(0).into_iter().find(|draft| draft.row.vin.as_ref() == Some(&draft.row.vin_raw)).map(|draft| {
            let ExpectedRow { lot, vin_raw, .. } = draft.row;
            (lot, vin_raw)
        })
    }

    /// Returns the rows of window `k`.
    fn draft_rows(&mut self, k: u32) -> Vec<RowDraft> {
        let mut bytes = Vec::new();
        self.simulator.write_window(k, &mut bytes).unwrap();
        let known: HashMap<String, ExpectedLot> =
            self.simulator.expected_state().lots().map(|lot| (lot.lot.to_string(), lot)).collect();
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        self.header = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let (number, vin) = (self.column_index("Lot number"), self.column_index("VIN"));
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let drafts = records.into_iter().map(|record| {
            let mut cells: Vec<String> = record.iter().map(str::to_owned).collect();
            let mut row = self.expected_row(&cells, &known[&cells[number]]);
            cells[number] = row.lot.to_string();
            if let Some((_, common)) = self.common.as_ref().filter(|(lot, _)| *lot == row.lot && row.vin.is_some()) {
                cells[vin].clone_from(common);
                (row.vin_raw, row.vin) = (common.clone(), Some(common.clone()));
            }
            RowDraft { cells, row, torn: false }
        });
        drafts.collect()
    }

    fn column_index(&self, name: &str) -> usize {
        self.header.iter().position(|column| column == name).unwrap()
    }

    fn expected_row(&self, cells: &[String], known: &ExpectedLot) -> ExpectedRow {
        let link = |name: &str| {
            let text = cells[self.column_index(name)].as_str();
            let bare = text.strip_prefix("http://").unwrap_or(text);
            (!bare.is_empty()).then(|| format!("https://{bare}"))
        };
        let lot_facts: NamedValues = vec![
            ("currency_code", Some(known.currency.to_owned())),
            ("has_keys", known.has_keys.map(|has| has.to_string())),
            ("damage_description", Some(known.damage.to_owned())),
            ("damage_code", Some(known.damage_code.to_owned())),
            ("sale_type", Some(known.sale_type.to_owned())),
            ("special_note", known.special_note.map(|note| note.trim().to_owned())),
        ];
        ExpectedRow {
            // the last digit is random, the others are the same for both sources
            lot: known.lot / 10 * 10,
            text: String::new(),
            vin_raw: known.vin_raw.clone(),
            vin: known.vin.clone(),
            updated: Some(known.source_updated_at),
            sale: readable_value((known.auction, known.yard.to_string(), known.yard_name.to_owned())),
            odometer: readable_value(known.odometer),
            bid: readable_value(known.bid),
            year: readable_value(known.year),
            lot_facts,
            vehicle_facts: vec![("make", Some(known.make.to_owned())), ("model", Some(known.model.trim().to_owned()))],
            pictures: vec![("listing", link("Image URL")), ("thumbnail", link("Image Thumbnail"))],
        }
    }

    /// Returns the file of window `k`: the feed, a half of it, one that must be quarantined, or an earlier one.
    fn next_file(&mut self, k: u32, earlier: &[StoryFile], chance: &mut StoryRng) -> StoryFile {
        let window = self.simulator.options().window_start(k);
        let mine: Vec<&StoryFile> = earlier.iter().filter(|file| file.source == self.source).collect();
        let what = chance.below(100);
        if let Some(last) = mine.last()
            && what < 30
        {
            // as often the newest as any
            let file = if what < 12 { last } else { mine[chance.below(mine.len())] };
            let about = format!("file {} again", file.number);
            return StoryFile { window, again: true, about, ..(*file).clone() };
        }
        let mut drafts = self.draft_rows(k);
        let mut file = StoryFile {
            number: earlier.len(),
            source: self.source,
            window,
            kind: StoryFileKind::Feed,
            again: false,
            bytes: Vec::new(),
            rows: Vec::new(),
            torn: Vec::new(),
            about: String::new(),
        };
        match what {
            30..42 => self.make_refused(&mut file, &drafts, chance),
            _ => {
                if what < 58 {
                    drafts.truncate(drafts.len() / 2);
                    file.about = "half".to_owned();
                }
                for _ in 0..chance.below(4) {
                    file.about += &self.spoil_rows(&mut drafts, window, chance);
                }
                self.write_rows(&mut file, drafts);
            }
        }
        file
    }

    /// Makes a file of which nothing may be applied.
    fn make_refused(&self, file: &mut StoryFile, drafts: &[RowDraft], chance: &mut StoryRng) {
        file.kind = StoryFileKind::Refused;
        let mut text = self.format_lines(drafts);
        match chance.below(3) {
            0 => {
                file.about = "garbage".to_owned();
                file.bytes = fault::garbage_bytes();
                file.bytes.extend_from_slice(file.window.to_rfc3339().as_bytes());
                return;
            }
            1 => {
                file.about = "wrong header".to_owned();
                text[0] = text[0].replace("Lot number", "Lot").replace("VIN", "Serial");
            }
            _ => {
                file.about = "every tenth row broken".to_owned();
                for line in text.iter_mut().skip(1).step_by(10) {
                    *line = line.split_inclusive(',').take(10).collect::<String>() + "\n";
                }
            }
        }
        file.bytes = text.concat().into_bytes();
    }

    /// Writes the rows and their expected values into the file.
    fn write_rows(&self, file: &mut StoryFile, drafts: Vec<RowDraft>) {
        file.bytes = self.format_lines(&drafts).concat().into_bytes();
        let (position, clock) = (self.column_index(POSITION_COLUMN), self.column_index(CLOCK_COLUMN));
        for RowDraft { cells, mut row, torn } in drafts {
            if torn {
                file.torn.push(row.lot);
                continue;
            }
            let content = cells.into_iter().enumerate().filter(|(n, _)| *n != position && *n != clock);
            row.text = content.map(|(_, cell)| cell).collect::<Vec<_>>().join("\u{1f}");
            file.rows.push(row);
        }
    }

    /// Returns the header and each row as text.
    fn format_lines(&self, drafts: &[RowDraft]) -> Vec<String> {
        let line = |cells: &[String]| {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(cells).unwrap();
            String::from_utf8(writer.into_inner().unwrap()).unwrap()
        };
        let behind_number = self.column_index("Lot number") + 1;
        let rows =
            drafts.iter().map(|draft| line(if draft.torn { &draft.cells[..behind_number] } else { &draft.cells }));
        std::iter::once(line(&self.header)).chain(rows).collect()
    }

    /// Damages a row, or moves it. Returns a description.
    fn spoil_rows(&self, drafts: &mut [RowDraft], window: DateTime<Utc>, chance: &mut StoryRng) -> String {
        let tearable = drafts.len() >= 60 && drafts.iter().all(|draft| !draft.torn);
        let nth = chance.below(drafts.len());
        let RowDraft { cells, row, torn } = &mut drafts[nth];
        if row.vin.is_none() || *torn {
            return String::new();
        }
        let mut write = |name: &str, value: &str| value.clone_into(&mut cells[self.column_index(name)]);
        if chance.is_drawn(50) {
            let updated = window - Duration::minutes(7);
            write("Last Updated Time", &updated.format("%Y-%m-%dT%H:%M:%SZ").to_string());
            row.updated = Some(updated);
        }
        let done = match chance.below(10) {
            0 => {
                write("Odometer", "6oo19");
                row.odometer = unreadable_value(None);
                "odometer"
            }
            1 => {
                write("High Bid =non-vix,Sealed=Vix", "nine");
                row.bid = unreadable_value(None);
                "bid"
            }
            2 => {
                write("Year", "2O16");
                row.year = unreadable_value(None);
                "year"
            }
            3 => {
                write("Sale Date M/D/CY", "soon");
                row.sale =
                    ReadValue { readable: false, value: (None, row.sale.value.1.clone(), row.sale.value.2.clone()) };
                "sale date"
            }
            4 => {
                write("Last Updated Time", ["yesterday", ""][chance.below(2)]);
                row.updated = None;
                "no update time"
            }
            5 => {
                write("Last Updated Time", "2062-11-20T12:00:00Z");
                row.updated = Some(parse_time("2062-11-20T12:00:00Z"));
                "update time of 2062"
            }
            6 => {
                write("Image Thumbnail", "cs.copart.com/other.jpg");
                set_value(&mut row.pictures, "thumbnail", Some("https://cs.copart.com/other.jpg"));
                "another thumbnail"
            }
            7 => {
                write("Image URL", "");
                set_value(&mut row.pictures, "listing", None);
                "no listing"
            }
            8 => {
                let vin = format!("5YJ3E1EA7KF3{:05}", row.lot / 10 % 100_000);
                write("VIN", &vin);
                (row.vin_raw, row.vin) = (vin.clone(), Some(vin));
                "another VIN"
            }
            _ if tearable => {
                *torn = true;
                "torn"
            }
            _ => "update time",
        };
        format!(", {} {done}", row.lot)
    }
}

fn readable_value<T>(value: T) -> ReadValue<T> {
    ReadValue { readable: true, value }
}

fn unreadable_value<T>(value: T) -> ReadValue<T> {
    ReadValue { readable: false, value }
}

fn set_value(facts: &mut NamedValues, name: &str, value: Option<&str>) {
    for (_, known) in facts.iter_mut().filter(|(known, _)| *known == name) {
        *known = value.map(str::to_owned);
    }
}

/// Returns a description of the story, one line per file.
pub fn describe_files(files: &[StoryFile]) -> String {
    let mut text = String::new();
    for (n, file) in files.iter().enumerate() {
        let (rows, lots) = (file.rows.len(), file.rows.iter().filter(|row| row.vin.is_some()).count());
        text += &format!(
            "  {n}: {} {} file {}: {rows} rows, {lots} lots {}\n",
            file.source,
            file.window.format("%m-%dT%H:%M"),
            file.number,
            file.about
        );
    }
    text
}

impl StoryFile {
    /// Returns a word for the file's kind and contents.
    pub fn describe_kind(&self) -> &'static str {
        match self.kind {
            StoryFileKind::Refused if self.again => "refused again",
            StoryFileKind::Refused => "refused",
            StoryFileKind::Feed if self.again => "again",
            StoryFileKind::Feed if self.about.starts_with("half") => "half",
            StoryFileKind::Feed => "whole",
        }
    }
}
