//! Listing and verification of the store's objects: which keys exist, and which bytes they have. Objects can be moved
//! aside, or copied to the key where they belong.
//!
//! No object is lost. [`Store::move_aside`] copies an object to `damaged/`, reads the copy back, and only then deletes
//! the original. A process that is killed in between leaves both, and a repeated call continues from there.

use super::spool::{SpoolFormat, copy_to_spool};
use super::{
    Checksum, ChecksumStream, Key, ObjectStore, ObjectStoreExt, SpoolFile, Store, copy_and_hash, explain_refusal,
};
use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use std::io::{self, Cursor, Read};
use tokio::task::spawn_blocking;

/// The folder of objects that were moved aside.
pub const DAMAGED_FOLDER: &str = "damaged";

/// The first bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// An object in a listing of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The key, such as `raw/copart/2026/11/20/1430.csv.zst`.
    pub key: String,
    /// Size of the stored bytes, compressed.
    pub stored_bytes: u64,
    /// Time of the last modification.
    pub modified: DateTime<Utc>,
}

/// The checksums of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSums {
    /// sha256 of the original bytes, or the error of the decompression.
    pub sha256: Result<String, String>,
    /// Size of the original bytes. 0 if the stored bytes do not decompress.
    pub bytes: u64,
    /// sha256 of the stored bytes.
    pub packed_sha256: String,
    /// True if the stored bytes are a zstd frame. A plain CSV file is not one.
    pub compressed: bool,
}

/// Returns true if the error means that there is no such object.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(object_store::Error::NotFound { .. })))
}

/// Returns true if `text` can be a key or a folder of keys.
pub fn is_key(text: &str) -> bool {
    Key::parse(text).is_ok()
}

