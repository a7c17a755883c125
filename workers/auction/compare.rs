//! Compares the rows of `lots`, `vehicles` and the open image links with the fold of their stored versions.
//!
//! The comparison only reads, and takes no lock that would block a worker. Any role with read access to `raw` and
//! `staging` can run it. Lots are read in batches, each in one snapshot, so memory is bounded and a concurrent step is
//! visible completely or not at all. Between the ingest of a window and the end of its chain, some stored versions are
//! not applied yet. Lots and vehicles with staged rows of such a window are counted and not compared.
//!
//! All columns of the fold are compared except `seen_window`, which is updated only where it decides the version order.
//! A row without a hash was not created by the feed and is skipped. `is_removed` and the status do not depend on the
//! versions.

use super::fold::compute::{FoldedLot, FoldedVehicle, compute_lots, compute_vehicles};
use super::fold::stored::{VersionsByLot, lots_of_vehicles, read_versions};
use super::fold::{LOT_BATCH_SIZE, LotKey};
use crate::auction::difference::{
    ComparisonCounts, ComparisonObserver, ComparisonProgress, ComparisonScope, DifferenceKind, RowDifference,
};
use crate::db::taxonomy;
use anyhow::Context;
use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use std::collections::{BTreeMap, BTreeSet, HashSet};

mod rows;
mod scope;

/// Compares the rows in scope and calls `observer` after each batch.
pub async fn compare_rows(
    pool: PgPool,
    scope: ComparisonScope,
    observer: ComparisonObserver,
) -> anyhow::Result<ComparisonCounts> {
    let mut comparison =
        RowComparison { pool, observer, counts: ComparisonCounts::default(), total: 0, differing: HashSet::new() };
    let source = scope.source.as_deref();
    if let Some(sample) = scope.sample {
        let lots = scope::sample_lots(&comparison.pool, source, sample).await?;
        comparison.total = lots.len() as u64;
        for lots in lots.chunks(LOT_BATCH_SIZE) {
            comparison.compare_batch(lots, &[]).await?;
        }
        return Ok(comparison.counts);
    }
    comparison.total = scope::count_lots(&comparison.pool, source).await?;
    let mut last = (String::new(), i64::MIN);
    loop {
        let lots = scope::lots_after(&comparison.pool, source, &last).await?;
        let Some(newest) = lots.last() else { break };
        last = newest.clone();
        comparison.compare_batch(&lots, &[]).await?;
    }
    let mut last = i64::MIN;
    loop {
        let (lots, newest) = scope::headless_lots_after(&comparison.pool, source, last).await?;
        let Some(newest) = newest else { break };
        last = newest;
        comparison.compare_batch(&lots, &[]).await?;
    }
    let mut last = String::new();
    loop {
        let vins = scope::unreferenced_vehicles_after(&comparison.pool, source, &last).await?;
        let Some(newest) = vins.last() else { break };
        last = newest.clone();
        comparison.compare_batch(&[], &vins).await?;
    }
    Ok(comparison.counts)
}

struct RowComparison {
    pool: PgPool,
    observer: ComparisonObserver,
    counts: ComparisonCounts,
    total: u64,
    /// VINs whose differences are already counted, since several batches may contain the same vehicle.
    differing: HashSet<String>,
}

impl RowComparison {
    /// Compares the given lots with their image links and vehicles, and also the vehicles with the given VINs.
    async fn compare_batch(&mut self, lots: &[LotKey], vins: &[String]) -> anyhow::Result<()> {
        let mut tx = begin_snapshot(&self.pool).await?;
        let batch = ComparisonBatch::read(&mut tx, lots, vins).await?;
        let mut found = rows::compare_lots(&mut tx, &batch.lots).await?;
        found.extend(batch.unfounded_lots());
        found.extend(rows::compare_links(&mut tx, &batch.lots).await?);
        let mut vehicles = rows::compare_vehicles(&mut tx, &batch.vehicles).await?;
        vehicles.extend(rows::find_unfounded_vehicles(&mut tx, &batch.vins, &batch.vehicles).await?);
        tx.rollback().await.context("could not end the read-only snapshot")?;
        let differing: BTreeSet<String> = vehicles.iter().filter_map(|difference| difference.vin.clone()).collect();
        vehicles.retain(|it| it.vin.as_ref().is_none_or(|vin| !self.differing.contains(vin)));
        self.differing.extend(differing);
        found.extend(vehicles);
        self.counts.lots += batch.lots.len() as u64;
        self.counts.vehicles += batch.vehicles.len() as u64;
        self.counts.under_way += batch.under_way;
        self.counts.differences += found.len() as u64;
        (self.observer)(ComparisonProgress { counts: self.counts, total: self.total, found });
        Ok(())
    }
}

