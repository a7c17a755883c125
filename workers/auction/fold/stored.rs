//! Reads the stored versions of lots.

use super::LotKey;
use crate::auction::hash::RowHasher;
use crate::auction::header::FeedHeader;
use crate::auction::mapping;
use crate::auction::payload::StoredRow;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The stored versions of lots, by lot.
pub type VersionsByLot = BTreeMap<LotKey, Vec<StoredVersion>>;

/// A distinct version of a lot.
pub struct StoredVersion {
    /// The source of the lot.
    pub source: String,
    /// The lot number.
    pub lot: i64,
    /// The row hash.
    pub hash: Uuid,
    /// The first window known to contain the version.
    pub first_window: DateTime<Utc>,
    /// The newest window known to contain the version.
    pub last_window: DateTime<Utc>,
    /// The newest window that stored the version.
    pub stored_window: DateTime<Utc>,
    /// The stored row.
    pub row: StoredRow,
}

/// Reads every version of the given lots, by lot.
///
/// A version is stored in the first window that contains it, once more in each month, and again whenever it reappears.
/// The time until which it was seen is known for the lot's head, for the row in `lots`, and for the versions that
/// staged rows replaced.
pub async fn read_versions(connection: &mut PgConnection, lots: &[LotKey]) -> anyhow::Result<VersionsByLot> {
    let sources: Vec<String> = lots.iter().map(|(source, _)| source.clone()).collect();
    let numbers: Vec<i64> = lots.iter().map(|(_, lot)| *lot).collect();
    let rows = sqlx::query_file!("workers/auction/fold/versions.sql", &sources, &numbers)
        .fetch_all(&mut *connection)
        .await
        .context("could not read the stored versions of lots")?;
    let mut versions = VersionsByLot::new();
    let mut headers: HashMap<Uuid, (FeedHeader, RowHasher)> = HashMap::new();
    for row in rows {
        let Value::Object(payload) = row.payload else { continue };
        // Mapping a header takes longer than reading a row.
        let (header, hasher) = match headers.entry(row.file_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let mut names: Vec<String> =
                    serde_json::from_value(row.header).context("could not parse the header of a file")?;
                if names.is_empty() {
                    // Another program registered the file without its header.
                    names = payload.keys().cloned().collect();
                }
                let first_line = names.join(",");
                let header =
                    FeedHeader::from_names(names, first_line.as_bytes(), mapping::mapping_for_source(&row.source))
                        .with_context(|| format!("could not read row version {}", row.row_id))?;
                let hasher = RowHasher::new(&header);
                place.insert((header, hasher))
            }
        };
        let kept = StoredRow::with_header(header.clone(), &payload);
        let record = kept.as_record();
        let hash = Uuid::from_u128(hasher.hash_row(&record));
        let of_lot = versions.entry((row.source.clone(), row.lot)).or_default();
        match of_lot.iter_mut().find(|version| version.hash == hash) {
            Some(version) => {
                version.first_window = version.first_window.min(row.window);
                version.last_window = version.last_window.max(row.window);
                version.stored_window = version.last_window;
            }
            None => of_lot.push(StoredVersion {
                source: row.source,
                lot: row.lot,
                hash,
                first_window: row.window,
                last_window: row.window,
                stored_window: row.window,
                row: kept,
            }),
        }
    }
    for ((source, lot, hash), seen) in last_seen(connection, &sources, &numbers).await? {
        let of_lot = versions.get_mut(&(source, lot)).map(Vec::as_mut_slice).unwrap_or_default();
        for version in of_lot.iter_mut().filter(|version| version.hash == hash) {
            version.last_window = version.last_window.max(seen);
        }
    }
    Ok(versions)
}

/// Returns the last window in which versions of these lots were seen, as far as known.
async fn last_seen(
    connection: &mut PgConnection,
    sources: &[String],
    lots: &[i64],
) -> anyhow::Result<HashMap<(String, i64, Uuid), DateTime<Utc>>> {
    let rows = sqlx::query_file!("workers/auction/fold/last_seen.sql", sources, lots)
        .fetch_all(connection)
        .await
        .context("could not read when versions were last seen")?;
    Ok(rows.into_iter().map(|row| ((row.source, row.lot, row.hash), row.seen)).collect())
}

/// Returns, by VIN, the lots that have or had the vehicle.
pub async fn lots_of_vehicles(
    connection: &mut PgConnection,
    vins: &[String],
) -> anyhow::Result<BTreeMap<String, Vec<LotKey>>> {
    let rows = sqlx::query_file!("workers/auction/fold/lots_of_vehicles.sql", vins)
        .fetch_all(connection)
        .await
        .context("could not read the lots of vehicles")?;
    let mut lots: BTreeMap<String, Vec<LotKey>> = BTreeMap::new();
    for row in rows {
        lots.entry(row.vin).or_default().push((row.source, row.lot));
    }
    Ok(lots)
}

/// Returns the lots in a file's manifest for a window, in ascending order.
pub async fn lots_of_manifest(
    connection: &mut PgConnection,
    file_id: Uuid,
    window: DateTime<Utc>,
) -> anyhow::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"-- fold: the lots of a file
        select distinct r.lot as "lot!"
        from raw.manifests m
        cross join unnest(m.row_ids) as u (row_id)
        join raw.rows r
          on r.id = u.row_id
          and r.window_start_utc >= date_trunc('month', m.window_start_utc, 'UTC')
          and r.window_start_utc < date_trunc('month', m.window_start_utc, 'UTC') + interval '1 month'
        where m.file_id = $1
          and m.window_start_utc = $2
          and r.lot is not null
        order by r.lot"#,
        file_id,
        window
    )
    .fetch_all(connection)
    .await
    .context("could not read the lots of a file")
}
