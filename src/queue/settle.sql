-- queue: settle
-- The ends of many runs at once. Only a run that still holds its job may end it: the rows that match no more are
-- stale, and are missing from the answer.
with ending as (
  select *
  from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::float8[])
    as v (id, run, outcome, effect, error, result, delay)
),
-- The batch comes in the order of ids, so that acts of operators, who lock in that order too, are not met in a ring.
-- Work that is done is done; any other end of a job that is to be cancelled cancels it.
settled as (
  update fleet.jobs as job
  set state = case
      when ending.effect = 'complete' then 'completed'
      when ending.effect = 'cancel' or job.cancelling is not null then 'cancelled'
      when ending.effect = 'discard' then 'discarded'
      when ending.effect = 'release' then 'available'
      when ending.effect = 'snooze' then 'scheduled'
      when job.attempt >= job.max_attempts then 'discarded'
      else 'retryable'
    end,
    attempt = job.attempt - case when ending.effect in ('release', 'snooze', 'cancel') then 1 else 0 end,
    run_at = case
      when ending.effect in ('fail', 'snooze') then now() + make_interval(secs => ending.delay)
      else job.run_at
    end,
    result = ending.result,
    error = case
      when ending.effect = 'complete' then null
      else coalesce(job.cancelling, ending.error, job.error)
    end,
    finished_at = case
      when ending.effect in ('complete', 'discard', 'cancel') or job.cancelling is not null then now()
      when ending.effect = 'fail' and job.attempt >= job.max_attempts then now()
    end,
    completed_by = case when ending.effect = 'complete' and ending.error is null then $1 end,
    lease_until = null,
    locked_by = null,
    cancelling = null
  from ending
  where job.id = ending.id
    and job.run = ending.run
    and job.state = 'running'
    and job.locked_by = $1
  returning job.id, job.kind, job.run, job.state, job.started_at,
    job.attempt + case when ending.effect in ('release', 'snooze', 'cancel') then 1 else 0 end as attempt,
    case when job.state = 'cancelled' then 'cancelled' else ending.outcome end as outcome,
    case when job.state = 'cancelled' then job.error else ending.error end as error
),
-- A completion that has nothing to tell is told by the job's row.
closed as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, $1, started_at, now(), outcome, error
  from settled
  where state <> 'completed' or error is not null
),
-- What was given back can be taken by another worker at once, and so can the slot of a kind that is near its limit. This
-- counts as things stood before: of two that end at once, both tell.
told as (
  select pg_notify('fleet', ended.kind)
  from (select kind, bool_or(state = 'available') as given_back from settled group by kind) as ended
  left join fleet.kinds as steer using (kind)
  where ended.given_back
    or steer.max_running <= 2 * (select count(*) from fleet.jobs where state = 'running' and kind = ended.kind)
)
select settled.id as "id!", settled.run as "run!", settled.state as "state!", (select count(*) from told) as "told!"
from settled
