-- queue: complete runs
-- Records the ends of many runs at once. Only a run that still owns its job may end the job. Runs without a matching
-- row are stale and missing from the result.
with run_result as (
  select *
  from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::float8[])
    as v (id, run, outcome, effect, error, result, delay)
),
-- The batch is sorted by id, as are the locks of operators' commands, so that the two cannot deadlock. A completed job
-- stays completed. Any other end of a job with a cancellation request cancels the job.
ended_jobs as (
  update fleet.jobs as job
  set state = case
      when run_result.effect = 'complete' then 'completed'
      when run_result.effect = 'cancel' or job.cancelling is not null then 'cancelled'
      when run_result.effect = 'discard' then 'discarded'
      when run_result.effect = 'release' then 'available'
      when run_result.effect = 'snooze' then 'scheduled'
      when job.attempt >= job.max_attempts then 'discarded'
      else 'retryable'
    end,
    attempt = job.attempt - case when run_result.effect in ('release', 'snooze', 'cancel') then 1 else 0 end,
    run_at = case
      when run_result.effect in ('fail', 'snooze') then now() + make_interval(secs => run_result.delay)
      else job.run_at
    end,
    result = run_result.result,
    error = case
      when run_result.effect = 'complete' then null
      else coalesce(job.cancelling, run_result.error, job.error)
    end,
    finished_at = case
      when run_result.effect in ('complete', 'discard', 'cancel') or job.cancelling is not null then now()
      when run_result.effect = 'fail' and job.attempt >= job.max_attempts then now()
    end,
    completed_by = case when run_result.effect = 'complete' and run_result.error is null then $1 end,
    lease_until = null,
    locked_by = null,
    cancelling = null
  from run_result
  where job.id = run_result.id
    and job.run = run_result.run
    and job.state = 'running'
    and job.locked_by = $1
  returning job.id, job.kind, job.run, job.state, job.started_at,
    job.attempt + case when run_result.effect in ('release', 'snooze', 'cancel') then 1 else 0 end as attempt,
    case when job.state = 'cancelled' then 'cancelled' else run_result.outcome end as outcome,
    case when job.state = 'cancelled' then job.error else run_result.error end as error
),
-- A completion without a note is recorded in the job's row only.
closed_runs as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, $1, started_at, now(), outcome, error
  from ended_jobs
  where state <> 'completed' or error is not null
),
-- A released job can be claimed by another worker at once, and so can the slot of a kind near its limit. The count uses
-- the state before this statement, so if two jobs end at once, both notify.
notifications as (
  select pg_notify('fleet', ended_kinds.kind)
  from (select kind, bool_or(state = 'available') as has_released from ended_jobs group by kind) as ended_kinds
  left join fleet.job_kind_settings as settings using (kind)
  where ended_kinds.has_released
    or settings.max_running <= 2 * (select count(*) from fleet.jobs where state = 'running' and kind = ended_kinds.kind)
)
select
  ended_jobs.id as "id!",
  ended_jobs.run as "run!",
  ended_jobs.state as "state!",
  (select count(*) from notifications) as "notified!"
from ended_jobs
