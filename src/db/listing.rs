//! How the listing helper's migrations are applied and taken back, and what is noted of it.
//!
//! Unlike the auction's, these files name no schema: their tables are where the operator wants them, in schema `listing`
//! beside the fleet's, in another, or in a database of their own. Where that is stands in `vinops.places` from the first
//! `up` on, so that nobody has to say it twice. Each file is run with a search_path of that one schema, in UTC, since its
//! timestamps have no zone.
//!
//! **A slice is one transaction**: what it needs is looked for first, by name, since a registry can't tell what somebody
//! dropped by hand; then the file; then the ledger. A failure anywhere leaves nothing.
//!
//! **The ledger says what a slice really added.** A database that was there before us may have some of it already, even
//! all. So the catalogue is read before and after each file, and the difference is kept in `vinops.added`, together with
//! what was found; a way back drops what is on its list *and* in the ledger. Settings keep their seeded value there, so that
//! an edited one is recognised. [`LITERAL`] is the runbook's own way back, which drops and cascades regardless.
//!
//! Statements on the set's own tables are not checked when compiling: where those are is known at run time only.

use super::migrate::{self, Applied};
use super::migrations::{LISTING, Migration};
use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgConnection, PgTransaction};
use std::time::Instant;

pub mod backup;
mod ledger;
pub mod verify;

pub use ledger::{Thing, lacking, listed, rows, settings, slice_tables, things};
use ledger::{enter, ledger_there, note, settle};

/// Where the tables are unless somebody says otherwise.
pub const SCHEMA: &str = "listing";

/// The runbook's ways back as they are written there.
pub const LITERAL: &[(&str, &str)] = &[
    ("001", include_str!("../../migrations/listing/rollback/001_literal.sql")),
    ("002", include_str!("../../migrations/listing/rollback/002_literal.sql")),
    ("003", include_str!("../../migrations/listing/rollback/003_literal.sql")),
    ("004", include_str!("../../migrations/listing/rollback/004_literal.sql")),
];

/// Schemas that are somebody else's.
const TAKEN: &[&str] = &["vinops", "raw", "staging", "audit", "taxonomies", "fleet", "information_schema"];

/// The schema that has the set's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    schema: String,
}

impl Place {
    /// The schema called `name`: lower case, one that nobody else uses.
    pub fn named(name: &str) -> anyhow::Result<Place> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            || !name.chars().all(plain)
            || name.len() > 63
        {
            bail!("{name:?} is no name for a schema: lower-case letters, digits and _, such as {SCHEMA}");
        }
        if name.starts_with("pg_") || TAKEN.contains(&name) {
            bail!("schema {name} has another use: choose one of its own, such as {SCHEMA}");
        }
        Ok(Place { schema: name.to_owned() })
    }

    /// Where the set is in this database; else where it is wanted, else [`SCHEMA`].
    pub async fn find(connection: &mut PgConnection, wanted: Option<Place>) -> anyhow::Result<Place> {
        let there = Place::registered(connection).await?;
        match (there, wanted) {
            (Some(there), Some(wanted)) if there != wanted => bail!(
                "this database has the listing helper in schema {}, not {}: leave out --schema, or use another database",
                there.schema,
                wanted.schema
            ),
            (Some(there), _) => Ok(there),
            (None, Some(wanted)) => Ok(wanted),
            (None, None) => Place::named(SCHEMA),
        }
    }

    /// Where the set is in this database; none before its first `up`.
    pub async fn registered(connection: &mut PgConnection) -> anyhow::Result<Option<Place>> {
        if !ledger_there(connection).await? {
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
        schema.map(|schema| Place::named(&schema)).transpose()
    }

    /// Its name, which needs no quotes.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// From here to the end of the transaction names are found in this schema, and clocks show UTC.
    pub async fn enter(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let schema = &self.schema;
        let enter = format!("set local search_path = {schema}; set local timezone = 'UTC'");
        sqlx::raw_sql(AssertSqlSafe(enter)).execute(connection).await.map(drop)
    }
}

