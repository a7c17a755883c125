//! A simulated feed: deterministic windows in the form of the real file, with the expected state of its lots.
//!
//! [`Simulator`] moves a feed of lots from window to window and writes each window as the CSV of the real server: 59
//! columns in the feed's order and quoting, raw values of two generations, the feed's clocks, malformed VINs and
//! unescaped inch signs. The same [`SimulatorOptions`] give the same bytes, regardless of the windows requested before:
//! the simulator always steps through every window up to the requested one.
//!
//! The simulator also records the expected state, from the generated data and never by reading its own output back.
//! [`Simulator::expected_state`] returns, for every lot that a file has shown, the values that a reader must obtain,
//! and the lot's lifecycle status. A test that compares the database with the expected state compares two independent
//! implementations, so nothing here uses the rules of `auction`.
//!
//! The modules:
//!
//! - `feed_values`, `yards` and `vehicles` contain the raw values, the yards and the vehicles.
//! - `lot` is the state of a lot, and `evolution` the changes between two windows.
//! - `csv_row` writes one row of the file.
//! - `lifecycle`, `row_fields` and `expected` record the expected state.
//! - [`fault`] corrupts files.
//! - [`server`] is the loopback server that responds, or fails, like the real one.
//!
//! The feed deviates from reality in two points, so that a few windows are enough to show everything. Much more happens
//! within hours of the window (half of the dated lots are sold within twelve hours), and auctions near the window take
//! place at any hour and on any day. Memory is about 110 bytes a lot. No file is held in memory.

mod csv_row;
mod evolution;
mod expected;
pub mod fault;
mod feed_values;
mod lifecycle;
mod lot;
mod rng;
mod row_fields;
pub mod server;
#[cfg(test)]
mod tests;
mod vehicles;
mod yards;

pub use expected::{ExpectedLot, ExpectedSkip, ExpectedState, ExpectedVehicle, FileCounters};
pub use lifecycle::LifecycleStatus;
pub use row_fields::{FieldText, SimulatedChange};

use chrono::{DateTime, Duration, Utc};
use lot::SimulatedLot;
use rng::SplitMix64;
use std::io::{self, Write};

/// The properties of a simulated feed.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Seed of the random numbers, which determine everything else.
    pub seed: u64,
    /// Number of lots in the feed, which stays constant to within a few per mille.
    pub rows: usize,
    /// The start of window 0, on a quarter-hour.
    pub start: DateTime<Utc>,
    /// Time from one window to the next: 15 minutes, or a multiple if a test needs a day to pass.
    pub step: Duration,
    /// Share of rows that change from one window to the next.
    pub churn: f64,
    /// Share of rows that disappear from one window to the next. The same number appears.
    pub gone: f64,
    /// The first window in which column 51 is called `Wholesale`. Before, the name is `Copart Select`.
    pub wholesale_from: u32,
    /// Share of rows written with the new raw values.
    pub modern: f64,
    /// True if text may contain unescaped inch signs.
    pub inch_quotes: bool,
    /// True if some announcements span two lines.
    pub newlines: bool,
    /// Number of unparseable rows in each file: cut short, or with an extra comma. They are added to the lots, under
    /// lot numbers of their own that begin with 9, so that the expected state of the lots stays complete.
    pub broken: u32,
    /// True if `Create Date/Time` differs from row to row, as it would if the snapshot took some time.
    pub clock_per_row: bool,
}

impl SimulatorOptions {
    /// Returns the default feed: 3.4 % of the rows change, 0.4 % disappear, no row is broken.
    pub fn new(seed: u64, rows: usize, start: DateTime<Utc>) -> Self {
        SimulatorOptions {
            seed,
            rows,
            start,
            step: Duration::minutes(15),
            churn: 0.034,
            gone: 0.004,
            wholesale_from: 0,
            modern: 0.15,
            inch_quotes: true,
            newlines: true,
            broken: 0,
            clock_per_row: false,
        }
    }

    /// Returns the start of window `k`.
    pub fn window_start(&self, k: u32) -> DateTime<Utc> {
        self.start + self.step * i32::try_from(k).unwrap_or(i32::MAX)
    }

    /// Returns the start of window `k` in minutes since 1970.
    fn window_minutes(&self, k: u32) -> i32 {
        (self.window_start(k).timestamp() / 60) as i32
    }

    /// Returns a text as this feed writes it: whole, or up to its inch sign if inch signs are off.
    fn visible_text<'a>(&self, text: &'a str) -> &'a str {
        if self.inch_quotes { text } else { text.split('"').next().unwrap_or("") }
    }
}

/// The part of a window's file that reached the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileDelivery {
    /// The whole file.
    Whole,
    /// Only the first rows. The file is applied, but absence is not judged by it.
    First(u64),
    /// Nothing: the file was never served, or it was refused.
    Nothing,
}

/// The simulated feed at one window.
pub struct Simulator {
    options: SimulatorOptions,
    /// The current window.
    k: u32,
    /// The last window whose whole file was read.
    known: Option<u32>,
    /// All lots ever created. A lot's index is its identity.
    lots: Vec<SimulatedLot>,
    /// The lots of the file in order: by yard, then by creation.
    order: Vec<u32>,
    counters: FileCounters,
    /// Changes, by the last file that was read, of lots that were already known.
    changes: Vec<SimulatedChange>,
}

