//! `vinops bench windows`: time, memory and disk space of a window.
//!
//! Each repeat measures the baseline, then the first window of a new database, then the steady windows after it. The
//! limits are goals of this project for [`STANDARD_ROWS`]. At other sizes the metrics are printed without a comparison.

use super::figure::{Figure, Spread, markdown};
use super::files::Files;
use super::floor::Floor;
use super::growth::{Growth, Size};
use super::hand::{Worked, work};
use super::machine::Machine;
use super::place::{Ground, Place};
use super::proof::{self, Proof};
use crate::cli::Fleet;
use crate::config::Config;
use crate::db::digest::digest;
use anyhow::{Context, ensure};
use serde::Serialize;

/// Number of rows of the feed's real file, for which the limits are set.
pub const STANDARD_ROWS: usize = 153_991;

/// Parameters of the benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
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
pub struct Report {
    /// Machine and server.
    pub machine: Machine,
    /// Parameters of the benchmark.
    pub plan: Plan,
    /// Number of rows of the baseline: the readable rows of the first window.
    pub floor_rows: u64,
    /// Client that loaded the baseline.
    pub floor_via: &'static str,
    /// Duration of the baseline, in seconds.
    pub floor: Spread,
    /// Durations of the first windows.
    pub first: Timing,
    /// Durations of the steady windows.
    pub steady: Timing,
    /// Share of new and changed rows in a steady window, in percent.
    pub changed_percent: Spread,
    /// Peak memory of the worker.
    pub memory: Memory,
    /// Growth per steady window, of the repeat with the median total.
    pub growth: Growth,
    /// Verification of the work.
    pub proof: Proof,
    /// Metrics that have a limit.
    pub figures: Vec<Figure>,
}

/// Durations of first or of steady windows, in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// Duration from the first claim to the end of the last job.
    pub seconds: Spread,
    /// Ratio of the duration to the baseline of the same repeat.
    pub ratio: Spread,
    /// Duration of each step, from the report of its job, in the order of the jobs.
    pub steps: Vec<(&'static str, Spread)>,
    /// Duration between the steps, for claims and commits.
    pub between: Spread,
    /// Duration of the whole command, including the connection and the import of the file.
    pub command: Spread,
}

/// Peak memory of the worker, in MB (10^6 bytes).
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Peak in a first window.
    pub first_mb: Spread,
    /// Peak in a steady window.
    pub steady_mb: Spread,
    /// Peaks with the larger feed. Null without such a feed.
    pub larger: Option<Larger>,
}

