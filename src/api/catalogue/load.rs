//! Reads the catalogue from the database: all lots at first, then the changed lots.
//!
//! A row changed since the last read if its transaction had not ended at that time. Each read therefore stores its
//! horizon, the oldest running transaction, and the next read selects the rows whose `xmin` is not older. This method
//! needs no column and no index, detects the writes of every program, and reads few rows twice. Deleted rows leave no
//! trace. If the refresher detects deletions, it reads all lots again.

use super::order::{SORT_KEYS, SortedLots};
use super::{ColumnValue, DIMENSIONS, LotCatalogue, MODEL_YEARS, NO_VALUE, NO_YEAR, ValueDictionary, VinBytes};
use crate::config;
use anyhow::Context;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::HashSet;
use std::sync::Arc;

/// Number of lots read by one statement, so that other requests are served between statements.
const CHUNK_LOTS: usize = 500;

/// Columns of a lot and its vehicle that the catalogue contains.
#[derive(Debug)]
pub struct CatalogueRow {
    pub id: i64,
    pub lot: i64,
    pub vin: String,
    pub hidden: bool,
    pub status: Option<String>,
    pub damage_description: Option<String>,
    pub damage_code: Option<String>,
    pub secondary_damage: Option<String>,
    pub secondary_damage_code: Option<String>,
    pub title_type: Option<String>,
    pub title_state: Option<String>,
    pub sale_type: Option<String>,
    pub sale_type_code: Option<String>,
    pub has_keys_code: Option<String>,
    pub runs_drives: Option<String>,
    pub lot_condition_code: Option<String>,
    pub vehicle_type: Option<String>,
    pub odometer_brand: Option<String>,
    pub site_code: Option<String>,
    pub yard_name: Option<String>,
    pub region: Option<String>,
    pub country: Option<String>,
    pub price: Option<i64>,
    pub sale: Option<DateTime<Utc>>,
    pub updated_at: DateTime<Utc>,
    pub year: Option<i32>,
    pub make: Option<String>,
    pub model: Option<String>,
    pub body: Option<String>,
    pub fuel: Option<String>,
    pub transmission: Option<String>,
    pub drive: Option<String>,
    pub color: Option<String>,
}

impl LotCatalogue {
    /// Returns a copy of the catalogue with the changes since its read. An empty catalogue reads all lots.
    ///
    /// The connection must be in a transaction with one snapshot (repeatable read).
    pub async fn load_next(self: Arc<Self>, connection: &mut PgConnection) -> anyhow::Result<LotCatalogue> {
        let horizon = self.horizon.clone();
        let copied = tokio::task::spawn_blocking(move || LotCatalogue::clone(&self)).await;
        let mut next = copied.context("could not copy the catalogue")?;
        next.dictionaries.resize(DIMENSIONS.len(), ValueDictionary::default());
        next.columns.resize(DIMENSIONS.len(), Vec::new());
        let stand = sqlx::query!(
            r#"-- api: stand of the catalogue
            select
              pg_snapshot_xmin(pg_current_snapshot())::xid::text as "horizon!",
              (select max(last_good_window) from fleet.freshness) as newest"#
        )
        .fetch_one(&mut *connection)
        .await
        .context("could not read the horizon of the catalogue")?;
        let changed = sqlx::query_scalar!(
            r#"-- api: changed lots
            select l.id as "id!" from public.lots as l where $1::text is null or age(l.xmin) <= age($1::text::xid)
            union
            select l.id
            from public.vehicles as v
            join public.lots as l on l.vin = v.vin
            where $1::text is not null and age(v.xmin) <= age($1::text::xid)"#,
            horizon
        )
        .fetch_all(&mut *connection)
        .await
        .context("could not read the ids of the changed lots")?;
        let mut touched = HashSet::with_capacity(changed.len());
        for ids in changed.chunks(CHUNK_LOTS) {
            let rows = sqlx::query_file_as!(CatalogueRow, "src/api/catalogue/load.sql", ids)
                .fetch_all(&mut *connection)
                .await
                .context("could not read lots for the catalogue")?;
            // About a millisecond per chunk. Other tasks run between chunks.
            for row in &rows {
                touched.insert(next.store_row(row));
            }
        }
        next.horizon = Some(stand.horizon);
        next.window = stand.newest;
        next.read_at = config::now();
        tokio::task::spawn_blocking(move || next.update_orders(&touched)).await.context("could not sort the catalogue")
    }

    /// Writes a lot to its slot, or to a new slot if it has none. Returns the slot.
    fn store_row(&mut self, row: &CatalogueRow) -> u32 {
        let slot = match self.slots.get(&row.id) {
            Some(slot) => *slot,
            None => self.add_slot(row.id),
        };
        let at = slot as usize;
        for (place, dimension) in DIMENSIONS.iter().enumerate() {
            self.columns[place][at] = self.dictionaries[place].intern((dimension.word)(row));
        }
        let name = [&row.make, &row.model].into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
        let name = (!name.is_empty()).then(|| name.join(" "));
        self.name[at] = self.names.intern(ColumnValue { raw: name, ..ColumnValue::default() });
        self.lots[at] = row.lot;
        self.vins[at] = pack_vin(&row.vin);
        self.years[at] = row.year.filter(|year| MODEL_YEARS.contains(year)).unwrap_or(NO_YEAR);
        self.prices[at] = row.price.unwrap_or(NO_VALUE);
        self.sales[at] = row.sale.map_or(NO_VALUE, |at| at.timestamp_micros());
        self.updates[at] = row.updated_at.timestamp_micros();
        self.visible[at] = !row.hidden;
        slot
    }

    fn add_slot(&mut self, id: i64) -> u32 {
        let slot = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.push(id);
        self.columns.iter_mut().for_each(|column| column.push(0));
        self.name.push(0);
        self.lots.push(0);
        self.vins.push([0; 17]);
        self.years.push(NO_YEAR);
        self.prices.push(NO_VALUE);
        self.sales.push(NO_VALUE);
        self.updates.push(NO_VALUE);
        self.visible.push(false);
        self.slots.insert(id, slot);
        slot
    }

    /// Updates the sort orders. Only touched lots move.
    fn update_orders(mut self, touched: &HashSet<u32>) -> LotCatalogue {
        let mut orders = std::mem::take(&mut self.orders);
        orders.resize(SORT_KEYS.len(), SortedLots::default());
        for (order, sort) in orders.iter_mut().zip(SORT_KEYS) {
            order.update_slots(&self, *sort, touched);
        }
        self.orders = orders;
        self
    }

    /// Returns true if the lot in a slot is visible.
    pub(super) fn is_visible(&self, slot: u32) -> bool {
        self.visible[slot as usize]
    }
}

fn pack_vin(text: &str) -> VinBytes {
    let mut vin = [0; 17];
    let length = text.len().min(vin.len());
    vin[..length].copy_from_slice(&text.as_bytes()[..length]);
    vin
}
