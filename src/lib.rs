//! vinops: a fleet of workers over a PostgreSQL queue that keeps Copart's inventory feed, losslessly, and turns
//! each quarter-hour window of it into vehicles, lots and statuses.
//!
//! Rooms: [`auction`] knows the feed's rules, [`queue`] the jobs' life, [`db`] the schema, [`store`] the bytes,
//! [`simulator`] a pretend feed, [`embedded`] a private PostgreSQL. What happens because a job ran is in [`workers`].

pub mod api;
pub mod auction;
pub mod bench;
pub mod cli;
pub mod config;
pub mod db;
pub mod embedded;
pub mod http;
pub mod listing;
pub mod queue;
pub mod scheduler;
pub mod simulator;
pub mod source;
pub mod store;
pub mod taxonomy;
pub mod telemetry;
#[doc(hidden)]
pub mod testing;

// The jobs sit beside `src/`, so that adding one touches no room of the library.
#[path = "../workers/mod.rs"]
pub mod workers;
