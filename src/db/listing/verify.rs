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

use super::Place;
use anyhow::{Context, bail};
use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

mod deeds;
mod index;
mod known;
mod shape;
mod way;

/// Lock timeout of a check: shorter than the second after which PostgreSQL looks for a deadlock.
const PATIENCE: &str = "800ms";

/// The rows of the runbook's verdict, without the last.
pub const VERDICTS: [&str; 8] = [ORDER, VERSIONING, ONE_ACTIVE, JOBS, EVENTS, FEATURES, ROLLBACK, RISKS];
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
pub struct Answer {
    passed: bool,
    evidence: String,
}

impl Answer {
    fn new(passed: bool, evidence: impl Into<String>) -> Answer {
        // a database error has lines of their own for detail and hint
        Answer { passed, evidence: evidence.into().replace('\n', "; ") }
    }

    /// Returns a result that passes if `wrong` is empty. Otherwise `wrong` is the evidence.
    fn of(wrong: &[String], evidence: impl Into<String>) -> Answer {
        match wrong {
            [] => Answer::new(true, evidence),
            wrong => Answer::new(false, wrong.join("; ")),
        }
    }
}

type Asked<'a> = BoxFuture<'a, anyhow::Result<Answer>>;

/// A line of the checklist: its number, its row of the verdict, the demand, and the function that checks it.
struct Line(u8, &'static str, &'static str, for<'a> fn(&'a mut PgConnection, &'a Place) -> Asked<'a>);

macro_rules! line {
    ($number:literal, $verdict:ident, $demand:literal, $($ask:tt)+) => {
        Line($number, $verdict, $demand, |connection, place| Box::pin($($ask)+(connection, place)))
    };
}

/// The checklist. Line 40 is [`OVERALL`].
const LINES: &[Line] = &[
    line!(1, ORDER, "applied in the order 000 to 005, each rejected without its prerequisites", way::order),
    line!(2, ORDER, "the base tables exist: listings and settings", shape::base),
    line!(3, ORDER, "rows were backed up before the migrations", shape::backups),
    line!(4, ORDER, "001 created its six tables", shape::slice_a),
    line!(5, ORDER, "001 added listings.marketplace_id and renamed columns of listings", shape::listings_a),
    line!(6, ORDER, "002 created its four tables", shape::slice_b),
    line!(7, ORDER, "002 added status, fulfillment_channel and category to listings", shape::listings_b),
    line!(8, ORDER, "003 created its five tables", shape::slice_c),
    line!(9, ORDER, "003 added the reference of boms to ASINs, and listings.asin", shape::changed_c),
    line!(10, ORDER, "004 created its two tables", shape::slice_d),
    line!(11, ORDER, "the same six files were applied, one by one or all at once", shape::same_files),
    line!(12, ORDER, "a second run changes nothing", way::repeated),
    line!(13, VERSIONING, "boms_listing_active_unique", shape::listing_active),
    line!(14, ONE_ACTIVE, "a second active BOM of a listing is rejected", deeds::second_active),
    line!(15, VERSIONING, "boms_version_unique", deeds::version),
    line!(16, VERSIONING, "boms_asin_active_unique", deeds::scenario),
    line!(17, JOBS, "jobs has its 19 columns", shape::jobs),
    line!(18, JOBS, "job_type", shape::job_type),
    line!(19, JOBS, "job_status", shape::job_status),
    line!(20, EVENTS, "listing_events and listing_event_type", shape::listing_events),
    line!(21, EVENTS, "recommendation_events and recommendation_event_type", shape::recommendation_events),
    line!(
        22,
        FEATURES,
        "feature_store has its 7 columns and feature_entity_type its two values",
        shape::features
    ),
    line!(23, FEATURES, "the newest features are found by idx_feature_store_computed", deeds::index_used),
    line!(24, JOBS, "jobs.asin_entity_id refers to an ASIN", deeds::job_of_an_asin),
    line!(25, RISKS, "the recommended checks: costs, margins, attempts", deeds::recommended),
    line!(26, RISKS, "every BOM has an owner", deeds::owners),
    line!(27, RISKS, "no features older than a day", deeds::stale),
    line!(28, RISKS, "indexes are valid", shape::indexes),
    line!(29, ROLLBACK, "004 can be rolled back", way::back_d),
    line!(30, ROLLBACK, "003 can be rolled back", way::back_c),
    line!(31, ROLLBACK, "002 can be rolled back", way::back_b),
    line!(32, ROLLBACK, "001 can be rolled back, listings and prices are kept", way::back_a),
    line!(33, ROLLBACK, "rollbacks go from 005 to 001, any other order is rejected", way::back_in_order),
    line!(34, ROLLBACK, "down and up again restores the schema", way::down_and_up),
    line!(35, ORDER, "tables in the schema", shape::count),
    line!(36, ORDER, "enum types in the schema", shape::enums),
    line!(37, ONE_ACTIVE, "no listing has two active BOMs", deeds::invariant),
    line!(38, RISKS, "references of boms, jobs and recommendations", shape::references),
    line!(39, ORDER, "settings seeded", shape::seeded),
];

