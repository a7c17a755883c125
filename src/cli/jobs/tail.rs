//! `vinops jobs tail`: prints finished job runs as they happen.
//!
//! The command reads twice a second the runs that have finished since shortly before the last printed one. The finish
//! time is the start of a transaction, so runs become visible in another order. The printed runs are remembered, so
//! that each is printed once.

use super::super::roles::until_told;
use super::super::show;
use super::super::{Failure, Fleet};
use super::ListArgs;
use crate::config::Config;
use crate::queue::operate::{self, EndRow};
use crate::telemetry::visible_line;
use chrono::TimeDelta;
use std::collections::HashMap;
use std::time::Duration;

/// The interval between two reads.
const EVERY: Duration = Duration::from_millis(500);

/// The longest time between the finish time of a run and the moment at which the run becomes visible.
const LATE: TimeDelta = TimeDelta::seconds(10);

/// Prints finished runs until SIGTERM, SIGINT, or the limit of `--limit` runs.
pub async fn run(args: ListArgs, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let leave = until_told()?;
    let json = args.json.json;
    let (session, filter) = args.filter.open(fleet, config, &args.connect).await?;
    let mut left = filter.limit.unwrap_or(i64::MAX);
    let began = match filter.since {
        Some(since) => since,
        None => operate::now(&session.db.pool).await?,
    };
    let mut last = began;
    let mut seen = HashMap::new();
    while left > 0 && !leave.is_cancelled() {
        let since = (last - LATE).max(began);
        for end in operate::ends(&session.db.pool, since, &filter).await? {
            last = last.max(end.finished_at);
            if left > 0 && seen.insert((end.job, end.run), end.finished_at).is_none() {
                left -= 1;
                line(&end, json)?;
            }
        }
        seen.retain(|_, ended| *ended >= last - LATE);
        if left > 0 {
            tokio::select! {
                () = leave.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
    session.close().await
}

/// Prints one finished run.
fn line(end: &EndRow, json: bool) -> anyhow::Result<()> {
    if json {
        return show::json_line(end);
    }
    let error = end.error.as_deref().map(|error| format!("  {}", visible_line(error))).unwrap_or_default();
    println!(
        "{}  {:>8}  {:<18} {:<11} {:<10} {:>9}  {}{error}",
        end.finished_at.format("%Y-%m-%d %H:%M:%S"),
        end.job,
        end.kind,
        end.outcome,
        end.state,
        show::seconds(end.seconds),
        end.key.as_deref().unwrap_or_default(),
    );
    Ok(())
}
