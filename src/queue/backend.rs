//! The queue as a backend of apalis, whose worker runtime polls it, runs its tasks and stops them in order.
//!
//! The runtime sees a stream of claimed jobs and one function that runs them. Claiming, leases and settling are tasks
//! beside it: the runtime polls a backend from the task that also polls the handlers' futures, and whatever happened
//! there only as often as somebody polls would make liveness depend on load.

use super::engine::Shared;
use super::event::Outcome;
use super::run::Claimed;
use super::settle::Ending;
use apalis::prelude::{Backend, Task, TaskBuilder, TaskId, WorkerContext};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tower::layer::util::Identity;

/// Claimed jobs on their way into the runtime.
pub(super) struct Fleet {
    engine: Shared,
    jobs: Option<mpsc::UnboundedReceiver<Claimed>>,
    closing: Option<BoxFuture<'static, ()>>,
}

impl Fleet {
    pub fn new(engine: Shared, jobs: mpsc::UnboundedReceiver<Claimed>) -> Fleet {
        Fleet { engine, jobs: Some(jobs), closing: None }
    }
}

impl Backend for Fleet {
    type Task = Task<Claimed>;
    /// The database being away is the engine's business; to the runtime there is simply no job.
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<Claimed>, Infallible>>> {
        let Some(jobs) = &mut self.jobs else { return Poll::Ready(None) };
        jobs.poll_recv(cx).map(|job| job.map(|job| Ok(task(job))))
    }

    /// Called when no handler runs any more: gives back what never started and waits until every end is stored.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        let (engine, jobs) = (&self.engine, &mut self.jobs);
        let closing = self.closing.get_or_insert_with(|| close(engine.clone(), jobs.take()).boxed());
        closing.poll_unpin(cx).map(Ok)
    }
}

impl BackendConfig for Fleet {
    type Args = Claimed;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}

fn task(job: Claimed) -> Task<Claimed> {
    let (id, attempt, max) =
        (job.id.unsigned_abs(), job.attempt.unsigned_abs(), job.max_attempts.unsigned_abs());
    TaskBuilder::new(job)
        .task_id(TaskId::Int(id))
        .attempt(attempt.saturating_sub(1) as usize)
        .max_attempts(max as usize)
        .build()
}

/// The channel ends when the claimer does, which is after its last claim; so nothing claimed is overlooked.
async fn close(engine: Shared, jobs: Option<mpsc::UnboundedReceiver<Claimed>>) {
    engine.draining.cancel();
    if let Some(mut jobs) = jobs {
        while let Some(job) = jobs.recv().await {
            engine.conclude(Ending::new(&Arc::new(job), Outcome::Returned));
        }
    }
    while !engine.holds().is_empty() {
        engine.freed.notified().await;
    }
}
