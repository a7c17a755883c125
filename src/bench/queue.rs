//! `vinops bench queue`: throughput of jobs that do nothing, and the delay until an idle worker starts a job.
//!
//! The baseline is a loop over a plain table that claims rows (`for update skip locked`) and acknowledges them, one
//! statement each. The batch size is the number of jobs that the worker prefetches, and the number of connections is
//! the number of its slots. The baseline has no lease, no fence, no history of attempts and no wake-up. The difference
//! is the cost of the queue's features. In return, the baseline's commits wait for the disk. Claims and the ends of
//! these jobs do not, because a crash of the server would only rerun them. All features of the queue are on: history, a
//! paused kind, and a fleet-wide limit on the measured kind, which is never reached but checked by each claim.
//!
//! graphile-worker and procrastinate are measured too if they are installed. The benchmark does not install them.
//!
//! Every measurement uses a database of its own, so that no measurement is affected by the bloat of another.

use super::figure::{Spread, markdown, quantile};
use super::machine::Machine;
use super::place::{Ground, Place, execute};
use super::rivals;
use crate::queue::hand::Hand;
use crate::queue::steer::{self, By};
use crate::queue::{
    Enqueue, Entry, Event, Job, Outcome, Policy, Run, Tools, Verdict, Worker, enqueue, enqueue_all,
};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

mod floor;

/// Number of jobs that the worker runs concurrently, and of connections of the baseline.
pub const SLOTS: usize = 10;
/// Number of jobs enqueued by one statement.
const BATCH: i64 = 100;
/// Measured numbers of prefetched jobs, each with the batch size of the baseline.
const AHEAD: [(usize, i64); 3] = [(0, 1), (10, 10), (100, 100)];
/// Number of finished jobs in the table in the second measurement of claims.
const FINISHED: i64 = 1_000_000;
/// Number of measured claims.
const CLAIMS: usize = 500;
/// Number of jobs whose delay from commit to handler is measured.
const PINGS: usize = 200;
/// Interval of the checks whether a backlog is finished.
const LOOK: Duration = Duration::from_millis(2);
/// Maximum time until a worker wakes up. After this time the notification is considered lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Job that does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

/// Channel that receives the start time of each handler.
struct Bell(mpsc::UnboundedSender<Instant>);

impl Job for Nothing {
    const KIND: &'static str = "bench-nothing";
    const POLICY: Policy = Policy::DEFAULT.cheap();
    const VERB: &'static str = "does nothing";
    const SAFE: &'static str = "it does nothing";
    type Report = ();

    async fn run(self, run: Run) -> Verdict<()> {
        // The receiver may be closed, either because it is not needed or because the measurement is over.
        let _ = run.tool::<Bell>()?.0.send(Instant::now());
        run.done(()).await
    }
}

const NOTHING: &[Entry] = &[Entry::of::<Nothing>()];

/// Results of the benchmark. Rates are in jobs per second.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Machine and server.
    pub machine: Machine,
    /// Number of jobs of each measurement.
    pub jobs: usize,
    /// Number of measurements of worker and baseline.
    pub repeats: usize,
    /// Number of jobs that the worker ran concurrently.
    pub slots: usize,
    /// Rates of one worker and of the baseline, by the number of prefetched jobs.
    pub worker: Vec<Drained>,
    /// Rates of other queues, if they are installed.
    pub rivals: Vec<rivals::Rival>,
    /// Rate of enqueuing one job per transaction.
    pub enqueue_single: f64,
    /// Rate of enqueuing a hundred jobs per statement.
    pub enqueue_bulk: f64,
    /// Milliseconds from just before the enqueuing commit to the first line of the handler, on an idle worker that is
    /// woken by notifications only.
    pub latency_ms: Latency,
    /// Milliseconds of a claim of one job in a table of a thousand jobs.
    pub claim_ms: Latency,
    /// Milliseconds of a claim of one job in a table with a million finished jobs.
    pub claim_beside_finished_ms: Latency,
}

