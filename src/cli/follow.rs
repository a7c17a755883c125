//! Runs the chain of a file to its end. The chain may be new, taken over from a dead worker, running on another
//! worker, or requeued after a failure.
//!
//! The file's state and its unfinished job are polled, so it does not matter which process runs the job. A chain that
//! may not run, because its kind is paused or limited to zero, is not waited for. The result contains the reason and
//! a hint with the command that allows the kind to run.

use super::output;
use super::progress::ProgressBars;
use super::session::os_user;
use crate::db::Database;
use crate::queue::admin::{self, Actor};
use crate::queue::{JobDefinition, WorkerEvent};
use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;

/// The interval between two reads of the file's state. An event can be lost, and another worker may run the job.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The reason that is recorded when this command requeues a job.
const RESTART_REASON: &str = "the file was ingested again by an operator";

/// The state of a file when its chain has ended or may not run.
#[derive(Debug, Clone)]
pub struct FileResult {
    /// The state: applied, late, incomplete, quarantined or failed. A blocked chain leaves it received or ingested.
    pub state: String,
    /// The reason, if the file is not applied.
    pub reason: Option<String>,
}

impl FileResult {
    /// Returns true if the rows of the file are applied.
    pub fn is_applied(&self) -> bool {
        matches!(self.state.as_str(), "applied" | "late" | "incomplete")
    }
}

/// An unfinished job of a chain.
#[derive(Debug)]
pub struct UnfinishedJob {
    id: i64,
    kind: String,
    state: String,
    worker: Option<String>,
    waits: bool,
    lease_until: Option<DateTime<Utc>>,
    alive: bool,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
    paused_because: Option<String>,
    max_running: Option<i32>,
}

impl UnfinishedJob {
    /// Returns the unfinished job of a file, or of a key of a kind.
    pub async fn find(
        db: &Database,
        file_id: Option<Uuid>,
        key: Option<(&str, &str)>,
    ) -> anyhow::Result<Option<UnfinishedJob>> {
        let (kind, key) = key.unzip();
        sqlx::query_file_as!(UnfinishedJob, "src/cli/follow.job.sql", file_id.map(|id| id.to_string()), kind, key)
            .fetch_optional(&db.pool)
            .await
            .context("could not read the unfinished job of the chain")
    }

    /// Returns the name of the worker that runs the job.
    pub fn into_worker(self) -> Option<String> {
        self.worker
    }

    /// Returns the reason why no worker may claim the job, with a hint on how to change that.
    pub fn block_reason(&self) -> Option<String> {
        if self.state == "running" {
            return None;
        }
        let (job, kind) = (self.id, &self.kind);
        if let Some(at) = self.paused_at {
            let by = self.paused_by.as_deref().unwrap_or("an unknown operator");
            let because = self.paused_because.as_deref().unwrap_or("no reason given");
            return Some(format!(
                "job {job} may not run: its kind {kind} is paused since {} UTC by {by}: {because}\nhint: run \
                 `vinops jobs resume {kind} --reason \"…\"`",
                output::format_minute(at)
            ));
        }
        self.max_running.filter(|most| *most <= 0).map(|most| {
            format!(
                "job {job} may not run: its kind {kind} is limited to {most} at once\nhint: run `vinops jobs limit \
                 {kind} none --reason \"…\"`"
            )
        })
    }

    /// Returns a line about the worker that runs the job, or `None` if no worker does.
    fn describe_holder(&self) -> Option<String> {
        let worker = self.worker.as_deref().filter(|_| self.state == "running")?;
        let (job, kind) = (self.id, &self.kind);
        Some(if self.alive {
            format!("following job {job} ({kind}) on worker {worker}")
        } else {
            let until = self.lease_until.map(|at| at.format("%H:%M:%S").to_string()).unwrap_or_default();
            format!("taking over job {job} ({kind}): its worker {worker} is lost, its lease ends at {until} UTC")
        })
    }
}

