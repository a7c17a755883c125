//! Progress bars, drawn from the events of a worker. Nothing is drawn if standard error is not a terminal.

use crate::queue::{RunOutcome, WorkerEvent};
use crate::telemetry::escape_text;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// The progress bars of one command.
#[derive(Clone)]
pub struct ProgressBars {
    all: MultiProgress,
}

impl ProgressBars {
    /// Returns bars on standard error. They are hidden unless `show` is set and standard error is a terminal.
    pub fn new(show: bool) -> ProgressBars {
        let target = if show { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        ProgressBars { all: MultiProgress::with_draw_target(target) }
    }

    /// Prints a line that stays above the bars.
    pub fn print_line(&self, line: impl AsRef<str>) {
        if self.all.is_hidden() {
            eprintln!("{}", line.as_ref());
        } else {
            self.all.println(escape_text(line.as_ref())).ok();
        }
    }

    /// Adds a bar that counts bytes.
    pub fn add_byte_bar(&self, what: &str, total: u64) -> ProgressBar {
        self.add_bar(what, total, "  {prefix:18} {bar:32.cyan/blue} {bytes:>10} of {total_bytes:10} {elapsed}")
    }

    /// Adds a bar that counts steps.
    pub fn add_step_bar(&self, what: &str, total: u64) -> ProgressBar {
        self.add_bar(what, total, "  {prefix:18} {bar:32.cyan/blue} {human_pos:>10} of {human_len:10} {elapsed}")
    }

    fn add_bar(&self, what: &str, total: u64, template: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(total));
        bar.set_style(bar_style(template));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Adds a line with a spinner, for work of unknown length.
    pub fn add_spinner(&self, what: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(bar_style("  {prefix:18} {spinner:.cyan} {msg} {elapsed}"));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Draws the events of a worker until the worker drops the channel.
    pub async fn follow_events(self, mut events: Receiver<WorkerEvent>) {
        let mut running: HashMap<i64, ProgressBar> = HashMap::new();
        loop {
            match events.recv().await {
                Ok(WorkerEvent::Started { job, kind, .. }) => {
                    running.insert(job, self.add_spinner(&kind));
                }
                Ok(WorkerEvent::Progress { job, kind, done, total }) => {
                    let bar = running.entry(job).or_insert_with(|| self.add_spinner(&kind));
                    if total > 0 && bar.length() != Some(total) {
                        bar.finish_and_clear();
                        *bar = self.add_byte_bar(&kind, total);
                    }
                    bar.set_position(done);
                }
                Ok(WorkerEvent::Ended { job, kind, outcome, error, discarded, .. }) => {
                    if let Some(bar) = running.remove(&job) {
                        bar.finish_and_clear();
                    }
                    // A discarded job ends its window. The command then prints the reason.
                    if let (Some(error), false) = (error, discarded || outcome == RunOutcome::Done) {
                        self.print_line(format!("  {kind}: {}: {error}", outcome.as_str()));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
        running.into_values().for_each(|bar| bar.finish_and_clear());
    }
}

fn bar_style(template: &str) -> ProgressStyle {
    // A template is a constant of the program. An invalid one is shown as a plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}
