//! Compares the clock of the host with the clock of the database.
//!
//! The database decides which window is due, so a wrong clock of the host damages no data. The scheduler wakes at the
//! wrong time, and its log has wrong times. A difference of over two seconds is an error in the scheduler's log and in
//! `vinops doctor`. Half of the query's round trip is the error of the measurement, and is not counted against the
//! host.

use crate::config;
use anyhow::Context;
use chrono::TimeDelta;
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Largest accepted difference of the clocks.
pub const MAX_SKEW: Duration = Duration::from_secs(2);
/// Number of measurements. The one with the shortest round trip is the most exact.
const SAMPLE_COUNT: usize = 3;

/// The offset of the database's clock from the host's clock, with the error of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Time of the database minus time of the host. Negative if the database is behind.
    pub ahead: TimeDelta,
    /// Largest error that the round trip can cause.
    pub error: TimeDelta,
}

impl ClockOffset {
    /// Returns true if the clocks differ by more than [`MAX_SKEW`], whatever the error of the measurement.
    pub fn is_wrong(&self) -> bool {
        (self.ahead.abs() - self.error).to_std().is_ok_and(|apart| apart > MAX_SKEW)
    }
}

/// Measures the offset between the clocks of the host and the database.
pub async fn measure_offset(pool: &PgPool) -> anyhow::Result<ClockOffset> {
    let mut conn = pool.acquire().await.context("could not read the clock of the database")?;
    let mut best: Option<ClockOffset> = None;
    for _ in 0..SAMPLE_COUNT {
        let (asked, began) = (config::now(), Instant::now());
        let theirs = sqlx::query_scalar!("-- scheduler: clock\n select clock_timestamp() as \"now!\"")
            .fetch_one(&mut *conn)
            .await
            .context("could not read the clock of the database")?;
        let half = TimeDelta::from_std(began.elapsed() / 2)?;
        if best.is_none_or(|best| half < best.error) {
            best = Some(ClockOffset { ahead: theirs - (asked + half), error: half });
        }
    }
    best.context("the clock of the database was not read")
}

/// Returns the message for a clock that is wrong.
fn skew_message(measured: &ClockOffset) -> String {
    let seconds = measured.ahead.as_seconds_f64();
    let word = if seconds < 0.0 { "ahead of" } else { "behind" };
    format!("host clock is {:.1} s {word} the database clock, limit 2 s", seconds.abs())
}

/// The latest offset of the clocks. Logs an error when the clock becomes wrong, and a message when it is right again.
#[derive(Debug, Default)]
pub(super) struct SkewMonitor {
    ahead: TimeDelta,
    wrong: bool,
}

impl SkewMonitor {
    /// Returns the time by which the host's clock is behind.
    pub(super) fn host_lag(&self) -> TimeDelta {
        self.ahead
    }

    pub(super) async fn check_clock(&mut self, pool: &PgPool) -> anyhow::Result<()> {
        let measured = measure_offset(pool).await?;
        self.record_offset(measured);
        Ok(())
    }

    fn record_offset(&mut self, measured: ClockOffset) {
        let (skew_ms, wrong) = (measured.ahead.num_milliseconds(), measured.is_wrong());
        match (std::mem::replace(&mut self.wrong, wrong), wrong) {
            (false, true) => {
                let reason = skew_message(&measured);
                tracing::error!(skew_ms, reason, hint = "synchronize the host by NTP", "host clock is wrong");
            }
            (true, false) => tracing::info!(skew_ms, "host clock within the limit again"),
            _ => tracing::debug!(skew_ms, "clocks compared"),
        }
        self.ahead = measured.ahead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn clock_offset(ahead_ms: i64, error_ms: i64) -> ClockOffset {
        ClockOffset { ahead: TimeDelta::milliseconds(ahead_ms), error: TimeDelta::milliseconds(error_ms) }
    }

    #[test]
    fn over_two_seconds_is_wrong_whichever_clock_is_ahead() {
        assert!(!clock_offset(2_000, 0).is_wrong() && !clock_offset(-2_000, 0).is_wrong());
        assert!(clock_offset(2_001, 0).is_wrong() && clock_offset(-2_001, 0).is_wrong());
        assert!(!clock_offset(2_500, 600).is_wrong(), "a slow answer proves nothing");
        assert_eq!(
            skew_message(&clock_offset(-3_140, 1)),
            "host clock is 3.1 s ahead of the database clock, limit 2 s"
        );
    }

    #[tokio::test]
    async fn a_database_on_this_host_has_its_clock() {
        let test = testing::migrated_database().await;
        let measured = measure_offset(&test.db.pool).await.unwrap();
        assert!(!measured.is_wrong(), "{measured:?}");
        assert!(measured.ahead.abs() < TimeDelta::milliseconds(100) + measured.error, "{measured:?}");
    }

    #[tokio::test]
    async fn a_database_whose_clock_is_an_hour_ahead_is_an_error() {
        let test = testing::migrated_database().await;
        // A function of this name that precedes the server's own is a clock that the test can set.
        let mut conn = test.db.pool.acquire().await.unwrap();
        sqlx::raw_sql(
            "create schema skewed;
            create function skewed.clock_timestamp() returns timestamptz language sql
              as 'select pg_catalog.clock_timestamp() + interval ''1 hour''';
            do $$ begin
              execute format('alter database %I set search_path = skewed, pg_catalog, public', current_database());
            end $$",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        let skewed = crate::db::Database::connect(&test.url, None, 1).await.unwrap();
        let measured = measure_offset(&skewed.pool).await.unwrap();
        assert!(measured.is_wrong(), "{measured:?}");
        let error = skew_message(&measured);
        assert!(error.starts_with("host clock is 3600.0 s behind the database clock"), "{error}");
    }
}
