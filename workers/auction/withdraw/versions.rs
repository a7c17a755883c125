//! Reads the stored versions of lots as far as a withdrawal needs them.

use super::WithdrawnFile;
use crate::auction::Column;
use crate::auction::hash::RowHasher;
use crate::auction::header::FeedHeader;
use crate::auction::instant::parse_update_time;
use crate::auction::mapping;
use crate::auction::payload::StoredRow;
use crate::auction::version::version_time;
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use uuid::Uuid;

/// The number of payloads in memory at once.
const ROW_BATCH_SIZE: usize = 2_000;

/// The lot of each row and the window that stored it, by row id.
pub type RowLocations = HashMap<i64, (i64, DateTime<Utc>)>;

/// Returns the stored versions of the given lots: the lot of each row and the window that stored it.
pub async fn locate_rows(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    lots: &[i64],
) -> anyhow::Result<RowLocations> {
    let rows = sqlx::query!(
        r#"-- withdraw: versions of lots
        select r.id, r.lot as "lot!", r.window_start_utc as window
        from raw.rows r
        join raw.csv_files f on f.file_id = r.file_id
        where f.source = $1
          and r.lot = any ($2)"#,
        target.source,
        lots
    )
    .fetch_all(connection)
    .await
    .context("could not read the versions of lots")?;
    Ok(rows.into_iter().map(|row| (row.id, (row.lot, row.window))).collect())
}

/// Reads rows and returns the version order of each: time and hash.
pub async fn read_version_order(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    row_ids: &[i64],
    windows: &RowLocations,
) -> anyhow::Result<HashMap<i64, (DateTime<Utc>, Uuid)>> {
    let mut headers: HashMap<Uuid, (FeedHeader, RowHasher)> = HashMap::new();
    let mut order = HashMap::with_capacity(row_ids.len());
    for row_ids in row_ids.chunks(ROW_BATCH_SIZE) {
        let rows = sqlx::query!(
            "-- withdraw: rows
            select id, file_id, payload_jsonb
            from raw.rows
            where id = any ($1)",
            row_ids
        )
        .fetch_all(&mut *connection)
        .await
        .context("could not read row versions")?;
        for row in rows {
            let Value::Object(payload) = row.payload_jsonb else { continue };
            let (header, hasher) = match headers.entry(row.file_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let header = read_header(connection, target, row.file_id, &payload).await?;
                    let hasher = RowHasher::new(&header);
                    place.insert((header, hasher))
                }
            };
            let kept = StoredRow::with_header(header.clone(), &payload);
            let record = kept.as_record();
            let hash = Uuid::from_u128(hasher.hash_row(&record));
            let window = windows.get(&row.id).map_or(target.window, |(_, window)| *window);
            let (at, _) = version_time(parse_update_time(record.get(Column::LastUpdatedTime).trim()), window);
            order.insert(row.id, (at, hash));
        }
    }
    Ok(order)
}

/// Reads the header of a file, once per file, since that takes longer than reading a row.
async fn read_header(
    connection: &mut PgConnection,
    target: &WithdrawnFile,
    file_id: Uuid,
    payload: &Map<String, Value>,
) -> anyhow::Result<FeedHeader> {
    let names = sqlx::query_scalar!(
        "-- withdraw: header\n select headers_jsonb from raw.csv_files where file_id = $1",
        file_id
    )
    .fetch_one(connection)
    .await
    .context("could not read the header of a file")?;
    let mut names: Vec<String> = serde_json::from_value(names).context("could not parse the header of a file")?;
    if names.is_empty() {
        // Another program registered the file without its header.
        names = payload.keys().cloned().collect();
    }
    let first_line = names.join(",");
    Ok(FeedHeader::from_names(names, first_line.as_bytes(), mapping::mapping_for_source(&target.source))?)
}
