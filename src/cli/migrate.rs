//! `vinops migrate`: applies and rolls back migrations, lists their states and adopts an existing database.
//!
//! This module handles the migrations of the auction set. The module `listing` handles the listing helper's set, whose
//! slices are applied differently.

use super::{Failure, verify};
use crate::config::Config;
use crate::db::migrate::{self, Applied, State};
use crate::db::migrations::{AUCTION, LISTING, Migration, Set};
use crate::db::{self, Db, papers};
use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use std::path::{Path, PathBuf};

mod listing;

/// Arguments of `vinops migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set of migrations: auction or listing
    #[arg(long, default_value = "auction", global = true)]
    set: String,
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: What,
}

/// The schema of the listing helper's tables.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// Listing: schema of the tables, recorded by the first `up` [default: listing]
    #[arg(long, global = true, value_name = "NAME")]
    pub schema: Option<String>,
}

/// The backup of the listing helper's rows before a migration.
#[derive(Debug, Default, clap::Args)]
struct Rows {
    /// Listing: migrate without a backup of existing rows
    #[arg(long)]
    no_backup: bool,
    /// Listing: folder of the backup [default: `backups` in the user's data folder]
    #[arg(long, value_name = "FOLDER")]
    backup_dir: Option<PathBuf>,
}

/// The subcommands of `vinops migrate`.
#[derive(Debug, Subcommand)]
enum What {
    /// Apply pending migrations
    Up {
        /// Listing: last migration to apply, e.g. 003 [default: the newest]
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        rows: Rows,
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
        rows: Rows,
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
pub async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let set = Set::named(&args.set).map_err(Failure::wrong)?;
    if let What::Registry { write } = args.what {
        return Ok(registry(set, write)?);
    }
    if set.name == LISTING.name {
        return listing::run(&args.place, args.what, config).await;
    }
    listings_only(&args).map_err(Failure::wrong)?;
    let url = config.direct_url()?;
    let Some(url) = url.map(ExposeSecret::expose_secret) else {
        return Err(Failure::unreachable(anyhow!(
            "DATABASE_URL is not set\nhint: set it to the URL of the database to migrate"
        )));
    };
    let mut session = db::session(url).await.map_err(Failure::unreachable)?;
    on(&mut session, url, set, &args.what).await
}

/// Rejects options that apply to the listing helper only, and `down` without `--to`.
fn listings_only(args: &Args) -> anyhow::Result<()> {
    let rows = |rows: &Rows| rows.no_backup || rows.backup_dir.is_some();
    let strange = match &args.what {
        What::Up { to, rows: of } => to.is_some() || rows(of),
        What::Down { to: None, .. } => {
            bail!(
                "--to is missing\nhint: give the last migration to keep, for example 0014, or 0000 for none"
            )
        }
        What::Down { literal, restore_names, rows: of, .. } => *literal || *restore_names || rows(of),
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
pub async fn bring_up(db: &Db, mut tell: impl FnMut(&str)) -> Result<(), Failure> {
    let mut session = db.session().await?;
    migrate::up(&mut session, &AUCTION, |line| tell(&applied(line))).await.map_err(Failure::of_schema)?;
    Ok(())
}

/// Returns the printed line of an applied migration.
fn applied(line: &Applied) -> String {
    format!("applied {}_{} in {} ms", line.id, line.name, line.execution_ms)
}

/// Runs a subcommand on the auction set.
async fn on(session: &mut PgConnection, url: &str, set: &Set, what: &What) -> Result<(), Failure> {
    match what {
        What::Up { .. } => {
            let applied = migrate::up(session, set, |line| println!("{}", applied(line))).await;
            if applied.map_err(Failure::of_schema)?.is_empty() {
                println!("nothing to apply");
            }
        }
        What::Down { to, destructive, .. } => {
            let to = to.as_deref().unwrap_or_default();
            let told = |migration: &Migration| println!("rolled back {}", migration.stem());
            migrate::down(session, set, to, *destructive, told).await?;
        }
        What::Status { json } => status(session, set, *json).await?,
        What::Verify { json } => verify::auction(url, *json).await?,
        What::Baseline { at } => {
            for line in migrate::baseline(session, set, at).await.map_err(Failure::of_schema)? {
                println!("adopted {}_{}", line.id, line.name);
            }
        }
        What::Registry { write } => registry(set, *write)?,
    }
    Ok(())
}

/// Prints the registry, or writes it and the index into the folder of the set.
fn registry(set: &Set, write: bool) -> anyhow::Result<()> {
    if write {
        return papers::write(set, Path::new(papers::folder(set)));
    }
    print!("{}", papers::registry(set)?);
    Ok(())
}

/// Prints the state of each migration.
///
/// # Errors
/// Returns an error if a migration is unknown to this program or was changed.
async fn status(session: &mut PgConnection, set: &Set, json: bool) -> anyhow::Result<()> {
    let standings = migrate::status(session, set).await.context("could not read vinops.migrations")?;
    if json {
        super::show::json(&standings)?;
    } else {
        for line in &standings {
            let word = match line.state {
                State::Applied if line.applied.as_ref().is_some_and(|applied| applied.baseline) => "adopted",
                State::Applied => "applied",
                State::Pending => "pending",
                State::Superseded => "superseded",
                State::Changed => "CHANGED",
                State::Unknown => "UNKNOWN",
            };
            let when = line.applied.as_ref().map(|applied| {
                format!("{}  {} ms", applied.applied_at.format("%Y-%m-%dT%H:%M:%SZ"), applied.execution_ms)
            });
            println!("{word:<11} {}_{:<26} {}", line.id, line.name, when.unwrap_or_default());
        }
    }
    if standings.iter().any(|line| matches!(line.state, State::Changed | State::Unknown)) {
        bail!("migrations of the database are changed or unknown to this program");
    }
    Ok(())
}
