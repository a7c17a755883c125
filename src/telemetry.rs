//! Set-up of logs and metrics, and the definitions of all metrics.
//!
//! Logs go to standard error: as JSON if a long-running role writes to a pipe, as text otherwise. `VINOPS_LOG_FORMAT`
//! overrides the format, `VINOPS_LOG` sets the filter.
//!
//! Metrics are rendered for Prometheus. **Every counter exists from the start, at zero**, with each value of its
//! labels: Prometheus's `increase()` ignores the first sample of a series, so an alert on the first parse error would
//! stay silent. Histograms have buckets, because the default summaries cannot be added up over workers.
//!
//! Accepted: a process that dies between the commit of a step and the next scrape loses its counts. Values that an
//! alert must not miss are therefore read from the database (see `names`).

use crate::config::LogFormat;
use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, JsonFields};

mod escape;
mod json_formatter;
mod names;

pub use names::{
    API_ROUTES, LOT_STATUSES, LabelValues, METRICS, MetricDefinition, MetricKind, MetricOrigin, RUN_OUTCOMES,
    TERMINAL_WINDOW_STATES, TYPED_COLUMNS, UNFINISHED_JOB_STATES, find_metric, metric_series,
};

pub use escape::{escape_json, escape_line, escape_text};

/// Libraries that log bytes on the wire, including headers and URLs with keys. Only their warnings and errors are
/// logged, whatever `VINOPS_LOG` contains.
const NOISY_TARGETS: &[&str] = &["h2", "hyper", "hyper_util", "reqwest", "rustls", "object_store"];

/// Starts logging to standard error. `filter` is `VINOPS_LOG`, `format` is `VINOPS_LOG_FORMAT`.
///
/// A `role` runs for weeks and logs at level info. A command prints a result and logs only warnings, without the
/// target `outcome`: a command prints the results of jobs and files anyway. The first call per process counts, later
/// calls have no effect.
pub fn init_logging(filter: Option<&str>, format: Option<LogFormat>, role: bool) {
    let usual = if role { "info,sqlx=error,sqlx::postgres::notice=warn" } else { "warn,outcome=off,sqlx=error" };
    let (filter, complaint) = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(usual), Some(error)),
        None => (EnvFilter::new(usual), None),
    };
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if role && !terminal { LogFormat::Json } else { LogFormat::Text });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(limit_noisy_targets(filter))
        .with_ansi(terminal)
        .with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Text => lines.compact().fmt_fields(format_text_fields()).try_init(),
        LogFormat::Json => {
            lines.with_ansi(false).fmt_fields(JsonFields::new()).event_format(json_formatter::JsonFormatter).try_init()
        }
    };
    if begun.is_ok()
        && let Some(error) = complaint
    {
        tracing::warn!(%error, "invalid VINOPS_LOG, default filter used");
    }
}

/// Returns the formatter for the fields of a text line. Control characters in values are escaped.
fn format_text_fields() -> impl for<'writer> FormatFields<'writer> + Clone + 'static {
    format::debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escape_text(&text)),
            name => write!(writer, "{name}={}", escape_text(&text)),
        }
    })
    .delimited(" ")
}

fn limit_noisy_targets(filter: EnvFilter) -> EnvFilter {
    NOISY_TARGETS
        .iter()
        .filter_map(|library| format!("{library}=warn").parse().ok())
        .fold(filter, |filter, directive| filter.add_directive(directive))
}

/// Installs the metrics recorder of the process and returns the handle that renders its metrics for Prometheus.
///
/// `kinds` are the names of all job kinds.
///
/// # Errors
///
/// Returns an error on the second call in a process.
pub fn init_metrics(role: &'static str, kinds: &[&'static str]) -> anyhow::Result<PrometheusHandle> {
    let recorder = prometheus_builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("could not install the metrics recorder")?;
    register_metrics(kinds);
    metrics::gauge!("vinops_build_info", "version" => env!("CARGO_PKG_VERSION"), "role" => role).set(1.0);
    Ok(handle)
}

