//! Compares constraints and indexes, as PostgreSQL prints them, as expressions instead of text.
//!
//! PostgreSQL prints an expression from its parse tree. Parsing that output again gives a tree of another shape. For
//! example, `a between 1 and 2 and b` is stored as `((a >= 1) AND (a <= 2)) AND b`. A dump contains `(a >= 1) AND (a <=
//! 2) AND b`, since the grammar flattens a conjunction whose left side is a conjunction. The meaning is the same, the
//! text is not.
//!
//! Two expressions are equal here if they differ only in blanks, in parentheses around a whole operand, and in the
//! nesting of `AND` within `AND` and of `OR` within `OR`. All three differences are identities of SQL, so no check
//! passes that should fail. `tests/schema/dumps.rs` checks on each server version that dump and restore change nothing
//! else.
//!
//! Rejected: a general SQL parser. A parser supports thousands of statements, where a hundred conditions are compared,
//! and still not everything that PostgreSQL prints. Rejected: creating both expressions on the server, which needs
//! rights and locks that a check of a live database must not have.

/// Returns true if two printed expressions have the same meaning by their form.
pub fn is_equal(one: &str, other: &str) -> bool {
    one == other || matches!((parse(one), parse(other)), (Some(one), Some(other)) if one == other)
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SqlExpression {
    /// A word, number, string, operator or other character, as printed.
    Token(String),
    /// Operands and operators in a row.
    Sequence(Vec<SqlExpression>),
    /// The contents of brackets: arguments, columns, subscripts, or one parenthesized operand among others.
    List(char, Vec<SqlExpression>),
    /// The operands of `AND`. No operand is an `And`.
    And(Vec<SqlExpression>),
    /// The operands of `OR`. No operand is an `Or`.
    Or(Vec<SqlExpression>),
}

/// Parses a printed definition. Returns `None` if brackets or quotes do not match.
fn parse(text: &str) -> Option<SqlExpression> {
    let mut tokens = split_tokens(text)?.into_iter();
    let whole = parse_sequence(&mut tokens, None)?;
    // the column list of an index or a foreign key is no conjunction, and neither is the definition as a whole
    let mut items = whole.into_iter().map(|items| build_operand(items, false)).collect::<Vec<_>>();
    if items.len() == 1 { items.pop() } else { Some(SqlExpression::List(' ', items)) }
}

/// Parses up to the closing bracket, or to the end if `closing` is `None`. Returns the items between commas.
fn parse_sequence(tokens: &mut std::vec::IntoIter<String>, closing: Option<&str>) -> Option<Vec<Vec<SqlExpression>>> {
    let mut items = vec![Vec::new()];
    loop {
        let Some(token) = tokens.next() else { return closing.is_none().then_some(items) };
        let expression = match token.as_str() {
            "(" => bracket_list('(', parse_sequence(tokens, Some(")"))?),
            "[" => bracket_list('[', parse_sequence(tokens, Some("]"))?),
            ")" | "]" => return (closing == Some(token.as_str())).then_some(items),
            "," => {
                items.push(Vec::new());
                continue;
            }
            _ => SqlExpression::Token(token),
        };
        items.last_mut()?.push(expression);
    }
}

/// Returns the contents of brackets as a list.
fn bracket_list(bracket: char, items: Vec<Vec<SqlExpression>>) -> SqlExpression {
    SqlExpression::List(bracket, items.into_iter().map(|items| build_operand(items, true)).collect())
}

/// Returns the items of one operand as an expression, without parentheses around the whole.
///
/// The operand is split at `OR`, otherwise at `AND`. Inside `CASE` and sub-selects both words may have other neighbors,
/// so these are not split.
fn build_operand(mut items: Vec<SqlExpression>, splits: bool) -> SqlExpression {
    let has = |word: &str| items.iter().any(|item| matches!(item, SqlExpression::Token(token) if token == word));
    if splits && !has("CASE") && !has("SELECT") && !has("BETWEEN") {
        for (word, node) in
            [("OR", SqlExpression::Or as fn(Vec<SqlExpression>) -> SqlExpression), ("AND", SqlExpression::And)]
        {
            if has(word) {
                let parts = items.split(|item| matches!(item, SqlExpression::Token(token) if token == word));
                return flatten_operands(parts.map(|part| build_operand(part.to_vec(), true)).collect(), node);
            }
        }
    }
    match items.pop() {
        Some(SqlExpression::List('(', mut only)) if items.is_empty() && only.len() == 1 => {
            only.pop().unwrap_or(SqlExpression::Sequence(items))
        }
        Some(only) if items.is_empty() => only,
        last => {
            items.extend(last);
            SqlExpression::Sequence(items)
        }
    }
}

/// Returns operands under one `AND` or `OR`. Nested operands of the same operator are flattened.
fn flatten_operands(parts: Vec<SqlExpression>, node: fn(Vec<SqlExpression>) -> SqlExpression) -> SqlExpression {
    let is_and = matches!(node(Vec::new()), SqlExpression::And(_));
    let mut operands = Vec::new();
    for part in parts {
        match part {
            SqlExpression::And(inner) if is_and => operands.extend(inner),
            SqlExpression::Or(inner) if !is_and => operands.extend(inner),
            other => operands.push(other),
        }
    }
    node(operands)
}

/// Splits a text into words, numbers, quoted names, strings, operators and brackets. Returns `None` if a quote is not
/// closed.
fn split_tokens(text: &str) -> Option<Vec<String>> {
    const OPERATOR_CHARS: &str = "+-*/<>=~!@#%^&|`?:";
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let escapes = rest.starts_with("E'");
        let length = match first {
            '\'' | '"' => quoted_length(rest, first, false)?,
            _ if escapes => 1 + quoted_length(&rest[1..], '\'', true)?,
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ if OPERATOR_CHARS.contains(first) => rest.find(|c| !OPERATOR_CHARS.contains(c)).unwrap_or(rest.len()),
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    Some(tokens)
}

/// Returns true for the characters of names with their dots, and of numbers.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '.')
}

/// Returns the length of the quoted text at the start, in bytes. A doubled quote is part of the text.
fn quoted_length(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if escapes && c == '\\' {
            characters.next();
        } else if c == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + quote.len_utf8());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::is_equal;

    #[test]
    fn what_a_dump_makes_of_a_range_is_equal() {
        for (before, after) in [
            (
                "CHECK ((((attempt >= 0) AND (attempt <= max_attempts)) AND (max_attempts > 0)))",
                "CHECK (((attempt >= 0) AND (attempt <= max_attempts) AND (max_attempts > 0)))",
            ),
            ("CHECK (((a) OR ((b) OR (c))))", "CHECK ((a OR b OR c))"),
            ("CHECK ((((a = 1) AND (b = 2)) OR (c = 3)))", "CHECK (((a = 1) AND (b = 2) OR (c = 3)))"),
            (
                "t btree (a) WHERE ((a > 1) AND ((b > 2) AND (c > 3)))",
                "t btree (a) WHERE ((a > 1) AND (b > 2) AND (c > 3))",
            ),
            ("CHECK (((a)))", "CHECK ( a )"),
        ] {
            assert!(is_equal(before, after) && is_equal(after, before), "{before}");
        }
    }

    #[test]
    fn what_means_something_else_is_not_equal() {
        for (one, other) in [
            ("CHECK ((a AND (b OR c)))", "CHECK (((a AND b) OR c))"),
            ("CHECK ((a AND b))", "CHECK ((a OR b))"),
            ("CHECK ((a AND b))", "CHECK ((b AND a))"),
            ("CHECK ((a AND b AND c))", "CHECK ((a AND b))"),
            ("CHECK ((NOT (a AND b)))", "CHECK (((NOT a) AND b))"),
            ("CHECK ((a - (b - c)))", "CHECK (((a - b) - c))"),
            ("CHECK ((a ~ 'x AND (y'::text))", "CHECK ((a ~ 'x  AND (y'::text))"),
            ("CHECK ((a = 'it''s'))", "CHECK ((a = 'it'))"),
            ("CHECK (((a >= 0)))", "CHECK (((a > 0)))"),
            ("CHECK ((a >= 0)) NOT VALID", "CHECK ((a >= 0))"),
            ("CHECK ((f((a, b)) = 1))", "CHECK ((f(a, b) = 1))"),
            ("UNIQUE (a, b)", "UNIQUE (a)"),
            ("t btree (a, b)", "t btree (b, a)"),
            ("CHECK ((\"A\" = 1))", "CHECK ((a = 1))"),
            ("CHECK ((a = E'\\''::text))", "CHECK ((a = E'\\\\'::text))"),
            ("CHECK ((a = ARRAY[1]))", "CHECK ((a = ARRAY(1)))"),
        ] {
            assert!(!is_equal(one, other) && !is_equal(other, one), "{one}");
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_equal_only_to_itself() {
        assert!(is_equal("CHECK ((a", "CHECK ((a"));
        assert!(!is_equal("CHECK ((a", "CHECK (a"));
        assert!(!is_equal("CHECK (a]", "CHECK (a)"));
    }
}
