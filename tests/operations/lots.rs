//! The output of `vinops lot show`.

use crate::cli_fixture::CliFixture;
use serde_json::Value;
use std::process::Output;
use vinops::simulator::{Simulator, SimulatorOptions};

impl CliFixture {
    /// Runs a command that must succeed. Returns its standard output.
    async fn run_successfully(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.vinops_command(arguments).output().await.unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Runs a command. Returns its exit code and standard error.
    async fn run_failing(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output { status, stderr, .. } = self.vinops_command(arguments).output().await.unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    }
}

#[tokio::test]
async fn a_lot_is_shown_as_it_became_and_as_it_was() {
    let fixture = CliFixture::new().await;
    let options =
        SimulatorOptions { churn: 0.2, ..SimulatorOptions::new(3, 300, "2026-11-20T14:00:00Z".parse().unwrap()) };
    let mut simulator = Simulator::new(options.clone());
    let mut changes = Vec::new();
    for k in 0..2 {
        let mut bytes = Vec::new();
        simulator.write_window(k, &mut bytes).unwrap();
        let path = fixture.folder.path().join(format!("{k}.csv"));
        std::fs::write(&path, bytes).unwrap();
        let window = options.window_start(k).to_rfc3339();
        fixture.run_successfully(&["ingest", path.to_str().unwrap(), "--window", &window]).await;
        changes.extend_from_slice(simulator.expected_state().changes());
    }
    let bid = changes.iter().find(|change| change.column == "current_bid_usd" && change.before.is_some()).unwrap();
    let (lot, before, after) = (bid.lot.to_string(), bid.before.clone().unwrap(), bid.after.clone().unwrap());
    let truth = simulator.expected_state().lots().find(|truth| truth.lot == bid.lot).unwrap();

    let table = fixture.run_successfully(&["lot", "show", &lot]).await;
    assert!(table.starts_with(&format!("lot       {lot} (copart), ")), "{table}");
    let line = table.lines().find(|line| line.contains("current_bid_usd")).unwrap();
    let places = ["2026-11-20 14:15", &before, &after]
        .map(|text| line.find(text).unwrap_or_else(|| panic!("no {text} in {table}")));
    assert!(places.is_sorted() && line.contains(truth.currency), "{table}");

    let output: Value = serde_json::from_str(
        &fixture.run_successfully(&["lot", "show", &format!("00{lot}"), "--json", "--lang", "ru"]).await,
    )
    .unwrap();
    let events = output["events"].as_array().unwrap();
    let told_bid = events
        .iter()
        .flat_map(|event| event["changes"].as_array().unwrap())
        .find(|change| change["column"] == "current_bid_usd")
        .unwrap();
    assert_eq!(told_bid["after"], serde_json::json!({ "amount": after, "currency": truth.currency }));
    assert_eq!((&output["vin"], &output["first_seen"]), (&truth.vin.clone().into(), &"2026-11-20T14:00:00Z".into()));
    let label = output["status"]["label"].as_str().unwrap();
    assert!(label.chars().any(|c| ('а'..='я').contains(&c)), "{label} is not Russian");

    for (time, amount) in [("2026-11-20T14:14:59Z", &before), ("2026-11-20T14:15:00Z", &after)] {
        let then: Value =
            serde_json::from_str(&fixture.run_successfully(&["lot", "show", &lot, "--at", time, "--json"]).await)
                .unwrap();
        assert_eq!(
            (&then["standing"]["current_bid"]["amount"], &then["presence"]),
            (&amount.as_str().into(), &"in_feed".into())
        );
    }
    let then =
        fixture.run_successfully(&["lot", "show", &lot, "--at", "2026-11-20T14:20:00+00:00", "--lang", "ru"]).await;
    assert!(then.contains("as of the window 2026-11-20 14:15 UTC: in the feed") && then.contains(&after), "{then}");
    let before = fixture.run_successfully(&["lot", "show", &lot, "--at", "2025-01-01T00:00:00Z"]).await;
    assert!(before.contains("before the first window: not yet seen; first seen 2026-11-20 14:00"), "{before}");

    let of_source = fixture.run_successfully(&["lot", "show", &lot, "--source", "copart"]).await;
    assert_eq!(of_source, fixture.run_successfully(&["lot", "show", &lot]).await);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "drop index if exists public.idx_lots_external_id;
        insert into public.lots (lot_external_id, vin, source, status)
        select lot_external_id, vin, 'iaai', 'active' from public.lots where lot_external_id = '{lot}'"
    )))
    .execute(fixture.pool())
    .await
    .unwrap();
    let other = fixture.run_successfully(&["lot", "show", &lot, "--source", "iaai"]).await;
    assert!(other.starts_with(&format!("lot       {lot} (iaai), ")), "{other}");

    for (arguments, code, why) in [
        (&["lot", "show", &lot][..], 2, "hint: name one of them with --source"),
        (&["lot", "show", &lot, "--source", "none"], 1, "of source \"none\""),
        (&["lot", "show", "1"], 1, "lot 1 does not exist"),
        (&["lot", "show", "goat"], 2, "\"goat\" is not a lot number"),
        (&["lot", "show", "1", "--at", "noon"], 2, "expected a date, a time and a zone"),
        (&["lot", "show", "1", "--lang", "la"], 2, "possible values: en, ru"),
    ] {
        let (output, said) = fixture.run_failing(arguments).await;
        assert_eq!((output, said.contains(why)), (Some(code), true), "{said}");
    }
}

