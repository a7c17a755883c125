//! Text from outside on the command line: no control or bidirectional character reaches the terminal, whichever column,
//! reason, error or name contains it.

use crate::cli_fixture::CliFixture;
use std::fmt::Write;
use std::process::Output;

/// An escape sequence, a bell, other controls, DEL, C1 with its CSI, an override, an isolate, a mark, a separator.
const CONTROL_CHARACTERS: &str = "x\u{1b}[31m\u{7}\u{1}\u{8}\u{7f}\u{85}\u{9b}2J\u{202e}\u{2066}\u{200f}\u{2028}y";

/// Names and values of one row. The key columns are where the tests below need them.
const PLANTED_ROW: &[(&str, &str)] = &[
    ("Id", "1"),
    ("Yard number", "371"),
    ("Yard name", "CA - VALLEJO"),
    ("Sale Date M/D/CY", "20261217"),
    ("Day of Week", "THURSDAY"),
    ("Sale time (HHMM)", "1200"),
    ("Time Zone", "PST"),
    ("Item#", "2507"),
    ("Lot number", ""),
    ("Vehicle Type", "V"),
    ("Year", "2016"),
    ("Make", "HONDA"),
    ("Model Group", "CIVIC"),
    ("Model Detail", "CIVIC LX"),
    ("Body Style", "SEDAN 4D"),
    ("Color", "WHITE"),
    ("Damage Description", "FRONT END"),
    ("Secondary Damage", "SIDE"),
    ("Sale Title State", "CA"),
    ("Sale Title Type", "SC"),
    ("Has Keys-Yes or No", "YES"),
    ("Lot Cond. Code", "D"),
    ("VIN", ""),
    ("Odometer", "60019.0"),
    ("Odometer Brand", "A"),
    ("Est. Retail Value", "12563.0"),
    ("Repair cost", "22157.88"),
    ("Engine", "2.0L  4"),
    ("Drive", "FRONT WHEEL DRIVE"),
    ("Transmission", "AUTOMATIC"),
    ("Fuel Type", "GAS"),
    ("Cylinders", "4"),
    ("Runs/Drives", "Run & Drive Verified"),
    ("Sale Status", "Pure Sale"),
    ("High Bid =non-vix,Sealed=Vix", "275.0"),
    ("Special Note", "REPOSSESSION"),
    ("Location city", "VALLEJO"),
    ("Location state", "CA"),
    ("Location ZIP", "94590"),
    ("Location country", "USA"),
    ("Currency Code", "USD"),
    ("Image Thumbnail", "cs.copart.com/x.jpg"),
    ("Create Date/Time", "2026-11-20-06.25.06.000795"),
    ("Grid/Row", "G330"),
    ("Make-an-Offer Eligible", "N"),
    ("Buy-It-Now Price", "0.0"),
    ("Image URL", "http://inventoryv2.copart.io/v1/lotImages/1"),
    ("Trim", "LX"),
    ("Last Updated Time", "2026-11-20T10:00:00Z"),
    ("Announcements", ""),
];

/// Returns the feed at a quarter-hour: one lot per column that contains the planted text, and `bid` as its bid.
pub fn feed_text(bid: &str, planted: &str) -> String {
    let quoted = |value: &str| format!("\"{value}\"");
    let mut file = PLANTED_ROW.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(",") + "\n";
    for at in 0..PLANTED_ROW.len() {
        let cells = PLANTED_ROW.iter().enumerate().map(|(column, (name, value))| match *name {
            _ if column == at && *name == "High Bid =non-vix,Sealed=Vix" => quoted(planted),
            "Lot number" if column != at => quoted(&lot_number(at)),
            "VIN" if column != at => quoted(&format!("1HGCM82633A{:06}", 100_000 + at)),
            "High Bid =non-vix,Sealed=Vix" => quoted(bid),
            _ if column == at => quoted(planted),
            _ => quoted(value),
        });
        let _ = writeln!(file, "{}", cells.collect::<Vec<_>>().join(","));
    }
    file
}

fn lot_number(at: usize) -> String {
    (70_000_100 + at).to_string()
}

fn is_control_character(c: char) -> bool {
    let bidi = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c != '\n' && (c.is_control() || bidi)
}

/// Runs a command, and checks that it prints no control character. Returns its output.
async fn run_and_check(fixture: &CliFixture, arguments: &[&str]) -> (Output, String) {
    let output = fixture.vinops_command(arguments).output().await.unwrap();
    let text = [&*output.stdout, &*output.stderr].map(|it| String::from_utf8(it.to_vec()).unwrap()).concat();
    if let Some(at) = text.find(is_control_character) {
        let from = text[..at].char_indices().rev().nth(60).map_or(0, |(from, _)| from);
        panic!("{arguments:?} prints {:?}", &text[from..(at + 1..).find(|it| text.is_char_boundary(*it)).unwrap()]);
    }
    (output, text)
}

async fn run_sql(fixture: &CliFixture, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(fixture.pool()).await.unwrap();
}

