//! Claims jobs: the claimer, and the listener that wakes the claimer.
//!
//! The claimer requests exactly as many jobs as the worker has free capacity for. The claimer then sleeps until the
//! first of these events: a notification, a run that frees a slot, the time at which the next job is due, the end of
//! the poll interval. Polling decides and NOTIFY is a hint: a lost notification costs at most the poll interval, never
//! a job.
//!
//! The statement decides which jobs may run. A paused kind is skipped. Of a kind with a limit for all workers, a claim
//! takes no more than the limit leaves, under a lock on the row of the kind that lasts as long as the statement. Kinds
//! without pause or limit cost a look at an empty table.
//!
//! The commit of a claim does not wait for the disk. If the server crashes within the next half second, the job is
//! found unclaimed and the next worker runs it again, as if this worker had died. The step of the lost run matches no
//! row. The commit of a step, or of the job that follows, flushes the claim as well.
//!
//! Accepted race: if the connection breaks after the server has committed a claim and before the response arrives, the
//! jobs run under this worker's name without its knowledge. Their leases are not renewed, so they are rescued.

use super::run::ClaimedJob;
use super::worker_state::{Capacity, LoopConnection, WorkerShared, increment_counter};
use sqlx::PgConnection;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Shortest delay before the next claim if jobs are due but were locked by another claim.
const CONTENTION_DELAY: Duration = Duration::from_millis(10);

/// Time without a notification after which the connection of the listener is checked.
const LISTEN_KEEPALIVE: Duration = Duration::from_secs(30);

/// Claims jobs until the worker drains, and sends them to `out`, the channel of the runtime's backend.
pub(super) async fn run_claimer(engine: WorkerShared, out: mpsc::UnboundedSender<ClaimedJob>) {
    let mut link = LoopConnection::new(&engine, "claim jobs");
    // The future of a claim is not dropped unless it times out: its jobs would be claimed without our knowledge.
    while !engine.draining.is_cancelled() {
        let wait = match engine.free_capacity() {
            None => Duration::MAX,
            Some(room) => match engine.with_query_timeout(claim_once(&engine, &mut link, &room, &out)).await {
                Ok(wait) => {
                    link.on_success();
                    wait
                }
                Err(error) => link.on_failure(&error),
            },
        };
        tokio::select! {
            () = engine.claim_signal.notified() => {}
            () = tokio::time::sleep(wait.min(engine.settings.poll)) => {}
            () = engine.draining.cancelled() => {}
        }
    }
}

/// Claims jobs once. Returns the delay until the next known job is due.
async fn claim_once(
    engine: &WorkerShared,
    link: &mut LoopConnection,
    room: &Capacity,
    out: &mpsc::UnboundedSender<ClaimedJob>,
) -> sqlx::Result<Duration> {
    let line = link.connection().await?;
    let cheap: Vec<bool> = engine.served.iter().map(|served| served.prefetchable).collect();
    let jobs = claim_jobs(line, &engine.kinds, &cheap, room, &engine.name, engine.settings.lease).await?;
    let full = jobs.len() >= room.slots + room.ahead;
    increment_counter(&engine.counts.claimed, jobs.len() as u64);
    for job in jobs {
        engine.track(job.id, job.run, job.kind.clone());
        // An error means that the runtime has ended, and this task ends with it.
        let _ = out.send(job);
    }
    if full {
        return Ok(Duration::ZERO);
    }
    // Jobs of a kind without free capacity cannot be claimed, due or not. The run that frees capacity wakes the
    // claimer.
    let asked = engine.kinds.iter().zip(&room.kinds).filter(|(_, room)| **room > 0);
    let asked: Vec<String> = asked.map(|(kind, _)| kind.clone()).collect();
    let next = sqlx::query_file_scalar!("src/queue/claim.next.sql", &asked).fetch_one(line).await?;
    Ok(next.map_or(Duration::MAX, |seconds| {
        Duration::try_from_secs_f64(seconds).unwrap_or_default().max(CONTENTION_DELAY)
    }))
}

/// Claims due jobs for the worker `name` with one statement. Returns them by priority and id.
pub(super) async fn claim_jobs(
    connection: &mut PgConnection,
    kinds: &[String],
    cheap: &[bool],
    room: &Capacity,
    name: &str,
    lease: Duration,
) -> sqlx::Result<Vec<ClaimedJob>> {
    let mut rows = sqlx::query_file!(
        "src/queue/claim.sql",
        kinds,
        &room.kinds,
        cheap,
        room.slots as i64,
        room.ahead as i64,
        name,
        lease.as_secs_f64(),
    )
    .fetch_all(connection)
    .await?;
    let since = Instant::now();
    rows.sort_unstable_by_key(|row| (row.priority, row.id));
    let claimed = rows.into_iter().map(|row| ClaimedJob {
        id: row.id,
        kind: row.kind.into(),
        key: row.key.map(Into::into),
        run: row.run,
        attempt: row.attempt,
        max_attempts: row.max_attempts,
        payload: row.payload,
        since,
        span: tracing::Span::none(),
    });
    Ok(claimed.collect())
}

/// Listens until the worker ends: on channel `fleet` for its kinds, on `fleet_cancel` for its jobs.
pub(super) async fn run_listener(engine: WorkerShared) {
    let mut link = LoopConnection::new(&engine, "listen for jobs");
    loop {
        let error = match listen_for_jobs(&engine, &mut link).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        tokio::time::sleep(link.on_failure(&error)).await;
    }
}

async fn listen_for_jobs(engine: &WorkerShared, link: &mut LoopConnection) -> sqlx::Result<()> {
    let mut listener = engine.db.connect_listener().await?;
    listener.listen_all(["fleet", "fleet_cancel"]).await?;
    link.on_success();
    loop {
        // One claim and one renewal find what was notified before LISTEN.
        engine.claim_signal.notify_one();
        engine.renew.notify_one();
        loop {
            let Ok(notification) = tokio::time::timeout(LISTEN_KEEPALIVE, listener.try_recv()).await else {
                let there = sqlx::query!("-- queue: still there\n select 1 as there").fetch_one(&mut listener);
                engine.with_query_timeout(there).await?;
                continue;
            };
            match notification? {
                Some(notification) if notification.channel() == "fleet_cancel" => {
                    if notification.payload().parse().is_ok_and(|job| engine.held_job(job).is_some()) {
                        engine.renew.notify_one();
                    }
                }
                Some(notification)
                    if notification.payload().is_empty()
                        || engine.kinds.iter().any(|k| k == notification.payload()) =>
                {
                    engine.claim_signal.notify_one();
                }
                Some(_) => {}
                None => break,
            }
        }
    }
}
