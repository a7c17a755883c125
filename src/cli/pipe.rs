//! What happens when nobody reads any more: `vinops windows | head` ends quietly, as other programs do.
//!
//! Rust ignores SIGPIPE, so a print into a closed pipe fails, and `println!` panics. Restoring the signal would mend
//! that with one line, and kill a worker whose database hangs up in the middle of a vectored write to its socket: the
//! signal knows no difference between standard output and a connection. So the panic is recognised instead, wherever
//! the print stands, by the words that the standard library gives it.

use std::panic;

/// What a shell reports of a program that SIGPIPE ended.
pub const CODE: i32 = 128 + 13;

/// From now on a print that nobody reads ends the process with [`CODE`] instead of a panic.
pub fn end_quietly_when_broken() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(CODE);
        }
        usual(panic);
    }));
}
