//! `vinops migrate`: applies and rolls back migrations, lists their states and adopts an existing database.
//!
//! This module handles the migrations of the auction set. The module `listing` handles the listing helper's set, whose
//! slices are applied differently.

use super::{CommandError, verify};
use crate::config::Config;
use crate::db::migrate::{self, AppliedMigration, MigrationState};
use crate::db::migrations::{AUCTION_SET, LISTING_SET, Migration, MigrationSet};
use crate::db::{self, Database, migration_index};
use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use std::path::{Path, PathBuf};

mod listing;

/// Arguments of `vinops migrate`.
#[derive(Debug, clap::Args)]
pub struct MigrateArgs {
    /// Set of migrations: auction or listing
    #[arg(long, default_value = "auction", global = true)]
    set: String,
    #[command(flatten)]
    place: SchemaArgs,
    #[command(subcommand)]
    what: MigrateCommand,
}

/// The schema of the listing helper's tables.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SchemaArgs {
    /// Listing: schema of the tables, recorded by the first `up` [default: listing]
    #[arg(long, global = true, value_name = "NAME")]
    pub schema: Option<String>,
}

/// The backup of the listing helper's rows before a migration.
#[derive(Debug, Default, clap::Args)]
struct BackupArgs {
    /// Listing: migrate without a backup of existing rows
    #[arg(long)]
    no_backup: bool,
    /// Listing: folder of the backup [default: `backups` in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    backup_dir: Option<PathBuf>,
}

