//! Taxonomies of a database: the aliases by which jobs read the feed, and the operator commands that edit aliases and
//! labels.
//!
//! **A mapped alias also applies to rows that exist.** Files ingested later are read with the alias, and existing rows
//! with the raw value get their code in the same transaction. The transaction first locks the sources, as every job of
//! a chain does. So a concurrent ingest that read the older aliases has either finished, and its staged rows get the
//! code too, or has not begun. The change log is not written, since the feed has not changed.
//!
//! A column gets codes here if its raw value is stored in the same row and the upserts write its code
//! (`CODED_COLUMNS`). The raw values of a lot's keys and condition are stored only in the payload of the row version
//! (module `payload`).

use super::catalogue::{ActionAuthor, CatalogueAction, record_action};
use crate::taxonomy::{AliasIndex, MAX_ALIAS_BYTES, TaxonomyDomain, fold_text};
use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

mod payload;

/// Domain, raw value column and code column. The columns are the same in `public.lots` and `staging.copart_raw`.
const CODED_COLUMNS: [(TaxonomyDomain, &str, &str); 3] = [
    (TaxonomyDomain::DamageTypes, "damage_description", "damage_code"),
    (TaxonomyDomain::DamageTypes, "secondary_damage", "secondary_damage_code"),
    (TaxonomyDomain::SaleTypes, "sale_type", "sale_type_code"),
];

/// Returns the aliases of the database: those of the data files, as edited by operators.
pub async fn load_aliases(connection: &mut PgConnection) -> anyhow::Result<AliasIndex> {
    let rows = sqlx::query!("-- taxonomy: aliases\n select domain, raw, code from taxonomies.aliases")
        .fetch_all(connection)
        .await
        .context("could not read the aliases of taxonomies.aliases")?;
    // skip a domain that only a newer program knows
    Ok(AliasIndex::from_rows(
        rows.into_iter().filter_map(|row| Some((TaxonomyDomain::from_name(&row.domain)?, row.raw, row.code))),
    ))
}

/// A raw value without an alias.
#[derive(Debug, Serialize)]
pub struct UnknownValue {
    /// The taxonomy table.
    pub domain: String,
    /// The value as the feed contains it.
    pub raw_value: String,
    /// Number of files with the value, counting new and changed rows only.
    pub occurrences: i64,
    /// Time at which the first of these files was ingested.
    pub first_seen_at: DateTime<Utc>,
    /// Time at which the latest of these files was ingested.
    pub last_seen_at: DateTime<Utc>,
    /// The first of these files.
    pub first_file_id: Option<Uuid>,
}

/// Returns the unknown raw values of one domain or of all, the most frequent first.
pub async fn unknown_values(
    pool: &PgPool,
    domain: Option<TaxonomyDomain>,
    limit: i64,
) -> anyhow::Result<Vec<UnknownValue>> {
    sqlx::query_as!(
        UnknownValue,
        "-- taxonomy: unknown values
        select domain, raw_value, occurrences, first_seen_at, last_seen_at, first_file_id
        from audit.unknown_taxonomy_values
        where $1::text is null or domain = $1
        order by occurrences desc, domain, raw_value
        limit $2",
        domain.map(TaxonomyDomain::name),
        limit
    )
    .fetch_all(pool)
    .await
    .context("could not read the unknown values")
}

/// Result of mapping an alias.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct AliasMapping {
    /// The taxonomy table.
    pub domain: &'static str,
    /// The folded raw value.
    #[serde(rename = "spelling")]
    pub alias: String,
    /// The new code.
    pub code: String,
    /// The code before. None if there was no alias.
    pub before: Option<String>,
    /// Number of lots whose code changed.
    pub lots: u64,
    /// Unknown values that are no longer unknown, since they fold to this alias.
    pub known_now: Vec<String>,
}

pub use super::operator::Actor;

