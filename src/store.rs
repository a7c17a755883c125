//! The store: every file's bytes, kept compressed, given back byte for byte.
//!
//! A file lives under `raw/<source>/YYYY/MM/DD/HHmm.csv.zst`, in a folder (`file:///…`), in memory (`memory:`, for
//! tests) or in a bucket (`s3://…`, with the cargo feature `s3`). It comes in through a [`Writer`], which hashes and
//! compresses while the bytes arrive, into a spool file; [`Store::place`] publishes the spool once somebody has said
//! yes to it. A spool that is dropped leaves nothing; one whose process was killed leaves a file in `spool/`, swept
//! after a day.
//!
//! **Nothing is ever overwritten.** `place` creates its key or tells what it found there: the same bytes (a crash
//! came between the put and the commit, and the retry brought them again) or others (another file of that window).
//! So a worker that lost its lease in the middle of an upload, and wakes after its successor has finished, cannot
//! change a file that the database already describes. One race is accepted: in a bucket, a file over 24 MiB
//! compressed goes up in parts, where create-only is not to be had; the key is looked up first, and two workers that
//! both find it free within one upload's time would leave the later one's bytes. [`Store::export`] would report that
//! by its sha256.
//!
//! Nothing here holds a file in memory: reading and writing are streams with bounded buffers.

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart,
};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_util::io::{StreamReader, SyncIoBridge};
use url::Url;

mod check;
mod object;
mod spool;
pub use check::{DAMAGED, ObjectSums, StoredObject, is_key, is_not_found};
pub use spool::{Repacking, Spool, Writer};
use spool::{Sum, Summed};

/// Parts of an upload to a bucket, and the largest chunk held while reading a spool, in bytes.
const PART: usize = 5 << 20;
/// A compressed file up to this many bytes is created in a bucket by one conditional put; larger ones go in parts.
const ONE_PUT: u64 = 24 << 20;
/// Spool files older than this belong to a process that was killed.
const STALE_SPOOL: TimeDelta = TimeDelta::days(1);

/// Where a file's bytes are kept; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    url: String,
    objects: Arc<dyn ObjectStore>,
    /// The store's folder, when it is one: there a spool is published by a link instead of a copy.
    root: Option<PathBuf>,
}

/// What [`Store::place`] found under the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The key was free and holds the file now.
    New,
    /// The key already held exactly these bytes, compressed by another hand perhaps.
    Same {
        /// sha256 of the compressed bytes that are there.
        packed_sha256: String,
    },
    /// The key holds another file; nothing was written.
    Taken,
}

/// The key of a window's file: `raw/copart/2026/11/20/1430.csv.zst`, and with the first eight hex digits of a sha256
/// `raw/copart/2026/11/20/1430-0a1b2c3d.csv.zst`, for a window whose plain key is another file's.
pub fn key(source: &str, window: DateTime<Utc>, sha8: Option<&str>) -> String {
    let suffix = sha8.map(|s| format!("-{s}")).unwrap_or_default();
    format!("raw/{source}/{}{suffix}.csv.zst", window.format("%Y/%m/%d/%H%M"))
}

impl Store {
    /// Opens the store at `url`, creating the folder of a `file:///…` one.
    ///
    /// Errors name the URL or the folder, and the way out.
    pub fn open(url: &str) -> anyhow::Result<Store> {
        let parsed = Url::parse(url)
            .with_context(|| format!("VINOPS_STORE {url:?} is not a URL; write file:///a/folder"))?;
        match parsed.scheme() {
            "file" => {
                let root = parsed
                    .to_file_path()
                    .map_err(|()| anyhow!("VINOPS_STORE {url:?} names no folder; write file:///a/folder"))?;
                std::fs::create_dir_all(&root).map_err(|e| unwritable(&root, e))?;
                sweep(&root.join(SPOOL));
                let objects = LocalFileSystem::new_with_prefix(&root)
                    .with_context(|| format!("open the store's folder {}", root.display()))?
                    .with_fsync(true);
                Ok(Store { url: url.to_owned(), objects: Arc::new(objects), root: Some(root) })
            }
            "memory" => Ok(Store { url: url.to_owned(), objects: Arc::new(InMemory::new()), root: None }),
            "s3" => Store::open_with(url, &[]),
            other => bail!("VINOPS_STORE {url:?}: the store knows file:///… and s3://…, not {other}://"),
        }
    }

