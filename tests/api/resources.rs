//! Lots, vehicles, taxonomies and windows in the API, compared with the tables.

use super::{ApiClient, plain_fixture, query_number, run_sql, simulated_fixture};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::collections::HashMap;
use vinops::db::taxonomy::{self, Actor};
use vinops::taxonomy::{TaxonomyDomain, aliases, entries, title_labels};
use vinops::testing::migrated_database;

#[tokio::test]
async fn a_lot_says_what_its_rows_say() {
    let (pipeline, reader) = simulated_fixture().await;
    let rows: Vec<(String, Value)> = sqlx::query_as(
        "select l.lot_external_id, to_jsonb(l) || jsonb_build_object('v', to_jsonb(v), 'bid', l.current_bid_usd::text, 'at', l.auction_datetime_utc)
        from public.lots l join public.vehicles v on v.vin = l.vin order by l.id",
    )
    .fetch_all(pipeline.pool())
    .await
    .unwrap();
    let mut met = HashMap::<&str, u32>::new();
    for (number, row) in rows.iter().step_by(11) {
        let lot = reader.get_json(&format!("/lots/{number}")).await;
        for (shown, output) in [
            (&lot["vehicle"]["vin"], &row["vin"]),
            (&lot["vehicle"]["make"], &row["v"]["make"]),
            (&lot["vehicle"]["year"], &row["v"]["year"]),
            (&lot["damage"]["code"], &row["damage_code"]),
            (&lot["sale"]["type"]["code"], &row["sale_type_code"]),
            (&lot["keys"]["code"], &row["has_keys_code"]),
            (&lot["yard"]["name"], &row["yard_name"]),
            (&lot["title_state"], &row["title_state"]),
            (&lot["odometer"]["unit"], &row["odometer_unit"]),
            (&lot["current_bid"]["amount"], &row["bid"]),
        ] {
            assert_eq!(shown, output, "{lot}");
        }
        if let Some(money) = lot["retail_value"].as_object() {
            let amount = money["amount"].as_str().unwrap();
            assert!(amount.split_once('.').is_some_and(|(_, cents)| cents.len() == 2), "{amount}");
            assert_eq!(money["currency"], row["currency_code"]);
            *met.entry("money").or_default() += 1;
        }
        if row["at"].is_string() {
            let instant =
                |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap().to_utc();
            assert!(lot["sale"]["at"].as_str().unwrap().ends_with('Z'));
            assert_eq!(instant(&lot["sale"]["at"]), instant(&row["at"]));
            assert_eq!(instant(&lot["sale"]["local"]), instant(&row["at"]));
            // the yard's local time is that of the feed
            let hhmm = row["sale_time_hhmm"].as_i64().unwrap_or(0);
            if hhmm > 0 {
                let clock = format!("T{:02}:{:02}:00", hhmm / 100, hhmm % 100);
                assert!(lot["sale"]["local"].as_str().unwrap().contains(&clock), "{clock}: {}", lot["sale"]);
                *met.entry("clock").or_default() += 1;
            }
        }
        for coded in ["status", "damage", "title", "odometer/brand", "vehicle/fuel", "runs_drives", "condition"] {
            let value = lot.pointer(&format!("/{coded}")).unwrap_or(&Value::Null);
            if !value.is_null() {
                assert!(value["code"].is_string() && value["label"].is_string(), "{coded}: {value}");
                *met.entry("coded").or_default() += 1;
            }
        }
    }
    for what in ["money", "clock", "coded"] {
        assert!(met.get(what).is_some_and(|times| *times > 10), "{what}: {met:?}");
    }
}

#[tokio::test]
async fn the_unit_of_an_odometer_is_that_of_the_lots_row() {
    let (test, reader) = plain_fixture(3).await;
    run_sql(
        &test.db.pool,
        "update public.lots set odometer = 60019, odometer_unit = 'km' where lot_external_id = '1000';
        update public.lots set odometer = 60019, odometer_unit = 'mi' where lot_external_id = '1001';
        update public.lots set odometer_brand = 'A' where lot_external_id = '1002'",
    )
    .await;
    for (lot, value, unit) in [
        ("1000", json!(60019.0), json!("km")),
        ("1001", json!(60019.0), json!("mi")),
        ("1002", json!(null), json!(null)),
    ] {
        let odometer = &reader.get_json(&format!("/lots/{lot}")).await["odometer"];
        assert_eq!((&odometer["value"], &odometer["unit"]), (&value, &unit), "{odometer}");
    }
}

