//! What of the database passes by itself: a restart, a cut connection, a deadlock. The same work may well succeed a
//! little later, so whoever meets it tries again and counts no failure.

/// Why it did not go, this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// Other transactions: one of them had to give way.
    Conflict,
    /// The connection, or the server behind it.
    Connection,
}

/// What the database did, if the error's cause is the database's and passes.
pub fn passing(error: &anyhow::Error) -> Option<Passing> {
    error.chain().find_map(|cause| match cause.downcast_ref::<sqlx::Error>()? {
        sqlx::Error::Database(told) => match told.code()?.as_ref() {
            // deadlock, serialization failure, a statement that said how long it waits for a lock
            "40P01" | "40001" | "55P03" => Some(Passing::Conflict),
            // too many connections, a standby that is about to take over
            "53300" | "25006" => Some(Passing::Connection),
            // no connection; shut down in whichever mode, starting up
            code if code.starts_with("08") || code.starts_with("57P") => Some(Passing::Connection),
            _ => None,
        },
        // a connection that is closed in the midst of its greeting shows as a breach of the protocol
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => Some(Passing::Connection),
        _ => None,
    })
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
        assert_eq!(passing(&error), Some(Passing::Connection));
    }

    #[test]
    fn a_full_disk_and_a_missing_row_are_the_jobs_own() {
        let disk = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("keep the bytes");
        assert_eq!(passing(&disk), None);
        assert_eq!(passing(&sqlx::Error::RowNotFound.into()), None);
    }
}
