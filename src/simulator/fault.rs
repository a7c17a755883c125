//! Failures of a feed for tests: error responses, broken connections and corrupt files. [`corrupt_file`] makes the
//! corrupt files, for the server and for tests that need one on disk. It streams, so that a line of 200 MB does
//! not need 200 MB of memory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

/// A failure of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedFault {
    /// Response: status 403 with the 963-byte page of the real server's guard.
    Forbidden,
    /// Response: status 407, like a proxy that requires authentication.
    ProxyAuth,
    /// Response: a redirect to the same address.
    RedirectLoop,
    /// Response: status 200 with meaningless bytes.
    Garbage,
    /// Response: status 200 with 100 MB of zeros, gzipped although the client did not request a coding.
    GzipBomb,
    /// Response: status 200 with the guard's page instead of the file.
    HtmlPage,
    /// Connection: closed after this many bytes of the body.
    Reset {
        /// Bytes sent before.
        at: u64,
    },
    /// Connection: the announced length exceeds the sent bytes by this number.
    Short {
        /// Bytes announced and not sent.
        missing: u64,
    },
    /// Connection: a limited number of bytes at a time, with a pause between.
    Drip {
        /// Bytes sent at a time.
        bytes: usize,
        /// Pause between two parts.
        every: Duration,
    },
    /// Connection: as [`FeedFault::Reset`], and a range request is answered under another `ETag`.
    WrongEtag {
        /// Bytes sent before.
        at: u64,
    },
    /// The file of the window before, under a new date.
    Stale,
    /// File: no bytes.
    Empty,
    /// File: the key columns have other names.
    WrongHeader,
    /// File: ends after this many bytes, at any position.
    Truncated {
        /// Length of the truncated file, in bytes.
        at: u64,
    },
    /// File: this share of rows is cut short or has an extra field.
    BrokenRows {
        /// Broken rows per thousand.
        per_mille: u64,
    },
    /// File: only the first rows. [`super::FileDelivery::First`] is the matching state of a reader.
    FirstRows {
        /// Number of rows in the file.
        rows: u64,
    },
    /// File: a NUL inside a text of each n-th row.
    Nuls {
        /// Distance between two affected rows.
        every: u64,
    },
    /// File: an é in Latin-1, which is not UTF-8, inside a text of each n-th row.
    Latin1 {
        /// Distance between two affected rows.
        every: u64,
    },
    /// File: the lot number of each n-th row is missing.
    NoLotNumber {
        /// Distance between two affected rows.
        every: u64,
    },
    /// File: after the tenth row, a line of this many letters.
    LongLine {
        /// Length of the line, in bytes.
        bytes: u64,
    },
    /// File: begins with a byte order mark and ends its lines with CR LF. Every row is still valid.
    Windows,
}

impl FeedFault {
    /// Returns true if the fault corrupts the file itself, as [`corrupt_file`] does.
    pub fn is_in_file(self) -> bool {
        !matches!(
            self,
            FeedFault::Forbidden
                | FeedFault::ProxyAuth
                | FeedFault::RedirectLoop
                | FeedFault::Garbage
                | FeedFault::GzipBomb
                | FeedFault::HtmlPage
                | FeedFault::Reset { .. }
                | FeedFault::WrongEtag { .. }
                | FeedFault::Short { .. }
                | FeedFault::Drip { .. }
                | FeedFault::Stale
        )
    }
}

/// Returns the guard's page. Its 963 bytes are just below the limit of a rule "under 1000 bytes is no file".
pub fn guard_page() -> String {
    let text = "<html style=\"height:100%\"><head><meta name=\"ROBOTS\" content=\"NOINDEX, NOFOLLOW\">\
        <title>Request unsuccessful</title></head><body><iframe src=\"/_Incapsula_Resource?incident_id=0-0\">\
        Request unsuccessful. Incapsula incident ID: 0-0</iframe><!--";
    format!("{text:-<949}--></body></html>")[..].chars().take(963).collect()
}

