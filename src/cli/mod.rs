//! The command line: what operators type, and what they see.
//!
//! It knows no worker: `main` hands it the [`Fleet`], and kinds, verbs and order come from there. Results go to standard
//! output, everything else to standard error; `--json` makes the result an object for programs. Exit codes: 0 done, 1 the
//! work failed, 2 the call was wrong, 3 something needed is unreachable.

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

/// Told how many bytes have been read, and of how many.
pub type Told = Box<dyn Fn(u64, u64) + Send + Sync>;

/// A login under way; in the end it tells when the session ends.
pub type LoggingIn = BoxFuture<'static, anyhow::Result<DateTime<Utc>>>;

/// The jobs, and the two doors to them that the command line needs.
#[derive(Clone, Copy)]
pub struct Fleet {
    /// Every kind of job.
    pub jobs: &'static [Entry],
    /// The one that brings in a window: the scheduler's.
    pub fetch: &'static Entry,
    /// What the jobs need besides a database.
    pub tools: fn(&Config, Store) -> anyhow::Result<Tools>,
    /// Why a worker with this configuration must leave a kind to others; none where it need not.
    pub lacks: fn(&Config, &Entry) -> Option<&'static str>,
    /// Counts, for monitoring, what a completed job of a kind reports.
    pub counted: fn(&str, &serde_json::Value),
    /// Takes in a local file and enqueues the first job of its chain.
    pub receive: fn(Received) -> BoxFuture<'static, anyhow::Result<Receipt>>,
    /// Registers a file where it lies in the store and enqueues the first job of its chain, in the caller's transaction.
    pub register: for<'a> fn(&'a mut PgConnection, FileInStore) -> BoxFuture<'a, anyhow::Result<Uuid>>,
    /// Logs in to a source (the third), in somebody's name (the fourth).
    pub login: fn(&Config, PgPool, String, String) -> LoggingIn,
    /// Compares the rows that stand with what the stored versions say.
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
    /// The entry of a kind, by its name or an earlier one; the call was wrong if there is none.
    fn known(&self, kind: &str) -> Result<&'static Entry, Failure> {
        self.jobs.iter().find(|entry| entry.answers_to(kind)).ok_or_else(|| {
            let known: Vec<&str> = self.jobs.iter().map(|entry| entry.kind).collect();
            Failure::wrong(anyhow::anyhow!("unknown job kind {kind:?}; expected one of {}", known.join(", ")))
        })
    }
}

/// A local file to be taken in.
pub struct Received {
    /// The database.
    pub db: Db,
    /// Where its bytes go.
    pub store: Store,
    /// The file.
    pub path: PathBuf,
    /// Its source.
    pub source: String,
    /// Its window; read from the path if none.
    pub window: Option<DateTime<Utc>>,
    /// Told of the progress.
    pub told: Told,
}

/// A file that lies in the store, to be registered for a window.
#[derive(Debug)]
pub struct FileInStore {
    /// The file and its window.
    pub file: FileOfWindow,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Size of the object in bytes.
    pub stored_bytes: u64,
    /// The validator `ETag` of the answer that brought it.
    pub etag: Option<String>,
    /// The validator `Last-Modified` of the answer that brought it.
    pub last_modified: Option<DateTime<Utc>>,
    /// The key in the store and, where it is known, the sha256 of what is there; none for a file that is registered already.
    pub placed: Option<(String, Option<String>)>,
}

/// What became of a local file.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The file, the known one of a duplicate.
    pub file_id: Uuid,
    /// Its window.
    pub window: DateTime<Utc>,
    /// Whether its bytes were known.
    pub duplicate: bool,
    /// Of its bytes, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The kind of the first job of its chain.
    pub kind: &'static str,
}

/// Turns Copart's inventory feed into vehicles, lots and statuses, by a fleet of workers over a PostgreSQL queue.
#[derive(Debug, Parser)]
#[command(name = "vinops", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
First steps:
  vinops demo                         everything on a private PostgreSQL and a pretend feed
  vinops migrate up                   the schema, in the database of DATABASE_URL
  vinops ingest salesdata.csv         one file, by hand
  vinops up                           everything in one process, against the real feed

