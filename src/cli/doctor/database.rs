//! The checks of the database: version, schema, clock, rights and settings.

use super::super::error_text::{error_line, text_line};
use super::super::session::CommandSession;
use super::{DoctorFinding, fail, pass, warn};
use crate::db::{SchemaError, encoding, expect_schema, migrations, rights, verify};
use crate::scheduler::clock::{ClockOffset, measure_offset};
use sqlx::PgPool;
use std::time::Duration;

/// The oldest tested version of PostgreSQL, as in `server_version_num`.
const MIN_SERVER_VERSION: i32 = 150_000;
/// The longest wait for a notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks the database. Returns true if the schema has the version of this program, and true if the login may read
/// all of it.
pub(super) async fn check_database(session: &CommandSession, findings: &mut Vec<DoctorFinding>) -> (bool, bool) {
    let mut may_read = false;
    let pool = &session.db.pool;
    findings.push(finding_or_fail("database", check_version(pool).await));
    let sound = match expect_schema(&session.db).await {
        Ok(()) => {
            let newest = migrations::AUCTION_SET.active().last().map_or("", |migration| migration.id);
            findings.push(pass("schema", format!("version {newest}, as this program requires")));
            true
        }
        Err(SchemaError::Unreachable(error)) => {
            findings.push(fail("schema", format!("not readable: {}", text_line(error)), "vinops migrate status"));
            false
        }
        Err(error @ SchemaError::Ahead(_)) => {
            findings.push(fail("schema", text_line(error), "docker compose pull"));
            false
        }
        Err(error) => {
            findings.push(fail("schema", text_line(error), "vinops migrate up"));
            false
        }
    };
    findings.push(finding_or_fail("clock", measure_offset(pool).await.map(clock_finding)));
    if sound {
        match check_rights(pool).await {
            Ok((rights, may_work)) => {
                findings.push(rights);
                // Objects can be checked only if the login may read them.
                may_read = may_work;
                if may_work {
                    findings.push(finding_or_fail("objects", check_objects(pool).await));
                }
            }
            Err(error) => findings.push(fail("rights", error_line(&error), "vinops verify auction")),
        }
    }
    findings.push(check_notify(session).await);
    match check_settings(pool).await {
        Ok(those) => findings.extend(those),
        Err(error) => findings.push(fail("settings", error_line(&error), "psql -c 'show all'")),
    }
    match check_statements(pool).await {
        Ok(finding) => findings.push(finding),
        Err(error) => findings.push(fail("statements", error_line(&error), "psql -c '\\dx'")),
    }
    (sound, may_read)
}

/// Returns the finding of a check, or a FAIL with the error of the check.
fn finding_or_fail(about: &'static str, looked: anyhow::Result<DoctorFinding>) -> DoctorFinding {
    looked.unwrap_or_else(|error| fail(about, error_line(&error), "vinops verify auction"))
}

/// Checks the version and the encoding of the server.
async fn check_version(pool: &PgPool) -> anyhow::Result<DoctorFinding> {
    let server = sqlx::query!(
        r#"-- doctor: version
        select
          current_setting('server_version') as "version!",
          current_setting('server_version_num')::int as "number!",
          current_setting('server_encoding') as "encoding!",
          current_database()::text as "name!",
          current_user::text as "login!""#
    )
    .fetch_one(pool)
    .await?;
    let said = format!("PostgreSQL {}, {} as {}", server.version, server.name, server.login);
    if server.encoding != "UTF8" {
        let said = format!("database {:?} has encoding {}; vinops needs UTF8", server.name, server.encoding);
        return Ok(fail("database", said, format!("psql -c \"{}\"", encoding::CREATE_DATABASE_SQL)));
    }
    Ok(match server.number {
        old if old < MIN_SERVER_VERSION => {
            fail("database", said + "; the oldest tested version is 15", "apt-get install postgresql-15")
        }
        _ => pass("database", said),
    })
}

/// Compares this host's clock with the database's clock, which decides when jobs are due.
fn clock_finding(clocks: ClockOffset) -> DoctorFinding {
    let ahead = clocks.ahead.as_seconds_f64();
    let word = if ahead > 0.0 { "behind" } else { "ahead of" };
    let said = format!("this host is {:.3} s {word} the database", ahead.abs());
    if clocks.is_wrong() {
        fail("clock", said + ", more than 2 s", "timedatectl set-ntp true")
    } else {
        pass("clock", said)
    }
}

