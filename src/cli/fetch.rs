//! `vinops fetch`: enqueues a fetch of the current window and follows the window to its final state.

use super::chain::InlineWorker;
use super::follow::{FileChain, FileResult, UnfinishedJob, wait_for_job};
use super::output::{self, JsonArgs};
use super::progress::ProgressBars;
use super::session::{CommandSession, ConnectArgs, os_user};
use super::source::expect_source;
use super::{CommandError, JobRegistry, read_summary};
use crate::config::Config;
use crate::db::Database;
use crate::queue::{WorkerEvent, admin};
use crate::scheduler::Scheduler;
use crate::source;
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// Arguments of `vinops fetch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A window is fetched once. If the scheduler has already enqueued the fetch, the command follows that job. An \
unfinished chain is run to its end, a failed one is requeued. A source that is disabled, or whose breaker is open, \
is not fetched. The feed serves only the current quarter-hour.

Exit code 0: the window's file, or the file it repeats, is applied, late or incomplete. Exit code 1: it failed or is \
quarantined, or its chain may not run.

  COPART_FEED_URL_FILE=/run/secrets/feed vinops fetch")]
pub struct FetchArgs {
    /// Ignored: the feed serves only the current window
    #[arg(long, hide = true)]
    now: bool,
    /// Source to fetch from
    #[arg(long, default_value = "copart")]
    source: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Enqueues the fetch and follows the window.
pub async fn run(args: FetchArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    if config.copart.get()?.feed_url.is_none() {
        return Err(CommandError::usage(anyhow!(
            "COPART_FEED_URL is not set\nhint: set it to the feed's address with its key, or set \
             COPART_FEED_URL_FILE to the path of a file that contains the address"
        )));
    }
    let session = CommandSession::open(config, &args.connect).await?;
    expect_source(&session.db.pool, &args.source).await?;
    let store = session.open_store()?;
    let bars = ProgressBars::new(!args.json.json);
    let scheduler = Scheduler::new(fleet.fetch, &[&args.source]).manual();
    let window = scheduler.enqueue_due_windows(&session.db.pool, None).await?;
    let due = window.first().context("the scheduler returned no window")?;
    let window = due.window_start_utc;
    if let Some(why) = &due.held {
        let lift = fetch_hint(&session, &args.source).await?;
        return Err(anyhow!("window {} is not fetched: {why}{lift}", output::format_minute(window)).into());
    }
    let following = WindowFollower { db: &session.db, fleet, source: &args.source, window, bars: &bars };
    let before = following.read_window().await?;
    let held = UnfinishedJob::find(&session.db, before.file_id, None).await?.and_then(UnfinishedJob::into_worker);
    let hand = InlineWorker::start(&session.db, fleet, &session.config, store, &[], &bars)?;
    let events = hand.subscribe();
    let end = following.follow_window(before, held, events).await;
    hand.stop().await?;
    let (row, file) = end?;
    let (Some(file_id), Some(end)) = (row.file_id, file) else {
        return Err(anyhow!(
            "window {} is {}: {}",
            output::format_minute(window),
            row.state,
            row.note.unwrap_or_default()
        )
        .into());
    };
    let mut summary = read_summary(&session.db, file_id, row.state == "unchanged").await?;
    session.close().await?;
    summary.state.clone_from(&end.state);
    if args.json.json {
        output::print_json(&summary)?;
    } else if end.is_applied() {
        println!(
            "window {} is {}, {} rows",
            output::format_minute(window),
            row.state,
            output::format_count(summary.rows)
        );
    }
    if end.is_applied() {
        return Ok(());
    }
    let repeats = if row.state == "unchanged" { "unchanged, and its file is " } else { "" };
    let reason = end.reason.unwrap_or_default();
    Err(anyhow!("window {} is {repeats}{}: {reason}", output::format_minute(window), end.state).into())
}

/// Returns a hint with the command that allows fetches from the source again, or an empty text.
async fn fetch_hint(session: &CommandSession, source: &str) -> anyhow::Result<String> {
    let status = source::read_status(&session.db.pool, Some(source)).await?;
    let act = match status.first() {
        Some(status) if !status.enabled => "enable",
        Some(status) if status.breaker != "closed" => "reset-breaker",
        _ => return Ok(String::new()),
    };
    Ok(format!("\nhint: run `vinops source {act} {source} --reason \"…\"`"))
}

/// A row of `fleet.windows`.
struct WindowRow {
    state: String,
    file_id: Option<Uuid>,
    note: Option<String>,
}

/// Follows the window that is being fetched.
struct WindowFollower<'a> {
    db: &'a Database,
    fleet: JobRegistry,
    source: &'a str,
    window: DateTime<Utc>,
    bars: &'a ProgressBars,
}

