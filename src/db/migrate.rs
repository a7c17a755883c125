//! Applies the migrations that this program needs to a database, and compares what a database has with what the program
//! needs.
//!
//! **Each migration is one transaction**, together with its row in `vinops.migrations`. So a failure leaves the schema
//! of the migration before. Each transaction first takes an advisory lock and then reads the registry again, so two
//! concurrent `up` have the effect of one. No statement in the transaction waits longer than ten seconds for a lock on
//! a table, since all other transactions queue behind a waiting `alter table`. After such a timeout the next `up`
//! continues with the same migration.
//!
//! **An applied file must not change.** The registry contains the hash of each applied file, and a changed file is
//! rejected, since its present text was never executed. The registry is in a schema of its own without other data, so
//! that no rollback drops it. Every role may read the registry, since that is how a worker checks that the schema is
//! the right one.
//!
//! The statements here are not checked at compile time, since they create the tables that they would be checked
//! against.
//!
//! Long because applying, rolling back and adopting migrations share the lock, the registry and their errors.

use super::encoding::expect_utf8;
use super::migrations::{AUCTION_SET, Migration, MigrationHead, MigrationSet};
use super::{Database, seed};
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, FromRow, PgConnection, PgTransaction};
use std::time::Instant;

/// SQL that creates the registry of all migration sets.
pub(super) const CREATE_REGISTRY_SQL: &str = "-- migrate: create registry
         create schema if not exists vinops;
         create table if not exists vinops.migrations (
           set_name text not null,
           id text not null,
           name text not null,
           sha256 text not null,
           applied_at timestamptz not null default now(),
           execution_ms bigint not null,
           baseline boolean not null default false,
           constraint migrations_pkey primary key (set_name, id)
         );
         grant usage on schema vinops to public;
         grant select on vinops.migrations to public";

/// One row of `vinops.migrations`.
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct AppliedMigration {
    /// The number, such as "0008".
    pub id: String,
    /// The name after the number, such as "etl_schemas".
    pub name: String,
    /// SHA-256 of the file that was executed, in hex.
    pub sha256: String,
    /// Time at which the migration was applied.
    pub applied_at: DateTime<Utc>,
    /// Duration of the execution in milliseconds. 0 for an adopted migration.
    pub execution_ms: i64,
    /// True if the migration was adopted by `migrate baseline` and not executed.
    pub baseline: bool,
}

/// State of a migration in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationState {
    /// The migration is applied.
    Applied,
    /// The next `up` applies the migration.
    Pending,
    /// Another migration replaced this one, which is never applied.
    Superseded,
    /// The migration is applied, and its file has changed since.
    Changed,
    /// The migration is applied, and this program does not contain it. The database is newer than the program.
    Unknown,
}

/// One line of `vinops migrate status`.
#[derive(Clone, Debug, Serialize)]
pub struct MigrationStatus {
    /// The number, such as "0008".
    pub id: String,
    /// The name after the number, such as "etl_schemas".
    pub name: String,
    /// State of the migration in the database.
    pub state: MigrationState,
    /// The row of the registry. None if the migration is not applied.
    pub applied: Option<AppliedMigration>,
}

/// A schema that differs from the one this program needs. A command ends with exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No migration was ever applied.
    #[error("the database has no vinops schema\nhint: run `vinops migrate up`")]
    Missing,
    /// The schema is older than the program.
    #[error(
        "the database schema lacks migrations {}, since it is older than this program\nhint: run `vinops migrate up`",
        .0.join(", ")
    )]
    Behind(Vec<String>),
    /// The schema is newer than the program.
    #[error(
        "the database schema has migrations {}, which this program does not know\nhint: use the newer program",
        .0.join(", ")
    )]
    Ahead(Vec<String>),
    /// Files of applied migrations differ from those of the program.
    #[error(
        "the database applied other files of migrations {} than this program has\nhint: see `vinops migrate status`",
        .0.join(", ")
    )]
    Changed(Vec<String>),
    /// The database is not reachable, or its registry is not readable.
    #[error("could not read the version of the database schema")]
    Unreachable(#[from] sqlx::Error),
}

impl SchemaError {
    /// Returns the message without its hint, for an output that names a command of its own.
    pub fn message(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }
}

/// Checks that the database has exactly the migrations of this program.
///
/// # Errors
/// Returns the difference as a [`SchemaError`], or [`SchemaError::Unreachable`] if the registry cannot be read.
pub async fn expect_schema(db: &Database) -> Result<(), SchemaError> {
    let mut connection = db.pool.acquire().await?;
    let standings = migration_status(&mut connection, &AUCTION_SET).await?;
    let those = |state| -> Vec<String> {
        standings.iter().filter(|line| line.state == state).map(|line| line.id.clone()).collect()
    };
    if standings.iter().all(|line| line.applied.is_none()) {
        return Err(SchemaError::Missing);
    }
    for (state, error) in [
        (MigrationState::Pending, SchemaError::Behind as fn(Vec<String>) -> SchemaError),
        (MigrationState::Unknown, SchemaError::Ahead),
        (MigrationState::Changed, SchemaError::Changed),
    ] {
        match those(state) {
            found if found.is_empty() => {}
            found => return Err(error(found)),
        }
    }
    Ok(())
}

