//! The feed's rules: what is true of an auction's inventory file without asking a database.
//!
//! Every source has a [`mapping`], a data file that says how its files are read. A file goes through this room once, in
//! this order: [`reader`] turns bytes into records and says which lines are none, [`header`] says which field is which
//! [`Column`], [`hash`] tells whether a lot changed since the window before, [`payload`] writes the row as lossless
//! JSON, and [`row`] reads it into typed values with [`lot_number`], [`vin`], [`time`], [`zone`], [`instant`]
//! and [`money`]. [`window`] says which window a file given by hand belongs to.
//! Everything is pure: no clock, no database, no async, and no memory that grows with the file.

pub mod blank;
mod column;
pub mod column_names;
pub mod completeness;
pub mod difference;
pub mod drift;
pub mod fold;
pub mod hash;
pub mod header;
pub mod instant;
mod lines;
pub mod lot_number;
pub mod mapping;
pub mod money;
pub mod payload;
pub mod reader;
mod record;
pub mod row;
#[cfg(test)]
pub(crate) mod specimen;
mod split;
pub mod time;
pub mod version;
pub mod vin;
pub mod window;
pub mod withdrawal;
pub mod zone;

pub use column::{Column, ColumnSet};
