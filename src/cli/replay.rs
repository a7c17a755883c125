//! `vinops replay WINDOW`: put the chain of a window back to work, from a step on.
//!
//! A step is once per file: while its job is completed the queue lets no other of its key in. So the ended jobs from
//! the step on give up their keys (`…/replayed-ID`; they and their history stay), the step is enqueued anew, and each
//! step enqueues the next as on the first day. All steps are safe to repeat, and hours are counted from the window, so
//! the data is the same afterwards, unless something had gone wrong or been changed by hand. A chain that is still
//! under way is left alone.

use super::ask::agreed;
use super::session::{Connect, Session};
use super::show::{self, Json};
use super::{Failure, Fleet, chain, source};
use crate::config::Config;
use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

/// Arguments of `vinops replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The bytes come from the store; nothing is asked of the feed. Workers do the work: `vinops jobs list` shows how far it is.

  vinops replay 2026-11-20T14:30:00Z --from upsert-lots")]
pub struct Args {
    /// The window's start, RFC 3339
    #[arg(value_name = "WINDOW", value_parser = window)]
    window: DateTime<Utc>,
    /// From which step on; the first if none
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Of which source
    #[arg(long, default_value = "copart")]
    source: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why; kept with who and when
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "replayed by hand")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// A window as an argument; the seconds may be missing, as in the keys of jobs.
fn window(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let whole = text
        .strip_suffix('Z')
        .filter(|it| it.len() == "2026-11-20T14:30".len())
        .map(|it| format!("{it}:00Z"));
    show::time(whole.as_deref().unwrap_or(text))
}

/// What was put back.
#[derive(Debug, Serialize)]
struct Replayed {
    source: String,
    window_start_utc: DateTime<Utc>,
    file_id: Uuid,
    from: String,
    /// The new job of the first step.
    job: i64,
    /// Ended jobs that gave up their keys.
    replaced: Vec<i64>,
}

/// Asks, and puts the chain back.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let steps = chain::kinds_from(fleet, fleet.fetch.next);
    let from = args.from.clone().unwrap_or_else(|| steps.first().copied().unwrap_or_default().to_owned());
    let Some(first) = steps.iter().position(|step| *step == from) else {
        return Err(Failure::wrong(anyhow!("no step {from}: a window's are {}", steps.join(", "))));
    };
    let session = Session::open(config, &args.connect).await?;
    source::expect_source(&session.db.pool, &args.source).await?;
    let window = show::minute(args.window);
    if !args.yes {
        agreed(&format!("put window {} {window} back to work from {from}", args.source))?;
    }
    let entry = fleet.jobs.iter().find(|entry| entry.kind == from).context("the step has no job")?;
    let replayed = replay(&session.db.pool, &args, &steps[first..], entry.policy.max_attempts).await;
    session.close().await?;
    let replayed = replayed?;
    if args.json.json {
        show::json(&replayed)?;
    } else {
        println!("window {} {window} is replayed from {from}: job {}", args.source, replayed.job);
    }
    Ok(())
}

async fn replay(pool: &PgPool, args: &Args, steps: &[&str], max_attempts: i32) -> anyhow::Result<Replayed> {
    let mut tx = pool.begin().await.context("begin the replay")?;
    let window = args.window.to_rfc3339_opts(SecondsFormat::Secs, true);
    // a window's own file, else the last that came for it; a duplicate's belongs to another window
    let file = sqlx::query!(
        r#"-- replay: the window's file
        select
          w.state, f.file_id as "file_id?", f.window_start_utc as "its_window?",
          -- a file that came again is worked for this window too, unless nothing was new in it
          coalesce(g.state <> 'unchanged', false) as "worked!"
        from fleet.windows w
        left join raw.csv_files f on f.file_id = w.file_id
        left join raw.sightings g
          on g.source = w.source
          and g.window_start_utc = w.window_start_utc
          and g.file_id = w.file_id
        where (w.source, w.window_start_utc) = ($1, $2)
        for update of w"#,
        args.source,
        args.window,
    )
    .fetch_optional(&mut *tx)
    .await
    .context("look up the window")?
    .with_context(|| {
        format!("there is no window {} {window}: `vinops windows` shows what there is", args.source)
    })?;
    let Some((file_id, its_window)) = file.file_id.zip(file.its_window) else {
        bail!("window {} {window} is {}: it has no file to replay", args.source, file.state);
    };
    let again = (its_window != args.window).then_some(args.window);
    if again.is_some() && !file.worked {
        bail!(
            "window {} {window} is {}: its bytes are those of {}; replay that one",
            args.source,
            file.state,
            its_window.to_rfc3339_opts(SecondsFormat::Secs, true)
        );
    }
    // as the payloads and keys of the chain's jobs name a file that came again
    let at = again.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
    let (key, payload) = match at {
        None => (file_id.to_string(), json!({ "file_id": file_id })),
        Some(at) => (format!("{file_id}@{at}"), json!({ "file_id": file_id, "window_start_utc": at })),
    };
    let jobs = sqlx::query!(
        "-- replay: the chain's jobs
        select id, kind, state
        from fleet.jobs
        where kind = any($1::text[])
          and key = $2::text
        order by id
        for update",
        &steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>(),
        key,
    )
    .fetch_all(&mut *tx)
    .await
    .context("look up the chain's jobs")?;
    let under_way = sqlx::query!(
        "-- replay: is the chain under way
        select id, kind, state
        from fleet.jobs
        where payload ->> 'file_id' = $1
          and state in ('available', 'scheduled', 'retryable', 'running')
        limit 1",
        file_id.to_string(),
    )
    .fetch_optional(&mut *tx)
    .await
    .context("look for work under way")?;
    if let Some(job) = under_way {
        bail!("window {} {window} is under way: job {} ({}) is {}", args.source, job.id, job.kind, job.state);
    }
    let from = steps.first().copied().unwrap_or_default();
    if !jobs.iter().any(|job| job.kind == from) {
        bail!(
            "window {} {window} has never come as far as {from}: replay it from an earlier step",
            args.source
        );
    }
    let replaced: Vec<i64> = jobs.iter().filter(|job| job.state == "completed").map(|job| job.id).collect();
    sqlx::query!(
        "-- replay: ended jobs give up their keys
        update fleet.jobs set key = key || '/replayed-' || id where id = any($1)",
        &replaced,
    )
    .execute(&mut *tx)
    .await
    .context("take the keys of the ended jobs")?;
    let job = sqlx::query_scalar!(
        "-- replay: enqueue the first step
        select fleet.enqueue($1, $2, $3, max_attempts => $4)",
        from,
        payload,
        key,
        max_attempts,
    )
    .fetch_one(&mut *tx)
    .await
    .context("enqueue the step")?
    .with_context(|| format!("another {from} of this file was enqueued meanwhile"))?;
    sqlx::query!(
        "-- replay: note it
        select fleet.note_action($1, 'replay', $2, $3, jsonb_build_object('from', $4::text, 'job', $5::bigint, 'replaced', $6::bigint[]))",
        source::operator(),
        format!("{}/{window}", args.source),
        args.reason,
        from,
        job,
        &replaced,
    )
    .execute(&mut *tx)
    .await
    .context("note the replay")?;
    tx.commit().await.context("commit the replay")?;
    Ok(Replayed {
        source: args.source.clone(),
        window_start_utc: args.window,
        file_id,
        from: from.to_owned(),
        job,
        replaced,
    })
}
