//! The results of the chain are correct: a test passes windows as files, and compares the database with an independent
//! record.
//!
//! - [`simulated`]: the simulator's feed, window by window, against the simulator's expected state and the file's own
//!   text.
//! - [`order`]: small hostile files in any order, repeated, in full or by their changes, against a short definition of
//!   the greatest version.
//! - [`changes`]: a source that sends changes only, and one that quarantines drift.
//! - [`compared`]: stored rows against the fold of the stored versions.
//! - [`file_rows`]: each file's rows under its own names, against the file.
//! - [`findings`]: peculiarities of the real feed, one test each.
//! - [`fold`]: values that cannot be read and update times that cannot be right, in any order of files.
//! - [`sightings`]: files that are received again, for another window.
//! - [`sources`]: two sources with the same lot numbers.
//! - [`history`]: a lot's history, against the simulator's record of its changes.
//! - [`pictures`]: the picture links of a lot, against its rows.
//! - [`reopened`]: closed lots that return in records that cannot be read.
//! - [`repeated`]: each completed job requeued and run again.
//! - [`stories`]: random stories of two sources, in order against an oracle, in any order against each other.
//! - [`understood`]: input that cannot be read closes no lot, and is reported.
//! - [`vins`]: the VIN rule in Rust and in SQL.
//! - [`written`]: notations of exporters and spreadsheets.
//!
//! Every file takes the path of a real one: it is received into a store, a worker with the fleet's own jobs claims its
//! jobs, and the test reads the database once the last job is committed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod changes;
mod comparison;
mod file_rows;
mod findings;
mod fold;
mod history;
mod images;
mod notations;
mod order;
mod pipeline;
mod reopened_lots;
mod repeated_jobs;
mod sightings;
mod simulated_feed;
mod sources;
mod stories;
mod unreadable_input;
mod vins;
