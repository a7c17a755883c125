//! Filters and facets, compared with independent SQL.

use super::{query_number, run_sql, simulated_fixture};
use serde_json::Value;
use std::time::{Duration, Instant};

const COUNT_LOTS: &str = "select count(*) from public.lots l join public.vehicles v on v.vin = l.vin where ";

fn found_lots(found: &Value) -> &Vec<Value> {
    found["lots"].as_array().unwrap()
}

#[tokio::test]
async fn each_filter_finds_what_sql_finds() {
    let (pipeline, reader) = simulated_fixture().await;
    let pool = pipeline.pool();
    let vin: String =
        sqlx::query_scalar("select vin from public.lots order by id limit 1").fetch_one(pool).await.unwrap();
    let prefix = &vin[..2];
    let yard: String =
        sqlx::query_scalar("select yard_name from public.lots order by id limit 1").fetch_one(pool).await.unwrap();
    let escaped = yard.replace(' ', "+");
    for (query, condition) in [
        ("make=TOYOTA".to_owned(), "v.make = 'TOYOTA'".to_owned()),
        ("make=toy-ota&make=ford".to_owned(), "v.make in ('TOYOTA', 'FORD')".to_owned()),
        ("make=FORD&model=F150".to_owned(), "v.make = 'FORD' and v.model = 'F150'".to_owned()),
        ("year_min=2015&year_max=2018".to_owned(), "v.year between 2015 and 2018".to_owned()),
        ("damage=damage_front_end".to_owned(), "l.damage_code = 'damage_front_end'".to_owned()),
        (
            "damage=damage_front_end&damage=damage_rear_end&make=TOYOTA".to_owned(),
            "l.damage_code in ('damage_front_end', 'damage_rear_end') and v.make = 'TOYOTA'".to_owned(),
        ),
        ("title=title_sc".to_owned(), "l.title_type = 'SC'".to_owned()),
        ("status=scheduled".to_owned(), "l.status = 'scheduled'".to_owned()),
        ("status=pending_result".to_owned(), "l.status = 'PENDING_RESULT'".to_owned()),
        ("keys=keys_no".to_owned(), "l.has_keys_code = 'keys_no'".to_owned()),
        ("runs_drives=run_and_drive".to_owned(), "l.runs_drives = 'Run & Drive Verified'".to_owned()),
        (format!("yard={escaped}"), format!("l.yard_name = '{yard}'")),
        ("state=CA".to_owned(), "l.region = 'CA'".to_owned()),
        ("country=can".to_owned(), "l.country = 'CAN'".to_owned()),
        ("price_min=100&price_max=999.99".to_owned(), "l.current_bid_usd between 100 and 999.99".to_owned()),
        (
            "sale_from=2026-03-08T00:00:00Z&sale_to=2026-03-12T00:00:00%2B01:00".to_owned(),
            "l.auction_datetime_utc between '2026-03-08T00:00Z' and '2026-03-12T00:00+01'".to_owned(),
        ),
        (format!("vin={}", prefix.to_lowercase()), format!("starts_with(l.vin, '{prefix}')")),
        ("fuel=fuel_diesel".to_owned(), "v.fuel = 'DIESEL'".to_owned()),
        ("country=nowhere".to_owned(), "false".to_owned()),
    ] {
        let expected = query_number(pool, &format!("{COUNT_LOTS}{condition}")).await;
        let found = reader.get_json(&format!("/search?{query}&limit=200")).await;
        assert_eq!(found["total"], expected, "{query}");
        assert_eq!(found_lots(&found).len() as i64, expected.min(200), "{query}");
        let numbers: Vec<&str> = found_lots(&found).iter().map(|lot| lot["lot"].as_str().unwrap()).collect();
        let same = format!("{COUNT_LOTS}{condition} and l.lot_external_id in ('{}')", numbers.join("', '"));
        assert_eq!(query_number(pool, &same).await, expected.min(200), "{query}");
    }
    let some = ["TOYOTA", "FORD"].map(|make| format!("{COUNT_LOTS}v.make = '{make}'"));
    for sql in some {
        assert!(query_number(pool, &sql).await > 5, "the feed has too few for this test: {sql}");
    }
}

#[tokio::test]
async fn a_misspelt_make_or_model_is_found() {
    let (pipeline, reader) = simulated_fixture().await;
    for (asked, make) in [("toyta", "TOYOTA"), ("CHEVRLET", "CHEVROLET"), ("hnda+civic", "HONDA")] {
        let found = reader.get_json(&format!("/search?q={asked}&limit=200")).await;
        let expected = query_number(pipeline.pool(), &format!("{COUNT_LOTS}v.make = '{make}'")).await;
        assert!(expected > 0, "the feed has no {make}");
        let of_it = found_lots(&found).iter().filter(|lot| lot["vehicle"]["make"] == make).count() as i64;
        assert!(of_it > 0 && of_it >= expected.min(200) / 8, "{asked}: {of_it} of {expected}");
    }
    assert_eq!(reader.get_json("/search?q=xyzzy").await["total"], 0);
}

