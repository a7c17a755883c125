//! The checks of operation: sources, windows, the queue, the workers and the partitions of the next month.

use super::super::error_text::error_line;
use super::{DoctorFinding, fail, pass, warn};
use crate::auction::window::WINDOW_INTERVAL;
use crate::queue::JobDefinition;
use sqlx::PgPool;

/// The longest wait of a due job, in seconds.
const MAX_JOB_WAIT_SECONDS: f64 = WINDOW_INTERVAL.as_secs() as f64;
/// The longest time without a successful window, in seconds.
const STALE_SOURCE_SECONDS: f64 = 3.0 * MAX_JOB_WAIT_SECONDS;

/// Runs the checks of operation. A check that this login may not run gives a warning.
pub(super) async fn check_fleet(pool: &PgPool, jobs: &[JobDefinition], findings: &mut Vec<DoctorFinding>) {
    for looked in [
        check_sources(pool).await,
        check_queue(pool).await,
        check_workers(pool, jobs).await,
        check_partitions(pool).await,
        check_switches(pool).await,
    ] {
        match looked {
            Ok(those) => findings.extend(those),
            Err(error) => findings.push(warn("fleet", error_line(&error), "vinops verify auction")),
        }
    }
}

/// Checks the switch, the breaker and the last successful window of each source.
async fn check_sources(pool: &PgPool) -> anyhow::Result<Vec<DoctorFinding>> {
    const SUBJECT: &str = "source";
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
                SUBJECT,
                format!("{name}: fetching is disabled"),
                format!("vinops source enable {name} --reason \"…\""),
            ));
        }
        let remedy = format!("vinops source reset-breaker {name} --reason \"…\"");
        match &*source.breaker {
            "closed" if source.failures >= 3 => findings.push(warn(
                SUBJECT,
                format!("{name}: the last {} quarter-hours failed; the breaker opens at 5", source.failures),
                "vinops fetch",
            )),
            "closed" => {}
            state => {
                let probe = source.probe_at.map(|at| at.format("%H:%M").to_string()).unwrap_or_default();
                let said = format!("{name}: the breaker is {state}; the only fetch is a probe at {probe} UTC");
                findings.push(fail(SUBJECT, said, remedy));
            }
        }
        match source.age {
            None => findings.push(warn(SUBJECT, format!("{name}: no successful window yet"), "vinops fetch")),
            Some(age) if age > STALE_SOURCE_SECONDS => findings.push(fail(
                SUBJECT,
                format!("{name}: no successful window for {:.0} minutes", age / 60.0),
                "vinops windows",
            )),
            Some(age) => {
                findings.push(pass(SUBJECT, format!("{name}: last successful window {:.0} minutes ago", age / 60.0)))
            }
        }
    }
    if findings.is_empty() {
        findings.push(warn(SUBJECT, "no source exists", "vinops source add copart --reason \"…\""));
    }
    Ok(findings)
}

/// Checks the longest wait of due jobs.
async fn check_queue(pool: &PgPool) -> anyhow::Result<Vec<DoctorFinding>> {
    const SUBJECT: &str = "queue";
    let figures = sqlx::query!(
        r#"-- doctor: queue
        select labels ->> 'kind' as "kind!", value as "age!"
        from fleet.metrics
        where metric = 'vinops_oldest_ready_age_seconds'
          and value > $1
        order by value desc"#,
        MAX_JOB_WAIT_SECONDS
    )
    .fetch_all(pool)
    .await?;
    if figures.is_empty() {
        return Ok(vec![pass(SUBJECT, "no due job has waited for a quarter-hour")]);
    }
    let waiting = figures.into_iter().map(|it| {
        let said = format!("{}: a due job has waited for {:.0} minutes", it.kind, it.age / 60.0);
        warn(SUBJECT, said, format!("vinops worker --kind {}", it.kind))
    });
    Ok(waiting.collect())
}

/// Checks that a worker serves each job kind, and that no kind is paused.
async fn check_workers(pool: &PgPool, jobs: &[JobDefinition]) -> anyhow::Result<Vec<DoctorFinding>> {
    const SUBJECT: &str = "workers";
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
    let mut findings: Vec<DoctorFinding> = there
        .paused
        .iter()
        .map(|kind| warn(SUBJECT, format!("{kind} is paused on all workers"), format!("vinops jobs resume {kind}")))
        .collect();
    let unserved: Vec<&str> =
        jobs.iter().map(|entry| entry.kind).filter(|kind| !there.served.iter().any(|it| it == kind)).collect();
    if there.working == 0 {
        findings.push(warn(SUBJECT, "no worker is running", "vinops worker"));
    } else if unserved.is_empty() {
        findings.push(pass(SUBJECT, format!("{} running, every job kind is served", there.working)));
    } else {
        let said = format!("{} running, none serves {}", there.working, unserved.join(", "));
        findings.push(warn(SUBJECT, said, "vinops workers"));
    }
    Ok(findings)
}

/// Checks the partitions of the next month. The first ingest that needs them creates them, if its login may do so.
async fn check_partitions(pool: &PgPool) -> anyhow::Result<Vec<DoctorFinding>> {
    const SUBJECT: &str = "partitions";
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
        (true, _) => pass(SUBJECT, what),
        (false, true) => pass(SUBJECT, what + "; the first ingest that needs the others creates them"),
        (false, false) => warn(
            SUBJECT,
            what + "; this login may not create the others",
            "psql -c \"select audit.ensure_partitions(now() + interval '1 month')\"",
        ),
    }])
}

/// Checks the switch of the completion detector.
async fn check_switches(pool: &PgPool) -> anyhow::Result<Vec<DoctorFinding>> {
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
