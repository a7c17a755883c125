//! Files that are not the feed, or only a part of it.

use super::cli_fixture::CliFixture;
use super::{CommandOutput, ROWS};
use std::fs::File;
use std::io::{self, Read};
use vinops::simulator::fault::{FeedFault, guard_page};

/// Checks that a file is rejected before anything is stored.
async fn assert_rejected(fault: FeedFault, why: &str) {
    let fixture = CliFixture::with_first_window().await;
    let before = fixture.stored_counts().await;
    let said = fixture.ingest_file(&fixture.write_window_file(1, Some(fault))).await;
    said.assert_output(1, why);
    assert_eq!(fixture.stored_counts().await, before);
    assert_eq!((fixture.count_rows("raw.csv_files").await, fixture.count_rows("fleet.windows").await), (1, 1));
}

/// Checks that a file is stored and quarantined.
async fn ingest_quarantined(fault: FeedFault, why: &str) -> CliFixture {
    let fixture = CliFixture::with_first_window().await;
    let before = fixture.stored_counts().await;
    let path = fixture.write_window_file(1, Some(fault));
    let said = fixture.ingest_file(&path).await;
    said.assert_output(1, &format!("error: the file is quarantined: {why}\n"));
    assert_eq!(said.json()["state"], "quarantined");
    fixture.assert_quarantined(&before, &std::fs::read(path).unwrap(), why).await;
    fixture
}

/// Checks that a file is applied nevertheless, and returns its report.
async fn ingest_applied(fault: FeedFault) -> (CliFixture, CommandOutput) {
    let fixture = CliFixture::with_first_window().await;
    let said = fixture.ingest_file(&fixture.write_window_file(1, Some(fault))).await;
    said.assert_output(0, "");
    (fixture, said)
}

/// Returns true if the digest equals that of the same two windows without a fault.
async fn equals_intact_file(fixture: &CliFixture) -> bool {
    let whole = CliFixture::with_first_window().await;
    whole.ingest_file(&whole.write_window_file(1, None)).await.assert_output(0, "");
    whole.stored_counts().await.digest == fixture.stored_counts().await.digest
}

#[tokio::test]
async fn an_html_page_is_refused_at_the_door() {
    assert_eq!(guard_page().len(), 963);
    assert_rejected(
        FeedFault::HtmlPage,
        "error: file FOLDER/in/2026/03/06/1715.csv is an HTML page, not a feed\nhint: check the program that wrote it\n",
    )
    .await;
}

#[tokio::test]
async fn an_empty_file_is_refused_at_the_door() {
    assert_rejected(FeedFault::Empty, "error: file FOLDER/in/2026/03/06/1715.csv is empty\n").await;
}

#[tokio::test]
async fn a_wrong_header_is_quarantined_and_its_missing_columns_named() {
    let begins = "\"Id\",\"Yard number\",\"Yard name\",\"Sale Date M/D/CY\",\"Day of Week\",\"Sale time (HHMM";
    ingest_quarantined(
        FeedFault::WrongHeader,
        &format!("the header has no column VIN; the first line begins {begins:?}"),
    )
    .await;
}

#[tokio::test]
async fn a_file_with_a_tenth_of_its_rows_broken_is_quarantined_and_the_first_of_them_are_kept() {
    let fixture =
        ingest_quarantined(FeedFault::BrokenRows { per_mille: 100 }, "40 of 400 records cannot be read, more than 2 %")
            .await;
    let shown: Vec<(i32, String)> =
        sqlx::query_as("select row_no, reason from audit.parse_errors where kind = 'rejected' order by row_no limit 2")
            .fetch_all(fixture.pool())
            .await
            .unwrap();
    assert_eq!(fixture.count_rows("audit.parse_errors").await, 40);
    assert_eq!(shown, [(10, "9 fields instead of 59".to_owned()), (20, "9 fields instead of 59".to_owned())]);
}

#[tokio::test]
async fn a_file_whose_only_line_has_200_mb_is_quarantined_in_bounded_memory() {
    let fixture = CliFixture::with_first_window().await;
    let before = fixture.stored_counts().await;
    let path = fixture.folder.path().join("long.csv");
    let mut file = File::create(&path).unwrap();
    io::copy(&mut io::repeat(b'x').take(200_000_000), &mut file).unwrap();
    let said =
        fixture.run_vinops(&["ingest", path.to_str().unwrap(), "--json", "--window", "2026-03-06T17:15:00Z"]).await;
    let why = format!("the first line is longer than 65536 bytes; it begins \"{}\"", "x".repeat(80));
    said.assert_output(1, &format!("error: the file is quarantined: {why}\n"));
    assert_eq!(said.json()["bytes"], 200_000_000);
    assert_small_memory(&said);
    assert_eq!(fixture.newest_window().await, ("quarantined".to_owned(), Some(why)));
    assert_eq!(fixture.stored_counts().await, before);
}

