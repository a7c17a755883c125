//! Encoding of a database. The feed's text is Unicode, so the database must store Unicode.

use anyhow::Context;
use sqlx::PgConnection;

/// A database whose encoding is not UTF8. A command ends with exit code 3, since the feed's text cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("database \"{database}\" has encoding {encoding}; vinops needs UTF8\nhint: {}", CREATE_DATABASE_SQL)]
pub struct EncodingError {
    /// The name of the database.
    pub database: String,
    /// The value of `server_encoding`.
    pub encoding: String,
}

/// Statement that creates a database with the right encoding.
pub const CREATE_DATABASE_SQL: &str = "create database vinops encoding 'UTF8' template template0";

/// Checks that the database stores text as UTF-8.
///
/// # Errors
/// Returns [`EncodingError`] if the encoding is another, or an error if the database is not reachable.
pub async fn expect_utf8(connection: &mut PgConnection) -> anyhow::Result<()> {
    let (database, encoding): (String, String) = sqlx::query_as(
        "-- migrate: encoding
         select current_database()::text, current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .context("could not read the encoding of the database")?;
    match encoding.as_str() {
        "UTF8" => Ok(()),
        _ => Err(EncodingError { database, encoding }.into()),
    }
}
