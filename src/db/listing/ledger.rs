//! The ledger `vinops.added`: the objects that each slice added, computed from the schema's objects before and after
//! the slice.

use super::ListingSchema;
use crate::db::migrations::{LISTING_SET, Migration};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::{BTreeMap, BTreeSet};

/// An object of the schema, by the name that the ledger uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaObject {
    /// Kind and name, such as `column listings.asin`.
    pub thing: String,
    /// The table that the object is part of. None for tables, views and types.
    pub owner: Option<String>,
    place: Option<i16>,
}

/// Returns all objects of the schema of the kinds that a slice can add.
pub async fn schema_objects(
    connection: &mut PgConnection,
    place: &ListingSchema,
) -> sqlx::Result<BTreeSet<SchemaObject>> {
    let things = sqlx::query_file_as!(SchemaObject, "src/db/listing/things.sql", place.name() as _);
    Ok(things.fetch_all(connection).await?.into_iter().collect())
}

/// Returns the settings. Empty if there is no table `settings`.
pub async fn read_settings(connection: &mut PgConnection) -> sqlx::Result<BTreeMap<String, Option<Value>>> {
    if !object_exists(connection, "table settings").await? {
        return Ok(BTreeMap::new());
    }
    let settings: Vec<(String, Option<Value>)> = sqlx::query_as(
        "-- listing: settings
         select key, value
         from settings",
    )
    .fetch_all(connection)
    .await?;
    Ok(settings.into_iter().collect())
}

/// Returns true if an object such as `table boms` or `column listings.asin` exists.
async fn object_exists(connection: &mut PgConnection, thing: &str) -> sqlx::Result<bool> {
    let (kind, name) = thing.split_once(' ').unwrap_or(("table", thing));
    let (table, column) = name.split_once('.').unwrap_or((name, ""));
    sqlx::query_scalar!(
        r#"-- listing: exists
        select case $1::text
          when 'type' then to_regtype($2::text) is not null
          when 'column' then exists (
            select
            from pg_attribute
            where attrelid = to_regclass($2::text)
              and attname = $3::text
              and not attisdropped
          )
          else to_regclass($2::text) is not null
        end as "there!""#,
        kind,
        table,
        column
    )
    .fetch_one(connection)
    .await
}

/// Returns the objects that a migration needs and that the schema lacks.
pub async fn missing_objects(connection: &mut PgConnection, migration: &Migration) -> anyhow::Result<Vec<String>> {
    let mut lacking = Vec::new();
    for thing in migration.parse_head()?.needs {
        if !object_exists(connection, &thing).await? {
            lacking.push(thing);
        }
    }
    Ok(lacking)
}

/// Returns the objects that a rollback file lists, in its order.
pub fn rollback_objects(migration: &'static Migration) -> Vec<&'static str> {
    let lines = migration.down.unwrap_or_default().lines().filter_map(|line| line.strip_prefix("  '"));
    lines.filter_map(|line| line.split('\'').next()).collect()
}

/// Returns the tables that slices create, which excludes those of the base.
pub fn slice_tables() -> BTreeSet<&'static str> {
    LISTING_SET.migrations.iter().flat_map(rollback_objects).filter_map(|thing| thing.strip_prefix("table ")).collect()
}

/// Records the objects that appeared, the columns that were renamed, and the objects of the rollback's list that
/// existed before.
pub(super) async fn record_slice(
    tx: &mut PgConnection,
    migration: &'static Migration,
    before: &BTreeSet<SchemaObject>,
    after: &BTreeSet<SchemaObject>,
) -> anyhow::Result<()> {
    let tables: BTreeSet<&str> = before.iter().filter_map(|it| it.thing.strip_prefix("table ")).collect();
    let columns: BTreeMap<(&str, i16), &str> = before
        .iter()
        .filter_map(|it| Some(((it.owner.as_deref()?, it.place?), it.thing.strip_prefix("column ")?)))
        .collect();
    for new in after.difference(before) {
        match &new.owner {
            // parts of a new table are dropped with the table
            Some(owner) if !tables.contains(owner.as_str()) => continue,
            Some(owner) => {
                if let Some(old) = new.place.and_then(|place| columns.get(&(owner.as_str(), place))) {
                    let name = new.thing.rsplit('.').next().unwrap_or_default();
                    record_object(tx, migration, &format!("renamed {old}"), Some(&Value::from(name))).await?;
                    continue;
                }
            }
            None => {}
        }
        record_object(tx, migration, &new.thing, None).await?;
    }
    let known: BTreeSet<&str> = before.iter().map(|it| it.thing.as_str()).collect();
    for thing in rollback_objects(migration).into_iter().filter(|thing| known.contains(thing)) {
        record_object(tx, migration, &format!("found {thing}"), None).await?;
    }
    Ok(())
}

/// Inserts a row into the ledger, unless the slice already has it.
pub(super) async fn record_object(
    tx: &mut PgConnection,
    migration: &Migration,
    thing: &str,
    detail: Option<&Value>,
) -> sqlx::Result<()> {
    sqlx::query(
        "-- listing: note
         insert into vinops.added (set_name, id, thing, detail)
         select 'listing', $1, $2, $3
         -- an object that a slice added before is not recorded as found when the slice is repeated
         where not exists (
           select
           from vinops.added
           where set_name = 'listing'
             and id = $1
             and 'found ' || thing = $2
         )
         on conflict do nothing",
    )
    .bind(migration.id)
    .bind(thing)
    .bind(detail)
    .execute(tx)
    .await
    .map(drop)
}

/// Records the schema of the tables, and the number of tables that the base has.
pub(super) async fn record_schema(tx: &mut PgConnection, place: &ListingSchema, base_tables: i32) -> sqlx::Result<()> {
    sqlx::query(
        "-- listing: record the schema
         insert into vinops.places (set_name, schema_name, base_tables)
         values ('listing', $1, $2)
         on conflict do nothing",
    )
    .bind(&place.schema)
    .bind(base_tables)
    .execute(tx)
    .await
    .map(drop)
}

/// Returns the number of rows that do not come from the migrations, in all tables of the schema or in `only` these.
pub async fn count_user_rows(
    connection: &mut PgConnection,
    place: &ListingSchema,
    only: Option<&BTreeSet<&str>>,
) -> anyhow::Result<i64> {
    let mut tx = super::migrate::begin_locked(connection).await?;
    place.set_search_path(&mut tx).await?;
    let mut rows = 0;
    for thing in schema_objects(&mut tx, place).await? {
        let Some(table) = thing.thing.strip_prefix("table ") else { continue };
        if only.is_some_and(|only| !only.contains(table)) {
            continue;
        }
        let theirs = match table {
            "marketplaces" => "where amazon_marketplace_id <> 'A1F83G8C2ARO7P'",
            "settings" if ledger_exists(&mut tx).await? => {
                "where not exists (
                   select
                   from vinops.added as a
                   where a.set_name = 'listing'
                     and a.thing = 'setting ' || settings.key
                     and a.detail is not distinct from settings.value
                 )"
            }
            _ => "",
        };
        let count = format!("-- listing: count rows\nselect count(*) from \"{table}\" {theirs}");
        rows += sqlx::query_scalar::<_, i64>(AssertSqlSafe(count)).fetch_one(&mut *tx).await?;
    }
    tx.rollback().await?;
    Ok(rows)
}

/// Returns true if the ledger exists.
pub(super) async fn ledger_exists(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select to_regclass('vinops.added') is not null").fetch_one(connection).await
}
