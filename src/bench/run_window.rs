//! Runs one window in a process of its own: `vinops ingest FILE --json`, as an operator would call it.

use super::files::WindowFile;
use super::server::BenchDatabase;
use crate::cli::WindowSummary;
use anyhow::{Context, bail};
use serde::Serialize;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;

/// Shell script that runs its arguments as a child and exits with the child's status.
///
/// A process permanently inherits the peak memory of the process that created it. A shell in between is small, so the
/// measured peak is that of the worker.
const SHELL_WRAPPER: &str = r#""$0" "$@"; exit $?"#;

/// Result of one processed window.
#[derive(Clone, Debug, Serialize)]
pub struct WindowRun {
    /// Summary that the command printed.
    pub summary: WindowSummary,
    /// Seconds from the claim of the first job to the end of the last job, including waits in the queue.
    pub seconds: f64,
    /// Seconds of the whole command, including the connection and the import of the file.
    pub command_seconds: f64,
}

/// Processes one window in a database with `vinops ingest`.
///
/// # Errors
/// Returns an error if the window does not end as applied.
pub async fn run_window(database: &BenchDatabase, window: &WindowFile) -> anyhow::Result<WindowRun> {
    let path = window.path.to_str().context("the path of the temporary folder is not UTF-8")?;
    database.checkpoint().await?;
    let began = Instant::now();
    let said = run_vinops(database, &["ingest", path, "--json"]).await?;
    let command_seconds = began.elapsed().as_secs_f64();
    let summary: WindowSummary =
        serde_json::from_slice(&said.stdout).context("could not parse the output of `vinops ingest`")?;
    if summary.state != "applied" {
        bail!("file {path} ended in state {}; expected applied", summary.state);
    }
    let seconds = sqlx::query_scalar!(
        r#"-- bench: span of a file's chain
        select extract(epoch from max(a.finished_at) - min(a.started_at))::float8 as "seconds!"
        from fleet.jobs j
        join fleet.job_attempts a on a.job_id = j.id
        where j.key = $1"#,
        summary.file_id.to_string()
    )
    .fetch_one(&database.db.pool)
    .await
    .context("could not read the duration of the window's jobs")?;
    Ok(WindowRun { summary, seconds, command_seconds })
}

/// Runs this program on a database and its store, and returns its output.
///
/// # Errors
/// Returns an error with the program's standard error if the program fails.
pub async fn run_vinops(database: &BenchDatabase, arguments: &[&str]) -> anyhow::Result<Output> {
    let program = std::env::current_exe().context("could not find the path of this program")?;
    let said = tokio::process::Command::new(Path::new("/bin/sh"))
        .args(["-c", SHELL_WRAPPER])
        .arg(program)
        .args(arguments)
        .env("DATABASE_URL", &database.url)
        .env("DATABASE_DIRECT_URL", &database.url)
        .env("VINOPS_STORE", database.store_url()?)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("could not start this program as a child")?;
    if !said.status.success() {
        bail!(
            "`vinops {}` failed ({}): {}",
            arguments.join(" "),
            said.status,
            String::from_utf8_lossy(&said.stderr).trim()
        );
    }
    Ok(said)
}
