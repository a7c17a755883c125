//! Sizes of the database by relation and of the store, and their growth per window.

use super::server::{BenchDatabase, execute_statement};
use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Sizes of the database and the store at one time, in bytes.
pub struct StorageSize {
    database: i64,
    store: i64,
    /// Size by table, including indexes and TOAST.
    relations: BTreeMap<String, i64>,
}

/// Growth per window, in MB (10^6 bytes), averaged over `windows`.
#[derive(Clone, Debug, Serialize)]
pub struct StorageGrowth {
    /// Number of windows.
    pub windows: u32,
    /// Growth of database and store together.
    pub total_mb: f64,
    /// Growth of the database.
    pub database_mb: f64,
    /// Growth of the store.
    pub store_mb: f64,
    /// Up to ten relations with the largest growth of table, indexes and TOAST, the largest first.
    pub relations: Vec<(String, f64)>,
}

impl StorageSize {
    /// Vacuums and analyses the changed tables, as autovacuum would within the quarter-hour, then measures the sizes.
    pub async fn measure_vacuumed(bench_database: &BenchDatabase) -> anyhow::Result<StorageSize> {
        let mut session = bench_database.open_session().await?;
        let changed = sqlx::query_scalar!(
            r#"-- bench: changed tables
            select relid::regclass::text as "name!"
            from pg_stat_user_tables
            where n_mod_since_analyze > 0 or n_dead_tup > 0
            order by 1"#
        )
        .fetch_all(&mut session)
        .await
        .context("could not read the changed tables")?;
        for name in changed {
            // The name is quoted by regclass.
            execute_statement(&mut session, format!("vacuum (analyze) {name}")).await?;
        }
        execute_statement(&mut session, "checkpoint".to_owned()).await?;
        let database = sqlx::query_scalar!(
            r#"-- bench: size of the database
            select pg_database_size(current_database()) as "bytes!""#
        )
        .fetch_one(&mut session)
        .await
        .context("could not read the size of the database")?;
        let relations = sqlx::query!(
            r#"-- bench: size of the relations
            select c.oid::regclass::text as "name!", pg_total_relation_size(c.oid) as "bytes!"
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'm')
              and n.nspname <> 'information_schema'
              and n.nspname !~ '^pg_'"#
        )
        .fetch_all(&mut session)
        .await
        .context("could not read the sizes of the relations")?;
        Ok(StorageSize {
            database,
            store: folder_bytes(bench_database.store_folder())?,
            relations: relations.into_iter().map(|relation| (relation.name, relation.bytes)).collect(),
        })
    }

    /// Returns the growth per window since `before`, averaged over `windows`.
    pub fn growth_since(&self, before: &StorageSize, windows: u32) -> StorageGrowth {
        let each = |bytes: i64| bytes as f64 / 1e6 / f64::from(windows.max(1));
        let grown = |(name, bytes): (&String, &i64)| {
            let grown = bytes - before.relations.get(name).copied().unwrap_or(0);
            (grown != 0).then(|| (name.clone(), each(grown)))
        };
        let mut relations: Vec<(String, f64)> = self.relations.iter().filter_map(grown).collect();
        relations.sort_by(|a, b| b.1.total_cmp(&a.1));
        relations.truncate(10);
        let (database, store) = (self.database - before.database, self.store - before.store);
        StorageGrowth {
            windows,
            total_mb: each(database + store),
            database_mb: each(database),
            store_mb: each(store),
            relations,
        }
    }
}

/// Returns the total size of all files in a folder and its subfolders, in bytes.
fn folder_bytes(path: &Path) -> anyhow::Result<i64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).with_context(|| format!("could not read the folder {}", path.display()))? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { folder_bytes(&entry.path())? } else { i64::try_from(about.len())? };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_per_window_and_the_greatest_first() {
        let size = |database, store, rows, heads| StorageSize {
            database,
            store,
            relations: BTreeMap::from([("raw.rows".to_owned(), rows), ("raw.heads".to_owned(), heads)]),
        };
        let growth = size(60_000_000, 50_000_000, 30_000_000, 9_000_000)
            .growth_since(&size(20_000_000, 10_000_000, 8_000_000, 5_000_000), 2);
        assert_eq!((growth.total_mb, growth.database_mb, growth.store_mb), (40.0, 20.0, 20.0));
        assert_eq!(growth.relations, [("raw.rows".to_owned(), 11.0), ("raw.heads".to_owned(), 2.0)]);
    }
}
