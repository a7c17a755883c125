//! `vinops replay WINDOW`, or of a span of windows: put their chains back to work, from a step on.
//!
//! A step is once per file: while its job is completed the queue lets no other of its key in. So the ended jobs from
//! the step on give up their keys (`…/replayed-ID`; they and their history stay), the step is enqueued anew, and each
//! step enqueues the next as on the first day. All steps are safe to repeat, and hours are counted from the window, so
//! the data is the same afterwards. What had been changed by hand, or spoiled, is repaired: lots, vehicles and picture links
//! become what the stored versions say, and the staged rows what the file says. Nothing is replayed while a chain of the source is
//! under way.

use super::ask::agreed;
use super::session::{Connect, Session};
use super::show::{self, Json};
use super::{Failure, Fleet, chain, source};
use crate::config::Config;
use anyhow::{Context, anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// Arguments of `vinops replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The bytes come from the store; nothing is asked of the feed. Workers do the work: `vinops jobs list` shows how far it is. With --wait this process works too, shows the progress and ends with 1 if a window fails.
Lots, vehicles, picture links and staged rows that were changed by hand or spoiled become what the stored versions and
the file say.

  vinops replay 2026-11-20T14:30:00Z --from upsert-lots
  vinops replay --since 2026-11-20T00:00:00Z --until 2026-11-20T06:00:00Z --dry-run")]
pub struct Args {
    /// The window's start, RFC 3339
    #[arg(value_name = "WINDOW", value_parser = window, required_unless_present = "since", conflicts_with_all = ["since", "until"])]
    window: Option<DateTime<Utc>>,
    /// All windows with a file from this time on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = show::time)]
    since: Option<DateTime<Utc>>,
    /// Only windows before this time, RFC 3339; now unless it is given
    #[arg(long, value_name = "TIME", value_parser = show::time, requires = "since")]
    until: Option<DateTime<Utc>>,
    /// From which step on; the first if none
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Of which source
    #[arg(long, default_value = "copart")]
    source: String,
    /// Show what would be replayed and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Run the jobs here too, and wait until they end
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Why; kept with who and when
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "replayed by hand")]
    reason: String,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    json: Json,
}

/// A window as an argument; the seconds may be missing, as in the keys of jobs.
pub fn window(text: &str) -> Result<DateTime<Utc>, &'static str> {
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
    /// Rows of the file.
    rows: Option<i32>,
    /// The new job of the first step; none of a dry run.
    job: Option<i64>,
    /// Ended jobs that gave up their keys.
    replaced: Vec<i64>,
}

/// A window and its file, to be replayed.
#[derive(Debug)]
pub struct Target {
    /// The window.
    pub window: DateTime<Utc>,
    /// Its file.
    pub file_id: Uuid,
    /// The window that the file came for first.
    pub first_window: DateTime<Utc>,
    /// Rows of the file.
    pub rows: Option<i32>,
}

/// Asks, and puts the chains back.
pub async fn run(args: Args, fleet: Fleet, config: Config) -> Result<(), Failure> {
    let steps = chain::kinds_from(fleet, fleet.fetch.next);
    let from = args.from.clone().unwrap_or_else(|| steps.first().copied().unwrap_or_default().to_owned());
    let Some(first) = steps.iter().position(|step| *step == from) else {
        return Err(Failure::wrong(anyhow!("no step {from}: a window's are {}", steps.join(", "))));
    };
    let session = Session::open(config, &args.connect).await?;
    source::expect_source(&session.db.pool, &args.source).await?;
    let what = match (args.window, args.since) {
        (Some(window), _) => format!("window {} {}", args.source, show::minute(window)),
        (None, since) => {
            let since = since.map(show::minute).unwrap_or_default();
            let until = args.until.map_or_else(|| "now".to_owned(), show::minute);
            format!("the windows of {} from {since} to {until}", args.source)
        }
    };
    if !args.yes && !args.dry_run {
        agreed(&format!("put {what} back to work from {from}"))?;
    }
    let entry = fleet.jobs.iter().find(|entry| entry.kind == from).context("the step has no job")?;
    let replayed = replay(&session.db.pool, &args, &steps[first..], entry.policy.max_attempts).await;
    let ended = match &replayed {
        Ok(replayed) if args.wait => {
            let files: Vec<Uuid> = replayed.iter().map(|one| one.file_id).collect();
            chain::finish_chains(&session, fleet, &files, args.json.json).await
        }
        _ => Ok(()),
    };
    session.close().await?;
    let replayed = replayed?;
    if args.json.json {
        match (args.window, replayed.first()) {
            (Some(_), Some(one)) => show::json(one)?,
            _ => show::json(&replayed)?,
        }
        return ended;
    }
    for one in &replayed {
        let window = format!("window {} {}", one.source, show::minute(one.window_start_utc));
        match one.job {
            Some(job) => println!("{window} is replayed from {from}: job {job}"),
            None => println!("{window} would be replayed from {from}: {} rows", one.rows.unwrap_or_default()),
        }
    }
    if replayed.is_empty() {
        println!("{what}: none has come as far as {from}");
    }
    ended
}

