//! The command line: arguments, commands and printed results.
//!
//! The command line names no worker. `main` passes it the [`Fleet`], which supplies the job kinds and their order.
//! Results go to standard output, everything else goes to standard error. `--json` prints the result as an object for
//! programs. Exit codes: 0 success, 1 the work failed, 2 usage error, 3 a dependency is unavailable.

use crate::auction::difference::{ComparisonCounts, ComparisonObserver, ComparisonScope};
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::config::Config;
use crate::db::Db;
use crate::db::catalogue::FileOfWindow;
use crate::queue::{Entry, Tools};
use crate::store::Store;
use crate::telemetry::visible;
use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;
use uuid::Uuid;

#[macro_use]
mod out;

mod ask;
mod bars;
mod bench;
mod chain;
mod completions;
mod demo;
mod digest;
mod doctor;
mod embedded;
mod error_text;
mod face;
mod fetch;
mod follow;
mod ingest;
mod jobs;
mod lot;
mod mappings;
mod migrate;
mod pipe;
mod raw;
mod rebuild;
mod replay;
mod roles;
mod session;
mod show;
mod source;
mod store;
mod summary;
mod taxonomy;
mod verify;
mod windows;
mod workers;

pub use session::Failure;
pub use summary::{Summary, summary};

/// A callback for progress. The arguments are the bytes read so far and the total bytes.
pub type Told = Box<dyn Fn(u64, u64) + Send + Sync>;

/// A running login. Returns the time at which the session expires.
pub type LoggingIn = BoxFuture<'static, anyhow::Result<DateTime<Utc>>>;

/// The job definitions, and the functions of the workers that commands call.
#[derive(Clone, Copy)]
pub struct Fleet {
    /// All job definitions.
    pub jobs: &'static [Entry],
    /// The definition of the fetch job, which the scheduler enqueues for each window.
    pub fetch: &'static Entry,
    /// Builds the extensions that jobs use in addition to the database.
    pub tools: fn(&Config, Store) -> anyhow::Result<Tools>,
    /// Returns the reason why a worker with this configuration must not run a kind, or `None` if the worker may run it.
    pub lacks: fn(&Config, &Entry) -> Option<&'static str>,
    /// Records the report of a completed job, given by its kind, as metrics.
    pub counted: fn(&str, &serde_json::Value),
    /// Imports a local file and enqueues the first job of its chain.
    pub receive: fn(Received) -> BoxFuture<'static, anyhow::Result<Receipt>>,
    /// Registers a file of the store and enqueues the first job of its chain, in the caller's transaction. Returns
    /// the file's id.
    pub register: for<'a> fn(&'a mut PgConnection, FileInStore) -> BoxFuture<'a, anyhow::Result<Uuid>>,
    /// Logs in to a source (third argument) on behalf of an operator (fourth argument).
    pub login: fn(&Config, PgPool, String, String) -> LoggingIn,
    /// Compares lots, vehicles and images with the stored row versions.
    pub compare: fn(
        PgPool,
        ComparisonScope,
        ComparisonObserver,
    ) -> BoxFuture<'static, anyhow::Result<ComparisonCounts>>,
    /// Withdraws a file in the caller's transaction.
    pub withdraw: for<'a> fn(
        &'a mut PgConnection,
        WithdrawalRequest,
        WithdrawalObserver,
    ) -> BoxFuture<'a, anyhow::Result<Withdrawal>>,
}

impl Fleet {
    /// Returns the definition of a job kind, by its current or an earlier name.
    ///
    /// # Errors
    /// Returns a usage error if the kind is unknown.
    fn known(&self, kind: &str) -> Result<&'static Entry, Failure> {
        self.jobs.iter().find(|entry| entry.answers_to(kind)).ok_or_else(|| {
            let known: Vec<&str> = self.jobs.iter().map(|entry| entry.kind).collect();
            Failure::wrong(anyhow::anyhow!("unknown job kind {kind:?}; expected one of {}", known.join(", ")))
        })
    }
}

/// A local file to import.
pub struct Received {
    /// The database that the file is registered in.
    pub db: Db,
    /// The store that receives the bytes.
    pub store: Store,
    /// The path of the local file.
    pub path: PathBuf,
    /// The source of the file.
    pub source: String,
    /// The start of the window. `None` reads the window from the path.
    pub window: Option<DateTime<Utc>>,
    /// Receives the progress of the import.
    pub told: Told,
}

