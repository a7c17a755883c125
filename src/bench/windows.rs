//! `vinops bench windows`: time, memory and disk space of a window.
//!
//! Each repeat measures the baseline, then the first window of a new database, then the steady windows after it. The
//! limits are goals of this project for [`STANDARD_ROWS`]. At other sizes the metrics are printed without a comparison.

use super::baseline::CopyBaseline;
use super::files::BenchFiles;
use super::growth::{StorageGrowth, StorageSize};
use super::machine::MachineInfo;
use super::metric::{BenchMetric, SampleStats, markdown_table};
use super::run_window::{WindowRun, run_window};
use super::server::{BenchDatabase, BenchServer};
use super::verification::{self, Verification};
use crate::cli::JobRegistry;
use crate::config::Config;
use crate::db::digest::compute_digest;
use anyhow::{Context, ensure};
use serde::Serialize;

/// Number of rows of the feed's real file, for which the limits are set.
pub const STANDARD_ROWS: usize = 153_991;

/// Parameters of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct WindowsBenchPlan {
    /// Number of rows of a window.
    pub rows: usize,
    /// Number of windows of a repeat, including the first.
    pub windows: u32,
    /// Number of repeats, each in a new database.
    pub repeats: u32,
    /// Number of rows of a second, larger feed, of which only the memory is measured. None without such a feed.
    pub memory_rows: Option<usize>,
    /// True if all windows are also processed in full, to compare the digests.
    pub verify: bool,
    /// Seed of the simulated feed.
    pub seed: u64,
}

/// Results of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct WindowsBenchReport {
    /// Machine and server.
    pub machine: MachineInfo,
    /// Parameters of the benchmark.
    pub plan: WindowsBenchPlan,
    /// Number of rows of the baseline: the readable rows of the first window.
    pub floor_rows: u64,
    /// Client that loaded the baseline.
    pub floor_via: &'static str,
    /// Duration of the baseline, in seconds.
    pub floor: SampleStats,
    /// Durations of the first windows.
    pub first: WindowTiming,
    /// Durations of the steady windows.
    pub steady: WindowTiming,
    /// Share of new and changed rows in a steady window, in percent.
    pub changed_percent: SampleStats,
    /// Peak memory of the worker.
    pub memory: MemoryPeaks,
    /// Growth per steady window, of the repeat with the median total.
    pub growth: StorageGrowth,
    /// Verification of the work.
    pub proof: Verification,
    /// Metrics that have a limit.
    pub figures: Vec<BenchMetric>,
}

/// Durations of first or of steady windows, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct WindowTiming {
    /// Duration from the first claim to the end of the last job.
    pub seconds: SampleStats,
    /// Ratio of the duration to the baseline of the same repeat.
    pub ratio: SampleStats,
    /// Duration of each step, from the report of its job, in the order of the jobs.
    pub steps: Vec<(&'static str, SampleStats)>,
    /// Duration between the steps, for claims and commits.
    pub between: SampleStats,
    /// Duration of the whole command, including the connection and the import of the file.
    pub command: SampleStats,
}

/// Peak memory of the worker, in MB (10^6 bytes).
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPeaks {
    /// Peak in a first window.
    pub first_mb: SampleStats,
    /// Peak in a steady window.
    pub steady_mb: SampleStats,
    /// Peaks with the larger feed. Null without such a feed.
    pub larger: Option<LargerFeedMemory>,
}

/// Peak memory with the larger feed.
#[derive(Clone, Debug, Serialize)]
pub struct LargerFeedMemory {
    /// Number of rows of the first window.
    pub rows: i64,
    /// Peak in the first window, in MB.
    pub first_mb: f64,
    /// Peak in the second window, in MB.
    pub steady_mb: f64,
    /// Additional peak memory of a first window per additional row, in bytes.
    pub first_bytes_per_row: f64,
    /// Additional peak memory of a steady window per additional row, in bytes.
    pub steady_bytes_per_row: f64,
}

