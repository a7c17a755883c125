//! A worker that runs inside a command: for `vinops ingest` and `fetch`, the demonstration and the benchmarks.

use super::follow::FileChain;
use super::progress::ProgressBars;
use super::session::CommandSession;
use super::{CommandError, JobRegistry};
use crate::config::Config;
use crate::db::Database;
use crate::queue::{Worker, WorkerEvent};
use crate::store::Store;
use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::sync::broadcast::{self, Receiver};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events that are buffered for a slow receiver.
const EVENT_CAPACITY: usize = 4096;
/// The interval between two reads of the window's state. An event can be lost, and another worker may run the job.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A worker that runs in this process and draws its progress.
pub struct InlineWorker {
    events: broadcast::Sender<WorkerEvent>,
    leave: CancellationToken,
    worker: JoinHandle<anyhow::Result<crate::queue::WorkerSummary>>,
    drawing: JoinHandle<()>,
}

impl InlineWorker {
    /// Starts a worker for `kinds`. An empty list means all job kinds.
    pub fn start(
        db: &Database,
        fleet: JobRegistry,
        config: &Config,
        store: Store,
        kinds: &[&str],
        bars: &ProgressBars,
    ) -> anyhow::Result<InlineWorker> {
        let (events, watching) = broadcast::channel(EVENT_CAPACITY);
        let leave = CancellationToken::new();
        let mut worker = Worker::new(db, fleet.jobs)
            .with_lease(*config.lease.get()?)
            .with_extensions((fleet.extensions)(config, store)?)
            .with_event_sender(events.clone());
        if !kinds.is_empty() {
            worker = worker.with_kinds(kinds);
        }
        Ok(InlineWorker {
            worker: tokio::spawn(worker.run(leave.clone())),
            drawing: tokio::spawn(bars.clone().follow_events(watching)),
            events,
            leave,
        })
    }

    /// Returns a receiver of all events from now on.
    pub fn subscribe(&self) -> Receiver<WorkerEvent> {
        self.events.subscribe()
    }

    /// Shuts down the worker after its running jobs have finished.
    pub async fn stop(self) -> Result<(), CommandError> {
        self.leave.cancel();
        self.worker.await.context("the worker panicked")??;
        drop(self.events);
        self.drawing.await.context("the progress display panicked")?;
        Ok(())
    }
}

/// Returns `first` and the kinds that follow it in a chain.
pub fn downstream_kinds(fleet: JobRegistry, first: &'static str) -> Vec<&'static str> {
    let mut kinds = vec![first];
    while let Some(entry) = kinds.last().and_then(|last| fleet.jobs.iter().find(|e| e.kind == *last)) {
        match fleet.jobs.iter().find(|e| e.kind == entry.next) {
            Some(next) if !kinds.contains(&next.kind) => kinds.push(next.kind),
            _ => break,
        }
    }
    kinds
}

/// Runs the jobs of these files in this process too, with progress bars unless `quiet`, and waits until their chains
/// end.
///
/// # Errors
/// Returns an error if a chain fails or may not run. Other workers run the chains after it.
pub async fn finish_chains(
    session: &CommandSession,
    fleet: JobRegistry,
    files: &[Uuid],
    quiet: bool,
) -> Result<(), CommandError> {
    let steps = downstream_kinds(fleet, fleet.fetch.next);
    let first = fleet.find_job(steps.first().copied().unwrap_or_default())?;
    let bars = ProgressBars::new(!quiet);
    let hand = InlineWorker::start(&session.db, fleet, &session.config, session.open_store()?, &steps, &bars)?;
    let mut failure = None;
    for file_id in files {
        let end = FileChain::for_new_file(&session.db, *file_id, first).run_to_end(&bars, hand.subscribe()).await?;
        if !end.is_applied() {
            let reason = end.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            failure = Some(anyhow!("file {file_id} is {}{reason}", end.state));
            break;
        }
    }
    hand.stop().await?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// The final state of a window.
#[derive(Debug, Clone)]
pub struct WindowResult {
    /// The state: applied, late, incomplete, quarantined, unchanged, missed or failed.
    pub state: String,
    /// The file of the window, if there is one.
    pub file_id: Option<Uuid>,
    /// The reason of the state, if one is recorded.
    pub note: Option<String>,
}

/// Waits until the window has a final state.
///
/// # Errors
/// Returns an error if the window is deleted meanwhile.
pub async fn wait_for_window(
    db: &Database,
    source: &str,
    window: DateTime<Utc>,
    mut events: Receiver<WorkerEvent>,
) -> anyhow::Result<WindowResult> {
    loop {
        let row = sqlx::query!(
            r#"-- chain: how far is the window
            select w.state, w.file_id, w.note, f.state as "file_state?"
            from fleet.windows w
            left join raw.csv_files f on f.file_id = w.file_id
            where w.source = $1 and w.window_start_utc = $2"#,
            source,
            window
        )
        .fetch_optional(&db.pool)
        .await
        .context("could not read the state of the window")?;
        let Some(row) = row else { bail!("window {source} {window} was deleted from fleet.windows") };
        let through = !matches!(row.state.as_str(), "due" | "fetched" | "ingested");
        let file_through = !matches!(row.file_state.as_deref(), Some("received" | "ingested"));
        if through && (file_through || row.state == "failed") {
            return Ok(WindowResult { state: row.state, file_id: row.file_id, note: row.note });
        }
        // The state is read again when a job of this process ends. The timeout covers other workers and lost events.
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
}
