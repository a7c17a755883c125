//! Scans a file once: parse, normalise, hash, compare with the heads, and encode the rows to write.
//!
//! The scan runs on a blocking thread, since it keeps one core busy. Row versions and staged rows are sent in chunks of
//! up to a megabyte over a short channel. Flawed records are spooled, since they are reported even if nothing else of
//! the file is stored. Memory therefore does not grow with the file.
//!
//! Long because all effects of one row (count, compare, store, stage, record) are decided together.

use super::file_history::FileHistory;
use super::heads::{LotHead, LotHeads};
use super::lotless::LotlessRows;
use super::read_ahead;
use crate::auction::Column;
use crate::auction::column_names::column_names;
use crate::auction::completeness::{judge_changes, judge_snapshot};
use crate::auction::drift::{DriftPolicies, UnreadableKeys};
use crate::auction::hash::RowHasher;
use crate::auction::header::{FeedHeader, HeaderError};
use crate::auction::lot_number::lot_of_rejected;
use crate::auction::mapping::SourceMapping;
use crate::auction::payload::PayloadWriter;
use crate::auction::reader::{FeedRecord, ReaderLimits, RecordItem, RecordReader, RejectedRecord};
use crate::auction::row::{ParseWarnings, ParsedRow, RowKey, SkipReason};
use crate::auction::version::{has_regular_time, version_time};
use crate::auction::vin::{ParsedVin, classify_vin};
use crate::db::copy::CopyBuf;
use crate::store;
use crate::taxonomy::AliasIndex;
use chrono::{DateTime, Utc};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

mod outcome;
mod parse_errors;
mod quarantine;
mod taxonomy_stats;
pub use outcome::{ColumnDrift, MissingKeys, ScanError, ScanOutcome, SkippedCounts, UnreadableStats};
pub use parse_errors::MAX_KEPT_RECORDS;
use parse_errors::{FlawedFile, FlawedRecord, FlawedRecords};
pub use quarantine::{QuarantineReason, QuarantinedFile};
pub use taxonomy_stats::ValueCount;

/// Size of the first chunk, small so that PostgreSQL, which takes longer than the scan, starts early.
const FIRST_CHUNK_BYTES: usize = 256 << 10;
/// Maximum size of a chunk. Each chunk is twice as large as the one before, up to this size.
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// Progress is reported at least once per this number of bytes read.
const PROGRESS_STEP_BYTES: u64 = 4 << 20;
/// Number of bits for the row number in a row id, which is `file_no << 24 | row_no`.
pub const ROW_BITS: u32 = 24;
const MAX_ROWS: u64 = (1 << ROW_BITS) - 1;

/// The file to scan, and everything its rows are compared with.
#[derive(Debug, Clone)]
pub struct ScanPlan {
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
    pub aliases: Arc<AliasIndex>,
    /// The history that the file is judged by.
    pub earlier: Arc<FileHistory>,
    /// The consequence of drift for each column.
    pub policies: DriftPolicies,
}

impl ScanPlan {
    /// Returns true if all heads come from this file.
    pub fn is_first_file(&self) -> bool {
        self.headless && self.in_order
    }

    /// Returns the file's identification for flawed records.
    fn flawed_file(&self) -> FlawedFile<'_> {
        FlawedFile { window: self.window, file_id: self.file_id, source: &self.source }
    }
}

/// Encoded rows that are sent to their tables while the file is read.
#[derive(Debug, Default)]
pub struct RowChunk {
    /// Rows for `raw.rows`.
    pub raw: CopyBuf,
    /// Rows for `staging.copart_raw`.
    pub staged: CopyBuf,
    /// Bytes of the file read so far.
    pub bytes_read: u64,
}

/// Scans the whole file, and checks that the compressed bytes are those that were received.
pub fn scan_checked(
    file: store::StoreReader,
    packed_sha256: &str,
    plan: &ScanPlan,
    known: (LotHeads, LotlessRows),
    chunks: &mpsc::Sender<RowChunk>,
) -> Result<ScanOutcome, ScanError> {
    let (scanned, file) = read_ahead::with_read_ahead(file, |file| scan_file(file, plan, known, chunks))?;
    match &scanned {
        Ok(_) => {}
        Err(ScanError::Refused(refusal)) if refusal.why.is_fully_read() => {}
        Err(_) => return scanned, // not read to its end
    }
    let found = file.packed_sha256()?;
    if found == packed_sha256 { scanned } else { Err(ScanError::Altered { found, expected: packed_sha256.to_owned() }) }
}

