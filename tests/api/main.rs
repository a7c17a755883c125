//! Tests of the API: requests and responses over a real database.
//!
//! - [`resources`]: lots, vehicles, taxonomies and windows, compared with the tables.
//! - [`search`]: filters and facets, compared with independent SQL.
//! - [`history`]: a lot's history, compared with the change logs and the current lot.
//! - [`pages`]: pagination during writes.
//! - [`refused`]: errors, limits, ETags.
//! - [`removal`]: removed things are in no response; lots of several sources.
//! - [`schema`]: real responses against the OpenAPI document.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests and their helpers fail by panicking")]

mod errors;
mod history;
mod pages;
#[path = "../truth/pipeline.rs"]
#[expect(dead_code, reason = "these tests use a part of the fixture")]
mod pipeline;
mod removal;
mod resources;
mod schema;
mod search;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, Response};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tower::Service;
use vinops::api::Api;
use vinops::simulator::{Simulator, SimulatorOptions};
use vinops::testing::{TestDb, migrated_database};

/// A client of the API.
struct ApiClient {
    api: Api,
    router: Router,
}

/// A response.
#[derive(Debug)]
struct ApiResponse {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl ApiResponse {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl ApiClient {
    async fn open(test: &TestDb) -> ApiClient {
        let api = Api::start(&test.db).await.unwrap();
        let router = vinops::http::with_layers(api.router());
        ApiClient { api, router }
    }

    async fn send(&self, request: Request<Body>) -> ApiResponse {
        let answer: Response<Body> = self.router.clone().call(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        ApiResponse { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a GET request under `/api/v1`.
    async fn get(&self, path: &str) -> ApiResponse {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> ApiResponse {
        let mut request = Request::get(format!("/api/v1{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Returns the JSON of a path, which must respond with 200.
    async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }
}

/// Returns a pipeline that has processed four windows of the simulator's feed, and a client.
async fn simulated_fixture() -> (pipeline::Pipeline, ApiClient) {
    let mut pipeline = pipeline::Pipeline::new().await;
    let mut simulator = Simulator::new(SimulatorOptions::new(3, 700, pipeline::parse_time("2026-03-06T17:00:00Z")));
    for window in 0..4 {
        let mut file = Vec::new();
        let start = simulator.options().window_start(window);
        simulator.write_window(window, &mut file).unwrap();
        assert_eq!(pipeline.run_chain(&file, start).await.final_state(), "applied");
    }
    let reader = ApiClient::open(&pipeline.test).await;
    (pipeline, reader)
}

/// Inserts `count` lots of one vehicle each: numbers from 1000, and sale dates, bids and years, some of which are null.
async fn plain_fixture(count: i32) -> (TestDb, ApiClient) {
    let test = migrated_database().await;
    run_sql(
        &test.db.pool,
        &format!(
            "insert into public.vehicles (vin, vin_raw, year, make, model)
            select v, v, case when n % 5 > 0 then 2000 + n % 20 end, (array['KIA', 'BMW', 'FORD'])[n % 3 + 1], 'M' || n % 7
            from (select n, 'WVWZZZ1JZXW' || lpad(n::text, 6, '0') as v from generate_series(1000, 999 + {count}) as n) s;
            insert into public.lots (lot_external_id, vin, source, status, auction_datetime_utc, current_bid_usd, currency_code)
            select n::text, 'WVWZZZ1JZXW' || lpad(n::text, 6, '0'), 'copart', 'active',
              case when n % 4 > 0 then '2026-03-01T00:00Z'::timestamptz + (n * 37 % 11) * interval '1 day' end,
              case when n % 3 > 0 then n * 13 % 50 end, 'USD'
            from generate_series(1000, 999 + {count}) as n"
        ),
    )
    .await;
    let reader = ApiClient::open(&test).await;
    (test, reader)
}

/// Runs statements that the test has built.
async fn run_sql(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(pool).await.unwrap();
}

async fn query_number(pool: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await.unwrap()
}
