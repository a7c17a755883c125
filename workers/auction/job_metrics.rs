//! Records metrics from the reports of completed jobs, under the names of the documentation.
//!
//! Metrics are recorded when the end of a job is committed, not while the job runs. A step that is rolled back, retried
//! or fenced off is counted once or not at all. Downloads are counted where they happen (`fetch.rs`), since a failed
//! download has no report.

use super::detect_completion::DetectCompletion;
use super::fetch::Fetch;
use super::ingest::Ingest;
use super::upsert_lots::UpsertLots;
use super::upsert_vehicles::UpsertVehicles;
use crate::queue::Job;
use crate::telemetry::{LOT_STATUSES, TYPED_COLUMNS};
use metrics::{counter, histogram};
use serde_json::Value;

/// Records the metrics of a completed job of this kind from its report.
pub fn record_metrics(kind: &str, report: &Value) {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let upserted = |metric: &'static str| {
        for outcome in ["inserted", "updated", "unchanged"] {
            counter!(metric, "outcome" => outcome).increment(number(outcome));
        }
    };
    match kind {
        Fetch::KIND if report["outcome"] == "duplicate" => counter!("etl_duplicate_files_total").increment(1),
        Ingest::KIND if report["state"] != "already" => {
            counter!("etl_ingest_rows_total").increment(number("rows"));
            counter!("etl_parse_errors_total", "outcome" => "rejected").increment(number("parse_errors"));
            counter!("etl_parse_errors_total", "outcome" => "repaired").increment(number("repaired"));
            for (column, values) in report["unreadable"].as_object().into_iter().flatten() {
                // Only known columns become label values.
                let column = TYPED_COLUMNS.iter().copied().find(|it| it == column).unwrap_or("other");
                counter!("etl_unreadable_values_total", "column" => column)
                    .increment(values["count"].as_u64().unwrap_or(0));
            }
            histogram!("etl_ingest_duration_seconds").record(report["seconds"].as_f64().unwrap_or(0.0));
        }
        UpsertVehicles::KIND => {
            upserted("etl_vehicle_upserts_total");
            counter!("etl_vehicle_conflicts_total").increment(number("updated"));
            counter!("etl_vin_conflicts_total").increment(number("vin_conflicts"));
        }
        UpsertLots::KIND => {
            upserted("etl_lot_upserts_total");
            counter!("etl_lot_conflicts_total").increment(number("updated"));
        }
        DetectCompletion::KIND => {
            counter!("etl_pending_result_total").increment(number("pending_result"));
            for (moved, lots) in report["moves"].as_object().into_iter().flatten() {
                let (old, new) = moved.split_once(" > ").unwrap_or_default();
                // Only known statuses become label values.
                let known = |status: &str| LOT_STATUSES.iter().copied().find(|it| *it == status);
                if let (Some(old), Some(new)) = (known(old), known(new)) {
                    counter!("etl_status_transitions_total", "old_status" => old, "new_status" => new)
                        .increment(lots.as_u64().unwrap_or(0));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::Column;
    use crate::auction::fixture::civic_fixture;
    use crate::auction::row::{ParseWarnings, ParsedRow};
    use crate::taxonomy::AliasIndex;
    use serde_json::json;

    #[test]
    fn the_columns_that_are_counted_are_those_that_may_be_unreadable() {
        let mut warnings = ParseWarnings::default();
        for column in Column::ALL {
            // a yard whose state has two zones, so that the abbreviation counts
            let texas = civic_fixture().with_value("Yard name", "TX - DALLAS").with_value("Location state", "TX");
            let odd = texas.with_value(column.name(), "?!");
            odd.with_record(|record| drop(ParsedRow::from_record(record, AliasIndex::built_in(), &mut warnings)));
        }
        let mut unreadable: Vec<&str> = warnings.iter().map(|(column, ..)| column.name()).collect();
        unreadable.push("other");
        let mut counted = TYPED_COLUMNS.to_vec();
        unreadable.sort_unstable();
        counted.sort_unstable();
        assert_eq!(unreadable, counted);
    }

    #[test]
    fn a_duplicate_is_counted_once_by_the_report_of_its_fetch() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            record_metrics("fetch", &json!({ "outcome": "fetched" }));
            assert!(!handle.render().contains("etl_duplicate_files_total"), "{}", handle.render());
            record_metrics("fetch", &json!({ "outcome": "duplicate" }));
        });
        assert!(handle.render().contains("etl_duplicate_files_total 1\n"), "{}", handle.render());
    }
}
