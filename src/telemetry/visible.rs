//! Text from outside, made safe to print.
//!
//! A feed's values, errors and operators' reasons may hold characters that a terminal obeys: escape sequences that recolour,
//! move or retitle, a bell, marks that turn the direction of writing. They are printed as `\u{1b}`, so that what is shown is
//! what is there. The line feed stays: it is the only one that the program itself prints.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a terminal obeys this character or hides it: the controls (C0 but for the line feed, DEL, C1), line and
/// paragraph separators, marks of direction, and format characters without a shape.
fn is_obeyed(c: char) -> bool {
    match c {
        '\n' => false,
        c if c.is_control() => true,
        // soft hyphen and Arabic letter mark
        '\u{ad}' | '\u{61c}' => true,
        // zero-width space to right-to-left mark, but for the two joiners that scripts and emoji need
        '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        // separators, embeddings, overrides
        '\u{2028}'..='\u{202e}' => true,
        // word joiner, invisible operators, isolates, deprecated format characters
        '\u{2060}'..='\u{206f}' => true,
        // byte order mark, interlinear annotation, tags
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

fn replaced(text: &str, obeyed: fn(char) -> bool, write: fn(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(obeyed) else { return Cow::Borrowed(text) };
    let mut shown = String::with_capacity(text.len() + 16);
    shown.push_str(&text[..first]);
    for c in text[first..].chars() {
        if obeyed(c) { write(&mut shown, c) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

fn write_escape(shown: &mut String, c: char) {
    // writing to a string does not fail
    let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
}

/// Returns text that a terminal shows as it is; line feeds stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    replaced(text, is_obeyed, write_escape)
}

/// Returns the same as one line: line feeds are shown too.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c == '\n' || is_obeyed(c), write_escape)
}

/// Returns JSON of the same meaning without such characters: inside strings they become `\u202e`.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    replaced(
        json,
        |c| is_obeyed(c) && c != '\t',
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
            visible("a\u{1b}[31mb\u{7}\u{0}\u{9b}c\u{202e}d\u{2066}e\u{200f}\tf\r\ng"),
            "a\\u{1b}[31mb\\u{7}\\u{0}\\u{9b}c\\u{202e}d\\u{2066}e\\u{200f}\\u{9}f\\u{d}\ng"
        );
        assert_eq!(visible_line("a\nb"), "a\\u{a}b");
    }

    #[test]
    fn text_of_any_script_stays_and_is_not_copied() {
        for text in ["Škoda Кузов 車両 مركبة", "👩\u{200d}🔧", "LIFT 6\", 35\" TIRES"] {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "note": "a\u{1b}\u{7f}\u{85}\u{202e}\u{e0041}é\n" });
        let printed = serde_json::to_string_pretty(&value).unwrap();
        let shown = visible_json(&printed);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(visible(&shown), *shown, "nothing is left to escape");
    }
}
