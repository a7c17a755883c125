//! Spool files: a file on its way into the store, hashed and compressed while it arrives, and not published yet.

use super::check::detect_zstd;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use tempfile::TempPath;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Compression level of zstd.
///
/// Measured with zstd's command line on a simulated window of 96.6 MB: level 3 takes 0.7 s and gives 17.4 MB, level 6
/// 1.9 s and 15.7 MB, level 7 2.2 s and 15.3 MB, level 9 2.5 s, 15.3 MB and twice the memory. A download takes longer
/// than any of these levels, and the saved space is saved 96 times a day.
const ZSTD_LEVEL: i32 = 7;

/// Maximum number of chunks that wait for the compressor.
///
/// Network chunks have 8 to 64 KiB, so the queue takes a few MiB at most. If the queue is full, the sender stops
/// reading from the socket.
const MAX_QUEUED_CHUNKS: usize = 32;

/// A writer of one file's raw bytes. A writer that is dropped before [`StoreWriter::finish`] leaves nothing.
#[derive(Debug)]
pub struct StoreWriter {
    chunks: mpsc::Sender<Bytes>,
    /// Hashes and compresses on a blocking thread, so that the worker's task is not blocked.
    compressor: JoinHandle<io::Result<CompressedSums>>,
    /// Deletes the spool file when dropped, even if the thread still writes to it.
    path: TempPath,
}

/// A finished, unpublished file. A spool that is dropped leaves nothing.
#[derive(Debug)]
pub struct SpoolFile {
    /// sha256 of the raw bytes, lower-case hex.
    pub sha256: String,
    /// sha256 of the compressed bytes, lower-case hex.
    pub packed_sha256: String,
    /// Raw size in bytes.
    pub bytes: u64,
    /// Compressed size in bytes.
    pub stored_bytes: u64,
    pub(super) path: TempPath,
}

impl StoreWriter {
    pub(super) fn create(folder: &Path) -> io::Result<StoreWriter> {
        let (file, path) = tempfile::Builder::new().prefix("vinops-").tempfile_in(folder)?.into_parts();
        let (chunks, arriving) = mpsc::channel(MAX_QUEUED_CHUNKS);
        let compressor = spawn_blocking(move || compress_chunks(arriving, file));
        Ok(StoreWriter { chunks, compressor, path })
    }

    /// Appends bytes. Waits while the compressor is behind.
    pub async fn write(&mut self, chunk: Bytes) -> anyhow::Result<()> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // the thread has ended early: its own error has the reason, most likely a full disk
        match (&mut self.compressor).await? {
            Err(e) => Err(self.spool_error(e)),
            Ok(_) => Err(anyhow!("the compressor ended early")),
        }
    }

    /// Ends the file. Returns the spool, with all bytes hashed, compressed and written.
    pub async fn finish(self) -> anyhow::Result<SpoolFile> {
        drop(self.chunks);
        let CompressedSums { raw, packed } = self
            .compressor
            .await?
            .with_context(|| format!("could not write the spool file {}", self.path.display()))?;
        Ok(SpoolFile {
            bytes: raw.bytes,
            stored_bytes: packed.bytes,
            sha256: raw.into_hex(),
            packed_sha256: packed.into_hex(),
            path: self.path,
        })
    }

    fn spool_error(&self, e: io::Error) -> anyhow::Error {
        anyhow!(e).context(format!("could not write the spool file {}", self.path.display()))
    }
}

impl SpoolFile {
    /// Returns the first eight hex digits of the sha256, as keys contain them.
    pub fn sha8(&self) -> &str {
        &self.sha256[..8]
    }

    pub(super) fn reopen(&self) -> anyhow::Result<File> {
        File::open(&self.path).with_context(|| format!("could not open the spool file {}", self.path.display()))
    }
}

/// Format of an object that is copied into a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolFormat {
    /// Byte for byte.
    AsIs,
    /// Compressed again, with the level of [`StoreWriter`].
    Compressed,
    /// The original bytes, not compressed.
    Plain,
}

/// Copies an object, compressed or not, into `file` under `path`. The checksums are computed from the copy.
pub(super) fn copy_to_spool(
    stored: impl Read,
    file: File,
    path: TempPath,
    repacking: SpoolFormat,
) -> io::Result<SpoolFile> {
    let mut copy = BufWriter::with_capacity(128 << 10, file);
    let (compressed, mut stored) = detect_zstd(stored)?;
    if repacking == SpoolFormat::AsIs {
        io::copy(&mut stored, &mut copy)?;
    } else {
        let raw: &mut dyn Read = if compressed { &mut zstd::Decoder::new(&mut stored)? } else { &mut stored };
        if repacking == SpoolFormat::Compressed {
            let mut encoder = zstd::Encoder::new(&mut copy, ZSTD_LEVEL)?;
            io::copy(raw, &mut encoder)?;
            encoder.finish()?;
        } else {
            io::copy(raw, &mut copy)?;
        }
    }
    copy.flush()?;
    let (compressed, mut copied) = detect_zstd(File::open(&path)?)?;
    let mut raw = Checksum::default();
    if compressed {
        let mut decoder = ChecksumStream { inner: zstd::Decoder::new(&mut copied)?, sum: raw };
        io::copy(&mut decoder, &mut io::sink())?;
        raw = decoder.sum;
    } else {
        let mut plain = ChecksumStream { inner: &mut copied, sum: raw };
        io::copy(&mut plain, &mut io::sink())?;
        raw = plain.sum;
    }
    let packed = copied.into_inner().1.sum;
    Ok(SpoolFile {
        bytes: raw.bytes,
        stored_bytes: packed.bytes,
        sha256: raw.into_hex(),
        packed_sha256: packed.into_hex(),
        path,
    })
}

/// Checksums of the compressor's input and output.
#[derive(Debug)]
struct CompressedSums {
    raw: Checksum,
    packed: Checksum,
}

/// Compresses chunks until the sender is dropped, which may be before the file is complete.
fn compress_chunks(mut chunks: mpsc::Receiver<Bytes>, file: File) -> io::Result<CompressedSums> {
    let mut raw = Checksum::default();
    let packed = ChecksumStream { inner: file, sum: Checksum::default() };
    let mut encoder = zstd::Encoder::new(BufWriter::with_capacity(128 << 10, packed), ZSTD_LEVEL)?;
    while let Some(chunk) = chunks.blocking_recv() {
        raw.add(&chunk);
        encoder.write_all(&chunk)?;
    }
    let packed = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(CompressedSums { raw, packed: packed.sum })
}

/// The sha256 and the number of bytes so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Checksum {
    hash: Sha256,
    pub(super) bytes: u64,
}

impl Checksum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(super) fn into_hex(self) -> String {
        HEXLOWER.encode(&self.hash.finalize())
    }
}

/// A reader or writer that hashes the bytes that pass through.
#[derive(Debug)]
pub(super) struct ChecksumStream<T> {
    pub(super) inner: T,
    pub(super) sum: Checksum,
}

impl<T: Write> Write for ChecksumStream<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for ChecksumStream<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.sum.add(&out[..read]);
        Ok(read)
    }
}