/// Returns meaningless bytes, the same in each call.
pub fn garbage_bytes() -> Vec<u8> {
    (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Returns 100 MB of zeros, gzipped into a hundred kilobytes.
pub fn gzip_bomb() -> io::Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::copy(&mut io::repeat(b'0').take(100 << 20), &mut packed)?;
    packed.finish()
}

/// Copies a feed's file and corrupts it on the way. A fault that is not in the file copies the file unchanged, and
/// [`FeedFault::HtmlPage`] writes the guard's page instead. Returns the number of corrupt rows.
pub fn corrupt_file(source: impl Read, out: &mut impl Write, fault: FeedFault) -> io::Result<u64> {
    match fault {
        FeedFault::Empty => return Ok(0),
        FeedFault::HtmlPage => return out.write_all(guard_page().as_bytes()).map(|()| 0),
        FeedFault::Truncated { at } => return io::copy(&mut source.take(at), out).map(|_| 0),
        _ if !fault.is_in_file() => return io::copy(&mut { source }, out).map(|_| 0),
        _ => {}
    }
    let mut source = BufReader::with_capacity(1 << 18, source);
    let (mut header, mut record, mut line) = (Vec::new(), Vec::new(), Vec::new());
    source.read_until(b'\n', &mut header)?;
    match fault {
        FeedFault::WrongHeader => {
            let text = String::from_utf8_lossy(&header);
            out.write_all(text.replace("\"Lot number\"", "\"Lot\"").replace("\"VIN\"", "\"Serial\"").as_bytes())?;
        }
        FeedFault::Windows => {
            out.write_all(b"\xef\xbb\xbf")?;
            write_crlf(&header, out)?;
        }
        _ => out.write_all(&header)?,
    }
    let (mut n, mut spoiled) = (0, 0);
    loop {
        line.clear();
        let ended = source.read_until(b'\n', &mut line)? == 0;
        // A row begins with its number. A line without one continues the row before it.
        if !record.is_empty() && (ended || line.first().is_some_and(u8::is_ascii_digit)) {
            n += 1;
            if matches!(fault, FeedFault::FirstRows { rows } if n > rows) {
                return Ok(spoiled);
            }
            spoiled += u64::from(corrupt_row(&mut record, n, fault, out)?);
            record.clear();
        }
        if ended {
            return Ok(spoiled);
        }
        record.extend_from_slice(&line);
    }
}

/// Writes one row. Returns true if the row was corrupted.
fn corrupt_row(row: &mut Vec<u8>, n: u64, fault: FeedFault, out: &mut impl Write) -> io::Result<bool> {
    let inside = row.iter().position(|&b| b == b'"').map_or(0, |at| at + 1);
    let hit = match fault {
        FeedFault::Nuls { every } | FeedFault::Latin1 { every } | FeedFault::NoLotNumber { every } => {
            n.is_multiple_of(every)
        }
        // Evenly spread: a row is hit whenever the cumulated share passes a whole number.
        FeedFault::BrokenRows { per_mille } => n * per_mille / 1000 != (n - 1) * per_mille / 1000,
        FeedFault::LongLine { .. } => n == 10,
        _ => false,
    };
    match fault {
        FeedFault::Nuls { .. } if hit => row.insert(inside, 0),
        FeedFault::Latin1 { .. } if hit => row.insert(inside, 0xe9),
        FeedFault::NoLotNumber { .. } if hit => drop(row.drain(comma_position(row, 8) + 1..comma_position(row, 9))),
        FeedFault::BrokenRows { .. } if hit => {
            let at = comma_position(row, 9);
            if n.is_multiple_of(2) {
                row.truncate(at);
                row.push(b'\n');
            } else {
                row.insert(at, b',');
            }
        }
        FeedFault::Windows => return write_crlf(row, out).map(|()| false),
        _ => {}
    }
    out.write_all(row)?;
    if let FeedFault::LongLine { bytes } = fault
        && hit
    {
        io::copy(&mut io::repeat(b'x').take(bytes), out)?;
        out.write_all(b"\n")?;
    }
    Ok(hit)
}

/// Returns the position of the n-th comma. No text with commas of its own begins before the tenth.
fn comma_position(row: &[u8], n: usize) -> usize {
    row.iter().enumerate().filter(|(_, b)| **b == b',').nth(n - 1).map_or(0, |(at, _)| at)
}

/// Writes a row, or the header, with CR LF at the end.
fn write_crlf(row: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(row.strip_suffix(b"\n").unwrap_or(row))?;
    out.write_all(b"\r\n")
}
