//! Writing down how runs ended: in batches, under the fence, until it is written.
//!
//! A batch is whatever has gathered while the previous one was being written: one row when idle, hundreds under load.
//! An end that finds its job in other hands is *stale*: it is counted, logged and dropped, which is the fence doing
//! its work. Only one stale end is none: the connection broke during a step's commit, the run believed it had failed,
//! and the commit had come through. That run is reported as what it was, done.
//!
//! Nearly all are done and have nothing else to tell; a statement of their own, without all that happens only to others,
//! spares the server most of what a small batch costs, which is not its rows. It does not wait for the disk either. Were
//! the server to crash within the half second, the job would be found running or unclaimed and run again, which a run
//! without a step must bear anyhow: had its worker died a moment earlier, the same.
//!
//! One end that the server refuses (a report with a NUL, say) must not hold up the others: the batch is then written
//! one by one, and the refused end becomes a failed attempt that says so.

use super::engine::{Link, Shared, count};
use super::event::{Event, Outcome};
use super::run::Claimed;
use serde_json::Value;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Ends written by one statement.
const BATCH: usize = 500;

/// The longest error text kept, in characters.
const ERROR_LENGTH: usize = 8_000;

/// How a run ended, on its way to the database.
pub(super) struct Ending {
    pub job: Arc<Claimed>,
    pub outcome: Outcome,
    pub report: Value,
    pub error: Option<String>,
    /// Until the job may run again.
    pub delay: Duration,
    /// Already stored, by the step's own transaction.
    pub committed: bool,
    /// What the history of a run that is done tells of it.
    pub note: Option<Arc<str>>,
}

impl Ending {
    pub fn new(job: &Arc<Claimed>, outcome: Outcome) -> Ending {
        let (report, delay) = (Value::Null, Duration::ZERO);
        Ending { job: job.clone(), outcome, report, error: None, delay, committed: false, note: None }
    }

    /// Whether it is done and all is said.
    fn is_plain(&self) -> bool {
        self.outcome == Outcome::Done && self.note.is_none()
    }

    /// With the error as PostgreSQL can store it.
    pub fn because(mut self, error: impl std::fmt::Display) -> Ending {
        self.error = Some(storable(&format!("{error:#}")));
        self
    }
}

/// The text as PostgreSQL can store it, and not too much of it.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}").chars().take(ERROR_LENGTH).collect()
}

/// Settles what comes in, until the worker is gone.
pub(super) async fn settles(engine: Shared, mut endings: mpsc::UnboundedReceiver<Ending>) {
    let mut link = Link::new(&engine, "settle jobs");
    // At hand when the first run ends; if there is none to be had, the first settling says so.
    let _ = link.line().await;
    let mut batch = Vec::new();
    while endings.recv_many(&mut batch, BATCH).await > 0 {
        batch.sort_unstable_by_key(|ending: &Ending| ending.job.id);
        let (stored, open): (Vec<_>, Vec<_>) = batch.drain(..).partition(|ending| ending.committed);
        for ending in stored {
            end(&engine, ending, false);
        }
        let (plain, others) = open.into_iter().partition(Ending::is_plain);
        let mut rest: Vec<Vec<Ending>> = vec![others, plain];
        while let Some(batch) = rest.pop() {
            let settled = async { settle(link.line().await?, &engine.name, &batch).await };
            match engine.answer(settled).await {
                Ok(states) => {
                    link.up();
                    report(&engine, batch, &states);
                }
                Err(sqlx::Error::Database(refusal)) if is_about_the_data(&*refusal) => {
                    if batch.len() > 1 {
                        rest.extend(batch.into_iter().map(|ending| vec![ending]));
                    } else {
                        rest.extend(refused(&engine, batch, &*refusal));
                    }
                }
                Err(error) => {
                    tokio::time::sleep(link.down(&error)).await;
                    rest.push(batch);
                }
            }
        }
    }
}

/// The states that the jobs are in now, by (job, run); stale ends are missing.
type States = HashMap<(i64, i64), Cow<'static, str>>;

/// Writes these ends down, as far as their runs still hold their jobs.
pub(super) async fn settle(
    connection: &mut PgConnection,
    name: &str,
    batch: &[Ending],
) -> sqlx::Result<States> {
    if batch.is_empty() {
        return Ok(HashMap::new());
    }
    let jobs: Vec<i64> = batch.iter().map(|v| v.job.id).collect();
    let runs: Vec<i64> = batch.iter().map(|v| v.job.run).collect();
    let mut states = if batch.iter().all(Ending::is_plain) {
        let reports: Vec<&Value> = batch.iter().map(|v| &v.report).collect();
        let kinds: BTreeSet<&str> = batch.iter().map(|v| &*v.job.kind).collect();
        let kinds: Vec<&str> = kinds.into_iter().collect();
        let settled = sqlx::query_file!(
            "src/queue/settle.done.sql",
            name,
            &jobs,
            &runs,
            &reports as &[&Value],
            &kinds as &[&str],
        );
        // Where all have hit, nothing needs to be named; else the look below finds those that have.
        let hit = settled.execute(&mut *connection).await?.rows_affected() == batch.len() as u64;
        let these = if hit { batch } else { &[] };
        these.iter().map(|v| ((v.job.id, v.job.run), "completed".into())).collect()
    } else {
        settle_any(&mut *connection, name, batch, &jobs, &runs).await?
    };

    if states.len() < batch.len() {
        let ended = sqlx::query_file_scalar!("src/queue/settle.ended.sql", &jobs, &runs)
            .fetch_all(connection)
            .await?;
        for ending in batch.iter().filter(|v| ended.contains(&v.job.id)) {
            states.entry((ending.job.id, ending.job.run)).or_insert(Cow::Borrowed("completed"));
        }
    }
    Ok(states)
}

