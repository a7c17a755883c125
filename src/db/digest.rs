//! Hashes of `vehicles`, `lots` and their image links. Tests and operators compare them to check that two databases are
//! equal.
//!
//! The hashes exclude what may differ between equal histories: surrogate ids, statuses (which depend on when a window
//! was judged), row timestamps, and the newest window in which a version was seen.

use anyhow::Context;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

const EXCLUDED_COLUMNS: [&str; 5] = ["id", "status", "created_at", "updated_at", "seen_window"];
/// Hashes the open image links.
const IMAGES_DIGEST_SQL: &str = "-- digest: images
    select coalesce(md5(string_agg(md5(row(l.source, l.lot_external_id, i.vin, i.seq, i.variant, i.source_url)::text), ''
      order by l.lot_external_id collate \"C\", l.source collate \"C\", i.seq, i.variant collate \"C\")), md5('')), count(*)
    from public.images i
    join public.lots l on l.id = i.lot_id
    where i.valid_until is null";

/// Hashes of the contents, 32 hex digits each, with the number of rows that each hash covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataDigest {
    /// Hash of `vehicles`.
    pub vehicles: String,
    /// Number of rows of `vehicles`.
    pub vehicle_count: i64,
    /// Hash of `lots`.
    pub lots: String,
    /// Number of rows of `lots`.
    pub lot_count: i64,
    /// Hash of the open image links of lots.
    pub images: String,
    /// Number of open image links.
    pub image_count: i64,
}

/// Computes all hashes in one snapshot. Returns an error if the database is not reachable.
pub async fn compute_digest(pool: &PgPool) -> anyhow::Result<DataDigest> {
    let mut transaction = pool.begin().await.context("could not begin the transaction of the digest")?;
    sqlx::raw_sql("set transaction isolation level repeatable read, read only; set local timezone = 'UTC'")
        .execute(&mut *transaction)
        .await?;
    let (vehicles, vehicle_count) = digest_table(&mut transaction, "vehicles", "vin").await?;
    let (lots, lot_count) = digest_table(&mut transaction, "lots", "lot_external_id collate \"C\", t.source").await?;
    let (images, image_count) = sqlx::query_as(IMAGES_DIGEST_SQL)
        .fetch_one(&mut *transaction)
        .await
        .context("could not hash the image links")?;
    Ok(DataDigest { vehicles, vehicle_count, lots, lot_count, images, image_count })
}

async fn digest_table(connection: &mut PgConnection, name: &str, key: &str) -> anyhow::Result<(String, i64)> {
    let left_out: Vec<String> = EXCLUDED_COLUMNS.iter().map(|c| (*c).to_owned()).collect();
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
    .with_context(|| format!("could not read the columns of table {name}"))?;
    // the names come quoted from the catalog
    let sql = format!(
        "-- digest: {name}\n select coalesce(md5(string_agg(md5(row({columns})::text), '' order by t.{key} collate \"C\")), md5('')), \
         count(*) from public.{name} t"
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .with_context(|| format!("could not hash table {name}"))
}