/// Returns the state of each migration of `set`, and of each migration that only the database contains.
pub async fn migration_status(connection: &mut PgConnection, set: &MigrationSet) -> sqlx::Result<Vec<MigrationStatus>> {
    let mut applied = applied_migrations(connection, set).await?;
    let mut standings: Vec<MigrationStatus> = set
        .migrations
        .iter()
        .map(|migration| {
            let line = applied.iter().position(|line| line.id == migration.id).map(|at| applied.remove(at));
            let state = match &line {
                Some(line) if line.sha256 != migration.sha256() => MigrationState::Changed,
                Some(_) => MigrationState::Applied,
                None if migration.down.is_none() => MigrationState::Superseded,
                None => MigrationState::Pending,
            };
            MigrationStatus { id: migration.id.to_owned(), name: migration.name.to_owned(), state, applied: line }
        })
        .collect();
    standings.extend(applied.into_iter().map(|line| MigrationStatus {
        id: line.id.clone(),
        name: line.name.clone(),
        state: MigrationState::Unknown,
        applied: Some(line),
    }));
    Ok(standings)
}

/// Applies the pending migrations in order, then writes the rows of [`seed`]. Calls `tell` after each migration.
///
/// # Errors
/// Returns an error if the encoding is not UTF8, if the registry differs from this program, or if a migration fails.
/// Migrations applied before the error stay applied.
pub async fn apply_pending(
    connection: &mut PgConnection,
    set: &MigrationSet,
    mut tell: impl FnMut(&AppliedMigration),
) -> anyhow::Result<Vec<AppliedMigration>> {
    expect_utf8(connection).await?;
    create_registry(connection).await?;
    expect_known_history(connection, set).await?;
    let mut done = Vec::new();
    for migration in set.active() {
        let stem = migration.stem();
        if let Some(line) = apply_migration(connection, set, migration)
            .await
            .with_context(|| format!("could not apply migration {stem}"))?
        {
            tell(&line);
            done.push(line);
        }
    }
    seed::apply_seeds(connection).await.context("could not write the seed rows")?;
    Ok(done)
}

