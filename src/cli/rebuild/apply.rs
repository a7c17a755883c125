//! The acts of a rebuild, applied one after the other.
//!
//! An act and its row in `raw.catalogue` commit in one transaction. An act whose entry has a row is done, so a killed
//! rebuild continues after it. In a rebuild by names, a file is done if `raw.csv_files` contains it. The chain of a
//! file runs to its end before the next act, as it did originally. So late files are late again, and acts of
//! operators meet the same data.

use super::plan::{PlannedAct, RebuildPlan, path_of};
use super::report::{NamedFile, NotRepeated, RebuildReport};
use crate::cli::bars::Bars;
use crate::cli::chain::Hand;
use crate::cli::error_text::error_line;
use crate::cli::follow::{FileChain, FileEnd};
use crate::cli::session::who;
use crate::cli::show;
use crate::cli::windows::accept::Acceptance;
use crate::cli::{FileInStore, Fleet};
use crate::db::Db;
use crate::db::catalogue::{self, ActAuthor, CatalogueAct, CatalogueEntry, FileOfWindow};
use crate::db::vocabulary::{self, By};
use crate::queue::Entry;
use crate::source;
use crate::store::Store;
use crate::taxonomy::Domain;
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sqlx::PgConnection;
use std::io::IsTerminal;
use uuid::Uuid;

/// Repeats the acts of a plan.
pub struct Rebuilder<'a> {
    /// The database that is rebuilt.
    pub db: &'a Db,
    /// The store that contains the files and the catalogue.
    pub store: &'a Store,
    /// The job definitions.
    pub fleet: Fleet,
    /// The job kinds of a chain, in order.
    pub steps: &'a [&'static str],
    /// The definition of the first job of a chain.
    pub first: &'static Entry,
    /// The worker of this process.
    pub hand: &'a Hand,
    /// The progress bars of the command.
    pub bars: &'a Bars,
    /// The operator's reason for the rebuild.
    pub reason: &'a str,
}

/// The outcome of an act after its transaction.
enum Begun {
    /// An earlier run has done the act.
    Before,
    /// The act is complete.
    Done,
    /// The chain of this file has to run.
    Chain(Uuid),
    /// The store does not contain the file with this key.
    Missing(String),
    /// The bytes of the file cannot be read.
    Unreadable(NotRepeated),
    /// The object of the act does not exist.
    Skipped(NotRepeated),
}

