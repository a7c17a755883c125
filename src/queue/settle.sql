-- queue: settle
-- The ends of many runs at once. Only a run that still holds its job may end it: the rows that match no more are
-- stale, and are missing from the answer.
with ending as (
  select *
  from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::float8[])
    as v (id, run, outcome, effect, error, result, delay)
),
-- Locked in the order of ids, so that two batches never wait for each other in a ring.
held as (
  select job.id
  from fleet.jobs as job
  join ending using (id, run)
  where job.state = 'running'
    and job.locked_by = $1
  order by job.id
  for update of job
),
settled as (
  update fleet.jobs as job
  set state = case
      when ending.effect = 'complete' then 'completed'
      when ending.effect = 'discard' then 'discarded'
      when ending.effect = 'release' then 'available'
      when ending.effect = 'snooze' then 'scheduled'
      when job.attempt >= job.max_attempts then 'discarded'
      else 'retryable'
    end,
    attempt = job.attempt - case when ending.effect in ('release', 'snooze') then 1 else 0 end,
    run_at = case
      when ending.effect in ('fail', 'snooze') then now() + make_interval(secs => ending.delay)
      else job.run_at
    end,
    result = ending.result,
    error = case
      when ending.effect = 'complete' then null
      else coalesce(ending.error, job.error)
    end,
    finished_at = case
      when ending.effect in ('complete', 'discard') then now()
      when ending.effect = 'fail' and job.attempt >= job.max_attempts then now()
    end,
    lease_until = null,
    locked_by = null
  from ending
  where job.id = any(array(select id from held))
    and job.id = ending.id
    and job.run = ending.run
    and job.state = 'running'
    and job.locked_by = $1
  returning job.id, job.kind, job.run, job.state, ending.outcome, ending.error
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
