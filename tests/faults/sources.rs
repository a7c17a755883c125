//! Sources as operators see and switch them, from the command line.

use super::stage::Stage;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Five failed slots have opened the breaker; the probe is far off.
async fn open_breaker(stage: &Stage) {
    let broken = "
        insert into fleet.sources (source, consecutive_failures, last_error) values ('copart', 5, 'status 403 Forbidden');
        select fleet.move_breaker('copart', 'open', 'job 5', '5 slots failed in a row', '2099-01-01T00:00Z')";
    sqlx::raw_sql(broken).execute(stage.pool()).await.unwrap();
}

#[tokio::test]
async fn the_status_of_a_source_tells_people_and_programs_the_same() {
    let stage = Stage::new().await;
    let nothing = stage.run(&["source", "status"]).await;
    assert!(nothing.out.starts_with("no sources yet"), "{}", nothing.out);
    stage
        .run(&["source", "status", "iaai"])
        .await
        .is(1, "vinops: there is no source iaai: `vinops source status` shows what there is\n");
    open_breaker(&stage).await;
    let status = stage.run(&["source", "status", "--json"]).await.json();
    let status = &status[0];
    assert_eq!(
        [&status["source"], &status["breaker"], &status["consecutive_failures"], &status["probe_at"]],
        [&json!("copart"), &json!("open"), &json!(5), &json!("2099-01-01T00:00:00Z")]
    );
    assert_eq!([&status["last_success_at"], &status["session_expires_at"]], [&Value::Null, &Value::Null]);
    assert_eq!(status["transitions"][0]["who"], "job 5");
    let told = stage.run(&["source", "status", "copart"]).await.out;
    for line in [
        "breaker       open since 20",
        "probe at 2099-01-01 00:00; vinops source reset-breaker copart",
        "failed slots  5 in a row",
        "last success  never",
        "last failure  never: status 403 Forbidden",
        "session       none",
        "5 slots failed in a row",
    ] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
}

#[tokio::test]
async fn a_breaker_is_reset_with_a_reason_that_is_kept_with_who_gave_it() {
    let stage = Stage::new().await;
    open_breaker(&stage).await;
    let fetch = |stage: &Stage| {
        let mut command = stage.vinops(&["fetch", "--now"]);
        command.env("COPART_FEED_URL", "http://127.0.0.1:9/?authKey=x");
        command
    };
    let said = stage.said(fetch(&stage).output().await.unwrap());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(" is not fetched: the breaker is open since"), "{}", said.err);
    let said = stage.run(&["source", "reset-breaker", "copart"]).await;
    assert!(said.code == Some(2) && said.err.contains("--why <TEXT>"), "{}", said.err);
    let said = stage.run(&["source", "reset-breaker", "copart", "--why", "a new address", "--json"]).await;
    assert_eq!(said.json(), json!({ "source": "copart", "changed": true }));
    let said = stage.run(&["source", "reset-breaker", "copart", "--why", "again"]).await;
    assert_eq!(said.out, "the breaker of copart is closed, as it was\n");
    let status = stage.run(&["source", "status", "--json"]).await.json();
    let moved = &status[0]["transitions"][0];
    assert_eq!([&moved["from"], &moved["to"], &moved["why"]], ["open", "closed", "a new address"]);
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!(moved["who"], me.as_str());
}

#[tokio::test]
async fn a_disabled_source_gets_windows_that_say_so_from_any_scheduler() {
    let stage = Stage::new().await;
    let said = stage.run(&["source", "disable", "--why", "they asked us to"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "source copart is disabled\n"), "{}", said.err);
    let mut schedulers = Vec::new();
    for _ in 0..3 {
        let mut command = stage.vinops(&["scheduler"]);
        command.env("VINOPS_FETCH_DELAY", "0s").env("VINOPS_FETCH_JITTER", "0s").stderr(Stdio::piped());
        schedulers.push(command.spawn().unwrap());
    }
    // whichever is first says so, the others find the window there
    let (told, mut hears) = tokio::sync::mpsc::channel(100);
    for scheduler in &mut schedulers {
        let mut lines = BufReader::new(scheduler.stderr.take().unwrap()).lines();
        let told = told.clone();
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                told.send(line).await.unwrap();
            }
        });
    }
    let line = hears.recv().await.unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "window is not fetched: the source is disabled: vinops source enable copart");
    assert_eq!(line["source"], "copart");
    let (state, note) = stage.window().await;
    assert_eq!(
        (state.as_str(), note.as_deref()),
        ("missed", Some("the source is disabled: vinops source enable copart"))
    );
    assert_eq!(stage.count("fleet.jobs").await, 0);
    for mut scheduler in schedulers {
        scheduler.kill().await.unwrap();
    }
}