/// Rates at which a backlog was processed, in jobs per second.
#[derive(Clone, Debug, Serialize)]
pub struct Drained {
    /// Number of jobs that the worker prefetched beyond its slots.
    pub ahead: usize,
    /// Number of rows that the baseline claimed per statement.
    pub batch: i64,
    /// Rate of one worker.
    pub rate: Spread,
    /// Rate of the baseline.
    pub floor: Spread,
    /// Ratio of the worker's rate to the baseline measured just before.
    pub of_floor: Spread,
}

/// Statistics of durations, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// All measurements.
    pub spread: Spread,
}

/// Runs the benchmark and reports progress through a callback.
pub async fn measure(
    jobs: usize,
    repeats: usize,
    place: &Place,
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Report> {
    ensure!(jobs >= 1, "--jobs must be at least 1");
    ensure!(repeats >= 1, "--repeats must be at least 1");
    let ground = place.ground().await?;
    let machine = Machine::look(&ground.db.pool, place.describe().await?).await?;
    place.leave(ground).await?;

    let mut worker = Vec::new();
    let mut filled = Vec::new();
    for (ahead, batch) in AHEAD {
        let mut rates = Vec::new();
        for _ in 0..repeats {
            let ground = place.ground().await?;
            let floor = floor::measure(&ground, jobs, SLOTS, batch).await?;
            filled.push(fill(&ground, jobs).await?);
            everything_on(&ground).await?;
            let rate = drain(&ground, jobs, ahead).await?;
            told(format!(
                "worker, {ahead} prefetched: {rate:.0} jobs/s; baseline, batch of {batch}: {floor:.0} jobs/s"
            ));
            rates.push((rate, floor));
            place.leave(ground).await?;
        }
        worker.push(Drained {
            ahead,
            batch,
            rate: Spread::of(rates.iter().map(|(rate, _)| *rate)),
            floor: Spread::of(rates.iter().map(|(_, floor)| *floor)),
            of_floor: Spread::of(rates.iter().map(|(rate, floor)| rate / floor)),
        });
    }
    let enqueue_bulk = Spread::of(filled).median;
    let ground = place.ground().await?;
    let rivals = rivals::measure(ground.url(), jobs).await?;
    place.leave(ground).await?;
    let ground = place.ground().await?;
    let enqueue_single = put(&ground, jobs.min(5000)).await?;
    told(format!("enqueue: {enqueue_single:.0} jobs/s one by one, {enqueue_bulk:.0} jobs/s in bulk"));
    place.leave(ground).await?;

    let ground = place.ground().await?;
    everything_on(&ground).await?;
    let latency_ms = latency(&ground).await?;
    told(format!("idle to start: p50 {:.2} ms, p99 {:.2} ms", latency_ms.p50, latency_ms.p99));
    place.leave(ground).await?;

    let ground = place.ground().await?;
    fill(&ground, 2 * CLAIMS).await?;
    everything_on(&ground).await?;
    let claim_ms = claims(&ground).await?;
    finished(&ground).await?;
    let claim_beside_finished_ms = claims(&ground).await?;
    place.leave(ground).await?;
    Ok(Report {
        machine,
        jobs,
        repeats,
        slots: SLOTS,
        worker,
        rivals,
        enqueue_single,
        enqueue_bulk,
        latency_ms,
        claim_ms,
        claim_beside_finished_ms,
    })
}

/// Pauses a kind and sets a fleet-wide limit on the measured kind, so that every claim checks both.
async fn everything_on(ground: &Ground) -> anyhow::Result<()> {
    let by = By::new("bench", "to pay for it");
    steer::pause(&ground.db.pool, &["bench-paused".to_owned()], &by).await?;
    steer::limit(&ground.db.pool, Nothing::KIND, Some(10_000), &by).await
}

/// Inserts a million finished jobs.
async fn finished(ground: &Ground) -> anyhow::Result<()> {
    let mut session = ground.session().await?;
    let fill = format!(
        "insert into fleet.jobs (kind, key, state, run, attempt, started_at, finished_at, completed_by)
        select '{}', 'finished ' || n, 'completed', 1, 1, now(), now(), 'bench' from generate_series(1, {FINISHED}) as n",
        Nothing::KIND
    );
    execute(&mut session, fill).await?;
    execute(&mut session, "vacuum (analyze) fleet.jobs".to_owned()).await?;
    ground.checkpoint().await
}

/// Claims jobs one by one and leaves them running. Returns the durations of the claims.
async fn claims(ground: &Ground) -> anyhow::Result<Latency> {
    let hand = Hand {
        pool: ground.db.pool.clone(),
        name: "bench".to_owned(),
        kinds: vec![Nothing::KIND.to_owned()],
        lease: Duration::from_secs(3600),
    };
    let mut taken = Vec::with_capacity(CLAIMS);
    for _ in 0..CLAIMS {
        let began = Instant::now();
        let claimed = hand.claim(1).await?;
        taken.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(claimed.len() == 1, "claim returned no job");
    }
    Ok(Latency::of(taken))
}

/// Enqueues `jobs` jobs in batches. Returns jobs per second.
async fn fill(ground: &Ground, jobs: usize) -> anyhow::Result<f64> {
    let mut connection = ground.db.pool.acquire().await?;
    ground.checkpoint().await?;
    let began = Instant::now();
    let mut put = 0;
    while put < jobs {
        let batch: Vec<(Nothing, String)> =
            (put..jobs.min(put + BATCH as usize)).map(|n| (Nothing {}, n.to_string())).collect();
        put += batch.len();
        enqueue_all(&mut connection, &batch).await?;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    execute(&mut connection, "vacuum (analyze) fleet.jobs".to_owned()).await?;
    ground.checkpoint().await?;
    Ok(rate)
}

/// Enqueues `jobs` jobs, each in a transaction of its own. Returns jobs per second.
async fn put(ground: &Ground, jobs: usize) -> anyhow::Result<f64> {
    let mut connection = ground.db.pool.acquire().await?;
    ground.checkpoint().await?;
    let began = Instant::now();
    for n in 0..jobs {
        enqueue(&mut connection, &Nothing {}, Enqueue::once(n.to_string())).await?;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// Runs one worker until all `jobs` jobs are done. Returns jobs per second, including the worker's start.
async fn drain(ground: &Ground, jobs: usize, prefetch: usize) -> anyhow::Result<f64> {
    // Each job sends two events, and the receiver may not miss any.
    let (watchers, mut events) = broadcast::channel((jobs * 2 + 64).next_power_of_two());
    let (bell, _) = mpsc::unbounded_channel();
    let leave = CancellationToken::new();
    let worker = Worker::new(&ground.db, NOTHING)
        .concurrency(SLOTS)
        .prefetch(prefetch)
        .tools(Tools::new().with(Bell(bell)))
        .observe(watchers)
        .run(leave.clone());
    let began = Instant::now();
    let worker = tokio::spawn(worker);
    let mut left = jobs;
    while left > 0 {
        let mut told = Some(events.recv().await.context("could not receive the worker's events")?);
        while let Some(event) = told {
            if let Event::Ended { outcome, error, .. } = event {
                ensure!(
                    outcome == Outcome::Done,
                    "benchmark job ended {}: {}",
                    outcome.word(),
                    error.unwrap_or_default()
                );
                left -= 1;
            }
            told = events.try_recv().ok();
        }
        // Waking up for each event would use processor time that is being measured.
        tokio::time::sleep(LOOK).await;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    leave.cancel();
    worker.await.context("worker panicked")??;
    Ok(rate)
}

/// Enqueues jobs one by one, each when the worker is idle. Returns the delays from commit to handler.
async fn latency(ground: &Ground) -> anyhow::Result<Latency> {
    let (watchers, mut events) = broadcast::channel(1024);
    let (bell, mut rings) = mpsc::unbounded_channel();
    let leave = CancellationToken::new();
    let worker = Worker::new(&ground.db, NOTHING)
        .concurrency(SLOTS)
        // Only a notification can wake the worker.
        .poll(Duration::from_secs(3600))
        .tools(Tools::new().with(Bell(bell)))
        .observe(watchers)
        .run(leave.clone());
    let worker = tokio::spawn(worker);
    let mut taken = Vec::new();
    // The first job may find the worker still starting and is not measured.
    for n in 0..=PINGS {
        let mut transaction = ground.db.pool.begin().await?;
        enqueue(&mut transaction, &Nothing {}, Enqueue::once(n.to_string())).await?;
        let asked = Instant::now();
        transaction.commit().await?;
        let started =
            tokio::time::timeout(PATIENCE, rings.recv()).await.context("worker received no notification")?;
        let started = started.context("worker stopped during a measurement")?;
        if n > 0 {
            taken.push(started.saturating_duration_since(asked).as_secs_f64() * 1000.0);
        }
        loop {
            match tokio::time::timeout(PATIENCE, events.recv())
                .await
                .context("benchmark job did not end in time")?
            {
                Ok(Event::Ended { outcome: Outcome::Done, .. }) => break,
                Ok(Event::Ended { outcome, .. }) => {
                    bail!("benchmark job ended {}; expected done", outcome.word())
                }
                Ok(_) => {}
                Err(error) => return Err(error).context("could not receive the worker's events"),
            }
        }
    }
    leave.cancel();
    worker.await.context("worker panicked")??;
    Ok(Latency::of(taken))
}

impl Latency {
    fn of(taken: Vec<f64>) -> Latency {
        let mut sorted = taken.clone();
        sorted.sort_by(f64::total_cmp);
        Latency { p50: quantile(&sorted, 0.5), p99: quantile(&sorted, 0.99), spread: Spread::of(taken) }
    }
}

impl Report {
    /// Formats the report as Markdown, in the form of the README.
    pub fn text(&self) -> String {
        let line = |name: String, rate: f64, floor: Option<&Spread>| {
            vec![name, format!("{rate:.0}"), floor.map(|of| of.text(2)).unwrap_or_default()]
        };
        let mut rows = Vec::new();
        for Drained { ahead, batch, rate, floor, of_floor } in &self.worker {
            let slots = self.slots;
            rows.push(line(format!("baseline: batch of {batch}, {slots} connections"), floor.median, None));
            let name = format!("one worker, {slots} slots, {ahead} prefetched");
            rows.push(line(name, rate.median, Some(of_floor)));
        }
        for rival in &self.rivals {
            rows.push(match &rival.measured {
                Ok(rate) => line(rival.name.clone(), *rate, None),
                Err(why) => vec![rival.name.clone(), why.clone(), String::new()],
            });
        }
        rows.push(line("enqueue, one job per transaction".to_owned(), self.enqueue_single, None));
        rows.push(line(format!("enqueue, {BATCH} jobs per statement"), self.enqueue_bulk, None));
        let (idle, few, many) = (&self.latency_ms, &self.claim_ms, &self.claim_beside_finished_ms);
        format!(
            "{}\n{} jobs that do nothing, with history, a paused kind and a fleet-wide limit; medians of {}\n\n{}\n\
             Idle worker, from commit to the job's first line: p50 {:.2} ms, p99 {:.2} ms ({PINGS} jobs, by notification \
             only).\nClaim of one job: p50 {:.2} ms, p99 {:.2} ms; with {FINISHED} finished jobs in the table: p50 {:.2} ms, \
             p99 {:.2} ms ({CLAIMS} claims).\n",
            self.machine.text(),
            self.jobs,
            self.repeats,
            markdown(&["", "jobs/s", "of the baseline"], &rows),
            idle.p50,
            idle.p99,
            few.p50,
            few.p99,
            many.p50,
            many.p99,
        )
    }
}
