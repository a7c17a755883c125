//! Usage errors, and readers that close the pipe early.

use super::cli_fixture::CliFixture;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

#[tokio::test]
async fn a_file_that_is_none_is_named_before_anything_is_connected() {
    let fixture = CliFixture::new().await;
    let here = fixture.folder.path().to_str().unwrap();
    let missing = format!("{here}/missing.csv");
    for (path, why) in [
        (
            &*missing,
            "could not find the file FOLDER/missing.csv\ndetail: No such file or directory (os error 2)\n\
             hint: name a CSV file of the feed",
        ),
        (here, "FOLDER is a directory\nhint: ingest its files one after the other"),
    ] {
        let mut command = fixture.vinops_command(&["ingest", path]);
        let said = fixture.command_output(command.env_remove("DATABASE_URL").output().await.unwrap());
        said.assert_output(2, &format!("error: {why}\n"));
    }
}

#[tokio::test]
async fn an_unreadable_file_is_named_with_the_way_out() {
    let fixture = CliFixture::new().await;
    let path = fixture.write_window_file(0, None);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut cause = "Permission denied (os error 13)";
    let _socket = std::fs::File::open(&path).is_ok().then(|| {
        // root may read every file, but no user can open a socket by its name
        std::fs::remove_file(&path).unwrap();
        cause = "No such device or address (os error 6)";
        std::os::unix::net::UnixListener::bind(&path).unwrap()
    });
    let said = format!(
        "error: could not open the file FOLDER/in/2026/03/06/1700.csv\ndetail: {cause}\n\
         hint: let this user read it (chmod, chown)\n"
    );
    fixture.ingest_file(&path).await.assert_output(2, &said);
}

#[tokio::test]
async fn a_window_that_is_no_time_is_shown_how_to_write_one() {
    let fixture = CliFixture::new().await;
    let said = fixture.run_vinops(&["ingest", "any.csv", "--window", "yesterday"]).await;
    said.assert_output(
        2,
        "error: invalid value 'yesterday' for '--window <TIME>': expected a date, a time and a zone, for \
        example 2026-11-20T14:30:00Z\n\nFor more information, try '--help'.\n",
    );
}

#[tokio::test]
async fn a_job_that_is_not_there_leads_to_those_that_are() {
    let fixture = CliFixture::new().await;
    let said = fixture.run_vinops(&["jobs", "show", "999"]).await;
    said.assert_output(1, "error: job 999 does not exist\nhint: `vinops jobs list` lists the jobs\n");
}

#[tokio::test]
async fn a_worker_for_an_unknown_kind_is_told_the_known_ones() {
    let fixture = CliFixture::new().await;
    fixture.run_vinops(&["worker", "--kind", "nonsense"]).await.assert_output(
        2,
        "error: unknown job kind \"nonsense\"; expected one of fetch, ingest, upsert-vehicles, upsert-lots, detect-completion\n",
    );
}

#[tokio::test]
async fn an_unknown_kind_or_state_of_jobs_is_a_wrong_call_that_names_the_known_ones() {
    let fixture = CliFixture::new().await;
    let kinds = "error: unknown job kind \"nosuch\"; expected one of fetch, ingest, upsert-vehicles, upsert-lots, \
        detect-completion\n";
    for call in [
        &["jobs", "list", "--kind", "nosuch"][..],
        &["jobs", "stats", "--kind", "ingest,nosuch"],
        &["jobs", "tail", "--kind", "nosuch"],
        &["jobs", "requeue", "--kind", "nosuch", "--yes"],
        &["jobs", "cancel", "--kind", "nosuch", "--yes"],
        &["jobs", "run-now", "--kind", "nosuch", "--yes"],
        &["jobs", "pause", "nosuch"],
        &["jobs", "resume", "nosuch"],
        &["jobs", "limit", "nosuch", "1"],
        &["worker", "--kind", "nosuch"],
        &["worker", "--max-per-kind", "nosuch=1"],
    ] {
        fixture.run_vinops(call).await.assert_output(2, kinds);
    }
    let said = fixture.run_vinops(&["jobs", "list", "--state", "nosuch"]).await;
    assert_eq!(said.code, Some(2));
    let states = "unknown job state \"nosuch\"; expected one of available, scheduled, running, retryable, completed, \
        cancelled, discarded";
    assert!(said.err.contains(states), "{}", said.err);
}

#[tokio::test]
async fn a_wrong_setting_is_an_error_of_the_commands_that_use_it_only() {
    const STORE: &str =
        "VINOPS_STORE is not a URL (file:///var/data/vinops, s3://bucket/folder): relative URL without a base";
    let fixture = CliFixture::new().await;
    let run = async |call: &[&str], (name, value): (&str, &str)| {
        fixture.command_output(fixture.vinops_command(call).env(name, value).output().await.unwrap())
    };
    let wrong = [
        ("VINOPS_STORE", "plain/path"),
        ("VINOPS_LEASE", "soon"),
        ("VINOPS_FETCH_DELAY", "1h"),
        ("COPART_FEED_URL", "no address"),
        ("VINOPS_MAPPINGS", "/nonexistent"),
    ];
    for setting in wrong {
        for call in [&["--help"][..], &["migrate", "status"], &["jobs", "list"]] {
            let said = run(call, setting).await;
            assert_eq!(said.code, Some(0), "{setting:?} {call:?}: {}", said.err);
        }
        let said = run(&["doctor"], setting).await;
        assert_eq!(said.code, Some(1), "{setting:?}: {}", said.err);
        let fails: Vec<&str> = said.out.lines().filter(|line| line.starts_with("FAIL  environment")).collect();
        assert!(fails.len() == 1 && fails[0].contains(setting.0), "{}", said.out);
    }
    let file = fixture.write_window_file(0, None);
    run(&["ingest", file.to_str().unwrap()], wrong[0]).await.assert_output(2, &format!("error: {STORE}\n"));
    let mappings = "error: could not read the folder /nonexistent of VINOPS_MAPPINGS\n\
        detail: No such file or directory (os error 2)\n";
    run(&["ingest", file.to_str().unwrap()], wrong[4]).await.assert_output(2, mappings);
    let said = run(&["scheduler"], wrong[2]).await;
    assert_eq!(
        (said.code, said.err.as_str()),
        (
            Some(2),
            "error: VINOPS_FETCH_DELAY is longer than 4m, and a later fetch could not finish within its quarter-hour\n"
        )
    );
    let said = run(&["doctor", "--json"], ("VINOPS_LOG_FORMAT", "xml")).await;
    assert!(said.out.contains("VINOPS_LOG_FORMAT has an unknown value"), "{}", said.out);
}

#[tokio::test]
async fn a_worker_without_the_feeds_address_may_not_be_asked_to_fetch() {
    let fixture = CliFixture::new().await;
    fixture.run_vinops(&["worker", "--kind", "fetch"]).await.assert_output(
        2,
        "error: --kind fetch: COPART_FEED_URL is not set; set it to the feed's address with its key, or set \
        COPART_FEED_URL_FILE to a file that contains it\n",
    );
}

#[tokio::test]
async fn a_reader_that_leaves_early_ends_the_command_quietly() {
    let fixture = CliFixture::new().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let windows = fixture.vinops_command(&["windows"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let said = fixture.command_output(windows.wait_with_output().await.unwrap());
    said.assert_output(141, "");
}

#[tokio::test]
async fn the_help_shows_every_command() {
    let fixture = CliFixture::new().await;
    let said = fixture.run_vinops(&["--help"]).await;
    said.assert_output(0, "");
    assert_eq!(said.out, include_str!("help.txt"), "tests/faults/help.txt is what it was");
}
