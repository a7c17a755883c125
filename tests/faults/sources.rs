//! Sources on the command line: status, switches, breaker and login.

use super::cli_fixture::CliFixture;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Returns the error for a name that no source has.
fn unknown_source_error(name: &str) -> String {
    format!(
        "error: unknown source \"{name}\"; expected one of copart\nhint: add it with `vinops source add NAME --reason \
         \"…\"`\n"
    )
}

/// Opens the breaker by five failed slots. The probe is far ahead.
async fn open_breaker(fixture: &CliFixture) {
    let broken = "
        update fleet.sources set consecutive_failures = 5, last_error = 'status 403 Forbidden' where source = 'copart';
        select fleet.move_breaker('copart', 'open', 'job 5', '5 slots failed in a row', '2099-01-01T00:00Z')";
    sqlx::raw_sql(broken).execute(fixture.pool()).await.unwrap();
}

#[tokio::test]
async fn the_status_of_a_source_tells_people_and_programs_the_same() {
    let fixture = CliFixture::new().await;
    let new = fixture.run_vinops(&["source", "status"]).await;
    assert!(new.out.starts_with("source        copart\n"), "{}", new.out);
    fixture.run_vinops(&["source", "status", "iaai"]).await.assert_output(2, &unknown_source_error("iaai"));
    open_breaker(&fixture).await;
    let status = fixture.run_vinops(&["source", "status", "--json"]).await.json();
    let status = &status[0];
    assert_eq!(
        [&status["source"], &status["breaker"], &status["consecutive_failures"], &status["probe_at"]],
        [&json!("copart"), &json!("open"), &json!(5), &json!("2099-01-01T00:00:00Z")]
    );
    assert_eq!([&status["last_success_at"], &status["session_expires_at"]], [&Value::Null, &Value::Null]);
    assert_eq!(status["transitions"][0]["who"], "job 5");
    let output = fixture.run_vinops(&["source", "status", "copart"]).await.out;
    for line in [
        "breaker       open since 20",
        "probe at 2099-01-01 00:00; vinops source reset-breaker copart",
        "failed slots  5 in a row",
        "last success  never",
        "last failure  never: status 403 Forbidden",
        "session       none",
        "5 slots failed in a row",
    ] {
        assert!(output.contains(line), "{line} in\n{output}");
    }
}

#[tokio::test]
async fn a_breaker_is_reset_with_a_reason_that_is_kept_with_who_gave_it() {
    let fixture = CliFixture::new().await;
    open_breaker(&fixture).await;
    let fetch = |fixture: &CliFixture| {
        let mut command = fixture.vinops_command(&["fetch", "--now"]);
        command.env("COPART_FEED_URL", "http://127.0.0.1:9/?authKey=x");
        command
    };
    let said = fixture.command_output(fetch(&fixture).output().await.unwrap());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(" is not fetched: the breaker is open since"), "{}", said.err);
    let hint = "\nhint: run `vinops source reset-breaker copart --reason \"…\"`\n";
    assert!(said.err.ends_with(hint), "{}", said.err);
    let said = fixture.run_vinops(&["source", "reset-breaker", "copart"]).await;
    assert!(said.code == Some(2) && said.err.contains("--reason <TEXT>"), "{}", said.err);
    let said = fixture.run_vinops(&["source", "reset-breaker", "copart", "--why", "a new address", "--json"]).await;
    assert_eq!(said.json(), json!({ "source": "copart", "changed": true }));
    let said = fixture.run_vinops(&["source", "reset-breaker", "copart", "--why", "again"]).await;
    assert_eq!(said.out, "the breaker of copart is closed already\n");
    let status = fixture.run_vinops(&["source", "status", "--json"]).await.json();
    let moved = &status[0]["transitions"][0];
    assert_eq!([&moved["from"], &moved["to"], &moved["why"]], ["open", "closed", "a new address"]);
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!(moved["who"], me.as_str());
}

