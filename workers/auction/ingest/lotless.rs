//! Rows without a lot number, known by their hashes, so that each is stored and listed once however many files repeat
//! it.
//!
//! They have no head, since a head belongs to a lot. The number of loaded rows is bounded. If a source has more than
//! [`MAX_LOADED_ROWS`] such rows, the oldest are forgotten, and are stored again if they reappear.

use super::heads::LotHead;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Maximum number of rows loaded for a source, about 10 MB.
const MAX_LOADED_ROWS: i64 = 200_000;

/// The rows without a lot number in earlier files of a source, and those that the current file stores.
#[derive(Debug, Default)]
pub struct LotlessRows {
    /// The id of the version by hash, or 0 for another month, which a manifest cannot refer to.
    known: HashMap<Uuid, i64>,
    /// Rows stored by the current file: hash and id.
    stored: Vec<(Uuid, i64)>,
    /// The window of the oldest loaded row, if the source has too many rows.
    oldest_known: Option<DateTime<Utc>>,
}

impl LotlessRows {
    /// Loads the rows of `source` for a file of the month that begins at `month`.
    pub async fn load(
        connection: &mut PgConnection,
        source: &str,
        month: DateTime<Utc>,
    ) -> anyhow::Result<LotlessRows> {
        let rows = sqlx::query!(
            r#"-- ingest: rows without a lot number
            select
              row_hash,
              case when version_window >= $2 and version_window < $3 then row_id else 0 end as "row_id!",
              version_window
            from raw.lotless_rows
            where source = $1
            order by version_window desc
            limit $4"#,
            source,
            month,
            month + chrono::Months::new(1),
            MAX_LOADED_ROWS
        )
        .fetch_all(connection)
        .await
        .context("could not read raw.lotless_rows")?;
        let is_full = rows.len() as i64 == MAX_LOADED_ROWS;
        let oldest_known = rows.last().filter(|_| is_full).map(|row| row.version_window);
        let known = rows.into_iter().map(|row| (row.row_hash, row.row_id)).collect();
        Ok(LotlessRows { known, stored: Vec::new(), oldest_known })
    }

    /// Returns the version with this hash in the form of an unchanged head, or `None` for a new row.
    pub fn find_version(&self, row_hash: Uuid) -> Option<LotHead> {
        self.known.get(&row_hash).map(|row_id| LotHead::unchanged_version(row_hash, *row_id))
    }

    /// Records that the current file stores this row.
    pub fn record_stored(&mut self, row_hash: Uuid, row_id: i64) {
        self.known.insert(row_hash, row_id);
        self.stored.push((row_hash, row_id));
    }

    /// Writes the rows that the current file stored, and deletes rows not seen since before the month preceding
    /// `month`.
    ///
    /// A late file replaces no row of a newer one.
    pub async fn save_stored(
        self,
        connection: &mut PgConnection,
        source: &str,
        window: DateTime<Utc>,
        month: DateTime<Utc>,
        in_order: bool,
    ) -> anyhow::Result<()> {
        if self.known.is_empty() {
            return Ok(());
        }
        let (hashes, row_ids): (Vec<Uuid>, Vec<i64>) = self.stored.into_iter().unzip();
        if !hashes.is_empty() {
            sqlx::query!(
                r#"-- ingest: keep rows without a lot number
                insert into raw.lotless_rows as l (source, row_hash, row_id, version_window)
                select distinct on (s.row_hash) $1, s.row_hash, s.row_id, $4
                from unnest($2::uuid[], $3::bigint[]) as s (row_hash, row_id)
                order by s.row_hash, s.row_id
                on conflict (source, row_hash)
                do update set row_id = excluded.row_id, version_window = excluded.version_window
                where $5"#,
                source,
                &hashes,
                &row_ids,
                window,
                in_order
            )
            .execute(&mut *connection)
            .await
            .context("could not record the rows without a lot number")?;
        }
        if in_order {
            let stale = month - chrono::Months::new(1);
            sqlx::query!(
                "-- ingest: forget rows without a lot number
                delete from raw.lotless_rows where source = $1 and version_window < $2",
                source,
                self.oldest_known.map_or(stale, |oldest| oldest.max(stale))
            )
            .execute(connection)
            .await
            .context("could not delete old rows without a lot number")?;
        }
        Ok(())
    }
}
