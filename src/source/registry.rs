//! Registry of known sources: the rows of `fleet.sources`, which operators add and remove.
//!
//! A name is checked before anything is stored under it, so a misspelt `--source` leaves no rows behind. Every
//! `vinops migrate up` adds `copart` (`src/db/seed.rs`).

use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};

/// Error of a name that is not in `fleet.sources`.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown source {name:?}; expected one of {}\nhint: add it with `vinops source add NAME --reason \"…\"`",
    .known.join(", ")
)]
pub struct UnknownSource {
    /// Requested name.
    pub name: String,
    /// Names of all known sources, sorted.
    pub known: Vec<String>,
}

/// Returns true if `name` is a valid source name: a lower-case letter, then up to 62 lower-case letters, digits, `_`
/// and `-`.
pub fn is_source_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(plain)
}

/// Checks that a source is known.
///
/// # Errors
/// Returns [`UnknownSource`] if the source is not known.
pub async fn expect_known(pool: &PgPool, name: &str) -> anyhow::Result<()> {
    let known = sqlx::query_scalar!(
        "-- source: names
        select source from fleet.sources order by source"
    )
    .fetch_all(pool)
    .await
    .context("could not read the names of the sources")?;
    if known.iter().any(|it| it == name) {
        return Ok(());
    }
    Err(UnknownSource { name: name.to_owned(), known }.into())
}

/// Locks a source's row against removal until the transaction ends. Returns whether the source is known.
pub async fn lock_known(conn: &mut PgConnection, name: &str) -> anyhow::Result<bool> {
    let held = sqlx::query_scalar!(
        "-- source: hold
        select source from fleet.sources where source = $1 for key share",
        name,
    )
    .fetch_optional(conn)
    .await
    .with_context(|| format!("could not lock source {name}"))?;
    Ok(held.is_some())
}

/// Adds a source. Returns false if the source was already known.
pub async fn add_source(executor: impl PgExecutor<'_>, name: &str, who: &str, why: &str) -> anyhow::Result<bool> {
    sqlx::query_scalar!(
        r#"-- source: add
        select fleet.add_source($1, $2, $3) as "added!""#,
        name,
        who,
        why,
    )
    .fetch_one(executor)
    .await
    .with_context(|| format!("could not add source {name}"))
}

/// Result of removing a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRemoval {
    /// The source was removed.
    Removed,
    /// No source with this name exists.
    Unknown,
    /// The source has files and was not removed.
    HasFiles,
    /// The source has waiting or running jobs and was not removed.
    HasJobs,
}

/// Removes a source that has no file and no unfinished job.
pub async fn remove_source(pool: &PgPool, name: &str, who: &str, why: &str) -> anyhow::Result<SourceRemoval> {
    let word = sqlx::query_scalar!(
        r#"-- source: remove
        select fleet.remove_source($1, $2, $3) as "word!""#,
        name,
        who,
        why,
    )
    .fetch_one(pool)
    .await
    .with_context(|| format!("could not remove source {name}"))?;
    Ok(match word.as_str() {
        "removed" => SourceRemoval::Removed,
        "unknown" => SourceRemoval::Unknown,
        "files" => SourceRemoval::HasFiles,
        "jobs" => SourceRemoval::HasJobs,
        other => bail!(
            "unknown result {other:?} of the function fleet.remove_source\n\
             hint: the schema has another version: `vinops migrate status`"
        ),
    })
}

/// Known source with a summary of its files.
#[derive(Clone, Debug, Serialize)]
pub struct KnownSource {
    /// Name of the source.
    pub source: String,
    /// True if the source is enabled.
    pub enabled: bool,
    /// Number of the source's files.
    pub files: i64,
    /// Start of the newest window that ended well. Null if there is none.
    pub last_good_window: Option<chrono::DateTime<chrono::Utc>>,
}

/// Returns all known sources, sorted by name.
pub async fn list_sources(pool: &PgPool) -> anyhow::Result<Vec<KnownSource>> {
    sqlx::query_as!(
        KnownSource,
        r#"-- source: list
        select
          s.source, s.enabled,
          (select count(*) from raw.csv_files f where f.source = s.source) as "files!",
          fresh.last_good_window as "last_good_window?"
        from fleet.sources s
        left join fleet.freshness fresh on fresh.source = s.source
        order by s.source"#
    )
    .fetch_all(pool)
    .await
    .context("could not list the sources")
}

