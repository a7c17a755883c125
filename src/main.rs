//! The `vinops` binary: passes the job registry to the command line.

use vinops::{cli, workers};

fn main() -> std::process::ExitCode {
    cli::run(workers::job_registry())
}
