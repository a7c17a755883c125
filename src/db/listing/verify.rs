//! Checks the listing helper's schema against its runbook: each check of the runbook on the live database, and the
//! verdict.
//!
//! `CHECKLIST` has one entry for each line of the runbook's checklist. Each check runs in a savepoint of its own that
//! is always rolled back, within a transaction that is rolled back too. So a check that inserts, drops or migrates
//! leaves nothing, and a failed check does not affect the others. Inserted rows get explicit ids below all existing
//! ones, since a rollback does not reset a sequence.
//!
//! `catalog_checks` reads the catalog, `constraint_checks` tries statements that must be rejected, and
//! `rollback_checks` rolls the slices back and applies them again. **The rollback checks take an access exclusive lock
//! on each table** for the duration of a slice, tens of milliseconds if there are few listings. They wait for a lock no
//! longer than `CHECK_LOCK_TIMEOUT`, so that verify always loses to other transactions. Such a check fails with the
//! lock timeout as its evidence. The role that runs the checks must own the tables.

use super::ListingSchema;
use anyhow::{Context, bail};
use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

mod catalog_checks;
mod constraint_checks;
mod expected;
mod index_definition;
mod rollback_checks;

/// Lock timeout of a check: shorter than the second after which PostgreSQL looks for a deadlock.
const CHECK_LOCK_TIMEOUT: &str = "800ms";

/// The rows of the runbook's verdict, without the last.
pub const VERDICT_ROWS: [&str; 8] = [ORDER, VERSIONING, ONE_ACTIVE, JOBS, EVENTS, FEATURES, ROLLBACK, RISKS];
const ORDER: &str = "Migration order documented";
const VERSIONING: &str = "BOM versioning constraints";
const ONE_ACTIVE: &str = "One-active-BOM invariant";
const JOBS: &str = "Jobs schema per SPEC";
const EVENTS: &str = "Events schema per SPEC";
const FEATURES: &str = "Feature store schema";
const ROLLBACK: &str = "Rollback procedures";
const RISKS: &str = "Schema risks identified";
/// The last row of the verdict, which is line 40 of the checklist.
pub const OVERALL: &str = "Overall";

/// Result of a check.
pub struct CheckResult {
    passed: bool,
    evidence: String,
}

impl CheckResult {
    fn new(passed: bool, evidence: impl Into<String>) -> CheckResult {
        // a database error has lines of their own for detail and hint
        CheckResult { passed, evidence: evidence.into().replace('\n', "; ") }
    }

    /// Returns a result that passes if `wrong` is empty. Otherwise `wrong` is the evidence.
    fn from_faults(wrong: &[String], evidence: impl Into<String>) -> CheckResult {
        match wrong {
            [] => CheckResult::new(true, evidence),
            wrong => CheckResult::new(false, wrong.join("; ")),
        }
    }
}

type CheckFuture<'a> = BoxFuture<'a, anyhow::Result<CheckResult>>;

/// A line of the checklist: its number, its row of the verdict, the demand, and the function that checks it.
struct ChecklistLine(
    u8,
    &'static str,
    &'static str,
    for<'a> fn(&'a mut PgConnection, &'a ListingSchema) -> CheckFuture<'a>,
);

macro_rules! line {
    ($number:literal, $verdict:ident, $demand:literal, $($ask:tt)+) => {
        ChecklistLine($number, $verdict, $demand, |connection, place| Box::pin($($ask)+(connection, place)))
    };
}

