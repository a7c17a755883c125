//! Selects the rows to compare, and those that must be skipped because a window is unfinished.

use super::super::fold::{LOT_BATCH_SIZE, LotKey};
use anyhow::Context;
use sqlx::{PgConnection, PgPool};
use std::collections::{BTreeSet, HashSet};

/// Tables with fewer rows than this are sampled as a whole.
const SMALL_TABLE_ROWS: f32 = 20_000.0;
/// Rows on the sampled pages for each row that is picked.
const ROWS_PER_PICK: f32 = 20.0;

/// Returns a random sample of lots that have a head or a row in `lots`.
pub async fn sample_lots(pool: &PgPool, source: Option<&str>, lots: u32) -> anyhow::Result<Vec<LotKey>> {
    let rows = sqlx::query!(
        r#"-- verify lots: sizes
        select
          coalesce((select reltuples from pg_class where oid = to_regclass('raw.heads')), -1) as "heads!",
          coalesce((select reltuples from pg_class where oid = to_regclass('public.lots')), -1) as "lots!""#
    )
    .fetch_one(pool)
    .await
    .context("could not read the table sizes")?;
    let percentage = |rows: f32| match rows < SMALL_TABLE_ROWS {
        true => 100.0,
        false => (100.0 * ROWS_PER_PICK * lots as f32 / rows).min(100.0),
    };
    let picked = sqlx::query_file!(
        "workers/auction/compare/sample.sql",
        source,
        percentage(rows.heads),
        percentage(rows.lots),
        i64::from(lots)
    )
    .fetch_all(pool)
    .await
    .context("could not sample the lots")?;
    Ok(picked.into_iter().map(|row| (row.source, row.lot)).collect())
}

/// Returns the number of lots that have a head.
pub async fn count_lots(pool: &PgPool, source: Option<&str>) -> anyhow::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"-- verify lots: count
        select count(*) as "count!" from raw.heads where source = coalesce($1, source)"#,
        source
    )
    .fetch_one(pool)
    .await
    .context("could not count the lots")?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Returns the next batch of lots that have a head, in key order.
pub async fn lots_after(
    pool: &PgPool,
    source: Option<&str>,
    (after_source, after_lot): &LotKey,
) -> anyhow::Result<Vec<LotKey>> {
    let rows = sqlx::query!(
        r#"-- verify lots: the next lots
        select source, lot
        from raw.heads
        where (source, lot) > ($2, $3)
          and source = coalesce($1, source)
        order by source, lot
        limit $4"#,
        source,
        after_source,
        after_lot,
        LOT_BATCH_SIZE as i64
    )
    .fetch_all(pool)
    .await
    .context("could not read the next lots")?;
    Ok(rows.into_iter().map(|row| (row.source, row.lot)).collect())
}

/// Returns the next batch of existing lots without a head, and the id of the last of them.
pub async fn headless_lots_after(
    pool: &PgPool,
    source: Option<&str>,
    after: i64,
) -> anyhow::Result<(Vec<LotKey>, Option<i64>)> {
    let rows = sqlx::query_file!("workers/auction/compare/headless.sql", source, after, LOT_BATCH_SIZE as i64)
        .fetch_all(pool)
        .await
        .context("could not read the next lots without a head")?;
    let last = rows.last().map(|row| row.id);
    Ok((rows.into_iter().map(|row| (row.source, row.lot)).collect(), last))
}

/// Returns the VINs of the next batch of vehicles that no lot refers to.
pub async fn unreferenced_vehicles_after(
    pool: &PgPool,
    source: Option<&str>,
    after: &str,
) -> anyhow::Result<Vec<String>> {
    let rows = sqlx::query_file!("workers/auction/compare/vehicles_alone.sql", source, after, LOT_BATCH_SIZE as i64)
        .fetch_all(pool)
        .await
        .context("could not read the next vehicles without a lot")?;
    Ok(rows.into_iter().map(|row| row.vin).collect())
}

/// A row of `lots`.
pub struct ExistingLot {
    pub key: LotKey,
    pub vin: String,
    /// True if the feed created the lot.
    pub is_of_feed: bool,
}

/// Returns the rows of `lots` for the given keys.
pub async fn existing_lots(connection: &mut PgConnection, lots: &[LotKey]) -> anyhow::Result<Vec<ExistingLot>> {
    let (sources, numbers): (Vec<String>, Vec<i64>) = lots.iter().cloned().unzip();
    let rows = sqlx::query_file!("workers/auction/compare/standing.sql", &sources, &numbers)
        .fetch_all(connection)
        .await
        .context("could not read the existing lots")?;
    let lots = rows.into_iter().map(|row| ExistingLot {
        key: (row.source, row.lot),
        vin: row.vin,
        is_of_feed: row.is_of_feed,
    });
    Ok(lots.collect())
}

/// Lots and vehicles that an unfinished window is about to change.
#[derive(Default)]
pub struct PendingChanges {
    pub lots: HashSet<LotKey>,
    pub vins: HashSet<String>,
}

/// Returns the given lots and vehicles that an unfinished window is about to change.
pub async fn pending_changes(
    connection: &mut PgConnection,
    lots: &[LotKey],
    vins: &BTreeSet<String>,
) -> anyhow::Result<PendingChanges> {
    let (sources, numbers): (Vec<String>, Vec<i64>) = lots.iter().cloned().unzip();
    let vins: Vec<String> = vins.iter().cloned().collect();
    let rows = sqlx::query_file!("workers/auction/compare/under_way.sql", &sources, &numbers, &vins)
        .fetch_all(connection)
        .await
        .context("could not read the unfinished windows")?;
    let mut found = PendingChanges::default();
    for row in rows {
        found.lots.extend(row.lot.map(|lot| (row.source, lot)));
        found.vins.extend(row.vin);
    }
    Ok(found)
}
