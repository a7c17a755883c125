//! A worker's statements one at a time, for callers that drive the queue manually: the model test and the measurement
//! of a claim. The statements are those of a worker, without the loops around them.

use super::completer::{RunResult, finalize_batch};
use super::event::RunOutcome;
use super::prune::{Retention, prune_jobs};
use super::run::{ClaimedJob, complete_job};
use super::worker_state::Capacity;
use super::{claim, lease};
use serde_json::Value;
use sqlx::PgPool;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A worker whose statements are called one at a time.
#[derive(Clone, Debug)]
pub struct ManualWorker {
    /// The connections that the statements run on.
    pub pool: PgPool,
    /// Name of the worker, one half of the fence.
    pub name: String,
    /// The kinds that the worker claims.
    pub kinds: Vec<String>,
    /// Duration of a claim without renewal.
    pub lease: Duration,
}

impl ManualWorker {
    /// Claims and returns at most `jobs` jobs.
    pub async fn claim_jobs(&self, jobs: usize) -> anyhow::Result<Vec<ClaimedJob>> {
        let room = Capacity { slots: jobs, ahead: 0, kinds: vec![jobs as i64; self.kinds.len()] };
        let cheap = vec![false; self.kinds.len()];
        let mut connection = self.pool.acquire().await?;
        Ok(claim::claim_jobs(&mut connection, &self.kinds, &cheap, &room, &self.name, self.lease).await?)
    }

    /// Ends a run. Returns the new state of the job, or `None` if the result was stale.
    pub async fn end_run(
        &self,
        job: &ClaimedJob,
        outcome: RunOutcome,
        delay: Duration,
    ) -> anyhow::Result<Option<String>> {
        let mut ending = RunResult::new(&Arc::new(job.clone()), outcome);
        ending.delay = delay;
        ending.report = Value::Object(serde_json::Map::new());
        if outcome != RunOutcome::Done {
            ending = ending.with_error(outcome.as_str());
        }
        let mut connection = self.pool.acquire().await?;
        Ok(finalize_batch(&mut connection, &self.name, &[ending])
            .await?
            .remove(&(job.id, job.run))
            .map(Cow::into_owned))
    }

    /// Completes a run as a step does. Returns false if the job has another holder.
    pub async fn complete_step(&self, job: &ClaimedJob) -> anyhow::Result<bool> {
        let mut connection = self.pool.acquire().await?;
        let report = Value::Object(serde_json::Map::new());
        Ok(complete_job(&mut connection, job, &self.name, report, None, false).await?)
    }

    /// Renews the leases of runs, given as (job, run). Returns the jobs still held, each with true if it has a cancel
    /// request.
    pub async fn renew_leases(&self, runs: &[(i64, i64)]) -> anyhow::Result<HashMap<i64, bool>> {
        let (jobs, runs): (Vec<i64>, Vec<i64>) = runs.iter().copied().unzip();
        Ok(lease::renew_leases(&self.pool, &self.name, &jobs, &runs, self.lease).await?)
    }

    /// Rescues jobs with expired leases and returns their ids.
    pub async fn rescue_jobs(&self) -> anyhow::Result<Vec<i64>> {
        Ok(lease::rescue_jobs(&self.pool).await?.into_iter().map(|(job, ..)| job).collect())
    }

    /// Prunes finished jobs and returns the number of deleted jobs.
    pub async fn prune_jobs(&self, keep: Retention) -> anyhow::Result<u64> {
        Ok(prune_jobs(&self.pool, keep).await?)
    }
}
