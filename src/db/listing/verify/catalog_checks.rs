//! Checks that read the catalog, the registry and the settings.

use super::index_definition::describe_index;
use super::{CheckResult, expected};
use crate::db::listing::{self, ListingSchema};
use crate::db::migrations::LISTING_SET;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use std::collections::BTreeSet;

type CatalogCheckResult = anyhow::Result<CheckResult>;

/// Returns the columns of a table as `name type`, in order. Empty if it is no ordinary table.
async fn table_columns(connection: &mut PgConnection, table: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"-- verify: columns
        select a.attname || ' ' || format_type(a.atttypid, a.atttypmod) as "column!"
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.oid = to_regclass($1)
          and c.relkind in ('r', 'p')
        order by a.attnum"#,
        table
    )
    .fetch_all(connection)
    .await
}

async fn check_slice(connection: &mut PgConnection, slice: &str) -> CatalogCheckResult {
    let (mut wrong, mut evidence) = (Vec::new(), Vec::new());
    for (table, wanted) in expected::expected_columns(slice) {
        let has = table_columns(connection, table).await?;
        if has.is_empty() {
            wrong.push(format!("table {table} is missing"));
            continue;
        }
        // additional columns are allowed
        let lacking: Vec<_> = wanted.iter().filter(|column| !has.iter().any(|it| it == **column)).copied().collect();
        if !lacking.is_empty() {
            wrong.push(format!("{table} lacks {}", lacking.join(", ")));
        }
        evidence.push(format!("{table} ({} columns)", has.len()));
    }
    // the columns of these two are checked by other lines
    for table in match slice {
        "002" => ["jobs"].as_slice(),
        "003" => ["feature_store"].as_slice(),
        _ => &[],
    } {
        match table_columns(connection, table).await?.len() {
            0 => wrong.push(format!("table {table} is missing")),
            n => evidence.push(format!("{table} ({n} columns)")),
        }
    }
    Ok(CheckResult::from_faults(&wrong, evidence.join(", ")))
}

pub async fn check_slice_a(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    check_slice(connection, "001").await
}

pub async fn check_slice_b(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    check_slice(connection, "002").await
}

pub async fn check_slice_c(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    check_slice(connection, "003").await
}

pub async fn check_slice_d(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    check_slice(connection, "004").await
}

pub async fn check_base(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let mut wrong = Vec::new();
    for (table, wanted) in expected::expected_columns("base") {
        let has = table_columns(connection, table).await?;
        if has.is_empty() {
            wrong.push(format!("table {table} is missing"));
            continue;
        }
        let lacking = wanted.iter().filter(|name| !has.iter().any(|it| it.split(' ').next() == Some(**name)));
        wrong.extend(lacking.map(|name| format!("{table} lacks {name}")));
    }
    if wrong.is_empty() {
        let queries = "select 1 from listings limit 1; select 1 from settings limit 1";
        super::execute_statements(connection, queries.into()).await?;
    }
    Ok(CheckResult::from_faults(&wrong, "both tables are readable"))
}

pub async fn check_backups(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    #[derive(FromRow)]
    struct BackupRow {
        before: String,
        row_count: i64,
        path: Option<String>,
        waived_by: Option<String>,
    }
    let lines: Vec<BackupRow> = sqlx::query_as(
        "-- verify: backups
         select before, row_count, path, waived_by
         from vinops.backups
         where set_name = 'listing'
         order by taken_at",
    )
    .fetch_all(connection)
    .await?;
    let bare = |line: &&BackupRow| line.row_count > 0 && line.path.is_none() && line.waived_by.is_none();
    let mut wrong: Vec<_> = lines
        .iter()
        .filter(bare)
        .map(|line| format!("{} rows existed before {} without a backup", line.row_count, line.before))
        .collect();
    if lines.is_empty() {
        wrong.push("the rows that existed before the migrations are not recorded".to_owned());
    }
    let evidence = lines.iter().map(|line| match (&line.path, &line.waived_by) {
        (Some(path), _) => format!("before {}: {} rows in {path}", line.before, line.row_count),
        (None, Some(who)) => format!("before {}: waived by {who}", line.before),
        (None, None) => format!("before {}: no rows", line.before),
    });
    Ok(CheckResult::from_faults(&wrong, evidence.collect::<Vec<_>>().join("; ")))
}

async fn check_listings_columns(connection: &mut PgConnection, wanted: &[&str]) -> CatalogCheckResult {
    let has = table_columns(connection, "listings").await?;
    let lacking = wanted.iter().filter(|column| !has.iter().any(|it| it.starts_with(**column)));
    let wrong: Vec<_> = lacking.map(|column| format!("listings lacks {column}")).collect();
    Ok(CheckResult::from_faults(&wrong, format!("listings has {}", wanted.join(", "))))
}

