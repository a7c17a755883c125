//! The queue's promises, kept by real workers on a real PostgreSQL.
//!
//! Each test is one way in which queues are known to fail: a retry without its wait, a panic that leaves a row
//! running for ever, a worker that comes back from the dead. Nothing sleeps: jobs stop at a gate until the test lets
//! them go on, leases are short or are ended by SQL, and ends are awaited as events.

mod again;
mod drain;
mod enqueue;
mod fence;
#[cfg(test)] // where clippy lets helpers unwrap too
mod harness;
mod leases;
mod operate;
mod outage;
mod outcomes;
mod steer;
mod upkeep;