/// Puts the chains back in one transaction.
async fn replay(
    pool: &PgPool,
    args: &Args,
    steps: &[&str],
    max_attempts: i32,
) -> anyhow::Result<Vec<Replayed>> {
    let mut tx = pool.begin().await.context("begin the replay")?;
    let targets = match args.window {
        Some(window) => vec![target(&mut tx, &args.source, window).await?],
        None => targets(&mut tx, args).await?,
    };
    expect_idle(&mut tx, &args.source).await?;
    let from = steps.first().copied().unwrap_or_default();
    let mut replayed = Vec::new();
    for target in targets {
        let (window, file_id, rows) = (target.window, target.file_id, target.rows);
        let chain = Requeue { target, steps, max_attempts, must_have_run: true, repair: true };
        let Some((job, replaced)) = chain.run(&mut tx).await? else {
            if args.window.is_none() {
                continue;
            }
            bail!(
                "window {} {} has never come as far as {from}: replay it from an earlier step",
                args.source,
                rfc3339(window)
            );
        };
        sqlx::query!(
            "-- replay: note it
            select fleet.note_action($1, 'replay', $2, $3, jsonb_build_object('from', $4::text, 'job', $5::bigint, 'replaced', $6::bigint[]))",
            source::operator(),
            format!("{}/{}", args.source, rfc3339(window)),
            args.reason,
            from,
            job,
            &replaced,
        )
        .execute(&mut *tx)
        .await
        .context("note the replay")?;
        let job = (!args.dry_run).then_some(job);
        let (source, from) = (args.source.clone(), from.to_owned());
        replayed.push(Replayed { source, window_start_utc: window, file_id, from, rows, job, replaced });
    }
    end(tx, args.dry_run).await?;
    Ok(replayed)
}

