//! Proof that the listing helper's schema is what its runbook demands: the runbook's own checks, line by line, on the live
//! database, and its verdict.
//!
//! `LINES` has one row for each line of the checklist. Each is asked by itself, in a savepoint of its own that is rolled
//! back whatever it says, within a transaction that is rolled back too: so a line that inserts, drops or migrates leaves
//! nothing, and one that fails breaks no other. Rows get explicit ids below every one that is there, since a sequence that
//! is drawn from is not put back by a rollback.
//!
//! `shape` reads the catalogue, `deeds` tries what must be refused, `way` walks the slices down and up again. **That last
//! one takes each table's strongest lock** for as long as a slice takes, tens of milliseconds where there are few listings; it
//! waits for a lock no longer than `PATIENCE`, so that it is always verify that gives way, and then its lines fail and say
//! so. Whoever asks must own the tables.

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

/// How long a line waits for a lock: shorter than the second after which PostgreSQL would look for a deadlock.
const PATIENCE: &str = "800ms";

/// The rows of the runbook's verdict, but for the last.
pub const VERDICTS: [&str; 8] = [ORDER, VERSIONING, ONE_ACTIVE, JOBS, EVENTS, FEATURES, ROLLBACK, RISKS];
const ORDER: &str = "Migration order documented";
const VERSIONING: &str = "BOM versioning constraints";
const ONE_ACTIVE: &str = "One-active-BOM invariant";
const JOBS: &str = "Jobs schema per SPEC";
const EVENTS: &str = "Events schema per SPEC";
const FEATURES: &str = "Feature store schema";
const ROLLBACK: &str = "Rollback procedures";
const RISKS: &str = "Schema risks identified";
/// The last row: line 40 of the checklist, which is the verdict itself.
pub const OVERALL: &str = "Overall";

/// What a line found: whether that is as it must be, and what it was.
pub struct Answer {
    passed: bool,
    evidence: String,
}

impl Answer {
    fn new(passed: bool, evidence: impl Into<String>) -> Answer {
        Answer { passed, evidence: evidence.into() }
    }

    /// Passes where nothing is wrong.
    fn of(wrong: &[String], evidence: impl Into<String>) -> Answer {
        match wrong {
            [] => Answer::new(true, evidence),
            wrong => Answer::new(false, wrong.join("; ")),
        }
    }
}

type Asked<'a> = BoxFuture<'a, anyhow::Result<Answer>>;

/// A line of the checklist: its number, its row of the verdict, what it demands, how it is asked.
struct Line(u8, &'static str, &'static str, for<'a> fn(&'a mut PgConnection, &'a Place) -> Asked<'a>);

macro_rules! line {
    ($number:literal, $verdict:ident, $demand:literal, $($ask:tt)+) => {
        Line($number, $verdict, $demand, |connection, place| Box::pin($($ask)+(connection, place)))
    };
}