#[tokio::test]
async fn a_line_of_200_mb_among_good_ones_is_one_parse_error_in_bounded_memory() {
    let (fixture, said) = ingest_applied(FeedFault::LongLine { bytes: 200_000_000 }).await;
    assert_small_memory(&said);
    let report = said.json();
    assert_eq!((&report["state"], &report["parse_errors"]), (&"applied".into(), &1.into()));
    assert!(equals_intact_file(&fixture).await);
}

fn assert_small_memory(said: &CommandOutput) {
    let peak = said.json()["peak_rss_mb"].as_f64().unwrap();
    println!("200 MB in one line: peak memory {peak:.1} MB");
    assert!(peak > 5.0 && peak < 64.0, "{peak} MB");
}

#[tokio::test]
async fn nuls_are_replaced_and_counted_and_their_bytes_kept() {
    let (fixture, said) = ingest_applied(FeedFault::Nuls { every: 40 }).await;
    let report = said.json();
    assert_eq!((&report["state"], &report["parse_errors"]), (&"applied".into(), &0.into()));
    assert!(report["repaired"].as_i64().unwrap() >= 10, "{report}");
    let kept: i64 = sqlx::query_scalar(
        "select count(*) from audit.parse_errors where kind = 'repaired' and position('\\x00'::bytea in raw) > 0",
    )
    .fetch_one(fixture.pool())
    .await
    .unwrap();
    assert_eq!(kept, 10);
}

#[tokio::test]
async fn latin_1_is_read_as_such_and_counted() {
    let (fixture, said) = ingest_applied(FeedFault::Latin1 { every: 40 }).await;
    let report = said.json();
    assert_eq!((&report["state"], &report["parse_errors"]), (&"applied".into(), &0.into()));
    let kept: Vec<String> =
        sqlx::query_scalar("select distinct reason from audit.parse_errors where kind = 'repaired'")
            .fetch_all(fixture.pool())
            .await
            .unwrap();
    assert_eq!(kept, ["not UTF-8, read as Latin-1"]);
    assert_eq!(fixture.count_rows("audit.parse_errors").await, 10);
}

#[tokio::test]
async fn a_file_that_shrank_by_half_is_applied_and_decides_nothing_about_the_rest() {
    let (fixture, said) = ingest_applied(FeedFault::FirstRows { rows: ROWS as u64 / 2 }).await;
    assert_incomplete(&fixture, &said).await;
}

#[tokio::test]
async fn a_truncated_file_is_applied_as_far_as_it_goes() {
    let (fixture, said) = ingest_applied(FeedFault::Truncated { at: 60_000 }).await;
    assert_incomplete(&fixture, &said).await;
    assert_eq!(said.json()["parse_errors"], 1);
    let reason: String = sqlx::query_scalar("select reason from audit.parse_errors where kind = 'rejected'")
        .fetch_one(fixture.pool())
        .await
        .unwrap();
    assert_eq!(reason, "the file ends within the record");
}

async fn assert_incomplete(fixture: &CliFixture, said: &CommandOutput) {
    let report = said.json();
    assert_eq!(report["state"], "incomplete");
    assert!(report["gone"].as_i64().unwrap() > 100, "{report}");
    assert_eq!((&report["pending_result"], &report["removed"]), (&0.into(), &0.into()));
    assert_eq!(fixture.newest_window().await.0, "incomplete");
}

#[tokio::test]
async fn unreadable_values_are_in_the_answer_of_ingest_by_column() {
    let fixture = CliFixture::with_first_window().await;
    let path = fixture.folder.path().join("in/2026/03/06/1715.csv");
    let rows = ["N/A", "5 miles", "", "60019.0"]
        .iter()
        .enumerate()
        .map(|(n, odometer)| format!("{n},4000000{n},1HGCM82633A00000{n},{odometer},2026-03-06T17:0{n}:00Z,now\n"));
    let header = "Id,Lot number,VIN,Odometer,Last Updated Time,Create Date/Time\n";
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, header.to_owned() + &rows.collect::<String>()).unwrap();
    let said = fixture.ingest_file(&path).await.json();
    assert_eq!(said["unreadable"], serde_json::json!({ "Odometer": { "count": 2, "first": "N/A" } }));
    assert_eq!((&said["state"], &said["new"]), (&"incomplete".into(), &4.into()));
}
