//! The macros `println!`, `print!`, `eprintln!` and `eprint!` of the command line's modules.
//!
//! They shadow the standard macros, so every printed line is escaped. The output contains no control or bidirectional
//! character except the line feed (`crate::telemetry::escape_text`). Bytes that must not change, such as an exported
//! file, are written to standard output with `Write`.

macro_rules! println {
    ($($argument:tt)*) => {
        std::println!("{}", $crate::telemetry::escape_text(&std::format!($($argument)*)))
    };
}

macro_rules! print {
    ($($argument:tt)*) => {
        std::print!("{}", $crate::telemetry::escape_text(&std::format!($($argument)*)))
    };
}

macro_rules! eprintln {
    () => {
        std::eprintln!()
    };
    ($($argument:tt)*) => {
        std::eprintln!("{}", $crate::telemetry::escape_text(&std::format!($($argument)*)))
    };
}

macro_rules! eprint {
    ($($argument:tt)*) => {
        std::eprint!("{}", $crate::telemetry::escape_text(&std::format!($($argument)*)))
    };
}
