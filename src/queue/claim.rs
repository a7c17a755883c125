//! Taking jobs: the claimer, and the listener that wakes it.
//!
//! The claimer asks for exactly as many jobs as it has room for, then sleeps until the first of: a notification, an
//! end that freed a slot, the instant at which its next job is due, the poll interval. Polling is the truth and
//! NOTIFY a hint: a lost notification costs at most the poll interval, never a job.
//!
//! Accepted race: if the connection breaks after the server has committed a claim and before its answer is here, the
//! jobs run under our name and we do not know it. Nobody renews their leases, so the rescue brings them back.

use super::engine::{Link, Shared, count};
use super::run::Claimed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Due, but locked by somebody while we looked: look again this soon.
const CONTENDED: Duration = Duration::from_millis(10);

/// After this long without a notification: does the listener's connection still live?
const SILENCE: Duration = Duration::from_secs(30);

/// Claims until the worker drains; `out` leads to the runtime's backend.
pub(super) async fn claims(engine: Shared, out: mpsc::UnboundedSender<Claimed>) {
    let mut link = Link::new(&engine, "claim jobs");
    // Not dropped in the middle of a claim while there is hope, or its jobs would be ours without our knowing.
    while !engine.draining.is_cancelled() {
        let room = engine.room();
        let wait = if room == 0 {
            Duration::MAX
        } else {
            match engine.answer(claim(&engine, room, &out)).await {
                Ok(wait) => {
                    link.up();
                    wait
                }
                Err(error) => link.down(&error),
            }
        };
        tokio::select! {
            () = engine.kick.notified() => {}
            () = tokio::time::sleep(wait.min(engine.settings.poll)) => {}
            () = engine.draining.cancelled() => {}
        }
    }
}

/// One claim; answers how long there will be nothing to claim, as far as we know.
async fn claim(engine: &Shared, room: usize, out: &mpsc::UnboundedSender<Claimed>) -> sqlx::Result<Duration> {
    let rows = sqlx::query_file!(
        "src/queue/claim.sql",
        &engine.kinds,
        room as i64,
        engine.name,
        engine.settings.lease.as_secs_f64(),
    )
    .fetch_all(&engine.own)
    .await?;

    let full = rows.len() >= room;
    count(&engine.counts.claimed, rows.len() as u64);
    for row in rows {
        engine.hold(row.id, row.run);
        let job = Claimed {
            id: row.id,
            kind: row.kind.into(),
            key: row.key.map(Into::into),
            run: row.run,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            payload: row.payload,
            since: Instant::now(),
        };
        // An error means that the runtime is gone, and this task goes with it.
        let _ = out.send(job);
    }
    if full {
        return Ok(Duration::ZERO);
    }
    let next =
        sqlx::query_file_scalar!("src/queue/claim.next.sql", &engine.kinds).fetch_one(&engine.own).await?;
    Ok(next.map_or(Duration::MAX, |seconds| {
        Duration::try_from_secs_f64(seconds).unwrap_or_default().max(CONTENDED)
    }))
}

/// Listens on channel `fleet` for the worker's kinds, for as long as the worker lives.
pub(super) async fn wakes(engine: Shared) {
    let mut link = Link::new(&engine, "listen for jobs");
    loop {
        let error = match listen(&engine, &mut link).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        tokio::time::sleep(link.down(&error)).await;
    }
}

async fn listen(engine: &Shared, link: &mut Link) -> sqlx::Result<()> {
    let mut listener = engine.db.listener().await?;
    listener.listen("fleet").await?;
    link.up();
    loop {
        // Whatever came while we were not listening is found by looking once.
        engine.kick.notify_one();
        loop {
            let Ok(told) = tokio::time::timeout(SILENCE, listener.try_recv()).await else {
                let there =
                    sqlx::query!("-- queue: still there\n select 1 as there").fetch_one(&mut listener);
                engine.answer(there).await?;
                continue;
            };
            match told? {
                Some(told)
                    if told.payload().is_empty() || engine.kinds.iter().any(|k| k == told.payload()) =>
                {
                    engine.kick.notify_one();
                }
                Some(_) => {}
                None => break,
            }
        }
    }
}
