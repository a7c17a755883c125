//! Records sightings of versions that were not recorded because of the withdrawn file.
//!
//! A file that was late because of the withdrawn one and contains the same version of a lot stored and staged nothing
//! for it, since the newer window was sufficient evidence. Such sightings are recorded in `staging.copart_raw`, like
//! those of replaced versions.

use super::WithdrawnFile;
use super::file::manifest_row_ids;
use super::versions::{locate_rows, read_version_order};
use anyhow::Context;
use sqlx::PgConnection;
use std::collections::HashSet;

/// Records the last sighting of each version of these lots in older windows that were ingested after the file.
pub async fn record_sightings(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    lots: &[i64],
) -> anyhow::Result<()> {
    let late = sqlx::query!(
        r#"-- withdraw: older windows that came after the file
        select m.file_id, m.window_start_utc as window
        from raw.sightings g
        join raw.manifests m on m.file_id = g.file_id and m.window_start_utc = g.window_start_utc
        where g.source = $1
          and g.ingested_at > $2
          and g.window_start_utc < $3
        order by m.window_start_utc desc"#,
        target.source,
        target.arrived_at,
        target.window
    )
    .fetch_all(&mut *connection)
    .await
    .context("could not read the older windows ingested after the file")?;
    if late.is_empty() || lots.is_empty() {
        return Ok(());
    }
    let rows = locate_rows(connection, target, lots).await?;
    let mut seen = HashSet::new();
    for manifest in late {
        let here: Vec<i64> = manifest_row_ids(connection, manifest.file_id, manifest.window)
            .await?
            .into_iter()
            .filter(|row_id| rows.contains_key(row_id) && seen.insert(*row_id))
            .collect();
        let order = read_version_order(connection, target, &here, &rows).await?;
        let (mut lots, mut hashes) = (Vec::new(), Vec::new());
        for row_id in here {
            if let (Some((lot, _)), Some((_, hash))) = (rows.get(&row_id), order.get(&row_id)) {
                lots.push(lot.to_string());
                hashes.push(*hash);
            }
        }
        sqlx::query!(
            "-- withdraw: sightings
            insert into staging.copart_raw (file_id, window_start_utc, lot_external_id, prev_hash, prev_seen)
            select $1, $2, u.lot, u.hash, $2
            from unnest($3::text[], $4::uuid[]) as u (lot, hash)",
            manifest.file_id,
            manifest.window,
            &lots,
            &hashes
        )
        .execute(&mut *connection)
        .await
        .context("could not record the sightings")?;
    }
    Ok(())
}
