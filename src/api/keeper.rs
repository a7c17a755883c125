//! Keeps what is in memory up to date: looks once a second whether anything was written, and reads it if so.
//!
//! Whether something was written is told by the server's own counters of the tables, whoever wrote; they follow a commit
//! within seconds. A window's end is looked at besides, since it is what readers wait for.

use super::Shared;
use super::words::Words;
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// What the server's counters said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    lots: String,
    words: String,
    /// Rows of lots and vehicles that were deleted: those must be looked for everywhere.
    deleted: i64,
}

impl Signs {
    async fn look(connection: &mut PgConnection) -> anyhow::Result<Signs> {
        sqlx::query_as!(
            Signs,
            r#"-- api: was anything written
            with counted as (
              select
                n.nspname,
                pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) as written,
                pg_stat_get_tuples_deleted(c.oid) as deleted
              from pg_class as c
              join pg_namespace as n on n.oid = c.relnamespace
              where c.relkind = 'r'
                and (n.nspname = 'taxonomies' or (n.nspname = 'public' and c.relname in ('lots', 'vehicles')))
            ),
            ended as (
              select count(*) as windows, max(updated_at) as latest
              from fleet.windows
              where state in ('applied', 'incomplete', 'late')
            )
            select
              concat_ws(
                ' ',
                (select sum(written + deleted) from counted where nspname = 'public'),
                (select windows from ended),
                (select latest from ended),
                (select max(ended_at) from fleet.freshness)
              ) as "lots!",
              coalesce((select sum(written + deleted) from counted where nspname = 'taxonomies'), 0)::text as "words!",
              coalesce((select sum(deleted) from counted where nspname = 'public'), 0)::bigint as "deleted!""#
        )
        .fetch_one(connection)
        .await
        .context("look whether anything was written")
    }
}

/// Looks until nobody serves any more.
pub(super) async fn keep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(shared) = shared.upgrade() else { return };
        // a database that is away comes back; until then the last state is served
        if let Err(error) = shared.refresh(false).await {
            tracing::warn!(error = format!("{error:#}"), "the API's memory is not up to date");
        }
    }
}

impl Shared {
    /// Reads what has changed since the last time, if there is a sign of it or in any case.
    pub(super) async fn refresh(&self, any: bool) -> anyhow::Result<()> {
        let mut known = self.signs.lock().await;
        let mut connection = self.pool.acquire().await.context("take a connection")?;
        let signs = Signs::look(&mut connection).await?;
        if any || signs.words != known.words {
            let mut tx = connection.begin_with(super::BEGIN).await?;
            let words = Words::load(&mut tx).await?;
            tx.commit().await?;
            *self.words.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(words);
        }
        if any || signs.lots != known.lots {
            let last = match signs.deleted == known.deleted {
                true => self.catalogue(),
                false => Arc::default(),
            };
            let mut tx = connection.begin_with(super::BEGIN).await?;
            let next = last.next(&mut tx).await?;
            tx.commit().await?;
            tracing::debug!(lots = next.len(), "the catalogue is up to date");
            *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        }
        *known = signs;
        Ok(())
    }
}
