//! A database that is down, foreign or missing, a store that cannot be written, and ports that are in use.

use super::cli_fixture::CliFixture;
use std::net::TcpListener;
use std::process::Stdio;

#[tokio::test]
async fn a_database_that_is_down_is_named_at_once() {
    let fixture = CliFixture::new().await;
    // bound, so no other process listens there, and connections are refused
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("postgres://somebody:hunter2@127.0.0.1:{port}/vinops");
    let output = fixture
        .vinops_command(&["ingest", fixture.write_window_file(0, None).to_str().unwrap()])
        .env("DATABASE_URL", url)
        .output();
    let said = fixture.command_output(output.await.unwrap());
    let wanted = format!(
        "error: could not connect to the database of DATABASE_URL\n\
         detail: could not connect to 127.0.0.1:{port}/vinops as somebody\n\
         detail: error communicating with database: Connection refused (os error 111)\n\
         hint: check that the server is running and that the address is right\n"
    );
    assert_eq!(said.err, wanted);
    assert!(!said.err.contains("hunter2"));
    assert_eq!(said.code, Some(3));
}

#[tokio::test]
async fn without_a_database_the_ways_to_one_are_named() {
    let fixture = CliFixture::new().await;
    let said =
        fixture.command_output(fixture.vinops_command(&["windows"]).env_remove("DATABASE_URL").output().await.unwrap());
    said.assert_output(
        3,
        "error: DATABASE_URL is not set\n\
         hint: set it (postgres://user:password@host:5432/vinops), or use --private-cluster for the private PostgreSQL of \
         `vinops up`, or try `vinops demo`\n",
    );
}

/// Changes the table of migrations, and checks the error of `vinops`. Nothing else changes.
async fn assert_schema_error(change: &'static str, why: &str) {
    let fixture = CliFixture::with_first_window().await;
    let before = fixture.stored_counts().await;
    sqlx::raw_sql(change).execute(fixture.pool()).await.unwrap();
    for arguments in [&["ingest", fixture.write_window_file(1, None).to_str().unwrap()][..], &["worker"], &["windows"]]
    {
        fixture.run_vinops(arguments).await.assert_output(3, why);
    }
    assert_eq!(fixture.stored_counts().await, before);
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_that_mends_it() {
    let newer = vinops::db::migrations::AUCTION_SET.active().map(|it| it.id).filter(|id| *id >= "0016");
    let newer = newer.collect::<Vec<_>>().join(", ");
    assert_schema_error(
        "delete from vinops.migrations where id >= '0016'",
        &format!(
            "error: the database schema lacks migrations {newer}, since it is older than this program\n\
             hint: run `vinops migrate up`\n"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_is_unknown() {
    assert_schema_error(
        "insert into vinops.migrations select (jsonb_populate_record(m, '{\"id\": \"9999\"}')).* from vinops.migrations m where id = '0017'",
        "error: the database schema has migrations 9999, which this program does not know\nhint: use the newer program\n",
    )
    .await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_how_to_get_it() {
    let fixture = CliFixture::new().await;
    sqlx::raw_sql("drop schema vinops cascade").execute(fixture.pool()).await.unwrap();
    fixture
        .run_vinops(&["windows"])
        .await
        .assert_output(3, "error: the database has no vinops schema\nhint: run `vinops migrate up`\n");
}

/// A file in place of a folder. That stops even root, whom permissions do not stop.
#[tokio::test]
async fn a_store_that_cannot_be_written_is_named_with_the_way_out() {
    let fixture = CliFixture::with_first_window().await;
    let before = fixture.stored_counts().await;
    let blocked = fixture.folder.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    let mut command = fixture.vinops_command(&["ingest", fixture.write_window_file(1, None).to_str().unwrap()]);
    let store = url::Url::from_directory_path(blocked.join("store")).unwrap();
    let said = fixture.command_output(command.env("VINOPS_STORE", store.as_str()).output().await.unwrap());
    said.assert_output(
        3,
        "error: could not write to the store folder FOLDER/blocked/store/: Not a directory (os error 20)\n\
        hint: give FOLDER/blocked/store/ to this user (chown), or set VINOPS_STORE=file:///another/folder\n",
    );
    assert_eq!(fixture.stored_counts().await, before);
    assert_eq!(fixture.count_rows("raw.csv_files").await, 1);
}

/// The port is in use by the first process when the second one binds.
#[tokio::test]
async fn two_private_clusters_at_once_find_a_port_each() {
    let fixture = CliFixture::new().await;
    let one = || {
        fixture.vinops_command(&["with-postgres", "/bin/sh", "-c", "echo $DATABASE_URL"]).stderr(Stdio::null()).output()
    };
    let (one, other) = tokio::join!(one(), one());
    let urls = [one, other].map(|output| fixture.command_output(output.unwrap()));
    assert!(urls.iter().all(|said| said.code == Some(0) && said.out.starts_with("postgres://")), "{}", urls[0].err);
    assert_ne!(urls[0].out, urls[1].out);
}
