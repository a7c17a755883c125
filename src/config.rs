//! The configuration from the environment, and the single entry points to the environment and the clock.
//!
//! A variable `NAME` is read from the first of three places that has it: the variable, the file named by `NAME_FILE`
//! (Docker, Kubernetes), the file `name` (lower case) in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`). One
//! trailing line end is removed. An empty value counts as unset, so `NAME=` in an environment file disables a variable.
//! Secrets are wrapped: `Debug` prints nothing of them, and errors name the variable and never the value.
//!
//! Every variable is checked when the program starts. A wrong variable is an error of the commands that use it
//! ([`Setting`]). `vinops doctor` reports all of them.

use anyhow::{Context, bail};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod setting;

pub use setting::{Setting, SettingError};
use setting::{VariableLookup, find_value};

/// The configuration, each variable checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: the database for pooled connections, possibly through a pooler in transaction mode.
    pub database_url: Setting<Option<SecretString>>,
    /// `DATABASE_DIRECT_URL`: the database without a pooler, for LISTEN and migrations. Default: `DATABASE_URL`.
    pub database_direct_url: Setting<Option<SecretString>>,
    /// `LISTING_DATABASE_URL`: the listing helper's database, without a pooler. Default: the two above.
    pub listing_database_url: Setting<Option<SecretString>>,
    /// `VINOPS_STORE`: URL of the store of files. Default: a local folder.
    pub store: Setting<String>,
    /// `VINOPS_LEASE`: the lease of a claimed job without renewal. Default: 30 s.
    pub lease: Setting<Duration>,
    /// `COPART_…`: address and login of the feed.
    pub copart: Setting<CopartConfig>,
    /// `VINOPS_COOKIE_KEY`: key that encrypts session cookies at rest.
    pub cookie_key: Setting<Option<SecretString>>,
    /// `VINOPS_FETCH_DELAY`: delay of a fetch after the start of its window. Default: 10 s.
    pub fetch_delay: Setting<Option<Duration>>,
    /// `VINOPS_FETCH_JITTER`: upper bound of the random delay added to the fetch delay. Default: 20 s.
    pub fetch_jitter: Setting<Option<Duration>>,
    /// `VINOPS_LISTEN`: address of health and metrics, such as `127.0.0.1:9464`.
    pub listen: Setting<Option<String>>,
    /// `VINOPS_LOG_FORMAT`: format of log lines. Default: text for terminals and commands, JSON for roles without a
    /// terminal.
    pub log_format: Setting<Option<LogFormat>>,
    /// `VINOPS_LOG`: log filter in the syntax of `tracing_subscriber`'s `EnvFilter`.
    pub log: Setting<Option<String>>,
    /// `VINOPS_MAPPINGS`: folder of `<source>.json` files, the mappings of the sources' columns.
    pub mappings: Setting<Option<PathBuf>>,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `text`: lines for people.
    Text,
    /// `json`: one JSON object per line.
    Json,
}

/// The address, login and request headers of the feed.
#[derive(Clone, Debug)]
pub struct CopartConfig {
    /// `COPART_FEED_URL`: URL of the feed, a secret, since it grants access. Without it, nothing is fetched.
    pub feed_url: Option<SecretString>,
    /// `COPART_USER`: user of the login.
    pub user: Option<String>,
    /// `COPART_PASSWORD`: password of the login.
    pub password: Option<SecretString>,
    /// `COPART_LOGIN_URL`: URL to which a login is posted. Default: the auction's own.
    pub login_url: Option<String>,
    /// `COPART_USER_AGENT`: header `User-Agent` of requests to the feed.
    pub user_agent: Option<String>,
    /// `COPART_REFERER`: header `Referer` of requests to the feed.
    pub referer: Option<String>,
}

