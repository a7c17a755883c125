//! A database that is down, strange or missing, a store that cannot be written, ports that are taken.

use super::stage::Stage;
use std::net::TcpListener;
use std::process::Stdio;

#[tokio::test]
async fn a_database_that_is_down_is_named_at_once() {
    let stage = Stage::new().await;
    // bound, so that nobody else listens there, and refused, since nobody does
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("postgres://somebody:hunter2@127.0.0.1:{port}/vinops");
    let output =
        stage.vinops(&["ingest", stage.file(0, None).to_str().unwrap()]).env("DATABASE_URL", url).output();
    let said = stage.said(output.await.unwrap());
    let wanted = format!(
        "vinops: cannot reach the database of DATABASE_URL: is the server up, and the address right?: connect to \
        127.0.0.1:{port}/vinops as somebody: "
    );
    assert!(said.err.starts_with(&wanted) && said.err.lines().count() == 1, "{}", said.err);
    assert!(!said.err.contains("hunter2"));
    assert_eq!(said.code, Some(3));
}

#[tokio::test]
async fn without_a_database_the_ways_to_one_are_named() {
    let stage = Stage::new().await;
    let said = stage.said(stage.vinops(&["windows"]).env_remove("DATABASE_URL").output().await.unwrap());
    said.is(
        3,
        "vinops: DATABASE_URL is not set: name a database (postgres://user:password@host:5432/vinops), or use --embedded \
        for the private one of `vinops up`, or try `vinops demo`\n",
    );
}

/// Changes the book of migrations, and sees what `vinops` says; nothing else changes.
async fn with_schema(change: &'static str, why: &str) {
    let stage = Stage::begun().await;
    let before = stage.stored().await;
    sqlx::raw_sql(change).execute(stage.pool()).await.unwrap();
    for arguments in [&["ingest", stage.file(1, None).to_str().unwrap()][..], &["worker"], &["windows"]] {
        stage.run(arguments).await.is(3, why);
    }
    assert_eq!(stage.stored().await, before);
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_that_mends_it() {
    let newer = vinops::db::migrations::AUCTION.active().map(|it| it.id).filter(|id| *id >= "0016");
    let newer = newer.collect::<Vec<_>>().join(", ");
    with_schema(
        "delete from vinops.migrations where id >= '0016'",
        &format!("vinops: the database's schema lacks {newer} (it is older than this binary): run `vinops migrate up`\n"),
    )
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_is_unknown() {
    with_schema(
        "insert into vinops.migrations select (jsonb_populate_record(m, '{\"id\": \"9999\"}')).* from vinops.migrations m where id = '0017'",
        "vinops: the database's schema has 9999, which this binary does not know: use the newer binary\n",
    )
    .await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_how_to_get_it() {
    let stage = Stage::new().await;
    sqlx::raw_sql("drop schema vinops cascade").execute(stage.pool()).await.unwrap();
    stage
        .run(&["windows"])
        .await
        .is(3, "vinops: the database has no vinops schema: run `vinops migrate up`\n");
}

/// A file stands where a folder is needed: that stops even root, whom no permission does.
#[tokio::test]
async fn a_store_that_cannot_be_written_is_named_with_the_way_out() {
    let stage = Stage::begun().await;
    let before = stage.stored().await;
    let blocked = stage.folder.path().join("blocked");
    std::fs::write(&blocked, "").unwrap();
    let mut command = stage.vinops(&["ingest", stage.file(1, None).to_str().unwrap()]);
    let store = url::Url::from_directory_path(blocked.join("store")).unwrap();
    let said = stage.said(command.env("VINOPS_STORE", store.as_str()).output().await.unwrap());
    said.is(
        3,
        "vinops: write to the store's folder FOLDER/blocked/store/: give it to this user (chown), or set \
        VINOPS_STORE=file:///a/folder/of/yours: Not a directory (os error 20)\n",
    );
    assert_eq!(stage.stored().await, before);
    assert_eq!(stage.count("raw.csv_files").await, 1);
}

/// The port of the one is taken when the other looks for its own.
#[tokio::test]
async fn two_private_clusters_at_once_find_a_port_each() {
    let stage = Stage::new().await;
    let one =
        || stage.vinops(&["embedded", "/bin/sh", "-c", "echo $DATABASE_URL"]).stderr(Stdio::null()).output();
    let (one, other) = tokio::join!(one(), one());
    let urls = [one, other].map(|output| stage.said(output.unwrap()));
    assert!(
        urls.iter().all(|said| said.code == Some(0) && said.out.starts_with("postgres://")),
        "{}",
        urls[0].err
    );
    assert_ne!(urls[0].out, urls[1].out);
}
