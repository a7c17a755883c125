//! Checks that try statements which must be rejected, and checks on the data. A check's changes are rolled back with
//! it.

use super::index_definition::describe_index;
use super::{CheckResult, execute_statements, expect_refusal, fetch_text, spare_id};
use crate::db::listing::ListingSchema;
use anyhow::Context;
use serde_json::Value;
use sqlx::PgConnection;

type ConstraintCheckResult = anyhow::Result<CheckResult>;

/// Inserts a listing. Returns its id.
async fn insert_listing(connection: &mut PgConnection) -> anyhow::Result<i32> {
    let id = spare_id(connection, "listings").await?;
    execute_statements(
        connection,
        format!("insert into listings (id, seller_sku) values ({id}, 'vinops verify {id}')"),
    )
    .await?;
    Ok(id)
}

/// Inserts an ASIN with a marketplace of its own. Returns the id of the ASIN.
async fn insert_asin(connection: &mut PgConnection) -> anyhow::Result<i32> {
    let id = spare_id(connection, "asin_entities").await?;
    let marketplace = spare_id(connection, "marketplaces").await?;
    execute_statements(
        connection,
        format!(
            "insert into marketplaces (id, amazon_marketplace_id, name, country_code)
             values ({marketplace}, 'V{marketplace}', 'verify', 'GB');
             insert into asin_entities (id, asin, marketplace_id) values ({id}, 'V{id}', {marketplace})"
        ),
    )
    .await?;
    Ok(id)
}

/// Returns the statement that inserts a BOM. `owner` is the column of the owner's id `of`, and decides the scope.
fn insert_bom_sql(id: i32, owner: &str, of: i32, version: i32, active: bool) -> String {
    let scope = if owner == "listing_id" { "LISTING" } else { "ASIN_SCENARIO" };
    format!(
        "insert into boms (id, {owner}, scope_type, version, is_active)
         values ({id}, {of}, '{scope}', {version}, {active})"
    )
}

pub async fn check_second_active(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let (of, id) = (insert_listing(connection).await?, spare_id(connection, "boms").await?);
    execute_statements(connection, insert_bom_sql(id, "listing_id", of, 1, true))
        .await
        .context("could not insert the first active BOM")?;
    let second = insert_bom_sql(id - 1, "listing_id", of, 2, true);
    let wrong = expect_refusal(connection, second, "23505", Some("boms_listing_active_unique")).await?;
    let wrong: Vec<_> = wrong.map(|said| format!("a second active BOM {said}")).into_iter().collect();
    Ok(CheckResult::from_faults(&wrong, "the first is accepted, the second is rejected by boms_listing_active_unique"))
}

pub async fn check_version(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let found = sqlx::query_scalar!(
        r#"-- verify: boms_version_unique
        select pg_get_constraintdef(oid) as "is!"
        from pg_constraint
        where conrelid = to_regclass('boms')
          and conname = 'boms_version_unique'"#
    )
    .fetch_optional(&mut *connection)
    .await?;
    let found = found.unwrap_or_else(|| "missing".to_owned());
    let mut wrong = Vec::new();
    if found != "UNIQUE (listing_id, version)" {
        wrong.push(format!("{found}; expected: UNIQUE (listing_id, version)"));
    }
    let (of, id) = (insert_listing(connection).await?, spare_id(connection, "boms").await?);
    execute_statements(connection, insert_bom_sql(id, "listing_id", of, 1, false)).await?;
    let again = insert_bom_sql(id - 1, "listing_id", of, 1, false);
    let said = expect_refusal(connection, again, "23505", Some("boms_version_unique")).await?;
    wrong.extend(said.map(|said| format!("a second BOM with the same version {said}")));
    Ok(CheckResult::from_faults(&wrong, format!("{found}; a second BOM with the same version is rejected")))
}

