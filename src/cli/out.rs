//! The one door of printed text: `println!`, `print!`, `eprintln!` and `eprint!` of the command line's modules.
//!
//! They shadow the standard ones, so a line added anywhere here passes it without knowing. What they print has no control or
//! bidirectional character but the line feed (`crate::telemetry::visible`). Bytes that must stay as they are, such as an
//! exported file, are written to standard output by `Write`.

macro_rules! println {
    ($($argument:tt)*) => {
        std::println!("{}", $crate::telemetry::visible(&std::format!($($argument)*)))
    };
}

macro_rules! print {
    ($($argument:tt)*) => {
        std::print!("{}", $crate::telemetry::visible(&std::format!($($argument)*)))
    };
}

macro_rules! eprintln {
    () => {
        std::eprintln!()
    };
    ($($argument:tt)*) => {
        std::eprintln!("{}", $crate::telemetry::visible(&std::format!($($argument)*)))
    };
}

macro_rules! eprint {
    ($($argument:tt)*) => {
        std::eprint!("{}", $crate::telemetry::visible(&std::format!($($argument)*)))
    };
}
