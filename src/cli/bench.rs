//! `vinops bench`: the figures of the README, each against a floor in the same run.

use super::show::{self, Json};
use super::{Failure, Fleet};
use crate::bench::{Place, api, queue, windows};
use crate::config::Config;
use anyhow::anyhow;
use secrecy::ExposeSecret;

/// `vinops bench …`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Time, memory and space of a window
    Windows(WindowsArgs),
    /// Jobs a second, and how soon an idle worker starts one
    Queue(QueueArgs),
    /// How soon the API answers while windows are being applied
    Api(ApiArgs),
}

/// Arguments of `vinops bench windows`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Takes about a minute a repeat at the usual size and some 3 GB in the temporary folder. A quiet machine gives quiet figures:
each is printed with its smallest and greatest value, and the load at the start.

  vinops bench windows
  vinops bench windows --verify --memory-rows 1500000 --json
  vinops bench windows --rows 5000 --repeats 2")]
pub struct WindowsArgs {
    /// Rows of a window
    #[arg(long, default_value_t = windows::STANDARD_ROWS)]
    rows: usize,
    /// Windows of a repeat, the first included
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..))]
    windows: u32,
    /// How often to measure, each time in a new database
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Also work a feed of so many rows, to see what memory a further row takes
    #[arg(long, value_name = "ROWS")]
    memory_rows: Option<usize>,
    /// Also work all windows in full, and compare the digests
    #[arg(long)]
    verify: bool,
    /// Also show which relations grow
    #[arg(long)]
    verbose: bool,
    /// Of the simulated feed
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
    /// Jobs of each measurement
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// How often worker and floor are measured; medians are told
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
    /// Rows of a window
    #[arg(long, default_value_t = windows::STANDARD_ROWS)]
    rows: usize,
    /// Seconds of asking, at 20 requests a second
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Seconds from one window to the next
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// Of the simulated feed and of the questions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    json: Json,
}

/// Which server to measure on.
#[derive(Debug, clap::Args)]
struct On {
    /// On the server of DATABASE_URL, in databases made for this, instead of a temporary cluster
    #[arg(long)]
    server: bool,
}

impl On {
    async fn open(&self, config: &Config) -> Result<Place, Failure> {
        let place = match (config.database_url.get()?, self.server) {
            (Some(url), true) => Place::on(url.expose_secret()).await,
            (None, true) => return Err(Failure::wrong(anyhow!("--server needs DATABASE_URL"))),
            (_, false) => Place::temporary().await,
        };
        place.map_err(Failure::unreachable)
    }
}

/// Measures; fails if what was measured is not what was to be done.
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
                return Err(anyhow!("the measured windows did not give what full processing gives").into());
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
