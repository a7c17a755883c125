//! The tolerant record reader: parses bytes into records and rejections, in memory that does not grow with the file.
//!
//! The feed is not RFC 4180: inch quotes inside quoted fields are not escaped (`"113" SLEEPER CAB"`), and a strict
//! parser stopped in production at line 4,108. A lenient parser is worse: it reads `"A"B` as `AB`, with the right
//! number of fields and two bytes lost. A reading therefore counts only if it has exactly the header's number of fields
//! and accounts for every byte of the line. The readings of a line, in this order:
//!
//! 1. *Strict* (RFC 4180), one line. A line without inner quotes ends here, without a copy or an allocation: the values
//!    are slices of the line. Where each inner quote is doubled, this reading takes precedence over the tolerant one,
//!    even if that gives the same count: `"113"" CAB"` is the value `113" CAB`, and a file that means two inch marks in
//!    a row cannot be distinguished from one that escapes.
//! 2. *Tolerant*, one line: a quote closes a field only before a comma or the line end. `"SUMMIT 850 X 165""` is the
//!    value `SUMMIT 850 X 165"`. A quote before a comma and a blank does not close a field if the source's mapping says
//!    that the source writes no blank there, as Copart's does: `"LIFT 6", 35" TIRES"` is one value. (Strict would read
//!    on past the comma, and breaks at the next opening quote.)
//! 3. Strict, then tolerant, over this line and the following ones: a field may contain line ends. Strict goes first
//!    even where 2 gave the right count, if it is inside quotes at the line's end and closes later with the right
//!    count, since it then explains bytes that 2 would leave over as broken lines.
//!
//! A following line that is a whole record by itself is never joined, which stops one lost quote from swallowing the
//! file. The same applies to everything past [`ReaderLimits::record`] bytes or [`ReaderLimits::lines`] lines. One
//! physical line without a reading is [`RejectedRecord`], and reading continues at the next line. Remaining ambiguity
//! is accepted: a value that contains `",` splits there unless a blank follows. If the count is right by chance, the
//! row is wrong. Its bytes are in the store.
//!
//! NUL becomes U+FFFD (PostgreSQL stores no NUL). A field that is not UTF-8 is read as Latin-1, which preserves every
//! byte. Both are flagged on the record, and [`FeedRecord::raw_bytes`] returns the bytes. Blank lines are not records.

use super::field_splitter::{FieldSpan, FieldSplitter, SplitResult};
use super::header::{FeedHeader, HeaderError, error_preview, is_html};
use super::line_buffer::{LineBuffer, ScannedLine};
use super::mapping::SourceMapping;
pub use super::record::{FeedRecord, RecordFlags, RecordItem, RejectedRecord, RejectionReason};
use memchr::memchr;
use std::io::{self, Read};

/// Bounds on the reader's memory and look-ahead.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// Bytes requested from the source at a time.
    pub chunk: usize,
    /// Maximum length of a record, in bytes. Only the beginning of a longer line is stored.
    pub record: usize,
    /// Maximum number of following lines that a record may span.
    pub lines: usize,
    /// Maximum number of bytes stored of a rejected line.
    pub kept: usize,
}

impl Default for ReaderLimits {
    fn default() -> ReaderLimits {
        ReaderLimits { chunk: 256 << 10, record: 64 << 10, lines: 32, kept: 8 << 10 }
    }
}

/// Reads the records of one file.
pub struct RecordReader<R> {
    lines: LineBuffer<R>,
    limits: ReaderLimits,
    header: FeedHeader,
    row_no: u64,
    /// Bytes of the last returned item.
    taken: usize,
    strict: FieldSplitter,
    tolerant: FieldSplitter,
    /// Values that could not be borrowed from the line, concatenated.
    values: String,
    spans: Vec<FieldSpan>,
    kept: Vec<u8>,
}

/// A reading with the right number of fields.
struct ParsedLine {
    repaired: bool,
    end: usize,
    next: usize,
}

