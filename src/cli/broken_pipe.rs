//! Broken pipes: `vinops windows | head` exits without a message, as other programs do.
//!
//! Rust ignores SIGPIPE, so a print into a closed pipe fails and `println!` panics. Restoring the signal takes one
//! line, but it would kill a worker whose database closes the connection during a vectored write, because the signal
//! does not distinguish standard output from a socket. Instead, a panic hook recognises the panic by the standard
//! library's message.

use std::panic;

/// The exit code that a shell reports for a program that SIGPIPE has ended.
pub const EXIT_CODE: i32 = 128 + 13;

/// Installs a panic hook. A print into a closed pipe then exits with [`EXIT_CODE`] instead of panicking.
pub fn end_quietly_when_broken() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to std") && said.contains("Broken pipe") {
            std::process::exit(EXIT_CODE);
        }
        usual(panic);
    }));
}
