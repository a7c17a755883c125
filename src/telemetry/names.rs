//! The definitions of all metrics, by the names that code, dashboards and alerts use.
//!
//! Events in a process are counted in that process. Values in the database are read on each scrape
//! (`src/http/db_metrics.rs`), so they are right in whichever process is scraped, and after the death of a process. A
//! database metric is the same in every process: use `max` over processes, never a sum.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// A counter, which only increases.
    Counter,
    /// A gauge, which may increase and decrease.
    Gauge,
    /// A histogram of seconds with these upper bounds of its buckets.
    Seconds(&'static [f64]),
}

/// The origin of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricOrigin {
    /// Counted in the process, from zero at its start.
    Process,
    /// Read from the database on each scrape, the same in every process.
    Database,
}

/// The possible values of a label. They are bounded, so the number of series is bounded too.
#[derive(Clone, Copy, Debug)]
pub enum LabelValues {
    /// A fixed list.
    Of(&'static [&'static str]),
    /// All kinds of jobs, and `other`.
    Kinds,
    /// All sources in the database.
    Sources,
}

/// The definition of a metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricDefinition {
    /// Name in Prometheus.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Origin of the values.
    pub origin: MetricOrigin,
    /// HELP text, one line.
    pub help: &'static str,
    /// Labels with their possible values.
    pub labels: &'static [(&'static str, LabelValues)],
}

impl MetricDefinition {
    const fn with_labels(self, labels: &'static [(&'static str, LabelValues)]) -> MetricDefinition {
        MetricDefinition { labels, ..self }
    }

    const fn read_from_database(self) -> MetricDefinition {
        MetricDefinition { origin: MetricOrigin::Database, ..self }
    }
}

/// Bucket bounds for a step over a window, in seconds. Alerts warn at 120 and page at 300.
const STEP_BUCKETS: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 300.0];
/// Bucket bounds for a download, in seconds. Alerts warn at 15.
const DOWNLOAD_BUCKETS: &[f64] = &[0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];
/// Bucket bounds for any job, in seconds, from a no-op to the default timeout of ten minutes.
const JOB_BUCKETS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const UPSERT_OUTCOMES: LabelValues = LabelValues::Of(&["inserted", "updated", "unchanged"]);
/// Bucket bounds for a response of the API, in seconds.
const API_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.04, 0.1, 0.25, 1.0, 10.0];
/// Statuses of a lot, equal to those in `src/taxonomy/statuses.csv`.
pub const LOT_STATUSES: &[&str] = &["active", "scheduled", "PENDING_RESULT", "sold", "no_sale", "removed"];
/// Taxonomy tables of the feed's values. `src/taxonomy/mod.rs` has the same names, and the table of lot statuses.
pub const TAXONOMY_DOMAINS: &[&str] = &[
    "damage_types",
    "title_types",
    "sale_types",
    "odometer_brands",
    "colors",
    "body_styles",
    "fuel_types",
    "drive_types",
    "transmission_types",
    "vehicle_types",
    "runs_drives",
    "has_keys",
    "lot_conditions",
    "sale_lights",
];
/// Columns of the feed that may be unreadable, because they are not plain text. `src/auction/column.rs` has the same
/// names.
pub const TYPED_COLUMNS: &[&str] = &[
    "Sale Date M/D/CY",
    "Sale time (HHMM)",
    "Time Zone",
    "Item#",
    "Lot number",
    "Year",
    "Odometer",
    "Est. Retail Value",
    "Repair cost",
    "Cylinders",
    "High Bid =non-vix,Sealed=Vix",
    "Currency Code",
    "Make-an-Offer Eligible",
    "Buy-It-Now Price",
    "Last Updated Time",
    "other",
];
/// States of an unfinished job.
pub const UNFINISHED_JOB_STATES: &[&str] = &["available", "scheduled", "retryable", "running"];
/// Outcomes of a run.
pub const RUN_OUTCOMES: &[&str] = &[
    "done",
    "retry",
    "abort",
    "snooze",
    "panic",
    "timeout",
    "unreadable",
    "lost",
    "cancelled",
    "interrupted",
    "returned",
];
/// Terminal states of a window.
pub const TERMINAL_WINDOW_STATES: &[&str] =
    &["unchanged", "applied", "late", "incomplete", "quarantined", "failed", "missed"];
/// Resources of the API, and `other` for all other requests.
pub const API_ROUTES: &[&str] =
    &["vehicles", "lots", "search", "facets", "taxonomies", "windows", "openapi.json", "other"];