/// A file in the store that is to be registered for a window.
#[derive(Debug)]
pub struct FileInStore {
    /// The identity of the file: source, window and sha256.
    pub file: FileOfWindow,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size of the object in bytes.
    pub stored_bytes: u64,
    /// The `ETag` header of the response that contained the file.
    pub etag: Option<String>,
    /// The `Last-Modified` header of the response that contained the file.
    pub last_modified: Option<DateTime<Utc>>,
    /// The key in the store and, if recorded, the sha256 of the stored object. `None` for a file that is registered
    /// already.
    pub placed: Option<(String, Option<String>)>,
}

/// The result of an import of a local file.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The id of the file. A duplicate has the id of the known file.
    pub file_id: Uuid,
    /// The start of the window.
    pub window: DateTime<Utc>,
    /// True if the bytes were known already.
    pub duplicate: bool,
    /// The sha256 of the bytes, in hex.
    pub sha256: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// The kind of the first job of the chain.
    pub kind: &'static str,
}

/// Ingest Copart's inventory feed into vehicles, lots and statuses, with workers on a PostgreSQL queue
#[derive(Debug, Parser)]
#[command(name = "vinops", version, max_term_width = 80, arg_required_else_help = true)]
#[command(after_help = "\
First steps:
  vinops demo                  run all roles on a simulated feed
  vinops migrate up            create the schema in the database of DATABASE_URL
  vinops ingest salesdata.csv  ingest one file
  vinops up                    run all roles in one process, on the real feed

Settings are read from the environment: DATABASE_URL, DATABASE_DIRECT_URL, LISTING_DATABASE_URL, VINOPS_STORE, \
VINOPS_LEASE, VINOPS_LISTEN, VINOPS_FETCH_DELAY, VINOPS_FETCH_JITTER, VINOPS_LOG, VINOPS_LOG_FORMAT, VINOPS_MAPPINGS, \
VINOPS_PG_BINDIR, COPART_FEED_URL, COPART_USER, COPART_PASSWORD, COPART_LOGIN_URL, COPART_USER_AGENT, COPART_REFERER, \
VINOPS_COOKIE_KEY. Each can also be set as NAME_FILE, the path of a file that contains the value, or as a systemd \
credential.

Exit codes: 0 success, 1 the work failed, 2 usage error, 3 a dependency is unavailable, 130 second SIGINT, 141 \
broken pipe.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all roles on a temporary PostgreSQL and a simulated feed
    Demo(demo::Args),
    /// Run all roles in one process
    Up(roles::UpArgs),
    /// Claim and run jobs
    Worker(roles::WorkerArgs),
    /// Enqueue the due window of each source
    Scheduler(roles::SchedulerArgs),
    /// Serve the read-only API, health checks and metrics
    Serve(roles::ServeArgs),
    /// Ingest one file and run its chain of jobs to the end
    Ingest(ingest::Args),
    /// Fetch the current window and run its chain of jobs to the end
    Fetch(fetch::Args),
    /// List windows, accept or withdraw the file of a window
    Windows(windows::Args),
    /// Rerun a window's jobs, starting at a given step
    Replay(replay::Args),
    /// Rebuild an empty database from the files of the store
    Rebuild(rebuild::Args),
    /// Manage sources, their breakers and their sessions
    #[command(subcommand)]
    Source(source::Command),
    /// Manage jobs: list, follow, requeue, cancel, pause, limit
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// List workers, including lost ones
    Workers(workers::Args),
    /// Export stored files
    #[command(subcommand, visible_alias = "file")]
    Raw(raw::Command),
    /// Check the store for missing or damaged files, and repair them
    #[command(subcommand)]
    Store(store::Command),
    /// Show the history of a lot
    #[command(subcommand)]
    Lot(lot::Command),
    /// Manage taxonomy codes, aliases and translations
    #[command(subcommand)]
    Taxonomy(taxonomy::Command),
    /// Check the installation and print a fix for each problem
    Doctor(doctor::Args),
    /// Print the content hashes of vehicles, lots and images
    Digest(digest::Args),
    /// Apply, roll back or list schema migrations
    Migrate(migrate::Args),
    /// Check a database against its documentation and row versions
    #[command(subcommand)]
    Verify(verify::Command),
    /// Run a command with a temporary, migrated PostgreSQL
    #[command(name = "with-postgres", alias = "embedded")]
    Embedded(embedded::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Print or write manual pages
    Man(completions::ManArgs),
    /// Run benchmarks against a baseline measured in the same run
    #[command(subcommand)]
    Bench(bench::Command),
}

