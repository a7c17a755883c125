//! `vinops embedded -- COMMAND…`: lends a migrated PostgreSQL to a command that needs `DATABASE_URL`, such as `cargo
//! sqlx prepare`, and takes it back when the command ends.

use crate::db::{self, migrate, migrations::AUCTION};
use crate::embedded::{Embedded, Options};
use anyhow::Context;
use clap::Args;

/// Arguments of `vinops embedded`.
#[derive(Args, Debug)]
pub struct Lend {
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command and returns its exit code; 1 where a signal ended it.
pub async fn run(args: &Lend) -> anyhow::Result<u8> {
    let (program, arguments) = args.command.split_first().context("no command to run")?;
    let embedded = Embedded::start(Options { home: None, temporary: true, durable: false }).await?;
    let url = embedded.url("postgres");
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
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