/// The chain of jobs of one file.
pub struct FileChain<'a> {
    db: &'a Database,
    file_id: Uuid,
    first: &'a JobDefinition,
    /// True if a failure that is older than this command may still be requeued. That happens once.
    may_restart: bool,
    /// The worker that ran a job of the file when this command began.
    other_worker: Option<String>,
}

impl<'a> FileChain<'a> {
    /// Returns the chain of a file that this command has just received. A failure is not requeued.
    pub fn for_new_file(db: &'a Database, file_id: Uuid, first: &'a JobDefinition) -> FileChain<'a> {
        FileChain { db, file_id, first, may_restart: false, other_worker: None }
    }

    /// Returns the chain of a file that was known before. A failure is requeued once.
    pub fn for_known_file(db: &'a Database, file_id: Uuid, first: &'a JobDefinition) -> FileChain<'a> {
        FileChain { db, file_id, first, may_restart: true, other_worker: None }
    }

    /// Sets the worker that runs a job of the chain. The progress display names the worker while it does.
    pub fn with_other_worker(self, worker: Option<String>) -> FileChain<'a> {
        FileChain { other_worker: worker, ..self }
    }

    /// Returns the result of the file, or `None` if a job of the file is unfinished.
    pub async fn read_result(&self) -> anyhow::Result<Option<FileResult>> {
        if UnfinishedJob::find(self.db, Some(self.file_id), None).await?.is_some() {
            return Ok(None);
        }
        let file = sqlx::query!(
            r#"-- follow: file
            select
              g.state,
              coalesce(
                (select w.note from fleet.windows w where w.file_id = $1 and w.state = g.state and w.note is not null limit 1),
                (
                  select r.report #>> '{ingest,reason}'
                  from audit.etl_runs r
                  where r.file_id = $1
                  order by r.started_at desc
                  limit 1
                )
              ) as reason
            from raw.sightings g
            where g.file_id = $1
              and g.state <> 'unchanged'
            -- a file that arrived again is processed for each of its windows
            order by g.state in ('received', 'ingested') desc, g.window_start_utc desc
            limit 1"#,
            self.file_id
        )
        .fetch_optional(&self.db.pool)
        .await
        .context("could not read the state of the file")?
        .with_context(|| format!("file {} was deleted from raw.sightings", self.file_id))?;
        let under_way = matches!(file.state.as_str(), "received" | "ingested");
        Ok((!under_way).then_some(FileResult { state: file.state, reason: file.reason }))
    }

    /// Waits until the file has a final state, has failed, or may not continue. A worker must run, in this process or
    /// in another. `events` are the events of the worker in this process.
    pub async fn run_to_end(
        mut self,
        bars: &ProgressBars,
        mut events: Receiver<WorkerEvent>,
    ) -> anyhow::Result<FileResult> {
        let mut following = None;
        let end = loop {
            if let Some(job) = UnfinishedJob::find(self.db, Some(self.file_id), None).await? {
                if let Some(reason) = job.block_reason() {
                    break FileResult { state: self.read_state().await?, reason: Some(reason) };
                }
                self.make_due(&job).await?;
                let other = self.other_worker.is_some() && job.worker == self.other_worker;
                let holder = job.describe_holder().filter(|_| other);
                match (&following, holder) {
                    (None, Some(holder)) => {
                        bars.print_line(format!("  {holder}"));
                        let spinner = bars.add_spinner(&job.kind);
                        spinner.set_message(holder);
                        following = Some(spinner);
                    }
                    (Some(spinner), Some(holder)) => spinner.set_message(holder),
                    (_, None) => drop(following.take().map(|spinner| spinner.finish_and_clear())),
                }
            } else if let Some(end) = self.read_result().await? {
                break end;
            } else if !self.requeue_chain().await? {
                break self.failed_result().await?;
            }
            wait_for_job(&mut events).await;
        };
        if let Some(spinner) = following {
            spinner.finish_and_clear();
        }
        Ok(end)
    }

    /// Makes a retryable job due now, because the operator has entered the command again.
    async fn make_due(&self, job: &UnfinishedJob) -> anyhow::Result<()> {
        if self.may_restart && job.waits && job.state != "running" {
            admin::run_jobs_now(&self.db.pool, &[job.id], &Actor::new(os_user(), RESTART_REASON)).await?;
        }
        Ok(())
    }

    /// Reads the state of the file.
    async fn read_state(&self) -> anyhow::Result<String> {
        sqlx::query_scalar!(
            "-- follow: state of the file
            select state
            from raw.sightings
            where file_id = $1
            -- a file that arrived again is processed for each of its windows
            order by state in ('received', 'ingested') desc, window_start_utc desc
            limit 1",
            self.file_id
        )
        .fetch_one(&self.db.pool)
        .await
        .context("could not read the state of the file")
    }

    /// Returns the id and the error of the file's newest cancelled or discarded job.
    async fn last_failed_job(&self) -> anyhow::Result<Option<(i64, String)>> {
        let job = sqlx::query!(
            "-- follow: given up
            select id, state, error
            from fleet.jobs
            where payload ->> 'file_id' = $1
              and state in ('cancelled', 'discarded')
            order by id desc
            limit 1",
            self.file_id.to_string()
        )
        .fetch_optional(&self.db.pool)
        .await
        .context("could not read the failed job of the file")?;
        Ok(job.map(|job| (job.id, job.error.unwrap_or(job.state))))
    }

    /// Requeues the chain, once. Returns false if that was done before.
    async fn requeue_chain(&mut self) -> anyhow::Result<bool> {
        if !std::mem::take(&mut self.may_restart) {
            return Ok(false);
        }
        if let Some((job, _)) = self.last_failed_job().await? {
            admin::requeue_job(&self.db.pool, job, os_user(), RESTART_REASON).await?;
            return Ok(true);
        }
        // The jobs were deleted. The first step enqueues the next one for a file that is already ingested.
        let enqueued = sqlx::query_scalar!(
            r#"-- follow: enqueue the first step
            select count(
              fleet.enqueue(
                $1,
                jsonb_strip_nulls(jsonb_build_object('file_id', $2::uuid, 'window_start_utc', u.repeat_window)),
                concat_ws('@', $2::uuid, u.repeat_window),
                max_attempts => $3
              )
            ) as "enqueued!"
            from (
              -- for the first window of a file, the payload and key contain only the file
              select
                case
                  when g.window_start_utc <> f.window_start_utc
                    then to_char(g.window_start_utc at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                end as repeat_window
              from raw.sightings g
              join raw.csv_files f on f.file_id = g.file_id
              where g.file_id = $2
                and g.state in ('received', 'ingested')
            ) as u"#,
            self.first.kind,
            self.file_id,
            self.first.policy.max_attempts,
        )
        .fetch_one(&self.db.pool)
        .await
        .context("could not enqueue the first job of the chain")?;
        if enqueued > 0 {
            return Ok(true);
        }
        Err(anyhow!(
            "file {} has no unfinished job, and its {} is completed\nhint: rerun its window with `vinops replay`",
            self.file_id,
            self.first.kind
        ))
    }

    /// Returns the result of a failed chain.
    async fn failed_result(&self) -> anyhow::Result<FileResult> {
        let given_up = self.last_failed_job().await?;
        Ok(FileResult { state: "failed".to_owned(), reason: given_up.map(|(_, error)| error) })
    }
}

/// Waits until a job of this process has ended, for one poll interval at most.
pub async fn wait_for_job(events: &mut Receiver<WorkerEvent>) {
    let ended = async {
        while let Ok(event) = events.recv().await {
            if matches!(event, WorkerEvent::Ended { .. }) {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::time::timeout(POLL_INTERVAL, ended).await.ok();
}