#[tokio::test]
async fn no_control_character_of_a_feed_a_reason_or_an_error_is_printed() {
    let fixture = CliFixture::new().await;
    let ingest = |name: String, window: &'static str, text: String| {
        let fixture = &fixture;
        async move {
            let path = fixture.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            run_and_check(fixture, &["ingest", path.to_str().unwrap(), "--window", window]).await
        }
    };
    for (name, window, bid, planted) in [
        (format!("{CONTROL_CHARACTERS}.csv"), "2026-11-20T14:30:00Z", "275.0", CONTROL_CHARACTERS.to_owned()),
        ("second.csv".to_owned(), "2026-11-20T14:45:00Z", "300.0", format!("{CONTROL_CHARACTERS} again")),
    ] {
        let (output, text) = ingest(name, window, feed_text(bid, &planted)).await;
        assert!(output.status.success(), "{text}");
    }
    // an invalid file, whose error quotes it
    ingest("broken.csv".to_owned(), "2026-11-20T15:00:00Z", format!("{CONTROL_CHARACTERS},b\n1,2\n")).await;

    let planted = CONTROL_CHARACTERS.replace('\'', "''");
    run_sql(
        &fixture,
        &format!(
            "insert into fleet.jobs (kind, key, state, error, finished_at, payload)
              values ('fetch', 'copart/{planted}', 'discarded', 'the server said {planted}', now(), jsonb_build_object('k', '{planted}'));
            insert into fleet.jobs (kind, state, attempt, run, run_at, error) values ('fetch', 'retryable', 1, 1, now() + interval '1 day', '{planted}');
            insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, error)
              select id, 1, 1, kind, '{planted}', now(), 'abort', error from fleet.jobs where error is not null;
            insert into fleet.windows (source, window_start_utc, state, note)
              values ('copart', '2026-11-20T15:15Z', 'failed', '{planted}'), ('copart', '2026-11-20T15:30Z', 'missed', '{planted}');
            insert into fleet.sources (source, last_error, last_failure_at) values ('copart', '{planted}', now())
              on conflict (source) do update set last_error = excluded.last_error, last_failure_at = now();
            insert into fleet.source_sessions (source, last_error) values ('copart', '{planted}');
            insert into fleet.workers (name, kinds, concurrency, lease) values ('{planted}', '{{fetch}}', 4, '1 hour')"
        ),
    )
    .await;
    let jobs: Vec<i64> =
        sqlx::query_scalar("select id from fleet.jobs order by id").fetch_all(fixture.pool()).await.unwrap();
    let failed = sqlx::query_scalar::<_, i64>("select id from fleet.jobs where state = 'discarded' limit 1");
    let failed = failed.fetch_one(fixture.pool()).await.unwrap().to_string();

    // recorded reasons are printed below
    for command in [
        &["jobs", "pause", "ingest", "--why"][..],
        &["jobs", "limit", "ingest", "1", "--why"],
        &["jobs", "requeue", &failed, "--why"],
        &["jobs", "cancel", &failed, "--why"],
        &["source", "disable", "copart", "--why"],
        &["source", "enable", "copart", "--why"],
        &["source", "reset-breaker", "copart", "--why"],
        &["taxonomy", "map", "colors", CONTROL_CHARACTERS, "color_white", "--why"],
        &["taxonomy", "map", CONTROL_CHARACTERS, CONTROL_CHARACTERS, CONTROL_CHARACTERS, "--why"],
        &["jobs", "pause", CONTROL_CHARACTERS, "--why"],
    ] {
        run_and_check(&fixture, &[command, &[CONTROL_CHARACTERS]].concat()).await;
    }
    let mut seen = String::new();
    for command in [
        &["windows"][..],
        &["windows", "--missing", "--since", "2026-11-20T14:00:00Z", "--until", "2026-11-20T16:00:00Z"],
        &["jobs", "list"],
        &["jobs", "list", "--state", "discarded,cancelled,retryable"],
        &["jobs", "stats"],
        &["jobs", "tail", "--since", "2020-01-01T00:00:00Z", "--limit", "6"],
        &["workers"],
        &["source", "status"],
        &["source", "status", CONTROL_CHARACTERS],
        &["taxonomy", "unknown", "--limit", "500"],
        &["doctor"],
        &["digest"],
        &["verify", "auction"],
        &["migrate", "status"],
        &["jobs", "resume", "ingest", "--why", CONTROL_CHARACTERS],
        &["replay", "2026-11-20T14:45:00Z", "--source", CONTROL_CHARACTERS],
        &["raw", "export", CONTROL_CHARACTERS],
        &["lot", "show", CONTROL_CHARACTERS],
        &["ingest", CONTROL_CHARACTERS],
        // and in JSON
        &["windows", "--json"],
        &["jobs", "list", "--json"],
        &["jobs", "tail", "--since", "2020-01-01T00:00:00Z", "--limit", "6", "--json"],
        &["source", "status", "--json"],
        &["taxonomy", "unknown", "--limit", "500", "--json"],
        &["doctor", "--json"],
    ] {
        let (output, text) = run_and_check(&fixture, command).await;
        if command.last() == Some(&"--json") {
            let lines = String::from_utf8(output.stdout).unwrap();
            let values = serde_json::Deserializer::from_str(&lines).into_iter::<serde_json::Value>();
            assert!(values.collect::<Result<Vec<_>, _>>().is_ok(), "{command:?}: {lines}");
        }
        seen += &text;
    }
    for job in jobs {
        seen += &run_and_check(&fixture, &["jobs", "show", &job.to_string()]).await.1;
    }
    for at in 0..PLANTED_ROW.len() {
        let number = lot_number(at);
        seen += &run_and_check(&fixture, &["lot", "show", &number]).await.1;
        // these start a process each, so not every column is tested
        if at % 3 == 0 {
            seen += &run_and_check(&fixture, &["lot", "show", &number, "--at", "2026-11-20T14:50:00Z"]).await.1;
            seen += &run_and_check(&fixture, &["lot", "show", &number, "--json"]).await.1;
        }
    }
    assert!(seen.matches("\\u{202e}").count() > 20, "{seen}");
    assert!(seen.contains("\\u{1b}[31m\\u{7}\\u{1}"), "{seen}");
}
