//! Rows are backed up before they are migrated, in a file that really restores them.

use super::{ListingFixture, SAMPLE_LISTINGS, VISIBLE_LISTINGS};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tokio::process::Command;
use vinops::testing::empty_database;

async fn fixture_with_listings() -> ListingFixture {
    let fixture = ListingFixture::new().await;
    fixture.migrate(&["up", "--to", "000"]).await;
    fixture.run_statements(SAMPLE_LISTINGS).await;
    fixture
}

fn backup_files(fixture: &ListingFixture) -> Vec<PathBuf> {
    let folder = fixture.home.path().join(".local/share/vinops/backups");
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

/// Returns true if a program can be started here. A server from npm has neither of the two programs below.
async fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().await.is_ok()
}

#[tokio::test]
async fn a_backup_restores_into_an_empty_database_which_can_go_on_from_there() {
    let fixture = fixture_with_listings().await;
    if !is_installed("pg_dump").await || !is_installed("psql").await {
        // without the program the migration must be refused
        let said = fixture.assert_migrate_fails(&["up"], 3).await;
        assert!(said.contains("could not find pg_dump"), "{said}");
        return;
    }
    fixture.migrate(&["up", "--to", "003"]).await;
    let said = fixture.migrate(&["up"]).await;
    assert!(said.starts_with("backed up 2 rows to "), "{said}");
    let [first, second] = backup_files(&fixture).try_into().unwrap();
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    let noted = "select string_agg(path || ' ' || bytes || ' ' || length(sha256), chr(10) order by taken_at)
        from vinops.backups where path is not null";
    let of = |path: &PathBuf| format!("{} {} 64", path.display(), std::fs::metadata(path).unwrap().len());
    assert_eq!(fixture.query_text(noted).await, format!("{}\n{}", of(&first), of(&second)));

    let restored = ListingFixture { db: empty_database().await, home: tempfile::tempdir().unwrap() };
    let psql = Command::new("psql")
        .args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", &restored.db.url, "-f", second.to_str().unwrap()])
        .output();
    let psql = psql.await.unwrap();
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    assert_eq!(restored.count_tables().await, 22, "it is of before 004");
    assert_eq!(restored.query_text(VISIBLE_LISTINGS).await, fixture.query_text(VISIBLE_LISTINGS).await);
    let status = restored.migrate(&["status"]).await;
    assert!(status.contains("applied     003_") && status.contains("pending     004_"), "{status}");
    restored.migrate(&["up"]).await;
    assert_eq!(restored.describe_schema().await, fixture.describe_schema().await);
    let report = restored.verify().await;
    assert_eq!(report["ok"], true, "{report:#}");
    restored.migrate(&["down", "--to", "000"]).await;
    assert_eq!(restored.count_tables().await, 7, "the ledger came along");
}

#[tokio::test]
async fn without_pg_dump_rows_are_not_migrated_unless_somebody_insists() {
    let fixture = fixture_with_listings().await;
    let before = fixture.describe_schema().await;
    let bare = |arguments: &[&str]| {
        let mut command = fixture.vinops(arguments);
        command.env("PATH", fixture.home.path());
        command
    };
    let said = super::process_output(bare(&["migrate", "--set", "listing", "up"]).output().await.unwrap());
    assert_eq!(said.code, Some(3), "{}", said.err);
    assert!(said.err.contains("could not find pg_dump") && said.err.contains("pass --no-backup"), "{}", said.err);
    assert_eq!(fixture.describe_schema().await, before);
    assert!(backup_files(&fixture).is_empty());

    let said =
        super::process_output(bare(&["migrate", "--set", "listing", "up", "--no-backup"]).output().await.unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let checks = fixture.verify().await;
    assert!(checks["checks"][2]["evidence"].as_str().unwrap().contains("waived by "), "{checks}");
    assert_eq!(checks["ok"], true);
}

#[tokio::test]
async fn an_empty_database_needs_no_backup() {
    let fixture = ListingFixture::new().await;
    let mut command = fixture.vinops(&["migrate", "--set", "listing", "up"]);
    let said = super::process_output(command.env("PATH", fixture.home.path()).output().await.unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(backup_files(&fixture).is_empty(), "what the slices seed is no row of anybody's");
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_stops_everything() {
    let fixture = fixture_with_listings().await;
    let file = fixture.home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = fixture.assert_migrate_fails(&["up", "--backup-dir", file.join("folder").to_str().unwrap()], 1).await;
    assert!(said.contains("could not back up the database"), "{said}");
    assert_eq!(fixture.count_tables().await, 7);
}

#[tokio::test]
async fn going_back_without_a_backup_does_not_lose_rows_unasked() {
    let fixture = ListingFixture::migrated().await;
    fixture
        .run_statements("insert into listings (seller_sku) values ('S'); insert into boms (listing_id) values (1)")
        .await;
    let said = fixture.assert_migrate_fails(&["down", "--to", "000", "--no-backup"], 1).await;
    assert!(said.contains("would delete 1 rows\nhint: pass --destructive"), "{said}");
    assert_eq!(fixture.count_tables().await, 25);
    fixture.migrate(&["down", "--to", "000", "--no-backup", "--destructive"]).await;
    assert_eq!(fixture.query_number("select count(*) from listings").await, 1);
}
