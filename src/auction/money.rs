//! Exact decimals in the feed's notation (`60019.0`, `22157.88`). A float would lose cents.
//!
//! Spreadsheets format numbers for people: `60,019` and `$1,275.00`. Such a number is accepted if its thousands are
//! grouped by three throughout and its currency is the row's. A comma is never a decimal point.

use super::lot_number::remove_separators;
use std::borrow::Cow;
use std::fmt;

/// A decimal number with the value `unscaled / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeedDecimal {
    /// The digits with their sign.
    pub unscaled: i64,
    /// Number of digits after the decimal point.
    pub scale: u8,
}

impl FeedDecimal {
    /// Parses an optional sign, digits, and a point with digits, rounding half away from zero to `scale` (at most 9)
    /// digits. Returns None for another text and for a number out of range.
    pub fn parse(text: &str, scale: u8) -> Option<FeedDecimal> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let mut unscaled: i64 = 0;
        let mut after: Option<u8> = None;
        let (mut any, mut round) = (false, false);
        for byte in digits {
            match byte {
                b'.' if after.is_none() => after = Some(0),
                b'0'..=b'9' => {
                    any = true;
                    let digit = byte - b'0';
                    match &mut after {
                        Some(n) if *n > scale => {}
                        Some(n) if *n == scale => {
                            round = digit >= 5;
                            *n += 1;
                        }
                        place => {
                            unscaled = unscaled.checked_mul(10)?.checked_add(i64::from(digit))?;
                            *place = place.map(|n| n + 1);
                        }
                    }
                }
                _ => return None,
            }
        }
        if !any {
            return None;
        }
        let written = after.unwrap_or(0).min(scale);
        unscaled = unscaled.checked_mul(10_i64.checked_pow(u32::from(scale - written))?)?;
        unscaled = unscaled.checked_add(i64::from(round))?;
        Some(FeedDecimal { unscaled: if negative { -unscaled } else { unscaled }, scale })
    }
}

/// Returns a number without thousands separators. Returns None if they do not group all digits by three, or if a
/// grouped number begins with a zero: `0,500` may be a half.
pub fn remove_grouping(text: &str) -> Option<Cow<'_, str>> {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+');
    if text.bytes().all(plain) {
        return Some(Cow::Borrowed(text));
    }
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let mut digits = remove_separators(whole)?;
    if digits.starts_with('0') || fraction.is_some_and(|rest| !rest.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    if let Some(fraction) = fraction {
        digits.push('.');
        digits.push_str(fraction);
    }
    Some(Cow::Owned(digits))
}

/// Returns an amount without its currency: `$` or the code of `currency`, before or behind the amount. Another currency
/// is left in place and makes the amount unreadable.
pub fn strip_currency<'a>(text: &'a str, currency: Option<&str>) -> &'a str {
    let sign = if matches!(currency, None | Some("USD" | "CAD")) { "$" } else { "" };
    strip_unit(strip_unit(text, currency.unwrap_or("")), sign)
}

/// Returns the text without a unit at the beginning, or else without a unit at the end.
fn strip_unit<'a>(text: &'a str, unit: &str) -> &'a str {
    let is_unit = |part: &str| part.eq_ignore_ascii_case(unit);
    let cut = text.len().saturating_sub(unit.len());
    match (text.split_at_checked(unit.len()), text.split_at_checked(cut)) {
        (Some((head, rest)), _) if is_unit(head) => rest.trim_start(),
        (_, Some((rest, tail))) if is_unit(tail) => rest.trim_end(),
        _ => text,
    }
}

