//! `vinops migrate --set listing`: the listing helper's slices, with a backup before rows are migrated.

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

/// Runs what is asked of the listing helper's set.
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
                    "--literal drops columns and settings that were there before: it needs --destructive"
                )));
            }
            if restore_names && to.as_deref() != Some("000") {
                return Err(Failure::wrong(anyhow!(
                    "--restore-names goes with --to 000: 001 gave the new names"
                )));
            }
            let way = Way { to: to.as_deref(), destructive, literal, restore_names };
            down(&mut session, url, &place, &way, &rows).await
        }
        What::Status { json } => Ok(status(&mut session, &LISTING, json).await?),
        What::Baseline { .. } => Err(Failure::wrong(anyhow!(
            "the listing helper needs no baseline: `up` makes only what is absent, and notes what it found"
        ))),
        What::Registry { write } => Ok(registry(&LISTING, write)?),
        What::Verify { .. } => Ok(()), // done above
    }
}

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

/// How a way back was asked for.
struct Way<'a> {
    to: Option<&'a str>,
    destructive: bool,
    literal: bool,
    restore_names: bool,
}

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
        let told = |migration: &Migration| println!("took back {}", migration.stem());
        listing::down(session, place, way.to, way.literal, told).await?;
    } else if !way.restore_names {
        println!("nothing to take back");
    }
    if way.restore_names {
        for line in listing::restore_names(session, place).await? {
            println!("{line}");
        }
    }
    Ok(())
}

/// Without a backup, rows go for good.
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
            "going back without a backup loses {rows} rows: nothing was done; --destructive does it"
        )
        .into()),
    }
}

/// Backs up the rows that are there, or notes who did without.
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
    Ok(backup::note(session, first.id, rows, Some(&backup), None).await.context("note the backup")?)
}
