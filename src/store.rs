//! The store of files: the bytes of each file, compressed, and returned byte for byte.
//!
//! A file has the key `raw/<source>/YYYY/MM/DD/HHmm.csv.zst`, in a folder (`file:///…`), in memory (`memory:`, for
//! tests) or in a bucket (`s3://…`, with the cargo feature `s3`). A [`StoreWriter`] hashes and compresses the bytes
//! into a spool file while they arrive. [`Store::publish_spool`] publishes the spool once the caller has accepted the
//! file. A dropped spool leaves nothing. A process that was killed leaves a file in `spool/`, which is removed after a
//! day.
//!
//! **Nothing is ever overwritten.** `place` creates its key, or returns what is under the key: the same bytes (the
//! process crashed between put and commit, and the retry has the same file) or other bytes (another file of that
//! window). So a worker that lost its lease during an upload, and resumes after its successor has finished, cannot
//! change a file that the database already describes.
//!
//! Accepted: one race. In a bucket, a file over 24 MiB compressed is uploaded in parts, for which there is no
//! create-only mode. The key is looked up first. If two workers both find the key free within the duration of one
//! upload, the later upload wins. [`Store::export_file`] would report the difference by its sha256.
//!
//! No file is held in memory as a whole: reading and writing are streams with bounded buffers.

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::Url;

mod check;
mod spool;
mod text_object;
pub use check::{DAMAGED_FOLDER, ObjectSums, StoredObject, is_key, is_not_found};
use spool::{Checksum, ChecksumStream};
pub use spool::{SpoolFile, SpoolFormat, StoreWriter};

/// Size of the parts of a multipart upload, and of the chunks in which a spool is read, in bytes.
const PART_BYTES: usize = 5 << 20;
/// A compressed file up to this many bytes is created in a bucket by one conditional put. Larger files are uploaded in
/// parts.
const MAX_SINGLE_PUT_BYTES: u64 = 24 << 20;
/// Age from which a spool file is taken to belong to a process that was killed.
const STALE_SPOOL_AGE: TimeDelta = TimeDelta::days(1);

/// A store of files and small objects. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Store {
    url: String,
    objects: Arc<dyn ObjectStore>,
    /// The store's folder, if it is one. In a folder a spool is published by a hard link instead of a copy.
    root: Option<PathBuf>,
}

/// Result of [`Store::publish_spool`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The key was free, and now has the file.
    New,
    /// The key already had the same original bytes, which another process may have compressed differently.
    Same {
        /// sha256 of the compressed bytes under the key.
        packed_sha256: String,
    },
    /// The key has another file, and nothing was written.
    Taken,
}

/// Returns the key of a window's file, such as `raw/copart/2026/11/20/1430.csv.zst`.
///
/// With the first eight hex digits of a sha256 the key is `raw/copart/2026/11/20/1430-0a1b2c3d.csv.zst`, for a window
/// whose plain key has another file.
pub fn object_key(source: &str, window: DateTime<Utc>, sha8: Option<&str>) -> String {
    let suffix = sha8.map(|s| format!("-{s}")).unwrap_or_default();
    format!("raw/{source}/{}{suffix}.csv.zst", window.format("%Y/%m/%d/%H%M"))
}

impl Store {
    /// Opens the store at `url`. A missing folder is created.
    ///
    /// # Errors
    /// Returns an error if the URL is not valid, or if the folder cannot be created. The error names the fix.
    pub fn open(url: &str) -> anyhow::Result<Store> {
        let parsed =
            Url::parse(url).with_context(|| format!("VINOPS_STORE {url:?} is not a URL, such as file:///a/folder"))?;
        match parsed.scheme() {
            "file" => {
                let root = parsed
                    .to_file_path()
                    .map_err(|()| anyhow!("VINOPS_STORE {url:?} names no folder\nhint: use file:///a/folder"))?;
                std::fs::create_dir_all(&root).map_err(|e| unwritable_error(&root, e))?;
                remove_stale_spools(&root.join(SPOOL_FOLDER));
                let objects = LocalFileSystem::new_with_prefix(&root)
                    .with_context(|| format!("could not open the store folder {}", root.display()))?
                    .with_fsync(true);
                Ok(Store { url: url.to_owned(), objects: Arc::new(objects), root: Some(root) })
            }
            "memory" => Ok(Store { url: url.to_owned(), objects: Arc::new(InMemory::new()), root: None }),
            "s3" => Store::open_with_settings(url, &[]),
            other => {
                bail!("VINOPS_STORE {url:?} has the unknown scheme \"{other}\"; expected one of file, s3")
            }
        }
    }

