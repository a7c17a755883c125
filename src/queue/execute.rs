//! Runs one claimed job: the outermost wrapper around the handler.
//!
//! The handler is a separate tokio task, so it cannot block the worker, and a panic is an ordinary outcome. Five
//! events end the task: its return, the timeout of its policy, an operator's cancel request, a lost lease, the deadline
//! of the drain. A run is cut off by aborting the task at its next await, which drops its transaction. A handler inside
//! `spawn_blocking` continues there to the end, but its step can no longer commit because of the fence.
//!
//! A dropped transaction has not ended yet: the server continues the statement until it has something to send. So the
//! server process of a step that was cut off is terminated from outside. Only then is the result of the run written.

use super::completer::RunResult;
use super::event::{RunOutcome, WorkerEvent};
use super::job::{JobDone, JobError};
use super::registry::{ErasedResult, JobDefinition, RunFailure};
use super::retry_transient::with_retry;
use super::run::{ClaimedJob, JobRun, LeaseLost, StepBackends};
use super::worker_state::WorkerShared;
use crate::db::transient::is_permanent;
use chrono::{DateTime, Utc};
use std::any::Any;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Longest wait for the end of an aborted handler.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for the end of a cut-off run's transactions at the server.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the job and sends the result to the completer.
pub(super) async fn execute_job(engine: WorkerShared, mut job: ClaimedJob) {
    let payload = job.payload.take();
    job.span = job_span(&job, &payload);
    let job = Arc::new(job);
    let ending = run_handler(&engine, &job, payload).await;
    engine.report_result(ending);
}

/// Returns the span with the fields of every log line of this run, the line of its result included.
///
/// A job whose payload contains no source and window may still record them.
fn job_span(job: &ClaimedJob, payload: &serde_json::Value) -> tracing::Span {
    tracing::info_span!(
        "job",
        job = job.id,
        kind = &*job.kind,
        key = job.key.as_deref(),
        attempt = job.attempt,
        run = job.run,
        source = payload["source"].as_str(),
        window = payload["window_start_utc"].as_str(),
    )
}

async fn run_handler(engine: &WorkerShared, job: &Arc<ClaimedJob>, payload: serde_json::Value) -> RunResult {
    let (Some(entry), Some(hold)) =
        (engine.entries.iter().find(|entry| entry.matches_kind(&job.kind)), engine.held_job(job.id))
    else {
        return RunResult::new(job, RunOutcome::Released);
    };
    let _slot = tokio::select! {
        biased;
        () = engine.draining.cancelled() => return RunResult::new(job, RunOutcome::Released),
        () = hold.lost.cancelled() => return RunResult::new(job, RunOutcome::Lost),
        () = hold.cancelled.cancelled() => return RunResult::new(job, RunOutcome::Cancelled),
        slot = engine.slots.acquire() => slot,
    };
    if let Some(watchers) = engine.event_sender() {
        let _ = watchers.send(WorkerEvent::Started { job: job.id, kind: job.kind.clone(), key: job.key.clone() });
    }

    let timeout = entry.policy.timeout;
    let backends = StepBackends::default();
    let run = JobRun {
        engine: engine.clone(),
        job: job.clone(),
        timeout,
        last_progress_ms: Arc::default(),
        backends: backends.clone(),
        tried: None,
    };
    let handler = with_retry(entry, run, payload).instrument(job.span.clone());
    let mut handler = AbortOnDropHandle::new(tokio::spawn(handler));
    let cut_off = tokio::select! {
        ended = &mut handler => return classify_result(entry, job, ended),
        () = tokio::time::sleep(timeout) => RunOutcome::Timeout,
        () = hold.lost.cancelled() => RunOutcome::Lost,
        () = hold.cancelled.cancelled() => RunOutcome::Cancelled,
        () = engine.deadline.cancelled() => RunOutcome::Interrupted,
    };
    handler.abort();
    // The handler may have ended at the moment of the cut. Then its own result counts.
    if let Ok(ended) = tokio::time::timeout(ABORT_TIMEOUT, &mut handler).await
        && !ended.as_ref().is_err_and(JoinError::is_cancelled)
    {
        return classify_result(entry, job, ended);
    }
    terminate_backends(engine, &backends).await;
    match cut_off {
        RunOutcome::Timeout => {
            let ending = RunResult::new(job, RunOutcome::Timeout);
            let limit = humantime::format_duration(timeout);
            with_retry_delay(entry, ending.with_error(format!("run cut off after {limit}, the timeout of its kind")))
        }
        RunOutcome::Lost => RunResult::new(job, RunOutcome::Lost).with_error("run cut off: its lease was lost"),
        outcome => RunResult::new(job, outcome),
    }
}

