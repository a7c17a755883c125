//! `vinops bench`: the benchmark results of the README, each with a baseline measured in the same run.

use super::output::{self, JsonArgs};
use super::{CommandError, JobRegistry};
use crate::bench::{BenchServer, api, queue, windows};
use crate::config::Config;
use anyhow::anyhow;
use secrecy::ExposeSecret;

/// The subcommands of `vinops bench`.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Measure time, memory and disk space per window
    Windows(WindowsBenchArgs),
    /// Measure jobs per second and the start latency of an idle worker
    Queue(QueueBenchArgs),
    /// Measure the API's latency while windows are being applied
    Api(ApiBenchArgs),
}

/// Arguments of `vinops bench windows`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A repeat takes about a minute at the default size and some 3 GB in the temporary folder. Results vary with the load \
of the machine: each is printed with its smallest and greatest value, and the report contains the load at the start.

  vinops bench windows
  vinops bench windows --verify --memory-rows 1500000 --json
  vinops bench windows --rows 5000 --repeats 2")]
pub struct WindowsBenchArgs {
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
    on: BenchServerArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops bench queue`.
#[derive(Debug, clap::Args)]
pub struct QueueBenchArgs {
    /// Jobs per measurement
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Number of measurements; medians are reported
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    #[command(flatten)]
    on: BenchServerArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `vinops bench api`.
#[derive(Debug, clap::Args)]
pub struct ApiBenchArgs {
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
    on: BenchServerArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// The choice of the server that is measured.
#[derive(Debug, clap::Args)]
struct BenchServerArgs {
    /// Measure on the server of DATABASE_URL, in new databases, instead of a temporary cluster
    #[arg(long)]
    server: bool,
}

impl BenchServerArgs {
    /// Connects to the server of `DATABASE_URL`, or starts a temporary cluster.
    async fn open_server(&self, config: &Config) -> Result<BenchServer, CommandError> {
        let place = match (config.database_url.get()?, self.server) {
            (Some(url), true) => BenchServer::connect(url.expose_secret()).await,
            (None, true) => {
                return Err(CommandError::usage(anyhow!("DATABASE_URL is not set, and --server requires it")));
            }
            (_, false) => BenchServer::start_temporary().await,
        };
        place.map_err(CommandError::unavailable)
    }
}

/// Runs a benchmark.
///
/// # Errors
/// Returns an error if the measured run gives other data than full processing.
pub async fn run(command: BenchCommand, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let leave = super::roles::shutdown_signal()?;
    let report_line = |line: String| eprintln!("  {line}");
    let (BenchCommand::Windows(WindowsBenchArgs { on, .. })
    | BenchCommand::Queue(QueueBenchArgs { on, .. })
    | BenchCommand::Api(ApiBenchArgs { on, .. })) = &command;
    let place = on.open_server(&config).await?;
    let done = tokio::select! {
        done = run_benchmark(&command, &place, fleet, &config, &report_line) => done,
        () = leave.cancelled() => Err(anyhow!("interrupted").into()),
    };
    place.close().await?;
    done
}

async fn run_benchmark(
    command: &BenchCommand,
    place: &BenchServer,
    fleet: JobRegistry,
    config: &Config,
    report_line: &(dyn Fn(String) + Sync),
) -> Result<(), CommandError> {
    match command {
        BenchCommand::Windows(args) => {
            let plan = windows::WindowsBenchPlan {
                rows: args.rows,
                windows: args.windows,
                repeats: args.repeats,
                memory_rows: args.memory_rows,
                verify: args.verify,
                seed: args.seed,
            };
            let report = windows::measure_windows(plan, place, fleet, config, report_line).await?;
            if args.json.json {
                output::print_json(&report)?;
            } else {
                print!("{}", report.to_text(args.verbose));
            }
            if !report.has_passed() {
                return Err(anyhow!("the measured windows give other data than full processing").into());
            }
            Ok(())
        }
        BenchCommand::Queue(args) => {
            let report = queue::measure_queue(args.jobs, args.repeats, place, report_line).await?;
            if args.json.json {
                output::print_json(&report)?;
            } else {
                print!("{}", report.to_text());
            }
            Ok(())
        }
        BenchCommand::Api(args) => {
            let ApiBenchArgs { rows, seconds, every, seed, .. } = *args;
            let report = api::measure_api(api::ApiBenchPlan { rows, seconds, every, seed }, place, report_line).await?;
            if args.json.json {
                output::print_json(&report)?;
            } else {
                print!("{}", report.to_text());
            }
            Ok(())
        }
    }
}
