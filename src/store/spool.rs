//! A file on its way into the store: hashed and compressed while it arrives, published by nobody yet.

use super::check::sniffed;
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

/// zstd's level. Measured with its command line on a simulated window of 96.6 MB: level 3 takes 0.7 s and gives 17.4 MB,
/// 6: 1.9 s, 15.7 MB; 7: 2.2 s, 15.3 MB; 9: 2.5 s, 15.3 MB and twice the memory. A download takes longer than any of
/// them, and what is saved is saved 96 times a day.
const LEVEL: i32 = 7;

/// Chunks that may wait for the compressor. Network chunks are 8-64 KiB, so at most a few MiB; beyond it the sender
/// waits, and through it the socket.
const WAITING: usize = 32;

/// A sink for one file's raw bytes. Dropped before [`Writer::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    chunks: mpsc::Sender<Bytes>,
    /// Hashes and compresses on a blocking thread, so that neither holds up the worker's own task.
    compressor: JoinHandle<io::Result<Compressed>>,
    /// Deletes the spool when dropped, whether or not the thread still writes to it.
    path: TempPath,
}

/// A finished, unpublished file. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Spool {
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

impl Writer {
    pub(super) fn open(folder: &Path) -> io::Result<Writer> {
        let (file, path) = tempfile::Builder::new().prefix("vinops-").tempfile_in(folder)?.into_parts();
        let (chunks, arriving) = mpsc::channel(WAITING);
        let compressor = spawn_blocking(move || compress(arriving, file));
        Ok(Writer { chunks, compressor, path })
    }

    /// Takes the next bytes; waits while the compressor is behind.
    pub async fn write(&mut self, chunk: Bytes) -> anyhow::Result<()> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The thread has ended before its time: its own error says why (a full disk, most likely).
        match (&mut self.compressor).await? {
            Err(e) => Err(self.explain(e)),
            Ok(_) => Err(anyhow!("the compressor ended early")),
        }
    }

    /// Ends the file: all bytes are hashed, compressed and in the spool.
    pub async fn finish(self) -> anyhow::Result<Spool> {
        drop(self.chunks);
        let Compressed { raw, packed } = self
            .compressor
            .await?
            .with_context(|| format!("write the spool file {}", self.path.display()))?;
        Ok(Spool {
            bytes: raw.bytes,
            stored_bytes: packed.bytes,
            sha256: raw.hex(),
            packed_sha256: packed.hex(),
            path: self.path,
        })
    }

    fn explain(&self, e: io::Error) -> anyhow::Error {
        anyhow!(e).context(format!("write the spool file {}", self.path.display()))
    }
}

impl Spool {
    /// The first eight digits of the sha256, as keys use them.
    pub fn sha8(&self) -> &str {
        &self.sha256[..8]
    }

    pub(super) fn reopen(&self) -> anyhow::Result<File> {
        File::open(&self.path).with_context(|| format!("open the spool file {}", self.path.display()))
    }
}

/// How an object is copied into a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repacking {
    /// Byte for byte.
    AsIs,
    /// Compressed anew, as [`Writer`] compresses.
    Compressed,
    /// As the original bytes, not compressed.
    Plain,
}

/// Copies an object, compressed or not, into `file` under `path`. The sums are of the copy, read back.
pub(super) fn repack(
    stored: impl Read,
    file: File,
    path: TempPath,
    repacking: Repacking,
) -> io::Result<Spool> {
    let mut copy = BufWriter::with_capacity(128 << 10, file);
    let (compressed, mut stored) = sniffed(stored)?;
    if repacking == Repacking::AsIs {
        io::copy(&mut stored, &mut copy)?;
    } else {
        let raw: &mut dyn Read = if compressed { &mut zstd::Decoder::new(&mut stored)? } else { &mut stored };
        if repacking == Repacking::Compressed {
            let mut encoder = zstd::Encoder::new(&mut copy, LEVEL)?;
            io::copy(raw, &mut encoder)?;
            encoder.finish()?;
        } else {
            io::copy(raw, &mut copy)?;
        }
    }
    copy.flush()?;
    let (compressed, mut copied) = sniffed(File::open(&path)?)?;
    let mut raw = Sum::default();
    if compressed {
        let mut decoder = Summed { inner: zstd::Decoder::new(&mut copied)?, sum: raw };
        io::copy(&mut decoder, &mut io::sink())?;
        raw = decoder.sum;
    } else {
        let mut plain = Summed { inner: &mut copied, sum: raw };
        io::copy(&mut plain, &mut io::sink())?;
        raw = plain.sum;
    }
    let packed = copied.into_inner().1.sum;
    Ok(Spool {
        bytes: raw.bytes,
        stored_bytes: packed.bytes,
        sha256: raw.hex(),
        packed_sha256: packed.hex(),
        path,
    })
}

/// What the compressor took and gave.
#[derive(Debug)]
struct Compressed {
    raw: Sum,
    packed: Sum,
}

/// The thread's work: ends when the sender is gone, whether it finished or gave up.
fn compress(mut chunks: mpsc::Receiver<Bytes>, file: File) -> io::Result<Compressed> {
    let mut raw = Sum::default();
    let packed = Summed { inner: file, sum: Sum::default() };
    let mut encoder = zstd::Encoder::new(BufWriter::with_capacity(128 << 10, packed), LEVEL)?;
    while let Some(chunk) = chunks.blocking_recv() {
        raw.add(&chunk);
        encoder.write_all(&chunk)?;
    }
    let packed = encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Compressed { raw, packed: packed.sum })
}

/// The sha256 and the number of bytes that went by.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    hash: Sha256,
    pub(super) bytes: u64,
}

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(super) fn hex(self) -> String {
        HEXLOWER.encode(&self.hash.finalize())
    }
}

/// A file that is summed up while it is read or written.
#[derive(Debug)]
pub(super) struct Summed<T> {
    pub(super) inner: T,
    pub(super) sum: Sum,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.sum.add(&out[..read]);
        Ok(read)
    }
}