impl Command {
    /// Returns true if the command may read rows of files. Such a command loads the mappings of the sources.
    fn reads_rows(&self) -> bool {
        use Command::{
            Completions, Digest, Doctor, Embedded, Jobs, Man, Migrate, Raw, Scheduler, Source, Store, Workers,
        };
        !matches!(
            self,
            Completions(_)
                | Digest(_)
                | Doctor(_)
                | Embedded(_)
                | Jobs(_)
                | Man(_)
                | Migrate(_)
                | Raw(_)
                | Scheduler(_)
                | Source(_)
                | Store(_)
                | Workers(_)
        )
    }
}

/// Prints help or a usage error. A message with control characters is printed escaped and without colours.
fn refused(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    match visible(&plain) {
        Cow::Borrowed(_) => error.exit(),
        Cow::Owned(shown) => {
            eprintln!("{}", shown.trim_end());
            ExitCode::from(2)
        }
    }
}

/// Parses the arguments and runs the command. Returns the exit code.
pub fn run(fleet: Fleet) -> ExitCode {
    pipe::end_quietly_when_broken();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    // These two need neither settings nor a runtime.
    let told = match &cli.command {
        Command::Completions(args) => Some(completions::run(args)),
        Command::Man(args) => Some(completions::man(args)),
        _ => None,
    };
    if let Some(told) = told {
        return told.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS);
    }
    let config = Config::from_env();
    if let Err(failure) = prepare(&cli.command, &config) {
        return failure.report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::from(anyhow::Error::new(error).context("could not start the runtime")).report();
        }
    };
    match runtime.block_on(dispatch(cli.command, fleet, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Applies the settings that a command uses before it runs: mappings and logging.
fn prepare(command: &Command, config: &Config) -> Result<(), Failure> {
    if command.reads_rows()
        && let Some(folder) = config.mappings.get()?
    {
        mappings::install(folder).map_err(Failure::wrong)?;
    }
    let role =
        matches!(command, Command::Worker(_) | Command::Scheduler(_) | Command::Serve(_) | Command::Up(_));
    let (filter, format) = match (config.log.get(), config.log_format.get()) {
        // The doctor reports invalid settings as findings.
        (filter, format) if matches!(command, Command::Doctor(_)) => {
            (filter.ok().and_then(Option::as_deref), format.ok().copied().flatten())
        }
        (filter, format) => (filter?.as_deref(), *format?),
    };
    crate::telemetry::init(filter, format, role);
    Ok(())
}

async fn dispatch(command: Command, fleet: Fleet, config: Config) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args, fleet, config).await,
        Command::Up(args) => roles::up(args, fleet, config).await,
        Command::Worker(args) => roles::worker(args, fleet, config).await,
        Command::Scheduler(args) => roles::scheduler(args, fleet, config).await,
        Command::Serve(args) => roles::serve(args, fleet, config).await,
        Command::Ingest(args) => ingest::run(args, fleet, config).await,
        Command::Fetch(args) => fetch::run(args, fleet, config).await,
        Command::Windows(args) => windows::run(args, fleet, config).await,
        Command::Replay(args) => replay::run(args, fleet, config).await,
        Command::Rebuild(args) => rebuild::run(args, fleet, config).await,
        Command::Source(command) => source::run(command, fleet, config).await,
        Command::Jobs(command) => jobs::run(command, fleet, config).await,
        Command::Workers(args) => workers::run(args, config).await,
        Command::Raw(command) => raw::run(command, config).await,
        Command::Store(command) => store::run(command, config).await,
        Command::Lot(command) => lot::run(command, config).await,
        Command::Taxonomy(command) => taxonomy::run(command, config).await,
        Command::Doctor(args) => doctor::run(args, fleet, config).await,
        Command::Digest(args) => digest::run(args, config).await,
        Command::Migrate(args) => migrate::run(args, config).await,
        Command::Verify(command) => verify::run(command, fleet, config).await,
        Command::Embedded(args) => embedded::run(args).await,
        Command::Completions(_) | Command::Man(_) => Ok(()), // printed by `run`
        Command::Bench(command) => bench::run(command, fleet, config).await,
    }
}

#[cfg(test)]
mod tests;
