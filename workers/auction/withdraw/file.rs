//! Removes the rows of a file: manifest, stored versions and staged rows.

use super::WithdrawnFile;
use crate::auction::withdrawal::WithdrawalObserver;
use crate::workers::auction::fold::stored::lots_of_manifest;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Rows that were removed with a file.
#[derive(Default)]
pub struct RemovedRows {
    /// The lots in the file's manifest, sorted.
    pub lots: Vec<i64>,
    /// The lots whose rows the file staged: new, changed and reappeared ones. If its staged rows are gone, all lots of
    /// the versions it stored.
    pub staged: HashMap<i64, ReplacedVersion>,
    /// The number of deleted row versions.
    pub deleted: u64,
    /// The number of row versions that stay because other manifests contain them.
    pub kept: u64,
}

/// The version that a staged row replaced.
#[derive(Clone, Copy, Default)]
pub struct ReplacedVersion {
    /// The row hash of the version.
    pub hash: Option<Uuid>,
    /// The newest window that contained the version.
    pub seen: Option<DateTime<Utc>>,
}

/// Deletes the file's manifest, the row versions that only it contains, and its staged rows.
pub async fn remove_rows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    observer: &WithdrawalObserver,
) -> anyhow::Result<RemovedRows> {
    if !target.ingested {
        let lots = lots_of_repeated(connection, target).await?;
        correct_replaced(connection, target, &HashMap::new()).await?;
        return Ok(RemovedRows { lots, ..RemovedRows::default() });
    }
    let lots = lots_of_manifest(connection, target.file_id, target.window).await?;
    let stored = stored_versions(connection, target).await?;
    let named = shared_versions(connection, target, &stored, observer).await?;
    delete_manifest(connection, target).await?;
    let deleted: Vec<i64> = stored.keys().copied().filter(|row_id| !named.contains_key(row_id)).collect();
    let (kept, windows): (Vec<i64>, Vec<DateTime<Utc>>) = named.into_iter().unzip();
    delete_versions(connection, target, &deleted).await?;
    date_versions(connection, target, &kept, &windows).await?;
    let mut staged = delete_staged_rows(connection, target).await?;
    if staged.is_empty() {
        staged = stored.values().flatten().map(|lot| (*lot, ReplacedVersion::default())).collect();
    }
    correct_replaced(connection, target, &staged).await?;
    Ok(RemovedRows { lots, staged, deleted: deleted.len() as u64, kept: kept.len() as u64 })
}

/// Returns the lots of a file that was only received again as the newest one: those of its previous manifest. A
/// quarantined file has none.
async fn lots_of_repeated(connection: &mut PgConnection, target: &WithdrawnFile) -> anyhow::Result<Vec<i64>> {
    let repeated = sqlx::query_scalar!(
        r#"-- withdraw: the manifest that was repeated
        select max(window_start_utc) as window
        from raw.manifests
        where file_id = $1
          and window_start_utc < $2"#,
        target.file_id,
        target.window
    )
    .fetch_one(&mut *connection)
    .await
    .context("could not read the repeated manifest")?;
    match repeated {
        Some(window) => lots_of_manifest(connection, target.file_id, window).await,
        None => Ok(Vec::new()),
    }
}

/// Returns the ids of the versions that the file stored, with the lot of each.
async fn stored_versions(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
) -> anyhow::Result<HashMap<i64, Option<i64>>> {
    let rows = sqlx::query!(
        "-- withdraw: versions that the file stored
        select id, lot from raw.rows where file_id = $1 and window_start_utc = $2",
        target.file_id,
        target.window
    )
    .fetch_all(connection)
    .await
    .context("could not read the row versions that the file stored")?;
    Ok(rows.into_iter().map(|row| (row.id, row.lot)).collect())
}

