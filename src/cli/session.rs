//! The database session of a command, and the error that a failed command ends with.
//!
//! A session checks the version of the schema before it is used. An error carries its exit code.

use super::error_text::ErrorText;
use crate::config::{Config, SettingError};
use crate::db::Database;
use crate::db::encoding::EncodingError;
use crate::db::pooler::{LOST_STATEMENT_MESSAGE, is_lost_statement};
use crate::embedded::{EmbeddedOptions, EmbeddedPostgres};
use crate::store::Store;
use secrecy::ExposeSecret;
use sqlx::Connection;
use std::process::ExitCode;
use std::time::Duration;

/// The longest wait for connections to close in order.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The name of the database inside a private cluster.
pub const DATABASE_NAME: &str = "vinops";

/// An error and the exit code of the command that ends with it.
#[derive(Debug)]
pub struct CommandError {
    code: u8,
    error: anyhow::Error,
}

impl CommandError {
    /// Returns a usage error, exit code 2.
    pub fn usage(error: impl Into<anyhow::Error>) -> CommandError {
        CommandError { code: 2, error: error.into() }
    }

    /// Returns an error for a dependency that is unavailable, exit code 3.
    pub fn unavailable(error: impl Into<anyhow::Error>) -> CommandError {
        CommandError { code: 3, error: error.into() }
    }

    /// Returns an error for a failed migration. The exit code is 3 if the database cannot be used at all, and 1
    /// otherwise.
    pub fn from_schema(error: anyhow::Error) -> CommandError {
        if error.is::<EncodingError>() { CommandError::unavailable(error) } else { CommandError::from(error) }
    }

    /// Returns the error with its causes on one line.
    pub fn message(&self) -> String {
        self.error_text().to_line()
    }

    /// Returns the message, the details and the hints. An error of a pooler that loses statements begins with that
    /// fact.
    fn error_text(&self) -> ErrorText {
        let causes: Vec<String> = self.error.chain().map(ToString::to_string).collect();
        let lost = self.is_pooler_error() && !causes.iter().any(|cause| cause == LOST_STATEMENT_MESSAGE);
        ErrorText::from_chain(lost.then(|| LOST_STATEMENT_MESSAGE.to_owned()).into_iter().chain(causes))
    }

    /// Returns whether the cause is a pooler that loses prepared statements.
    pub fn is_pooler_error(&self) -> bool {
        is_lost_statement(&self.error)
    }

    /// Prints the error to standard error. Returns the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("{}", self.error_text());
        ExitCode::from(self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for CommandError {
    fn from(error: E) -> CommandError {
        let error = error.into();
        // A setting is validated by the command that uses it, wherever that happens.
        let code = if error.is::<SettingError>() { 2 } else { 1 };
        CommandError { code, error }
    }
}

/// The choice of the database that a command uses.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConnectArgs {
    /// Use the private PostgreSQL of `vinops up` instead of DATABASE_URL
    #[arg(long = "private-cluster", alias = "embedded")]
    pub embedded: bool,
}

/// The database of a command, and the private cluster if the command started one.
pub struct CommandSession {
    /// The settings of the environment.
    pub config: Config,
    /// The connection pool.
    pub db: Database,
    embedded: Option<EmbeddedPostgres>,
}

impl CommandSession {
    /// Connects to a database and checks that the schema has the version of this program.
    ///
    /// # Errors
    /// Returns an error with exit code 3 if the database is unavailable or the schema has another version.
    pub async fn open(config: Config, connect: &ConnectArgs) -> Result<CommandSession, CommandError> {
        let session = CommandSession::connect(config, connect).await?;
        crate::db::expect_schema(&session.db).await.map_err(CommandError::unavailable)?;
        Ok(session)
    }

    /// Connects without a check of the schema.
    pub async fn connect(config: Config, connect: &ConnectArgs) -> Result<CommandSession, CommandError> {
        if connect.embedded {
            return CommandSession::with_cluster(config, start_private_cluster().await?).await;
        }
        let Some(url) = config.database_url.get()?.clone() else {
            return Err(CommandError::unavailable(anyhow::anyhow!(
                "DATABASE_URL is not set\nhint: set it (postgres://user:password@host:5432/vinops), or use \
                 --private-cluster for the private PostgreSQL of `vinops up`, or try `vinops demo`"
            )));
        };
        let direct = config.database_direct_url.get()?.clone();
        let connected = async {
            // A pool retries a refused address for half a minute. A single connection fails at once.
            crate::db::connect_session(url.expose_secret()).await?.close().await?;
            Database::connect(url.expose_secret(), direct.as_ref().map(ExposeSecret::expose_secret), 16).await
        };
        let db = connected.await.map_err(|error| {
            if is_lost_statement(&error) {
                return CommandError::unavailable(error);
            }
            CommandError::unavailable(error.context(
                "could not connect to the database of DATABASE_URL\nhint: check that the server is running and that \
                 the address is right",
            ))
        })?;
        Ok(CommandSession { config, db, embedded: None })
    }

    /// Connects to a private cluster. The cluster stops when the session is closed.
    pub async fn with_cluster(config: Config, embedded: EmbeddedPostgres) -> Result<CommandSession, CommandError> {
        embedded.ensure_database(DATABASE_NAME).await.map_err(CommandError::unavailable)?;
        let db = Database::connect(&embedded.socket_url(DATABASE_NAME), None, 16)
            .await
            .map_err(CommandError::unavailable)?;
        Ok(CommandSession { config, db, embedded: Some(embedded) })
    }

    /// Opens the store of `VINOPS_STORE`.
    pub fn open_store(&self) -> Result<Store, CommandError> {
        Store::open(self.config.store.get()?).map_err(CommandError::unavailable)
    }

    /// Disconnects, and stops a private cluster. A statement of an interrupted job may continue on the server until
    /// the time limit of the job kind. The command does not wait for that. The server notices that the client is
    /// gone.
    pub async fn close(self) -> Result<(), CommandError> {
        tokio::time::timeout(CLOSE_GRACE, self.db.pool.close()).await.ok();
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

/// Returns the URL of the listing helper's database. Migrations and their verification need a direct connection.
pub fn listing_url(config: &Config) -> Result<&str, CommandError> {
    let url = match config.listing_database_url.get()? {
        Some(url) => Some(url),
        None => config.direct_url()?,
    };
    url.map(ExposeSecret::expose_secret).ok_or_else(|| {
        CommandError::unavailable(anyhow::anyhow!(
            "neither LISTING_DATABASE_URL nor DATABASE_URL is set\nhint: set one of them to the URL of the listing \
             helper's database"
        ))
    })
}

/// Returns the name of the operating system's user, which is recorded with operator actions.
pub fn os_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| "an operator".to_owned(), |user| user.name)
}

/// Starts the private cluster, whose data stays from one start to the next.
pub async fn start_private_cluster() -> Result<EmbeddedPostgres, CommandError> {
    let options = EmbeddedOptions::default();
    EmbeddedPostgres::start(options).await.map_err(CommandError::unavailable)
}
