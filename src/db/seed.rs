//! Rows that the program brings along (taxonomies), written at the end of every `vinops migrate up`.
//!
//! They are data, so they are upserted from data files rather than spelt out in migrations, whose text may never
//! change once it is applied.

use sqlx::PgConnection;

/// Writes the rows; again is harmless.
pub async fn apply(_connection: &mut PgConnection) -> anyhow::Result<()> {
    Ok(())
}

/// Changes whenever [`apply`] would write something else: part of what names a template of the tests.
pub fn fingerprint() -> String {
    String::new()
}
