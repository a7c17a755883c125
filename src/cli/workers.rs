//! `vinops workers`: lists the workers with their states and job kinds.

use super::CommandError;
use super::output::{self, JsonArgs, right_cell};
use super::session::{CommandSession, ConnectArgs};
use crate::config::Config;
use crate::queue::queries;

/// Arguments of `vinops workers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A worker without a heartbeat for a whole lease is lost. Other workers have taken over its jobs. Its row stays for a \
day.")]
pub struct WorkersArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Lists the workers.
pub async fn run(args: WorkersArgs, config: Config) -> Result<(), CommandError> {
    let session = CommandSession::open(config, &args.connect).await?;
    let workers = queries::list_workers(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        output::print_json(&workers)?;
        return Ok(());
    }
    let mut table = output::new_table(&["worker", "state", "jobs", "slots", "kinds", "since (UTC)", "seen (UTC)"]);
    for worker in workers {
        table.add_row(vec![
            worker.name.into(),
            worker.state.into(),
            right_cell(worker.running),
            right_cell(worker.concurrency),
            worker.kinds.join(", ").into(),
            output::format_minute(worker.started_at).into(),
            worker.seen_at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}
