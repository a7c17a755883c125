//! Backup of the listing helper's tables before a migration, as a file that restores them.
//!
//! The file contains `pg_dump`'s plain SQL of the set's schema, followed by the set's rows of the registry and the
//! ledger. `psql -f FILE` restores the file into an empty database, which then has its list of applied migrations and
//! can be migrated further. The other schemas of a shared database are not included.
//!
//! The file gets its name when it is complete, and only its owner can read it. `pg_dump` gets the password by its
//! environment, since arguments are visible to all users. Accepted: rows written between the backup and the migration
//! are not in the backup. An operator who needs those rows stops the writers first.

use super::ListingSchema;
use crate::config;
use crate::db::migrate::CREATE_REGISTRY_SQL;
use anyhow::Context;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// A finished backup.
#[derive(Clone, Debug)]
pub struct ListingBackup {
    /// The path of the file.
    pub path: PathBuf,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file in hex.
    pub sha256: String,
}

/// Error of a backup. Nothing was changed in the database.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// `pg_dump` is not installed, or not found.
    #[error(
        "could not find pg_dump to back up the rows of the database\n\
         detail: nothing was changed\n\
         hint: install it (on Debian: apt-get install postgresql-client), or set VINOPS_PG_BINDIR to its folder, or pass \
         --no-backup to go on without a backup"
    )]
    Missing,
    /// The backup failed, for example because the folder is not writable.
    #[error(
        "could not back up the database: {0:#}\ndetail: nothing was changed\nhint: pass --no-backup to go on without"
    )]
    Failed(anyhow::Error),
}

/// Backs up the set's tables into a new file in `folder`.
pub async fn create_backup(
    connection: &mut PgConnection,
    url: &str,
    place: &ListingSchema,
    folder: &Path,
) -> Result<ListingBackup, BackupError> {
    let stamp = config::now().format("%Y%m%d_%H%M%S_%3f");
    let path = folder.join(format!("{}_{stamp}.sql", place.name()));
    let unfinished = path.with_extension("sql.unfinished");
    let done = write_backup(connection, url, place, folder, &unfinished, &path).await;
    if done.is_err() {
        std::fs::remove_file(&unfinished).ok();
    }
    done
}

async fn write_backup(
    connection: &mut PgConnection,
    url: &str,
    place: &ListingSchema,
    folder: &Path,
    unfinished: &Path,
    path: &Path,
) -> Result<ListingBackup, BackupError> {
    let failed = |error: anyhow::Error| BackupError::Failed(error);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("could not create the folder {}", folder.display()))
        .map_err(failed)?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.create_new(true).append(true).mode(0o600).open(unfinished);
    let mut file =
        file.with_context(|| format!("could not create the file {}", unfinished.display())).map_err(failed)?;
    run_pg_dump(url, place, &file).await?;
    let standing = registry_sql(connection).await.context("could not read the registry").map_err(failed)?;
    let mut done = || {
        file.write_all(standing.as_bytes())?;
        file.sync_all()?;
        let (bytes, sha256) = hash_file(unfinished)?;
        std::fs::rename(unfinished, path)?;
        Ok(ListingBackup { path: path.to_owned(), bytes, sha256 })
    };
    done().map_err(|error: std::io::Error| {
        failed(anyhow::Error::new(error).context(format!("could not write the file {}", path.display())))
    })
}

/// Returns length in bytes and SHA-256 of a file.
fn hash_file(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = std::fs::File::open(path)?;
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                bytes += n as u64;
            }
        }
    }
    Ok((bytes, HEXLOWER.encode(&hash.finalize())))
}

/// Executes `pg_dump` with its output in the file.
async fn run_pg_dump(url: &str, place: &ListingSchema, file: &std::fs::File) -> Result<(), BackupError> {
    let failed = |error: anyhow::Error| BackupError::Failed(error);
    let (url, password) = split_password(url).map_err(failed)?;
    let which = match place.name() {
        // psql finds schema public in every new database, and its creation would fail
        "public" => "--exclude-schema=vinops".to_owned(),
        schema => format!("--schema={schema}"),
    };
    let out = file.try_clone().context("could not open the file for pg_dump").map_err(failed)?;
    for program in pg_dump_candidates() {
        let mut command = Command::new(&program);
        command.args(["--no-owner", &which, "--dbname", &url]).kill_on_drop(true);
        command
            .stdin(std::process::Stdio::null())
            .stdout(out.try_clone().context("could not open the file for pg_dump").map_err(failed)?);
        if let Some(password) = &password {
            command.env("PGPASSWORD", password);
        }
        let begun = match command.stderr(std::process::Stdio::piped()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            begun => begun.with_context(|| format!("could not run {}", program.display())).map_err(failed)?,
        };
        let ended = begun.wait_with_output().await.context("could not wait for pg_dump").map_err(failed)?;
        let written = file.metadata().context("could not read the size of the backup").map_err(failed)?.len();
        if ended.status.success() && written > 0 {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr).trim().replace('\n', "; ");
        return Err(failed(anyhow::anyhow!("{} failed with {}: {said}", program.display(), ended.status)));
    }
    Err(BackupError::Missing)
}

