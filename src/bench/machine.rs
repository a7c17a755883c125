//! What the figures were taken on.

use anyhow::Context;
use serde::Serialize;
use sqlx::PgPool;

/// A machine and its PostgreSQL.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// What they call themselves.
    pub cpu: String,
    /// In 10^6 bytes.
    pub memory_mb: u64,
    /// The load over the last minute when the run began: neighbours show in the spread.
    pub load: f64,
    /// Which server, and where its programs come from.
    pub postgres: String,
    /// The settings that decide about writing, as the server has them.
    pub settings: String,
    /// Whether this program was built with optimisation.
    pub optimised: bool,
}

impl Machine {
    /// Looks around; `postgres` is how the place describes its server.
    pub async fn look(pool: &PgPool, postgres: String) -> anyhow::Result<Machine> {
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
        .context("read the server's settings")?;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|total| total.trim_end_matches("kB").trim().parse::<u64>().ok());
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_mb: kilobytes.unwrap_or(0) * 1024 / 1_000_000,
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            postgres,
            settings,
            optimised: !cfg!(debug_assertions),
        })
    }

    /// In three lines, for people.
    pub fn text(&self) -> String {
        let warning =
            if self.optimised { "" } else { "\nNot optimised (a debug build): the figures mean nothing." };
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

/// The value of a line `name : value`, as the files of `/proc` have them.
fn field(text: &str, name: &str) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}
