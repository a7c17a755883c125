//! Seed rows: the taxonomies and the feed's source, written at the end of every `vinops migrate up`.
//!
//! Seed rows come from data files and not from migrations, since the text of an applied migration must never change.
//!
//! **An operator's edit is preserved.** `taxonomies.seeds` and `aliases.seeded_code` contain what this program last
//! wrote. A label that differs was edited, by an import or by SQL, and stays as it is, column by column. A label that
//! is equal follows the data files, so that a label corrected in a later release reaches every database. A missing code
//! is added, even one that an operator deleted. Rows from before `taxonomies.seeds` existed stay as they are, since
//! their author is not known.
//!
//! Rejected: detecting edited labels by a timestamp or by a flag, since a plain `update` from psql sets neither.

use crate::taxonomy::{self, TaxonomyDomain, TaxonomyEntry, TitleLabel, fold_text};
use anyhow::Context;
use sqlx::{AssertSqlSafe, PgConnection};
use std::fmt::Write as _;

/// Source that is created in every database.
const DEFAULT_SOURCE: &str = "copart";

/// Adds missing rows, and updates rows that no operator has edited. A repeated call changes nothing.
pub async fn apply_seeds(connection: &mut PgConnection) -> anyhow::Result<()> {
    let there: bool =
        sqlx::query_scalar("-- seed: is there a schema\n select to_regclass('taxonomies.seeds') is not null")
            .fetch_one(&mut *connection)
            .await?;
    if !there {
        return Ok(()); // a migration set without taxonomies
    }
    for domain in TaxonomyDomain::ALL {
        write_labels(connection, domain, taxonomy::entries(domain)).await?;
    }
    write_title_labels(connection, taxonomy::title_labels()).await?;
    write_source(connection).await?;
    let (mut domains, mut aliases, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    for alias in taxonomy::aliases() {
        domains.push(alias.domain.name());
        aliases.push(fold_text(&alias.raw));
        codes.push(alias.code.as_str());
    }
    sqlx::query(include_str!("seed.aliases.sql"))
        .bind(domains)
        .bind(aliases)
        .bind(codes)
        .execute(connection)
        .await
        .context("could not write the aliases of taxonomies.aliases")?;
    Ok(())
}

async fn write_labels(
    connection: &mut PgConnection,
    domain: TaxonomyDomain,
    entries: &[TaxonomyEntry],
) -> anyhow::Result<()> {
    let table = domain.name();
    let texts = |text: fn(&TaxonomyEntry) -> &str| entries.iter().map(text).collect::<Vec<_>>();
    // the table name is a constant of this program
    sqlx::query(AssertSqlSafe(include_str!("seed.labels.sql").replace("{table}", table)))
        .bind(texts(|entry| &entry.code))
        .bind(texts(|entry| &entry.en))
        .bind(texts(|entry| &entry.ru))
        .bind(texts(|entry| &entry.category))
        .bind(entries.iter().map(|entry| entry.sort_order).collect::<Vec<_>>())
        .bind(entries.iter().map(|entry| entry.needs_review).collect::<Vec<_>>())
        .execute(connection)
        .await
        .with_context(|| format!("could not write the codes of taxonomies.{table}"))?;
    Ok(())
}

async fn write_title_labels(connection: &mut PgConnection, labels: &[TitleLabel]) -> anyhow::Result<()> {
    let texts = |text: fn(&TitleLabel) -> &str| labels.iter().map(text).collect::<Vec<_>>();
    sqlx::query(include_str!("seed.title_labels.sql"))
        .bind(texts(|label| &label.code))
        .bind(texts(|label| &label.state))
        .bind(texts(|label| &label.en))
        .bind(texts(|label| &label.ru))
        .bind(labels.iter().map(|label| label.needs_review).collect::<Vec<_>>())
        .execute(connection)
        .await
        .context("could not write the labels of taxonomies.title_labels")?;
    Ok(())
}

/// Adds the default source to `fleet.sources` if it is missing.
async fn write_source(connection: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("-- seed: source\n insert into fleet.sources (source) values ($1) on conflict do nothing")
        .bind(DEFAULT_SOURCE)
        .execute(connection)
        .await
        .with_context(|| format!("could not add the source {}", DEFAULT_SOURCE))?;
    Ok(())
}

/// Returns a text that changes whenever [`apply_seeds`] would write other rows. It is part of the name of the tests'
/// template database.
pub fn seed_fingerprint() -> String {
    let mut text = String::new();
    for domain in TaxonomyDomain::ALL {
        let _ = write!(text, "{:?}", taxonomy::entries(domain));
    }
    let _ = write!(text, "{:?}{:?}{}", taxonomy::title_labels(), taxonomy::aliases(), DEFAULT_SOURCE);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::migrated_database;

    async fn table_digests(connection: &mut PgConnection) -> Vec<(String, i64, String)> {
        sqlx::query_as(
            "select domain, count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.labels t group by 1
            union all
            select 'aliases', count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.aliases t
            union all
            select 'seeds', count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.seeds t
            union all
            select 'title_labels', count(*), md5(string_agg(t::text, ',' order by t::text)) from taxonomies.title_labels t
            order by 1",
        )
        .fetch_all(connection)
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_migrated_database_has_every_code_and_spelling_and_a_second_run_changes_nothing() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        let before = table_digests(&mut connection).await;
        let mut counts: Vec<(&str, usize)> = TaxonomyDomain::ALL.map(|d| (d.name(), taxonomy::entries(d).len())).into();
        let seeds = counts.iter().map(|(_, n)| n).sum::<usize>() + taxonomy::title_labels().len();
        counts.extend([
            ("aliases", taxonomy::aliases().len()),
            ("title_labels", taxonomy::title_labels().len()),
            ("seeds", seeds),
        ]);
        counts.sort_unstable();
        let found: Vec<(&str, usize)> =
            before.iter().map(|(table, n, _)| (table.as_str(), usize::try_from(*n).unwrap())).collect();
        assert_eq!(found, counts);
        apply_seeds(&mut connection).await.unwrap();
        assert_eq!(table_digests(&mut connection).await, before);
    }

    #[tokio::test]
    async fn an_operators_label_and_spelling_survive_a_second_run_and_what_was_lost_comes_back() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "update taxonomies.statuses set ru = 'Ждём итога' where code = 'pending_result';
            update taxonomies.aliases set code = 'damage_side' where raw = 'frontend';
            delete from taxonomies.sale_types where code = 'sale_minimum_bid'",
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        apply_seeds(&mut connection).await.unwrap();
        let found: (String, String, String) = sqlx::query_as(
            "select taxonomies.label('statuses', 'pending_result', 'ru'),
              (select code from taxonomies.aliases where domain = 'damage_types' and raw = 'frontend'),
              (select code from taxonomies.sale_types where code = 'sale_minimum_bid')",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        let found = (found.0.as_str(), found.1.as_str(), found.2.as_str());
        assert_eq!(found, ("Ждём итога", "damage_side", "sale_minimum_bid"));
    }

    #[tokio::test]
    async fn a_label_corrected_in_a_release_reaches_all_but_the_columns_somebody_has_edited() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "update taxonomies.colors set ru = 'Белоснежный' where code = 'color_white';
            update taxonomies.title_labels set en = 'Sunshine State, rebuildable' where code = 'title_rb' and state = 'FL'",
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        let corrected: Vec<TaxonomyEntry> = taxonomy::entries(TaxonomyDomain::Colors)
            .iter()
            .map(|e| TaxonomyEntry { en: format!("{}!", e.en), ru: format!("{}!", e.ru), ..e.clone() })
            .collect();
        let labels: Vec<TitleLabel> = taxonomy::title_labels()
            .iter()
            .map(|l| TitleLabel { en: format!("{}!", l.en), ru: format!("{}!", l.ru), ..l.clone() })
            .collect();
        for _ in 0..2 {
            write_labels(&mut connection, TaxonomyDomain::Colors, &corrected).await.unwrap();
            write_title_labels(&mut connection, &labels).await.unwrap();
            let found: Vec<String> = sqlx::query_scalar(
                "select unnest(array[
                  taxonomies.label('colors', 'color_white', 'en'),
                  taxonomies.label('colors', 'color_white', 'ru'),
                  taxonomies.label('colors', 'color_black', 'ru'),
                  taxonomies.title_label('title_rb', 'fl', 'en'),
                  taxonomies.title_label('title_cd', 'FL', 'ru')])",
            )
            .fetch_all(&mut *connection)
            .await
            .unwrap();
            assert_eq!(
                found,
                [
                    "White!",
                    "Белоснежный",
                    "Чёрный!",
                    "Sunshine State, rebuildable",
                    "Сертификат на уничтожение, Флорида!"
                ]
            );
        }
    }

    #[tokio::test]
    async fn a_title_is_called_as_its_state_does_else_as_everywhere_else_by_its_code() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        for (code, state, lang, label) in [
            ("title_rb", Some("FL"), "en", "Florida certificate of title, salvage rebuildable"),
            ("title_rb", Some("NS"), "en", "Salvage title, rebuildable"),
            ("title_ct", None, "ru", "Обычный титул (Certificate of Title)"),
            ("title_zz", Some("FL"), "ru", "title_zz"),
        ] {
            let found: String = sqlx::query_scalar("select taxonomies.title_label($1, $2, $3)")
                .bind(code)
                .bind(state)
                .bind(lang)
                .fetch_one(&mut *connection)
                .await
                .unwrap();
            assert_eq!(found, label);
        }
    }

    #[tokio::test]
    async fn a_spelling_that_a_release_moves_follows_unless_an_operator_has_moved_it() {
        let test = migrated_database().await;
        let mut connection = test.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "update taxonomies.aliases set code = 'damage_side', seeded_code = 'damage_side' where raw = 'rearend';
            update taxonomies.aliases set code = 'damage_roof', seeded_code = 'damage_side' where raw = 'frontend'",
        )
        .execute(&mut *connection)
        .await
        .unwrap();
        apply_seeds(&mut connection).await.unwrap();
        let codes: Vec<String> =
            sqlx::query_scalar("select code from taxonomies.aliases where raw in ('rearend', 'frontend') order by raw")
                .fetch_all(&mut *connection)
                .await
                .unwrap();
        assert_eq!(codes, ["damage_roof", "damage_rear_end"]);
    }
}
