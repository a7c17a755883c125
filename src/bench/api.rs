//! `vinops bench api`: response times of the API while windows are being applied.
//!
//! The benchmark runs `vinops serve` on a database that `vinops ingest` filled. Clients send requests at a constant
//! rate and do not wait for one another. Meanwhile further windows are processed one by one, at a fixed interval. The
//! response time is measured from the moment a request is sent until its last byte arrives. No result consists of
//! cached responses only, because every request uses another lot or filter.
//!
//! # Why the API has no indexes of its own
//!
//! EXPLAIN (ANALYZE, BUFFERS) on 155,137 lots of the simulated feed, PostgreSQL 15, all data in shared buffers, before
//! the catalogue in memory existed (`src/api/catalogue/mod.rs`). Three filters, sorted by sale date, 51 rows:
//!
//! ```text
//! existing indexes only                                                          72 ms
//!   Nested Loop
//!     Gather Merge, Sort: Parallel Seq Scan on lots   (8,290 buffers; damage_code = …; 79,944 rows)
//!     Index Scan using vehicles_pkey on vehicles      (1,335 times; make = …, year between …)
//! lots (damage_code, auction_datetime_utc, id)                                   5.9 ms
//!   Nested Loop
//!     Index Scan using … on lots                      (1,335 rows), then vehicles_pkey 1,335 times
//! the number of matching lots, with all four indexes                              71 ms
//!   Parallel Hash Join: Parallel Seq Scan on lots, Bitmap Heap Scan on vehicles
//! a facet with a filter on make, with all four indexes                            63 ms
//!   Partial HashAggregate: Parallel Hash Join: Parallel Seq Scan on lots, Bitmap Heap Scan on vehicles
//! make % …, model % … by gin (make gin_trgm_ops, model gin_trgm_ops)              19 ms
//!   Bitmap Heap Scan on vehicles                      (20,355 rows, not joined and sorted yet)
//! ```
//!
//! The four indexes were (make, model, year), (damage_code, auction_datetime_utc, id), (auction_datetime_utc, id) and
//! the trigrams. They took 213, 262, 114 and 296 ms to build, in every first window, whose limit leaves 50 ms. They
//! took 19 MB. They serve some combinations of filters, and neither totals nor facets. Therefore the API has no indexes
//! of its own. Filters, sorts and counts use the catalogue in memory, and rows are read by the existing keys:
//!
//! ```text
//! a lot: idx_lots_external_id, vehicles_pkey, images_lot_id_idx                   0.1 ms (0.7 ms planning)
//! changes since the last read: one pass over each table by xmin                    35 ms, once per window
//! ```

use super::clients::{ApiClients, REQUEST_MIX, REQUESTS_PER_SECOND, fetch_json};
use super::files::BenchFiles;
use super::machine::MachineInfo;
use super::metric::{BenchMetric, SampleStats, markdown_table, quantile};
use super::run_window;
use super::server::{BenchDatabase, BenchServer, execute_statement};
use super::windows::STANDARD_ROWS;
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Maximum time until the server logs its address. The server reads all lots first.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Parameters of the benchmark.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ApiBenchPlan {
    /// Number of rows of a window.
    pub rows: usize,
    /// Duration of the measurement, in seconds.
    pub seconds: u32,
    /// Seconds from the start of one window to the start of the next.
    pub every: u32,
    /// Seed of the simulated feed and of the requests.
    pub seed: u64,
}

/// Response times of one kind of request, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct RequestLatency {
    /// Kind of the request.
    pub kind: &'static str,
    /// Number of requests.
    pub requests: usize,
    /// Median response time.
    pub p50: f64,
    /// 99th percentile of the response times.
    pub p99: f64,
    /// Longest response time.
    pub max: f64,
}

/// Results of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct ApiBenchReport {
    /// Machine and server.
    pub machine: MachineInfo,
    /// Parameters of the benchmark.
    pub plan: ApiBenchPlan,
    /// Number of visible lots at the end.
    pub lots: u64,
    /// Number of windows applied during the measurement.
    pub windows: usize,
    /// Duration of each window from the claim of its first job, in seconds.
    pub window_seconds: SampleStats,
    /// Seconds from the start of `vinops serve` until it listened with all lots read.
    pub start_seconds: f64,
    /// Peak memory of the server, in MB (10^6 bytes).
    pub memory_mb: f64,
    /// Response times by kind of request.
    pub answers: Vec<RequestLatency>,
    /// Metrics that have a limit.
    pub figures: Vec<BenchMetric>,
}

