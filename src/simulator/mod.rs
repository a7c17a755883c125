//! A pretend feed: deterministic windows of the real file's shape, and the truth about them.
//!
//! [`Simulator`] moves a yard-full of lots from window to window and writes each window as the CSV the real server
//! gives: 59 columns in the feed's order and quoting, its vocabulary in two generations, its clocks, its spoiled
//! VINs, its unescaped inch signs. The same [`Options`] give the same bytes, whatever windows are asked for on the
//! way: the simulator always walks through every window up to the one wanted.
//!
//! It also keeps the truth, from what it generated and never by reading its own output back: [`Simulator::truth`]
//! says for every lot that a file has shown what a reader must have made of it, and where its lifecycle stands. A
//! test that compares the database with this compares two independent makers of the same facts; hence nothing here
//! uses the rules of `auction`.
//!
//! How it is put together: `words`, `yards` and `fleet` are the vocabulary, `lot` the state, `movement` what
//! happens between two windows, `write` one CSV line, `lifecycle`, `facts` and `truth` the record, [`fault`] the ways to
//! spoil a file, [`server`] the loopback server that behaves, or misbehaves, like the real one.
//!
//! Two liberties, so that a handful of windows shows everything: much more happens within hours of the window than
//! in life (half of the dated lots are sold within twelve hours), and auctions near the window take place at any
//! hour and on any day. Memory is about 110 bytes a lot; nothing holds a file.

mod dice;
mod facts;
pub mod fault;
mod fleet;
mod lifecycle;
mod lot;
mod movement;
pub mod server;
#[cfg(test)]
mod tests;
mod truth;
mod words;
mod write;
mod yards;

pub use facts::{Change, Fact};
pub use lifecycle::Status;
pub use truth::{Counters, LotTruth, Skip, Truth, VehicleTruth};

use chrono::{DateTime, Duration, Utc};
use dice::Dice;
use lot::Lot;
use std::io::{self, Write};

/// What the feed is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything else that is left to chance.
    pub seed: u64,
    /// Lots in the feed, which it keeps to within a few per mille.
    pub rows: usize,
    /// The start of window 0, on a quarter-hour.
    pub start: DateTime<Utc>,
    /// From one window to the next: 15 minutes, or a multiple where a test needs a day to pass.
    pub step: Duration,
    /// The share of rows that change from one window to the next.
    pub churn: f64,
    /// The share of rows that vanish from one window to the next; as many come.
    pub gone: f64,
    /// The first window whose column 51 is called `Wholesale`; before, it is `Copart Select`.
    pub wholesale_from: u32,
    /// The share of rows written in the new spellings.
    pub modern: f64,
    /// Text may hold unescaped inch signs.
    pub inch_quotes: bool,
    /// Some announcements go over two lines.
    pub newlines: bool,
    /// Rows in each file that no reader can place: cut short, or with a comma too many. They stand beside the
    /// lots, under lot numbers of their own that begin with 9, so that the truth about the lots stays whole.
    pub broken: u32,
    /// `Create Date/Time` differs from row to row, as it might if the snapshot took its time.
    pub clock_per_row: bool,
}

impl Options {
    /// The usual feed: 3.4 % of the rows change, 0.4 % go, nothing is broken.
    pub fn new(seed: u64, rows: usize, start: DateTime<Utc>) -> Self {
        Options {
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

    /// The start of window `k`.
    pub fn window_start(&self, k: u32) -> DateTime<Utc> {
        self.start + self.step * i32::try_from(k).unwrap_or(i32::MAX)
    }

    /// The same in minutes since 1970.
    fn minutes(&self, k: u32) -> i32 {
        (self.window_start(k).timestamp() / 60) as i32
    }

    /// A text as this feed shows it: whole, or up to its inch sign.
    fn inches<'a>(&self, text: &'a str) -> &'a str {
        if self.inch_quotes { text } else { text.split('"').next().unwrap_or("") }
    }
}

/// How much of a window's file reached the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// All of it.
    Whole,
    /// Its first rows only, so that the file is applied and decides nothing about absent lots.
    First(u64),
    /// Nothing: it was never served, or refused.
    Nothing,
}

/// The pretend feed at one window.
pub struct Simulator {
    options: Options,
    /// The window the lots stand at.
    k: u32,
    /// The last window whose whole file was read.
    known: Option<u32>,
    /// Every lot there ever was; a lot's index is its identity.
    lots: Vec<Lot>,
    /// The lots of the file, in its order: by yard, then by arrival.
    order: Vec<u32>,
    counters: Counters,
    /// What the last file read changed of the lots known before.
    changes: Vec<Change>,
}

