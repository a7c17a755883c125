//! Brings a database to the schema that this binary needs, and tells which one it has.
//!
//! **Each migration is one transaction** with its line in `vinops.migrations`, so a failure leaves the schema as the
//! one before left it. Every transaction first takes one advisory lock and then looks again: two `up` at once give
//! what one would. Inside, no statement waits longer than ten seconds for a lock on a table, since everybody else
//! queues behind a waiting `alter table`; the next `up` goes on where this one stopped.
//!
//! **An applied file is history.** Its hash is kept, and a file that was changed afterwards is refused: what it says
//! now was never run. The registry has a schema of its own, outside all data, so that no way back drops it; whoever
//! connects may read it, for that is how a worker knows that it meets the right schema.
//!
//! The statements here are not checked when compiling: they create what they would be checked against.

use super::encoding::expect_utf8;
use super::migrations::{AUCTION, Head, Migration, Set};
use super::{Db, seed};
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Connection, FromRow, PgConnection, PgTransaction};
use std::time::Instant;

/// The registry, whichever set.
pub(super) const REGISTRY: &str = "-- migrate: create registry
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

/// One line of `vinops.migrations`.
#[derive(Clone, Debug, FromRow, Serialize)]
pub struct Applied {
    /// "0008".
    pub id: String,
    /// "etl_schemas".
    pub name: String,
    /// Of the file that was run.
    pub sha256: String,
    /// When.
    pub applied_at: DateTime<Utc>,
    /// How long it took.
    pub execution_ms: i64,
    /// Adopted as already there, not run.
    pub baseline: bool,
}

/// How a migration stands in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is in.
    Applied,
    /// The next `up` applies it.
    Pending,
    /// Never applied; another took its place.
    Superseded,
    /// It is in, and its file says something else by now.
    Changed,
    /// It is in, and this binary does not know it: the database is newer.
    Unknown,
}

/// One line of `vinops migrate status`.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// "0008".
    pub id: String,
    /// "etl_schemas".
    pub name: String,
    /// How it stands.
    pub state: State,
    /// When and how, if it is in.
    pub applied: Option<Applied>,
}

/// Why a database is not the one that this binary needs. Ends a command with exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// No migration was ever applied.
    #[error("the database has no vinops schema: run `vinops migrate up`")]
    Missing,
    /// Older than the binary.
    #[error("the database's schema lacks {} (it is older than this binary): run `vinops migrate up`", .0.join(", "))]
    Behind(Vec<String>),
    /// Newer than the binary.
    #[error("the database's schema has {}, which this binary does not know: use the newer binary", .0.join(", "))]
    Ahead(Vec<String>),
    /// Same numbers, other text.
    #[error("the database applied another text of {} than this binary has: see `vinops migrate status`", .0.join(", "))]
    Changed(Vec<String>),
    /// It could not be asked.
    #[error("read the schema's version")]
    Unreachable(#[from] sqlx::Error),
}

/// Passes where the database has exactly the migrations of this binary; otherwise names the way out.
pub async fn expect_schema(db: &Db) -> Result<(), SchemaError> {
    let mut connection = db.pool.acquire().await?;
    let standings = status(&mut connection, &AUCTION).await?;
    let those = |state| -> Vec<String> {
        standings.iter().filter(|line| line.state == state).map(|line| line.id.clone()).collect()
    };
    if standings.iter().all(|line| line.applied.is_none()) {
        return Err(SchemaError::Missing);
    }
    for (state, error) in [
        (State::Pending, SchemaError::Behind as fn(Vec<String>) -> SchemaError),
        (State::Unknown, SchemaError::Ahead),
        (State::Changed, SchemaError::Changed),
    ] {
        match those(state) {
            found if found.is_empty() => {}
            found => return Err(error(found)),
        }
    }
    Ok(())
}

/// How each migration of `set`, and each that only the database knows, stands.
pub async fn status(connection: &mut PgConnection, set: &Set) -> sqlx::Result<Vec<Standing>> {
    let mut applied = applied(connection, set).await?;
    let mut standings: Vec<Standing> = set
        .migrations
        .iter()
        .map(|migration| {
            let line = applied.iter().position(|line| line.id == migration.id).map(|at| applied.remove(at));
            let state = match &line {
                Some(line) if line.sha256 != migration.sha256() => State::Changed,
                Some(_) => State::Applied,
                None if migration.down.is_none() => State::Superseded,
                None => State::Pending,
            };
            Standing { id: migration.id.to_owned(), name: migration.name.to_owned(), state, applied: line }
        })
        .collect();
    standings.extend(applied.into_iter().map(|line| Standing {
        id: line.id.clone(),
        name: line.name.clone(),
        state: State::Unknown,
        applied: Some(line),
    }));
    Ok(standings)
}

/// Applies what is missing, in order, then writes the rows of [`seed`]. `tell` hears of each migration as it is in.
pub async fn up(
    connection: &mut PgConnection,
    set: &Set,
    mut tell: impl FnMut(&Applied),
) -> anyhow::Result<Vec<Applied>> {
    expect_utf8(connection).await?;
    create_registry(connection).await?;
    refuse_strange_history(connection, set).await?;
    let mut done = Vec::new();
    for migration in set.active() {
        let stem = migration.stem();
        if let Some(line) =
            apply(connection, set, migration).await.with_context(|| format!("apply {stem}"))?
        {
            tell(&line);
            done.push(line);
        }
    }
    seed::apply(connection).await.context("write the rows that come with the program")?;
    Ok(done)
}

