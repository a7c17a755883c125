//! Logs and metrics: how they are set up, and the names they go by.
//!
//! Logs go to standard error, as JSON where a long-running role writes to a pipe and as lines for people
//! otherwise; `VINOPS_LOG` filters them.
//! Metrics are rendered for Prometheus to fetch. **Every counter exists from the start, at zero**, with each value of
//! its labels: Prometheus's `increase()` sees nothing of a series that is born at one, and an alert on the first
//! parse error would stay silent. Histograms have buckets, since the summaries they would otherwise be cannot be
//! added up over workers.

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error; `filter` is `VINOPS_LOG`. A `role` runs for weeks and tells what it does; a
/// command prints its result and logs only what is wrong, except for what it tells anyway: how its jobs and files
/// ended, the target `told`. Once per process; again changes nothing.
pub fn init(filter: Option<&str>, role: bool) {
    let usual = if role { "info,sqlx=error" } else { "warn,told=off,sqlx=error" };
    let (filter, complaint) = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(usual), Some(error)),
        None => (EnvFilter::new(usual), None),
    };
    let terminal = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(terminal).with_writer(std::io::stderr);
    let people = !role || terminal;
    let begun = if people { lines.compact().try_init() } else { lines.json().flatten_event(true).try_init() };
    if begun.is_ok()
        && let Some(error) = complaint
    {
        tracing::warn!("VINOPS_LOG: {error}: logging as usual");
    }
}

/// What is measured, and how.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, counted into buckets with these upper bounds.
    Seconds(&'static [f64]),
}

/// A metric: the name by which code, dashboards and alerts call it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// What and how.
    pub kind: Kind,
    /// One line.
    pub help: &'static str,
    /// The label and its values that exist from the start; others may join.
    pub labels: Option<(&'static str, &'static [&'static str])>,
}

/// Upper bounds for a step over a window, in seconds: warned about at 120, paged at 300.
const STEP: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 300.0];
const DOWNLOAD: &[f64] = &[0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];
const OUTCOMES: Option<(&str, &[&str])> = Some(("outcome", &["inserted", "updated", "unchanged"]));

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help, labels: None }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help, labels: None }
}

const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Seconds(buckets), help, labels: None }
}

/// Every metric of a domain's steps. What the queue says of each job's kind is drawn from the fleet.
pub const METRICS: &[Metric] = &[
    counter("copart_fetch_success_total", "Windows downloaded."),
    counter("copart_fetch_failures_total", "Windows whose download failed in all its tries."),
    counter("copart_session_refresh_total", "Logins."),
    seconds("copart_fetch_duration_seconds", DOWNLOAD, "Time of one window's download."),
    counter("etl_ingest_rows_total", "Rows read."),
    counter("etl_duplicate_files_total", "Files whose bytes were known already."),
    seconds("etl_ingest_duration_seconds", STEP, "Time of one window's ingest."),
    Metric {
        name: "etl_parse_errors_total",
        kind: Kind::Counter,
        help: "Records that did not parse as they stood.",
        labels: Some(("outcome", &["repaired", "rejected"])),
    },
    Metric {
        name: "etl_unknown_rate_percent",
        kind: Kind::Gauge,
        help: "Share of the latest file's rows without this column's value.",
        labels: Some(("column", &["vin", "lot"])),
    },
    Metric {
        name: "etl_vehicle_upserts_total",
        kind: Kind::Counter,
        help: "Vehicles met by upsert-vehicles.",
        labels: OUTCOMES,
    },
    counter("etl_vehicle_conflicts_total", "Changes written to a vehicle's history."),
    Metric {
        name: "etl_lot_upserts_total",
        kind: Kind::Counter,
        help: "Lots met by upsert-lots.",
        labels: OUTCOMES,
    },
    counter("etl_lot_conflicts_total", "Changes written to a lot's history."),
    counter("etl_orphan_lots_total", "Lots without their vehicle: always 0."),
    counter("etl_pending_result_total", "Lots whose auction passed and whose result is awaited."),
    counter("etl_status_transitions_total", "Moves of a lot from one status to another."),
    gauge("etl_last_success_timestamp_seconds", "When a window was last applied, as Unix time."),
];

/// Starts measuring and returns what renders the figures for Prometheus. Once per process.
pub fn measure() -> anyhow::Result<PrometheusHandle> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("start measuring")?;
    announce();
    Ok(handle)
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Seconds(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .with_context(|| format!("buckets of {}", metric.name)),
        Kind::Counter | Kind::Gauge => Ok(builder),
    })
}

/// Gives every metric its help and every counter its zero.
fn announce() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => {
                metrics::describe_counter!(metric.name, metric.help);
                match metric.labels {
                    None => metrics::counter!(metric.name).absolute(0),
                    Some((label, values)) => {
                        values
                            .iter()
                            .for_each(|value| metrics::counter!(metric.name, label => *value).absolute(0));
                    }
                }
            }
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Seconds(_) => {
                metrics::describe_histogram!(metric.name, metrics::Unit::Seconds, metric.help)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_exported_as_zero_before_anything_happened() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, announce);
        let shown = handle.render();
        for metric in METRICS.iter().filter(|metric| matches!(metric.kind, Kind::Counter)) {
            let of = |line: &&str| line.starts_with(metric.name) && line.ends_with(" 0");
            let series = shown.lines().filter(of).count();
            assert_eq!(
                series,
                metric.labels.map_or(1, |(_, values)| values.len()),
                "{}\n{shown}",
                metric.name
            );
        }
    }

    #[test]
    fn a_histogram_has_its_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            announce();
            metrics::histogram!("etl_ingest_duration_seconds").record(3.0);
        });
        assert!(handle.render().contains("etl_ingest_duration_seconds_bucket{le=\"5\"} 1"));
    }
}