fn scan_file(
    file: impl Read,
    plan: &ScanPlan,
    (heads, lotless): (LotHeads, LotlessRows),
    chunks: &mpsc::Sender<RowChunk>,
) -> Result<ScanOutcome, ScanError> {
    let mut reader = RecordReader::new(file, ReaderLimits::default(), plan.mapping).map_err(|error| match error {
        HeaderError::Io(error) => ScanError::Io(error),
        refusal => QuarantineReason::Header(refusal.to_string()).into(),
    })?;
    let header = reader.header();
    let mut pass = Scanner {
        plan,
        heads,
        lotless,
        header: header.clone(),
        hasher: RowHasher::new(header),
        payload: PayloadWriter::new(header),
        warnings: ParseWarnings::default(),
        keys: UnreadableKeys::default(),
        clock: SnapshotClock::None,
        errors: FlawedRecords::default(),
        no_lots: CopyBuf::default(),
        chunk: RowChunk::default(),
        outcome: ScanOutcome {
            header: header.names().to_vec(),
            columns: column_names(header),
            drift: header_drift(header),
            ..ScanOutcome::default()
        },
    };
    let (mut reported, mut enough) = (0, FIRST_CHUNK_BYTES);
    loop {
        if pass.outcome.rows + pass.outcome.rejected > MAX_ROWS {
            pass.errors.spool_pending()?;
            let outcome = ScanOutcome { errors: pass.errors, ..pass.outcome };
            return Err(ScanError::Refused(Box::new(QuarantinedFile { why: QuarantineReason::TooMany, outcome })));
        }
        match reader.next_item()? {
            None => break,
            Some(RecordItem::Row(record)) => pass.scan_row(&record),
            Some(RecordItem::Rejected(rejected)) => pass.reject_record(&rejected),
        }
        if pass.pending_bytes() >= enough {
            enough = MAX_CHUNK_BYTES.min(2 * enough);
            reported = reader.bytes_read();
            pass.send_chunk(reported, chunks)?;
        } else if reader.bytes_read() - reported >= PROGRESS_STEP_BYTES {
            reported = reader.bytes_read();
            let progress = RowChunk { bytes_read: reported, ..RowChunk::default() };
            // Progress is best effort, and is dropped if the channel is full.
            if let Err(TrySendError::Closed(_)) = chunks.try_send(progress) {
                return Err(ScanError::Abandoned);
            }
        }
    }
    pass.send_chunk(reader.bytes_read(), chunks)?;
    judge_file(pass)
}

/// Decides on the file after the last record.
fn judge_file(pass: Scanner<'_>) -> Result<ScanOutcome, ScanError> {
    let Scanner { plan, heads, lotless, mut outcome, clock, warnings, keys, errors, .. } = pass;
    outcome.errors = errors;
    outcome.lots.records = outcome.rows + outcome.rejected;
    outcome.record_unreadable(&warnings, &plan.earlier, &plan.policies);
    if let Some(why) = quarantine::quarantine_reason(plan, &outcome, keys) {
        return Err(ScanError::Refused(Box::new(QuarantinedFile { why, outcome })));
    }
    outcome.completeness = if plan.mapping.is_absence_judged() {
        judge_snapshot(plan.window, outcome.rows, outcome.lots, &plan.earlier.files)
    } else {
        judge_changes(outcome.lots)
    };
    outcome.snapshot_clock = if let SnapshotClock::One(clock) = clock { Some(clock) } else { None };
    (outcome.disappeared, outcome.absent) = heads.unseen_lots();
    outcome.back_unreadable = heads.back_unreadable();
    outcome.headless_unreadable = heads.headless_unreadable();
    outcome.lotless = lotless;
    Ok(outcome)
}

enum SnapshotClock {
    None,
    One(String),
    Many,
}

struct Scanner<'a> {
    plan: &'a ScanPlan,
    heads: LotHeads,
    lotless: LotlessRows,
    header: FeedHeader,
    hasher: RowHasher,
    payload: PayloadWriter,
    warnings: ParseWarnings,
    keys: UnreadableKeys,
    clock: SnapshotClock,
    errors: FlawedRecords,
    no_lots: CopyBuf,
    chunk: RowChunk,
    outcome: ScanOutcome,
}

