//! One row of the fleet's table of jobs: everything anybody may ask about a kind, and how to run it.
//!
//! `workers::FLEET` is a const slice of these. Scheduler, command line, metrics and README are drawn from it,
//! so a job is added in one place. The handler is kept with its types erased: payload in and report out are JSON,
//! which is what lets one worker serve many kinds from one claim.

use super::job::{Done, Job, Policy, Stop};
use super::run::Run;
use anyhow::{Context, anyhow};
use futures::future::BoxFuture;
use serde_json::Value;

/// A kind of job: its words, its policy, its handler.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The name its jobs are stored under.
    pub kind: &'static str,
    /// Earlier names, still drained under this handler.
    pub aliases: &'static [&'static str],
    /// What it does, as a verb phrase.
    pub verb: &'static str,
    /// What makes it run.
    pub when: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// What it writes.
    pub writes: &'static str,
    /// Why running it twice does no harm.
    pub safe: &'static str,
    /// The kind that follows it, or nothing.
    pub next: &'static str,
    /// How its failures are treated.
    pub policy: Policy,
    pub(super) run: fn(Run, Value) -> BoxFuture<'static, Erased>,
}

/// A verdict whose report is JSON.
pub(super) type Erased = Result<Done<Value>, Failure>;

/// Why there is no report.
pub(super) enum Failure {
    /// The job said so.
    Stop(Stop),
    /// The payload is not one of this kind; no retry will change that.
    Unreadable(anyhow::Error),
}

impl Entry {
    /// The row of job `J`, with the words of its own consts.
    pub const fn of<J: Job>() -> Entry {
        Entry {
            kind: J::KIND,
            aliases: &[],
            verb: J::VERB,
            when: J::WHEN,
            reads: J::READS,
            writes: J::WRITES,
            safe: J::SAFE,
            next: J::NEXT,
            policy: J::POLICY,
            run: erased::<J>,
        }
    }

    /// The same, also draining jobs stored under earlier names.
    pub const fn aliases(self, aliases: &'static [&'static str]) -> Entry {
        Entry { aliases, ..self }
    }

    /// Whether a stored kind is this one, by its name or an earlier one.
    pub fn answers_to(&self, kind: &str) -> bool {
        self.kind == kind || self.aliases.contains(&kind)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("kind", &self.kind).field("verb", &self.verb).finish_non_exhaustive()
    }
}

fn erased<J: Job>(run: Run, payload: Value) -> BoxFuture<'static, Erased> {
    Box::pin(async move {
        let job: J = serde_json::from_value(payload)
            .map_err(|error| Failure::Unreadable(anyhow!(error).context("read the payload")))?;
        let done = job.run(run).await.map_err(Failure::Stop)?;
        let report = serde_json::to_value(done.report)
            .context("write the report as JSON")
            .map_err(|error| Failure::Stop(Stop::Retry(error)))?;
        Ok(Done { report, committed: done.committed, note: done.note })
    })
}
