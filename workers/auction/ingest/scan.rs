//! One pass over a file: parse, normalise, hash, compare with the heads, and encode what has to be written.
//!
//! Runs on a blocking thread, since it keeps a core busy; what is to be written leaves it in chunks of about a megabyte
//! over a short channel, so that memory does not grow with the file.

use super::heads::{Head, Heads};
use crate::auction::Column;
use crate::auction::hash::RowHasher;
use crate::auction::header::{Header, HeaderError};
use crate::auction::payload::Payload;
use crate::auction::reader::{Item, Limits, Reader, Record, Rejected};
use crate::auction::row::{SkipReason, Typed, Warnings};
use crate::db::copy::CopyBuf;
use crate::taxonomy::Domain;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::io::Read;
use tokio::sync::mpsc;
use uuid::Uuid;

/// Chunks are sent on when they hold this many bytes.
const CHUNK: usize = 1 << 20;
/// Rejected and repaired records written to `audit.parse_errors`, at most; all are counted.
const ERRORS_KEPT: u64 = 5_000;
/// Rejected records of a quarantined file that are written there all the same, at most: what an operator looks at first.
const FIRST_KEPT: u64 = 100;
/// Distinct unknown taxonomy values noted, at most.
const UNKNOWN_KEPT: usize = 1_000;
/// A file's rows are numbered within its number: row ids are `file_no << 24 | row_no`.
const ROW_BITS: u32 = 24;
const MAX_ROWS: u64 = (1 << ROW_BITS) - 1;

/// Which file, and how it is to be read.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub file_id: Uuid,
    /// Its short number.
    pub file_no: i64,
    /// Its window.
    pub window: DateTime<Utc>,
    /// The window the heads stand at.
    pub head_window: Option<DateTime<Utc>>,
    /// False for a file older than the heads.
    pub in_order: bool,
    /// Write every row, whatever the heads say.
    pub full: bool,
}

/// Rows on their way to their tables.
#[derive(Debug, Default)]
pub struct Chunk {
    /// For `raw.rows`.
    pub raw: CopyBuf,
    /// For `staging.copart_raw`.
    pub staged: CopyBuf,
    /// For `audit.parse_errors`.
    pub errors: CopyBuf,
    /// For `audit.skipped_lots`.
    pub skipped: CopyBuf,
    /// Lots whose unchanged version is stored once more, since this month has none: lot, row id.
    pub moved: Vec<(i64, i64)>,
    /// How much of the file has been read.
    pub bytes_read: u64,
}

impl Chunk {
    fn len(&self) -> usize {
        self.raw.len() + self.staged.len() + self.errors.len() + self.skipped.len() + 16 * self.moved.len()
    }
}

/// Rows that make no vehicle and no lot, by reason.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Skipped {
    /// No VIN.
    pub vin_empty: u64,
    /// A VIN that no rule of VINs fits.
    pub vin_format: u64,
    /// No lot number.
    pub lot_missing: u64,
}

/// What a file holds.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Readable records.
    pub rows: u64,
    /// Of lots without a head.
    pub new: u64,
    /// That differ from their lot's head.
    pub changed: u64,
    /// Equal to their lot's head.
    pub unchanged: u64,
    /// Unreadable records.
    pub rejected: u64,
    /// Records read only by the tolerant rules, or with a character replaced.
    pub repaired: u64,
    /// Values that could not be read and are null.
    pub unreadable_values: u64,
    /// By reason.
    pub skipped: Skipped,
    /// Row ids in file order, 0 for a rejected record.
    pub manifest: Vec<i64>,
    /// Spellings the taxonomies do not know.
    pub unknown: HashSet<(Domain, String)>,
    /// The header, as it stands in the file.
    pub header: Vec<String>,
    /// Columns nobody knows, and known ones that are missing.
    pub drift: Vec<String>,
    /// `Create Date/Time`, where all rows have the same.
    pub snapshot_clock: Option<String>,
    /// Lots that stood in the newest file and not in this one.
    pub gone: Vec<i64>,
    /// Lots absent before, of which no complete file was read since.
    pub absent: Vec<i64>,
}

/// Why a file is not applied; it is kept, and its window quarantined.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No header, or not the feed's.
    #[error("{0}")]
    Header(String),
    /// A header and nothing else.
    #[error("the file has a header but no rows")]
    Empty,
    /// More rows than ids can be made for.
    #[error("the file has more than {} records", MAX_ROWS)]
    TooMany,
    /// More than one row in fifty is unreadable.
    #[error("{rejected} of {records} records cannot be read, more than 2 %")]
    Rejected {
        /// Unreadable ones.
        rejected: u64,
        /// All.
        records: u64,
        /// The first of the unreadable ones, for `audit.parse_errors`: the step that copied them there rolls back.
        first: CopyBuf,
    },
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The file is not fit to be applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What the store gave back is not what came in.
    #[error("the store's copy has sha256 {found}, the file had {expected}: restore it from a backup")]
    Altered {
        /// Of what the store gave back.
        found: String,
        /// As received.
        expected: String,
    },
    /// The bytes could not be read.
    #[error("read the file: {0}")]
    Io(#[from] std::io::Error),
    /// Nobody takes the chunks any more.
    #[error("the load was given up")]
    Abandoned,
}

