//! `vinops bench queue`: what a job costs when it does nothing, and how soon an idle worker starts one.
//!
//! The floor is a loop over a bare table that claims a row and acknowledges it, one statement each: no lease, no fence, no
//! history of attempts, no wake-up. What the queue does beyond that is what its jobs pay for.
//!
//! Every measurement has a database of its own, so that none inherits another's bloat.

use super::figure::{Spread, markdown, quantile};
use super::machine::Machine;
use super::place::{Ground, Place, execute};
use crate::queue::{Enqueue, Entry, Event, Job, Outcome, Run, Tools, Verdict, Worker, enqueue, enqueue_all};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Jobs that the worker runs at once: its own default.
const SLOTS: usize = 4;
/// Jobs that one statement puts in, and that the batched floor claims.
const BATCH: i64 = 100;
/// Jobs whose way from commit to handler is measured.
const PINGS: usize = 200;
/// A worker that has not woken in this time has not been told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job that does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

/// Told when a handler starts, where somebody wants to know.
struct Bell(mpsc::UnboundedSender<Instant>);

impl Job for Nothing {
    const KIND: &'static str = "bench-nothing";
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
    /// Jobs a worker ran at once.
    pub slots: usize,
    /// Claim and acknowledge one row at a time, in as many connections as the worker has slots.
    pub floor: f64,
    /// The same a hundred at a time, in one connection.
    pub floor_batched: f64,
    /// One worker, by how many jobs it claims ahead.
    pub worker: Vec<(usize, f64)>,
    /// One at a time, each its own transaction.
    pub enqueue_single: f64,
    /// A hundred to a statement.
    pub enqueue_bulk: f64,
    /// Milliseconds from just before the enqueuing commit to the handler's first line, on an idle worker that never polls.
    pub latency_ms: Latency,
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
pub async fn measure(jobs: usize, place: &Place, told: &(dyn Fn(String) + Sync)) -> anyhow::Result<Report> {
    ensure!(jobs >= 1, "no jobs to measure with");
    let ground = place.ground().await?;
    let machine = Machine::look(&ground.db.pool, place.describe().await?).await?;
    let floor = floor(&ground, jobs, SLOTS, 1).await?;
    let floor_batched = self::floor(&ground, jobs, 1, BATCH).await?;
    told(format!("floor: {floor:.0} jobs/s, batched {floor_batched:.0}"));
    place.leave(ground).await?;

    let mut worker = Vec::new();
    let mut enqueue_bulk = 0.0;
    for prefetch in [0, 10, 100] {
        let ground = place.ground().await?;
        enqueue_bulk = fill(&ground, jobs).await?;
        let rate = drain(&ground, jobs, prefetch).await?;
        told(format!("worker, {prefetch} ahead: {rate:.0} jobs/s"));
        worker.push((prefetch, rate));
        place.leave(ground).await?;
    }
    let ground = place.ground().await?;
    let enqueue_single = put(&ground, jobs.min(5000)).await?;
    told(format!("enqueue: {enqueue_single:.0} jobs/s one by one, {enqueue_bulk:.0} in bulk"));
    place.leave(ground).await?;

    let ground = place.ground().await?;
    let latency_ms = latency(&ground).await?;
    place.leave(ground).await?;
    Ok(Report {
        machine,
        jobs,
        slots: SLOTS,
        floor,
        floor_batched,
        worker,
        enqueue_single,
        enqueue_bulk,
        latency_ms,
    })
}

/// Jobs a second of a bare claim and acknowledgement, `batch` at a time, in `connections` connections.
async fn floor(ground: &Ground, jobs: usize, connections: usize, batch: i64) -> anyhow::Result<f64> {
    const CLAIM: &str = "-- bench: claim
        update bare set state = 1
        where id = any(array(select id from bare where state = 0 order by id limit $1 for update skip locked))
        returning id";
    const ACKNOWLEDGE: &str = "-- bench: acknowledge
        update bare set state = 2 where id = any($1)";
    let mut session = ground.session().await?;
    let prepare = format!(
        "drop table if exists bare;
        create table bare (id bigint generated always as identity primary key, state smallint not null default 0)
          with (fillfactor = 70);
        create index on bare (id) where state = 0;
        insert into bare (state) select 0 from generate_series(1, {jobs});
        analyze bare;
        checkpoint"
    );
    for statement in prepare.split(';') {
        execute(&mut session, statement.to_owned()).await?;
    }
    let began = Instant::now();
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let mut connection = ground.session().await?;
        loops.spawn(async move {
            let mut done = 0;
            loop {
                let ids: Vec<i64> = sqlx::query_scalar(CLAIM).bind(batch).fetch_all(&mut connection).await?;
                if ids.is_empty() {
                    return Ok::<_, sqlx::Error>(done);
                }
                done += ids.len();
                sqlx::query(ACKNOWLEDGE).bind(&ids).execute(&mut connection).await?;
            }
        });
    }
    let mut done = 0;
    while let Some(ended) = loops.join_next().await {
        done += ended.context("a loop of the floor panicked")??;
    }
    ensure!(done == jobs, "the floor did {done} of {jobs} jobs");
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
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
        if let Event::Ended { outcome, error, .. } = events.recv().await.context("follow the worker")? {
            ensure!(outcome == Outcome::Done, "a job that does nothing ended {}: {error:?}", outcome.word());
            left -= 1;
        }
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
    let mut sorted = taken.clone();
    sorted.sort_by(f64::total_cmp);
    Ok(Latency { p50: quantile(&sorted, 0.5), p99: quantile(&sorted, 0.99), spread: Spread::of(taken) })
}

impl Report {
    /// In Markdown, as the README has it.
    pub fn text(&self) -> String {
        let line = |name: String, rate: f64, floor: f64| {
            vec![
                name,
                format!("{rate:.0}"),
                if floor > 0.0 { format!("{:.2}", rate / floor) } else { String::new() },
            ]
        };
        let mut rows = vec![
            line(format!("floor: bare claim and acknowledge, {} connections", self.slots), self.floor, 0.0),
            line(format!("floor: the same, {BATCH} at a time, one connection"), self.floor_batched, 0.0),
        ];
        for (prefetch, rate) in &self.worker {
            let floor = if *prefetch == 0 { self.floor } else { self.floor_batched };
            rows.push(line(
                format!("one worker, {} slots, {prefetch} claimed ahead", self.slots),
                *rate,
                floor,
            ));
        }
        rows.push(line("enqueue, one to a transaction".to_owned(), self.enqueue_single, 0.0));
        rows.push(line(format!("enqueue, {BATCH} to a statement"), self.enqueue_bulk, 0.0));
        format!(
            "{}\n{} jobs that do nothing\n\n{}\nIdle worker, from commit to the job's first line: p50 {:.2} ms, p99 {:.2} ms \
             (of {PINGS}, by notification alone).\n",
            self.machine.text(),
            self.jobs,
            markdown(&["", "jobs/s", "of the floor"], &rows),
            self.latency_ms.p50,
            self.latency_ms.p99
        )
    }
}
