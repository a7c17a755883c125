//! The repair of a file from an object that contains the file's bytes.
//!
//! The bytes are copied into a spool and compared with the row before anything in the store changes. Then a damaged
//! object is moved aside, and the spool is placed under the key, create-only. The next repair continues a killed one:
//! it looks up objects that were moved aside under `damaged/`, and does not change a file that is intact by then.

use super::check::{FileProblem, is_compressed};
use crate::cli::error_text::error_line;
use crate::cli::session::os_user;
use crate::store::{PublishOutcome, SpoolFile, SpoolFormat, Store, is_not_found};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sqlx::PgPool;
use std::collections::HashMap;

/// Restores files from copies in the store.
pub struct FileRepairer<'a> {
    pool: &'a PgPool,
    store: &'a Store,
    /// The new keys of objects that were moved aside, by their old keys. One of them may contain another file's bytes.
    moved: HashMap<String, String>,
}

impl<'a> FileRepairer<'a> {
    /// Returns a repairer that has changed nothing yet.
    pub fn new(pool: &'a PgPool, store: &'a Store) -> FileRepairer<'a> {
        FileRepairer { pool, store, moved: HashMap::new() }
    }

    /// Records an operator action on the store.
    pub async fn record_action(&self, action: &str, reason: &str, details: &Value) -> anyhow::Result<()> {
        sqlx::query!(
            "-- store check: note a repair\n select fleet.note_action($1, $2, $3, $4, $5)",
            os_user(),
            action,
            self.store.url(),
            reason,
            details
        )
        .execute(self.pool)
        .await
        .context("could not record the repair")?;
        Ok(())
    }

    /// Sets the problem's outcome to the action that [`Self::repair_file`] would take.
    pub fn plan_repair(&self, problem: &mut FileProblem) {
        problem.outcome = Some(match &problem.found_as {
            Some(found) if *found == problem.key => "would be compressed again".to_owned(),
            Some(found) => format!("would be copied from {found}"),
            None => NOT_FOUND_NOTE.to_owned(),
        });
    }

    /// Restores the file's bytes under its key. Sets the problem's outcome.
    pub async fn repair_file(&mut self, problem: &mut FileProblem) {
        let Some(found) = problem.found_as.clone() else {
            problem.outcome = Some(NOT_FOUND_NOTE.to_owned());
            return;
        };
        let repaired = self.restore_bytes(problem, &found).await;
        problem.repaired = repaired.is_ok();
        problem.outcome = Some(match repaired {
            Ok(done) => done,
            Err(error) => format!("not repaired: {}", error_line(&error)),
        });
    }

    /// Copies the bytes from the found object to the file's key. Returns a description of the repair.
    async fn restore_bytes(&mut self, problem: &FileProblem, found: &str) -> anyhow::Result<String> {
        let key = &problem.key;
        let from = self.moved.get(found).map_or(found, String::as_str);
        let spool = self.spool_object(problem, from).await?;
        // The object is read again, because the check may be hours old.
        let there = match self.store.stored_bytes(key).await {
            Ok(_) => Some(self.store.object_sums(key).await?),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let mut done = format!("copied from {from}");
        if let Some(there) = there {
            if there.packed_sha256 == spool.packed_sha256 {
                return Ok("is intact by now".to_owned());
            }
            self.expect_unshared(key, there.sha256.as_deref().unwrap_or_default(), &problem.sha256).await?;
            let aside = self.store.move_aside(key, &there.packed_sha256).await?;
            done = match from == key {
                true => format!("compressed again; the old object is {aside}"),
                false => format!("{done}; the old object is {aside}"),
            };
            self.moved.insert(key.clone(), aside);
        }
        match self.store.publish_spool(&spool, key).await? {
            PublishOutcome::New => Ok(done),
            PublishOutcome::Same { packed_sha256 } if packed_sha256 == spool.packed_sha256 => Ok(done),
            PublishOutcome::Same { .. } | PublishOutcome::Taken => {
                bail!("another object was placed under {key} meanwhile")
            }
        }
    }

    /// Copies an object into a spool that has the recorded checksums.
    async fn spool_object(&self, problem: &FileProblem, from: &str) -> anyhow::Result<SpoolFile> {
        let packed = if is_compressed(&problem.key) { SpoolFormat::Compressed } else { SpoolFormat::Plain };
        let sums = self.store.object_sums(from).await?;
        let as_is = sums.compressed == is_compressed(&problem.key)
            && problem.packed_sha256.as_ref().is_none_or(|recorded| *recorded == sums.packed_sha256);
        let repacking = if as_is { SpoolFormat::AsIs } else { packed };
        let spool = self.store.spool_copy(from, repacking).await?;
        ensure!(spool.sha256 == problem.sha256, "{from} contains other bytes by now, sha256 {}", spool.sha256);
        if let Some(recorded) = problem.packed_sha256.as_ref().filter(|it| **it != spool.packed_sha256) {
            bail!(
                "{from} contains the file, but this program compresses it to sha256 {}, and {recorded} is recorded",
                spool.packed_sha256
            );
        }
        Ok(spool)
    }

    /// Returns an error if the object is the file of another row. Two rows should never have one key, but such an
    /// object must not be moved.
    async fn expect_unshared(&self, key: &str, sha256: &str, own: &str) -> anyhow::Result<()> {
        let others = sqlx::query_scalar!(
            r#"-- store check: another row's object
            select exists (
              select from raw.csv_files where ltrim(path, '/') = $1 and sha256 = $2 and sha256 <> $3
            ) as "others!""#,
            key,
            sha256,
            own
        );
        let others = others.fetch_one(self.pool).await.context("could not look up other files of the key")?;
        ensure!(!others, "the object is another file, whose row has the same key");
        Ok(())
    }
}

/// The outcome of a file whose bytes were not found.
const NOT_FOUND_NOTE: &str = "no object of its folder contains its bytes; restore the object from a backup";
