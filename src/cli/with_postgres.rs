//! `vinops with-postgres -- COMMAND…`: runs a command with `DATABASE_URL` set to a temporary, migrated PostgreSQL, for
//! example `cargo sqlx prepare`. The server stops when the command ends.

use super::CommandError;
use super::session::DATABASE_NAME;
use crate::db::{self, migrate, migrations::AUCTION_SET};
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres};
use anyhow::{Context, anyhow};

/// Arguments of `vinops with-postgres`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops with-postgres -- cargo sqlx prepare")]
pub struct WithPostgresArgs {
    /// Command to run, with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Starts the server, runs the command and stops the server.
///
/// # Errors
/// Returns an error if the command fails.
pub async fn run(args: WithPostgresArgs) -> Result<(), CommandError> {
    let (program, arguments) = args.command.split_first().context("no command is given")?;
    let embedded =
        EmbeddedPostgres::start(EmbeddedOptions { temporary: true, durable: false, ..EmbeddedOptions::default() })
            .await
            .map_err(CommandError::unavailable)?;
    let url = embedded.ensure_database(DATABASE_NAME).await?;
    let mut session = db::connect_session(&url).await?;
    migrate::apply_pending(&mut session, &AUCTION_SET, |_| {}).await?;
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
