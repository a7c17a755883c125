//! The commands of a worker and of an operator, each with a login that is a member of only that role.

use crate::cli_fixture::CliFixture;
use crate::http_endpoint;
use crate::terminal_output::feed_text;

/// Returns the URL of the fixture's database with a login of this role.
async fn create_login(fixture: &CliFixture, role: &str) -> String {
    let name = format!("vinops_test_{role}");
    let make = format!(
        "do $$
        begin
          if not exists (select from pg_roles where rolname = '{name}') then
            create role {name} login password 'deed' in role {role};
          end if;
        exception
          when duplicate_object or unique_violation then null;
        end
        $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(fixture.pool()).await.unwrap();
    let mut url = url::Url::parse(&fixture.db.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("deed")).unwrap();
    url.into()
}

async fn run_successfully(fixture: &CliFixture, url: &str, feed: &str, arguments: &[&str]) -> String {
    let mut command = fixture.vinops_command(arguments);
    let output = command.env("DATABASE_URL", url).env("COPART_FEED_URL", feed).output().await.unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn a_workers_login_works_whole_chains_and_an_operators_steers_them() {
    let fixture = CliFixture::new().await;
    let (worker, operator) = (create_login(&fixture, "etl_rw").await, create_login(&fixture, "vinops_ops").await);
    let (server, _stop) = http_endpoint::start_feed().await;
    let address = server.url().to_string();
    // into empty tables, beside what is there, and over the end of a month
    for (at, window) in ["2026-10-31T23:30:00Z", "2026-10-31T23:45:00Z", "2026-11-01T00:00:00Z"].into_iter().enumerate()
    {
        let path = fixture.folder.path().join(format!("{at}.csv"));
        std::fs::write(&path, feed_text(&format!("{}.0", 275 + at), &format!("version {at}"))).unwrap();
        run_successfully(&fixture, &worker, &address, &["ingest", path.to_str().unwrap(), "--window", window]).await;
    }
    let lots = sqlx::query_scalar::<_, i64>("select count(*) from lots").fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(lots, 48);
    run_successfully(&fixture, &worker, &address, &["fetch", "--now"]).await;

    for command in [
        &["jobs", "pause", "ingest", "--why", "x"][..],
        &["jobs", "resume", "ingest", "--why", "x"],
        &["jobs", "limit", "ingest", "1", "--why", "x"],
        &["source", "disable", "copart", "--why", "x"],
        &["source", "enable", "copart", "--why", "x"],
        &["source", "reset-breaker", "copart", "--why", "x"],
        &["taxonomy", "map", "colors", "glow in the dark", "color_white", "--why", "x"],
        &["replay", "2026-11-01T00:00:00Z", "--from", "upsert-lots", "--yes"],
    ] {
        run_successfully(&fixture, &operator, &address, command).await;
    }
    // a kind with a limit is claimed by a login that may not change it
    let path = fixture.folder.path().join("limited.csv");
    std::fs::write(&path, feed_text("900.0", "limited")).unwrap();
    run_successfully(
        &fixture,
        &worker,
        &address,
        &["ingest", path.to_str().unwrap(), "--window", "2026-11-01T00:15:00Z"],
    )
    .await;
    let written = "select string_agg(distinct db_user, ' ') from audit.operator_actions";
    let written = sqlx::query_scalar::<_, String>(written).fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(written, "vinops_test_vinops_ops");
}
