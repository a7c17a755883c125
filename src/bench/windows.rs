//! `vinops bench windows`: what a window costs in time, memory and space.
//!
//! Each repeat: the floor, then a new database and its first window, then the steady windows that follow. The limits are
//! those this project set itself for [`STANDARD_ROWS`]; at other sizes the figures are printed without a verdict.

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

/// Rows of the feed's real file, for which the limits are set.
pub const STANDARD_ROWS: usize = 153_991;

/// What to measure.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Rows of a window.
    pub rows: usize,
    /// Windows of a repeat, the first included.
    pub windows: u32,
    /// How often, each time anew.
    pub repeats: u32,
    /// Rows of a second, larger feed, for memory only.
    pub memory_rows: Option<usize>,
    /// Whether to prove the digest by working all windows in full as well.
    pub verify: bool,
    /// Of the simulated feed.
    pub seed: u64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What on.
    pub machine: Machine,
    /// What was asked for.
    pub plan: Plan,
    /// Rows of the floor: the readable ones of the first window.
    pub floor_rows: u64,
    /// How the floor was measured.
    pub floor_via: &'static str,
    /// Seconds of the floor.
    pub floor: Spread,
    /// First windows.
    pub first: Timing,
    /// Steady windows.
    pub steady: Timing,
    /// The share of rows that a steady window changed or brought, in percent.
    pub changed_percent: Spread,
    /// Peaks of the worker.
    pub memory: Memory,
    /// Of a steady window.
    pub growth: Growth,
    /// That the work was done.
    pub proof: Proof,
    /// All that has a limit.
    pub figures: Vec<Figure>,
}

/// Seconds of windows of one sort.
#[derive(Clone, Debug, Serialize)]
pub struct Timing {
    /// From the first claim to the chain's end.
    pub seconds: Spread,
    /// Held against the floor of the same repeat.
    pub ratio: Spread,
    /// Of each step, by its own report, in the order of the chain.
    pub steps: Vec<(&'static str, Spread)>,
    /// Between the steps: claims, commits.
    pub between: Spread,
    /// Of the whole command, connecting and taking in the file included.
    pub command: Spread,
}

/// The most memory a worker held, in MB (10^6 bytes).
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// In a first window.
    pub first_mb: Spread,
    /// In a steady one.
    pub steady_mb: Spread,
    /// At the larger size.
    pub larger: Option<Larger>,
}

/// Memory at another size than the plan's.
#[derive(Clone, Debug, Serialize)]
pub struct Larger {
    /// Rows of its first window.
    pub rows: i64,
    /// Peak of its first window, in MB.
    pub first_mb: f64,
    /// Peak of its second, in MB.
    pub steady_mb: f64,
    /// What a row beyond the plan's size adds to a first window's peak.
    pub first_bytes_per_row: f64,
    /// The same for a steady window.
    pub steady_bytes_per_row: f64,
}

/// Measures, telling how far it is.
pub async fn measure(
    plan: Plan,
    place: &Place,
    fleet: Fleet,
    config: &Config,
    told: &(dyn Fn(String) + Sync),
) -> anyhow::Result<Report> {
    ensure!(plan.windows >= 2 && plan.repeats >= 1, "there must be a steady window, and a repeat of all");
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
            "repeat {repeat} of {}: floor {base:.2} s, first window {:.2} s",
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
        proof: proved.context("nothing was proved")?,
        figures: Vec::new(),
        plan,
    };
    report.figures = figures(&report);
    Ok(report)
}

/// Compares the memory of the windows, and of larger ones if the plan has any.
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
        told("working all windows in full, to compare".to_owned());
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
    ensure!(rows > plan.rows, "--memory-rows must be more than --rows");
    let files = Files::simulate(plan.seed, rows, 2).await?;
    let ground = place.ground().await?;
    let [first_window, next] = files.windows.as_slice() else { anyhow::bail!("two windows were asked for") };
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

/// A step's word in the tables, and its seconds.
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

/// A line's word in the table of times, and what it shows.
type Line = (&'static str, fn(&Timing) -> &Spread);

fn figures(report: &Report) -> Vec<Figure> {
    let standard = report.plan.rows == STANDARD_ROWS && report.machine.optimised;
    let figure = |name, value, unit, limit| Figure::new(name, value, unit, limit, standard);
    let floor = report.floor.median;
    let mut figures = vec![
        figure("first window / floor", report.first.seconds.median / floor, "x", 2.8),
        figure("steady window / floor", report.steady.seconds.median / floor, "x", 0.4),
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
    /// Whether what was proved holds.
    pub fn holds(&self) -> bool {
        self.proof.holds()
    }

    /// In Markdown, as the README has it.
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
        let mut rows = vec![both(&format!("floor: {}", self.floor_via), self.floor.text(2), String::new())];
        for ((name, first), (_, steady)) in self.first.steps.iter().zip(&self.steady.steps) {
            rows.push(both(name, first.text(2), steady.text(2)));
        }
        let lines: [Line; 4] = [
            ("between the steps", |timing| &timing.between),
            ("all steps", |timing| &timing.seconds),
            ("all steps / floor of the same repeat", |timing| &timing.ratio),
            ("`vinops ingest`, start to end", |timing| &timing.command),
        ];
        rows.extend(
            lines.map(|(name, read)| both(name, read(&self.first).text(2), read(&self.steady).text(2))),
        );
        markdown(&headings, &rows)
    }

    fn rest(&self) -> String {
        let mut out = format!(
            "Floor: {} rows into a bare heap. A steady window changed or brought {} % of the rows.\n",
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
        out.push_str(&format!("`vinops raw export` gave back {} files byte for byte.\n", self.proof.files));
        match &self.proof.full {
            None => out.push_str("The digest was not compared with full processing (--verify does).\n"),
            Some(full) if *full == self.proof.measured => {
                out.push_str("The digest is that of full processing.\n");
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