#[tokio::test]
async fn every_option_of_every_facet_gives_as_many_lots_as_it_says() {
    let (_house, reader) = simulated_fixture().await;
    for (asked, own) in [("", ""), ("make=TOYOTA&year_min=2012&", "make"), ("damage=damage_front_end&", "damage")] {
        let facets = reader.get_json(&format!("/facets?{asked}options=1000")).await;
        let search = reader.get_json(&format!("/search?{asked}limit=1")).await;
        assert_eq!(facets["total"], search["total"]);
        let mut options = 0;
        for facet in facets["facets"].as_array().unwrap() {
            let name = facet["name"].as_str().unwrap();
            let all = facet["options"].as_array().unwrap();
            assert_eq!(facet["total_options"], all.len());
            // every seventh of many options, to limit the time
            for option in all.iter().step_by(1 + all.len() / 7) {
                assert!(option["count"].as_u64().unwrap() > 0, "an empty option: {option}");
                let Some(code) = option["code"].as_str() else { continue };
                let code: String = url::form_urlencoded::byte_serialize(code.as_bytes()).collect();
                // replaces the filter of its own column
                let mut rest = asked.to_owned();
                if name == own {
                    let kept = asked.split('&').filter(|pair| !pair.starts_with(own));
                    rest = kept.collect::<Vec<_>>().join("&");
                }
                let query = match name {
                    "year" if asked.contains("year_min") => continue,
                    "year" => format!("{rest}year_min={code}&year_max={code}&limit=1"),
                    _ => format!("{rest}{name}={code}&limit=1"),
                };
                let found = reader.get_json(&format!("/search?{query}")).await;
                assert_eq!(found["total"], option["count"], "{query}");
                options += 1;
            }
        }
        assert!(options > 50, "too few options to say anything: {options}");
    }
}

#[tokio::test]
async fn pages_hold_their_sort_and_nulls_come_last() {
    let (_house, reader) = simulated_fixture().await;
    let money = |lot: &Value| lot["current_bid"]["amount"].as_str().map(|text| text.parse::<f64>().unwrap());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for down in [false, true] {
        let sign = if down { "-" } else { "" };
        let prices = reader.get_json(&format!("/search?sort={sign}price&limit=200&price_min=0")).await;
        let keys: Vec<_> = found_lots(&prices).iter().map(money).collect();
        assert!(keys.iter().all(Option::is_some), "a range holds no lot without a value");
        let right = |pair: &[Option<f64>]| if down { pair[0] >= pair[1] } else { pair[0] <= pair[1] };
        assert!(keys.windows(2).all(right), "{keys:?}");
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = reader.get_json(&format!("/search?sort={sign}sale_date&limit=200{cursor}")).await;
            keys.extend(found_lots(&page).iter().map(|lot| text(&lot["sale"]["at"])));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let valued = keys.iter().take_while(|key| key.is_some()).count();
        assert!(valued > 0 && valued < keys.len(), "the feed has both");
        assert!(keys[valued..].iter().all(Option::is_none), "a value after nulls");
        let right = |pair: &[Option<String>]| if down { pair[0] >= pair[1] } else { pair[0] <= pair[1] };
        assert!(keys[..valued].windows(2).all(right));
    }
}

#[tokio::test]
async fn what_is_written_is_found_within_seconds_without_being_told() {
    let (pipeline, reader) = simulated_fixture().await;
    assert_eq!(reader.get_json("/search?make=Zaporozhets").await["total"], 0);
    run_sql(
        pipeline.pool(),
        "update public.vehicles set make = 'ZAPOROZHETS' where vin = (select min(vin) from public.lots)",
    )
    .await;
    let began = Instant::now();
    while reader.get_json("/search?make=Zaporozhets").await["total"] == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is not found");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_hidden_and_a_deleted_lot_are_found_no_more() {
    let (pipeline, reader) = simulated_fixture().await;
    let all = reader.get_json("/search?limit=1").await["total"].as_i64().unwrap();
    run_sql(pipeline.pool(), "update public.lots set is_removed = true where id = (select min(id) from public.lots)")
        .await;
    reader.api.refresh().await.unwrap();
    assert_eq!(reader.get_json("/search?limit=1").await["total"], all - 1);
    let hidden: String = sqlx::query_scalar("select lot_external_id from public.lots where is_removed")
        .fetch_one(pipeline.pool())
        .await
        .unwrap();
    assert_eq!(reader.get(&format!("/lots/{hidden}")).await.status, 410);
    run_sql(
        pipeline.pool(),
        "delete from public.images; delete from public.lots where id = (select max(id) from public.lots)",
    )
    .await;
    let began = Instant::now();
    while reader.get_json("/search?limit=1").await["total"] != all - 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is still found");
        tokio::task::yield_now().await;
    }
}
