//! The operator of a command that changes the database, as `audit.operator_actions` records it.

use std::fmt::Display;

/// Operator and reason of a change.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Name of the operator.
    pub who: String,
    /// Reason that the operator gave.
    pub why: String,
}

impl Actor {
    /// Returns the operator `who` with the reason `why`.
    pub fn new(who: impl Display, why: impl Display) -> Actor {
        Actor { who: who.to_string(), why: why.to_string() }
    }
}
