//! The comparison of a sample of lots with their stored versions.

use super::super::Fleet;
use super::super::error_text::error_line;
use super::super::verify::{line, remedy};
use super::{Finding, fail, pass, warn};
use crate::auction::difference::{ComparisonScope, RowDifference};
use sqlx::PgPool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ABOUT: &str = "rows";
/// The number of lots in the sample.
const SAMPLE: u32 = 50;
/// The time limit of the comparison.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Compares a random sample of lots with their stored versions.
pub(super) async fn look(fleet: Fleet, pool: &PgPool) -> Finding {
    let first: Arc<Mutex<Option<RowDifference>>> = Arc::default();
    let kept = Arc::clone(&first);
    let observer = Box::new(move |progress: crate::auction::difference::ComparisonProgress| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = kept.take().or(progress.found.into_iter().next());
    });
    let scope = ComparisonScope { sample: Some(SAMPLE), source: None };
    let all = "vinops verify lots --all";
    let counts = match tokio::time::timeout(TIMEOUT, (fleet.compare)(pool.clone(), scope, observer)).await {
        Err(_) => return warn(ABOUT, "comparison of a sample of lots took longer than 10 s", all),
        Ok(Err(error)) => return warn(ABOUT, error_line(&error), all),
        Ok(Ok(counts)) => counts,
    };
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match first {
        None => pass(
            ABOUT,
            format!("{} lots and {} vehicles equal their stored versions", counts.lots, counts.vehicles),
        ),
        Some(difference) => fail(
            ABOUT,
            format!("{} differences in a sample of {SAMPLE} lots; {}", counts.differences, line(&difference)),
            remedy(&difference).unwrap_or_else(|| all.to_owned()),
        ),
    }
}
