//! Splits one line, or several joined lines, into fields by one of two rules.
//!
//! *Strict* is RFC 4180: inside quotes a quote is doubled, outside quotes there is none. *Tolerant* is the feed's
//! practice: a quote closes a field only before a comma or the end, and any other quote is part of the value. If a
//! source writes no blank after its commas, a comma and a blank behind a quote are text too, so that `LIFT 6", 35"
//! TIRES` is one value. The strict rule returns `Broken` for a text that is not RFC 4180. The tolerant rule never does.
//!
//! A split can be resumed on the same text grown at its end, so that joining lines does not rescan the text. Hence a
//! quote at the very end is treated as closing for now and is checked again after growth: then a line end follows it,
//! which is not a comma.

use super::blank::begins_with_blank;
use memchr::memchr;

/// A field's position in its text: first byte, and the byte after the last.
pub(super) type FieldSpan = (u32, u32);

/// The result of splitting a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitResult {
    /// The text ends outside quotes, after this many fields. `quoted` is true if the last field was quoted.
    Closed { fields: usize, quoted: bool },
    /// The text ends inside quotes, in the field of this number (from 1).
    Open { fields: usize },
    /// The text is not RFC 4180.
    Broken,
}

/// The state of one reading.
#[derive(Clone, Debug)]
pub(super) struct FieldSplitter {
    strict: bool,
    /// True if a quote, a comma and a blank close a field.
    blank_closes: bool,
    /// The fields. After `Closed` the last field is among them.
    pub(super) spans: Vec<FieldSpan>,
    /// A doubled quote was found: the values must be unescaped.
    pub(super) escaped: bool,
    /// An unquoted field contains a quote.
    pub(super) stray: bool,
    /// Position at which the next call continues.
    at: usize,
    /// Start of the open quoted field's value.
    open: Option<usize>,
    /// The last span is provisional: its closing quote was at the end of the text.
    provisional: bool,
}

impl FieldSplitter {
    /// Returns a reading by RFC 4180, in which any blank may follow a comma.
    pub(super) fn new_strict() -> FieldSplitter {
        FieldSplitter { strict: true, ..FieldSplitter::new_tolerant(true) }
    }

    /// Returns a reading by the tolerant rule. `blank_closes` is the mapping's `quote_before_blank_closes`.
    pub(super) fn new_tolerant(blank_closes: bool) -> FieldSplitter {
        FieldSplitter {
            strict: false,
            blank_closes,
            spans: Vec::new(),
            escaped: false,
            stray: false,
            at: 0,
            open: None,
            provisional: false,
        }
    }

    /// Resets the state for a new text and reuses the buffer of spans.
    pub(super) fn clear(&mut self) {
        self.spans.clear();
        (self.escaped, self.stray, self.at, self.open, self.provisional) = (false, false, 0, None, false);
    }

    /// Returns true if `ending` is a complete record of `width` fields.
    pub(super) fn is_complete(ending: SplitResult, width: usize) -> bool {
        matches!(ending, SplitResult::Closed { fields, .. } if fields == width)
    }

    /// Reads `text` from the end of the last call, until the end of the text or until there are more than `limit`
    /// fields.
    pub(super) fn split_fields(&mut self, text: &[u8], limit: usize) -> SplitResult {
        if std::mem::take(&mut self.provisional) {
            self.spans.pop();
        }
        loop {
            let Some(begin) = self.open else {
                match text.get(self.at) {
                    Some(b'"') => {
                        self.at += 1;
                        self.open = Some(self.at);
                        continue;
                    }
                    _ if self.split_unquoted(text) => {
                        if self.spans.len() > limit {
                            return SplitResult::Closed { fields: self.spans.len(), quoted: false };
                        }
                        continue;
                    }
                    _ if self.strict && self.stray => return SplitResult::Broken,
                    _ => return SplitResult::Closed { fields: self.spans.len(), quoted: false },
                }
            };
            let Some(quote) = memchr(b'"', &text[self.at..]).map(|i| self.at + i) else {
                self.at = text.len();
                return SplitResult::Open { fields: self.spans.len() + 1 };
            };
            match text.get(quote + 1) {
                Some(b',') if self.blank_closes || !begins_with_blank(&text[quote + 2..]) => {
                    self.spans.push((begin as u32, quote as u32));
                    self.open = None;
                    self.at = quote + 2;
                    if self.spans.len() > limit {
                        return SplitResult::Closed { fields: self.spans.len(), quoted: true };
                    }
                }
                None => {
                    self.spans.push((begin as u32, quote as u32));
                    self.at = quote;
                    self.provisional = true;
                    return SplitResult::Closed { fields: self.spans.len(), quoted: true };
                }
                Some(b'"') if self.strict => {
                    self.escaped = true;
                    self.at = quote + 2;
                }
                Some(_) if self.strict => return SplitResult::Broken,
                Some(_) => self.at = quote + 1,
            }
        }
    }

