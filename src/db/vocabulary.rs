//! The vocabulary of a database: its spellings, for those who read the feed, and what operators do to it.
//!
//! **A spelling that is mapped is mapped for good**: what comes in next is read by it, and the rows that have it get
//! their code in the same transaction. It locks the sources first, as every job of a chain does, so an ingest that
//! read the older spellings is either through, and its staged rows are coded too, or has not begun. The log of changes
//! is not written, for the feed has changed nothing.
//!
//! Of the columns with a code, those are coded whose words are kept beside it and whose code the upserts write
//! (`CODED`). A lot's keys and condition keep their words only in the payload (`payload`): the version that stands is
//! looked up there.

use super::catalogue::{ActAuthor, CatalogueAct, note_act};
use crate::taxonomy::{Domain, LONGEST, Spellings, fold};
use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

mod payload;

/// Domain, the column of its words, and that of its code: the same in `public.lots` and `staging.copart_raw`.
const CODED: [(Domain, &str, &str); 3] = [
    (Domain::DamageTypes, "damage_description", "damage_code"),
    (Domain::DamageTypes, "secondary_damage", "secondary_damage_code"),
    (Domain::SaleTypes, "sale_type", "sale_type_code"),
];

/// What words mean here: the files' spellings, and what operators made of them.
pub async fn spellings(connection: &mut PgConnection) -> anyhow::Result<Spellings> {
    let rows = sqlx::query!("-- vocabulary: spellings\n select domain, raw, code from taxonomies.aliases")
        .fetch_all(connection)
        .await
        .context("read the spellings of taxonomies.aliases")?;
    // a domain that only a newer program knows is none of ours
    Ok(Spellings::of(
        rows.into_iter().filter_map(|row| Some((Domain::named(&row.domain)?, row.raw, row.code))),
    ))
}

/// A spelling that nobody knew when it came.
#[derive(Debug, Serialize)]
pub struct Unknown {
    /// Its table.
    pub domain: String,
    /// As the feed has it.
    pub raw_value: String,
    /// Files it was in, among new and changed rows.
    pub occurrences: i64,
    /// When the first of them was ingested.
    pub first_seen_at: DateTime<Utc>,
    /// When the latest was.
    pub last_seen_at: DateTime<Utc>,
    /// The first of them.
    pub first_file_id: Option<Uuid>,
}

/// The unknown spellings, the most frequent first, of one domain or of all.
pub async fn unknown(pool: &PgPool, domain: Option<Domain>, limit: i64) -> anyhow::Result<Vec<Unknown>> {
    sqlx::query_as!(
        Unknown,
        "-- vocabulary: unknown spellings
        select domain, raw_value, occurrences, first_seen_at, last_seen_at, first_file_id
        from audit.unknown_taxonomy_values
        where $1::text is null or domain = $1
        order by occurrences desc, domain, raw_value
        limit $2",
        domain.map(Domain::name),
        limit
    )
    .fetch_all(pool)
    .await
    .context("read the unknown spellings")
}

/// What mapping a spelling did.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Mapped {
    /// The table.
    pub domain: &'static str,
    /// The spelling, folded.
    pub spelling: String,
    /// What it means now.
    pub code: String,
    /// What it meant before.
    pub before: Option<String>,
    /// Lots whose code has changed.
    pub lots: u64,
    /// Unknown spellings that are known now: those that fold to this one.
    pub known_now: Vec<String>,
}

pub use super::operator::By;

