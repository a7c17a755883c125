//! Measuring: the figures of the README, each beside a floor taken in the same run.
//!
//! A second is worth nothing without the machine it was taken on, so no figure here stands alone. Windows are held
//! against `psql \copy` of the same rows as ready JSONB into a bare heap, the queue against a bare loop that claims and
//! acknowledges: what the same PostgreSQL can do when nothing is asked of it but the writing. The ratio travels from
//! machine to machine, the seconds do not.
//!
//! What keeps the figures honest:
//!
//! - Floor and figure are taken in turn, so that a neighbour's load falls on both; each begins with a CHECKPOINT.
//! - A window is worked by `vinops ingest`, a process of its own: memory and seconds are those of a real worker.
//! - Every repeat has a new database, copied from a migrated template, and a new store.
//! - Between windows the changed tables are vacuumed and analysed, as autovacuum would within the quarter-hour. Its time
//!   counts for nobody; without it growth would be the bloat of one window, not of a day.
//! - The run ends with a proof that the work was done: files come back byte for byte, and the digest is that of a run
//!   that took no short cut.
//!
//! `files` makes the input, `place` the databases, and `hand` runs the windows. `floor` is the baseline. `growth` and `proof`
//! check the result. `rivals` are other queues, and `readers` are clients of the API. `windows`, `queue` and `api` put the
//! measurements together, and `figure` compares them with the limits.

pub mod api;
pub mod figure;
mod files;
mod floor;
mod growth;
mod hand;
pub mod machine;
mod place;
mod proof;
pub mod queue;
mod readers;
pub mod rivals;
pub mod windows;

pub use place::Place;
