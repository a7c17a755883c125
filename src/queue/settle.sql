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
  select job.id, job.locked_by, job.cancelling
  from fleet.jobs as job
  join ending using (id, run)
  where job.state = 'running'
    and job.locked_by = $1
  order by job.id
  for update of job
),
-- Work that is done is done; any other end of a job that is to be cancelled cancels it.
decided as (
  select
    ending.*,
    held.locked_by,
    held.cancelling,
    case
      when ending.effect <> 'complete' and (held.cancelling is not null or ending.effect = 'cancel') then 'cancelled'
      when ending.effect = 'complete' then 'completed'
      when ending.effect = 'discard' then 'discarded'
      when ending.effect = 'release' then 'available'
      when ending.effect = 'snooze' then 'scheduled'
    end as state
  from ending
  join held using (id)
),
settled as (
  update fleet.jobs as job
  set state = coalesce(
      decided.state, case when job.attempt >= job.max_attempts then 'discarded' else 'retryable' end),
    attempt = job.attempt - case when decided.effect in ('release', 'snooze', 'cancel') then 1 else 0 end,
    run_at = case
      when decided.effect in ('fail', 'snooze') then now() + make_interval(secs => decided.delay)
      else job.run_at
    end,
    result = decided.result,
    error = case
      when decided.state = 'completed' then null
      when decided.state = 'cancelled' then coalesce(decided.cancelling, decided.error, 'cancelled')
      else coalesce(decided.error, job.error)
    end,
    finished_at = case
      when decided.state in ('completed', 'discarded', 'cancelled') then now()
      when decided.effect = 'fail' and job.attempt >= job.max_attempts then now()
    end,
    lease_until = null,
    locked_by = null,
    cancelling = null
  from decided
  where job.id = decided.id
    and job.run = decided.run
    and job.state = 'running'
    and job.locked_by = $1
  returning job.id, job.kind, job.run, job.state, job.started_at,
    job.attempt + case when decided.effect in ('release', 'snooze', 'cancel') then 1 else 0 end as attempt,
    case when job.state = 'cancelled' then 'cancelled' else decided.outcome end as outcome,
    case when job.state = 'cancelled' then job.error else decided.error end as error
),
closed as (
  insert into fleet.job_attempts (job_id, run, attempt, kind, worker, started_at, finished_at, outcome, error)
  select id, run, attempt, kind, $1, started_at, now(), outcome, error
  from settled
),
-- What was given back can be taken by another worker at once, and so can the slot of a limited kind.
told as (
  select pg_notify('fleet', settled.kind)
  from settled
  left join fleet.kinds as steer using (kind)
  where settled.state = 'available'
    or steer.max_running is not null
  group by settled.kind
)
select settled.id as "id!", settled.run as "run!", settled.state as "state!", (select count(*) from told) as "told!"
from settled