impl<R: Read> RecordReader<R> {
    /// Reads the header, after an optional BOM and blank lines, by the mapping of the file's source.
    ///
    /// # Errors
    /// Returns an error if the file has no usable header or cannot be read.
    pub fn new(
        inner: R,
        limits: ReaderLimits,
        mapping: &'static SourceMapping,
    ) -> Result<RecordReader<R>, HeaderError> {
        let mut lines = LineBuffer::new(inner, limits.chunk);
        let (mut values, mut spans) = (String::new(), Vec::new());
        let header = loop {
            match lines.scan_line(0, limits.record)? {
                ScannedLine::End => return Err(HeaderError::Empty),
                ScannedLine::TooLong => {
                    let mut begins = Vec::new();
                    lines.skip_line(limits.kept, &mut begins)?;
                    let (page, begins) = (is_html(&begins), error_preview(&begins));
                    let limit = limits.record;
                    return Err(if page { HeaderError::Html(begins) } else { HeaderError::TooLong { limit, begins } });
                }
                ScannedLine::Here { end, .. }
                    if lines.offset() == 0 && lines.bytes_to(end).starts_with(b"\xef\xbb\xbf") =>
                {
                    lines.consume(3);
                }
                ScannedLine::Here { end, next } if lines.bytes_to(end).trim_ascii().is_empty() => lines.consume(next),
                ScannedLine::Here { end, next } => {
                    let line = lines.bytes_to(end);
                    if is_html(line) {
                        return Err(HeaderError::Html(error_preview(line)));
                    }
                    let mut split = FieldSplitter::new_strict();
                    if !matches!(split.split_fields(line, usize::MAX), SplitResult::Closed { .. }) {
                        split = FieldSplitter::new_tolerant(mapping.quote_before_blank_closes);
                        split.split_fields(line, usize::MAX);
                    }
                    decode_values(line, &split.spans, split.escaped, &mut values, &mut spans);
                    let names = spans.iter().map(|(a, b)| values[*a as usize..*b as usize].to_owned()).collect();
                    let header = FeedHeader::from_names(names, line, mapping)?;
                    lines.consume(next);
                    break header;
                }
            }
        };
        let (strict, tolerant) =
            (FieldSplitter::new_strict(), FieldSplitter::new_tolerant(mapping.quote_before_blank_closes));
        let kept = Vec::new();
        Ok(RecordReader { lines, limits, header, row_no: 0, taken: 0, strict, tolerant, values, spans, kept })
    }

    /// Returns the file's header.
    pub fn header(&self) -> &FeedHeader {
        &self.header
    }

