//! Other queues on PostgreSQL, measured if they are installed: graphile-worker and procrastinate.
//!
//! Node.js finds graphile-worker from the working directory or globally, and python3 finds procrastinate. Each queue
//! gets the same number of jobs that do nothing, enqueued by its own function, and one worker with as many slots as
//! ours. The measurement lasts from the worker's start to the end of the last job.

use super::queue::WORKER_SLOTS;
use serde::Serialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Result of another queue.
#[derive(Clone, Debug, Serialize)]
pub struct CompetitorRate {
    /// Name of the queue, with its version if it was measured.
    pub name: String,
    /// Jobs per second, or the reason why there is no result.
    pub measured: Result<f64, String>,
}

/// Maximum duration of one measurement.
const COMPETITOR_TIMEOUT: Duration = Duration::from_secs(120);

/// Measures both queues. Their scripts take the database URL, the number of jobs and the number of slots, and print the
/// version and the seconds.
pub async fn measure_competitors(url: &str, jobs: usize) -> anyhow::Result<Vec<CompetitorRate>> {
    let graphile = measure_competitor("graphile-worker", "node", &["-e", GRAPHILE_WORKER_SCRIPT], url, jobs).await;
    let procrastinate = measure_competitor("procrastinate", "python3", &["-c", PROCRASTINATE_SCRIPT], url, jobs).await;
    Ok(vec![graphile, procrastinate])
}

async fn measure_competitor(name: &str, program: &str, arguments: &[&str], url: &str, jobs: usize) -> CompetitorRate {
    let mut command = Command::new(program);
    command.args(arguments).args([url.to_owned(), jobs.to_string(), WORKER_SLOTS.to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let without = |why: String| CompetitorRate { name: name.to_owned(), measured: Err(why) };
    let said = match tokio::time::timeout(COMPETITOR_TIMEOUT, command.output()).await {
        Ok(Ok(said)) => said,
        Ok(Err(_)) => return without(format!("not measured: {program} is not installed")),
        Err(_) => return without(format!("not finished in {} s", COMPETITOR_TIMEOUT.as_secs())),
    };
    if said.status.code() == Some(NOT_INSTALLED_EXIT_CODE) {
        return without("not measured: not installed".to_owned());
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let result = text.lines().last().and_then(|line| line.split_once(' '));
    match result.and_then(|(version, seconds)| Some((version, seconds.parse::<f64>().ok()?))) {
        Some((version, seconds)) => {
            CompetitorRate { name: format!("{name} {version}"), measured: Ok(jobs as f64 / seconds) }
        }
        None => {
            let error = String::from_utf8_lossy(&said.stderr);
            without(format!("failed: {}", error.lines().last().unwrap_or("no error output")))
        }
    }
}

/// Exit code of both scripts if the package is not installed.
const NOT_INSTALLED_EXIT_CODE: i32 = 86;

const GRAPHILE_WORKER_SCRIPT: &str = r#"
const paths = [process.cwd(), require('node:path').join(process.execPath, '../../lib')];
let graphile, version;
try {
  graphile = require(require.resolve('graphile-worker', { paths }));
  version = require(require.resolve('graphile-worker/package.json', { paths })).version;
} catch { process.exit(86); }
const [connectionString, jobs, concurrency] = process.argv.slice(1);
const quiet = new graphile.Logger(() => () => {});
(async () => {
  const utils = await graphile.makeWorkerUtils({ connectionString, logger: quiet });
  await utils.migrate();
  await utils.withPgClient((pg) =>
    pg.query("select count(graphile_worker.add_job('nothing')) from generate_series(1, $1::int)", [jobs]));
  let left = Number(jobs), all;
  const ended = new Promise((resolve) => { all = resolve; });
  const began = process.hrtime.bigint();
  const runner = await graphile.run({
    connectionString, logger: quiet, concurrency: Number(concurrency), noHandleSignals: true, pollInterval: 100,
    maxPoolSize: Number(concurrency) + 2,
    taskList: { nothing: async () => {} },
  });
  runner.events.on('job:complete', () => { if (--left === 0) all(); });
  await ended;
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  await runner.stop();
  await utils.release();
  console.log(`${version} ${seconds}`);
})().catch((error) => { console.error(String(error)); process.exit(1); });
"#;

const PROCRASTINATE_SCRIPT: &str = r#"
import asyncio, sys, time
try:
    import procrastinate
    from importlib.metadata import version
except ImportError:
    sys.exit(86)
url, jobs, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, max_size=slots + 2))
@app.task(name="nothing")
async def nothing():
    pass
async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await nothing.batch_defer_async(*[{} for _ in range(jobs)])
        began = time.monotonic()
        await app.run_worker_async(concurrency=slots, wait=False, install_signal_handlers=False)
        print(version("procrastinate"), time.monotonic() - began)
asyncio.run(main())
"#;
