//! `vinops jobs tail`: prints finished job runs as they happen.
//!
//! The command reads twice a second the runs that have finished since shortly before the last printed one. The finish
//! time is the start of a transaction, so runs become visible in another order. The printed runs are remembered, so
//! that each is printed once.

use super::super::output;
use super::super::roles::shutdown_signal;
use super::super::{CommandError, JobRegistry};
use super::JobListArgs;
use crate::config::Config;
use crate::queue::queries::{self, RunEndRow};
use crate::telemetry::escape_line;
use chrono::TimeDelta;
use std::collections::HashMap;
use std::time::Duration;

/// The interval between two reads.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The longest time between the finish time of a run and the moment at which the run becomes visible.
const OVERLAP_WINDOW: TimeDelta = TimeDelta::seconds(10);

/// Prints finished runs until SIGTERM, SIGINT, or the limit of `--limit` runs.
pub async fn run(args: JobListArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let leave = shutdown_signal()?;
    let json = args.json.json;
    let (session, filter) = args.filter.open_session(fleet, config, &args.connect).await?;
    let mut left = filter.limit.unwrap_or(i64::MAX);
    let began = match filter.since {
        Some(since) => since,
        None => queries::database_time(&session.db.pool).await?,
    };
    let mut last = began;
    let mut seen = HashMap::new();
    while left > 0 && !leave.is_cancelled() {
        let since = (last - OVERLAP_WINDOW).max(began);
        for end in queries::list_run_ends(&session.db.pool, since, &filter).await? {
            last = last.max(end.finished_at);
            if left > 0 && seen.insert((end.job, end.run), end.finished_at).is_none() {
                left -= 1;
                print_run(&end, json)?;
            }
        }
        seen.retain(|_, ended| *ended >= last - OVERLAP_WINDOW);
        if left > 0 {
            tokio::select! {
                () = leave.cancelled() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }
    session.close().await
}

/// Prints one finished run.
fn print_run(end: &RunEndRow, json: bool) -> anyhow::Result<()> {
    if json {
        return output::print_json_line(end);
    }
    let error = end.error.as_deref().map(|error| format!("  {}", escape_line(error))).unwrap_or_default();
    println!(
        "{}  {:>8}  {:<18} {:<11} {:<10} {:>9}  {}{error}",
        end.finished_at.format("%Y-%m-%d %H:%M:%S"),
        end.job,
        end.kind,
        end.outcome,
        end.state,
        output::format_seconds(end.seconds),
        end.key.as_deref().unwrap_or_default(),
    );
    Ok(())
}
