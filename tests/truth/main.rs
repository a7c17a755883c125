//! What the chain makes is true: windows go in as files, and the database is held against somebody else's record.
//!
//! - [`simulated`]: the simulator's feed, window by window, against the simulator's own truth and the file's own text.
//! - [`order`]: hostile little files in any order, repeated, whole or by their changes, against a definition of the
//!   greatest version that fits on a screen.
//! - [`changes`]: a source that sends changes only, and one that refuses drift.
//! - [`compared`]: the rows that stand, against the fold of the stored versions.
//! - [`file_rows`]: each file's rows under its own names, against what the file says.
//! - [`findings`]: what was found in the real feed, one test each.
//! - [`fold`]: values that cannot be read and update times that cannot be right, in any order of files.
//! - [`sightings`]: files that come again, for another window.
//! - [`sources`]: two sources with the same lot numbers.
//! - [`history`]: what is told of a lot's past, against the simulator's record of what it changed.
//! - [`pictures`]: the links to a lot's pictures, against what its rows say.
//! - [`reopened`]: closed lots that come back in records that cannot be read.
//! - [`repeated`]: each completed job put back and run again.
//! - [`stories`]: random stories of two sources, in order against a record, in any order against each other.
//! - [`understood`]: what a file does not let us understand closes no lot, and is reported.
//! - [`vins`]: the VIN rule in Rust and in SQL.
//! - [`written`]: what exporters and spreadsheets make of a row.
//!
//! Every file takes the way of a real one: received into a store, claimed from the queue by a worker with the fleet's
//! own jobs, and looked at once its last job is committed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says no by panicking, its helpers too")]

mod chain;
mod changes;
mod compared;
mod file_rows;
mod findings;
mod fold;
mod history;
mod order;
mod pictures;
mod reopened;
mod repeated;
mod sightings;
mod simulated;
mod sources;
mod stories;
mod understood;
mod vins;
mod written;
