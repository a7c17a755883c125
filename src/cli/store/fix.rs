//! The repair of a file from an object that holds its bytes.
//!
//! The bytes are copied into a spool and compared with the row before anything in the store changes. Then a damaged object is
//! moved aside, and the spool is placed under the key, create-only. A repair that is killed is continued by the next one:
//! an object that was moved aside is looked up under `damaged/`, and a file that is whole by then is left alone.

use super::check::{FileProblem, is_compressed};
use crate::cli::session::who;
use crate::store::{Placed, Repacking, Spool, Store, is_not_found};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sqlx::PgPool;
use std::collections::HashMap;

/// Puts files back.
pub struct Repairer<'a> {
    pool: &'a PgPool,
    store: &'a Store,
    /// Objects that were moved aside, and where to: one of them may hold another file's bytes.
    moved: HashMap<String, String>,
}

impl<'a> Repairer<'a> {
    /// Returns a repairer that has changed nothing yet.
    pub fn new(pool: &'a PgPool, store: &'a Store) -> Repairer<'a> {
        Repairer { pool, store, moved: HashMap::new() }
    }

    /// Writes down what an operator does to the store, before it is done and after.
    pub async fn note(&self, action: &str, reason: &str, details: &Value) -> anyhow::Result<()> {
        sqlx::query!(
            "-- store check: note a repair\n select fleet.note_action($1, $2, $3, $4, $5)",
            who(),
            action,
            self.store.url(),
            reason,
            details
        )
        .execute(self.pool)
        .await
        .context("note the repair")?;
        Ok(())
    }

    /// Says what [`Self::repair`] would do.
    pub fn plan(&self, problem: &mut FileProblem) {
        problem.outcome = Some(match &problem.found_as {
            Some(found) if *found == problem.key => "would be compressed anew".to_owned(),
            Some(found) => format!("would be copied from {found}"),
            None => NOWHERE.to_owned(),
        });
    }

    /// Puts a file's bytes back under its key, and says in the problem what became of it.
    pub async fn repair(&mut self, problem: &mut FileProblem) {
        let Some(found) = problem.found_as.clone() else {
            problem.outcome = Some(NOWHERE.to_owned());
            return;
        };
        let repaired = self.put_back(problem, &found).await;
        problem.repaired = repaired.is_ok();
        problem.outcome = Some(match repaired {
            Ok(done) => done,
            Err(error) => format!("not repaired: {error:#}"),
        });
    }

    async fn put_back(&mut self, problem: &FileProblem, found: &str) -> anyhow::Result<String> {
        let key = &problem.key;
        let from = self.moved.get(found).map_or(found, String::as_str);
        let spool = self.spool(problem, from).await?;
        // Looked at anew: the check may be hours old.
        let there = match self.store.stored_bytes(key).await {
            Ok(_) => Some(self.store.object_sums(key).await?),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let mut done = format!("copied from {from}");
        if let Some(there) = there {
            if there.packed_sha256 == spool.packed_sha256 {
                return Ok("is whole by now".to_owned());
            }
            self.expect_nobodys(key, there.sha256.as_deref().unwrap_or_default(), &problem.sha256).await?;
            let aside = self.store.move_aside(key, &there.packed_sha256).await?;
            done = match from == key {
                true => format!("compressed anew; what was there is {aside}"),
                false => format!("{done}; what was there is {aside}"),
            };
            self.moved.insert(key.clone(), aside);
        }
        match self.store.place(&spool, key).await? {
            Placed::New => Ok(done),
            Placed::Same { packed_sha256 } if packed_sha256 == spool.packed_sha256 => Ok(done),
            Placed::Same { .. } | Placed::Taken => bail!("another object was placed under {key} meanwhile"),
        }
    }

    /// Copies an object into a spool that has the recorded checksums.
    async fn spool(&self, problem: &FileProblem, from: &str) -> anyhow::Result<Spool> {
        let packed = if is_compressed(&problem.key) { Repacking::Compressed } else { Repacking::Plain };
        let sums = self.store.object_sums(from).await?;
        let as_is = sums.compressed == is_compressed(&problem.key)
            && problem.packed_sha256.as_ref().is_none_or(|recorded| *recorded == sums.packed_sha256);
        let repacking = if as_is { Repacking::AsIs } else { packed };
        let spool = self.store.spool_copy(from, repacking).await?;
        ensure!(spool.sha256 == problem.sha256, "{from} has other bytes by now, sha256 {}", spool.sha256);
        if let Some(recorded) = problem.packed_sha256.as_ref().filter(|it| **it != spool.packed_sha256) {
            bail!(
                "{from} holds the file, but this program compresses it to sha256 {}, and {recorded} is recorded",
                spool.packed_sha256
            );
        }
        Ok(spool)
    }

    /// An object that is another row's file is not moved, though two rows should never name one key.
    async fn expect_nobodys(&self, key: &str, sha256: &str, own: &str) -> anyhow::Result<()> {
        let others = sqlx::query_scalar!(
            r#"-- store check: another row's object
            select exists (
              select from raw.csv_files where ltrim(path, '/') = $1 and sha256 = $2 and sha256 <> $3
            ) as "others!""#,
            key,
            sha256,
            own
        );
        let others = others.fetch_one(self.pool).await.context("look for another file of that key")?;
        ensure!(!others, "what is there is another file, whose row names the same key");
        Ok(())
    }
}

/// Why a file is not repaired.
const NOWHERE: &str = "its bytes are nowhere in its folder: bring the object back from a backup";