/// Maps a raw value to `code`, and sets the code of the rows that have the value. Runs in a transaction of its own.
///
/// # Errors
/// Returns an error if the table has no such code, or if the raw value has no letters and digits or is too long.
pub async fn map_alias(
    connection: &mut PgConnection,
    domain: TaxonomyDomain,
    raw: &str,
    code: &str,
    by: &Actor,
) -> anyhow::Result<AliasMapping> {
    let alias = fold_text(raw);
    ensure!(!alias.is_empty(), "raw value {raw:?} has neither letters nor digits");
    ensure!(alias.len() <= MAX_ALIAS_BYTES, "raw value {raw:?} is longer than {} bytes", MAX_ALIAS_BYTES);
    let mut tx = connection.begin().await.context("could not begin the transaction of the mapping")?;
    sqlx::query!("-- taxonomy: lock the sources\n select source from raw.sources order by source for update")
        .fetch_all(&mut *tx)
        .await
        .context("could not lock the sources")?;
    let table = domain.name();
    expect_code(&mut tx, table, code).await?;
    let before = sqlx::query_scalar!(
        "-- taxonomy: what it meant\n select code from taxonomies.aliases where domain = $1 and raw = $2",
        table,
        alias
    )
    .fetch_optional(&mut *tx)
    .await
    .context("could not read the alias")?;
    sqlx::query!(
        "-- taxonomy: map an alias
        insert into taxonomies.aliases (domain, raw, code)
        values ($1, $2, $3)
        on conflict (domain, raw) do update set code = excluded.code",
        table,
        alias,
        code
    )
    .execute(&mut *tx)
    .await
    .context("could not write the alias")?;
    let mut lots = 0;
    for (_, words, column) in CODED_COLUMNS.into_iter().filter(|(of, ..)| *of == domain) {
        recode_rows(&mut tx, "staging.copart_raw", "", (words, column), &alias, code).await?;
        lots += recode_rows(&mut tx, "public.lots", ", updated_at = now()", (words, column), &alias, code).await?;
    }
    lots += payload::recode_from_payloads(&mut tx, domain, &alias, before.as_deref(), code).await?;
    let known_now = clear_unknown_values(&mut tx, domain, &alias).await?;
    sqlx::query!(
        "-- taxonomy: note the act
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'map-spelling', $2, $3, jsonb_build_object('spelling', $4::text, 'code', $5::text, 'before', $6::text))",
        by.who,
        table,
        by.why,
        alias,
        code,
        before
    )
    .execute(&mut *tx)
    .await
    .context("could not record the operator action")?;
    let author = ActionAuthor { operator: by.who.clone(), reason: by.why.clone() };
    let (domain, meaning) = (table.to_owned(), code.to_owned());
    let act = CatalogueAction::Mapping { domain, spelling: alias.clone(), code: meaning, author };
    record_action(&mut tx, &act).await?;
    tx.commit().await.context("could not commit the alias")?;
    Ok(AliasMapping { domain: table, alias, code: code.to_owned(), before, lots, known_now })
}

/// Returns an error if a taxonomy table does not have the code.
async fn expect_code(connection: &mut PgConnection, table: &str, code: &str) -> anyhow::Result<()> {
    let known = sqlx::query_scalar!(
        r#"-- taxonomy: is it a code
        select exists (select from taxonomies.labels where domain = $1 and code = $2) as "known!""#,
        table,
        code
    )
    .fetch_one(connection)
    .await
    .context("could not read the codes")?;
    if !known {
        bail!(
            "unknown code \"{code}\" in taxonomy {table}\nhint: `vinops taxonomy export --domain {table}` lists the codes"
        );
    }
    Ok(())
}

/// Sets the code of the rows whose raw value folds to the alias. Values are folded in Rust, by the function that ingest
/// uses.
async fn recode_rows(
    connection: &mut PgConnection,
    table: &str,
    further: &str,
    (words, column): (&str, &str),
    alias: &str,
    code: &str,
) -> anyhow::Result<u64> {
    // table and column names are constants of this module
    let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "-- taxonomy: words in use\n select distinct {words} from {table} where {words} is not null and {column} is distinct from $1"
    )))
    .bind(code)
    .fetch_all(&mut *connection)
    .await
    .with_context(|| format!("could not read the raw values of {table}"))?;
    let these: Vec<String> = spelled.into_iter().filter(|words| fold_text(words) == alias).collect();
    let done = sqlx::query(AssertSqlSafe(format!(
        "-- taxonomy: code the rows
        update {table} set {column} = $1{further} where {words} = any($2) and {column} is distinct from $1"
    )))
    .bind(code)
    .bind(these)
    .execute(connection)
    .await
    .with_context(|| format!("could not update the codes of {table}"))?;
    Ok(done.rows_affected())
}

/// Deletes the values that fold to the alias from the unknown values. Returns the deleted values.
async fn clear_unknown_values(
    connection: &mut PgConnection,
    domain: TaxonomyDomain,
    alias: &str,
) -> anyhow::Result<Vec<String>> {
    let unknown = sqlx::query_scalar!(
        "-- taxonomy: unknown of a domain\n select raw_value from audit.unknown_taxonomy_values where domain = $1",
        domain.name()
    )
    .fetch_all(&mut *connection)
    .await
    .context("could not read the unknown values")?;
    let mut known: Vec<String> = unknown.into_iter().filter(|raw| fold_text(raw) == alias).collect();
    known.sort_unstable();
    sqlx::query!(
        "-- taxonomy: unknown no more
        delete from audit.unknown_taxonomy_values where domain = $1 and raw_value = any($2)",
        domain.name(),
        &known
    )
    .execute(connection)
    .await
    .context("could not delete the unknown values")?;
    Ok(known)
}

