//! Taking jobs: the claimer, and the listener that wakes it.
//!
//! The claimer asks for exactly as many jobs as it has room for, then sleeps until the first of: a notification, an
//! run that freed a slot, the instant at which its next job is due, the poll interval. Polling is the truth and
//! NOTIFY a hint: a lost notification costs at most the poll interval, never a job.
//!
//! What may run is decided in the statement: a paused kind is passed over, and of a kind that is limited in the whole
//! fleet a claim takes no more than the limit leaves, under a lock on the kind's row that lasts as long as the
//! statement. Kinds of which nobody said anything cost a look at an empty table.
//!
//! A claim's commit does not wait for the disk. Were the server to crash within the half second, the job would be found
//! unclaimed, and run again by whoever claims it next: the same as if this worker had died, and the step of the lost
//! run finds no row to finish. A step's commit, or its follower's, takes its claim to the disk with it.
//!
//! Accepted race: if the connection breaks after the server has committed a claim and before its answer is here, the
//! jobs run under our name and we do not know it. Nobody renews their leases, so the rescue brings them back.

use super::engine::{Link, Room, Shared, count};
use super::run::Claimed;
use sqlx::PgConnection;
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
        let wait = match engine.room() {
            None => Duration::MAX,
            Some(room) => match engine.answer(claim(&engine, &mut link, &room, &out)).await {
                Ok(wait) => {
                    link.up();
                    wait
                }
                Err(error) => link.down(&error),
            },
        };
        tokio::select! {
            () = engine.kick.notified() => {}
            () = tokio::time::sleep(wait.min(engine.settings.poll)) => {}
            () = engine.draining.cancelled() => {}
        }
    }
}

/// One claim; answers how long there will be nothing to claim, as far as we know.
async fn claim(
    engine: &Shared,
    link: &mut Link,
    room: &Room,
    out: &mpsc::UnboundedSender<Claimed>,
) -> sqlx::Result<Duration> {
    let line = link.line().await?;
    let cheap: Vec<bool> = engine.served.iter().map(|served| served.cheap).collect();
    let jobs = take(line, &engine.kinds, &cheap, room, &engine.name, engine.settings.lease).await?;
    let full = jobs.len() >= room.slots + room.ahead;
    count(&engine.counts.claimed, jobs.len() as u64);
    for job in jobs {
        engine.hold(job.id, job.run, job.kind.clone());
        // An error means that the runtime is gone, and this task goes with it.
        let _ = out.send(job);
    }
    if full {
        return Ok(Duration::ZERO);
    }
    // Of a kind without room nothing could be claimed, due or not; the run that makes room says so.
    let asked = engine.kinds.iter().zip(&room.kinds).filter(|(_, room)| **room > 0);
    let asked: Vec<String> = asked.map(|(kind, _)| kind.clone()).collect();
    let next = sqlx::query_file_scalar!("src/queue/claim.next.sql", &asked).fetch_one(line).await?;
    Ok(next.map_or(Duration::MAX, |seconds| {
        Duration::try_from_secs_f64(seconds).unwrap_or_default().max(CONTENDED)
    }))
}

/// Claims once, as `name`.
pub(super) async fn take(
    connection: &mut PgConnection,
    kinds: &[String],
    cheap: &[bool],
    room: &Room,
    name: &str,
    lease: Duration,
) -> sqlx::Result<Vec<Claimed>> {
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
    let claimed = rows.into_iter().map(|row| Claimed {
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

/// Listens for as long as the worker lives: on channel `fleet` for its kinds, on `fleet_cancel` for its jobs.
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
    listener.listen_all(["fleet", "fleet_cancel"]).await?;
    link.up();
    loop {
        // Whatever came while we were not listening is found by looking once.
        engine.kick.notify_one();
        engine.renew.notify_one();
        loop {
            let Ok(told) = tokio::time::timeout(SILENCE, listener.try_recv()).await else {
                let there =
                    sqlx::query!("-- queue: still there\n select 1 as there").fetch_one(&mut listener);
                engine.answer(there).await?;
                continue;
            };
            match told? {
                Some(told) if told.channel() == "fleet_cancel" => {
                    if told.payload().parse().is_ok_and(|job| engine.hold_of(job).is_some()) {
                        engine.renew.notify_one();
                    }
                }
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
