//! The one question that a command asks: whether it shall. The answer decides before anything has been done.
//!
//! `y` or `yes` is a yes; whatever else, an empty line and the end of input among it, is a no, and the command ends with
//! 1. Where there is no terminal nobody can answer: the call was wrong, for `--yes` was missing.

use super::Failure;
use anyhow::{Context, anyhow};
use std::io::{BufRead, IsTerminal, Write};

/// Asks at the terminal whether to do `what`, such as `cancel 3 jobs`.
pub fn agreed(what: &str) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::wrong(anyhow!(
            "this would {what}, and there is no terminal to ask at: add --yes if it is meant"
        )));
    }
    eprint!("{what}? [y/N] ");
    std::io::stderr().flush().context("ask")?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).context("read the answer")?;
    if answer.is_empty() {
        // what comes next begins a line of its own
        eprintln!();
    }
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was done").into()),
    }
}
