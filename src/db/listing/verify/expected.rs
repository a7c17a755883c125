//! Expected state of the schema, by the runbook. `tests/listing/` compares these constants with the runbook's text.

/// Expected columns of each table.
pub const EXPECTED_COLUMNS: &str = include_str!("columns.txt");

/// Number of tables that each slice adds to the base. The runbook does not have the last slice.
pub const TABLE_COUNTS: &[(&str, usize)] = &[("001", 6), ("002", 4), ("003", 5), ("004", 2), ("005", 1)];

/// The 11 enum types of the slices, with their values.
pub const ENUM_TYPES: &[(&str, &[&str])] = &[
    ("bom_scope_type", &["LISTING", "ASIN_SCENARIO"]),
    ("buy_box_status_type", &["WON", "LOST", "UNKNOWN"]),
    ("confidence_band", &["HIGH", "MEDIUM", "LOW"]),
    ("feature_entity_type", &["LISTING", "ASIN"]),
    ("job_scope_type", &["LISTING", "ASIN", "GLOBAL"]),
    ("job_status", &["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]),
    (
        "job_type",
        &[
            "SYNC_AMAZON_OFFER",
            "SYNC_AMAZON_SALES",
            "SYNC_AMAZON_CATALOG",
            "SYNC_KEEPA_ASIN",
            "COMPUTE_FEATURES_LISTING",
            "COMPUTE_FEATURES_ASIN",
            "GENERATE_RECOMMENDATIONS_LISTING",
            "GENERATE_RECOMMENDATIONS_ASIN",
            "PUBLISH_PRICE_CHANGE",
            "PUBLISH_STOCK_CHANGE",
        ],
    ),
    (
        "listing_event_type",
        &[
            "PRICE_CHANGE_DRAFTED",
            "PRICE_CHANGE_PUBLISHED",
            "PRICE_CHANGE_SUCCEEDED",
            "PRICE_CHANGE_FAILED",
            "STOCK_CHANGE_DRAFTED",
            "STOCK_CHANGE_PUBLISHED",
            "STOCK_CHANGE_SUCCEEDED",
            "STOCK_CHANGE_FAILED",
            "BOM_UPDATED",
            "COST_OVERRIDE_UPDATED",
            "AMAZON_SYNC_COMPLETED",
            "KEEPA_SYNC_COMPLETED",
            "FEATURES_COMPUTED",
            "LISTING_CREATED",
            "LISTING_ARCHIVED",
        ],
    ),
    (
        "recommendation_event_type",
        &[
            "GENERATED",
            "VIEWED",
            "ACCEPTED",
            "REJECTED",
            "SNOOZED",
            "EXPIRED",
            "SUPERSEDED",
            "ACTION_STARTED",
            "ACTION_COMPLETED",
            "ACTION_FAILED",
        ],
    ),
    ("recommendation_status", &["PENDING", "ACCEPTED", "REJECTED", "SNOOZED", "EXPIRED", "SUPERSEDED"]),
    (
        "recommendation_type",
        &[
            "PRICE_DECREASE_REGAIN_BUYBOX",
            "PRICE_INCREASE_MARGIN_OPPORTUNITY",
            "STOCK_INCREASE_STOCKOUT_RISK",
            "STOCK_DECREASE_OVERSTOCK",
            "MARGIN_AT_RISK_COMPONENT_COST",
            "ANOMALY_SALES_DROP",
            "ANOMALY_CONVERSION_DROP",
            "ANOMALY_BUY_BOX_LOSS",
            "OPPORTUNITY_CREATE_LISTING",
        ],
    ),
];

/// The settings with their seeded values, as JSON.
pub const SEEDED_SETTINGS: &[(&str, &str)] = &[
    ("default_vat_rate", "0.20"),
    ("guardrails.allow_price_below_break_even", "false"),
    ("guardrails.max_price_change_pct_per_day", "0.05"),
    ("guardrails.min_days_of_cover_before_price_change", "7"),
    ("guardrails.min_margin", "0.15"),
    ("guardrails.min_stock_threshold", "5"),
];

/// The foreign keys that the runbook lists. The runbook announces the third, but its statements do not create it.
pub const FOREIGN_KEYS: &[&str] = &[
    "boms_asin_entity_fk: boms to asin_entities",
    "boms_listing_id_fkey: boms to listings",
    "jobs_asin_entity_fk: jobs to asin_entities",
    "jobs_listing_id_fkey: jobs to listings",
    "recommendations_accepted_job_id_fkey: recommendations to jobs",
    "recommendations_generation_job_id_fkey: recommendations to jobs",
];

/// Returns the tables of a slice with their columns, each column as `name type`.
///
/// The pseudo-slice `base` contains the tables of the base, with column names only. The pseudo-slice `exact` contains
/// the tables that must have no other columns.
pub fn expected_columns(slice: &str) -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    EXPECTED_COLUMNS.lines().filter_map(move |line| {
        let (table, columns) = line.strip_prefix(slice)?.trim_start().split_once(": ")?;
        // numeric(12,2) has a comma without a blank after it
        Some((table, columns.split(", ").collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slice_names_its_tables() {
        for (slice, tables) in [("base", 2), ("001", 6), ("002", 3), ("003", 4), ("004", 2), ("exact", 2)] {
            assert_eq!(expected_columns(slice).count(), tables, "{slice}");
        }
    }
}
