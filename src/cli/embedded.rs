//! `vinops with-postgres -- COMMAND…`: runs a command with `DATABASE_URL` set to a temporary, migrated PostgreSQL, for
//! example `cargo sqlx prepare`. The server stops when the command ends.

use super::Failure;
use super::session::DATABASE;
use crate::db::{self, migrate, migrations::AUCTION};
use crate::embedded::{Embedded, Options};
use anyhow::{Context, anyhow};

/// Arguments of `vinops with-postgres`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops with-postgres -- cargo sqlx prepare")]
pub struct Args {
    /// Command to run, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Starts the server, runs the command and stops the server.
///
/// # Errors
/// Returns an error if the command fails.
pub async fn run(args: Args) -> Result<(), Failure> {
    let (program, arguments) = args.command.split_first().context("no command is given")?;
    let embedded = Embedded::start(Options { temporary: true, durable: false, ..Options::default() })
        .await
        .map_err(Failure::unreachable)?;
    let url = embedded.database(DATABASE).await?;
    let mut session = db::session(&url).await?;
    migrate::up(&mut session, &AUCTION, |_| {}).await?;
    sqlx::Connection::close(session).await?;
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", &url)
        .env("DATABASE_DIRECT_URL", &url)
        .status()
        .await
        .with_context(|| format!("could not run {program}"))?;
    embedded.stop().await?;
    if !status.success() {
        return Err(anyhow!("{program} ended with {status}").into());
    }
    Ok(())
}
