//! Lot numbers: 1 to 18 digits, in one canonical form for all notations.
//!
//! Spreadsheets turn a lot number into `70000001.0` or `45,148,624`, and copying from a web page adds no-break blanks.
//! The canonical form is the digits without leading zeros, one text per number. A separator must group all digits by
//! three, since two numbers in one field would otherwise become a third one. Letters, signs, a nonzero fraction and an
//! exponent (`7.0E7` has lost digits) make a value unreadable.

use super::Column;
use super::blank::{is_blank, is_zero_width, trim_blanks};
use super::field_splitter::FieldSplitter;
use super::header::FeedHeader;
use super::record::{RejectedRecord, RejectionReason};
use std::borrow::Cow;

/// Maximum number of digits of a lot number, so that it fits a `bigint`.
const MAX_LOT_DIGITS: usize = 18;

/// Returns the canonical form of a lot number, or None for another text. Allocates only if the digits are separated.
pub fn parse_lot_number(text: &str) -> Option<Cow<'_, str>> {
    let text = trim_blanks(text);
    if is_digits(text) {
        return canonical_digits(text).map(Cow::Borrowed);
    }
    let whole = match text.split_once('.') {
        Some((whole, fraction)) => fraction.bytes().all(|b| b == b'0').then_some(whole)?,
        None => text,
    };
    if is_digits(whole) {
        return canonical_digits(whole).map(Cow::Borrowed);
    }
    let digits = remove_separators(whole)?;
    canonical_digits(&digits).map(|digits| Cow::Owned(digits.to_owned()))
}

/// Returns the canonical form of a lot number typed by a user: digits only, without the separators and fractions of
/// files.
pub fn parse_lot_digits(text: &str) -> Option<&str> {
    canonical_digits(text).filter(|_| is_digits(text))
}