/// Runs the benchmark and reports progress through a callback.
pub async fn measure_windows(
    plan: WindowsBenchPlan,
    place: &BenchServer,
    fleet: JobRegistry,
    config: &Config,
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<WindowsBenchReport> {
    ensure!(plan.windows >= 2 && plan.repeats >= 1, "at least two windows and one repeat are required");
    report_line(format!("simulating {} windows of {} rows", plan.windows, plan.rows));
    let files = BenchFiles::simulate(plan.seed, plan.rows, plan.windows).await?;
    let (ready, floor_rows) = files.write_ready_json().await?;
    let floor = CopyBaseline { file: ready, psql: place.find_psql() };
    let bare = place.create_database().await?;
    let machine = MachineInfo::inspect(&bare.db.pool, place.describe().await?).await?;

    let (mut floors, mut firsts, mut steadies, mut growths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut proved = None;
    for repeat in 1..=plan.repeats {
        let base = floor.measure_seconds(&bare).await?;
        floors.push(base);
        let database = place.create_database().await?;
        let first = run_window(&database, &files.windows[0]).await?;
        let before = StorageSize::measure_vacuumed(&database).await?;
        let mut after = None;
        let mut said =
            format!("repeat {repeat} of {}: baseline {base:.2} s, first window {:.2} s", plan.repeats, first.seconds);
        firsts.push((first, base));
        for window in &files.windows[1..] {
            let steady = run_window(&database, window).await?;
            said.push_str(&format!(", {:.2} s", steady.seconds));
            steadies.push((steady, base));
            after = Some(StorageSize::measure_vacuumed(&database).await?);
        }
        report_line(said);
        growths.extend(after.map(|after| after.growth_since(&before, plan.windows - 1)));
        if repeat == plan.repeats {
            report_line("exporting the files".to_owned());
            proved = Some(verify_run(&plan, place, &database, &files, fleet, config, report_line).await?);
        }
        place.drop_database(database).await?;
    }
    place.drop_database(bare).await?;
    growths.sort_by(|a, b| a.total_mb.total_cmp(&b.total_mb));
    let growth = growths.get(growths.len() / 2).cloned().context("no growth was measured")?;

    drop(files);
    let memory = measure_memory(&plan, place, &firsts, &steadies, report_line).await?;
    let mut report = WindowsBenchReport {
        machine,
        floor_rows,
        floor_via: floor.method_name(),
        floor: SampleStats::from_samples(floors),
        first: WindowTiming::from_runs(&firsts),
        steady: WindowTiming::from_runs(&steadies),
        changed_percent: SampleStats::from_samples(steadies.iter().map(|(worked, _)| {
            let s = &worked.summary;
            100.0 * (s.new + s.changed) as f64 / s.rows.max(1) as f64
        })),
        memory,
        growth,
        proof: proved.context("no repeat was verified")?,
        figures: Vec::new(),
        plan,
    };
    report.figures = limit_metrics(&report);
    Ok(report)
}

/// Returns the peak memory of the windows, and of windows of the larger feed if the plan has one.
async fn measure_memory(
    plan: &WindowsBenchPlan,
    place: &BenchServer,
    firsts: &[(WindowRun, f64)],
    steadies: &[(WindowRun, f64)],
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<MemoryPeaks> {
    let peaks = |worked: &[(WindowRun, f64)]| {
        SampleStats::from_samples(worked.iter().map(|(worked, _)| worked.summary.peak_rss_mb))
    };
    let (first_mb, steady_mb) = (peaks(firsts), peaks(steadies));
    let larger = match plan.memory_rows {
        Some(rows) => {
            report_line(format!("simulating 2 windows of {rows} rows, for memory"));
            Some(measure_larger(plan, rows, place, &first_mb, &steady_mb).await?)
        }
        None => None,
    };
    Ok(MemoryPeaks { first_mb, steady_mb, larger })
}

async fn verify_run(
    plan: &WindowsBenchPlan,
    place: &BenchServer,
    database: &BenchDatabase,
    files: &BenchFiles,
    fleet: JobRegistry,
    config: &Config,
    report_line: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Verification> {
    let count = verification::verify_exports(database, files).await?;
    let measured = compute_digest(&database.db.pool).await?;
    let full = if plan.verify {
        report_line("processing all windows in full, to compare the digests".to_owned());
        Some(verification::full_digest(place, files, fleet, config).await?)
    } else {
        None
    };
    Ok(Verification { files: count, measured, full })
}

async fn measure_larger(
    plan: &WindowsBenchPlan,
    rows: usize,
    place: &BenchServer,
    first: &SampleStats,
    steady: &SampleStats,
) -> anyhow::Result<LargerFeedMemory> {
    ensure!(rows > plan.rows, "--memory-rows {rows} is not greater than --rows {}", plan.rows);
    let files = BenchFiles::simulate(plan.seed, rows, 2).await?;
    let database = place.create_database().await?;
    let [first_window, next] = files.windows.as_slice() else { anyhow::bail!("expected two simulated windows") };
    let (big_first, big_steady) = (run_window(&database, first_window).await?, run_window(&database, next).await?);
    place.drop_database(database).await?;
    let beyond = (rows - plan.rows) as f64;
    let per_row = |big: &WindowRun, usual: &SampleStats| (big.summary.peak_rss_mb - usual.median) * 1e6 / beyond;
    Ok(LargerFeedMemory {
        rows: big_first.summary.rows,
        first_mb: big_first.summary.peak_rss_mb,
        steady_mb: big_steady.summary.peak_rss_mb,
        first_bytes_per_row: per_row(&big_first, first),
        steady_bytes_per_row: per_row(&big_steady, steady),
    })
}

/// Name of a step in the table, and the function that returns its seconds.
type StepColumn = (&'static str, fn(&WindowRun) -> f64);

const STEP_COLUMNS: [StepColumn; 4] = [
    ("ingest", |worked| worked.summary.seconds.ingest),
    ("upsert vehicles", |worked| worked.summary.seconds.upsert_vehicles),
    ("upsert lots", |worked| worked.summary.seconds.upsert_lots),
    ("detect completion", |worked| worked.summary.seconds.detect_completion),
];

impl WindowTiming {
    fn from_runs(worked: &[(WindowRun, f64)]) -> WindowTiming {
        let spread =
            |read: &dyn Fn(&WindowRun) -> f64| SampleStats::from_samples(worked.iter().map(|(worked, _)| read(worked)));
        WindowTiming {
            seconds: spread(&|worked| worked.seconds),
            ratio: SampleStats::from_samples(worked.iter().map(|(worked, floor)| worked.seconds / floor)),
            steps: STEP_COLUMNS.iter().map(|(name, read)| (*name, spread(read))).collect(),
            between: spread(&|worked| worked.seconds - STEP_COLUMNS.iter().map(|(_, read)| read(worked)).sum::<f64>()),
            command: spread(&|worked| worked.command_seconds),
        }
    }
}

/// Name of a row in the table of durations, and the function that returns its statistics.
type TimingRow = (&'static str, fn(&WindowTiming) -> &SampleStats);

fn limit_metrics(report: &WindowsBenchReport) -> Vec<BenchMetric> {
    let standard = report.plan.rows == STANDARD_ROWS && report.machine.optimised;
    let figure = |name, value, unit, limit| BenchMetric::new(name, value, unit, limit, standard);
    let floor = report.floor.median;
    let mut figures = vec![
        figure("first window / baseline", report.first.seconds.median / floor, "x", 2.8),
        figure("steady window / baseline", report.steady.seconds.median / floor, "x", 0.4),
        figure("peak memory, first window", report.memory.first_mb.max, "MB", 64.0),
        figure("peak memory, steady window", report.memory.steady_mb.max, "MB", 64.0),
    ];
    if let Some(larger) = &report.memory.larger {
        figures.push(figure("memory per further row, first", larger.first_bytes_per_row, "B", 60.0));
        figures.push(figure("memory per further row, steady", larger.steady_bytes_per_row, "B", 60.0));
    }
    figures.push(figure("growth per steady window", report.growth.total_mb, "MB", 36.0));
    figures
}

impl WindowsBenchReport {
    /// Returns true if the verification succeeded.
    pub fn has_passed(&self) -> bool {
        self.proof.has_passed()
    }

    /// Formats the report as Markdown, in the form of the README. `verbose` adds the growth by relation.
    pub fn to_text(&self, verbose: bool) -> String {
        let plan = &self.plan;
        let mut out = format!(
            "{}\n{} rows, {} windows, {} repeats; seconds are medians (min..max)\n\n",
            self.machine.to_text(),
            plan.rows,
            plan.windows,
            plan.repeats
        );
        out.push_str(&self.timing_table());
        out.push('\n');
        let rows = self.figures.iter().map(|figure| {
            let digits = if figure.limit < 10.0 { 2 } else { 1 };
            vec![
                figure.name.to_owned(),
                format!("{:.digits$} {}", figure.value, figure.unit),
                format!("{} {}", figure.limit, figure.unit),
                figure.result_label().to_owned(),
            ]
        });
        out.push_str(&markdown_table(&["", "measured", "at most", ""], &rows.collect::<Vec<_>>()));
        out.push('\n');
        out.push_str(&self.summary_text());
        if verbose {
            let rows = self.growth.relations.iter().map(|(name, mb)| vec![name.clone(), format!("{mb:.2}")]);
            out.push('\n');
            out.push_str(&markdown_table(&["growth by relation, with its indexes", "MB"], &rows.collect::<Vec<_>>()));
        }
        out
    }

    fn timing_table(&self) -> String {
        let headings = ["s", "first window", "steady window"];
        let both = |name: &str, first: String, steady: String| vec![name.to_owned(), first, steady];
        let mut rows = vec![both(&format!("baseline: {}", self.floor_via), self.floor.to_text(2), String::new())];
        for ((name, first), (_, steady)) in self.first.steps.iter().zip(&self.steady.steps) {
            rows.push(both(name, first.to_text(2), steady.to_text(2)));
        }
        let lines: [TimingRow; 4] = [
            ("between the steps", |timing| &timing.between),
            ("all steps", |timing| &timing.seconds),
            ("all steps / baseline of the same repeat", |timing| &timing.ratio),
            ("`vinops ingest`, start to end", |timing| &timing.command),
        ];
        rows.extend(lines.map(|(name, read)| both(name, read(&self.first).to_text(2), read(&self.steady).to_text(2))));
        markdown_table(&headings, &rows)
    }

    fn summary_text(&self) -> String {
        let mut out = format!(
            "Baseline: {} rows into a table without indexes. New and changed rows in a steady window: {} %.\n",
            self.floor_rows,
            self.changed_percent.to_text(1)
        );
        let growth = &self.growth;
        out.push_str(&format!(
            "Growth: database {:.1} MB, store {:.1} MB per steady window, over {} of them.\n",
            growth.database_mb, growth.store_mb, growth.windows
        ));
        if let Some(larger) = &self.memory.larger {
            out.push_str(&format!(
                "With {} rows: peak {:.1} MB in the first window, {:.1} MB in the next.\n",
                larger.rows, larger.first_mb, larger.steady_mb
            ));
        }
        out.push_str(&format!("`vinops raw export` returned {} files byte for byte.\n", self.proof.files));
        match &self.proof.full {
            None => out.push_str("The digest was not compared with full processing (see --verify).\n"),
            Some(full) if *full == self.proof.measured => {
                out.push_str("The digest is equal to that of full processing.\n");
            }
            Some(full) => {
                out.push_str(&format!(
                    "THE DIGEST DIFFERS from full processing: {:?}, in full {full:?}\n",
                    self.proof.measured
                ));
            }
        }
        out
    }
}
