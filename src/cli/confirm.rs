//! The confirmation that a command asks for before it changes anything.
//!
//! `y` and `yes` confirm. Every other input, including an empty line and the end of input, declines, and the command
//! exits with 1. Without a terminal a confirmation is impossible. The command then exits with 2 and names `--yes`.

use super::CommandError;
use anyhow::{Context, anyhow};
use std::io::{BufRead, IsTerminal, Write};

/// Asks at the terminal for a confirmation of `what`, for example `cancel 3 jobs`.
///
/// # Errors
/// Returns an error if the operator declines, and a usage error if standard input is no terminal.
pub fn confirm(what: &str) -> Result<(), CommandError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(CommandError::usage(anyhow!(
            "this would {what}, and standard input is not a terminal\nhint: pass --yes to confirm"
        )));
    }
    eprint!("{what}? [y/N] ");
    std::io::stderr().flush().context("could not write the question")?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).context("could not read the answer")?;
    if answer.is_empty() {
        // The end of input leaves the cursor behind the question.
        eprintln!();
    }
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(anyhow!("nothing was done").into()),
    }
}
