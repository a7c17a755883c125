-- queue: settle
-- The ends of many runs at once. Only a run that still holds its job may end it: the rows that match no more are
-- stale, and are missing from the answer.
with verdict as (
  select *
  from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::float8[])
    as v (id, run, outcome, effect, error, result, delay)
),
-- Locked in the order of ids, so that two batches never wait for each other in a ring.
held as (
  select job.id
  from fleet.jobs as job
  join verdict using (id, run)
  where job.state = 'running'
    and job.locked_by = $1
  order by job.id
  for update of job
),
settled as (
  update fleet.jobs as job
  set state = case
      when verdict.effect = 'complete' then 'completed'
      when verdict.effect = 'discard' then 'discarded'
      when verdict.effect = 'release' then 'available'
      when verdict.effect = 'snooze' then 'scheduled'
      when job.attempt >= job.max_attempts then 'discarded'
      else 'retryable'
    end,
    attempt = job.attempt - case when verdict.effect in ('release', 'snooze') then 1 else 0 end,
    run_at = case
      when verdict.effect in ('fail', 'snooze') then now() + make_interval(secs => verdict.delay)
      else job.run_at
    end,
    result = verdict.result,
    error = case
      when verdict.effect = 'complete' then null
      else coalesce(verdict.error, job.error)
    end,
    finished_at = case
      when verdict.effect in ('complete', 'discard') then now()
      when verdict.effect = 'fail' and job.attempt >= job.max_attempts then now()
    end,
    lease_until = null,
    locked_by = null
  from verdict
  where job.id = any(array(select id from held))
    and job.id = verdict.id
    and job.run = verdict.run
    and job.state = 'running'
    and job.locked_by = $1
  returning job.id, job.kind, job.run, job.state, verdict.outcome, verdict.error
),
closed as (
  update fleet.job_attempts as attempt
  set finished_at = now(),
    outcome = settled.outcome,
    error = settled.error
  from settled
  where attempt.job_id = settled.id
    and attempt.run = settled.run
),
-- What was given back can be taken by another worker at once.
told as (
  select pg_notify('fleet', kind)
  from settled
  where state = 'available'
  group by kind
)
select settled.id as "id!", settled.run as "run!", settled.state as "state!", (select count(*) from told) as "told!"
from settled
