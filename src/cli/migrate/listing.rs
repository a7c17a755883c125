//! `vinops migrate --set listing`: the listing helper's migrations, with a backup before rows are migrated.

use super::{BackupArgs, MigrateCommand, SchemaArgs, applied_line, print_registry, print_status};
use crate::cli::output::JsonArgs;
use crate::cli::session::{self, CommandError};
use crate::cli::verify;
use crate::config::{self, Config};
use crate::db::encoding::expect_utf8;
use crate::db::listing::backup::{self, BackupError};
use crate::db::migrations::{LISTING_SET, Migration};
use crate::db::{self, listing};
use anyhow::{Context, anyhow};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs a subcommand on the listing helper's set.
pub async fn run(place: &SchemaArgs, what: MigrateCommand, config: Config) -> Result<(), CommandError> {
    if let MigrateCommand::Verify { json } = what {
        return verify::verify_listing(place, JsonArgs { json }, &config).await;
    }
    let url = session::listing_url(&config)?;
    let wanted =
        place.schema.as_deref().map(listing::ListingSchema::from_name).transpose().map_err(CommandError::usage)?;
    let mut session = db::connect_session(url).await.map_err(CommandError::unavailable)?;
    let place = listing::ListingSchema::resolve_schema(&mut session, wanted).await.map_err(CommandError::usage)?;
    match what {
        MigrateCommand::Up { to, rows } => migrate_up(&mut session, url, &place, to.as_deref(), &rows).await,
        MigrateCommand::Down { to, destructive, literal, restore_names, rows } => {
            if literal && !destructive {
                return Err(CommandError::usage(anyhow!(
                    "--verbatim-runbook requires --destructive\ndetail: it drops columns and settings that existed \
                     before the listing helper"
                )));
            }
            if restore_names && to.as_deref() != Some("000") {
                return Err(CommandError::usage(anyhow!(
                    "--restore-names requires --to 000\ndetail: migration 001 renames the columns"
                )));
            }
            let way = RollbackRequest { to: to.as_deref(), destructive, verbatim_runbook: literal, restore_names };
            migrate_down(&mut session, url, &place, &way, &rows).await
        }
        MigrateCommand::Status { json } => Ok(print_status(&mut session, &LISTING_SET, json).await?),
        MigrateCommand::Baseline { .. } => Err(CommandError::usage(anyhow!(
            "the set listing has no baseline\nhint: run `vinops migrate --set listing up`, which creates only \
             missing objects and records the existing ones"
        ))),
        MigrateCommand::Registry { write } => Ok(print_registry(&LISTING_SET, write)?),
        MigrateCommand::Verify { .. } => Ok(()), // done above
    }
}

/// Backs up rows and applies pending migrations.
async fn migrate_up(
    session: &mut PgConnection,
    url: &str,
    place: &listing::ListingSchema,
    to: Option<&str>,
    rows: &BackupArgs,
) -> Result<(), CommandError> {
    expect_utf8(session).await.map_err(CommandError::from_schema)?;
    let pending = listing::pending_migrations(session, place, to).await?;
    let Some(first) = pending.first() else {
        println!("nothing to apply");
        return Ok(());
    };
    back_up_rows(session, url, place, first, rows).await?;
    listing::apply_pending(session, place, to, |line| println!("{}", applied_line(line))).await?;
    Ok(())
}

/// The options of a rollback.
struct RollbackRequest<'a> {
    to: Option<&'a str>,
    destructive: bool,
    verbatim_runbook: bool,
    restore_names: bool,
}

/// Backs up rows and rolls back migrations.
async fn migrate_down(
    session: &mut PgConnection,
    url: &str,
    place: &listing::ListingSchema,
    way: &RollbackRequest<'_>,
    rows: &BackupArgs,
) -> Result<(), CommandError> {
    let back = listing::planned_rollbacks(session, way.to).await?;
    if let Some(first) = back.first() {
        if rows.no_backup && !way.destructive {
            expect_no_loss(session, place, &back).await?;
        }
        back_up_rows(session, url, place, first, rows).await?;
        let on_rolled_back = |migration: &Migration| println!("rolled back {}", migration.stem());
        listing::rollback_to(session, place, way.to, way.verbatim_runbook, on_rolled_back).await?;
    } else if !way.restore_names {
        println!("nothing to roll back");
    }
    if way.restore_names {
        for line in listing::restore_column_names(session, place).await? {
            println!("{line}");
        }
    }
    Ok(())
}

/// Returns an error if a rollback without a backup would delete rows.
async fn expect_no_loss(
    session: &mut PgConnection,
    place: &listing::ListingSchema,
    back: &[&'static Migration],
) -> Result<(), CommandError> {
    let going: BTreeSet<&str> = back
        .iter()
        .flat_map(|migration| listing::rollback_objects(migration))
        .filter_map(|thing| thing.strip_prefix("table "))
        .collect();
    match listing::count_user_rows(session, place, Some(&going)).await? {
        0 => Ok(()),
        rows => Err(anyhow!(
            "rolling back without a backup would delete {rows} rows\nhint: pass --destructive to do it anyway"
        )
        .into()),
    }
}

/// Backs up existing rows, or records the operator who declined a backup.
async fn back_up_rows(
    session: &mut PgConnection,
    url: &str,
    place: &listing::ListingSchema,
    first: &Migration,
    how: &BackupArgs,
) -> Result<(), CommandError> {
    let rows = listing::count_user_rows(session, place, None).await?;
    if rows == 0 || how.no_backup {
        let who = (rows > 0).then(session::os_user);
        return Ok(backup::record_backup(session, first.id, rows, None, who.as_deref()).await?);
    }
    listing::create_ledger(session).await?;
    let folder = match &how.backup_dir {
        Some(folder) => folder.clone(),
        None => config::user_data_folder().map_or_else(|| PathBuf::from("."), |home| home.join("backups")),
    };
    let backup = backup::create_backup(session, url, place, &folder).await.map_err(|error| match error {
        BackupError::Missing => CommandError::unavailable(error),
        BackupError::Failed(_) => CommandError::from(error),
    })?;
    println!("backed up {rows} rows to {} ({} bytes)", backup.path.display(), backup.bytes);
    Ok(backup::record_backup(session, first.id, rows, Some(&backup), None)
        .await
        .context("could not record the backup")?)
}