/// Ends the transaction of a command: a dry run takes back what it did.
pub async fn end(tx: Transaction<'_, Postgres>, dry_run: bool) -> anyhow::Result<()> {
    if dry_run { tx.rollback().await } else { tx.commit().await }.context("end the transaction")
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns a window's own file, or else the last that came for it; a duplicate's belongs to another window.
async fn target(tx: &mut PgConnection, source: &str, window: DateTime<Utc>) -> anyhow::Result<Target> {
    let file = sqlx::query!(
        r#"-- replay: the window's file
        select
          w.state, f.file_id as "file_id?", f.window_start_utc as "its_window?", f.row_count,
          -- a file that came again is worked for this window too, unless nothing was new in it
          coalesce(g.state not in ('unchanged', 'withdrawn'), false) as "worked!"
        from fleet.windows w
        left join raw.csv_files f on f.file_id = w.file_id
        left join raw.sightings g
          on g.source = w.source
          and g.window_start_utc = w.window_start_utc
          and g.file_id = w.file_id
        where (w.source, w.window_start_utc) = ($1, $2)
        for update of w"#,
        source,
        window,
    )
    .fetch_optional(tx)
    .await
    .context("look up the window")?
    .with_context(|| {
        format!("there is no window {source} {}: `vinops windows` shows what there is", rfc3339(window))
    })?;
    let Some((file_id, first_window)) = file.file_id.zip(file.its_window) else {
        bail!("window {source} {} is {}: it has no file to replay", rfc3339(window), file.state);
    };
    if file.state == "withdrawn" {
        bail!("window {source} {} is withdrawn: its file no longer counts", rfc3339(window));
    }
    if first_window != window && !file.worked {
        bail!(
            "window {source} {} is {}: its bytes are those of {}; replay that one",
            rfc3339(window),
            file.state,
            rfc3339(first_window)
        );
    }
    Ok(Target { window, file_id, first_window, rows: file.row_count })
}

/// Returns the windows of a span that have a file of their own, the oldest first.
async fn targets(tx: &mut PgConnection, args: &Args) -> anyhow::Result<Vec<Target>> {
    sqlx::query_as!(
        Target,
        r#"-- replay: the windows of a span
        select
          w.window_start_utc as window, f.file_id, f.window_start_utc as first_window, f.row_count as rows
        from fleet.windows w
        join raw.csv_files f on f.file_id = w.file_id
        join raw.sightings g
          on g.source = w.source
          and g.window_start_utc = w.window_start_utc
          and g.file_id = w.file_id
        where w.source = $1
          and w.window_start_utc >= $2
          and w.window_start_utc < coalesce($3, now())
          and g.state not in ('unchanged', 'quarantined', 'withdrawn')
        order by w.window_start_utc
        for update of w"#,
        args.source,
        args.since,
        args.until,
    )
    .fetch_all(tx)
    .await
    .context("look up the windows of the span")
}

/// Returns an error if a chain of the source is under way.
pub async fn expect_idle(tx: &mut PgConnection, source: &str) -> anyhow::Result<()> {
    let under_way = sqlx::query!(
        r#"-- replay: is a chain of the source under way
        select j.id, j.kind, j.state, f.window_start_utc
        from fleet.jobs j
        join raw.csv_files f on f.file_id::text = j.payload ->> 'file_id'
        where f.source = $1
          and j.state in ('available', 'scheduled', 'retryable', 'running')
        order by j.id
        limit 1"#,
        source,
    )
    .fetch_optional(tx)
    .await
    .context("look for work under way")?;
    if let Some(job) = under_way {
        let window = rfc3339(job.window_start_utc);
        bail!("window {source} {window} is under way: job {} ({}) is {}", job.id, job.kind, job.state);
    }
    Ok(())
}

/// A chain to be put back to work.
pub struct Requeue<'a> {
    /// The window and its file.
    pub target: Target,
    /// The steps, the first one to be enqueued.
    pub steps: &'a [&'a str],
    /// Attempts of the first step.
    pub max_attempts: i32,
    /// Whether the first step must have been enqueued before.
    pub must_have_run: bool,
    /// Whether what stands is brought back to what the stored versions say.
    pub repair: bool,
}

impl Requeue<'_> {
    /// Takes the keys of the ended jobs and enqueues the first step. Returns the new job and the ended ones, or none if the chain
    /// has never come as far as that step.
    pub async fn run(&self, tx: &mut PgConnection) -> anyhow::Result<Option<(i64, Vec<i64>)>> {
        let (key, payload) = self.key_and_payload();
        let jobs = sqlx::query!(
            "-- replay: the chain's jobs
            select id, kind, state
            from fleet.jobs
            where kind = any($1::text[])
              and key = $2::text
            order by id
            for update",
            &self.steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>(),
            key,
        )
        .fetch_all(&mut *tx)
        .await
        .context("look up the chain's jobs")?;
        let from = self.steps.first().copied().unwrap_or_default();
        if self.must_have_run && !jobs.iter().any(|job| job.kind == from) {
            return Ok(None);
        }
        let replaced: Vec<i64> =
            jobs.iter().filter(|job| job.state == "completed").map(|job| job.id).collect();
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
            self.max_attempts,
        )
        .fetch_one(tx)
        .await
        .context("enqueue the step")?
        .with_context(|| format!("another {from} of this file was enqueued meanwhile"))?;
        Ok(Some((job, replaced)))
    }

    /// Returns how the jobs of the chain name the file, and the payload of the first step. A repair that begins with a later step
    /// stages the file anew there.
    fn key_and_payload(&self) -> (String, Value) {
        let Target { window, file_id, first_window, .. } = self.target;
        let mut payload = json!({ "file_id": file_id });
        let mut key = file_id.to_string();
        if first_window != window {
            payload["window_start_utc"] = json!(rfc3339(window));
            key = format!("{file_id}@{}", rfc3339(window));
        }
        if self.repair {
            payload["repair"] = json!(true);
            if self.steps.first().is_some_and(|step| *step != "ingest") {
                payload["restage"] = json!(true);
            }
        }
        (key, payload)
    }
}
