//! The checks of operation: sources, windows, the queue, the workers and the partitions of the next month.

use super::super::error_text::error_line;
use super::{Finding, fail, pass, warn};
use crate::auction::window::WINDOW_LENGTH;
use crate::queue::Entry;
use sqlx::PgPool;

/// The longest wait of a due job, in seconds.
const WAITS: f64 = WINDOW_LENGTH.as_secs() as f64;
/// The longest time without a successful window, in seconds.
const STALE: f64 = 3.0 * WAITS;

/// Runs the checks of operation. A check that this login may not run gives a warning.
pub(super) async fn look(pool: &PgPool, jobs: &[Entry], findings: &mut Vec<Finding>) {
    for looked in [
        sources(pool).await,
        queue(pool).await,
        workers(pool, jobs).await,
        months(pool).await,
        switches(pool).await,
    ] {
        match looked {
            Ok(those) => findings.extend(those),
            Err(error) => findings.push(warn("fleet", error_line(&error), "vinops verify auction")),
        }
    }
}

/// Checks the switch, the breaker and the last successful window of each source.
async fn sources(pool: &PgPool) -> anyhow::Result<Vec<Finding>> {
    const ABOUT: &str = "source";
    let sources = sqlx::query!(
        r#"-- doctor: sources
        select
          s.source as "source!",
          s.enabled as "enabled!",
          s.breaker_state as "breaker!",
          s.consecutive_failures as "failures!",
          s.probe_at,
          f.age_seconds as "age?"
        from fleet.sources_view as s
        left join fleet.freshness as f
          on f.source = s.source
        order by 1"#
    )
    .fetch_all(pool)
    .await?;
    let mut findings = Vec::new();
    for source in sources {
        let name = source.source;
        if !source.enabled {
            findings.push(warn(
                ABOUT,
                format!("{name}: fetching is disabled"),
                format!("vinops source enable {name} --reason \"…\""),
            ));
        }
        let remedy = format!("vinops source reset-breaker {name} --reason \"…\"");
        match &*source.breaker {
            "closed" if source.failures >= 3 => findings.push(warn(
                ABOUT,
                format!("{name}: the last {} quarter-hours failed; the breaker opens at 5", source.failures),
                "vinops fetch",
            )),
            "closed" => {}
            state => {
                let probe = source.probe_at.map(|at| at.format("%H:%M").to_string()).unwrap_or_default();
                let said =
                    format!("{name}: the breaker is {state}; the only fetch is a probe at {probe} UTC");
                findings.push(fail(ABOUT, said, remedy));
            }
        }
        match source.age {
            None => findings.push(warn(ABOUT, format!("{name}: no successful window yet"), "vinops fetch")),
            Some(age) if age > STALE => findings.push(fail(
                ABOUT,
                format!("{name}: no successful window for {:.0} minutes", age / 60.0),
                "vinops windows",
            )),
            Some(age) => findings
                .push(pass(ABOUT, format!("{name}: last successful window {:.0} minutes ago", age / 60.0))),
        }
    }
    if findings.is_empty() {
        findings.push(warn(ABOUT, "no source exists", "vinops source add copart --reason \"…\""));
    }
    Ok(findings)
}

/// Checks the longest wait of due jobs.
async fn queue(pool: &PgPool) -> anyhow::Result<Vec<Finding>> {
    const ABOUT: &str = "queue";
    let figures = sqlx::query!(
        r#"-- doctor: queue
        select labels ->> 'kind' as "kind!", value as "age!"
        from fleet.metrics
        where metric = 'vinops_oldest_ready_age_seconds'
          and value > $1
        order by value desc"#,
        WAITS
    )
    .fetch_all(pool)
    .await?;
    if figures.is_empty() {
        return Ok(vec![pass(ABOUT, "no due job has waited for a quarter-hour")]);
    }
    let waiting = figures.into_iter().map(|it| {
        let said = format!("{}: a due job has waited for {:.0} minutes", it.kind, it.age / 60.0);
        warn(ABOUT, said, format!("vinops worker --kind {}", it.kind))
    });
    Ok(waiting.collect())
}

