//! The queue as an apalis backend. The worker runtime of apalis polls it, runs its tasks and stops them in order.
//!
//! The runtime sees a stream of claimed jobs and one function that runs them. Claiming, lease renewal and the completer
//! are separate tasks. The runtime polls a backend from the task that also polls the futures of the handlers, so work
//! done there would make liveness depend on load.

use super::completer::RunResult;
use super::event::RunOutcome;
use super::run::ClaimedJob;
use super::worker_state::WorkerShared;
use apalis::prelude::{Backend, Task, TaskBuilder, TaskId, WorkerContext};
use apalis_core::backend::{BackendConfig, finalize::Ephemeral};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tower::layer::util::Identity;

/// The apalis backend of one worker: passes claimed jobs to the runtime.
pub(super) struct ApalisBackend {
    engine: WorkerShared,
    jobs: Option<mpsc::UnboundedReceiver<ClaimedJob>>,
    closing: Option<BoxFuture<'static, ()>>,
}

impl ApalisBackend {
    pub fn new(engine: WorkerShared, jobs: mpsc::UnboundedReceiver<ClaimedJob>) -> ApalisBackend {
        ApalisBackend { engine, jobs: Some(jobs), closing: None }
    }
}

impl Backend for ApalisBackend {
    type Task = Task<ClaimedJob>;
    /// An outage of the database is handled by the worker's own tasks. To the runtime there is simply no job.
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Option<Result<Task<ClaimedJob>, Infallible>>> {
        let Some(jobs) = &mut self.jobs else { return Poll::Ready(None) };
        jobs.poll_recv(cx).map(|job| job.map(|job| Ok(build_task(job))))
    }

    /// Releases the jobs that never started and waits until every result is stored. The runtime calls this when no
    /// handler runs any more.
    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        let (engine, jobs) = (&self.engine, &mut self.jobs);
        let closing = self.closing.get_or_insert_with(|| close_backend(engine.clone(), jobs.take()).boxed());
        closing.poll_unpin(cx).map(Ok)
    }
}

impl BackendConfig for ApalisBackend {
    type Args = ClaimedJob;
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

fn build_task(job: ClaimedJob) -> Task<ClaimedJob> {
    let (id, attempt, max) = (job.id.unsigned_abs(), job.attempt.unsigned_abs(), job.max_attempts.unsigned_abs());
    TaskBuilder::new(job)
        .task_id(TaskId::Int(id))
        .attempt(attempt.saturating_sub(1) as usize)
        .max_attempts(max as usize)
        .build()
}

/// Releases all jobs left in the channel, then waits for the last result.
///
/// The channel ends together with the claimer, after its last claim, so no claimed job is overlooked.
async fn close_backend(engine: WorkerShared, jobs: Option<mpsc::UnboundedReceiver<ClaimedJob>>) {
    engine.draining.cancel();
    if let Some(mut jobs) = jobs {
        while let Some(job) = jobs.recv().await {
            engine.report_result(RunResult::new(&Arc::new(job), RunOutcome::Released));
        }
    }
    while !engine.held_jobs().is_empty() {
        engine.freed.notified().await;
    }
}