/// Runs a migration inside a transaction and notes what it added. The registry is the caller's.
pub async fn apply(
    tx: &mut PgConnection,
    place: &Place,
    migration: &'static Migration,
) -> anyhow::Result<()> {
    place.enter(tx).await?;
    let lacking = lacking(tx, migration).await?;
    if !lacking.is_empty() {
        bail!("schema {} lacks {}: nothing was done", place.schema, lacking.join(", "));
    }
    let create = format!("create schema if not exists {}", place.schema);
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *tx).await?;
    let (before, seeded) = (things(tx, place).await?, settings(tx).await?);
    sqlx::raw_sql(migration.up).execute(&mut *tx).await.map_err(told)?;
    let (after, seeds) = (things(tx, place).await?, settings(tx).await?);
    note(tx, migration, &before, &after).await?;
    for (key, value) in seeds.iter().filter(|(key, _)| !seeded.contains_key(*key)) {
        enter(tx, migration, &format!("setting {key}"), value.as_ref()).await?;
    }
    if LISTING.migrations.first().is_some_and(|first| first.id == migration.id) {
        let slices = slice_tables();
        let base = after.iter().filter_map(|it| it.thing.strip_prefix("table "));
        let base = i32::try_from(base.filter(|table| !slices.contains(table)).count())?;
        settle(tx, place, base).await?;
    }
    Ok(())
}

/// Takes a slice back inside a transaction, as the ledger or the runbook's letter says. The registry is the caller's.
pub async fn take_back(
    tx: &mut PgConnection,
    place: &Place,
    migration: &'static Migration,
    literal: bool,
) -> anyhow::Result<()> {
    place.enter(tx).await?;
    let letter = LITERAL.iter().find(|(id, _)| literal && *id == migration.id).map(|(_, text)| *text);
    let text = letter.or(migration.down).context("it has no way back")?;
    sqlx::raw_sql(text).execute(&mut *tx).await.map_err(told)?;
    // an edited setting is the operator's from now on; an old name may be wanted back later
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

/// What the database says, with what it adds: which view stands in the way, which rows.
fn told(error: sqlx::Error) -> anyhow::Error {
    let Some(said) = error.as_database_error().and_then(|it| it.try_downcast_ref::<PgDatabaseError>()) else {
        return error.into();
    };
    let mut words = said.message().to_owned();
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        // a hint that would cascade is none here
        if !more.contains("CASCADE") {
            words = format!("{words}: {}", more.replace('\n', "; "));
        }
    }
    anyhow!(words)
}

/// What the next `up` applies, at most to `to`; refuses a history that is not this binary's, and what lacks its ground.
pub async fn pending(
    connection: &mut PgConnection,
    place: &Place,
    to: Option<&str>,
) -> anyhow::Result<Vec<&'static Migration>> {
    known(to)?;
    migrate::refuse_strange_history(connection, &LISTING).await?;
    let applied = migrate::applied(connection, &LISTING).await?;
    let missing = |migration: &&Migration| applied.iter().all(|line| line.id != migration.id);
    let wanted = LISTING.active().filter(|migration| to.is_none_or(|to| migration.id <= to));
    let pending: Vec<_> = wanted.filter(missing).collect();
    if let Some(first) = pending.first() {
        let mut tx = migrate::locked(connection).await?;
        place.enter(&mut tx).await?;
        let lacking = lacking(&mut tx, first).await?;
        if !lacking.is_empty() {
            bail!(
                "apply {}: schema {} lacks {}: nothing was done",
                first.stem(),
                place.schema,
                lacking.join(", ")
            );
        }
        // public is the auction's where that is
        let auction: bool = sqlx::query_scalar("select to_regclass('public.vehicles') is not null")
            .fetch_one(&mut *tx)
            .await?;
        if place.schema == "public" && auction {
            bail!(
                "schema public of this database is the auction's: leave out --schema, or use another database"
            );
        }
        tx.rollback().await?;
    }
    Ok(pending)
}

fn known(to: Option<&str>) -> anyhow::Result<()> {
    match to {
        Some(to) if LISTING.active().all(|migration| migration.id != to) => {
            let ids: Vec<_> = LISTING.active().map(|migration| migration.id).collect();
            bail!("there is no migration {to}; there are {}", ids.join(", "))
        }
        _ => Ok(()),
    }
}

/// Makes what is noted here possible; does nothing the second time.
pub async fn open(connection: &mut PgConnection) -> anyhow::Result<()> {
    migrate::create_registry(connection).await?;
    let mut tx = migrate::locked(connection).await?;
    sqlx::raw_sql(include_str!("listing/ledger.sql")).execute(&mut *tx).await.context("create the ledger")?;
    tx.commit().await?;
    Ok(())
}

/// Applies what is missing up to `to`, in order. `tell` hears of each as it is in.
pub async fn up(
    connection: &mut PgConnection,
    place: &Place,
    to: Option<&str>,
    mut tell: impl FnMut(&Applied),
) -> anyhow::Result<usize> {
    super::encoding::expect_utf8(connection).await?;
    open(connection).await?;
    let pending = pending(connection, place, to).await?;
    let mut done = 0;
    for migration in pending {
        let stem = migration.stem();
        if let Some(line) =
            step_up(connection, place, migration).await.with_context(|| format!("apply {stem}"))?
        {
            tell(&line);
            done += 1;
        }
    }
    Ok(done)
}