/// Checks that NOTIFY reaches LISTEN.
async fn check_notify(session: &CommandSession) -> DoctorFinding {
    const SUBJECT: &str = "listen";
    const NOTIFY_CHANNEL: &str = "fleet_doctor";
    let direct = "export DATABASE_DIRECT_URL=postgres://user:password@host:5432/vinops";
    if !session.db.supports_listen() {
        let said = "DATABASE_URL leads through a pooler, which does not support LISTEN, so workers only poll";
        return warn(SUBJECT, said, direct);
    }
    let heard = async {
        let mut ear = session.db.connect_listener().await?;
        ear.listen(NOTIFY_CHANNEL).await?;
        // A notification through a pooler may close the connection of the client that sent it.
        let sent = sqlx::query!("-- doctor: notify\n select pg_notify($1, '') as notified", NOTIFY_CHANNEL)
            .fetch_one(&session.db.pool)
            .await;
        let come = tokio::time::timeout(NOTIFY_TIMEOUT, ear.recv()).await;
        Ok::<_, sqlx::Error>(sent.is_ok() && come.is_ok_and(|heard| heard.is_ok()))
    };
    match heard.await {
        Ok(true) => pass(SUBJECT, "NOTIFY reaches LISTEN"),
        Ok(false) => warn(
            SUBJECT,
            "NOTIFY does not reach LISTEN, so workers only poll; DATABASE_DIRECT_URL may lead through a pooler",
            direct,
        ),
        Err(error) => warn(SUBJECT, format!("connection for LISTEN failed, so workers only poll: {error}"), direct),
    }
}

/// Compares the rights of the login with the rights of a worker. Returns the finding, and true if the login may read
/// the whole schema.
async fn check_rights(pool: &PgPool) -> anyhow::Result<(DoctorFinding, bool)> {
    let login = sqlx::query!(
        r#"-- doctor: rights
        select
          r.rolsuper as "superuser!",
          r.rolcreaterole as "makes_roles!",
          pg_has_role(current_user, 'vinops_admin', 'usage') as "owns!",
          pg_has_role(current_user, 'etl_rw', 'usage') as "works!",
          pg_has_role(current_user, 'vinops_ops', 'usage') as "steers!",
          pg_has_role(current_user, 'app_ro', 'usage') as "reads!",
          has_database_privilege(current_database(), 'create') as "makes_schemas!"
        from pg_roles as r
        where r.rolname = current_user"#
    )
    .fetch_one(pool)
    .await?;
    let more: Vec<&str> = [
        (login.superuser, "is a superuser"),
        (login.makes_roles && !login.superuser, "can create roles"),
        (login.owns && !login.superuser, "is a member of vinops_admin"),
        (login.makes_schemas && !login.owns, "can create schemas"),
    ]
    .into_iter()
    .filter_map(|(has, what)| has.then_some(what))
    .collect();
    let new = "psql -c \"create role worker login password '…' in role etl_rw\"";
    if !more.is_empty() {
        let said = format!("login {}; a worker needs only etl_rw", more.join(", "));
        return Ok((warn("rights", said, new), true));
    }
    Ok(match (login.works, login.steers, login.reads) {
        (true, ..) => (worker_rights_finding(&rights::compare_rights(pool, "etl_rw").await?, new), true),
        (_, true, _) => (pass("rights", "vinops_ops: the rights of an operator; a worker needs etl_rw"), true),
        (_, _, true) => (pass("rights", "app_ro: the rights of `serve`; a worker needs etl_rw"), false),
        _ => (fail("rights", "login has none of the roles etl_rw, vinops_ops, app_ro", new), false),
    })
}

/// Returns the finding about a worker's login, compared with the list in SECURITY.md.
fn worker_rights_finding(found: &rights::RightsDifference, new: &str) -> DoctorFinding {
    let some = |those: &[String]| match those.len() {
        0..=3 => those.join(", "),
        all => format!("{}, and {} others", those[..3].join(", "), all - 3),
    };
    match (found.less.is_empty(), found.more.is_empty()) {
        (true, true) => pass("rights", "etl_rw: exactly the rights of a worker"),
        (true, false) => {
            warn("rights", format!("login has more rights than a worker needs: {}", some(&found.more)), new)
        }
        (false, _) => {
            let said = format!("login lacks rights that a worker needs: {}", some(&found.less));
            fail("rights", said, "vinops migrate status")
        }
    }
}

