//! Rates at which one worker and the baseline process a backlog.

use super::{NOOP_JOBS, StartSignal, WORKER_SLOTS, baseline, enable_features, fill_queue};
use crate::bench::metric::SampleStats;
use crate::bench::server::{BenchDatabase, BenchServer};
use crate::queue::{Extensions, RunOutcome, Worker, WorkerEvent};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Measured numbers of prefetched jobs, each with the batch size of the baseline.
const PREFETCH_CASES: [(usize, i64); 3] = [(0, 1), (10, 10), (100, 100)];
/// Interval of the checks whether a backlog is finished.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Rates at which a backlog was processed, in jobs per second.
#[derive(Clone, Debug, Serialize)]
pub struct DrainRate {
    /// Number of jobs that the worker prefetched beyond its slots.
    pub ahead: usize,
    /// Number of rows that the baseline claimed per statement.
    pub batch: i64,
    /// Rate of one worker.
    pub rate: SampleStats,
    /// Rate of the baseline.
    pub floor: SampleStats,
    /// Ratio of the worker's rate to the baseline measured just before.
    pub of_floor: SampleStats,
}

/// Measures worker and baseline in turn, for each number of prefetched jobs. Returns their rates, and the median rate
/// of enqueuing the backlogs in bulk, in jobs per second.
pub(super) async fn measure_drain(
    jobs: usize,
    repeats: usize,
    place: &BenchServer,
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<(Vec<DrainRate>, f64)> {
    let (mut drained, mut filled) = (Vec::new(), Vec::new());
    for (ahead, batch) in PREFETCH_CASES {
        let mut rates = Vec::new();
        for _ in 0..repeats {
            let database = place.create_database().await?;
            let floor = baseline::measure_baseline(&database, jobs, WORKER_SLOTS, batch).await?;
            filled.push(fill_queue(&database, jobs).await?);
            enable_features(&database).await?;
            let rate = drain_queue(&database, jobs, ahead).await?;
            report_line(format!(
                "worker, {ahead} prefetched: {rate:.0} jobs/s; baseline, batch {batch}: {floor:.0} jobs/s"
            ));
            rates.push((rate, floor));
            place.drop_database(database).await?;
        }
        drained.push(DrainRate {
            ahead,
            batch,
            rate: SampleStats::from_samples(rates.iter().map(|(rate, _)| *rate)),
            floor: SampleStats::from_samples(rates.iter().map(|(_, floor)| *floor)),
            of_floor: SampleStats::from_samples(rates.iter().map(|(rate, floor)| rate / floor)),
        });
    }
    Ok((drained, SampleStats::from_samples(filled).median))
}

/// Runs one worker until all `jobs` jobs are done. Returns jobs per second, including the worker's start.
async fn drain_queue(database: &BenchDatabase, jobs: usize, prefetch: usize) -> anyhow::Result<f64> {
    // Each job sends two events, and the receiver may not miss any.
    let (watchers, mut events) = broadcast::channel((jobs * 2 + 64).next_power_of_two());
    let (bell, _) = mpsc::unbounded_channel();
    let leave = CancellationToken::new();
    let worker = Worker::new(&database.db, NOOP_JOBS)
        .with_concurrency(WORKER_SLOTS)
        .with_prefetch(prefetch)
        .with_extensions(Extensions::new().with(StartSignal(bell)))
        .with_event_sender(watchers)
        .run(leave.clone());
    let began = Instant::now();
    let worker = tokio::spawn(worker);
    let mut left = jobs;
    while left > 0 {
        let mut next_event = Some(events.recv().await.context("could not receive the worker's events")?);
        while let Some(event) = next_event {
            if let WorkerEvent::Ended { outcome, error, .. } = event {
                ensure!(
                    outcome == RunOutcome::Done,
                    "benchmark job ended {}: {}",
                    outcome.as_str(),
                    error.unwrap_or_default()
                );
                left -= 1;
            }
            next_event = events.try_recv().ok();
        }
        // Waking up for each event would use processor time that is being measured.
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let rate = jobs as f64 / began.elapsed().as_secs_f64();
    leave.cancel();
    worker.await.context("worker panicked")??;
    Ok(rate)
}