/// Lets a spelling mean `code`, and codes the rows that have it. An error where the table has no such code.
pub async fn map(
    connection: &mut PgConnection,
    domain: Domain,
    raw: &str,
    code: &str,
    by: &By,
) -> anyhow::Result<Mapped> {
    let spelling = fold(raw);
    ensure!(!spelling.is_empty(), "{raw:?} has neither letters nor digits");
    ensure!(spelling.len() <= LONGEST, "{raw:?} is longer than a spelling may be");
    let mut tx = connection.begin().await.context("begin to map")?;
    sqlx::query!(
        "-- vocabulary: lock the sources\n select source from raw.sources order by source for update"
    )
    .fetch_all(&mut *tx)
    .await
    .context("wait for the jobs under way")?;
    let table = domain.name();
    expect_code(&mut tx, table, code).await?;
    let before = sqlx::query_scalar!(
        "-- vocabulary: what it meant\n select code from taxonomies.aliases where domain = $1 and raw = $2",
        table,
        spelling
    )
    .fetch_optional(&mut *tx)
    .await
    .context("look for the spelling")?;
    sqlx::query!(
        "-- vocabulary: map a spelling
        insert into taxonomies.aliases (domain, raw, code)
        values ($1, $2, $3)
        on conflict (domain, raw) do update set code = excluded.code",
        table,
        spelling,
        code
    )
    .execute(&mut *tx)
    .await
    .context("write the spelling")?;
    let mut lots = 0;
    for (_, words, column) in CODED.into_iter().filter(|(of, ..)| *of == domain) {
        recode(&mut tx, "staging.copart_raw", "", (words, column), &spelling, code).await?;
        lots +=
            recode(&mut tx, "public.lots", ", updated_at = now()", (words, column), &spelling, code).await?;
    }
    lots += payload::recode(&mut tx, domain, &spelling, before.as_deref(), code).await?;
    let known_now = forget(&mut tx, domain, &spelling).await?;
    sqlx::query!(
        "-- vocabulary: note the act
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'map-spelling', $2, $3, jsonb_build_object('spelling', $4::text, 'code', $5::text, 'before', $6::text))",
        by.who,
        table,
        by.why,
        spelling,
        code,
        before
    )
    .execute(&mut *tx)
    .await
    .context("note who mapped it")?;
    let author = ActAuthor { operator: by.who.clone(), reason: by.why.clone() };
    let (domain, meaning) = (table.to_owned(), code.to_owned());
    let act = CatalogueAct::Mapping { domain, spelling: spelling.clone(), code: meaning, author };
    note_act(&mut tx, &act).await?;
    tx.commit().await.context("commit the spelling")?;
    Ok(Mapped { domain: table, spelling, code: code.to_owned(), before, lots, known_now })
}

/// Checks that a lookup table has a code.
async fn expect_code(connection: &mut PgConnection, table: &str, code: &str) -> anyhow::Result<()> {
    let known = sqlx::query_scalar!(
        r#"-- vocabulary: is it a code
        select exists (select from taxonomies.labels where domain = $1 and code = $2) as "known!""#,
        table,
        code
    )
    .fetch_one(connection)
    .await
    .context("look for the code")?;
    if !known {
        bail!("{table} has no code {code}: `vinops taxonomy export --domain {table}` shows those it has");
    }
    Ok(())
}

/// Codes the rows of a table whose words fold to the spelling. Folded here, by the rule that the feed is read by.
async fn recode(
    connection: &mut PgConnection,
    table: &str,
    besides: &str,
    (words, column): (&str, &str),
    spelling: &str,
    code: &str,
) -> anyhow::Result<u64> {
    // table and columns are this module's own
    let spelled: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "-- vocabulary: words in use\n select distinct {words} from {table} where {words} is not null and {column} is distinct from $1"
    )))
    .bind(code)
    .fetch_all(&mut *connection)
    .await
    .with_context(|| format!("read the words of {table}"))?;
    let these: Vec<String> = spelled.into_iter().filter(|words| fold(words) == spelling).collect();
    let done = sqlx::query(AssertSqlSafe(format!(
        "-- vocabulary: code the rows
        update {table} set {column} = $1{besides} where {words} = any($2) and {column} is distinct from $1"
    )))
    .bind(code)
    .bind(these)
    .execute(connection)
    .await
    .with_context(|| format!("code the rows of {table}"))?;
    Ok(done.rows_affected())
}

