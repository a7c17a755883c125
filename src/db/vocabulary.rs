//! The vocabulary of a database: its spellings, for those who read the feed, and what operators do to it.

use crate::taxonomy::{Domain, Spellings};
use anyhow::Context;
use sqlx::PgConnection;

/// What words mean here: the files' spellings, and what operators made of them.
pub async fn spellings(connection: &mut PgConnection) -> anyhow::Result<Spellings> {
    let rows = sqlx::query!("-- vocabulary: spellings\n select domain, raw, code from taxonomies.aliases")
        .fetch_all(connection)
        .await
        .context("read the spellings of taxonomies.aliases")?;
    // a domain that only a newer program knows is none of ours
    Ok(Spellings::of(
        rows.into_iter().filter_map(|row| Some((Domain::named(&row.domain)?, row.raw, row.code))),
    ))
}
