//! `vinops bench`: the benchmark results of the README, each with a baseline measured in the same run.

use super::show::{self, Json};
use super::{Failure, Fleet};
use crate::bench::{Place, api, queue, windows};
use crate::config::Config;
use anyhow::anyhow;
use secrecy::ExposeSecret;

/// The subcommands of `vinops bench`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Measure time, memory and disk space per window
    Windows(WindowsArgs),
    /// Measure jobs per second and the start latency of an idle worker
    Queue(QueueArgs),
    /// Measure the API's latency while windows are being applied
    Api(ApiArgs),
}

/// Arguments of `vinops bench windows`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A repeat takes about a minute at the default size and some 3 GB in the temporary folder. Results vary with the load \
of the machine: each is printed with its smallest and greatest value, and the report contains the load at the start.

  vinops bench windows
  vinops bench windows --verify --memory-rows 1500000 --json
  vinops bench windows --rows 5000 --repeats 2")]
pub struct WindowsArgs {
    /// Rows per window
    #[arg(long, default_value_t = windows::STANDARD_ROWS)]
    rows: usize,
    /// Windows per repeat, including the first
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..))]
    windows: u32,
    /// Number of measurements, each in a new database
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Also process a feed of this many rows, to measure memory per row
    #[arg(long, value_name = "ROWS")]
    memory_rows: Option<usize>,
    /// Also process all windows in full, and compare the digests
    #[arg(long)]
    verify: bool,
    /// Also show the growth of each relation
    #[arg(long)]
    verbose: bool,
    /// Seed of the simulated feed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops bench queue`.
#[derive(Debug, clap::Args)]
pub struct QueueArgs {
    /// Jobs per measurement
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Number of measurements; medians are reported
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    json: Json,
}

/// Arguments of `vinops bench api`.
#[derive(Debug, clap::Args)]
pub struct ApiArgs {
    /// Rows per window
    #[arg(long, default_value_t = windows::STANDARD_ROWS)]
    rows: usize,
    /// Duration of the load in seconds, at 20 requests per second
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Seconds between two windows
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Seed of the simulated feed and of the requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    json: Json,
}

/// The choice of the server that is measured.
#[derive(Debug, clap::Args)]
struct On {
    /// Measure on the server of DATABASE_URL, in new databases, instead of a temporary cluster
    #[arg(long)]
    server: bool,
}

impl On {
    /// Connects to the server of `DATABASE_URL`, or starts a temporary cluster.
    async fn open(&self, config: &Config) -> Result<Place, Failure> {
        let place = match (config.database_url.get()?, self.server) {
            (Some(url), true) => Place::on(url.expose_secret()).await,
            (None, true) => {
                return Err(Failure::wrong(anyhow!("DATABASE_URL is not set, and --server requires it")));
            }
            (_, false) => Place::temporary().await,
        };
        place.map_err(Failure::unreachable)
    }
}

/// Runs a benchmark.
///
/// # Errors
/// Returns an error if the measured run gives other data than full processing.
pub async fn run(command: Command, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let leave = super::roles::until_told()?;
    let told = |line: String| eprintln!("  {line}");
    let (Command::Windows(WindowsArgs { on, .. })
    | Command::Queue(QueueArgs { on, .. })
    | Command::Api(ApiArgs { on, .. })) = &command;
    let place = on.open(&config).await?;
    let done = tokio::select! {
        done = measured(&command, &place, fleet, &config, &told) => done,
        () = leave.cancelled() => Err(anyhow!("interrupted").into()),
    };
    place.close().await?;
    done
}

async fn measured(
    command: &Command,
    place: &Place,
    fleet: Fleet,
    config: &Config,
    told: &(dyn Fn(String) + Sync),
) -> Result<(), Failure> {
    match command {
        Command::Windows(args) => {
            let plan = windows::Plan {
                rows: args.rows,
                windows: args.windows,
                repeats: args.repeats,
                memory_rows: args.memory_rows,
                verify: args.verify,
                seed: args.seed,
            };
            let report = windows::measure(plan, place, fleet, config, told).await?;
            if args.json.json {
                show::json(&report)?;
            } else {
                print!("{}", report.text(args.verbose));
            }
            if !report.holds() {
                return Err(anyhow!("the measured windows give other data than full processing").into());
            }
            Ok(())
        }
        Command::Queue(args) => {
            let report = queue::measure(args.jobs, args.repeats, place, told).await?;
            if args.json.json {
                show::json(&report)?;
            } else {
                print!("{}", report.text());
            }
            Ok(())
        }
        Command::Api(args) => {
            let ApiArgs { rows, seconds, every, seed, .. } = *args;
            let report = api::measure(api::Plan { rows, seconds, every, seed }, place, told).await?;
            if args.json.json {
                show::json(&report)?;
            } else {
                print!("{}", report.text());
            }
            Ok(())
        }
    }
}
