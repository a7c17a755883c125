//! Rows that the program brings along (taxonomies), written at the end of every `vinops migrate up`.
//!
//! They are data, so they are inserted from data files rather than spelt out in migrations, whose text may never
//! change once it is applied.
//!
//! **What is there stands.** A code or spelling that the database lacks is added; one that it has is left alone,
//! whatever its label says, for the label may be an operator's. Rejected: telling our labels from edited ones by
//! their timestamps, since a plain `update` from psql moves none. The price is that a label corrected in a later
//! release reaches only databases that do not have its code; a correction that must reach all is a migration.

use crate::taxonomy::{self, Domain, fold};
use anyhow::Context;
use sqlx::{AssertSqlSafe, PgConnection};
use std::fmt::Write as _;

/// Adds the rows that are missing; again is harmless.
pub async fn apply(connection: &mut PgConnection) -> anyhow::Result<()> {
    let there: bool = sqlx::query_scalar(
        "-- seed: is there a schema\n select to_regclass('taxonomies.aliases') is not null",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        return Ok(()); // a set of migrations without taxonomies
    }
    for domain in Domain::ALL {
        let table = domain.name();
        let entries = taxonomy::entries(domain).iter();
        let (mut codes, mut en, mut ru) = (Vec::new(), Vec::new(), Vec::new());
        let (mut categories, mut orders, mut reviews) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            codes.push(entry.code.as_str());
            en.push(entry.en.as_str());
            ru.push(entry.ru.as_str());
            categories.push(entry.category.as_str());
            orders.push(entry.sort_order);
            reviews.push(entry.needs_review);
        }
        // the name is one of three of this program's
        sqlx::query(AssertSqlSafe(format!(
            "-- seed: {table}
            insert into taxonomies.{table} (code, en, ru, category, sort_order, needs_review)
            select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::boolean[])
            on conflict (code) do nothing"
        )))
        .bind(codes)
        .bind(en)
        .bind(ru)
        .bind(categories)
        .bind(orders)
        .bind(reviews)
        .execute(&mut *connection)
        .await
        .with_context(|| format!("add the codes of taxonomies.{table}"))?;
    }
    let (mut domains, mut spellings, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    for alias in taxonomy::aliases() {
        domains.push(alias.domain.name());
        spellings.push(fold(&alias.raw));
        codes.push(alias.code.as_str());
    }
    sqlx::query(
        "-- seed: aliases
        insert into taxonomies.aliases (domain, raw, code)
        select * from unnest($1::text[], $2::text[], $3::text[])
        on conflict (domain, raw) do nothing",
    )
    .bind(domains)
    .bind(spellings)
    .bind(codes)
    .execute(connection)
    .await
    .context("add the spellings of taxonomies.aliases")?;
    Ok(())
}

/// Changes whenever [`apply`] would write something else: part of what names a template of the tests.
pub fn fingerprint() -> String {
    let mut text = String::new();
    for domain in Domain::ALL {
        let _ = write!(text, "{:?}", taxonomy::entries(domain));
    }
    let _ = write!(text, "{:?}", taxonomy::aliases());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::database;

    async fn contents(connection: &mut PgConnection) -> Vec<(String, i64, String)> {
        sqlx::query_as(
            "select domain, count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.labels t group by 1
            union all
            select 'aliases', count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.aliases t
            order by 1",
        )
        .fetch_all(connection)
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_migrated_database_has_every_code_and_spelling_and_a_second_run_changes_nothing() {
        let test = database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        let before = contents(&mut connection).await;
        let counts: Vec<(&str, i64)> = before.iter().map(|(table, n, _)| (table.as_str(), *n)).collect();
        let spellings = taxonomy::aliases().len() as i64;
        assert_eq!(
            counts,
            [("aliases", spellings), ("damage_types", 26), ("sale_types", 3), ("statuses", 6)]
        );
        apply(&mut connection).await.unwrap();
        assert_eq!(contents(&mut connection).await, before);
    }

    #[tokio::test]
    async fn an_operators_label_and_spelling_survive_a_second_run_and_what_was_lost_comes_back() {
        let test = database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "update taxonomies.statuses set ru = 'Ждём итога' where code = 'pending_result';
            update taxonomies.aliases set code = 'damage_side' where raw = 'frontend';
            delete from taxonomies.sale_types where code = 'sale_minimum_bid'",
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        apply(&mut connection).await.unwrap();
        let told: (String, String, String) = sqlx::query_as(
            "select taxonomies.label('statuses', 'pending_result', 'ru'),
              (select code from taxonomies.aliases where domain = 'damage_types' and raw = 'frontend'),
              (select code from taxonomies.sale_types where code = 'sale_minimum_bid')",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        let told = (told.0.as_str(), told.1.as_str(), told.2.as_str());
        assert_eq!(told, ("Ждём итога", "damage_side", "sale_minimum_bid"));
    }
}