/// Returns the places of `pg_dump`. The first that exists is used.
fn pg_dump_candidates() -> Vec<PathBuf> {
    let named = config::pg_bindir().map(|folder| folder.join("pg_dump"));
    named.into_iter().chain([PathBuf::from("pg_dump")]).collect()
}

/// Returns the URL without its password, and the password.
fn split_password(url: &str) -> anyhow::Result<(String, Option<String>)> {
    let mut url = url::Url::parse(url).context("could not parse the database URL")?;
    let Some(password) = url.password() else { return Ok((url.into(), None)) };
    // percent-encoded as in a form, except that a plus sign stands for itself here
    let form = format!("p={}", password.replace('+', "%2B").replace('&', "%26"));
    let plain = url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, password)| password.into_owned());
    if url.set_password(None).is_err() {
        anyhow::bail!("the database URL has a password and no host");
    }
    Ok((url.into(), plain))
}

/// Returns SQL that writes the set's rows of registry and ledger into another database.
async fn registry_sql(connection: &mut PgConnection) -> anyhow::Result<String> {
    let lines: Vec<String> = sqlx::query_scalar(
        "-- listing: standing
         select format(
           'insert into vinops.migrations values (%L, %L, %L, %L, %L, %L, %L) on conflict do nothing;',
           set_name, id, name, sha256, applied_at, execution_ms, baseline
         )
         from vinops.migrations
         where set_name = 'listing'
         union all
         select format(
           'insert into vinops.places values (%L, %L, %L) on conflict do nothing;',
           set_name, schema_name, base_tables
         )
         from vinops.places
         where set_name = 'listing'
         union all
         select format(
           'insert into vinops.added values (%L, %L, %L, %L) on conflict do nothing;', set_name, id, thing, detail
         )
         from vinops.added
         where set_name = 'listing'
         union all
         select format(
           'insert into vinops.backups values (%L, %L, %L, %L, %L, %L, %L, %L) on conflict do nothing;',
           set_name, taken_at, before, row_count, path, sha256, bytes, waived_by
         )
         from vinops.backups
         where set_name = 'listing'",
    )
    .fetch_all(connection)
    .await?;
    let ledger = include_str!("ledger.sql");
    Ok(format!("\n{};\n\n{ledger}\n{}\n", CREATE_REGISTRY_SQL, lines.join("\n")))
}

/// Records the backup, or its waiver, for the rows that existed before migration `before` was applied or rolled back.
pub async fn record_backup(
    connection: &mut PgConnection,
    before: &str,
    rows: i64,
    backup: Option<&ListingBackup>,
    waived_by: Option<&str>,
) -> anyhow::Result<()> {
    super::create_ledger(connection).await?;
    sqlx::query(
        "-- listing: note a backup
         insert into vinops.backups (set_name, before, row_count, path, sha256, bytes, waived_by)
         values ('listing', $1, $2, $3, $4, $5, $6)",
    )
    .bind(before)
    .bind(rows)
    .bind(backup.map(|backup| backup.path.display().to_string()))
    .bind(backup.map(|backup| &backup.sha256))
    .bind(backup.map(|backup| i64::try_from(backup.bytes).unwrap_or(i64::MAX)))
    .bind(waived_by)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_taken_out_of_the_url_and_decoded() {
        let taken = |url: &str| split_password(url).unwrap();
        let password = |word: &str| Some(word.to_owned());
        assert_eq!(taken("postgres://u:a%40b+c%2Fd@h:5/n"), ("postgres://u@h:5/n".into(), password("a@b+c/d")));
        assert_eq!(taken("postgres://u@h/n?sslmode=require"), ("postgres://u@h/n?sslmode=require".into(), None));
    }
}
