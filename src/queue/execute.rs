//! Runs one claimed job: the outermost wrapper around the handler.
//!
//! The handler is a separate tokio task, so it cannot block the worker, and a panic is an ordinary outcome. Five
//! events end the task: its return, the timeout of its policy, an operator's cancel request, a lost lease, the deadline
//! of the drain. A run is cut off by aborting the task at its next await, which drops its transaction. A handler inside
//! `spawn_blocking` continues there to the end, but its step can no longer commit because of the fence.
//!
//! A dropped transaction has not ended yet: the server continues the statement until it has something to send. So the
//! server process of a step that was cut off is terminated from outside. Only then is the result of the run written.

use super::again::persist;
use super::engine::Shared;
use super::entry::{Entry, Erased, Failure};
use super::event::{Event, Outcome};
use super::job::{Done, Stop};
use super::run::{Backends, Claimed, Lost, Run};
use super::settle::Ending;
use crate::db::passing::is_permanent;
use chrono::{DateTime, Utc};
use std::any::Any;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Longest wait for the end of an aborted handler.
const ABORT: Duration = Duration::from_secs(1);

/// Longest wait for the end of a cut-off run's transactions at the server.
const STOP: Duration = Duration::from_secs(3);

/// Runs the job and sends the result to the completer.
pub(super) async fn execute(engine: Shared, mut job: Claimed) {
    let payload = job.payload.take();
    job.span = span(&job, &payload);
    let job = Arc::new(job);
    let ending = run(&engine, &job, payload).await;
    engine.conclude(ending);
}

/// Returns the span with the fields of every log line of this run, the line of its result included.
///
/// A job whose payload contains no source and window may still record them.
fn span(job: &Claimed, payload: &serde_json::Value) -> tracing::Span {
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

async fn run(engine: &Shared, job: &Arc<Claimed>, payload: serde_json::Value) -> Ending {
    let (Some(entry), Some(hold)) =
        (engine.entries.iter().find(|entry| entry.answers_to(&job.kind)), engine.hold_of(job.id))
    else {
        return Ending::new(job, Outcome::Returned);
    };
    let _slot = tokio::select! {
        biased;
        () = engine.draining.cancelled() => return Ending::new(job, Outcome::Returned),
        () = hold.lost.cancelled() => return Ending::new(job, Outcome::Lost),
        () = hold.cancelled.cancelled() => return Ending::new(job, Outcome::Cancelled),
        slot = engine.slots.acquire() => slot,
    };
    if let Some(watchers) = engine.watched() {
        let _ = watchers.send(Event::Started { job: job.id, kind: job.kind.clone(), key: job.key.clone() });
    }

    let timeout = entry.policy.timeout;
    let backends = Backends::default();
    let run = Run {
        engine: engine.clone(),
        job: job.clone(),
        timeout,
        told: Arc::default(),
        backends: backends.clone(),
        tried: None,
    };
    let handler = persist(entry, run, payload).instrument(job.span.clone());
    let mut handler = AbortOnDropHandle::new(tokio::spawn(handler));
    let cut_off = tokio::select! {
        ended = &mut handler => return ending(entry, job, ended),
        () = tokio::time::sleep(timeout) => Outcome::Timeout,
        () = hold.lost.cancelled() => Outcome::Lost,
        () = hold.cancelled.cancelled() => Outcome::Cancelled,
        () = engine.deadline.cancelled() => Outcome::Interrupted,
    };
    handler.abort();
    // The handler may have ended at the moment of the cut. Then its own result counts.
    if let Ok(ended) = tokio::time::timeout(ABORT, &mut handler).await
        && !ended.as_ref().is_err_and(JoinError::is_cancelled)
    {
        return ending(entry, job, ended);
    }
    end_at_server(engine, &backends).await;
    match cut_off {
        Outcome::Timeout => {
            let ending = Ending::new(job, Outcome::Timeout);
            let limit = humantime::format_duration(timeout);
            wait(entry, ending.because(format!("run cut off after {limit}, the timeout of its kind")))
        }
        Outcome::Lost => Ending::new(job, Outcome::Lost).because("run cut off: its lease was lost"),
        outcome => Ending::new(job, outcome),
    }
}

/// Terminates the transactions that a run has left open at the server, and waits until they have ended.
async fn end_at_server(engine: &Shared, backends: &Backends) {
    let open = std::mem::take(&mut *backends.lock().unwrap_or_else(PoisonError::into_inner));
    let (pids, began): (Vec<i32>, Vec<DateTime<Utc>>) = open.into_iter().unzip();
    if pids.is_empty() {
        return;
    }
    let ended = sqlx::query_file_scalar!("src/queue/execute.end.sql", &pids, &began).fetch_all(&engine.own);
    match tokio::time::timeout(STOP, ended).await {
        Ok(Ok(_)) => {}
        // The server ends them itself, at the timeout of the kind or when it finds the connection closed.
        Ok(Err(error)) => tracing::warn!(%error, "could not terminate the transaction of a cut-off run"),
        Err(_) => tracing::warn!("transaction of a cut-off run still running at the server"),
    }
}

/// Returns the result of a run whose handler has ended by itself.
fn ending(entry: &Entry, job: &Arc<Claimed>, ended: Result<Erased, JoinError>) -> Ending {
    match ended {
        Ok(Ok(done)) => {
            let Done { report, committed, note } = done;
            Ending { report, committed, note, ..Ending::new(job, Outcome::Done) }
        }
        Ok(Err(Failure::Unreadable(error))) => Ending::new(job, Outcome::Unreadable).because(error),
        Ok(Err(Failure::Stop(Stop::Abort(error)))) => Ending::new(job, Outcome::Abort).because(error),
        Ok(Err(Failure::Stop(Stop::Snooze(delay)))) => Ending { delay, ..Ending::new(job, Outcome::Snooze) },
        // A step that the fence rejected is not a failure of the job: another worker has the job.
        Ok(Err(Failure::Stop(Stop::Retry(error)))) if error.is::<Lost>() => {
            Ending::new(job, Outcome::Lost).because(error)
        }
        // No attempt can succeed: the same data fails at the same value.
        Ok(Err(Failure::Stop(Stop::Retry(error)))) if is_permanent(&error) => {
            Ending::new(job, Outcome::Abort).because(error)
        }
        Ok(Err(Failure::Stop(Stop::Retry(error)))) => {
            wait(entry, Ending::new(job, Outcome::Retry).because(error))
        }
        Err(error) if error.is_panic() => {
            let panic = error.into_panic();
            wait(entry, Ending::new(job, Outcome::Panic).because(format!("panicked: {}", said(&*panic))))
        }
        // Aborted by none of the five events: the runtime shuts down.
        Err(_) => Ending::new(job, Outcome::Interrupted),
    }
}

/// Adds the policy's delay before the next attempt to a result.
fn wait(entry: &Entry, ending: Ending) -> Ending {
    Ending { delay: entry.policy.wait(ending.job.attempt, rand::random()), ..ending }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
