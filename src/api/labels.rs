//! Taxonomies in memory: labels in both languages, and the aliases that map raw values to codes.
//!
//! Labels are read from the tables, because operators edit them. Only damage, sale type, keys and condition have
//! columns with codes in `lots`. All other raw values are mapped to codes here when a row is read, so that the rows
//! need no further columns.

use super::language::{CodedValueResponse, Language};
use crate::db::taxonomy;
use crate::taxonomy::{AliasIndex, TaxonomyDomain};
use anyhow::Context;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::HashMap;
use utoipa::ToSchema;

/// Code of a taxonomy with its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LabelEntry {
    /// Code, unique in its domain
    pub code: String,
    /// Label in the requested language, in English if there is no translation
    pub label: String,
    /// Label in English
    pub en: String,
    /// Russian label, or null if there is no translation
    pub ru: Option<String>,
    /// Name of the group of codes, or null if the code has no group
    pub category: Option<String>,
    /// Position in lists, ascending
    pub sort_order: i32,
    /// True if the translation still has to be reviewed
    pub needs_review: bool,
    /// Names of the title in states that use a name of their own. Absent if there are none
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub states: Vec<StateLabel>,
}

/// Name of a title in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StateLabel {
    /// State that issues the title, two capital letters
    pub state: String,
    /// Label in the requested language, in English if there is no translation
    pub label: String,
    /// Label in English
    pub en: String,
    /// Russian label, or null if there is no translation
    pub ru: Option<String>,
}

/// Labels and aliases of all taxonomy domains, as of one read.
#[derive(Debug)]
pub struct TaxonomyLabels {
    entries: HashMap<TaxonomyDomain, Vec<LabelEntry>>,
    /// Index of each entry in `entries`, by domain and code.
    places: HashMap<TaxonomyDomain, HashMap<String, usize>>,
    /// Aliases that map raw values to codes.
    pub aliases: AliasIndex,
}

impl TaxonomyLabels {
    /// Reads all labels and aliases from the database.
    pub async fn load(connection: &mut PgConnection) -> anyhow::Result<TaxonomyLabels> {
        let aliases = taxonomy::load_aliases(connection).await?;
        let rows = sqlx::query!(
            r#"-- api: labels
            select
              domain as "domain!", code as "code!", en as "en!", ru, category, sort_order as "sort_order!",
              needs_review as "needs_review!"
            from taxonomies.labels
            order by sort_order, code"#
        )
        .fetch_all(&mut *connection)
        .await
        .context("could not read the taxonomy labels")?;
        let states = sqlx::query!(
            "-- api: labels of states
            select code, state, en, ru from taxonomies.title_labels order by code, state"
        )
        .fetch_all(connection)
        .await
        .context("could not read the title labels of states")?;
        let mut of_code: HashMap<String, Vec<StateLabel>> = HashMap::new();
        for row in states {
            let own = StateLabel { state: row.state, label: row.en.clone(), en: row.en, ru: row.ru };
            of_code.entry(row.code).or_default().push(own);
        }
        let mut entries: HashMap<TaxonomyDomain, Vec<LabelEntry>> = HashMap::new();
        for row in rows {
            let Some(domain) = TaxonomyDomain::from_name(&row.domain) else { continue };
            let states = match domain {
                TaxonomyDomain::TitleTypes => of_code.remove(&row.code).unwrap_or_default(),
                _ => Vec::new(),
            };
            entries.entry(domain).or_default().push(LabelEntry {
                code: row.code,
                label: row.en.clone(),
                en: row.en,
                ru: row.ru,
                category: row.category,
                sort_order: row.sort_order,
                needs_review: row.needs_review,
                states,
            });
        }
        let place = |(place, entry): (usize, &LabelEntry)| (entry.code.clone(), place);
        let places = entries
            .iter()
            .map(|(domain, entries)| (*domain, entries.iter().enumerate().map(place).collect()))
            .collect();
        Ok(TaxonomyLabels { entries, places, aliases })
    }

    /// Returns the codes of a domain in display order, with labels in a language.
    pub fn domain_entries(&self, domain: TaxonomyDomain, lang: Language) -> Vec<LabelEntry> {
        let mut entries = self.entries.get(&domain).cloned().unwrap_or_default();
        for entry in &mut entries {
            entry.label = pick_label(lang, &entry.en, entry.ru.as_ref());
            for own in &mut entry.states {
                own.label = pick_label(lang, &own.en, own.ru.as_ref());
            }
        }
        entries
    }

    /// Returns the number of codes of a domain.
    pub fn code_count(&self, domain: TaxonomyDomain) -> usize {
        self.entries.get(&domain).map_or(0, Vec::len)
    }

    fn find_entry(&self, domain: TaxonomyDomain, code: &str) -> Option<&LabelEntry> {
        self.entries.get(&domain)?.get(*self.places.get(&domain)?.get(code)?)
    }

    /// Returns the sort order of a code in lists, or the greatest number if the domain does not contain the code.
    pub fn sort_order(&self, domain: TaxonomyDomain, code: &str) -> i32 {
        self.find_entry(domain, code).map_or(i32::MAX, |entry| entry.sort_order)
    }

    /// Returns the label of a code in a language, or the code if it has no label.
    pub fn label(&self, domain: TaxonomyDomain, code: &str, lang: Language) -> String {
        self.find_entry(domain, code)
            .map_or_else(|| code.to_owned(), |entry| pick_label(lang, &entry.en, entry.ru.as_ref()))
    }

    /// Returns the coded value of a stored code, or the raw value if no code is stored. `None` if both are missing.
    pub fn coded_value(
        &self,
        domain: TaxonomyDomain,
        code: Option<&str>,
        raw: Option<&str>,
        lang: Language,
    ) -> Option<CodedValueResponse> {
        match (code, raw) {
            (Some(code), _) => Some(CodedValueResponse {
                code: Some(code.to_owned()),
                label: self.label(domain, code, lang),
                raw: None,
            }),
            (None, Some(raw)) => {
                Some(CodedValueResponse { code: None, label: raw.to_owned(), raw: Some(raw.to_owned()) })
            }
            (None, None) => None,
        }
    }

    /// Returns the coded value of a raw value, with the code of its alias if there is one.
    pub fn coded_from_raw(
        &self,
        domain: TaxonomyDomain,
        raw: Option<&str>,
        lang: Language,
    ) -> Option<CodedValueResponse> {
        let raw = raw?;
        self.coded_value(domain, self.aliases.find_code(domain, raw), Some(raw), lang)
    }

    /// Returns the coded value of a title type, with the label that its state uses if the state has one of its own.
    pub fn title_value(&self, raw: Option<&str>, state: Option<&str>, lang: Language) -> Option<CodedValueResponse> {
        let mut coded = self.coded_from_raw(TaxonomyDomain::TitleTypes, raw, lang)?;
        let entry = coded.code.as_deref().and_then(|code| self.find_entry(TaxonomyDomain::TitleTypes, code));
        let own = entry
            .zip(state)
            .and_then(|(entry, state)| entry.states.iter().find(|own| own.state.eq_ignore_ascii_case(state)));
        if let Some(own) = own {
            coded.label = pick_label(lang, &own.en, own.ru.as_ref());
        }
        Some(coded)
    }
}

/// Returns the label in a language, or in English if there is no translation.
fn pick_label(lang: Language, en: &str, ru: Option<&String>) -> String {
    match (lang, ru) {
        (Language::Ru, Some(ru)) => ru.clone(),
        _ => en.to_owned(),
    }
}
