//! Enqueues jobs inside the caller's transaction.
//!
//! Every job goes through the SQL function `fleet.enqueue`, so a job enqueued from psql or from a program in another
//! language is the same job. A key in use is not an error: the work is already enqueued.

use super::job::Job;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// Options of a new job. The default is "due now, without a key".
#[derive(Clone, Debug, Default)]
pub struct EnqueueOptions {
    /// The subject of the job. While a job of the same kind and key waits, runs or is completed, another one is not
    /// enqueued. `unique_over` selects other states.
    pub key: Option<String>,
    /// Earliest time of the run by the database's clock. Default: now.
    pub run_at: Option<DateTime<Utc>>,
    /// Smaller numbers run first. Default: 0.
    pub priority: i16,
    /// Maximum number of attempts. Default: the policy of the kind.
    pub max_attempts: Option<i32>,
    /// The states in which the job reserves its key: [`UNFINISHED_STATES`] and any of the other three.
    ///
    /// Default: waiting, running and completed. All jobs of a kind that share keys should use the same states, since
    /// jobs with the default and jobs with a selection do not exclude each other.
    pub unique_over: Option<&'static [&'static str]>,
}

/// The states of an unfinished job. A key that is unique over them means "one job at a time".
pub const UNFINISHED_STATES: &[&str] = &["available", "scheduled", "running", "retryable"];

impl EnqueueOptions {
    /// Returns options for a job that is enqueued once per `key`.
    pub fn with_key(key: impl Into<String>) -> EnqueueOptions {
        EnqueueOptions { key: Some(key.into()), ..EnqueueOptions::default() }
    }

    /// Reserves the key only while the job is in one of these states.
    pub fn unique_over(self, states: &'static [&'static str]) -> EnqueueOptions {
        EnqueueOptions { unique_over: Some(states), ..self }
    }

    /// Sets the earliest time of the run.
    pub fn with_run_at(self, run_at: DateTime<Utc>) -> EnqueueOptions {
        EnqueueOptions { run_at: Some(run_at), ..self }
    }

    /// Sets the priority. Smaller numbers run first.
    pub fn with_priority(self, priority: i16) -> EnqueueOptions {
        EnqueueOptions { priority, ..self }
    }
}

/// Enqueues one job and returns its id, or `None` if its key is in use.
///
/// The job becomes visible and wakes workers when the caller commits.
pub async fn enqueue_job<J: Job>(conn: &mut PgConnection, job: &J, how: EnqueueOptions) -> anyhow::Result<Option<i64>> {
    let payload = encode_payload(job)?;
    let unique_over: Option<Vec<String>> =
        how.unique_over.map(|states| states.iter().map(|state| (*state).to_owned()).collect());
    sqlx::query_scalar!(
        "-- queue: enqueue
        select fleet.enqueue($1, $2, $3, $4, $5, $6, $7)",
        J::KIND,
        payload,
        how.key,
        how.run_at,
        i32::from(how.priority),
        how.max_attempts.unwrap_or(J::POLICY.max_attempts),
        unique_over.as_deref(),
    )
    .fetch_one(conn)
    .await
    .with_context(|| format!("could not enqueue job {} {}", J::KIND, how.key.as_deref().unwrap_or("without a key")))
}

/// Enqueues many jobs with one statement, each under its key. Returns the number of new jobs.
///
/// The jobs are inserted sorted by key, so two transactions that enqueue the same keys wait for each other and never
/// deadlock.
pub async fn enqueue_jobs<J: Job>(conn: &mut PgConnection, jobs: &[(J, String)]) -> anyhow::Result<u64> {
    let mut sorted: Vec<&(J, String)> = jobs.iter().collect();
    sorted.sort_by(|(_, a), (_, b)| a.cmp(b));
    let payloads = sorted.iter().map(|(job, _)| encode_payload(job)).collect::<anyhow::Result<Vec<_>>>()?;
    let keys: Vec<String> = sorted.iter().map(|(_, key)| key.clone()).collect();
    let enqueued = sqlx::query_scalar!(
        r#"-- queue: enqueue all
        select count(fleet.enqueue($1, job.payload, job.key, max_attempts => $4)) as "enqueued!"
        from unnest($2::jsonb[], $3::text[]) as job(payload, key)"#,
        J::KIND,
        &payloads,
        &keys,
        J::POLICY.max_attempts,
    )
    .fetch_one(conn)
    .await
    .with_context(|| format!("could not enqueue {} jobs of kind {}", jobs.len(), J::KIND))?;
    Ok(enqueued.unsigned_abs())
}

fn encode_payload<J: Job>(job: &J) -> anyhow::Result<Value> {
    serde_json::to_value(job)
        .with_context(|| format!("could not encode the payload of a job of kind {} as JSON", J::KIND))
}
