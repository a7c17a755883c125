//! `vinops embedded -- COMMAND…`: lends a migrated PostgreSQL to a command that needs `DATABASE_URL`, such as `cargo
//! sqlx prepare`, and takes it back when the command ends.

use super::Failure;
use super::session::DATABASE;
use crate::db::{self, migrate, migrations::AUCTION};
use crate::embedded::{Embedded, Options};
use anyhow::{Context, anyhow};

/// The command to lend a database to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command; fails if it does.
pub async fn run(args: Args) -> Result<(), Failure> {
    let (program, arguments) = args.command.split_first().context("no command to run")?;
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
        .with_context(|| format!("run {program}"))?;
    embedded.stop().await?;
    if !status.success() {
        return Err(anyhow!("{program} ended with {status}").into());
    }
    Ok(())
}