fn prometheus_builder() -> anyhow::Result<PrometheusBuilder> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        MetricKind::Seconds(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
            .with_context(|| format!("invalid buckets of metric {}", metric.name)),
        MetricKind::Counter | MetricKind::Gauge => Ok(builder),
    })
}

/// Registers the help text of every metric of this process, and the zero values of all counters and histograms.
fn register_metrics(kinds: &[&'static str]) {
    for metric in METRICS.iter().filter(|metric| metric.origin == MetricOrigin::Process) {
        match metric.kind {
            MetricKind::Counter => {
                metrics::describe_counter!(metric.name, metric.help);
                for labels in metric_series(metric, kinds) {
                    metrics::counter!(metric.name, &labels).absolute(0);
                }
            }
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Seconds(_) => {
                metrics::describe_histogram!(metric.name, metrics::Unit::Seconds, metric.help);
                for labels in metric_series(metric, kinds) {
                    drop(metrics::histogram!(metric.name, &labels));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_exported_as_zero_before_anything_happened() {
        let recorder = prometheus_builder().unwrap().build_recorder();
        let handle = recorder.handle();
        let kinds = ["fetch", "ingest"];
        metrics::with_local_recorder(&recorder, || register_metrics(&kinds));
        let shown = handle.render();
        let of_process = METRICS.iter().filter(|metric| metric.origin == MetricOrigin::Process);
        for metric in of_process.filter(|metric| metric.kind == MetricKind::Counter) {
            let of = |line: &&str| line.split(['{', ' ']).next() == Some(metric.name) && line.ends_with(" 0");
            let born = shown.lines().filter(of).count();
            assert!(born > 0 && born == metric_series(metric, &kinds).len(), "{}: {born}\n{shown}", metric.name);
        }
        assert!(shown.contains("vinops_job_runs_total{kind=\"ingest\",outcome=\"panic\"} 0"), "{shown}");
        assert!(shown.contains("etl_ingest_duration_seconds_count 0"), "{shown}");
        assert!(shown.contains("etl_ingest_duration_seconds_bucket{le=\"120\"} 0"), "{shown}");
        assert!(!shown.contains("old_status=\"sold\",new_status=\"sold\""));
    }

    #[derive(Clone, Default)]
    struct LogBuffer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_text_line_shows_the_control_characters_of_its_values() {
        let written = LogBuffer::default();
        let lines =
            tracing_subscriber::fmt().with_ansi(false).compact().fmt_fields(format_text_fields()).with_writer({
                let written = written.clone();
                move || written.clone()
            });
        let planted = "a\u{1b}[31m\u{7}\u{9b}\u{202e}\u{2066}b";
        tracing::subscriber::with_default(lines.finish(), || {
            let span = tracing::info_span!("job", note = planted, error = %planted);
            let _inside = span.enter();
            tracing::info!(reason = %planted, planted, "broken: {planted}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("\\u{202e}").count(), 5, "{text}");
        assert!(
            !text.chars().any(|c| c != '\n' && (c.is_control() || ('\u{2000}'..'\u{2100}').contains(&c))),
            "{text:?}"
        );
    }

    #[test]
    fn a_histogram_has_its_buckets() {
        let recorder = prometheus_builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            register_metrics(&[]);
            metrics::histogram!("etl_ingest_duration_seconds").record(3.0);
        });
        assert!(handle.render().contains("etl_ingest_duration_seconds_bucket{le=\"5\"} 1"));
    }

    #[test]
    fn no_filter_makes_the_libraries_tell_of_the_wire() {
        let filter = limit_noisy_targets(EnvFilter::new("trace,hyper=trace")).to_string();
        for library in NOISY_TARGETS {
            assert!(filter.contains(&format!("{library}=warn")), "{filter}");
        }
        assert!(!filter.contains("hyper=trace"), "{filter}");
    }
}
