//! Classifies database errors as transient or permanent.
//!
//! A restart, a lost connection and a deadlock are transient: the same work may succeed a little later. Callers retry
//! them without counting a failed attempt. A value that a type cannot represent, or that exceeds a limit of the server,
//! fails each time.

/// Cause of a transient error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransientError {
    /// Another transaction: the server aborted one of the two.
    Conflict,
    /// The connection, or the server at its other end.
    Connection,
}

/// SQLSTATE codes of a deadlock, a serialization failure and a lock timeout.
const CONFLICT_CODES: [&str; 3] = ["40P01", "40001", "55P03"];

/// Returns the cause if a transient database error is in the error's chain.
pub fn transient_error(error: &anyhow::Error) -> Option<TransientError> {
    error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
        error if is_conflict(error) => Some(TransientError::Conflict),
        sqlx::Error::Database(error) => match error.code()?.as_ref() {
            // too many connections; a standby that is about to be promoted
            "53300" | "25006" => Some(TransientError::Connection),
            // no connection; a shutdown of any mode; a server that is starting up
            code if code.starts_with("08") || code.starts_with("57P") => Some(TransientError::Connection),
            _ => None,
        },
        // a connection that is closed during its startup shows as a protocol error
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => Some(TransientError::Connection),
        _ => None,
    })
}

/// Returns true if the same statement on the same data fails each time.
///
/// That is a data exception (class 22, a value that its type cannot represent) or a limit of the server (class 54, such
/// as a value that is too long for an index).
pub fn is_permanent(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
        }
        _ => false,
    })
}

/// Returns true if the cause is another transaction. The database itself is reachable then.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| CONFLICT_CODES.contains(&code.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    #[test]
    fn a_lost_connection_is_seen_under_what_was_being_done() {
        let lost = Err::<(), _>(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into()));
        let error = lost.context("lock the source").context("ingest").unwrap_err();
        assert_eq!(transient_error(&error), Some(TransientError::Connection));
    }

    #[test]
    fn a_full_disk_and_a_missing_row_are_the_jobs_own() {
        let disk = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("keep the bytes");
        assert_eq!(transient_error(&disk), None);
        assert_eq!(transient_error(&sqlx::Error::RowNotFound.into()), None);
    }

    /// Returns the error of a statement.
    async fn statement_error(statement: &'static str) -> sqlx::Error {
        let test = crate::testing::migrated_database().await;
        sqlx::raw_sql(statement).execute(&test.db.pool).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_value_that_never_fits_is_permanent_and_a_conflict_is_not() {
        let too_long = "create temp table t (v text); create index on t (v);
            insert into t select string_agg(md5(n::text), '') from generate_series(1, 1000) as n";
        for (statement, code) in [
            (too_long, "54000"),
            ("select 'x'::int", "22P02"),
            ("select 'infinity'::timestamptz::date - current_date", "22008"),
            ("select 1/0", "22012"),
            ("select repeat('1', 200)::numeric(3)", "22003"),
        ] {
            let error = statement_error(statement).await;
            assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some(code), "{error}");
            let error = anyhow::Error::new(error).context("copy the rows");
            assert!(is_permanent(&error) && transient_error(&error).is_none(), "{error:#}");
        }
        for code in ["40001", "40P01", "55P03"] {
            let raise = format!("do $$ begin raise exception 'x' using errcode = '{code}'; end $$");
            let error = statement_error(String::leak(raise)).await;
            assert!(is_conflict(&error), "{error}");
            let error = anyhow::Error::new(error);
            assert!(!is_permanent(&error) && transient_error(&error) == Some(TransientError::Conflict), "{error:#}");
        }
        let missing = statement_error("select * from nowhere").await;
        assert!(!is_conflict(&missing) && !is_permanent(&missing.into()));
    }
}