/// The same for ends of any sort, by the long statement.
async fn settle_any(
    connection: &mut PgConnection,
    name: &str,
    batch: &[Ending],
    jobs: &[i64],
    runs: &[i64],
) -> sqlx::Result<States> {
    let outcomes: Vec<String> = batch.iter().map(|v| v.outcome.word().to_owned()).collect();
    let effects: Vec<String> = batch.iter().map(|v| v.outcome.effect().to_owned()).collect();
    let errors: Vec<Option<&str>> = batch.iter().map(|v| v.error.as_deref().or(v.note.as_deref())).collect();
    let results: Vec<Option<&Value>> =
        batch.iter().map(|v| (v.outcome == Outcome::Done).then_some(&v.report)).collect();
    let delays: Vec<f64> = batch.iter().map(|v| v.delay.as_secs_f64()).collect();
    let settled = sqlx::query_file!(
        "src/queue/settle.sql",
        name,
        jobs,
        runs,
        &outcomes,
        &effects,
        &errors as &[Option<&str>],
        &results as &[Option<&Value>],
        &delays,
    )
    .fetch_all(connection)
    .await?;
    Ok(settled.into_iter().map(|row| ((row.id, row.run), row.state.into())).collect())
}

fn report(engine: &Shared, batch: Vec<Ending>, states: &States) {
    for mut ending in batch {
        let (job, run) = (ending.job.id, ending.job.run);
        match states.get(&(job, run)).map(|state| &**state) {
            Some("completed") if ending.outcome != Outcome::Done => {
                tracing::info!(job, run, "the step had been committed after all");
                ending.outcome = Outcome::Done;
                ending.error = None;
                end(engine, ending, false);
            }
            Some("cancelled") if ending.outcome != Outcome::Cancelled => {
                // It was to be cancelled, and ended by itself without being done.
                ending.outcome = Outcome::Cancelled;
                end(engine, ending, false);
            }
            Some(state) => {
                let discarded = state == "discarded";
                count(&engine.counts.discarded, u64::from(discarded));
                end(engine, ending, discarded);
            }
            // It knew already.
            None if ending.outcome == Outcome::Lost => end(engine, ending, false),
            None => {
                count(&engine.counts.stale, 1);
                tracing::warn!(
                    job,
                    run,
                    outcome = ending.outcome.word(),
                    "dropped a stale end: the job is in other hands"
                );
                ending.outcome = Outcome::Lost;
                end(engine, ending, false);
            }
        }
    }
}

/// Lets go of the job, logs its end, tells the watchers.
fn end(engine: &Shared, ending: Ending, discarded: bool) {
    let Ending { job, outcome, report, error, .. } = ending;
    let duration = job.since.elapsed();
    let (id, kind, attempt, ms) = (job.id, &*job.kind, job.attempt, duration.as_millis() as u64);
    let outcome_word = outcome.word();
    let _inside = job.span.enter();
    match &error {
        Some(error) if discarded => {
            tracing::error!(target: "told", job = id, kind, attempt, outcome = outcome_word, ms, error, "discarded");
        }
        Some(error) => {
            tracing::warn!(target: "told", job = id, kind, attempt, outcome = outcome_word, ms, error, "ended");
        }
        None => {
            tracing::info!(target: "told", job = id, kind, attempt, outcome = outcome_word, ms, "ended");
        }
    }
    engine.release(job.id, job.run);
    if let Some(watchers) = engine.watched() {
        let (kind, key) = (job.kind.clone(), job.key.clone());
        let _ =
            watchers.send(Event::Ended { job: id, kind, key, outcome, report, error, discarded, duration });
    }
}

/// A refused end becomes a failed attempt; if even that is refused, the lease will run out.
fn refused(
    engine: &Shared,
    batch: Vec<Ending>,
    refusal: &dyn sqlx::error::DatabaseError,
) -> Option<Vec<Ending>> {
    let ending = batch.into_iter().next()?;
    let (job, run) = (ending.job.id, ending.job.run);
    if ending.outcome == Outcome::Retry && ending.report.is_null() {
        tracing::error!(
            job,
            run,
            error = refusal.message(),
            "the end of a run cannot be stored; its lease will run out"
        );
        engine.release(job, run);
        return None;
    }
    let word = ending.outcome.word();
    let message = refusal.message();
    Some(vec![Ending::new(&ending.job, Outcome::Retry).because(format!("store the end '{word}': {message}"))])
}

/// Whether sending the same statement again would meet the same refusal: data exceptions and broken constraints.
fn is_about_the_data(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}
