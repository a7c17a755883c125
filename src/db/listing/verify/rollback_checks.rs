//! Checks that roll the slices back and apply them again, in a transaction that is rolled back.
//!
//! The live schema is used, so that another program's view or foreign key that prevents a rollback is found early.

use super::{CheckResult, execute_statements};
use crate::db::listing::{self, ListingSchema};
use crate::db::migrate;
use crate::db::migrations::{LISTING_SET, Migration};
use anyhow::Context;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet};

type RollbackCheckResult = anyhow::Result<CheckResult>;

/// A schema name that no other program uses.
const SCRATCH_SCHEMA: &str = "vinops_verify_nowhere";

pub async fn check_order(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    let mut wrong = Vec::new();
    let applied = migrate::applied_migrations(connection, &LISTING_SET).await?;
    for pair in applied.windows(2) {
        if pair[0].applied_at > pair[1].applied_at {
            wrong.push(format!("{} was applied after {}", pair[0].id, pair[1].id));
        }
    }
    // in an empty schema every slice must be rejected, and nothing must be left
    let nowhere = ListingSchema::from_name(SCRATCH_SCHEMA)?;
    execute_statements(connection, format!("create schema {}", SCRATCH_SCHEMA)).await?;
    for migration in LISTING_SET.active().skip(1) {
        let mut step = connection.begin().await?;
        let done = listing::apply_slice(&mut step, &nowhere, migration).await;
        step.rollback().await?;
        let left = listing::schema_objects(connection, &nowhere).await?.len();
        if done.is_ok() || left > 0 {
            wrong.push(format!("{} without its prerequisites leaves {left} objects", migration.id));
        }
    }
    place.set_search_path(connection).await?;
    let evidence = applied.iter().map(|line| line.id.as_str()).collect::<Vec<_>>().join(", ");
    Ok(CheckResult::from_faults(
        &wrong,
        format!("{evidence}; in an empty schema 001 to 005 are rejected and leave nothing"),
    ))
}

/// Takes the ids of the slices' seeds from a temporary sequence, since a rollback does not reset the live one.
async fn use_spare_sequences(connection: &mut PgConnection) -> anyhow::Result<()> {
    execute_statements(
        connection,
        "create sequence vinops_verify_ids increment -1;
         alter table settings alter id set default nextval('vinops_verify_ids')"
            .into(),
    )
    .await
}

/// Returns everything that a run of the slices must not change: objects, settings and the number of marketplaces.
async fn schema_state(
    connection: &mut PgConnection,
    place: &ListingSchema,
) -> anyhow::Result<(BTreeSet<listing::SchemaObject>, BTreeMap<String, Option<Value>>, i64)> {
    let markets = sqlx::query_scalar("-- verify: marketplaces\nselect count(*) from marketplaces")
        .fetch_one(&mut *connection)
        .await?;
    Ok((listing::schema_objects(connection, place).await?, listing::read_settings(connection).await?, markets))
}

pub async fn check_repeated_run(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    use_spare_sequences(connection).await?;
    execute_statements(connection, "alter table marketplaces alter id set default nextval('vinops_verify_ids')".into())
        .await?;
    let before = listing::read_settings(connection).await?;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        for migration in LISTING_SET.active() {
            let again = listing::apply_slice(connection, place, migration).await;
            again.with_context(|| format!("could not apply migration {} a second time", migration.id))?;
        }
        rounds.push(schema_state(connection, place).await?);
    }
    let mut wrong = Vec::new();
    if rounds[0] != rounds[1] {
        wrong.push("a second run changes the result of the first".to_owned());
    }
    let changed = before.iter().filter(|(key, value)| rounds[1].1.get(*key) != Some(value));
    wrong.extend(changed.map(|(key, _)| format!("a second run changes {key}")));
    let (things, settings, markets) = &rounds[1];
    let evidence = format!(
        "all six ran again and changed nothing: {} objects, {} settings, {markets} marketplaces",
        things.len(),
        settings.len()
    );
    Ok(CheckResult::from_faults(&wrong, evidence))
}

/// Returns number and checksum of the listings, over the columns that sellers use.
async fn summarize_listings(connection: &mut PgConnection) -> anyhow::Result<String> {
    let goods = "-- verify: goods
        select count(*) || ' listings, ' || coalesce(sum(hashtextextended(
          concat_ws(' ', id, seller_sku, title, price_inc_vat, available_quantity), 0
        )::numeric), 0)
        from listings";
    Ok(super::fetch_text(connection, goods.into()).await?.unwrap_or_default())
}