    /// Opens a bucket with settings that come before those of the `AWS_…` variables, by the same names in lower case.
    ///
    /// # Errors
    /// Returns an error if `url` or a setting cannot be understood, or if this program was built without the feature `s3`.
    pub fn open_with(url: &str, settings: &[(&str, String)]) -> anyhow::Result<Store> {
        let parsed = Url::parse(url).with_context(|| format!("VINOPS_STORE {url:?} is not a URL"))?;
        Ok(Store { url: url.to_owned(), objects: bucket(&parsed, settings)?, root: None })
    }

    /// The URL it was opened with.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A sink for one file's bytes; also the proof that the store can be written.
    pub fn writer(&self) -> anyhow::Result<Writer> {
        let folder = self.spool_folder()?;
        Writer::open(&folder).map_err(|e| unwritable(&folder, e))
    }

    /// Returns the folder of spools, which exists then.
    fn spool_folder(&self) -> anyhow::Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(std::env::temp_dir()) };
        let folder = root.join(SPOOL);
        std::fs::create_dir_all(&folder).map_err(|e| unwritable(root, e))?;
        Ok(folder)
    }

    /// Publishes a finished spool under `key`, durably, unless something is there; the spool is left for the caller
    /// to drop, or to place under another key.
    pub async fn place(&self, spool: &Spool, key: &str) -> anyhow::Result<Placed> {
        let put = match &self.root {
            Some(root) => self.link(root, spool, key).await,
            None if spool.stored_bytes <= ONE_PUT => self.put(spool, key).await,
            None => self.put_in_parts(spool, key).await,
        };
        match put {
            Ok(()) => Ok(Placed::New),
            Err(e) if is_taken(&e) => match self.sums(key).await {
                Ok((found, packed_sha256)) if found == spool.sha256 => Ok(Placed::Same { packed_sha256 }),
                // Other bytes, or something that does not even decompress: either way, not ours to touch.
                _ => Ok(Placed::Taken),
            },
            Err(e) => Err(self.explain(e).context(format!("put {key} into the store {}", self.url))),
        }
    }

    /// The decompressed bytes under `key`, as a stream; meant for use inside `spawn_blocking`.
    pub async fn read(&self, key: &str) -> anyhow::Result<Reader> {
        // `read` may be called and dropped anywhere; opening the decoder reads nothing yet.
        let summed = Summed { inner: self.read_packed(key).await?, sum: Sum::default() };
        let decoder =
            zstd::Decoder::new(summed).with_context(|| format!("read {key} from the store {}", self.url))?;
        Ok(Reader { decoder })
    }

    /// The bytes under `key` as they are stored.
    async fn read_packed(&self, key: &str) -> anyhow::Result<Box<dyn Read + Send>> {
        let context = || format!("read {key} from the store {}", self.url);
        let got = self.objects.get(&Key::parse(key)?).await;
        let got = got.map_err(|e| explain_refusal(e.into())).with_context(context)?;
        Ok(match got.payload {
            GetResultPayload::File(file, _) => Box::new(file),
            GetResultPayload::Stream(stream) => {
                Box::new(SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other))))
            }
        })
    }

    /// Writes the file's original bytes to `out` and returns their number; an error if they do not have the sha256
    /// that the database recorded. `out` has received the bytes by then: write to a temporary file and rename it.
    pub async fn export(
        &self,
        key: &str,
        sha256: &str,
        mut out: impl Write + Send + 'static,
    ) -> anyhow::Result<u64> {
        let mut reader = self.read(key).await?;
        let (found, bytes) = spawn_blocking(move || digest(&mut reader, &mut out))
            .await?
            .with_context(|| format!("export {key} from the store {}", self.url))?;
        ensure!(
            found == sha256,
            "{key} in the store {} is damaged: its sha256 is {found}, the database recorded {sha256}; \
             restore that object from a backup",
            self.url
        );
        Ok(bytes)
    }

    /// The size of what is kept under `key`, compressed.
    pub async fn stored_bytes(&self, key: &str) -> anyhow::Result<u64> {
        let meta = self.objects.head(&Key::parse(key)?).await;
        Ok(meta.with_context(|| format!("look up {key} in the store {}", self.url))?.size)
    }

    /// The sha256 of the original bytes under `key`, and of the packed ones.
    pub async fn sums(&self, key: &str) -> anyhow::Result<(String, String)> {
        let mut reader = self.read(key).await?;
        let summing = spawn_blocking(move || {
            let (raw, _) = digest(&mut reader, &mut io::sink())?;
            Ok::<_, io::Error>((raw, reader.packed_sha256()?))
        });
        Ok(summing.await??)
    }

    /// The spool is already on the store's file system: a hard link publishes it, whole or not at all.
    async fn link(&self, root: &Path, spool: &Spool, key: &str) -> anyhow::Result<()> {
        let file = spool.reopen()?;
        spawn_blocking(move || file.sync_all()).await?.context("sync the spool")?;
        let name = spool.path.strip_prefix(root).context("the spool is not in the store's folder")?;
        let from = Key::parse(name.to_string_lossy())?;
        Ok(self.objects.copy_if_not_exists(&from, &Key::parse(key)?).await?)
    }

    async fn put(&self, spool: &Spool, key: &str) -> anyhow::Result<()> {
        let mut file = spool.reopen()?;
        let chunks = spawn_blocking(move || -> io::Result<Vec<Bytes>> {
            let mut chunks = Vec::new();
            while let Some(chunk) = next_part(&mut file)? {
                chunks.push(chunk);
            }
            Ok(chunks)
        });
        let payload: PutPayload = chunks.await?.context("read the spool")?.into_iter().collect();
        let create = PutOptions { mode: PutMode::Create, ..Default::default() };
        self.objects.put_opts(&Key::parse(key)?, payload, create).await?;
        Ok(())
    }

    async fn put_in_parts(&self, spool: &Spool, key: &str) -> anyhow::Result<()> {
        let key = Key::parse(key)?;
        match self.objects.head(&key).await {
            Err(object_store::Error::NotFound { .. }) => {}
            Ok(_) => {
                let source = "found before the upload".into();
                return Err(object_store::Error::AlreadyExists { path: key.to_string(), source }.into());
            }
            Err(e) => return Err(e.into()),
        }
        let mut upload = WriteMultipart::new_with_chunk_size(self.objects.put_multipart(&key).await?, PART);
        let mut file = spool.reopen()?;
        loop {
            let part;
            (file, part) = spawn_blocking(move || next_part(&mut file).map(|p| (file, p))).await??;
            let Some(part) = part else { break };
            upload.wait_for_capacity(1).await?;
            upload.put(part);
        }
        upload.finish().await?;
        Ok(())
    }

    /// Names the folder and the way out where the reason is the file system's.
    fn explain(&self, e: anyhow::Error) -> anyhow::Error {
        let kind = e.chain().find_map(|c| c.downcast_ref::<io::Error>()).map(io::Error::kind);
        match (&self.root, kind) {
            (Some(root), Some(kind)) => unwritable(root, kind.into()).context(format!("{e:#}")),
            _ => explain_refusal(e),
        }
    }
}

