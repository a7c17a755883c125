//! Words of lots that only their row versions hold: to map one is to look there for those that have it.

use crate::auction::Column;
use crate::auction::hash::RowHasher;
use crate::auction::header::Header;
use crate::auction::mapping;
use crate::auction::payload::Kept;
use crate::taxonomy::{Domain, fold};
use anyhow::Context;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// Domain, column of the feed, and that of its code: words that only row versions hold.
const PAYLOAD: [(Domain, Column, &str); 2] = [
    (Domain::HasKeys, Column::HasKeys, "has_keys_code"),
    (Domain::LotConditions, Column::LotConditionCode, "lot_condition_code"),
];

/// Rows with the word of their version, as `word`; `$1` is their code until now, `$2` the column's name in the version,
/// `$3` the source.
/// A head's version lies in the month of its window, a staged row's in that of its file.
const OF_LOTS: &str = "select l.id, r.payload_jsonb ->> $2 as word
    from public.lots l
    join raw.heads h on h.source = l.source and h.lot = l.lot_external_id::bigint and h.row_hash = l.row_hash
    join raw.rows r on r.id = h.row_id and r.window_start_utc >= date_trunc('month', h.version_window, 'UTC')
      and r.window_start_utc < date_trunc('month', h.version_window, 'UTC') + interval '1 month'
    where l.{column} is not distinct from $1 and l.source = $3";
/// The same of lots whose standing version is no head's: closed ones, and those whose newest row lost to an older. Every
/// version of theirs; the one that stands is known by its hash.
const OF_OTHERS: &str = "select l.id, l.row_hash, v.header, v.payload, v.payload ->> $2 as word
    from public.lots l
    join raw.lot_versions v on v.source = l.source and v.lot = l.lot_external_id::bigint
    where l.{column} is not distinct from $1 and l.source = $3
      and not exists (
        select from raw.heads h
        where h.source = l.source and h.lot = l.lot_external_id::bigint and h.row_hash = l.row_hash)";
const OF_STAGED: &str = "select s.id, r.payload_jsonb ->> $2 as word
    from staging.copart_raw s
    join raw.csv_files f on f.file_id = s.file_id and f.state = 'ingested'
    join raw.rows r on r.id = s.row_id and r.window_start_utc >= date_trunc('month', s.window_start_utc, 'UTC')
      and r.window_start_utc < date_trunc('month', s.window_start_utc, 'UTC') + interval '1 month'
    where s.{column} is not distinct from $1 and f.source = $3";

/// Codes the lots that have the spelling, and what is staged and yet to be applied; tells how many lots. Only rows whose
/// code is what the spelling meant before can have it.
pub async fn recode(
    connection: &mut PgConnection,
    domain: Domain,
    spelling: &str,
    before: Option<&str>,
    code: &str,
) -> anyhow::Result<u64> {
    let Some((_, words, column)) = PAYLOAD.into_iter().find(|(of, ..)| *of == domain) else { return Ok(0) };
    if before == Some(code) {
        return Ok(0);
    }
    let headers =
        sqlx::query!("-- vocabulary: headers\n select distinct source, headers_jsonb from raw.csv_files")
            .fetch_all(&mut *connection)
            .await
            .context("read the files' headers")?;
    let mut names: Vec<(String, String)> = Vec::new();
    for row in headers {
        let header = serde_json::from_value(row.headers_jsonb).unwrap_or_default();
        let Ok(header) = Header::map(header, b"", mapping::for_source(&row.source)) else { continue };
        names.extend(header.place(words).map(|place| (row.source, header.names()[place].clone())));
    }
    names.sort_unstable();
    names.dedup();
    let mut lots = 0;
    let also = also(column, "$4");
    for (source, name) in names {
        for (table, rows, besides) in
            [("staging.copart_raw", OF_STAGED, ""), ("public.lots", OF_LOTS, ", updated_at = now()")]
        {
            // table and columns are this module's own
            let rows = rows.replace("{column}", column);
            let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
                "-- vocabulary: words of versions\n select distinct word from ({rows}) as u where word <> ''"
            )))
            .bind(before)
            .bind(&name)
            .bind(&source)
            .fetch_all(&mut *connection)
            .await
            .with_context(|| format!("read the words of {table}"))?;
            let these: Vec<String> = spelled.into_iter().filter(|words| fold(words) == spelling).collect();
            if these.is_empty() {
                continue;
            }
            let done = sqlx::query(AssertSqlSafe(format!(
                "-- vocabulary: code the rows by their versions
                update {table} t set {column} = $4{also}{besides} from ({rows}) as u where u.word = any($5) and t.id = u.id"
            )))
            .bind(before)
            .bind(&name)
            .bind(&source)
            .bind(code)
            .bind(these)
            .execute(&mut *connection)
            .await
            .with_context(|| format!("code the rows of {table}"))?;
            lots += if table == "public.lots" { done.rows_affected() } else { 0 };
        }
        lots += others(connection, column, (&source, &name), spelling, before, code).await?;
    }
    Ok(lots)
}

/// Returns what an update sets beside the code, which is the parameter `code`: the boolean of the keys follows it.
fn also(column: &str, code: &str) -> String {
    match column {
        "has_keys_code" => {
            format!(", has_keys = case {code} when 'keys_yes' then true when 'keys_no' then false end")
        }
        _ => String::new(),
    }
}

/// A lot, the hash of the version that stands, and a version's header and record.
type Version = (i64, Uuid, Json<Vec<String>>, Json<Map<String, Value>>);

/// Codes the lots whose standing version is no head's.
async fn others(
    connection: &mut PgConnection,
    column: &str,
    (source, name): (&str, &str),
    spelling: &str,
    before: Option<&str>,
    code: &str,
) -> anyhow::Result<u64> {
    let rows = OF_OTHERS.replace("{column}", column);
    // table and columns are this module's own
    let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "-- vocabulary: words of other versions\n select distinct word from ({rows}) as u where word <> ''"
    )))
    .bind(before)
    .bind(name)
    .bind(source)
    .fetch_all(&mut *connection)
    .await
    .context("read the words of closed lots")?;
    let these: Vec<String> = spelled.into_iter().filter(|words| fold(words) == spelling).collect();
    if these.is_empty() {
        return Ok(0);
    }
    let versions: Vec<Version> =
        sqlx::query_as(AssertSqlSafe(format!(
            "-- vocabulary: versions of closed lots
            select id, row_hash, header, payload from ({rows}) as u where word = any($4) and row_hash is not null"
        )))
        .bind(before)
        .bind(name)
        .bind(source)
        .bind(these)
        .fetch_all(&mut *connection)
        .await
        .context("read the versions of closed lots")?;
    let mut standing = Vec::new();
    for (lot, row_hash, Json(header), Json(payload)) in versions {
        let kept = Kept::read(header, &payload, mapping::for_source(source))
            .with_context(|| format!("read a version of lot {lot}"))?;
        let record = kept.record();
        if RowHasher::new(record.header()).hash(&record) == row_hash.as_u128() {
            standing.push(lot);
        }
    }
    let done = sqlx::query(AssertSqlSafe(format!(
        "-- vocabulary: code closed lots
        update public.lots set {column} = $1{also}, updated_at = now() where id = any($2)",
        also = also(column, "$1")
    )))
    .bind(code)
    .bind(standing)
    .execute(connection)
    .await
    .context("code the closed lots")?;
    Ok(done.rows_affected())
}
