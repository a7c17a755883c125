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

use super::competitors;
use super::machine::MachineInfo;
use super::metric::{SampleStats, markdown_table, quantile};
use super::server::{BenchDatabase, BenchServer, execute_statement};
use crate::queue::admin::{self, Actor};
use crate::queue::manual::ManualWorker;
use crate::queue::{
    EnqueueOptions, Extensions, Job, JobDefinition, JobPolicy, JobResult, JobRun, RunOutcome, Worker, WorkerEvent,
    enqueue_job, enqueue_jobs,
};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

mod baseline;
mod drain;

pub use drain::DrainRate;

/// Number of jobs that the worker runs concurrently, and of connections of the baseline.
pub const WORKER_SLOTS: usize = 10;
/// Number of jobs enqueued by one statement.
const ENQUEUE_BATCH: i64 = 100;
/// Number of finished jobs in the table in the second measurement of claims.
const FINISHED_JOBS: i64 = 1_000_000;
/// Number of measured claims.
const CLAIM_SAMPLES: usize = 500;
/// Number of jobs whose delay from commit to handler is measured.
const LATENCY_SAMPLES: usize = 200;
/// Maximum time until a worker wakes up. After this time the notification is considered lost.
const WAKEUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Job that does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct NoopJob {}

/// Channel that receives the start time of each handler.
struct StartSignal(mpsc::UnboundedSender<Instant>);

impl Job for NoopJob {
    const KIND: &'static str = "bench-nothing";
    const POLICY: JobPolicy = JobPolicy::DEFAULT.prefetchable();
    const VERB: &'static str = "does nothing";
    const SAFE: &'static str = "it does nothing";
    type Report = ();

    async fn run(self, run: JobRun) -> JobResult<()> {
        // The receiver may be closed, either because it is not needed or because the measurement is over.
        let _ = run.extension::<StartSignal>()?.0.send(Instant::now());
        run.done(()).await
    }
}

const NOOP_JOBS: &[JobDefinition] = &[JobDefinition::for_job::<NoopJob>()];

/// Results of the benchmark. Rates are in jobs per second.
#[derive(Clone, Debug, Serialize)]
pub struct QueueBenchReport {
    /// Machine and server.
    pub machine: MachineInfo,
    /// Number of jobs of each measurement.
    pub jobs: usize,
    /// Number of measurements of worker and baseline.
    pub repeats: usize,
    /// Number of jobs that the worker ran concurrently.
    pub slots: usize,
    /// Rates of one worker and of the baseline, by the number of prefetched jobs.
    pub worker: Vec<DrainRate>,
    /// Rates of other queues, if they are installed.
    pub rivals: Vec<competitors::CompetitorRate>,
    /// Rate of enqueuing one job per transaction.
    pub enqueue_single: f64,
    /// Rate of enqueuing a hundred jobs per statement.
    pub enqueue_bulk: f64,
    /// Milliseconds from just before the enqueuing commit to the first line of the handler, on an idle worker that is
    /// woken by notifications only.
    pub latency_ms: LatencyStats,
    /// Milliseconds of a claim of one job in a table of a thousand jobs.
    pub claim_ms: LatencyStats,
    /// Milliseconds of a claim of one job in a table with a million finished jobs.
    pub claim_beside_finished_ms: LatencyStats,
}

/// Statistics of durations, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyStats {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// All measurements.
    pub spread: SampleStats,
}

