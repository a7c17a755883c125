//! Errors name only what the reader can fix. Also limits and ETags.

use super::{ApiClient, plain_fixture, run_sql};
use axum::body::Body;
use axum::http::Request;
use std::io::Read;
use std::time::{Duration, Instant};
use vinops::api::limits;
use vinops::testing::migrated_database;

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (_test, reader) = plain_fixture(3).await;
    for (path, parameter) in [
        ("/search?makes=KIA", "makes"),
        ("/search?limit=0", "limit"),
        ("/search?limit=201", "limit"),
        ("/search?limit=10&limit=10", "limit"),
        ("/search?year_min=twenty", "year_min"),
        ("/search?year_max=99999", "year_max"),
        ("/search?damage=none_such", "damage"),
        ("/search?status=PENDING_RESULT", "status"),
        ("/search?price_min=1e9", "price_min"),
        ("/search?sale_from=tomorrow", "sale_from"),
        ("/search?vin=1OI", "vin"),
        ("/search?sort=colour", "sort"),
        ("/search?cursor=1", "cursor"),
        ("/search?q=%00", "q"),
        ("/search?lang=de", "lang"),
        ("/facets?facet=price", "facet"),
        ("/facets?cursor=1", "cursor"),
        ("/windows?state=odd", "state"),
        ("/windows?cursor=00", "cursor"),
        ("/taxonomies?lang=ru", "lang"),
        ("/lots/12a", "lot"),
        ("/lots/0", "lot"),
        ("/lots/1234567890123456789", "lot"),
        ("/lots/1000?time=now", "time"),
        ("/vehicles/TOOSHORT", "vin"),
        ("/vehicles/WVWZZZ1JZXW0O1000", "vin"),
    ] {
        let answer = reader.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(problem["parameter"], parameter, "{path}: {problem}");
        assert_eq!((&problem["status"], &problem["type"]), (&400.into(), &"urn:vinops:problem:parameter".into()));
        assert_eq!(problem["title"], "Bad Request");
        assert_eq!(problem["request_id"], answer.header("x-request-id"));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("The parameter `{parameter}` ")) && detail.ends_with('.'), "{detail}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_test, reader) = plain_fixture(3).await;
    for path in ["/lots/999", "/vehicles/WVWZZZ1JZXW009999", "/taxonomies/goats", "/nothing", "/lots/", "/lots/1/2/3"] {
        let answer = reader.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(problem["title"], "Not Found", "{path}");
        assert_eq!(problem["request_id"], answer.header("x-request-id"), "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(char::is_uppercase) && detail.ends_with('.'), "{detail}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let request = Request::builder().method(method).uri("/api/v1/lots/1000");
        let answer = reader.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"), "{method}");
        assert_eq!(answer.json()["status"], 405);
    }
}

#[tokio::test]
async fn a_failure_of_ours_shows_an_id_and_nothing_of_what_failed() {
    let (test, reader) = plain_fixture(3).await;
    run_sql(&test.db.pool, "alter table public.images rename to pictures").await;
    let answer = reader.get("/lots/1000").await;
    assert_eq!(answer.status, 500);
    let problem = answer.json();
    let keys: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["detail", "request_id", "status", "title", "type"]);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    let text = problem.to_string().to_lowercase();
    for secret in ["images", "relation", "select", "sql", "/src/", "postgres"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn a_login_that_may_not_read_as_app_ro_is_told_so() {
    let test = migrated_database().await;
    let login = format!("api_stranger_{}", std::process::id());
    run_sql(&test.db.pool, &format!("create role {login} login password 'x' nosuperuser")).await;
    let mut url = url::Url::parse(&test.url).unwrap();
    url.set_username(&login).unwrap();
    url.set_password(Some("x")).unwrap();
    let db = vinops::db::Database::connect(url.as_str(), None, 1).await.unwrap();
    let refused = vinops::api::Api::start(&db).await.err().expect("it is refused").to_string();
    db.pool.close().await;
    run_sql(&test.db.pool, &format!("drop role {login}")).await;
    assert!(refused.contains(&format!("grant app_ro to {login}")), "{refused}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let (_test, reader) = plain_fixture(3).await;
    let long = "x".repeat(limits::MAX_URI_BYTES);
    let request = |path: &str| Request::get(format!("/api/v1{path}"));
    for (status, request) in [
        (414, request(&format!("/search?q={long}")).body(Body::empty())),
        (431, request("/lots/1000").header("x-large", "x".repeat(limits::MAX_HEADER_BYTES)).body(Body::empty())),
        (413, request("/lots/1000").header("content-length", "100000").body(Body::empty())),
        (413, request("/lots/1000").header("transfer-encoding", "chunked").body(Body::empty())),
        (413, Request::post("/api/v1/search").header("content-length", "100000").body(Body::empty())),
        (200, request("/lots/1000").header("content-length", "3").body(Body::from("abc"))),
    ] {
        let answer = reader.send(request.unwrap()).await;
        assert_eq!(answer.status, status);
        if status != 200 {
            assert_eq!(answer.json()["type"], "urn:vinops:problem:too-large");
        }
    }
}

#[tokio::test]
async fn beyond_so_many_at_once_readers_are_asked_to_come_again() {
    let (test, reader) = plain_fixture(3).await;
    let mut lock = test.db.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table public.lots in access exclusive mode").execute(&mut *lock).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..limits::MAX_CONCURRENT_REQUESTS {
        let mut router = reader.router.clone();
        asked.spawn(async move {
            let request = Request::get("/api/v1/lots/1000").body(Body::empty()).unwrap();
            tower::Service::call(&mut router, request).await.unwrap().status().as_u16()
        });
    }
    let began = Instant::now();
    loop {
        let answer = reader.get("/taxonomies").await;
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.json()["type"], "urn:vinops:problem:busy");
            assert_eq!(answer.json()["title"], "Service Unavailable");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nobody was turned away");
        tokio::task::yield_now().await;
    }
    lock.rollback().await.unwrap();
    // requests that waited too long for a connection got an error, too
    let ended = asked.join_all().await;
    assert!(ended.iter().all(|status| [200, 503].contains(status)) && ended.contains(&200), "{ended:?}");
    assert_eq!(reader.get("/lots/1000").await.status, 200);
}