impl Store {
    /// Returns the folders below `top` that contain objects, including `top`, in the order of their names.
    ///
    /// # Errors
    /// Returns an error if the store cannot be listed.
    pub async fn list_folders(&self, top: &str) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut open = vec![Key::parse(top)?];
        while let Some(folder) = open.pop() {
            let listed = self.objects.list_with_delimiter(Some(&folder)).await;
            let listed = listed
                .map_err(|e| explain_refusal(e.into()))
                .with_context(|| format!("could not list the folder {folder} in the store {}", self.url))?;
            open.extend(listed.common_prefixes);
            if !listed.objects.is_empty() {
                found.push(folder.to_string());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Returns the objects of one folder, in the order of their keys. The result is empty if the folder does not exist.
    ///
    /// # Errors
    /// Returns an error if the store cannot be listed, or if `folder` cannot be part of a key.
    pub async fn list_folder(&self, folder: &str) -> anyhow::Result<Vec<StoredObject>> {
        let prefix = Key::parse(folder)?;
        let listed = self.objects.list_with_delimiter(Some(&prefix)).await;
        let listed = listed
            .map_err(|e| explain_refusal(e.into()))
            .with_context(|| format!("could not list the folder {folder} in the store {}", self.url))?;
        let mut objects: Vec<StoredObject> = listed
            .objects
            .into_iter()
            .map(|meta| StoredObject {
                key: meta.location.to_string(),
                stored_bytes: meta.size,
                modified: meta.last_modified,
            })
            .collect();
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Returns the checksums of the object under `key`. All stored bytes are read, even if they do not decompress.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read. Such an error does not mean that its bytes are damaged.
    pub async fn object_sums(&self, key: &str) -> anyhow::Result<ObjectSums> {
        let packed = self.read_packed(key).await?;
        let summed = spawn_blocking(move || checksum_object(packed)).await?;
        summed.with_context(|| format!("could not read the object {key} from the store {}", self.url))
    }

    /// Copies the object under `key` into a spool, as it is or in another format. The checksums returned are those of
    /// the copy.
    ///
    /// # Errors
    /// Returns an error if the object cannot be read or does not decompress, or if the spool cannot be written.
    pub async fn spool_copy(&self, key: &str, repacking: SpoolFormat) -> anyhow::Result<SpoolFile> {
        let folder = self.spool_folder()?;
        let packed = self.read_packed(key).await?;
        let copied = spawn_blocking(move || {
            let (file, path) = tempfile::Builder::new().prefix("vinops-").tempfile_in(folder)?.into_parts();
            copy_to_spool(packed, file, path, repacking)
        });
        copied.await?.with_context(|| format!("could not copy the object {key} from the store {}", self.url))
    }

    /// Moves the object under `key` to `damaged/<key>.<8 hex digits>`. Returns the new key.
    ///
    /// `packed_sha256` is the sha256 of the object's stored bytes, and its first digits are those of the new key.
    ///
    /// # Errors
    /// Returns an error if the copy cannot be made, or does not have that sha256. The object is still under `key` then.
    pub async fn move_aside(&self, key: &str, packed_sha256: &str) -> anyhow::Result<String> {
        use object_store::Error::{AlreadyExists, NotFound, NotImplemented, NotSupported};
        let aside = format!("{}/{key}.{}", DAMAGED_FOLDER, &packed_sha256[..8]);
        let context = || format!("could not move the object {key} in the store {} to {aside}", self.url);
        let (from, to) = (Key::parse(key)?, Key::parse(&aside)?);
        match self.objects.copy_if_not_exists(&from, &to).await {
            Ok(()) | Err(AlreadyExists { .. }) => {}
            // a bucket has no create-only copy, but the key contains the hash, so an existing copy has the same bytes
            Err(NotSupported { .. } | NotImplemented { .. }) => match self.objects.head(&to).await {
                Ok(_) => {}
                Err(NotFound { .. }) => self.objects.copy(&from, &to).await.with_context(context)?,
                Err(e) => return Err(e).with_context(context),
            },
            Err(e) => return Err(e).with_context(context),
        }
        let copied = self.object_sums(&aside).await?;
        ensure!(
            copied.packed_sha256 == packed_sha256,
            "the object {aside} in the store {} has other bytes than {key}\ndetail: nothing was moved",
            self.url
        );
        self.objects.delete(&from).await.with_context(context)?;
        Ok(aside)
    }
}

/// Reads an object to its end. Returns the checksums of its stored and of its decompressed bytes.
fn checksum_object(packed: impl Read) -> io::Result<ObjectSums> {
    let (compressed, mut packed) = detect_zstd(ErrorCapture { inner: packed, broken: None })?;
    let raw = if compressed {
        zstd::Decoder::new(&mut packed).and_then(|mut decoder| copy_and_hash(&mut decoder, &mut io::sink()))
    } else {
        copy_and_hash(&mut packed, &mut io::sink())
    };
    io::copy(&mut packed, &mut io::sink())?;
    let (_, ChecksumStream { inner: watched, sum }) = packed.into_inner();
    match watched.broken {
        // the stream ended early, so the decoder's error does not describe the bytes
        Some(e) => Err(e),
        None => {
            let bytes = raw.as_ref().map_or(0, |(_, bytes)| *bytes);
            let sha256 = raw.map(|(sha256, _)| sha256).map_err(|e| e.to_string());
            Ok(ObjectSums { sha256, bytes, packed_sha256: sum.into_hex(), compressed })
        }
    }
}

/// The first bytes of an object, followed by the rest.
type SniffedReader<R> = io::Chain<Cursor<Vec<u8>>, ChecksumStream<R>>;

/// Returns true if an object is compressed, judged by its first bytes, together with a reader of the whole object.
pub(super) fn detect_zstd<R: Read>(packed: R) -> io::Result<(bool, SniffedReader<R>)> {
    let mut packed = ChecksumStream { inner: packed, sum: Checksum::default() };
    let mut head = Vec::with_capacity(ZSTD_MAGIC.len());
    (&mut packed).take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok((head == ZSTD_MAGIC, Cursor::new(head).chain(packed)))
}

/// A reader that stores its own error, which a decoder above would report as an error of the format.
struct ErrorCapture<R> {
    inner: R,
    broken: Option<io::Error>,
}

impl<R: Read> Read for ErrorCapture<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect_err(|e| {
            if e.kind() != io::ErrorKind::Interrupted {
                self.broken = Some(io::Error::new(e.kind(), e.to_string()));
            }
        })
    }
}
