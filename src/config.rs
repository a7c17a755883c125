//! Everything that comes from outside, read once: the environment, the clock.
//!
//! A variable `NAME` is looked for in three places: itself; the file that `NAME_FILE` names (Docker, Kubernetes); the
//! file `name` (lower case) in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`). The first found wins, one
//! trailing line end is cut, and an empty value counts as none, so that `NAME=` in an environment file switches it
//! off. Secrets are wrapped: `Debug` prints nothing of them, and errors name the variable and never its value.
//!
//! Every variable is checked when the program starts, and a wrong one is an error of the commands that use it
//! ([`Setting`]). `vinops doctor` reports all of them.

use anyhow::{Context, bail};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod setting;

use setting::{Environment, value};
pub use setting::{Setting, SettingError};

/// The environment, each variable checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_URL`: pooled work; may lead through a pooler in transaction mode.
    pub database_url: Setting<Option<SecretString>>,
    /// `DATABASE_DIRECT_URL`: LISTEN and migrations; by default the same.
    pub database_direct_url: Setting<Option<SecretString>>,
    /// `LISTING_DATABASE_URL`: the listing helper's database, without a pooler; by default the above.
    pub listing_database_url: Setting<Option<SecretString>>,
    /// `VINOPS_STORE`: where files are kept, as a URL; by default a local folder.
    pub store: Setting<String>,
    /// `VINOPS_LEASE`: how long a job belongs to a worker that has not been heard of; 30 s.
    pub lease: Setting<Duration>,
    /// `COPART_…`: the feed.
    pub copart: Setting<Copart>,
    /// `VINOPS_COOKIE_KEY`: encrypts session cookies at rest.
    pub cookie_key: Setting<Option<SecretString>>,
    /// `VINOPS_FETCH_DELAY`: how long after its window's start a fetch is enqueued; 10 s.
    pub fetch_delay: Setting<Option<Duration>>,
    /// `VINOPS_FETCH_JITTER`: the most that chance adds to that; 20 s.
    pub fetch_jitter: Setting<Option<Duration>>,
    /// `VINOPS_LISTEN`: where a role shows health and metrics, such as `127.0.0.1:9464`.
    pub listen: Setting<Option<String>>,
    /// `VINOPS_LOG_FORMAT`: whether log lines are for people or programs; by default as they are looked at.
    pub log_format: Setting<Option<LogFormat>>,
    /// `VINOPS_LOG`: what is logged, in the words of `tracing_subscriber`'s `EnvFilter`.
    pub log: Setting<Option<String>>,
    /// `VINOPS_MAPPINGS`: a folder of `<source>.json` files that say how the files of a source are read.
    pub mappings: Setting<Option<PathBuf>>,
}

/// For whom log lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `text`: people.
    Text,
    /// `json`: programs, one object a line.
    Json,
}

/// How the feed is asked for.
#[derive(Clone, Debug)]
pub struct Copart {
    /// `COPART_FEED_URL`: it grants access, so it is a secret; none, and nothing is fetched.
    pub feed_url: Option<SecretString>,
    /// `COPART_USER`.
    pub user: Option<String>,
    /// `COPART_PASSWORD`.
    pub password: Option<SecretString>,
    /// `COPART_LOGIN_URL`: where a login is posted; by default the auction's own.
    pub login_url: Option<String>,
    /// `COPART_USER_AGENT`.
    pub user_agent: Option<String>,
    /// `COPART_REFERER`.
    pub referer: Option<String>,
}

