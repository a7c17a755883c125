//! `vinops raw export`: writes the original bytes of a file.

use super::CommandError;
use super::session::{CommandSession, ConnectArgs};
use crate::config::Config;
use anyhow::{Context, anyhow};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use uuid::Uuid;

/// The subcommands of `vinops raw`.
#[derive(Debug, clap::Subcommand)]
pub enum RawCommand {
    /// Write the original bytes of a file and check their sha256
    Export(RawExportArgs),
}

/// Arguments of `vinops raw export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  vinops raw export 28e3e071-5c48-4047-87d2-88a4db94e5cf --out salesdata.csv")]
pub struct RawExportArgs {
    /// Id of the file, as listed by `vinops windows`
    file_id: Uuid,
    /// Write to this path instead of standard output
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Runs a subcommand of `vinops raw`.
pub async fn run(command: RawCommand, config: Config) -> Result<(), CommandError> {
    let RawCommand::Export(args) = command;
    let session = CommandSession::open(config, &args.connect).await?;
    let store = session.open_store()?;
    let file = sqlx::query!("-- raw: export\n select path, sha256 from raw.csv_files where file_id = $1", args.file_id)
        .fetch_optional(&session.db.pool)
        .await
        .context("could not look up the file")?
        .ok_or_else(|| anyhow!("file {} does not exist\nhint: `vinops windows` lists the files", args.file_id))?;
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("could not create the file {}", path.display()))?)
        }
        None => Box::new(stdout()),
    };
    let exported = store.export_file(&file.path, &file.sha256, BufWriter::new(out)).await;
    session.close().await?;
    match exported {
        Err(error) if args.out.is_none() && is_broken_pipe(&error) => std::process::exit(super::broken_pipe::EXIT_CODE),
        exported => Ok(exported.map(drop)?),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}
