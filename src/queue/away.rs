//! What a worker's loops know of the database's absence, and what is none.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The mean wait after a conflict with other transactions.
const CONFLICT_WAIT: Duration = Duration::from_millis(50);

/// Logs a conflict with other transactions, which is no outage, and returns the wait until the next try.
pub(super) fn conflict(worker: &str, doing: &str, error: &sqlx::Error) -> Duration {
    tracing::info!(worker, doing, %error, "conflict with another transaction; trying again");
    CONFLICT_WAIT.mul_f64(0.5 + rand::random::<f64>())
}

/// How many of a worker's loops miss the database, and since when the first of them does.
#[derive(Default)]
pub(super) struct Away(Mutex<(usize, Option<Instant>)>);

impl Away {
    /// One more loop misses it; whether it is the first.
    pub fn missed(&self) -> bool {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.0 += 1;
        away.1.get_or_insert_with(Instant::now);
        away.0 == 1
    }

    /// One loop less; the outage's beginning if it was the last.
    pub fn returned(&self) -> Option<Instant> {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.0 = away.0.saturating_sub(1);
        if away.0 == 0 { away.1.take() } else { None }
    }
}