impl Rebuilder<'_> {
    /// Repeats all acts that have not been repeated yet.
    ///
    /// # Errors
    /// Returns an error if the database or the store is unavailable, or if a chain may not run. The report lists
    /// missing and failed files.
    pub async fn run(&self, plan: &RebuildPlan, report: &mut RebuildReport) -> anyhow::Result<()> {
        report.missing.clear();
        for file_id in self.unfinished().await? {
            self.work(file_id, report).await?;
        }
        let bar = self.bars.steps("rebuild", report.files as u64);
        let mut files = 0;
        for act in &plan.acts {
            let begun = match act {
                PlannedAct::Entry(entry) => self.repeat(plan, entry).await?,
                PlannedAct::Withdrawn(entry) => self.write_down(entry).await?,
                PlannedAct::Named(file) => self.register_named(file).await?,
            };
            let end = match begun {
                Begun::Chain(file_id) => self.work(file_id, report).await?,
                Begun::Missing(path) => {
                    report.missing.push(path);
                    "missing".to_owned()
                }
                Begun::Unreadable(file) => {
                    report.failed.push(file);
                    "unreadable".to_owned()
                }
                Begun::Skipped(skipped) => {
                    report.skipped.push(skipped);
                    "skipped".to_owned()
                }
                Begun::Before => {
                    report.done_before += 1;
                    "done before".to_owned()
                }
                Begun::Done => "done".to_owned(),
            };
            if let Some(file) = name_of(act) {
                files += 1;
                tell(&bar, (files, report.files), &format!("{file}: {end}"));
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Returns the files whose chains a killed rebuild has left unfinished, in order.
    async fn unfinished(&self) -> anyhow::Result<Vec<Uuid>> {
        sqlx::query_scalar!(
            r#"-- rebuild: unfinished chains
            select g.file_id
            from raw.sightings g
            where g.state in ('received', 'ingested')
              or exists (
                select
                from fleet.jobs j
                where j.payload ->> 'file_id' = g.file_id::text
                  and j.state in ('available', 'scheduled', 'retryable', 'running')
              )
            group by g.file_id
            order by min(g.seen_at)"#
        )
        .fetch_all(&self.db.pool)
        .await
        .context("could not read unfinished chains")
    }

    /// Runs the chain of a file to its end. Returns the state of the file.
    async fn work(&self, file_id: Uuid, report: &mut RebuildReport) -> anyhow::Result<String> {
        let chain = FileChain::known(self.db, file_id, self.first);
        let FileEnd { state, reason } = chain.work(self.bars, self.hand.watch()).await?;
        match state.as_str() {
            "received" | "ingested" => bail!(
                "the chain of file {file_id} may not run: {}\nhint: run the same command again afterwards",
                reason.unwrap_or_default()
            ),
            "failed" => report.failed.push(NotRepeated {
                key: file_id.to_string(),
                reason: reason.unwrap_or_else(|| "no reason is recorded".to_owned()),
            }),
            _ => {}
        }
        Ok(state)
    }

    /// Repeats an entry of the catalogue.
    async fn repeat(&self, plan: &RebuildPlan, entry: &CatalogueEntry) -> anyhow::Result<Begun> {
        let mut tx = self.db.pool.begin().await.context("could not begin a transaction")?;
        if !catalogue::adopt_entry(&mut tx, entry).await? {
            return Ok(Begun::Before);
        }
        catalogue::begin_rebuilding(&mut tx).await?;
        let begun = match &entry.act {
            receipt @ CatalogueAct::Receipt { file, .. } => {
                self.register(&mut tx, plan, file, Some(receipt)).await?
            }
            CatalogueAct::Repeat { file } => {
                let receipt = plan.receipts.get(&(file.source.clone(), file.sha256.clone()));
                self.register(&mut tx, plan, file, receipt).await?
            }
            act => match self.act(&mut tx, act).await {
                Ok(Some(file_id)) => Begun::Chain(file_id),
                Ok(None) => Begun::Done,
                // The database is available, but the object of the act does not exist.
                Err(error) if !error.chain().any(|cause| cause.is::<sqlx::Error>()) => {
                    drop(tx);
                    self.write_down(entry).await?;
                    let (key, reason) = (entry.key.clone(), error_line(&error));
                    return Ok(Begun::Skipped(NotRepeated { key, reason }));
                }
                Err(error) => return Err(error),
            },
        };
        // The next run looks for a missing file again.
        if !matches!(begun, Begun::Missing(_)) {
            tx.commit().await.with_context(|| format!("could not repeat {}", entry.key))?;
        }
        Ok(begun)
    }

    /// Records an entry in `raw.catalogue` without repeating its act.
    async fn write_down(&self, entry: &CatalogueEntry) -> anyhow::Result<Begun> {
        let mut conn = self.db.pool.acquire().await.context("could not acquire a connection")?;
        let adopted = catalogue::adopt_entry(&mut conn, entry).await?;
        Ok(if adopted { Begun::Done } else { Begun::Before })
    }

    /// Registers a file under the key of its receipt. A file whose receipt was withdrawn is registered for the window
    /// of its repeat.
    async fn register(
        &self,
        tx: &mut PgConnection,
        plan: &RebuildPlan,
        file: &FileOfWindow,
        receipt: Option<&CatalogueAct>,
    ) -> anyhow::Result<Begun> {
        let Some(CatalogueAct::Receipt { path, packed_sha256, bytes, etag, last_modified, .. }) = receipt
        else {
            return Ok(Begun::Missing(format!("the receipt of {} {}", file.source, file.sha256)));
        };
        let key = receipt.and_then(path_of).unwrap_or_default();
        let Some(object) = plan.objects.get(key) else { return Ok(Begun::Missing(path.clone())) };
        self.add_source(tx, &file.source).await?;
        let stored = FileInStore {
            file: file.clone(),
            bytes: *bytes,
            stored_bytes: object.stored_bytes,
            etag: etag.clone(),
            last_modified: *last_modified,
            placed: Some((path.clone(), packed_sha256.clone())),
        };
        Ok(Begun::Chain((self.fleet.register)(tx, stored).await?))
    }

    /// Reads the bytes of a file and registers the file by its name. A new catalogue records that.
    async fn register_named(&self, named: &NamedFile) -> anyhow::Result<Begun> {
        let known = sqlx::query_scalar!(
            r#"-- rebuild: is the file registered
            select exists (select from raw.csv_files where source = $1 and ltrim(path, '/') = $2) as "known!""#,
            named.source,
            named.key
        );
        if known.fetch_one(&self.db.pool).await.context("could not look up the registered file")? {
            return Ok(Begun::Before);
        }
        let sums = self.store.object_sums(&named.key).await?;
        let sha256 = match sums.sha256 {
            Ok(sha256) if sums.compressed => sha256,
            Ok(_) => return Ok(unreadable(&named.key, "the object is not compressed")),
            Err(reason) => {
                return Ok(unreadable(&named.key, &format!("the object does not decompress: {reason}")));
            }
        };
        let mut tx = self.db.pool.begin().await.context("could not begin a transaction")?;
        self.add_source(&mut tx, &named.source).await?;
        let (source, window_start_utc) = (named.source.clone(), named.window_start_utc);
        let stored = FileInStore {
            file: FileOfWindow { source, window_start_utc, sha256 },
            bytes: sums.bytes,
            stored_bytes: named.stored_bytes,
            etag: None,
            last_modified: None,
            placed: Some((named.key.clone(), Some(sums.packed_sha256))),
        };
        let file_id = (self.fleet.register)(&mut tx, stored).await?;
        tx.commit().await.with_context(|| format!("could not register {}", named.key))?;
        Ok(Begun::Chain(file_id))
    }

    /// Adds a source if it is unknown.
    async fn add_source(&self, tx: &mut PgConnection, source: &str) -> anyhow::Result<()> {
        if !source::hold_known(tx, source).await? {
            source::add(tx, source, &who(), self.reason).await?;
        }
        Ok(())
    }

    /// Repeats the act of an operator. Returns the file whose chain has to run, if there is one.
    async fn act(&self, tx: &mut PgConnection, act: &CatalogueAct) -> anyhow::Result<Option<Uuid>> {
        match act {
            CatalogueAct::Accept { file, author } => return self.accept(tx, file, author).await.map(Some),
            CatalogueAct::AcceptSize { source, author } => {
                let accepted = source::accept_size(tx, source, &author.operator, &author.reason).await?;
                if accepted.outcome != "accepted" {
                    bail!("source {source} has no size to accept: {}", accepted.outcome);
                }
            }
            CatalogueAct::Mapping { domain, spelling, code, author } => {
                let domain =
                    Domain::named(domain).with_context(|| format!("unknown taxonomy domain {domain:?}"))?;
                vocabulary::map(tx, domain, spelling, code, &by(author)).await?;
            }
            CatalogueAct::Labels { labels, author } => {
                vocabulary::relabel(tx, labels, &by(author)).await?;
            }
            CatalogueAct::Removal { .. } => remove(tx, act).await?,
            CatalogueAct::Withdrawal { .. } | CatalogueAct::Receipt { .. } | CatalogueAct::Repeat { .. } => {}
        }
        Ok(None)
    }

    /// Repeats the acceptance of a quarantined file. Returns the file.
    async fn accept(
        &self,
        tx: &mut PgConnection,
        file: &FileOfWindow,
        author: &ActAuthor,
    ) -> anyhow::Result<Uuid> {
        let file_id = sqlx::query_scalar!(
            "-- rebuild: the accepted file
            select file_id from raw.csv_files where source = $1 and sha256 = $2",
            file.source,
            file.sha256
        )
        .fetch_optional(&mut *tx)
        .await?
        .context("the file is not registered")?;
        let (source, window) = (file.source.as_str(), file.window_start_utc);
        let accepting = Acceptance { source, window, file: Some(file_id), author };
        accepting.run(tx, self.steps, self.first.policy.max_attempts).await?;
        Ok(file_id)
    }
}

fn by(author: &ActAuthor) -> By {
    By { who: author.operator.clone(), why: author.reason.clone() }
}

fn unreadable(key: &str, reason: &str) -> Begun {
    Begun::Unreadable(NotRepeated { key: key.to_owned(), reason: reason.to_owned() })
}

/// Hides a vehicle, a lot or an image, or shows it again.
async fn remove(tx: &mut PgConnection, act: &CatalogueAct) -> anyhow::Result<()> {
    let CatalogueAct::Removal { removed, vin, source, lot, image, variant, .. } = act else { return Ok(()) };
    let done = match (image, lot) {
        (Some(image), _) => sqlx::query!(
            "-- rebuild: hide a picture
            update public.images i
            set is_removed = $1
            where i.source_url = $2
              and i.variant is not distinct from $3
              and ($4::text is null or i.vin = $4)
              and (
                $6::text is null
                or exists (
                  select from public.lots l where l.id = i.lot_id and l.source = $5 and l.lot_external_id = $6
                )
              )",
            removed,
            image,
            variant.as_deref(),
            vin.as_deref(),
            source.as_deref(),
            lot.as_deref()
        ),
        (None, Some(lot)) => sqlx::query!(
            "-- rebuild: hide a lot
            update public.lots set is_removed = $1 where source = $2 and lot_external_id = $3",
            removed,
            source.as_deref(),
            lot
        ),
        (None, None) => sqlx::query!(
            "-- rebuild: hide a vehicle\n update public.vehicles set is_removed = $1 where vin = $2",
            removed,
            vin.as_deref()
        ),
    };
    if done.execute(tx).await.context("could not repeat a removal")?.rows_affected() == 0 {
        bail!("the vehicle, lot or image of the removal does not exist");
    }
    Ok(())
}

/// Returns the source and the window of an act's file as text, or `None` for an act of an operator.
fn name_of(act: &PlannedAct) -> Option<String> {
    let (source, window) = match act {
        PlannedAct::Named(file) => (&file.source, file.window_start_utc),
        PlannedAct::Entry(CatalogueEntry { act: CatalogueAct::Receipt { file, .. }, .. }) => {
            (&file.source, file.window_start_utc)
        }
        _ => return None,
    };
    Some(format!("{source} {} UTC", show::minute(window)))
}

/// Advances the bar. Prints a line if standard error is not a terminal.
fn tell(bar: &ProgressBar, (nth, of): (usize, usize), what: &str) {
    bar.inc(1);
    if !std::io::stderr().is_terminal() {
        eprintln!("file {nth} of {of}: {what}");
    }
}
