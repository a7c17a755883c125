//! Every metric, by the name under which code, dashboards and alerts know it.
//!
//! What happens in a process is counted there; what lies in the database is read from it when somebody asks
//! (`src/http/readings.rs`), so that it is right whichever process is asked, and whichever has died. A metric of the
//! database is the same in every process: sums over processes are wrong for it, `max` is right.

/// What is measured, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, counted into buckets with these upper bounds.
    Seconds(&'static [f64]),
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Counted where it happens; begins at zero with its process.
    Process,
    /// Read from the database when asked for; the same in every process.
    Database,
}

/// The values a label may have: these, so that no series is without end.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// These words.
    Of(&'static [&'static str]),
    /// The fleet's kinds of jobs, and `other`.
    Kinds,
    /// The sources that the database knows.
    Sources,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// What and how.
    pub kind: Kind,
    /// Where from.
    pub origin: Origin,
    /// One line.
    pub help: &'static str,
    /// Its labels and what they may say.
    pub labels: &'static [(&'static str, Values)],
}

impl Metric {
    const fn by(self, labels: &'static [(&'static str, Values)]) -> Metric {
        Metric { labels, ..self }
    }

    const fn stored(self) -> Metric {
        Metric { origin: Origin::Database, ..self }
    }
}

/// Upper bounds for a step over a window, in seconds: warned about at 120, paged at 300.
const STEP: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0, 120.0, 300.0];
/// The same for a download, warned about at 15.
const DOWNLOAD: &[f64] = &[0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0];
/// The same for any job, from a no-op to the default limit of ten minutes.
const JOB: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const UPSERTED: Values = Values::Of(&["inserted", "updated", "unchanged"]);
/// The same for an answer of the API.
const ANSWER: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.04, 0.1, 0.25, 1.0, 10.0];
/// What a lot's status may be; `src/taxonomy/statuses.csv` has the same words.
pub const STATUSES: &[&str] = &["active", "scheduled", "PENDING_RESULT", "sold", "no_sale", "removed"];
/// The feed's words by table; `src/taxonomy/mod.rs` has the same names, and that of our own statuses.
pub const DOMAINS: &[&str] = &[
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
/// Columns of the feed that may be unreadable: those that are not plain text. `src/auction/column.rs` has the same names.
pub const READ_COLUMNS: &[&str] = &[
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
/// States in which a job is still the queue's concern.
pub const DEPTHS: &[&str] = &["available", "scheduled", "retryable", "running"];
/// How a run may end.
pub const OUTCOMES: &[&str] = &[
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
/// Window states that are an end.
pub const ENDS: &[&str] = &["unchanged", "applied", "late", "incomplete", "quarantined", "failed", "missed"];
/// Resources of the API, and what else is asked of it.
pub const ROUTES: &[&str] =
    &["vehicles", "lots", "search", "facets", "taxonomies", "windows", "openapi.json", "other"];
/// What a worker may be doing.
const WORKERS: &[&str] = &["working", "draining", "lost"];
/// States of a breaker.
const BREAKER: &[&str] = &["closed", "open", "half_open"];

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, origin: Origin::Process, help, labels: &[] }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, origin: Origin::Process, help, labels: &[] }
}

const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Seconds(buckets), origin: Origin::Process, help, labels: &[] }
}

const SOURCE: &[(&str, Values)] = &[("source", Values::Sources)];
const KIND: &[(&str, Values)] = &[("kind", Values::Kinds)];

