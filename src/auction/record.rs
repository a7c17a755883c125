//! The reader's output: records, and the rejected lines.
//!
//! Both borrow from the reader's buffer until the next one is read. A caller copies the parts that must live longer. An
//! unchanged row needs no copy.

use super::Column;
use super::field_splitter::FieldSpan;
use super::header::FeedHeader;
#[cfg(doc)]
use super::reader::ReaderLimits;
use std::fmt::{self, Display};

/// An item at a row's position: a record or a rejected line.
#[derive(Debug)]
pub enum RecordItem<'a> {
    /// A complete record.
    Row(FeedRecord<'a>),
    /// A line that cannot be parsed as a record.
    Rejected(RejectedRecord<'a>),
}

/// A line that cannot be split into the header's number of fields.
#[derive(Clone, Copy, Debug)]
pub struct RejectedRecord<'a> {
    /// Position among the file's records, from 1.
    pub row_no: u64,
    /// Byte offset of the line in the file.
    pub byte_offset: u64,
    /// Bytes of the line without the line end, at most [`ReaderLimits::kept`].
    pub bytes: &'a [u8],
    /// Full length in the file, in bytes.
    pub length: u64,
    /// The reason of the rejection.
    pub reason: RejectionReason,
}

/// The reason why a line is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    /// The number of fields differs from the header's.
    Fields {
        /// Number of fields by the tolerant rule.
        found: usize,
        /// Number of fields in the header.
        expected: usize,
    },
    /// A quoted field is not closed within the limits.
    OpenQuote,
    /// The last line has no line end and lacks fields.
    Truncated,
    /// The line is longer than [`ReaderLimits::record`].
    TooLong,
}

impl Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectionReason::Fields { found, expected } => write!(f, "{found} fields instead of {expected}"),
            RejectionReason::OpenQuote => f.write_str("a quoted field is not closed"),
            RejectionReason::Truncated => f.write_str("the file ends within the record"),
            RejectionReason::TooLong => f.write_str("the line is longer than any record"),
        }
    }
}

/// The repairs made to a record. Each is counted as a warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordFlags {
    /// The record was read by the tolerant rule: it contains unescaped quotes.
    pub repaired: bool,
    /// A NUL was replaced with U+FFFD.
    pub nul: bool,
    /// A field is not UTF-8 and was read as Latin-1.
    pub latin1: bool,
}

/// One row of the file, borrowed from the reader until the next one is read.
#[derive(Clone, Copy, Debug)]
pub struct FeedRecord<'a> {
    pub(super) header: &'a FeedHeader,
    pub(super) row_no: u64,
    pub(super) byte_offset: u64,
    pub(super) flags: RecordFlags,
    pub(super) raw: &'a [u8],
    pub(super) text: &'a str,
    pub(super) spans: &'a [FieldSpan],
    /// True if a value may contain a quote.
    pub(super) quotes: bool,
}

impl<'a> FeedRecord<'a> {
    /// Returns the position among the file's records, from 1. Rejected records count.
    pub fn row_no(&self) -> u64 {
        self.row_no
    }

    /// Returns the byte offset of the record in the file.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// Returns the repairs made to the record.
    pub fn flags(&self) -> RecordFlags {
        self.flags
    }

    /// Returns the record's bytes in the file, without the last line end.
    pub fn raw_bytes(&self) -> &'a [u8] {
        self.raw
    }

    /// Returns the header of the record's file.
    pub fn header(&self) -> &'a FeedHeader {
        self.header
    }

    /// Returns the untrimmed value of field `i`, in the file's order.
    pub fn field(&self, i: usize) -> &'a str {
        let (begin, end) = self.spans[i];
        &self.text[begin as usize..end as usize]
    }

    /// Returns the untrimmed value of a column, or an empty text if the file lacks the column.
    pub fn get(&self, column: Column) -> &'a str {
        self.header.position(column).map_or("", |i| self.field(i))
    }

    /// Returns true if no value contains a byte that JSON escapes. A false result may be wrong.
    pub(super) fn needs_no_escape(&self) -> bool {
        // Branch-free, so that the compiler vectorizes the loop.
        let odd = |found: bool, byte: &u8| found | (*byte < 0x20) | (*byte == b'\\');
        !self.quotes && !self.text.as_bytes().iter().fold(false, odd)
    }
}
