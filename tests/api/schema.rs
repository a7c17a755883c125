//! Real responses against the OpenAPI document: each matches the schema of its route and contains no undeclared field.

use super::{ApiClient, pipeline, simulated_fixture};
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The OpenAPI document, made strict: an object may contain only declared fields.
struct ApiDocument {
    text: Value,
    strict: Value,
}

impl ApiDocument {
    async fn fetch(reader: &ApiClient) -> ApiDocument {
        let text = reader.get_json("/openapi.json").await;
        let mut strict = json!({ "components": text["components"], "loose": text["components"]["schemas"] });
        for schema in strict["components"]["schemas"].as_object_mut().unwrap().values_mut() {
            close_schema(schema);
        }
        ApiDocument { text, strict }
    }

    fn paths(&self) -> BTreeSet<&str> {
        self.text["paths"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// Returns the media type and the validator of a route's response.
    fn response_validator(&self, route: &str, status: u16) -> (String, Validator) {
        let output = &self.text["paths"][route]["get"]["responses"][status.to_string()];
        let content = output["content"].as_object().unwrap_or_else(|| panic!("{route} declares no {status}"));
        let (kind, content) = content.iter().next().unwrap();
        let mut schema = self.strict.clone();
        schema["$ref"] = content["schema"]["$ref"].clone();
        (kind.clone(), jsonschema::draft202012::new(&schema).unwrap())
    }
}

/// Forbids undeclared fields. Of several schemas in one each allows the others' fields, and only the whole forbids
/// more.
fn close_schema(schema: &mut Value) {
    if let Some(parts) = schema.get_mut("allOf").and_then(Value::as_array_mut) {
        for part in parts {
            if let Some(name) = part["$ref"].as_str().and_then(|path| path.split('/').next_back()) {
                part["$ref"] = format!("#/loose/{name}").into();
            }
        }
        schema["unevaluatedProperties"] = false.into();
    } else if schema.get("properties").is_some() {
        schema["additionalProperties"] = false.into();
    }
}

#[tokio::test]
async fn every_answer_is_of_the_schema_that_its_route_declares() {
    let (pipeline, reader) = simulated_fixture().await;
    let document = ApiDocument::fetch(&reader).await;
    let some: Vec<(String, String)> = sqlx::query_as("select lot_external_id, vin from public.lots where id % 17 = 0")
        .fetch_all(pipeline.pool())
        .await
        .unwrap();
    let mut asked: BTreeMap<&str, Vec<(String, u16)>> = BTreeMap::new();
    let mut ask = |route: &'static str, path: String, status| {
        asked.entry(route).or_default().push((path, status));
    };
    let (removed, vin_removed) = some.last().cloned().unwrap();
    super::run_sql(
        pipeline.pool(),
        &format!("update public.vehicles set is_removed = true where vin = '{vin_removed}'"),
    )
    .await;
    for (lot, vin) in some.into_iter().filter(|(_, vin)| *vin != vin_removed) {
        for lang in ["en", "ru"] {
            ask("/api/v1/lots/{lot}", format!("/lots/{lot}?lang={lang}"), 200);
            ask("/api/v1/lots/{lot}/history", format!("/lots/{lot}/history?lang={lang}"), 200);
            ask("/api/v1/vehicles/{vin}", format!("/vehicles/{vin}?lang={lang}"), 200);
        }
        ask("/api/v1/lots/{lot}/at", format!("/lots/{lot}/at?time=2026-03-06T17:20:00Z"), 200);
        let of_source = format!("/lots/copart/{lot}");
        ask("/api/v1/lots/{source}/{lot}", of_source.clone(), 200);
        ask("/api/v1/lots/{source}/{lot}/history", format!("{of_source}/history"), 200);
        ask("/api/v1/lots/{source}/{lot}/at", format!("{of_source}/at?time=2026-03-06T17:20:00Z"), 200);
        ask("/api/v1/search", format!("/search?vin={}", &vin[..3]), 200);
    }
    for sort in ["sale_date", "-price", "updated"] {
        ask("/api/v1/search", format!("/search?sort={sort}&limit=200"), 200);
    }
    ask("/api/v1/search", "/search?make=none+such".to_owned(), 200);
    ask("/api/v1/facets", "/facets".to_owned(), 200);
    ask("/api/v1/facets", "/facets?make=TOYOTA&lang=ru&options=3".to_owned(), 200);
    ask("/api/v1/taxonomies", "/taxonomies".to_owned(), 200);
    for domain in vinops::taxonomy::TaxonomyDomain::ALL {
        ask("/api/v1/taxonomies/{domain}", format!("/taxonomies/{}", domain.name()), 200);
    }
    ask("/api/v1/windows", "/windows?limit=2".to_owned(), 200);
    for (of, path) in [("{lot}", removed.clone()), ("{source}/{lot}", format!("copart/{removed}"))] {
        for (end, query) in [("", ""), ("/history", ""), ("/at", "?time=2026-03-06T17:20:00Z")] {
            let route: &'static str = format!("/api/v1/lots/{of}{end}").leak();
            ask(route, format!("/lots/{path}{end}{query}"), 410);
        }
    }
    ask("/api/v1/vehicles/{vin}", format!("/vehicles/{vin_removed}"), 410);
    ask("/api/v1/lots/{source}/{lot}", "/lots/nosuch/7".to_owned(), 404);
    ask("/api/v1/lots/{source}/{lot}/history", "/lots/copart/7/history".to_owned(), 404);
    ask("/api/v1/lots/{source}/{lot}/at", "/lots/copart/7/at".to_owned(), 400);
    ask("/api/v1/lots/{lot}", "/lots/x".to_owned(), 400);
    ask("/api/v1/lots/{lot}", "/lots/7".to_owned(), 404);
    ask("/api/v1/lots/{lot}/history", "/lots/7/history".to_owned(), 404);
    ask("/api/v1/lots/{lot}/at", "/lots/7/at".to_owned(), 400);
    ask("/api/v1/lots/{lot}/at", "/lots/7/at?time=2026-03-06T17:20:00Z".to_owned(), 404);
    ask("/api/v1/vehicles/{vin}", "/vehicles/x".to_owned(), 400);
    ask("/api/v1/vehicles/{vin}", "/vehicles/11111111111111111".to_owned(), 404);
    ask("/api/v1/search", "/search?x=y".to_owned(), 400);
    ask("/api/v1/facets", "/facets?x=y".to_owned(), 400);
    ask("/api/v1/windows", "/windows?x=y".to_owned(), 400);
    ask("/api/v1/taxonomies/{domain}", "/taxonomies/goats".to_owned(), 404);

    for route in document.paths() {
        let paths = asked.get(route).unwrap_or_else(|| panic!("no answer of {route} is looked at"));
        for (path, status) in paths {
            let answer = reader.get(path).await;
            assert_eq!(answer.status, *status, "{path}");
            let (kind, schema) = document.response_validator(route, *status);
            assert_eq!(answer.header("content-type"), kind, "{path}");
            let body = answer.json();
            let wrong: Vec<String> =
                schema.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(wrong.is_empty(), "{path}\n{}\n{body}", wrong.join("\n"));
        }
    }
    drop::<pipeline::Pipeline>(pipeline);
}

#[tokio::test]
async fn a_strict_schema_refuses_what_is_not_declared() {
    let (_test, reader) = super::plain_fixture(1).await;
    let document = ApiDocument::fetch(&reader).await;
    let (_, lot) = document.response_validator("/api/v1/lots/{lot}", 200);
    let mut body = reader.get_json("/lots/1000").await;
    assert!(lot.is_valid(&body));
    body["surprise"] = 1.into();
    assert!(!lot.is_valid(&body), "a field that nobody declared");
    let (_, vehicle) = document.response_validator("/api/v1/vehicles/{vin}", 200);
    let mut body = reader.get_json("/vehicles/WVWZZZ1JZXW001000").await;
    assert!(vehicle.is_valid(&body));
    body["lots"][0]["sale"]["surprise"] = 1.into();
    assert!(!vehicle.is_valid(&body), "nor one deeper down");
}

#[tokio::test]
async fn the_document_names_every_parameter_and_the_page_loads_nothing_from_elsewhere() {
    let (_test, reader) = super::plain_fixture(1).await;
    let document = ApiDocument::fetch(&reader).await;
    assert!(document.text["openapi"].as_str().unwrap().starts_with("3.1"));
    for (route, path) in [("/api/v1/search", "/search"), ("/api/v1/facets", "/facets"), ("/api/v1/windows", "/windows")]
    {
        for param in document.text["paths"][route]["get"]["parameters"].as_array().unwrap() {
            // a known parameter: the error is about its value, or there is none
            let name = param["name"].as_str().unwrap();
            let answer = reader.get(&format!("{path}?{name}=%00")).await;
            let detail = answer.json()["detail"].as_str().unwrap_or("").to_owned();
            assert!(!detail.contains("unknown"), "{route} {name}: {detail}");
            assert!(param["description"].as_str().unwrap().len() > 3, "{name}");
        }
    }
    let page = reader.get("/").await;
    let text = String::from_utf8(page.body.clone()).unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("src="), "it loads");
}
