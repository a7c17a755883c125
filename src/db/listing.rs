//! Applies the listing helper's migrations, rolls them back, and records what they changed.
//!
//! Unlike the auction's files, these files name no schema. The operator chooses where the tables are: in schema
//! `listing` beside the auction's schemas, in another schema, or in a separate database. The first `up` records the
//! choice in `vinops.places`, so that later commands need no `--schema`. Each file runs with a search_path of that one
//! schema, and in UTC, since its timestamps have no time zone.
//!
//! **A slice is one transaction** of three steps. The first step checks that the objects exist which the slice needs.
//! They are looked up by name, since a registry does not contain what was dropped manually. The second step executes
//! the file. The third step writes the ledger. An error in any step leaves nothing.
//!
//! **The ledger contains what a slice really added.** A database that existed before may already have some of the
//! objects, or all of them. So the catalog is read before and after each file, and the difference is stored in
//! `vinops.added`, together with the objects found before. A rollback drops the objects that are in its list *and* in
//! the ledger. The ledger also contains the seeded value of each setting, so that an edited setting is recognized.
//! [`VERBATIM_ROLLBACKS`] contains the runbook's own rollbacks, which drop objects and cascade without that check.
//!
//! Statements on the set's own tables are not checked at compile time, since their schema is only known at run time.
//!
//! Long because applying, rolling back and recording a slice share one ledger and one order of steps.

use super::migrate::{self, AppliedMigration};
use super::migrations::{LISTING_SET, Migration};
use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgConnection, PgTransaction};
use std::time::Instant;

pub mod backup;
mod ledger;
pub mod verify;

pub use ledger::{
    SchemaObject, count_user_rows, missing_objects, read_settings, rollback_objects, schema_objects, slice_tables,
};
use ledger::{ledger_exists, record_object, record_schema, record_slice};

/// Default schema of the tables.
pub const DEFAULT_SCHEMA: &str = "listing";

/// The runbook's rollbacks, verbatim, by migration id.
pub const VERBATIM_ROLLBACKS: &[(&str, &str)] = &[
    ("001", include_str!("../../migrations/listing/rollback/001_literal.sql")),
    ("002", include_str!("../../migrations/listing/rollback/002_literal.sql")),
    ("003", include_str!("../../migrations/listing/rollback/003_literal.sql")),
    ("004", include_str!("../../migrations/listing/rollback/004_literal.sql")),
];

/// Schemas with another use.
const RESERVED_SCHEMAS: &[&str] = &["vinops", "raw", "staging", "audit", "taxonomies", "fleet", "information_schema"];

/// The schema of the listing helper's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingSchema {
    schema: String,
}

impl ListingSchema {
    /// Returns the schema of this name.
    ///
    /// # Errors
    /// Returns an error if the name is not plain lower case, or if the schema has another use.
    pub fn from_name(name: &str) -> anyhow::Result<ListingSchema> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            || !name.chars().all(plain)
            || name.len() > 63
        {
            bail!(
                "invalid schema name {name:?}\nhint: use lower-case letters, digits and _, such as {}",
                DEFAULT_SCHEMA
            );
        }
        if name.starts_with("pg_") || RESERVED_SCHEMAS.contains(&name) {
            bail!("schema {name} is reserved\nhint: use a schema of its own, such as {}", DEFAULT_SCHEMA);
        }
        Ok(ListingSchema { schema: name.to_owned() })
    }

    /// Returns the registered schema of this database, otherwise `wanted`, otherwise [`DEFAULT_SCHEMA`].
    ///
    /// # Errors
    /// Returns an error if the registered schema differs from `wanted`.
    pub async fn resolve_schema(
        connection: &mut PgConnection,
        wanted: Option<ListingSchema>,
    ) -> anyhow::Result<ListingSchema> {
        let there = ListingSchema::find_registered(connection).await?;
        match (there, wanted) {
            (Some(there), Some(wanted)) if there != wanted => bail!(
                "the listing helper of this database is in schema {}, not in schema {}\nhint: omit --schema, or use \
                 another database",
                there.schema,
                wanted.schema
            ),
            (Some(there), _) => Ok(there),
            (None, Some(wanted)) => Ok(wanted),
            (None, None) => ListingSchema::from_name(DEFAULT_SCHEMA),
        }
    }

    /// Returns the registered schema of this database, or `None` before the first `up`.
    pub async fn find_registered(connection: &mut PgConnection) -> anyhow::Result<Option<ListingSchema>> {
        if !ledger_exists(connection).await? {
            return Ok(None);
        }
        let schema: Option<String> = sqlx::query_scalar(
            "-- listing: place
             select schema_name
             from vinops.places
             where set_name = 'listing'",
        )
        .fetch_optional(connection)
        .await?;
        schema.map(|schema| ListingSchema::from_name(&schema)).transpose()
    }

    /// Returns the name, which needs no quotes.
    pub fn name(&self) -> &str {
        &self.schema
    }

    /// Sets the search_path to this schema, and the time zone to UTC, until the transaction ends.
    pub async fn set_search_path(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let schema = &self.schema;
        let enter = format!("set local search_path = {schema}; set local timezone = 'UTC'");
        sqlx::raw_sql(AssertSqlSafe(enter)).execute(connection).await.map(drop)
    }
}

