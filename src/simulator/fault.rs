//! Ways in which a feed fails, for tests to fail with: answers that are no file, connections that break, and files
//! that are spoiled. [`corrupt`] makes the spoiled files, for the server and for tests that want one on disk; it
//! streams, so that a line of 200 MB costs nobody 200 MB.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answer: status 403 with the 963-byte page of the real server's guard.
    Forbidden,
    /// Answer: status 407, as of a proxy that wants to be paid.
    ProxyAuth,
    /// Answer: a redirect to itself.
    RedirectLoop,
    /// Answer: status 200 with bytes that mean nothing.
    Garbage,
    /// Answer: status 200 with a hundred megabytes of nothing, packed, which nobody asked for.
    GzipBomb,
    /// Answer: status 200 with that page in place of the file.
    HtmlPage,
    /// Connection: closed after this many bytes of the body.
    Reset {
        /// Bytes sent before.
        at: u64,
    },
    /// Connection: the announced length is this much more than what comes.
    Short {
        /// Bytes announced and not sent.
        missing: u64,
    },
    /// Connection: so many bytes at a time, with a pause between.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// The pause.
        every: Duration,
    },
    /// Connection: as [`Fault::Reset`]; and the rest, if asked for, under another `ETag`.
    WrongEtag {
        /// Bytes sent before.
        at: u64,
    },
    /// The file of the window before, under a new date.
    Stale,
    /// File: without a byte.
    Empty,
    /// File: the key columns are called otherwise.
    WrongHeader,
    /// File: ends after this many bytes, wherever that is.
    Truncated {
        /// Bytes kept.
        at: u64,
    },
    /// File: so many rows in a thousand are cut short or have a field too many.
    BrokenRows {
        /// In a thousand.
        per_mille: u64,
    },
    /// File: only its first rows; [`super::Reach::First`] is what a reader then knows.
    FirstRows {
        /// Rows kept.
        rows: u64,
    },
    /// File: a NUL inside a text of each n-th row.
    Nuls {
        /// n.
        every: u64,
    },
    /// File: an é in Latin-1, which is not UTF-8, inside a text of each n-th row.
    Latin1 {
        /// n.
        every: u64,
    },
    /// File: the lot number of each n-th row is missing.
    NoLotNumber {
        /// n.
        every: u64,
    },
    /// File: after the tenth row, a line of this many letters.
    LongLine {
        /// Its length.
        bytes: u64,
    },
    /// File: begins with a byte order mark and ends its lines with CR LF. Every row is still good.
    Windows,
}

impl Fault {
    /// The file itself is spoiled, as [`corrupt`] does it.
    pub fn in_file(self) -> bool {
        !matches!(
            self,
            Fault::Forbidden
                | Fault::ProxyAuth
                | Fault::RedirectLoop
                | Fault::Garbage
                | Fault::GzipBomb
                | Fault::HtmlPage
                | Fault::Reset { .. }
                | Fault::WrongEtag { .. }
                | Fault::Short { .. }
                | Fault::Drip { .. }
                | Fault::Stale
        )
    }
}

/// The guard's page, of the 963 bytes that a rule "under 1000 bytes is no file" only just catches.
pub fn guard_page() -> String {
    let text = "<html style=\"height:100%\"><head><meta name=\"ROBOTS\" content=\"NOINDEX, NOFOLLOW\">\
        <title>Request unsuccessful</title></head><body><iframe src=\"/_Incapsula_Resource?incident_id=0-0\">\
        Request unsuccessful. Incapsula incident ID: 0-0</iframe><!--";
    format!("{text:-<949}--></body></html>")[..].chars().take(963).collect()
}

