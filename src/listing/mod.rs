//! The listing helper's rules: costs and earnings of a listing, and versions of bills of materials.
//!
//! [`economics`] is arithmetic. [`bom`] adds the few statements on its own tables that enforce the rule "one active
//! version". Money is decimal throughout, rounded half away from zero like PostgreSQL's `round(numeric)`, and only at
//! the end: a cent lost in an intermediate step would be multiplied by a quantity.

pub mod bom;
pub mod economics;
