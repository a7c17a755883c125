//! `vinops windows accept WINDOW`: applies a quarantined file.

use super::WindowActionArgs;
use crate::cli::confirm::confirm;
use crate::cli::output;
use crate::cli::replay::{ChainRequeue, ReplayTarget, end_transaction, expect_idle};
use crate::cli::session::CommandSession;
use crate::cli::{CommandError, JobRegistry, chain, source};
use crate::config::Config;
use crate::db::catalogue::{self, ActionAuthor, CatalogueAction};
use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Arguments of `vinops windows accept`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file is quarantined if too many of its records are unreadable. Inspect the file first: `vinops windows` shows the \
reason, `vinops raw export` writes the bytes. An accepted file is applied like any other, and its unreadable records \
are listed. A file without a known header, or without a readable row, stays quarantined.

  vinops windows accept 2026-11-20T14:30:00Z --reason 'the feed lacks VINs'")]
pub struct AcceptWindowArgs {
    #[command(flatten)]
    act: WindowActionArgs,
    /// Run jobs in this process too, and wait until all have ended
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

/// The JSON result of the command.
#[derive(Debug, Serialize)]
struct AcceptedFile {
    source: String,
    window_start_utc: DateTime<Utc>,
    file_id: Uuid,
    /// Id of the job that ingests the file. Null in a dry run.
    job: Option<i64>,
}

/// Asks for a confirmation and accepts the file.
pub async fn run(args: AcceptWindowArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let steps = chain::downstream_kinds(fleet, fleet.fetch.next);
    let session = CommandSession::open(config, &args.act.connect).await?;
    source::expect_source(&session.db.pool, &args.act.source).await?;
    let window = format!("window {} {}", args.act.source, output::format_minute(args.act.window));
    if !args.act.yes && !args.act.dry_run {
        confirm(&format!("apply the quarantined file of {window}"))?;
    }
    let first = steps.first().copied().unwrap_or_default();
    let entry = fleet.jobs.iter().find(|entry| entry.kind == first).context("the step has no job")?;
    let accepted = accept_window(&session.db.pool, &args, &steps, entry.policy.max_attempts).await;
    let ended = match &accepted {
        Ok(accepted) if args.wait => {
            chain::finish_chains(&session, fleet, &[accepted.file_id], args.act.json.json).await
        }
        _ => Ok(()),
    };
    session.close().await?;
    let accepted = accepted?;
    if args.act.json.json {
        output::print_json(&accepted)?;
        return ended;
    }
    match accepted.job {
        Some(job) => println!("{window} is accepted: file {}, job {job}", accepted.file_id),
        None => println!("{window} would be accepted: file {}", accepted.file_id),
    }
    ended
}

/// Accepts the file in one transaction.
async fn accept_window(
    pool: &PgPool,
    args: &AcceptWindowArgs,
    steps: &[&str],
    max_attempts: i32,
) -> anyhow::Result<AcceptedFile> {
    let mut tx = pool.begin().await.context("could not begin a transaction")?;
    expect_idle(&mut tx, &args.act.source).await?;
    let accepting = Acceptance {
        source: &args.act.source,
        window: args.act.window,
        file: args.act.file,
        author: &ActionAuthor { operator: source::operator(), reason: args.act.reason.clone() },
    };
    let (file_id, job) = accepting.run(&mut tx, steps, max_attempts).await?;
    end_transaction(tx, args.act.dry_run).await?;
    let job = job.filter(|_| !args.act.dry_run);
    Ok(AcceptedFile { source: args.act.source.clone(), window_start_utc: args.act.window, file_id, job })
}

/// The acceptance of a quarantined file.
pub struct Acceptance<'a> {
    /// The source of the file.
    pub source: &'a str,
    /// The start of the window.
    pub window: DateTime<Utc>,
    /// The id of the file, required if the window has several quarantined files.
    pub file: Option<Uuid>,
    /// The operator and the reason.
    pub author: &'a ActionAuthor,
}

impl Acceptance<'_> {
    /// Accepts the file, records that in the catalogue and enqueues the chain. Returns the file and its ingest job.
    pub async fn run(
        &self,
        tx: &mut PgConnection,
        steps: &[&str],
        max_attempts: i32,
    ) -> anyhow::Result<(Uuid, Option<i64>)> {
        let (file_id, first_window) = self.accept_file(tx).await?;
        let file = catalogue::file_of_window(tx, file_id, self.window).await?;
        let author = self.author.clone();
        catalogue::record_action(tx, &CatalogueAction::Accept { file, author }).await?;
        let target = ReplayTarget { window: self.window, file_id, first_window, rows: None };
        let chain = ChainRequeue { target, steps, max_attempts, must_have_run: false, repair: false };
        Ok((file_id, chain.run(tx).await?.map(|(job, _)| job)))
    }

    /// Takes the file out of quarantine. Returns the file and the first window that the file came for.
    async fn accept_file(&self, tx: &mut PgConnection) -> anyhow::Result<(Uuid, DateTime<Utc>)> {
        let answer = sqlx::query!(
            r#"-- accept: the file
            select a.outcome as "outcome!", a.file_id, f.window_start_utc as "first_window?"
            from fleet.accept_window($1, $2, $3, $4, $5) a
            left join raw.csv_files f on f.file_id = a.file_id"#,
            self.source,
            self.window,
            self.file,
            self.author.operator,
            self.author.reason
        )
        .fetch_one(tx)
        .await
        .context("could not accept the file")?;
        let (source, window) = (self.source, self.window.to_rfc3339_opts(SecondsFormat::Secs, true));
        match (answer.outcome.as_str(), answer.file_id, answer.first_window) {
            ("accepted", Some(file_id), Some(first_window)) => Ok((file_id, first_window)),
            ("ambiguous", ..) => bail!(
                "window {source} {window} has several quarantined files\nhint: name one with --file; `vinops \
                 windows` lists them"
            ),
            _ => bail!(
                "window {source} {window} has no quarantined file\nhint: `vinops windows` lists the windows and \
                 their states"
            ),
        }
    }
}
