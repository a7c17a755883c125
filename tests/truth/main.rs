//! What the chain makes is true: windows go in as files, and the database is held against somebody else's record.
//!
//! - [`simulated`]: the simulator's feed, window by window, against the simulator's own truth and the file's own text.
//! - [`order`]: hostile little files in any order, repeated, whole or by their changes, against a definition of the
//!   greatest version that fits on a screen.
//! - [`findings`]: what was found in the real feed, one test each.
//! - [`history`]: what is told of a lot's past, against the simulator's record of what it changed.
//! - [`pictures`]: the links to a lot's pictures, against what its rows say.
//! - [`repeated`]: each completed job put back and run again.
//! - [`vins`]: the VIN rule in Rust and in SQL.
//!
//! Every file takes the way of a real one: received into a store, claimed from the queue by a worker with the fleet's
//! own jobs, and looked at once its last job is committed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says no by panicking, its helpers too")]

mod chain;
mod findings;
mod history;
mod order;
mod pictures;
mod repeated;
mod simulated;
mod vins;
