//! Outages of the database as a worker's loops see them, and conflicts, which are not outages.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Mean delay after a conflict with other transactions.
const CONFLICT_DELAY: Duration = Duration::from_millis(50);

/// Logs a conflict with other transactions, which is not an outage. Returns the delay until the next try.
pub(super) fn log_conflict(worker: &str, doing: &str, error: &sqlx::Error) -> Duration {
    tracing::info!(worker, doing, %error, "transaction conflict, retrying");
    CONFLICT_DELAY.mul_f64(0.5 + rand::random::<f64>())
}

/// The number of a worker's loops without the database, and the start of the outage.
#[derive(Default)]
pub(super) struct OutageTracker(Mutex<(usize, Option<Instant>)>);

impl OutageTracker {
    /// Counts one more loop without the database. Returns true for the first one.
    pub fn record_failure(&self) -> bool {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.0 += 1;
        away.1.get_or_insert_with(Instant::now);
        away.0 == 1
    }

    /// Counts one loop less. Returns the start of the outage if that loop was the last.
    pub fn record_recovery(&self) -> Option<Instant> {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.0 = away.0.saturating_sub(1);
        if away.0 == 0 { away.1.take() } else { None }
    }
}
