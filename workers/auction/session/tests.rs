//! Tests logins against a server that counts them.

use super::super::download::tests::scripted_server::{
    ScriptedServer, feed_csv, full_response, respond_with, response_builder,
};
use super::*;
use crate::store::Store;
use crate::testing::{TestDb, migrated_database};
use axum::body::Body;
use axum::http::{HeaderMap as Heard, StatusCode};
use data_encoding::HEXLOWER;
use std::sync::Mutex;

const TEST_PASSWORD: &str = "PLANTED-pässword/9";
const TEST_COOKIE: &str = "PLANTED-cookie-41";

/// A login server with one prepared response, and the requests it received.
struct LoginServer {
    url: String,
    heard: Arc<Mutex<Vec<(Heard, String)>>>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl LoginServer {
    /// Starts a server that answers with this status, these cookies and the received form as its body.
    async fn with_response(
        status: u16,
        cookies: &'static [&'static str],
        location: Option<&'static str>,
    ) -> LoginServer {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(tokio::sync::Semaphore::new(1000));
        let (hears, opens) = (heard.clone(), gate.clone());
        let play = move |headers: Heard, body: String| {
            hears.lock().unwrap().push((headers, body.clone()));
            let opens = opens.clone();
            async move {
                opens.acquire().await.unwrap().forget();
                let mut response = axum::http::Response::builder().status(StatusCode::from_u16(status).unwrap());
                for cookie in cookies {
                    response = response.header("set-cookie", *cookie);
                }
                if let Some(location) = location {
                    response = response.header("location", location);
                }
                response.body(Body::from(format!("you said {body}"))).unwrap()
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/processLogin", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/processLogin", axum::routing::post(play));
        tokio::spawn(async { axum::serve(listener, app).await });
        LoginServer { url, heard, gate }
    }

    async fn accepting_logins() -> LoginServer {
        let cookies = &["s=old; Path=/", "s=PLANTED-cookie-41; Path=/; HttpOnly", "gone=1; Max-Age=0", "b=2"];
        LoginServer::with_response(302, cookies, Some("/dashboard")).await
    }

    fn login_client(&self, key: &str) -> LoginClient {
        let copart = CopartConfig {
            feed_url: None,
            user: Some("anna@example.com".into()),
            password: Some(TEST_PASSWORD.into()),
            login_url: Some(self.url.clone()),
            user_agent: Some("vinops-test".into()),
            referer: None,
        };
        LoginClient::from_config(&copart, Some(&key.repeat(32).into())).unwrap().unwrap()
    }

    fn login_count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

fn pool(test: &TestDb) -> &PgPool {
    &test.db.pool
}

async fn read_cookies(login: &LoginClient, test: &TestDb, who: &str) -> Option<String> {
    let cookies = login.session_cookies(pool(test), "copart", who).await.unwrap();
    cookies.map(|it| it.expose_secret().to_owned())
}

#[tokio::test]
async fn many_at_once_log_in_once_and_all_have_the_session() {
    let (test, desk) = (migrated_database().await, LoginServer::accepting_logins().await);
    desk.gate.forget_permits(1000);
    let login = Arc::new(desk.login_client("k"));
    let wanting: Vec<_> = (0..8)
        .map(|n| {
            let (login, pool) = (login.clone(), pool(&test).clone());
            tokio::spawn(async move { login.session_cookies(&pool, "copart", &format!("job {n}")).await.unwrap() })
        })
        .collect();
    // The login is delayed until all other workers have found it in progress.
    while sqlx::query_scalar!(r#"select count(*) as "n!" from fleet.source_sessions where refreshing_until > now()"#)
        .fetch_one(pool(&test))
        .await
        .unwrap()
        == 0
    {
        tokio::task::yield_now().await;
    }
    desk.gate.add_permits(1000);
    for cookies in futures::future::join_all(wanting).await {
        assert_eq!(cookies.unwrap().unwrap().expose_secret(), &format!("s={TEST_COOKIE}; b=2"));
    }
    assert_eq!(desk.login_count(), 1);
    let (headers, form) = desk.heard.lock().unwrap().remove(0);
    assert_eq!(form, "username=anna%40example.com&password=PLANTED-p%C3%A4ssword%2F9");
    assert_eq!(headers["user-agent"], "vinops-test");
    assert_eq!(headers["referer"], "https://www.copart.com/");
}

#[tokio::test]
async fn who_looked_before_a_login_and_comes_after_it_does_not_log_in_again() {
    let (test, desk) = (migrated_database().await, LoginServer::accepting_logins().await);
    let login = desk.login_client("k");
    let slow = session::load_session(pool(&test), "copart", &login.key).await.unwrap();
    assert!(slow.cookies.is_none());
    read_cookies(&login, &test, "the quick one").await.unwrap();
    assert!(
        !session::acquire_refresh(pool(&test), "copart", "the slow one", LOGIN_TIMEOUT, Some(&slow)).await.unwrap()
    );
    let now = session::load_session(pool(&test), "copart", &login.key).await.unwrap();
    assert!(session::acquire_refresh(pool(&test), "copart", "the slow one", LOGIN_TIMEOUT, Some(&now)).await.unwrap());
}

#[tokio::test]
async fn the_session_is_sealed_at_rest_and_another_key_logs_in_anew() {
    let (test, desk) = (migrated_database().await, LoginServer::accepting_logins().await);
    read_cookies(&desk.login_client("k"), &test, "one").await.unwrap();
    assert!(read_cookies(&desk.login_client("k"), &test, "two").await.is_some());
    assert_eq!(desk.login_count(), 1);
    let row =
        sqlx::query_scalar!(r#"select s::text || encode(sealed, 'escape') as "text!" from fleet.source_sessions s"#);
    let row = row.fetch_one(pool(&test)).await.unwrap();
    assert!(!row.contains("PLANTED") && !row.contains(&HEXLOWER.encode(b"PLANTED")), "{row}");
    assert!(read_cookies(&desk.login_client("j"), &test, "three").await.is_some());
    assert_eq!(desk.login_count(), 2, "what the new key cannot read is as good as none");
}

#[tokio::test]
async fn a_session_lasts_seven_hours_and_is_refreshed_before_its_end() {
    let (test, desk) = (migrated_database().await, LoginServer::accepting_logins().await);
    let login = desk.login_client("k");
    read_cookies(&login, &test, "one").await.unwrap();
    let lasts = sqlx::query_scalar!(
        r#"select extract(epoch from expires_at - obtained_at)::float8 as "s!" from fleet.source_sessions"#
    );
    assert_eq!(lasts.fetch_one(pool(&test)).await.unwrap(), 7.0 * 3600.0);
    for (left, logins) in [("21 minutes", 1), ("19 minutes", 2)] {
        let near =
            sqlx::AssertSqlSafe(format!("update fleet.source_sessions set expires_at = now() + interval '{left}'"));
        sqlx::raw_sql(near).execute(pool(&test)).await.unwrap();
        read_cookies(&login, &test, "two").await.unwrap();
        assert_eq!(desk.login_count(), logins, "{left} left");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_without_secrets_and_rests() {
    for (status, sets, location, says) in [
        (403, &[][..], None, "login rejected: status 403 Forbidden, body \"you said"),
        (200, &[][..], None, "sets no cookie"),
        (302, &["s=1"][..], Some("/login?error=1"), "redirects to the login page"),
    ] {
        let (test, desk) = (migrated_database().await, LoginServer::with_response(status, sets, location).await);
        let login = desk.login_client("k");
        assert_eq!(read_cookies(&login, &test, "one").await, None);
        assert_eq!(read_cookies(&login, &test, "two").await, None);
        assert_eq!(desk.login_count(), 1, "a wrong password is not tried again and again");
        let kept = sqlx::query_scalar!(r#"select last_error as "e!" from fleet.source_sessions"#);
        let kept = kept.fetch_one(pool(&test)).await.unwrap();
        let by_hand = login.log_in_manually(pool(&test), "copart", "anna").await.unwrap_err();
        assert_eq!(desk.login_count(), 2, "a person may try at once");
        for text in [kept, format!("{by_hand:#} {by_hand:?}"), format!("{login:?}")] {
            assert!(!text.contains("PLANTED") && !text.contains("anna%40"), "{text}");
            assert!(text.contains(says) || text.starts_with("Login"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_login_by_hand_replaces_the_session_unless_somebody_else_is_at_it() {
    let (test, desk) = (migrated_database().await, LoginServer::accepting_logins().await);
    let login = desk.login_client("k");
    read_cookies(&login, &test, "one").await.unwrap();
    let ends = login.log_in_manually(pool(&test), "copart", "anna").await.unwrap();
    assert_eq!(desk.login_count(), 2);
    let status = crate::source::read_status(pool(&test), None).await.unwrap();
    assert_eq!(status[0].session_expires_at, Some(ends));
    assert!(session::acquire_refresh(pool(&test), "copart", "job 7", LOGIN_TIMEOUT, None).await.unwrap());
    let error = login.log_in_manually(pool(&test), "copart", "anna").await.unwrap_err().to_string();
    assert!(error.starts_with("another login to copart is in progress"), "{error}");
    let too_late = session::store_session(pool(&test), "copart", "job 6", b"x", MAX_SESSION_AGE).await.unwrap();
    assert_eq!(too_late, None, "who no longer has the refresh writes nothing");
}

#[test]
fn a_login_that_is_half_configured_names_what_is_missing() {
    let copart = |password: Option<&str>| CopartConfig {
        feed_url: None,
        user: Some("anna".into()),
        password: password.map(Into::into),
        login_url: None,
        user_agent: None,
        referer: None,
    };
    let missing = |copart: &CopartConfig| LoginClient::from_config(copart, None).unwrap_err().to_string();
    assert!(missing(&copart(None)).contains("COPART_PASSWORD"));
    assert!(missing(&copart(Some("x"))).contains("VINOPS_COOKIE_KEY"));
    assert!(LoginClient::from_config(&CopartConfig { user: None, ..copart(None) }, None).unwrap().is_none());
}

#[tokio::test]
async fn the_cookies_of_a_session_do_not_follow_a_redirect_to_another_server() {
    let elsewhere = ScriptedServer::with_responses(vec![full_response(feed_csv())]).await;
    let there = elsewhere.url.replace("127.0.0.1", "localhost");
    let away = respond_with(move |_| response_builder(302).header("location", there).body(Body::empty()).unwrap());
    let stage = ScriptedServer::with_responses(vec![away]).await;
    let feed = FeedClient::new(FeedOptions::new(stage.url.as_str().into(), "vinops-test", "x"))
        .unwrap()
        .with_session(&"s=PLANTED-cookie".into())
        .unwrap();
    assert!(!format!("{feed:?}").contains("PLANTED"));
    let store = Store::open("memory:").unwrap();
    assert!(feed.download(&store, &Default::default(), &|_, _| {}).await.is_ok());
    assert_eq!(stage.request_header(0, header::COOKIE).as_deref(), Some("s=PLANTED-cookie"));
    assert_eq!(elsewhere.request_header(0, header::COOKIE), None);
}
