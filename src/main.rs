//! The `vinops` binary: hands the fleet to the command line.
fn main() {}
