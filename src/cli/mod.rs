//! The command line: arguments, commands and printed results.
//!
//! The command line names no worker. `main` passes it the [`JobRegistry`], which supplies the job kinds and their
//! order. Results go to standard output, everything else goes to standard error. `--json` prints the result as an
//! object for programs. Exit codes: 0 success, 1 the work failed, 2 usage error, 3 a dependency is unavailable.

use crate::auction::difference::{ComparisonCounts, ComparisonObserver, ComparisonScope};
use crate::auction::withdrawal::{Withdrawal, WithdrawalObserver, WithdrawalRequest};
use crate::config::Config;
use crate::db::Database;
use crate::db::catalogue::FileOfWindow;
use crate::queue::{Extensions, JobDefinition};
use crate::store::Store;
use crate::telemetry::escape_text;
use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;
use uuid::Uuid;

#[macro_use]
mod print_macros;

mod bench;
mod broken_pipe;
mod chain;
mod completions;
mod confirm;
mod demo;
mod digest;
mod doctor;
mod error_text;
mod fetch;
mod follow;
mod http_endpoint;
mod ingest;
mod jobs;
mod lot;
mod mappings;
mod migrate;
mod output;
mod progress;
mod raw;
mod rebuild;
mod replay;
mod roles;
mod session;
mod source;
mod store;
mod summary;
mod taxonomy;
mod verify;
mod windows;
mod with_postgres;
mod workers;

pub use session::CommandError;
pub use summary::{WindowSummary, read_summary};

/// A callback for progress. The arguments are the bytes read so far and the total bytes.
pub type ProgressFn = Box<dyn Fn(u64, u64) + Send + Sync>;

/// A running login. Returns the time at which the session expires.
pub type LoginFuture = BoxFuture<'static, anyhow::Result<DateTime<Utc>>>;

/// The job definitions, and the functions of the workers that commands call.
#[derive(Clone, Copy)]
pub struct JobRegistry {
    /// All job definitions.
    pub jobs: &'static [JobDefinition],
    /// The definition of the fetch job, which the scheduler enqueues for each window.
    pub fetch: &'static JobDefinition,
    /// Builds the extensions that jobs use in addition to the database.
    pub extensions: fn(&Config, Store) -> anyhow::Result<Extensions>,
    /// Returns the reason why a worker with this configuration must not run a kind, or `None` if the worker may run it.
    pub missing_prerequisites: fn(&Config, &JobDefinition) -> Option<&'static str>,
    /// Records the report of a completed job, given by its kind, as metrics.
    pub record_metrics: fn(&str, &serde_json::Value),
    /// Imports a local file and enqueues the first job of its chain.
    pub receive: fn(ImportRequest) -> BoxFuture<'static, anyhow::Result<ImportReceipt>>,
    /// Registers a file of the store and enqueues the first job of its chain, in the caller's transaction. Returns
    /// the file's id.
    pub register: for<'a> fn(&'a mut PgConnection, FileInStore) -> BoxFuture<'a, anyhow::Result<Uuid>>,
    /// Logs in to a source (third argument) on behalf of an operator (fourth argument).
    pub login: fn(&Config, PgPool, String, String) -> LoginFuture,
    /// Compares lots, vehicles and images with the stored row versions.
    pub compare:
        fn(PgPool, ComparisonScope, ComparisonObserver) -> BoxFuture<'static, anyhow::Result<ComparisonCounts>>,
    /// Withdraws a file in the caller's transaction.
    pub withdraw: for<'a> fn(
        &'a mut PgConnection,
        WithdrawalRequest,
        WithdrawalObserver,
    ) -> BoxFuture<'a, anyhow::Result<Withdrawal>>,
}

impl JobRegistry {
    /// Returns the definition of a job kind, by its current or an earlier name.
    ///
    /// # Errors
    /// Returns a usage error if the kind is unknown.
    fn find_job(&self, kind: &str) -> Result<&'static JobDefinition, CommandError> {
        self.jobs.iter().find(|entry| entry.matches_kind(kind)).ok_or_else(|| {
            let known: Vec<&str> = self.jobs.iter().map(|entry| entry.kind).collect();
            CommandError::usage(anyhow::anyhow!("unknown job kind {kind:?}; expected one of {}", known.join(", ")))
        })
    }
}

