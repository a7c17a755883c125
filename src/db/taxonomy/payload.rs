//! Maps raw values that are stored only in row versions: finds the lots of a value by the payload of their version.

use crate::auction::Column;
use crate::auction::hash::RowHasher;
use crate::auction::header::FeedHeader;
use crate::auction::mapping;
use crate::auction::payload::StoredRow;
use crate::taxonomy::{TaxonomyDomain, fold_text};
use anyhow::Context;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

/// Domain, feed column and code column of the values that are stored only in row versions.
const PAYLOAD_COLUMNS: [(TaxonomyDomain, Column, &str); 2] = [
    (TaxonomyDomain::HasKeys, Column::HasKeys, "has_keys_code"),
    (TaxonomyDomain::LotConditions, Column::LotConditionCode, "lot_condition_code"),
];

/// Lots with the raw value of their version, as `word`.
///
/// `$1` is their present code, `$2` the column's name in the version, `$3` the source. The version of a lot head is in
/// the month of its window. The version of a staged row is in the month of its file.
const LOT_VALUES_SQL: &str = "select l.id, r.payload_jsonb ->> $2 as word
    from public.lots l
    join raw.heads h on h.source = l.source and h.lot = l.lot_external_id::bigint and h.row_hash = l.row_hash
    join raw.rows r on r.id = h.row_id and r.window_start_utc >= date_trunc('month', h.version_window, 'UTC')
      and r.window_start_utc < date_trunc('month', h.version_window, 'UTC') + interval '1 month'
    where l.{column} is not distinct from $1 and l.source = $3";
/// Lots whose current version is not that of the lot head, with all their versions.
///
/// These are closed lots, and lots whose newest row lost to an older one. The current version is recognized by its
/// hash.
const OTHER_LOT_VALUES_SQL: &str = "select l.id, l.row_hash, v.header, v.payload, v.payload ->> $2 as word
    from public.lots l
    join raw.lot_versions v on v.source = l.source and v.lot = l.lot_external_id::bigint
    where l.{column} is not distinct from $1 and l.source = $3
      and not exists (
        select from raw.heads h
        where h.source = l.source and h.lot = l.lot_external_id::bigint and h.row_hash = l.row_hash)";
const STAGED_VALUES_SQL: &str = "select s.id, r.payload_jsonb ->> $2 as word
    from staging.copart_raw s
    join raw.csv_files f on f.file_id = s.file_id and f.state = 'ingested'
    join raw.rows r on r.id = s.row_id and r.window_start_utc >= date_trunc('month', s.window_start_utc, 'UTC')
      and r.window_start_utc < date_trunc('month', s.window_start_utc, 'UTC') + interval '1 month'
    where s.{column} is not distinct from $1 and f.source = $3";

