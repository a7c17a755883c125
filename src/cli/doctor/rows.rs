//! The comparison of a sample of lots with their stored versions.

use super::super::JobRegistry;
use super::super::error_text::error_line;
use super::super::verify::{describe_difference, repair_command};
use super::{DoctorFinding, fail, pass, warn};
use crate::auction::difference::{ComparisonScope, RowDifference};
use sqlx::PgPool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SUBJECT: &str = "rows";
/// The number of lots in the sample.
const SAMPLE_LOTS: u32 = 50;
/// The time limit of the comparison.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Compares a random sample of lots with their stored versions.
pub(super) async fn compare_sample(fleet: JobRegistry, pool: &PgPool) -> DoctorFinding {
    let first: Arc<Mutex<Option<RowDifference>>> = Arc::default();
    let kept = Arc::clone(&first);
    let observer = Box::new(move |progress: crate::auction::difference::ComparisonProgress| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = kept.take().or(progress.found.into_iter().next());
    });
    let scope = ComparisonScope { sample: Some(SAMPLE_LOTS), source: None };
    let all = "vinops verify lots --all";
    let counts = match tokio::time::timeout(COMPARE_TIMEOUT, (fleet.compare)(pool.clone(), scope, observer)).await {
        Err(_) => return warn(SUBJECT, "comparison of a sample of lots took longer than 10 s", all),
        Ok(Err(error)) => return warn(SUBJECT, error_line(&error), all),
        Ok(Ok(counts)) => counts,
    };
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match first {
        None => {
            pass(SUBJECT, format!("{} lots and {} vehicles equal their stored versions", counts.lots, counts.vehicles))
        }
        Some(difference) => fail(
            SUBJECT,
            format!(
                "{} differences in a sample of {SAMPLE_LOTS} lots; {}",
                counts.differences,
                describe_difference(&difference)
            ),
            repair_command(&difference).unwrap_or_else(|| all.to_owned()),
        ),
    }
}
