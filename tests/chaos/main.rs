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

#[path = "../kill/books.rs"]
mod books;
mod cluster;
mod disk;
mod fleet;
mod outages;
mod play;
mod pooled;
mod pooler;
mod proxy;

use fleet::Log;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Longer than the whole scenario takes.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_chaos_ends_with_the_books_of_an_undisturbed_one() {
    let began = Instant::now();
    let seed = seed();
    println!("to play it again: VINOPS_CHAOS_SEED={seed}");
    let log = Log::default();
    let _told = Told(&log);
    timeout(PATIENCE, play::play(seed, &log)).await.expect("it ends within its time");
    println!("in {:.1} s", began.elapsed().as_secs_f64());
}

/// Prints the logs of the processes if the test panics.
struct Told<'a>(&'a Log);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.tail());
        }
    }
}

/// Returns a new seed, or the one of `VINOPS_CHAOS_SEED`.
#[expect(clippy::disallowed_methods, reason = "a variable of the tests, which the program does not read")]
fn seed() -> u64 {
    std::env::var("VINOPS_CHAOS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap())
}
