//! Small text objects other than files, which are created once and read as a whole.

use super::{Key, ObjectStore, ObjectStoreExt, PutMode, PutOptions, Store, explain_refusal};
use anyhow::{Context, ensure};
use object_store::Error::AlreadyExists;

/// Maximum size of an object that is read as a whole, in bytes.
const MAX_OBJECT_BYTES: u64 = 4 << 20;

impl Store {
    /// Creates a small object, durably. An existing object with the same bytes is accepted.
    ///
    /// # Errors
    /// Returns an error if the store rejects the put, or has other bytes under the key.
    pub async fn create_object(&self, key: String, body: String) -> anyhow::Result<()> {
        let key = key.as_str();
        let context = || format!("could not put the object {key} into the store {}", self.url);
        let create = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.objects.put_opts(&Key::parse(key)?, body.clone().into(), create).await {
            Ok(_) => Ok(()),
            Err(AlreadyExists { .. }) => {
                let found = self.read_object(key).await?;
                ensure!(
                    found == body,
                    "the object {key} exists in the store {} with other bytes\nhint: move that object away",
                    self.url
                );
                Ok(())
            }
            Err(e) => Err(self.explain_error(e.into())).with_context(context),
        }
    }

    /// Returns the text of a small object.
    ///
    /// # Errors
    /// Returns an error if there is no such object, or if it cannot be read, is no UTF-8, or is larger than 4 MiB.
    pub async fn read_object(&self, key: &str) -> anyhow::Result<String> {
        let context = || format!("could not read the object {key} from the store {}", self.url);
        let got = self.objects.get(&Key::parse(key)?).await;
        let got = got.map_err(|e| explain_refusal(e.into())).with_context(context)?;
        ensure!(got.meta.size <= MAX_OBJECT_BYTES, "the object {key} in the store {} is larger than 4 MiB", self.url);
        let bytes = got.bytes().await.with_context(context)?;
        String::from_utf8(bytes.to_vec()).with_context(context)
    }
}
