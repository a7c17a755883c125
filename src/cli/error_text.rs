//! The text of an error as a command prints it, in PostgreSQL's form: a message, then `detail:` and `hint:` lines.
//!
//! The message is the outermost context. Each cause becomes a detail. A cause whose text is part of the text before
//! it is dropped, because sqlx's `Display` already contains the source. A text may contain further lines that begin
//! with `detail: ` or `hint: `. Hints are printed last, the hints of the causes before the hints of the contexts.

use std::fmt;

const DETAIL: &str = "detail: ";
const HINT: &str = "hint: ";

/// An error, split into its message, its details and its hints.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ErrorText {
    message: String,
    details: Vec<String>,
    hints: Vec<String>,
}

impl ErrorText {
    /// Splits the texts of an error and its causes, the outermost context first.
    pub fn from_chain(chain: impl IntoIterator<Item = String>) -> ErrorText {
        let mut text = ErrorText::default();
        let mut hints = Vec::new();
        let mut before: Option<String> = None;
        for cause in chain {
            if before.as_ref().is_some_and(|before| before.contains(&cause)) {
                continue;
            }
            let (main, details, own_hints) = split_lines(&cause);
            match before {
                None => text.message = main,
                Some(_) => text.details.push(main),
            }
            text.details.extend(details);
            hints.push(own_hints);
            before = Some(cause);
        }
        for hint in hints.into_iter().rev().flatten() {
            if !text.hints.contains(&hint) {
                text.hints.push(hint);
            }
        }
        text
    }

    /// Returns the error on one line, for tables and findings.
    pub fn to_line(&self) -> String {
        let parts: Vec<&str> = [&self.message].into_iter().chain(&self.details).map(String::as_str).collect();
        let hints: String = self.hints.iter().map(|hint| format!("; hint: {hint}")).collect();
        (parts.join(": ") + &hints).replace('\n', " ")
    }
}

impl From<&anyhow::Error> for ErrorText {
    fn from(error: &anyhow::Error) -> ErrorText {
        ErrorText::from_chain(error.chain().map(ToString::to_string))
    }
}

impl fmt::Display for ErrorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.details.iter().try_for_each(|detail| write!(f, "\n{DETAIL}{detail}"))?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n{HINT}{hint}"))
    }
}

/// Returns an error and its causes on one line.
pub fn error_line(error: &anyhow::Error) -> String {
    ErrorText::from(error).to_line()
}

/// Returns the text of a single error on one line.
pub fn text_line(text: impl ToString) -> String {
    ErrorText::from_chain([text.to_string()]).to_line()
}

/// Returns the main text, the details and the hints of one text. A line without a prefix continues the part before it.
fn split_lines(text: &str) -> (String, Vec<String>, Vec<String>) {
    let (mut main, mut details, mut hints) = (String::new(), Vec::new(), Vec::new());
    let mut part = 0;
    for (nth, line) in text.lines().enumerate() {
        if let Some(detail) = line.strip_prefix(DETAIL) {
            details.push(detail.to_owned());
            part = 1;
        } else if let Some(hint) = line.strip_prefix(HINT) {
            hints.push(hint.to_owned());
            part = 2;
        } else {
            let open = match part {
                0 => Some(&mut main),
                1 => details.last_mut(),
                _ => hints.last_mut(),
            };
            if let Some(open) = open {
                if nth > 0 {
                    open.push('\n');
                }
                open.push_str(line);
            }
        }
    }
    (main, details, hints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn printed(error: &anyhow::Error) -> String {
        ErrorText::from(error).to_string()
    }

    #[test]
    fn an_error_without_a_cause_is_one_line() {
        assert_eq!(printed(&anyhow!("there is no job 999")), "error: there is no job 999");
    }

    #[test]
    fn each_cause_is_a_detail_and_hints_of_contexts_come_last() {
        let error = anyhow!("permission denied\nhint: run chmod")
            .context("could not open a.csv")
            .context("could not ingest a.csv\ndetail: the window is 17:00\nhint: name another file");
        assert_eq!(
            printed(&error),
            "error: could not ingest a.csv\ndetail: the window is 17:00\ndetail: could not open a.csv\n\
             detail: permission denied\nhint: run chmod\nhint: name another file"
        );
        assert_eq!(
            error_line(&error),
            "could not ingest a.csv: the window is 17:00: could not open a.csv: permission denied; hint: run chmod; \
             hint: name another file"
        );
    }

    #[test]
    fn a_cause_that_the_text_before_contains_is_printed_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = anyhow::Error::new(sqlx::Error::Io(refused)).context("could not connect to the database");
        assert_eq!(error.chain().count(), 3);
        assert_eq!(
            printed(&error),
            "error: could not connect to the database\ndetail: error communicating with database: connection refused"
        );
    }

    #[test]
    fn the_same_hint_is_printed_once() {
        let error = anyhow!("the schema is old\nhint: run `vinops migrate up`")
            .context("could not start\nhint: run `vinops migrate up`");
        let wanted = "error: could not start\ndetail: the schema is old\nhint: run `vinops migrate up`";
        assert_eq!(printed(&error), wanted);
    }

    #[test]
    fn a_line_without_a_prefix_continues_the_part_before_it() {
        let error = anyhow!("the statement failed\nselect 1\nhint: try this:\nselect 2");
        assert_eq!(printed(&error), "error: the statement failed\nselect 1\nhint: try this:\nselect 2");
    }
}
