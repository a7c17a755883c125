//! `vinops doctor`: checks the installation and prints a fix for each problem.
//!
//! The checks run on this host with this environment, so run the doctor where a worker runs, with the settings of a
//! worker. The doctor changes nothing, except for a file in the store that it deletes again. Each finding that is not
//! PASS contains a command that fixes it. WARN means that the installation works, but should be changed.

use super::error_text::{error_line, text_line};
use super::mappings;
use super::output::{self, JsonArgs};
use super::session::{CommandSession, ConnectArgs};
use super::{CommandError, JobRegistry};
use crate::auction::zone::{TZ_DATA_MAX_AGE, TZ_DATA_RELEASED, TZ_DATA_VERSION};
use crate::config::{self, Config};
use crate::store::Store;
use crate::telemetry::escape_line;
use anyhow::anyhow;
use chrono::{DateTime, Utc};
use serde::Serialize;

mod database;
mod fleet;
mod rows;

/// The free bytes below which the store gives a warning: about a week of windows.
const LOW_SPACE_BYTES: u64 = 10_000_000_000;
/// The free bytes below which the store fails the check.
const MIN_SPACE_BYTES: u64 = 1_000_000_000;

/// Arguments of `vinops doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run the doctor where a worker runs, with the settings of a worker. It checks the database with its clock and its \
settings, the rights of the login, the store, the feed and the sources. Exits with 0 unless a check is FAIL.

  vinops doctor
  vinops doctor --json")]
pub struct DoctorArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// The level of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum FindingLevel {
    Pass,
    Warn,
    Fail,
}

/// The result of a check.
#[derive(Debug, Serialize)]
struct DoctorFinding {
    level: FindingLevel,
    /// The subject of the check.
    about: &'static str,
    /// The result as text.
    said: String,
    /// A command that fixes the problem. Null if the level is PASS.
    remedy: Option<String>,
}

fn pass(about: &'static str, said: impl Into<String>) -> DoctorFinding {
    DoctorFinding { level: FindingLevel::Pass, about, said: said.into(), remedy: None }
}

