//! Lookup tables: what Copart's spellings mean, in English and Russian.
//!
//! Many raw spellings lead to one code. The feed's vocabulary drifts (from March 2026 `FLEXIBLE FUEL` became
//! `FLEXIBLE`, and both were about for months), so a spelling is compared without case, blanks and punctuation,
//! and a new one is a line in `aliases.csv`. An unknown spelling has no code: the caller keeps the text and counts
//! it.
//!
//! The files beside this one are the data, compiled in; the tables of schema `taxonomies` are filled from them.

use serde::Deserialize;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A lookup table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// Primary and secondary damage.
    DamageTypes,
    /// How a lot is sold: the feed's `Sale Status`.
    SaleTypes,
    /// A lot's life: ours, not the feed's.
    Statuses,
}

impl Domain {
    /// All of them.
    pub const ALL: [Domain; 3] = [Domain::DamageTypes, Domain::SaleTypes, Domain::Statuses];

    /// The table's name in schema `taxonomies`.
    pub const fn name(self) -> &'static str {
        match self {
            Domain::DamageTypes => "damage_types",
            Domain::SaleTypes => "sale_types",
            Domain::Statuses => "statuses",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Domain::DamageTypes => include_str!("damage_types.csv"),
            Domain::SaleTypes => include_str!("sale_types.csv"),
            Domain::Statuses => include_str!("statuses.csv"),
        }
    }
}

/// One code of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// `^[a-z0-9_]+$`, unique in its table.
    pub code: String,
    /// English label.
    pub en: String,
    /// Russian label.
    pub ru: String,
    /// A group of codes within the table.
    pub category: String,
    /// Place in lists, ascending.
    pub sort_order: i32,
    /// No native speaker or source has confirmed the Russian label.
    pub needs_review: bool,
}

/// One spelling of a code.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Alias {
    /// Its table.
    pub domain: Domain,
    /// As the feed (or `lots.status`) spells it.
    pub raw: String,
    /// What it means.
    pub code: String,
}

/// No alias folds to more bytes, so a longer text has no code and needs no buffer.
const LONGEST: usize = 48;

struct Tables {
    entries: [Vec<Entry>; Domain::ALL.len()],
    aliases: Vec<Alias>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables {
    entries: Domain::ALL.map(|domain| rows(domain.file())),
    aliases: rows(include_str!("aliases.csv")),
});

/// Per domain, folded spelling to code.
static CODES: LazyLock<[HashMap<String, &'static str>; Domain::ALL.len()]> = LazyLock::new(|| {
    let spellings = |domain| aliases().iter().filter(move |alias| alias.domain == domain);
    Domain::ALL.map(|domain| spellings(domain).map(|a| (fold(&a.raw), a.code.as_str())).collect())
});

#[expect(clippy::expect_used, reason = "the text is compiled in, and a test reads every line of it")]
fn rows<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a taxonomy file reads as its type")
}

/// A table's codes in their order.
pub fn entries(domain: Domain) -> &'static [Entry] {
    &TABLES.entries[domain as usize]
}

/// All known spellings.
pub fn aliases() -> &'static [Alias] {
    &TABLES.aliases
}

/// The code of a spelling, if it is known.
pub fn code(domain: Domain, raw: &str) -> Option<&'static str> {
    let mut buffer = [0; LONGEST];
    let mut length = 0;
    for c in folded(raw) {
        let place = buffer.get_mut(length..length + c.len_utf8())?;
        c.encode_utf8(place);
        length += c.len_utf8();
    }
    let key = std::str::from_utf8(&buffer[..length]).ok()?;
    CODES[domain as usize].get(key).copied()
}

/// A spelling without case, blanks and punctuation.
pub fn fold(raw: &str) -> String {
    folded(raw).collect()
}

fn folded(raw: &str) -> impl Iterator<Item = char> {
    raw.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_of_the_files_is_read_and_makes_sense() {
        for domain in Domain::ALL {
            let codes: HashSet<&str> = entries(domain).iter().map(|e| e.code.as_str()).collect();
            assert_eq!(codes.len(), entries(domain).len(), "{domain:?} has a code twice");
            for entry in entries(domain) {
                let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
                assert!(entry.code.bytes().all(fits), "{}", entry.code);
                assert!(
                    ![&entry.en, &entry.ru, &entry.category].iter().any(|text| text.is_empty()),
                    "{}",
                    entry.code
                );
            }
            assert!(entries(domain).is_sorted_by_key(|e| e.sort_order));
            for alias in aliases().iter().filter(|a| a.domain == domain) {
                assert!(codes.contains(alias.code.as_str()), "{} leads nowhere", alias.raw);
                assert!(fold(&alias.raw).len() <= LONGEST, "{} is too long", alias.raw);
                assert_eq!(
                    code(domain, &alias.raw),
                    Some(alias.code.as_str()),
                    "{} has two codes",
                    alias.raw
                );
            }
        }
        assert_eq!(Domain::ALL.map(|d| entries(d).len()), [26, 3, 6]);
    }

    #[test]
    fn a_spelling_is_known_without_regard_to_case_blanks_and_punctuation() {
        assert_eq!(code(Domain::DamageTypes, " burn-Engine"), Some("damage_burn_engine"));
        assert_eq!(code(Domain::DamageTypes, "WATER/FLOOD"), Some("damage_flood"));
        assert_eq!(code(Domain::SaleTypes, "ON MINIMUM BID"), Some("sale_minimum_bid"));
        assert_eq!(code(Domain::Statuses, "PENDING_RESULT"), Some("pending_result"));
    }

    #[test]
    fn an_unknown_spelling_has_no_code_however_long_it_is() {
        assert_eq!(code(Domain::DamageTypes, "EATEN BY GOAT"), None);
        assert_eq!(code(Domain::DamageTypes, ""), None);
        assert_eq!(code(Domain::SaleTypes, &"Я".repeat(1000)), None);
        assert_eq!(code(Domain::SaleTypes, "FRONT END"), None);
    }
}