Configuration comes from the environment: DATABASE_URL, DATABASE_DIRECT_URL, LISTING_DATABASE_URL,
VINOPS_STORE, VINOPS_LEASE, VINOPS_LISTEN, VINOPS_FETCH_DELAY, VINOPS_FETCH_JITTER, VINOPS_LOG,
VINOPS_LOG_FORMAT, VINOPS_MAPPINGS, VINOPS_PG_BINDIR, COPART_FEED_URL, COPART_USER, COPART_PASSWORD,
COPART_LOGIN_URL, COPART_USER_AGENT, COPART_REFERER, VINOPS_COOKIE_KEY; each also as NAME_FILE, a
file that holds the value, or as a systemd credential.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong, 3 something needed is unreachable.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show everything at work on a private PostgreSQL and a pretend feed
    Demo(demo::Args),
    /// Run all roles in one process, on a private PostgreSQL unless DATABASE_URL is set
    Up(roles::UpArgs),
    /// Claim and run jobs; any number may run anywhere
    Worker(roles::WorkerArgs),
    /// Enqueue the due window of each source; any number may run
    Scheduler(roles::SchedulerArgs),
    /// Serve the API, health and metrics; read-only
    Serve(roles::ServeArgs),
    /// Take in one file and work its chain to the end
    Ingest(ingest::Args),
    /// Enqueue a fetch of the current window
    Fetch(fetch::Args),
    /// Show the newest windows and what became of them
    Windows(windows::Args),
    /// Put the chain of a window back to work, from a step on
    Replay(replay::Args),
    /// Make vehicles, lots and statuses from the store, in an empty database
    Rebuild(rebuild::Args),
    /// Look at sources, and turn their switches
    #[command(subcommand)]
    Source(source::Command),
    /// Look at jobs, follow and steer them
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Show the workers of the fleet, lost ones too
    Workers(workers::Args),
    /// Give back files as they came
    #[command(subcommand)]
    Raw(raw::Command),
    /// Find files that the store has lost or spoiled, and repair them
    #[command(subcommand)]
    Store(store::Command),
    /// Show what became of a lot
    #[command(subcommand)]
    Lot(lot::Command),
    /// Teach the vocabulary, and move its labels to translators and back
    #[command(subcommand)]
    Taxonomy(taxonomy::Command),
    /// Say what is wrong or soon will be, each with the command that mends it
    Doctor(doctor::Args),
    /// Print the content hashes of vehicles and lots
    Digest(digest::Args),
    /// Bring the schema up or down, or check it
    Migrate(migrate::Args),
    /// Prove that a database is what documents and stored versions demand
    #[command(subcommand)]
    Verify(verify::Command),
    /// Run a command beside a temporary, migrated PostgreSQL, with DATABASE_URL set
    Embedded(embedded::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual's page
    Man(completions::ManArgs),
    /// Measure, against a floor in the same run
    #[command(subcommand)]
    Bench(bench::Command),
}

impl Command {
    /// Returns whether the command may read rows of files, for which it needs the mappings of the sources.
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

/// Prints help, or why the arguments are wrong. An argument that a terminal would obey is printed without colours.
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

/// Runs what the arguments ask for.
pub fn run(fleet: Fleet) -> ExitCode {
    pipe::end_quietly_when_broken();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    // these two need nothing but themselves
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
        Err(error) => return Failure::from(anyhow::Error::new(error).context("start the runtime")).report(),
    };
    match runtime.block_on(dispatch(cli.command, fleet, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Applies the settings that a command uses before it runs: its mappings and its log.
fn prepare(command: &Command, config: &Config) -> Result<(), Failure> {
    if command.reads_rows()
        && let Some(folder) = config.mappings.get()?
    {
        mappings::install(folder).map_err(Failure::wrong)?;
    }
    let role =
        matches!(command, Command::Worker(_) | Command::Scheduler(_) | Command::Serve(_) | Command::Up(_));
    let (filter, format) = match (config.log.get(), config.log_format.get()) {
        // It reports them as findings.
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
        Command::Completions(_) | Command::Man(_) => Ok(()), // told already
        Command::Bench(command) => bench::run(command, fleet, config).await,
    }
}