    /// Returns the number of bytes read so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.lines.offset() + self.taken as u64
    }

    /// Returns the next record or rejection, or None at the end of the file.
    pub fn next_item(&mut self) -> io::Result<Option<RecordItem<'_>>> {
        self.lines.consume(std::mem::take(&mut self.taken));
        let (end, next) = loop {
            match self.lines.scan_line(0, self.limits.record)? {
                ScannedLine::End => return Ok(None),
                ScannedLine::TooLong => return self.reject_long_line().map(Some),
                ScannedLine::Here { end: 0, next } => self.lines.consume(next),
                ScannedLine::Here { end, next } => break (end, next),
            }
        };
        self.row_no += 1;
        self.strict.clear();
        let strict = self.strict.split_fields(self.lines.bytes_to(end), self.header.width());
        let reading = if FieldSplitter::is_complete(strict, self.header.width()) {
            Some(ParsedLine { repaired: false, end, next })
        } else {
            self.recover_tolerant(strict, end, next)?
        };
        Ok(Some(match reading {
            Some(reading) => RecordItem::Row(self.build_record(&reading)),
            None => RecordItem::Rejected(self.reject_line(end, next)),
        }))
    }

    /// Tries readings 2 and 3 of the module documentation for the line at the head, which is not complete by the strict
    /// rule. Returns None if the line must be rejected.
    fn recover_tolerant(
        &mut self,
        mut strict: SplitResult,
        mut end: usize,
        mut next: usize,
    ) -> io::Result<Option<ParsedLine>> {
        let width = self.header.width();
        self.tolerant.clear();
        let mut tolerant = self.tolerant.split_fields(self.lines.bytes_to(end), width);
        let mut found = None;
        for joined in 0.. {
            if found.is_none() && FieldSplitter::is_complete(tolerant, width) {
                found = Some(ParsedLine { repaired: true, end, next });
            }
            let strict_goes_on = matches!(strict, SplitResult::Open { fields } if fields <= width);
            let tolerant_goes_on = found.is_none()
                && match tolerant {
                    SplitResult::Open { fields } => fields <= width,
                    SplitResult::Closed { fields, quoted } => quoted && fields < width,
                    SplitResult::Broken => false,
                };
            if !(strict_goes_on || tolerant_goes_on) || joined == self.limits.lines {
                break;
            }
            let from = next;
            match self.lines.scan_line(from, self.limits.record)? {
                ScannedLine::Here { end: here, next: after } if here <= self.limits.record => {
                    (end, next) = (here, after)
                }
                _ => break,
            }
            let text = self.lines.bytes_to(end);
            if parses_on_its_own(&text[from..], &self.header) {
                break;
            }
            if strict_goes_on {
                strict = self.strict.split_fields(text, width);
                if FieldSplitter::is_complete(strict, width) {
                    return Ok(Some(ParsedLine { repaired: false, end, next }));
                }
            }
            if tolerant_goes_on {
                tolerant = self.tolerant.split_fields(text, width);
            }
        }
        Ok(found)
    }

    /// Returns the record of a reading. Its bytes are consumed by the next read.
    fn build_record(&mut self, reading: &ParsedLine) -> FeedRecord<'_> {
        let RecordReader { lines, header, strict, tolerant, values, spans, .. } = self;
        self.taken = reading.next;
        let split = if reading.repaired { tolerant } else { strict };
        let raw = lines.bytes_to(reading.end);
        let mut flags = RecordFlags { repaired: reading.repaired, ..RecordFlags::default() };
        let (text, spans) = match std::str::from_utf8(raw) {
            Ok(text) if !split.escaped && memchr(0, raw).is_none() => (text, &split.spans),
            _ => {
                (flags.nul, flags.latin1) = decode_values(raw, &split.spans, split.escaped, values, spans);
                (values.as_str(), &*spans)
            }
        };
        let quotes = reading.repaired || split.escaped;
        let (row_no, byte_offset) = (self.row_no, lines.offset());
        FeedRecord { header, row_no, byte_offset, flags, raw, text, spans, quotes }
    }

    fn reject_line(&mut self, end: usize, next: usize) -> RejectedRecord<'_> {
        self.taken = next;
        let line = self.lines.bytes_to(end);
        let expected = self.header.width();
        let mut split = FieldSplitter::new_tolerant(self.header.mapping().quote_before_blank_closes);
        let reason = match split.split_fields(line, usize::MAX) {
            _ if self.lines.bytes_to(next).last() != Some(&b'\n') => RejectionReason::Truncated,
            SplitResult::Closed { fields, .. } => RejectionReason::Fields { found: fields, expected },
            SplitResult::Open { .. } | SplitResult::Broken => RejectionReason::OpenQuote,
        };
        let bytes = &line[..end.min(self.limits.kept)];
        let byte_offset = self.lines.offset();
        RejectedRecord { row_no: self.row_no, byte_offset, bytes, length: end as u64, reason }
    }

    fn reject_long_line(&mut self) -> io::Result<RecordItem<'_>> {
        self.row_no += 1;
        self.kept.clear();
        let byte_offset = self.lines.offset();
        let length = self.lines.skip_line(self.limits.kept, &mut self.kept)?;
        let bytes = &self.kept;
        Ok(RecordItem::Rejected(RejectedRecord {
            row_no: self.row_no,
            byte_offset,
            bytes,
            length,
            reason: RejectionReason::TooLong,
        }))
    }
}

/// Returns true if a line that follows an unfinished one is a record of its own.
fn parses_on_its_own(line: &[u8], header: &FeedHeader) -> bool {
    let width = header.width();
    let mut tolerant = FieldSplitter::new_tolerant(header.mapping().quote_before_blank_closes);
    FieldSplitter::is_complete(FieldSplitter::new_strict().split_fields(line, width), width)
        // A quote inside an unquoted field indicates the tail of a record.
        || (FieldSplitter::is_complete(tolerant.split_fields(line, width), width) && !tolerant.stray)
}

/// Copies the values out of a line that cannot be borrowed from: with doubled quotes, NULs or bytes that are not UTF-8.
/// Returns whether there was a NUL, and whether a field was read as Latin-1.
fn decode_values(
    raw: &[u8],
    from: &[FieldSpan],
    escaped: bool,
    values: &mut String,
    to: &mut Vec<FieldSpan>,
) -> (bool, bool) {
    values.clear();
    to.clear();
    let (mut nul, mut latin1) = (false, false);
    for (begin, end) in from {
        let bytes = &raw[*begin as usize..*end as usize];
        let at = values.len();
        let mut put = |c: char| {
            nul |= c == '\0';
            values.push(if c == '\0' { char::REPLACEMENT_CHARACTER } else { c });
        };
        // The first of two quotes in a row is dropped. With `escaped` every quote is doubled.
        let mut dropped = false;
        let mut keep = |c: char| {
            dropped = escaped && c == '"' && !dropped;
            !dropped
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => text.chars().filter(|c| keep(*c)).for_each(&mut put),
            Err(_) => {
                latin1 = true;
                bytes.iter().map(|b| char::from(*b)).filter(|c| keep(*c)).for_each(&mut put);
            }
        }
        to.push((at as u32, values.len() as u32));
    }
    (nul, latin1)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
