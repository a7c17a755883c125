//! The queue's guarantees, tested with real workers on a real PostgreSQL.
//!
//! Each test is one way in which queues are known to fail: a retry without its delay, a panic that leaves a row running
//! for ever, a worker that continues after it was declared dead. No test sleeps: jobs block at a gate until the test
//! opens it, leases are short or are ended by SQL, and ends are awaited as events.

mod admin;
mod drain;
mod enqueue;
mod fence;
#[cfg(test)] // where clippy lets helpers unwrap too
mod harness;
mod leases;
mod maintenance;
mod outage;
mod outcomes;
mod queries;
mod retry_transient;
