//! Checks that a database has the schema that documents, workers and readers rely on.
//!
//! The registry contains which migrations ran. This module checks which objects exist. The two differ if an index was
//! dropped manually, if an adopted database has objects of other definitions, or if a rollback failed halfway. So
//! nothing is derived from versions. `objects.txt` lists the expected objects by migration, `verify.sql` reads the
//! whole catalog once, and each line of the list becomes one [`SchemaCheck`]. A failed check contains what was found
//! instead. A few rules that the catalog does not contain (no orphan lots, no duplicate lot numbers, the normalization
//! of VINs) are checked on the data.
//!
//! The check only reads, as any role that may select, and takes no lock that blocks a worker. Additional objects are
//! not reported, since a database may have other users.
use anyhow::Context;
use serde::Serialize;
use sqlx::PgPool;
use std::collections::HashMap;

mod expression;

const EXPECTED_OBJECTS: &str = include_str!("objects.txt");

/// Result of one check.
#[derive(Debug, Clone, Serialize)]
pub struct SchemaCheck {
    /// Migration and position, such as `0002.07`, or the id of a rule, such as `TC-02.1`.
    pub id: String,
    /// The expected object, such as `column public.lots.vin`.
    pub object: String,
    /// True if the object exists and has the expected definition.
    pub passed: bool,
    /// The definition that was found. A failed check also contains the expected definition.
    pub evidence: String,
}

/// One object of the catalog, with its definition as PostgreSQL prints it.
struct CatalogObject {
    kind: String,
    name: String,
    words: String,
}

/// Checks every object of the list and every rule.
///
/// # Errors
/// Returns an error if the catalog cannot be read. A rule that fails with a database error is a failed check.
pub async fn verify_schema(pool: &PgPool) -> anyhow::Result<Vec<SchemaCheck>> {
    let found = read_catalog(pool).await.context("could not read the catalog")?;
    let mut checks = compare_objects(&found);
    checks.extend(check_rules(pool).await);
    Ok(checks)
}

async fn read_catalog(pool: &PgPool) -> sqlx::Result<HashMap<String, String>> {
    let mut tx = pool.begin().await?;
    // names outside the search_path are printed with their schema, so an empty path makes definitions equal for every
    // role
    sqlx::query!("set local search_path = ''").execute(&mut *tx).await?;
    let objects = sqlx::query_file_as!(CatalogObject, "src/db/verify.sql").fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    Ok(objects.into_iter().map(|o| (format!("{} {}", o.kind, o.name), o.words)).collect())
}

/// Compares the list of expected objects with the objects found.
fn compare_objects(found: &HashMap<String, String>) -> Vec<SchemaCheck> {
    let mut checks = Vec::new();
    let (mut migration, mut position) = ("", 0);
    for line in EXPECTED_OBJECTS.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            (migration, position) = (title.split('_').next().unwrap_or(title), 0);
            continue;
        }
        let mut fields = line.splitn(3, " | ");
        let (Some(kind), Some(name), Some(wanted)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        position += 1;
        let object = format!("{kind} {name}");
        let (passed, evidence) = match found.get(&object) {
            None => (false, format!("missing; expected: {wanted}")),
            Some(words) if kind == "view" && has_columns(words, wanted) => (true, words.clone()),
            // a dump and restore may change how an expression is printed, but not its meaning
            Some(words) if expression::is_equal(words, wanted) => (true, words.clone()),
            Some(words) => (false, format!("{words}; expected: {wanted}")),
        };
        checks.push(SchemaCheck { id: format!("{migration}.{position:02}"), object, passed, evidence });
    }
    checks
}

/// Returns true if a view has all expected columns. Additional columns do not break a reader.
fn has_columns(words: &str, wanted: &str) -> bool {
    wanted.split(", ").all(|column| words.split(", ").any(|has| has == column))
}

/// Result of a rule.
struct RuleResult {
    passed: bool,
    evidence: String,
}

/// Checks the rules on the data. A rule whose tables are missing fails with the database error as its evidence.
async fn check_rules(pool: &PgPool) -> Vec<SchemaCheck> {
    let once = sqlx::query_as!(
        RuleResult,
        r#"-- verify: lot numbers
        select
          count(*) = 0 as "passed!",
          count(*) || ' lot numbers occur more than once' as "evidence!"
        from (
          select
          from public.lots
          where lot_external_id is not null
          group by source, lot_external_id
          having count(*) > 1
        ) as repeated"#
    );
    let orphans = sqlx::query_as!(
        RuleResult,
        r#"-- verify: orphan lots
        select
          count(*) = 0 as "passed!",
          count(*) || ' lots without their vehicle' as "evidence!"
        from public.lots as l
        where not exists (select from public.vehicles as v where v.vin = l.vin)"#
    );
    let actions = sqlx::query_as!(
        RuleResult,
        r#"-- verify: references to vehicles
        select
          coalesce(bool_and(convalidated and confupdtype = 'c' and confdeltype = 'r'), false) as "passed!",
          coalesce(
            string_agg(format('%s: update %s, delete %s', conname, confupdtype, confdeltype), '; ' order by conname),
            'no table refers to vehicles'
          ) as "evidence!"
        from pg_constraint
        where contype = 'f'
          and confrelid = to_regclass('public.vehicles')"#
    );
    let normalised = sqlx::query_as!(
        RuleResult,
        r#"-- verify: normalize_vin
        select
          public.normalize_vin(' 1hgcm82633a0o43q5i ') = '1HGCM82633A0435' as "passed!",
          coalesce(public.normalize_vin(' 1hgcm82633a0o43q5i '), 'null') as "evidence!""#
    );
    vec![
        rule_check("TC-02.1", "lot numbers are unique", once.fetch_one(pool).await),
        rule_check("TC-02.2", "every lot has its vehicle", orphans.fetch_one(pool).await),
        rule_check(
            "TC-02.3",
            "references to vehicles cascade updates, restrict deletes",
            actions.fetch_one(pool).await,
        ),
        rule_check("VIN.1", "normalize_vin folds case before it drops I, O and Q", normalised.fetch_one(pool).await),
    ]
}

fn rule_check(id: &str, object: &str, answer: sqlx::Result<RuleResult>) -> SchemaCheck {
    let answer = answer.unwrap_or_else(|e| RuleResult { passed: false, evidence: e.to_string() });
    SchemaCheck { id: id.into(), object: format!("rule {object}"), passed: answer.passed, evidence: answer.evidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_read_and_stands_once() {
        let checks = compare_objects(&HashMap::new());
        let lines = EXPECTED_OBJECTS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).count();
        assert_eq!(checks.len(), lines);
        assert!(checks.iter().all(|c| !c.passed && c.evidence.starts_with("missing")));
        let ids: std::collections::HashSet<_> = checks.iter().map(|c| &c.id).collect();
        let objects: std::collections::HashSet<_> = checks.iter().map(|c| &c.object).collect();
        assert_eq!((ids.len(), objects.len()), (lines, lines));
    }

    #[test]
    fn a_view_may_have_more_columns_but_not_fewer() {
        assert!(has_columns("file_id, path, extra", "file_id, path"));
        assert!(!has_columns("file_id, pathology", "file_id, path"));
    }
}