/// Peak memory with the larger feed.
#[derive(Clone, Debug, Serialize)]
pub struct Larger {
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
pub async fn measure(
    plan: Plan,
    place: &Place,
    fleet: Fleet,
    config: &Config,
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Report> {
    ensure!(plan.windows >= 2 && plan.repeats >= 1, "at least two windows and one repeat are required");
    told(format!("simulating {} windows of {} rows", plan.windows, plan.rows));
    let files = Files::simulate(plan.seed, plan.rows, plan.windows).await?;
    let (ready, floor_rows) = files.ready_json().await?;
    let floor = Floor { file: ready, psql: place.psql() };
    let bare = place.ground().await?;
    let machine = Machine::look(&bare.db.pool, place.describe().await?).await?;

    let (mut floors, mut firsts, mut steadies, mut growths) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut proved = None;
    for repeat in 1..=plan.repeats {
        let base = floor.measure(&bare).await?;
        floors.push(base);
        let ground = place.ground().await?;
        let first = work(&ground, &files.windows[0]).await?;
        let before = Size::settled(&ground).await?;
        let mut after = None;
        let mut said = format!(
            "repeat {repeat} of {}: baseline {base:.2} s, first window {:.2} s",
            plan.repeats, first.seconds
        );
        firsts.push((first, base));
        for window in &files.windows[1..] {
            let steady = work(&ground, window).await?;
            said.push_str(&format!(", {:.2} s", steady.seconds));
            steadies.push((steady, base));
            after = Some(Size::settled(&ground).await?);
        }
        told(said);
        growths.extend(after.map(|after| after.since(&before, plan.windows - 1)));
        if repeat == plan.repeats {
            told("exporting the files".to_owned());
            proved = Some(prove(&plan, place, &ground, &files, fleet, config, told).await?);
        }
        place.leave(ground).await?;
    }
    place.leave(bare).await?;
    growths.sort_by(|a, b| a.total_mb.total_cmp(&b.total_mb));
    let growth = growths.get(growths.len() / 2).cloned().context("no growth was measured")?;

    drop(files);
    let memory = memory(&plan, place, &firsts, &steadies, told).await?;
    let mut report = Report {
        machine,
        floor_rows,
        floor_via: floor.via(),
        floor: Spread::of(floors),
        first: Timing::of(&firsts),
        steady: Timing::of(&steadies),
        changed_percent: Spread::of(steadies.iter().map(|(worked, _)| {
            let s = &worked.summary;
            100.0 * (s.new + s.changed) as f64 / s.rows.max(1) as f64
        })),
        memory,
        growth,
        proof: proved.context("no repeat was verified")?,
        figures: Vec::new(),
        plan,
    };
    report.figures = figures(&report);
    Ok(report)
}

/// Returns the peak memory of the windows, and of windows of the larger feed if the plan has one.
async fn memory(
    plan: &Plan,
    place: &Place,
    firsts: &[(Worked, f64)],
    steadies: &[(Worked, f64)],
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Memory> {
    let peaks =
        |worked: &[(Worked, f64)]| Spread::of(worked.iter().map(|(worked, _)| worked.summary.peak_rss_mb));
    let (first_mb, steady_mb) = (peaks(firsts), peaks(steadies));
    let larger = match plan.memory_rows {
        Some(rows) => {
            told(format!("simulating 2 windows of {rows} rows, for memory"));
            Some(larger(plan, rows, place, &first_mb, &steady_mb).await?)
        }
        None => None,
    };
    Ok(Memory { first_mb, steady_mb, larger })
}

async fn prove(
    plan: &Plan,
    place: &Place,
    ground: &Ground,
    files: &Files,
    fleet: Fleet,
    config: &Config,
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Proof> {
    let count = proof::files_come_back(ground, files).await?;
    let measured = digest(&ground.db.pool).await?;
    let full = if plan.verify {
        told("processing all windows in full, to compare the digests".to_owned());
        Some(proof::full_digest(place, files, fleet, config).await?)
    } else {
        None
    };
    Ok(Proof { files: count, measured, full })
}

async fn larger(
    plan: &Plan,
    rows: usize,
    place: &Place,
    first: &Spread,
    steady: &Spread,
) -> anyhow::Result<Larger> {
    ensure!(rows > plan.rows, "--memory-rows {rows} is not greater than --rows {}", plan.rows);
    let files = Files::simulate(plan.seed, rows, 2).await?;
    let ground = place.ground().await?;
    let [first_window, next] = files.windows.as_slice() else {
        anyhow::bail!("expected two simulated windows")
    };
    let (big_first, big_steady) = (work(&ground, first_window).await?, work(&ground, next).await?);
    place.leave(ground).await?;
    let beyond = (rows - plan.rows) as f64;
    let per_row = |big: &Worked, usual: &Spread| (big.summary.peak_rss_mb - usual.median) * 1e6 / beyond;
    Ok(Larger {
        rows: big_first.summary.rows,
        first_mb: big_first.summary.peak_rss_mb,
        steady_mb: big_steady.summary.peak_rss_mb,
        first_bytes_per_row: per_row(&big_first, first),
        steady_bytes_per_row: per_row(&big_steady, steady),
    })
}

/// Name of a step in the table, and the function that returns its seconds.
type Step = (&'static str, fn(&Worked) -> f64);

const STEPS: [Step; 4] = [
    ("ingest", |worked| worked.summary.seconds.ingest),
    ("upsert vehicles", |worked| worked.summary.seconds.upsert_vehicles),
    ("upsert lots", |worked| worked.summary.seconds.upsert_lots),
    ("detect completion", |worked| worked.summary.seconds.detect_completion),
];

impl Timing {
    fn of(worked: &[(Worked, f64)]) -> Timing {
        let spread =
            |read: &dyn Fn(&Worked) -> f64| Spread::of(worked.iter().map(|(worked, _)| read(worked)));
        Timing {
            seconds: spread(&|worked| worked.seconds),
            ratio: Spread::of(worked.iter().map(|(worked, floor)| worked.seconds / floor)),
            steps: STEPS.iter().map(|(name, read)| (*name, spread(read))).collect(),
            between: spread(&|worked| {
                worked.seconds - STEPS.iter().map(|(_, read)| read(worked)).sum::<f64>()
            }),
            command: spread(&|worked| worked.command_seconds),
        }
    }
}

/// Name of a row in the table of durations, and the function that returns its statistics.
type Line = (&'static str, fn(&Timing) -> &Spread);

fn figures(report: &Report) -> Vec<Figure> {
    let standard = report.plan.rows == STANDARD_ROWS && report.machine.optimised;
    let figure = |name, value, unit, limit| Figure::new(name, value, unit, limit, standard);
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

impl Report {
    /// Returns true if the verification succeeded.
    pub fn holds(&self) -> bool {
        self.proof.holds()
    }

    /// Formats the report as Markdown, in the form of the README. `verbose` adds the growth by relation.
    pub fn text(&self, verbose: bool) -> String {
        let plan = &self.plan;
        let mut out = format!(
            "{}\n{} rows, {} windows, {} repeats; seconds are medians (min..max)\n\n",
            self.machine.text(),
            plan.rows,
            plan.windows,
            plan.repeats
        );
        out.push_str(&self.times());
        out.push('\n');
        let rows = self.figures.iter().map(|figure| {
            let digits = if figure.limit < 10.0 { 2 } else { 1 };
            vec![
                figure.name.to_owned(),
                format!("{:.digits$} {}", figure.value, figure.unit),
                format!("{} {}", figure.limit, figure.unit),
                figure.verdict().to_owned(),
            ]
        });
        out.push_str(&markdown(&["", "measured", "at most", ""], &rows.collect::<Vec<_>>()));
        out.push('\n');
        out.push_str(&self.rest());
        if verbose {
            let rows = self.growth.relations.iter().map(|(name, mb)| vec![name.clone(), format!("{mb:.2}")]);
            out.push('\n');
            out.push_str(&markdown(
                &["growth by relation, with its indexes", "MB"],
                &rows.collect::<Vec<_>>(),
            ));
        }
        out
    }

    fn times(&self) -> String {
        let headings = ["s", "first window", "steady window"];
        let both = |name: &str, first: String, steady: String| vec![name.to_owned(), first, steady];
        let mut rows =
            vec![both(&format!("baseline: {}", self.floor_via), self.floor.text(2), String::new())];
        for ((name, first), (_, steady)) in self.first.steps.iter().zip(&self.steady.steps) {
            rows.push(both(name, first.text(2), steady.text(2)));
        }
        let lines: [Line; 4] = [
            ("between the steps", |timing| &timing.between),
            ("all steps", |timing| &timing.seconds),
            ("all steps / baseline of the same repeat", |timing| &timing.ratio),
            ("`vinops ingest`, start to end", |timing| &timing.command),
        ];
        rows.extend(
            lines.map(|(name, read)| both(name, read(&self.first).text(2), read(&self.steady).text(2))),
        );
        markdown(&headings, &rows)
    }

    fn rest(&self) -> String {
        let mut out = format!(
            "Baseline: {} rows into a table without indexes. New and changed rows in a steady window: {} %.\n",
            self.floor_rows,
            self.changed_percent.text(1)
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