/// States of a worker.
const WORKER_STATES: &[&str] = &["working", "draining", "lost"];
/// States of a circuit breaker.
const BREAKER_STATES: &[&str] = &["closed", "open", "half_open"];

const fn counter(name: &'static str, help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Counter, origin: MetricOrigin::Process, help, labels: &[] }
}

const fn gauge(name: &'static str, help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Gauge, origin: MetricOrigin::Process, help, labels: &[] }
}

const fn histogram(name: &'static str, buckets: &'static [f64], help: &'static str) -> MetricDefinition {
    MetricDefinition { name, kind: MetricKind::Seconds(buckets), origin: MetricOrigin::Process, help, labels: &[] }
}

const SOURCE_LABEL: &[(&str, LabelValues)] = &[("source", LabelValues::Sources)];
const KIND_LABEL: &[(&str, LabelValues)] = &[("kind", LabelValues::Kinds)];

/// Definitions of all metrics.
pub const METRICS: &[MetricDefinition] = &[
    // fetch
    counter("copart_fetch_success_total", "Windows downloaded."),
    counter("copart_fetch_failures_total", "Windows whose download failed in all attempts."),
    counter("copart_session_refresh_total", "Logins to the feed."),
    histogram("copart_fetch_duration_seconds", DOWNLOAD_BUCKETS, "Duration of the download of a window."),
    // ingest
    counter("etl_ingest_rows_total", "Rows read by ingest."),
    counter("etl_duplicate_files_total", "Files whose bytes equal those of an earlier file of the source."),
    histogram("etl_ingest_duration_seconds", STEP_BUCKETS, "Duration of the ingest of a window."),
    counter("etl_parse_errors_total", "Records that needed repair or were rejected.")
        .with_labels(&[("outcome", LabelValues::Of(&["repaired", "rejected"]))]),
    gauge("etl_unknown_rate_percent", "Percentage of the latest file's rows without a value in the column.")
        .read_from_database()
        .with_labels(&[("source", LabelValues::Sources), ("column", LabelValues::Of(&["vin", "lot"]))]),
    gauge(
        "etl_unknown_words_percent",
        "Percentage of raw values without a code, in new and changed rows of the latest file.",
    )
    .read_from_database()
    .with_labels(&[("source", LabelValues::Sources), ("domain", LabelValues::Of(TAXONOMY_DOMAINS))]),
    counter("etl_unreadable_values_total", "Unreadable values of new and changed rows, by column.")
        .with_labels(&[("column", LabelValues::Of(TYPED_COLUMNS))]),
    gauge(
        "etl_unreadable_values_ratio",
        "Ratio (0 to 1) of unreadable values in the column, in new and changed rows of the latest file, from 200 rows on.",
    )
    .read_from_database()
    .with_labels(&[("source", LabelValues::Sources), ("column", LabelValues::Of(TYPED_COLUMNS))]),
    gauge(
        "etl_column_drift",
        "1 for a column whose values are mostly unreadable in the latest file, but not in the last complete file.",
    )
    .read_from_database()
    .with_labels(&[("source", LabelValues::Sources), ("column", LabelValues::Of(TYPED_COLUMNS))]),
    gauge("etl_header_drift_columns", "New and missing columns of the latest file.").read_from_database().with_labels(SOURCE_LABEL),
    counter("etl_quarantined_files_total", "Files stored but not applied.").read_from_database(),
    // upsert
    counter("etl_vehicle_upserts_total", "Vehicles processed by upsert-vehicles.").with_labels(&[("outcome", UPSERT_OUTCOMES)]),
    counter("etl_vehicle_conflicts_total", "Changes of existing vehicles, each recorded in their history."),
    counter("etl_vin_conflicts_total", "Rows whose VIN differs from the VIN of their vehicle."),
    counter("etl_lot_upserts_total", "Lots processed by upsert-lots.").with_labels(&[("outcome", UPSERT_OUTCOMES)]),
    counter("etl_lot_conflicts_total", "Changes of existing lots, each recorded in their history."),
    counter("etl_orphan_lots_total", "Lots without a vehicle, 0 while the foreign key is enforced.").read_from_database(),
    // completion
    counter("etl_pending_result_total", "Lots that await their result after the auction."),
    counter("etl_status_transitions_total", "Status transitions of lots.")
        .with_labels(&[("old_status", LabelValues::Of(LOT_STATUSES)), ("new_status", LabelValues::Of(LOT_STATUSES))]),
    gauge(
        "etl_last_success_timestamp_seconds",
        "Unix time at which the newest successful window was finished. Its file, or the file it repeats, is applied.",
    )
    .read_from_database()
    .with_labels(SOURCE_LABEL),
    // windows and sources
    gauge("vinops_last_applied_window_age_seconds", "Time since the start of the newest successful window.")
        .read_from_database()
        .with_labels(SOURCE_LABEL),
    gauge("vinops_windows", "Windows of the last 24 hours by terminal state.")
        .read_from_database()
        .with_labels(&[("source", LabelValues::Sources), ("state", LabelValues::Of(TERMINAL_WINDOW_STATES))]),
    gauge("vinops_consecutive_failures", "Consecutive slots whose fetch failed.").read_from_database().with_labels(SOURCE_LABEL),
    gauge(
        "vinops_breaker_state",
        "1 for the present state of the source's circuit breaker. While it is open, only a probe is fetched.",
    )
    .read_from_database()
    .with_labels(&[("source", LabelValues::Sources), ("state", LabelValues::Of(BREAKER_STATES))]),
    gauge("vinops_source_enabled", "1 if the source is fetched automatically, 0 if an operator disabled it.")
        .read_from_database()
        .with_labels(SOURCE_LABEL),
    gauge("vinops_session_expiry_timestamp_seconds", "Unix time at which the source's session expires.")
        .read_from_database()
        .with_labels(SOURCE_LABEL),
    // queue
    gauge("vinops_jobs", "Unfinished jobs by state.")
        .read_from_database()
        .with_labels(&[("kind", LabelValues::Kinds), ("state", LabelValues::Of(UNFINISHED_JOB_STATES))]),
    gauge("vinops_jobs_ready", "Jobs that are due and unclaimed.").read_from_database().with_labels(KIND_LABEL),
    gauge(
        "vinops_oldest_ready_age_seconds",
        "Time since the oldest due and unclaimed job became due, 0 if no job is due.",
    )
    .read_from_database()
    .with_labels(KIND_LABEL),
    gauge("vinops_kind_paused", "1 if an operator paused the kind for all workers.").read_from_database().with_labels(KIND_LABEL),
    gauge("vinops_workers", "Workers by state. A worker without a heartbeat for its lease is lost.")
        .read_from_database()
        .with_labels(&[("state", LabelValues::Of(WORKER_STATES))]),
    counter("vinops_job_runs_total", "Finished job runs of this worker by outcome.")
        .with_labels(&[("kind", LabelValues::Kinds), ("outcome", LabelValues::Of(RUN_OUTCOMES))]),
    counter("vinops_jobs_discarded_total", "Jobs discarded by this worker's runs.").with_labels(KIND_LABEL),
    histogram("vinops_job_duration_seconds", JOB_BUCKETS, "Duration of a run from claim to result.").with_labels(KIND_LABEL),
    counter("vinops_events_lost_total", "Finished job runs missing from these metrics: the event channel overflowed."),
    // the API
    counter("vinops_api_requests_total", "API requests by route and status.")
        .with_labels(&[("route", LabelValues::Of(API_ROUTES)), ("status", LabelValues::Of(&["ok", "refused", "failed"]))]),
    histogram("vinops_api_request_duration_seconds", API_BUCKETS, "Duration of an API request.")
        .with_labels(&[("route", LabelValues::Of(API_ROUTES))]),
    // the process
    gauge("vinops_database_up", "1 if the database returned its metrics for this scrape."),
    gauge("vinops_draining", "1 from the shutdown signal until the process exits."),
    gauge("vinops_build_info", "1, with version and role of the process as labels."),
];

/// Returns the metric with this name.
pub fn find_metric(name: &str) -> Option<&'static MetricDefinition> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Returns every combination of a metric's label values that is known at the start of the process.
///
/// Transitions from a status to itself are excluded.
pub fn metric_series(metric: &MetricDefinition, kinds: &[&'static str]) -> Vec<Vec<(&'static str, &'static str)>> {
    let mut all = vec![Vec::new()];
    for (label, values) in metric.labels {
        let values = match values {
            LabelValues::Of(words) => words.to_vec(),
            LabelValues::Kinds => kinds.iter().copied().chain(["other"]).collect(),
            LabelValues::Sources => Vec::new(),
        };
        all = all
            .iter()
            .flat_map(|begun: &Vec<(&str, &str)>| {
                values.iter().map(move |value| begun.iter().copied().chain([(*label, *value)]).collect())
            })
            .collect();
    }
    all.retain(|labels: &Vec<_>| match labels[..] {
        [("old_status", old), ("new_status", new)] => old != new,
        _ => true,
    });
    all
}
