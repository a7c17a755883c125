//! The floor of a first window: the same rows, ready as JSONB, into a bare heap, by PostgreSQL's own client.
//!
//! No parsing of CSV, no index, no key, no second table, one statement: less than this no lossless loader writes. Where
//! there is no `psql`, our own connection sends the same file by the same COPY, and the report says so.

use super::place::{Ground, execute};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;
use tokio::io::AsyncReadExt;

/// What the floor is measured with.
pub struct Floor {
    /// One row of JSON to a line, for COPY's text format.
    pub file: PathBuf,
    /// PostgreSQL's client, where there is one.
    pub psql: Option<PathBuf>,
}

impl Floor {
    /// How it is measured, for people.
    pub fn via(&self) -> &'static str {
        match self.psql {
            Some(_) => r"psql \copy",
            None => "COPY through our own connection, for want of psql",
        }
    }

    /// Seconds of one load into a new table of `ground`.
    pub async fn measure(&self, ground: &Ground) -> anyhow::Result<f64> {
        let mut session = ground.session().await?;
        execute(&mut session, "drop table if exists floor; create table floor (payload jsonb)".to_owned())
            .await?;
        ground.checkpoint().await?;
        match &self.psql {
            Some(psql) => self.by_psql(psql, ground).await,
            None => {
                let mut file = tokio::fs::File::open(&self.file).await.context("open the floor's rows")?;
                let mut buffer = vec![0; 1 << 18];
                let began = Instant::now();
                let mut copy = session.copy_in_raw("copy floor (payload) from stdin").await?;
                loop {
                    match file.read(&mut buffer).await? {
                        0 => break,
                        read => copy.send(&buffer[..read]).await?,
                    };
                }
                copy.finish().await.context("copy the floor's rows")?;
                Ok(began.elapsed().as_secs_f64())
            }
        }
    }

    /// psql's own clock, so that its start does not count.
    async fn by_psql(&self, psql: &std::path::Path, ground: &Ground) -> anyhow::Result<f64> {
        let mut url = url::Url::parse(&ground.url)?;
        let password = url.password().map(decoded);
        // In the environment it is not for everybody to read, as arguments are.
        if url.set_password(None).is_err() {
            bail!("the server's URL cannot be given to psql");
        }
        let file =
            self.file.to_str().context("the temporary folder's name is not UTF-8")?.replace('\'', "''");
        let mut command = tokio::process::Command::new(psql);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url.as_str()]);
        command.args(["-c", r"\timing on", "-c", &format!(r"\copy floor (payload) from '{file}'")]);
        command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        let said = command.output().await.with_context(|| format!("run {}", psql.display()))?;
        if !said.status.success() {
            bail!("psql: {}: {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
        }
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let milliseconds = timing(&text).with_context(|| format!("psql told no time: {text:?}"))?;
        Ok(milliseconds / 1000.0)
    }
}

/// The milliseconds of psql's `Time: 2840.123 ms (00:02.840)`.
fn timing(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
}

/// A part of a URL without its percent signs.
fn decoded(part: &str) -> String {
    let pair = format!("p={}", part.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_psql_is_read_below_and_above_a_second() {
        assert_eq!(timing("Time: 2840.123 ms (00:02.840)\n"), Some(2840.123));
        assert_eq!(timing("Timing is on.\nTime: 12.500 ms\n"), Some(12.5));
        assert_eq!(timing("COPY 3\n"), None);
    }

    #[test]
    fn a_password_comes_out_of_a_url_as_it_was() {
        assert_eq!(decoded("a%40b+c&d%25"), "a@b+c&d%");
    }
}