    /// Opens a bucket with settings that override the `AWS_…` variables. The settings have the same names in lower
    /// case.
    ///
    /// # Errors
    /// Returns an error if `url` or a setting is not valid, or if this program was built without the feature `s3`.
    pub fn open_with_settings(url: &str, settings: &[(&str, String)]) -> anyhow::Result<Store> {
        let parsed = Url::parse(url).with_context(|| format!("VINOPS_STORE {url:?} is not a URL"))?;
        Ok(Store { url: url.to_owned(), objects: open_bucket(&parsed, settings)?, root: None })
    }

    /// Returns the URL with which the store was opened.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a writer for one file's bytes. Success also shows that the store is writable.
    pub fn writer(&self) -> anyhow::Result<StoreWriter> {
        let folder = self.spool_folder()?;
        StoreWriter::create(&folder).map_err(|e| unwritable_error(&folder, e))
    }

    /// Returns the folder of spools, which is created if it is missing.
    fn spool_folder(&self) -> anyhow::Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(std::env::temp_dir()) };
        let folder = root.join(SPOOL_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|e| unwritable_error(root, e))?;
        Ok(folder)
    }

    /// Publishes a finished spool under `key`, durably, unless the key is in use.
    ///
    /// The caller may drop the spool afterwards, or place it under another key.
    pub async fn publish_spool(&self, spool: &SpoolFile, key: &str) -> anyhow::Result<PublishOutcome> {
        let put = match &self.root {
            Some(root) => self.link_spool(root, spool, key).await,
            None if spool.stored_bytes <= MAX_SINGLE_PUT_BYTES => self.put_spool(spool, key).await,
            None => self.put_spool_parts(spool, key).await,
        };
        match put {
            Ok(()) => Ok(PublishOutcome::New),
            Err(e) if is_taken(&e) => match self.file_sums(key).await {
                Ok((found, packed_sha256)) if found == spool.sha256 => Ok(PublishOutcome::Same { packed_sha256 }),
                // other bytes, or an object that does not decompress: in both cases the object stays as it is
                _ => Ok(PublishOutcome::Taken),
            },
            Err(e) => Err(self
                .explain_error(e)
                .context(format!("could not put the object {key} into the store {}", self.url))),
        }
    }

    /// Returns a reader of the decompressed bytes under `key`, for use inside `spawn_blocking`.
    pub async fn open_reader(&self, key: &str) -> anyhow::Result<StoreReader> {
        // async code may call `read` and drop the reader, since opening the decoder reads nothing yet
        let summed = ChecksumStream { inner: self.read_packed(key).await?, sum: Checksum::default() };
        let decoder = zstd::Decoder::new(summed)
            .with_context(|| format!("could not read the object {key} from the store {}", self.url))?;
        Ok(StoreReader { decoder })
    }

    /// Returns a reader of the stored bytes under `key`.
    async fn read_packed(&self, key: &str) -> anyhow::Result<Box<dyn Read + Send>> {
        let context = || format!("could not read the object {key} from the store {}", self.url);
        let got = self.objects.get(&Key::parse(key)?).await;
        let got = got.map_err(|e| explain_refusal(e.into())).with_context(context)?;
        Ok(match got.payload {
            GetResultPayload::File(file, _) => Box::new(file),
            GetResultPayload::Stream(stream) => {
                Box::new(SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other))))
            }
        })
    }

    /// Writes the original bytes of a file to `out`. Returns their number.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read, or if its bytes do not have the given sha256. `out` has the bytes
    /// by then, so callers write to a temporary file and rename it.
    pub async fn export_file(
        &self,
        key: &str,
        sha256: &str,
        mut out: impl Write + Send + 'static,
    ) -> anyhow::Result<u64> {
        let mut reader = self.open_reader(key).await?;
        let (found, bytes) = spawn_blocking(move || copy_and_hash(&mut reader, &mut out))
            .await?
            .with_context(|| format!("could not export the object {key} from the store {}", self.url))?;
        ensure!(
            found == sha256,
            "the object {key} in the store {} is damaged\ndetail: its sha256 is {found}, the database recorded {sha256}\n\
             hint: restore the object from a backup",
            self.url
        );
        Ok(bytes)
    }

    /// Returns the size of the object under `key` in bytes, compressed.
    pub async fn stored_bytes(&self, key: &str) -> anyhow::Result<u64> {
        let meta = self.objects.head(&Key::parse(key)?).await;
        Ok(meta.with_context(|| format!("could not look up the object {key} in the store {}", self.url))?.size)
    }

    /// Returns the sha256 of the original bytes under `key`, and that of the stored bytes.
    pub async fn file_sums(&self, key: &str) -> anyhow::Result<(String, String)> {
        let mut reader = self.open_reader(key).await?;
        let summing = spawn_blocking(move || {
            let (raw, _) = copy_and_hash(&mut reader, &mut io::sink())?;
            Ok::<_, io::Error>((raw, reader.packed_sha256()?))
        });
        Ok(summing.await??)
    }

    /// Publishes a spool by a hard link, which is atomic. The spool is on the store's file system.
    async fn link_spool(&self, root: &Path, spool: &SpoolFile, key: &str) -> anyhow::Result<()> {
        let file = spool.reopen()?;
        spawn_blocking(move || file.sync_all()).await?.context("could not sync the spool file")?;
        let name = spool.path.strip_prefix(root).context("the spool file is not in the store folder")?;
        let from = Key::parse(name.to_string_lossy())?;
        Ok(self.objects.copy_if_not_exists(&from, &Key::parse(key)?).await?)
    }

    async fn put_spool(&self, spool: &SpoolFile, key: &str) -> anyhow::Result<()> {
        let mut file = spool.reopen()?;
        let chunks = spawn_blocking(move || -> io::Result<Vec<Bytes>> {
            let mut chunks = Vec::new();
            while let Some(chunk) = read_part(&mut file)? {
                chunks.push(chunk);
            }
            Ok(chunks)
        });
        let payload: PutPayload = chunks.await?.context("could not read the spool file")?.into_iter().collect();
        let create = PutOptions { mode: PutMode::Create, ..Default::default() };
        self.objects.put_opts(&Key::parse(key)?, payload, create).await?;
        Ok(())
    }

    async fn put_spool_parts(&self, spool: &SpoolFile, key: &str) -> anyhow::Result<()> {
        let key = Key::parse(key)?;
        match self.objects.head(&key).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Ok(_) => {
                let source = "found before the upload".into();
                return Err(object_store::Error::AlreadyExists { path: key.to_string(), source }.into());
            }
            Err(e) => return Err(e.into()),
        }
        let mut upload = WriteMultipart::new_with_chunk_size(self.objects.put_multipart(&key).await?, PART_BYTES);
        let mut file = spool.reopen()?;
        loop {
            let part;
            (file, part) = spawn_blocking(move || read_part(&mut file).map(|p| (file, p))).await??;
            let Some(part) = part else { break };
            upload.wait_for_capacity(1).await?;
            upload.put(part);
        }
        upload.finish().await?;
        Ok(())
    }

    /// Adds a hint to an error of the file system or of a bucket's access control.
    fn explain_error(&self, e: anyhow::Error) -> anyhow::Error {
        let kind = e.chain().find_map(|c| c.downcast_ref::<io::Error>()).map(io::Error::kind);
        match (&self.root, kind) {
            (Some(root), Some(kind)) => anyhow!("{e:#}\nhint: {}", write_hint(root, kind)),
            _ => explain_refusal(e),
        }
    }
}

