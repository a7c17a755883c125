//! The two languages of labels, the choice between them, and the JSON form of coded values.

use super::params::{LANG_PARAM, ParsedQuery};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

/// Language of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    En,
    /// Russian.
    Ru,
}

impl Language {
    /// Returns the language of the parameter `lang`, otherwise of `Accept-Language`, otherwise English.
    pub fn from_request(asked: &ParsedQuery, headers: &HeaderMap) -> Language {
        match asked.value(LANG_PARAM.name) {
            Some("ru") => Language::Ru,
            Some(_) => Language::En,
            None => {
                let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
                accepted.map_or(Language::En, preferred_language)
            }
        }
    }

    /// Returns the language tag, as sent in `Content-Language`.
    pub const fn name(self) -> &'static str {
        match self {
            Language::En => "en",
            Language::Ru => "ru",
        }
    }
}

/// Returns the supported language with the greatest weight in an `Accept-Language` value, the first of equal ones.
///
/// Returns English if the value contains no supported language.
fn preferred_language(accepted: &str) -> Language {
    let mut best = (Language::En, 0.0);
    for range in accepted.split(',') {
        let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
        let weight = match weight.trim().strip_prefix("q=") {
            Some(weight) => weight.trim().parse().unwrap_or(0.0),
            None => 1.0,
        };
        let primary = tag.trim().split('-').next().unwrap_or("");
        let spoken = match primary.to_ascii_lowercase().as_str() {
            "ru" => Language::Ru,
            "en" | "*" => Language::En,
            _ => continue,
        };
        if weight > best.1 {
            best = (spoken, weight);
        }
    }
    best.0
}

/// Coded value of a taxonomy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CodedValueResponse {
    /// Code of the taxonomy, or null if the raw value is not mapped to a code
    pub code: Option<String>,
    /// Label of the code in the requested language, or the raw value if there is no code
    pub label: String,
    /// Raw value as written in the feed. Absent if there is a code
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub raw: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_tongue_that_we_speak_is_taken() {
        for (accepted, lang) in [
            ("ru", Language::Ru),
            ("ru-RU,ru;q=0.9,en;q=0.8", Language::Ru),
            ("en-US,en;q=0.9,ru;q=0.8", Language::En),
            ("de, ru;q=0.5", Language::Ru),
            ("de", Language::En),
            ("ru;q=0", Language::En),
            ("*", Language::En),
            (";;q=,,", Language::En),
        ] {
            assert_eq!(preferred_language(accepted), lang, "{accepted}");
        }
    }
}
