//! The alerts name existing metrics and headings of the runbook, and each alert has a quiet and a firing test. promtool
//! checks that they fire when they should (`.ci/run`).

use std::collections::BTreeSet;
use vinops::telemetry::{METRICS, MetricKind};

fn read_file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Returns the text after the mark, for each line that begins with the mark.
fn lines_after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(mark)).map(|rest| rest.trim().trim_matches('"'))
}

/// Returns the words that have the form of this project's metric names.
fn metric_names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| ["vinops_", "etl_", "copart_"].iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

/// Returns the anchor of a heading, as links contain it.
fn heading_anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn alerts_name_metrics_that_there_are() {
    let known: BTreeSet<String> = METRICS
        .iter()
        .flat_map(|metric| match metric.kind {
            MetricKind::Seconds(_) => ["_bucket", "_count", "_sum"].map(|end| format!("{}{end}", metric.name)).to_vec(),
            MetricKind::Counter | MetricKind::Gauge => vec![metric.name.to_owned()],
        })
        .collect();
    for file in ["deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = read_file(file);
        let named = metric_names(&text);
        assert!(named.len() > 15, "{named:?}");
        let strange: Vec<_> = named.iter().filter(|name| !known.contains(**name)).collect();
        assert!(strange.is_empty(), "{file} names what nobody shows: {strange:?}");
    }
    // buckets in queries exist
    let alerts = read_file("deploy/prometheus/alerts.yml");
    for metric in METRICS {
        let MetricKind::Seconds(buckets) = metric.kind else { continue };
        for asked in alerts.split(&format!("{}_bucket{{le=\"", metric.name)).skip(1) {
            let bound: f64 = asked.split('"').next().unwrap().parse().unwrap();
            assert!(buckets.contains(&bound), "{} has no bucket of {bound}", metric.name);
        }
    }
}

#[test]
fn alerts_lead_to_the_runbook() {
    let runbook = read_file("deploy/README.md");
    let headings: BTreeSet<String> = lines_after(&runbook, "### ").map(heading_anchor).collect();
    let alerts = read_file("deploy/prometheus/alerts.yml");
    let names: Vec<&str> = lines_after(&alerts, "- alert:").collect();
    let entries: Vec<&str> = lines_after(&alerts, "runbook: deploy/README.md#").collect();
    assert_eq!(names.len(), entries.len(), "each alert has its entry");
    let lost: Vec<_> = entries.iter().filter(|entry| !headings.contains(**entry)).collect();
    assert!(lost.is_empty(), "not in the runbook: {lost:?}");
}

#[test]
fn each_alert_is_tried_quiet_and_firing() {
    let tests = read_file("deploy/prometheus/alerts_test.yml");
    for alert in lines_after(&read_file("deploy/prometheus/alerts.yml"), "- alert:") {
        for case in ["quiet", "fires"] {
            assert!(tests.contains(&format!("\"{alert}: {case}, ")), "{alert} is not tried: {case}");
        }
    }
}