/// A reader of a file's original bytes, which are decompressed while they are read.
///
/// The stored bytes are hashed on the way, which is a sixth of the work of hashing the original bytes.
pub struct StoreReader {
    decoder: zstd::Decoder<'static, BufReader<ChecksumStream<Box<dyn Read + Send>>>>,
}

impl StoreReader {
    /// Returns the sha256 of all stored bytes, and reads those that have not been read yet.
    pub fn packed_sha256(self) -> io::Result<String> {
        let mut packed = self.decoder.finish();
        io::copy(&mut packed, &mut io::sink())?;
        Ok(packed.into_inner().sum.into_hex())
    }
}

impl Read for StoreReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

/// The folder of unpublished files in a `file:///…` store.
const SPOOL_FOLDER: &str = "spool";

/// Opens a bucket, or a folder of a bucket: `s3://bucket/folder`.
///
/// object_store reads keys, region and endpoint from the `AWS_…` variables. These are the names of Amazon's own tools.
#[cfg(feature = "s3")]
fn open_bucket(url: &Url, settings: &[(&str, String)]) -> anyhow::Result<Arc<dyn ObjectStore>> {
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
    // object_store needs a TLS provider for the whole process
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder =
        AmazonS3Builder::from_env().with_url(url.as_str()).with_conditional_put(S3ConditionalPut::ETagMatch);
    for (name, value) in settings {
        builder = builder.with_config(name.parse()?, value);
    }
    let objects = builder.build().with_context(|| format!("could not open the store {url}"))?;
    let folder = Key::from_url_path(url.path()).with_context(|| format!("VINOPS_STORE {url} has an invalid folder"))?;
    Ok(Arc::new(object_store::prefix::PrefixStore::new(objects, folder)))
}