#[tokio::test]
async fn a_value_that_comes_from_an_older_version_is_marked() {
    let fixture = CliFixture::new().await;
    let rows = ["2016,60019.0,2026-11-20T10:00:00Z", "2016,6oo19,2026-11-20T11:00:00Z"];
    for (n, row) in rows.iter().enumerate() {
        let path = fixture.folder.path().join(format!("{n}.csv"));
        let text = format!("Id,Lot number,VIN,Year,Odometer,Last Updated Time\n1,70000002,1HGCM82633A000002,{row}\n");
        std::fs::write(&path, text).unwrap();
        let window = format!("2026-11-20T14:{:02}:00Z", 15 * n);
        fixture.run_successfully(&["ingest", path.to_str().unwrap(), "--window", &window]).await;
    }
    let means = "carried: the value comes from an older version, because the value of the newest version is unreadable";
    let shown = fixture.run_successfully(&["lot", "show", "70000002"]).await;
    assert!(shown.contains("carried   odometer, odometer_brand, odometer_unit\n"), "{shown}");
    assert_eq!(shown.matches(means).count(), 1, "{shown}");
    let then = fixture.run_successfully(&["lot", "show", "70000002", "--at", "2026-11-20T14:20:00Z"]).await;
    let line = then.lines().find(|line| line.contains("odometer ")).unwrap();
    assert!(line.contains("60019.0 (carried)"), "{then}");
    assert_eq!((then.matches(means).count(), then.matches("(carried)").count()), (1, 2), "{then}");
    let before = fixture.run_successfully(&["lot", "show", "70000002", "--at", "2026-11-20T14:00:00Z"]).await;
    assert!(!before.contains("carried"), "{before}");
    let then = fixture.run_successfully(&["lot", "show", "70000002", "--at", "2026-11-20T14:20:00Z", "--json"]).await;
    let then: Value = serde_json::from_str(&then).unwrap();
    let carried = serde_json::json!(["odometer", "odometer_brand", "odometer_unit"]);
    assert_eq!(then["standing"]["carried"], carried);
    let history: Value =
        serde_json::from_str(&fixture.run_successfully(&["lot", "show", "70000002", "--json"]).await).unwrap();
    assert_eq!(history["carried"], carried);
}

#[tokio::test]
async fn rows_are_compared_with_their_versions_by_a_login_that_only_reads() {
    let fixture = CliFixture::new().await;
    let options =
        SimulatorOptions { churn: 0.2, ..SimulatorOptions::new(3, 300, "2026-11-20T14:00:00Z".parse().unwrap()) };
    let mut simulator = Simulator::new(options.clone());
    for k in 0..2 {
        let mut bytes = Vec::new();
        simulator.write_window(k, &mut bytes).unwrap();
        let path = fixture.folder.path().join(format!("{k}.csv"));
        std::fs::write(&path, bytes).unwrap();
        let window = options.window_start(k).to_rfc3339();
        fixture.run_successfully(&["ingest", path.to_str().unwrap(), "--window", &window]).await;
    }
    let as_operator = |arguments: &[&str]| {
        let mut command = fixture.vinops_command(arguments);
        command.env("DATABASE_URL", format!("{}?options[role]=vinops_ops", fixture.db.url));
        command
    };
    let Output { status, stdout, stderr } = as_operator(&["verify", "lots", "--all", "--json"]).output().await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let output: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((&output["ok"], &output["differences"], &output["under_way"]), (&true.into(), &0.into(), &0.into()));
    assert!(output["lots"].as_u64().unwrap() > 250, "{output}");
    let sample = fixture.run_successfully(&["verify", "lots", "--sample", "20", "--source", "copart"]).await;
    assert!(!sample.starts_with("0 lots") && sample.ends_with(", 0 unfinished, 0 differences\n"), "{sample}");

    sqlx::raw_sql("update lots set current_bid_usd = 0.25").execute(fixture.pool()).await.unwrap();
    let Output { status, stdout, .. } = as_operator(&["verify", "lots", "--all"]).output().await.unwrap();
    let said = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().next().unwrap().contains(" current_bid_usd is 0.25, but the stored versions give "), "{said}");
    assert!(said.contains("hint: run `vinops replay 2026-11-20T14:00:00Z --from ingest`\n"), "{said}");

    let output = fixture.vinops_command(&["doctor", "--json"]).output().await.unwrap();
    let output: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = output["findings"].as_array().unwrap().iter().find(|it| it["about"] == "rows").unwrap();
    assert_eq!(rows["level"], "FAIL");
    assert!(rows["remedy"].as_str().unwrap().starts_with("vinops replay 2026-11-20T14:"), "{rows}");
    let (code, error) = fixture.run_failing(&["verify", "lots", "--source", "nobody"]).await;
    assert!(code != Some(0) && error.contains("nobody"), "{error}");
}
