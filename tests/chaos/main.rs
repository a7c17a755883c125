//! Everything at once: a fleet of four workers and two schedulers, all processes, works twelve windows of a simulated
//! feed, while its processes are killed and frozen, its database dies and returns, the way to the database delays,
//! swallows, cuts and refuses, and the store's disk is full.
//!
//! In the end every window is applied or named as missing, and the books are those of an undisturbed worker that was
//! shown the same windows. One window is not opened at all, for want of a living scheduler.
//!
//! The moments are drawn from a seed (`VINOPS_CHAOS_SEED` plays one again; the faults and their order are then the same,
//! the interleaving is not). A moment synchronises nothing: it is a limit on waiting for the window's end.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says no by panicking, its helpers too")]

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

/// All of it takes less; whoever waits for this has failed.
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

/// What the processes wrote, when something was wrong.
struct Told<'a>(&'a Log);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.tail());
        }
    }
}

/// A new one each time, unless one is to be played again.
#[expect(clippy::disallowed_methods, reason = "a test's own variable, which the program does not know")]
fn seed() -> u64 {
    std::env::var("VINOPS_CHAOS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap())
}
