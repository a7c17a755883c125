//! `vinops bench queue`: what a job costs when it does nothing, and how soon an idle worker starts one.
//!
//! The floor is a loop over a bare table that claims rows (`for update skip locked`) and acknowledges them, one statement
//! each, as many at a time as the worker claims ahead and in as many connections as it has slots: no lease, no fence, no
//! history of attempts, no wake-up. What the queue does beyond that is what its jobs pay for. In return the loop waits for
//! the disk, and claims and the ends of these jobs do not, since a crash of the server would only run them again. The queue has everything
//! on: history, a paused kind, and a limit for the whole fleet on the kind that is measured, which it never reaches but
//! asks about with each claim.
//!
//! graphile-worker and procrastinate are measured beside it where they are installed; nothing is installed for that.
//!
//! Every measurement has a database of its own, so that none inherits another's bloat.

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

/// Jobs that the worker runs at once, and connections of the floor.
pub const SLOTS: usize = 10;
/// Jobs that one statement puts in.
const BATCH: i64 = 100;
/// Jobs that the worker claims ahead; beside each the floor's batch.
const AHEAD: [(usize, i64); 3] = [(0, 1), (10, 10), (100, 100)];
/// Finished jobs beside which a claim is measured, and how many claims.
const FINISHED: i64 = 1_000_000;
const CLAIMS: usize = 500;
/// Jobs whose way from commit to handler is measured.
const PINGS: usize = 200;
/// How often the end of a backlog is looked for.
const LOOK: Duration = Duration::from_millis(2);
/// A worker that has not woken in this time has not been told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job that does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

/// Told when a handler starts, where somebody wants to know.
struct Bell(mpsc::UnboundedSender<Instant>);

impl Job for Nothing {
    const KIND: &'static str = "bench-nothing";
    const POLICY: Policy = Policy::DEFAULT.cheap();
    const VERB: &'static str = "does nothing";
    const SAFE: &'static str = "it does nothing";
    type Report = ();

    async fn run(self, run: Run) -> Verdict<()> {
        // Nobody listens at the end of a measurement, and that is fine.
        let _ = run.tool::<Bell>()?.0.send(Instant::now());
        run.done(()).await
    }
}

const NOTHING: &[Entry] = &[Entry::of::<Nothing>()];

/// Everything that was measured. Rates are jobs a second.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What on.
    pub machine: Machine,
    /// Jobs of each measurement.
    pub jobs: usize,
    /// How often worker and floor were measured.
    pub repeats: usize,
    /// Jobs a worker ran at once.
    pub slots: usize,
    /// One worker and the floor beside it, by how many jobs the worker claims ahead.
    pub worker: Vec<Drained>,
    /// The same of other queues, where they are installed.
    pub rivals: Vec<rivals::Rival>,
    /// One at a time, each its own transaction.
    pub enqueue_single: f64,
    /// A hundred to a statement.
    pub enqueue_bulk: f64,
    /// Milliseconds from just before the enqueuing commit to the handler's first line, on an idle worker that never polls.
    pub latency_ms: Latency,
    /// Milliseconds of a claim of one job in a table of a thousand.
    pub claim_ms: Latency,
    /// The same beside a million finished jobs.
    pub claim_beside_finished_ms: Latency,
}

/// How fast a backlog went, in jobs a second.
#[derive(Clone, Debug, Serialize)]
pub struct Drained {
    /// Jobs claimed beyond the slots.
    pub ahead: usize,
    /// Rows that the floor claimed at a time.
    pub batch: i64,
    /// One worker.
    pub rate: Spread,
    /// The floor.
    pub floor: Spread,
    /// The worker over the floor measured just before it.
    pub of_floor: Spread,
}

/// How long an idle worker takes to start a job, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half take less.
    pub p50: f64,
    /// All but one in a hundred take less.
    pub p99: f64,
    /// All of them.
    pub spread: Spread,
}

/// Measures, telling how far it is.
pub async fn measure(
    jobs: usize,
    repeats: usize,
    place: &Place,
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Report> {
    ensure!(jobs >= 1, "no jobs to measure with");
    ensure!(repeats >= 1, "not even one measurement");
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
            told(format!("worker, {ahead} ahead: {rate:.0} jobs/s; floor, {batch} at a time: {floor:.0}"));
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
    told(format!("enqueue: {enqueue_single:.0} jobs/s one by one, {enqueue_bulk:.0} in bulk"));
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

/// A paused kind, and a limit on the one that is measured.
async fn everything_on(ground: &Ground) -> anyhow::Result<()> {
    let by = By::new("bench", "to pay for it");
    steer::pause(&ground.db.pool, &["bench-paused".to_owned()], &by).await?;
    steer::limit(&ground.db.pool, Nothing::KIND, Some(10_000), &by).await
}

/// Puts a million finished jobs beside those that wait.
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

/// Claims jobs one by one and leaves them running.
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
        ensure!(claimed.len() == 1, "a claim found no job");
    }
    Ok(Latency::of(taken))
}

