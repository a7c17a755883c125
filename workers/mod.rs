//! The jobs.
pub mod auction;
