//! Normalises VINs and decides which of them identify a vehicle.
//!
//! The documents define `normalize_vin` as upper case without I, O and Q, which no VIN has. Their function removes
//! before it changes the case, so that `1hgcq…` keeps its Q. Here, and in the SQL function of the same name, upper case
//! comes first. The two must agree on every text: blanks are those of [`super::blank`], letters are the 26 ASCII ones,
//! and nothing else changes. About 625 of 153,991 rows (trailers, boats, cars before 1981) have no VIN in this sense
//! and yield no vehicle.

use super::blank::trim_blanks;
use std::borrow::Cow;

/// The content of a VIN field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedVin<'a> {
    /// The normalised VIN, which matches `^[A-HJ-NPR-Z0-9]{11,17}$`.
    Valid(Cow<'a, str>),
    /// Only blanks.
    Empty,
    /// Any other text.
    Malformed,
}

/// Trims blanks, converts ASCII letters to upper case, then removes I, O and Q. Borrows if nothing inside changes.
pub fn normalize_vin(raw: &str) -> Cow<'_, str> {
    let trimmed = trim_blanks(raw);
    if trimmed.bytes().any(|b| b.is_ascii_lowercase() || is_removed(char::from(b))) {
        Cow::Owned(trimmed.chars().map(|c| c.to_ascii_uppercase()).filter(|c| !is_removed(*c)).collect())
    } else {
        Cow::Borrowed(trimmed)
    }
}

/// Returns the class of a VIN field: valid, empty or malformed.
pub fn classify_vin(raw: &str) -> ParsedVin<'_> {
    let vin = normalize_vin(raw);
    if trim_blanks(raw).is_empty() {
        ParsedVin::Empty
    } else if (11..=17).contains(&vin.len()) && vin.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
        ParsedVin::Valid(vin)
    } else {
        ParsedVin::Malformed
    }
}

/// Returns true if normalising removes characters other than blanks at the ends. Such a VIN may equal another
/// vehicle's.
pub fn loses_characters(raw: &str) -> bool {
    raw.chars().any(|c| is_removed(c.to_ascii_uppercase()))
}

fn is_removed(c: char) -> bool {
    matches!(c, 'I' | 'O' | 'Q')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_vin_is_raised_before_i_o_and_q_are_removed() {
        assert_eq!(normalize_vin(" 2hgfc2f59gh512345\t"), "2HGFC2F59GH512345");
        assert_eq!(normalize_vin("1hgcqoi33a004352"), "1HGC33A004352");
        assert!(matches!(normalize_vin("2HGFC2F59GH512345 "), Cow::Borrowed(_)));
    }

    #[test]
    fn a_vin_has_11_to_17_letters_and_digits() {
        assert_eq!(classify_vin("2HGFC2F59GH512345"), ParsedVin::Valid("2HGFC2F59GH512345".into()));
        assert_eq!(classify_vin("12345678901"), ParsedVin::Valid("12345678901".into()));
        assert_eq!(classify_vin("1234567890"), ParsedVin::Malformed);
        assert_eq!(classify_vin("123456789012345678"), ParsedVin::Malformed);
        assert_eq!(classify_vin("2HGFC2F59-H512345"), ParsedVin::Malformed);
        assert_eq!(classify_vin("2HGFC2F59ЯH512345"), ParsedVin::Malformed);
        assert_eq!(classify_vin(" \u{b} \u{a0}\u{200b}"), ParsedVin::Empty);
        assert_eq!(classify_vin("\u{feff}2HGFC2F59GH512345\u{a0}"), ParsedVin::Valid("2HGFC2F59GH512345".into()));
        assert_eq!(classify_vin("2HGFC2F59\u{200b}GH512345"), ParsedVin::Malformed);
        assert_eq!(classify_vin(&"A".repeat(3000)), ParsedVin::Malformed);
        assert_eq!(classify_vin("OIQ"), ParsedVin::Malformed);
    }

    #[test]
    fn a_vin_that_loses_characters_says_so() {
        assert!(loses_characters("2HGFC2F59GH5I2345"));
        assert!(loses_characters("2hgfc2f59gh5q2345"));
        assert!(!loses_characters(" 2hgfc2f59gh512345 "));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(raw in "[ \t]{0,2}\\PC{0,20}[ \r\n]{0,2}") {
            let once = normalize_vin(&raw).into_owned();
            let has_bare_ends = trim_blanks(&once) == once;
            // `I A` becomes ` A`: an inner blank may move to an end, in SQL as here.
            prop_assume!(has_bare_ends);
            prop_assert_eq!(normalize_vin(&once), once.as_str());
        }

        #[test]
        fn what_is_valid_matches_the_tables_check(raw in "[a-zA-Z0-9 -]{0,20}") {
            if let ParsedVin::Valid(vin) = classify_vin(&raw) {
                prop_assert!((11..=17).contains(&vin.len()));
                prop_assert!(vin.bytes().all(|b| b"ABCDEFGHJKLMNPRSTUVWXYZ0123456789".contains(&b)));
            }
        }
    }
}