/// Returns those of the stored versions that other manifests contain, with the oldest window of each.
///
/// Only manifests of the same month that were written later can contain them.
async fn shared_versions(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    stored: &HashMap<i64, Option<i64>>,
    observer: &WithdrawalObserver,
) -> anyhow::Result<HashMap<i64, DateTime<Utc>>> {
    let manifests = sqlx::query!(
        r#"-- withdraw: manifests that may name the file's versions
        select m.file_id, m.window_start_utc as window
        from raw.manifests m
        join raw.sightings g on g.file_id = m.file_id and g.window_start_utc = m.window_start_utc
        where g.source = $1
          and (m.file_id, m.window_start_utc) <> ($2, $3)
          and g.ingested_at >= $4
          and m.window_start_utc >= date_trunc('month', $3::timestamptz, 'UTC')
          and m.window_start_utc < date_trunc('month', $3::timestamptz, 'UTC') + interval '1 month'
        order by m.window_start_utc desc"#,
        target.source,
        target.file_id,
        target.window,
        target.arrived_at
    )
    .fetch_all(&mut *connection)
    .await
    .context("could not read the manifests after the file")?;
    let mut named = HashMap::new();
    for (n, manifest) in manifests.iter().enumerate() {
        observer("reading manifests", n as u64, manifests.len() as u64);
        for row_id in manifest_row_ids(connection, manifest.file_id, manifest.window).await? {
            if stored.contains_key(&row_id) {
                named.insert(row_id, manifest.window);
            }
        }
    }
    Ok(named)
}

/// Returns the row ids of a manifest in file order, with 0 for a record that could not be read.
pub async fn manifest_row_ids(
    connection: &mut PgConnection,
    file_id: Uuid,
    window: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    sqlx::query_scalar!(
        "-- withdraw: a manifest
        select row_ids from raw.manifests where file_id = $1 and window_start_utc = $2",
        file_id,
        window
    )
    .fetch_one(connection)
    .await
    .context("could not read a manifest")
}

async fn delete_manifest(connection: &mut PgConnection, target: &WithdrawnFile) -> anyhow::Result<()> {
    sqlx::query!(
        "-- withdraw: the manifest
        delete from raw.manifests where file_id = $1 and window_start_utc = $2",
        target.file_id,
        target.window
    )
    .execute(connection)
    .await
    .context("could not delete the manifest")?;
    Ok(())
}

async fn delete_versions(connection: &mut PgConnection, target: &WithdrawnFile, row_ids: &[i64]) -> anyhow::Result<()> {
    sqlx::query!(
        "-- withdraw: versions of this file alone
        with deleted_lotless_rows as (
          delete from raw.lotless_rows where source = $3 and row_id = any ($1)
        )
        delete from raw.rows where id = any ($1) and window_start_utc = $2",
        row_ids,
        target.window,
        target.source
    )
    .execute(connection)
    .await
    .context("could not delete the row versions of the file")?;
    Ok(())
}

/// Moves versions to the oldest remaining window that contains them.
async fn date_versions(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    row_ids: &[i64],
    windows: &[DateTime<Utc>],
) -> anyhow::Result<()> {
    sqlx::query_file!("workers/auction/withdraw/date_versions.sql", row_ids, windows, target.window, target.source)
        .execute(connection)
        .await
        .context("could not move the remaining row versions")?;
    Ok(())
}

/// Deletes the file's staged rows. Returns the version that each lot's row replaced.
async fn delete_staged_rows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
) -> anyhow::Result<HashMap<i64, ReplacedVersion>> {
    let rows = sqlx::query!(
        r#"-- withdraw: staged rows
        delete from staging.copart_raw
        where file_id = $1
          and window_start_utc = $2
        returning lot_external_id::bigint as lot, prev_hash, prev_seen"#,
        target.file_id,
        target.window
    )
    .fetch_all(connection)
    .await
    .context("could not delete the staged rows")?;
    let replaced = rows
        .into_iter()
        .filter_map(|row| Some((row.lot?, ReplacedVersion { hash: row.prev_hash, seen: row.prev_seen })));
    Ok(replaced.collect())
}

/// Corrects the last window of versions that other files replaced, if that window is withdrawn.
async fn correct_replaced(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    staged: &HashMap<i64, ReplacedVersion>,
) -> anyhow::Result<()> {
    let (mut lots, mut hashes, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for (lot, replaced) in staged {
        lots.push(lot.to_string());
        hashes.push(replaced.hash);
        seen.push(replaced.seen);
    }
    sqlx::query_file!(
        "workers/auction/withdraw/replaced.sql",
        target.source,
        &target.windows,
        target.arrived_at,
        &lots,
        hashes as Vec<Option<Uuid>>,
        seen as Vec<Option<DateTime<Utc>>>
    )
    .execute(connection)
    .await
    .context("could not correct when versions were last seen")?;
    Ok(())
}
