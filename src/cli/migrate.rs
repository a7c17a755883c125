//! `vinops migrate`: brings the schema up and down, adopts a database, says how it stands, proves what is there.

use crate::config::Config;
use crate::db::migrate::{self, State};
use crate::db::migrations::Set;
use crate::db::{self, Db, papers, verify};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use std::path::Path;

/// Arguments of `vinops migrate`.
#[derive(Args, Debug)]
pub struct Migrate {
    /// Which domain's migrations.
    #[arg(long, default_value = "auction", global = true)]
    set: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Apply what is missing.
    Up,
    /// Take back everything after a migration.
    Down {
        /// The last migration to keep, such as 0014; 0000 for none.
        #[arg(long)]
        to: String,
        /// Do it although rows are lost.
        #[arg(long)]
        destructive: bool,
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

/// Runs `vinops migrate` and returns its exit code: 1 where `verify` or `status` found something wrong.
pub async fn run(args: &Migrate, config: &Config) -> anyhow::Result<u8> {
    let set = Set::named(&args.set)?;
    match &args.what {
        What::Up => {
            let mut session = session(config).await?;
            let done = migrate::up(&mut session, set, |line| {
                println!("applied {}_{} in {} ms", line.id, line.name, line.execution_ms);
            });
            if done.await?.is_empty() {
                println!("nothing to apply");
            }
            Ok(0)
        }
        What::Down { to, destructive } => {
            let mut session = session(config).await?;
            let told = |migration: &db::migrations::Migration| println!("took back {}", migration.stem());
            migrate::down(&mut session, set, to, *destructive, told).await?;
            Ok(0)
        }
        What::Status { json } => status(&mut session(config).await?, set, *json).await,
        What::Verify { json } => verify(config, *json).await,
        What::Baseline { at } => {
            for line in migrate::baseline(&mut session(config).await?, set, at).await? {
                println!("adopted {}_{}", line.id, line.name);
            }
            Ok(0)
        }
        What::Registry { write: true } => papers::write(set, Path::new("migrations")).map(|()| 0),
        What::Registry { write: false } => {
            print!("{}", papers::registry(set)?);
            Ok(0)
        }
    }
}

/// The URL for work that needs a session.
fn direct_url(config: &Config) -> anyhow::Result<&str> {
    let url = config.database_direct_url.as_ref().or(config.database_url.as_ref());
    url.map(ExposeSecret::expose_secret).context("DATABASE_URL is not set: it names the database to migrate")
}

async fn session(config: &Config) -> anyhow::Result<PgConnection> {
    db::session(direct_url(config)?).await
}

async fn status(session: &mut PgConnection, set: &Set, json: bool) -> anyhow::Result<u8> {
    let standings = migrate::status(session, set).await.context("read vinops.migrations")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&standings)?);
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
    let wrong = standings.iter().any(|line| matches!(line.state, State::Changed | State::Unknown));
    Ok(u8::from(wrong))
}

async fn verify(config: &Config, json: bool) -> anyhow::Result<u8> {
    let db = Db::connect(direct_url(config)?, None, 2).await?;
    let checks = verify::verify(&db.pool).await?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    if json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let verdict = if check.passed { "PASS" } else { "FAIL" };
            println!("{verdict} {} {} ({})", check.id, check.object, check.evidence);
        }
        println!("{} passed, {failed} failed", checks.len() - failed);
    }
    if checks.is_empty() {
        bail!("nothing was checked");
    }
    Ok(u8::from(failed > 0))
}