#[tokio::test]
async fn a_size_is_accepted_with_a_reason_and_only_where_a_file_was_too_small() {
    let fixture = CliFixture::new().await;
    let accept = ["source", "accept-size", "copart", "--reason", "fewer yards"];
    fixture.run_vinops(&accept).await.assert_output(
        2,
        "error: source \"copart\" has no file whose size can be accepted\n\
            hint: `vinops source status` lists the sources\n",
    );
    let file = "
        insert into raw.sources (source, head_window) values ('copart', '2026-03-06T17:15Z');
        insert into raw.csv_files (path, sha256, bytes, window_start_utc, row_count, state, complete, incomplete_reason)
        values ('2026/03/06/1715.csv', repeat('0', 64), 1, '2026-03-06T17:15Z', 70000, 'incomplete', false, 'lots')";
    sqlx::raw_sql(file).execute(fixture.pool()).await.unwrap();
    let said = fixture.run_vinops(&accept).await;
    assert!(said.code == Some(1) && said.err.contains("because of its lot numbers, not its size"), "{}", said.err);
    sqlx::raw_sql("update raw.csv_files set incomplete_reason = 'size'").execute(fixture.pool()).await.unwrap();
    let said = fixture.run_vinops(&[&accept[..], &["--json"]].concat()).await;
    assert_eq!(
        said.json(),
        json!({ "source": "copart", "changed": true, "window_start_utc": "2026-03-06T17:15:00Z", "rows": 70_000 })
    );
    let noted = "select who || ' ' || reason from audit.operator_actions where action = 'accept-size'";
    let noted: String = sqlx::query_scalar(noted).fetch_one(fixture.pool()).await.unwrap();
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!(noted, format!("{me} fewer yards"));
    let accepted = "select size_accepted_rows from raw.sources where size_accepted_window = '2026-03-06T17:15Z'";
    assert_eq!(sqlx::query_scalar::<_, i32>(accepted).fetch_one(fixture.pool()).await.unwrap(), 70_000);
    let said = fixture.run_vinops(&["source", "accept-size", "copart"]).await;
    assert_eq!(said.code, Some(2), "{}", said.err);
}

#[tokio::test]
async fn a_disabled_source_gets_windows_that_say_so_from_any_scheduler() {
    let fixture = CliFixture::new().await;
    let said = fixture.run_vinops(&["source", "disable", "--why", "they asked us to"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "source copart is disabled\n"), "{}", said.err);
    let mut schedulers = Vec::new();
    for _ in 0..3 {
        let mut command = fixture.vinops_command(&["scheduler"]);
        command.env("VINOPS_FETCH_DELAY", "0s").env("VINOPS_FETCH_JITTER", "0s").stderr(Stdio::piped());
        schedulers.push(command.spawn().unwrap());
    }
    // the first reports it, the others find the window
    let (output, mut hears) = tokio::sync::mpsc::channel(100);
    for scheduler in &mut schedulers {
        let mut lines = BufReader::new(scheduler.stderr.take().unwrap()).lines();
        let output = output.clone();
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                output.send(line).await.unwrap();
            }
        });
    }
    let line = hears.recv().await.unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "window not fetched");
    assert!(line["reason"].as_str().unwrap().starts_with("the source is disabled"), "{line}");
    assert_eq!(line["source"], "copart");
    let (state, note) = fixture.newest_window().await;
    assert_eq!(
        (state.as_str(), note.as_deref()),
        ("missed", Some("the source is disabled: vinops source enable copart"))
    );
    assert_eq!(fixture.count_rows("fleet.jobs").await, 0);
    for mut scheduler in schedulers {
        scheduler.kill().await.unwrap();
    }
}

#[tokio::test]
async fn missing_windows_are_the_quarter_hours_without_a_good_one() {
    let fixture = CliFixture::new().await;
    assert_eq!(fixture.run_vinops(&["windows", "--missing"]).await.out, "no window is missing\n");
    let windows = "
        insert into fleet.windows (source, window_start_utc, state, note) values
          ('copart', '2026-03-06T17:00Z', 'applied', null),
          ('copart', '2026-03-06T17:15Z', 'unchanged', null),
          ('copart', '2026-03-06T17:30Z', 'missed', 'no scheduler ran'),
          ('copart', '2026-03-06T18:00Z', 'failed', 'status 403'),
          ('copart', '2026-03-06T18:15Z', 'applied', null)";
    sqlx::raw_sql(windows).execute(fixture.pool()).await.unwrap();
    let asked =
        ["windows", "--missing", "--json", "--since", "2026-03-06T10:07:00Z", "--until", "2026-03-06T18:30:00Z"];
    let missing = fixture.run_vinops(&asked).await.json();
    let missing: Vec<_> = missing
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["window_start_utc"].as_str().unwrap(), it["state"].as_str(), it["note"].as_str()))
        .collect();
    assert_eq!(
        missing,
        [
            ("2026-03-06T18:00:00Z", Some("failed"), Some("status 403")),
            ("2026-03-06T17:45:00Z", None, None),
            ("2026-03-06T17:30:00Z", Some("missed"), Some("no scheduler ran")),
        ]
    );
    let output = fixture.run_vinops(&["windows", "--missing", "--until", "2026-03-06T18:30:00Z"]).await.out;
    assert!(output.contains("2026-03-06 17:45") && output.contains("never opened"), "{output}");
    // without a span: the last day, up to the last complete quarter-hour
    let today = fixture.run_vinops(&["windows", "--missing", "--json"]).await.json();
    assert!((95..=96).contains(&today.as_array().unwrap().len()), "{today}");
}