#[tokio::test]
async fn missing_windows_are_the_quarter_hours_without_a_good_one() {
    let stage = Stage::new().await;
    assert_eq!(stage.run(&["windows", "--missing"]).await.out, "no window is missing\n");
    let windows = "
        insert into fleet.windows (source, window_start_utc, state, note) values
          ('copart', '2026-03-06T17:00Z', 'applied', null),
          ('copart', '2026-03-06T17:15Z', 'unchanged', null),
          ('copart', '2026-03-06T17:30Z', 'missed', 'no scheduler ran'),
          ('copart', '2026-03-06T18:00Z', 'failed', 'status 403'),
          ('copart', '2026-03-06T18:15Z', 'applied', null)";
    sqlx::raw_sql(windows).execute(stage.pool()).await.unwrap();
    let asked = [
        "windows",
        "--missing",
        "--json",
        "--since",
        "2026-03-06T10:07:00Z",
        "--until",
        "2026-03-06T18:30:00Z",
    ];
    let missing = stage.run(&asked).await.json();
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
    let told = stage.run(&["windows", "--missing", "--until", "2026-03-06T18:30:00Z"]).await.out;
    assert!(told.contains("2026-03-06 17:45") && told.contains("never opened"), "{told}");
    // without a span: the last day, which ends with the last quarter-hour that is over
    let today = stage.run(&["windows", "--missing", "--json"]).await.json();
    assert!((95..=96).contains(&today.as_array().unwrap().len()), "{today}");
}

/// A login page that answers everything with a cookie, and what it heard.
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
    let stage = Stage::new().await;
    stage.run(&["source", "login"]).await.is(
        2,
        "vinops: COPART_USER is not set: set it with COPART_PASSWORD and VINOPS_COOKIE_KEY, or name files that hold them in \
         COPART_USER_FILE, COPART_PASSWORD_FILE and VINOPS_COOKIE_KEY_FILE\n",
    );
    let (url, heard) = login_page().await;
    let login = |key: &str| {
        let mut command = stage.vinops(&["source", "login", "--json"]);
        command
            .env("COPART_USER", "PLANTED-user")
            .env("COPART_PASSWORD", "PLANTED-password")
            .env("COPART_LOGIN_URL", &url)
            .env("VINOPS_COOKIE_KEY", key)
            .env("VINOPS_LOG", "trace");
        command
    };
    let short = stage.said(login("PLANTED").output().await.unwrap());
    assert!(
        short.code == Some(1) && short.err.contains("VINOPS_COOKIE_KEY is shorter than 32 characters"),
        "{}",
        short.err
    );
    assert!(!short.err.contains("PLANTED"), "{}", short.err);
    let said = stage.said(login(&"PLANTED-".repeat(8)).output().await.unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.json()["session_expires_at"].is_string());
    assert!(said.err.contains("session refreshed"), "{}", said.err);
    let leaks: Vec<&str> = said.err.lines().filter(|line| line.contains("PLANTED")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    let heard = heard.lock().unwrap().clone();
    assert!(heard.contains("username=PLANTED-user&password=PLANTED-password"), "{heard}");
    let row: String = sqlx::query_scalar("select s::text from fleet.source_sessions s")
        .fetch_one(stage.pool())
        .await
        .unwrap();
    assert!(!row.contains("PLANTED") && !row.contains("504c414e544544"), "{row}");
}

#[tokio::test]
async fn the_worker_whose_failure_opens_the_breaker_says_so_in_one_line() {
    let stage = Stage::new().await;
    let near = "
        insert into fleet.sources (source, consecutive_failures) values ('copart', 4);
        select fleet.enqueue(
          'fetch',
          jsonb_build_object('source', 'copart', 'window_start_utc', date_bin('15 minutes', now(), 'epoch'), 'late_ok', true),
          max_attempts => 1)";
    sqlx::raw_sql(near).execute(stage.pool()).await.unwrap();
    // a door that is shut: nobody listens there any more
    let shut = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut command = stage.vinops(&["worker", "--kind", "fetch"]);
    command.env("COPART_FEED_URL", format!("http://{shut}/?authKey=PLANTED-key")).stderr(Stdio::piped());
    let mut worker = command.spawn().unwrap();
    let mut lines = BufReader::new(worker.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    while !told.iter().any(|line: &String| line.contains("the breaker is open")) {
        told.push(lines.next_line().await.unwrap().unwrap());
    }
    worker.kill().await.unwrap();
    let line: Value = serde_json::from_str(told.last().unwrap()).unwrap();
    assert_eq!(line["level"], "WARN");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "source copart: the breaker is open (was closed): 5 slots failed in a row; probe at "
        )
    );
    assert!(!told.concat().contains("PLANTED"), "{told:#?}");
    let status = stage.run(&["source", "status", "--json"]).await.json();
    assert_eq!(status[0]["breaker"], "open");
    assert!(status[0]["last_error"].as_str().unwrap().contains("the feed broke off: connection"), "{status}");
}
