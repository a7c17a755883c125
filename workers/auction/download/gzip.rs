//! Decompresses a gzip body while it arrives, within a ratio limit.
//!
//! The feed is requested uncompressed, but a server in between may compress it. The CSV shrinks about nine times.
//! Deflate reaches a factor of a thousand, so decompression of a small body that never ends stops at a ratio that no
//! feed has.

use super::error::RejectedResponse;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use std::io::{self, Write};

/// The maximum average number of bytes that one compressed byte may expand to.
const MAX_RATIO: u64 = 100;
/// Bytes that a body may expand to at any ratio, since a short repetitive text compresses better than a file.
const RATIO_FREE_BYTES: u64 = 1 << 20;
/// Bytes that are decompressed at a time; they expand to at most four megabytes.
pub(super) const PIECE_BYTES: usize = 4096;

/// First bytes of compressed formats. Only gzip is decompressed.
const COMPRESSED_FORMATS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
];

/// Returns the name of the compressed format that begins with these bytes.
pub(super) fn detect_format(head: &[u8]) -> Option<&'static str> {
    COMPRESSED_FORMATS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// A decompressor for one body.
#[derive(Debug)]
pub(super) struct GzipDecoder {
    decoder: MultiGzDecoder<Vec<u8>>,
    read_bytes: u64,
    written_bytes: u64,
}

impl GzipDecoder {
    pub(super) fn new() -> GzipDecoder {
        GzipDecoder { decoder: MultiGzDecoder::new(Vec::new()), read_bytes: 0, written_bytes: 0 }
    }

    /// Decompresses the next piece of the body, of at most [`PIECE_BYTES`], and returns the result.
    ///
    /// # Errors
    /// Returns [`RejectedResponse::Gzip`] if the bytes are not gzip, and [`RejectedResponse::Ratio`] if they expand
    /// beyond the limit.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<Bytes, RejectedResponse> {
        self.read_bytes += piece.len() as u64;
        self.decoder.write_all(piece).map_err(gzip_error)?;
        self.take_output()
    }

    /// Ends the body and returns the last decompressed bytes.
    ///
    /// # Errors
    /// Returns the errors of [`GzipDecoder::write`]. A body without a trailer, or with a wrong checksum, is incomplete.
    pub(super) fn finish(&mut self) -> Result<Bytes, RejectedResponse> {
        self.decoder.try_finish().map_err(gzip_error)?;
        self.take_output()
    }

    fn take_output(&mut self) -> Result<Bytes, RejectedResponse> {
        let bytes = std::mem::take(self.decoder.get_mut());
        self.written_bytes += bytes.len() as u64;
        if self.written_bytes > RATIO_FREE_BYTES.max(self.read_bytes.saturating_mul(MAX_RATIO)) {
            let (read, written) = (self.read_bytes, self.written_bytes);
            return Err(RejectedResponse::Ratio { read, written, most: MAX_RATIO });
        }
        Ok(bytes.into())
    }
}

fn gzip_error(error: io::Error) -> RejectedResponse {
    RejectedResponse::Gzip { why: error.to_string() }
}
