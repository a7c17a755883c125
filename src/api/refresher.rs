//! Refreshes the data in memory: polls once a second for writes, and reads the changed rows.
//!
//! Writes are detected by PostgreSQL's own statistics counters of the tables, which count every writer and follow a
//! commit within seconds. The ends of windows are polled directly as well, because API clients wait for them.

use super::ApiState;
use super::labels::TaxonomyLabels;
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// Interval between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Values of the change counters at one poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChangeCounters {
    lots: String,
    words: String,
    /// Number of deleted rows of lots and vehicles. Deletions require a full reload.
    deleted: i64,
}

impl ChangeCounters {
    async fn read_counters(connection: &mut PgConnection) -> anyhow::Result<ChangeCounters> {
        sqlx::query_as!(
            ChangeCounters,
            r#"-- api: was anything written
            with table_writes as (
              select
                n.nspname,
                pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) as written,
                pg_stat_get_tuples_deleted(c.oid) as deleted
              from pg_class as c
              join pg_namespace as n on n.oid = c.relnamespace
              where c.relkind = 'r'
                and (n.nspname = 'taxonomies' or (n.nspname = 'public' and c.relname in ('lots', 'vehicles')))
            ),
            window_updates as (
              select count(*) as windows, max(updated_at) as latest_update
              from fleet.windows
              where state in ('applied', 'incomplete', 'late')
            )
            select
              concat_ws(
                ' ',
                (select sum(written + deleted) from table_writes where nspname = 'public'),
                (select windows from window_updates),
                (select latest_update from window_updates),
                (select max(ended_at) from fleet.freshness)
              ) as "lots!",
              coalesce((select sum(written + deleted) from table_writes where nspname = 'taxonomies'), 0)::text as "words!",
              coalesce((select sum(deleted) from table_writes where nspname = 'public'), 0)::bigint as "deleted!""#
        )
        .fetch_one(connection)
        .await
        .context("could not read the change counters")
    }
}

/// Refreshes the data in memory until the API is dropped.
pub(super) async fn run_refresher(shared: Weak<ApiState>) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        // While the database is unreachable, the API serves the last state.
        if let Err(error) = shared.refresh_memory(false).await {
            tracing::warn!(error = format!("{error:#}"), "API refresh failed");
        }
    }
}

impl ApiState {
    /// Reads labels and lots if their counters changed since the last refresh, or always if `any` is true.
    pub(super) async fn refresh_memory(&self, any: bool) -> anyhow::Result<()> {
        let mut known = self.counters.lock().await;
        let mut connection = self.pool.acquire().await.context("could not acquire a database connection")?;
        let signs = ChangeCounters::read_counters(&mut connection).await?;
        if any || signs.words != known.words {
            let mut tx = connection.begin_with(super::BEGIN_READ_ONLY).await?;
            let words = TaxonomyLabels::load(&mut tx).await?;
            tx.commit().await?;
            *self.labels.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(words);
        }
        if any || signs.lots != known.lots {
            let last = match signs.deleted == known.deleted {
                true => self.catalogue(),
                false => Arc::default(),
            };
            let mut tx = connection.begin_with(super::BEGIN_READ_ONLY).await?;
            let next = last.load_next(&mut tx).await?;
            tx.commit().await?;
            tracing::debug!(lots = next.len(), "catalogue refreshed");
            *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        *known = signs;
        Ok(())
    }
}