/// Checks every documented table, column, key, index, extension and function.
async fn check_objects(pool: &PgPool) -> anyhow::Result<DoctorFinding> {
    let checks = verify::verify_schema(pool).await?;
    let wrong: Vec<&verify::SchemaCheck> = checks.iter().filter(|check| !check.passed).collect();
    let Some(first) = wrong.first() else {
        return Ok(pass("objects", format!("{} checked: tables, keys, indexes, extensions, functions", checks.len())));
    };
    let said = format!(
        "{} of {} differ from the documented schema; {}: {}",
        wrong.len(),
        checks.len(),
        first.object,
        first.evidence
    );
    Ok(fail("objects", said, "vinops verify auction"))
}

/// Checks the settings of the server that can cost data or time.
async fn check_settings(pool: &PgPool) -> anyhow::Result<Vec<DoctorFinding>> {
    const SUBJECT: &str = "settings";
    let now = sqlx::query!(
        r#"-- doctor: settings
        select
          current_setting('fsync')::boolean as "fsync!",
          current_setting('full_page_writes')::boolean as "full_page_writes!",
          current_setting('autovacuum')::boolean as "autovacuum!",
          pg_size_bytes(current_setting('shared_buffers')) as "shared_buffers!",
          pg_size_bytes(current_setting('max_wal_size')) as "max_wal_size!",
          pg_size_bytes(current_setting('wal_buffers')) as "wal_buffers!",
          current_setting('max_connections')::int as "connections!",
          (select count(*) from pg_stat_activity where backend_type = 'client backend') as "connected!""#
    )
    .fetch_one(pool)
    .await?;
    let set = |name: &str, value: &str| {
        format!("psql -c \"alter system set {name} = '{value}'\" -c 'select pg_reload_conf()'")
    };
    let mut findings = Vec::new();
    for (on, name, why) in [
        (now.fsync, "fsync", "a power failure can corrupt the whole database"),
        (now.full_page_writes, "full_page_writes", "a power failure can leave torn pages"),
        (now.autovacuum, "autovacuum", "the queue's table grows and becomes slower"),
    ] {
        if !on {
            findings.push(fail(SUBJECT, format!("{name} is off: {why}"), set(name, "on")));
        }
    }
    for (bytes, least, name, value, why) in [
        (now.shared_buffers, 512 << 20, "shared_buffers", "1GB", "the indexes of a feed need more; requires a restart"),
        (now.max_wal_size, 2 << 30, "max_wal_size", "8GB", "a first window writes that much between two checkpoints"),
        (
            now.wal_buffers,
            64 << 20,
            "wal_buffers",
            "64MB",
            "a window fills it before the WAL writer wakes, and waits for the disk; requires a restart",
        ),
    ] {
        if bytes < least {
            let said = format!("{name} is {} MB: {why}", bytes >> 20);
            findings.push(warn(SUBJECT, said, set(name, value)));
        }
    }
    if now.connected * 10 > i64::from(now.connections) * 8 {
        let said = format!(
            "{} of {} connections are in use; a worker uses up to 24 and one per slot; requires a restart",
            now.connected, now.connections
        );
        findings.push(warn(SUBJECT, said, set("max_connections", "400")));
    }
    if findings.is_empty() {
        findings.push(pass(SUBJECT, "no setting needs a change"));
    }
    Ok(findings)
}

/// Checks the optional extension pg_stat_statements. Installing it requires a superuser, and a library that the
/// server loads when it starts.
async fn check_statements(pool: &PgPool) -> anyhow::Result<DoctorFinding> {
    let there = sqlx::query_scalar!(
        r#"-- doctor: statements
        select exists (select from pg_extension where extname = 'pg_stat_statements') as "there!""#
    )
    .fetch_one(pool)
    .await?;
    if there {
        return Ok(pass("statements", "pg_stat_statements is installed"));
    }
    Ok(warn(
        "statements",
        "pg_stat_statements is not installed: optional, it shows the cost of each named statement",
        "psql -c 'create extension pg_stat_statements'",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::FindingLevel;
    use super::*;

    #[test]
    fn clocks_may_differ_by_two_seconds_and_by_what_the_way_may_have_taken() {
        let level = |ahead: i64, error: i64| {
            let [ahead, error] = [ahead, error].map(chrono::TimeDelta::milliseconds);
            clock_finding(ClockOffset { ahead, error }).level
        };
        assert_eq!([level(0, 1), level(1990, 1), level(-1990, 1)], [FindingLevel::Pass; 3]);
        assert_eq!([level(2010, 1), level(-2010, 1)], [FindingLevel::Fail; 2]);
        assert_eq!([level(2400, 500), level(2600, 500)], [FindingLevel::Pass, FindingLevel::Fail]);
    }
}