#[tokio::test]
async fn a_vehicle_has_all_its_lots_the_newest_first() {
    let (pipeline, reader) = simulated_fixture().await;
    run_sql(
        pipeline.pool(),
        "insert into public.lots (lot_external_id, vin, source, status)
        select '77000000' || n, (select vin from public.lots order by id limit 1), 'copart', 'active' from generate_series(1, 3) n",
    )
    .await;
    let vin: String =
        sqlx::query_scalar("select vin from public.lots order by id limit 1").fetch_one(pipeline.pool()).await.unwrap();
    let vehicle = reader.get_json(&format!("/vehicles/{}", vin.to_lowercase())).await;
    let lots: Vec<&str> = vehicle["lots"].as_array().unwrap().iter().map(|lot| lot["lot"].as_str().unwrap()).collect();
    assert_eq!(vehicle["vin"], vin.as_str());
    assert_eq!(lots[..3], ["770000003", "770000002", "770000001"]);
    let all = query_number(pipeline.pool(), &format!("select count(*) from public.lots where vin = '{vin}'")).await;
    assert_eq!(lots.len() as i64, all);
}

#[tokio::test]
async fn every_label_of_every_domain_renders_in_both_tongues() {
    let test = migrated_database().await;
    let reader = ApiClient::open(&test).await;
    let domains = reader.get_json("/taxonomies").await;
    assert_eq!(domains["domains"].as_array().unwrap().len(), TaxonomyDomain::ALL.len());
    let mut labels = 0;
    for domain in TaxonomyDomain::ALL {
        for lang in ["en", "ru"] {
            let output = reader.get_json(&format!("/taxonomies/{}?lang={lang}", domain.name())).await;
            let codes: HashMap<&str, &Value> =
                output["codes"].as_array().unwrap().iter().map(|it| (it["code"].as_str().unwrap(), it)).collect();
            assert_eq!(codes.len(), entries(domain).len());
            for entry in entries(domain) {
                let own = if lang == "ru" && !entry.ru.is_empty() { &entry.ru } else { &entry.en };
                let own = if own.is_empty() { &entry.code } else { own };
                assert_eq!(codes[entry.code.as_str()]["label"], own.as_str(), "{domain:?} {lang}");
                labels += 1;
            }
            if domain == TaxonomyDomain::TitleTypes {
                for own in title_labels() {
                    let states = codes[own.code.as_str()]["states"].as_array().unwrap();
                    let output = states.iter().find(|it| it["state"] == own.state.as_str()).unwrap();
                    let label = if lang == "ru" && !own.ru.is_empty() { &own.ru } else { &own.en };
                    assert_eq!(output["label"], label.as_str());
                }
            }
        }
    }
    assert!(labels > 600, "{labels}");
}

/// The path of each domain in the JSON of a lot, and the column of its code or raw value.
const CODED_VALUES: [(TaxonomyDomain, &str, &str); 12] = [
    (TaxonomyDomain::DamageTypes, "/damage", "lots.damage_code"),
    (TaxonomyDomain::SaleTypes, "/sale/type", "lots.sale_type_code"),
    (TaxonomyDomain::HasKeys, "/keys", "lots.has_keys_code"),
    (TaxonomyDomain::LotConditions, "/condition", "lots.lot_condition_code"),
    (TaxonomyDomain::RunsDrives, "/runs_drives", "lots.runs_drives"),
    (TaxonomyDomain::OdometerBrands, "/odometer/brand", "lots.odometer_brand"),
    (TaxonomyDomain::VehicleTypes, "/vehicle_type", "lots.vehicle_type"),
    (TaxonomyDomain::BodyStyles, "/vehicle/body", "vehicles.body"),
    (TaxonomyDomain::FuelTypes, "/vehicle/fuel", "vehicles.fuel"),
    (TaxonomyDomain::TransmissionTypes, "/vehicle/transmission", "vehicles.transmission"),
    (TaxonomyDomain::DriveTypes, "/vehicle/drive", "vehicles.drive"),
    (TaxonomyDomain::Colors, "/vehicle/color", "vehicles.color"),
];