/// Runs the benchmark and reports progress through a callback.
pub async fn measure_queue(
    jobs: usize,
    repeats: usize,
    place: &BenchServer,
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<QueueBenchReport> {
    ensure!(jobs >= 1 && repeats >= 1, "--jobs and --repeats must be at least 1");
    let database = place.create_database().await?;
    let machine = MachineInfo::inspect(&database.db.pool, place.describe().await?).await?;
    place.drop_database(database).await?;

    let (worker, enqueue_bulk) = drain::measure_drain(jobs, repeats, place, report_line).await?;
    let database = place.create_database().await?;
    let rivals = competitors::measure_competitors(database.url(), jobs).await?;
    place.drop_database(database).await?;
    let database = place.create_database().await?;
    let enqueue_single = enqueue_each(&database, jobs.min(5000)).await?;
    report_line(format!("enqueue: {enqueue_single:.0} jobs/s one by one, {enqueue_bulk:.0} jobs/s in bulk"));
    place.drop_database(database).await?;

    let database = place.create_database().await?;
    enable_features(&database).await?;
    let latency_ms = measure_latency(&database).await?;
    report_line(format!("idle to start: p50 {:.2} ms, p99 {:.2} ms", latency_ms.p50, latency_ms.p99));
    place.drop_database(database).await?;

    let database = place.create_database().await?;
    fill_queue(&database, 2 * CLAIM_SAMPLES).await?;
    enable_features(&database).await?;
    let claim_ms = measure_claims(&database).await?;
    add_finished_jobs(&database).await?;
    let claim_beside_finished_ms = measure_claims(&database).await?;
    place.drop_database(database).await?;
    Ok(QueueBenchReport {
        machine,
        jobs,
        repeats,
        slots: WORKER_SLOTS,
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
async fn enable_features(database: &BenchDatabase) -> anyhow::Result<()> {
    let by = Actor::new("bench", "to pay for it");
    admin::pause_kinds(&database.db.pool, &["bench-paused".to_owned()], &by).await?;
    admin::limit_kind(&database.db.pool, NoopJob::KIND, Some(10_000), &by).await
}

/// Inserts a million finished jobs.
async fn add_finished_jobs(database: &BenchDatabase) -> anyhow::Result<()> {
    let mut session = database.open_session().await?;
    let fill = format!(
        "insert into fleet.jobs (kind, key, state, run, attempt, started_at, finished_at, completed_by)
        select '{}', 'finished ' || n, 'completed', 1, 1, now(), now(), 'bench' from generate_series(1, {FINISHED_JOBS}) as n",
        NoopJob::KIND
    );
    execute_statement(&mut session, fill).await?;
    execute_statement(&mut session, "vacuum (analyze) fleet.jobs".to_owned()).await?;
    database.checkpoint().await
}

/// Claims jobs one by one and leaves them running. Returns the durations of the claims.
async fn measure_claims(database: &BenchDatabase) -> anyhow::Result<LatencyStats> {
    let hand = ManualWorker {
        pool: database.db.pool.clone(),
        name: "bench".to_owned(),
        kinds: vec![NoopJob::KIND.to_owned()],
        lease: Duration::from_secs(3600),
    };
    let mut taken = Vec::with_capacity(CLAIM_SAMPLES);
    for _ in 0..CLAIM_SAMPLES {
        let began = Instant::now();
        let claimed = hand.claim_jobs(1).await?;
        taken.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(claimed.len() == 1, "claim returned no job");
    }
    Ok(LatencyStats::from_samples(taken))
}

/// Enqueues `jobs` jobs in batches. Returns jobs per second.
async fn fill_queue(database: &BenchDatabase, jobs: usize) -> anyhow::Result<f64> {
    let mut connection = database.db.pool.acquire().await?;
    database.checkpoint().await?;
    let began = Instant::now();
    let mut put = 0;
    while put < jobs {
        let batch: Vec<(NoopJob, String)> =
            (put..jobs.min(put + ENQUEUE_BATCH as usize)).map(|n| (NoopJob {}, n.to_string())).collect();
        put += batch.len();
        enqueue_jobs(&mut connection, &batch).await?;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    execute_statement(&mut connection, "vacuum (analyze) fleet.jobs".to_owned()).await?;
    database.checkpoint().await?;
    Ok(rate)
}

/// Enqueues `jobs` jobs, each in a transaction of its own. Returns jobs per second.
async fn enqueue_each(database: &BenchDatabase, jobs: usize) -> anyhow::Result<f64> {
    let mut connection = database.db.pool.acquire().await?;
    database.checkpoint().await?;
    let began = Instant::now();
    for n in 0..jobs {
        enqueue_job(&mut connection, &NoopJob {}, EnqueueOptions::with_key(n.to_string())).await?;
    }
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}

/// Enqueues jobs one by one, each when the worker is idle. Returns the delays from commit to handler.
async fn measure_latency(database: &BenchDatabase) -> anyhow::Result<LatencyStats> {
    let (watchers, mut events) = broadcast::channel(1024);
    let (bell, mut rings) = mpsc::unbounded_channel();
    let leave = CancellationToken::new();
    let worker = Worker::new(&database.db, NOOP_JOBS)
        .with_concurrency(WORKER_SLOTS)
        // Only a notification can wake the worker.
        .with_poll_interval(Duration::from_secs(3600))
        .with_extensions(Extensions::new().with(StartSignal(bell)))
        .with_event_sender(watchers)
        .run(leave.clone());
    let worker = tokio::spawn(worker);
    let mut taken = Vec::new();
    // The first job may find the worker still starting and is not measured.
    for n in 0..=LATENCY_SAMPLES {
        let mut transaction = database.db.pool.begin().await?;
        enqueue_job(&mut transaction, &NoopJob {}, EnqueueOptions::with_key(n.to_string())).await?;
        let asked = Instant::now();
        transaction.commit().await?;
        let started =
            tokio::time::timeout(WAKEUP_TIMEOUT, rings.recv()).await.context("worker received no notification")?;
        let started = started.context("worker stopped during a measurement")?;
        if n > 0 {
            taken.push(started.saturating_duration_since(asked).as_secs_f64() * 1000.0);
        }
        loop {
            match tokio::time::timeout(WAKEUP_TIMEOUT, events.recv())
                .await
                .context("benchmark job did not end in time")?
            {
                Ok(WorkerEvent::Ended { outcome: RunOutcome::Done, .. }) => break,
                Ok(WorkerEvent::Ended { outcome, .. }) => {
                    bail!("benchmark job ended {}; expected done", outcome.as_str())
                }
                Ok(_) => {}
                Err(error) => return Err(error).context("could not receive the worker's events"),
            }
        }
    }
    leave.cancel();
    worker.await.context("worker panicked")??;
    Ok(LatencyStats::from_samples(taken))
}

impl LatencyStats {
    fn from_samples(taken: Vec<f64>) -> LatencyStats {
        let mut sorted = taken.clone();
        sorted.sort_by(f64::total_cmp);
        LatencyStats {
            p50: quantile(&sorted, 0.5),
            p99: quantile(&sorted, 0.99),
            spread: SampleStats::from_samples(taken),
        }
    }
}

impl QueueBenchReport {
    /// Formats the report as Markdown, in the form of the README.
    pub fn to_text(&self) -> String {
        let line = |name: String, rate: f64, floor: Option<&SampleStats>| {
            vec![name, format!("{rate:.0}"), floor.map(|of| of.to_text(2)).unwrap_or_default()]
        };
        let mut rows = Vec::new();
        for DrainRate { ahead, batch, rate, floor, of_floor } in &self.worker {
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
        rows.push(line(format!("enqueue, {ENQUEUE_BATCH} jobs per statement"), self.enqueue_bulk, None));
        let (idle, few, many) = (&self.latency_ms, &self.claim_ms, &self.claim_beside_finished_ms);
        format!(
            "{}\n{} jobs that do nothing, with history, a paused kind and a fleet-wide limit; medians of {}\n\n{}\n\
             Idle worker, from commit to the job's first line: p50 {:.2} ms, p99 {:.2} ms ({LATENCY_SAMPLES} jobs, by notification \
             only).\nClaim of one job: p50 {:.2} ms, p99 {:.2} ms; with {FINISHED_JOBS} finished jobs in the table: p50 {:.2} ms, \
             p99 {:.2} ms ({CLAIM_SAMPLES} claims).\n",
            self.machine.to_text(),
            self.jobs,
            self.repeats,
            markdown_table(&["", "jobs/s", "of the baseline"], &rows),
            idle.p50,
            idle.p99,
            few.p50,
            few.p99,
            many.p50,
            many.p99,
        )
    }
}