impl fmt::Display for FeedDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let (digits, unit) = (self.unscaled.unsigned_abs(), 10_u64.pow(u32::from(self.scale)));
        match self.scale {
            0 => write!(f, "{sign}{digits}"),
            scale => {
                write!(f, "{sign}{}.{:0width$}", digits / unit, digits % unit, width = usize::from(scale))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_to_text(text: &str, scale: u8) -> Option<String> {
        FeedDecimal::parse(text, scale).map(|d| d.to_string())
    }

    #[test]
    fn amounts_are_read_to_the_cent_and_miles_to_the_tenth() {
        assert_eq!(FeedDecimal::parse("22157.88", 2), Some(FeedDecimal { unscaled: 2_215_788, scale: 2 }));
        assert_eq!(parse_to_text("60019.0", 1).as_deref(), Some("60019.0"));
        assert_eq!(parse_to_text("12563", 2).as_deref(), Some("12563.00"));
        assert_eq!(parse_to_text(".5", 1).as_deref(), Some("0.5"));
        assert_eq!(parse_to_text("5.", 1).as_deref(), Some("5.0"));
        assert_eq!(parse_to_text("-0.05", 2).as_deref(), Some("-0.05"));
        assert_eq!(parse_to_text("7", 0).as_deref(), Some("7"));
    }

    #[test]
    fn digits_too_many_are_rounded_half_away_from_zero() {
        assert_eq!(parse_to_text("1.005", 2).as_deref(), Some("1.01"));
        assert_eq!(parse_to_text("1.00499", 2).as_deref(), Some("1.00"));
        assert_eq!(parse_to_text("-9.99999", 2).as_deref(), Some("-10.00"));
        assert_eq!(parse_to_text("7.5", 0).as_deref(), Some("8"));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for odd in ["", "-", ".", "1.2.3", "1e5", "1,000.00", "$5", "12a", "NaN", "99999999999999999999"] {
            assert_eq!(FeedDecimal::parse(odd, 2), None, "{odd}");
        }
    }

    #[test]
    fn thousands_are_grouped_by_three_or_not_at_all() {
        let plain = |text| remove_grouping(text).map(Cow::into_owned);
        for (text, read) in [
            ("60019.0", "60019.0"),
            ("60,019", "60019"),
            ("60,019.0", "60019.0"),
            ("1,275.00", "1275.00"),
            ("1,234,567.89", "1234567.89"),
            ("60 019", "60019"),
            ("60\u{202f}019", "60019"),
            ("1'275.50", "1275.50"),
            ("-5", "-5"),
        ] {
            assert_eq!(plain(text).as_deref(), Some(read), "{text}");
        }
        for text in [
            "1,27",
            "1275,00",
            "1.275,00",
            "12,75.00",
            "0,500",
            "1,275,00",
            "6OO19",
            "1,275.0,0",
            "-1,275",
            ",",
            "1,,275",
            "1e5",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
    }

    #[test]
    fn an_amount_may_bear_its_own_currency_and_no_other() {
        for text in [
            "$1,275.00",
            "$ 1,275.00",
            "1,275.00 USD",
            "USD 1,275.00",
            "usd1,275.00",
            "1,275.00$",
            "$1,275.00 USD",
            "USD $1,275.00",
            "1,275.00",
        ] {
            assert_eq!(strip_currency(text, Some("USD")), "1,275.00", "{text}");
        }
        assert_eq!(strip_currency("$5", None), "5");
        assert_eq!(strip_currency("CAD 5", Some("CAD")), "5");
        for text in ["CAD 5", "€5", "C$5", "(5)", "5 dollars", "é", ""] {
            assert_eq!(strip_currency(text, Some("USD")), text, "{text}");
        }
        assert_eq!(strip_currency("$5", Some("EUR")), "$5");
        assert_eq!(strip_currency("$$5", Some("USD")), "$5", "a second sign is no number");
    }

    proptest! {
        #[test]
        fn a_written_decimal_reads_back(unscaled in -(1_i64 << 50)..(1_i64 << 50), scale in 0_u8..4) {
            let decimal = FeedDecimal { unscaled, scale };
            prop_assert_eq!(FeedDecimal::parse(&decimal.to_string(), scale), Some(decimal));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,30}", scale in 0_u8..=9) {
            let _ = FeedDecimal::parse(&text, scale);
            let _ = (remove_grouping(&text), strip_currency(&text, Some("USD")));
        }
    }
}
