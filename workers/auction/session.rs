//! The cookie session: a login whose cookies are sent with the feed's request, for feeds that require more than the
//! key.
//!
//! `COPART_USER` and `COPART_PASSWORD` are posted as a form to the login page. The cookies of the response are the
//! session. They are encrypted under `VINOPS_COOKIE_KEY` before they leave this process, and stored in the database.
//! All workers use them with the same `User-Agent` and `Referer` as the feed. A session is refreshed 20 minutes before
//! it is seven hours old (real sessions have lasted 7.9 hours). One worker at a time logs in, and the others wait for
//! the result.
//!
//! The real feed has so far sent its file to every client with the key, so a rejected login does not prevent the fetch.
//! The error is logged, the fetch continues with what is available, and no login is attempted for an hour, since
//! repeated wrong passwords could lock the account. A session that the feed's server rejects is ended, and the next
//! slot's fetch logs in again.
//!
//! It is not known what else the real login requires (perhaps a token of the page), and no test here can verify it.

use super::download::{FeedClient, FeedOptions, SecretMask, build_client};
use crate::config::CopartConfig;
use crate::source::{cookie_cipher::CookieKey, session};
use anyhow::{Context, anyhow, bail, ensure};
use chrono::{DateTime, Utc};
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Response};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// The login URL if `COPART_LOGIN_URL` is not set.
const DEFAULT_LOGIN_URL: &str = "https://www.copart.com/processLogin";
/// The time for which a session is used after the login.
const MAX_SESSION_AGE: Duration = Duration::from_secs(7 * 3600);
/// Timeout for a login, and for the wait of other workers.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which waiting workers check the session.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time without automatic logins after a rejected login.
const LOGIN_COOLDOWN: Duration = Duration::from_secs(3600);

/// Client of the login page, and the only place that logs in. A run extension of the fetch job.
pub struct LoginClient {
    client: Client,
    url: Url,
    user: String,
    password: SecretString,
    key: CookieKey,
    mask: SecretMask,
}

impl fmt::Debug for LoginClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl LoginClient {
    /// Returns the login of the configuration, or `None` if no user is set. An error names the missing variable.
    pub fn from_config(copart: &CopartConfig, key: Option<&SecretString>) -> anyhow::Result<Option<LoginClient>> {
        let Some(user) = copart.user.clone() else { return Ok(None) };
        let password = copart
            .password
            .clone()
            .context("COPART_USER is set, but COPART_PASSWORD is not\nhint: set both or none")?;
        let key = key.context(
            "COPART_USER is set, but VINOPS_COOKIE_KEY, which encrypts the session, is not\nhint: generate one with `openssl rand -hex 32`",
        )?;
        let url: Url = copart
            .login_url
            .as_deref()
            .unwrap_or(DEFAULT_LOGIN_URL)
            .parse()
            .context("COPART_LOGIN_URL is not a URL")?;
        // The login URL is not secret, but the options are those of the feed: headers and timeouts.
        let options =
            FeedOptions::from_config(&CopartConfig { feed_url: Some(url.as_str().into()), ..copart.clone() })?;
        Ok(Some(LoginClient {
            client: build_client(&options, &url, 0)?,
            key: CookieKey::new(key)?,
            mask: SecretMask::new(&url, [user.as_str(), password.expose_secret()]),
            url,
            user,
            password,
        }))
    }

    /// Returns the feed client with a session, or unchanged if no session is available. The reason is logged.
    pub async fn with_session(
        &self,
        pool: &PgPool,
        source: &str,
        who: &str,
        feed: Arc<FeedClient>,
    ) -> anyhow::Result<Arc<FeedClient>> {
        match self.session_cookies(pool, source, who).await? {
            Some(cookies) => Ok(Arc::new(feed.with_session(&cookies)?)),
            None => Ok(feed),
        }
    }

