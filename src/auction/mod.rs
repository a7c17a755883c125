//! The feed's rules: what is true of a Copart inventory file without asking a database.
//!
//! A file goes through this room once, in this order: [`reader`] turns bytes into records and says which lines are
//! none, [`header`] says which field is which [`Column`], [`hash`] tells whether a lot changed since the window
//! before, [`payload`] writes the row as lossless JSON, and [`row`] reads it into typed values with [`vin`],
//! [`time`] and [`money`]. Everything is pure: no clock, no database, no async, and no memory that grows with the
//! file.

mod column;
pub mod completeness;
pub mod hash;
pub mod header;
mod lines;
pub mod money;
pub mod payload;
pub mod reader;
mod record;
pub mod row;
#[cfg(test)]
pub(crate) mod specimen;
mod split;
pub mod time;
pub mod vin;

pub use column::Column;
