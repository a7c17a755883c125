//! Baseline of the queue: a loop over a plain table that claims rows and acknowledges them, one statement
//! each.

use super::super::server::{BenchDatabase, execute_statement};
use anyhow::{Context, ensure};
use std::time::Instant;

/// Claims and acknowledges `jobs` rows in batches of `batch` over several connections. Returns jobs per second.
pub(super) async fn measure_baseline(
    database: &BenchDatabase,
    jobs: usize,
    connections: usize,
    batch: i64,
) -> anyhow::Result<f64> {
    const CLAIM_SQL: &str = "-- bench: claim
        update bare set state = 1
        where id = any(array(select id from bare where state = 0 order by id limit $1 for update skip locked))
        returning id";
    const ACKNOWLEDGE_SQL: &str = "-- bench: acknowledge
        update bare set state = 2 where id = any($1)";
    let mut session = database.open_session().await?;
    let prepare = format!(
        "drop table if exists bare;
        create table bare (id bigint generated always as identity primary key, state smallint not null default 0)
          with (fillfactor = 70);
        create index on bare (id) where state = 0;
        insert into bare (state) select 0 from generate_series(1, {jobs});
        analyze bare;
        checkpoint"
    );
    for statement in prepare.split(';') {
        execute_statement(&mut session, statement.to_owned()).await?;
    }
    let began = Instant::now();
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let mut connection = database.open_session().await?;
        loops.spawn(async move {
            let mut done = 0;
            loop {
                let ids: Vec<i64> = sqlx::query_scalar(CLAIM_SQL).bind(batch).fetch_all(&mut connection).await?;
                if ids.is_empty() {
                    return Ok::<_, sqlx::Error>(done);
                }
                done += ids.len();
                sqlx::query(ACKNOWLEDGE_SQL).bind(&ids).execute(&mut connection).await?;
            }
        });
    }
    let mut done = 0;
    while let Some(ended) = loops.join_next().await {
        done += ended.context("baseline loop panicked")??;
    }
    ensure!(done == jobs, "baseline processed {done} of {jobs} jobs");
    Ok(jobs as f64 / began.elapsed().as_secs_f64())
}