/// Terminates the transactions that a run has left open at the server, and waits until they have ended.
async fn terminate_backends(engine: &WorkerShared, backends: &StepBackends) {
    let open = std::mem::take(&mut *backends.lock().unwrap_or_else(PoisonError::into_inner));
    let (pids, began): (Vec<i32>, Vec<DateTime<Utc>>) = open.into_iter().unzip();
    if pids.is_empty() {
        return;
    }
    let ended = sqlx::query_file_scalar!("src/queue/execute.end.sql", &pids, &began).fetch_all(&engine.own);
    match tokio::time::timeout(TERMINATE_TIMEOUT, ended).await {
        Ok(Ok(_)) => {}
        // The server ends them itself, at the timeout of the kind or when it finds the connection closed.
        Ok(Err(error)) => tracing::warn!(%error, "could not terminate the transaction of a cut-off run"),
        Err(_) => tracing::warn!("transaction of a cut-off run still running at the server"),
    }
}

/// Returns the result of a run whose handler has ended by itself.
fn classify_result(entry: &JobDefinition, job: &Arc<ClaimedJob>, ended: Result<ErasedResult, JoinError>) -> RunResult {
    match ended {
        Ok(Ok(done)) => {
            let JobDone { report, committed, note } = done;
            RunResult { report, committed, note, ..RunResult::new(job, RunOutcome::Done) }
        }
        Ok(Err(RunFailure::Unreadable(error))) => RunResult::new(job, RunOutcome::Unreadable).with_error(error),
        Ok(Err(RunFailure::Stop(JobError::Abort(error)))) => RunResult::new(job, RunOutcome::Abort).with_error(error),
        Ok(Err(RunFailure::Stop(JobError::Snooze(delay)))) => {
            RunResult { delay, ..RunResult::new(job, RunOutcome::Snooze) }
        }
        // A step that the fence rejected is not a failure of the job: another worker has the job.
        Ok(Err(RunFailure::Stop(JobError::Retry(error)))) if error.is::<LeaseLost>() => {
            RunResult::new(job, RunOutcome::Lost).with_error(error)
        }
        // No attempt can succeed: the same data fails at the same value.
        Ok(Err(RunFailure::Stop(JobError::Retry(error)))) if is_permanent(&error) => {
            RunResult::new(job, RunOutcome::Abort).with_error(error)
        }
        Ok(Err(RunFailure::Stop(JobError::Retry(error)))) => {
            with_retry_delay(entry, RunResult::new(job, RunOutcome::Retry).with_error(error))
        }
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            with_retry_delay(
                entry,
                RunResult::new(job, RunOutcome::Panic).with_error(format!("panicked: {}", panic_message(&*panic))),
            )
        }
        // Aborted by none of the five events: the runtime shuts down.
        Err(_) => RunResult::new(job, RunOutcome::Interrupted),
    }
}

/// Adds the policy's delay before the next attempt to a result.
fn with_retry_delay(entry: &JobDefinition, ending: RunResult) -> RunResult {
    RunResult { delay: entry.policy.retry_delay(ending.job.attempt, rand::random()), ..ending }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