/// Takes the spelling, however written, from the unknown ones.
async fn forget(
    connection: &mut PgConnection,
    domain: Domain,
    spelling: &str,
) -> anyhow::Result<Vec<String>> {
    let unknown = sqlx::query_scalar!(
        "-- vocabulary: unknown of a domain\n select raw_value from audit.unknown_taxonomy_values where domain = $1",
        domain.name()
    )
    .fetch_all(&mut *connection)
    .await
    .context("read the unknown spellings")?;
    let mut known: Vec<String> = unknown.into_iter().filter(|raw| fold(raw) == spelling).collect();
    known.sort_unstable();
    sqlx::query!(
        "-- vocabulary: unknown no more
        delete from audit.unknown_taxonomy_values where domain = $1 and raw_value = any($2)",
        domain.name(),
        &known
    )
    .execute(connection)
    .await
    .context("take it from the unknown spellings")?;
    Ok(known)
}

/// A label as a translator sees it: a line of the CSV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its table.
    pub domain: String,
    /// Its code.
    pub code: String,
    /// A state's own label of a title; empty for all others.
    #[serde(default)]
    pub state: String,
    /// English.
    pub en: String,
    /// Russian; empty where there is none.
    pub ru: String,
    /// Nobody has confirmed it yet.
    pub needs_review: bool,
}

/// Every label, of one domain or of all, in the order of lists.
pub async fn labels(connection: impl PgExecutor<'_>, domain: Option<Domain>) -> anyhow::Result<Vec<Label>> {
    sqlx::query_as!(
        Label,
        r#"-- vocabulary: labels
        with every as (
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
        from every
        where $1::text is null or domain = $1
        order by domain, sort_order, code, state"#,
        domain.map(Domain::name)
    )
    .fetch_all(connection)
    .await
    .context("read the labels")
}

/// Writes the labels that say something else than the table, all or none; tells how many those were. An error where a
/// code is not there, or an English label is empty.
pub async fn relabel(connection: &mut PgConnection, labels: &[Label], by: &By) -> anyhow::Result<u64> {
    let mut tx = connection.begin().await.context("begin to write labels")?;
    let mut edited = Vec::new();
    for (at, label) in labels.iter().enumerate() {
        let line = at + 2; // after the heading
        let Label { domain, code, state, .. } = label;
        let Some(table) = Domain::named(domain) else { bail!("line {line}: there is no domain {domain}") };
        ensure!(!label.en.trim().is_empty(), "line {line}: {code} has no English label");
        let (table, key) = match state.as_str() {
            "" => (table.name(), "$5 = ''"),
            _ if table == Domain::TitleTypes => ("title_labels", "state = $5"),
            _ => bail!("line {line}: only titles have labels by state"),
        };
        // the name is one of this program's
        let done: Option<bool> = sqlx::query_scalar(AssertSqlSafe(format!(
            "-- vocabulary: relabel
            with wanted as (
              select code, (en, ru, needs_review) is distinct from ($2, nullif($3, ''), $4::boolean) as other
              from taxonomies.{table} where code = $1 and {key}
            ),
            written as (
              update taxonomies.{table} t set en = $2, ru = nullif($3, ''), needs_review = $4, updated_at = now()
              from wanted w where t.code = w.code and w.other and {key}
            )
            select other from wanted"
        )))
        .bind(code)
        .bind(label.en.trim())
        .bind(label.ru.trim())
        .bind(label.needs_review)
        .bind(state)
        .fetch_optional(&mut *tx)
        .await
        .with_context(|| format!("line {line}: write the label of {code}"))?;
        match done {
            Some(true) => edited.push(label.clone()),
            Some(false) => {}
            None => bail!("line {line}: {domain} has no code {code} {state}"),
        }
    }
    let changed = edited.len() as u64;
    sqlx::query!(
        "-- vocabulary: note the labels
        insert into audit.operator_actions (who, action, subject, reason, details)
        values ($1, 'import-labels', 'taxonomies', $2, jsonb_build_object('changed', $3::bigint))",
        by.who,
        by.why,
        i64::try_from(changed).unwrap_or(i64::MAX)
    )
    .execute(&mut *tx)
    .await
    .context("note who wrote them")?;
    if !edited.is_empty() {
        let author = ActAuthor { operator: by.who.clone(), reason: by.why.clone() };
        note_act(&mut tx, &CatalogueAct::Labels { labels: edited, author }).await?;
    }
    tx.commit().await.context("commit the labels")?;
    Ok(changed)
}

#[cfg(test)]
mod tests;
