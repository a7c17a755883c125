//! What the jobs' reports count for monitoring, under the documents' names.
//!
//! Counted when a job's end is committed and not while it works, so a step that is rolled back, retried or fenced off
//! counts once or not at all. What a download costs is counted where it happens (`fetch.rs`), since a failed one has no
//! report.

use super::detect_completion::DetectCompletion;
use super::ingest::Ingest;
use super::upsert_lots::UpsertLots;
use super::upsert_vehicles::UpsertVehicles;
use crate::queue::Job;
use crate::telemetry::STATUSES;
use metrics::{counter, histogram};
use serde_json::Value;

/// Counts what a completed job of this kind reports.
pub fn counted(kind: &str, report: &Value) {
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    let upserted = |metric: &'static str| {
        for outcome in ["inserted", "updated", "unchanged"] {
            counter!(metric, "outcome" => outcome).increment(number(outcome));
        }
    };
    match kind {
        Ingest::KIND if report["state"] != "already" => {
            counter!("etl_ingest_rows_total").increment(number("rows"));
            counter!("etl_parse_errors_total", "outcome" => "rejected").increment(number("parse_errors"));
            counter!("etl_parse_errors_total", "outcome" => "repaired").increment(number("repaired"));
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
                // only statuses that are known become labels
                let known = |status: &str| STATUSES.iter().copied().find(|it| *it == status);
                if let (Some(old), Some(new)) = (known(old), known(new)) {
                    counter!("etl_status_transitions_total", "old_status" => old, "new_status" => new)
                        .increment(lots.as_u64().unwrap_or(0));
                }
            }
        }
        _ => {}
    }
}