#[tokio::test]
async fn every_spelling_of_a_lots_words_renders_as_its_label() {
    let (test, reader) = super::plain_fixture(60).await;
    let mut seen = 0;
    for (domain, pointer, column) in CODED_VALUES {
        let (table, name) = column.split_once('.').unwrap();
        // code columns contain codes, the others raw values
        let values: Vec<(String, String)> = match name.ends_with("_code") {
            true => entries(domain).iter().map(|entry| (entry.code.clone(), entry.code.clone())).collect(),
            false => aliases()
                .iter()
                .filter(|alias| alias.domain == domain)
                .map(|alias| (alias.raw.clone(), alias.code.clone()))
                .collect(),
        };
        let en: HashMap<&str, &str> =
            entries(domain).iter().map(|entry| (entry.code.as_str(), entry.en.as_str())).collect();
        let ru: HashMap<&str, &str> =
            entries(domain).iter().map(|entry| (entry.code.as_str(), entry.ru.as_str())).collect();
        for chunk in values.chunks(60) {
            for (at, (value, _)) in chunk.iter().enumerate() {
                let key = match table {
                    "lots" => format!("lot_external_id = '{}'", 1000 + at),
                    _ => format!("vin = 'WVWZZZ1JZXW{:06}'", 1000 + at),
                };
                let statement = format!("update public.{table} set {name} = $1 where {key}");
                sqlx::query(AssertSqlSafe(statement)).bind(value).execute(&test.db.pool).await.unwrap();
            }
            for (lang, labels) in [("en", &en), ("ru", &ru)] {
                let page = reader.get_json(&format!("/search?sort=lot&limit=60&lang={lang}")).await;
                for (lot, (value, code)) in page["lots"].as_array().unwrap().iter().zip(chunk) {
                    let label = labels[code.as_str()];
                    let expected =
                        json!({ "code": code, "label": if label.is_empty() { en[code.as_str()] } else { label } });
                    assert_eq!(lot.pointer(pointer), Some(&expected), "{domain:?} {value} {lang}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 400, "{seen}");
}

#[tokio::test]
async fn an_unknown_word_is_shown_as_it_came_until_it_is_mapped() {
    let (test, reader) = super::plain_fixture(3).await;
    run_sql(&test.db.pool, "update public.vehicles set color = 'OCTARINE' where vin like '%1001'").await;
    reader.api.refresh().await.unwrap();
    let lot = reader.get_json("/lots/1001").await;
    assert_eq!(lot["vehicle"]["color"], json!({ "code": null, "label": "OCTARINE", "raw": "OCTARINE" }));
    let facets = reader.get_json("/facets?facet=color").await;
    let unknown = json!({ "code": null, "label": "OCTARINE", "raw": "OCTARINE", "count": 1 });
    assert_eq!(facets["facets"][0]["options"], json!([unknown]));
    assert_eq!(reader.get_json("/search?color=color_purple").await["total"], 0);

    let by = Actor { who: "a test".into(), why: "to see it".into() };
    let mut connection = test.db.pool.acquire().await.unwrap();
    taxonomy::map_alias(&mut connection, TaxonomyDomain::Colors, "Octarine", "color_purple", &by).await.unwrap();
    reader.api.refresh().await.unwrap();
    assert_eq!(reader.get_json("/lots/1001?lang=ru").await["vehicle"]["color"]["code"], "color_purple");
    let found = reader.get_json("/search?color=color_purple").await;
    assert_eq!((&found["total"], &found["lots"][0]["lot"]), (&1.into(), &"1001".into()));
}

#[tokio::test]
async fn a_label_that_an_operator_edits_is_shown_and_has_another_tag() {
    let (test, reader) = super::plain_fixture(1).await;
    let tag = reader.get("/taxonomies/statuses").await.header("etag").to_owned();
    run_sql(&test.db.pool, "update taxonomies.statuses set en = 'On offer' where code = 'active'").await;
    reader.api.refresh().await.unwrap();
    assert_eq!(reader.get_json("/lots/1000?lang=en").await["status"]["label"], "On offer");
    let again = reader.get_with("/taxonomies/statuses", &[("if-none-match", &tag)]).await;
    assert_eq!(again.status, 200);
    assert_ne!(again.header("etag"), tag);
}

#[tokio::test]
async fn a_title_is_called_as_its_state_calls_it() {
    let (test, reader) = super::plain_fixture(2).await;
    let own = title_labels().iter().find(|own| !own.ru.is_empty()).unwrap();
    let raw = own.code.trim_start_matches("title_").to_uppercase();
    run_sql(
        &test.db.pool,
        &format!(
            "update public.lots set title_type = '{raw}', title_state = '{}' where lot_external_id = '1000';
                  update public.lots set title_type = '{raw}', title_state = 'ZZ' where lot_external_id = '1001'",
            own.state
        ),
    )
    .await;
    let general = entries(TaxonomyDomain::TitleTypes).iter().find(|entry| entry.code == own.code).unwrap();
    for (lot, en, ru) in [("1000", &own.en, &own.ru), ("1001", &general.en, &general.ru)] {
        assert_eq!(reader.get_json(&format!("/lots/{lot}?lang=en")).await["title"]["label"], en.as_str());
        if !ru.is_empty() {
            assert_eq!(reader.get_json(&format!("/lots/{lot}?lang=ru")).await["title"]["label"], ru.as_str());
        }
    }
}

#[tokio::test]
async fn windows_come_page_by_page_the_newest_first() {
    let test = migrated_database().await;
    run_sql(
        &test.db.pool,
        "insert into fleet.windows (source, window_start_utc, state)
        select s, '2026-03-06T00:00Z'::timestamptz + n * interval '15 minutes', case n % 3 when 0 then 'missed' else 'applied' end
        from generate_series(0, 20) n, unnest(array['copart', 'iaai']) s",
    )
    .await;
    let reader = ApiClient::open(&test).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = reader.get_json(&format!("/windows?limit=5{cursor}")).await;
        for window in page["windows"].as_array().unwrap() {
            seen.push((window["start"].as_str().unwrap().to_owned(), window["source"].as_str().unwrap().to_owned()));
        }
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    sorted.reverse();
    assert_eq!((seen.len(), &seen), (42, &sorted));
    let missed = reader.get_json("/windows?state=missed&source=iaai&limit=200").await;
    assert_eq!(missed["windows"].as_array().unwrap().len(), 7);
}