pub async fn check_scenario(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let found = describe_index(connection, "boms_asin_active_unique").await?;
    let right = "unique boms (asin_entity_id) \
                 where is_active and scope_type = 'asin_scenario' and asin_entity_id is not null";
    let mut wrong = Vec::new();
    if found != right {
        wrong.push(format!("{found}; expected: {right}"));
    }
    let (of, id) = (insert_asin(connection).await?, spare_id(connection, "boms").await?);
    execute_statements(connection, insert_bom_sql(id, "asin_entity_id", of, 1, true)).await?;
    let second = insert_bom_sql(id - 1, "asin_entity_id", of, 2, true);
    let said = expect_refusal(connection, second, "23505", Some("boms_asin_active_unique")).await?;
    wrong.extend(said.map(|said| format!("a second active scenario {said}")));
    Ok(CheckResult::from_faults(&wrong, format!("{found}; a second active scenario is rejected")))
}

pub async fn check_index_used(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    // with few rows a sequential scan is cheaper, which does not mean that the index is missing
    execute_statements(connection, "set local enable_seqscan = off; set local enable_sort = off".into()).await?;
    let plan: Value = sqlx::query_scalar(
        "-- verify: newest features
         explain (format json)
         select *
         from feature_store
         where entity_type = 'LISTING'
           and entity_id = 1
         order by computed_at desc
         limit 1",
    )
    .fetch_one(connection)
    .await?;
    let mut used = Vec::new();
    collect_index_names(&plan, &mut used);
    let passed = used == ["idx_feature_store_computed"];
    Ok(CheckResult::new(
        passed,
        format!("the plan uses {}", if used.is_empty() { "none".into() } else { used.join(", ") }),
    ))
}

/// Appends the names of the indexes that a plan uses.
fn collect_index_names(plan: &Value, used: &mut Vec<String>) {
    match plan {
        Value::Array(nodes) => nodes.iter().for_each(|node| collect_index_names(node, used)),
        Value::Object(node) => {
            used.extend(node.get("Index Name").and_then(Value::as_str).map(str::to_owned));
            node.values().for_each(|value| collect_index_names(value, used));
        }
        _ => {}
    }
}

pub async fn check_job_of_an_asin(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let found = sqlx::query_scalar!(
        r#"-- verify: jobs to ASINs
        select pg_get_constraintdef(oid) as "is!"
        from pg_constraint
        where conrelid = to_regclass('jobs')
          and conname = 'jobs_asin_entity_fk'"#
    )
    .fetch_optional(&mut *connection)
    .await?;
    let found = found.unwrap_or_else(|| "missing".to_owned());
    let right = "FOREIGN KEY (asin_entity_id) REFERENCES asin_entities(id) ON DELETE SET NULL";
    let mut wrong = Vec::new();
    if found != right {
        wrong.push(format!("{found}; expected: {right}"));
    }
    let (missing_id, id) = (spare_id(connection, "asin_entities").await?, spare_id(connection, "jobs").await?);
    let bogus = format!(
        "insert into jobs (id, job_type, scope_type, asin_entity_id)
         values ({id}, 'COMPUTE_FEATURES_ASIN', 'ASIN', {missing_id})"
    );
    let said = expect_refusal(connection, bogus, "23503", Some("jobs_asin_entity_fk")).await?;
    wrong.extend(said.map(|said| format!("a job of a missing ASIN {said}")));
    Ok(CheckResult::from_faults(&wrong, format!("{found}; a job of a missing ASIN is rejected")))
}

/// Returns the number of margins outside -1..1.
pub async fn count_flagged_margins(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("-- verify: flagged\nselect count(*) from flagged_margins").fetch_one(connection).await
}

