//! The listing helper's rules: what a listing costs and earns, and which bill of materials says so.
//!
//! [`economics`] is arithmetic; [`bom`] adds the few statements on its own tables without which "one active version" could
//! not be said. Money is decimal throughout, rounded half away from zero as PostgreSQL's `round(numeric)` does, and only at
//! the end: a cent lost in the middle would be multiplied by a quantity.

pub mod bom;
pub mod economics;