/// Bytes that mean nothing, the same each time.
pub fn garbage() -> Vec<u8> {
    (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A hundred megabytes of nothing, in a hundred kilobytes.
pub fn gzip_bomb() -> io::Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::copy(&mut io::repeat(b'0').take(100 << 20), &mut packed)?;
    packed.finish()
}

/// Copies a feed's file, spoiling it on the way; a fault that is not in the file copies it as it is, and
/// [`Fault::HtmlPage`] puts the page in its place. Returns the number of rows spoiled.
pub fn corrupt(source: impl Read, out: &mut impl Write, fault: Fault) -> io::Result<u64> {
    match fault {
        Fault::Empty => return Ok(0),
        Fault::HtmlPage => return out.write_all(guard_page().as_bytes()).map(|()| 0),
        Fault::Truncated { at } => return io::copy(&mut source.take(at), out).map(|_| 0),
        _ if !fault.in_file() => return io::copy(&mut { source }, out).map(|_| 0),
        _ => {}
    }
    let mut source = BufReader::with_capacity(1 << 18, source);
    let (mut header, mut record, mut line) = (Vec::new(), Vec::new(), Vec::new());
    source.read_until(b'\n', &mut header)?;
    match fault {
        Fault::WrongHeader => {
            let text = String::from_utf8_lossy(&header);
            out.write_all(
                text.replace("\"Lot number\"", "\"Lot\"").replace("\"VIN\"", "\"Serial\"").as_bytes(),
            )?;
        }
        Fault::Windows => {
            out.write_all(b"\xef\xbb\xbf")?;
            carriage(&header, out)?;
        }
        _ => out.write_all(&header)?,
    }
    let (mut n, mut spoiled) = (0, 0);
    loop {
        line.clear();
        let ended = source.read_until(b'\n', &mut line)? == 0;
        // A row begins with its number; a line that does not goes on with the row before it.
        if !record.is_empty() && (ended || line.first().is_some_and(u8::is_ascii_digit)) {
            n += 1;
            if matches!(fault, Fault::FirstRows { rows } if n > rows) {
                return Ok(spoiled);
            }
            spoiled += u64::from(spoil(&mut record, n, fault, out)?);
            record.clear();
        }
        if ended {
            return Ok(spoiled);
        }
        record.extend_from_slice(&line);
    }
}

/// Writes one row, and answers whether it was spoiled.
fn spoil(row: &mut Vec<u8>, n: u64, fault: Fault, out: &mut impl Write) -> io::Result<bool> {
    let inside = row.iter().position(|&b| b == b'"').map_or(0, |at| at + 1);
    let hit = match fault {
        Fault::Nuls { every } | Fault::Latin1 { every } | Fault::NoLotNumber { every } => {
            n.is_multiple_of(every)
        }
        // Evenly spread: the n-th row is hit when n thousandths of the share pass a whole number.
        Fault::BrokenRows { per_mille } => n * per_mille / 1000 != (n - 1) * per_mille / 1000,
        Fault::LongLine { .. } => n == 10,
        _ => false,
    };
    match fault {
        Fault::Nuls { .. } if hit => row.insert(inside, 0),
        Fault::Latin1 { .. } if hit => row.insert(inside, 0xe9),
        Fault::NoLotNumber { .. } if hit => drop(row.drain(comma(row, 8) + 1..comma(row, 9))),
        Fault::BrokenRows { .. } if hit => {
            let at = comma(row, 9);
            if n.is_multiple_of(2) {
                row.truncate(at);
                row.push(b'\n');
            } else {
                row.insert(at, b',');
            }
        }
        Fault::Windows => return carriage(row, out).map(|()| false),
        _ => {}
    }
    out.write_all(row)?;
    if let Fault::LongLine { bytes } = fault
        && hit
    {
        io::copy(&mut io::repeat(b'x').take(bytes), out)?;
        out.write_all(b"\n")?;
    }
    Ok(hit)
}

/// Where the n-th comma stands; before the tenth, no text with commas of its own has begun.
fn comma(row: &[u8], n: usize) -> usize {
    row.iter().enumerate().filter(|(_, b)| **b == b',').nth(n - 1).map_or(0, |(at, _)| at)
}

/// Ends a row, or the header, with CR LF.
fn carriage(row: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(row.strip_suffix(b"\n").unwrap_or(row))?;
    out.write_all(b"\r\n")
}