/// Starts a login page that responds to everything with a cookie. Returns its URL and the received requests.
async fn login_page() -> (String, Arc<Mutex<String>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/processLogin", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = heard.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 65_536];
            let mut n = 0;
            while !String::from_utf8_lossy(&asked[..n]).contains("password=") {
                n += stream.read(&mut asked[n..]).await.unwrap();
            }
            hears.lock().unwrap().push_str(&String::from_utf8_lossy(&asked[..n]));
            let answer = "HTTP/1.1 302 Found\r\nlocation: /dashboard\r\nset-cookie: sid=PLANTED-cookie; Path=/\r\n\
                connection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heard)
}

#[tokio::test]
async fn a_login_by_hand_keeps_a_session_and_tells_no_secret_even_to_the_most_curious_log() {
    let fixture = CliFixture::new().await;
    fixture.run_vinops(&["source", "login"]).await.assert_output(
        2,
        "error: COPART_USER is not set\n\
         hint: set COPART_USER, COPART_PASSWORD and VINOPS_COOKIE_KEY, or set COPART_USER_FILE, COPART_PASSWORD_FILE and \
         VINOPS_COOKIE_KEY_FILE to the paths of files that contain them\n",
    );
    let (url, heard) = login_page().await;
    let login = |key: &str| {
        let mut command = fixture.vinops_command(&["source", "login", "--json"]);
        command
            .env("COPART_USER", "PLANTED-user")
            .env("COPART_PASSWORD", "PLANTED-password")
            .env("COPART_LOGIN_URL", &url)
            .env("VINOPS_COOKIE_KEY", key)
            .env("VINOPS_LOG", "trace");
        command
    };
    let short = fixture.command_output(login("PLANTED").output().await.unwrap());
    assert!(
        short.code == Some(1) && short.err.contains("VINOPS_COOKIE_KEY is shorter than 32 characters"),
        "{}",
        short.err
    );
    assert!(!short.err.contains("PLANTED"), "{}", short.err);
    let said = fixture.command_output(login(&"PLANTED-".repeat(8)).output().await.unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.json()["session_expires_at"].is_string());
    assert!(said.err.contains("session refreshed"), "{}", said.err);
    let leaks: Vec<&str> = said.err.lines().filter(|line| line.contains("PLANTED")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    let heard = heard.lock().unwrap().clone();
    assert!(heard.contains("username=PLANTED-user&password=PLANTED-password"), "{heard}");
    let row: String =
        sqlx::query_scalar("select s::text from fleet.source_sessions s").fetch_one(fixture.pool()).await.unwrap();
    assert!(!row.contains("PLANTED") && !row.contains("504c414e544544"), "{row}");
}

#[tokio::test]
async fn the_worker_whose_failure_opens_the_breaker_says_so_in_one_line() {
    let fixture = CliFixture::new().await;
    let near = "
        update fleet.sources set consecutive_failures = 4 where source = 'copart';
        select fleet.enqueue(
          'fetch',
          jsonb_build_object('source', 'copart', 'window_start_utc', date_bin('15 minutes', now(), 'epoch'), 'late_ok', true),
          max_attempts => 1)";
    sqlx::raw_sql(near).execute(fixture.pool()).await.unwrap();
    // a closed port: no process listens there any more
    let shut = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = fixture.vinops_command(&["worker", "--kind", "fetch"]);
    command.env("COPART_FEED_URL", format!("http://{shut}/?authKey=PLANTED-key")).stderr(Stdio::piped());
    let mut worker = command.spawn().unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
    let mut output = Vec::new();
    while !output.iter().any(|line: &String| line.contains("the breaker is open")) {
        output.push(lines.next_line().await.unwrap().unwrap());
    }
    worker.kill().await.unwrap();
    let line: Value = serde_json::from_str(output.last().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with("source copart: the breaker is open (was closed): 5 slots failed in a row; probe at "));
    assert!(!output.concat().contains("PLANTED"), "{output:#?}");
    let status = fixture.run_vinops(&["source", "status", "--json"]).await.json();
    assert_eq!(status[0]["breaker"], "open");
    assert!(status[0]["last_error"].as_str().unwrap().contains("the feed transfer failed: connection"), "{status}");
}

#[tokio::test]
async fn an_unknown_source_is_a_wrong_call_everywhere_and_leaves_nothing() {
    let fixture = CliFixture::new().await;
    let file = fixture.write_window_file(0, None);
    let file = file.to_str().unwrap();
    for call in [
        &["ingest", file, "--source", "iaai"][..],
        &["ingest", file, "--source", "Copart!"],
        &["windows", "--source", "iaai"],
        &["windows", "--missing", "--source", "iaai"],
        &["replay", "2026-03-06T17:00Z", "--source", "iaai", "--yes"],
        &["jobs", "list", "--source", "iaai"],
        &["jobs", "stats", "--source", "iaai"],
        &["jobs", "tail", "--source", "iaai"],
        &["jobs", "cancel", "--source", "iaai", "--yes"],
        &["scheduler", "--source", "copart,iaai"],
        &["source", "status", "iaai"],
        &["source", "enable", "iaai", "--reason", "a test"],
        &["source", "disable", "iaai", "--reason", "a test"],
        &["source", "reset-breaker", "iaai", "--reason", "a test"],
        &["source", "remove", "iaai", "--reason", "a test"],
    ] {
        let name = if call.contains(&"Copart!") { "Copart!" } else { "iaai" };
        fixture.run_vinops(call).await.assert_output(2, &unknown_source_error(name));
    }
    let mut fetch = fixture.vinops_command(&["fetch", "--now", "--source", "iaai"]);
    fetch.env("COPART_FEED_URL", "http://127.0.0.1:9/?authKey=x");
    fixture.command_output(fetch.output().await.unwrap()).assert_output(2, &unknown_source_error("iaai"));
    for (table, rows) in [
        ("fleet.sources", 1),
        ("fleet.windows", 0),
        ("fleet.jobs", 0),
        ("raw.csv_files", 0),
        ("raw.sources", 0),
        ("audit.operator_actions", 0),
    ] {
        assert_eq!(fixture.count_rows(table).await, rows, "{table}");
    }
    let stored = std::fs::read_dir(fixture.folder.path().join("store/raw")).map_or(0, Iterator::count);
    assert_eq!(stored, 0, "no byte is stored");
}

#[tokio::test]
async fn a_source_is_added_listed_used_and_removed_while_it_has_no_file() {
    let fixture = CliFixture::new().await;
    let said = fixture.run_vinops(&["source", "add", "Iaai", "--reason", "a test"]).await;
    assert!(said.code == Some(2) && said.err.contains("expected a lower-case letter"), "{}", said.err);
    assert_eq!(fixture.run_vinops(&["source", "add", "iaai"]).await.code, Some(2), "no reason");
    for (changed, out) in [(true, "source iaai is added\n"), (false, "source iaai is added already\n")] {
        let said = fixture.run_vinops(&["source", "add", "iaai", "--why", "a second auction"]).await;
        assert_eq!((said.code, said.out.as_str()), (Some(0), out), "{changed}: {}", said.err);
    }
    assert_eq!(
        fixture.run_vinops(&["source", "remove", "iaai", "--reason", "a test", "--json"]).await.json(),
        json!({ "source": "iaai", "changed": true })
    );
    fixture.run_vinops(&["source", "add", "iaai", "--reason", "again"]).await.assert_output(0, "");

    // the same bytes are a file of each source
    let file = fixture.write_window_file(0, None);
    for source in ["copart", "iaai"] {
        let said = fixture.run_vinops(&["ingest", file.to_str().unwrap(), "--source", source, "--json"]).await;
        said.assert_output(0, "");
        let report = said.json();
        assert_eq!(
            [&report["source"], &report["state"], &report["duplicate"]],
            [&json!(source), &json!("applied"), &json!(false)]
        );
    }
    let listed = fixture.run_vinops(&["source", "list", "--json"]).await.json();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|it| (&it["source"], &it["files"])).collect();
    assert_eq!(listed, [(&json!("copart"), &json!(1)), (&json!("iaai"), &json!(1))]);
    fixture.run_vinops(&["source", "remove", "iaai", "--reason", "a test"]).await.assert_output(
        1,
        "error: source \"iaai\" has files and cannot be removed\n\
         hint: to stop its fetches, run `vinops source disable iaai --reason \"…\"`\n",
    );
    for (filter, jobs) in [("copart", 4), ("iaai", 4)] {
        let found = fixture.run_vinops(&["jobs", "list", "--source", filter, "--json"]).await.json();
        assert_eq!(found.as_array().unwrap().len(), jobs, "{filter}");
    }
    let acts = "select array_agg(action || ' ' || subject || ': ' || reason order by id) from audit.operator_actions";
    let acts: Vec<String> = sqlx::query_scalar(acts).fetch_one(fixture.pool()).await.unwrap();
    assert_eq!(acts, ["add-source iaai: a second auction", "remove-source iaai: a test", "add-source iaai: again"]);
}