/// The checklist. Line 40 is [`OVERALL`].
const CHECKLIST: &[ChecklistLine] = &[
    line!(
        1,
        ORDER,
        "applied in the order 000 to 005, each rejected without its prerequisites",
        rollback_checks::check_order
    ),
    line!(2, ORDER, "the base tables exist: listings and settings", catalog_checks::check_base),
    line!(3, ORDER, "rows were backed up before the migrations", catalog_checks::check_backups),
    line!(4, ORDER, "001 created its six tables", catalog_checks::check_slice_a),
    line!(
        5,
        ORDER,
        "001 added listings.marketplace_id and renamed columns of listings",
        catalog_checks::check_listings_a
    ),
    line!(6, ORDER, "002 created its four tables", catalog_checks::check_slice_b),
    line!(7, ORDER, "002 added status, fulfillment_channel and category to listings", catalog_checks::check_listings_b),
    line!(8, ORDER, "003 created its five tables", catalog_checks::check_slice_c),
    line!(9, ORDER, "003 added the reference of boms to ASINs, and listings.asin", catalog_checks::check_changed_c),
    line!(10, ORDER, "004 created its two tables", catalog_checks::check_slice_d),
    line!(11, ORDER, "the same six files were applied, one by one or all at once", catalog_checks::check_same_files),
    line!(12, ORDER, "a second run changes nothing", rollback_checks::check_repeated_run),
    line!(13, VERSIONING, "boms_listing_active_unique", catalog_checks::check_listing_active),
    line!(14, ONE_ACTIVE, "a second active BOM of a listing is rejected", constraint_checks::check_second_active),
    line!(15, VERSIONING, "boms_version_unique", constraint_checks::check_version),
    line!(16, VERSIONING, "boms_asin_active_unique", constraint_checks::check_scenario),
    line!(17, JOBS, "jobs has its 19 columns", catalog_checks::check_jobs),
    line!(18, JOBS, "job_type", catalog_checks::check_job_type),
    line!(19, JOBS, "job_status", catalog_checks::check_job_status),
    line!(20, EVENTS, "listing_events and listing_event_type", catalog_checks::check_listing_events),
    line!(
        21,
        EVENTS,
        "recommendation_events and recommendation_event_type",
        catalog_checks::check_recommendation_events
    ),
    line!(
        22,
        FEATURES,
        "feature_store has its 7 columns and feature_entity_type its two values",
        catalog_checks::check_features
    ),
    line!(
        23,
        FEATURES,
        "the newest features are found by idx_feature_store_computed",
        constraint_checks::check_index_used
    ),
    line!(24, JOBS, "jobs.asin_entity_id refers to an ASIN", constraint_checks::check_job_of_an_asin),
    line!(25, RISKS, "the recommended checks: costs, margins, attempts", constraint_checks::check_recommended),
    line!(26, RISKS, "every BOM has an owner", constraint_checks::check_owners),
    line!(27, RISKS, "no features older than a day", constraint_checks::check_stale),
    line!(28, RISKS, "indexes are valid", catalog_checks::check_indexes),
    line!(29, ROLLBACK, "004 can be rolled back", rollback_checks::check_rollback_d),
    line!(30, ROLLBACK, "003 can be rolled back", rollback_checks::check_rollback_c),
    line!(31, ROLLBACK, "002 can be rolled back", rollback_checks::check_rollback_b),
    line!(32, ROLLBACK, "001 can be rolled back, listings and prices are kept", rollback_checks::check_rollback_a),
    line!(
        33,
        ROLLBACK,
        "rollbacks go from 005 to 001, any other order is rejected",
        rollback_checks::check_rollback_order
    ),
    line!(34, ROLLBACK, "down and up again restores the schema", rollback_checks::check_down_and_up),
    line!(35, ORDER, "tables in the schema", catalog_checks::check_table_count),
    line!(36, ORDER, "enum types in the schema", catalog_checks::check_enums),
    line!(37, ONE_ACTIVE, "no listing has two active BOMs", constraint_checks::check_invariant),
    line!(38, RISKS, "references of boms, jobs and recommendations", catalog_checks::check_references),
    line!(39, ORDER, "settings seeded", catalog_checks::check_seeded),
];

/// Result of one line of the checklist.
#[derive(Clone, Debug, Serialize)]
pub struct ListingCheck {
    /// Number of the line in the checklist.
    pub line: u8,
    /// The row of the verdict that the line counts for.
    pub verdict: &'static str,
    /// The demand of the runbook.
    pub demand: &'static str,
    /// True if the demand is met.
    pub passed: bool,
    /// The state that was found.
    pub evidence: String,
}

/// A row of the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerdictRow {
    /// The name of the row in the runbook.
    pub check: &'static str,
    /// `PASS` or `FAIL`.
    pub status: &'static str,
}

/// Results of all checks, and the verdict.
#[derive(Clone, Debug, Serialize)]
pub struct ListingVerifyReport {
    /// True if all checks passed.
    pub ok: bool,
    /// The schema of the tables.
    pub schema: String,
    /// Rows of `feature_store` with a margin outside -1..1. Such rows are allowed, since a loss is data. None if the
    /// view is missing.
    pub flagged_margins: Option<i64>,
    /// The results, one for each line of the checklist.
    pub checks: Vec<ListingCheck>,
    /// The runbook's table of verdicts.
    pub verdict: Vec<VerdictRow>,
}

