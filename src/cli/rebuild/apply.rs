//! The acts of a rebuild, applied one after the other.
//!
//! An act and its row in `raw.catalogue` commit in one transaction. An act whose entry has a row is done, so a killed
//! rebuild continues after it. In a rebuild by names, a file is done if `raw.csv_files` contains it. The chain of a
//! file runs to its end before the next act, as it did originally. So late files are late again, and acts of
//! operators meet the same data.

use super::plan::{PlannedAction, RebuildPlan, receipt_key};
use super::report::{NamedFile, RebuildProblem, RebuildReport};
use crate::cli::chain::InlineWorker;
use crate::cli::error_text::error_line;
use crate::cli::follow::{FileChain, FileResult};
use crate::cli::output;
use crate::cli::progress::ProgressBars;
use crate::cli::session::os_user;
use crate::cli::windows::accept::Acceptance;
use crate::cli::{FileInStore, JobRegistry};
use crate::db::Database;
use crate::db::catalogue::{self, ActionAuthor, CatalogueAction, CatalogueEntry, FileOfWindow};
use crate::db::taxonomy::{self, Actor};
use crate::queue::JobDefinition;
use crate::source;
use crate::store::Store;
use crate::taxonomy::TaxonomyDomain;
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sqlx::PgConnection;
use std::io::IsTerminal;
use uuid::Uuid;

/// Repeats the acts of a plan.
pub struct Rebuilder<'a> {
    /// The database that is rebuilt.
    pub db: &'a Database,
    /// The store that contains the files and the catalogue.
    pub store: &'a Store,
    /// The job definitions.
    pub fleet: JobRegistry,
    /// The job kinds of a chain, in order.
    pub steps: &'a [&'static str],
    /// The definition of the first job of a chain.
    pub first: &'static JobDefinition,
    /// The worker of this process.
    pub worker: &'a InlineWorker,
    /// The progress bars of the command.
    pub bars: &'a ProgressBars,
    /// The operator's reason for the rebuild.
    pub reason: &'a str,
}

/// The outcome of an act after its transaction.
enum ActOutcome {
    /// An earlier run has done the act.
    AlreadyDone,
    /// The act is complete.
    Done,
    /// The chain of this file has to run.
    Chain(Uuid),
    /// The store does not contain the file with this key.
    Missing(String),
    /// The bytes of the file cannot be read.
    Unreadable(RebuildProblem),
    /// The object of the act does not exist.
    Skipped(RebuildProblem),
}

