//! Blank characters: the characters trimmed from a value, and the separators allowed between the digits of a number.
//!
//! Spreadsheets and web pages leave more blanks than a keyboard has: no-break blanks (U+00A0, U+202F), zero-width
//! characters (U+200B, U+FEFF) and marks of writing direction. A blank is never part of a value. The SQL function
//! `public.normalize_vin` trims the same characters, and a property test keeps the two lists equal.

/// Returns true for a character without a visible form: a blank of any width, a line end or a mark of writing
/// direction.
pub fn is_blank(c: char) -> bool {
    matches!(c,
        '\t'..='\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}' | '\u{205f}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{3000}' | '\u{feff}')
}

/// Returns true for a blank of zero width, which cannot separate anything.
pub fn is_zero_width(c: char) -> bool {
    matches!(c, '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns the text without the blanks at both ends.
pub fn trim_blanks(text: &str) -> &str {
    // Most values need no trimming. A visible first and last byte prove that without a scan.
    let visible = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    let bytes = text.as_bytes();
    if visible(bytes.first()) && visible(bytes.last()) { text } else { text.trim_matches(is_blank) }
}

/// Returns true if the bytes, UTF-8 or Latin-1, begin with a blank other than a line end.
pub(super) fn begins_with_blank(bytes: &[u8]) -> bool {
    match bytes {
        [b' ' | b'\t' | 0xa0, ..] => true,
        [0xc2 | 0xe1 | 0xe2 | 0xe3 | 0xef, ..] => {
            let first = &bytes[..bytes.len().min(4)];
            first.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next()).is_some_and(is_blank)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_of_every_kind_are_trimmed_at_both_ends_and_kept_inside() {
        for blank in
            [' ', '\t', '\x0b', '\u{a0}', '\u{202f}', '\u{200b}', '\u{feff}', '\u{2060}', '\u{200e}', '\u{3000}']
        {
            assert_eq!(trim_blanks(&format!("{blank}A{blank}B{blank}{blank}")), format!("A{blank}B"), "{blank:?}");
            assert_eq!(trim_blanks(&format!("{blank}{blank}")), "", "{blank:?}");
        }
        assert_eq!(trim_blanks("é "), "é");
        assert_eq!(trim_blanks(""), "");
    }

    #[test]
    fn a_blank_is_known_by_its_bytes() {
        for blank in [" x", "\t", "\u{a0}x", "\u{202f}", "\u{200b}\"", "\u{feff}", "\u{3000}"] {
            assert!(begins_with_blank(blank.as_bytes()), "{blank:?}");
        }
        for other in ["", "x ", "\"", "\r\n", "\n", "é", "€ "] {
            assert!(!begins_with_blank(other.as_bytes()), "{other:?}");
        }
        assert!(begins_with_blank(b"\xa035") && !begins_with_blank(b"\xc2"));
    }

    #[test]
    fn every_blank_of_unicode_and_every_character_without_width_is_a_blank() {
        for c in '\0'..=char::MAX {
            assert!(is_blank(c) || !(c.is_whitespace() || is_zero_width(c)), "{c:?}");
        }
        assert!(!is_blank('\0') && !is_blank('_') && !is_blank('\u{fffd}'));
    }
}
