//! Cursors of pages: an opaque text that marks the end of a page of one query.
//!
//! A cursor contains the sort key and the tie-breaker of the last row of the page instead of a row count. Rows that
//! appear or disappear before that row therefore do not shift the next page. A cursor also contains a fingerprint of
//! the query (filters and sort order). With another query, the next page would silently skip and repeat rows. A null
//! sort key has a flag of its own, and rows with a null key come last.

use super::problem::Problem;
use data_encoding::HEXLOWER;
use xxhash_rust::xxh3::xxh3_64;

/// Version of the binary format. A cursor of another version is rejected instead of being misread.
const FORMAT_VERSION: u8 = 2;

/// Position of the last row of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCursor {
    /// Sort key of the row. `None` if the key is null.
    pub key: Option<i64>,
    /// Tie-breaker among rows with the same sort key.
    pub tie: String,
}

impl PageCursor {
    /// Encodes the cursor for a query as lower-case hexadecimal text.
    pub fn encode(&self, question: &str) -> String {
        let mut bytes = vec![FORMAT_VERSION];
        bytes.extend(xxh3_64(question.as_bytes()).to_be_bytes());
        bytes.push(u8::from(self.key.is_some()));
        bytes.extend(self.key.unwrap_or(0).to_be_bytes());
        bytes.extend(self.tie.as_bytes());
        // Detects typing errors. The content is not secret.
        let sum = xxh3_64(&bytes) as u16;
        bytes.extend(sum.to_be_bytes());
        HEXLOWER.encode(&bytes)
    }

    /// Decodes the cursor that a client sent with a query.
    ///
    /// # Errors
    /// Returns the problem of the parameter `cursor` if the text is no cursor, has another version or belongs to
    /// another query.
    pub fn decode(text: &str, question: &str) -> Result<PageCursor, Problem> {
        let wrong = || Problem::invalid_parameter("cursor", "is not a cursor that a page returned");
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        let (rest, sum) = bytes.split_last_chunk::<2>().ok_or_else(wrong)?;
        if xxh3_64(rest) as u16 != u16::from_be_bytes(*sum) {
            return Err(wrong());
        }
        let (head, tie) = rest.split_first_chunk::<18>().ok_or_else(wrong)?;
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&head[at..at + 8]);
            eight
        };
        if head[0] != FORMAT_VERSION {
            return Err(Problem::invalid_parameter(
                "cursor",
                "has the format of another program version. Begin at the first page",
            ));
        }
        if u64::from_be_bytes(number(1)) != xxh3_64(question.as_bytes()) {
            return Err(Problem::invalid_parameter(
                "cursor",
                "belongs to a page with other filters or another sort order",
            ));
        }
        let key = (head[9] == 1).then(|| i64::from_be_bytes(number(10)));
        let tie = std::str::from_utf8(tie).map_err(|_| wrong())?.to_owned();
        Ok(PageCursor { key, tie })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went(key: Option<i64>, tie in "[a-z0-9]{0,18}", question: String) {
            let cursor = PageCursor { key, tie };
            prop_assert_eq!(PageCursor::decode(&cursor.encode(&question), &question), Ok(cursor));
        }

        #[test]
        fn no_text_is_misread(text: String) {
            if let Ok(cursor) = PageCursor::decode(&text, "make=KIA") {
                prop_assert_eq!(cursor.encode("make=KIA"), text);
            }
        }

        #[test]
        fn one_wrong_digit_is_seen(key: Option<i64>, at in 0usize..40, digit in 0u32..16) {
            let text = PageCursor { key, tie: "63868745".to_owned() }.encode("");
            let mut wrong: Vec<char> = text.chars().collect();
            let at = at % wrong.len();
            wrong[at] = char::from_digit(digit, 16).unwrap();
            let wrong: String = wrong.into_iter().collect();
            prop_assume!(wrong != text);
            // A 16-bit checksum accepts one wrong text in 65,536. Such a text may not cause a panic.
            let _ = PageCursor::decode(&wrong, "");
        }
    }

    #[test]
    fn a_cursor_of_another_question_is_refused() {
        let cursor = PageCursor { key: Some(5), tie: "7".to_owned() };
        let refused = PageCursor::decode(&cursor.encode("make=KIA"), "make=BMW").unwrap_err();
        assert_eq!((refused.status, refused.parameter.as_deref()), (400, Some("cursor")));
    }
}
