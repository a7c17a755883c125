//! Decides whether a file is quarantined, after the last record.

use super::outcome::ColumnDrift;
use super::{MAX_ROWS, ScanError, ScanOutcome, ScanPlan};
use crate::auction::Column;
use crate::auction::completeness::RecognisedLots;
use crate::auction::drift::{DriftPolicy, UnreadableKeys};

/// Reason why a file is quarantined, that is stored but not applied.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineReason {
    /// The header is missing, or is not the feed's.
    #[error("{0}")]
    Header(String),
    /// The file has a header and no rows.
    #[error("the file has a header but no rows")]
    Empty,
    /// The file has more rows than row ids are available.
    #[error("the file has more than {} records", MAX_ROWS)]
    TooMany,
    /// More than one record in fifty is unreadable.
    #[error("{rejected} of {records} records cannot be read, more than 2 %")]
    Rejected {
        /// Unreadable records.
        rejected: u64,
        /// All records.
        records: u64,
    },
    /// A key column is unreadable in more than half of the rows.
    #[error("column \"{}\" is unreadable in {unreadable} of {rows} rows, more than half", column.name())]
    KeyColumn {
        /// The key column.
        column: Column,
        /// Rows in which the column is unreadable.
        unreadable: u64,
        /// All rows.
        rows: u64,
    },
    /// Fewer than half of the records have a recognised lot number.
    #[error("{} of {} records have a recognised lot number, less than 50 %", .0.recognised, .0.records)]
    FewLots(RecognisedLots),
    /// A column drifted whose policy is to refuse the file.
    #[error(
        "column drift: \"{}\" is unreadable in {} of {} new and changed rows, such as {:?}, and its policy is refuse",
        .0.column, .0.unreadable, .0.rows, .0.first
    )]
    Drift(ColumnDrift),
}

impl QuarantineReason {
    /// Returns true if the file was read completely.
    pub fn is_fully_read(&self) -> bool {
        !matches!(self, QuarantineReason::Header(_) | QuarantineReason::TooMany)
    }
}

/// A quarantined file: the reason, and the counts of the scan.
#[derive(Debug)]
pub struct QuarantinedFile {
    /// The reason of the quarantine.
    pub why: QuarantineReason,
    /// The counts until the scan ended.
    pub outcome: ScanOutcome,
}

impl From<QuarantineReason> for ScanError {
    fn from(why: QuarantineReason) -> ScanError {
        ScanError::Refused(Box::new(QuarantinedFile { why, outcome: ScanOutcome::default() }))
    }
}

/// Returns the reason why the file must be quarantined, or `None` for a file that can be applied.
pub fn quarantine_reason(plan: &ScanPlan, outcome: &ScanOutcome, keys: UnreadableKeys) -> Option<QuarantineReason> {
    let (rows, rejected, records) = (outcome.rows, outcome.rejected, outcome.lots.records);
    if rows == 0 && (plan.accepted || rejected == 0) {
        return Some(QuarantineReason::Empty);
    }
    if plan.accepted {
        return None;
    }
    if rejected * 50 > records {
        return Some(QuarantineReason::Rejected { rejected, records });
    }
    if let Some((column, unreadable)) = keys.mostly_unreadable(rows) {
        return Some(QuarantineReason::KeyColumn { column, unreadable, rows });
    }
    if outcome.lots.is_unusable() {
        return Some(QuarantineReason::FewLots(outcome.lots));
    }
    let refuses = |drift: &&ColumnDrift| plan.policies[drift.place] == DriftPolicy::Refuse;
    outcome.column_drift.iter().find(refuses).cloned().map(QuarantineReason::Drift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::drift::DriftPolicies;
    use crate::taxonomy::AliasIndex;
    use std::sync::Arc;
    use uuid::Uuid;

    const WARN_POLICIES: DriftPolicies = [DriftPolicy::Warn; Column::COUNT];

    fn test_plan(policies: DriftPolicies) -> ScanPlan {
        ScanPlan {
            source: "copart".into(),
            earlier_ids: None,
            mapping: crate::auction::mapping::copart_mapping(),
            file_id: Uuid::nil(),
            file_no: 1,
            window: chrono::DateTime::UNIX_EPOCH,
            head_window: None,
            in_order: true,
            headless: true,
            full: false,
            accepted: false,
            aliases: Arc::new(AliasIndex::built_in().clone()),
            earlier: Arc::default(),
            policies,
        }
    }

    fn test_outcome(rows: u64, rejected: u64, recognised: u64) -> ScanOutcome {
        let lots = RecognisedLots { recognised, records: rows + rejected };
        ScanOutcome { rows, rejected, lots, ..ScanOutcome::default() }
    }

    fn reason_text(plan: &ScanPlan, outcome: &ScanOutcome) -> Option<String> {
        quarantine_reason(plan, outcome, UnreadableKeys::default()).map(|why| why.to_string())
    }

    #[test]
    fn a_column_that_drifts_refuses_the_file_only_where_its_policy_says_so() {
        let drift = ColumnDrift {
            column: Column::Odometer.name(),
            unreadable: 201,
            rows: 300,
            first: "5 miles".to_owned(),
            policy: "refuse",
            place: Column::Odometer as usize,
        };
        let drifted = ScanOutcome { column_drift: vec![drift], ..test_outcome(300, 0, 300) };
        let mut policies = WARN_POLICIES;
        assert_eq!(reason_text(&test_plan(policies), &drifted), None);
        policies[Column::Year as usize] = DriftPolicy::Refuse;
        assert_eq!(reason_text(&test_plan(policies), &drifted), None, "another column's");
        policies[Column::Odometer as usize] = DriftPolicy::Refuse;
        assert_eq!(
            reason_text(&test_plan(policies), &drifted).as_deref(),
            Some(
                "column drift: \"Odometer\" is unreadable in 201 of 300 new and changed rows, such as \"5 miles\", \
                 and its policy is refuse"
            )
        );
    }

    #[test]
    fn an_accepted_file_is_refused_only_where_nothing_of_it_can_be_applied() {
        let accepted = ScanPlan { accepted: true, ..test_plan(WARN_POLICIES) };
        assert_eq!(reason_text(&accepted, &test_outcome(1, 99, 0)), None);
        assert_eq!(
            reason_text(&accepted, &test_outcome(0, 99, 0)).as_deref(),
            Some("the file has a header but no rows")
        );
    }

    #[test]
    fn a_file_is_refused_for_what_is_wrong_with_most_of_it() {
        let plan = test_plan(WARN_POLICIES);
        assert_eq!(reason_text(&plan, &test_outcome(98, 2, 100)), None);
        let rejected = reason_text(&plan, &test_outcome(97, 2, 99)).unwrap();
        assert_eq!(rejected, "2 of 99 records cannot be read, more than 2 %");
        assert_eq!(reason_text(&plan, &test_outcome(0, 0, 0)).as_deref(), Some("the file has a header but no rows"));
        assert_eq!(reason_text(&plan, &test_outcome(100, 0, 50)), None);
        let few = reason_text(&plan, &test_outcome(100, 0, 49)).unwrap();
        assert_eq!(few, "49 of 100 records have a recognised lot number, less than 50 %");
    }
}
