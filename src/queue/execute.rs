//! Running one claimed job: the outermost wrapper around its handler.
//!
//! The handler is a tokio task of its own, so that nothing it does can hold up the worker, and its panic is an answer
//! and not an accident. Five things may end it: itself, its policy's time limit, an operator who cancels it, a lost
//! lease, the drain's deadline. Cutting off means aborting the task at its next await, which drops its transaction; a
//! handler that sits in `spawn_blocking` runs on to its end there, but its step can no longer commit under the fence.
//!
//! A dropped transaction is not a finished one: the server works on at its statement until it has to send something. So
//! the backend of a step that was cut off is ended from outside, and only then is the end of the run written down.

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

/// How long to wait for an aborted handler to let go.
const ABORT: Duration = Duration::from_secs(1);

/// How long to wait until the server has let go too.
const STOP: Duration = Duration::from_secs(3);

/// Runs the job and hands its end to the settler.
pub(super) async fn execute(engine: Shared, mut job: Claimed) {
    let payload = job.payload.take();
    job.span = span(&job, &payload);
    let job = Arc::new(job);
    let ending = run(&engine, &job, payload).await;
    engine.conclude(ending);
}

/// What every log line of this run says, its end's included. A job whose payload names no source and window may still
/// record them.
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
    // It may have ended in the very moment of the cut; then its own word counts.
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
            wait(entry, ending.because(format!("cut off after {limit}, its kind's limit")))
        }
        Outcome::Lost => Ending::new(job, Outcome::Lost).because("cut off: its lease was lost"),
        outcome => Ending::new(job, outcome),
    }
}

/// Ends the transactions that a run has left open at the server, and waits until they are gone.
async fn end_at_server(engine: &Shared, backends: &Backends) {
    let open = std::mem::take(&mut *backends.lock().unwrap_or_else(PoisonError::into_inner));
    let (pids, began): (Vec<i32>, Vec<DateTime<Utc>>) = open.into_iter().unzip();
    if pids.is_empty() {
        return;
    }
    let ended = sqlx::query_file_scalar!("src/queue/execute.end.sql", &pids, &began).fetch_all(&engine.own);
    match tokio::time::timeout(STOP, ended).await {
        Ok(Ok(_)) => {}
        // The server cuts them off itself, at the kind's time limit or when it finds nobody at the other end.
        Ok(Err(error)) => tracing::warn!(%error, "could not end the transaction of a run that was cut off"),
        Err(_) => tracing::warn!("the transaction of a run that was cut off has not ended yet"),
    }
}

/// What the handler's own end means.
fn ending(entry: &Entry, job: &Arc<Claimed>, ended: Result<Erased, JoinError>) -> Ending {
    match ended {
        Ok(Ok(done)) => {
            let Done { report, committed, note } = done;
            Ending { report, committed, note, ..Ending::new(job, Outcome::Done) }
        }
        Ok(Err(Failure::Unreadable(error))) => Ending::new(job, Outcome::Unreadable).because(error),
        Ok(Err(Failure::Stop(Stop::Abort(error)))) => Ending::new(job, Outcome::Abort).because(error),
        Ok(Err(Failure::Stop(Stop::Snooze(delay)))) => Ending { delay, ..Ending::new(job, Outcome::Snooze) },
        // A step refused by the fence is no failure of the job: it has a new holder.
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
        // Aborted by nobody we know of: the runtime is going down.
        Err(_) => Ending::new(job, Outcome::Interrupted),
    }
}

/// The same with the policy's wait before the next attempt.
fn wait(entry: &Entry, ending: Ending) -> Ending {
    Ending { delay: entry.policy.wait(ending.job.attempt, rand::random()), ..ending }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