/// Returns true if a discarded fetch job can still fetch: the window's quarter-hour is not over and its attempt is not
/// used. A fetch on a simulated clock is never too late.
pub async fn can_fetch_again(pool: &PgPool, job: i64) -> anyhow::Result<bool> {
    sqlx::query_file_scalar!("src/source/can_fetch_again.sql", job)
        .fetch_one(pool)
        .await
        .with_context(|| format!("could not check whether job {job} may fetch again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::migrated_database;

    #[test]
    fn a_source_name_is_a_lower_case_word() {
        for name in ["copart", "c", "iaai-2", "a_b", &"a".repeat(63)] {
            assert!(is_source_name(name), "{name}");
        }
        for name in ["", "Copart", "2copart", "-a", "co part", "copart/", "копарт", &"a".repeat(64)] {
            assert!(!is_source_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn a_source_is_added_once_and_removed_only_while_it_has_neither_file_nor_job() {
        let database = migrated_database().await;
        let pool = &database.db.pool;
        assert!(expect_known(pool, "copart").await.is_ok(), "known from the seed");
        let unknown = expect_known(pool, "iaai").await.unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "unknown source \"iaai\"; expected one of copart\nhint: add it with `vinops source add NAME --reason \"…\"`"
        );
        assert!(add_source(pool, "iaai", "me", "a test").await.unwrap());
        assert!(!add_source(pool, "iaai", "me", "again").await.unwrap());
        assert!(expect_known(pool, "iaai").await.is_ok());
        sqlx::raw_sql(
            "insert into raw.csv_files (source, path, sha256, bytes, window_start_utc)
              values ('iaai', 'raw/iaai/2026/03/06/1700.csv', repeat('a', 64), 1, '2026-03-06T17:00Z')",
        )
        .execute(pool)
        .await
        .unwrap();
        assert_eq!(remove_source(pool, "iaai", "me", "a test").await.unwrap(), SourceRemoval::HasFiles);
        sqlx::raw_sql(
            "delete from raw.csv_files;
            select fleet.enqueue('fetch', '{\"source\": \"iaai\"}')",
        )
        .execute(pool)
        .await
        .unwrap();
        assert_eq!(remove_source(pool, "iaai", "me", "a test").await.unwrap(), SourceRemoval::HasJobs);
        sqlx::raw_sql("delete from fleet.jobs").execute(pool).await.unwrap();
        assert_eq!(remove_source(pool, "iaai", "me", "a test").await.unwrap(), SourceRemoval::Removed);
        assert_eq!(remove_source(pool, "iaai", "me", "a test").await.unwrap(), SourceRemoval::Unknown);
        let acts: Vec<(String, String)> =
            sqlx::query_as("select action, subject from audit.operator_actions order by id")
                .fetch_all(pool)
                .await
                .unwrap();
        assert_eq!(
            acts,
            [("add-source".to_owned(), "iaai".to_owned()), ("remove-source".to_owned(), "iaai".to_owned())]
        );
    }

    #[tokio::test]
    async fn operators_add_and_remove_sources_and_workers_do_not() {
        let database = migrated_database().await;
        for (role, statement, allowed) in [
            (
                "vinops_ops",
                "select fleet.add_source('iaai', 'me', 'a test'), fleet.remove_source('iaai', 'me', 'a test')",
                true,
            ),
            ("etl_rw", "select fleet.add_source('iaai', 'me', 'a test')", false),
            ("etl_rw", "select fleet.remove_source('copart', 'me', 'a test')", false),
            ("etl_rw", "insert into fleet.sources (source) values ('iaai')", false),
            ("etl_rw", "select from fleet.sources for key share; select * from fleet.freshness", true),
            ("app_ro", "select fleet.add_source('iaai', 'me', 'a test')", false),
            ("app_ro", "select * from fleet.freshness", true),
        ] {
            let mut tx = database.db.pool.begin().await.unwrap();
            let role = format!("set local role {role}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(role.clone())).execute(&mut *tx).await.unwrap();
            let done = sqlx::raw_sql(statement).execute(&mut *tx).await;
            let code = done.as_ref().err().and_then(|e| e.as_database_error()?.code().map(|c| c.into_owned()));
            assert_eq!(code.as_deref(), (!allowed).then_some("42501"), "{role}: {statement}: {done:?}");
        }
    }

    #[tokio::test]
    async fn a_switch_of_an_unknown_source_is_an_error_and_leaves_no_row() {
        let database = migrated_database().await;
        let pool = &database.db.pool;
        for on in [true, false] {
            let error = crate::source::switch_source(pool, "iaai", on, "me", "a test").await.unwrap_err();
            assert!(format!("{error:#}").contains("unknown source \"iaai\""), "{error:#}");
        }
        let word: String = sqlx::query_scalar("select fleet.begin_fetch('iaai', '2099-01-01T00:00Z', 1, 1, true)")
            .fetch_one(pool)
            .await
            .unwrap();
        assert_eq!(word, "unknown");
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from fleet.sources where source <> 'copart') + (select count(*) from fleet.windows)",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        assert_eq!(left, 0);
    }

    /// Returns the newest good window of copart, its age in minutes, and its age by the metrics of monitoring.
    async fn read_freshness(pool: &PgPool) -> (Option<String>, Option<i32>, Option<i32>) {
        sqlx::query_as(
            "select
              to_char(f.last_good_window at time zone 'UTC', 'HH24:MI'),
              round(f.age_seconds / 60)::int,
              (
                select round((extract(epoch from now()) - value) / 60)::int
                from fleet.metrics
                where metric = 'etl_last_success_timestamp_seconds'
              )
            from fleet.freshness f
            where f.source = 'copart'",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_window_is_fresh_by_its_file_or_the_one_it_repeats_and_a_rerun_does_not_move_its_age() {
        let database = migrated_database().await;
        let pool = &database.db.pool;
        assert_eq!(read_freshness(pool).await, (None, None, None));
        let fresh = |window: &str, minutes: i32| (Some(window.to_owned()), Some(minutes), Some(minutes));
        sqlx::raw_sql(
            "insert into raw.csv_files (source, path, sha256, bytes, window_start_utc, state)
              select 'copart', 'raw/copart/2026/03/06/' || at || '.csv', repeat(n::text, 64), 1, '2026-03-06T17:00Z', state
              from (values (1, '1700', 'applied'), (2, '1715', 'quarantined')) as v (n, at, state);
            insert into fleet.windows (source, window_start_utc, state, file_id, updated_at)
              select 'copart', '2026-03-06T17:00Z', 'applied', file_id, now() - interval '60 minutes'
              from raw.csv_files where state = 'applied'",
        )
        .execute(pool)
        .await
        .unwrap();
        assert_eq!(read_freshness(pool).await, fresh("17:00", 60));

        // A quarantined file, and its repetition by bytes or by a 304, are no success of the source.
        for (window, state) in [("17:15", "quarantined"), ("17:30", "unchanged"), ("17:45", "unchanged")] {
            let insert = "insert into fleet.windows (source, window_start_utc, state, file_id, updated_at)
                select 'copart', ('2026-03-06T' || $1 || 'Z')::timestamptz, $2, file_id, now() - interval '30 minutes'
                from raw.csv_files where state = 'quarantined'";
            sqlx::query(insert).bind(window).bind(state).execute(pool).await.unwrap();
            assert_eq!(read_freshness(pool).await, fresh("17:00", 60), "{window}");
        }

        // A repetition of the applied file is a success.
        let repeat = "insert into fleet.windows (source, window_start_utc, state, file_id, updated_at)
            select 'copart', '2026-03-06T18:00Z', 'unchanged', file_id, now() - interval '10 minutes'
            from raw.csv_files where state = 'applied'";
        sqlx::query(repeat).execute(pool).await.unwrap();
        assert_eq!(read_freshness(pool).await, fresh("18:00", 10));

        // A rerun does not change the age, whatever states the window passes through.
        for state in ["ingested", "unchanged", "failed", "unchanged"] {
            let again =
                "update fleet.windows set state = $1, updated_at = now() where window_start_utc = '2026-03-06T18:00Z'";
            sqlx::query(again).bind(state).execute(pool).await.unwrap();
        }
        assert_eq!(read_freshness(pool).await, fresh("18:00", 10));

        // Another file of the window resets the age, and an incomplete file counts.
        let other = "insert into raw.csv_files (source, path, sha256, bytes, window_start_utc, state)
            values ('copart', 'raw/copart/2026/03/06/1800.csv', repeat('3', 64), 1, '2026-03-06T18:00Z', 'incomplete')";
        sqlx::query(other).execute(pool).await.unwrap();
        for state in ["fetched", "incomplete"] {
            let update = "update fleet.windows w set state = $1, file_id = f.file_id, updated_at = now()
                from raw.csv_files f where f.state = 'incomplete' and w.window_start_utc = '2026-03-06T18:00Z'";
            sqlx::query(update).bind(state).execute(pool).await.unwrap();
        }
        assert_eq!(read_freshness(pool).await, fresh("18:00", 0));
    }
}
