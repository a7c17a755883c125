//! Progress bars, drawn from the events of a worker. Nothing is drawn if standard error is not a terminal.

use crate::queue::{Event, Outcome};
use crate::telemetry::visible;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// The progress bars of one command.
#[derive(Clone)]
pub struct Bars {
    all: MultiProgress,
}

impl Bars {
    /// Returns bars on standard error. They are hidden unless `show` is set and standard error is a terminal.
    pub fn new(show: bool) -> Bars {
        let target = if show { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Bars { all: MultiProgress::with_draw_target(target) }
    }

    /// Prints a line that stays above the bars.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.all.is_hidden() {
            eprintln!("{}", line.as_ref());
        } else {
            self.all.println(visible(line.as_ref())).ok();
        }
    }

    /// Adds a bar that counts bytes.
    pub fn bytes(&self, what: &str, total: u64) -> ProgressBar {
        self.bar(what, total, "  {prefix:18} {bar:32.cyan/blue} {bytes:>10} of {total_bytes:10} {elapsed}")
    }

    /// Adds a bar that counts steps.
    pub fn steps(&self, what: &str, total: u64) -> ProgressBar {
        self.bar(what, total, "  {prefix:18} {bar:32.cyan/blue} {human_pos:>10} of {human_len:10} {elapsed}")
    }

    fn bar(&self, what: &str, total: u64, template: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(total));
        bar.set_style(style(template));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Adds a line with a spinner, for work of unknown length.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(style("  {prefix:18} {spinner:.cyan} {msg} {elapsed}"));
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Draws the events of a worker until the worker drops the channel.
    pub async fn follow(self, mut events: Receiver<Event>) {
        let mut running: HashMap<i64, ProgressBar> = HashMap::new();
        loop {
            match events.recv().await {
                Ok(Event::Started { job, kind, .. }) => {
                    running.insert(job, self.spinner(&kind));
                }
                Ok(Event::Progress { job, kind, done, total }) => {
                    let bar = running.entry(job).or_insert_with(|| self.spinner(&kind));
                    if total > 0 && bar.length() != Some(total) {
                        bar.finish_and_clear();
                        *bar = self.bytes(&kind, total);
                    }
                    bar.set_position(done);
                }
                Ok(Event::Ended { job, kind, outcome, error, discarded, .. }) => {
                    if let Some(bar) = running.remove(&job) {
                        bar.finish_and_clear();
                    }
                    // A discarded job ends its window. The command then prints the reason.
                    if let (Some(error), false) = (error, discarded || outcome == Outcome::Done) {
                        self.say(format!("  {kind}: {}: {error}", outcome.word()));
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        }
        running.into_values().for_each(|bar| bar.finish_and_clear());
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template is a constant of the program. An invalid one is shown as a plain bar.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▉▊▋▌▍▎▏ ")
}