/// Begins a read-only transaction with one snapshot.
async fn begin_snapshot(pool: &PgPool) -> anyhow::Result<Transaction<'static, Postgres>> {
    let mut tx = pool.begin().await.context("could not begin a read-only snapshot")?;
    sqlx::raw_sql("set transaction isolation level repeatable read, read only; set local timezone = 'UTC'")
        .execute(&mut *tx)
        .await
        .context("could not begin a read-only snapshot")?;
    Ok(tx)
}

/// The folded versions of some lots and of their vehicles, without rows that an unfinished window is about to change.
struct ComparisonBatch {
    lots: Vec<FoldedLot>,
    vehicles: Vec<FoldedVehicle>,
    /// The VINs of the compared vehicles.
    vins: Vec<String>,
    /// Lots created by the feed that no stored version produces.
    unfounded: Vec<LotKey>,
    /// The number of lots and vehicles that were skipped because a window is unfinished.
    under_way: u64,
}

impl ComparisonBatch {
    async fn read(connection: &mut PgConnection, lots: &[LotKey], vins: &[String]) -> anyhow::Result<ComparisonBatch> {
        let aliases = taxonomy::load_aliases(connection).await?;
        let mut versions = read_versions(connection, lots).await?;
        let mut folded = compute_lots(&versions, &aliases);
        let standing = scope::existing_lots(connection, lots).await?;
        let vins = collect_vins(&folded, &standing, vins);
        let of_each: Vec<String> = vins.iter().cloned().collect();
        let mut vehicles = lots_of_vehicles(connection, &of_each).await?;
        let more = unread_lots(&versions, &vehicles);
        versions.extend(read_versions(connection, &more).await?);
        let all: Vec<LotKey> = lots.iter().chain(&more).cloned().collect();
        let under_way = scope::pending_changes(connection, &all, &vins).await?;

        let made: HashSet<LotKey> = folded.iter().map(|lot| lot.key.clone()).collect();
        let mut left_out = lots.iter().filter(|lot| under_way.lots.contains(*lot)).count();
        folded.retain(|lot| !under_way.lots.contains(&lot.key));
        let unfounded = standing
            .into_iter()
            .filter(|lot| lot.is_of_feed && !made.contains(&lot.key) && !under_way.lots.contains(&lot.key))
            .map(|lot| lot.key)
            .collect();
        let (vins, changing): (Vec<String>, Vec<String>) = vins.into_iter().partition(|vin| {
            let of_vehicle = vehicles.get(vin).map(Vec::as_slice).unwrap_or_default();
            !under_way.vins.contains(vin) && !of_vehicle.iter().any(|lot| under_way.lots.contains(lot))
        });
        left_out += changing.len();
        vehicles.retain(|vin, _| vins.binary_search(vin).is_ok());
        let vehicles = compute_vehicles(&versions, &vehicles, &aliases);
        Ok(ComparisonBatch { lots: folded, vehicles, vins, unfounded, under_way: left_out as u64 })
    }

    fn unfounded_lots(&self) -> impl Iterator<Item = RowDifference> {
        self.unfounded.iter().map(|(source, lot)| RowDifference {
            kind: DifferenceKind::Unfounded,
            table: "lots",
            source: Some(source.clone()),
            lot: Some(*lot),
            vin: None,
            column: None,
            stands: Value::Null,
            versions: Value::Null,
            window: None,
        })
    }
}

/// Returns the VINs of all versions of `lots`, of the `standing` rows, and `vins`.
fn collect_vins(lots: &[FoldedLot], standing: &[scope::ExistingLot], vins: &[String]) -> BTreeSet<String> {
    let of_versions = lots.iter().flat_map(|lot| &lot.vins);
    of_versions.chain(standing.iter().map(|lot| &lot.vin)).chain(vins).cloned().collect()
}

/// Returns the lots of the given vehicles whose versions have not been read yet.
fn unread_lots(versions: &VersionsByLot, vehicles: &BTreeMap<String, Vec<LotKey>>) -> Vec<LotKey> {
    let lots: BTreeSet<&LotKey> = vehicles.values().flatten().filter(|lot| !versions.contains_key(*lot)).collect();
    lots.into_iter().cloned().collect()
}
