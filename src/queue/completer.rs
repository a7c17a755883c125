//! The completer: writes the results of runs in batches, under the fence, and retries until they are stored.
//!
//! A batch contains the results that arrived while the previous batch was being written: one row when idle, hundreds
//! under load. A result whose job has another holder is *stale*: the completer counts, logs and drops it, as the fence
//! demands. One case looks stale but is not: the connection broke during a step's COMMIT, which the server applied.
//! Such a run is reported as done.
//!
//! Nearly all results are `done` without a note. They have a statement of their own, without the work for the other
//! outcomes. That saves the server most of the cost of a small batch, since the rows are not the expensive part. This
//! statement does not wait for the disk either. If the server crashes within the next half second, the job is found
//! running or unclaimed and runs again. A run without a step must tolerate that anyway: the death of its worker a
//! moment earlier has the same effect.
//!
//! A result that the server rejects (for example a report with a NUL) must not block the others. The batch is then
//! written one result at a time, and the rejected result becomes a failed attempt with the server's error.

use super::event::{RunOutcome, WorkerEvent};
use super::run::ClaimedJob;
use super::worker_state::{LoopConnection, WorkerShared, increment_counter};
use serde_json::Value;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Maximum number of results written by one statement.
const MAX_BATCH_RUNS: usize = 500;

/// Longest stored error text, in characters.
const MAX_ERROR_CHARS: usize = 8_000;

/// The result of a run, not stored yet.
pub(super) struct RunResult {
    pub job: Arc<ClaimedJob>,
    pub outcome: RunOutcome,
    pub report: Value,
    pub error: Option<String>,
    /// Delay before the job may run again.
    pub delay: Duration,
    /// True if the step's own transaction has stored the completion.
    pub committed: bool,
    /// A note for the history entry of a run that is done.
    pub note: Option<Arc<str>>,
}

impl RunResult {
    pub fn new(job: &Arc<ClaimedJob>, outcome: RunOutcome) -> RunResult {
        let (report, delay) = (Value::Null, Duration::ZERO);
        RunResult { job: job.clone(), outcome, report, error: None, delay, committed: false, note: None }
    }

    /// Returns true for outcome `done` without a note.
    fn is_plain(&self) -> bool {
        self.outcome == RunOutcome::Done && self.note.is_none()
    }

    /// Sets the error, in a form that PostgreSQL can store.
    pub fn with_error(mut self, error: impl std::fmt::Display) -> RunResult {
        self.error = Some(storable_text(&format!("{error:#}")));
        self
    }
}

/// Returns a text in a form that PostgreSQL can store: without NUL and at most 8,000 characters long.
pub(super) fn storable_text(text: &str) -> String {
    text.replace('\0', "\u{fffd}").chars().take(MAX_ERROR_CHARS).collect()
}

/// Stores the results of runs until the worker ends.
pub(super) async fn run_completer(engine: WorkerShared, mut endings: mpsc::UnboundedReceiver<RunResult>) {
    let mut link = LoopConnection::new(&engine, "store results");
    // Opens the connection before the first result. An error here is reported by the first batch.
    let _ = link.connection().await;
    let mut batch = Vec::new();
    while endings.recv_many(&mut batch, MAX_BATCH_RUNS).await > 0 {
        batch.sort_unstable_by_key(|ending: &RunResult| ending.job.id);
        let (stored, open): (Vec<_>, Vec<_>) = batch.drain(..).partition(|ending| ending.committed);
        for ending in stored {
            finish_run(&engine, ending, false);
        }
        let (plain, others) = open.into_iter().partition(RunResult::is_plain);
        let mut rest: Vec<Vec<RunResult>> = vec![others, plain];
        while let Some(batch) = rest.pop() {
            let finalized = async { finalize_batch(link.connection().await?, &engine.name, &batch).await };
            match engine.with_query_timeout(finalized).await {
                Ok(states) => {
                    link.on_success();
                    report_batch(&engine, batch, &states);
                }
                Err(sqlx::Error::Database(refusal)) if is_data_error(&*refusal) => {
                    if batch.len() > 1 {
                        rest.extend(batch.into_iter().map(|ending| vec![ending]));
                    } else {
                        rest.extend(convert_refused(&engine, batch, &*refusal));
                    }
                }
                Err(error) => {
                    tokio::time::sleep(link.on_failure(&error)).await;
                    rest.push(batch);
                }
            }
        }
    }
}

/// The new states of jobs by (job, run). Stale results are missing.
type JobStates = HashMap<(i64, i64), Cow<'static, str>>;

/// Stores the results whose runs still hold their jobs. Returns the new states of the jobs.
pub(super) async fn finalize_batch(
    connection: &mut PgConnection,
    name: &str,
    batch: &[RunResult],
) -> sqlx::Result<JobStates> {
    if batch.is_empty() {
        return Ok(HashMap::new());
    }
    let jobs: Vec<i64> = batch.iter().map(|v| v.job.id).collect();
    let runs: Vec<i64> = batch.iter().map(|v| v.job.run).collect();
    let mut states = if batch.iter().all(RunResult::is_plain) {
        let reports: Vec<&Value> = batch.iter().map(|v| &v.report).collect();
        let kinds: BTreeSet<&str> = batch.iter().map(|v| &*v.job.kind).collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let finalized = sqlx::query_file!(
            "src/queue/completer.done.sql",
            name,
            &jobs,
            &runs,
            &reports as &[&Value],
            &kinds as &[&str],
        );
        // If all results matched, the statement need not return them. Otherwise the query below finds those that did.
        let hit = finalized.execute(&mut *connection).await?.rows_affected() == batch.len() as u64;
        let these = if hit { batch } else { &[] };
        these.iter().map(|v| ((v.job.id, v.job.run), "completed".into())).collect()
    } else {
        finalize_mixed(&mut *connection, name, batch, &jobs, &runs).await?
    };

    if states.len() < batch.len() {
        let ended =
            sqlx::query_file_scalar!("src/queue/completer.ended.sql", &jobs, &runs).fetch_all(connection).await?;
        for ending in batch.iter().filter(|v| ended.contains(&v.job.id)) {
            states.entry((ending.job.id, ending.job.run)).or_insert(Cow::Borrowed("completed"));
        }
    }
    Ok(states)
}