impl Simulator {
    /// A feed at its window 0, of which no file has been read yet.
    pub fn new(options: Options) -> Self {
        let mut simulator = Simulator {
            options,
            k: 0,
            known: None,
            lots: Vec::new(),
            order: Vec::new(),
            counters: Counters::default(),
            changes: Vec::new(),
        };
        simulator.fill();
        simulator.sort();
        simulator
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Writes window `k`, and takes it that a reader has read it. A window that lies behind is written again from
    /// the beginning of time, and leaves the truth as it is: a late file decides nothing.
    pub fn window(&mut self, k: u32, out: &mut impl Write) -> io::Result<Counters> {
        if k < self.k {
            self.replay(k, out)?;
            return Ok(self.counters.clone());
        }
        self.seek(k);
        self.write(out)?;
        if self.known != Some(k) {
            self.read(Reach::Whole);
        }
        Ok(self.counters.clone())
    }

    /// Writes window `k` as a simulator of the same options would that had never been asked for another.
    pub fn replay(&self, k: u32, out: &mut impl Write) -> io::Result<()> {
        let mut other = Simulator::new(self.options.clone());
        other.seek(k);
        other.write(out)
    }

    /// Moves on to window `k`. What is known of the files in between: nobody has read them.
    pub fn seek(&mut self, k: u32) {
        while self.k < k {
            self.k += 1;
            self.step();
        }
        self.sort();
    }

    /// The start of the window it stands at.
    pub fn window_start(&self) -> DateTime<Utc> {
        self.options.window_start(self.k)
    }

    /// Writes the window it stands at.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        const CHUNK: usize = 1 << 18;
        let mut broken = Dice::of([self.options.seed, 7, u64::from(self.k)]);
        let clock = write::snapshot_clock(self.window_start(), broken.below(1_000_000) as u32);
        let mut buffer = Vec::with_capacity(CHUNK + 4096);
        buffer.extend_from_slice(write::header(&self.options, self.k).as_bytes());
        let every = self.order.len() as u64 / u64::from(self.options.broken + 1);
        let mut position = 0;
        for (at, &index) in self.order.iter().enumerate() {
            position += 1;
            let mut frame = write::Frame { options: &self.options, position, clock: &clock };
            let lot = &self.lots[index as usize];
            write::row(&mut buffer, &frame, index, lot);
            let due = (at as u64 + 1).checked_div(every).unwrap_or(0);
            if due * every == at as u64 + 1 && due <= u64::from(self.options.broken) {
                position += 1;
                frame.position = position;
                self.broken(&mut buffer, &frame, &mut broken, due as u32, index);
            }
            if buffer.len() >= CHUNK {
                out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        out.write_all(&buffer)
    }

    /// A row that cannot be placed: a copy of another under a number of its own, cut short or with a field too many.
    fn broken(&self, into: &mut Vec<u8>, frame: &write::Frame<'_>, dice: &mut Dice, n: u32, like: u32) {
        let source = &self.lots[like as usize];
        let number = 90_000_000 + self.k % 90_000 * 100 + n % 100;
        let lot = Lot { number, now: source.now, seen: source.seen, life: source.life, ..*source };
        let from = into.len();
        write::row(into, frame, like, &lot);
        // Both are done before the first text that may hold a comma, an inch sign or a line end.
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

    /// Takes it that a reader has read the window it stands at, as far as `reach` says.
    pub fn read(&mut self, reach: Reach) -> Counters {
        let window = self.options.minutes(self.k);
        self.known = (reach == Reach::Whole).then_some(self.k).or(self.known);
        let Simulator { options, lots, order, changes, .. } = self;
        self.counters = truth::record(options, lots, order, window, reach, options.broken, changes);
        self.counters.clone()
    }

    /// What is true after the files read so far.
    pub fn truth(&self) -> Truth<'_> {
        Truth::new(&self.options, &self.lots, &self.counters, &self.changes)
    }

    /// Puts the rows into the file's order.
    fn sort(&mut self) {
        let lots = &self.lots;
        self.order.clear();
        self.order.extend((0..lots.len() as u32).filter(|&n| lots[n as usize].present));
        // The indexes ascend, and the sort is stable: within a yard, rows stand as the lots arrived.
        self.order.sort_by_key(|&n| lots[n as usize].now.yard);
    }
}
