//! What a command begins with: the database it was told of, with a schema it knows; and what it ends with when it fails.

use crate::config::{Config, SettingError};
use crate::db::Db;
use crate::db::encoding::EncodingError;
use crate::db::pooler::{LOSES, lost_statement};
use crate::embedded::{Embedded, Options};
use crate::store::Store;
use secrecy::ExposeSecret;
use sqlx::Connection;
use std::process::ExitCode;
use std::time::Duration;

/// How long connections may take to close in order.
const GOODBYE: Duration = Duration::from_secs(1);

/// Name of the database inside an embedded cluster.
pub const DATABASE: &str = "vinops";

/// An error and the exit code it means.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The call was wrong: exit code 2.
    pub fn wrong(error: impl Into<anyhow::Error>) -> Failure {
        Failure { code: 2, error: error.into() }
    }

    /// Something needed is unreachable: exit code 3.
    pub fn unreachable(error: impl Into<anyhow::Error>) -> Failure {
        Failure { code: 3, error: error.into() }
    }

    /// What keeps a schema from being brought up: exit code 3 where the database cannot be used at all, else 1.
    pub fn of_schema(error: anyhow::Error) -> Failure {
        if error.is::<EncodingError>() { Failure::unreachable(error) } else { Failure::from(error) }
    }

    /// What went wrong, with its causes.
    pub fn said(&self) -> String {
        let named = self.error.chain().any(|cause| cause.to_string() == LOSES);
        if self.pooler() && !named {
            return format!("{LOSES}: {:#}", self.error);
        }
        format!("{:#}", self.error)
    }

    /// Whether a pooler that loses statements is to blame.
    pub fn pooler(&self) -> bool {
        lost_statement(&self.error)
    }

    /// Prints it and gives its exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("vinops: {}", self.said());
        ExitCode::from(self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        let error = error.into();
        // A setting is validated by the command that uses it, wherever that happens.
        let code = if error.is::<SettingError>() { 2 } else { 1 };
        Failure { code, error }
    }
}

/// Which database a command works on.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connect {
    /// Use the private PostgreSQL that `vinops up` keeps, instead of DATABASE_URL
    #[arg(long)]
    pub embedded: bool,
}

/// A command's database and what keeps it alive.
pub struct Session {
    /// The environment.
    pub config: Config,
    /// The database.
    pub db: Db,
    embedded: Option<Embedded>,
}

impl Session {
    /// Connects to a database whose schema is this program's.
    pub async fn open(config: Config, connect: &Connect) -> Result<Session, Failure> {
        let session = Session::connect(config, connect).await?;
        crate::db::expect_schema(&session.db).await.map_err(Failure::unreachable)?;
        Ok(session)
    }

    /// Connects, whatever the schema.
    pub async fn connect(config: Config, connect: &Connect) -> Result<Session, Failure> {
        if connect.embedded {
            return Session::on(config, kept().await?).await;
        }
        let Some(url) = config.database_url.get()?.clone() else {
            return Err(Failure::unreachable(anyhow::anyhow!(
                "DATABASE_URL is not set: name a database (postgres://user:password@host:5432/vinops), or use --embedded \
                 for the private one of `vinops up`, or try `vinops demo`"
            )));
        };
        let direct = config.database_direct_url.get()?.clone();
        let connected = async {
            // a pool tries a refused address for half a minute; one connection tells at once
            crate::db::session(url.expose_secret()).await?.close().await?;
            Db::connect(url.expose_secret(), direct.as_ref().map(ExposeSecret::expose_secret), 16).await
        };
        let db = connected.await.map_err(|error| {
            if lost_statement(&error) {
                return Failure::unreachable(error);
            }
            Failure::unreachable(error.context(
                "cannot reach the database of DATABASE_URL: is the server up, and the address right?",
            ))
        })?;
        Ok(Session { config, db, embedded: None })
    }

    /// On an embedded cluster, which stops with the session.
    pub async fn on(config: Config, embedded: Embedded) -> Result<Session, Failure> {
        embedded.database(DATABASE).await.map_err(Failure::unreachable)?;
        let db = Db::connect(&embedded.near_url(DATABASE), None, 16).await.map_err(Failure::unreachable)?;
        Ok(Session { config, db, embedded: Some(embedded) })
    }

    /// The store of VINOPS_STORE.
    pub fn store(&self) -> Result<Store, Failure> {
        Store::open(self.config.store.get()?).map_err(Failure::unreachable)
    }

    /// Disconnects, and stops an embedded cluster. A statement of a job that was cut off may run on at the server, up to
    /// its kind's time limit; the command does not wait for that, and the server sees that nobody listens any more.
    pub async fn close(self) -> Result<(), Failure> {
        tokio::time::timeout(GOODBYE, self.db.pool.close()).await.ok();
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

/// The listing helper's database, with a session of its own: migrations and their proof need one.
pub fn listing_url(config: &Config) -> Result<&str, Failure> {
    let url = match config.listing_database_url.get()? {
        Some(url) => Some(url),
        None => config.direct_url()?,
    };
    url.map(ExposeSecret::expose_secret).ok_or_else(|| {
        Failure::unreachable(anyhow::anyhow!(
            "neither LISTING_DATABASE_URL nor DATABASE_URL is set: they name the listing helper's database"
        ))
    })
}

/// Who types.
pub fn who() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map_or_else(|| "an operator".to_owned(), |user| user.name)
}

/// The private cluster that stays from one start to the next.
pub async fn kept() -> Result<Embedded, Failure> {
    let options = Options::default();
    Embedded::start(options).await.map_err(Failure::unreachable)
}
