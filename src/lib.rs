//! vinops: workers over a PostgreSQL queue that ingest Copart's inventory feed without loss, and update vehicles, lots
//! and statuses from each quarter-hour window.
//!
//! Modules: [`auction`] contains the rules of the feed, [`queue`] the life of jobs, [`db`] the schema, [`store`] the
//! stored files, [`simulator`] a simulated feed, [`embedded`] a private PostgreSQL. The jobs are in [`workers`].

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

// The jobs are beside `src/`, so that a new job changes no module of the library.
#[path = "../workers/mod.rs"]
pub mod workers;
