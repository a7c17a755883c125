//! One row of the table of jobs: the description of a kind, its policy and its handler.
//!
//! `workers::FLEET` is a const slice of these rows. Scheduler, command line, metrics and README are derived from these
//! rows, so a job is added in one place. The types of the handler are erased: payload and report are JSON. That lets
//! one worker serve many kinds from one claim.

use super::job::{Job, JobDone, JobError, JobPolicy};
use super::run::JobRun;
use anyhow::{Context, anyhow};
use futures::future::BoxFuture;
use serde_json::Value;

/// A kind of job: description, policy and handler.
#[derive(Clone, Copy)]
pub struct JobDefinition {
    /// The name under which jobs of the kind are stored.
    pub kind: &'static str,
    /// Earlier names of the kind, whose jobs this handler still runs.
    pub aliases: &'static [&'static str],
    /// Description of the job as a verb phrase.
    pub verb: &'static str,
    /// The event or schedule that enqueues the job.
    pub when: &'static str,
    /// Tables and files that the job reads.
    pub reads: &'static str,
    /// Tables and files that the job writes.
    pub writes: &'static str,
    /// The reason why a repeated run is harmless.
    pub safe: &'static str,
    /// The kind that the job enqueues next, or an empty string.
    pub next: &'static str,
    /// Attempts, backoff and timeout of the kind.
    pub policy: JobPolicy,
    pub(super) run: fn(JobRun, Value) -> BoxFuture<'static, ErasedResult>,
}

/// A job result whose report is JSON.
pub(super) type ErasedResult = Result<JobDone<Value>, RunFailure>;

/// The reason why a run has no report.
pub(super) enum RunFailure {
    /// The job returned an error.
    Stop(JobError),
    /// The payload does not match the kind. A retry cannot succeed.
    Unreadable(anyhow::Error),
}

impl JobDefinition {
    /// Returns the definition of job `J`, made from the constants of its `Job` implementation.
    pub const fn for_job<J: Job>() -> JobDefinition {
        JobDefinition {
            kind: J::KIND,
            aliases: &[],
            verb: J::VERB,
            when: J::WHEN,
            reads: J::READS,
            writes: J::WRITES,
            safe: J::SAFE,
            next: J::NEXT,
            policy: J::POLICY,
            run: run_erased::<J>,
        }
    }

    /// Adds earlier names of the kind, whose jobs are still run.
    pub const fn with_aliases(self, aliases: &'static [&'static str]) -> JobDefinition {
        JobDefinition { aliases, ..self }
    }

    /// Returns true if a stored kind is this one, by its name or an earlier name.
    pub fn matches_kind(&self, kind: &str) -> bool {
        self.kind == kind || self.aliases.contains(&kind)
    }
}

impl std::fmt::Debug for JobDefinition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("kind", &self.kind).field("verb", &self.verb).finish_non_exhaustive()
    }
}

fn run_erased<J: Job>(run: JobRun, payload: Value) -> BoxFuture<'static, ErasedResult> {
    Box::pin(async move {
        let job: J = serde_json::from_value(payload)
            .map_err(|error| RunFailure::Unreadable(anyhow!(error).context("could not decode the payload")))?;
        let done = job.run(run).await.map_err(RunFailure::Stop)?;
        let report = serde_json::to_value(done.report)
            .context("could not encode the report as JSON")
            .map_err(|error| RunFailure::Stop(JobError::Retry(error)))?;
        Ok(JobDone { report, committed: done.committed, note: done.note })
    })
}
