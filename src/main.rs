//! The `vinops` binary: hands the fleet to the command line.

use vinops::{cli, workers};

fn main() -> std::process::ExitCode {
    cli::run(workers::fleet())
}