/// All there are.
pub const METRICS: &[Metric] = &[
    // fetch
    counter("copart_fetch_success_total", "Windows downloaded."),
    counter("copart_fetch_failures_total", "Windows whose download failed in all its tries."),
    counter("copart_session_refresh_total", "Logins."),
    seconds("copart_fetch_duration_seconds", DOWNLOAD, "Time of one window's download."),
    // ingest
    counter("etl_ingest_rows_total", "Rows read."),
    counter("etl_duplicate_files_total", "Files whose bytes their source had brought before."),
    seconds("etl_ingest_duration_seconds", STEP, "Time of one window's ingest."),
    counter("etl_parse_errors_total", "Records that did not parse as they stood.")
        .by(&[("outcome", Values::Of(&["repaired", "rejected"]))]),
    gauge("etl_unknown_rate_percent", "Share of the latest file's rows without this column's value.")
        .stored()
        .by(&[("source", Values::Sources), ("column", Values::Of(&["vin", "lot"]))]),
    gauge(
        "etl_unknown_words_percent",
        "Share of the words of the latest file's new and changed rows that have no code.",
    )
    .stored()
    .by(&[("source", Values::Sources), ("domain", Values::Of(DOMAINS))]),
    counter("etl_unreadable_values_total", "Values of new and changed rows that could not be read, by column.")
        .by(&[("column", Values::Of(READ_COLUMNS))]),
    gauge(
        "etl_unreadable_values_ratio",
        "Share, 0 to 1, of the latest file's new and changed rows whose value of the column could not be read; from 200 rows on.",
    )
    .stored()
    .by(&[("source", Values::Sources), ("column", Values::Of(READ_COLUMNS))]),
    gauge(
        "etl_column_drift",
        "1 for a column of the latest file of which most values are unreadable, unlike in the last complete file.",
    )
    .stored()
    .by(&[("source", Values::Sources), ("column", Values::Of(READ_COLUMNS))]),
    gauge("etl_header_drift_columns", "New and missing columns of the latest file.").stored().by(SOURCE),
    counter("etl_quarantined_files_total", "Files kept and not applied.").stored(),
    // upsert
    counter("etl_vehicle_upserts_total", "Vehicles met by upsert-vehicles.").by(&[("outcome", UPSERTED)]),
    counter("etl_vehicle_conflicts_total", "Vehicles changed, each a line of their history."),
    counter("etl_vin_conflicts_total", "Rows whose VIN is not their vehicle's own."),
    counter("etl_lot_upserts_total", "Lots met by upsert-lots.").by(&[("outcome", UPSERTED)]),
    counter("etl_lot_conflicts_total", "Lots changed, each a line of their history."),
    counter("etl_orphan_lots_total", "Lots without their vehicle: 0 as long as the foreign key stands.")
        .stored(),
    // completion
    counter("etl_pending_result_total", "Lots whose auction passed and whose result is awaited."),
    counter("etl_status_transitions_total", "Moves of a lot from one status to another.")
        .by(&[("old_status", Values::Of(STATUSES)), ("new_status", Values::Of(STATUSES))]),
    gauge(
        "etl_last_success_timestamp_seconds",
        "When the newest window that ended well did so, as Unix time: its file, or the one it repeats, stands in the data.",
    )
    .stored()
    .by(SOURCE),
    // windows and sources
    gauge("vinops_last_applied_window_age_seconds", "Since the start of the newest window that ended well.")
        .stored()
        .by(SOURCE),
    gauge("vinops_windows", "Windows of the last 24 hours by the state they ended in.")
        .stored()
        .by(&[("source", Values::Sources), ("state", Values::Of(ENDS))]),
    gauge("vinops_consecutive_failures", "Slots in a row whose fetch has failed.").stored().by(SOURCE),
    gauge(
        "vinops_breaker_state",
        "1 for the state the source's breaker is in; open, nothing is fetched but a probe.",
    )
    .stored()
    .by(&[("source", Values::Sources), ("state", Values::Of(BREAKER))]),
    gauge(
        "vinops_source_enabled",
        "1 while the source is fetched by itself, 0 when an operator switched it off.",
    )
    .stored()
    .by(SOURCE),
    gauge("vinops_session_expiry_timestamp_seconds", "Until when the source's login holds, as Unix time.")
        .stored()
        .by(SOURCE),
    // queue
    gauge("vinops_jobs", "Unfinished jobs by state.")
        .stored()
        .by(&[("kind", Values::Kinds), ("state", Values::Of(DEPTHS))]),
    gauge("vinops_jobs_ready", "Jobs that are due and unclaimed.").stored().by(KIND),
    gauge(
        "vinops_oldest_ready_age_seconds",
        "How long the longest waiting due job has been due; 0 if none is.",
    )
    .stored()
    .by(KIND),
    gauge("vinops_kind_paused", "1 while an operator lets the kind rest in the whole fleet.")
        .stored()
        .by(KIND),
    gauge("vinops_workers", "Workers of the fleet; one that was not seen for its lease is lost.")
        .stored()
        .by(&[("state", Values::Of(WORKERS))]),
    counter("vinops_job_runs_total", "Runs of jobs on this worker by how they ended.")
        .by(&[("kind", Values::Kinds), ("outcome", Values::Of(OUTCOMES))]),
    counter("vinops_jobs_discarded_total", "Jobs given up by this worker's runs.").by(KIND),
    seconds("vinops_job_duration_seconds", JOB, "From claim to end of a run.").by(KIND),
    counter("vinops_events_lost_total", "Ends of runs that came too fast to be counted here."),
    // the API
    counter("vinops_api_requests_total", "Requests of the API by what became of them.")
        .by(&[("route", Values::Of(ROUTES)), ("status", Values::Of(&["ok", "refused", "failed"]))]),
    seconds("vinops_api_request_duration_seconds", ANSWER, "From a request of the API to its answer.")
        .by(&[("route", Values::Of(ROUTES))]),
    // the process
    gauge("vinops_database_up", "1 if the database answered when it was asked for these figures."),
    gauge("vinops_draining", "1 from the signal to leave until the process has left."),
    gauge("vinops_build_info", "1, with what runs here."),
];

/// The metric of this name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Every combination of a metric's label values, as far as they are known before anything has happened. A status does
/// not move to itself.
pub fn series(metric: &Metric, kinds: &[&'static str]) -> Vec<Vec<(&'static str, &'static str)>> {
    let mut all = vec![Vec::new()];
    for (label, values) in metric.labels {
        let values = match values {
            Values::Of(words) => words.to_vec(),
            Values::Kinds => kinds.iter().copied().chain(["other"]).collect(),
            Values::Sources => Vec::new(),
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
