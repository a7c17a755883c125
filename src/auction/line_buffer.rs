//! Physical lines of a stream, in a buffer that does not grow with the file.
//!
//! Positions are relative to the *head*, the first byte not yet consumed, so they survive a refill that moves the
//! bytes. The buffer contains one chunk and the caller's look-ahead, which the caller bounds by `cap`.

use memchr::memchr;
use std::io::{self, ErrorKind, Read};

/// The lines of `inner`, starting at the head.
pub(super) struct LineBuffer<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Byte offset of the head in the file.
    offset: u64,
    chunk: usize,
    ended: bool,
}

/// Result of scanning for a line at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScannedLine {
    /// A line. The text ends at `end`, without LF or CRLF, and the following line begins at `next`.
    Here { end: usize, next: usize },
    /// A line of more than `cap` bytes, whose end was not searched.
    TooLong,
    /// The end of the file.
    End,
}

impl<R: Read> LineBuffer<R> {
    pub(super) fn new(inner: R, chunk: usize) -> LineBuffer<R> {
        LineBuffer { inner, buffer: Vec::new(), start: 0, end: 0, offset: 0, chunk: chunk.max(1), ended: false }
    }

    /// Returns the byte offset of the head in the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the bytes from the head to `end`.
    pub(super) fn bytes_to(&self, end: usize) -> &[u8] {
        &self.buffer[self.start..self.start + end]
    }

    /// Moves the head forward.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Returns the line that begins at `from`.
    pub(super) fn scan_line(&mut self, from: usize, cap: usize) -> io::Result<ScannedLine> {
        let mut seen = from;
        loop {
            let held = &self.buffer[self.start..self.end];
            let found = memchr(b'\n', &held[seen..]).map(|i| seen + i);
            let stop = found.unwrap_or(held.len());
            // One byte more than `cap` may be the CR of a line end.
            let carriage = usize::from(stop > from && held[stop - 1] == b'\r');
            if stop - carriage - from > cap {
                return Ok(ScannedLine::TooLong);
            }
            if let Some(feed) = found {
                return Ok(ScannedLine::Here { end: feed - carriage, next: feed + 1 });
            }
            seen = held.len();
            if !self.fill_buffer()? {
                let here = ScannedLine::Here { end: seen - carriage, next: seen };
                return Ok(if seen == from { ScannedLine::End } else { here });
            }
        }
    }

    /// Discards the line at the head, however long, and appends its first `kept` bytes to `out`. Returns the full
    /// length of the line in bytes.
    pub(super) fn skip_line(&mut self, kept: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let mut length = 0;
        loop {
            let held = &self.buffer[self.start..self.end];
            let feed = memchr(b'\n', held);
            let part = &held[..feed.unwrap_or(held.len())];
            out.extend_from_slice(&part[..part.len().min(kept.saturating_sub(out.len()))]);
            length += part.len() as u64;
            self.consume(feed.map_or(part.len(), |i| i + 1));
            if feed.is_some() || !self.fill_buffer()? {
                return Ok(length);
            }
        }
    }

    /// Reads once more. Returns false at the end of the file.
    fn fill_buffer(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.end + self.chunk {
            self.buffer.resize(self.end + self.chunk, 0);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..self.end + self.chunk]) {
                Ok(read) => {
                    self.end += read;
                    self.ended = read == 0;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_lf_or_crlf_or_the_end_whatever_the_chunk() {
        for chunk in 1..8 {
            let mut lines = LineBuffer::new(&b"ab\r\n\ncd\re\nf"[..], chunk);
            let mut seen = Vec::new();
            while let ScannedLine::Here { end, next } = lines.scan_line(0, 10).unwrap() {
                seen.push((lines.offset(), String::from_utf8(lines.bytes_to(end).to_vec()).unwrap()));
                lines.consume(next);
            }
            let wanted = [(0, "ab"), (4, ""), (5, "cd\re"), (10, "f")];
            assert_eq!(seen, wanted.map(|(at, text)| (at, text.to_owned())));
        }
    }

    #[test]
    fn a_200_mb_line_is_skipped_in_a_buffer_of_two_chunks() {
        let long = io::repeat(b'x').take(200_000_000).chain(&b"\nafter"[..]);
        let mut lines = LineBuffer::new(long, 1 << 18);
        assert_eq!(lines.scan_line(0, 1 << 16).unwrap(), ScannedLine::TooLong);
        let mut kept = Vec::new();
        assert_eq!(lines.skip_line(10, &mut kept).unwrap(), 200_000_000);
        assert_eq!(kept, b"xxxxxxxxxx");
        assert_eq!(lines.offset(), 200_000_001);
        assert_eq!(lines.scan_line(0, 1 << 16).unwrap(), ScannedLine::Here { end: 5, next: 5 });
        assert!(lines.buffer.len() <= 1 << 19);
    }
}
