//! Removed things are in no response: their own path returns 410, and lists omit them. Also lots of several sources
//! with the same number.

use super::{ApiClient, plain_fixture, query_number, run_sql, simulated_fixture};
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::time::{Duration, Instant};

const TIME: &str = "2026-03-06T17:50:00Z";

/// Returns the document's paths, with parameters filled in: those of one lot or vehicle, and all others.
async fn resource_paths(reader: &ApiClient, lot: &str, vin: &str) -> (Vec<String>, Vec<String>) {
    let document = reader.get_json("/openapi.json").await;
    let (mut single, mut lists) = (Vec::new(), Vec::new());
    for (route, path) in document["paths"].as_object().unwrap() {
        let filled = route
            .replace("/api/v1", "")
            .replace("{source}", "copart")
            .replace("{lot}", lot)
            .replace("{vin}", vin)
            .replace("{domain}", "statuses");
        assert!(!filled.contains('{'), "{route} has a parameter that this test does not know");
        let query = if filled.ends_with("/at") { format!("?time={TIME}") } else { String::new() };
        let one = route.contains("{lot}") || route.contains("{vin}");
        assert_eq!(path["get"]["responses"].get("410").is_some(), one, "{route} declares 410 if it is of one");
        if one { &mut single } else { &mut lists }.push(filled + &query);
    }
    assert!(single.len() >= 7 && lists.len() >= 5, "{single:?} {lists:?}");
    (single, lists)
}

async fn assert_gone(reader: &ApiClient, path: &str) {
    let answer = reader.get(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (410, "application/problem+json"), "{path}");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["type"]), (&410.into(), &"urn:vinops:problem:gone".into()), "{path}");
}

#[tokio::test]
async fn a_removed_vehicle_and_its_later_lots_are_in_no_answer_of_any_route() {
    let (pipeline, reader) = simulated_fixture().await;
    let (lot, vin): (String, String) =
        sqlx::query_as("select lot_external_id, vin from public.lots order by id limit 1")
            .fetch_one(pipeline.pool())
            .await
            .unwrap();
    let (single, lists) = resource_paths(&reader, &lot, &vin).await;
    for path in &single {
        assert_eq!(reader.get(path).await.status, 200, "{path}");
    }
    let shown = reader.get_json("/search?limit=200").await["total"].as_i64().unwrap();
    let of_vehicle =
        query_number(pipeline.pool(), &format!("select count(*) from public.lots where vin = '{vin}'")).await;
    run_sql(pipeline.pool(), &format!("update public.vehicles set is_removed = true where vin = '{vin}'")).await;
    run_sql(
        pipeline.pool(),
        &format!("insert into public.lots (lot_external_id, vin, source, status) values ('79999999', '{vin}', 'copart', 'active')"),
    )
    .await;
    reader.api.refresh().await.unwrap();
    for path in single.iter().chain(&["/lots/79999999".to_owned(), "/lots/copart/79999999/history".to_owned()]) {
        assert_gone(&reader, path).await;
    }
    for path in lists {
        let text = String::from_utf8(reader.get(&path).await.body).unwrap();
        assert!(!text.contains(&vin) && !text.contains("79999999"), "{path} shows it");
    }
    for path in [format!("/search?vin={}", &vin[..11]), "/search?sort=-updated&limit=200".to_owned()] {
        let text = String::from_utf8(reader.get(&path).await.body).unwrap();
        assert!(!text.contains(&vin) && !text.contains("79999999"), "{path} shows it");
    }
    assert_eq!(reader.get_json("/facets").await["total"], shown - of_vehicle);
    assert_eq!(reader.get_json("/search").await["total"], shown - of_vehicle);
}