    /// Returns the source's cookies, and refreshes them if they are about to expire.
    async fn session_cookies(&self, pool: &PgPool, source: &str, who: &str) -> anyhow::Result<Option<SecretString>> {
        let deadline = tokio::time::Instant::now() + LOGIN_TIMEOUT;
        loop {
            let kept = session::load_session(pool, source, &self.key).await?;
            if kept.fresh || (kept.refreshing && kept.cookies.is_some()) {
                return Ok(kept.cookies);
            }
            if kept.resting {
                let error = kept.error.unwrap_or_default();
                tracing::warn!(source, error, "login skipped, the last one was rejected");
                return Ok(kept.cookies);
            }
            if session::acquire_refresh(pool, source, who, LOGIN_TIMEOUT * 2, Some(&kept)).await? {
                return match self.refresh_session(pool, source, who).await {
                    Ok((cookies, _)) => Ok(Some(cookies)),
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::error!(source, error, "login failed, continuing without a new session");
                        Ok(kept.cookies)
                    }
                };
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(source, "login of another worker timed out, continuing without a session");
                return Ok(None);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Logs in for an operator, even if there is a valid session. Returns the end of the new session.
    pub async fn log_in_manually(&self, pool: &PgPool, source: &str, who: &str) -> anyhow::Result<DateTime<Utc>> {
        ensure!(
            session::acquire_refresh(pool, source, who, LOGIN_TIMEOUT * 2, None).await?,
            "another login to {source} is in progress\nhint: check `vinops source status`"
        );
        Ok(self.refresh_session(pool, source, who).await?.1)
    }

    /// Logs in and stores the cookies. The caller must have acquired the refresh.
    async fn refresh_session(
        &self,
        pool: &PgPool,
        source: &str,
        who: &str,
    ) -> anyhow::Result<(SecretString, DateTime<Utc>)> {
        let cookies = match timeout(LOGIN_TIMEOUT, self.post_login()).await {
            Ok(Ok(cookies)) => cookies,
            Ok(Err(error)) => {
                session::record_failure(pool, source, who, &format!("{error:#}"), LOGIN_COOLDOWN).await?;
                return Err(error.context(format!("could not log in to {source}")));
            }
            Err(_) => {
                session::record_failure(pool, source, who, "no response from the login page", LOGIN_COOLDOWN).await?;
                bail!("could not log in to {source}: no response within {LOGIN_TIMEOUT:?}");
            }
        };
        let sealed = self.key.seal(source, cookies.expose_secret())?;
        let ends = session::store_session(pool, source, who, &sealed, MAX_SESSION_AGE)
            .await?
            .with_context(|| format!("the login to {source} took too long, and another one has begun"))?;
        metrics::counter!("copart_session_refresh_total").increment(1);
        tracing::info!(source, until = %ends, "session refreshed");
        Ok((cookies, ends))
    }

    async fn post_login(&self) -> anyhow::Result<SecretString> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("username", &self.user)
            .append_pair("password", self.password.expose_secret())
            .finish();
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let mut response =
            request.send().await.map_err(|e| anyhow!("connection failed: {}", self.mask.redact_error(e)))?;
        let status = response.status();
        if !(status.is_success() || status.is_redirection()) {
            bail!("login rejected: status {status}, body \"{}\"", self.mask.read_snippet(&mut response).await);
        }
        if redirects_to_login(&response) {
            bail!(
                "login rejected: status {status} redirects to the login page\nhint: check COPART_USER and COPART_PASSWORD"
            );
        }
        let cookies = cookie_header(response.headers());
        if cookies.is_empty() {
            let body = self.mask.read_snippet(&mut response).await;
            bail!("login rejected: status {status} sets no cookie, body \"{body}\"");
        }
        Ok(SecretString::from(cookies))
    }
}

fn redirects_to_login(response: &Response) -> bool {
    let location = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
    response.status().is_redirection() && location.is_some_and(|it| it.to_lowercase().contains("login"))
}

/// Returns the cookies of a response as a request header: the last value of each name, without deleted cookies.
fn cookie_header(headers: &HeaderMap) -> String {
    let mut jar: Vec<(&str, &str)> = Vec::new();
    for set in headers.get_all(header::SET_COOKIE).iter().filter_map(|it| it.to_str().ok()) {
        let mut parts = set.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
        jar.retain(|(known, _)| *known != name);
        if !name.is_empty() && !value.is_empty() && !parts.any(|it| it.eq_ignore_ascii_case("max-age=0")) {
            jar.push((name, value));
        }
    }
    jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
