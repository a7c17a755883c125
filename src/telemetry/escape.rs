//! Escapes control characters in external text before it is printed.
//!
//! A feed's values, errors and operators' reasons may contain characters that a terminal interprets: escape sequences
//! that recolour, move the cursor or set the title, a bell, marks that change the direction of writing. They are
//! printed as `\u{1b}`, so the output shows exactly the text. The line feed is not escaped, since the program itself
//! prints only this one.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns true for a character that a terminal interprets or hides.
///
/// These are the controls (C0 except the line feed, DEL, C1), line and paragraph separators, direction marks, and
/// format characters without a shape.
fn is_unprintable(c: char) -> bool {
    match c {
        '\n' => false,
        c if c.is_control() => true,
        // Soft hyphen and Arabic letter mark.
        '\u{ad}' | '\u{61c}' => true,
        // Zero-width space to right-to-left mark, except the two joiners that scripts and emoji need.
        '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        // Separators, embeddings, overrides.
        '\u{2028}'..='\u{202e}' => true,
        // Word joiner, invisible operators, isolates, deprecated format characters.
        '\u{2060}'..='\u{206f}' => true,
        // Byte order mark, interlinear annotation, tags.
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

fn replace_chars(text: &str, obeyed: fn(char) -> bool, write: fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(obeyed) else { return Cow::Borrowed(text) };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for c in text[first..].chars() {
        if obeyed(c) { write(&mut shown, c) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn write_escape(shown: &mut String, c: char) {
    // Writing to a string does not fail.
    let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
}

/// Escapes all characters that a terminal interprets, except line feeds. Returns the text itself if there are none.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    replace_chars(text, is_unprintable, write_escape)
}

/// Escapes all characters that a terminal interprets, line feeds included. Returns one line.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    replace_chars(text, |c| c == '\n' || is_unprintable(c), write_escape)
}

/// Escapes the characters that a terminal interprets inside JSON strings, in the form `\u202e`. Returns equivalent
/// JSON.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    replace_chars(
        json,
        |c| is_unprintable(c) && c != '\t',
        |shown, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_shown_by_their_number() {
        assert_eq!(
            escape_text("a\u{1b}[31mb\u{7}\u{0}\u{9b}c\u{202e}d\u{2066}e\u{200f}\tf\r\ng"),
            "a\\u{1b}[31mb\\u{7}\\u{0}\\u{9b}c\\u{202e}d\\u{2066}e\\u{200f}\\u{9}f\\u{d}\ng"
        );
        assert_eq!(escape_line("a\nb"), "a\\u{a}b");
    }

    #[test]
    fn text_of_any_script_stays_and_is_not_copied() {
        for text in ["Škoda Кузов 車両 مركبة", "👩\u{200d}🔧", "LIFT 6\", 35\" TIRES"] {
            assert!(matches!(escape_text(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "note": "a\u{1b}\u{7f}\u{85}\u{202e}\u{e0041}é\n" });
        let printed = serde_json::to_string_pretty(&value).unwrap();
        let shown = escape_json(&printed);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(escape_text(&shown), *shown, "nothing is left to escape");
    }
}
