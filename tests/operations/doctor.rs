//! The findings of `vinops doctor`: none in a sound fleet, and one line with a fix for each fault.

use super::http_endpoint::start_feed;
use crate::cli_fixture::CliFixture;
use serde_json::Value;
use vinops::embedded::{EmbeddedOptions, EmbeddedPostgres};

struct DoctorOutput {
    code: Option<i32>,
    /// The findings in order: level, subject, message.
    findings: Vec<(String, String, String)>,
}

impl DoctorOutput {
    /// Returns level and message of the findings on this subject.
    fn findings_about(&self, about: &str) -> Vec<(&str, &str)> {
        let those = self.findings.iter().filter(|(_, it, _)| it == about);
        those.map(|(level, _, said)| (&**level, &**said)).collect()
    }

    fn failed_checks(&self) -> Vec<&str> {
        self.findings.iter().filter(|(level, ..)| level == "FAIL").map(|(_, about, _)| &**about).collect()
    }
}

async fn doctor_output(command: &mut tokio::process::Command) -> DoctorOutput {
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let value: Value = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("no JSON: {said}{}", String::from_utf8_lossy(&output.stderr)));
    let findings: Vec<Value> = serde_json::from_value(value["findings"].clone()).unwrap();
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    for finding in &findings {
        let sound = finding["level"] == "PASS";
        assert_eq!(sound, finding["remedy"].is_null(), "what is no PASS has a remedy: {finding}");
    }
    let findings = findings.iter().map(|it| (text(&it["level"]), text(&it["about"]), text(&it["said"]))).collect();
    let answer = DoctorOutput { code: output.status.code(), findings };
    assert_eq!(value["ok"], answer.failed_checks().is_empty());
    assert_eq!(answer.code == Some(0), answer.failed_checks().is_empty());
    answer
}

async fn run_doctor(fixture: &CliFixture) -> DoctorOutput {
    doctor_output(&mut fixture.vinops_command(&["doctor", "--json"])).await
}

