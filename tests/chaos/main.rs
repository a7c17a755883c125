//! All faults at once: a fleet of four workers and two schedulers, each a process, processes twelve windows of a
//! simulated feed. Meanwhile processes are killed and frozen, the database dies and returns, the connection to the
//! database delays, swallows, cuts and refuses, and the store's disk fills up.
//!
//! At the end every window is applied or marked missed, and the ledger counts equal those of an undisturbed worker that
//! processed the same windows. One window is never opened, because no scheduler is alive.
//!
//! Times of faults are drawn from a seed. `VINOPS_CHAOS_SEED` repeats the faults and their order, not the interleaving.
//! The times synchronise nothing: each is a time limit on waiting for the window's end.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod behind_pooler;
mod cluster;
mod disk;
mod fleet;
#[path = "../kill/ledger_counts.rs"]
mod ledger_counts;
mod outages;
mod pooler;
mod proxy;
mod scenario;

use fleet::FleetLog;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Longer than the whole scenario takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_chaos_ends_with_the_books_of_an_undisturbed_one() {
    let began = Instant::now();
    let seed = read_seed();
    println!("to play it again: VINOPS_CHAOS_SEED={seed}");
    let log = FleetLog::default();
    let _told = LogOnPanic(&log);
    timeout(TEST_TIMEOUT, scenario::run_scenario(seed, &log)).await.expect("it ends within its time");
    println!("in {:.1} s", began.elapsed().as_secs_f64());
}

/// Prints the logs of the processes if the test panics.
struct LogOnPanic<'a>(&'a FleetLog);

impl Drop for LogOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.last_lines());
        }
    }
}

/// Returns a new seed, or the one of `VINOPS_CHAOS_SEED`.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
fn read_seed() -> u64 {
    std::env::var("VINOPS_CHAOS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap())
}
