//! Auction jobs.
pub mod download;