pub async fn check_listings_a(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let wanted = [
        "marketplace_id integer",
        "price_inc_vat numeric(10,2)",
        "seller_sku character varying(100)",
        "available_quantity integer",
    ];
    let mut answer = check_listings_columns(connection, &wanted).await?;
    if answer.passed {
        let none: i64 = sqlx::query_scalar(
            "-- verify: without a marketplace
             select count(*)
             from listings
             where marketplace_id is null",
        )
        .fetch_one(connection)
        .await?;
        answer.evidence += &format!("; {none} listings without a marketplace");
    }
    Ok(answer)
}

pub async fn check_listings_b(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    // the lengths come from the base if it has these columns
    let wanted = ["status character varying", "fulfillment_channel character varying", "category character varying"];
    check_listings_columns(connection, &wanted).await
}

pub async fn check_changed_c(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let tie = sqlx::query_scalar!(
        r#"-- verify: boms to ASINs
        select pg_get_constraintdef(oid) || case when convalidated then '' else ' not valid' end as "tie!"
        from pg_constraint
        where conrelid = to_regclass('boms')
          and conname = 'boms_asin_entity_fk'"#
    )
    .fetch_optional(&mut *connection)
    .await?;
    let tie = tie.unwrap_or_else(|| "missing".to_owned());
    let answer = check_listings_columns(connection, &["asin character varying"]).await?;
    let right = "FOREIGN KEY (asin_entity_id) REFERENCES asin_entities(id) ON DELETE CASCADE";
    if tie != right {
        return Ok(CheckResult::new(false, format!("boms_asin_entity_fk: {tie}; expected: {right}")));
    }
    Ok(CheckResult::new(answer.passed, format!("{tie}; {}", answer.evidence)))
}

pub async fn check_same_files(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let lines: Vec<(String, String)> = sqlx::query_as(
        "-- verify: files
         select id, sha256
         from vinops.migrations
         where set_name = 'listing'
         order by id",
    )
    .fetch_all(connection)
    .await?;
    let other = lines.iter().filter(|(id, sha256)| {
        LISTING_SET.active().find(|migration| migration.id == id).is_none_or(|it| it.sha256() != *sha256)
    });
    let wrong: Vec<_> = other.map(|(id, _)| format!("{id} was applied from another file")).collect();
    let evidence = lines.iter().map(|(id, sha256)| format!("{id} {sha256:.8}"));
    Ok(CheckResult::from_faults(&wrong, evidence.collect::<Vec<_>>().join(", ")))
}

pub async fn check_listing_active(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let found = describe_index(connection, "boms_listing_active_unique").await?;
    let right = "unique boms (listing_id) where is_active and scope_type = 'listing'";
    Ok(CheckResult::new(found == right, found))
}

async fn compare_columns(connection: &mut PgConnection, table: &str) -> anyhow::Result<(bool, String)> {
    let names =
        |columns: &[&str]| columns.iter().filter_map(|column| column.split(' ').next()).collect::<Vec<_>>().join(", ");
    let has = table_columns(connection, table).await?;
    let has: Vec<&str> = has.iter().map(String::as_str).collect();
    let wanted: Vec<&str> =
        expected::expected_columns("exact").filter(|(name, _)| *name == table).flat_map(|it| it.1).collect();
    if has == wanted {
        return Ok((true, format!("{table} has {} columns: {}", has.len(), names(&has))));
    }
    Ok((false, format!("{table} has {}; expected: {}", has.join(", "), wanted.join(", "))))
}

async fn compare_enum(connection: &mut PgConnection, name: &str) -> CatalogCheckResult {
    let has = sqlx::query_scalar!(
        r#"-- verify: words of an enum
        select enumlabel::text as "word!"
        from pg_enum
        where enumtypid = to_regtype($1)
        order by enumsortorder"#,
        name
    )
    .fetch_all(connection)
    .await?;
    let wanted = expected::ENUM_TYPES.iter().find(|(known, _)| *known == name).map_or(&[] as &[&str], |it| it.1);
    let evidence = format!("{name} {{{}}}", has.join(","));
    if has == wanted {
        return Ok(CheckResult::new(true, evidence));
    }
    Ok(CheckResult::new(false, format!("{evidence}; expected: {{{}}}", wanted.join(","))))
}

/// Combines two results into one.
fn combine_results(one: (bool, String), other: CheckResult) -> CheckResult {
    CheckResult::new(one.0 && other.passed, format!("{}; {}", one.1, other.evidence))
}

pub async fn check_jobs(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let (passed, evidence) = compare_columns(connection, "jobs").await?;
    Ok(CheckResult::new(passed, evidence))
}

pub async fn check_job_type(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    compare_enum(connection, "job_type").await
}

pub async fn check_job_status(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    compare_enum(connection, "job_status").await
}

async fn count_columns(connection: &mut PgConnection, table: &str) -> anyhow::Result<(bool, String)> {
    let columns = table_columns(connection, table).await?.len();
    Ok((columns > 0, format!("{table} has {columns} columns")))
}

pub async fn check_listing_events(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let table = count_columns(connection, "listing_events").await?;
    Ok(combine_results(table, compare_enum(connection, "listing_event_type").await?))
}

