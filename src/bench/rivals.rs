//! Other queues over PostgreSQL, measured beside ours where they are installed: graphile-worker, found by Node.js from the
//! working directory or globally, and procrastinate, found by python3. Each gets the same jobs that do nothing, put in by its
//! own means, and one worker with as many slots as ours; the clock runs from the worker's start to the last job's end.

use super::queue::SLOTS;
use serde::Serialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Another queue.
#[derive(Clone, Debug, Serialize)]
pub struct Rival {
    /// Its name, with its version where it told.
    pub name: String,
    /// Jobs a second, or why there is no figure.
    pub measured: Result<f64, String>,
}

/// A rival that takes longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures what is installed; both take their database's URL, the number of jobs and of slots, and print their version
/// and the seconds.
pub async fn measure(url: &str, jobs: usize) -> anyhow::Result<Vec<Rival>> {
    let graphile = rival("graphile-worker", "node", &["-e", GRAPHILE_WORKER], url, jobs).await;
    let procrastinate = rival("procrastinate", "python3", &["-c", PROCRASTINATE], url, jobs).await;
    Ok(vec![graphile, procrastinate])
}

async fn rival(name: &str, program: &str, arguments: &[&str], url: &str, jobs: usize) -> Rival {
    let mut command = Command::new(program);
    command.args(arguments).args([url.to_owned(), jobs.to_string(), SLOTS.to_string()]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let without = |why: String| Rival { name: name.to_owned(), measured: Err(why) };
    let said = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(said)) => said,
        Ok(Err(_)) => return without(format!("not measured: no {program}")),
        Err(_) => return without(format!("not done in {} s", PATIENCE.as_secs())),
    };
    if said.status.code() == Some(ABSENT) {
        return without("not measured: not installed".to_owned());
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let told = text.lines().last().and_then(|line| line.split_once(' '));
    match told.and_then(|(version, seconds)| Some((version, seconds.parse::<f64>().ok()?))) {
        Some((version, seconds)) => {
            Rival { name: format!("{name} {version}"), measured: Ok(jobs as f64 / seconds) }
        }
        None => {
            let error = String::from_utf8_lossy(&said.stderr);
            without(format!("failed: {}", error.lines().last().unwrap_or("without a word")))
        }
    }
}

/// What both scripts exit with when the package is not there.
const ABSENT: i32 = 86;

const GRAPHILE_WORKER: &str = r#"
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

const PROCRASTINATE: &str = r#"
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