/// Executes a migration in the caller's transaction, and records in the ledger what was added. The caller writes the
/// registry.
pub async fn apply_slice(
    tx: &mut PgConnection,
    place: &ListingSchema,
    migration: &'static Migration,
) -> anyhow::Result<()> {
    place.set_search_path(tx).await?;
    let lacking = missing_objects(tx, migration).await?;
    if !lacking.is_empty() {
        bail!("schema {} lacks {}\ndetail: nothing was changed", place.schema, lacking.join(", "));
    }
    let create = format!("create schema if not exists {}", place.schema);
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *tx).await?;
    let (before, seeded) = (schema_objects(tx, place).await?, read_settings(tx).await?);
    sqlx::raw_sql(migration.up).execute(&mut *tx).await.map_err(database_error)?;
    let (after, seeds) = (schema_objects(tx, place).await?, read_settings(tx).await?);
    record_slice(tx, migration, &before, &after).await?;
    for (key, value) in seeds.iter().filter(|(key, _)| !seeded.contains_key(*key)) {
        record_object(tx, migration, &format!("setting {key}"), value.as_ref()).await?;
    }
    if LISTING_SET.migrations.first().is_some_and(|first| first.id == migration.id) {
        let slices = slice_tables();
        let base = after.iter().filter_map(|it| it.thing.strip_prefix("table "));
        let base = i32::try_from(base.filter(|table| !slices.contains(table)).count())?;
        record_schema(tx, place, base).await?;
    }
    Ok(())
}