/// Configures a server as recommended. The tests' own server is not durable.
#[tokio::test]
async fn a_sound_fleet_has_nothing_that_fails() {
    let embedded =
        EmbeddedPostgres::start(EmbeddedOptions { temporary: true, ..EmbeddedOptions::default() }).await.unwrap();
    let url = embedded.ensure_database("vinops").await.unwrap();
    let fixture = CliFixture::new().await;
    let (feed, _stop) = start_feed().await;
    let with = |arguments: &[&str]| {
        let mut command = fixture.vinops_command(arguments);
        command.env("DATABASE_URL", &url).env("COPART_FEED_URL", feed.url());
        command
    };
    for arguments in [&["migrate", "up"][..], &["fetch", "--now"]] {
        let output = with(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let found = doctor_output(&mut with(&["doctor", "--json"])).await;
    assert_eq!(found.failed_checks(), Vec::<&str>::new(), "{:?}", found.findings);
    for about in ["database", "schema", "objects", "rows", "clock", "queue", "partitions", "store", "feed", "source"] {
        assert_eq!(found.findings_about(about).iter().map(|it| it.0).collect::<Vec<_>>(), ["PASS"], "{about}");
    }
    let people = with(&["doctor"]).output().await.unwrap();
    let said = String::from_utf8(people.stdout).unwrap();
    assert!(people.status.success() && said.contains("\nPASS  schema  "), "{said}");
    assert!(!said.contains("authKey"), "{said}");
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn each_fault_has_its_line() {
    let fixture = CliFixture::new().await;
    let found = run_doctor(&fixture).await;
    assert!(!found.failed_checks().contains(&"source"));
    assert_eq!(found.findings_about("source"), [("WARN", "copart: no successful window yet")]);
    let (level, rights) = found.findings_about("rights")[0];
    assert!(level == "WARN" && rights.contains("superuser"), "{rights}");
    let (level, lacks) = found.findings_about("feed")[0];
    assert!(level == "WARN" && lacks.contains("COPART_FEED_URL is not set"), "{lacks}");

    sqlx::raw_sql(
        "insert into fleet.windows (source, window_start_utc, state, updated_at)
          values ('copart', date_bin('15 minutes', now() - interval '2 hours', 'epoch'), 'applied', now() - interval '100 minutes');
        update fleet.sources set breaker = 'open', opened_at = now(), probe_at = now(), consecutive_failures = 5;
        insert into fleet.jobs (kind, run_at) values ('ingest', now() - interval '20 minutes');
        insert into fleet.job_kind_settings (kind, paused_at, paused_by, paused_because) values ('fetch', now(), 'me', 'a test');
        insert into fleet.workers (name, kinds, concurrency, lease) values ('one', '{ingest,fetch}', 4, '1 hour');
        update config set completion_detector_enabled = false;
        alter table lots drop constraint lots_vin_fkey;",
    )
    .execute(fixture.pool())
    .await
    .unwrap();
    let found = run_doctor(&fixture).await;
    let source: Vec<(&str, &str)> = found.findings_about("source");
    assert!(source[0].0 == "FAIL" && source[0].1.contains("copart: the breaker is open"), "{source:?}");
    assert_eq!(source[1], ("FAIL", "copart: no successful window for 100 minutes"));
    assert_eq!(found.findings_about("queue"), [("WARN", "ingest: a due job has waited for 20 minutes")]);
    assert_eq!(
        found.findings_about("workers"),
        [
            ("WARN", "fetch is paused on all workers"),
            ("WARN", "1 running, none serves upsert-vehicles, upsert-lots, detect-completion"),
        ]
    );
    assert_eq!(found.findings_about("switches")[0].0, "WARN");
    let (level, objects) = found.findings_about("objects")[0];
    assert!(level == "FAIL" && objects.contains("lots_vin_fkey"), "{objects}");
}

#[tokio::test]
async fn a_schema_that_is_old_is_the_first_thing_to_mend() {
    let fixture = CliFixture::new().await;
    sqlx::raw_sql("delete from vinops.migrations where id = '0020'").execute(fixture.pool()).await.unwrap();
    let found = run_doctor(&fixture).await;
    let (level, said) = found.findings_about("schema")[0];
    assert!(level == "FAIL" && said.contains("0020"), "{said}");
    assert_eq!(found.findings_about("source"), [], "what the schema may lack is not asked");
}

#[tokio::test]
async fn rights_are_told_from_each_other() {
    let fixture = CliFixture::new().await;
    for (role, level, words) in [
        ("etl_rw", "PASS", "etl_rw: exactly the rights of a worker"),
        ("vinops_ops", "PASS", "vinops_ops: the rights of an operator; a worker needs etl_rw"),
        ("app_ro", "PASS", "app_ro: the rights of `serve`; a worker needs etl_rw"),
        ("vinops_admin", "WARN", "login is a member of vinops_admin; a worker needs only etl_rw"),
        ("pg_monitor", "FAIL", "login has none of the roles etl_rw, vinops_ops, app_ro"),
    ] {
        let url = format!("{}?options=-c%20role%3D{role}", fixture.db.url);
        let found = doctor_output(fixture.vinops_command(&["doctor", "--json"]).env("DATABASE_URL", url)).await;
        assert_eq!(found.findings_about("rights"), [(level, words)], "{role}: {:?}", found.findings);
        if role == "etl_rw" || role == "vinops_ops" {
            assert_eq!(found.findings_about("objects")[0].0, "PASS", "{role}: {:?}", found.findings);
        }
    }
}

#[tokio::test]
async fn a_worker_with_a_right_too_many_or_too_few_is_told_by_its_name() {
    let fixture = CliFixture::new().await;
    let url = format!("{}?options=-c%20role%3Detl_rw", fixture.db.url);
    for (change, level, words) in [
        (
            "grant insert on raw.suspended to etl_rw",
            "WARN",
            "login has more rights than a worker needs: insert on raw.suspended",
        ),
        ("revoke insert on raw.rows from etl_rw", "FAIL", "login lacks rights that a worker needs: insert on raw.rows"),
        ("revoke usage on schema fleet from etl_rw", "FAIL", "insert on raw.rows, usage on schema fleet"),
    ] {
        sqlx::raw_sql(change).execute(fixture.pool()).await.unwrap();
        let found = doctor_output(fixture.vinops_command(&["doctor", "--json"]).env("DATABASE_URL", &url)).await;
        let rights = found.findings_about("rights");
        assert!(rights[0].0 == level && rights[0].1.ends_with(words), "{change}: {rights:?}");
    }
}

/// A database of this encoding on the fixture's server, dropped by [`Foreign::gone`].
struct ForeignDatabase<'a> {
    fixture: &'a CliFixture,
    name: String,
    url: String,
}

impl ForeignDatabase<'_> {
    async fn new<'a>(fixture: &'a CliFixture, encoding: &str) -> ForeignDatabase<'a> {
        let mut url = url::Url::parse(&fixture.db.url).unwrap();
        let name = format!("{}_{}", url.path().trim_start_matches('/'), encoding.to_lowercase());
        let make =
            format!("create database {name} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0");
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(fixture.pool()).await.unwrap();
        url.set_path(&name);
        ForeignDatabase { fixture, name, url: url.into() }
    }

    async fn drop_database(self) {
        let drop = format!("drop database {} with (force)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(self.fixture.pool()).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_by_name_before_its_first_migration() {
    let fixture = CliFixture::new().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let foreign = ForeignDatabase::new(&fixture, encoding).await;
        let named = format!("database \"{}\" has encoding {encoding}; vinops needs UTF8", foreign.name);
        for arguments in [
            &["migrate", "up"][..],
            &["migrate", "baseline", "--at", "0007"],
            &["migrate", "--set", "listing", "up"],
            &["up", "--listen", "127.0.0.1:0"],
        ] {
            let mut command = fixture.vinops_command(arguments);
            command.env("DATABASE_URL", &foreign.url).env("COPART_FEED_URL", "http://127.0.0.1:9/feed.csv");
            let output = command.output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
            assert!(said.contains(&named), "{arguments:?}: {said}");
            let hint = "\nhint: create database vinops encoding 'UTF8' template template0";
            assert!(said.contains(hint), "{arguments:?}: {said}");
        }
        let pool = sqlx::PgPool::connect(&foreign.url).await.unwrap();
        let made = "select count(*) from pg_namespace where nspname in ('vinops', 'raw', 'fleet', 'listing')";
        assert_eq!(sqlx::query_scalar::<_, i64>(made).fetch_one(&pool).await.unwrap(), 0, "nothing was made");
        pool.close().await;
        let found =
            doctor_output(fixture.vinops_command(&["doctor", "--json"]).env("DATABASE_URL", &foreign.url)).await;
        assert_eq!(found.findings_about("database"), [("FAIL", &*named)]);
        foreign.drop_database().await;
    }
}

#[tokio::test]
async fn without_a_database_the_rest_is_still_looked_at() {
    let fixture = CliFixture::new().await;
    let blocked = fixture.folder.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    let store = url::Url::from_directory_path(blocked.join("store")).unwrap();
    let mut command = fixture.vinops_command(&["doctor", "--json"]);
    command.env_remove("DATABASE_URL").env("VINOPS_STORE", store.as_str()).env("COPART_USER", "somebody");
    let found = doctor_output(&mut command).await;
    assert_eq!(found.code, Some(3));
    assert_eq!(found.failed_checks(), ["database", "store", "login"]);
}