/// A file's original bytes, decompressed while they are read. What is read of the packed ones is summed up: a sixth of
/// the work that summing up the original ones would be.
pub struct Reader {
    decoder: zstd::Decoder<'static, BufReader<Summed<Box<dyn Read + Send>>>>,
}

impl Reader {
    /// The sha256 of the packed bytes, whole: what has not been read of them yet is read now.
    pub fn packed_sha256(self) -> io::Result<String> {
        let mut packed = self.decoder.finish();
        io::copy(&mut packed, &mut io::sink())?;
        Ok(packed.into_inner().sum.hex())
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

/// The folder of unpublished files, inside a `file:///…` store.
const SPOOL: &str = "spool";

/// A bucket, or a folder of one: `s3://bucket/folder`. Keys, region and endpoint come from the `AWS_…` variables, which
/// object_store reads itself: they are Amazon's names, known to every tool that hands them out.
#[cfg(feature = "s3")]
fn bucket(url: &Url, settings: &[(&str, String)]) -> anyhow::Result<Arc<dyn ObjectStore>> {
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
    // The process has one TLS provider; object_store asks for whichever is installed.
    _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder =
        AmazonS3Builder::from_env().with_url(url.as_str()).with_conditional_put(S3ConditionalPut::ETagMatch);
    for (name, value) in settings {
        builder = builder.with_config(name.parse()?, value);
    }
    let objects = builder.build().with_context(|| format!("open the store {url}"))?;
    let folder =
        Key::from_url_path(url.path()).with_context(|| format!("the folder in VINOPS_STORE {url}"))?;
    Ok(Arc::new(object_store::prefix::PrefixStore::new(objects, folder)))
}

#[cfg(not(feature = "s3"))]
fn bucket(url: &Url, _: &[(&str, String)]) -> anyhow::Result<Arc<dyn ObjectStore>> {
    bail!(
        "VINOPS_STORE {url}: this vinops was built without the cargo feature `s3`; \
         build it with --features s3, or use file:///a/folder"
    )
}

fn is_taken(e: &anyhow::Error) -> bool {
    matches!(e.downcast_ref(), Some(object_store::Error::AlreadyExists { .. }))
}

/// Names the variables of a bucket's keys where it has refused them.
fn explain_refusal(e: anyhow::Error) -> anyhow::Error {
    use object_store::Error::{Generic, PermissionDenied, Unauthenticated};
    let refused = match e.downcast_ref() {
        Some(PermissionDenied { .. } | Unauthenticated { .. }) => true,
        // object_store gives the errors of listing no variant of their own
        Some(Generic { source, .. }) => {
            let said = source.to_string();
            said.contains("status code: 403") || said.contains("status code: 401")
        }
        _ => false,
    };
    if !refused {
        return e;
    }
    e.context(
        "the bucket refuses these keys: look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and its policy",
    )
}

fn unwritable(folder: &Path, e: io::Error) -> anyhow::Error {
    let folder = folder.display();
    let way_out = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there, or",
        _ => "give it to this user (chown), or",
    };
    anyhow!(e).context(format!(
        "write to the store's folder {folder}: {way_out} set VINOPS_STORE=file:///a/folder/of/yours"
    ))
}

/// Removes what killed processes left; nothing depends on its success.
fn sweep(spool: &Path) {
    let Ok(entries) = std::fs::read_dir(spool) else { return };
    let stale = |e: &std::fs::DirEntry| {
        let written = e.metadata().and_then(|m| m.modified());
        written.is_ok_and(|w| crate::config::now() - DateTime::from(w) > STALE_SPOOL)
    };
    for entry in entries.flatten().filter(stale) {
        _ = std::fs::remove_file(entry.path());
    }
}

/// At most one part's worth of bytes; `None` at the end.
fn next_part(file: &mut std::fs::File) -> io::Result<Option<Bytes>> {
    let mut part = Vec::with_capacity(PART);
    file.take(PART as u64).read_to_end(&mut part)?;
    Ok((!part.is_empty()).then(|| part.into()))
}

fn digest(from: &mut impl Read, to: &mut impl Write) -> io::Result<(String, u64)> {
    let mut summed = Summed { inner: from, sum: Sum::default() };
    io::copy(&mut summed, to)?;
    to.flush()?;
    let bytes = summed.sum.bytes;
    Ok((summed.sum.hex(), bytes))
}

#[cfg(test)]
mod tests;
