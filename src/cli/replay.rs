//! `vinops replay`: reruns the jobs of a window, or of a span of windows, starting at a given step.
//!
//! A step runs once per file, because the queue accepts no second job with the key of a completed one. So the
//! completed jobs from the step on get other keys (`…/replayed-ID`). These jobs and their history stay. The step is
//! enqueued again, and each step enqueues the next one as usual. All steps are safe to repeat, and times are measured
//! from the window, so the data is the same afterwards. Manual changes and damage are repaired: lots, vehicles and
//! image links are computed from the stored versions, and staged rows from the file. Nothing is replayed while a
//! chain of the source is unfinished.

use super::confirm::confirm;
use super::output::{self, JsonArgs};
use super::session::{CommandSession, ConnectArgs};
use super::{CommandError, JobRegistry, chain, source};
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
The bytes are read from the store, not from the feed. Workers run the jobs; `vinops jobs list` shows the progress. \
With --wait, this process runs jobs too, shows the progress and exits with 1 if a window fails.

Manual changes and damage of lots, vehicles, image links and staged rows are repaired from the stored versions and \
the file.

  vinops replay 2026-11-20T14:30:00Z --from upsert-lots
  vinops replay --since 2026-11-20T00:00:00Z --dry-run")]
pub struct ReplayArgs {
    /// Start of the window, RFC 3339
    #[arg(value_name = "WINDOW", value_parser = parse_window, required_unless_present = "since", conflicts_with_all = ["since", "until"])]
    window: Option<DateTime<Utc>>,
    /// Replay all windows with a file from this time on, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = output::parse_time)]
    since: Option<DateTime<Utc>>,
    /// Replay only windows before this time, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = output::parse_time, requires = "since")]
    until: Option<DateTime<Utc>>,
    /// First step to rerun [default: the first step of the chain]
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Source of the windows
    #[arg(long, default_value = "copart")]
    source: String,
    /// Print the windows and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Run jobs in this process too, and wait until all have ended
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Reason, recorded with the operator and the time
    #[arg(long, alias = "why", value_name = "TEXT", default_value = "replayed manually")]
    reason: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Parses the start of a window. The seconds may be missing, as in the keys of jobs.
pub fn parse_window(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let whole = text.strip_suffix('Z').filter(|it| it.len() == "2026-11-20T14:30".len()).map(|it| format!("{it}:00Z"));
    output::parse_time(whole.as_deref().unwrap_or(text))
}

/// A replayed window.
#[derive(Debug, Serialize)]
struct ReplayedWindow {
    source: String,
    window_start_utc: DateTime<Utc>,
    file_id: Uuid,
    from: String,
    /// Number of rows of the file.
    rows: Option<i32>,
    /// Id of the new job of the first step. Null in a dry run.
    job: Option<i64>,
    /// Ids of completed jobs whose keys were changed.
    replaced: Vec<i64>,
}

/// A window and its file, which are to be replayed.
#[derive(Debug)]
pub struct ReplayTarget {
    /// The start of the window.
    pub window: DateTime<Utc>,
    /// The file of the window.
    pub file_id: Uuid,
    /// The first window that the file came for.
    pub first_window: DateTime<Utc>,
    /// Number of rows of the file.
    pub rows: Option<i32>,
}

/// Asks for a confirmation and replays the windows.
pub async fn run(args: ReplayArgs, fleet: JobRegistry, config: Config) -> Result<(), CommandError> {
    let steps = chain::downstream_kinds(fleet, fleet.fetch.next);
    let from = args.from.clone().unwrap_or_else(|| steps.first().copied().unwrap_or_default().to_owned());
    let Some(first) = steps.iter().position(|step| *step == from) else {
        return Err(CommandError::usage(anyhow!("unknown step {from:?}; expected one of {}", steps.join(", "))));
    };
    let session = CommandSession::open(config, &args.connect).await?;
    source::expect_source(&session.db.pool, &args.source).await?;
    let what = match (args.window, args.since) {
        (Some(window), _) => format!("window {} {}", args.source, output::format_minute(window)),
        (None, since) => {
            let since = since.map(output::format_minute).unwrap_or_default();
            let until = args.until.map_or_else(|| "now".to_owned(), output::format_minute);
            format!("the windows of {} from {since} to {until}", args.source)
        }
    };
    if !args.yes && !args.dry_run {
        confirm(&format!("replay {what} from {from}"))?;
    }
    let entry = fleet.jobs.iter().find(|entry| entry.kind == from).context("the step has no job")?;
    let replayed = replay_windows(&session.db.pool, &args, &steps[first..], entry.policy.max_attempts).await;
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
            (Some(_), Some(one)) => output::print_json(one)?,
            _ => output::print_json(&replayed)?,
        }
        return ended;
    }
    for one in &replayed {
        let window = format!("window {} {}", one.source, output::format_minute(one.window_start_utc));
        match one.job {
            Some(job) => println!("{window} is replayed from {from}: job {job}"),
            None => println!("{window} would be replayed from {from}: {} rows", one.rows.unwrap_or_default()),
        }
    }
    if replayed.is_empty() {
        println!("{what}: {from} has not run for any of them");
    }
    ended
}