pub async fn check_recommended(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let (feature, job) = (spare_id(connection, "feature_store").await?, spare_id(connection, "jobs").await?);
    let features = |json: &str| {
        format!(
            "insert into feature_store (id, entity_type, entity_id, features_json)
             values ({feature}, 'LISTING', 0, '{json}')"
        )
    };
    let mut wrong = Vec::new();
    let cost = features(r#"{"bom_cost_ex_vat": -0.01}"#);
    let said = expect_refusal(connection, cost, "23514", Some("feature_store_bom_cost_ck")).await?;
    wrong.extend(said.map(|said| format!("a negative bom_cost_ex_vat {said}")));
    let attempts = format!(
        "insert into jobs (id, job_type, attempts, max_attempts)
         values ({job}, 'SYNC_AMAZON_OFFER', 6, 5)"
    );
    let said = expect_refusal(connection, attempts, "23514", Some("jobs_attempts_ck")).await?;
    wrong.extend(said.map(|said| format!("a sixth attempt of five {said}")));
    let flagged = count_flagged_margins(connection).await?;
    // a loss is data: allowed, and flagged
    execute_statements(connection, features(r#"{"margin": -2.0, "bom_cost_ex_vat": 0}"#)).await?;
    let shown = format!("-- verify: flag\nselect margin::text from flagged_margins where id = {feature}");
    if fetch_text(connection, shown).await.ok().flatten().as_deref() != Some("-2.0") {
        wrong.push("a margin of -2.0 is not flagged by flagged_margins".to_owned());
    }
    let evidence = format!(
        "bom_cost_ex_vat < 0 and attempts > max_attempts are rejected; a margin outside -1..1 is flagged, not rejected, since \
         a loss is data: {flagged} flagged rows"
    );
    Ok(CheckResult::from_faults(&wrong, evidence))
}

pub async fn check_owners(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let mut wrong = Vec::new();
    let ownerless: i64 = sqlx::query_scalar(
        "-- verify: ownerless
         select count(*)
         from boms
         where listing_id is null
           and asin_entity_id is null",
    )
    .fetch_one(&mut *connection)
    .await?;
    if ownerless > 0 {
        wrong.push(format!("{ownerless} BOMs have no owner"));
    }
    let id = spare_id(connection, "boms").await?;
    let bare = format!("insert into boms (id, version) values ({id}, 1)");
    let said = expect_refusal(connection, bare, "23514", Some("boms_owner_ck")).await?;
    wrong.extend(said.map(|said| format!("a BOM without an owner {said}")));
    let orphans = fetch_text(
        connection,
        "-- verify: orphans
         select format(
           '%s features and %s recommendations refer to missing entities',
           (
             select count(*)
             from feature_store as f
             where case f.entity_type
               when 'LISTING' then not exists (select from listings where id = f.entity_id)
               else not exists (select from asin_entities where id = f.entity_id)
             end
           ),
           (
             select count(*)
             from recommendations as r
             where case r.entity_type
               when 'LISTING' then not exists (select from listings where id = r.entity_id)
               else not exists (select from asin_entities where id = r.entity_id)
             end
           )
         )"
        .into(),
    )
    .await?;
    let evidence = format!("no BOM without an owner, and boms_owner_ck rejects one; {}", orphans.unwrap_or_default());
    Ok(CheckResult::from_faults(&wrong, evidence))
}

pub async fn check_stale(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    let (entities, stale, oldest): (i64, i64, Option<String>) = sqlx::query_as(
        "-- verify: stale features
         select
           count(*),
           count(*) filter (where computed_at < now() at time zone 'UTC' - interval '24 hours'),
           to_char(min(computed_at), 'YYYY-MM-DD HH24:MI')
         from (
           select max(computed_at) as computed_at
           from feature_store
           group by entity_type, entity_id
         ) as entities",
    )
    .fetch_one(connection)
    .await?;
    let oldest = oldest.map(|at| format!(", the oldest of {at} UTC")).unwrap_or_default();
    let evidence = format!("of {entities} entities {stale} have features older than 24 h{oldest}");
    Ok(CheckResult::new(stale == 0, evidence))
}

pub async fn check_invariant(connection: &mut PgConnection, _: &ListingSchema) -> ConstraintCheckResult {
    // read the table and not the index that should exclude duplicates, since a damaged index would hide them
    execute_statements(
        connection,
        "set local enable_indexscan = off; set local enable_indexonlyscan = off; set local enable_bitmapscan = off"
            .into(),
    )
    .await?;
    let twice: Option<String> = sqlx::query_scalar(
        "-- verify: two active
         select string_agg(format('listing %s has %s', listing_id, active_count), ', ')
         from (
           select listing_id, count(*) as active_count
           from boms
           where is_active
             and scope_type = 'LISTING'
           group by listing_id
           having count(*) > 1
         ) as twice",
    )
    .fetch_one(connection)
    .await?;
    let wrong: Vec<_> = twice.into_iter().collect();
    Ok(CheckResult::from_faults(&wrong, "the query returns 0 rows"))
}
