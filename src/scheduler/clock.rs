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
pub const MOST: Duration = Duration::from_secs(2);
/// Number of measurements. The one with the shortest round trip is the most exact.
const QUESTIONS: usize = 3;

/// The offset of the database's clock from the host's clock, with the error of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Time of the database minus time of the host. Negative if the database is behind.
    pub ahead: TimeDelta,
    /// Largest error that the round trip can cause.
    pub error: TimeDelta,
}

impl Measured {
    /// Returns true if the clocks differ by more than [`MOST`], whatever the error of the measurement.
    pub fn is_wrong(&self) -> bool {
        (self.ahead.abs() - self.error).to_std().is_ok_and(|apart| apart > MOST)
    }
}

/// Measures the offset between the clocks of the host and the database.
pub async fn clock_skew(pool: &PgPool) -> anyhow::Result<Measured> {
    let mut conn = pool.acquire().await.context("could not read the clock of the database")?;
    let mut best: Option<Measured> = None;
    for _ in 0..QUESTIONS {
        let (asked, began) = (config::now(), Instant::now());
        let theirs = sqlx::query_scalar!("-- scheduler: clock\n select clock_timestamp() as \"now!\"")
            .fetch_one(&mut *conn)
            .await
            .context("could not read the clock of the database")?;
        let half = TimeDelta::from_std(began.elapsed() / 2)?;
        if best.is_none_or(|best| half < best.error) {
            best = Some(Measured { ahead: theirs - (asked + half), error: half });
        }
    }
    best.context("the clock of the database was not read")
}

/// Returns the message for a clock that is wrong.
fn complaint(measured: &Measured) -> String {
    let seconds = measured.ahead.as_seconds_f64();
    let word = if seconds < 0.0 { "ahead of" } else { "behind" };
    format!("host clock is {:.1} s {word} the database clock, limit 2 s", seconds.abs())
}

/// The latest offset of the clocks. Logs an error when the clock becomes wrong, and a message when it is right again.
#[derive(Debug, Default)]
pub(super) struct Skew {
    ahead: TimeDelta,
    wrong: bool,
}

impl Skew {
    /// Returns the time by which the host's clock is behind.
    pub(super) fn behind(&self) -> TimeDelta {
        self.ahead
    }

    pub(super) async fn look(&mut self, pool: &PgPool) -> anyhow::Result<()> {
        let measured = clock_skew(pool).await?;
        self.note(measured);
        Ok(())
    }

    fn note(&mut self, measured: Measured) {
        let (skew_ms, wrong) = (measured.ahead.num_milliseconds(), measured.is_wrong());
        match (std::mem::replace(&mut self.wrong, wrong), wrong) {
            (false, true) => {
                tracing::error!(skew_ms, hint = "synchronize the host by NTP", "{}", complaint(&measured));
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

    fn measured(ahead_ms: i64, error_ms: i64) -> Measured {
        Measured { ahead: TimeDelta::milliseconds(ahead_ms), error: TimeDelta::milliseconds(error_ms) }
    }

    #[test]
    fn over_two_seconds_is_wrong_whichever_clock_is_ahead() {
        assert!(!measured(2_000, 0).is_wrong() && !measured(-2_000, 0).is_wrong());
        assert!(measured(2_001, 0).is_wrong() && measured(-2_001, 0).is_wrong());
        assert!(!measured(2_500, 600).is_wrong(), "a slow answer proves nothing");
        assert_eq!(
            complaint(&measured(-3_140, 1)),
            "host clock is 3.1 s ahead of the database clock, limit 2 s"
        );
    }

    #[tokio::test]
    async fn a_database_on_this_host_has_its_clock() {
        let test = testing::database().await;
        let measured = clock_skew(&test.db.pool).await.unwrap();
        assert!(!measured.is_wrong(), "{measured:?}");
        assert!(measured.ahead.abs() < TimeDelta::milliseconds(100) + measured.error, "{measured:?}");
    }

    #[tokio::test]
    async fn a_database_whose_clock_is_an_hour_ahead_is_an_error() {
        let test = testing::database().await;
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
        let skewed = crate::db::Db::connect(&test.url, None, 1).await.unwrap();
        let measured = clock_skew(&skewed.pool).await.unwrap();
        assert!(measured.is_wrong(), "{measured:?}");
        let error = complaint(&measured);
        assert!(error.starts_with("host clock is 3600.0 s behind the database clock"), "{error}");
    }
}