#[tokio::test]
async fn a_removed_lot_is_gone_and_left_out_of_its_vehicle_and_of_the_history_of_another() {
    let (pipeline, reader) = simulated_fixture().await;
    let (lot, vin): (String, String) =
        sqlx::query_as("select lot_external_id, vin from public.lots order by id limit 1")
            .fetch_one(pipeline.pool())
            .await
            .unwrap();
    run_sql(
        pipeline.pool(),
        &format!("insert into public.lots (lot_external_id, vin, source, status) values ('79999999', '{vin}', 'copart', 'active')"),
    )
    .await;
    let lots = |output: &Value, of: &str| -> Vec<String> {
        output[of].as_array().unwrap().iter().map(|lot| lot["lot"].as_str().unwrap().to_owned()).collect()
    };
    let history = reader.get_json("/lots/79999999/history").await;
    assert!(lots(&history, "listings").contains(&lot), "{history}");
    run_sql(pipeline.pool(), &format!("update public.lots set is_removed = true where lot_external_id = '{lot}'"))
        .await;
    let (single, _) = resource_paths(&reader, &lot, &vin).await;
    for path in single.iter().filter(|path| path.starts_with("/lots/")) {
        assert_gone(&reader, path).await;
    }
    let vehicle = reader.get_json(&format!("/vehicles/{vin}")).await;
    assert!(!lots(&vehicle, "lots").contains(&lot), "{vehicle}");
    assert!(lots(&vehicle, "lots").contains(&"79999999".to_owned()), "{vehicle}");
    assert_eq!(lots(&reader.get_json("/lots/79999999/history").await, "listings"), ["79999999"]);
    // a vehicle without lots still exists
    run_sql(pipeline.pool(), &format!("update public.lots set is_removed = true where vin = '{vin}'")).await;
    let vehicle = reader.get_json(&format!("/vehicles/{vin}")).await;
    assert_eq!((&vehicle["vin"], vehicle["lots"].as_array().unwrap().len()), (&vin.into(), 0));
}

#[tokio::test]
async fn closed_and_removed_links_are_not_shown() {
    let (pipeline, reader) = simulated_fixture().await;
    let (id, lot, vin): (i64, String, String) = sqlx::query_as(
        "select l.id, l.lot_external_id, l.vin from public.lots l
        where (select count(*) from public.images i where i.lot_id = l.id) = 2 order by l.id limit 1",
    )
    .fetch_one(pipeline.pool())
    .await
    .unwrap();
    let shown = async || {
        let of = |lot: &Value| -> Vec<String> {
            let images = lot["images"].as_array().unwrap();
            images.iter().map(|image| image["variant"].as_str().unwrap().to_owned()).collect()
        };
        let found = reader.get_json(&format!("/search?vin={vin}")).await;
        let vehicle = reader.get_json(&format!("/vehicles/{vin}")).await;
        let same = |lots: &Value| {
            let lots = lots.as_array().unwrap().iter();
            lots.filter(|other| other["lot"] == lot.as_str()).map(of).next().unwrap()
        };
        let now = of(&reader.get_json(&format!("/lots/{lot}")).await);
        assert_eq!((&same(&found["lots"]), &same(&vehicle["lots"])), (&now, &now));
        let then = reader.get_json(&format!("/lots/{lot}/at?time={TIME}")).await;
        (now, of(&then["standing"]))
    };
    let both = vec!["listing".to_owned(), "thumbnail".to_owned()];
    assert_eq!(shown().await, (both.clone(), both.clone()));
    let set = |what: &str| format!("update public.images set {what} where lot_id = {id} and variant = 'thumbnail'");
    run_sql(pipeline.pool(), &set("valid_until = now()")).await;
    assert_eq!(shown().await.0, ["listing"], "a closed link");
    run_sql(pipeline.pool(), &set("valid_until = null, is_removed = true")).await;
    assert_eq!(shown().await, (vec!["listing".to_owned()], vec!["listing".to_owned()]), "a removed link");
}

