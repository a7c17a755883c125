//! A worker that runs inside a command: for `vinops ingest` and `fetch`, the demonstration and the benchmarks.

use super::bars::Bars;
use super::follow::FileChain;
use super::session::Session;
use super::{Failure, Fleet};
use crate::config::Config;
use crate::db::Db;
use crate::queue::{Event, Worker};
use crate::store::Store;
use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio::sync::broadcast::{self, Receiver};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events that are buffered for a slow receiver.
const EVENTS: usize = 4096;
/// The interval between two reads of the window's state. An event can be lost, and another worker may run the job.
const ASK: Duration = Duration::from_millis(500);

/// A worker that runs in this process and draws its progress.
pub struct Hand {
    events: broadcast::Sender<Event>,
    leave: CancellationToken,
    worker: JoinHandle<anyhow::Result<crate::queue::Summary>>,
    drawing: JoinHandle<()>,
}

impl Hand {
    /// Starts a worker for `kinds`. An empty list means all job kinds.
    pub fn start(
        db: &Db,
        fleet: Fleet,
        config: &Config,
        store: Store,
        kinds: &[&str],
        bars: &Bars,
    ) -> anyhow::Result<Hand> {
        let (events, watching) = broadcast::channel(EVENTS);
        let leave = CancellationToken::new();
        let mut worker = Worker::new(db, fleet.jobs)
            .lease(*config.lease.get()?)
            .tools((fleet.tools)(config, store)?)
            .observe(events.clone());
        if !kinds.is_empty() {
            worker = worker.kinds(kinds);
        }
        Ok(Hand {
            worker: tokio::spawn(worker.run(leave.clone())),
            drawing: tokio::spawn(bars.clone().follow(watching)),
            events,
            leave,
        })
    }

    /// Returns a receiver of all events from now on.
    pub fn watch(&self) -> Receiver<Event> {
        self.events.subscribe()
    }

    /// Shuts down the worker after its running jobs have finished.
    pub async fn stop(self) -> Result<(), Failure> {
        self.leave.cancel();
        self.worker.await.context("the worker panicked")??;
        drop(self.events);
        self.drawing.await.context("the progress display panicked")?;
        Ok(())
    }
}

/// Returns `first` and the kinds that follow it in a chain.
pub fn kinds_from(fleet: Fleet, first: &'static str) -> Vec<&'static str> {
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
    session: &Session,
    fleet: Fleet,
    files: &[Uuid],
    quiet: bool,
) -> Result<(), Failure> {
    let steps = kinds_from(fleet, fleet.fetch.next);
    let first = fleet.known(steps.first().copied().unwrap_or_default())?;
    let bars = Bars::new(!quiet);
    let hand = Hand::start(&session.db, fleet, &session.config, session.store()?, &steps, &bars)?;
    let mut failure = None;
    for file_id in files {
        let end = FileChain::fresh(&session.db, *file_id, first).work(&bars, hand.watch()).await?;
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
pub struct Ended {
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
pub async fn ended(
    db: &Db,
    source: &str,
    window: DateTime<Utc>,
    mut events: Receiver<Event>,
) -> anyhow::Result<Ended> {
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
            return Ok(Ended { state: row.state, file_id: row.file_id, note: row.note });
        }
        // The state is read again when a job of this process ends. The timeout covers other workers and lost events.
        let ended = async {
            while let Ok(event) = events.recv().await {
                if matches!(event, Event::Ended { .. }) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::time::timeout(ASK, ended).await.ok();
    }
}