#[cfg(not(feature = "s3"))]
fn open_bucket(url: &Url, _: &[(&str, String)]) -> anyhow::Result<Arc<dyn ObjectStore>> {
    bail!(
        "VINOPS_STORE {url} needs a program built with the cargo feature `s3`\n\
         hint: build with --features s3, or use file:///a/folder"
    )
}

fn is_taken(e: &anyhow::Error) -> bool {
    matches!(e.downcast_ref(), Some(object_store::Error::AlreadyExists { .. }))
}

/// Adds a hint to the error of a bucket that rejects the credentials.
fn explain_refusal(e: anyhow::Error) -> anyhow::Error {
    use object_store::Error::{Generic, PermissionDenied, Unauthenticated};
    let refused = match e.downcast_ref() {
        Some(PermissionDenied { .. } | Unauthenticated { .. }) => true,
        // object_store has no error variant for a rejected listing
        Some(Generic { source, .. }) => {
            let said = source.to_string();
            said.contains("status code: 403") || said.contains("status code: 401")
        }
        _ => false,
    };
    if !refused {
        return e;
    }
    anyhow!(
        "the bucket rejects the credentials: {e:#}\nhint: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and \
         the policy of the bucket"
    )
}

/// Returns the error of a folder that is not writable, with a hint.
fn unwritable_error(folder: &Path, e: io::Error) -> anyhow::Error {
    anyhow!("could not write to the store folder {}: {e}\nhint: {}", folder.display(), write_hint(folder, e.kind()))
}

/// Returns the hint for a failed write to the store's folder.
fn write_hint(folder: &Path, kind: io::ErrorKind) -> String {
    let folder = folder.display();
    let fix = match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("free some space in {folder}"),
        _ => format!("give {folder} to this user (chown)"),
    };
    format!("{fix}, or set VINOPS_STORE=file:///another/folder")
}

/// Removes spool files of killed processes. Errors are ignored, since no caller depends on the result.
fn remove_stale_spools(spool: &Path) {
    let Ok(entries) = std::fs::read_dir(spool) else { return };
    let stale = |e: &std::fs::DirEntry| {
        let written = e.metadata().and_then(|m| m.modified());
        written.is_ok_and(|w| crate::config::now() - DateTime::from(w) > STALE_SPOOL_AGE)
    };
    for entry in entries.flatten().filter(stale) {
        _ = std::fs::remove_file(entry.path());
    }
}

/// Returns the bytes of at most one part, or `None` at the end.
fn read_part(file: &mut std::fs::File) -> io::Result<Option<Bytes>> {
    let mut part = Vec::with_capacity(PART_BYTES);
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok((!part.is_empty()).then(|| part.into()))
}

fn copy_and_hash(from: &mut impl Read, to: &mut impl Write) -> io::Result<(String, u64)> {
    let mut summed = ChecksumStream { inner: from, sum: Checksum::default() };
    io::copy(&mut summed, to)?;
    to.flush()?;
    let bytes = summed.sum.bytes;
    Ok((summed.sum.into_hex(), bytes))
}

#[cfg(test)]
mod tests;
