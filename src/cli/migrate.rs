//! `vinops migrate`: brings the schema up and down, adopts a database, says how it stands, proves what is there.
//!
//! The auction's set is this file's; the listing helper's, whose slices are applied in a way of their own, is
//! `listing`'s.

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

/// Which of the ways to deal with the schema.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which domain's migrations.
    #[arg(long, default_value = "auction", global = true)]
    set: String,
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    what: What,
}

/// Where the listing helper's tables are.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Place {
    /// The listing helper's schema, where it is not `listing`; the first `up` keeps it in mind
    #[arg(long, global = true, value_name = "NAME")]
    pub schema: Option<String>,
}

/// What is done about the listing helper's rows before they are migrated.
#[derive(Debug, Default, clap::Args)]
struct Rows {
    /// Listing: go on without a backup of the rows that are there
    #[arg(long)]
    no_backup: bool,
    /// Listing: the backup's folder, where it is not `backups` in the user's data folder
    #[arg(long, value_name = "FOLDER")]
    backup_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Apply what is missing.
    Up {
        /// Listing: the last migration to apply, such as 003; else all
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },
    /// Take back everything after a migration.
    Down {
        /// The last migration to keep, such as 0014; 0000 for none. Listing: such as 002; without it one step
        #[arg(long)]
        to: Option<String>,
        /// Do it although rows are lost.
        #[arg(long)]
        destructive: bool,
        /// Listing, with --destructive: the runbook's own statements, which drop what was there before, and cascade
        #[arg(long)]
        literal: bool,
        /// Listing, with --to 000: give renamed columns their old names back
        #[arg(long)]
        restore_names: bool,
        #[command(flatten)]
        rows: Rows,
    },
    /// Say how each migration stands in the database.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Prove that every object is there as it must be, one line each.
    Verify {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Adopt a database that was made by hand: note its migrations as applied, run nothing.
    Baseline {
        /// The last migration that it has, such as 0007.
        #[arg(long)]
        at: String,
    },
    /// Print the registry that is made from the files.
    #[command(hide = true)]
    Registry {
        /// Write `_registry.json` and `INDEX.md` into `migrations/` of the current folder instead.
        #[arg(long)]
        write: bool,
    },
}

/// Runs `vinops migrate`; fails where `status` or `verify` finds something wrong.
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
            "DATABASE_URL is not set: it names the database to migrate"
        )));
    };
    let mut session = db::session(url).await.map_err(Failure::unreachable)?;
    on(&mut session, url, set, &args.what).await
}

/// Refuses what means something for the listing helper only.
fn listings_only(args: &Args) -> anyhow::Result<()> {
    let rows = |rows: &Rows| rows.no_backup || rows.backup_dir.is_some();
    let strange = match &args.what {
        What::Up { to, rows: of } => to.is_some() || rows(of),
        What::Down { to: None, .. } => {
            bail!("--to is missing: the last migration to keep, such as 0014; 0000 for none")
        }
        What::Down { literal, restore_names, rows: of, .. } => *literal || *restore_names || rows(of),
        _ => false,
    };
    if strange || args.place.schema.is_some() {
        bail!(
            "--schema, --no-backup, --backup-dir, --literal, --restore-names and `up --to` are for --set listing"
        );
    }
    Ok(())
}

/// Applies what is missing, for the roles that do so themselves; `tell` hears a line for each.
pub async fn bring_up(db: &Db, mut tell: impl FnMut(&str)) -> Result<(), Failure> {
    let mut session = db.session().await?;
    migrate::up(&mut session, &AUCTION, |line| tell(&applied(line))).await.map_err(Failure::of_schema)?;
    Ok(())
}

fn applied(line: &Applied) -> String {
    format!("applied {}_{} in {} ms", line.id, line.name, line.execution_ms)
}

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
            let told = |migration: &Migration| println!("took back {}", migration.stem());
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

fn registry(set: &Set, write: bool) -> anyhow::Result<()> {
    if write {
        return papers::write(set, Path::new(papers::folder(set)));
    }
    print!("{}", papers::registry(set)?);
    Ok(())
}

async fn status(session: &mut PgConnection, set: &Set, json: bool) -> anyhow::Result<()> {
    let standings = migrate::status(session, set).await.context("read vinops.migrations")?;
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
        bail!("the database's history is not this binary's");
    }
    Ok(())
}