/// Rolls back a slice in the caller's transaction, by the ledger, or verbatim if `literal` is set. The caller writes
/// the registry.
pub async fn rollback_slice(
    tx: &mut PgConnection,
    place: &ListingSchema,
    migration: &'static Migration,
    literal: bool,
) -> anyhow::Result<()> {
    place.set_search_path(tx).await?;
    let letter = VERBATIM_ROLLBACKS.iter().find(|(id, _)| literal && *id == migration.id).map(|(_, text)| *text);
    let text = letter.or(migration.down).context("the migration has no rollback file")?;
    sqlx::raw_sql(text).execute(&mut *tx).await.map_err(database_error)?;
    // an edited setting belongs to the operator from now on, and an old column name may be needed later
    sqlx::query(
        "-- listing: forget
         delete from vinops.added
         where set_name = 'listing'
           and id = $1
           and thing not like 'renamed %'",
    )
    .bind(migration.id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Converts a database error to its message, with detail and hint on lines of their own. The detail names the view or
/// the rows that prevented a change.
fn database_error(error: sqlx::Error) -> anyhow::Error {
    let Some(said) = error.as_database_error().and_then(|it| it.try_downcast_ref::<PgDatabaseError>()) else {
        return error.into();
    };
    let mut message = said.message().to_owned();
    for (label, more) in [("detail", said.detail()), ("hint", said.hint())] {
        let Some(more) = more else { continue };
        // a hint to cascade would be wrong here
        if !more.contains("CASCADE") {
            message += &format!("\n{label}: {}", more.replace('\n', "; "));
        }
    }
    anyhow!(message)
}

/// Returns the migrations that the next `up` applies, at most up to `to`.
///
/// # Errors
/// Returns an error if the registry differs from this program, or if an object is missing that the first migration
/// needs.
pub async fn pending_migrations(
    connection: &mut PgConnection,
    place: &ListingSchema,
    to: Option<&str>,
) -> anyhow::Result<Vec<&'static Migration>> {
    expect_known_id(to)?;
    migrate::expect_known_history(connection, &LISTING_SET).await?;
    let applied = migrate::applied_migrations(connection, &LISTING_SET).await?;
    let missing = |migration: &&Migration| applied.iter().all(|line| line.id != migration.id);
    let wanted = LISTING_SET.active().filter(|migration| to.is_none_or(|to| migration.id <= to));
    let pending: Vec<_> = wanted.filter(missing).collect();
    if let Some(first) = pending.first() {
        let mut tx = migrate::begin_locked(connection).await?;
        place.set_search_path(&mut tx).await?;
        let lacking = missing_objects(&mut tx, first).await?;
        if !lacking.is_empty() {
            bail!(
                "could not apply migration {}: schema {} lacks {}\ndetail: nothing was changed",
                first.stem(),
                place.schema,
                lacking.join(", ")
            );
        }
        // the schema public belongs to the auction if the auction's tables are there
        let auction: bool =
            sqlx::query_scalar("select to_regclass('public.vehicles') is not null").fetch_one(&mut *tx).await?;
        if place.schema == "public" && auction {
            bail!(
                "schema public of this database belongs to the auction\nhint: omit --schema, or use another database"
            );
        }
        tx.rollback().await?;
    }
    Ok(pending)
}

fn expect_known_id(to: Option<&str>) -> anyhow::Result<()> {
    match to {
        Some(to) if LISTING_SET.active().all(|migration| migration.id != to) => {
            let ids: Vec<_> = LISTING_SET.active().map(|migration| migration.id).collect();
            bail!("unknown migration \"{to}\"; expected one of {}", ids.join(", "))
        }
        _ => Ok(()),
    }
}

/// Creates the registry and the ledger if they are missing.
pub async fn create_ledger(connection: &mut PgConnection) -> anyhow::Result<()> {
    migrate::create_registry(connection).await?;
    let mut tx = migrate::begin_locked(connection).await?;
    sqlx::raw_sql(include_str!("listing/ledger.sql")).execute(&mut *tx).await.context("could not create the ledger")?;
    tx.commit().await?;
    Ok(())
}

/// Applies the pending migrations up to `to`, in order. Calls `tell` after each. Returns the number of applied
/// migrations.
pub async fn apply_pending(
    connection: &mut PgConnection,
    place: &ListingSchema,
    to: Option<&str>,
    mut tell: impl FnMut(&AppliedMigration),
) -> anyhow::Result<usize> {
    super::encoding::expect_utf8(connection).await?;
    create_ledger(connection).await?;
    let pending = pending_migrations(connection, place, to).await?;
    let mut done = 0;
    for migration in pending {
        let stem = migration.stem();
        if let Some(line) = apply_next(connection, place, migration)
            .await
            .with_context(|| format!("could not apply migration {stem}"))?
        {
            tell(&line);
            done += 1;
        }
    }
    Ok(done)
}

async fn apply_next(
    connection: &mut PgConnection,
    place: &ListingSchema,
    migration: &'static Migration,
) -> anyhow::Result<Option<AppliedMigration>> {
    let begun = Instant::now();
    let mut tx = migrate::begin_locked(connection).await?;
    let there = migrate::applied_migrations(&mut tx, &LISTING_SET).await?;
    if there.iter().any(|line| line.id == migration.id) {
        return Ok(None);
    }
    if let Some(needed) = migration.parse_head()?.depends
        && there.iter().all(|line| line.id != needed)
    {
        bail!("the migration depends on {needed}, which is not applied");
    }
    apply_slice(&mut tx, place, migration).await?;
    let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let line = migrate::register_migration(&mut tx, &LISTING_SET, migration, took, false).await?;
    tx.commit().await?;
    Ok(Some(line))
}

/// Returns the migrations that a `down` to `to` rolls back, the newest first. Without `to` that is the newest only.
pub async fn planned_rollbacks(
    connection: &mut PgConnection,
    to: Option<&str>,
) -> anyhow::Result<Vec<&'static Migration>> {
    expect_known_id(to)?;
    migrate::expect_known_history(connection, &LISTING_SET).await?;
    let applied = migrate::applied_migrations(connection, &LISTING_SET).await?;
    let back = LISTING_SET.active().filter(|migration| applied.iter().any(|line| line.id == migration.id));
    let mut back: Vec<_> = back.skip_while(|migration| to.is_some_and(|to| migration.id <= to)).collect();
    back.reverse();
    if to.is_none() {
        back.truncate(1);
    }
    if back.last().is_some_and(|last| last.id == "000") {
        bail!("migration 000 cannot be rolled back, since its tables contain the listings and settings");
    }
    Ok(back)
}

