//! Scans a file once: parse, normalise, hash, compare with the heads, and encode the rows to write.
//!
//! The scan runs on a blocking thread, since it keeps one core busy. Row versions and staged rows are sent in chunks of
//! up to a megabyte over a short channel. Flawed records are spooled, since they are reported even if nothing else of
//! the file is stored. Memory therefore does not grow with the file.
//!
//! Long because all effects of one row (count, compare, store, stage, record) are decided together.

use super::ahead;
use super::earlier::Earlier;
use super::heads::{Head, Heads};
use super::lotless::LotlessRows;
use crate::auction::Column;
use crate::auction::column_names::column_names;
use crate::auction::completeness::{judge, judge_changes};
use crate::auction::drift::{DriftPolicies, UnreadableKeys};
use crate::auction::hash::RowHasher;
use crate::auction::header::{Header, HeaderError};
use crate::auction::lot_number::lot_of_rejected;
use crate::auction::mapping::SourceMapping;
use crate::auction::payload::Payload;
use crate::auction::reader::{Item, Limits, Reader, Record, Rejected};
use crate::auction::row::{Key, SkipReason, Typed, Warnings};
use crate::auction::version::{is_regular, version_time};
use crate::auction::vin::{Vin, classify};
use crate::db::copy::CopyBuf;
use crate::store;
use crate::taxonomy::Spellings;
use chrono::{DateTime, Utc};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

mod errors;
mod outcome;
mod refusal;
mod words;
pub use errors::FIRST_KEPT;
use errors::{Flaw, FlawedFile, Flaws};
pub use outcome::{ColumnDrift, Ended, Missing, Outcome, Skipped, Unreadable};
pub use refusal::{Refusal, Refused};
pub use words::Count;

/// Size of the first chunk, small so that PostgreSQL, which takes longer than the scan, starts early.
const FIRST_CHUNK: usize = 256 << 10;
/// Maximum size of a chunk. Each chunk is twice as large as the one before, up to this size.
const CHUNK: usize = 1 << 20;
/// Progress is reported at least once per this number of bytes read.
const TOLD: u64 = 4 << 20;
/// Number of bits for the row number in a row id, which is `file_no << 24 | row_no`.
pub const ROW_BITS: u32 = 24;
const MAX_ROWS: u64 = (1 << ROW_BITS) - 1;

/// The file to scan, and everything its rows are compared with.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The id of the file.
    pub file_id: Uuid,
    /// The name of the source.
    pub source: Arc<str>,
    /// The short number of the file in this window.
    pub file_no: i64,
    /// The file's window.
    pub window: DateTime<Utc>,
    /// The window that the heads describe.
    pub head_window: Option<DateTime<Utc>>,
    /// False for a file older than the heads.
    pub in_order: bool,
    /// The row ids of the file in file order, if received before in this month.
    pub earlier_ids: Option<Arc<[i64]>>,
    /// True if the source has no heads yet.
    pub headless: bool,
    /// True if every row is stored and staged, even if the head is the same version.
    pub full: bool,
    /// True if an operator accepts the file, which is then applied although most rows are wrong.
    pub accepted: bool,
    /// The mapping of the source, which describes the layout of the files.
    pub mapping: &'static SourceMapping,
    /// The aliases of this database.
    pub spellings: Arc<Spellings>,
    /// The history that the file is judged by.
    pub earlier: Arc<Earlier>,
    /// The consequence of drift for each column.
    pub policies: DriftPolicies,
}

impl Plan {
    /// Returns true if all heads come from this file.
    pub fn first(&self) -> bool {
        self.headless && self.in_order
    }

    /// Returns the file's identification for flawed records.
    fn flawed_file(&self) -> FlawedFile<'_> {
        FlawedFile { window: self.window, file_id: self.file_id, source: &self.source }
    }
}

/// Encoded rows that are sent to their tables while the file is read.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Rows for `raw.rows`.
    pub raw: CopyBuf,
    /// Rows for `staging.copart_raw`.
    pub staged: CopyBuf,
    /// Bytes of the file read so far.
    pub bytes_read: u64,
}