/// Every variable read here, for help texts and for the sample configuration's test.
pub const VARIABLES: &[&str] = &[
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

/// The store of a machine that is set up for vinops.
const SHARED_STORE: &str = "/var/data/vinops";
const LEASE: Duration = Duration::from_secs(30);
/// A fetch that begins later than this into its quarter-hour could not end in it.
const MOST_DELAY: Duration = Duration::from_secs(240);

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Config {
        Config::read(&environment)
    }

    fn read(environment: &Environment) -> Config {
        let text = |name: &str| value(name, environment);
        let secret = |name: &str| Ok::<_, anyhow::Error>(text(name)?.map(SecretString::from));
        Config {
            database_url: database_url("DATABASE_URL", environment).into(),
            database_direct_url: database_url("DATABASE_DIRECT_URL", environment).into(),
            listing_database_url: database_url("LISTING_DATABASE_URL", environment).into(),
            store: store(environment).into(),
            lease: lease(environment).into(),
            copart: Copart::read(environment).into(),
            cookie_key: secret("VINOPS_COOKIE_KEY").into(),
            fetch_delay: delay("VINOPS_FETCH_DELAY", environment).into(),
            fetch_jitter: delay("VINOPS_FETCH_JITTER", environment).into(),
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
    /// Returns an error where the variable that decides cannot be used.
    pub fn direct_url(&self) -> Result<Option<&SecretString>, SettingError> {
        match self.database_direct_url.get()? {
            Some(url) => Ok(Some(url)),
            None => Ok(self.database_url.get()?.as_ref()),
        }
    }
}

impl Copart {
    fn read(environment: &Environment) -> anyhow::Result<Copart> {
        let text = |name: &str| value(name, environment);
        let feed_url = text("COPART_FEED_URL")?.map(SecretString::from);
        if let Some(url) = &feed_url {
            // The parser's own error says what is wrong without saying the address.
            url::Url::parse(secrecy::ExposeSecret::expose_secret(url))
                .context("COPART_FEED_URL is not a URL")?;
        }
        let login_url = text("COPART_LOGIN_URL")?;
        if let Some(url) = &login_url {
            url::Url::parse(url).context("COPART_LOGIN_URL is not a URL")?;
        }
        Ok(Copart {
            feed_url,
            user: text("COPART_USER")?,
            password: text("COPART_PASSWORD")?.map(SecretString::from),
            login_url,
            user_agent: text("COPART_USER_AGENT")?,
            referer: text("COPART_REFERER")?,
        })
    }
}

fn database_url(name: &str, environment: &Environment) -> anyhow::Result<Option<SecretString>> {
    let url = value(name, environment)?;
    if let Some(url) = &url
        && !(url.starts_with("postgres://") || url.starts_with("postgresql://"))
    {
        bail!("{name} is not a PostgreSQL URL (postgres://user:password@host:5432/database)");
    }
    Ok(url.map(SecretString::from))
}

fn store(environment: &Environment) -> anyhow::Result<String> {
    let store = match value("VINOPS_STORE", environment)? {
        Some(store) => store,
        None => default_store(environment)?,
    };
    url::Url::parse(&store)
        .context("VINOPS_STORE is not a URL (file:///var/data/vinops, s3://bucket/folder)")?;
    Ok(store)
}

fn lease(environment: &Environment) -> anyhow::Result<Duration> {
    let Some(text) = value("VINOPS_LEASE", environment)? else { return Ok(LEASE) };
    let lease = humantime::parse_duration(&text).context("VINOPS_LEASE (such as 30s)")?;
    if lease < Duration::from_millis(100) {
        bail!("VINOPS_LEASE is under 100ms");
    }
    Ok(lease)
}

fn delay(name: &str, environment: &Environment) -> anyhow::Result<Option<Duration>> {
    let Some(text) = value(name, environment)? else { return Ok(None) };
    let delay = humantime::parse_duration(&text).with_context(|| format!("{name} (such as 10s)"))?;
    if delay > MOST_DELAY {
        bail!("{name} is over 4m: the window would be half over");
    }
    Ok(Some(delay))
}

fn log_format(environment: &Environment) -> anyhow::Result<Option<LogFormat>> {
    match value("VINOPS_LOG_FORMAT", environment)?.as_deref() {
        None => Ok(None),
        Some("text") => Ok(Some(LogFormat::Text)),
        Some("json") => Ok(Some(LogFormat::Json)),
        Some(_) => bail!("VINOPS_LOG_FORMAT is neither text nor json"),
    }
}

/// The machine's folder if it is there and ours to write, or can be made; else the user's own.
fn default_store(environment: &Environment) -> anyhow::Result<String> {
    let shared = Path::new(SHARED_STORE);
    // Looked at, not made: reading the configuration leaves no trace.
    let nearest = shared.ancestors().find(|folder| folder.exists()).unwrap_or(shared);
    let writable = nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK).is_ok();
    let folder = if writable {
        shared.to_owned()
    } else {
        data_folder(environment)
            .with_context(|| {
                format!("VINOPS_STORE is not set, {SHARED_STORE} is not writable, and there is no HOME")
            })?
            .join("store")
    };
    match url::Url::from_file_path(&folder) {
        Ok(url) => Ok(url.to_string()),
        Err(()) => bail!("{} is not an absolute path: set VINOPS_STORE", folder.display()),
    }
}

fn data_folder(environment: &Environment) -> Option<PathBuf> {
    let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let home = environment("XDG_DATA_HOME")
        .and_then(absolute)
        .or_else(|| Some(environment("HOME").and_then(absolute)?.join(".local/share")))?;
    Some(home.join("vinops"))
}

/// The user's own folder for vinops's data; none without a home.
pub fn user_data_folder() -> Option<PathBuf> {
    data_folder(&environment)
}

/// `VINOPS_PG_BINDIR`: the programs of the PostgreSQL to embed. Read apart from [`Config`], since tests embed too.
pub fn pg_bindir() -> Option<PathBuf> {
    environment("VINOPS_PG_BINDIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// `VINOPS_TEST_DATABASE_URL`: a running server for tests to use, as superuser, in place of one of their own.
pub fn test_database_url() -> Option<String> {
    environment("VINOPS_TEST_DATABASE_URL").filter(|url| !url.is_empty())
}

/// A number for tests, such as `VINOPS_TEST_STORIES` (how many random stories) and `VINOPS_TEST_SEED` (the first of them).
pub fn test_number(name: &str) -> Option<u64> {
    environment(name).and_then(|text| text.parse().ok())
}

/// The one door to the environment.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint names")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The one door to the clock of day. What a *file* means is decided by its window, never by this.
#[expect(clippy::disallowed_methods, reason = "this is the door that the lint names")]
pub fn now() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::collections::BTreeMap;

    fn read(variables: &[(&str, &str)]) -> Config {
        let variables: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&move |name| variables.get(name).cloned())
    }

    #[test]
    fn an_empty_environment_is_enough() {
        let config = read(&[("HOME", "/home/somebody")]);
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
        let config = read(&[("COPART_PASSWORD_FILE", path.to_str().unwrap()), ("HOME", "/h")]);
        assert_eq!(config.copart.get().unwrap().password.as_ref().unwrap().expose_secret(), "open sesame");
    }

    #[test]
    fn a_secret_comes_from_the_credentials_directory() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("database_url"), "postgres://h/d\n").unwrap();
        let config = read(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()), ("HOME", "/h")]);
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
            let errors = read(&[(name, value), ("HOME", "/h")]).errors();
            let [error] = &errors[..] else { panic!("one variable is wrong: {errors:?}") };
            let error = error.to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_wrong_variable_is_an_error_of_its_own_setting_only() {
        let config =
            read(&[("VINOPS_STORE", "somewhere"), ("DATABASE_URL", "postgres://h/d"), ("HOME", "/h")]);
        assert!(config.store.get().unwrap_err().to_string().starts_with("VINOPS_STORE is not a URL"));
        assert!(config.direct_url().unwrap().is_some());
        assert!(config.lease.get().is_ok() && config.copart.get().is_ok());
    }

    #[test]
    fn debug_prints_no_secret() {
        let config = read(&[("DATABASE_URL", "postgres://u:hunter2@h/d"), ("HOME", "/h")]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
