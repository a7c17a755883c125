//! The lot that a path names: by its source and number, or by its number alone while one source has it in sight.

use super::problem::Problem;
use crate::auction::lot_number::lot_number_of_digits;
use anyhow::Context;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use sqlx::PgConnection;

/// The lot that a path names, with or without its source.
pub struct LotPath {
    /// Its source, where the path names it.
    pub source: Option<String>,
    /// Its number as it was written.
    pub lot: String,
}

impl<S: Send + Sync> FromRequestParts<S> for LotPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<LotPath, Problem> {
        let wrong = || Problem::unknown("The path is not UTF-8.");
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let mut names = path.map_err(|_| wrong())?.0.into_iter().map(|(_, text)| text);
        match (names.next(), names.next()) {
            (Some(source), Some(lot)) => Ok(LotPath { source: Some(source), lot }),
            (Some(lot), None) => Ok(LotPath { source: None, lot }),
            (None, _) => Err(wrong()),
        }
    }
}

/// A lot in sight that a path names.
#[derive(Debug)]
pub struct Place {
    /// Its id in `lots`.
    pub id: i64,
    /// Its source; none for a row that no feed brought.
    pub source: Option<String>,
    /// Its number.
    pub lot: String,
}

/// Returns the lot that a path names. A short path finds the one lot of this number that is in sight.
///
/// # Errors
///
/// 404 where there is none, 410 where it or its vehicle was removed, 409 where several sources have it.
pub async fn find(connection: &mut PgConnection, path: &LotPath) -> Result<Place, Problem> {
    let lot = lot_number_of_digits(&path.lot)
        .ok_or_else(|| Problem::parameter("lot", "is not a lot number of 1 to 18 digits"))?;
    let lots = sqlx::query!(
        r#"-- api: the lot of a path
        select l.id, l.source, l.is_removed or v.is_removed as "removed!"
        from public.lots as l
        join public.vehicles as v on v.vin = l.vin
        where l.lot_external_id = $1
          and ($2::text is null or l.source = $2)
        order by l.source"#,
        lot,
        path.source
    )
    .fetch_all(connection)
    .await
    .context("look for a lot")?;
    let name = match &path.source {
        None => format!("Lot {lot}"),
        Some(source) => format!("Lot {lot} of source {source:?}"),
    };
    if lots.is_empty() {
        return Err(Problem::unknown(format!("{name} does not exist.")));
    }
    let mut open: Vec<_> = lots.into_iter().filter(|lot| !lot.removed).collect();
    if open.len() > 1 {
        let sources = open.into_iter().map(|lot| lot.source).collect();
        return Err(Problem::ambiguous(lot, sources));
    }
    let found = open.pop().ok_or_else(|| Problem::gone(format!("{name} was removed.")))?;
    Ok(Place { id: found.id, source: Some(found.source), lot: lot.to_owned() })
}