/// The checklist; its line 40 is [`OVERALL`].
const LINES: &[Line] = &[
    line!(1, ORDER, "applied in the order 000 to 005, each refused without its prerequisites", way::order),
    line!(2, ORDER, "the base is there: listings and settings", shape::base),
    line!(3, ORDER, "rows were backed up before they were migrated", shape::backups),
    line!(4, ORDER, "001 created its six tables", shape::slice_a),
    line!(5, ORDER, "001 gave listings its marketplace and its new names", shape::listings_a),
    line!(6, ORDER, "002 created its four tables", shape::slice_b),
    line!(7, ORDER, "002 gave listings status, fulfillment_channel and category", shape::listings_b),
    line!(8, ORDER, "003 created its five tables", shape::slice_c),
    line!(9, ORDER, "003 tied boms to ASINs and gave listings its asin", shape::changed_c),
    line!(10, ORDER, "004 created its two tables", shape::slice_d),
    line!(11, ORDER, "one by one or all at once: the same six files ran", shape::same_files),
    line!(12, ORDER, "a second run changes nothing", way::repeated),
    line!(13, VERSIONING, "boms_listing_active_unique", shape::listing_active),
    line!(14, ONE_ACTIVE, "a second active BOM of a listing is refused", deeds::second_active),
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
        "feature_store has its 7 columns and feature_entity_type its two words",
        shape::features
    ),
    line!(23, FEATURES, "the newest features are found by idx_feature_store_computed", deeds::index_used),
    line!(24, JOBS, "jobs.asin_entity_id refers to an ASIN", deeds::job_of_an_asin),
    line!(25, RISKS, "the recommended checks: costs, margins, attempts", deeds::recommended),
    line!(26, RISKS, "no BOM without its owner", deeds::owners),
    line!(27, RISKS, "no features older than a day", deeds::stale),
    line!(28, RISKS, "indexes are whole", shape::indexes),
    line!(29, ROLLBACK, "004 can be taken back", way::back_d),
    line!(30, ROLLBACK, "003 can be taken back", way::back_c),
    line!(31, ROLLBACK, "002 can be taken back", way::back_b),
    line!(32, ROLLBACK, "001 can be taken back, listings and prices stay", way::back_a),
    line!(33, ROLLBACK, "the way back goes 005 to 001, another order is refused", way::back_in_order),
    line!(34, ROLLBACK, "down and up again leads back", way::down_and_up),
    line!(35, ORDER, "tables in the schema", shape::count),
    line!(36, ORDER, "enum types in the schema", shape::enums),
    line!(37, ONE_ACTIVE, "no listing has two active BOMs", deeds::invariant),
    line!(38, RISKS, "references of boms, jobs and recommendations", shape::references),
    line!(39, ORDER, "settings seeded", shape::seeded),
];

/// One line of the proof.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Of the checklist.
    pub line: u8,
    /// Its row of the verdict.
    pub verdict: &'static str,
    /// What it demands.
    pub demand: &'static str,
    /// Whether that holds.
    pub passed: bool,
    /// What was found.
    pub evidence: String,
}

/// A row of the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What the runbook calls it.
    pub check: &'static str,
    /// `PASS` or `FAIL`.
    pub status: &'static str,
}

/// The proof and its verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Overall.
    pub ok: bool,
    /// Where the tables are.
    pub schema: String,
    /// Rows of `feature_store` with a margin outside -1..1, which are kept: a loss is data. None without their view.
    pub flagged_margins: Option<i64>,
    /// Line by line.
    pub checks: Vec<Check>,
    /// The runbook's table.
    pub verdict: Vec<Verdict>,
}

/// Asks every line. An error means that the database could not be asked at all.
pub async fn verify(connection: &mut PgConnection, place: &Place) -> anyhow::Result<Report> {
    let mut tx = connection.begin().await?;
    place.enter(&mut tx).await?;
    let patience = format!("set local lock_timeout = '{PATIENCE}'");
    sqlx::raw_sql(AssertSqlSafe(patience)).execute(&mut *tx).await?;
    let mut checks = Vec::new();
    for Line(line, verdict, demand, ask) in LINES {
        let mut step = tx.begin().await?;
        let answer = ask(&mut step, place).await;
        step.rollback().await.context("roll back a line's doings")?;
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

/// Runs a statement that must be refused with this code, and by this constraint if one is named; says what came instead.
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
        Err(sqlx::Error::Database(told)) => Ok(Some(format!("was refused otherwise: {told}"))),
        Err(error) => Err(error.into()),
    }
}

/// Runs statements that must work.
async fn done(connection: &mut PgConnection, statements: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await?;
    Ok(())
}

/// One text.
async fn text(connection: &mut PgConnection, query: String) -> anyhow::Result<Option<String>> {
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?)
}

/// An id below all that the table has, so that no sequence is drawn.
async fn spare(connection: &mut PgConnection, table: &str) -> anyhow::Result<i32> {
    let least = format!("-- verify: spare id\nselect least(min(id), 0)::bigint - 1 from {table}");
    let id: i64 = sqlx::query_scalar(AssertSqlSafe(least)).fetch_one(connection).await?;
    match i32::try_from(id) {
        // a few rows are made below it
        Ok(id) if id > i32::MIN + 100 => Ok(id),
        _ => bail!("{table} has no id left below {id}"),
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
