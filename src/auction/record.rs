//! What the reader hands out: records, and the lines that are none.
//!
//! Both borrow from the reader's buffer until the next one is asked for; what must live longer is copied by whoever
//! needs it, which for an unchanged row is nobody.

use super::Column;
use super::header::Header;
#[cfg(doc)]
use super::reader::Limits;
use super::split::Span;
use std::fmt::{self, Display};

/// What was found at a row's position.
#[derive(Debug)]
pub enum Item<'a> {
    /// A record.
    Row(Record<'a>),
    /// A line that is none.
    Rejected(Rejected<'a>),
}

/// A line that has no reading with the header's number of fields.
#[derive(Clone, Copy, Debug)]
pub struct Rejected<'a> {
    /// Its position among the file's records, from 1.
    pub row_no: u64,
    /// Where in the file it begins.
    pub byte_offset: u64,
    /// Its bytes without the line end, at most [`Limits::kept`] of them.
    pub bytes: &'a [u8],
    /// How many bytes it has in the file.
    pub length: u64,
    /// Why.
    pub reason: Reason,
}

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another number of fields than the header's.
    Fields {
        /// As many as the line has by the tolerant rule.
        found: usize,
        /// As many as the header has.
        expected: usize,
    },
    /// A quoted field that nothing closes within the limits.
    OpenQuote,
    /// The last line, without a line end and without all its fields.
    Truncated,
    /// Longer than [`Limits::record`].
    TooLong,
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Fields { found, expected } => write!(f, "{found} fields instead of {expected}"),
            Reason::OpenQuote => f.write_str("a quoted field is not closed"),
            Reason::Truncated => f.write_str("the file ends within the record"),
            Reason::TooLong => f.write_str("the line is longer than any record"),
        }
    }
}

/// What was mended in a record: each is a counted warning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Read by the tolerant rule: it has quotes that are not escaped.
    pub repaired: bool,
    /// It had a NUL, now U+FFFD.
    pub nul: bool,
    /// It had a field that is not UTF-8, now read as Latin-1.
    pub latin1: bool,
}

/// One row of the file, borrowed from the reader until the next one is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(super) header: &'a Header,
    pub(super) row_no: u64,
    pub(super) byte_offset: u64,
    pub(super) flags: Flags,
    pub(super) raw: &'a [u8],
    pub(super) text: &'a str,
    pub(super) spans: &'a [Span],
    /// Some value may hold a quote.
    pub(super) quotes: bool,
}

impl<'a> Record<'a> {
    /// Its position among the file's records, from 1; rejected ones count.
    pub fn row_no(&self) -> u64 {
        self.row_no
    }

    /// Where in the file it begins.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// What was mended.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Its bytes in the file, without the last line end.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The header of its file.
    pub fn header(&self) -> &'a Header {
        self.header
    }

    /// The value of field `i`, in the file's order, as it stands (not trimmed).
    pub fn field(&self, i: usize) -> &'a str {
        let (begin, end) = self.spans[i];
        &self.text[begin as usize..end as usize]
    }

    /// The value of a column, as it stands; empty if the file lacks the column.
    pub fn get(&self, column: Column) -> &'a str {
        self.header.place(column).map_or("", |i| self.field(i))
    }

    /// Whether no value holds a byte that JSON escapes. True is certain, false only likely.
    pub(super) fn plain(&self) -> bool {
        // Without a branch, so that the compiler looks at many bytes at once.
        let odd = |found: bool, byte: &u8| found | (*byte < 0x20) | (*byte == b'\\');
        !self.quotes && !self.text.as_bytes().iter().fold(false, odd)
    }
}