/// Puts in `jobs` jobs in bulk; jobs a second.
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

/// Puts in `jobs` jobs, each by a transaction of its own; jobs a second.
async fn put(ground: &Ground, jobs: usize) -> anyhow::Result<f64> {
    let mut connection = ground.db.pool.acquire().await?;
    ground.checkpoint().await?;
    let began = Instant::now();
    for n in 0..jobs {
        enqueue(&mut connection, &Nothing {}, Enqueue::once(n.to_string())).await?;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// Lets one worker end all `jobs` jobs; jobs a second, its start included.
async fn drain(ground: &Ground, jobs: usize, prefetch: usize) -> anyhow::Result<f64> {
    // Two events a job, and none may be missed.
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
        let mut told = Some(events.recv().await.context("follow the worker")?);
        while let Some(event) = told {
            if let Event::Ended { outcome, error, .. } = event {
                ensure!(
                    outcome == Outcome::Done,
                    "a job that does nothing ended {}: {error:?}",
                    outcome.word()
                );
                left -= 1;
            }
            told = events.try_recv().ok();
        }
        // Woken by each event it would take its share of what is measured.
        tokio::time::sleep(LOOK).await;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    leave.cancel();
    worker.await.context("the worker panicked")??;
    Ok(rate)
}

/// Puts jobs in one by one, each when the worker is idle again.
async fn latency(ground: &Ground) -> anyhow::Result<Latency> {
    let (watchers, mut events) = broadcast::channel(1024);
    let (bell, mut rings) = mpsc::unbounded_channel();
    let leave = CancellationToken::new();
    let worker = Worker::new(&ground.db, NOTHING)
        .concurrency(SLOTS)
        // Only a notification can wake it.
        .poll(Duration::from_secs(3600))
        .tools(Tools::new().with(Bell(bell)))
        .observe(watchers)
        .run(leave.clone());
    let worker = tokio::spawn(worker);
    let mut taken = Vec::new();
    // The first finds the worker starting, and does not count.
    for n in 0..=PINGS {
        let mut transaction = ground.db.pool.begin().await?;
        enqueue(&mut transaction, &Nothing {}, Enqueue::once(n.to_string())).await?;
        let asked = Instant::now();
        transaction.commit().await?;
        let started = tokio::time::timeout(PATIENCE, rings.recv()).await.context("no notification came")?;
        let started = started.context("the worker is gone")?;
        if n > 0 {
            taken.push(started.saturating_duration_since(asked).as_secs_f64() * 1000.0);
        }
        loop {
            match tokio::time::timeout(PATIENCE, events.recv()).await.context("the job does not end")? {
                Ok(Event::Ended { outcome: Outcome::Done, .. }) => break,
                Ok(Event::Ended { outcome, .. }) => bail!("a job that does nothing ended {}", outcome.word()),
                Ok(_) => {}
                Err(error) => return Err(error).context("follow the worker"),
            }
        }
    }
    leave.cancel();
    worker.await.context("the worker panicked")??;
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
    /// In Markdown, as the README has it.
    pub fn text(&self) -> String {
        let line = |name: String, rate: f64, floor: Option<&Spread>| {
            vec![name, format!("{rate:.0}"), floor.map(|of| of.text(2)).unwrap_or_default()]
        };
        let mut rows = Vec::new();
        for Drained { ahead, batch, rate, floor, of_floor } in &self.worker {
            let slots = self.slots;
            rows.push(line(format!("floor: {batch} at a time, {slots} connections"), floor.median, None));
            let name = format!("one worker, {slots} slots, {ahead} claimed ahead");
            rows.push(line(name, rate.median, Some(of_floor)));
        }
        for rival in &self.rivals {
            rows.push(match &rival.measured {
                Ok(rate) => line(rival.name.clone(), *rate, None),
                Err(why) => vec![rival.name.clone(), why.clone(), String::new()],
            });
        }
        rows.push(line("enqueue, one to a transaction".to_owned(), self.enqueue_single, None));
        rows.push(line(format!("enqueue, {BATCH} to a statement"), self.enqueue_bulk, None));
        let (idle, few, many) = (&self.latency_ms, &self.claim_ms, &self.claim_beside_finished_ms);
        format!(
            "{}\n{} jobs that do nothing; history, a paused kind and a fleet-wide limit on; medians of {}\n\n{}\nIdle worker, from commit to \
             the job's first line: p50 {:.2} ms, p99 {:.2} ms (of {PINGS}, by notification alone).\nA claim of one job: p50 \
             {:.2} ms, p99 {:.2} ms; beside {FINISHED} finished jobs: p50 {:.2} ms, p99 {:.2} ms (of {CLAIMS}).\n",
            self.machine.text(),
            self.jobs,
            self.repeats,
            markdown(&["", "jobs/s", "of the floor"], &rows),
            idle.p50,
            idle.p99,
            few.p50,
            few.p99,
            many.p50,
            many.p99,
        )
    }
}