/// Scans the whole file, and checks that the compressed bytes are those that were received.
pub fn scan_checked(
    file: store::Reader,
    packed_sha256: &str,
    plan: &Plan,
    known: (Heads, LotlessRows),
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Outcome, Ended> {
    let (scanned, file) = ahead::reading(file, |file| scan(file, plan, known, chunks))?;
    match &scanned {
        Ok(_) => {}
        Err(Ended::Refused(refusal)) if refusal.why.is_of_whole_file() => {}
        Err(_) => return scanned, // not read to its end
    }
    let found = file.packed_sha256()?;
    if found == packed_sha256 {
        scanned
    } else {
        Err(Ended::Altered { found, expected: packed_sha256.to_owned() })
    }
}

fn scan(
    file: impl Read,
    plan: &Plan,
    (heads, lotless): (Heads, LotlessRows),
    chunks: &mpsc::Sender<Chunk>,
) -> Result<Outcome, Ended> {
    let mut reader = Reader::new(file, Limits::default(), plan.mapping).map_err(|error| match error {
        HeaderError::Io(error) => Ended::Io(error),
        refusal => Refused::Header(refusal.to_string()).into(),
    })?;
    let header = reader.header();
    let mut pass = Pass {
        plan,
        heads,
        lotless,
        header: header.clone(),
        hasher: RowHasher::new(header),
        payload: Payload::new(header),
        warnings: Warnings::default(),
        keys: UnreadableKeys::default(),
        clock: Clock::None,
        errors: Flaws::default(),
        no_lots: CopyBuf::default(),
        chunk: Chunk::default(),
        outcome: Outcome {
            header: header.names().to_vec(),
            columns: column_names(header),
            drift: drift(header),
            ..Outcome::default()
        },
    };
    let (mut told, mut enough) = (0, FIRST_CHUNK);
    loop {
        if pass.outcome.rows + pass.outcome.rejected > MAX_ROWS {
            pass.errors.spool()?;
            let outcome = Outcome { errors: pass.errors, ..pass.outcome };
            return Err(Ended::Refused(Box::new(Refusal { why: Refused::TooMany, outcome })));
        }
        match reader.read()? {
            None => break,
            Some(Item::Row(record)) => pass.row(&record),
            Some(Item::Rejected(rejected)) => pass.reject(&rejected),
        }
        if pass.pending() >= enough {
            enough = CHUNK.min(2 * enough);
            told = reader.position();
            pass.send(told, chunks)?;
        } else if reader.position() - told >= TOLD {
            told = reader.position();
            let progress = Chunk { bytes_read: told, ..Chunk::default() };
            // Progress is best effort, and is dropped if the channel is full.
            if let Err(TrySendError::Closed(_)) = chunks.try_send(progress) {
                return Err(Ended::Abandoned);
            }
        }
    }
    pass.send(reader.position(), chunks)?;
    conclude(pass)
}

/// Decides on the file after the last record.
fn conclude(pass: Pass<'_>) -> Result<Outcome, Ended> {
    let Pass { plan, heads, lotless, mut outcome, clock, warnings, keys, errors, .. } = pass;
    outcome.errors = errors;
    outcome.lots.records = outcome.rows + outcome.rejected;
    outcome.note_unreadable(&warnings, &plan.earlier, &plan.policies);
    if let Some(why) = refusal::refusal(plan, &outcome, keys) {
        return Err(Ended::Refused(Box::new(Refusal { why, outcome })));
    }
    outcome.completeness = if plan.mapping.absence_is_judged() {
        judge(plan.window, outcome.rows, outcome.lots, &plan.earlier.files)
    } else {
        judge_changes(outcome.lots)
    };
    outcome.snapshot_clock = if let Clock::One(clock) = clock { Some(clock) } else { None };
    (outcome.gone, outcome.absent) = heads.unseen();
    outcome.back_unreadable = heads.back_unreadable();
    outcome.headless_unreadable = heads.headless_unreadable();
    outcome.lotless = lotless;
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
    lotless: LotlessRows,
    header: Header,
    hasher: RowHasher,
    payload: Payload,
    warnings: Warnings,
    keys: UnreadableKeys,
    clock: Clock,
    errors: Flaws,
    no_lots: CopyBuf,
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
    fn pending(&self) -> usize {
        self.chunk.raw.len() + self.chunk.staged.len() + self.errors.pending() + self.no_lots.len()
    }

    /// Sends the encoded rows, and spools the rest.
    fn send(&mut self, bytes_read: u64, chunks: &mpsc::Sender<Chunk>) -> Result<(), Ended> {
        self.errors.spool()?;
        self.outcome.no_lots.keep(&mut self.no_lots)?;
        let chunk = Chunk { raw: self.chunk.raw.take(), staged: self.chunk.staged.take(), bytes_read };
        chunks.blocking_send(chunk).map_err(|_| Ended::Abandoned)
    }

    fn row(&mut self, record: &Record<'_>) {
        self.outcome.rows += 1;
        self.note_clock(record.get(Column::CreateDateTime));
        let key = Key::read(record);
        match key.skip_reason {
            Some(SkipReason::VinEmpty) => self.outcome.skipped.vin_empty += 1,
            Some(SkipReason::VinFormat) => self.outcome.skipped.vin_format += 1,
            Some(SkipReason::LotMissing) => self.outcome.skipped.lot_missing += 1,
            None => {}
        }
        self.note_keys(record, &key);
        let hash = Uuid::from_u128(self.hasher.hash(record));
        // A lot number has 1 to 18 digits.
        let lot = key.lot_external_id.and_then(|digits| digits.parse::<i64>().ok());
        let head = match lot {
            Some(lot) => self.heads.see(lot, hash),
            None => self.lotless.find(hash),
        };
        let same = head.is_some_and(|h| h.row_hash == hash);
        match head {
            None => self.outcome.new += 1,
            Some(_) if same => self.outcome.unchanged += 1,
            Some(_) => self.outcome.changed += 1,
        }
        // A late sighting of such a version may be its first, which determines its order, so it is stored with its
        // window.
        let dated = !self.plan.in_order && !is_regular(record.get(Column::LastUpdatedTime), self.plan.window);
        let earlier_id = self.earlier_id(record.row_no());
        let new_id = (self.plan.file_no << ROW_BITS) | record.row_no().cast_signed();
        let row_id = match (head, earlier_id) {
            (Some(h), _) if same && h.row_id != 0 && !self.plan.full && !dated => h.row_id,
            (_, Some(earlier_id)) if !dated => earlier_id,
            _ => new_id,
        };
        self.outcome.manifest.push(row_id);
        let stored_now = row_id == new_id;
        if stored_now {
            self.keep(record, row_id, lot);
            if lot.is_none() {
                self.lotless.note_stored(hash, row_id);
            }
        }
        let flags = record.flags();
        self.outcome.repaired += u64::from(flags.repaired || flags.nul || flags.latin1);
        if dated || self.must_stage(head, same) {
            self.outcome.staged += 1;
            let typed = Typed::read(record, &self.plan.spellings, &mut self.warnings);
            self.outcome.words.note(&typed, &self.plan.spellings);
            self.stage(record, &typed, head, hash, row_id);
            self.note_skipped(record, &typed);
            self.note_replacements(record);
        } else if stored_now && let Some(lot) = lot {
            self.outcome.moved.push((lot, row_id));
        }
    }

    /// Counts missing and unreadable keys, for every row.
    fn note_keys(&mut self, record: &Record<'_>, key: &Key<'_>) {
        let has_lot = key.lot_external_id.is_some();
        let no_vin = match key.skip_reason {
            Some(SkipReason::LotMissing) => classify(record.get(Column::Vin)) == Vin::Empty,
            reason => reason == Some(SkipReason::VinEmpty),
        };
        self.outcome.missing.vin += u64::from(no_vin);
        self.outcome.missing.lot += u64::from(!has_lot);
        self.outcome.lots.recognised += u64::from(has_lot);
        self.keys.note(record, has_lot);
    }

    /// Returns true if the row must be staged: it is new or changed, its lot was absent or occurs twice, two files
    /// share the window, or all rows are staged.
    fn must_stage(&self, head: Option<Head>, same: bool) -> bool {
        self.plan.full || !same || head.is_some_and(|h| h.absent() || h.again() || h.contested())
    }

    /// Returns the id of this row of the file if already stored.
    fn earlier_id(&self, row_no: u64) -> Option<i64> {
        let ids = self.plan.earlier_ids.as_ref()?;
        ids.get(usize::try_from(row_no).ok()?.checked_sub(1)?).copied().filter(|id| *id != 0)
    }

    fn keep(&mut self, record: &Record<'_>, row_id: i64, lot: Option<i64>) {
        let raw = &mut self.chunk.raw;
        raw.row(6);
        raw.bigint(row_id);
        raw.uuid(Some(self.plan.file_id));
        raw.int(i32::try_from(record.row_no()).ok());
        raw.timestamptz(Some(self.plan.window));
        match lot {
            Some(lot) => raw.bigint(lot),
            None => raw.null(),
        }
        raw.jsonb(|out| self.payload.append(record, out));
    }

    fn stage(&mut self, record: &Record<'_>, typed: &Typed<'_>, head: Option<Head>, hash: Uuid, row_id: i64) {
        // A head that stays in place contains the time until which its version was seen. A late file replaces only the
        // head of an absent lot.
        let replaced = head.filter(|h| (self.plan.in_order || h.absent()) && h.row_hash != hash);
        // For a lot that was absent, only the head contains the time.
        let prev_seen = replaced
            .filter(|h| !h.absent())
            .and_then(|h| if h.held() { Some(self.plan.window) } else { self.plan.head_window });
        if let (Some(_), None, Some(lot)) = (replaced, prev_seen, typed.lot_external_id.as_deref()) {
            self.outcome.returned.push(lot.to_owned());
        }
        let (version_at, regular) = version_time(typed.source_updated_at, self.plan.window);
        super::columns::stage(
            &mut self.chunk.staged,
            &super::columns::Staged {
                version_at,
                irregular: !regular || !typed.unreadable.is_empty(),
                file_id: self.plan.file_id,
                window: self.plan.window,
                row_no: record.row_no(),
                row_id,
                row_hash: hash,
                prev_hash: replaced.map(|h| h.row_hash),
                prev_seen,
                typed,
            },
        );
    }

    fn note_clock(&mut self, clock: &str) {
        match &self.clock {
            Clock::None => self.clock = Clock::One(clock.to_owned()),
            Clock::One(one) if one != clock => self.clock = Clock::Many,
            _ => {}
        }
    }

    /// An inch quote read by the tolerant rule loses nothing. A record with a replaced character is stored with its
    /// bytes.
    fn note_replacements(&mut self, record: &Record<'_>) {
        let flags = record.flags();
        if flags.nul || flags.latin1 {
            let reason = if flags.nul { "NUL replaced by U+FFFD" } else { "not UTF-8, read as Latin-1" };
            let flaw = Flaw {
                row_no: record.row_no(),
                byte_offset: record.byte_offset(),
                reason,
                bytes: record.raw(),
            };
            self.errors.add_repaired(&self.plan.flawed_file(), &flaw);
        }
    }

    fn note_skipped(&mut self, record: &Record<'_>, typed: &Typed<'_>) {
        if let Some(reason) = typed.skip_reason {
            let rows = &mut self.no_lots;
            rows.row(7);
            rows.timestamptz(Some(self.plan.window));
            rows.uuid(Some(self.plan.file_id));
            rows.text(Some(&self.plan.source));
            rows.int(i32::try_from(record.row_no()).ok());
            rows.text(typed.lot_external_id.as_deref());
            rows.text(typed.vin_raw);
            rows.text(Some(reason.as_str()));
        }
    }

    /// Counts an unreadable record. If its lot number is readable, the lot is in the file and keeps its head.
    fn reject(&mut self, rejected: &Rejected<'_>) {
        self.outcome.rejected += 1;
        self.outcome.manifest.push(0);
        let lot = lot_of_rejected(&self.header, rejected);
        if let Some(lot) = lot.and_then(|digits| digits.parse::<i64>().ok()) {
            self.outcome.lots.recognised += 1;
            self.heads.note_unreadable(lot);
        }
        let Rejected { row_no, byte_offset, bytes, reason, .. } = *rejected;
        let flaw = Flaw { row_no, byte_offset, reason: &reason.to_string(), bytes };
        self.errors.add_rejected(&self.plan.flawed_file(), &flaw);
    }
}
