//! Baseline of a first window: the same rows as ready JSONB, loaded into a table without indexes by PostgreSQL's
//! client.
//!
//! The baseline parses no CSV and has no index, no key, no second table and one statement. A loader that stores every
//! row cannot write less. If `psql` is not installed, our own connection sends the same file by the same COPY, and the
//! report contains this fact.

use super::server::{BenchDatabase, execute_statement};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;
use tokio::io::AsyncReadExt;

/// Input and client of the baseline.
pub struct CopyBaseline {
    /// File with one JSON row per line, in COPY's text format.
    pub file: PathBuf,
    /// Path of `psql`, if it is installed.
    pub psql: Option<PathBuf>,
}

impl CopyBaseline {
    /// Returns the name of the client, for reports.
    pub fn method_name(&self) -> &'static str {
        match self.psql {
            Some(_) => r"psql \copy",
            None => "COPY through our own connection (psql is not installed)",
        }
    }

    /// Loads the file into a new table of a database. Returns the duration of the load in seconds.
    pub async fn measure_seconds(&self, database: &BenchDatabase) -> anyhow::Result<f64> {
        let mut session = database.open_session().await?;
        execute_statement(&mut session, "drop table if exists floor; create table floor (payload jsonb)".to_owned())
            .await?;
        database.checkpoint().await?;
        match &self.psql {
            Some(psql) => self.run_psql(psql, database).await,
            None => {
                let mut file = tokio::fs::File::open(&self.file).await.context("could not open the baseline's rows")?;
                let mut buffer = vec![0; 1 << 18];
                let began = Instant::now();
                let mut copy = session.copy_in_raw("copy floor (payload) from stdin").await?;
                loop {
                    match file.read(&mut buffer).await? {
                        0 => break,
                        read => copy.send(&buffer[..read]).await?,
                    };
                }
                copy.finish().await.context("could not copy the baseline's rows")?;
                Ok(began.elapsed().as_secs_f64())
            }
        }
    }

    /// Loads the file by `psql`. Returns the seconds of psql's own timer, which exclude its start.
    async fn run_psql(&self, psql: &std::path::Path, database: &BenchDatabase) -> anyhow::Result<f64> {
        let mut url = url::Url::parse(&database.url)?;
        let password = url.password().map(percent_decode);
        // Other users can read arguments but not the environment.
        if url.set_password(None).is_err() {
            bail!("server URL has no host, which psql needs");
        }
        let file = self.file.to_str().context("the path of the temporary folder is not UTF-8")?.replace('\'', "''");
        let mut command = tokio::process::Command::new(psql);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url.as_str()]);
        command.args(["-c", r"\timing on", "-c", &format!(r"\copy floor (payload) from '{file}'")]);
        command.env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        let said = command.output().await.with_context(|| format!("could not run {}", psql.display()))?;
        if !said.status.success() {
            bail!("psql failed ({}): {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
        }
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let milliseconds = parse_timing(&text).with_context(|| format!("psql printed no time: {text:?}"))?;
        Ok(milliseconds / 1000.0)
    }
}

/// Returns the milliseconds in psql's output, such as `Time: 2840.123 ms (00:02.840)`.
fn parse_timing(said: &str) -> Option<f64> {
    said.lines().find_map(|line| line.strip_prefix("Time: ")?.split(' ').next()?.parse().ok())
}

/// Decodes the percent-encoding of a part of a URL.
fn percent_decode(part: &str) -> String {
    let pair = format!("p={}", part.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_psql_is_read_below_and_above_a_second() {
        assert_eq!(parse_timing("Time: 2840.123 ms (00:02.840)\n"), Some(2840.123));
        assert_eq!(parse_timing("Timing is on.\nTime: 12.500 ms\n"), Some(12.5));
        assert_eq!(parse_timing("COPY 3\n"), None);
    }

    #[test]
    fn a_password_comes_out_of_a_url_as_it_was() {
        assert_eq!(percent_decode("a%40b+c&d%25"), "a@b+c&d%");
    }
}