/// Reads the whole file, which must be the one whose sha256 was noted when it came in.
pub fn scan_checked(
    file: impl Read,
    sha256: &str,
    plan: &Plan,
    heads: Heads,
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Outcome, Ended> {
    let mut hashed = Hashed { inner: file, hash: Sha256::new() };
    let scanned = scan(&mut hashed, plan, heads, chunks);
    if !matches!(scanned, Ok(_) | Err(Ended::Refused(Refused::Empty | Refused::Rejected { .. }))) {
        return scanned; // not read to its end
    }
    let found: String = hashed.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 { scanned } else { Err(Ended::Altered { found, expected: sha256.to_owned() }) }
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

fn scan(file: impl Read, plan: &Plan, heads: Heads, chunks: &mpsc::Sender<Chunk>) -> Result<Outcome, Ended> {
    let mut reader = Reader::new(file, Limits::default()).map_err(|error| match error {
        HeaderError::Io(error) => Ended::Io(error),
        refusal => Ended::Refused(Refused::Header(refusal.to_string())),
    })?;
    let header = reader.header();
    let mut pass = Pass {
        plan,
        heads,
        hasher: RowHasher::new(header),
        payload: Payload::new(header),
        warnings: Warnings::default(),
        clock: Clock::None,
        errors_kept: 0,
        first: CopyBuf::default(),
        chunk: Chunk::default(),
        outcome: Outcome { header: header.names().to_vec(), drift: drift(header), ..Outcome::default() },
    };
    loop {
        if pass.outcome.rows + pass.outcome.rejected > MAX_ROWS {
            return Err(Refused::TooMany.into());
        }
        match reader.read()? {
            None => break,
            Some(Item::Row(record)) => pass.row(&record),
            Some(Item::Rejected(rejected)) => pass.reject(&rejected),
        }
        if pass.chunk.len() >= CHUNK {
            pass.chunk.bytes_read = reader.position();
            chunks.blocking_send(std::mem::take(&mut pass.chunk)).map_err(|_| Ended::Abandoned)?;
        }
    }
    pass.chunk.bytes_read = reader.position();
    let Pass { heads, chunk, first, mut outcome, clock, warnings, .. } = pass;
    outcome.unreadable_values = warnings.total();
    let records = outcome.rows + outcome.rejected;
    if outcome.rejected * 50 > records {
        chunks.blocking_send(chunk).map_err(|_| Ended::Abandoned)?;
        return Err(Refused::Rejected { rejected: outcome.rejected, records, first }.into());
    }
    if outcome.rows == 0 {
        return Err(Refused::Empty.into());
    }
    chunks.blocking_send(chunk).map_err(|_| Ended::Abandoned)?;
    outcome.snapshot_clock = if let Clock::One(clock) = clock { Some(clock) } else { None };
    (outcome.gone, outcome.absent) = heads.unseen();
    Ok(outcome)
}

enum Clock {
    None,
    One(String),
    Many,
}

struct Pass<'a> {
    plan: &'a Plan,
    heads: Heads,
    hasher: RowHasher,
    payload: Payload,
    warnings: Warnings,
    clock: Clock,
    errors_kept: u64,
    first: CopyBuf,
    chunk: Chunk,
    outcome: Outcome,
}

fn drift(header: &Header) -> Vec<String> {
    let unknown = header.unknown_names().map(|name| format!("unknown column {name:?}"));
    let missing = header.missing().iter().map(|column| format!("no column {:?}", column.name()));
    let repeated = header.repeated().iter().map(|name| format!("column {name:?} twice"));
    unknown.chain(missing).chain(repeated).collect()
}

impl Pass<'_> {
    fn row(&mut self, record: &Record<'_>) {
        self.outcome.rows += 1;
        self.note_clock(record.get(Column::CreateDateTime));
        let typed = Typed::read(record, &mut self.warnings);
        match typed.skip_reason {
            Some(SkipReason::VinEmpty) => self.outcome.skipped.vin_empty += 1,
            Some(SkipReason::VinFormat) => self.outcome.skipped.vin_format += 1,
            Some(SkipReason::LotMissing) => self.outcome.skipped.lot_missing += 1,
            None => {}
        }
        let hash = self.hasher.hash(record);
        // a lot number has 1 to 18 digits
        let lot = typed.lot_external_id.and_then(|digits| digits.parse::<i64>().ok());
        let head = lot.and_then(|lot| self.heads.see(lot));
        let same = head.is_some_and(|h| h.row_hash == hash);
        match head {
            None => self.outcome.new += 1,
            Some(_) if same => self.outcome.unchanged += 1,
            Some(_) => self.outcome.changed += 1,
        }
        let row_id = match head {
            Some(h) if same && h.row_id != 0 && !self.plan.full => h.row_id,
            _ => (self.plan.file_no << ROW_BITS) | record.row_no().cast_signed(),
        };
        self.outcome.manifest.push(row_id);
        let stored_now = row_id >> ROW_BITS == self.plan.file_no;
        if stored_now {
            self.keep(record, row_id);
        }
        let flags = record.flags();
        self.outcome.repaired += u64::from(flags.repaired || flags.nul || flags.latin1);
        if self.must_stage(head, same) {
            self.note_unknown(&typed);
            self.stage(record, &typed, head, hash, row_id);
            if let Some(reason) = typed.skip_reason {
                self.skip(record, &typed, reason.as_str());
            }
            self.note_replacements(record);
        } else if stored_now && let Some(lot) = lot {
            self.chunk.moved.push((lot, row_id));
        }
    }

    /// An unchanged row has nothing to tell the tables, unless its lot was away, or all is to be told anew.
    fn must_stage(&self, head: Option<Head>, same: bool) -> bool {
        self.plan.full || !same || head.is_some_and(|h| h.absent())
    }

    fn keep(&mut self, record: &Record<'_>, row_id: i64) {
        let raw = &mut self.chunk.raw;
        raw.row(5);
        raw.bigint(row_id);
        raw.uuid(Some(self.plan.file_id));
        raw.int(i32::try_from(record.row_no()).ok());
        raw.timestamptz(Some(self.plan.window));
        raw.jsonb(|out| self.payload.append(record, out));
    }

    fn stage(&mut self, record: &Record<'_>, typed: &Typed<'_>, head: Option<Head>, hash: u128, row_id: i64) {
        // a head that stays in place tells for itself until when its version was seen
        let replaced = head.filter(|h| self.plan.in_order && h.row_hash != hash);
        super::columns::stage(
            &mut self.chunk.staged,
            &super::columns::Staged {
                file_id: self.plan.file_id,
                window: self.plan.window,
                row_no: record.row_no(),
                row_id,
                row_hash: Uuid::from_u128(hash),
                prev_hash: replaced.map(|h| Uuid::from_u128(h.row_hash)),
                // of a lot that was away, its head knows
                prev_seen: replaced.filter(|h| !h.absent()).and(self.plan.head_window),
                typed,
            },
        );
    }

    fn skip(&mut self, record: &Record<'_>, typed: &Typed<'_>, reason: &str) {
        let skipped = &mut self.chunk.skipped;
        skipped.row(6);
        skipped.timestamptz(Some(self.plan.window));
        skipped.uuid(Some(self.plan.file_id));
        skipped.int(i32::try_from(record.row_no()).ok());
        skipped.text(typed.lot_external_id);
        skipped.text(typed.vin_raw);
        skipped.text(Some(reason));
    }

    fn note_clock(&mut self, clock: &str) {
        match &self.clock {
            Clock::None => self.clock = Clock::One(clock.to_owned()),
            Clock::One(one) if one != clock => self.clock = Clock::Many,
            _ => {}
        }
    }

    /// An inch quote read by the tolerant rule loses nothing; a replaced character is kept with its bytes.
    fn note_replacements(&mut self, record: &Record<'_>) {
        let flags = record.flags();
        if flags.nul || flags.latin1 {
            let reason = if flags.nul { "NUL replaced by U+FFFD" } else { "not UTF-8, read as Latin-1" };
            self.error(record.row_no(), record.byte_offset(), "repaired", reason, record.raw());
        }
    }

    fn note_unknown(&mut self, typed: &Typed<'_>) {
        for (domain, raw) in typed.unknown_values() {
            if self.outcome.unknown.len() < UNKNOWN_KEPT {
                self.outcome.unknown.insert((domain, raw.to_owned()));
            }
        }
    }

    fn reject(&mut self, rejected: &Rejected<'_>) {
        let Rejected { row_no, byte_offset, bytes, reason, .. } = rejected;
        self.outcome.rejected += 1;
        self.outcome.manifest.push(0);
        let reason = reason.to_string();
        if self.outcome.rejected <= FIRST_KEPT {
            error(&mut self.first, self.plan, *row_no, *byte_offset, "rejected", &reason, bytes);
        }
        self.error(*row_no, *byte_offset, "rejected", &reason, bytes);
    }

    fn error(&mut self, row_no: u64, byte_offset: u64, kind: &str, reason: &str, bytes: &[u8]) {
        if self.errors_kept < ERRORS_KEPT {
            self.errors_kept += 1;
            error(&mut self.chunk.errors, self.plan, row_no, byte_offset, kind, reason, bytes);
        }
    }
}

/// A row of `audit.parse_errors`.
fn error(
    errors: &mut CopyBuf,
    plan: &Plan,
    row_no: u64,
    byte_offset: u64,
    kind: &str,
    reason: &str,
    bytes: &[u8],
) {
    errors.row(7);
    errors.timestamptz(Some(plan.window));
    errors.uuid(Some(plan.file_id));
    errors.int(i32::try_from(row_no).ok());
    errors.bigint(i64::try_from(byte_offset).unwrap_or(i64::MAX));
    errors.text(Some(kind));
    errors.text(Some(reason));
    errors.bytea(bytes);
}