/// Rolls back the migrations of [`planned_rollbacks`], each in its own transaction. Calls `tell` after each. Returns
/// their number.
pub async fn rollback_to(
    connection: &mut PgConnection,
    place: &ListingSchema,
    to: Option<&str>,
    literal: bool,
    mut tell: impl FnMut(&Migration),
) -> anyhow::Result<usize> {
    let back = planned_rollbacks(connection, to).await?;
    if !back.is_empty() {
        create_ledger(connection).await?;
    }
    for migration in &back {
        let stem = migration.stem();
        let step = async {
            let mut tx: PgTransaction<'_> = migrate::begin_locked(connection).await?;
            expect_rollback_order(&mut tx, migration).await?;
            rollback_slice(&mut tx, place, migration, literal).await?;
            migrate::unregister_migration(&mut tx, &LISTING_SET, migration).await?;
            tx.commit().await?;
            anyhow::Ok(())
        };
        step.await.with_context(|| format!("could not roll back migration {stem}"))?;
        tell(migration);
    }
    Ok(back.len())
}

/// Returns an error unless the migration is the newest one, and no object of a newer slice is left, registered or not.
pub async fn expect_rollback_order(tx: &mut PgConnection, migration: &Migration) -> anyhow::Result<()> {
    let applied = migrate::applied_migrations(tx, &LISTING_SET).await?;
    let ours = LISTING_SET.active().take(applied.len()).map(|migration| migration.id);
    if !ours.eq(applied.iter().map(|line| line.id.as_str())) {
        let there: Vec<_> = applied.iter().map(|line| line.id.as_str()).collect();
        bail!("the registry of migrations has a gap\ndetail: it contains {}", there.join(", "));
    }
    if let Some(newest) = applied.last()
        && newest.id != migration.id
    {
        bail!("migration {} must be rolled back first", newest.id);
    }
    let left: Option<String> = sqlx::query_scalar(
        "-- listing: left by a newer slice
         select string_agg(id || ' ' || thing, ', ' order by id, thing)
         from vinops.added
         where set_name = 'listing'
           and id > $1
           and thing not like 'renamed %'",
    )
    .bind(migration.id)
    .fetch_one(tx)
    .await?;
    match left {
        Some(left) => bail!("the ledger still has {left}\nhint: roll back the newer slice first"),
        None => Ok(()),
    }
}

/// Renames the columns back that 001 renamed. Returns one line of text for each column.
pub async fn restore_column_names(connection: &mut PgConnection, place: &ListingSchema) -> anyhow::Result<Vec<String>> {
    let mut tx = migrate::begin_locked(connection).await?;
    place.set_search_path(&mut tx).await?;
    let renamed: Vec<(String, String)> = sqlx::query_as(
        "-- listing: old names
         delete from vinops.added
         where set_name = 'listing'
           and thing like 'renamed %'
         returning substr(thing, length('renamed ') + 1), detail #>> '{}'",
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut actions = Vec::new();
    for (was, is) in renamed {
        let (table, old) = was.split_once('.').context("a renamed column in the ledger has no table")?;
        let rename = format!("alter table {table} rename column {is} to {old}");
        sqlx::raw_sql(AssertSqlSafe(rename))
            .execute(&mut *tx)
            .await
            .with_context(|| format!("could not rename column {table}.{is} to {old}"))?;
        actions.push(format!("renamed column {table}.{is} to {old}"));
    }
    tx.commit().await?;
    Ok(actions)
}
