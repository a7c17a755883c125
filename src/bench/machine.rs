//! The machine and the PostgreSQL server on which a benchmark ran.

use anyhow::Context;
use serde::Serialize;
use sqlx::PgPool;

/// Description of the machine and its PostgreSQL server.
#[derive(Clone, Debug, Serialize)]
pub struct MachineInfo {
    /// Number of processors that this process may use.
    pub cores: usize,
    /// Model name of the processor, or the architecture if the name is not known.
    pub cpu: String,
    /// Memory in MB (10^6 bytes), or 0 if not known.
    pub memory_mb: u64,
    /// Load average of the minute before the run, or 0 if not known.
    pub load: f64,
    /// Version of the server and origin of its programs.
    pub postgres: String,
    /// Server settings that affect writes, as `name=value` pairs.
    pub settings: String,
    /// True if this program is an optimised build.
    pub optimised: bool,
}

impl MachineInfo {
    /// Reads the description of the machine and the server's settings. `postgres` is the description of the server.
    pub async fn inspect(pool: &PgPool, postgres: String) -> anyhow::Result<MachineInfo> {
        let settings = sqlx::query_scalar!(
            r#"-- bench: settings
            select string_agg(name || '=' || current_setting(name), ', ' order by name) as "settings!"
            from pg_settings
            where name in (
              'fsync', 'full_page_writes', 'jit', 'max_wal_size', 'shared_buffers', 'synchronous_commit', 'wal_buffers',
              'wal_compression', 'wal_level', 'work_mem'
            )"#
        )
        .fetch_one(pool)
        .await
        .context("could not read the server's settings")?;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kilobytes = proc_field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|total| total.trim_end_matches("kB").trim().parse::<u64>().ok());
        Ok(MachineInfo {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: proc_field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_mb: kilobytes.unwrap_or(0) * 1024 / 1_000_000,
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            postgres,
            settings,
            optimised: !cfg!(debug_assertions),
        })
    }

    /// Formats the description as three lines of text, with a warning for a debug build.
    pub fn to_text(&self) -> String {
        let warning =
            if self.optimised { "" } else { "\nDebug build without optimisation: the results are not valid." };
        format!(
            "{} cores of {}, {:.0} GB of memory, load {:.1} at the start\n{}\n{}{warning}",
            self.cores,
            self.cpu,
            self.memory_mb as f64 / 1000.0,
            self.load,
            self.postgres,
            self.settings
        )
    }
}

/// Returns the value of a line `name : value` in a file of `/proc`.
fn proc_field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}