/// Rolls back all slices down to the given one, and checks what is left of that slice.
async fn check_rollback(connection: &mut PgConnection, place: &ListingSchema, id: &str) -> RollbackCheckResult {
    let slices: Vec<&'static Migration> = LISTING_SET.active().filter(|migration| migration.id >= id).collect();
    let kept = summarize_listings(connection).await?;
    for migration in slices.iter().skip(1).rev() {
        let done = listing::rollback_slice(connection, place, migration, false).await;
        done.with_context(|| format!("could not roll back migration {} first", migration.id))?;
    }
    let slice = slices.first().context("there is no such slice")?;
    let found: Vec<String> = sqlx::query_scalar(
        "-- verify: found before
         select substr(thing, length('found ') + 1)
         from vinops.added
         where set_name = 'listing'
           and id = $1
           and thing like 'found %'",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let seeds: Vec<(String, Option<Value>)> = sqlx::query_as(
        "-- verify: seeds
         select substr(thing, length('setting ') + 1), detail
         from vinops.added
         where set_name = 'listing'
           and id = $1
           and thing like 'setting %'",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let before = listing::schema_objects(connection, place).await?;
    let settings = listing::read_settings(connection).await?;
    listing::rollback_slice(connection, place, slice, false).await?;
    let after = listing::schema_objects(connection, place).await?;
    let left = listing::read_settings(connection).await?;

    let mut wrong = Vec::new();
    let has = |things: &BTreeSet<listing::SchemaObject>, thing: &str| things.iter().any(|it| it.thing == thing);
    for thing in listing::rollback_objects(slice) {
        let theirs = found.iter().any(|it| it == thing) && has(&before, thing);
        if !thing.starts_with("setting ") && has(&after, thing) != theirs {
            wrong.push(format!("{thing} {}", if theirs { "existed before and is missing" } else { "is left" }));
        }
    }
    for (key, value) in &settings {
        let ours = seeds.iter().any(|(seed, was)| seed == key && was == value);
        if left.contains_key(key) == ours {
            wrong.push(format!("setting {key} {}", if ours { "is left" } else { "is missing" }));
        }
    }
    if kept != summarize_listings(connection).await? {
        wrong.push(format!("before: {kept}; after: {}", summarize_listings(connection).await?));
    }
    let tables =
        |things: &BTreeSet<listing::SchemaObject>| things.iter().filter(|it| it.thing.starts_with("table ")).count();
    let gone = listing::rollback_objects(slice).len() - found.len();
    let evidence = format!(
        "{} to {} tables, {gone} objects of {id} dropped, {} found before it and kept; {kept} kept",
        tables(&before),
        tables(&after),
        found.len()
    );
    Ok(CheckResult::from_faults(&wrong, evidence.replace(", 0 found before it and kept", "")))
}

pub async fn check_rollback_d(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    check_rollback(connection, place, "004").await
}

pub async fn check_rollback_c(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    check_rollback(connection, place, "003").await
}

pub async fn check_rollback_b(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    check_rollback(connection, place, "002").await
}

pub async fn check_rollback_a(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    check_rollback(connection, place, "001").await
}

pub async fn check_rollback_order(connection: &mut PgConnection, _: &ListingSchema) -> RollbackCheckResult {
    let mut wrong = Vec::new();
    let Some(newest) = LISTING_SET.active().last() else { return Ok(CheckResult::new(false, "no slices")) };
    for migration in LISTING_SET.active().skip(1) {
        let refused = listing::expect_rollback_order(connection, migration).await.err();
        match (migration.id == newest.id, refused) {
            (true, Some(why)) => wrong.push(format!("{}: {why:#}", migration.id)),
            (false, None) => wrong.push(format!("{} could be rolled back before {}", migration.id, newest.id)),
            (true, None) | (false, Some(_)) => {}
        }
    }
    Ok(CheckResult::from_faults(&wrong, format!("{} can be rolled back, 004 to 001 are rejected before it", newest.id)))
}

pub async fn check_down_and_up(connection: &mut PgConnection, place: &ListingSchema) -> RollbackCheckResult {
    use_spare_sequences(connection).await?;
    let (before, goods_before) =
        (listing::schema_objects(connection, place).await?, summarize_listings(connection).await?);
    let slices: Vec<&'static Migration> = LISTING_SET.active().skip(1).collect();
    for migration in slices.iter().rev() {
        let done = listing::rollback_slice(connection, place, migration, false).await;
        done.with_context(|| format!("could not roll back migration {}", migration.id))?;
    }
    for migration in slices {
        let done = listing::apply_slice(connection, place, migration).await;
        done.with_context(|| format!("could not apply migration {} again", migration.id))?;
    }
    let after = listing::schema_objects(connection, place).await?;
    let names = |things: &BTreeSet<listing::SchemaObject>| {
        let of_a_slice = listing::slice_tables();
        let own = |it: &&listing::SchemaObject| {
            // columns of tables that were created again are checked by lines 4 to 10
            !it.thing.starts_with("column ") || it.owner.as_deref().is_none_or(|owner| !of_a_slice.contains(owner))
        };
        things.iter().filter(own).map(|it| it.thing.clone()).collect::<BTreeSet<String>>()
    };
    let (before, after) = (names(&before), names(&after));
    let mut wrong: Vec<_> = before.difference(&after).map(|thing| format!("{thing} is missing afterwards")).collect();
    if goods_before != summarize_listings(connection).await? {
        wrong.push(format!("before: {goods_before}; after: {}", summarize_listings(connection).await?));
    }
    Ok(CheckResult::from_faults(&wrong, format!("{} objects are restored; {goods_before}", after.len())))
}
