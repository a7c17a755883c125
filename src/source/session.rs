//! The session of a source, as the database keeps it: one row, sealed, refreshed by one at a time.
//!
//! Who wants to log in takes the refresh ([`take`]): one statement on the source's row, so one of any number gets it,
//! and it is free again when its time is over, should its holder die. Who has looked before must find the row as it was,
//! or one who looked in vain and was slow would log in again right after the first. What is written afterwards names the
//! holder, so that one who comes too late writes nothing.

use anyhow::Context;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;
use std::time::Duration;

use super::seal::CookieKey;

/// A session this close to its end is refreshed: longer than a slot, so that the next fetch still finds it good.
const SOON: Duration = Duration::from_secs(20 * 60);

/// What is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The cookies, if they can be opened and have not expired.
    pub cookies: Option<SecretString>,
    /// Whether they last for a while.
    pub fresh: bool,
    /// Whether somebody is refreshing them now.
    pub refreshing: bool,
    /// Whether a refused login is so recent that nothing should be tried by itself.
    pub resting: bool,
    /// Why it was refused.
    pub error: Option<String>,
    /// When the row was written last; none without one.
    version: Option<DateTime<Utc>>,
}

/// The source's session as it stands; one that cannot be opened is as good as none.
pub async fn load(pool: &PgPool, source: &str, key: &CookieKey) -> anyhow::Result<Kept> {
    let row = sqlx::query!(
        r#"-- session: load
        select
          sealed, last_error, updated_at,
          coalesce(expires_at > now(), false) as "good!",
          coalesce(expires_at > now() + make_interval(secs => $2), false) as "fresh!",
          coalesce(refreshing_until > now(), false) as "refreshing!",
          coalesce(retry_at > now(), false) as "resting!"
        from fleet.source_sessions
        where source = $1"#,
        source,
        SOON.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await
    .with_context(|| format!("read the session of {source}"))?;
    let Some(row) = row else { return Ok(Kept::default()) };
    let cookies = row.sealed.filter(|_| row.good).and_then(|sealed| key.open(source, &sealed));
    Ok(Kept {
        fresh: row.fresh && cookies.is_some(),
        cookies,
        refreshing: row.refreshing,
        resting: row.resting,
        error: row.last_error,
        version: Some(row.updated_at),
    })
}

/// Takes the refresh for so long; false when somebody else has it, or the session is no longer what was `seen`.
pub async fn take(
    pool: &PgPool,
    source: &str,
    who: &str,
    lasts: Duration,
    seen: Option<&Kept>,
) -> anyhow::Result<bool> {
    let taken = sqlx::query!(
        "-- session: take the refresh
        insert into fleet.source_sessions as s (source, refreshing_by, refreshing_until)
        values ($1, $2, now() + make_interval(secs => $3))
        on conflict (source) do update
        set refreshing_by = excluded.refreshing_by, refreshing_until = excluded.refreshing_until
        where (s.refreshing_until is null or s.refreshing_until <= now())
          and ($4 or s.updated_at is not distinct from $5)",
        source,
        who,
        lasts.as_secs_f64(),
        seen.is_none(),
        seen.and_then(|kept| kept.version),
    )
    .execute(pool)
    .await
    .with_context(|| format!("take the refresh of the session of {source}"))?;
    Ok(taken.rows_affected() == 1)
}

/// Keeps new cookies for so long and gives the refresh back; none when it was somebody else's by now.
pub async fn keep(
    pool: &PgPool,
    source: &str,
    who: &str,
    sealed: &[u8],
    lasts: Duration,
) -> anyhow::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"-- session: keep
        update fleet.source_sessions
        set sealed = $3,
          obtained_at = now(),
          expires_at = now() + make_interval(secs => $4),
          refreshing_by = null,
          refreshing_until = null,
          retry_at = null,
          last_error = null,
          updated_at = now()
        where source = $1 and refreshing_by = $2
        returning expires_at as "expires_at!""#,
        source,
        who,
        sealed,
        lasts.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await
    .with_context(|| format!("keep the session of {source}"))
}

/// Gives the refresh back with the reason why there is nothing to keep, and rests for so long.
pub async fn refused(
    pool: &PgPool,
    source: &str,
    who: &str,
    error: &str,
    rest: Duration,
) -> anyhow::Result<()> {
    sqlx::query!(
        "-- session: refused
        update fleet.source_sessions
        set refreshing_by = null,
          refreshing_until = null,
          retry_at = now() + make_interval(secs => $4),
          last_error = left($3, 500),
          updated_at = now()
        where source = $1 and refreshing_by = $2",
        source,
        who,
        error,
        rest.as_secs_f64(),
    )
    .execute(pool)
    .await
    .with_context(|| format!("note the refused login of {source}"))?;
    Ok(())
}

/// Ends a session that the server no longer takes, so that the next fetch logs in anew.
pub async fn doubt(pool: &PgPool, source: &str) -> anyhow::Result<()> {
    sqlx::query!(
        "-- session: doubt
        update fleet.source_sessions
        set expires_at = now(), updated_at = now()
        where source = $1 and expires_at > now()",
        source,
    )
    .execute(pool)
    .await
    .with_context(|| format!("end the session of {source}"))?;
    Ok(())
}