/// Replays the windows in one transaction.
async fn replay_windows(
    pool: &PgPool,
    args: &ReplayArgs,
    steps: &[&str],
    max_attempts: i32,
) -> anyhow::Result<Vec<ReplayedWindow>> {
    let mut tx = pool.begin().await.context("could not begin a transaction")?;
    let targets = match args.window {
        Some(window) => vec![find_target(&mut tx, &args.source, window).await?],
        None => find_targets(&mut tx, args).await?,
    };
    expect_idle(&mut tx, &args.source).await?;
    let from = steps.first().copied().unwrap_or_default();
    let mut replayed = Vec::new();
    for target in targets {
        let (window, file_id, rows) = (target.window, target.file_id, target.rows);
        let chain = ChainRequeue { target, steps, max_attempts, must_have_run: true, repair: true };
        let Some((job, replaced)) = chain.run(&mut tx).await? else {
            if args.window.is_none() {
                continue;
            }
            bail!(
                "{from} has not run for window {} {}\nhint: replay the window from an earlier step",
                args.source,
                to_rfc3339(window)
            );
        };
        sqlx::query!(
            "-- replay: note it
            select fleet.note_action($1, 'replay', $2, $3, jsonb_build_object('from', $4::text, 'job', $5::bigint, 'replaced', $6::bigint[]))",
            source::operator(),
            format!("{}/{}", args.source, to_rfc3339(window)),
            args.reason,
            from,
            job,
            &replaced,
        )
        .execute(&mut *tx)
        .await
        .context("could not record the replay")?;
        let job = (!args.dry_run).then_some(job);
        let (source, from) = (args.source.clone(), from.to_owned());
        replayed.push(ReplayedWindow { source, window_start_utc: window, file_id, from, rows, job, replaced });
    }
    end_transaction(tx, args.dry_run).await?;
    Ok(replayed)
}

/// Commits the transaction of a command. A dry run is rolled back.
pub async fn end_transaction(tx: Transaction<'_, Postgres>, dry_run: bool) -> anyhow::Result<()> {
    if dry_run { tx.rollback().await } else { tx.commit().await }.context("could not end the transaction")
}

fn to_rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Returns the window's own file, or the last file that came for the window.
///
/// # Errors
/// Returns an error if the window has no file, is withdrawn, or only repeats the bytes of another window.
async fn find_target(tx: &mut PgConnection, source: &str, window: DateTime<Utc>) -> anyhow::Result<ReplayTarget> {
    let file = sqlx::query!(
        r#"-- replay: the window's file
        select
          w.state, f.file_id as "file_id?", f.window_start_utc as "its_window?", f.row_count,
          -- a file that arrived again is processed for this window too, unless it repeats the newest file
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
    .context("could not look up the window")?
    .with_context(|| {
        format!("window {source} {} does not exist\nhint: `vinops windows` lists the windows", to_rfc3339(window))
    })?;
    let Some((file_id, first_window)) = file.file_id.zip(file.its_window) else {
        bail!("window {source} {} is {} and has no file to replay", to_rfc3339(window), file.state);
    };
    if file.state == "withdrawn" {
        bail!("window {source} {} is withdrawn", to_rfc3339(window));
    }
    if first_window != window && !file.worked {
        bail!(
            "window {source} {} is {} and repeats the bytes of another window\nhint: replay window {}",
            to_rfc3339(window),
            file.state,
            to_rfc3339(first_window)
        );
    }
    Ok(ReplayTarget { window, file_id, first_window, rows: file.row_count })
}

/// Returns the windows of a span that have their own file, oldest first.
async fn find_targets(tx: &mut PgConnection, args: &ReplayArgs) -> anyhow::Result<Vec<ReplayTarget>> {
    sqlx::query_as!(
        ReplayTarget,
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
    .context("could not look up the windows of the span")
}

/// Returns an error if a chain of the source is unfinished.
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
    .context("could not look up unfinished jobs")?;
    if let Some(job) = under_way {
        let window = to_rfc3339(job.window_start_utc);
        bail!("window {source} {window} is unfinished: job {} ({}) is {}", job.id, job.kind, job.state);
    }
    Ok(())
}

/// A chain that is to be enqueued again.
pub struct ChainRequeue<'a> {
    /// The window and its file.
    pub target: ReplayTarget,
    /// The job kinds from the first one to enqueue to the last one of the chain.
    pub steps: &'a [&'a str],
    /// The number of attempts of the first step.
    pub max_attempts: i32,
    /// True if the first step must have been enqueued before.
    pub must_have_run: bool,
    /// True if lots, vehicles and images are computed again from the stored versions.
    pub repair: bool,
}

impl ChainRequeue<'_> {
    /// Changes the keys of the completed jobs and enqueues the first step. Returns the new job and the completed
    /// ones, or `None` if the first step must have run and has not.
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
        .context("could not look up the jobs of the chain")?;
        let from = self.steps.first().copied().unwrap_or_default();
        if self.must_have_run && !jobs.iter().any(|job| job.kind == from) {
            return Ok(None);
        }
        let replaced: Vec<i64> = jobs.iter().filter(|job| job.state == "completed").map(|job| job.id).collect();
        sqlx::query!(
            "-- replay: ended jobs give up their keys
            update fleet.jobs set key = key || '/replayed-' || id where id = any($1)",
            &replaced,
        )
        .execute(&mut *tx)
        .await
        .context("could not change the keys of the completed jobs")?;
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
        .context("could not enqueue the step")?
        .with_context(|| format!("another {from} of this file was enqueued meanwhile"))?;
        Ok(Some((job, replaced)))
    }

    /// Returns the key of the chain's jobs and the payload of the first step. A repair that begins with a later step
    /// stages the file again in that step.
    fn key_and_payload(&self) -> (String, Value) {
        let ReplayTarget { window, file_id, first_window, .. } = self.target;
        let mut payload = json!({ "file_id": file_id });
        let mut key = file_id.to_string();
        if first_window != window {
            payload["window_start_utc"] = json!(to_rfc3339(window));
            key = format!("{file_id}@{}", to_rfc3339(window));
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
