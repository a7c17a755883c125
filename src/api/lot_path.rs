//! Path parameters of a lot: source and number, or the number alone while only one source has a visible lot with it.

use super::problem::Problem;
use crate::auction::lot_number::parse_lot_digits;
use anyhow::Context;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use sqlx::PgConnection;

/// Extractor of the lot in a path, with or without its source.
pub struct LotPath {
    /// Source of the lot. `None` if the path contains the number alone.
    pub source: Option<String>,
    /// Lot number as written in the path, not validated.
    pub lot: String,
}

impl<S: Send + Sync> FromRequestParts<S> for LotPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<LotPath, Problem> {
        let wrong = || Problem::not_found("The path is not UTF-8.");
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let mut names = path.map_err(|_| wrong())?.0.into_iter().map(|(_, text)| text);
        match (names.next(), names.next()) {
            (Some(source), Some(lot)) => Ok(LotPath { source: Some(source), lot }),
            (Some(lot), None) => Ok(LotPath { source: None, lot }),
            (None, _) => Err(wrong()),
        }
    }
}

/// Visible lot that a path identifies.
#[derive(Debug)]
pub struct VisibleLot {
    /// Id of the row in `lots`.
    pub id: i64,
    /// Source of the lot. Always set by [`find_lot`].
    pub source: Option<String>,
    /// Lot number in its normal form, without leading zeros.
    pub lot: String,
}

/// Returns the visible lot that a path identifies. A path without a source finds the only visible lot with the number.
///
/// # Errors
/// Returns 400 if the number is invalid, 404 if no lot exists, 410 if the lot or its vehicle was removed, and 409 if
/// several sources have the number.
pub async fn find_lot(connection: &mut PgConnection, path: &LotPath) -> Result<VisibleLot, Problem> {
    let lot = parse_lot_digits(&path.lot)
        .ok_or_else(|| Problem::invalid_parameter("lot", "is not a lot number of 1 to 18 digits"))?;
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
    .context("could not look up a lot")?;
    let name = match &path.source {
        None => format!("Lot {lot}"),
        Some(source) => format!("Lot {lot} of source {source:?}"),
    };
    if lots.is_empty() {
        return Err(Problem::not_found(format!("{name} does not exist.")));
    }
    let mut open: Vec<_> = lots.into_iter().filter(|lot| !lot.removed).collect();
    if open.len() > 1 {
        let sources = open.into_iter().map(|lot| lot.source).collect();
        return Err(Problem::ambiguous(lot, sources));
    }
    let found = open.pop().ok_or_else(|| Problem::gone(format!("{name} was removed.")))?;
    Ok(VisibleLot { id: found.id, source: Some(found.source), lot: lot.to_owned() })
}
