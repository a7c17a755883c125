//! A few standing rows, against what the stored versions say.

use super::super::Fleet;
use super::super::verify::{line, remedy};
use super::{Finding, fail, pass, warn};
use crate::auction::difference::{ComparisonScope, RowDifference};
use sqlx::PgPool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ABOUT: &str = "rows";
/// How many lots are picked.
const SAMPLE: u32 = 50;
/// How long that may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Compares a sample.
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
        Err(_) => return warn(ABOUT, "a sample of lots was not compared in 10 s", all),
        Ok(Err(error)) => return warn(ABOUT, format!("{error:#}"), all),
        Ok(Ok(counts)) => counts,
    };
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match first {
        None => pass(
            ABOUT,
            format!("{} lots and {} vehicles are what their versions say", counts.lots, counts.vehicles),
        ),
        Some(difference) => fail(
            ABOUT,
            format!("{} differences in a sample of {SAMPLE} lots; {}", counts.differences, line(&difference)),
            remedy(&difference).unwrap_or_else(|| all.to_owned()),
        ),
    }
}
