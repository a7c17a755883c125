//! A lot's history in the API, compared with the change logs and with the lot's current values.

use super::pipeline::{Pipeline, parse_time};
use super::{ApiClient, query_number, run_sql, simulated_fixture};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

#[tokio::test]
async fn a_history_tells_every_line_of_the_logs_in_both_tongues() {
    let (pipeline, reader) = simulated_fixture().await;
    let lots: Vec<(String, i64, i64)> = sqlx::query_as(
        "select lot_external_id, count(*) filter (where what = 'lot'), count(*) filter (where what = 'status')
        from audit.lot_changes group by 1 order by count(*) desc, 1 limit 25",
    )
    .fetch_all(pipeline.pool())
    .await
    .unwrap();
    let mut labelled = 0;
    for (lot, changes, moves) in &lots {
        let output = reader.get_json(&format!("/lots/{lot}/history?lang=ru")).await;
        let events = output["events"].as_array().unwrap();
        let count = |what: &str| events.iter().filter(|event| event["what"] == what).count() as i64;
        assert_eq!((count("lot"), count("status")), (*changes, *moves), "{output}");
        let values = events.iter().flat_map(|event| event["changes"].as_array().unwrap());
        for value in values.flat_map(|change| [&change["before"], &change["after"]]) {
            if value["code"].is_string() {
                let label = value["label"].as_str().unwrap();
                assert!(label.chars().any(|c| ('А'..='я').contains(&c)), "{value} is not Russian");
                labelled += 1;
            }
            if value["amount"].is_string() {
                assert!(["USD", "CAD"].contains(&value["currency"].as_str().unwrap()), "{value}");
            }
        }
        assert!(output["listings"].as_array().unwrap().iter().any(|listing| listing["lot"] == lot.as_str()));
    }
    assert!(labelled > 10, "{labelled} words");

    let path = format!("/lots/{}/history", lots[0].0);
    let answer = reader.get(&path).await;
    let tag = answer.header("etag").to_owned();
    assert_eq!(reader.get_with(&path, &[("if-none-match", &tag)]).await.status, 304);
    let russian = reader.get_with(&path, &[("accept-language", "ru")]).await;
    assert_eq!((russian.header("content-language"), russian.header("etag") == tag), ("ru", false));
}

#[tokio::test]
async fn a_lot_as_it_stands_now_is_the_lot() {
    let (pipeline, reader) = simulated_fixture().await;
    let lots: Vec<(String, i64)> = sqlx::query_as(
        "select l.lot_external_id, (select count(*) from lots o where o.vin = l.vin) from lots l order by l.id",
    )
    .fetch_all(pipeline.pool())
    .await
    .unwrap();
    let mut differ = 0;
    for (lot, offered) in lots.iter().step_by(7) {
        let now = reader.get_json(&format!("/lots/{lot}")).await;
        let output = reader.get_json(&format!("/lots/{lot}/at?time=2026-03-07T00:00:00%2B01:00")).await;
        assert_eq!(
            (&output["time"], &output["window_start_utc"]),
            (&"2026-03-06T23:00:00Z".into(), &"2026-03-06T17:45:00Z".into())
        );
        let (mut now, mut then) = (now, output["standing"].clone());
        // the time of writing differs, and a vehicle offered twice may have the values of another lot
        for lot in [&mut now, &mut then] {
            let lot = lot.as_object_mut().unwrap();
            lot.retain(|name, _| !["created_at", "updated_at"].contains(&name.as_str()));
            lot.retain(|name, _| *offered == 1 || name != "vehicle");
        }
        assert_eq!(then, now, "lot {lot}");
        let first = reader.get_json(&format!("/lots/{lot}/at?time=2026-03-06T17:00:00Z")).await;
        match first["standing"].as_object() {
            None => assert_eq!(first["presence"], "not_yet_seen"),
            Some(lot) => {
                assert_eq!(first["presence"], "in_feed");
                differ += usize::from(lot["source_updated_at"] != now["source_updated_at"]);
            }
        }
    }
    assert!(differ > 3, "{differ} lots were otherwise");
}

