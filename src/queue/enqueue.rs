//! Putting jobs into the queue, inside the caller's transaction.
//!
//! Everything goes through the SQL function `fleet.enqueue`, so that a job put in from psql or from a program in
//! another language is the same job. A taken key is no error: it means somebody has already asked for this work.

use super::job::Job;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

/// How a job is put in; `Enqueue::default()` is "now, without a key".
#[derive(Clone, Debug, Default)]
pub struct Enqueue {
    /// What the job is about; while a job of this kind and key waits, runs or is completed, another is not put in.
    /// `unique_over` chooses other states.
    pub key: Option<String>,
    /// Not before this instant of the database's clock; now if none.
    pub run_at: Option<DateTime<Utc>>,
    /// The smaller number runs first; 0 is usual.
    pub priority: i16,
    /// Attempts; the kind's policy if none.
    pub max_attempts: Option<i32>,
    /// The states in which it keeps its key from others: [`UNFINISHED`] and any of the other three; those above if
    /// none. All jobs of a kind that share keys should use the same, since the usual ones and those that chose do not see
    /// each other.
    pub unique_over: Option<&'static [&'static str]>,
}

/// The states of a job that is not over: unique over them means "one at a time".
pub const UNFINISHED: &[&str] = &["available", "scheduled", "running", "retryable"];

impl Enqueue {
    /// Once per `key`.
    pub fn once(key: impl Into<String>) -> Enqueue {
        Enqueue { key: Some(key.into()), ..Enqueue::default() }
    }

    /// The same, with the key taken only while the job is in one of these states.
    pub fn unique_over(self, states: &'static [&'static str]) -> Enqueue {
        Enqueue { unique_over: Some(states), ..self }
    }

    /// The same, not before `run_at`.
    pub fn at(self, run_at: DateTime<Utc>) -> Enqueue {
        Enqueue { run_at: Some(run_at), ..self }
    }

    /// The same with another priority: the smaller number runs first.
    pub fn priority(self, priority: i16) -> Enqueue {
        Enqueue { priority, ..self }
    }
}

/// Puts in one job; none if its key is taken. It becomes visible, and wakes workers, when the caller commits.
pub async fn enqueue<J: Job>(conn: &mut PgConnection, job: &J, how: Enqueue) -> anyhow::Result<Option<i64>> {
    let payload = payload(job)?;
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
    .with_context(|| format!("enqueue {} {}", J::KIND, how.key.as_deref().unwrap_or("without a key")))
}

/// Puts in many jobs by one statement, each under its key. Returns how many were new. They go in sorted by key: two
/// transactions that put in the same keys then wait for each other and never end as a deadlock.
pub async fn enqueue_all<J: Job>(conn: &mut PgConnection, jobs: &[(J, String)]) -> anyhow::Result<u64> {
    let mut sorted: Vec<&(J, String)> = jobs.iter().collect();
    sorted.sort_by(|(_, a), (_, b)| a.cmp(b));
    let payloads = sorted.iter().map(|(job, _)| payload(job)).collect::<anyhow::Result<Vec<_>>>()?;
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
    .with_context(|| format!("enqueue {} jobs of {}", jobs.len(), J::KIND))?;
    Ok(enqueued.unsigned_abs())
}

fn payload<J: Job>(job: &J) -> anyhow::Result<Value> {
    serde_json::to_value(job).with_context(|| format!("write the payload of {} as JSON", J::KIND))
}