/// Names of all variables of the configuration, for help texts and for the test of the sample configuration.
pub const VARIABLE_NAMES: &[&str] = &[
    "DATABASE_URL",
    "DATABASE_DIRECT_URL",
    "LISTING_DATABASE_URL",
    "VINOPS_PG_BINDIR",
    "VINOPS_STORE",
    "VINOPS_LEASE",
    "VINOPS_FETCH_DELAY",
    "VINOPS_FETCH_JITTER",
    "VINOPS_LISTEN",
    "VINOPS_LOG",
    "VINOPS_LOG_FORMAT",
    "VINOPS_MAPPINGS",
    "COPART_FEED_URL",
    "COPART_USER",
    "COPART_PASSWORD",
    "COPART_LOGIN_URL",
    "COPART_USER_AGENT",
    "COPART_REFERER",
    "VINOPS_COOKIE_KEY",
];

/// Store folder of a machine that is set up for vinops.
const SHARED_STORE_PATH: &str = "/var/data/vinops";
const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// Longest fetch delay. A later fetch could not finish within its quarter-hour.
const MAX_FETCH_DELAY: Duration = Duration::from_secs(240);

impl Config {
    /// Reads the environment of the process.
    pub fn from_env() -> Config {
        Config::from_variables(&read_variable)
    }

    fn from_variables(environment: &VariableLookup) -> Config {
        let text = |name: &str| find_value(name, environment);
        let secret = |name: &str| Ok::<_, anyhow::Error>(text(name)?.map(SecretString::from));
        Config {
            database_url: database_url("DATABASE_URL", environment).into(),
            database_direct_url: database_url("DATABASE_DIRECT_URL", environment).into(),
            listing_database_url: database_url("LISTING_DATABASE_URL", environment).into(),
            store: store_url(environment).into(),
            lease: lease_duration(environment).into(),
            copart: CopartConfig::from_variables(environment).into(),
            cookie_key: secret("VINOPS_COOKIE_KEY").into(),
            fetch_delay: fetch_delay("VINOPS_FETCH_DELAY", environment).into(),
            fetch_jitter: fetch_delay("VINOPS_FETCH_JITTER", environment).into(),
            listen: text("VINOPS_LISTEN").into(),
            log_format: log_format(environment).into(),
            log: text("VINOPS_LOG").into(),
            mappings: text("VINOPS_MAPPINGS").map(|folder| folder.map(PathBuf::from)).into(),
        }
    }

    /// Returns the errors of all variables, in the order of the fields.
    pub fn errors(&self) -> Vec<SettingError> {
        let errors = [
            self.database_url.error(),
            self.database_direct_url.error(),
            self.listing_database_url.error(),
            self.store.error(),
            self.lease.error(),
            self.copart.error(),
            self.cookie_key.error(),
            self.fetch_delay.error(),
            self.fetch_jitter.error(),
            self.listen.error(),
            self.log_format.error(),
            self.log.error(),
            self.mappings.error(),
        ];
        errors.into_iter().flatten().collect()
    }

    /// Returns the URL for migrations and checks of the auction's schema, `DATABASE_DIRECT_URL` or `DATABASE_URL`.
    ///
    /// # Errors
    ///
    /// Returns an error if the variable that decides has an invalid value.
    pub fn direct_url(&self) -> Result<Option<&SecretString>, SettingError> {
        match self.database_direct_url.get()? {
            Some(url) => Ok(Some(url)),
            None => Ok(self.database_url.get()?.as_ref()),
        }
    }
}

impl CopartConfig {
    fn from_variables(environment: &VariableLookup) -> anyhow::Result<CopartConfig> {
        let text = |name: &str| find_value(name, environment);
        let feed_url = text("COPART_FEED_URL")?.map(SecretString::from);
        if let Some(url) = &feed_url {
            // The error of the parser does not contain the address.
            url::Url::parse(secrecy::ExposeSecret::expose_secret(url)).context("COPART_FEED_URL is not a URL")?;
        }
        let login_url = text("COPART_LOGIN_URL")?;
        if let Some(url) = &login_url {
            url::Url::parse(url).context("COPART_LOGIN_URL is not a URL")?;
        }
        Ok(CopartConfig {
            feed_url,
            user: text("COPART_USER")?,
            password: text("COPART_PASSWORD")?.map(SecretString::from),
            login_url,
            user_agent: text("COPART_USER_AGENT")?,
            referer: text("COPART_REFERER")?,
        })
    }
}

