//! `vinops bench`: the figures of the README, each against a floor in the same run.

use super::{Failure, Fleet};
use crate::config::Config;

/// `vinops bench …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Runs it.
pub async fn run(command: Command, _fleet: Fleet, _config: Config) -> Result<(), Failure> {
    match command {}
}