    /// Reads an unquoted field. Returns true if a comma ended the field.
    fn split_unquoted(&mut self, text: &[u8]) -> bool {
        let begin = self.at;
        // A byte loop, since such a field is a number and a call to `memchr` costs more for a few bytes.
        let mut end = begin;
        while let Some(byte) = text.get(end) {
            match byte {
                b',' => break,
                b'"' => self.stray = true,
                _ => {}
            }
            end += 1;
        }
        if self.strict && self.stray {
            return false;
        }
        self.spans.push((begin as u32, end as u32));
        self.at = end + 1;
        end < text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(text: &str, strict: bool) -> (SplitResult, Vec<&str>) {
        let mut split = if strict { FieldSplitter::new_strict() } else { FieldSplitter::new_tolerant(true) };
        let ending = split.split_fields(text.as_bytes(), 100);
        (ending, split.spans.iter().map(|(a, b)| &text[*a as usize..*b as usize]).collect())
    }

    #[test]
    fn both_rules_read_a_clean_line_alike() {
        for strict in [true, false] {
            let (ending, values) = split_text(r#"1,"CA - VALLEJO","",0,,"a,b""#, strict);
            assert_eq!(ending, SplitResult::Closed { fields: 6, quoted: true });
            assert_eq!(values, ["1", "CA - VALLEJO", "", "0", "", "a,b"]);
        }
    }

    #[test]
    fn an_inch_quote_breaks_the_strict_rule_and_is_kept_by_the_tolerant_one() {
        let line = r#""113" SLEEPER CAB","SUMMIT 850 X 165"",7"#;
        assert_eq!(split_text(line, true).0, SplitResult::Broken);
        assert_eq!(split_text(line, false).1, [r#"113" SLEEPER CAB"#, r#"SUMMIT 850 X 165""#, "7"]);
    }

    #[test]
    fn a_quote_a_comma_and_a_blank_close_a_field_only_where_the_mapping_says_so() {
        let line = "\"LIFT 6\", 35\" TIRES\",\"53\",\u{a0}REEFER\",7";
        let values = |blank_closes| {
            let mut split = FieldSplitter::new_tolerant(blank_closes);
            split.split_fields(line.as_bytes(), 100);
            split.spans.iter().map(|(a, b)| &line[*a as usize..*b as usize]).collect::<Vec<_>>()
        };
        assert_eq!(values(false), ["LIFT 6\", 35\" TIRES", "53\",\u{a0}REEFER", "7"]);
        assert_eq!(values(true), ["LIFT 6", " 35\" TIRES\"", "53", "\u{a0}REEFER\"", "7"]);
        assert_eq!(split_text(line, true).0, SplitResult::Broken);
    }

    #[test]
    fn text_after_a_closing_quote_is_never_silently_joined_to_the_value() {
        // A lenient CSV reader makes `AB` of this, with the right count and two bytes lost.
        assert_eq!(split_text(r#""A"B,C"#, true).0, SplitResult::Broken);
        assert_eq!(split_text(r#""A"B,C"#, false).0, SplitResult::Open { fields: 1 });
    }

    #[test]
    fn a_split_resumes_where_its_text_has_grown() {
        let text = b"\"a\"\nb\",c";
        let mut split = FieldSplitter::new_tolerant(true);
        assert_eq!(split.split_fields(&text[..3], 9), SplitResult::Closed { fields: 1, quoted: true });
        assert_eq!(split.split_fields(text, 9), SplitResult::Closed { fields: 2, quoted: false });
        assert_eq!(split.spans, [(1, 5), (7, 8)]);
    }

    #[test]
    fn a_comma_at_the_end_begins_an_empty_field() {
        assert_eq!(split_text("a,", true), (SplitResult::Closed { fields: 2, quoted: false }, vec!["a", ""]));
        assert_eq!(split_text("\"a\",", false), (SplitResult::Closed { fields: 2, quoted: false }, vec!["a", ""]));
    }
}