fn database_url(name: &str, environment: &VariableLookup) -> anyhow::Result<Option<SecretString>> {
    let url = find_value(name, environment)?;
    if let Some(url) = &url
        && !(url.starts_with("postgres://") || url.starts_with("postgresql://"))
    {
        bail!("{name} is not a PostgreSQL URL such as postgres://user:password@host:5432/database");
    }
    Ok(url.map(SecretString::from))
}

fn store_url(environment: &VariableLookup) -> anyhow::Result<String> {
    let store = match find_value("VINOPS_STORE", environment)? {
        Some(store) => store,
        None => default_store(environment)?,
    };
    url::Url::parse(&store).context("VINOPS_STORE is not a URL (file:///var/data/vinops, s3://bucket/folder)")?;
    Ok(store)
}

fn lease_duration(environment: &VariableLookup) -> anyhow::Result<Duration> {
    let Some(text) = find_value("VINOPS_LEASE", environment)? else { return Ok(DEFAULT_LEASE) };
    let lease = humantime::parse_duration(&text).context("VINOPS_LEASE is not a duration such as 30s")?;
    if lease < Duration::from_millis(100) {
        bail!("VINOPS_LEASE is shorter than 100ms");
    }
    Ok(lease)
}

fn fetch_delay(name: &str, environment: &VariableLookup) -> anyhow::Result<Option<Duration>> {
    let Some(text) = find_value(name, environment)? else { return Ok(None) };
    let delay = humantime::parse_duration(&text).with_context(|| format!("{name} is not a duration such as 10s"))?;
    if delay > MAX_FETCH_DELAY {
        bail!("{name} is longer than 4m, and a later fetch could not finish within its quarter-hour");
    }
    Ok(Some(delay))
}

fn log_format(environment: &VariableLookup) -> anyhow::Result<Option<LogFormat>> {
    match find_value("VINOPS_LOG_FORMAT", environment)?.as_deref() {
        None => Ok(None),
        Some("text") => Ok(Some(LogFormat::Text)),
        Some("json") => Ok(Some(LogFormat::Json)),
        Some(_) => bail!("VINOPS_LOG_FORMAT has an unknown value; expected one of text, json"),
    }
}

/// Returns the URL of the machine's store folder if that is writable or can be created, else of the user's own folder.
fn default_store(environment: &VariableLookup) -> anyhow::Result<String> {
    let shared = Path::new(SHARED_STORE_PATH);
    // Only checked, not created: reading the configuration has no side effects.
    let nearest = shared.ancestors().find(|folder| folder.exists()).unwrap_or(shared);
    let writable = nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK).is_ok();
    let folder = if writable {
        shared.to_owned()
    } else {
        data_folder(environment)
            .with_context(|| {
                format!("VINOPS_STORE is not set, {SHARED_STORE_PATH} is not writable, and HOME is no absolute path")
            })?
            .join("store")
    };
    match url::Url::from_file_path(&folder) {
        Ok(url) => Ok(url.to_string()),
        Err(()) => {
            bail!("VINOPS_STORE is not set, and the folder {} is not an absolute path", folder.display())
        }
    }
}

fn data_folder(environment: &VariableLookup) -> Option<PathBuf> {
    let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let home = environment("XDG_DATA_HOME")
        .and_then(absolute)
        .or_else(|| Some(environment("HOME").and_then(absolute)?.join(".local/share")))?;
    Some(home.join("vinops"))
}

