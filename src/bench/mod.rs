//! Benchmarks: the results in the README, each with a baseline measured in the same run.
//!
//! Seconds depend on the machine, so every result is compared with a baseline on the same PostgreSQL. The baseline of a
//! window is `psql \copy` of the same rows as ready JSONB into a table without indexes. The baseline of the queue is a
//! loop that claims rows and acknowledges them. Ratios to a baseline can be compared between machines, seconds cannot.
//!
//! Rules that keep the results comparable:
//!
//! - Baseline and measurement alternate, so that other load on the machine affects both. Each begins with a CHECKPOINT.
//! - A window is processed by `vinops ingest`, a process of its own. Memory and seconds are those of a real worker.
//! - Every repeat uses a new database, copied from a migrated template, and a new store.
//! - Between windows the changed tables are vacuumed and analysed, as autovacuum would do within the quarter-hour. This
//!   time is not measured. Without the vacuum, growth would be the bloat of one window instead of the growth of a day.
//! - The run ends with a verification of the work: exported files are equal byte for byte, and the digest is equal to
//!   that of full processing.
//!
//! `files` creates the input, `server` the databases, and `run_window` runs the windows. `baseline` measures the
//! baseline. `growth` and `verification` check the result. `competitors` are other queues, and `clients` are clients of
//! the API. `windows`, `queue` and `api` combine the measurements, and `metric` compares them with the limits.

pub mod api;
mod baseline;
mod clients;
pub mod competitors;
mod files;
mod growth;
pub mod machine;
pub mod metric;
pub mod queue;
mod run_window;
mod server;
mod verification;
pub mod windows;

pub use server::BenchServer;
