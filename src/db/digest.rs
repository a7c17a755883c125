//! The content of `vehicles` and `lots` as two hashes, by which two ways of getting there are proved equal.
//!
//! Left out is what may differ between equal histories: surrogate ids, statuses (they depend on when a window was
//! judged), row timestamps, and how long a version is known to have been seen.

use anyhow::Context;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

const LEFT_OUT: [&str; 5] = ["id", "status", "created_at", "updated_at", "seen_window"];

/// Hashes of the contents, 32 hex digits each, and how many rows they cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Digest {
    /// Of `vehicles`.
    pub vehicles: String,
    /// Rows of `vehicles`.
    pub vehicle_count: i64,
    /// Of `lots`.
    pub lots: String,
    /// Rows of `lots`.
    pub lot_count: i64,
}

/// Computes both hashes in one snapshot.
pub async fn digest(pool: &PgPool) -> anyhow::Result<Digest> {
    let mut transaction = pool.begin().await.context("connect to digest the data")?;
    sqlx::raw_sql("set transaction isolation level repeatable read, read only; set local timezone = 'UTC'")
        .execute(&mut *transaction)
        .await?;
    let (vehicles, vehicle_count) = table(&mut transaction, "vehicles", "vin").await?;
    let (lots, lot_count) = table(&mut transaction, "lots", "lot_external_id").await?;
    Ok(Digest { vehicles, vehicle_count, lots, lot_count })
}

async fn table(connection: &mut PgConnection, name: &str, key: &str) -> anyhow::Result<(String, i64)> {
    let left_out: Vec<String> = LEFT_OUT.iter().map(|c| (*c).to_owned()).collect();
    let columns = sqlx::query_scalar!(
        r#"-- digest: columns
        select string_agg(format('t.%I', column_name), ', ' order by column_name) as "columns!"
        from information_schema.columns
        where table_schema = 'public' and table_name = $1 and column_name <> all($2)"#,
        name,
        &left_out
    )
    .fetch_one(&mut *connection)
    .await
    .with_context(|| format!("read the columns of {name}"))?;
    // names come from the catalogue, quoted
    let sql = format!(
        "-- digest: {name}\n select coalesce(md5(string_agg(md5(row({columns})::text), '' order by t.{key} collate \"C\")), md5('')), \
         count(*) from public.{name} t"
    );
    sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await.with_context(|| format!("digest {name}"))
}