fn header_drift(header: &FeedHeader) -> Vec<String> {
    let unknown = header.unknown_names().map(|name| format!("unknown column {name:?}"));
    let missing = header.missing_columns().iter().map(|column| format!("no column {:?}", column.name()));
    let repeated = header.repeated_names().iter().map(|name| format!("column {name:?} twice"));
    unknown.chain(missing).chain(repeated).collect()
}

impl Scanner<'_> {
    fn pending_bytes(&self) -> usize {
        self.chunk.raw.len() + self.chunk.staged.len() + self.errors.pending_bytes() + self.no_lots.len()
    }

    /// Sends the encoded rows, and spools the rest.
    fn send_chunk(&mut self, bytes_read: u64, chunks: &mpsc::Sender<RowChunk>) -> Result<(), ScanError> {
        self.errors.spool_pending()?;
        self.outcome.no_lots.append(&mut self.no_lots)?;
        let chunk = RowChunk { raw: self.chunk.raw.take(), staged: self.chunk.staged.take(), bytes_read };
        chunks.blocking_send(chunk).map_err(|_| ScanError::Abandoned)
    }

    fn scan_row(&mut self, record: &FeedRecord<'_>) {
        self.outcome.rows += 1;
        self.record_clock(record.get(Column::CreateDateTime));
        let key = RowKey::from_record(record);
        match key.skip_reason {
            Some(SkipReason::VinEmpty) => self.outcome.skipped.vin_empty += 1,
            Some(SkipReason::VinFormat) => self.outcome.skipped.vin_format += 1,
            Some(SkipReason::LotMissing) => self.outcome.skipped.lot_missing += 1,
            None => {}
        }
        self.count_keys(record, &key);
        let hash = Uuid::from_u128(self.hasher.hash_row(record));
        // A lot number has 1 to 18 digits.
        let lot = key.lot_external_id.and_then(|digits| digits.parse::<i64>().ok());
        let head = match lot {
            Some(lot) => self.heads.observe(lot, hash),
            None => self.lotless.find_version(hash),
        };
        let same = head.is_some_and(|h| h.row_hash == hash);
        match head {
            None => self.outcome.new += 1,
            Some(_) if same => self.outcome.unchanged += 1,
            Some(_) => self.outcome.changed += 1,
        }
        // A late sighting of such a version may be its first, which determines its order, so it is stored with its
        // window.
        let dated = !self.plan.in_order && !has_regular_time(record.get(Column::LastUpdatedTime), self.plan.window);
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
            self.write_raw_row(record, row_id, lot);
            if lot.is_none() {
                self.lotless.record_stored(hash, row_id);
            }
        }
        let flags = record.flags();
        self.outcome.repaired += u64::from(flags.repaired || flags.nul || flags.latin1);
        if dated || self.must_stage(head, same) {
            self.outcome.staged += 1;
            let typed = ParsedRow::from_record(record, &self.plan.aliases, &mut self.warnings);
            self.outcome.words.record_row(&typed, &self.plan.aliases);
            self.write_staged_row(record, &typed, head, hash, row_id);
            self.record_skipped(record, &typed);
            self.record_replacements(record);
        } else if stored_now && let Some(lot) = lot {
            self.outcome.carried_over.push((lot, row_id));
        }
    }

    /// Counts missing and unreadable keys, for every row.
    fn count_keys(&mut self, record: &FeedRecord<'_>, key: &RowKey<'_>) {
        let has_lot = key.lot_external_id.is_some();
        let no_vin = match key.skip_reason {
            Some(SkipReason::LotMissing) => classify_vin(record.get(Column::Vin)) == ParsedVin::Empty,
            reason => reason == Some(SkipReason::VinEmpty),
        };
        self.outcome.missing.vin += u64::from(no_vin);
        self.outcome.missing.lot += u64::from(!has_lot);
        self.outcome.lots.recognised += u64::from(has_lot);
        self.keys.record_row(record, has_lot);
    }

    /// Returns true if the row must be staged: it is new or changed, its lot was absent or occurs twice, two files
    /// share the window, or all rows are staged.
    fn must_stage(&self, head: Option<LotHead>, same: bool) -> bool {
        self.plan.full || !same || head.is_some_and(|h| h.was_absent() || h.already_seen() || h.is_ambiguous())
    }

    /// Returns the id of this row of the file if already stored.
    fn earlier_id(&self, row_no: u64) -> Option<i64> {
        let ids = self.plan.earlier_ids.as_ref()?;
        ids.get(usize::try_from(row_no).ok()?.checked_sub(1)?).copied().filter(|id| *id != 0)
    }

    fn write_raw_row(&mut self, record: &FeedRecord<'_>, row_id: i64, lot: Option<i64>) {
        let raw = &mut self.chunk.raw;
        raw.begin_row(6);
        raw.put_bigint(row_id);
        raw.put_uuid(Some(self.plan.file_id));
        raw.put_int(i32::try_from(record.row_no()).ok());
        raw.put_timestamptz(Some(self.plan.window));
        match lot {
            Some(lot) => raw.put_bigint(lot),
            None => raw.put_null(),
        }
        raw.put_jsonb(|out| self.payload.write_row(record, out));
    }

    fn write_staged_row(
        &mut self,
        record: &FeedRecord<'_>,
        typed: &ParsedRow<'_>,
        head: Option<LotHead>,
        hash: Uuid,
        row_id: i64,
    ) {
        // A head that stays in place contains the time until which its version was seen. A late file replaces only the
        // head of an absent lot.
        let replaced = head.filter(|h| (self.plan.in_order || h.was_absent()) && h.row_hash != hash);
        // For a lot that was absent, only the head contains the time.
        let prev_seen = replaced
            .filter(|h| !h.was_absent())
            .and_then(|h| if h.same_version_seen() { Some(self.plan.window) } else { self.plan.head_window });
        if let (Some(_), None, Some(lot)) = (replaced, prev_seen, typed.lot_external_id.as_deref()) {
            self.outcome.reappeared.push(lot.to_owned());
        }
        let (version_at, regular) = version_time(typed.source_updated_at, self.plan.window);
        super::columns::write_staged_row(
            &mut self.chunk.staged,
            &super::columns::StagedRow {
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

    fn record_clock(&mut self, clock: &str) {
        match &self.clock {
            SnapshotClock::None => self.clock = SnapshotClock::One(clock.to_owned()),
            SnapshotClock::One(one) if one != clock => self.clock = SnapshotClock::Many,
            _ => {}
        }
    }

    /// An inch quote read by the tolerant rule loses nothing. A record with a replaced character is stored with its
    /// bytes.
    fn record_replacements(&mut self, record: &FeedRecord<'_>) {
        let flags = record.flags();
        if flags.nul || flags.latin1 {
            let reason = if flags.nul { "NUL replaced by U+FFFD" } else { "not UTF-8, read as Latin-1" };
            let flaw = FlawedRecord {
                row_no: record.row_no(),
                byte_offset: record.byte_offset(),
                reason,
                bytes: record.raw_bytes(),
            };
            self.errors.add_repaired(&self.plan.flawed_file(), &flaw);
        }
    }

    fn record_skipped(&mut self, record: &FeedRecord<'_>, typed: &ParsedRow<'_>) {
        if let Some(reason) = typed.skip_reason {
            let rows = &mut self.no_lots;
            rows.begin_row(7);
            rows.put_timestamptz(Some(self.plan.window));
            rows.put_uuid(Some(self.plan.file_id));
            rows.put_text(Some(&self.plan.source));
            rows.put_int(i32::try_from(record.row_no()).ok());
            rows.put_text(typed.lot_external_id.as_deref());
            rows.put_text(typed.vin_raw);
            rows.put_text(Some(reason.as_str()));
        }
    }

    /// Counts an unreadable record. If its lot number is readable, the lot is in the file and keeps its head.
    fn reject_record(&mut self, rejected: &RejectedRecord<'_>) {
        self.outcome.rejected += 1;
        self.outcome.manifest.push(0);
        let lot = lot_of_rejected(&self.header, rejected);
        if let Some(lot) = lot.and_then(|digits| digits.parse::<i64>().ok()) {
            self.outcome.lots.recognised += 1;
            self.heads.record_unreadable(lot);
        }
        let RejectedRecord { row_no, byte_offset, bytes, reason, .. } = *rejected;
        let flaw = FlawedRecord { row_no, byte_offset, reason: &reason.to_string(), bytes };
        self.errors.add_rejected(&self.plan.flawed_file(), &flaw);
    }
}