/// Returns the user's own folder for the data of vinops, or `None` without a home folder.
pub fn user_data_folder() -> Option<PathBuf> {
    data_folder(&read_variable)
}

/// Returns `VINOPS_PG_BINDIR`, the folder with the programs of the embedded PostgreSQL.
///
/// The variable is not part of [`Config`], since tests embed a server too.
pub fn pg_bindir() -> Option<PathBuf> {
    read_variable("VINOPS_PG_BINDIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Returns `VINOPS_TEST_DATABASE_URL`, a running server that tests use as superuser instead of an embedded one.
pub fn test_database_url() -> Option<String> {
    read_variable("VINOPS_TEST_DATABASE_URL").filter(|url| !url.is_empty())
}

/// Returns a number for tests, such as `VINOPS_TEST_STORIES` (number of random stories) or `VINOPS_TEST_SEED` (the
/// first story).
pub fn test_number(name: &str) -> Option<u64> {
    read_variable(name).and_then(|text| text.parse().ok())
}

/// Returns the value of an environment variable. All reads of the environment go through this function.
#[expect(clippy::disallowed_methods, reason = "this is the alternative that the lint names")]
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the present time. All reads of the wall clock go through this function.
///
/// The time of a *file* is decided by its window, never by this clock.
#[expect(clippy::disallowed_methods, reason = "this is the alternative that the lint names")]
pub fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::collections::BTreeMap;

    fn config_from(variables: &[(&str, &str)]) -> Config {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::from_variables(&move |name| variables.get(name).cloned())
    }

    #[test]
    fn an_empty_environment_is_enough() {
        let config = config_from(&[("HOME", "/home/somebody")]);
        assert_eq!(config.errors(), []);
        assert_eq!(config.lease.get(), Ok(&Duration::from_secs(30)));
        assert!(config.database_url.get().unwrap().is_none());
        assert!(config.store.get().unwrap().starts_with("file:///"));
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "open sesame\n").unwrap();
        let config = config_from(&[("COPART_PASSWORD_FILE", path.to_str().unwrap()), ("HOME", "/h")]);
        assert_eq!(config.copart.get().unwrap().password.as_ref().unwrap().expose_secret(), "open sesame");
    }

    #[test]
    fn a_secret_comes_from_the_credentials_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("database_url"), "postgres://h/d\n").unwrap();
        let config = config_from(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()), ("HOME", "/h")]);
        assert_eq!(config.database_url.get().unwrap().as_ref().unwrap().expose_secret(), "postgres://h/d");
    }

    #[test]
    fn an_error_names_the_variable_and_not_the_secret() {
        for (name, value) in [
            ("DATABASE_URL", "mysql://root:hunter2@h/d"),
            ("COPART_FEED_URL", "hunter2"),
            ("VINOPS_LEASE", "soon"),
            ("VINOPS_FETCH_DELAY", "soon"),
            ("VINOPS_FETCH_JITTER", "5m"),
            ("COPART_LOGIN_URL", "hunter2"),
            ("VINOPS_STORE", "somewhere"),
            ("COPART_PASSWORD_FILE", "/nonexistent/file"),
        ] {
            let errors = config_from(&[(name, value), ("HOME", "/h")]).errors();
            let [error] = &errors[..] else { panic!("one variable is wrong: {errors:?}") };
            let error = error.to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_wrong_variable_is_an_error_of_its_own_setting_only() {
        let config = config_from(&[("VINOPS_STORE", "somewhere"), ("DATABASE_URL", "postgres://h/d"), ("HOME", "/h")]);
        assert!(config.store.get().unwrap_err().to_string().starts_with("VINOPS_STORE is not a URL"));
        assert!(config.direct_url().unwrap().is_some());
        assert!(config.lease.get().is_ok() && config.copart.get().is_ok());
    }

    #[test]
    fn debug_prints_no_secret() {
        let config = config_from(&[("DATABASE_URL", "postgres://u:hunter2@h/d"), ("HOME", "/h")]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