fn warn(about: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> DoctorFinding {
    DoctorFinding { level: FindingLevel::Warn, about, said: said.into(), remedy: Some(remedy.into()) }
}

fn fail(about: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> DoctorFinding {
    DoctorFinding { level: FindingLevel::Fail, about, said: said.into(), remedy: Some(remedy.into()) }
}

/// Runs all checks and prints the findings.
///
/// # Errors
/// Returns an error if a check is FAIL, with exit code 3 if the database is unavailable.
pub async fn run(args: DoctorArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let mut findings = Vec::new();
    let mut reached = true;
    match CommandSession::connect(config.clone(), &args.connect).await {
        Ok(session) => {
            let (sound, may_read) = database::check_database(&session, &mut findings).await;
            if may_read {
                findings.push(rows::compare_sample(fleet, &session.db.pool).await);
            }
            if sound {
                fleet::check_fleet(&session.db.pool, fleet.jobs, &mut findings).await;
            }
            session.close().await?;
        }
        Err(failure) => {
            reached = false;
            let remedy = match config.database_url.get() {
                Ok(Some(_)) if failure.is_pooler_error() => {
                    "psql -p 6432 pgbouncer -c 'set max_prepared_statements = 200'"
                }
                Ok(Some(_)) => "psql \"$DATABASE_URL\" -c 'select 1'",
                _ => "export DATABASE_URL=postgres://user:password@host:5432/vinops",
            };
            findings.push(fail("database", failure.message(), remedy));
        }
    }
    findings.extend(check_environment(&config));
    findings.push(check_time_zones(config::now()));
    findings.extend(config.store.get().ok().map(|url| check_store(url)));
    findings.extend(missing_config(fleet, &config));

    let failed = findings.iter().filter(|finding| finding.level == FindingLevel::Fail).count();
    if args.json.json {
        #[derive(Serialize)]
        struct DoctorReport<'a> {
            ok: bool,
            findings: &'a [DoctorFinding],
        }
        output::print_json(&DoctorReport { ok: failed == 0, findings: &findings })?;
    } else {
        findings.iter().for_each(print_finding);
    }
    match failed {
        0 => Ok(()),
        _ if !reached => {
            Err(CommandError::unavailable(anyhow!("the database is unavailable, so most checks were skipped")))
        }
        1 => Err(anyhow!("1 check failed").into()),
        n => Err(anyhow!("{n} checks failed").into()),
    }
}

/// Prints a finding as text.
fn print_finding(finding: &DoctorFinding) {
    let word = match finding.level {
        FindingLevel::Pass => "PASS",
        FindingLevel::Warn => "WARN",
        FindingLevel::Fail => "FAIL",
    };
    // A value with a line feed could look like a finding, so line feeds are escaped.
    println!("{word}  {:<12}  {}", finding.about, escape_line(&finding.said));
    if let Some(remedy) = &finding.remedy {
        println!("{:20}$ {remedy}", "");
    }
}

/// Reports every invalid variable. Commands that use one of them fail with the same text.
fn check_environment(config: &Config) -> Vec<DoctorFinding> {
    const SUBJECT: &str = "environment";
    let mut wrong: Vec<String> = config.errors().iter().map(text_line).collect();
    if let Ok(Some(folder)) = config.mappings.get() {
        wrong.extend(mappings::check_mappings(folder).err().map(|error| error_line(&error)));
    }
    if wrong.is_empty() {
        return vec![pass(SUBJECT, "every variable has a valid value")];
    }
    let remedy = "env | cut -d= -f1 | grep -E 'VINOPS|COPART|DATABASE|CREDENTIALS'";
    wrong.into_iter().map(|said| fail(SUBJECT, said, remedy)).collect()
}

/// Checks the age of the time zone data, which is used to compute the times of sales.
fn check_time_zones(now: DateTime<Utc>) -> DoctorFinding {
    const SUBJECT: &str = "time zones";
    let Some(released) = TZ_DATA_RELEASED else { return pass(SUBJECT, format!("tz data {TZ_DATA_VERSION}")) };
    let said = format!("tz data {TZ_DATA_VERSION}, released {released}");
    if now.date_naive() - released <= TZ_DATA_MAX_AGE {
        return pass(SUBJECT, said);
    }
    warn(
        SUBJECT,
        said + ", is over a year old: times of a zone whose rules have changed since are an hour off",
        "cargo update -p chrono-tz",
    )
}

/// Checks that the store is writable and has free space.
fn check_store(url: &str) -> DoctorFinding {
    const SUBJECT: &str = "store";
    if let Err(error) = Store::open(url).and_then(|store| store.writer().map(drop)) {
        let remedy = match folder_path(url) {
            Some(folder) => format!("sudo install -d -o \"$(id -un)\" {folder}"),
            None => "export VINOPS_STORE=file:///var/data/vinops".to_owned(),
        };
        return fail(SUBJECT, error_line(&error), remedy);
    }
    let Some(folder) = folder_path(url) else { return pass(SUBJECT, format!("{url} is writable")) };
    let Ok(there) = nix::sys::statvfs::statvfs(folder.as_str()) else {
        return pass(SUBJECT, format!("{folder} is writable"));
    };
    let free = there.blocks_available() * there.fragment_size();
    let said = format!("{folder} is writable, {:.1} GB are free", free as f64 / 1e9);
    let remedy = format!("df -h {folder}");
    match free {
        free if free < MIN_SPACE_BYTES => fail(SUBJECT, said + ", too little for one day", remedy),
        free if free < LOW_SPACE_BYTES => warn(SUBJECT, said + ", a day needs about 1.5 GB", remedy),
        _ => pass(SUBJECT, said),
    }
}

/// Returns the path of a store in a local folder.
fn folder_path(url: &str) -> Option<String> {
    let path = url::Url::parse(url).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()?;
    Some(path.display().to_string())
}

/// Checks the settings that job kinds require: the feed's address and the login.
fn missing_config(fleet: JobRegistry, config: &Config) -> Vec<DoctorFinding> {
    let (Ok(login), Ok(cookie_key)) = (config.copart.get(), config.cookie_key.get()) else {
        return Vec::new();
    };
    let mut findings: Vec<DoctorFinding> = fleet
        .jobs
        .iter()
        .filter_map(|entry| Some((entry, (fleet.missing_prerequisites)(config, entry)?)))
        .map(|(entry, why)| {
            warn(
                "feed",
                format!("a worker with these settings does not run {}: {}", entry.kind, text_line(why)),
                "export COPART_FEED_URL_FILE=/etc/vinops/credentials/copart_feed_url",
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(pass("feed", "COPART_FEED_URL is set"));
    }
    match (&login.user, &login.password, cookie_key) {
        (None, None, _) => {}
        (Some(_), Some(_), Some(_)) => {
            findings.push(pass("login", "COPART_USER, COPART_PASSWORD and VINOPS_COOKIE_KEY are set"))
        }
        (Some(_), Some(_), None) => findings.push(fail(
            "login",
            "VINOPS_COOKIE_KEY is not set: it encrypts the session of COPART_USER",
            "openssl rand -hex 32 > /etc/vinops/credentials/vinops_cookie_key",
        )),
        _ => findings.push(fail(
            "login",
            "only one of COPART_USER and COPART_PASSWORD is set",
            "export COPART_PASSWORD_FILE=/etc/vinops/credentials/copart_password",
        )),
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tz_data_of_over_a_year_is_a_warning_with_its_version_and_its_day() {
        let at = |text: &str| check_time_zones(text.parse().unwrap());
        assert_eq!(at("2026-03-22T23:59:59Z").level, FindingLevel::Pass);
        let old = at("2026-03-23T00:00:00Z");
        assert_eq!(old.level, FindingLevel::Warn);
        assert!(old.said.starts_with("tz data 2025b, released 2025-03-22, is over a year old"), "{}", old.said);
    }
}
