//! The encoding of a database: a feed's text is Unicode, and what stores it must be.

use anyhow::Context;
use sqlx::PgConnection;

/// A database whose text is not Unicode. Ends a command with exit code 3: the feed's text cannot be stored there.
#[derive(Debug, thiserror::Error)]
#[error("database \"{database}\" has encoding {encoding}; vinops needs UTF8\nhint: {REMEDY}")]
pub struct EncodingError {
    /// The database.
    pub database: String,
    /// What `server_encoding` says.
    pub encoding: String,
}

/// The statement that creates a database which can be migrated.
pub const REMEDY: &str = "create database vinops encoding 'UTF8' template template0";

/// Passes where the database stores text as UTF-8.
///
/// # Errors
/// [`EncodingError`] where it does not, and the error of a database that does not answer.
pub async fn expect_utf8(connection: &mut PgConnection) -> anyhow::Result<()> {
    let (database, encoding): (String, String) = sqlx::query_as(
        "-- migrate: encoding
         select current_database()::text, current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .context("read the database's encoding")?;
    match encoding.as_str() {
        "UTF8" => Ok(()),
        _ => Err(EncodingError { database, encoding }.into()),
    }
}
