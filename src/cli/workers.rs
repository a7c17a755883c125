//! `vinops workers`: lists the workers with their states and job kinds.

use super::Failure;
use super::session::{Connect, Session};
use super::show::{self, Json, right};
use crate::config::Config;
use crate::queue::operate;

/// Arguments of `vinops workers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A worker without a heartbeat for a whole lease is lost. Other workers have taken over its jobs. Its row stays for a \
day.")]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// Lists the workers.
pub async fn run(args: Args, config: Config) -> Result<(), Failure> {
    let session = Session::open(config, &args.connect).await?;
    let workers = operate::workers(&session.db.pool).await?;
    session.close().await?;
    if args.json.json {
        show::json(&workers)?;
        return Ok(());
    }
    let mut table = show::table(&["worker", "state", "jobs", "slots", "kinds", "since (UTC)", "seen (UTC)"]);
    for worker in workers {
        table.add_row(vec![
            worker.name.into(),
            worker.state.into(),
            right(worker.running),
            right(worker.concurrency),
            worker.kinds.join(", ").into(),
            show::minute(worker.started_at).into(),
            worker.seen_at.format("%Y-%m-%d %H:%M:%S").to_string().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}