#[tokio::test]
async fn what_is_wrong_or_hidden_is_named() {
    let (pipeline, reader) = simulated_fixture().await;
    let lot: String = sqlx::query_scalar(AssertSqlSafe("select min(lot_external_id) from lots".to_owned()))
        .fetch_one(pipeline.pool())
        .await
        .unwrap();
    for (path, status, parameter) in [
        (format!("/lots/{lot}/at"), 400, "time"),
        (format!("/lots/{lot}/at?time=noon"), 400, "time"),
        (format!("/lots/{lot}/at?time=2026-03-06T17:00:00"), 400, "time"),
        (format!("/lots/{lot}/at?time=2026-03-06T17:00:00Z&when=now"), 400, "when"),
        (format!("/lots/{lot}/history?time=2026-03-06T17:00:00Z"), 400, "time"),
        ("/lots/x/history".to_owned(), 400, "lot"),
        ("/lots/7/history".to_owned(), 404, ""),
        ("/lots/7/at?time=2026-03-06T17:00:00Z".to_owned(), 404, ""),
    ] {
        let answer = reader.get(&path).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{path}");
        assert_eq!(answer.json()["parameter"].as_str().unwrap_or(""), parameter, "{path}");
    }
    run_sql(pipeline.pool(), &format!("update lots set is_removed = true where lot_external_id = '{lot}'")).await;
    assert_eq!(query_number(pipeline.pool(), "select count(*) from lots where is_removed").await, 1);
    for path in [format!("/lots/{lot}/history"), format!("/lots/{lot}/at?time=2026-03-06T17:00:00Z")] {
        let answer = reader.get(&path).await;
        let body: Value = answer.json();
        assert_eq!(
            (answer.status, body["detail"].as_str().unwrap()),
            (410, format!("Lot {lot} was removed.").as_str())
        );
    }
}

#[tokio::test]
async fn a_value_that_comes_from_an_older_row_is_marked_in_every_answer() {
    let mut pipeline = Pipeline::new().await;
    let file = |row: &str| {
        let header = "Id,Lot number,VIN,Year,Odometer,Odometer Brand,Sale Date M/D/CY,Sale time (HHMM),Time Zone,Yard name,Last Updated Time";
        format!("{header}\n1,70000002,1HGCM82633A000002,{row}\n").into_bytes()
    };
    let known = file("2016,60019.0,A,20261211,1000,EST,NJ - TRENTON,2026-11-20T10:00:00Z");
    pipeline.run_chain(&known, parse_time("2026-11-20T14:00:00Z")).await;
    let reader = ApiClient::open(&pipeline.test).await;
    assert_eq!(reader.get_json("/lots/70000002").await["carried"], json!([]));
    let unreadable = file("2O16,6oo19,N,20261211,1000,EST,NJ - TRENTON,2026-11-20T11:00:00Z");
    pipeline.run_chain(&unreadable, parse_time("2026-11-20T14:15:00Z")).await;
    let lot = reader.get_json("/lots/70000002").await;
    assert_eq!(lot["carried"], json!(["odometer", "vehicle.year"]));
    assert_eq!((&lot["odometer"]["value"], &lot["vehicle"]["year"]), (&60019.0.into(), &2016.into()));
    for path in lot["carried"].as_array().unwrap() {
        let pointer = format!("/{}", path.as_str().unwrap().replace('.', "/"));
        assert!(lot.pointer(&pointer).is_some(), "{path}");
    }
    let then = reader.get_json("/lots/copart/70000002/at?time=2026-11-20T14:15:00Z").await;
    assert_eq!((&then["standing"]["carried"], &then["standing"]["odometer"]), (&lot["carried"], &lot["odometer"]));
    let before = reader.get_json("/lots/70000002/at?time=2026-11-20T14:00:00Z").await;
    assert_eq!(before["standing"]["carried"], json!([]));
    let vehicle = reader.get_json("/vehicles/1HGCM82633A000002").await;
    assert_eq!((&vehicle["carried"], &vehicle["lots"][0]["carried"]), (&json!(["year"]), &lot["carried"]));
    let history = reader.get_json("/lots/70000002/history").await;
    assert_eq!(history["listings"][0]["carried"], json!(["odometer", "odometer_unit"]));
}