/// Sets the code of the lots and staged rows that have the raw value. Returns the number of lots.
///
/// Only rows that have the code `before` can have the raw value.
pub async fn recode_from_payloads(
    connection: &mut PgConnection,
    domain: TaxonomyDomain,
    alias: &str,
    before: Option<&str>,
    code: &str,
) -> anyhow::Result<u64> {
    let Some((_, words, column)) = PAYLOAD_COLUMNS.into_iter().find(|(of, ..)| *of == domain) else {
        return Ok(0);
    };
    if before == Some(code) {
        return Ok(0);
    }
    let headers = sqlx::query!("-- taxonomy: headers\n select distinct source, headers_jsonb from raw.csv_files")
        .fetch_all(&mut *connection)
        .await
        .context("could not read the headers of the files")?;
    let mut names: Vec<(String, String)> = Vec::new();
    for row in headers {
        let header = serde_json::from_value(row.headers_jsonb).unwrap_or_default();
        let Ok(header) = FeedHeader::from_names(header, b"", mapping::mapping_for_source(&row.source)) else {
            continue;
        };
        names.extend(header.position(words).map(|place| (row.source, header.names()[place].clone())));
    }
    names.sort_unstable();
    names.dedup();
    let mut lots = 0;
    let also = dependent_assignments(column, "$4");
    for (source, name) in names {
        for (table, rows, further) in
            [("staging.copart_raw", STAGED_VALUES_SQL, ""), ("public.lots", LOT_VALUES_SQL, ", updated_at = now()")]
        {
            // table and column names are constants of this module
            let rows = rows.replace("{column}", column);
            let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
                "-- taxonomy: words of versions\n select distinct word from ({rows}) as u where word <> ''"
            )))
            .bind(before)
            .bind(&name)
            .bind(&source)
            .fetch_all(&mut *connection)
            .await
            .with_context(|| format!("could not read the raw values of {table}"))?;
            let these: Vec<String> = spelled.into_iter().filter(|words| fold_text(words) == alias).collect();
            if these.is_empty() {
                continue;
            }
            let done = sqlx::query(AssertSqlSafe(format!(
                "-- taxonomy: code the rows by their versions
                update {table} t set {column} = $4{also}{further} from ({rows}) as u where u.word = any($5) and t.id = u.id"
            )))
            .bind(before)
            .bind(&name)
            .bind(&source)
            .bind(code)
            .bind(these)
            .execute(&mut *connection)
            .await
            .with_context(|| format!("could not update the codes of {table}"))?;
            lots += if table == "public.lots" { done.rows_affected() } else { 0 };
        }
        lots += recode_other_lots(connection, column, (&source, &name), alias, before, code).await?;
    }
    Ok(lots)
}

/// Returns the assignments that depend on the code, for an update with the parameter `code`. `has_keys` follows its
/// code.
fn dependent_assignments(column: &str, code: &str) -> String {
    match column {
        "has_keys_code" => {
            format!(", has_keys = case {code} when 'keys_yes' then true when 'keys_no' then false end")
        }
        _ => String::new(),
    }
}

/// A lot, the hash of its current version, and the header and payload of one of its versions.
type LotVersionRow = (i64, Uuid, Json<Vec<String>>, Json<Map<String, Value>>);

/// Sets the code of the lots whose current version is not that of the lot head. Returns the number of lots.
async fn recode_other_lots(
    connection: &mut PgConnection,
    column: &str,
    (source, name): (&str, &str),
    alias: &str,
    before: Option<&str>,
    code: &str,
) -> anyhow::Result<u64> {
    let rows = OTHER_LOT_VALUES_SQL.replace("{column}", column);
    // table and column names are constants of this module
    let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "-- taxonomy: words of other versions\n select distinct word from ({rows}) as u where word <> ''"
    )))
    .bind(before)
    .bind(name)
    .bind(source)
    .fetch_all(&mut *connection)
    .await
    .context("could not read the raw values of closed lots")?;
    let these: Vec<String> = spelled.into_iter().filter(|words| fold_text(words) == alias).collect();
    if these.is_empty() {
        return Ok(0);
    }
    let versions: Vec<LotVersionRow> = sqlx::query_as(AssertSqlSafe(format!(
        "-- taxonomy: versions of closed lots
            select id, row_hash, header, payload from ({rows}) as u where word = any($4) and row_hash is not null"
    )))
    .bind(before)
    .bind(name)
    .bind(source)
    .bind(these)
    .fetch_all(&mut *connection)
    .await
    .context("could not read the versions of closed lots")?;
    let mut standing = Vec::new();
    for (lot, row_hash, Json(header), Json(payload)) in versions {
        let kept = StoredRow::from_payload(header, &payload, mapping::mapping_for_source(source))
            .with_context(|| format!("could not parse a version of lot {lot}"))?;
        let record = kept.as_record();
        if RowHasher::new(record.header()).hash_row(&record) == row_hash.as_u128() {
            standing.push(lot);
        }
    }
    let done = sqlx::query(AssertSqlSafe(format!(
        "-- taxonomy: code closed lots
        update public.lots set {column} = $1{dependent_assignments}, updated_at = now() where id = any($2)",
        dependent_assignments = dependent_assignments(column, "$1")
    )))
    .bind(code)
    .bind(standing)
    .execute(connection)
    .await
    .context("could not update the codes of closed lots")?;
    Ok(done.rows_affected())
}