/// Checks that a worker serves each job kind, and that no kind is paused.
async fn workers(pool: &PgPool, jobs: &[Entry]) -> anyhow::Result<Vec<Finding>> {
    const ABOUT: &str = "workers";
    let there = sqlx::query!(
        r#"-- doctor: workers
        select
          (select count(*) from fleet.workers where seen_at >= now() - lease and not draining) as "working!",
          array(
            select distinct kind
            from fleet.workers
            cross join unnest(kinds) as kind
            where seen_at >= now() - lease
              and not draining
          ) as "served!",
          array(select kind from fleet.job_kind_settings where paused_at is not null order by 1) as "paused!""#
    )
    .fetch_one(pool)
    .await?;
    let mut findings: Vec<Finding> = there
        .paused
        .iter()
        .map(|kind| {
            warn(ABOUT, format!("{kind} is paused on all workers"), format!("vinops jobs resume {kind}"))
        })
        .collect();
    let unserved: Vec<&str> = jobs
        .iter()
        .map(|entry| entry.kind)
        .filter(|kind| !there.served.iter().any(|it| it == kind))
        .collect();
    if there.working == 0 {
        findings.push(warn(ABOUT, "no worker is running", "vinops worker"));
    } else if unserved.is_empty() {
        findings.push(pass(ABOUT, format!("{} running, every job kind is served", there.working)));
    } else {
        let said = format!("{} running, none serves {}", there.working, unserved.join(", "));
        findings.push(warn(ABOUT, said, "vinops workers"));
    }
    Ok(findings)
}

/// Checks the partitions of the next month. The first ingest that needs them creates them, if its login may do so.
async fn months(pool: &PgPool) -> anyhow::Result<Vec<Finding>> {
    const ABOUT: &str = "partitions";
    let next = sqlx::query!(
        r#"-- doctor: partitions
        with next_month as (
          select date_trunc('month', now(), 'UTC') + interval '1 month' as month
        ),
        parents as (
          select c.oid, n.nspname || '.' || c.relname as name
          from pg_class as c
          join pg_namespace as n on n.oid = c.relnamespace
          where c.relkind = 'p'
            and n.nspname = 'audit'
        )
        select
          to_char(next_month.month at time zone 'UTC', 'YYYY-MM') as "month!",
          (select count(*) from parents) as "wanted!",
          (
            select count(*)
            from parents as p
            join pg_inherits as i on i.inhparent = p.oid
            join pg_class as c on c.oid = i.inhrelid
            where c.relname like '%' || to_char(next_month.month at time zone 'UTC', '_YYYY_MM')
          ) as "there!",
          has_function_privilege('audit.ensure_partitions(timestamptz)', 'execute')
            and has_function_privilege('raw.open_month(timestamptz)', 'execute') as "may_make!"
        from next_month"#
    )
    .fetch_one(pool)
    .await?;
    let what = format!("{} of {} exist for {}", next.there, next.wanted, next.month);
    Ok(vec![match (next.there >= next.wanted, next.may_make) {
        (true, _) => pass(ABOUT, what),
        (false, true) => pass(ABOUT, what + "; the first ingest that needs the others creates them"),
        (false, false) => warn(
            ABOUT,
            what + "; this login may not create the others",
            "psql -c \"select audit.ensure_partitions(now() + interval '1 month')\"",
        ),
    }])
}

/// Checks the switch of the completion detector.
async fn switches(pool: &PgPool) -> anyhow::Result<Vec<Finding>> {
    let config = sqlx::query!(
        "-- doctor: switches
        select completion_detector_enabled from public.config"
    )
    .fetch_one(pool)
    .await?;
    if config.completion_detector_enabled {
        return Ok(Vec::new());
    }
    Ok(vec![warn(
        "switches",
        "completion_detector_enabled is false: lots keep their status when they disappear",
        "psql -c 'update config set completion_detector_enabled = true'",
    )])
}