async fn step_up(
    connection: &mut PgConnection,
    place: &Place,
    migration: &'static Migration,
) -> anyhow::Result<Option<Applied>> {
    let begun = Instant::now();
    let mut tx = migrate::locked(connection).await?;
    let there = migrate::applied(&mut tx, &LISTING).await?;
    if there.iter().any(|line| line.id == migration.id) {
        return Ok(None);
    }
    if let Some(needed) = migration.head()?.depends
        && there.iter().all(|line| line.id != needed)
    {
        bail!("it depends on {needed}, which is not applied");
    }
    apply(&mut tx, place, migration).await?;
    let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    let line = migrate::record(&mut tx, &LISTING, migration, took, false).await?;
    tx.commit().await?;
    Ok(Some(line))
}

/// What a `down` to `to` takes back, newest first; without `to`, the newest only.
pub async fn returning(
    connection: &mut PgConnection,
    to: Option<&str>,
) -> anyhow::Result<Vec<&'static Migration>> {
    known(to)?;
    migrate::refuse_strange_history(connection, &LISTING).await?;
    let applied = migrate::applied(connection, &LISTING).await?;
    let back = LISTING.active().filter(|migration| applied.iter().any(|line| line.id == migration.id));
    let mut back: Vec<_> = back.skip_while(|migration| to.is_some_and(|to| migration.id <= to)).collect();
    back.reverse();
    if to.is_none() {
        back.truncate(1);
    }
    if back.last().is_some_and(|last| last.id == "000") {
        bail!("000 is the base, with the listings and settings: it stays");
    }
    Ok(back)
}

/// Takes back what [`returning`] says, each in a transaction of its own. `tell` hears of each.
pub async fn down(
    connection: &mut PgConnection,
    place: &Place,
    to: Option<&str>,
    literal: bool,
    mut tell: impl FnMut(&Migration),
) -> anyhow::Result<usize> {
    let back = returning(connection, to).await?;
    if !back.is_empty() {
        open(connection).await?;
    }
    for migration in &back {
        let stem = migration.stem();
        let step = async {
            let mut tx: PgTransaction<'_> = migrate::locked(connection).await?;
            expect_order(&mut tx, migration).await?;
            take_back(&mut tx, place, migration, literal).await?;
            migrate::forget(&mut tx, &LISTING, migration).await?;
            tx.commit().await?;
            anyhow::Ok(())
        };
        step.await.with_context(|| format!("take back {stem}"))?;
        tell(migration);
    }
    Ok(back.len())
}

/// Only the newest slice may go, and nothing of a newer one may be left, registered or not.
pub async fn expect_order(tx: &mut PgConnection, migration: &Migration) -> anyhow::Result<()> {
    let applied = migrate::applied(tx, &LISTING).await?;
    let ours = LISTING.active().take(applied.len()).map(|migration| migration.id);
    if !ours.eq(applied.iter().map(|line| line.id.as_str())) {
        let there: Vec<_> = applied.iter().map(|line| line.id.as_str()).collect();
        bail!("the registry has {} and so a gap: there is no order to go back in", there.join(", "));
    }
    if let Some(newest) = applied.last()
        && newest.id != migration.id
    {
        bail!("{} is applied, and goes first", newest.id);
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
        Some(left) => bail!("the ledger still has {left}, which must go first"),
        None => Ok(()),
    }
}

/// Gives the columns that 001 renamed their old names back; returns them.
pub async fn restore_names(connection: &mut PgConnection, place: &Place) -> anyhow::Result<Vec<String>> {
    let mut tx = migrate::locked(connection).await?;
    place.enter(&mut tx).await?;
    let renamed: Vec<(String, String)> = sqlx::query_as(
        "-- listing: old names
         delete from vinops.added
         where set_name = 'listing'
           and thing like 'renamed %'
         returning substr(thing, length('renamed ') + 1), detail #>> '{}'",
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut told = Vec::new();
    for (was, is) in renamed {
        let (table, old) = was.split_once('.').context("a ledger's line without a table")?;
        let rename = format!("alter table {table} rename column {is} to {old}");
        sqlx::raw_sql(AssertSqlSafe(rename.clone())).execute(&mut *tx).await.context(rename)?;
        told.push(format!("{table}.{is} is {old} again"));
    }
    tx.commit().await?;
    Ok(told)
}