/// Takes back everything after `to` ("0000" for everything). Refuses to lose rows unless `destructive`.
pub async fn down(
    connection: &mut PgConnection,
    set: &Set,
    to: &str,
    destructive: bool,
    mut tell: impl FnMut(&Migration),
) -> anyhow::Result<()> {
    if to != "0000" && set.active().all(|migration| migration.id != to) {
        bail!("there is no migration {to} to go back to");
    }
    let applied = applied(connection, set).await?;
    let mut back = Vec::new();
    for line in applied.iter().rev().filter(|line| line.id.as_str() > to) {
        let known = set.active().find(|migration| migration.id == line.id);
        back.push(
            known.with_context(|| format!("{} is unknown to this binary: use the newer one", line.id))?,
        );
    }
    let losing = back.iter().filter_map(|migration| match migration.head() {
        Ok(Head { destructive: true, .. }) => Some(Ok(migration.stem())),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    let losing = losing.collect::<anyhow::Result<Vec<_>>>()?;
    if !losing.is_empty() && !destructive {
        bail!("going back loses the rows of {}: nothing was done; --destructive does it", losing.join(", "));
    }
    for migration in back {
        let stem = migration.stem();
        retreat(connection, set, migration).await.with_context(|| format!("take back {stem}"))?;
        tell(migration);
    }
    Ok(())
}

/// Adopts a database that already has everything up to `at`: writes the lines, runs nothing.
pub async fn baseline(connection: &mut PgConnection, set: &Set, at: &str) -> anyhow::Result<Vec<Applied>> {
    if set.active().all(|migration| migration.id != at) {
        bail!("there is no migration {at}");
    }
    expect_utf8(connection).await?;
    create_registry(connection).await?;
    let mut tx = locked(connection).await?;
    if !applied(&mut tx, set).await?.is_empty() {
        bail!("this database has applied migrations already: see `vinops migrate status`");
    }
    let tables: bool = sqlx::query_scalar(
        "-- migrate: adoptable
         select to_regclass('public.vehicles') is not null and to_regclass('public.lots') is not null",
    )
    .fetch_one(&mut *tx)
    .await?;
    if !tables {
        bail!("this database has no vehicles and lots to adopt: `vinops migrate up` creates them");
    }
    let mut lines = Vec::new();
    for migration in set.active().filter(|migration| migration.id <= at) {
        lines.push(record(&mut tx, set, migration, 0, true).await?);
    }
    tx.commit().await?;
    Ok(lines)
}

/// One transaction at a time in all of the database, for everything that changes the schema.
pub(super) async fn locked(connection: &mut PgConnection) -> sqlx::Result<PgTransaction<'_>> {
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
    let mut tx = locked(connection).await?;
    sqlx::raw_sql(REGISTRY).execute(&mut *tx).await.context("create vinops.migrations")?;
    tx.commit().await?;
    Ok(())
}

pub(super) async fn applied(connection: &mut PgConnection, set: &Set) -> sqlx::Result<Vec<Applied>> {
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

pub(super) async fn refuse_strange_history(connection: &mut PgConnection, set: &Set) -> anyhow::Result<()> {
    for line in status(connection, set).await? {
        match line.state {
            State::Changed => bail!(
                "{}_{} was changed after it was applied here: give the file its old text back, and put the change \
                 into a new migration",
                line.id,
                line.name
            ),
            State::Unknown => bail!(
                "this database has {}_{}, which this binary does not know: use the newer binary",
                line.id,
                line.name
            ),
            State::Applied | State::Pending | State::Superseded => {}
        }
    }
    Ok(())
}

/// Applies one migration; none if it was there already.
async fn apply(
    connection: &mut PgConnection,
    set: &Set,
    migration: &'static Migration,
) -> anyhow::Result<Option<Applied>> {
    let begun = Instant::now();
    let mut tx = locked(connection).await?;
    let there = applied(&mut tx, set).await?;
    if there.iter().any(|line| line.id == migration.id) {
        return Ok(None);
    }
    if let Some(needed) = migration.head()?.depends
        && there.iter().all(|line| line.id != needed)
    {
        bail!("it depends on {needed}, which is not applied");
    }
    sqlx::raw_sql(migration.up).execute(&mut *tx).await?;
    let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let line = record(&mut tx, set, migration, took, false).await?;
    tx.commit().await?;
    Ok(Some(line))
}

async fn retreat(
    connection: &mut PgConnection,
    set: &Set,
    migration: &'static Migration,
) -> anyhow::Result<()> {
    let mut tx = locked(connection).await?;
    sqlx::raw_sql(migration.down.context("it has no rollback file")?).execute(&mut *tx).await?;
    forget(&mut tx, set, migration).await?;
    tx.commit().await?;
    Ok(())
}

/// Takes a migration's line off the registry.
pub(super) async fn forget(tx: &mut PgConnection, set: &Set, migration: &Migration) -> sqlx::Result<()> {
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

pub(super) async fn record(
    tx: &mut PgTransaction<'_>,
    set: &Set,
    migration: &Migration,
    execution_ms: i64,
    baseline: bool,
) -> sqlx::Result<Applied> {
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
