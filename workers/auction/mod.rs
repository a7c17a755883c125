//! Auction jobs.