impl Rebuilder<'_> {
    /// Repeats all acts that have not been repeated yet.
    ///
    /// # Errors
    /// Returns an error if the database or the store is unavailable, or if a chain may not run. The report lists
    /// missing and failed files.
    pub async fn run(&self, plan: &RebuildPlan, report: &mut RebuildReport) -> anyhow::Result<()> {
        report.missing.clear();
        for file_id in self.unfinished_files().await? {
            self.run_chain(file_id, report).await?;
        }
        let bar = self.bars.add_step_bar("rebuild", report.files as u64);
        let mut files = 0;
        for act in &plan.acts {
            let begun = match act {
                PlannedAction::Entry(entry) => self.repeat_entry(plan, entry).await?,
                PlannedAction::Withdrawn(entry) => self.adopt_entry(entry).await?,
                PlannedAction::Named(file) => self.register_named(file).await?,
            };
            let end = match begun {
                ActOutcome::Chain(file_id) => self.run_chain(file_id, report).await?,
                ActOutcome::Missing(path) => {
                    report.missing.push(path);
                    "missing".to_owned()
                }
                ActOutcome::Unreadable(file) => {
                    report.failed.push(file);
                    "unreadable".to_owned()
                }
                ActOutcome::Skipped(skipped) => {
                    report.skipped.push(skipped);
                    "skipped".to_owned()
                }
                ActOutcome::AlreadyDone => {
                    report.done_before += 1;
                    "done before".to_owned()
                }
                ActOutcome::Done => "done".to_owned(),
            };
            if let Some(file) = display_name(act) {
                files += 1;
                report_progress(&bar, (files, report.files), &format!("{file}: {end}"));
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Returns the files whose chains a killed rebuild has left unfinished, in order.
    async fn unfinished_files(&self) -> anyhow::Result<Vec<Uuid>> {
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
    async fn run_chain(&self, file_id: Uuid, report: &mut RebuildReport) -> anyhow::Result<String> {
        let chain = FileChain::for_known_file(self.db, file_id, self.first);
        let FileResult { state, reason } = chain.run_to_end(self.bars, self.worker.subscribe()).await?;
        match state.as_str() {
            "received" | "ingested" => bail!(
                "the chain of file {file_id} may not run: {}\nhint: run the same command again afterwards",
                reason.unwrap_or_default()
            ),
            "failed" => report.failed.push(RebuildProblem {
                key: file_id.to_string(),
                reason: reason.unwrap_or_else(|| "no reason is recorded".to_owned()),
            }),
            _ => {}
        }
        Ok(state)
    }

    /// Repeats an entry of the catalogue.
    async fn repeat_entry(&self, plan: &RebuildPlan, entry: &CatalogueEntry) -> anyhow::Result<ActOutcome> {
        let mut tx = self.db.pool.begin().await.context("could not begin a transaction")?;
        if !catalogue::adopt_entry(&mut tx, entry).await? {
            return Ok(ActOutcome::AlreadyDone);
        }
        catalogue::begin_rebuilding(&mut tx).await?;
        let begun = match &entry.act {
            receipt @ CatalogueAction::Receipt { file, .. } => {
                self.register_file(&mut tx, plan, file, Some(receipt)).await?
            }
            CatalogueAction::Repeat { file } => {
                let receipt = plan.receipts.get(&(file.source.clone(), file.sha256.clone()));
                self.register_file(&mut tx, plan, file, receipt).await?
            }
            act => match self.repeat_act(&mut tx, act).await {
                Ok(Some(file_id)) => ActOutcome::Chain(file_id),
                Ok(None) => ActOutcome::Done,
                // The database is available, but the object of the act does not exist.
                Err(error) if !error.chain().any(|cause| cause.is::<sqlx::Error>()) => {
                    drop(tx);
                    self.adopt_entry(entry).await?;
                    let (key, reason) = (entry.key.clone(), error_line(&error));
                    return Ok(ActOutcome::Skipped(RebuildProblem { key, reason }));
                }
                Err(error) => return Err(error),
            },
        };
        // The next run looks for a missing file again.
        if !matches!(begun, ActOutcome::Missing(_)) {
            tx.commit().await.with_context(|| format!("could not repeat {}", entry.key))?;
        }
        Ok(begun)
    }

    /// Records an entry in `raw.catalogue` without repeating its act.
    async fn adopt_entry(&self, entry: &CatalogueEntry) -> anyhow::Result<ActOutcome> {
        let mut conn = self.db.pool.acquire().await.context("could not acquire a connection")?;
        let adopted = catalogue::adopt_entry(&mut conn, entry).await?;
        Ok(if adopted { ActOutcome::Done } else { ActOutcome::AlreadyDone })
    }

    /// Registers a file under the key of its receipt. A file whose receipt was withdrawn is registered for the window
    /// of its repeat.
    async fn register_file(
        &self,
        tx: &mut PgConnection,
        plan: &RebuildPlan,
        file: &FileOfWindow,
        receipt: Option<&CatalogueAction>,
    ) -> anyhow::Result<ActOutcome> {
        let Some(CatalogueAction::Receipt { path, packed_sha256, bytes, etag, last_modified, .. }) = receipt else {
            return Ok(ActOutcome::Missing(format!("the receipt of {} {}", file.source, file.sha256)));
        };
        let key = receipt.and_then(receipt_key).unwrap_or_default();
        let Some(object) = plan.objects.get(key) else { return Ok(ActOutcome::Missing(path.clone())) };
        self.add_source(tx, &file.source).await?;
        let stored = FileInStore {
            file: file.clone(),
            bytes: *bytes,
            stored_bytes: object.stored_bytes,
            etag: etag.clone(),
            last_modified: *last_modified,
            placed: Some((path.clone(), packed_sha256.clone())),
        };
        Ok(ActOutcome::Chain((self.fleet.register)(tx, stored).await?))
    }

    /// Reads the bytes of a file and registers the file by its name. A new catalogue records that.
    async fn register_named(&self, named: &NamedFile) -> anyhow::Result<ActOutcome> {
        let known = sqlx::query_scalar!(
            r#"-- rebuild: is the file registered
            select exists (select from raw.csv_files where source = $1 and ltrim(path, '/') = $2) as "known!""#,
            named.source,
            named.key
        );
        if known.fetch_one(&self.db.pool).await.context("could not look up the registered file")? {
            return Ok(ActOutcome::AlreadyDone);
        }
        let sums = self.store.object_sums(&named.key).await?;
        let sha256 = match sums.sha256 {
            Ok(sha256) if sums.compressed => sha256,
            Ok(_) => return Ok(unreadable_file(&named.key, "the object is not compressed")),
            Err(reason) => {
                return Ok(unreadable_file(&named.key, &format!("the object does not decompress: {reason}")));
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
        Ok(ActOutcome::Chain(file_id))
    }

    /// Adds a source if it is unknown.
    async fn add_source(&self, tx: &mut PgConnection, source: &str) -> anyhow::Result<()> {
        if !source::lock_known(tx, source).await? {
            source::add_source(tx, source, &os_user(), self.reason).await?;
        }
        Ok(())
    }

    /// Repeats the act of an operator. Returns the file whose chain has to run, if there is one.
    async fn repeat_act(&self, tx: &mut PgConnection, act: &CatalogueAction) -> anyhow::Result<Option<Uuid>> {
        match act {
            CatalogueAction::Accept { file, author } => {
                return self.accept_file(tx, file, author).await.map(Some);
            }
            CatalogueAction::AcceptSize { source, author } => {
                let accepted = source::accept_size(tx, source, &author.operator, &author.reason).await?;
                if accepted.outcome != "accepted" {
                    bail!("source {source} has no size to accept: {}", accepted.outcome);
                }
            }
            CatalogueAction::Mapping { domain, spelling, code, author } => {
                let domain =
                    TaxonomyDomain::from_name(domain).with_context(|| format!("unknown taxonomy domain {domain:?}"))?;
                taxonomy::map_alias(tx, domain, spelling, code, &action_author(author)).await?;
            }
            CatalogueAction::Labels { labels, author } => {
                taxonomy::import_labels(tx, labels, &action_author(author)).await?;
            }
            CatalogueAction::Removal { .. } => repeat_removal(tx, act).await?,
            CatalogueAction::Withdrawal { .. } | CatalogueAction::Receipt { .. } | CatalogueAction::Repeat { .. } => {}
        }
        Ok(None)
    }

    /// Repeats the acceptance of a quarantined file. Returns the file.
    async fn accept_file(
        &self,
        tx: &mut PgConnection,
        file: &FileOfWindow,
        author: &ActionAuthor,
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

fn action_author(author: &ActionAuthor) -> Actor {
    Actor { who: author.operator.clone(), why: author.reason.clone() }
}

fn unreadable_file(key: &str, reason: &str) -> ActOutcome {
    ActOutcome::Unreadable(RebuildProblem { key: key.to_owned(), reason: reason.to_owned() })
}

/// Hides a vehicle, a lot or an image, or shows it again.
async fn repeat_removal(tx: &mut PgConnection, act: &CatalogueAction) -> anyhow::Result<()> {
    let CatalogueAction::Removal { removed, vin, source, lot, image, variant, .. } = act else {
        return Ok(());
    };
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
fn display_name(act: &PlannedAction) -> Option<String> {
    let (source, window) = match act {
        PlannedAction::Named(file) => (&file.source, file.window_start_utc),
        PlannedAction::Entry(CatalogueEntry { act: CatalogueAction::Receipt { file, .. }, .. }) => {
            (&file.source, file.window_start_utc)
        }
        _ => return None,
    };
    Some(format!("{source} {} UTC", output::format_minute(window)))
}

/// Advances the bar. Prints a line if standard error is not a terminal.
fn report_progress(bar: &ProgressBar, (nth, of): (usize, usize), what: &str) {
    bar.inc(1);
    if !std::io::stderr().is_terminal() {
        eprintln!("file {nth} of {of}: {what}");
    }
}
