//! The cookie session: a login whose cookies go with the feed's request, for feeds that want more than the key.
//!
//! `COPART_USER` and `COPART_PASSWORD` are posted as a form to the login page. Whatever cookies the answer sets are the
//! session: sealed under `VINOPS_COOKIE_KEY` before they leave this process, kept in the database, used by the whole
//! fleet with the same `User-Agent` and `Referer` as the feed, and refreshed 20 minutes before seven hours are over
//! (real ones have lasted 7.9). One at a time logs in; the others wait for what it brings.
//!
//! The real feed has so far given its file to anybody with the key, so a login that is refused does not keep the fetch
//! from trying: it says so, goes on with what there is, and rests for an hour, lest a wrong password lock the account.
//! A session that the feed's server refuses is ended, and the next slot's fetch logs in anew.
//!
//! What the real login wants besides the two is not known (a token of the page, perhaps), and no test here can tell.

use super::download::{Feed, FeedOptions, Mask, client};
use crate::config::Copart;
use crate::source::{seal::CookieKey, session};
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

/// Where a login is posted unless `COPART_LOGIN_URL` says otherwise.
const LOGIN: &str = "https://www.copart.com/processLogin";
/// How long a session is used.
const LASTS: Duration = Duration::from_secs(7 * 3600);
/// How long a login may take, and how long others leave it to whoever has begun one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often those who wait look.
const LOOK: Duration = Duration::from_millis(100);
/// How long nobody logs in by himself after a login was refused.
const REST: Duration = Duration::from_secs(3600);

/// The one door to the login; a tool of the worker.
pub struct Login {
    client: Client,
    url: Url,
    user: String,
    password: SecretString,
    key: CookieKey,
    mask: Mask,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Login {
    /// The login that the environment gives; none without a user. Errors name the variable that is missing.
    pub fn from_config(copart: &Copart, key: Option<&SecretString>) -> anyhow::Result<Option<Login>> {
        let Some(user) = copart.user.clone() else { return Ok(None) };
        let password = copart
            .password
            .clone()
            .context("COPART_USER is set and COPART_PASSWORD is not: set both, or none")?;
        let key = key.context(
            "COPART_USER is set and VINOPS_COOKIE_KEY is not: it encrypts the session; make one with `openssl rand -hex 32`",
        )?;
        let url: Url = copart.login_url.as_deref().unwrap_or(LOGIN).parse().context("COPART_LOGIN_URL")?;
        // its address is nobody's secret, but the options are the feed's: who asks, and how patiently
        let options =
            FeedOptions::from_config(&Copart { feed_url: Some(url.as_str().into()), ..copart.clone() })?;
        Ok(Some(Login {
            client: client(&options, &url, 0)?,
            key: CookieKey::new(key)?,
            mask: Mask::new(&url, [user.as_str(), password.expose_secret()]),
            url,
            user,
            password,
        }))
    }

    /// The feed with a session, or as it is when there is none to be had; the reason is logged.
    pub async fn dress(
        &self,
        pool: &PgPool,
        source: &str,
        who: &str,
        feed: Arc<Feed>,
    ) -> anyhow::Result<Arc<Feed>> {
        match self.cookies(pool, source, who).await? {
            Some(cookies) => Ok(Arc::new(feed.with_session(&cookies)?)),
            None => Ok(feed),
        }
    }

    /// The source's cookies, refreshed if they are near their end.
    async fn cookies(&self, pool: &PgPool, source: &str, who: &str) -> anyhow::Result<Option<SecretString>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let kept = session::load(pool, source, &self.key).await?;
            if kept.fresh || (kept.refreshing && kept.cookies.is_some()) {
                return Ok(kept.cookies);
            }
            if kept.resting {
                let why = kept.error.unwrap_or_default();
                tracing::warn!(source, "no login for now, the last was refused: {why}");
                return Ok(kept.cookies);
            }
            if session::take(pool, source, who, PATIENCE * 2, Some(&kept)).await? {
                return match self.refresh(pool, source, who).await {
                    Ok((cookies, _)) => Ok(Some(cookies)),
                    Err(error) => {
                        tracing::error!(source, "{error:#}; the feed is asked without a new session");
                        Ok(kept.cookies)
                    }
                };
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(
                    source,
                    "somebody else's login takes too long; the feed is asked without a session"
                );
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Logs in by hand, whatever there is; tells when the new session ends.
    pub async fn by_hand(&self, pool: &PgPool, source: &str, who: &str) -> anyhow::Result<DateTime<Utc>> {
        ensure!(
            session::take(pool, source, who, PATIENCE * 2, None).await?,
            "somebody else is logging in to {source} at this moment: look again with `vinops source status`"
        );
        Ok(self.refresh(pool, source, who).await?.1)
    }

    /// Logs in and keeps the cookies; whoever calls has taken the refresh.
    async fn refresh(
        &self,
        pool: &PgPool,
        source: &str,
        who: &str,
    ) -> anyhow::Result<(SecretString, DateTime<Utc>)> {
        let cookies = match timeout(PATIENCE, self.post()).await {
            Ok(Ok(cookies)) => cookies,
            Ok(Err(error)) => {
                session::refused(pool, source, who, &format!("{error:#}"), REST).await?;
                return Err(error.context(format!("log in to {source}")));
            }
            Err(_) => {
                session::refused(pool, source, who, "the login did not answer", REST).await?;
                bail!("log in to {source}: no answer within {PATIENCE:?}");
            }
        };
        let sealed = self.key.seal(source, cookies.expose_secret())?;
        let ends = session::keep(pool, source, who, &sealed, LASTS).await?.with_context(|| {
            format!("the login to {source} took so long that somebody else began another")
        })?;
        metrics::counter!("copart_session_refresh_total").increment(1);
        tracing::info!(source, until = %ends, "session refreshed");
        Ok((cookies, ends))
    }

    async fn post(&self) -> anyhow::Result<SecretString> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("username", &self.user)
            .append_pair("password", self.password.expose_secret())
            .finish();
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let mut response = request.send().await.map_err(|e| anyhow!("connection: {}", self.mask.tell(e)))?;
        let status = response.status();
        if !(status.is_success() || status.is_redirection()) {
            bail!(
                "the login is refused: status {status}, body \"{}\"",
                self.mask.snippet(&mut response).await
            );
        }
        if leads_back(&response) {
            bail!(
                "the login is refused: status {status} leads back to the login page; are user and password right?"
            );
        }
        let cookies = cookies(response.headers());
        if cookies.is_empty() {
            let body = self.mask.snippet(&mut response).await;
            bail!("the login is refused: status {status} sets no cookie, body \"{body}\"");
        }
        Ok(SecretString::from(cookies))
    }
}

fn leads_back(response: &Response) -> bool {
    let location = response.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
    response.status().is_redirection() && location.is_some_and(|it| it.to_lowercase().contains("login"))
}

/// What the answer sets, as the next request says it: the last value of each name, without those that it takes back.
fn cookies(headers: &HeaderMap) -> String {
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