/// A label, as one line of the translators' CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRow {
    /// The taxonomy table.
    pub domain: String,
    /// The code.
    pub code: String,
    /// The state of a state-specific title label. Empty for all other labels.
    #[serde(default)]
    pub state: String,
    /// The English label.
    pub en: String,
    /// The Russian label. Empty if there is none.
    pub ru: String,
    /// True if no reviewer has confirmed the label.
    pub needs_review: bool,
}

/// Returns all labels of one domain or of all, in display order.
pub async fn read_labels(
    connection: impl PgExecutor<'_>,
    domain: Option<TaxonomyDomain>,
) -> anyhow::Result<Vec<LabelRow>> {
    sqlx::query_as!(
        LabelRow,
        r#"-- taxonomy: labels
        with all_labels as (
          select domain, code, '' as state, en, ru, needs_review, sort_order
          from taxonomies.labels
          union all
          select 'title_types', t.code, l.state, l.en, l.ru, l.needs_review, t.sort_order
          from taxonomies.title_labels l
          join taxonomies.title_types t on t.code = l.code
        )
        select
          domain as "domain!", code as "code!", state as "state!", en as "en!", coalesce(ru, '') as "ru!",
          needs_review as "needs_review!"
        from all_labels
        where $1::text is null or domain = $1
        order by domain, sort_order, code, state"#,
        domain.map(TaxonomyDomain::name)
    )
    .fetch_all(connection)
    .await
    .context("could not read the labels")
}

/// Writes the labels that differ from the table, all or none. Returns the number of written labels.
///
/// # Errors
/// Returns an error with the line if a domain or code does not exist, if an English label is empty, or if a label has a
/// state and is no title.
pub async fn import_labels(connection: &mut PgConnection, labels: &[LabelRow], by: &Actor) -> anyhow::Result<u64> {
    let mut tx = connection.begin().await.context("could not begin the transaction of the labels")?;
    let mut edited = Vec::new();
    for (at, label) in labels.iter().enumerate() {
        let line = at + 2; // line 1 is the header
        let LabelRow { domain, code, state, .. } = label;
        let Some(table) = TaxonomyDomain::from_name(domain) else { bail!("line {line}: unknown domain \"{domain}\"") };
        ensure!(!label.en.trim().is_empty(), "line {line}: code {code} has no English label");
        let (table, key) = match state.as_str() {
            "" => (table.name(), "$5 = ''"),
            _ if table == TaxonomyDomain::TitleTypes => ("title_labels", "state = $5"),
            _ => bail!("line {line}: only titles have labels by state"),
        };
        // the table name is a constant of this program
        let done: Option<bool> = sqlx::query_scalar(AssertSqlSafe(format!(
            "-- taxonomy: relabel
            with stored_label as (
              select code, (en, ru, needs_review) is distinct from ($2, nullif($3, ''), $4::boolean) as differs
              from taxonomies.{table} where code = $1 and {key}
            ),
            label_update as (
              update taxonomies.{table} t set en = $2, ru = nullif($3, ''), needs_review = $4, updated_at = now()
              from stored_label s where t.code = s.code and s.differs and {key}
            )
            select differs from stored_label"
        )))
        .bind(code)
        .bind(label.en.trim())
        .bind(label.ru.trim())
        .bind(label.needs_review)
        .bind(state)
        .fetch_optional(&mut *tx)
        .await
        .with_context(|| format!("line {line}: could not write the label of {code}"))?;
        match done {
            Some(true) => edited.push(label.clone()),
            Some(false) => {}
            None if state.is_empty() => bail!("line {line}: unknown code \"{code}\" in domain {domain}"),
            None => bail!("line {line}: unknown code \"{code}\" in domain {domain} for state {state}"),
        }
    }
    let changed = edited.len() as u64;
    sqlx::query!(
        "-- taxonomy: note the labels
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'import-labels', 'taxonomies', $2, jsonb_build_object('changed', $3::bigint))",
        by.who,
        by.why,
        i64::try_from(changed).unwrap_or(i64::MAX)
    )
    .execute(&mut *tx)
    .await
    .context("could not record the operator action")?;
    if !edited.is_empty() {
        let author = ActionAuthor { operator: by.who.clone(), reason: by.why.clone() };
        record_action(&mut tx, &CatalogueAction::Labels { labels: edited, author }).await?;
    }
    tx.commit().await.context("could not commit the labels")?;
    Ok(changed)
}

#[cfg(test)]
mod tests;
