//! A window worked by a process of its own: `vinops ingest FILE --json`, as an operator would call it.

use super::files::Window;
use super::place::Ground;
use crate::cli::Summary;
use anyhow::{Context, bail};
use serde::Serialize;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Instant;

/// Runs its command as a child and hands on how it ended. A process inherits, for good, the peak memory of the one that
/// called it into being; a shell in between is small, so that the peak is the worker's own.
const BETWEEN: &str = r#""$0" "$@"; exit $?"#;

/// One window, worked.
#[derive(Clone, Debug, Serialize)]
pub struct Worked {
    /// What the command printed.
    pub summary: Summary,
    /// From the claim of the first job to the end of the last, waits in the queue included.
    pub seconds: f64,
    /// Of the whole command: connecting and taking in the file as well.
    pub command_seconds: f64,
}

/// Works one window on `ground`.
pub async fn work(ground: &Ground, window: &Window) -> anyhow::Result<Worked> {
    let path = window.path.to_str().context("the temporary folder's name is not UTF-8")?;
    ground.checkpoint().await?;
    let began = Instant::now();
    let said = vinops(ground, &["ingest", path, "--json"]).await?;
    let command_seconds = began.elapsed().as_secs_f64();
    let summary: Summary =
        serde_json::from_slice(&said.stdout).context("read what `vinops ingest` printed")?;
    if summary.state != "applied" {
        bail!("{path} ended {}", summary.state);
    }
    let seconds = sqlx::query_scalar!(
        r#"-- bench: span of a file's chain
        select extract(epoch from max(a.finished_at) - min(a.started_at))::float8 as "seconds!"
        from fleet.jobs j
        join fleet.job_attempts a on a.job_id = j.id
        where j.key = $1"#,
        summary.file_id.to_string()
    )
    .fetch_one(&ground.db.pool)
    .await
    .context("measure the chain")?;
    Ok(Worked { summary, seconds, command_seconds })
}

/// Runs this program on `ground`; an error holds what it said.
pub async fn vinops(ground: &Ground, arguments: &[&str]) -> anyhow::Result<Output> {
    let program = std::env::current_exe().context("find this program")?;
    let said = tokio::process::Command::new(Path::new("/bin/sh"))
        .args(["-c", BETWEEN])
        .arg(program)
        .args(arguments)
        .env("DATABASE_URL", &ground.url)
        .env("DATABASE_DIRECT_URL", &ground.url)
        .env("VINOPS_STORE", ground.store()?)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("run this program once more")?;
    if !said.status.success() {
        bail!(
            "vinops {}: {}: {}",
            arguments.join(" "),
            said.status,
            String::from_utf8_lossy(&said.stderr).trim()
        );
    }
    Ok(said)
}
