-- queue: requeue
-- Puts back what is not running and whose key is free; the history keeps who and why, under a fence token of its own, so
-- nothing of an earlier run can still end the job.
with asked as (
  select id, kind, run, attempt, started_at, finished_at, completed_by, key, unique_over is null as usual,
    key is not null and (unique_over is null or 'available' = any(unique_over)) as unique_then
  from fleet.jobs
  where id = any($1)
    and state <> 'running'
  order by id
  for update
),
-- Of those that share a key the newest; none if another job holds it.
free as (
  select id
  from asked
  where not unique_then
    or not exists (
      select
      from fleet.jobs as other
      where other.kind = asked.kind
        and other.key = asked.key
        and other.id <> asked.id
        and (other.unique_over is null) = asked.usual
        and case
          when asked.usual then other.state not in ('cancelled', 'discarded')
          else other.state = any(other.unique_over)
        end
    )
    and not exists (
      select
      from asked as newer
      where newer.unique_then
        and newer.kind = asked.kind
        and newer.key = asked.key
        and newer.usual = asked.usual
        and newer.id > asked.id
    )
),
-- The run that completed a job was told by the job's row, which starts over.
told_by_row as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, started_at, finished_at, outcome)
  select id, run, attempt, kind, completed_by, started_at, finished_at, 'done'
  from asked
  where id in (select id from free)
    and completed_by is not null
),
requeued as (
  update fleet.jobs
  set state = 'available',
    attempt = 0,
    rescues = 0,
    run = run + 1,
    run_at = now(),
    result = null,
    finished_at = null,
    completed_by = null
  where id = any(array(select id from free))
  returning id, kind, run
),
noted as (
  insert into fleet.job_runs (job_id, run, attempt, kind, worker, finished_at, outcome, error)
  select id, run, 0, kind, $2, now(), 'requeued', $3
  from requeued
),
logged as (
  insert into audit.operator_actions (who, action, subject, reason, details)
  select $2, 'requeue', case when count(*) = 1 then 'job ' || min(id) else count(*) || ' jobs' end, $3,
    jsonb_build_object('jobs', jsonb_agg(id order by id), 'kinds', jsonb_agg(distinct kind))
  from requeued
  having count(*) > 0
),
told as (
  select pg_notify('fleet', kind)
  from requeued
  group by kind
)
select id as "id!"
from requeued
cross join (select count(*) from told) as told
order by id
