//! The rules of a source.
