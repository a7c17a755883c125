//! Detects a connection pooler between the workers and the database, and checks that it is usable.
//!
//! In transaction mode a client gets another server connection for each transaction, so session state ends up with
//! other clients. Two kinds of session state matter, and each program checks both when it connects:
//!
//! - **Prepared statements**, which every statement here is. A pooler must support them. PgBouncer does from version
//!   1.21 on, unless `max_prepared_statements` is 0. Without that support all clients number their statements from
//!   `sqlx_s_1` on the same server connections, where the name is in use, missing, or another client's. Such a pooler
//!   is rejected.
//! - **LISTEN**, which no pooler in transaction mode supports. The server connection continues to listen and sends
//!   notifications to the client that uses it next. The driver of that client fails on a message that it did not
//!   expect. So no program uses LISTEN through a pooler, and without `DATABASE_DIRECT_URL` workers only poll.
//!
//! The check: two clients alternately query the process id of their server connection. Without a pooler, or in session
//! mode, each client has one connection and keeps it. Accepted: on a very busy pooler both clients might get the same
//! connection by chance, four times in a row.

use anyhow::Context;
use sqlx::{PgConnection, PgPool};

/// Error message for a pooler that loses prepared statements, with the possible fixes.
pub const LOST_STATEMENT_MESSAGE: &str = "the database URL leads through a pooler that loses prepared statements\n\
    hint: use PgBouncer 1.21 or newer with max_prepared_statements = 200, or pool_mode = session, or the URL of the \
    server itself";

/// Returns true if the error means that a pooler lost a prepared statement: the name is in use, or missing.
pub fn is_lost_statement(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => matches!(error.code().as_deref(), Some("42P05" | "26000")),
        _ => false,
    })
}

/// Returns true if clients share their server connections. Uses two connections of the pool.
///
/// # Errors
/// Returns an error with [`LOST_STATEMENT_MESSAGE`] if the pooler loses prepared statements.
pub(super) async fn detect_pooler(pool: &PgPool) -> anyhow::Result<bool> {
    let (mut one, mut other) = (pool.acquire().await?, pool.acquire().await?);
    let mut seen = Vec::new();
    for _ in 0..2 {
        // different statements, to which the driver gives the same name
        seen.push((
            backend_pid(&mut one, "-- db: first client\n select pg_backend_pid()").await?,
            backend_pid(&mut other, "-- db: second client\n select pg_backend_pid()").await?,
        ));
    }
    Ok(seen[0] != seen[1] || seen[0].0 == seen[0].1)
}

async fn backend_pid(client: &mut PgConnection, statement: &'static str) -> anyhow::Result<i32> {
    let asked = sqlx::query_scalar(statement).fetch_one(client).await.context("could not read the server's process id");
    asked.map_err(|error| if is_lost_statement(&error) { error.context(LOST_STATEMENT_MESSAGE) } else { error })
}