impl WindowFollower<'_> {
    /// Reads the window's row.
    async fn read_window(&self) -> anyhow::Result<WindowRow> {
        sqlx::query_as!(
            WindowRow,
            "-- fetch: how far is the window
            select state, file_id, note
            from fleet.windows
            where source = $1 and window_start_utc = $2",
            self.source,
            self.window
        )
        .fetch_optional(&self.db.pool)
        .await
        .context("could not read the state of the window")?
        .with_context(|| format!("window {} {} was deleted from fleet.windows", self.source, self.window))
    }

    /// Waits for the fetch, then runs the chain of the window's file. Returns the window's row and, if there is a
    /// file, the result of the file. `held` is the worker that ran a job of the file before this command did
    /// anything.
    async fn follow_window(
        &self,
        before: WindowRow,
        held: Option<String>,
        mut events: Receiver<WorkerEvent>,
    ) -> Result<(WindowRow, Option<FileResult>), CommandError> {
        let mut known = before.state != "due";
        if before.state == "failed" && before.file_id.is_none() {
            known = !self.requeue_fetch().await?;
        }
        let row = self.wait_for_file(&mut events).await?;
        let Some(file_id) = row.file_id else { return Ok((row, None)) };
        let first = self.fleet.find_job(self.fleet.fetch.next)?;
        let chain = if known || row.state == "unchanged" {
            FileChain::for_known_file(self.db, file_id, first)
        } else {
            FileChain::for_new_file(self.db, file_id, first)
        };
        let chain = chain.with_other_worker(held);
        let end = match chain.read_result().await? {
            Some(end) => end,
            None => chain.run_to_end(self.bars, events).await?,
        };
        Ok((self.read_window().await?, Some(end)))
    }

    /// Requeues a fetch that failed before the slot's attempt was used. Returns false if there is none.
    async fn requeue_fetch(&self) -> anyhow::Result<bool> {
        let job = sqlx::query_scalar!(
            "-- fetch: given up
            select id
            from fleet.jobs
            where kind = $1
              and key = $2
              and state in ('cancelled', 'discarded')
            order by id desc
            limit 1",
            self.fleet.fetch.kind,
            source::fetch_key(self.source, self.window)
        )
        .fetch_optional(&self.db.pool)
        .await
        .context("could not read the failed fetch job")?;
        let Some(job) = job else { return Ok(false) };
        if !source::can_fetch_again(&self.db.pool, job).await? {
            return Ok(false);
        }
        admin::requeue_job(&self.db.pool, job, os_user(), "the window was fetched again by an operator").await?;
        Ok(true)
    }

    /// Waits until the window has a file, or a final state without one.
    async fn wait_for_file(&self, events: &mut Receiver<WorkerEvent>) -> anyhow::Result<WindowRow> {
        let key = source::fetch_key(self.source, self.window);
        loop {
            let job = UnfinishedJob::find(self.db, None, Some((self.fleet.fetch.kind, &key))).await?;
            let row = self.read_window().await?;
            match job {
                _ if row.state != "due" => return Ok(row),
                None => anyhow::bail!(
                    "window {} is due, and no job fetches it\nhint: `vinops jobs list --source {}` lists the fetch \
                     jobs",
                    output::format_minute(self.window),
                    self.source
                ),
                Some(job) => {
                    if let Some(reason) = job.block_reason() {
                        anyhow::bail!("window {} is due: {reason}", output::format_minute(self.window));
                    }
                }
            }
            wait_for_job(events).await;
        }
    }
}
