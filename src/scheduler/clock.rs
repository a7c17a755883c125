//! The host's clock against the database's.
//!
//! The database decides what is due, so a wrong clock of the host damages no data. It makes a scheduler wake at the wrong
//! time, and its log wrong. A difference of over two seconds is an error in the scheduler's log and in `vinops doctor`. Half
//! of the query's round trip is the error of the measurement, and is not counted against the host.

use crate::config;
use anyhow::Context;
use chrono::TimeDelta;
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// A clock further away than this is wrong.
pub const MOST: Duration = Duration::from_secs(2);
/// Times the database is asked; the quickest answer tells most.
const QUESTIONS: usize = 3;

/// How far the database's clock is ahead of this host's (less than zero: behind), and within what error that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The database's clock less the host's.
    pub ahead: TimeDelta,
    /// The most that the way there and back may have added.
    pub error: TimeDelta,
}

impl Measured {
    /// Whether the clocks are surely further apart than [`MOST`].
    pub fn is_wrong(&self) -> bool {
        (self.ahead.abs() - self.error).to_std().is_ok_and(|apart| apart > MOST)
    }
}

/// Measures the clocks against each other.
pub async fn clock_skew(pool: &PgPool) -> anyhow::Result<Measured> {
    let mut conn = pool.acquire().await.context("ask the database for its clock")?;
    let mut best: Option<Measured> = None;
    for _ in 0..QUESTIONS {
        let (asked, began) = (config::now(), Instant::now());
        let theirs = sqlx::query_scalar!("-- scheduler: clock\n select clock_timestamp() as \"now!\"")
            .fetch_one(&mut *conn)
            .await
            .context("ask the database for its clock")?;
        let half = TimeDelta::from_std(began.elapsed() / 2)?;
        if best.is_none_or(|best| half < best.error) {
            best = Some(Measured { ahead: theirs - (asked + half), error: half });
        }
    }
    best.context("the database was not asked for its clock")
}

fn complaint(measured: &Measured) -> String {
    let seconds = measured.ahead.as_seconds_f64();
    let word = if seconds < 0.0 { "ahead of" } else { "behind" };
    format!("this host's clock is {:.1} s {word} the database's: set it by NTP (at most 2 s)", seconds.abs())
}

/// The skew from look to look; logs when it becomes wrong, and when right again.
#[derive(Debug, Default)]
pub(super) struct Skew {
    ahead: TimeDelta,
    wrong: bool,
}

impl Skew {
    /// How far this host's clock is behind.
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
            (false, true) => tracing::error!(skew_ms, "{}", complaint(&measured)),
            (true, false) => tracing::info!(skew_ms, "this host's clock is right again"),
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
            "this host's clock is 3.1 s ahead of the database's: set it by NTP (at most 2 s)"
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
        // a function of this name in front of the server's own is a clock that can be set
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
        assert!(error.starts_with("this host's clock is 3600.0 s behind the database's"), "{error}");
    }
}