#[tokio::test]
async fn a_flag_flipped_by_sql_is_noticed_without_being_told() {
    let (test, reader) = plain_fixture(8).await;
    for (statement, total) in [
        ("update public.lots set is_removed = true where lot_external_id = '1003'", 7),
        ("update public.vehicles set is_removed = true where vin like '%1004'", 6),
        ("update public.lots set is_removed = false", 7),
    ] {
        run_sql(&test.db.pool, statement).await;
        // the server's counters follow a commit within seconds
        let until = Instant::now() + Duration::from_secs(60);
        while reader.get_json("/facets").await["total"] != total {
            assert!(Instant::now() < until, "{statement} is not noticed");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_page_whose_last_lot_was_removed_since_goes_on_after_the_last_one_shown() {
    let (test, reader) = plain_fixture(12).await;
    // the lots in memory do not contain it yet
    run_sql(
        &test.db.pool,
        "update public.lots set is_removed = true where lot_external_id in ('1002', '1003', '1004', '1005')",
    )
    .await;
    let (mut cursor, mut shown) = (String::new(), Vec::new());
    loop {
        let page = reader.get_json(&format!("/search?sort=lot&limit=3{cursor}")).await;
        let lots = page["lots"].as_array().unwrap();
        shown.extend(lots.iter().map(|lot| lot["lot"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        let bytes = HEXLOWER.decode(next.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for removed in ["1002", "1003", "1004", "1005"] {
            assert!(!text.contains(&format!("{removed}.")), "the cursor names {removed}");
        }
        cursor = format!("&cursor={next}");
    }
    assert_eq!(shown, ["1000", "1001", "1006", "1007", "1008", "1009", "1010", "1011"]);
}

#[tokio::test]
async fn a_number_of_several_sources_is_found_by_its_source_and_the_short_path_names_them() {
    let (pipeline, reader) = simulated_fixture().await;
    let (lot, vin): (String, String) =
        sqlx::query_as("select lot_external_id, vin from public.lots order by id limit 1")
            .fetch_one(pipeline.pool())
            .await
            .unwrap();
    run_sql(pipeline.pool(), "drop index if exists public.idx_lots_external_id").await;
    run_sql(
        pipeline.pool(),
        &format!(
            "insert into public.vehicles (vin, vin_raw) values ('1FTFW1ET5DFC10312', '1FTFW1ET5DFC10312');
            insert into public.lots (lot_external_id, vin, source, status) values ('{lot}', '1FTFW1ET5DFC10312', 'iaai', 'active')"
        ),
    )
    .await;
    reader.api.refresh().await.unwrap();
    for (end, query) in [("", ""), ("/history", ""), ("/at", "?time=2026-03-06T17:50:00Z")] {
        let answer = reader.get(&format!("/lots/{lot}{end}{query}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (409, "application/problem+json"), "{end}");
        assert_eq!(answer.json()["sources"], serde_json::json!(["copart", "iaai"]), "{end}");
        for source in ["copart", "iaai"] {
            let output = reader.get_json(&format!("/lots/{source}/{lot}{end}{query}")).await;
            assert_eq!((&output["lot"], &output["source"]), (&lot.as_str().into(), &source.into()), "{end}");
        }
        assert_eq!(reader.get(&format!("/lots/nosuch/{lot}{end}{query}")).await.status, 404, "{end}");
    }
    assert_eq!(reader.get_json(&format!("/lots/copart/{lot}")).await["vehicle"]["vin"], vin.as_str());
    let history = reader.get_json(&format!("/lots/iaai/{lot}/history")).await;
    assert_eq!((&history["vin"], &history["first_seen"]), (&"1FTFW1ET5DFC10312".into(), &Value::Null));
    assert_eq!(history["events"].as_array().unwrap().len(), 0, "no change of the other's lot is its own");
    // both are found, page by page
    let (mut cursor, mut shown) = (String::new(), Vec::new());
    loop {
        let page = reader.get_json(&format!("/search?sort=lot&limit=1{cursor}")).await;
        for found in page["lots"].as_array().unwrap().iter().filter(|found| found["lot"] == lot.as_str()) {
            shown.push(found["source"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str().filter(|_| shown.len() < 2) else { break };
        cursor = format!("&cursor={next}");
    }
    shown.sort();
    assert_eq!(shown, ["copart", "iaai"]);
    // once one of them is removed, the short path is unambiguous
    run_sql(pipeline.pool(), "update public.vehicles set is_removed = true where vin = '1FTFW1ET5DFC10312'").await;
    assert_eq!(reader.get_json(&format!("/lots/{lot}")).await["source"], "copart");
    assert_gone(&reader, &format!("/lots/iaai/{lot}")).await;
}