/// Result of one line of the checklist.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
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
pub struct Verdict {
    /// The name of the row in the runbook.
    pub check: &'static str,
    /// `PASS` or `FAIL`.
    pub status: &'static str,
}

/// Results of all checks, and the verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// True if all checks passed.
    pub ok: bool,
    /// The schema of the tables.
    pub schema: String,
    /// Rows of `feature_store` with a margin outside -1..1. Such rows are allowed, since a loss is data. None if the
    /// view is missing.
    pub flagged_margins: Option<i64>,
    /// The results, one for each line of the checklist.
    pub checks: Vec<Check>,
    /// The runbook's table of verdicts.
    pub verdict: Vec<Verdict>,
}

/// Runs all checks.
///
/// # Errors
/// Returns an error if the database is not reachable. A check that fails with an error is a failed check.
pub async fn verify(connection: &mut PgConnection, place: &Place) -> anyhow::Result<Report> {
    let mut tx = connection.begin().await?;
    place.enter(&mut tx).await?;
    let patience = format!("set local lock_timeout = '{}'", PATIENCE);
    sqlx::raw_sql(AssertSqlSafe(patience)).execute(&mut *tx).await?;
    let mut checks = Vec::new();
    for Line(line, verdict, demand, ask) in LINES {
        let mut step = tx.begin().await?;
        let answer = ask(&mut step, place).await;
        step.rollback().await.context("could not roll back a check")?;
        let answer = answer.unwrap_or_else(|error| Answer::new(false, format!("{error:#}")));
        checks.push(Check { line: *line, verdict, demand, passed: answer.passed, evidence: answer.evidence });
    }
    let mut step = tx.begin().await?;
    let flagged_margins = deeds::flagged(&mut step).await.ok();
    step.rollback().await?;
    tx.rollback().await?;
    let word = |passed: bool| if passed { "PASS" } else { "FAIL" };
    let mut verdict = Vec::new();
    for name in VERDICTS {
        let mut of = checks.iter().filter(|check| check.verdict == name).peekable();
        let any = of.peek().is_some();
        verdict.push(Verdict { check: name, status: word(any && of.all(|check| check.passed)) });
    }
    let ok = verdict.iter().all(|row| row.status == "PASS");
    verdict.push(Verdict { check: OVERALL, status: word(ok) });
    Ok(Report { ok, schema: place.schema().to_owned(), flagged_margins, checks, verdict })
}

/// Executes a statement that must be rejected with this SQLSTATE, and by this constraint if one is given.
///
/// Returns `None` if it was, and otherwise what happened instead.
async fn refused(
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
        Err(sqlx::Error::Database(told))
            if told.code().as_deref() == Some(code)
                && (constraint.is_none() || told.constraint() == constraint) =>
        {
            Ok(None)
        }
        Err(sqlx::Error::Database(told)) => Ok(Some(format!("was rejected with another error: {told}"))),
        Err(error) => Err(error.into()),
    }
}

/// Executes statements that must succeed.
async fn done(connection: &mut PgConnection, statements: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// Returns the text that a query returns.
async fn text(connection: &mut PgConnection, query: String) -> anyhow::Result<Option<String>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?)
}

/// Returns an id below all ids of the table, so that no sequence is used.
async fn spare(connection: &mut PgConnection, table: &str) -> anyhow::Result<i32> {
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
        let lines: Vec<u8> = LINES.iter().map(|line| line.0).collect();
        assert_eq!(lines, (1..=39).collect::<Vec<_>>());
        assert!(VERDICTS.iter().all(|verdict| LINES.iter().any(|line| line.1 == *verdict)));
        assert!(LINES.iter().all(|line| VERDICTS.contains(&line.1)));
    }
}