/// A local file to import.
pub struct ImportRequest {
    /// The database that the file is registered in.
    pub db: Database,
    /// The store that receives the bytes.
    pub store: Store,
    /// The path of the local file.
    pub path: PathBuf,
    /// The source of the file.
    pub source: String,
    /// The start of the window. `None` reads the window from the path.
    pub window: Option<DateTime<Utc>>,
    /// Receives the progress of the import.
    pub progress: ProgressFn,
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
pub struct ImportReceipt {
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
    command: RootCommand,
}

#[derive(Debug, Subcommand)]
enum RootCommand {
    /// Run all roles on a temporary PostgreSQL and a simulated feed
    Demo(demo::DemoArgs),
    /// Run all roles in one process
    Up(roles::UpArgs),
    /// Claim and run jobs
    Worker(roles::WorkerArgs),
    /// Enqueue the due window of each source
    Scheduler(roles::SchedulerArgs),
    /// Serve the read-only API, health checks and metrics
    Serve(roles::ServeArgs),
    /// Ingest one file and run its chain of jobs to the end
    Ingest(ingest::IngestArgs),
    /// Fetch the current window and run its chain of jobs to the end
    Fetch(fetch::FetchArgs),
    /// List windows, accept or withdraw the file of a window
    Windows(windows::WindowsArgs),
    /// Rerun a window's jobs, starting at a given step
    Replay(replay::ReplayArgs),
    /// Rebuild an empty database from the files of the store
    Rebuild(rebuild::RebuildArgs),
    /// Manage sources, their breakers and their sessions
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Manage jobs: list, follow, requeue, cancel, pause, limit
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// List workers, including lost ones
    Workers(workers::WorkersArgs),
    /// Export stored files
    #[command(subcommand, visible_alias = "file")]
    Raw(raw::RawCommand),
    /// Check the store for missing or damaged files, and repair them
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Show the history of a lot
    #[command(subcommand)]
    Lot(lot::LotCommand),
    /// Manage taxonomy codes, aliases and translations
    #[command(subcommand)]
    Taxonomy(taxonomy::TaxonomyCommand),
    /// Check the installation and print a fix for each problem
    Doctor(doctor::DoctorArgs),
    /// Print the content hashes of vehicles, lots and images
    Digest(digest::DigestArgs),
    /// Apply, roll back or list schema migrations
    Migrate(migrate::MigrateArgs),
    /// Check a database against its documentation and row versions
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Run a command with a temporary, migrated PostgreSQL
    #[command(name = "with-postgres", alias = "embedded")]
    WithPostgres(with_postgres::WithPostgresArgs),
    /// Print shell completions
    Completions(completions::CompletionsArgs),
    /// Print or write manual pages
    Man(completions::ManPageArgs),
    /// Run benchmarks against a baseline measured in the same run
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

impl RootCommand {
    /// Returns true if the command may read rows of files. Such a command loads the mappings of the sources.
    fn reads_rows(&self) -> bool {
        use RootCommand::{
            Completions, Digest, Doctor, Jobs, Man, Migrate, Raw, Scheduler, Source, Store, WithPostgres, Workers,
        };
        !matches!(
            self,
            Completions(_)
                | Digest(_)
                | Doctor(_)
                | WithPostgres(_)
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
fn exit_with_clap_error(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    match escape_text(&plain) {
        Cow::Borrowed(_) => error.exit(),
        Cow::Owned(shown) => {
            eprintln!("{}", shown.trim_end());
            ExitCode::from(2)
        }
    }
}

/// Parses the arguments and runs the command. Returns the exit code.
pub fn run(fleet: JobRegistry) -> ExitCode {
    broken_pipe::end_quietly_when_broken();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit_with_clap_error(&error),
    };
    // These two need neither settings nor a runtime.
    let printed = match &cli.command {
        RootCommand::Completions(args) => Some(completions::print_completions(args)),
        RootCommand::Man(args) => Some(completions::print_man_pages(args)),
        _ => None,
    };
    if let Some(printed) = printed {
        return printed.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS);
    }
    let config = Config::from_env();
    if let Err(failure) = apply_settings(&cli.command, &config) {
        return failure.report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return CommandError::from(anyhow::Error::new(error).context("could not start the runtime")).report();
        }
    };
    match runtime.block_on(dispatch_command(cli.command, fleet, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Applies the settings that a command uses before it runs: mappings and logging.
fn apply_settings(command: &RootCommand, config: &Config) -> Result<(), CommandError> {
    if command.reads_rows()
        && let Some(folder) = config.mappings.get()?
    {
        mappings::install_mappings(folder).map_err(CommandError::usage)?;
    }
    let role = matches!(
        command,
        RootCommand::Worker(_) | RootCommand::Scheduler(_) | RootCommand::Serve(_) | RootCommand::Up(_)
    );
    let (filter, format) = match (config.log.get(), config.log_format.get()) {
        // The doctor reports invalid settings as findings.
        (filter, format) if matches!(command, RootCommand::Doctor(_)) => {
            (filter.ok().and_then(Option::as_deref), format.ok().copied().flatten())
        }
        (filter, format) => (filter?.as_deref(), *format?),
    };
    crate::telemetry::init_logging(filter, format, role);
    Ok(())
}

async fn dispatch_command(command: RootCommand, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    match command {
        RootCommand::Demo(args) => demo::run(args, fleet, config).await,
        RootCommand::Up(args) => roles::run_all_roles(args, fleet, config).await,
        RootCommand::Worker(args) => roles::run_worker(args, fleet, config).await,
        RootCommand::Scheduler(args) => roles::run_scheduler(args, fleet, config).await,
        RootCommand::Serve(args) => roles::run_server(args, fleet, config).await,
        RootCommand::Ingest(args) => ingest::run(args, fleet, config).await,
        RootCommand::Fetch(args) => fetch::run(args, fleet, config).await,
        RootCommand::Windows(args) => windows::run(args, fleet, config).await,
        RootCommand::Replay(args) => replay::run(args, fleet, config).await,
        RootCommand::Rebuild(args) => rebuild::run(args, fleet, config).await,
        RootCommand::Source(command) => source::run(command, fleet, config).await,
        RootCommand::Jobs(command) => jobs::run(command, fleet, config).await,
        RootCommand::Workers(args) => workers::run(args, config).await,
        RootCommand::Raw(command) => raw::run(command, config).await,
        RootCommand::Store(command) => store::run(command, config).await,
        RootCommand::Lot(command) => lot::run(command, config).await,
        RootCommand::Taxonomy(command) => taxonomy::run(command, config).await,
        RootCommand::Doctor(args) => doctor::run(args, fleet, config).await,
        RootCommand::Digest(args) => digest::run(args, config).await,
        RootCommand::Migrate(args) => migrate::run(args, config).await,
        RootCommand::Verify(command) => verify::run(command, fleet, config).await,
        RootCommand::WithPostgres(args) => with_postgres::run(args).await,
        RootCommand::Completions(_) | RootCommand::Man(_) => Ok(()), // printed by `run`
        RootCommand::Bench(command) => bench::run(command, fleet, config).await,
    }
}

#[cfg(test)]
mod tests;