/// Returns the canonical lot number of a rejected record: the field at the header's lot position, split by the tolerant
/// rule. Returns None if the record ends within that field, if only a part of the field was stored, or if the field is
/// not a lot number.
pub fn lot_of_rejected<'a>(header: &FeedHeader, rejected: &RejectedRecord<'a>) -> Option<Cow<'a, str>> {
    let place = header.position(Column::LotNumber)?;
    let bytes = rejected.bytes;
    let mut split = FieldSplitter::new_tolerant(header.mapping().quote_before_blank_closes);
    split.split_fields(bytes, place);
    let (begin, end) = split.spans.get(place).copied()?;
    let (begin, end) = (begin as usize, end as usize);
    // A field at the end of the stored bytes may continue after them, unless it is quoted or the line ends there.
    let line_is_whole = rejected.reason != RejectionReason::Truncated && rejected.length == bytes.len() as u64;
    if end == bytes.len() && !line_is_whole {
        return None;
    }
    match std::str::from_utf8(&bytes[begin..end]) {
        Ok(field) => parse_lot_number(field),
        Err(_) => {
            let latin1: String = bytes[begin..end].iter().map(|b| char::from(*b)).collect();
            parse_lot_number(&latin1).map(|lot| Cow::Owned(lot.into_owned()))
        }
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn canonical_digits(digits: &str) -> Option<&str> {
    let digits = digits.trim_start_matches('0');
    (1..=MAX_LOT_DIGITS).contains(&digits.len()).then_some(digits)
}

/// Returns the digits of a number whose thousands are separated by one kind of comma, blank or apostrophe throughout.
/// Zero-width characters are dropped at any position.
pub(super) fn remove_separators(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(text.len());
    let mut separator = None;
    let mut group = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => {
                digits.push(c);
                group += 1;
            }
            _ if is_zero_width(c) => {}
            _ if c == ',' || c == '\'' || is_blank(c) => {
                let whole_group = if separator.is_some() { group == 3 } else { (1..=3).contains(&group) };
                if !whole_group || separator.is_some_and(|first| first != c) {
                    return None;
                }
                separator = Some(c);
                group = 0;
            }
            _ => return None,
        }
    }
    (separator.is_none() || group == 3).then_some(digits).filter(|digits| !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::mapping::copart_mapping;
    use super::super::reader::{ReaderLimits, RecordItem, RecordReader};
    use super::*;

    #[test]
    fn a_user_writes_a_lot_number_in_digits_only() {
        assert_eq!(parse_lot_digits("0045148624"), Some("45148624"));
        assert_eq!(parse_lot_digits("0123456789012345678"), Some("123456789012345678"));
        for text in ["", "0", "12a", "-1", "45,148,624", "45148624.0", " 1", "1234567890123456789"] {
            assert_eq!(parse_lot_digits(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_lot_number_has_one_form_however_it_is_written() {
        for text in [
            "45148624",
            "045148624",
            "45148624.0",
            "45148624.00",
            "45148624.",
            "45,148,624",
            "45,148,624.0",
            " 45148624 ",
            "\u{a0}45148624\u{a0}",
            "\u{feff}45148624",
            "45148624\u{200b}",
            "45 148 624",
            "45\u{a0}148\u{a0}624",
            "45\u{202f}148\u{202f}624",
            "4514\u{200b}8624",
            "\t45148624\r",
            "00000000000000000045148624",
        ] {
            assert_eq!(parse_lot_number(text).as_deref(), Some("45148624"), "{text:?}");
        }
        assert!(matches!(parse_lot_number(" 045148624.0"), Some(Cow::Borrowed("45148624"))));
        assert_eq!(parse_lot_number("999999999999999999").as_deref(), Some("999999999999999999"));
    }

    #[test]
    fn what_may_be_two_numbers_or_another_one_is_no_lot_number() {
        for text in [
            "",
            " ",
            "0",
            "0.0",
            "000",
            ".0",
            "1000000000000000000",
            "45148624.5",
            "45148624A",
            "-45148624",
            "+45148624",
            "4.5148624E7",
            "4,5148,624",
            "45148624,45148625",
            "45148624 45148625",
            "45,148 624",
            "45,148,62",
            "1234,567",
            ",148,624",
            "45,148,624,",
            "45148624.0.0",
            "４５１４８６２４",
            "45.148.624",
            "45148624/45148625",
        ] {
            assert_eq!(parse_lot_number(text), None, "{text:?}");
        }
    }

    /// Returns the lot numbers of the rejected records of a file with these lines. The reader stores `kept` bytes of
    /// each.
    fn rejected_lots(lines: &str, kept: usize) -> Vec<Option<String>> {
        let file = format!("\"Id\",\"Make\",\"Lot number\",\"VIN\",\"Last Updated Time\"\n{lines}");
        let limits = ReaderLimits { kept, record: 100, ..ReaderLimits::default() };
        let mut reader = RecordReader::new(file.as_bytes(), limits, copart_mapping()).unwrap();
        let header = reader.header().clone();
        let mut lots = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            if let RecordItem::Rejected(rejected) = item {
                lots.push(lot_of_rejected(&header, &rejected).map(Cow::into_owned));
            }
        }
        lots
    }

    #[test]
    fn the_lot_of_a_rejected_record_is_read_where_the_header_has_it() {
        let lot = |text: &str| vec![Some(text.to_owned())];
        assert_eq!(rejected_lots("1,\"HONDA\",70000001,\"V\"\n", 99), lot("70000001"), "a field too few");
        assert_eq!(rejected_lots("1,\"5\" LIFT\",\"70,000,001\",\"V\",T,x\n", 99), lot("70000001"), "a field too many");
        assert_eq!(rejected_lots("1,\"HONDA\",070000001.0,\"V,T\n", 99), lot("70000001"), "an open quote behind it");
        assert_eq!(rejected_lots("1,\"HONDA\",70000001\n", 99), lot("70000001"), "the line ends with it");
        assert_eq!(rejected_lots("1,\"HONDA\",\"70000001\"", 99), lot("70000001"), "the file ends with its quote");
        assert_eq!(
            rejected_lots(&format!("1,\"HONDA\",70000001,{}\n", "x".repeat(200)), 20),
            lot("70000001"),
            "too long a line"
        );
    }

    #[test]
    fn a_lot_number_that_may_go_on_is_not_read() {
        assert_eq!(rejected_lots("1,\"HONDA\",7000", 99), [None], "the file ends within it");
        assert_eq!(rejected_lots("1,\"HONDA\",\"7000", 99), [None], "the file ends within its quotes");
        assert_eq!(rejected_lots("1,\"HONDA\",70000001,V\n", 14), [None], "only a part was kept");
        assert_eq!(rejected_lots("1,\"HONDA\n", 99), [None], "the field is not there");
        assert_eq!(rejected_lots("1,\"HONDA\",V8,\"V\"\n", 99), [None], "it is no number");
        assert_eq!(rejected_lots("1,\"HONDA,70000001,V,T\n", 99), [None], "an open quote before it");
    }
}