impl Simulator {
    /// Returns a feed at window 0, of which no file has been read yet.
    pub fn new(options: SimulatorOptions) -> Self {
        let mut simulator = Simulator {
            options,
            k: 0,
            known: None,
            lots: Vec::new(),
            order: Vec::new(),
            counters: FileCounters::default(),
            changes: Vec::new(),
        };
        simulator.create_lots();
        simulator.sort_rows();
        simulator
    }

    /// Returns the options of the feed.
    pub fn options(&self) -> &SimulatorOptions {
        &self.options
    }

    /// Writes window `k` and records that a reader has read it. A past window is generated again from the start and
    /// does not change the expected state: a late file decides nothing.
    pub fn write_window(&mut self, k: u32, out: &mut impl Write) -> io::Result<FileCounters> {
        if k < self.k {
            self.write_past_window(k, out)?;
            return Ok(self.counters.clone());
        }
        self.advance_to(k);
        self.write_current(out)?;
        if self.known != Some(k) {
            self.record_file(FileDelivery::Whole);
        }
        Ok(self.counters.clone())
    }

    /// Writes window `k` like a new simulator with the same options.
    pub fn write_past_window(&self, k: u32, out: &mut impl Write) -> io::Result<()> {
        let mut other = Simulator::new(self.options.clone());
        other.advance_to(k);
        other.write_current(out)
    }

    /// Advances to window `k`. The files of the windows in between count as unread.
    pub fn advance_to(&mut self, k: u32) {
        while self.k < k {
            self.k += 1;
            self.advance_window();
        }
        self.sort_rows();
    }

    /// Returns the start of the current window.
    pub fn window_start(&self) -> DateTime<Utc> {
        self.options.window_start(self.k)
    }

    /// Writes the file of the current window.
    pub fn write_current(&self, out: &mut impl Write) -> io::Result<()> {
        const CHUNK_BYTES: usize = 1 << 18;
        let mut broken = SplitMix64::with_seed([self.options.seed, 7, u64::from(self.k)]);
        let clock = csv_row::snapshot_clock(self.window_start(), broken.below(1_000_000) as u32);
        let mut buffer = Vec::with_capacity(CHUNK_BYTES + 4096);
        buffer.extend_from_slice(csv_row::header_line(&self.options, self.k).as_bytes());
        let every = self.order.len() as u64 / u64::from(self.options.broken + 1);
        let mut position = 0;
        for (at, &index) in self.order.iter().enumerate() {
            position += 1;
            let mut frame = csv_row::RowContext { options: &self.options, position, clock: &clock };
            let lot = &self.lots[index as usize];
            csv_row::write_row(&mut buffer, &frame, index, lot);
            let due = (at as u64 + 1).checked_div(every).unwrap_or(0);
            if due * every == at as u64 + 1 && due <= u64::from(self.options.broken) {
                position += 1;
                frame.position = position;
                self.write_broken_row(&mut buffer, &frame, &mut broken, due as u32, index);
            }
            if buffer.len() >= CHUNK_BYTES {
                out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        out.write_all(&buffer)
    }

    /// Appends an unparseable row: a copy of another under a new lot number, cut short or with an extra field.
    fn write_broken_row(
        &self,
        into: &mut Vec<u8>,
        frame: &csv_row::RowContext<'_>,
        dice: &mut SplitMix64,
        n: u32,
        like: u32,
    ) {
        let source = &self.lots[like as usize];
        let number = 90_000_000 + self.k % 90_000 * 100 + n % 100;
        let lot = SimulatedLot { number, now: source.now, seen: source.seen, life: source.life, ..*source };
        let from = into.len();
        csv_row::write_row(into, frame, like, &lot);
        // The cut or comma is placed before the first text that may contain a comma, an inch sign or a line end.
        let commas: Vec<usize> = (from..into.len()).filter(|&at| into[at] == b',').take(9).collect();
        let at = commas.last().copied().unwrap_or(from);
        if dice.per_mille(500) {
            into.truncate(at);
            into.push(b'\n');
        } else {
            while into.len() > from && into[from..].iter().filter(|&&b| b == b'\n').count() > 1 {
                into.pop();
            }
            into.insert(at, b',');
        }
    }

    /// Records that a reader has read the current window, as far as `reach` allows. Returns the counters of the file.
    pub fn record_file(&mut self, reach: FileDelivery) -> FileCounters {
        let window = self.options.window_minutes(self.k);
        self.known = (reach == FileDelivery::Whole).then_some(self.k).or(self.known);
        let Simulator { options, lots, order, changes, .. } = self;
        self.counters = expected::record_file(options, lots, order, window, reach, options.broken, changes);
        self.counters.clone()
    }

    /// Returns the expected state after the files read so far.
    pub fn expected_state(&self) -> ExpectedState<'_> {
        ExpectedState::new(&self.options, &self.lots, &self.counters, &self.changes)
    }

    /// Sorts the rows into the file's order.
    fn sort_rows(&mut self) {
        let lots = &self.lots;
        self.order.clear();
        self.order.extend((0..lots.len() as u32).filter(|&n| lots[n as usize].present));
        // The indexes ascend and the sort is stable, so the rows of a yard are in order of creation.
        self.order.sort_by_key(|&n| lots[n as usize].now.yard);
    }
}
