//! `vinops migrate --set listing`: the listing helper's migrations, with a backup before rows are migrated.

use super::{Place, Rows, What, applied, registry, status};
use crate::cli::session::{self, Failure};
use crate::cli::show::Json;
use crate::cli::verify;
use crate::config::{self, Config};
use crate::db::encoding::expect_utf8;
use crate::db::listing::backup::{self, BackupError};
use crate::db::migrations::{LISTING, Migration};
use crate::db::{self, listing};
use anyhow::{Context, anyhow};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs a subcommand on the listing helper's set.
pub async fn run(place: &Place, what: What, config: Config) -> Result<(), Failure> {
    if let What::Verify { json } = what {
        return verify::on_listing(place, Json { json }, &config).await;
    }
    let url = session::listing_url(&config)?;
    let wanted = place.schema.as_deref().map(listing::Place::named).transpose().map_err(Failure::wrong)?;
    let mut session = db::session(url).await.map_err(Failure::unreachable)?;
    let place = listing::Place::find(&mut session, wanted).await.map_err(Failure::wrong)?;
    match what {
        What::Up { to, rows } => up(&mut session, url, &place, to.as_deref(), &rows).await,
        What::Down { to, destructive, literal, restore_names, rows } => {
            if literal && !destructive {
                return Err(Failure::wrong(anyhow!(
                    "--verbatim-runbook requires --destructive\ndetail: it drops columns and settings that existed \
                     before the listing helper"
                )));
            }
            if restore_names && to.as_deref() != Some("000") {
                return Err(Failure::wrong(anyhow!(
                    "--restore-names requires --to 000\ndetail: migration 001 renames the columns"
                )));
            }
            let way = Way { to: to.as_deref(), destructive, literal, restore_names };
            down(&mut session, url, &place, &way, &rows).await
        }
        What::Status { json } => Ok(status(&mut session, &LISTING, json).await?),
        What::Baseline { .. } => Err(Failure::wrong(anyhow!(
            "the set listing has no baseline\nhint: run `vinops migrate --set listing up`, which creates only \
             missing objects and records the existing ones"
        ))),
        What::Registry { write } => Ok(registry(&LISTING, write)?),
        What::Verify { .. } => Ok(()), // done above
    }
}

/// Backs up rows and applies pending migrations.
async fn up(
    session: &mut PgConnection,
    url: &str,
    place: &listing::Place,
    to: Option<&str>,
    rows: &Rows,
) -> Result<(), Failure> {
    expect_utf8(session).await.map_err(Failure::of_schema)?;
    let pending = listing::pending(session, place, to).await?;
    let Some(first) = pending.first() else {
        println!("nothing to apply");
        return Ok(());
    };
    secure(session, url, place, first, rows).await?;
    listing::up(session, place, to, |line| println!("{}", applied(line))).await?;
    Ok(())
}

/// The options of a rollback.
struct Way<'a> {
    to: Option<&'a str>,
    destructive: bool,
    literal: bool,
    restore_names: bool,
}

/// Backs up rows and rolls back migrations.
async fn down(
    session: &mut PgConnection,
    url: &str,
    place: &listing::Place,
    way: &Way<'_>,
    rows: &Rows,
) -> Result<(), Failure> {
    let back = listing::returning(session, way.to).await?;
    if let Some(first) = back.first() {
        if rows.no_backup && !way.destructive {
            expect_no_loss(session, place, &back).await?;
        }
        secure(session, url, place, first, rows).await?;
        let told = |migration: &Migration| println!("rolled back {}", migration.stem());
        listing::down(session, place, way.to, way.literal, told).await?;
    } else if !way.restore_names {
        println!("nothing to roll back");
    }
    if way.restore_names {
        for line in listing::restore_names(session, place).await? {
            println!("{line}");
        }
    }
    Ok(())
}

/// Returns an error if a rollback without a backup would delete rows.
async fn expect_no_loss(
    session: &mut PgConnection,
    place: &listing::Place,
    back: &[&'static Migration],
) -> Result<(), Failure> {
    let going: BTreeSet<&str> = back
        .iter()
        .flat_map(|migration| listing::listed(migration))
        .filter_map(|thing| thing.strip_prefix("table "))
        .collect();
    match listing::rows(session, place, Some(&going)).await? {
        0 => Ok(()),
        rows => Err(anyhow!(
            "rolling back without a backup would delete {rows} rows\nhint: pass --destructive to do it anyway"
        )
        .into()),
    }
}

/// Backs up existing rows, or records the operator who declined a backup.
async fn secure(
    session: &mut PgConnection,
    url: &str,
    place: &listing::Place,
    first: &Migration,
    how: &Rows,
) -> Result<(), Failure> {
    let rows = listing::rows(session, place, None).await?;
    if rows == 0 || how.no_backup {
        let who = (rows > 0).then(session::who);
        return Ok(backup::note(session, first.id, rows, None, who.as_deref()).await?);
    }
    listing::open(session).await?;
    let folder = match &how.backup_dir {
        Some(folder) => folder.clone(),
        None => config::user_data_folder().map_or_else(|| PathBuf::from("."), |home| home.join("backups")),
    };
    let backup = backup::take(session, url, place, &folder).await.map_err(|error| match error {
        BackupError::Missing => Failure::unreachable(error),
        BackupError::Failed(_) => Failure::from(error),
    })?;
    println!("backed up {rows} rows to {} ({} bytes)", backup.path.display(), backup.bytes);
    Ok(backup::note(session, first.id, rows, Some(&backup), None)
        .await
        .context("could not record the backup")?)
}