/// Stores results with any outcome by the long statement. Returns the new states of the jobs.
async fn finalize_mixed(
    connection: &mut PgConnection,
    name: &str,
    batch: &[RunResult],
    jobs: &[i64],
    runs: &[i64],
) -> sqlx::Result<JobStates> {
    let outcomes: Vec<String> = batch.iter().map(|v| v.outcome.as_str().to_owned()).collect();
    let effects: Vec<String> = batch.iter().map(|v| v.outcome.job_effect().to_owned()).collect();
    let errors: Vec<Option<&str>> = batch.iter().map(|v| v.error.as_deref().or(v.note.as_deref())).collect();
    let results: Vec<Option<&Value>> =
        batch.iter().map(|v| (v.outcome == RunOutcome::Done).then_some(&v.report)).collect();
    let delays: Vec<f64> = batch.iter().map(|v| v.delay.as_secs_f64()).collect();
    let finalized = sqlx::query_file!(
        "src/queue/completer.sql",
        name,
        jobs,
        runs,
        &outcomes,
        &effects,
        &errors as &[Option<&str>],
        &results as &[Option<&Value>],
        &delays,
    )
    .fetch_all(connection)
    .await?;
    Ok(finalized.into_iter().map(|row| ((row.id, row.run), row.state.into())).collect())
}

/// Logs, counts and publishes a batch of results by the states that their jobs have now.
fn report_batch(engine: &WorkerShared, batch: Vec<RunResult>, states: &JobStates) {
    for mut ending in batch {
        let (job, run) = (ending.job.id, ending.job.run);
        match states.get(&(job, run)).map(|state| &**state) {
            Some("completed") if ending.outcome != RunOutcome::Done => {
                tracing::info!(job, run, "step had committed despite a lost response");
                ending.outcome = RunOutcome::Done;
                ending.error = None;
                finish_run(engine, ending, false);
            }
            Some("cancelled") if ending.outcome != RunOutcome::Cancelled => {
                // The job had a cancel request, and its run ended by itself without being done.
                ending.outcome = RunOutcome::Cancelled;
                finish_run(engine, ending, false);
            }
            Some(state) => {
                let discarded = state == "discarded";
                increment_counter(&engine.counts.discarded, u64::from(discarded));
                finish_run(engine, ending, discarded);
            }
            // The run had already learned that its lease was lost.
            None if ending.outcome == RunOutcome::Lost => finish_run(engine, ending, false),
            None => {
                increment_counter(&engine.counts.stale, 1);
                tracing::warn!(job, run, outcome = ending.outcome.as_str(), "stale job result dropped");
                ending.outcome = RunOutcome::Lost;
                finish_run(engine, ending, false);
            }
        }
    }
}

/// Removes the job from the held jobs, logs its result and publishes an event.
fn finish_run(engine: &WorkerShared, ending: RunResult, discarded: bool) {
    let RunResult { job, outcome: ended, report, error, .. } = ending;
    let duration = job.since.elapsed();
    let (id, kind, attempt, ms) = (job.id, &*job.kind, job.attempt, duration.as_millis() as u64);
    let outcome = ended.as_str();
    let _inside = job.span.enter();
    match &error {
        Some(error) if discarded => {
            tracing::error!(target: "outcome", job = id, kind, attempt, outcome, ms, error, "job discarded");
        }
        Some(error) => {
            tracing::warn!(target: "outcome", job = id, kind, attempt, outcome, ms, error, "job run finished");
        }
        None => {
            tracing::info!(target: "outcome", job = id, kind, attempt, outcome, ms, "job run finished");
        }
    }
    engine.untrack(job.id, job.run);
    if let Some(watchers) = engine.event_sender() {
        let (kind, key) = (job.kind.clone(), job.key.clone());
        let outcome = ended;
        let _ = watchers.send(WorkerEvent::Ended { job: id, kind, key, outcome, report, error, discarded, duration });
    }
}

/// Converts a rejected result into a failed attempt. Returns `None` if that was rejected as well: the lease will
/// expire.
fn convert_refused(
    engine: &WorkerShared,
    batch: Vec<RunResult>,
    refusal: &dyn sqlx::error::DatabaseError,
) -> Option<Vec<RunResult>> {
    let ending = batch.into_iter().next()?;
    let (job, run) = (ending.job.id, ending.job.run);
    if ending.outcome == RunOutcome::Retry && ending.report.is_null() {
        tracing::error!(job, run, error = refusal.message(), "job result rejected by the database, lease will expire");
        engine.untrack(job, run);
        return None;
    }
    let word = ending.outcome.as_str();
    let message = refusal.message();
    let error = format!("could not store the result of a run with outcome {word}: {message}");
    Some(vec![RunResult::new(&ending.job, RunOutcome::Retry).with_error(error)])
}

/// Returns true for an error that a repeated statement would meet again: data exceptions and violated constraints.
fn is_data_error(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}
