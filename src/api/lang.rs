//! The two languages of labels, the choice between them, and the JSON form of coded values.

use super::params::{Asked, LANG};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

/// Language of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// English.
    En,
    /// Russian.
    Ru,
}

impl Lang {
    /// Returns the language of the parameter `lang`, otherwise of `Accept-Language`, otherwise English.
    pub fn of(asked: &Asked, headers: &HeaderMap) -> Lang {
        match asked.one(LANG.name) {
            Some("ru") => Lang::Ru,
            Some(_) => Lang::En,
            None => {
                let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
                accepted.map_or(Lang::En, preferred)
            }
        }
    }

    /// Returns the language tag, as sent in `Content-Language`.
    pub const fn name(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Ru => "ru",
        }
    }
}

/// Returns the supported language with the greatest weight in an `Accept-Language` value, the first of equal ones.
///
/// Returns English if the value contains no supported language.
fn preferred(accepted: &str) -> Lang {
    let mut best = (Lang::En, 0.0);
    for range in accepted.split(',') {
        let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
        let weight = match weight.trim().strip_prefix("q=") {
            Some(weight) => weight.trim().parse().unwrap_or(0.0),
            None => 1.0,
        };
        let primary = tag.trim().split('-').next().unwrap_or("");
        let spoken = match primary.to_ascii_lowercase().as_str() {
            "ru" => Lang::Ru,
            "en" | "*" => Lang::En,
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
pub struct Coded {
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
            ("ru", Lang::Ru),
            ("ru-RU,ru;q=0.9,en;q=0.8", Lang::Ru),
            ("en-US,en;q=0.9,ru;q=0.8", Lang::En),
            ("de, ru;q=0.5", Lang::Ru),
            ("de", Lang::En),
            ("ru;q=0", Lang::En),
            ("*", Lang::En),
            (";;q=,,", Lang::En),
        ] {
            assert_eq!(preferred(accepted), lang, "{accepted}");
        }
    }
}