pub async fn check_recommendation_events(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let table = count_columns(connection, "recommendation_events").await?;
    Ok(combine_results(table, compare_enum(connection, "recommendation_event_type").await?))
}

pub async fn check_features(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let table = compare_columns(connection, "feature_store").await?;
    Ok(combine_results(table, compare_enum(connection, "feature_entity_type").await?))
}

pub async fn check_indexes(connection: &mut PgConnection, place: &ListingSchema) -> CatalogCheckResult {
    let found = sqlx::query!(
        r#"-- verify: whole indexes
        select
          count(*) as "all!",
          string_agg(c.relname, ', ') filter (where not (i.indisvalid and i.indisready)) as broken
        from pg_index as i
        join pg_class as c on c.oid = i.indexrelid
        where c.relnamespace = to_regnamespace($1)"#,
        place.name()
    )
    .fetch_one(connection)
    .await?;
    let wrong: Vec<_> = found.broken.iter().map(|names| format!("not valid: {names}")).collect();
    let evidence = format!(
        "{} indexes, all valid; a slice builds its own in one transaction and takes its locks once: run it in a \
         maintenance window",
        found.all
    );
    Ok(CheckResult::from_faults(&wrong, evidence))
}

pub async fn check_table_count(connection: &mut PgConnection, place: &ListingSchema) -> CatalogCheckResult {
    let base: Option<i32> = sqlx::query_scalar(
        "-- verify: tables of the base
         select base_tables
         from vinops.places
         where set_name = 'listing'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let base = usize::try_from(base.unwrap_or(7))?;
    let things = listing::schema_objects(connection, place).await?;
    let has = things.iter().filter(|it| it.thing.starts_with("table ")).count();
    let mut total = base;
    let mut evidence = vec![format!("{base} of the base")];
    for (slice, tables) in expected::TABLE_COUNTS {
        total += tables;
        evidence.push(format!("{total} after {slice}"));
    }
    Ok(CheckResult::new(has == total, format!("{has} base tables; expected: {}", evidence.join(", "))))
}

pub async fn check_enums(connection: &mut PgConnection, place: &ListingSchema) -> CatalogCheckResult {
    let things = listing::schema_objects(connection, place).await?;
    let has: BTreeSet<&str> = things.iter().filter_map(|it| it.thing.strip_prefix("type ")).collect();
    let wanted: BTreeSet<&str> = expected::ENUM_TYPES.iter().map(|(name, _)| *name).collect();
    let mut wrong: Vec<_> = wanted.difference(&has).map(|name| format!("{name} is missing")).collect();
    wrong.extend(has.difference(&wanted).map(|name| format!("{name} is not one of the 11")));
    Ok(CheckResult::from_faults(
        &wrong,
        format!("{}: {}", has.len(), has.iter().copied().collect::<Vec<_>>().join(", ")),
    ))
}

pub async fn check_references(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let has = sqlx::query_scalar!(
        r#"-- verify: references
        select format('%s: %s to %s', conname, conrelid::regclass, confrelid::regclass) as "reference!"
        from pg_constraint
        where contype = 'f'
          and conrelid in (to_regclass('boms'), to_regclass('jobs'), to_regclass('recommendations'))
        order by conname"#
    )
    .fetch_all(connection)
    .await?;
    let absent = expected::FOREIGN_KEYS.iter().filter(|wanted| !has.iter().any(|it| it == **wanted));
    let mut wrong: Vec<_> = absent.map(|wanted| format!("missing: {wanted}")).collect();
    let more = has.iter().filter(|it| !expected::FOREIGN_KEYS.contains(&it.as_str()));
    wrong.extend(more.map(|it| format!("unexpected: {it}")));
    Ok(CheckResult::from_faults(&wrong, format!("{}: {}", has.len(), has.join(", "))))
}

pub async fn check_seeded(connection: &mut PgConnection, _: &ListingSchema) -> CatalogCheckResult {
    let has = listing::read_settings(connection).await?;
    let (mut wrong, mut edited) = (Vec::new(), Vec::new());
    for (key, seed) in expected::SEEDED_SETTINGS {
        let seed: Value = serde_json::from_str(seed)?;
        let same_kind =
            |value: &Value| (value.is_number(), value.is_boolean()) == (seed.is_number(), seed.is_boolean());
        match has.get(*key) {
            None => wrong.push(format!("{key} is missing")),
            Some(Some(value)) if *value == seed => {}
            Some(Some(value)) if same_kind(value) => edited.push(format!("{key} = {value}")),
            Some(value) => wrong.push(format!("{key} is {}", value.clone().unwrap_or_default())),
        }
    }
    let evidence = match edited.as_slice() {
        [] => format!("{} with their seeded values", expected::SEEDED_SETTINGS.len()),
        edited => format!("{}, edited: {}", expected::SEEDED_SETTINGS.len(), edited.join(", ")),
    };
    Ok(CheckResult::from_faults(&wrong, evidence))
}