/// Rolls back all migrations after `to` ("0000" for all of them). Calls `tell` after each migration.
///
/// # Errors
/// Returns an error if a rollback would delete data and `destructive` is false, if a migration is not known, or if a
/// rollback fails. Nothing is changed in the first two cases.
pub async fn rollback_to(
    connection: &mut PgConnection,
    set: &MigrationSet,
    to: &str,
    destructive: bool,
    mut tell: impl FnMut(&Migration),
) -> anyhow::Result<()> {
    if to != "0000" && set.active().all(|migration| migration.id != to) {
        bail!("unknown migration \"{to}\"\nhint: `vinops migrate status` lists the migrations");
    }
    let applied = applied_migrations(connection, set).await?;
    let mut back = Vec::new();
    for line in applied.iter().rev().filter(|line| line.id.as_str() > to) {
        let known = set.active().find(|migration| migration.id == line.id);
        back.push(known.with_context(|| {
            format!("unknown migration \"{}\" in the database\nhint: use the newer program", line.id)
        })?);
    }
    let losing = back.iter().filter_map(|migration| match migration.parse_head() {
        Ok(MigrationHead { destructive: true, .. }) => Some(Ok(migration.stem())),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    let losing = losing.collect::<anyhow::Result<Vec<_>>>()?;
    if !losing.is_empty() && !destructive {
        bail!(
            "rolling back would delete data of {}\ndetail: nothing was changed\nhint: pass --destructive to do it anyway",
            losing.join(", ")
        );
    }
    for migration in back {
        let stem = migration.stem();
        rollback_migration(connection, set, migration)
            .await
            .with_context(|| format!("could not roll back migration {stem}"))?;
        tell(migration);
    }
    Ok(())
}

/// Adopts a database that already has all objects up to migration `at`: writes the rows of the registry and executes
/// nothing.
///
/// # Errors
/// Returns an error if the database has applied migrations, or if the tables `vehicles` and `lots` are missing.
pub async fn adopt_baseline(
    connection: &mut PgConnection,
    set: &MigrationSet,
    at: &str,
) -> anyhow::Result<Vec<AppliedMigration>> {
    if set.active().all(|migration| migration.id != at) {
        bail!("unknown migration \"{at}\"\nhint: `vinops migrate status` lists the migrations");
    }
    expect_utf8(connection).await?;
    create_registry(connection).await?;
    let mut tx = begin_locked(connection).await?;
    if !applied_migrations(&mut tx, set).await?.is_empty() {
        bail!("the database has applied migrations already\nhint: see `vinops migrate status`");
    }
    let tables: bool = sqlx::query_scalar(
        "-- migrate: adoptable
         select to_regclass('public.vehicles') is not null and to_regclass('public.lots') is not null",
    )
    .fetch_one(&mut *tx)
    .await?;
    if !tables {
        bail!("the database has no tables vehicles and lots to adopt\nhint: `vinops migrate up` creates them");
    }
    let mut lines = Vec::new();
    for migration in set.active().filter(|migration| migration.id <= at) {
        lines.push(register_migration(&mut tx, set, migration, 0, true).await?);
    }
    tx.commit().await?;
    Ok(lines)
}

/// Begins a transaction that changes the schema. A lock allows one such transaction at a time in the database.
pub(super) async fn begin_locked(connection: &mut PgConnection) -> sqlx::Result<PgTransaction<'_>> {
    let mut tx = connection.begin().await?;
    sqlx::raw_sql(
        "-- migrate: lock
         select pg_advisory_xact_lock(hashtextextended('vinops.migrations', 0));
         set local lock_timeout = '10s'",
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx)
}

pub(super) async fn create_registry(connection: &mut PgConnection) -> anyhow::Result<()> {
    let mut tx = begin_locked(connection).await?;
    sqlx::raw_sql(CREATE_REGISTRY_SQL)
        .execute(&mut *tx)
        .await
        .context("could not create the table vinops.migrations")?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn applied_migrations(
    connection: &mut PgConnection,
    set: &MigrationSet,
) -> sqlx::Result<Vec<AppliedMigration>> {
    let registry: bool = sqlx::query_scalar(
        "-- migrate: registry there
         select to_regclass('vinops.migrations') is not null",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !registry {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "-- migrate: applied
         select id, name, sha256, applied_at, execution_ms, baseline
         from vinops.migrations
         where set_name = $1
         order by id",
    )
    .bind(set.name)
    .fetch_all(connection)
    .await
}

pub(super) async fn expect_known_history(connection: &mut PgConnection, set: &MigrationSet) -> anyhow::Result<()> {
    for line in migration_status(connection, set).await? {
        match line.state {
            MigrationState::Changed => bail!(
                "the file of migration {}_{} was changed after it was applied to this database\nhint: restore the file, \
                 and put the change into a new migration",
                line.id,
                line.name
            ),
            MigrationState::Unknown => bail!(
                "the database has migration {}_{}, which this program does not know\nhint: use the newer program",
                line.id,
                line.name
            ),
            MigrationState::Applied | MigrationState::Pending | MigrationState::Superseded => {}
        }
    }
    Ok(())
}

/// Applies one migration. Returns `None` if the migration was applied already.
async fn apply_migration(
    connection: &mut PgConnection,
    set: &MigrationSet,
    migration: &'static Migration,
) -> anyhow::Result<Option<AppliedMigration>> {
    let begun = Instant::now();
    let mut tx = begin_locked(connection).await?;
    let there = applied_migrations(&mut tx, set).await?;
    if there.iter().any(|line| line.id == migration.id) {
        return Ok(None);
    }
    if let Some(needed) = migration.parse_head()?.depends
        && there.iter().all(|line| line.id != needed)
    {
        bail!("the migration depends on {needed}, which is not applied");
    }
    sqlx::raw_sql(migration.up).execute(&mut *tx).await?;
    let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let line = register_migration(&mut tx, set, migration, took, false).await?;
    tx.commit().await?;
    Ok(Some(line))
}

async fn rollback_migration(
    connection: &mut PgConnection,
    set: &MigrationSet,
    migration: &'static Migration,
) -> anyhow::Result<()> {
    let mut tx = begin_locked(connection).await?;
    sqlx::raw_sql(migration.down.context("the migration has no rollback file")?).execute(&mut *tx).await?;
    unregister_migration(&mut tx, set, migration).await?;
    tx.commit().await?;
    Ok(())
}

/// Deletes the row of a migration from the registry.
pub(super) async fn unregister_migration(
    tx: &mut PgConnection,
    set: &MigrationSet,
    migration: &Migration,
) -> sqlx::Result<()> {
    sqlx::query(
        "-- migrate: forget
         delete from vinops.migrations
         where set_name = $1
           and id = $2",
    )
    .bind(set.name)
    .bind(migration.id)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn register_migration(
    tx: &mut PgTransaction<'_>,
    set: &MigrationSet,
    migration: &Migration,
    execution_ms: i64,
    baseline: bool,
) -> sqlx::Result<AppliedMigration> {
    sqlx::query_as(
        "-- migrate: record
         insert into vinops.migrations (set_name, id, name, sha256, execution_ms, baseline)
         values ($1, $2, $3, $4, $5, $6)
         returning id, name, sha256, applied_at, execution_ms, baseline",
    )
    .bind(set.name)
    .bind(migration.id)
    .bind(migration.name)
    .bind(migration.sha256())
    .bind(execution_ms)
    .bind(baseline)
    .fetch_one(&mut **tx)
    .await
}
