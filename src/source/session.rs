//! The session of a source, stored in the database: one encrypted row, refreshed by one worker at a time.
//!
//! A worker that needs to log in acquires the refresh ([`acquire_refresh`]) by one statement on the source's row, so
//! only one of several workers gets it. The refresh expires, so a worker that dies does not block the others. The
//! update succeeds only if the row is unchanged since it was read. Otherwise a slow second worker would log in again
//! right after the first. Later writes require the worker's name in the row, so a worker whose refresh has expired
//! writes nothing.

use anyhow::Context;
use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;
use std::time::Duration;

use super::cookie_cipher::CookieKey;

/// Remaining lifetime below which a session is refreshed. Longer than a slot, so that the session is still valid in the
/// next fetch.
const REFRESH_MARGIN: Duration = Duration::from_secs(20 * 60);

/// Stored session of a source.
#[derive(Debug, Default)]
pub struct StoredSession {
    /// Cookies, if they can be decrypted and have not expired.
    pub cookies: Option<SecretString>,
    /// True if the cookies are valid for at least 20 more minutes.
    pub fresh: bool,
    /// True while a worker is refreshing the cookies.
    pub refreshing: bool,
    /// True during the cooldown after a failed login, in which no automatic login is attempted.
    pub resting: bool,
    /// Error of the last login, if it failed.
    pub error: Option<String>,
    /// Time of the last write to the row. `None` if there is no row.
    version: Option<DateTime<Utc>>,
}

/// Returns the stored session of a source. Cookies that cannot be decrypted are treated as missing.
pub async fn load_session(pool: &PgPool, source: &str, key: &CookieKey) -> anyhow::Result<StoredSession> {
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
        REFRESH_MARGIN.as_secs_f64(),
    )
    .fetch_optional(pool)
    .await
    .with_context(|| format!("could not read the session of source {source}"))?;
    let Some(row) = row else { return Ok(StoredSession::default()) };
    let cookies = row.sealed.filter(|_| row.good).and_then(|sealed| key.open(source, &sealed));
    Ok(StoredSession {
        fresh: row.fresh && cookies.is_some(),
        cookies,
        refreshing: row.refreshing,
        resting: row.resting,
        error: row.last_error,
        version: Some(row.updated_at),
    })
}

/// Acquires the refresh of a session for the duration `lasts`.
///
/// Returns false if another worker has the refresh, or if the row changed since `seen` was read. Without `seen`, a
/// changed row is no obstacle.
pub async fn acquire_refresh(
    pool: &PgPool,
    source: &str,
    who: &str,
    lasts: Duration,
    seen: Option<&StoredSession>,
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
    .with_context(|| format!("could not acquire the session refresh of source {source}"))?;
    Ok(taken.rows_affected() == 1)
}

/// Stores new cookies that are valid for the duration `lasts`, and ends the refresh.
///
/// Returns the expiry time, or `None` if the refresh no longer belongs to `who`.
pub async fn store_session(
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
    .with_context(|| format!("could not store the session of source {source}"))
}

/// Records a failed login, ends the refresh and starts the cooldown of the duration `rest`.
pub async fn record_failure(pool: &PgPool, source: &str, who: &str, error: &str, rest: Duration) -> anyhow::Result<()> {
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
    .with_context(|| format!("could not record the failed login of source {source}"))?;
    Ok(())
}

/// Expires a session that the server rejects, so that the next fetch logs in again.
pub async fn invalidate_session(pool: &PgPool, source: &str) -> anyhow::Result<()> {
    sqlx::query!(
        "-- session: doubt
        update fleet.source_sessions
        set expires_at = now(), updated_at = now()
        where source = $1 and expires_at > now()",
        source,
    )
    .execute(pool)
    .await
    .with_context(|| format!("could not expire the session of source {source}"))?;
    Ok(())
}