#[tokio::test]
async fn who_has_the_answer_is_told_that_it_still_holds() {
    let (test, reader) = plain_fixture(3).await;
    for path in ["/lots/1000", "/vehicles/WVWZZZ1JZXW001000", "/taxonomies", "/taxonomies/colors", "/search", "/facets"]
    {
        let first = reader.get(path).await;
        let tag = first.header("etag").to_owned();
        assert!(tag.starts_with("W/\"") && first.header("cache-control").starts_with("public, "), "{path}");
        for known in [tag.as_str(), "*", &format!("\"other\", {tag}"), tag.trim_start_matches("W/")] {
            let again = reader.get_with(path, &[("if-none-match", known)]).await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {known}");
            assert_eq!(again.header("etag"), tag);
        }
        for other in ["\"other\"", "\"a,*,b\"", &format!("\"x,{},y\"", tag.replace('"', "'"))] {
            assert_eq!(reader.get_with(path, &[("if-none-match", other)]).await.status, 200, "{path} {other}");
        }
    }
    let tag = reader.get("/lots/1000").await.header("etag").to_owned();
    run_sql(&test.db.pool, "update public.lots set current_bid_usd = 7777 where lot_external_id = '1000'").await;
    let changed = reader.get_with("/lots/1000", &[("if-none-match", &tag)]).await;
    assert_eq!((changed.status, &changed.json()["current_bid"]["amount"]), (200, &"7777.00".into()));
}

#[tokio::test]
async fn the_tongue_is_the_readers_and_caches_are_told() {
    let (_test, reader) = plain_fixture(3).await;
    for (path, accepted, lang) in [
        ("/lots/1000", "ru-RU,en;q=0.5", "ru"),
        ("/lots/1000", "de", "en"),
        ("/lots/1000?lang=en", "ru", "en"),
        ("/lots/1000?lang=ru", "en", "ru"),
    ] {
        let answer = reader.get_with(path, &[("accept-language", accepted)]).await;
        assert_eq!(answer.header("content-language"), lang);
        let vary: Vec<&str> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.iter().any(|value| value.contains("accept-language")), "{vary:?}");
        let label = if lang == "ru" { "В каталоге" } else { "Active" };
        assert_eq!(answer.json()["status"]["label"], label);
    }
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_understand() {
    let (_test, reader) = plain_fixture(60).await;
    let plain = reader.get("/search").await;
    assert_eq!(plain.header("content-encoding"), "");
    let zipped = reader.get_with("/search", &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    assert!(zipped.body.len() < plain.body.len() / 4);
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    let brotli = reader.get_with("/search", &[("accept-encoding", "br")]).await;
    assert_eq!(brotli.header("content-encoding"), "br");
    let reader_of_errors: &ApiClient = &reader;
    assert_eq!(reader_of_errors.get_with("/lots/1", &[("accept-encoding", "gzip")]).await.status, 404);
}

#[tokio::test]
async fn connections_that_have_died_meanwhile_are_nobodys_trouble() {
    let (test, reader) = plain_fixture(3).await;
    for _ in 0..3 {
        assert_eq!(reader.get("/lots/1000").await.status, 200);
        // all sessions but this one, the API's included; they have ended when it returns
        run_sql(
            &test.db.pool,
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    }
    assert_eq!(reader.get("/search?make=KIA").await.status, 200);
}
