//! A pooler between the fleet and its database: whether there is one, and whether it will do.
//!
//! In transaction mode a client has another server connection for each transaction. Whatever belongs to the connection is then
//! somebody else's, and two such things are met at the start of every program rather than as riddles later:
//!
//! - **Prepared statements**, which every statement here is. A pooler must carry them: PgBouncer does from version
//!   1.21 on, unless `max_prepared_statements` is 0. One that does not lets all clients count their names from `sqlx_s_1`
//!   on the same connections, where the name is taken, or gone, or another's. Refused.
//! - **LISTEN**, which no pooler can carry. Worse than deaf: the server connection goes on listening, and tells the next
//!   client that happens to have it, whose driver breaks off at a message that it did not ask for. So nobody listens by way
//!   of a pooler: without `DATABASE_DIRECT_URL` workers only poll.
//!
//! How it is known: two clients ask in turn for their server's process. Without a pooler, or in session mode, each has its
//! own and keeps it. Accepted: on a very busy pooler both might keep one by chance, four times in a row.

use anyhow::Context;
use sqlx::{PgConnection, PgPool};

/// What it means that a statement was lost, and the ways out.
pub const LOSES: &str = "the database's URL leads through a pooler that loses prepared statements: PgBouncer needs version \
    1.21 and max_prepared_statements = 200, or pool_mode = session; or give the server's own URL in its place";

/// Whether the error is that of a pooler that loses statements: a name that is taken, or gone.
pub fn lost_statement(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(told)) => matches!(told.code().as_deref(), Some("42P05" | "26000")),
        _ => false,
    })
}

/// Whether clients share their server connections; an error where their statements get lost by that. Takes two
/// connections.
pub(super) async fn shared(pool: &PgPool) -> anyhow::Result<bool> {
    let (mut one, mut other) = (pool.acquire().await?, pool.acquire().await?);
    let mut seen = Vec::new();
    for _ in 0..2 {
        // different statements, which the driver gives the same name
        seen.push((
            process(&mut one, "-- db: first client\n select pg_backend_pid()").await?,
            process(&mut other, "-- db: second client\n select pg_backend_pid()").await?,
        ));
    }
    Ok(seen[0] != seen[1] || seen[0].0 == seen[0].1)
}

async fn process(client: &mut PgConnection, statement: &'static str) -> anyhow::Result<i32> {
    let asked = sqlx::query_scalar(statement).fetch_one(client).await.context("ask for the server's process");
    asked.map_err(|error| if lost_statement(&error) { error.context(LOSES) } else { error })
}
