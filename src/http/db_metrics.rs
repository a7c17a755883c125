//! The metrics of the database in Prometheus's format. They are read on each scrape and absent during an outage, since
//! a stale value is worse than none.

use crate::queue::JobDefinition;
use crate::telemetry::{LabelValues, METRICS, MetricKind, MetricOrigin, metric_series};
use anyhow::Context;
use serde_json::Value;
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One sample of a metric.
#[derive(Debug)]
pub(super) struct MetricSample {
    pub metric: String,
    /// A JSON object from label names to label values.
    pub labels: Value,
    pub value: f64,
}

/// Reads the samples of all metrics with one statement, whose timeout is 2 s.
pub(super) async fn read_samples(pool: &PgPool) -> anyhow::Result<Vec<MetricSample>> {
    let mut tx = pool.begin().await?;
    sqlx::query!("-- http: limit\n select set_config('statement_timeout', '2s', true)").fetch_one(&mut *tx).await?;
    let readings = sqlx::query_as!(
        MetricSample,
        r#"-- http: figures
        select metric as "metric!", labels as "labels!", value as "value!"
        from fleet.metrics"#
    )
    .fetch_all(&mut *tx)
    .await
    .context("could not read the metrics of the database")?;
    tx.commit().await?;
    Ok(readings)
}

/// Renders samples as text in Prometheus's format.
///
/// Each metric has a HELP text. Known series without a sample are zero. Unknown label values are merged into `other`.
pub(super) fn render_samples(readings: &[MetricSample], fleet: &[JobDefinition]) -> String {
    let kinds: Vec<&'static str> = fleet.iter().map(|entry| entry.kind).collect();
    let sources: Vec<&str> = distinct_sources(readings);
    let mut text = String::new();
    for metric in METRICS.iter().filter(|metric| metric.origin == MetricOrigin::Database) {
        // The key is the rendered label set.
        let mut lines: BTreeMap<String, f64> = BTreeMap::new();
        let by_source = metric.labels.iter().any(|(_, values)| matches!(values, LabelValues::Sources));
        // A count without a sample is zero. An unknown age or percentage is absent.
        let counted = metric.kind == MetricKind::Counter
            || !(metric.name.ends_with("_seconds") || metric.name.ends_with("_percent"))
            || metric.name == "vinops_oldest_ready_age_seconds";
        if counted && !by_source {
            lines.extend(metric_series(metric, &kinds).iter().map(|labels| (format_labels(labels), 0.0)));
        }
        if counted && by_source {
            for source in &sources {
                for rest in source_series(metric.labels, source) {
                    lines.insert(format_labels(&rest), 0.0);
                }
            }
        }
        for reading in readings.iter().filter(|reading| reading.metric == metric.name) {
            let labels: Vec<(&str, &str)> = metric
                .labels
                .iter()
                .map(|(label, values)| (*label, bounded_label(&reading.labels[*label], *values, &kinds)))
                .collect();
            if labels.iter().any(|(label, value)| *label == "state" && *value == "other") {
                continue;
            }
            let line = lines.entry(format_labels(&labels)).or_insert(0.0);
            // Kinds merged into `other`: the counts are added, and the greatest age is used.
            *line = if metric.name.ends_with("_seconds") { line.max(reading.value) } else { *line + reading.value };
        }
        if lines.is_empty() {
            continue;
        }
        let kind = if metric.kind == MetricKind::Counter { "counter" } else { "gauge" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name);
        for (labels, value) in lines {
            let _ = writeln!(text, "{}{labels} {value}", metric.name);
        }
        text.push('\n');
    }
    text
}

fn distinct_sources(readings: &[MetricSample]) -> Vec<&str> {
    let mut sources: Vec<&str> = readings.iter().filter_map(|reading| reading.labels["source"].as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// Returns the label sets of all series of one source.
fn source_series<'a>(labels: &[(&'static str, LabelValues)], source: &'a str) -> Vec<Vec<(&'static str, &'a str)>> {
    labels.iter().fold(vec![Vec::new()], |all, (label, values)| {
        let values: Vec<&'a str> = match values {
            LabelValues::Of(words) => words.to_vec(),
            LabelValues::Kinds => Vec::new(),
            LabelValues::Sources => vec![source],
        };
        all.iter().flat_map(|begun| values.iter().map(|value| [&begun[..], &[(*label, *value)]].concat())).collect()
    })
}

/// Returns the value of a label, or `other` if the value is not one of those defined.
fn bounded_label<'a>(value: &'a Value, values: LabelValues, kinds: &[&'static str]) -> &'a str {
    let value = value.as_str().unwrap_or("other");
    let known = match values {
        LabelValues::Of(words) => words.contains(&value),
        LabelValues::Kinds => kinds.contains(&value),
        LabelValues::Sources => true,
    };
    if known { value } else { "other" }
}

/// Renders a label set as `{kind="fetch",state="running"}`, or as an empty string.
fn format_labels(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metric_sample(metric: &str, labels: Value, value: f64) -> MetricSample {
        MetricSample { metric: metric.to_owned(), labels, value }
    }

    #[test]
    fn what_nobody_waits_for_is_zero_and_kinds_nobody_knows_are_one() {
        let text = render_samples(
            &[
                metric_sample("vinops_jobs", json!({ "kind": "fetch", "state": "available" }), 3.0),
                metric_sample("vinops_jobs", json!({ "kind": "theirs", "state": "available" }), 2.0),
                metric_sample("vinops_jobs", json!({ "kind": "also-theirs", "state": "available" }), 2.0),
                metric_sample("vinops_oldest_ready_age_seconds", json!({ "kind": "theirs" }), 5.0),
                metric_sample("vinops_oldest_ready_age_seconds", json!({ "kind": "also-theirs" }), 9.5),
            ],
            crate::workers::JOBS,
        );
        for line in [
            "# TYPE vinops_jobs gauge",
            "vinops_jobs{kind=\"fetch\",state=\"available\"} 3",
            "vinops_jobs{kind=\"fetch\",state=\"running\"} 0",
            "vinops_jobs{kind=\"other\",state=\"available\"} 4",
            "vinops_oldest_ready_age_seconds{kind=\"other\"} 9.5",
            "vinops_oldest_ready_age_seconds{kind=\"fetch\"} 0",
            "etl_quarantined_files_total 0",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        assert!(!text.contains("theirs"), "{text}");
    }

    #[test]
    fn an_age_that_is_not_known_is_absent() {
        let known = render_samples(
            &[metric_sample("vinops_consecutive_failures", json!({ "source": "copart" }), 0.0)],
            crate::workers::JOBS,
        );
        assert!(known.contains("vinops_windows{source=\"copart\",state=\"quarantined\"} 0"), "{known}");
        assert!(!known.contains("vinops_last_applied_window_age_seconds"), "{known}");
    }
}