/// The subcommands of `vinops migrate`.
#[derive(Debug, Subcommand)]
enum MigrateCommand {
    /// Apply pending migrations
    Up {
        /// Listing: last migration to apply, e.g. 003 [default: the newest]
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        rows: BackupArgs,
    },
    /// Roll back all migrations after a given one
    Down {
        /// Last migration to keep, e.g. 0014, or 0000 for none. Listing: e.g. 002 [default: one step]
        #[arg(long)]
        to: Option<String>,
        /// Roll back even if rows are lost
        #[arg(long)]
        destructive: bool,
        /// Listing, with --destructive: run the runbook's statements verbatim, which also drop older objects and
        /// cascade
        #[arg(long = "verbatim-runbook", alias = "literal")]
        literal: bool,
        /// Listing, with --to 000: restore the old names of renamed columns
        #[arg(long)]
        restore_names: bool,
        #[command(flatten)]
        rows: BackupArgs,
    },
    /// List migrations with their states in the database
    Status {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Check every object of the schema: an alias of `vinops verify auction` and `vinops verify listing`
    #[command(hide = true)]
    Verify {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Adopt a manually created database: record its migrations as applied and run nothing
    Baseline {
        /// Last migration that the database has, e.g. 0007
        #[arg(long)]
        at: String,
    },
    /// Print the registry that is generated from the migration files
    #[command(hide = true)]
    Registry {
        /// Write `_registry.json` and `INDEX.md` into `migrations/` of the current folder instead
        #[arg(long)]
        write: bool,
    },
}

/// Runs `vinops migrate`.
///
/// # Errors
/// Returns an error if `status` or `verify` finds a deviation.
pub async fn run(args: MigrateArgs, config: Config) -> Result<(), CommandError> {
    let set = MigrationSet::by_name(&args.set).map_err(CommandError::usage)?;
    if let MigrateCommand::Registry { write } = args.what {
        return Ok(print_registry(set, write)?);
    }
    if set.name == LISTING_SET.name {
        return listing::run(&args.place, args.what, config).await;
    }
    reject_listing_options(&args).map_err(CommandError::usage)?;
    let url = config.direct_url()?;
    let Some(url) = url.map(ExposeSecret::expose_secret) else {
        return Err(CommandError::unavailable(anyhow!(
            "DATABASE_URL is not set\nhint: set it to the URL of the database to migrate"
        )));
    };
    let mut session = db::connect_session(url).await.map_err(CommandError::unavailable)?;
    run_command(&mut session, url, set, &args.what).await
}

/// Rejects options that apply to the listing helper only, and `down` without `--to`.
fn reject_listing_options(args: &MigrateArgs) -> anyhow::Result<()> {
    let rows = |rows: &BackupArgs| rows.no_backup || rows.backup_dir.is_some();
    let strange = match &args.what {
        MigrateCommand::Up { to, rows: of } => to.is_some() || rows(of),
        MigrateCommand::Down { to: None, .. } => {
            bail!("--to is missing\nhint: give the last migration to keep, for example 0014, or 0000 for none")
        }
        MigrateCommand::Down { literal, restore_names, rows: of, .. } => *literal || *restore_names || rows(of),
        _ => false,
    };
    if strange || args.place.schema.is_some() {
        bail!(
            "--schema, --no-backup, --backup-dir, --verbatim-runbook, --restore-names and `up --to` require --set \
             listing"
        );
    }
    Ok(())
}

/// Applies pending migrations of the auction set, for the commands that migrate by themselves. Calls `tell` with a
/// line per migration.
pub async fn run_migrations(db: &Database, mut tell: impl FnMut(&str)) -> Result<(), CommandError> {
    let mut session = db.connect_session().await?;
    migrate::apply_pending(&mut session, &AUCTION_SET, |line| tell(&applied_line(line)))
        .await
        .map_err(CommandError::from_schema)?;
    Ok(())
}

/// Returns the printed line of an applied migration.
fn applied_line(line: &AppliedMigration) -> String {
    format!("applied {}_{} in {} ms", line.id, line.name, line.execution_ms)
}

/// Runs a subcommand on the auction set.
async fn run_command(
    session: &mut PgConnection,
    url: &str,
    set: &MigrationSet,
    what: &MigrateCommand,
) -> Result<(), CommandError> {
    match what {
        MigrateCommand::Up { .. } => {
            let applied = migrate::apply_pending(session, set, |line| println!("{}", applied_line(line))).await;
            if applied.map_err(CommandError::from_schema)?.is_empty() {
                println!("nothing to apply");
            }
        }
        MigrateCommand::Down { to, destructive, .. } => {
            let to = to.as_deref().unwrap_or_default();
            let on_rolled_back = |migration: &Migration| println!("rolled back {}", migration.stem());
            migrate::rollback_to(session, set, to, *destructive, on_rolled_back).await?;
        }
        MigrateCommand::Status { json } => print_status(session, set, *json).await?,
        MigrateCommand::Verify { json } => verify::verify_auction(url, *json).await?,
        MigrateCommand::Baseline { at } => {
            for line in migrate::adopt_baseline(session, set, at).await.map_err(CommandError::from_schema)? {
                println!("adopted {}_{}", line.id, line.name);
            }
        }
        MigrateCommand::Registry { write } => print_registry(set, *write)?,
    }
    Ok(())
}

/// Prints the registry, or writes it and the index into the folder of the set.
fn print_registry(set: &MigrationSet, write: bool) -> anyhow::Result<()> {
    if write {
        return migration_index::write_index_files(set, Path::new(migration_index::set_folder(set)));
    }
    print!("{}", migration_index::registry_json(set)?);
    Ok(())
}

/// Prints the state of each migration.
///
/// # Errors
/// Returns an error if a migration is unknown to this program or was changed.
async fn print_status(session: &mut PgConnection, set: &MigrationSet, json: bool) -> anyhow::Result<()> {
    let standings = migrate::migration_status(session, set).await.context("could not read vinops.migrations")?;
    if json {
        super::output::print_json(&standings)?;
    } else {
        for line in &standings {
            let word = match line.state {
                MigrationState::Applied if line.applied.as_ref().is_some_and(|applied| applied.baseline) => "adopted",
                MigrationState::Applied => "applied",
                MigrationState::Pending => "pending",
                MigrationState::Superseded => "superseded",
                MigrationState::Changed => "CHANGED",
                MigrationState::Unknown => "UNKNOWN",
            };
            let when = line.applied.as_ref().map(|applied| {
                format!("{}  {} ms", applied.applied_at.format("%Y-%m-%dT%H:%M:%SZ"), applied.execution_ms)
            });
            println!("{word:<11} {}_{:<26} {}", line.id, line.name, when.unwrap_or_default());
        }
    }
    if standings.iter().any(|line| matches!(line.state, MigrationState::Changed | MigrationState::Unknown)) {
        bail!("migrations of the database are changed or unknown to this program");
    }
    Ok(())
}
