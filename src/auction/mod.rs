//! The feed's rules: everything about an auction's inventory file that needs no database.
//!
//! Every source has a [`mapping`], a data file that defines how its files are read. A file passes through this module
//! once, in this order:
//!
//! - [`reader`] parses bytes into records and rejected lines.
//! - [`header`] assigns each field of a file to a [`Column`].
//! - [`hash`] detects whether a lot's row has changed since the window before.
//! - [`payload`] writes the row as lossless JSON.
//! - [`row`] parses the row into typed values with [`lot_number`], [`vin`], [`sale_time`], [`zone`], [`instant`] and
//!   [`money`].
//!
//! [`window`] determines the window of a file that an operator ingests. The module is pure: no clock, no database, no
//! async, and no memory that grows with the file.

pub mod blank;
mod column;
pub mod column_names;
pub mod completeness;
pub mod difference;
pub mod drift;
mod field_splitter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod fold;
pub mod hash;
pub mod header;
pub mod instant;
mod line_buffer;
pub mod lot_number;
pub mod mapping;
pub mod money;
pub mod payload;
pub mod reader;
mod record;
pub mod row;
pub mod sale_time;
pub mod version;
pub mod vin;
pub mod window;
pub mod withdrawal;
pub mod zone;

pub use column::{Column, ColumnSet};