/// Runs the benchmark and reports progress through a callback.
pub async fn measure_api(
    plan: ApiBenchPlan,
    place: &BenchServer,
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<ApiBenchReport> {
    ensure!(plan.seconds > 0 && plan.every > 0, "--seconds and --every must be greater than 0");
    let windows = 1 + plan.seconds.div_ceil(plan.every);
    report_line(format!("simulating {windows} windows of {} rows", plan.rows));
    let files = BenchFiles::simulate(plan.seed, plan.rows, windows).await?;
    let database = place.create_database().await?;
    let machine = MachineInfo::inspect(&database.db.pool, place.describe().await?).await?;
    let (first, rest) = files.windows.split_first().context("no window was simulated")?;
    let worked = run_window::run_window(&database, first).await?;
    report_line(format!("first window: {} rows in {:.1} s", worked.summary.rows, worked.seconds));
    execute_statement(&mut database.open_session().await?, "vacuum analyze".to_owned()).await?;

    let began = Instant::now();
    let mut server = ApiServer::start(&database).await?;
    let start_seconds = began.elapsed().as_secs_f64();
    report_line(format!("server started in {start_seconds:.1} s"));
    let readers = ApiClients::new(&server.address, plan.seed).await?;
    let until = Instant::now() + Duration::from_secs(u64::from(plan.seconds));
    let working = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(u64::from(plan.every)));
        let mut seconds = Vec::new();
        for window in rest {
            ticks.tick().await;
            if Instant::now() >= until {
                break;
            }
            let worked = run_window::run_window(&database, window).await?;
            report_line(format!("window applied in {:.2} s", worked.seconds));
            seconds.push(worked.seconds);
        }
        Ok::<_, anyhow::Error>(seconds)
    };
    let (seconds, answers) = tokio::join!(working, readers.run_until(until));
    let (seconds, answers) = (seconds?, answers?);
    let found = fetch_json(&mut None, &server.address, "/api/v1/search?limit=1").await?;
    let memory_mb = server.peak_mb()?;
    server.stop().await?;
    place.drop_database(database).await?;
    let answers: Vec<RequestLatency> =
        REQUEST_MIX.iter().filter_map(|(kind, _)| request_latency(kind, answers.get(kind)?)).collect();
    let standard = plan.rows == STANDARD_ROWS && machine.optimised;
    let figures = limit_metrics(&answers, standard);
    Ok(ApiBenchReport {
        machine,
        plan,
        lots: found["total"].as_u64().unwrap_or(0),
        windows: seconds.len(),
        window_seconds: SampleStats::from_samples(seconds),
        start_seconds,
        memory_mb,
        answers,
        figures,
    })
}

fn request_latency(kind: &'static str, taken: &[f64]) -> Option<RequestLatency> {
    let mut sorted = taken.to_vec();
    sorted.sort_by(f64::total_cmp);
    let max = *sorted.last()?;
    let (p50, p99) = (quantile(&sorted, 0.5), quantile(&sorted, 0.99));
    Some(RequestLatency { kind, requests: sorted.len(), p50, p99, max })
}

fn limit_metrics(answers: &[RequestLatency], standard: bool) -> Vec<BenchMetric> {
    let limits = [
        ("search, three filters", "search with three filters, p99", 25.0),
        ("a lot", "a single lot, p99", 5.0),
        ("facets", "facets (never cached), p99", 40.0),
    ];
    let figure = |(kind, name, limit): (&str, &'static str, f64)| {
        let of = answers.iter().find(|answered| answered.kind == kind)?;
        Some(BenchMetric::new(name, of.p99, "ms", limit, standard))
    };
    limits.into_iter().filter_map(figure).collect()
}

impl ApiBenchReport {
    /// Formats the report as Markdown.
    pub fn to_text(&self) -> String {
        let ApiBenchReport { plan, window_seconds, .. } = self;
        let mut out = format!(
            "{}\n{} lots, {REQUESTS_PER_SECOND} requests/s for {} s, {} windows applied meanwhile in {} s each\n\
             Server start with all lots read: {:.1} s. Peak memory of the server: {:.0} MB.\n\n",
            self.machine.to_text(),
            self.lots,
            plan.seconds,
            self.windows,
            window_seconds.to_text(2),
            self.start_seconds,
            self.memory_mb
        );
        let rows = self.answers.iter().map(|it| {
            let ms = |value: f64| format!("{value:.2}");
            vec![it.kind.to_owned(), it.requests.to_string(), ms(it.p50), ms(it.p99), ms(it.max)]
        });
        out.push_str(&markdown_table(&["ms", "requests", "p50", "p99", "max"], &rows.collect::<Vec<_>>()));
        out.push('\n');
        let rows = self.figures.iter().map(|figure| {
            vec![
                figure.name.to_owned(),
                format!("{:.2} {}", figure.value, figure.unit),
                format!("{} {}", figure.limit, figure.unit),
                figure.result_label().to_owned(),
            ]
        });
        out.push_str(&markdown_table(&["", "measured", "at most", ""], &rows.collect::<Vec<_>>()));
        out
    }
}

/// Running `vinops serve` process. The process is killed on drop.
struct ApiServer {
    process: Child,
    address: String,
}

impl ApiServer {
    async fn start(database: &BenchDatabase) -> anyhow::Result<ApiServer> {
        let mut process = Command::new(std::env::current_exe().context("could not find the path of this program")?)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("DATABASE_URL", database.url())
            .env("DATABASE_DIRECT_URL", database.url())
            .env("VINOPS_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("could not start `vinops serve`")?;
        let mut lines = BufReader::new(process.stderr.take().context("`vinops serve` has no standard error")?).lines();
        let shown = async {
            while let Some(line) = lines.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(address) = line["address"].as_str() {
                    return Ok(address.to_owned());
                }
            }
            bail!("`vinops serve` stopped before it listened")
        };
        let address =
            tokio::time::timeout(STARTUP_TIMEOUT, shown).await.context("`vinops serve` did not start in time")??;
        // A process blocks once the pipe of its unread log is full.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
            }
        });
        Ok(ApiServer { process, address })
    }

    fn peak_mb(&self) -> anyhow::Result<f64> {
        let id = self.process.id().context("`vinops serve` has stopped")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|text| text.trim().split(' ').next()?.parse::<f64>().ok());
        Ok(kilobytes.unwrap_or(0.0) * 1024.0 / 1e6)
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("could not stop `vinops serve`")
    }
}