/// Runs all checks.
///
/// # Errors
/// Returns an error if the database is not reachable. A check that fails with an error is a failed check.
pub async fn verify_listing(
    connection: &mut PgConnection,
    place: &ListingSchema,
) -> anyhow::Result<ListingVerifyReport> {
    let mut tx = connection.begin().await?;
    place.set_search_path(&mut tx).await?;
    let lock_timeout = format!("set local lock_timeout = '{}'", CHECK_LOCK_TIMEOUT);
    sqlx::raw_sql(AssertSqlSafe(lock_timeout)).execute(&mut *tx).await?;
    let mut checks = Vec::new();
    for ChecklistLine(line, verdict, demand, ask) in CHECKLIST {
        let mut step = tx.begin().await?;
        let answer = ask(&mut step, place).await;
        step.rollback().await.context("could not roll back a check")?;
        let answer = answer.unwrap_or_else(|error| CheckResult::new(false, format!("{error:#}")));
        checks.push(ListingCheck { line: *line, verdict, demand, passed: answer.passed, evidence: answer.evidence });
    }
    let mut step = tx.begin().await?;
    let flagged_margins = constraint_checks::count_flagged_margins(&mut step).await.ok();
    step.rollback().await?;
    tx.rollback().await?;
    let word = |passed: bool| if passed { "PASS" } else { "FAIL" };
    let mut verdict = Vec::new();
    for name in VERDICT_ROWS {
        let mut of = checks.iter().filter(|check| check.verdict == name).peekable();
        let any = of.peek().is_some();
        verdict.push(VerdictRow { check: name, status: word(any && of.all(|check| check.passed)) });
    }
    let ok = verdict.iter().all(|row| row.status == "PASS");
    verdict.push(VerdictRow { check: OVERALL, status: word(ok) });
    Ok(ListingVerifyReport { ok, schema: place.name().to_owned(), flagged_margins, checks, verdict })
}

/// Executes a statement that must be rejected with this SQLSTATE, and by this constraint if one is given.
///
/// Returns `None` if it was, and otherwise what happened instead.
async fn expect_refusal(
    connection: &mut PgConnection,
    statement: String,
    code: &str,
    constraint: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let mut step = connection.begin().await?;
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *step).await;
    step.rollback().await?;
    match done {
        Ok(_) => Ok(Some("was accepted".to_owned())),
        Err(sqlx::Error::Database(error))
            if error.code().as_deref() == Some(code) && (constraint.is_none() || error.constraint() == constraint) =>
        {
            Ok(None)
        }
        Err(sqlx::Error::Database(error)) => Ok(Some(format!("was rejected with another error: {error}"))),
        Err(error) => Err(error.into()),
    }
}

/// Executes statements that must succeed.
async fn execute_statements(connection: &mut PgConnection, statements: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// Returns the text that a query returns.
async fn fetch_text(connection: &mut PgConnection, query: String) -> anyhow::Result<Option<String>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?)
}

/// Returns an id below all ids of the table, so that no sequence is used.
async fn spare_id(connection: &mut PgConnection, table: &str) -> anyhow::Result<i32> {
    let least = format!("-- verify: spare id\nselect least(min(id), 0)::bigint - 1 from {table}");
    let id: i64 = sqlx::query_scalar(AssertSqlSafe(least)).fetch_one(connection).await?;
    match i32::try_from(id) {
        // leave room for the few rows that a check inserts
        Ok(id) if id > i32::MIN + 100 => Ok(id),
        _ => bail!("table {table} has no free id below {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checklist_is_complete_and_every_row_of_the_verdict_rests_on_a_line() {
        let lines: Vec<u8> = CHECKLIST.iter().map(|line| line.0).collect();
        assert_eq!(lines, (1..=39).collect::<Vec<_>>());
        assert!(VERDICT_ROWS.iter().all(|verdict| CHECKLIST.iter().any(|line| line.1 == *verdict)));
        assert!(CHECKLIST.iter().all(|line| VERDICT_ROWS.contains(&line.1)));
    }
}
